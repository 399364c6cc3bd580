//! Standard Webhooks.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tracklayer_destination::{Answer, Consent, HoldKind, ItemOutcome};

use crate::{build, document, opened, purchase, with};

#[test]
fn a_receiver_can_verify_the_signature() {
    let key = STANDARD.encode(b"a key of thirty-two bytes or so!");
    let document = with(document("webhook"), "/settings/secret", json!(format!("whsec_{key}")));
    let item = build(&document, purchase(), Consent::Allow).unwrap();
    let request = opened(&document).assemble(&[&item], None);
    let header = |name: &str| request.headers.iter().find(|(n, _)| n == name).unwrap().1.expose();

    assert_eq!(header("webhook-id"), "m-1");
    assert_eq!(header("webhook-timestamp"), crate::now().as_second().to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a key of thirty-two bytes or so!").unwrap();
    mac.update(format!("m-1.{}.", header("webhook-timestamp")).as_bytes());
    mac.update(&request.body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), expected);
    assert_eq!(request.masked()["headers"]["webhook-signature"], "***");

    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["type"], "track");
    assert_eq!(body["event"], "Order Completed");
    assert_eq!(body["properties"]["order_id"], "o-1001");
    assert_eq!(body["timestamp"], "2026-11-23T11:59:30Z");
}

#[test]
fn a_test_is_called_test_whatever_the_document_makes_of_that_name() {
    for map in [
        json!({ "event_map": { "test": "Order Completed" } }),
        json!({ "names": { "test": "\"Order Completed\"" } }),
    ] {
        let mut document = document("webhook");
        document.as_object_mut().unwrap().extend(map.as_object().cloned().unwrap());
        let item = build(&document, with(purchase(), "/event", json!("test")), Consent::Allow).unwrap();
        assert_eq!(item.body.to_value()["event"], "Order Completed", "{map}");
        let request = opened(&document).test_request(&[&item], None, None).unwrap();
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["event"], "test", "{map}");
        // It is what is signed.
        let header = |name: &str| request.headers.iter().find(|(n, _)| n == name).unwrap().1.expose();
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret-signing").unwrap();
        mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
        mac.update(&request.body);
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(header("webhook-signature"), expected, "{map}");
    }
}

#[test]
fn a_receiver_can_verify_any_id_and_tell_two_apart() {
    let mut seen = std::collections::BTreeSet::new();
    let ids = ["bestellung-größe", "bestellung-grüsse", "bestellung-gr__e", " m 1 ", "m 1", "m%201", "m\n1"];
    for id in ids {
        let document = with(document("webhook"), "/event_id_from", json!(["properties.number"]));
        let event = with(purchase(), "/properties/number", json!(format!("x{id}x")));
        let item = build(&document, event, Consent::Allow).unwrap();
        let request = opened(&document).assemble(&[&item], None);
        let header = |name: &str| request.headers.iter().find(|(n, _)| n == name).unwrap().1.expose();

        // What a receiver does: it has the headers and the body, and nothing else.
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret-signing").unwrap();
        mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
        mac.update(&request.body);
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(header("webhook-signature"), expected, "{id}");
        assert!(header("webhook-id").bytes().all(|b| b.is_ascii_graphic()), "{id}");
        assert!(seen.insert(header("webhook-id")), "{id} is another event's id: {seen:?}");
    }
}

#[test]
fn answers_are_read_by_status() {
    let destination = opened(&document("webhook"));
    let item = build(&document("webhook"), purchase(), Consent::Allow).unwrap();
    let read = |status| destination.classify(&Answer::new(status, ""), &[&item]).remove(0);
    assert_eq!(read(204), ItemOutcome::DELIVERED);
    for (status, expected) in [
        (302, HoldKind::Configuration),
        (401, HoldKind::Auth),
        (404, HoldKind::Configuration),
        (410, HoldKind::Configuration),
        (408, HoldKind::Transient),
        (429, HoldKind::Throttled),
        (500, HoldKind::Transient),
    ] {
        assert!(matches!(read(status), ItemOutcome::HoldLane { kind, .. } if kind == expected), "{status}");
    }
    assert!(matches!(read(422), ItemOutcome::Dead { code, .. } if code == "HTTP_422"));

    let mut busy = Answer::new(503, "");
    busy.headers.insert("retry-after", "7".parse().unwrap());
    let outcome = destination.classify(&busy, &[&item]).remove(0);
    assert!(
        matches!(outcome, ItemOutcome::HoldLane { after: Some(wait), .. } if wait == Duration::from_secs(7))
    );
}

#[test]
fn a_broken_secret_or_address_is_told_at_once() {
    for (setting, value) in [
        ("secret", "whsec_%%%"),
        ("secret", "whsec_"),
        ("secret", "key\n"),
        ("url", "https://user@hooks.example/"),
        ("url", "ftp://x"),
    ] {
        let document = with(document("webhook"), &format!("/settings/{setting}"), json!(value));
        let errors = tracklayer_destination::open(&document, &Default::default()).err().unwrap();
        assert_eq!(errors.0[0].path, format!("settings.{setting}"));
    }
}
