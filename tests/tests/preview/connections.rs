//! A connection of each kind, all of them to the sandbox by way of a recorder.

use serde_json::{Value, json};
use tracklayer_sandbox::options;
use tracklayer_tests::{Recorder, Running, eventually};

/// A connection under test.
pub struct Tried {
    /// Its name.
    pub name: &'static str,
    /// Its document, secrets included.
    pub document: Value,
    /// What the addresses of its requests begin with.
    pub base: String,
    /// Its number and which change of it this is, once it is put.
    pub id: i64,
    pub revision: u64,
}

impl Tried {
    fn new(name: &'static str, document: Value) -> Self {
        let settings = &document["settings"];
        let base = settings.get("base_url").or_else(|| settings.get("url")).unwrap();
        let base = base.as_str().unwrap().to_owned();
        Self { name, document, base, id: 0, revision: 0 }
    }

    /// Whether its access tokens come from a token endpoint.
    pub fn has_oauth(&self) -> bool {
        self.document["settings"].get("oauth").is_some()
    }
}

fn documents(platform: &Running, recorder: &Recorder) -> Vec<Tried> {
    let (sandbox, recorded) = (&platform.addresses().sandbox, recorder.url());
    let oauth = json!({
        "client_id": options::GOOGLE_CLIENT_ID, "client_secret": options::GOOGLE_CLIENT_SECRET,
        "refresh_token": options::GOOGLE_REFRESH_TOKEN, "token_url": format!("{sandbox}/google-oauth/token"),
    });
    vec![
        Tried::new(
            "meta",
            json!({
                "kind": "meta_capi", "mode": "live",
                "settings": {
                    "dataset_id": options::META_DATASET, "access_token": options::META_TOKEN,
                    "base_url": format!("{recorded}/meta"), "test_event_code": "TEST48213", "partner_agent": "tracklayer",
                    "default_country": "DE", "custom_data_passthrough": true,
                },
                "event_map": { "Wishlist Shared": "Lead" },
                "field_map": { "custom_data.tier": "properties.tier" },
                "event_filter": { "exclude": ["Product List Viewed"] },
            }),
        ),
        Tried::new(
            "google",
            json!({
                "kind": "google_data_manager", "mode": "live",
                "settings": {
                    "operating_account": { "account_id": options::GOOGLE_CUSTOMER },
                    "login_account": { "account_id": options::GOOGLE_LOGIN_CUSTOMER },
                    "conversion_action_id": options::GOOGLE_CONVERSION_ACTION, "oauth": oauth,
                    "base_url": format!("{recorded}/data-manager"), "batch_size": 150,
                },
                "event_filter": { "include": ["Order Completed", "Order Refunded", "Order Cancelled"] },
            }),
        ),
        Tried::new(
            "google-ads",
            json!({
                "kind": "google_ads", "mode": "live",
                "settings": {
                    "customer_id": options::GOOGLE_CUSTOMER, "login_customer_id": options::GOOGLE_LOGIN_CUSTOMER,
                    "conversion_action_id": options::GOOGLE_CONVERSION_ACTION, "oauth": oauth,
                    "base_url": format!("{recorded}/google-ads"),
                },
                "event_filter": { "include": ["Order Completed", "Order Refunded", "Order Cancelled"] },
            }),
        ),
        Tried::new(
            "ga4",
            json!({
                "kind": "ga4_mp", "mode": "live",
                "settings": {
                    "measurement_id": options::GA4_MEASUREMENT_ID, "api_secret": options::GA4_API_SECRET,
                    "base_url": format!("{recorded}/ga4"), "send_user_data": true, "send_ip": true,
                },
                "field_map": { "client_id": "context.ga.client_id" },
            }),
        ),
        Tried::new(
            "tiktok",
            json!({
                "kind": "tiktok_events", "mode": "live",
                "settings": {
                    "event_source_id": options::TIKTOK_PIXEL, "access_token": options::TIKTOK_TOKEN,
                    "base_url": format!("{recorded}/tiktok"), "send_custom_events": true,
                },
            }),
        ),
        Tried::new(
            "crm-webhook",
            json!({
                "kind": "webhook", "mode": "live",
                "settings": {
                    "url": format!("{recorded}/webhook/crm"), "secret": options::WEBHOOK_SECRET,
                    "authorization": "Basic cHJldmlldzpwcmV2aWV3",
                },
            }),
        ),
    ]
}

/// Puts them all, and pauses them: what is sent then waits.
pub async fn put_and_pause(platform: &Running, recorder: &Recorder) -> Vec<Tried> {
    let mut all = documents(platform, recorder);
    for tried in &mut all {
        let file = platform.data_dir().join(format!("{}.json", tried.name));
        std::fs::write(&file, tried.document.to_string()).unwrap();
        let file = file.display().to_string();
        platform.cli(&["connections", "put", tried.name, &file]).await.unwrap();
        let paused =
            platform.cli_json(&["connections", "pause", tried.name, "--reason", "preview"]).await.unwrap();
        tried.id = paused[0]["connection_id"].as_i64().unwrap();
        tried.revision = paused[0]["revision"].as_u64().unwrap();
        platform.cli(&["connections", "pace", tried.name, "--events-per-second", "0"]).await.unwrap();
    }
    eventually("all connections to be paused", async || {
        let stats = platform.cli_json(&["stats"]).await?;
        for tried in &all {
            let health = stats["connections"][tried.name]["health"].as_str().unwrap_or_default();
            anyhow::ensure!(health.starts_with("paused"), "{}: {health}", tried.name);
        }
        Ok(())
    })
    .await;
    all
}

/// Lets one go on.
pub async fn resume(platform: &Running, name: &str) {
    platform.cli(&["connections", "resume", name]).await.unwrap();
}
