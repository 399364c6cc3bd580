//! Google's two upload APIs: clicks, adjustments, cart, variables, and requests that only validate.

use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_destination::{
    Answer, Consent, Finding, HoldKind, Item, ItemOutcome, OrderState, RefusalCode, Trial, WorkspaceDefaults,
    open,
};
use tracklayer_ids::Secret;

use crate::{build, deliverable, document, now, opened, purchase, with};

const UPLOADS: [&str; 2] = ["google_ads", "google_data_manager"];

fn body(kind: &str, event: Value) -> Value {
    build(&document(kind), event, Consent::Allow).unwrap().body.to_value()
}

fn gclid(body: &Value) -> Option<&Value> {
    body.get("gclid").or_else(|| body.pointer("/adIdentifiers/gclid"))
}

#[test]
fn a_click_id_that_google_could_not_read_stays_behind() {
    for kind in UPLOADS {
        for broken in ["Cj0%20abc", "Cj0€abc", "Cj0+abc=", "Cj0\"abc"] {
            let event = with(purchase(), "/properties/gclid", json!(broken));
            let item = build(&document(kind), event, Consent::Allow).unwrap();
            assert_eq!(gclid(&item.body.to_value()), None, "{kind} {broken}");
            assert!(item.notes.iter().any(|note| note.field == "gclid"), "{kind} {broken}: {:?}", item.notes);
        }
        let event = with(purchase(), "/properties/gclid", json!("Cj0KCQ_abc-DEF.x"));
        assert_eq!(gclid(&body(kind, event)), Some(&json!("Cj0KCQ_abc-DEF.x")), "{kind}");

        // It was all that the event had.
        let mut event = with(purchase(), "/properties/gclid", json!("Cj0%20abc"));
        event["context"]["traits"] = json!({});
        let refusal = build(&document(kind), event, Consent::Allow).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::NoMatchKey, "{kind}");
    }
}

fn changed(kind: &str, event: Value, at: &str) -> Result<Item, tracklayer_destination::Refusal> {
    let state = OrderState {
        value: Some("54.4".parse().unwrap()),
        currency: Some("EUR".to_owned()),
        at: Some(at.parse().unwrap()),
        ..OrderState::default()
    };
    opened(&document(kind)).build(&deliverable(event, Consent::Allow, Some(state)), now())
}

fn refund(timestamp: &str) -> Value {
    let event = with(with(purchase(), "/event", json!("Order Refunded")), "/timestamp", json!(timestamp));
    with(
        event,
        "/properties",
        json!({ "order_id": "o-1", "total": 10, "currency": "EUR", "gclid": "Cj0abc" }),
    )
}

#[test]
fn an_adjustment_lies_after_its_conversion() {
    for (refunded, sold, expected) in [
        ("2026-11-23T11:00:00Z", "2026-11-20T14:03:21Z", "2026-11-23 11:00:00+00:00"),
        // Uploads are cut to the second.
        ("2026-11-23T11:00:00.900Z", "2026-11-23T11:00:00.100Z", "2026-11-23 11:00:01+00:00"),
        // Two clocks.
        ("2026-11-23T10:59:58Z", "2026-11-23T11:00:00Z", "2026-11-23 11:00:01+00:00"),
    ] {
        let item = changed("google_ads", refund(refunded), sold).unwrap();
        assert_eq!(item.body.to_value()["adjustmentDateTime"], expected, "{refunded} {sold}");
    }
}

