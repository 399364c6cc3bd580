//! Whatever JSON a source sends: no connector panics, every request that one makes is taken by its platform, and what cannot
//! be sent has a typed reason. Events are made as text, since numbers, escapes and repeated keys do not survive a parser.
//!
//! `PROPTEST_CASES=20000 cargo test -p tracklayer-destination --test hostile` tries more; `PROPTEST_RNG_SEED` others.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

mod support;

use std::cell::Cell;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestError, TestRunner};
use serde_json::{Value, json};
use tracklayer_destination::preview::batches;
use tracklayer_destination::{Consent, Deliverable, Item, OrderState};
use tracklayer_event::{ParseContext, parse_event};
use tracklayer_proto::event::v1::ClickIds;

use support::{World, connections, document, events, now, opened, with};

/// Cases of each kind of connection, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 2_500;

/// Places that connectors look at.
const PLACES: &[&str] = &[
    "event",
    "messageId",
    "userId",
    "anonymousId",
    "timestamp",
    "channel",
    "traits",
    "traits.email",
    "properties",
    "properties.order_id",
    "properties.currency",
    "properties.revenue",
    "properties.total",
    "properties.value",
    "properties.products",
    "properties.products.0",
    "properties.products.0.product_id",
    "properties.products.0.sku",
    "properties.products.0.name",
    "properties.products.0.brand",
    "properties.products.0.category",
    "properties.products.0.price",
    "properties.products.0.quantity",
    "properties.products.0.position",
    "properties.product_id",
    "properties.price",
    "properties.quantity",
    "properties.coupon",
    "properties.discount",
    "properties.tax",
    "properties.shipping",
    "properties.affiliation",
    "properties.query",
    "properties.list_id",
    "properties.category",
    "properties.name",
    "properties.creative",
    "properties.position",
    "properties.shipping_method",
    "properties.payment_method",
    "properties.share_via",
    "properties.event_id",
    "properties.email",
    "properties.phone",
    "properties.gclid",
    "properties.gbraid",
    "properties.wbraid",
    "properties.fbclid",
    "properties.fbc",
    "properties.fbp",
    "properties.ttclid",
    "properties.ttp",
    "properties.action_source",
    "properties.content_type",
    "properties.delivery_category",
    "properties.description",
    "properties.status",
    "properties.shop_id",
    "properties.lead_id",
    "properties.lead_event_source",
    "properties.num_items",
    "properties.predicted_ltv",
    "properties.search_string",
    "properties.opt_out",
    "properties.limited_data_use",
    "properties.data_processing_options",
    "properties.data_processing_options_country",
    "properties.data_processing_options_state",
    "properties.original_value",
    "properties.original_timestamp",
    "properties.customer_type",
    "properties.new_customer",
    "properties.notification_id",
    "properties.ga_session_id",
    "properties.title",
    "properties.url",
    "context",
    "context.ip",
    "context.userAgent",
    "context.locale",
    "context.page",
    "context.page.url",
    "context.page.referrer",
    "context.page.title",
    "context.traits",
    "context.traits.email",
    "context.traits.phone",
    "context.traits.firstName",
    "context.traits.lastName",
    "context.traits.gender",
    "context.traits.birthday",
    "context.traits.address",
    "context.traits.address.street",
    "context.traits.address.city",
    "context.traits.address.state",
    "context.traits.address.postalCode",
    "context.traits.address.country",
    "context.device.advertisingId",
    "context.device.type",
    "context.device.model",
    "context.os.name",
    "context.os.version",
    "context.app.namespace",
    "context.app.version",
    "context.network.carrier",
    "context.screen.width",
    "context.timezone",
    "context.fbp",
    "context.fbc",
    "context.ttp",
    "context.ttclid",
    "integrations",
    "integrations.Google Analytics 4",
    "integrations.Google Analytics 4.clientId",
    "integrations.Google Analytics 4.sessionId",
];

