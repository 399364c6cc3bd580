//! What each platform was told of an order, as it came there.

use serde_json::{Value, json};
use tracklayer_sandbox::{Platform, SeenRequest, options};
use tracklayer_tests::Running;

/// A connection, and the platform behind it.
pub struct Kind {
    pub connection: &'static str,
    pub kind: &'static str,
    pub platform: Platform,
}

/// Those that take conversions.
pub const KINDS: [Kind; 6] = [
    Kind { connection: "google", kind: "google_data_manager", platform: Platform::DataManager },
    Kind { connection: "ads", kind: "google_ads", platform: Platform::GoogleAds },
    Kind { connection: "ga4", kind: "ga4_mp", platform: Platform::Ga4 },
    Kind { connection: "meta", kind: "meta_capi", platform: Platform::Meta },
    Kind { connection: "tiktok", kind: "tiktok_events", platform: Platform::TikTok },
    Kind { connection: "crm-webhook", kind: "webhook", platform: Platform::Webhook },
];

impl Kind {
    /// Whether something can be taken off a purchase there.
    pub fn takes_refunds(&self) -> bool {
        matches!(self.platform, Platform::DataManager | Platform::GoogleAds | Platform::Ga4)
    }

    /// The connection's document.
    pub fn document(&self, platform: &Running, value_from: &str) -> Value {
        let at = |path: &str| format!("{}{path}", platform.addresses().sandbox.trim_end_matches('/'));
        let oauth = json!({
            "client_id": options::GOOGLE_CLIENT_ID, "client_secret": options::GOOGLE_CLIENT_SECRET,
            "refresh_token": options::GOOGLE_REFRESH_TOKEN, "token_url": at("/google-oauth/token"),
        });
        let settings = match self.platform {
            Platform::DataManager => json!({
                "operating_account": { "account_id": options::GOOGLE_CUSTOMER },
                "login_account": { "account_id": options::GOOGLE_LOGIN_CUSTOMER },
                "conversion_action_id": options::GOOGLE_CONVERSION_ACTION,
                "oauth": oauth, "base_url": at("/data-manager"), "batch_size": 10,
            }),
            Platform::GoogleAds => json!({
                "customer_id": options::GOOGLE_CUSTOMER, "login_customer_id": options::GOOGLE_LOGIN_CUSTOMER,
                "conversion_action_id": options::GOOGLE_CONVERSION_ACTION,
                "oauth": oauth, "base_url": at("/google-ads"),
            }),
            Platform::Ga4 => json!({
                "measurement_id": options::GA4_MEASUREMENT_ID, "api_secret": options::GA4_API_SECRET,
                "base_url": at("/ga4"),
            }),
            Platform::Meta => json!({
                "dataset_id": options::META_DATASET, "access_token": options::META_TOKEN, "base_url": at("/meta"),
            }),
            Platform::TikTok => json!({
                "event_source_id": options::TIKTOK_PIXEL, "access_token": options::TIKTOK_TOKEN,
                "base_url": at("/tiktok"),
            }),
            Platform::Webhook => json!({ "url": at("/webhook/crm"), "secret": options::WEBHOOK_SECRET }),
            Platform::GoogleToken | Platform::MetaQuality => unreachable!("no connection leads there"),
        };
        json!({ "kind": self.kind, "mode": "live", "value_from": [value_from], "settings": settings })
    }

    /// Of a request's body the parts about an order.
    fn parts(&self, body: &Value, order_id: &str) -> Vec<Value> {
        let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
        let all = match self.platform {
            Platform::DataManager | Platform::Ga4 => list(&body["events"]),
            Platform::GoogleAds => {
                [list(&body["conversions"]), list(&body["conversionAdjustments"])].concat()
            }
            Platform::Meta | Platform::TikTok => list(&body["data"]),
            Platform::Webhook => vec![body.clone()],
            Platform::GoogleToken | Platform::MetaQuality => Vec::new(),
        };
        let is_of_order = |part: &&Value| {
            let ids = [
                &part["transactionId"],
                &part["orderId"],
                &part["params"]["transaction_id"],
                &part["params"]["order_id"],
                &part["custom_data"]["order_id"],
                &part["properties"]["order_id"],
            ];
            ids.iter().any(|id| id.as_str() == Some(order_id))
        };
        all.iter().filter(is_of_order).cloned().collect()
    }

    /// Everything that the platform was told of an order, in the order in which it came.
    pub fn told(&self, requests: &[SeenRequest], order_id: &str) -> Vec<Value> {
        let quoted = format!("\"{order_id}\"");
        let of_order =
            requests.iter().filter(|seen| seen.platform == self.platform && seen.body.contains(&quoted));
        of_order
            .flat_map(|seen| {
                let body: Value = serde_json::from_str(&seen.body).expect("a body that is kept as a whole");
                self.parts(&body, order_id)
            })
            .collect()
    }

    /// A line about a part, for people.
    pub fn line(&self, part: &Value) -> String {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let time = |value: &Value| {
            text(value).split(['T', ' ']).nth(1).unwrap_or_default().chars().take(8).collect::<String>()
        };
        match self.platform {
            Platform::DataManager => {
                format!("{} {}", text(&part["conversionValue"]), text(&part["currency"]))
            }
            Platform::GoogleAds if part["adjustmentType"] == "RETRACTION" => {
                format!("RETRACTION at {}", time(&part["adjustmentDateTime"]))
            }
            Platform::GoogleAds if part["adjustmentType"] == "RESTATEMENT" => {
                let (value, at) = (&part["restatementValue"], time(&part["adjustmentDateTime"]));
                format!("RESTATEMENT {} {} at {at}", value["adjustedValue"], text(&value["currencyCode"]))
            }
            Platform::GoogleAds => format!("{} {}", part["conversionValue"], text(&part["currencyCode"])),
            Platform::Ga4 => {
                let params = &part["params"];
                match &params["value"] {
                    Value::Null => text(&part["name"]),
                    value => format!("{} {value} {}", text(&part["name"]), text(&params["currency"])),
                }
            }
            Platform::Meta => format!("{} {}", text(&part["event_name"]), part["custom_data"]["value"]),
            Platform::TikTok => format!("{} {}", text(&part["event"]), part["properties"]["value"]),
            Platform::Webhook => text(&part["event"]),
            Platform::GoogleToken | Platform::MetaQuality => String::new(),
        }
    }
}
