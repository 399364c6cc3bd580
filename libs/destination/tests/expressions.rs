//! Whatever expressions a document has that was accepted, and whatever shop events come: no panic, and every request that is made is
//! taken by its platform. `PROPTEST_CASES=5000 cargo test -p tracklayer-destination --test expressions` tries more.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

mod support;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestError, TestRunner};
use serde_json::{Value, json};
use tracklayer_destination::maps::fields_of;
use tracklayer_destination::preview::{batches, parse};
use tracklayer_destination::{Consent, Deliverable, Kind, WorkspaceDefaults, open};
use tracklayer_proto::event::v1::ClickIds;

use support::{World, connections, document, events, now, opened, with};

/// Cases of each kind, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 250;

const NUMBERS: &[&str] = &[
    "properties.revenue",
    "properties.total",
    "properties.tax",
    "properties.odd",
    "double(properties.odd)",
    "1",
    "0.5",
    "-3",
    "1e20",
    "properties.products.map(p, p.price * p.quantity).sum()",
    "properties.products[0].price",
    "size(properties.products)",
];
const TEXTS: &[&str] = &[
    "properties.order_id",
    "properties.currency",
    "properties.coupon",
    "properties.odd",
    "event",
    "messageId",
    "string(properties.odd)",
    "\"EUR\"",
    "\"x\"",
    "\"a@b.example\"",
    "\"+49 151 23456789\"",
    "properties.products[0].name",
    "context.locale",
    "string(timestamp)",
    "properties.products.map(p, p.sku).join(\",\")",
    "context.page.path",
];
const PERSONAL: &[&str] = &[
    "context.traits.email",
    "context.traits.phone",
    "context.traits.firstName",
    "traits.email",
    "properties.email",
];

fn picked(from: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(from).prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = String> + Clone {
    picked(NUMBERS).prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), select(&["+", "-", "*", "/", "%"][..]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} > {b} ? {a} : null)")),
            inner.prop_map(|a| format!("round({a}, 2)")),
        ]
    })
}

fn text(leaf: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    picked(leaf).prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} + {b})")),
            (inner.clone(), select(&["trim", "lowerAscii", "upperAscii"][..]))
                .prop_map(|(a, f)| format!("{a}.{f}()")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a} == {b} ? {a} : {b})")),
        ]
    })
}

fn truth() -> impl Strategy<Value = String> {
    let order = || select(&["==", "!=", "<", ">="][..]);
    prop_oneof![
        (number(), order(), number()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text(TEXTS), order(), text(TEXTS)).prop_map(|(a, op, b)| format!("{a} {op} {b} || true")),
        text(TEXTS).prop_map(|a| format!("!{a}.contains(\"x\") || has(properties.revenue)")),
        Just("true".to_owned()),
    ]
}

/// A field with an expression.
fn field(kind: Kind, prefix: &'static str) -> impl Strategy<Value = (String, String)> {
    let of_kind = move |fields: &[&'static str]| {
        let sent = fields_of(kind);
        // A kind without fields gets no document that has some.
        let fields: Vec<&str> =
            fields.iter().copied().filter(|field| sent.is_empty() || sent.contains(field)).collect();
        select(fields).prop_map(str::to_owned)
    };
    let amounts = of_kind(&["value", "discount", "tax", "shipping"]);
    let texts = of_kind(&[
        "order_id",
        "currency",
        "coupon",
        "query",
        "affiliation",
        "city",
        "state",
        "postal_code",
        "country",
    ]);
    let people = of_kind(&["email", "phone", "first_name", "birth_date", "gender", "street"]);
    let known =
        ["num_items", "content_name", "status", "tier", "A b", "search_term", "predicted_ltv", "method"];
    // Google's variables have numbers.
    let named = if prefix == "custom_variables." { 0 } else { 9 };
    let custom = prop_oneof![
        named => select(known.to_vec()).prop_map(str::to_owned),
        3 => "[0-9]{3,6}",
        named / 9 => "\\PC{1,12}",
    ]
    .prop_map(move |name| format!("{prefix}{name}"));
    prop_oneof![
        3 => (amounts, number()),
        3 => (texts, text(TEXTS)),
        2 => (people, prop_oneof![text(PERSONAL), text(TEXTS)]),
        4 => (custom, prop_oneof![number(), text(TEXTS), truth()]),
    ]
}

fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        ("[a-zé漢]{1,3}", 100usize..2_000).prop_map(|(piece, times)| Value::from(piece.repeat(times))),
        Just(json!("12.50")),
        Just(json!("jane@example.com")),
        Just(json!(["a", 1])),
        Just(json!({ "a": 1 })),
    ]
}

