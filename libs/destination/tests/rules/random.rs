//! Whatever is in an event, a setting or an answer: no panic, and what is built is valid.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tracklayer_destination::commerce::{decimal_of, number};
use tracklayer_destination::{Answer, Consent, Item, Trial, data_manager};

use crate::{KINDS, build, deliverable, document, now, opened, purchase};

/// Names that builders look for, so that random values land where they matter.
const KEYS: [&str; 40] = [
    "products",
    "product_id",
    "sku",
    "price",
    "quantity",
    "order_id",
    "currency",
    "total",
    "revenue",
    "value",
    "email",
    "phone",
    "firstName",
    "lastName",
    "address",
    "country",
    "postalCode",
    "city",
    "state",
    "traits",
    "page",
    "url",
    "referrer",
    "ip",
    "userAgent",
    "gclid",
    "fbclid",
    "fbc",
    "fbp",
    "ttclid",
    "name",
    "category",
    "query",
    "test",
    "os",
    "device",
    "advertisingId",
    "action_source",
    "original_timestamp",
    "limited_data_use",
];

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,24}".prop_map(Value::from),
        prop_oneof![
            Just("EUR"),
            Just("1e400"),
            Just("-5"),
            Just("79228162514264337593543950335"),
            Just("app"),
            Just("US"),
            Just("a@example.com"),
            Just("+1 650 555 1212"),
            Just("physical_store"),
            Just("https://a.example/?fbclid=x"),
            Just("::ffff:1.2.3.4"),
            Just("fb.1.1.x"),
            Just("true"),
            Just("iOS"),
            Just("2026-11-20T14:03:21+05:45"),
        ]
        .prop_map(Value::from),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((key(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::vec((key(), tree()), 0..10).prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
}

fn event() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "Order Completed",
        "Order Refunded",
        "Order Cancelled",
        "Order Updated",
        "Product Added",
        "Product List Viewed",
        "Products Searched",
        "Signed Up",
        "Something Else",
        "漢字 !",
    ]);
    let call = prop::sample::select(vec!["track", "page", "screen", "identify", "group", "alias"]);
    (call, name, object(), object(), object()).prop_map(|(call, name, properties, context, integrations)| {
        json!({
            "type": call, "event": name, "messageId": "m", "userId": "u", "anonymousId": "a", "previousId": "p",
            "groupId": "g", "timestamp": "2026-11-23T11:59:30Z", "properties": properties, "context": context,
            "integrations": integrations
        })
    })
}

/// The same purchase with some of its parts replaced by anything.
fn disturbed() -> impl Strategy<Value = Value> {
    prop::collection::vec((key(), tree()), 0..6).prop_map(|changes| {
        let mut event = purchase();
        for (key, value) in changes {
            event["properties"][&key] = value.clone();
            event["context"]["traits"][&key] = value;
        }
        event
    })
}

fn consent() -> impl Strategy<Value = Consent> {
    let words = vec!["ad_targeting", "sale_share", "ad_user_data", "ad_personalization", "unheard of"];
    let denied = || {
        prop::sample::subsequence(words.clone(), 0..4)
            .prop_map(|denied| denied.into_iter().map(str::to_owned).collect::<Vec<String>>())
    };
    let place = prop::sample::select(vec!["US-CA", "US", "DE", ""]);
    prop_oneof![
        Just(Consent::Allow),
        Just(Consent::AllowUnstated),
        denied().prop_map(|denied_purposes| Consent::AllowInPart { denied_purposes }),
        (place, denied()).prop_map(|(place, denied_purposes)| Consent::Restricted {
            place: place.to_owned(),
            denied_purposes,
        }),
    ]
}

/// Whether a body says what the decision wants.
fn states(kind: &str, body: &Value, consent: &Consent) -> bool {
    match (consent, kind) {
        (Consent::Restricted { .. }, _) => {}
        // A platform of ads that cannot say so has no such event.
        (Consent::AllowInPart { .. }, "meta_capi" | "tiktok_events" | "google_ads") => {
            return !consent.denies_personalization();
        }
        (Consent::AllowInPart { .. }, "google_data_manager" | "ga4_mp")
            if consent.denies_personalization() => {}
        _ => return true,
    }
    match kind {
        "meta_capi" => body["data_processing_options"] == json!(["LDU"]),
        "tiktok_events" => body["limited_data_use"] == json!(true) && body["user"]["ip"].is_string(),
        "google_data_manager" => {
            body["consent"]["adPersonalization"] == "CONSENT_DENIED"
                && (!consent.denies_user_data()
                    || (body["consent"]["adUserData"] == "CONSENT_DENIED" && body.get("userData").is_none()))
        }
        "ga4_mp" => {
            body["consent"]["ad_personalization"] == "DENIED"
                && (!consent.denies_user_data() || body["consent"]["ad_user_data"] == "DENIED")
        }
        _ => false,
    }
}

