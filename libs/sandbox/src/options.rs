//! What the sandbox knows beforehand: credentials, accounts and how strict it is. The defaults are made up,
//! documented here and the same everywhere, so that a sample workspace can name them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;

/// Meta's token.
pub const META_TOKEN: &str = "sandbox-meta-token";
/// Meta's dataset (pixel).
pub const META_DATASET: &str = "1234567890123456";
/// TikTok's token.
pub const TIKTOK_TOKEN: &str = "sandbox-tiktok-token";
/// TikTok's pixel, for `event_source` web.
pub const TIKTOK_PIXEL: &str = "C0SANDBOXPIXEL";
/// TikTok's CRM event set.
pub const TIKTOK_CRM_SET: &str = "7000000000000000001";
/// TikTok's offline event set.
pub const TIKTOK_OFFLINE_SET: &str = "7000000000000000002";
/// TikTok's app.
pub const TIKTOK_APP: &str = "7000000000000000003";
/// Google's OAuth client.
pub const GOOGLE_CLIENT_ID: &str = "sandbox-client-id";
/// Its secret.
pub const GOOGLE_CLIENT_SECRET: &str = "sandbox-client-secret";
/// A refresh token for both scopes, `adwords` and `datamanager`.
pub const GOOGLE_REFRESH_TOKEN: &str = "sandbox-refresh-token";
/// A refresh token for `adwords` alone: fails at Data Manager.
pub const GOOGLE_ADS_ONLY_REFRESH_TOKEN: &str = "sandbox-refresh-token-adwords";
/// An access token for both scopes that never expires, for tests without the token endpoint.
pub const GOOGLE_ACCESS_TOKEN: &str = "sandbox-google-access-token";
/// Google Ads customer that the user reaches directly and through the manager.
pub const GOOGLE_CUSTOMER: &str = "1234567890";
/// Manager account (`login-customer-id`).
pub const GOOGLE_LOGIN_CUSTOMER: &str = "1112223333";
/// Google Ads customer that is reached only through the manager.
pub const GOOGLE_MANAGED_CUSTOMER: &str = "2223334444";
/// Conversion action of type `UPLOAD_CLICKS`.
pub const GOOGLE_CONVERSION_ACTION: &str = "987654321";
/// Conversion action of type `WEBPAGE`.
pub const GOOGLE_WEBPAGE_ACTION: &str = "987654322";
/// GA4 measurement id.
pub const GA4_MEASUREMENT_ID: &str = "G-SANDBOX001";
/// Its secret.
pub const GA4_API_SECRET: &str = "sandbox-api-secret";
/// Secret of any webhook that has none of its own: `whsec_` and base64 of 32 bytes.
pub const WEBHOOK_SECRET: &str = "whsec_c2FuZGJveC13ZWJob29rLXNlY3JldC0zMi1ieXRlcyE=";

/// Scope of the Google Ads API.
pub const ADWORDS_SCOPE: &str = "https://www.googleapis.com/auth/adwords";
/// Scope of the Data Manager API.
pub const DATAMANAGER_SCOPE: &str = "https://www.googleapis.com/auth/datamanager";

/// What the sandbox knows and how strict it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The time.
    pub clock: Clock,
    /// Whether every counted body is kept; otherwise the newest 10,000 of each platform.
    pub keep_bodies: bool,
    /// How many requests are kept for inspection.
    pub keep_requests: usize,
    /// Meta.
    pub meta: MetaOptions,
    /// TikTok.
    pub tiktok: TikTokOptions,
    /// Google: OAuth, Ads, Data Manager.
    pub google: GoogleOptions,
    /// GA4: measurement id → API secret.
    pub ga4: BTreeMap<String, String>,
    /// Webhooks.
    pub webhook: WebhookOptions,
}

/// Meta's side.
#[derive(Debug, Clone)]
pub struct MetaOptions {
    /// Token → datasets that are shared with it.
    pub tokens: BTreeMap<String, Vec<String>>,
    /// App secret; where set, `appsecret_proof` is demanded.
    pub app_secret: Option<String>,
    /// Versions that answer.
    pub versions: Vec<String>,
    /// Refuse website events without URL or user agent, which Meta was seen to accept.
    pub require_website_fields: bool,
    /// What a pixel in browsers sends beside the server; none: nobody has one, and nothing is said of deduplication.
    pub pixel: Option<PixelOptions>,
}

