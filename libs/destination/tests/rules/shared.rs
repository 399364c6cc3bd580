//! One event at many connections: what is made of its person for one of them is taken over by another, or made anew where that one
//! reads the person elsewhere, lives in another country or has another year.

use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_destination::{Consent, Destination, preview::parse};

use crate::{deliverable, document, now, opened, purchase, with};

/// People whose forms differ between platforms, countries and years.
fn people() -> Vec<Value> {
    let person = |traits: Value| {
        let mut event = purchase();
        event["context"]["traits"] = traits;
        event
    };
    vec![
        person(json!({
            "email": "Jane.Doe+x@Gmail.com", "phone": "(0)30 901820", "firstName": "Jane 2nd", "lastName": "O'Neil Jr.",
            "birthday": "2026-12-31",
            "address": { "street": "Main 5", "city": "Paris 15", "state": "Bayern 2", "postalCode": "01067." },
        })),
        person(json!({
            "email": ["a@b.example", "c@gmail.com"], "phone": ["650 253 0000", "+49 30 901820"], "firstName": "Ada",
            "lastName": "King 3", "address": { "city": "Bonn 7", "postalCode": "94043-1234", "country": "US" },
        })),
        person(json!({ "email": "x@y.example", "firstName": "Ada", "address": { "postalCode": "D-80331" } })),
    ]
}

/// Connections that share what they can.
fn connections() -> Vec<Box<dyn Destination>> {
    let of = |kind: &str, changes: &[(&str, Value)]| {
        let mut changed = document(kind);
        changed["field_map"] = json!({});
        changed["constants"] = json!({});
        changed["fields"] = json!({});
        for (pointer, value) in changes {
            changed = with(changed, pointer, value.clone());
        }
        opened(&changed)
    };
    let mut all = Vec::new();
    for kind in ["meta_capi", "google_data_manager", "google_ads", "ga4_mp", "tiktok_events"] {
        let hashed: &[(&str, Value)] =
            if kind == "ga4_mp" { &[("/settings/send_user_data", json!(true))] } else { &[] };
        let and = |change: (&'static str, Value)| [hashed, &[change]].concat();
        all.push(of(kind, &and(("/settings/default_country", json!("DE")))));
        all.push(of(kind, &and(("/settings/default_country", json!("US")))));
        all.push(of(kind, hashed));
        all.push(of(kind, &and(("/field_map/email", json!("properties.order_id")))));
        all.push(of(kind, &and(("/constants/country", json!("FR")))));
        all.push(of(kind, &and(("/fields/phone", json!("\"+33 1 40 20 50 50\"")))));
    }
    all
}

fn told(
    destination: &dyn Destination,
    event: &tracklayer_destination::Deliverable,
    now: Timestamp,
) -> String {
    match destination.build(event, now) {
        Ok(item) => format!("{} {:?} {:?}", item.body, item.notes, item.keys),
        Err(refusal) => format!("{refusal:?}"),
    }
}

#[test]
fn what_one_connection_makes_of_a_person_is_what_each_makes_alone() {
    let all = connections();
    let last_year: Timestamp = "2025-12-31T23:59:59Z".parse().unwrap();
    let clocks = [now(), last_year];
    let (mut compared, mut different) = (0, std::collections::HashSet::new());
    for event in people() {
        let mut event = event;
        event["timestamp"] = json!("2025-12-31T23:59:00Z");
        let ready = || deliverable(event.clone(), Consent::Allow, None);
        assert!(parse(event.clone(), now()).is_ok());
        let alone: Vec<[String; 2]> =
            all.iter().map(|of| clocks.map(|now| told(&**of, &ready(), now))).collect();
        // Whoever comes first makes the forms that the others find.
        for first in 0..all.len() {
            let shared = ready();
            for index in (first..all.len()).chain(0..first) {
                for (clock, expected) in clocks.iter().rev().zip(alone[index].iter().rev()) {
                    let event = shared.for_connection(Consent::Allow, None);
                    assert_eq!(
                        told(&*all[index], &event, *clock),
                        *expected,
                        "connection {index} after {first}"
                    );
                    compared += 1;
                }
            }
        }
        different.extend(alone.into_iter().flatten());
    }
    assert_eq!(compared, 3 * 30 * 30 * 2);
    assert!(different.len() > 60, "{} of 180 differ, or nothing is compared", different.len());
}

#[test]
fn connections_that_build_at_once_make_what_each_makes_alone() {
    let all = connections();
    for event in people() {
        let alone: Vec<String> = all
            .iter()
            .map(|of| told(&**of, &deliverable(event.clone(), Consent::Allow, None), now()))
            .collect();
        for _ in 0..20 {
            let shared = deliverable(event.clone(), Consent::Allow, None);
            let built: Vec<String> = std::thread::scope(|scope| {
                let building: Vec<_> = all
                    .iter()
                    .map(|of| {
                        let event = shared.for_connection(Consent::Allow, None);
                        scope.spawn(move || told(&**of, &event, now()))
                    })
                    .collect();
                building.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(built, alone);
        }
    }
}

#[test]
fn the_id_of_a_product_may_lie_deeper_in_it() {
    let meta = with(document("meta_capi"), "/settings/content_id_from", json!(["variant.sku", "product_id"]));
    let ids = |products: Value| {
        let mut event = purchase();
        event["properties"]["products"] = products;
        let item = opened(&meta).build(&deliverable(event, Consent::Allow, None), now()).unwrap();
        item.body.to_value()["custom_data"]["content_ids"].clone()
    };
    let products =
        json!([{ "variant": { "sku": "A" }, "product_id": "p", "price": 9 }, { "product_id": "q" }]);
    assert_eq!(ids(products), json!(["A", "q"]));
    let mut single = purchase();
    single["event"] = json!("Product Viewed");
    single["properties"] = json!({ "variant": { "sku": "B" }, "price": 9, "currency": "EUR" });
    let item = opened(&meta).build(&deliverable(single, Consent::Allow, None), now()).unwrap();
    assert_eq!(item.body.to_value()["custom_data"]["content_ids"], json!(["B"]));
}

#[test]
fn google_analytics_takes_over_no_form_of_google_ads_that_it_wants_otherwise() {
    let event = people().swap_remove(1);
    let shared = deliverable(event, Consent::Allow, None);
    let ads = opened(&document("google_data_manager"));
    let ga4 = opened(&with(document("ga4_mp"), "/settings/send_user_data", json!(true)));
    let hash = |text: &str| json!(tracklayer_normalise::sha256_hex(text));
    let first = ads.build(&shared, now()).unwrap().body.to_value();
    let identifiers = first["userData"]["userIdentifiers"].as_array().unwrap();
    assert_eq!(identifiers.last().unwrap()["address"]["familyName"], hash("king 3"));
    let second = ga4.build(&shared, now()).unwrap().body.to_value();
    let address = &second["user_data"]["address"][0];
    assert_eq!((&address["sha256_last_name"], &address["city"]), (&hash("king"), &json!("bonn")));
}
