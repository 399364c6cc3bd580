//! No body makes it panic, and whatever comes has a typed result; an event that comes out is one that the parser of events takes.
#![allow(clippy::unwrap_used)] // helpers outside of a test function: a test may stop here

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use tracklayer_event::{ParseContext, RejectCode, parse_event_text};
use tracklayer_shopify::{Headers, KnownOrder, Reading, Settings, Topic, read};

const BODIES: [&str; 3] = [
    include_str!("fixtures/order.json"),
    include_str!("fixtures/refund.json"),
    include_str!("fixtures/checkout.json"),
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof![Just("79228162514264337593543950335"), Just("-1e28"), Just("0"), Just("12.345")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,12}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A real body in which some places hold something else.
fn spoiled() -> impl Strategy<Value = Value> {
    (0..BODIES.len(), prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..12)).prop_map(
        |(body, changes)| {
            let mut document: Value = serde_json::from_str(BODIES[body]).unwrap();
            let mut paths = Vec::new();
            collect_paths(&document, String::new(), &mut paths);
            for (at, value) in changes {
                let path: &String = at.get(&paths);
                if let Some(place) = document.pointer_mut(path) {
                    *place = value;
                }
            }
            document
        },
    )
}

fn collect_paths(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(k, v)| collect_paths(v, format!("{path}/{k}"), paths))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, v)| collect_paths(v, format!("{path}/{n}"), paths));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    if !path.is_empty() {
        paths.push(path);
    }
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let words = |words: &'static [&'static str]| prop::sample::select(words);
    (
        words(&["id", "name", "order_number"]),
        words(&["shop", "presentment"]),
        words(&["customer_id", "none"]),
        words(&["created", "paid"]),
        any::<bool>(),
    )
        .prop_map(|(order_id_from, amounts, user_id_from, completed_on, test_orders)| {
            Settings::parse(&json!({
                "kind": "shopify", "webhook_secret": "shpss_test_secret", "order_id_from": order_id_from,
                "amounts": amounts, "user_id_from": user_id_from,
                "completed_on": completed_on, "test_orders": test_orders,
            }))
            .unwrap()
        })
}

/// What came of it: ignored, unusable, or an event that the parser takes unless its texts are too long together.
fn check(
    topic: Topic,
    headers: &Headers<'_>,
    body: &[u8],
    settings: &Settings,
    known: Option<&KnownOrder>,
) -> Option<KnownOrder> {
    let Ok(Reading::Webhook(webhook)) = read(headers, body, settings) else { return None };
    let Ok(translation) = webhook.event(headers, settings, known) else { return None };
    let context = ParseContext::at(Timestamp::from_second(1_800_000_000).unwrap());
    match parse_event_text(&translation.json, &context) {
        Ok(event) => assert_eq!(event.name, topic.event_name()),
        Err(rejection) => {
            assert_eq!(rejection.code, RejectCode::EventTooLarge, "{rejection:?}\n{}", translation.json)
        }
    }
    translation.order
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn bytes_of_any_kind(
        topic in prop::sample::select(Topic::ALL.to_vec()), settings in any_settings(), body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        check(topic, &Headers { topic: topic.as_str(), ..Headers::default() }, &body, &settings, None);
    }

    #[test]
    fn json_of_any_kind(topic in prop::sample::select(Topic::ALL.to_vec()), settings in any_settings(), body in any_json()) {
        check(topic, &Headers { topic: topic.as_str(), ..Headers::default() }, body.to_string().as_bytes(), &settings, None);
    }

    #[test]
    fn real_bodies_in_which_anything_may_stand(
        topic in prop::sample::select(Topic::ALL.to_vec()), settings in any_settings(), body in spoiled(), words in any::<[String; 5]>(),
    ) {
        let headers = Headers {
            topic: topic.as_str(), shop_domain: &words[0], webhook_id: &words[1], event_id: &words[2],
            triggered_at: &words[3], api_version: &words[4],
        };
        let known = check(topic, &headers, body.to_string().as_bytes(), &settings, None);
        check(Topic::RefundsCreate, &Headers { topic: "refunds/create", ..headers }, BODIES[1].as_bytes(), &settings, known.as_ref());
    }
}
