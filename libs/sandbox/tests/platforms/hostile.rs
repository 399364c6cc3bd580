//! Whatever is sent, every platform answers, and none falls over.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::data_manager;
use crate::google_ads;
use crate::rig::{NOW, rig, send};

/// JSON of any form, with names that the platforms look for.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        "[a-z_]{1,8}".prop_map(String::from),
        proptest::sample::select(vec![
            "event_name",
            "event_time",
            "user_data",
            "custom_data",
            "contents",
            "value",
            "currency",
            "user",
            "properties",
            "page",
            "conversions",
            "conversionAction",
            "userIdentifiers",
            "events",
            "eventTimestamp",
            "params",
            "name",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A good body in which one member was replaced by anything.
fn spoilt(good: Value) -> impl Strategy<Value = Value> {
    let mut pointers = Vec::new();
    collect_pointers(&good, String::new(), &mut pointers);
    (proptest::sample::select(pointers), any_json()).prop_map(move |(pointer, value)| {
        let mut body = good.clone();
        if let Some(place) = body.pointer_mut(&pointer) {
            *place = value;
        }
        body
    })
}

fn collect_pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| collect_pointers(value, format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(n, value)| collect_pointers(value, format!("{at}/{n}"), found));
        }
        _ => {}
    }
    found.push(at);
}

fn meta_event() -> Value {
    json!([{
        "event_name": "Purchase", "event_time": NOW, "event_id": "a", "action_source": "website",
        "user_data": { "em": ["a".repeat(64)], "fbc": "fb.1.1.x" },
        "custom_data": { "value": 1.5, "currency": "EUR", "contents": [{ "id": "p" }] },
    }])
}

fn tiktok_event() -> Value {
    json!([{
        "event": "Purchase", "event_time": NOW, "event_id": "a", "user": { "email": "a".repeat(64) },
        "page": { "url": "https://a.example/" },
        "properties": { "value": 1, "currency": "EUR", "contents": [{ "content_id": "1" }] },
    }])
}

fn check(strategy: impl Strategy<Value = Value>, kind: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rig = runtime.block_on(rig());
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |body| {
        let request = match kind {
            "meta" => rig.meta(&body),
            "tiktok" => rig.tiktok(&body),
            "clicks" => rig.google_ads("uploadClickConversions", &body),
            "adjustments" => rig.google_ads("uploadConversionAdjustments", &body),
            _ => rig.ingest(&body),
        };
        let (status, answer) = runtime.block_on(send(request));
        prop_assert!(status < 500, "{status} {answer}");
        prop_assert!(answer.is_object(), "{answer}");
        Ok(())
    });
    result.unwrap();
}

#[test]
fn meta_answers_whatever_is_sent() {
    check(prop_oneof![any_json(), spoilt(meta_event())], "meta");
}

#[test]
fn tiktok_answers_whatever_is_sent() {
    check(prop_oneof![any_json(), spoilt(tiktok_event())], "tiktok");
}

#[test]
fn google_ads_answers_whatever_is_sent() {
    check(prop_oneof![any_json(), spoilt(google_ads::upload(&[google_ads::click("A")]))], "clicks");
    let adjustment = json!({ "partialFailure": true, "conversionAdjustments": [{
        "conversionAction": "customers/1234567890/conversionActions/987654321", "adjustmentType": "RESTATEMENT",
        "orderId": "A", "adjustmentDateTime": "2026-11-21 09:00:00+00:00", "restatementValue": { "adjustedValue": 1 },
    }]});
    check(prop_oneof![any_json(), spoilt(adjustment)], "adjustments");
}

#[test]
fn data_manager_answers_whatever_is_sent() {
    check(prop_oneof![any_json(), spoilt(data_manager::request(&[data_manager::event("A-1")]))], "ingest");
}
