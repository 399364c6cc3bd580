//! What an operator says about one receiver.

use schemars::JsonSchema;
use serde::Deserialize;
use tracklayer_ids::Secret;

use crate::document::secret_schema;

/// Settings of a `webhook` connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to post. Private addresses are refused by the lane unless an operator allows the range.
    #[schemars(regex(pattern = r"^https?://[^/?#\s]+([/?][^#\s]*)?$"))]
    pub url: String,
    /// Signing secret: `whsec_` and base64, or any text.
    #[schemars(schema_with = "secret_schema")]
    pub secret: Secret<String>,
    /// A whole `Authorization` header, where the receiver wants one.
    #[serde(default)]
    #[schemars(schema_with = "secret_schema")]
    pub authorization: Option<Secret<String>>,
}