/// Texts that mean something to somebody.
const TELLING: &[&str] = &[
    "EUR",
    "eur",
    "XXX",
    "JPY",
    "1e400",
    "-5",
    "0",
    "NaN",
    "Infinity",
    "-0",
    "12,50",
    "$12.50",
    "1_000",
    "79228162514264337593543950335",
    "0.00000000000000000000000000001",
    "true",
    "false",
    "null",
    "undefined",
    "app",
    "website",
    "physical_store",
    "business_messaging",
    "phone_call",
    "chat",
    "email",
    "mobile",
    "browser",
    "track",
    "page",
    "screen",
    "identify",
    "Order Completed",
    "Order Refunded",
    "session_start",
    "Session start",
    "1ga_x",
    "_ga",
    "Purchase",
    "StartCheckout",
    "new",
    "returning",
    "US",
    "us",
    "Germany",
    "California",
    "CA",
    "a@example.com",
    "A.B+c@gmail.com",
    "+1 650 555 1212",
    "(650) 555-1212",
    "0049 151 23456789",
    "f",
    "1999-02-31",
    "https://a.example/?fbclid=x&gclid=Cj0%20abc&ttclid=__CLICKID__",
    "https://a.example/?gclid=%E2%82%AC",
    "a.example",
    "http://[::1]/?gclid=x",
    "::ffff:1.2.3.4",
    "203.0.113.9:443",
    "10.0.0.1",
    "2001:db8::1",
    "fb.1.1.x",
    "fb.1.1795430000000.x.AQQCAQIB",
    "iOS",
    "Android",
    "2026-11-20T14:03:21+05:45",
    "2026-11-23T11:59:59Z",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "-009999-01-01T00:00:00Z",
    "1795430000000",
    "LDU",
    "product_group",
    "home_delivery",
    "1",
    "00000000-0000-0000-0000-000000000000",
    "d6117306485ed0e50afab3ac871e98f81699151f30281527d63ff5f233656c69",
    "D41D8CD98F00B204E9800998ECF8427E",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "123456",
    "jane@example.com-1",
    "{gclid}",
];

/// Names that platforms have, keep for themselves, or make of others.
const NAMES: &[&str] = &[
    "Session start",
    "session_start",
    "First  open",
    "1ga_x",
    "_ga",
    "ga_session",
    "App store refund",
    "Firebase campaign",
    "error",
    "Purchase",
    "PURCHASE",
    "purchase",
    "Refund",
    "StartCheckout",
    "pageview",
    "Quiz Finished",
    "漢字",
    "!!!",
    "Order Completed",
    "order  refunded",
    "Order Cancelled",
    "a name that is longer than any platform takes, and goes on, and on, and on",
];

/// Where click and browser ids stand.
const CLICK_PLACES: &[&str] = &[
    "properties.gclid",
    "properties.gbraid",
    "properties.wbraid",
    "properties.fbclid",
    "properties.fbc",
    "properties.ttclid",
];

/// Click ids, and what becomes of them on the way.
const CLICKS: &[&str] = &[
    "Cj0KCQ_abc-DEF",
    "Cj0%20abc",
    "Cj0+abc=",
    "Cj0€abc",
    "a/b",
    "__CLICKID__",
    "{gclid}",
    "E.C.P.x",
    "fb.1.1795430000000.AbC",
    "fb.1.x.AbC",
    "fb.1.1795430000000.AbC.AQQCAQIB.x",
];

