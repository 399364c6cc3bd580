//! What an operator says about one Google Ads account and action.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracklayer_ids::Secret;

use crate::commerce::CONTENT_ID_FROM;
use crate::document::secret_schema;
use crate::google::oauth::OAuthPart;
use crate::unsent::UnsentOrders;

/// Settings of a `google_ads` connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The account that owns the action: ten digits, hyphens allowed.
    #[schemars(regex(pattern = r"^[0-9]{3}-?[0-9]{3}-?[0-9]{4}$"))]
    pub customer_id: String,
    /// The manager account through which access comes.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{3}-?[0-9]{3}-?[0-9]{4}$"))]
    pub login_customer_id: Option<String>,
    /// For partners.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{3}-?[0-9]{3}-?[0-9]{4}$"))]
    pub linked_customer_id: Option<String>,
    /// The conversion action of orders; `event_map` may name others.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{1,20}$"))]
    pub conversion_action_id: Option<String>,
    /// Where access tokens come from.
    pub oauth: OAuthPart,
    /// Developer token. Optional and ignored by Google since September 2026; sent only if given.
    #[serde(default)]
    #[schemars(schema_with = "secret_schema")]
    pub developer_token: Option<Secret<String>>,
    /// Access level of the OAuth client's Cloud project: how many requests Google lets it make within 24 hours. All connections with a
    /// client of that project share them.
    #[serde(default)]
    pub access_level: AccessLevel,
    /// API version.
    #[serde(default = "default_version")]
    #[schemars(regex(pattern = r"^v[0-9]{1,3}$"))]
    pub api_version: String,
    /// Where the API is. Differs only for the sandbox.
    #[serde(default = "default_base_url")]
    #[schemars(regex(pattern = r"^https?://[^/?#]+(/[^?#]*)?$"))]
    pub base_url: String,
    /// Upload conversions, or add identifiers to those that the tag reported.
    #[serde(default)]
    pub mode: UploadMode,
    /// Refunds, cancellations and new values of orders that were not sent from here: refuse them, or send what they state
    /// themselves. With `mode` `enhancement` they are always sent: the tag reported the order.
    #[serde(default)]
    pub unsent_orders: UnsentOrders,
    /// Country of phone numbers and addresses that say none (ISO 3166-1 alpha-2).
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Z]{2}$"))]
    pub default_country: Option<String>,
    /// Merchant Center id: cart data goes out only with one.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{1,18}$"))]
    pub merchant_id: Option<String>,
    /// Country of the Merchant Center feed.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Z]{2}$"))]
    pub feed_country: Option<String>,
    /// Language of the Merchant Center feed.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z]{2}$"))]
    pub feed_language: Option<String>,
    /// Which property of a product is its id in Merchant Center, in this order.
    #[serde(default = "default_content_id_from")]
    pub content_id_from: Vec<String>,
}

/// Access level of a Cloud project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessLevel {
    /// 2,880 operations a day.
    Explorer,
    /// 15,000 operations a day.
    Basic,
    /// No limit of a day. Where the project has another level that nobody has said, Google's refusal tells.
    #[default]
    Standard,
}

impl AccessLevel {
    /// Requests within any 24 hours: an upload is one operation, however many conversions it has. Sources: Google Ads API, "Access
    /// levels" ("per day" is a sliding period of 24 hours), "Rate sheet" (what is neither a query nor a mutate is one operation);
    /// 2026-11.
    #[must_use]
    pub const fn requests_per_day(self) -> Option<u32> {
        match self {
            Self::Explorer => Some(2_880),
            Self::Basic => Some(15_000),
            Self::Standard => None,
        }
    }
}

/// What is uploaded for a purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadMode {
    /// Click conversions (`uploadClickConversions`).
    #[default]
    Conversion,
    /// Enhanced conversions for web (`uploadConversionAdjustments`, ENHANCEMENT).
    Enhancement,
}

fn default_version() -> String {
    // Newest in November 2026. Source: ads-developers blog, "Google Ads API v26"; 2026-10.
    "v26".to_owned()
}

fn default_base_url() -> String {
    "https://googleads.googleapis.com".to_owned()
}

fn default_content_id_from() -> Vec<String> {
    CONTENT_ID_FROM.map(str::to_owned).to_vec()
}
