//! A shop's own webhooks, signed as Shopify signs them, from the order to what is left of it at Google: of all that is told of an
//! order again and again, only what came back counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sha2::Sha256;
use tracklayer_sandbox::Platform as AdPlatform;
use tracklayer_tests::{Options, Platform, Running, eventually_within};

use super::wire::{KINDS, Kind};
use super::{PATIENCE, connect_by};

const ORDER: &str = include_str!("../../../libs/shopify/tests/fixtures/order.json");
const REFUND: &str = include_str!("../../../libs/shopify/tests/fixtures/refund.json");
const ORDER_ID: &str = "820982911946154508";
const SECRET: &str = "shpss_refunds_secret";
const KEY: &str = "wk_refunds_shopify";
/// Data Manager and Google Ads.
const GOOGLE: [&Kind; 2] = [&KINDS[0], &KINDS[1]];
/// Of transaction ids at Data Manager, which takes none that is a number.
const PREFIX: &str = "shop-";

/// The order's id there.
fn order_id(at: AdPlatform) -> String {
    if at == AdPlatform::DataManager { format!("{PREFIX}{ORDER_ID}") } else { ORDER_ID.to_owned() }
}

/// Posts a webhook as Shopify does.
async fn post(platform: &Running, topic: &str, body: &Value) -> anyhow::Result<Value> {
    let body = body.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/webhooks/shopify/{KEY}", platform.addresses().ingest_http))
        .header("content-type", "application/json")
        .header("x-shopify-topic", topic)
        .header("x-shopify-hmac-sha256", STANDARD.encode(mac.finalize().into_bytes()))
        .header("x-shopify-shop-domain", "northline.myshopify.com")
        .body(body)
        .send()
        .await?;
    let status = answer.status();
    anyhow::ensure!(status.is_success(), "{topic}: {status} {}", answer.text().await?);
    Ok(answer.json().await?)
}

async fn taken(platform: &Running, topic: &str, body: &Value) {
    let answer = post(platform, topic, body).await.unwrap();
    assert_eq!(answer["success"], true, "{topic}: {answer}");
    assert!(answer.get("ignored").is_none() && answer.get("rejected").is_none(), "{topic}: {answer}");
}

async fn delivered(platform: &Running, message_id: &str) {
    eventually_within(PATIENCE, &format!("{message_id} to be at Google"), async || {
        let story = platform.story(message_id).await?;
        let told = story.occurrences.first().map(|first| first.deliveries.as_slice()).unwrap_or_default();
        let is_there = |kind: &&Kind| {
            told.iter()
                .any(|delivery| delivery.connection == kind.connection && delivery.state == "delivered")
        };
        anyhow::ensure!(GOOGLE.iter().all(is_there), "{story:#?}");
        Ok(())
    })
    .await;
}

/// The shop's order as it is at a time. Nothing of it was edited.
fn order(placed: Timestamp, at: Timestamp) -> Value {
    let mut order: Value = serde_json::from_str(ORDER).unwrap();
    order.as_object_mut().unwrap().retain(|name, _| !name.starts_with("current_"));
    for name in ["created_at", "processed_at"] {
        order[name] = json!(placed.to_string());
    }
    order["updated_at"] = json!(at.to_string());
    order["note_attributes"] = json!([{ "name": "_tl_anonymous_id", "value": "refunds-shopify-buyer" }]);
    order
}

/// A payment back of so many Canadian dollars, of which the order has 555.52 for its 396.80 US dollars.
fn refund(id: u64, amount: &str, at: Timestamp) -> Value {
    let mut refund: Value = serde_json::from_str(REFUND).unwrap();
    refund["id"] = json!(id);
    for name in ["created_at", "processed_at"] {
        refund[name] = json!(at.to_string());
    }
    refund["transactions"][0]["amount"] = json!(amount);
    refund
}

/// The values that a platform was told of the order, the sale's first.
async fn values(platform: &Running, kind: &Kind) -> Vec<Value> {
    let requests = platform.sandbox().requests(1_000).await.unwrap();
    let value = |part: &Value| match &part["restatementValue"]["adjustedValue"] {
        Value::Null => part["conversionValue"].clone(),
        adjusted => adjusted.clone(),
    };
    kind.told(&requests, &order_id(kind.platform)).iter().map(value).collect()
}