/// Numbers as nobody should write them.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "2.5",
    "1e2",
    "1E+2",
    "1e-7",
    "0.1",
    "1e308",
    "-1e308",
    "1e-400",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890123456789012345678901234567890",
    "79228162514264337593543950336",
    "0.1234567890123456789012345678901234567890",
    "1795430000",
    "1795430000000",
];

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(TELLING).prop_map(quoted),
        3 => "\\PC{0,24}".prop_map(|text| quoted(&text)),
        // Control characters, and everything else.
        1 => "(?s).{0,12}".prop_map(|text| quoted(&text)),
        1 => ("[a-zA-Z0-9 é漢._-]{1,4}", 30usize..4_000).prop_map(|(piece, times)| quoted(&piece.repeat(times))),
        // Escapes that are no character, or none that shows.
        1 => select(&[r#""\ud800""#, r#""a\udfffb""#, r#""\u0000""#, r#""\ufeff \u202e\u200b""#, r#""\ud83d\ude00""#, r#"" ""#, r#""""#][..])
            .prop_map(str::to_owned),
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        60 => select(NUMBERS).prop_map(str::to_owned),
        // No double: ingest takes it, or refuses the event.
        1 => select(&["1e400", "-1e400"][..]).prop_map(str::to_owned),
        20 => any::<i64>().prop_map(|number| number.to_string()),
        20 => any::<f64>().prop_filter("JSON has no other", |number| number.is_finite()).prop_map(|number| json!(number).to_string()),
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => Just("null".to_owned()),
        20 => any::<bool>().prop_map(|flag| flag.to_string()),
        60 => number(),
        120 => text(),
        2 => (1usize..130).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
        2 => (1usize..130).prop_map(|depth| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let known = PLACES.iter().filter_map(|place| place.rsplit('.').next()).collect::<Vec<_>>();
    prop_oneof![5 => select(known).prop_map(quoted), 1 => "(?s).{0,10}".prop_map(|key| quoted(&key))]
}

fn tree() -> impl Strategy<Value = String> {
    scalar().prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            members(inner, 8),
        ]
    })
}

/// An object; a key may come twice.
fn members(value: impl Strategy<Value = String>, most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec((key(), value), 0..most).prop_map(|pairs| {
        let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
        format!("{{{}}}", pairs.join(","))
    })
}

/// A good event in which some places hold anything.
fn disturbed() -> impl Strategy<Value = String> {
    let (orders, others): (Vec<_>, Vec<_>) = events()
        .into_iter()
        .map(|(_, event)| event)
        .partition(|event| event["event"].as_str().unwrap().starts_with("Order"));
    let good = prop_oneof![select(orders), select(others)];
    let name = (Just("event"), select(NAMES).prop_map(quoted));
    let click = (select(CLICK_PLACES), select(CLICKS).prop_map(quoted));
    let change = prop_oneof![20 => (select(PLACES), tree()), 1 => name, 3 => click];
    (good, prop::collection::vec(change, 0..8)).prop_map(|(mut event, changes)| {
        event.as_object_mut().unwrap().remove("order_state");
        for (number, (place, _)) in changes.iter().enumerate() {
            put(&mut event, place, json!(format!("@{number}@")));
        }
        let mut text = event.to_string();
        for (number, (_, value)) in changes.iter().enumerate() {
            text = text.replace(&format!("\"@{number}@\""), value);
        }
        text
    })
}

/// Puts a value at a place, whatever stands on the way.
fn put(event: &mut Value, place: &str, value: Value) {
    let mut at = event;
    for step in place.split('.') {
        match at {
            Value::Array(list) => {
                if list.is_empty() {
                    list.push(Value::Null);
                }
                at = &mut list[0];
            }
            other => {
                if !other.is_object() {
                    *other = json!({});
                }
                at = &mut other[step];
            }
        }
    }
    *at = value;
}

/// An event of nothing but what may be in one.
fn anything() -> impl Strategy<Value = String> {
    let call = prop_oneof![
        3 => Just("track"),
        1 => select(&["page", "screen", "identify", "group", "alias"][..])
    ];
    let name = prop_oneof![text(), select(NAMES).prop_map(quoted)];
    let part = || members(tree(), 10);
    (call, name, part(), part(), part(), part()).prop_map(|(call, name, properties, context, traits, integrations)| {
        format!(
            r#"{{"type":"{call}","event":{name},"messageId":"m-1","userId":"u-1","anonymousId":"a-1","groupId":"g","previousId":"p",
            "timestamp":"2026-11-23T11:59:30Z","properties":{properties},"context":{context},"traits":{traits},"integrations":{integrations}}}"#
        )
    })
}

