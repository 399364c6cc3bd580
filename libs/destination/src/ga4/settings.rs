//! What an operator says about one GA4 stream.

use schemars::JsonSchema;
use serde::Deserialize;
use tracklayer_ids::Secret;

use crate::commerce::CONTENT_ID_FROM;
use crate::document::secret_schema;
use crate::unsent::UnsentOrders;

/// Settings of a `ga4_mp` connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Measurement id of a web stream, "G-…". This or `firebase_app_id`.
    #[serde(default)]
    #[schemars(regex(pattern = r"^G-[A-Z0-9]{4,20}$"))]
    pub measurement_id: Option<String>,
    /// Firebase app id of an app stream. This or `measurement_id`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
    pub firebase_app_id: Option<String>,
    /// API secret of the stream.
    #[schemars(schema_with = "secret_schema")]
    pub api_secret: Secret<String>,
    /// Where the API is; `https://region1.google-analytics.com` keeps the data in the EU.
    #[serde(default = "default_base_url")]
    #[schemars(regex(pattern = r"^https?://[^/?#]+(/[^?#]*)?$"))]
    pub base_url: String,
    /// Send hashed e-mail, phone and address as `user_data`.
    #[serde(default)]
    pub send_user_data: bool,
    /// Send the person's address on the network as `ip_override`, from which GA4 tells where the person is; without it, events
    /// have no place.
    #[serde(default)]
    pub send_ip: bool,
    /// Refunds and cancellations of orders that were not sent from here: refuse them, or (where the website's tag reports the
    /// purchases) send what they state themselves.
    #[serde(default)]
    pub unsent_orders: UnsentOrders,
    /// Send events that GA4 has no recommended name for.
    #[serde(default = "yes")]
    pub send_custom_events: bool,
    /// Country of phone numbers that say none (ISO 3166-1 alpha-2).
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Z]{2}$"))]
    pub default_country: Option<String>,
    /// Which property of a product is its item id, in this order.
    #[serde(default = "default_content_id_from")]
    pub content_id_from: Vec<String>,
    /// `engagement_time_msec` of every event; without one, events stay in Realtime only.
    #[serde(default = "default_engagement")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub engagement_time_msec: u32,
}

fn default_base_url() -> String {
    "https://www.google-analytics.com".to_owned()
}

fn default_content_id_from() -> Vec<String> {
    CONTENT_ID_FROM.map(str::to_owned).to_vec()
}

const fn default_engagement() -> u32 {
    100
}

const fn yes() -> bool {
    true
}
