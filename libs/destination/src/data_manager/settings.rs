//! What an operator says about one Google Ads account and action, reached by the Data Manager API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commerce::CONTENT_ID_FROM;
use crate::google::oauth::OAuthPart;
use crate::unsent::UnsentOrders;

/// Settings of a `google_data_manager` connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The account that owns the action.
    pub operating_account: Account,
    /// The account through which access comes.
    #[serde(default)]
    pub login_account: Option<Account>,
    /// For partners.
    #[serde(default)]
    pub linked_account: Option<Account>,
    /// The conversion action of orders (productDestinationId); `event_map` may name others.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{1,20}$"))]
    pub conversion_action_id: Option<String>,
    /// Where access tokens come from.
    pub oauth: OAuthPart,
    /// Where the API is. Differs only for the sandbox.
    #[serde(default = "default_base_url")]
    #[schemars(regex(pattern = r"^https?://[^/?#]+(/[^?#]*)?$"))]
    pub base_url: String,
    /// Put before every transaction id: Google refuses purely numeric ones. Leave it out where a tag reports the same order.
    #[serde(default)]
    #[schemars(length(max = 40))]
    pub transaction_id_prefix: String,
    /// Refunds, cancellations and new values of orders that were not sent from here: refuse them, or send what they state
    /// themselves. Where no other source reports the order, what is sent counts as one more.
    #[serde(default)]
    pub unsent_orders: UnsentOrders,
    /// Where events happen that say nothing about it.
    #[serde(default)]
    pub event_source: EventSource,
    /// Send the browser's user agent and the person's address on the network as `eventDeviceInfo`.
    #[serde(default)]
    pub send_device_info: bool,
    /// Country of phone numbers and addresses that say none (ISO 3166-1 alpha-2).
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Z]{2}$"))]
    pub default_country: Option<String>,
    /// Merchant Center id: cart data goes out only with one.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{1,18}$"))]
    pub merchant_id: Option<String>,
    /// Label of the Merchant Center feed.
    #[serde(default)]
    #[schemars(length(min = 1, max = 20))]
    pub feed_label: Option<String>,
    /// Language of the Merchant Center feed.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z]{2}$"))]
    pub feed_language: Option<String>,
    /// Which property of a product is its id in Merchant Center, in this order.
    #[serde(default = "default_content_id_from")]
    pub content_id_from: Vec<String>,
    /// Events of one request, 1 to 2,000. Google judges later and by counts only: small requests tell more.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 2000))]
    pub batch_size: u16,
    /// Requests a minute that Google lets the Cloud project of the OAuth client make, 1 to 1,000,000. All connections with a client of that
    /// project share them.
    #[serde(default = "default_requests_per_minute")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_minute: u32,
    /// Likewise within 24 hours, 1 to 1,000,000,000.
    #[serde(default = "default_requests_per_day")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_day: u32,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Of which product.
    #[serde(default)]
    pub account_type: AccountType,
    /// Its id: digits, hyphens allowed.
    #[schemars(regex(pattern = r"^[0-9][0-9-]{0,30}$"))]
    pub account_id: String,
}

/// Product of an account. Source: `google-ads-datamanager` 0.9.4, `ProductAccount.AccountType`; 2026-11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccountType {
    /// Google Ads.
    #[default]
    GoogleAds,
    /// Display & Video 360 partner.
    DisplayVideoPartner,
    /// Display & Video 360 advertiser.
    DisplayVideoAdvertiser,
    /// Data partner.
    DataPartner,
    /// Analytics property.
    GoogleAnalyticsProperty,
}

/// Where a conversion happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventSource {
    /// On a website.
    #[default]
    Web,
    /// In an app.
    App,
    /// In a shop.
    InStore,
    /// By phone.
    Phone,
    /// By message.
    Message,
    /// Otherwise.
    Other,
}

impl EventSource {
    /// Google's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "WEB",
            Self::App => "APP",
            Self::InStore => "IN_STORE",
            Self::Phone => "PHONE",
            Self::Message => "MESSAGE",
            Self::Other => "OTHER",
        }
    }
}

fn default_base_url() -> String {
    "https://datamanager.googleapis.com".to_owned()
}

fn default_content_id_from() -> Vec<String> {
    CONTENT_ID_FROM.map(str::to_owned).to_vec()
}

const fn default_batch_size() -> u16 {
    2_000
}

const fn default_requests_per_minute() -> u32 {
    super::REQUESTS_PER_MINUTE
}

const fn default_requests_per_day() -> u32 {
    super::REQUESTS_PER_DAY
}