async fn worth(platform: &Running, at: AdPlatform) -> Decimal {
    let orders = platform.sandbox().orders(at).await.unwrap();
    let id = order_id(at);
    let order = orders.iter().find(|order| order.order_id == id).unwrap();
    order.amounts["USD"].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shopify_tells_again_after_a_refund_neither_undoes_nor_repeats_anything() {
    let platform = Platform::start(Options::default()).await.unwrap();
    connect_by(&platform, |kind| {
        let mut document = kind.document(&platform, "total");
        if kind.platform == AdPlatform::DataManager {
            document["settings"]["transaction_id_prefix"] = json!(PREFIX);
        }
        document
    })
    .await;
    let file = platform.data_dir().join("shopify.json");
    let settings =
        json!({ "kind": "shopify", "webhook_secret": SECRET, "shop_domain": "northline.myshopify.com" });
    std::fs::write(&file, settings.to_string()).unwrap();
    let file = file.display().to_string();
    let source = ["sources", "create", "refunds-shopify", "--channel", "server", "--write-key", KEY];
    platform
        .cli(&[&source[..], &["--dedup-by-order-id", "--webhook", file.as_str()]].concat())
        .await
        .unwrap();

    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let ago = |minutes: i64| now - SignedDuration::from_mins(minutes);
    let placed = ago(180);
    // As often as it takes until the edge knows the source: the same order is the same event.
    eventually_within(PATIENCE, "the edge to know the shop", async || {
        post(&platform, "orders/create", &order(placed, placed)).await
    })
    .await;
    delivered(&platform, &format!("shopify.order_completed.{ORDER_ID}")).await;

    // Packed: the order is worth what it was. Fulfilled: the same, but this webhook fails at first.
    taken(&platform, "orders/updated", &order(placed, ago(150))).await;
    let fulfilled = order(placed, ago(120));
    let part = refund(890_088_186_047_892_001, "73.64", ago(115));
    taken(&platform, "refunds/create", &part).await;
    delivered(&platform, "shopify.order_refunded.890088186047892001").await;
    let late = post(&platform, "orders/updated", &fulfilled).await.unwrap();
    assert_eq!(late["ignored"], "outdated", "it is from before the refund: {late}");
    // The order's state with the refund, and a label on it later.
    for at in [ago(115), ago(60)] {
        let mut updated = order(placed, at);
        updated["refunds"] = json!([part]);
        let answer = post(&platform, "orders/updated", &updated).await.unwrap();
        assert_eq!(answer["warnings"][0]["code"], "shopify_amounts_left_to_refunds", "{answer}");
    }
    let late = post(&platform, "orders/updated", &fulfilled).await.unwrap();
    assert_eq!(late["ignored"], "outdated", "it is from before the refund still: {late}");
    // So are an edit that failed at first and one of the refund's second, which nothing else tells of: somebody has to say what the
    // order is worth now.
    for (total, at) in [("420.00", ago(118)), ("430.00", ago(115))] {
        let mut edited = order(placed, at);
        edited["current_total_price"] = json!(total);
        taken(&platform, "orders/updated", &edited).await;
    }
    // What is of the same visitor goes out behind all that was told before.
    taken(&platform, "refunds/create", &refund(890_088_186_047_892_002, "14.00", ago(30))).await;
    delivered(&platform, "shopify.order_refunded.890088186047892002").await;

    // 73.64 CAD are 52.60 USD of it, and 14.00 are 10.00.
    for kind in GOOGLE {
        let told = values(&platform, kind).await;
        assert_eq!(told, [json!(396.8), json!(344.2), json!(334.2)], "{}", kind.kind);
        assert_eq!(worth(&platform, kind.platform).await, "334.2".parse().unwrap(), "{}", kind.kind);
    }
    eventually_within(PATIENCE, "the updates to be counted as what they are", async || {
        let stats = platform.cli_json(&["stats"]).await?;
        for kind in GOOGLE {
            let states = stats["connections"][kind.connection]["states"].as_array().unwrap();
            let events = |state: &str, reason: &str| {
                let of = states.iter().find(|told| told["state"] == state && told["reason"] == reason);
                of.and_then(|told| told["events"].as_u64()).unwrap_or_default()
            };
            let counted = (events("filtered", "order_unchanged"), events("filtered", "no_new_value"));
            anyhow::ensure!(counted == (1, 2), "{}: {states:#?}", kind.kind);
            let dead = states.iter().filter(|told| told["state"] == "dead" && told["events"] != 0);
            let dead: Vec<_> = dead.map(|told| (&told["reason"], &told["events"])).collect();
            anyhow::ensure!(
                dead == [(&json!("value_without_refunds"), &json!(2))],
                "{}: {states:#?}",
                kind.kind
            );
        }
        Ok(())
    })
    .await;
}