/// A pixel in browsers, as the Dataset Quality API speaks of it. The stand-in sees no browsers: the figures are what it is told here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelOptions {
    /// How many of its events have an event id, percent.
    pub with_event_id: f64,
    /// For how many of them the server sends an event with the same id, percent.
    pub shared: f64,
}

/// TikTok's side.
#[derive(Debug, Clone)]
pub struct TikTokOptions {
    /// Token → sources: (`event_source`, `event_source_id`).
    pub tokens: BTreeMap<String, Vec<(String, String)>>,
    /// Oldest event taken. TikTok's material differs: 7 or 28 days.
    pub max_age: Duration,
    /// Largest body taken; above it 413.
    pub max_body: usize,
    /// Refuse web and app events that nobody could be matched by.
    pub require_match_key: bool,
}

/// Google's side.
#[derive(Debug, Clone)]
pub struct GoogleOptions {
    /// OAuth client id → secret.
    pub clients: BTreeMap<String, String>,
    /// Refresh token → scopes.
    pub refresh_tokens: BTreeMap<String, Vec<String>>,
    /// Access tokens that are good without the token endpoint → scopes.
    pub access_tokens: BTreeMap<String, Vec<String>>,
    /// How long an access token lives.
    pub token_life: Duration,
    /// Ads API versions that answer.
    pub versions: Vec<u32>,
    /// Customers.
    pub customers: Vec<Customer>,
    /// Clicks whose time is known; of any other click nothing is known, and it is accepted.
    pub clicks: BTreeMap<String, Timestamp>,
    /// Refuse clicks that are not in `clicks` with `CLICK_NOT_FOUND`.
    pub only_known_clicks: bool,
    /// The project is a newcomer: click uploads are refused.
    pub new_adopter: NewAdopter,
    /// The project may send IP addresses and session attributes to the Ads API.
    pub allowlisted: bool,
    /// Data Manager: how long until a request's verdict is there.
    pub verdict_after: Duration,
    /// Data Manager: requests a minute.
    pub requests_per_minute: u32,
}

/// Whether, and how, click uploads of a newcomer are refused: which of the two Google does is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewAdopter {
    /// An established project.
    No,
    /// Refused with 403.
    Request,
    /// Refused item by item in a 200.
    Item,
}

/// A Google Ads customer.
#[derive(Debug, Clone)]
pub struct Customer {
    /// Ten digits.
    pub id: String,
    /// The manager accounts through which it is reached.
    pub managers: Vec<String>,
    /// Whether the user reaches it without a manager, too.
    pub direct: bool,
    /// Its conversion actions.
    pub actions: Vec<ConversionAction>,
}

/// A conversion action.
#[derive(Debug, Clone)]
pub struct ConversionAction {
    /// Digits.
    pub id: String,
    /// What it counts.
    pub kind: ActionKind,
    /// When it was made; uploads are refused for six hours.
    pub created: Timestamp,
    /// Whether it counts one conversion per click: takes no gbraid or wbraid then.
    pub one_per_click: bool,
    /// How long after the click a conversion counts.
    pub lookback: Duration,
}

/// The type of a conversion action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// Imported from clicks.
    UploadClicks,
    /// Counted by the tag on the website.
    Webpage,
}

/// Webhooks.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// Name → secrets; several while a secret is being rotated.
    pub secrets: BTreeMap<String, Vec<String>>,
    /// The secret of every other name; none: other names answer 404.
    pub default_secret: Option<String>,
    /// How far the timestamp may be from now.
    pub tolerance: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            keep_bodies: false,
            keep_requests: 1_000,
            meta: MetaOptions::default(),
            tiktok: TikTokOptions::default(),
            google: GoogleOptions::default(),
            ga4: BTreeMap::from([(GA4_MEASUREMENT_ID.to_owned(), GA4_API_SECRET.to_owned())]),
            webhook: WebhookOptions::default(),
        }
    }
}