#[test]
fn a_conversion_can_be_changed_for_54_days() {
    for kind in UPLOADS {
        assert!(changed(kind, refund("2026-11-23T11:00:00Z"), "2026-09-30T12:00:01Z").is_ok(), "{kind}");
        let refusal = changed(kind, refund("2026-11-23T11:00:00Z"), "2026-09-30T11:59:59Z").unwrap_err();
        assert_eq!(
            (refusal.code, refusal.platform_code),
            (RefusalCode::EventTooOld, Some("CONVERSION_EXPIRED")),
            "{kind}"
        );
        // What was sold before a refund of long ago was sold longer ago.
        let old = refund("2026-09-30T11:59:59Z");
        let event = deliverable(with(old.clone(), "/properties/total", json!(null)), Consent::Allow, None);
        assert_eq!(
            opened(&document(kind)).build(&event, now()).unwrap_err().code,
            RefusalCode::EventTooOld,
            "{kind}"
        );
        assert_eq!(
            opened(&document(kind)).max_event_age(&event).map(|age| age.as_secs()),
            Some(54 * 86_400),
            "{kind}"
        );
    }
}

#[test]
fn an_original_that_comes_after_its_refund_is_none() {
    let mut event = refund("2026-11-23T11:00:00Z");
    event["properties"]["original_value"] = json!(54.4);
    event["properties"]["original_timestamp"] = json!("9999-12-31T23:59:59Z");
    let event = deliverable(event, Consent::Allow, None);
    let item = opened(&document("google_ads")).build(&event, now()).unwrap();
    assert_eq!(item.body.to_value()["adjustmentDateTime"], "2026-11-23 11:00:00+00:00");
}

/// Two adjustments of which the first has no conversion; of a partial failure, or of a request that was refused as a whole.
fn without_conversion(status: u16) -> Answer {
    let error = json!({
        "errorCode": { "conversionAdjustmentUploadError": "CONVERSION_NOT_FOUND" }, "message": "Not found.",
        "location": { "fieldPathElements": [{ "fieldName": "conversion_adjustments", "index": 0 }] },
    });
    let details =
        json!([{ "@type": "x/google.ads.googleads.v26.errors.GoogleAdsFailure", "errors": [error] }]);
    let body = match status {
        200 => json!({
            "partialFailureError": { "code": 3, "message": "?", "details": details },
            "results": [{}, { "orderId": "o-1002" }],
        }),
        _ => json!({ "error": { "code": status, "status": "INVALID_ARGUMENT", "details": details } }),
    };
    Answer::new(status, body.to_string())
}

#[test]
fn an_enhancement_waits_for_its_tag_for_hours_and_other_changes_for_their_conversion_for_a_day() {
    let enhancing = with(document("google_ads"), "/settings/mode", json!("enhancement"));
    let enhancement = build(&enhancing, purchase(), Consent::Allow).unwrap();
    let restated = changed("google_ads", refund("2026-11-23T11:00:00Z"), "2026-11-20T14:03:21Z").unwrap();
    for status in [200, 400] {
        let wait = |item: &Item| {
            let outcomes = opened(&enhancing).classify(&without_conversion(status), &[item, item]);
            match &outcomes[0] {
                ItemOutcome::Retry { after, attempts, .. } => (*after, *attempts),
                other => panic!("{status}: {other:?}"),
            }
        };
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
        assert_eq!(wait(&enhancement), (hours(3), Some(3)), "{status}: it is taken for a day");
        assert_eq!(wait(&restated), (hours(24), Some(2)), "{status}");
    }
}

#[test]
fn what_a_tag_reported_is_changed_by_its_order_id_only() {
    let enhancing = with(document("google_ads"), "/settings/mode", json!("enhancement"));
    let mut event = with(purchase(), "/event", json!("Order Cancelled"));
    event["properties"] = json!({ "gclid": "Cj0abc", "original_timestamp": "2026-11-22T12:00:00Z" });
    assert_eq!(body("google_ads", event.clone())["gclidDateTimePair"]["gclid"], "Cj0abc");
    assert_eq!(build(&enhancing, event, Consent::Allow).unwrap_err().code, RefusalCode::NoMatchKey);
}

