//! GA4: names, parameters, refunds and the debug address.

use serde_json::{Value, json};
use tracklayer_destination::{
    Answer, Consent, Finding, Item, OrderEffect, OrderState, RefusalCode, Trial, WorkspaceDefaults, open,
};
use tracklayer_normalise::sha256_hex;

use crate::{build, deliverable, document, now, opened, purchase, with};

fn named(name: &str, properties: Value) -> Value {
    with(with(purchase(), "/event", json!(name)), "/properties", properties)
}

fn params(event: Value) -> Value {
    build(&document("ga4_mp"), event, Consent::Allow).unwrap().body.to_value()["events"][0]["params"].clone()
}

#[test]
fn a_name_that_becomes_one_of_ga4s_is_refused_as_one() {
    for name in [
        "session_start",
        "Session start",
        "first  open",
        "1ga_x",
        "_ga_x",
        "(app update)",
        "Firebase campaign",
    ] {
        let refusal = build(&document("ga4_mp"), named(name, json!({})), Consent::Allow).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::EventNameReserved, "{name}");
        assert_eq!(refusal.platform_code, Some("NAME_RESERVED"), "{name}");
    }
    let item = build(&document("ga4_mp"), named("Session started", json!({})), Consent::Allow).unwrap();
    assert_eq!(item.name, "Session_started");
}

#[test]
fn recommended_events_have_their_own_parameters() {
    let promotion =
        json!({ "promotion_id": "p-1", "name": "Autumn", "creative": "banner", "position": "top" });
    for (name, properties, expected) in [
        (
            "Promotion Viewed",
            promotion,
            json!({ "promotion_id": "p-1", "promotion_name": "Autumn", "creative_name": "banner", "creative_slot": "top" }),
        ),
        (
            "Checkout Step Completed",
            json!({ "checkout_id": "c", "step": 2, "shipping_method": "UPS", "payment_method": "Visa", "coupon": "X" }),
            json!({ "coupon": "X", "shipping_tier": "UPS" }),
        ),
        (
            "Payment Info Entered",
            json!({ "shipping_method": "UPS", "payment_method": "Visa" }),
            json!({ "payment_type": "Visa" }),
        ),
        (
            "Product Shared",
            json!({ "share_via": "email", "share_message": "Hi Kim", "recipient": "Kim Holm", "product_id": "p-2" }),
            json!({ "method": "email", "item_id": "p-2", "items": [{ "item_id": "p-2", "quantity": 1 }] }),
        ),
        (
            "Signed Up",
            json!({ "method": "Google", "type": "organic" }),
            json!({ "method": "Google", "type": "organic" }),
        ),
    ] {
        let mut own = params(named(name, properties));
        for always in ["session_id", "engagement_time_msec"] {
            own.as_object_mut().unwrap().remove(always);
        }
        assert_eq!(own, expected, "{name}");
    }
}

#[test]
fn whom_something_was_sent_to_is_no_custom_parameter() {
    let sent = json!({ "recipient": "Kim Holm", "share_message": "Dear Kim", "share_via": "email" });
    let own = params(named("Cart Shared", sent));
    assert_eq!((own.get("recipient"), own.get("share_message")), (None, None), "{own}");
    assert_eq!(own["share_via"], "email");
}

#[test]
fn the_person_goes_along_as_the_connection_says() {
    let address = json!({ "street": "1 Market St.", "city": "San Francisco", "state": "CA", "postalCode": "94105", "country": "US" });
    let mut event = purchase();
    event["context"]["traits"]["firstName"] = json!("Jane");
    event["context"]["traits"]["lastName"] = json!("Doe");
    event["context"]["traits"]["address"] = address;
    let plain = build(&document("ga4_mp"), event.clone(), Consent::Allow).unwrap().body.to_value();
    assert!(plain.get("user_data").is_none() && plain.get("ip_override").is_none(), "{plain}");

    let told = with(
        with(document("ga4_mp"), "/settings/send_user_data", json!(true)),
        "/settings/send_ip",
        json!(true),
    );
    let body = build(&told, event.clone(), Consent::Allow).unwrap().body.to_value();
    assert_eq!(body["ip_override"], "203.0.113.7");
    let expected = json!([{
        "sha256_first_name": sha256_hex("jane"), "sha256_last_name": sha256_hex("doe"),
        "sha256_street": sha256_hex("1 market st"), "city": "san francisco", "region": "ca",
        "postal_code": "94105", "country": "US"
    }]);
    assert_eq!(body["user_data"]["address"], expected);

    let denied =
        Consent::Restricted { place: "DE".to_owned(), denied_purposes: vec!["ad_user_data".to_owned()] };
    let body = build(&told, event.clone(), denied).unwrap().body.to_value();
    assert!(body.get("user_data").is_none() && body.get("ip_override").is_none(), "{body}");

    event["context"]["traits"]["address"].as_object_mut().unwrap().remove("postalCode");
    let body = build(&told, event, Consent::Allow).unwrap().body.to_value();
    assert!(body["user_data"].get("address").is_none(), "an address in part is none: {body}");
}

#[test]
fn a_client_id_that_is_a_person_is_none() {
    let event = with(
        purchase(),
        "/integrations",
        json!({ "Google Analytics 4": { "clientId": "jane@example.com" } }),
    );
    assert_eq!(build(&document("ga4_mp"), event, Consent::Allow).unwrap_err().code, RefusalCode::NoClientId);
}