impl Default for MetaOptions {
    fn default() -> Self {
        Self {
            tokens: BTreeMap::from([(META_TOKEN.to_owned(), vec![META_DATASET.to_owned()])]),
            app_secret: None,
            // v21.0 ends on 2027-01-21. Source: Meta, Graph API changelog; 2026-11.
            versions: ["v21.0", "v22.0", "v23.0", "v24.0", "v25.0", "v26.0"].map(str::to_owned).to_vec(),
            require_website_fields: false,
            pixel: None,
        }
    }
}

impl Default for TikTokOptions {
    fn default() -> Self {
        let sources = [
            ("web", TIKTOK_PIXEL),
            ("crm", TIKTOK_CRM_SET),
            ("offline", TIKTOK_OFFLINE_SET),
            ("app", TIKTOK_APP),
        ];
        let sources = sources.map(|(source, id)| (source.to_owned(), id.to_owned())).to_vec();
        Self {
            tokens: BTreeMap::from([(TIKTOK_TOKEN.to_owned(), sources)]),
            max_age: 7 * DAY,
            // "Stay under 1 MB". Source: Tealium, TikTok Events connector; 2026-11.
            max_body: 1_048_576,
            require_match_key: true,
        }
    }
}

impl Default for GoogleOptions {
    fn default() -> Self {
        let both = vec![ADWORDS_SCOPE.to_owned(), DATAMANAGER_SCOPE.to_owned()];
        let actions = vec![
            ConversionAction::new(GOOGLE_CONVERSION_ACTION, ActionKind::UploadClicks),
            ConversionAction::new(GOOGLE_WEBPAGE_ACTION, ActionKind::Webpage),
        ];
        let managers = vec![GOOGLE_LOGIN_CUSTOMER.to_owned()];
        Self {
            clients: BTreeMap::from([(GOOGLE_CLIENT_ID.to_owned(), GOOGLE_CLIENT_SECRET.to_owned())]),
            refresh_tokens: BTreeMap::from([
                (GOOGLE_REFRESH_TOKEN.to_owned(), both.clone()),
                (GOOGLE_ADS_ONLY_REFRESH_TOKEN.to_owned(), vec![ADWORDS_SCOPE.to_owned()]),
            ]),
            access_tokens: BTreeMap::from([(GOOGLE_ACCESS_TOKEN.to_owned(), both)]),
            token_life: Duration::from_secs(3_599),
            // v20 to v22 ended between 2026-06 and 2026-10. Source: Google Ads API, deprecations; 2026-11.
            versions: vec![23, 24, 25, 26],
            customers: vec![
                Customer {
                    id: GOOGLE_CUSTOMER.to_owned(),
                    managers: managers.clone(),
                    direct: true,
                    actions: actions.clone(),
                },
                Customer { id: GOOGLE_MANAGED_CUSTOMER.to_owned(), managers, direct: false, actions },
            ],
            clicks: BTreeMap::new(),
            only_known_clicks: false,
            new_adopter: NewAdopter::No,
            allowlisted: false,
            // First look after 30 minutes. Source: Google, Data Manager API, Diagnostics; 2026-11.
            verdict_after: Duration::from_secs(30 * 60),
            requests_per_minute: 300,
        }
    }
}

impl ConversionAction {
    /// An action of that kind that was made long ago, counts every conversion, and looks back 90 days.
    pub fn new(id: &str, kind: ActionKind) -> Self {
        Self {
            id: id.to_owned(),
            kind,
            created: Timestamp::UNIX_EPOCH,
            one_per_click: false,
            lookback: 90 * DAY,
        }
    }
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            secrets: BTreeMap::new(),
            default_secret: Some(WEBHOOK_SECRET.to_owned()),
            // Source: Standard Webhooks, "Verifying signatures" (the reference libraries' five minutes);
            // 2026-11.
            tolerance: Duration::from_secs(5 * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn the_default_webhook_secret_has_the_size_that_the_standard_asks_for() {
        let secret = WEBHOOK_SECRET.strip_prefix("whsec_").unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(secret).unwrap();
        assert!((24..=64).contains(&bytes.len()));
    }
}