fn consent() -> impl Strategy<Value = Consent> {
    let words = vec!["ad_targeting", "sale_share", "ad_user_data", "ad_personalization", "unheard of"];
    let denied = || {
        prop::sample::subsequence(words.clone(), 0..4)
            .prop_map(|denied| denied.into_iter().map(str::to_owned).collect::<Vec<String>>())
    };
    let place = select(vec!["US-CA", "US", "DE", ""]);
    let restricted = (place, denied()).prop_map(|(place, denied_purposes)| Consent::Restricted {
        place: place.to_owned(),
        denied_purposes,
    });
    let in_part = denied().prop_map(|denied_purposes| Consent::AllowInPart { denied_purposes });
    prop_oneof![3 => Just(Consent::Allow), 1 => Just(Consent::AllowUnstated), 1 => restricted, 1 => in_part]
}

/// What delivery may know of an order.
fn order() -> impl Strategy<Value = Option<OrderState>> {
    let refunded = prop_oneof![Just(0i64), 0i64..100_000];
    let known = (0i64..100_000, prop::option::of(0i64..100_000), refunded, 0i64..60 * 86_400, any::<bool>())
        .prop_map(|(value, total, refunded, age, timed)| OrderState {
            value: Some(rust_decimal::Decimal::new(value, 2)),
            total: total.map(|total| rust_decimal::Decimal::new(total, 2)),
            currency: Some("USD".to_owned()),
            at: timed.then(|| now() - SignedDuration::from_secs(age)),
            refunded: rust_decimal::Decimal::new(refunded, 2),
            adjusted_at: timed.then(now),
            ..OrderState::default()
        });
    prop_oneof![1 => Just(None), 2 => known.prop_map(Some)]
}

/// Documents of a kind: those of the fixtures, and some with more switched on.
fn documents(kind: &str) -> Vec<Value> {
    let mut documents: Vec<Value> = connections()
        .into_iter()
        .map(|(_, document)| document)
        .filter(|document| document["kind"] == kind)
        .collect();
    let plain = document(kind);
    let set = |document: &Value, setting: &str, value: Value| {
        with(document.clone(), &format!("settings.{setting}"), value)
    };
    match kind {
        "meta_capi" => {
            let open = set(&plain, "custom_data_passthrough", json!(true));
            documents.push(set(&open, "refunds", json!("custom_event")));
            documents.push(set(&open, "default_action_source", json!("app")));
        }
        "tiktok_events" => {
            documents.push(set(&plain, "send_custom_events", json!(true)));
            for (source, id) in [
                ("offline", "7000000000000000002"),
                ("crm", "7000000000000000001"),
                ("app", "7000000000000000003"),
            ] {
                documents.push(set(
                    &set(&plain, "event_source", json!(source)),
                    "event_source_id",
                    json!(id),
                ));
            }
        }
        "google_data_manager" => {
            let open = set(&plain, "send_device_info", json!(true));
            documents.push(set(&open, "transaction_id_prefix", json!("order-")));
        }
        "ga4_mp" => documents.push(set(&plain, "send_ip", json!(true))),
        _ => {}
    }
    documents
}

/// What became of the events of a run.
#[derive(Default)]
struct Tally {
    parsed: Cell<u32>,
    taken: Cell<u32>,
    refused: Cell<u32>,
}

fn add(cell: &Cell<u32>) {
    cell.set(cell.get() + 1);
}