/// Rules that a whole request hangs on.
fn is_valid(kind: &str, body: &Value) -> Result<(), String> {
    // A webhook passes the event on as it came.
    if kind == "webhook" {
        return Ok(());
    }
    let amounts =
        ["/custom_data/value", "/properties/value", "/conversionValue", "/restatementValue/adjustedValue"];
    for pointer in amounts {
        if let Some(value) = body.pointer(pointer)
            && value.as_f64().is_none_or(|v| v < 0.0)
        {
            return Err(format!("{pointer} is {value}"));
        }
    }
    let text = body.to_string();
    let empty = tracklayer_normalise::sha256_hex("");
    if text.contains(&empty) {
        return Err("the hash of nothing".to_owned());
    }
    let value_without_currency = match kind {
        "meta_capi" => {
            body.pointer("/custom_data/value").is_some() && body.pointer("/custom_data/currency").is_none()
        }
        "tiktok_events" => {
            body.pointer("/properties/value").is_some() != body.pointer("/properties/currency").is_some()
        }
        "google_data_manager" => body.get("conversionValue").is_some() != body.get("currency").is_some(),
        "google_ads" => body.get("conversionValue").is_some() != body.get("currencyCode").is_some(),
        _ => false,
    };
    if value_without_currency {
        return Err("a value without its currency".to_owned());
    }
    if kind == "meta_capi" {
        for content in body.pointer("/custom_data/contents").and_then(Value::as_array).into_iter().flatten() {
            if !content["id"].is_string() || content["quantity"].as_u64().is_none_or(|q| q < 1) {
                return Err(format!("content {content}"));
            }
        }
    }
    if kind == "google_ads" && body.get("gbraid").is_some() && body.get("wbraid").is_some() {
        return Err("both braids".to_owned());
    }
    Ok(())
}

fn check(kind: &str, event: &Value, consent: Consent) -> Result<(), TestCaseError> {
    let document = document(kind);
    let Ok(parsed) = tracklayer_destination::preview::parse(event.clone(), now()) else { return Ok(()) };
    let event = deliverable_of(parsed, consent.clone());
    let destination = opened(&document);
    let _ = destination.wants(&event);
    if let Ok(item) = destination.build(&event, now()) {
        prop_assert!(
            states(kind, &item.body.to_value(), &consent),
            "{kind} {consent:?}: {}",
            item.body.to_value()
        );
        let valid = is_valid(kind, &item.body.to_value());
        prop_assert!(valid.is_ok(), "{kind}: {valid:?} in {}", item.body.to_value());
        let request = destination.assemble(&[&item], None);
        prop_assert!(serde_json::from_slice::<Value>(&request.body).is_ok());
    }
    Ok(())
}

fn deliverable_of(
    event: tracklayer_proto::event::v1::Event,
    consent: Consent,
) -> tracklayer_destination::Deliverable {
    tracklayer_destination::Deliverable::new(event, Default::default(), "", consent, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_event_makes_a_builder_panic(event in event(), consent in consent()) {
        for kind in KINDS {
            check(kind, &event, consent.clone())?;
        }
    }

    #[test]
    fn a_disturbed_purchase_is_valid_or_refused(event in disturbed(), consent in consent()) {
        for kind in KINDS {
            check(kind, &event, consent.clone())?;
        }
    }

    #[test]
    fn any_answer_has_one_outcome_per_item(status in 100u16..600, body in "\\PC{0,200}", json in tree(), count in 1usize..5) {
        for kind in KINDS {
            let destination = opened(&document(kind));
            let item = build(&document(kind), purchase(), Consent::Allow).unwrap();
            let items: Vec<Item> = vec![item; count];
            let sent: Vec<&Item> = items.iter().collect();
            for bytes in [body.clone().into_bytes(), json!({ "error": json }).to_string().into_bytes(), json.to_string().into_bytes()] {
                let answer = Answer::new(status, bytes);
                prop_assert_eq!(destination.classify(&answer, &sent).len(), count);
                if let Trial::Found(found) = destination.read_trial(&answer) {
                    prop_assert!(!found.is_empty());
                }
                let _ = data_manager::read_status(&answer).conclude(count as u64);
            }
        }
    }

    #[test]
    fn an_amount_survives_the_wire(text in "-?[0-9]{1,9}([.][0-9]{1,4})?") {
        let amount = decimal_of(&json!(text));
        prop_assert!(amount.is_some(), "{}", text);
        let sent = amount.map(number);
        prop_assert_eq!(sent.as_ref().and_then(decimal_of), amount, "{:?}", sent);
    }

    #[test]
    fn no_document_makes_open_panic(settings in object(), kind in prop::sample::select(KINDS.to_vec())) {
        let mut document = document(kind);
        for (key, value) in settings.as_object().cloned().unwrap_or_default() {
            document["settings"][&key] = value.clone();
            document["field_map"][&key] = value.clone();
            document["event_map"][&key] = value;
        }
        let _ = tracklayer_destination::open(&document, &Default::default());
    }
}

#[test]
fn the_purchase_that_is_disturbed_is_itself_good() {
    for kind in KINDS {
        let event = deliverable(purchase(), Consent::Allow, None);
        assert!(opened(&document(kind)).build(&event, now()).is_ok(), "{kind}");
    }
}