fn refund(properties: Value, state: Option<OrderState>) -> Item {
    let mut event = named("Order Refunded", properties);
    event["properties"]["order_id"] = json!("o-1001");
    opened(&document("ga4_mp")).build(&deliverable(event, Consent::Allow, state), now()).unwrap()
}

fn sold(refunded: &str) -> OrderState {
    OrderState {
        value: Some("54.4".parse().unwrap()),
        total: Some("63.8".parse().unwrap()),
        currency: Some("EUR".to_owned()),
        at: None,
        refunded: refunded.parse().unwrap(),
        ..OrderState::default()
    }
}

#[test]
fn purchase_and_refunds_add_up_to_nothing_when_all_is_back() {
    let item = build(&document("ga4_mp"), purchase(), Consent::Allow).unwrap();
    let Some(OrderEffect::Sold { value, total, .. }) = &item.order else { panic!("{item:?}") };
    assert_eq!((value, total), (&"54.4".parse().ok(), &"63.8".parse().ok()));

    let products = json!([{ "product_id": "p_1", "price": 22.5, "quantity": 2 }]);
    let all = refund(json!({ "total": 63.8, "currency": "EUR", "products": products }), Some(sold("0")));
    let own = &all.body.to_value()["events"][0]["params"];
    assert_eq!((&own["value"], &own["currency"], own.get("items")), (&json!(54.4), &json!("EUR"), None));

    let first = refund(json!({ "total": 31.9, "currency": "EUR", "products": products }), Some(sold("0")));
    let last = refund(json!({ "total": 31.9 }), Some(sold("31.9")));
    let of = |item: &Item| item.body.to_value()["events"][0]["params"].clone();
    assert_eq!((&of(&first)["value"], &of(&last)["value"]), (&json!(27.2), &json!(27.2)));
    assert_eq!(of(&last)["currency"], "EUR", "of the order");
    assert!(of(&first)["items"].is_array());
    assert!(matches!(first.order, Some(OrderEffect::Refunded { amount: Some(_), .. })), "{first:?}");
}

#[test]
fn a_refund_of_what_is_not_known_here_goes_as_stated() {
    let of = |properties, state| refund(properties, state).body.to_value()["events"][0]["params"].clone();
    assert_eq!(of(json!({ "total": 10, "currency": "EUR" }), None)["value"], 10);
    assert_eq!(
        of(json!({ "total": 10, "currency": "USD" }), Some(sold("0")))["value"],
        10,
        "another currency"
    );
    let unpriced = json!({ "currency": "EUR", "products": [{ "product_id": "p_1" }, { "product_id": "p_2", "price": 9.4 }] });
    assert_eq!(of(unpriced, Some(sold("0"))).get("value"), None, "what came back is left open");
}

#[test]
fn the_debug_address_gets_the_same_event_by_strict_rules() {
    let destination = opened(&document("ga4_mp"));
    let item = build(&document("ga4_mp"), purchase(), Consent::Allow).unwrap();
    let trial = destination.trial(&[&item], None).unwrap();
    assert_eq!(trial.url, "https://www.google-analytics.com/debug/mp/collect?measurement_id=G-ABC123DEF4");
    assert!(trial.full_url().ends_with("&api_secret=s3cret-api"), "{}", trial.url);
    let mut body: Value = serde_json::from_slice(&trial.body).unwrap();
    let behaviour = body.as_object_mut().unwrap().remove("validation_behavior");
    assert_eq!(behaviour, Some(json!("ENFORCE_RECOMMENDATIONS")));
    assert_eq!(body, item.body.to_value());
}

#[test]
fn the_debug_address_is_read_message_by_message() {
    let destination = open(&document("ga4_mp"), &WorkspaceDefaults::default()).unwrap();
    let read = |status, body: &str| destination.read_trial(&Answer::new(status, body));
    assert_eq!(read(200, r#"{"validationMessages":[]}"#), Trial::Passed);
    let said = json!({ "validationMessages": [
        { "fieldPath": "events.params.currency", "description": "A value needs a currency.", "validationCode": "VALUE_REQUIRED" },
        { "description": "Unknown jane@example.com", "validationCode": "NAME_INVALID" }
    ] });
    let finding = |field: &str, code: &str, detail: &str| Finding {
        index: Some(0),
        field: field.to_owned(),
        code: code.to_owned(),
        detail: detail.to_owned(),
    };
    let found = vec![
        finding("events.params.currency", "VALUE_REQUIRED", "A value needs a currency."),
        finding("", "NAME_INVALID", "Unknown ***"),
    ];
    assert_eq!(read(200, &said.to_string()), Trial::Found(found));
    for (status, body) in
        [(204, ""), (200, "<html>"), (200, "{}"), (404, r#"{"validationMessages":[]}"#), (500, "")]
    {
        let code = format!("HTTP_{status}");
        assert!(
            matches!(read(status, body), Trial::Unanswered { code: told, .. } if told == code),
            "{status} {body}"
        );
    }
}

#[test]
fn an_order_id_that_ga4_does_not_take_is_refused_and_not_cut_off() {
    let with_id = |id: String| {
        build(&document("ga4_mp"), with(purchase(), "/properties/order_id", json!(id)), Consent::Allow)
    };
    assert!(with_id("漢".repeat(100)).is_ok());
    let refusal = with_id("o".repeat(101)).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InvalidPayload);
    assert_eq!(refusal.field.as_deref(), Some("properties.order_id"));
}