fn check(kind: Kind) {
    let config = ProptestConfig {
        failure_persistence: None,
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES),
        ..ProptestConfig::default()
    };
    let plain = document(kind.as_str());
    let shop: Vec<Value> = events()
        .into_iter()
        .map(|(_, mut event)| {
            event.as_object_mut().unwrap().remove("order_state");
            event
        })
        .collect();
    let prefix = kind.custom_prefix().unwrap_or("custom.");
    let case = (
        prop::collection::vec(field(kind, prefix), 0..6),
        prop::option::of(truth()),
        prop::collection::vec((select(shop), odd()), 1..6),
    );
    let (accepted, taken) = (Cell::new(0_u32), Cell::new(0_u32));
    let tried = TestRunner::new(config).run(&case, |(fields, filter, events)| {
        let mut document = plain.clone();
        if kind.custom_prefix().is_some() {
            document["fields"] = fields.into_iter().map(|(name, text)| (name, json!(text))).collect();
        }
        if let Some(filter) = filter {
            document["filter"] = json!(filter);
        }
        // What reads too much or nests too deep is refused with its place; everything else must work.
        let destination = match open(&document, &WorkspaceDefaults::default()) {
            Ok(destination) => destination,
            Err(errors) => {
                for error in &errors.0 {
                    let is_placed = error.path.starts_with("fields.") || error.path == "filter";
                    prop_assert!(is_placed && !error.why.contains("cannot be read"), "{}", errors);
                }
                return Ok(());
            }
        };
        accepted.set(accepted.get() + 1);
        for (mut event, odd) in events {
            event["properties"]["odd"] = odd;
            let Ok(event) = parse(event, now()) else { continue };
            let event = Deliverable::new(event, ClickIds::default(), "", Consent::Allow, None);
            if destination.wants(&event).is_err() {
                continue;
            }
            let Ok(item) = destination.build(&event, now()) else { continue };
            for batch in batches(&*destination, std::slice::from_ref(&item)) {
                if let Err(refused) = World::at(now()).take(&*destination, &batch) {
                    prop_assert!(false, "{refused}\nof {}\nby {document}", item.body);
                }
                taken.set(taken.get() + 1);
            }
        }
        Ok(())
    });
    match tried {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{kind}: {why}\n{case:?}"),
        Err(TestError::Abort(why)) => panic!("{kind}: {why}"),
    }
    println!("{kind}: {} documents accepted, {} requests taken", accepted.get(), taken.get());
    assert!(accepted.get() > 50 && taken.get() > 50, "{kind}: too little was tried to say anything");
}

#[test]
fn metas_requests_are_taken() {
    check(Kind::MetaCapi);
}

#[test]
fn tiktoks_requests_are_taken() {
    check(Kind::TiktokEvents);
}

#[test]
fn data_managers_requests_are_taken() {
    check(Kind::GoogleDataManager);
}

#[test]
fn google_adss_requests_are_taken() {
    check(Kind::GoogleAds);
}

#[test]
fn ga4s_requests_are_taken() {
    check(Kind::Ga4Mp);
}

#[test]
fn webhooks_are_taken() {
    check(Kind::Webhook);
}

/// A connection behind an expression that changes nothing does what it does without: every method of the trait is passed on.
#[test]
fn a_filter_that_takes_everything_changes_nothing() {
    for (name, document) in connections() {
        let plain = opened(&document);
        let mapped = opened(&with(document.clone(), "filter", json!("true")));
        assert_eq!(plain.kind(), mapped.kind(), "{name}");
        assert_eq!(plain.mode(), mapped.mode(), "{name}");
        assert_eq!(plain.limits(), mapped.limits(), "{name}");
        assert_eq!(plain.pauses(), mapped.pauses(), "{name}");
        assert_eq!(plain.consent_query(), mapped.consent_query(), "{name}");
        assert_eq!(plain.oauth().map(|o| &o.token_url), mapped.oauth().map(|o| &o.token_url), "{name}");
        for (file, mut event) in events() {
            event.as_object_mut().unwrap().remove("order_state");
            let event =
                Deliverable::new(parse(event, now()).unwrap(), ClickIds::default(), "", Consent::Allow, None);
            assert_eq!(plain.max_event_age(&event), mapped.max_event_age(&event), "{name} {file}");
            assert_eq!(plain.order_key(&event), mapped.order_key(&event), "{name} {file}");
            assert_eq!(plain.order_need(&event), mapped.order_need(&event), "{name} {file}");
            assert_eq!(plain.wants(&event), mapped.wants(&event), "{name} {file}");
            let (one, other) = (plain.build(&event, now()), mapped.build(&event, now()));
            assert_eq!(one, other, "{name} {file}");
            let Ok(item) = one else { continue };
            assert_eq!(
                plain.assemble(&[&item], None).masked(),
                mapped.assemble(&[&item], None).masked(),
                "{name} {file}"
            );
            assert_eq!(
                plain.trial(&[&item], None).map(|request| request.masked()),
                mapped.trial(&[&item], None).map(|request| request.masked()),
                "{name} {file}"
            );
            let answer = tracklayer_destination::Answer::new(429, "{}");
            assert_eq!(
                plain.classify(&answer, &[&item]),
                mapped.classify(&answer, &[&item]),
                "{name} {file}"
            );
            assert_eq!(plain.read_trial(&answer), mapped.read_trial(&answer), "{name} {file}");
        }
    }
}
