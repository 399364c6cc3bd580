//! Ids: of events, people, clicks.

use serde_json::{Value, json};
use tracklayer_destination::{Consent, Deliverable, RefusalCode};
use tracklayer_normalise::sha256_hex;
use tracklayer_proto::event::v1::ClickIds;

use crate::{KINDS, build, document, now, opened, purchase, with};

#[test]
fn the_same_event_has_the_same_id_every_time() {
    for kind in KINDS {
        let first = build(&document(kind), purchase(), Consent::Allow).unwrap();
        let again = build(&document(kind), purchase(), Consent::Allow).unwrap();
        assert_eq!(first, again, "{kind}");
        assert_eq!(first.event_id, "m-1", "{kind}");
    }
}

#[test]
fn copies_that_were_deduplicated_by_their_order_have_one_id_at_every_platform() {
    let event_id = |document: &Value, event: Value, key: &str| {
        let event = tracklayer_destination::preview::parse(event, now()).unwrap();
        let event = Deliverable::new(event, ClickIds::default(), "", Consent::Allow, None);
        opened(document).build(&event.with_commerce_key(key), now()).unwrap().event_id
    };
    let webhook = with(purchase(), "/messageId", json!("shopify-77"));
    let browser = with(purchase(), "/properties/event_id", json!("pixel-1"));
    for kind in KINDS {
        for copy in [&webhook, &browser] {
            let id = event_id(&document(kind), copy.clone(), "order_completed:A-1001");
            assert_eq!(id, "order_completed:A-1001", "{kind}");
        }
        assert_eq!(
            event_id(&document(kind), browser.clone(), ""),
            "pixel-1",
            "{kind}: as without the second key"
        );
        let personal = event_id(&document(kind), webhook.clone(), "order_completed:ann@example.org");
        assert_eq!(personal, "shopify-77", "{kind}: an address is no id to tell others");
        let said = with(document(kind), "/event_id_from", json!(["messageId"]));
        assert_eq!(event_id(&said, webhook.clone(), "order_completed:A-1001"), "shopify-77", "{kind}");
    }
}

#[test]
fn external_id_is_what_the_connection_says() {
    let by_profile = with(document("meta_capi"), "/external_id_from", json!(["canonical_key"]));
    let item = build(&by_profile, purchase(), Consent::Allow).unwrap();
    assert_eq!(item.body.to_value()["user_data"]["external_id"], json!([sha256_hex("0123456789abcdef")]));
}

#[test]
fn a_purchase_from_a_server_carries_the_browsers_click() {
    let mut event = purchase();
    event["properties"].as_object_mut().unwrap().remove("gclid");
    event.as_object_mut().unwrap().remove("integrations");
    let known = ClickIds {
        fbc: "fb.1.1700000000000.AbC".to_owned(),
        fbp: "fb.1.1596403881668.1116446470".to_owned(),
        gclid: "Cj0known".to_owned(),
        ttclid: "E.C.P.known".to_owned(),
        ttp: "ttpknown".to_owned(),
        ga_client_id: "1.2".to_owned(),
        ..ClickIds::default()
    };
    let event = tracklayer_destination::preview::parse(event, now()).unwrap();
    let event = Deliverable::new(event, known, "", Consent::Allow, None);
    let body = |kind| opened(&document(kind)).build(&event, now()).unwrap().body.to_value();
    assert_eq!(body("meta_capi")["user_data"]["fbc"], "fb.1.1700000000000.AbC");
    assert_eq!(body("meta_capi")["user_data"]["fbp"], "fb.1.1596403881668.1116446470");
    assert_eq!(body("google_ads")["gclid"], "Cj0known");
    assert_eq!(body("google_data_manager")["adIdentifiers"]["gclid"], "Cj0known");
    assert_eq!(body("tiktok_events")["user"]["ttclid"], "E.C.P.known");
    assert_eq!(body("tiktok_events")["user"]["ttp"], "ttpknown");
    assert_eq!(body("ga4_mp")["client_id"], "1.2");
}

#[test]
fn an_own_click_wins_over_a_known_one() {
    let known = ClickIds { gclid: "old".to_owned(), wbraid: "old".to_owned(), ..ClickIds::default() };
    let event = tracklayer_destination::preview::parse(purchase(), now()).unwrap();
    let event = Deliverable::new(event, known, "", Consent::Allow, None);
    let body = opened(&document("google_ads")).build(&event, now()).unwrap().body.to_value();
    assert_eq!(body["gclid"], "Cj0abc");
    assert!(body.get("wbraid").is_none());
}

#[test]
fn an_unfilled_template_is_no_click() {
    for (id, kind, path) in [
        ("ttclid", "tiktok_events", "/user/ttclid"),
        ("gclid", "google_data_manager", "/adIdentifiers/gclid"),
    ] {
        for value in ["__CLICKID__", "{gclid}", "a b"] {
            let event = with(purchase(), &format!("/properties/{id}"), json!(value));
            let body = build(&document(kind), event, Consent::Allow).unwrap().body.to_value();
            assert_eq!(body.pointer(path), None, "{value}");
        }
    }
}

#[test]
fn a_purely_numeric_transaction_needs_a_prefix() {
    let event = with(purchase(), "/properties/order_id", json!(1001));
    let refusal = build(&document("google_data_manager"), event.clone(), Consent::Allow).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InvalidPayload);
    assert!(refusal.reason.contains("transaction_id_prefix"));
    let prefixed = with(document("google_data_manager"), "/settings/transaction_id_prefix", json!("order-"));
    assert_eq!(
        build(&prefixed, event, Consent::Allow).unwrap().body.to_value()["transactionId"],
        "order-1001"
    );
}

#[test]
fn custom_names_at_tiktok_follow_its_rules() {
    let custom = with(document("tiktok_events"), "/settings/send_custom_events", json!(true));
    for (name, expected) in [
        ("Quiz Finished", Ok("Quiz_Finished")),
        ("123 Go!", Ok("Go")),
        ("Checkout", Err(RefusalCode::EventNameReserved)),
        ("consult", Err(RefusalCode::EventNameReserved)),
        ("Checkout Step Completed", Err(RefusalCode::EventNotMapped)),
        ("漢字", Err(RefusalCode::InvalidPayload)),
    ] {
        let event = with(purchase(), "/event", json!(name));
        let built = build(&custom, event, Consent::Allow);
        let told = built.map(|item| item.body.to_value()["event"].clone()).map_err(|r| r.code);
        assert_eq!(told, expected.map(|name: &str| json!(name)), "{name}");
    }
}