#[test]
fn a_new_customer_is_told_where_the_event_says_so() {
    for (properties, ads, manager) in [
        (json!({ "customer_type": "new" }), Some("NEW"), Some("NEW")),
        (json!({ "customer_type": "RETURNING" }), Some("RETURNING"), Some("RETURNING")),
        (json!({ "customer_type": "reengaged" }), None, Some("REENGAGED")),
        (json!({ "new_customer": true }), Some("NEW"), Some("NEW")),
        (json!({ "new_customer": false }), Some("RETURNING"), Some("RETURNING")),
        (json!({ "customer_type": "vip", "new_customer": "yes" }), None, None),
    ] {
        let mut event = purchase();
        event["properties"].as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
        let told = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let denied =
            Consent::Restricted { place: "DE".to_owned(), denied_purposes: vec!["ad_user_data".to_owned()] };
        let without = build(&document("google_data_manager"), event.clone(), denied).unwrap().body.to_value();
        assert!(without.get("userProperties").is_none(), "{without}");
        assert_eq!(
            told(body("google_ads", event.clone()).get("customerType")).as_deref(),
            ads,
            "{properties}"
        );
        let sent = body("google_data_manager", event);
        assert_eq!(told(sent.pointer("/userProperties/customerType")).as_deref(), manager, "{properties}");
    }
}