fn check(kind: &str) {
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 3_000,
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES),
        ..ProptestConfig::default()
    };
    let cases = config.cases;
    let destinations: Vec<_> =
        documents(kind).iter().map(|document| (document.to_string(), opened(document))).collect();
    let tally = Tally::default();
    let event = prop_oneof![3 => disturbed(), 1 => anything()];
    let case = (prop::collection::vec(event, 1..3), consent(), order());
    let tried = TestRunner::new(config).run(&case, |(texts, consent, order)| {
        let parsed: Vec<_> = texts
            .iter()
            .filter_map(|text| parse_event(text.as_bytes(), &ParseContext::preview(now())).ok())
            .map(|event| Deliverable::new(event, ClickIds::default(), "", consent.clone(), order.clone()))
            .collect();
        tally.parsed.set(tally.parsed.get() + u32::try_from(parsed.len()).unwrap());
        for (document, destination) in &destinations {
            let mut items: Vec<Item> = Vec::new();
            for event in &parsed {
                if destination.wants(event).is_err() {
                    continue;
                }
                match destination.build(event, now()) {
                    Ok(item) => items.push(item),
                    Err(refusal) => {
                        prop_assert!(!refusal.reason.is_empty(), "{refusal:?}");
                        add(&tally.refused);
                    }
                }
            }
            for batch in batches(&**destination, &items) {
                if let Err(refused) = World::at(now()).take(&**destination, &batch) {
                    let request = destination.assemble(&batch, None);
                    let body = String::from_utf8_lossy(&request.body);
                    prop_assert!(false, "{refused}\nof {body}\nby {document}");
                }
                add(&tally.taken);
            }
        }
        Ok(())
    });
    match tried {
        Ok(()) => {}
        Err(TestError::Fail(why, (texts, consent, order))) => {
            panic!("{kind}: {why}\n{}\n{consent:?} {order:?}", texts.join("\n"))
        }
        Err(TestError::Abort(why)) => panic!("{kind}: {why}"),
    }
    let told = (tally.parsed.get(), tally.taken.get(), tally.refused.get());
    println!(
        "{kind}: {cases} cases, {} events accepted, {} requests taken, {} events refused",
        told.0, told.1, told.2
    );
    assert!(told.0 > cases / 2 && told.1 > cases / 4, "the events are too bad to say anything: {told:?}");
}

#[test]
fn changes_of_two_orders_at_one_time_are_taken_in_one_request() {
    let cancelled = |order: Value| {
        let event = json!({
            "type": "track", "event": "Order Cancelled", "messageId": format!("m-{order}"), "anonymousId": "a-1",
            "timestamp": "2026-11-23T11:59:30Z", "properties": { "order_id": order },
        });
        let event = parse_event(event.to_string().as_bytes(), &ParseContext::preview(now())).unwrap();
        Deliverable::new(event, ClickIds::default(), "", Consent::Allow, None)
    };
    let google = opened(&document("google_ads"));
    let items: Vec<Item> =
        [json!(false), json!("o-1")].map(|order| google.build(&cancelled(order), now()).unwrap()).into();
    let batches = batches(&*google, &items);
    assert_eq!(batches.len(), 1);
    World::at(now()).take(&*google, &batches[0]).unwrap();
}

/// Each has a test below.
const TRIED: [&str; 7] =
    ["meta_capi", "tiktok_events", "google_data_manager", "google_ads", "ga4_mp", "webhook", "warehouse"];

#[test]
fn every_kind_is_tried() {
    for (name, document) in connections() {
        let kind = document["kind"].as_str().unwrap();
        assert!(TRIED.contains(&kind), "{name}: give {kind} a test of its own here");
    }
}

#[test]
fn metas_requests_are_taken() {
    check("meta_capi");
}

#[test]
fn tiktoks_requests_are_taken() {
    check("tiktok_events");
}

#[test]
fn data_managers_requests_are_taken() {
    check("google_data_manager");
}

#[test]
fn google_adss_requests_are_taken() {
    check("google_ads");
}

#[test]
fn ga4s_requests_are_taken() {
    check("ga4_mp");
}

#[test]
fn webhooks_are_taken() {
    check("webhook");
}

#[test]
fn warehouses_rows_are_taken() {
    check("warehouse");
}
