use serde_json::{Value, json};
use tracklayer_sandbox::Platform;
use tracklayer_sandbox::options::{GA4_API_SECRET, GA4_MEASUREMENT_ID};

use crate::rig::{NOW, Rig, change, rig, send};

fn body() -> Value {
    json!({
        "client_id": "1234567890.1700000000",
        "timestamp_micros": (NOW - 60) * 1_000_000,
        "events": [{ "name": "purchase", "params": {
            "transaction_id": "T1", "value": 30.5, "currency": "USD", "session_id": "1", "engagement_time_msec": 100,
            "items": [{ "item_id": "a", "price": 1, "quantity": 1 }],
        }}],
    })
}

async fn collect(rig: &Rig, secret: &str, body: &Value) -> u16 {
    let url = format!(
        "{}/mp/collect?measurement_id={GA4_MEASUREMENT_ID}&api_secret={secret}",
        rig.sandbox.ga4_url()
    );
    send(rig.post(&url).json(body)).await.0
}

async fn debug(rig: &Rig, body: &Value) -> Value {
    let url = format!(
        "{}/debug/mp/collect?measurement_id={GA4_MEASUREMENT_ID}&api_secret=x",
        rig.sandbox.ga4_url()
    );
    send(rig.post(&url).json(body)).await.1["validationMessages"].clone()
}

#[tokio::test]
async fn anything_is_answered_204_and_only_what_is_good_is_counted() {
    let rig = rig().await;
    assert_eq!(collect(&rig, GA4_API_SECRET, &body()).await, 204);
    let mixed = change(&body(), "/events", json!([{ "name": "login" }, { "name": "session_start" }]));
    assert_eq!(collect(&rig, GA4_API_SECRET, &mixed).await, 204);
    assert_eq!(collect(&rig, "wrong", &body()).await, 204);
    assert_eq!(collect(&rig, GA4_API_SECRET, &json!("no object")).await, 204);
    let counted = rig.counted(Platform::Ga4);
    let names: Vec<_> =
        counted.iter().map(|c| (c.event_name.as_str(), c.event_id.as_str(), c.event_time)).collect();
    assert_eq!(names, [("purchase", "T1", NOW - 60), ("login", "", NOW - 60)]);
    let totals = rig.totals(Platform::Ga4);
    assert_eq!((totals.refused_events, totals.refused_requests), (2, 0));
    assert_eq!(totals.warnings["NAME_RESERVED"], 1);
    assert_eq!(totals.warnings["unknown_stream_or_secret"], 1);
}

#[tokio::test]
async fn the_debug_page_says_what_is_wrong_and_keeps_nothing() {
    let rig = rig().await;
    assert_eq!(debug(&rig, &body()).await, json!([]));
    let long = "x".repeat(101);
    let many: serde_json::Map<String, Value> = (0..26).map(|n| (format!("p{n}"), json!(1))).collect();
    let cases = [
        ("/client_id", Value::Null, "VALUE_REQUIRED"),
        ("/events", json!([]), "VALUE_REQUIRED"),
        ("/events", json!(vec![json!({ "name": "login" }); 26]), "EXCEEDED_MAX_ENTITIES"),
        ("/events/0/name", json!("_badEventName"), "NAME_INVALID"),
        ("/events/0/name", json!("firebase_x"), "NAME_RESERVED"),
        ("/events/0/name", json!("user_engagement"), "NAME_RESERVED"),
        ("/events/0/name", json!("notification_open"), "NAME_RESERVED"),
        ("/events/0/params/transaction_id", Value::Null, "VALUE_REQUIRED"),
        ("/events/0/params/currency", Value::Null, "VALUE_REQUIRED"),
        ("/events/0/params/coupon", json!(long), "VALUE_OUT_OF_BOUNDS"),
        ("/events/0/params/coupon", json!({ "a": 1 }), "VALUE_INVALID"),
        ("/events/0/params/items", json!([{ "price": 1 }]), "VALUE_REQUIRED"),
        ("/events/0/params", Value::Object(many), "EXCEEDED_MAX_ENTITIES"),
        ("/timestamp_micros", json!((NOW - 73 * 3600) * 1_000_000), "VALUE_OUT_OF_BOUNDS"),
        ("/user_properties", json!({ "user_id": { "value": "1" } }), "NAME_RESERVED"),
        ("/consent", json!({ "ad_user_data": "granted" }), "VALUE_INVALID"),
        ("/events/0/params/value", json!("30.5"), "VALUE_INVALID"),
        ("/events/0/params/currency", json!("Euro"), "VALUE_INVALID"),
        ("/user_data", json!({ "sha256_email_address": ["jane@example.com"] }), "VALUE_INVALID"),
        ("/user_data", json!({ "address": [{ "sha256_first_name": "jane" }] }), "VALUE_INVALID"),
    ];
    for (pointer, value, code) in cases {
        let messages = debug(&rig, &change(&body(), pointer, value.clone())).await;
        assert_eq!(messages[0]["validationCode"], code, "{pointer} = {value}: {messages}");
    }
    // Families of events say nothing about parameters, nor about names that only begin like an event of GA4's.
    for (pointer, value) in [
        ("/events/0/params/notification_id", json!("n-1")),
        ("/events/0/name", json!("user_engagement_score")),
    ] {
        assert_eq!(debug(&rig, &change(&body(), pointer, value)).await, json!([]), "{pointer}");
    }
    let messages = debug(&rig, &change(&body(), "/events/0/name", json!("_badEventName"))).await;
    assert_eq!(messages[0]["description"], "Event at index: [0] has invalid name [_badEventName].");
    assert_eq!(rig.counted(Platform::Ga4), []);
}
