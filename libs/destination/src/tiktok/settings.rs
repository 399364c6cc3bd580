//! What an operator says about one TikTok event source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracklayer_ids::Secret;

use crate::commerce::CONTENT_ID_FROM;
use crate::document::secret_schema;

/// Settings of a `tiktok_events` connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What kind of source the id names.
    #[serde(default)]
    pub event_source: EventSource,
    /// Pixel code, app id, offline event set id or CRM event set id.
    #[schemars(length(min = 1, max = 100))]
    pub event_source_id: String,
    /// Access token from Events Manager or of a developer app.
    #[schemars(schema_with = "secret_schema")]
    pub access_token: Secret<String>,
    /// Where the API is. Differs only for the sandbox.
    #[serde(default = "default_base_url")]
    #[schemars(regex(pattern = r"^https?://[^/?#]+(/[^?#]*)?$"))]
    pub base_url: String,
    /// TikTok's name of a purchase; must be the pixel's, or the two cannot be deduplicated.
    #[serde(default)]
    pub purchase_event: PurchaseEvent,
    /// Stands in where a web event has no page address, which TikTok requires.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://"))]
    pub default_page_url: Option<String>,
    /// Send events that TikTok has no standard name for.
    #[serde(default)]
    pub send_custom_events: bool,
    /// Shows the events under Test Events and does not process them.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
    pub test_event_code: Option<String>,
    /// Which property of a product is its content id, in this order.
    #[serde(default = "default_content_id_from")]
    pub content_id_from: Vec<String>,
    /// Country of phone numbers and addresses that say none (ISO 3166-1 alpha-2).
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Z]{2}$"))]
    pub default_country: Option<String>,
    /// Lower-case external_id before hashing, where the pixel does.
    #[serde(default)]
    pub external_id_lower_case: bool,
    /// Oldest event in days. TikTok's sources differ between 7 and 28.
    #[serde(default = "default_max_age")]
    #[schemars(range(min = 1, max = 28))]
    pub max_event_age_days: u8,
    /// Limit data use of every event. Can only add to what consent decides.
    #[serde(default)]
    pub limited_data_use: bool,
    /// The app's id, for `app` sources whose events do not say it.
    #[serde(default)]
    pub app_id: Option<String>,
}

/// Kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventSource {
    /// A website's pixel.
    #[default]
    Web,
    /// An app.
    App,
    /// A shop.
    Offline,
    /// A CRM's leads.
    Crm,
}

impl EventSource {
    /// TikTok's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::App => "app",
            Self::Offline => "offline",
            Self::Crm => "crm",
        }
    }
}

/// Name of a purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PurchaseEvent {
    /// The name since May 2025.
    #[default]
    Purchase,
    /// The old name, which TikTok converts.
    CompletePayment,
}

impl PurchaseEvent {
    /// TikTok's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "Purchase",
            Self::CompletePayment => "CompletePayment",
        }
    }
}

fn default_base_url() -> String {
    "https://business-api.tiktok.com".to_owned()
}

fn default_content_id_from() -> Vec<String> {
    CONTENT_ID_FROM.map(str::to_owned).to_vec()
}

const fn default_max_age() -> u8 {
    7
}
