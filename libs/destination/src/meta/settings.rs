//! What an operator says about one Meta dataset.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracklayer_ids::Secret;

use crate::commerce::CONTENT_ID_FROM;
use crate::document::secret_schema;

/// The newest Graph version that the connector was written against. Source: Meta, docs/graph-api/changelog; 2026-11.
pub const DEFAULT_VERSION: &str = "v26.0";

/// Settings of a `meta_capi` connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Dataset (pixel) id: digits.
    #[schemars(regex(pattern = r"^[0-9]{1,32}$"))]
    pub dataset_id: String,
    /// Access token of a system user or of the dataset.
    #[schemars(schema_with = "secret_schema")]
    pub access_token: Secret<String>,
    /// App secret, where the app demands `appsecret_proof`.
    #[serde(default)]
    #[schemars(schema_with = "secret_schema")]
    pub app_secret: Option<Secret<String>>,
    /// Graph API version.
    #[serde(default = "default_version")]
    #[schemars(regex(pattern = r"^v[0-9]{1,3}\.[0-9]$"))]
    pub api_version: String,
    /// Where the API is. Differs only for the sandbox.
    #[serde(default = "default_base_url")]
    #[schemars(regex(pattern = r"^https?://[^/?#]+(/[^?#]*)?$"))]
    pub base_url: String,
    /// Shows the events under Test Events. Not a dry run: they count.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
    pub test_event_code: Option<String>,
    /// Who sends, 2 to 22 characters.
    #[serde(default)]
    #[schemars(length(min = 2, max = 22))]
    pub partner_agent: Option<String>,
    /// action_source of events that say nothing about it.
    #[serde(default)]
    pub default_action_source: ActionSource,
    /// Which property of a product is its content id, in this order.
    #[serde(default = "default_content_id_from")]
    pub content_id_from: Vec<String>,
    /// Country of phone numbers and addresses that say none (ISO 3166-1 alpha-2).
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Z]{2}$"))]
    pub default_country: Option<String>,
    /// Restriction beyond what consent decides. Can only add.
    #[serde(default)]
    pub ldu: Option<Ldu>,
    /// Meta has no refunds: skip them, or send an event of one's own.
    #[serde(default)]
    pub refunds: Refunds,
    /// Name of that event; not `Purchase`, which would count each refund as one more sale.
    #[serde(default = "default_refund_event_name")]
    #[schemars(length(min = 1, max = 50))]
    pub refund_event_name: String,
    /// Refuse website events without user agent. Default: send them with a warning.
    #[serde(default)]
    pub require_user_agent: bool,
    /// Send other plain properties as custom ones, personal data stripped.
    #[serde(default)]
    pub custom_data_passthrough: bool,
    /// Send events that Meta has no standard name for.
    #[serde(default = "yes")]
    pub send_custom_events: bool,
}

/// Where a conversion happened. Source: Meta, "Server Event Parameters", action_source; 2026-02.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionSource {
    /// By e-mail.
    Email,
    /// On a website.
    #[default]
    Website,
    /// In an app.
    App,
    /// By phone.
    PhoneCall,
    /// In a chat.
    Chat,
    /// In a shop.
    PhysicalStore,
    /// By a machine: a subscription's renewal.
    SystemGenerated,
    /// From Messenger, Instagram, WhatsApp.
    BusinessMessaging,
    /// Otherwise.
    Other,
}

impl ActionSource {
    /// Every source.
    pub const ALL: [Self; 9] = [
        Self::Email,
        Self::Website,
        Self::App,
        Self::PhoneCall,
        Self::Chat,
        Self::PhysicalStore,
        Self::SystemGenerated,
        Self::BusinessMessaging,
        Self::Other,
    ];

    /// Meta's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Website => "website",
            Self::App => "app",
            Self::PhoneCall => "phone_call",
            Self::Chat => "chat",
            Self::PhysicalStore => "physical_store",
            Self::SystemGenerated => "system_generated",
            Self::BusinessMessaging => "business_messaging",
            Self::Other => "other",
        }
    }

    /// The source of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == word)
    }
}

/// Limited Data Use beyond what consent decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Ldu {
    /// For every event, with this place (0 and 0: Meta looks where the address is).
    Place(LduPlace),
    /// `off`: says explicitly that data use is not limited, unless consent or the event limits it.
    Word(LduWord),
}

/// A word instead of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LduWord {
    /// An explicit empty list.
    Off,
}

/// Meta's numbers of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LduPlace {
    /// 1 USA, 0 Meta geolocates.
    #[schemars(range(min = 0, max = 1))]
    pub country: u16,
    /// 1000 to 1013, 0 Meta geolocates.
    #[schemars(range(min = 0, max = 1013))]
    pub state: u16,
}

/// What to do with refunds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refunds {
    /// Refuse them as `event_not_supported`.
    #[default]
    Skip,
    /// Send an event of one's own with the absolute amount; it lowers no reported purchase.
    CustomEvent,
}

fn default_version() -> String {
    DEFAULT_VERSION.to_owned()
}

fn default_base_url() -> String {
    "https://graph.facebook.com".to_owned()
}

fn default_content_id_from() -> Vec<String> {
    CONTENT_ID_FROM.map(str::to_owned).to_vec()
}

fn default_refund_event_name() -> String {
    "OrderRefunded".to_owned()
}

const fn yes() -> bool {
    true
}
