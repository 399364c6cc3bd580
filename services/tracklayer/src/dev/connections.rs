//! The connections of the sample workspace: three ad platforms and a webhook, all in the sandbox.

use serde_json::{Value, json};
use tracklayer_sandbox::{Sandbox, options};

/// (name, document) of each.
#[must_use]
pub fn sample(sandbox: &Sandbox) -> Vec<(String, Value)> {
    vec![
        (
            "meta".to_owned(),
            json!({
                "kind": "meta_capi", "mode": "live",
                "settings": {
                    "dataset_id": options::META_DATASET, "access_token": options::META_TOKEN,
                    "base_url": sandbox.meta_url(),
                },
            }),
        ),
        (
            "google".to_owned(),
            json!({
                "kind": "google_data_manager", "mode": "live",
                "settings": {
                    "operating_account": { "account_id": options::GOOGLE_CUSTOMER },
                    "login_account": { "account_id": options::GOOGLE_LOGIN_CUSTOMER },
                    "conversion_action_id": options::GOOGLE_CONVERSION_ACTION,
                    "oauth": {
                        "client_id": options::GOOGLE_CLIENT_ID, "client_secret": options::GOOGLE_CLIENT_SECRET,
                        "refresh_token": options::GOOGLE_REFRESH_TOKEN, "token_url": sandbox.google_token_url(),
                    },
                    "base_url": sandbox.data_manager_url(),
                },
            }),
        ),
        (
            "tiktok".to_owned(),
            json!({
                "kind": "tiktok_events", "mode": "live",
                "settings": {
                    "event_source_id": options::TIKTOK_PIXEL, "access_token": options::TIKTOK_TOKEN,
                    "base_url": sandbox.tiktok_url(),
                },
            }),
        ),
        (
            "crm-webhook".to_owned(),
            json!({
                "kind": "webhook", "mode": "live",
                "settings": {
                    "url": sandbox.webhook_url("crm"), "secret": options::WEBHOOK_SECRET,
                },
            }),
        ),
    ]
}

/// Google by the Ads API, which has no limit of requests a minute.
#[must_use]
pub fn google_ads(sandbox: &Sandbox) -> Value {
    json!({
        "kind": "google_ads", "mode": "live",
        "settings": {
            "customer_id": options::GOOGLE_CUSTOMER, "login_customer_id": options::GOOGLE_LOGIN_CUSTOMER,
            "conversion_action_id": options::GOOGLE_CONVERSION_ACTION,
            "oauth": {
                "client_id": options::GOOGLE_CLIENT_ID, "client_secret": options::GOOGLE_CLIENT_SECRET,
                "refresh_token": options::GOOGLE_REFRESH_TOKEN, "token_url": sandbox.google_token_url(),
            },
            "base_url": sandbox.google_ads_url(),
        },
    })
}