#[test]
fn a_quantity_that_is_no_int32_does_not_cost_the_request() {
    let document = with(document("google_ads"), "/settings/merchant_id", json!("7654321"));
    let event = with(purchase(), "/properties/products/0/quantity", json!(2_147_483_648u32));
    let item = build(&document, event, Consent::Allow).unwrap();
    let items = item.body.to_value()["cartData"]["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 1, "{items}");
    assert!(item.notes.iter().any(|note| note.field == "cartData.items.quantity"), "{:?}", item.notes);
}

#[test]
fn data_manager_gets_the_browser_where_it_is_told_to() {
    let mut document = with(document("google_data_manager"), "/settings/merchant_id", json!("7654321"));
    let event = purchase();
    let sent = build(&document, event.clone(), Consent::Allow).unwrap().body.to_value();
    assert!(sent.get("eventDeviceInfo").is_none(), "{sent}");
    document["settings"]["send_device_info"] = json!(true);
    let sent = build(&document, event.clone(), Consent::Allow).unwrap().body.to_value();
    assert_eq!(sent["eventDeviceInfo"], json!({ "userAgent": "Mozilla/5.0", "ipAddress": "203.0.113.7" }));
    let denied =
        Consent::Restricted { place: "DE".to_owned(), denied_purposes: vec!["ad_user_data".to_owned()] };
    let sent = build(&document, event, denied).unwrap().body.to_value();
    assert!(sent.get("eventDeviceInfo").is_none() && sent.get("cartData").is_none(), "{sent}");
}

#[test]
fn a_custom_variable_of_the_ads_api_has_an_id() {
    let constants = |key: &str| with(document("google_ads"), "/constants", json!({ key: "gold" }));
    let errors = open(&constants("custom_variables.tier"), &WorkspaceDefaults::default()).err().unwrap();
    assert_eq!(errors.0[0].path, "constants.custom_variables.tier");
    let sent = build(&constants("custom_variables.77"), purchase(), Consent::Allow).unwrap().body.to_value();
    let variable = "customers/1234567890/conversionCustomVariables/77";
    assert_eq!(sent["customVariables"], json!([{ "conversionCustomVariable": variable, "value": "gold" }]));
}

#[test]
fn a_trial_is_the_same_request_and_only_validates() {
    for kind in UPLOADS {
        let destination = opened(&document(kind));
        let item = build(&document(kind), purchase(), Consent::Allow).unwrap();
        let token = Secret::new("t".to_owned());
        let (real, trial) = (
            destination.assemble(&[&item], Some(&token)),
            destination.trial(&[&item], Some(&token)).unwrap(),
        );
        assert_eq!((&real.url, &real.headers), (&trial.url, &trial.headers), "{kind}");
        let mut tried: Value = serde_json::from_slice(&trial.body).unwrap();
        assert_eq!(tried["validateOnly"], true, "{kind}");
        tried["validateOnly"] = json!(false);
        assert_eq!(tried, serde_json::from_slice::<Value>(&real.body).unwrap(), "{kind}");
    }
}

#[test]
fn a_trial_is_read_error_by_error() {
    let read = |kind: &str, status, body: Value| {
        opened(&document(kind)).read_trial(&Answer::new(status, body.to_string()))
    };
    let ads_error = |code: &str, index: usize, field: &str| {
        json!({
            "errorCode": { "conversionUploadError": code }, "message": "of jane@example.com",
            "location": { "fieldPathElements": [{ "fieldName": "conversions", "index": index }, { "fieldName": field }] },
        })
    };
    let finding = |index, field: &str, code: &str, detail: &str| Finding {
        index,
        field: field.to_owned(),
        code: code.to_owned(),
        detail: detail.to_owned(),
    };
    assert_eq!(read("google_ads", 200, json!({})), Trial::Passed, "validateOnly has no results");
    let errors =
        [ads_error("UNPARSEABLE_GCLID", 1, "gclid"), ads_error("EXPIRED_EVENT", 0, "conversion_date_time")];
    let failure =
        json!({ "partialFailureError": { "code": 3, "message": "?", "details": [{ "errors": errors }] } });
    let found = vec![
        finding(Some(1), "gclid", "UNPARSEABLE_GCLID", "of ***"),
        finding(Some(0), "conversion_date_time", "EXPIRED_EVENT", "of ***"),
    ];
    assert_eq!(read("google_ads", 200, failure), Trial::Found(found));
    let silent = json!({ "partialFailureError": { "code": 3, "message": "why", "details": [] } });
    assert_eq!(
        read("google_ads", 200, silent),
        Trial::Found(vec![finding(None, "", "PARTIAL_FAILURE", "why")]),
        "a failure is never a pass"
    );

    assert_eq!(read("google_data_manager", 200, json!({ "requestId": "r" })), Trial::Passed);
    let violation = json!({ "field": "events.events[2].event_source", "description": "Missing.", "reason": "REQUIRED_FIELD_MISSING" });
    let bad = json!({ "@type": "x/google.rpc.BadRequest", "fieldViolations": [violation] });
    let refused =
        json!({ "error": { "code": 400, "status": "INVALID_ARGUMENT", "message": "?", "details": [bad] } });
    let found = vec![finding(Some(2), "events.events[2].event_source", "REQUIRED_FIELD_MISSING", "Missing.")];
    assert_eq!(read("google_data_manager", 400, refused), Trial::Found(found));
    for kind in UPLOADS {
        let denied = json!({ "error": { "code": 403, "status": "PERMISSION_DENIED", "message": "no" } });
        let unanswered = Trial::Unanswered { code: "PERMISSION_DENIED".to_owned(), detail: "no".to_owned() };
        assert_eq!(read(kind, 403, denied), unanswered, "{kind}");
    }
}

#[test]
fn a_project_that_may_not_upload_any_more_is_told_where_to_go() {
    let error = json!({
        "errorCode": { "notAllowlistedError": "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE" }, "message": "Customer is not allowlisted.",
        "location": { "fieldPathElements": [{ "fieldName": "conversions", "index": 0 }] },
    });
    let details = json!([{ "errors": [error] }]);
    let per_item = json!({ "partialFailureError": { "message": "?", "details": details }, "results": [{}] });
    let whole = json!({ "error": { "code": 403, "status": "PERMISSION_DENIED", "message": "?", "details": details } });
    let item = build(&document("google_ads"), purchase(), Consent::Allow).unwrap();
    for (status, body) in [(200, per_item), (403, whole)] {
        let outcomes =
            opened(&document("google_ads")).classify(&Answer::new(status, body.to_string()), &[&item]);
        let ItemOutcome::HoldLane { kind, detail, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(*kind, HoldKind::Configuration, "{status}");
        assert!(detail.contains("google_data_manager"), "{status}: {detail}");
    }
}
