//! What a payload says about consent comes from the decision; settings and events only add restriction.

use serde_json::{Value, json};
use tracklayer_destination::{Consent, RefusalCode};
use tracklayer_proto::event::v1::ConnectionDecision;

use crate::{KINDS, build, document, purchase, with};

fn restricted(place: &str, denied: &[&str]) -> Consent {
    Consent::Restricted {
        place: place.to_owned(),
        denied_purposes: denied.iter().map(|p| (*p).to_owned()).collect(),
    }
}

#[test]
fn a_denied_event_is_never_built() {
    for kind in KINDS {
        let refusal =
            build(&document(kind), purchase(), Consent::Deny { reason: "gpc".to_owned() }).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::RestrictionNotExpressible, "{kind}");
    }
}

#[test]
fn a_restricted_event_states_it_or_stays() {
    let california = restricted("US-CA", &["ad_targeting", "sale_share"]);
    let meta = build(&document("meta_capi"), purchase(), california.clone()).unwrap().body.to_value();
    assert_eq!(meta["data_processing_options"], json!(["LDU"]));
    assert_eq!(meta["data_processing_options_country"], 1);
    assert_eq!(meta["data_processing_options_state"], 1000);
    let tiktok = build(&document("tiktok_events"), purchase(), california.clone()).unwrap().body.to_value();
    assert_eq!(tiktok["limited_data_use"], true);
    for kind in ["google_ads", "webhook", "warehouse"] {
        let refusal = build(&document(kind), purchase(), california.clone()).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::RestrictionNotExpressible, "{kind}");
    }
}

#[test]
fn limited_data_use_does_not_exist_in_europe() {
    for kind in ["meta_capi", "tiktok_events"] {
        for place in ["DE", "GB", "", "unknown"] {
            let refusal =
                build(&document(kind), purchase(), restricted(place, &["ad_targeting"])).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::RestrictionNotExpressible, "{kind} in {place}");
        }
    }
}

#[test]
fn limited_data_use_that_must_be_located_needs_the_address() {
    let without_ip = with(purchase(), "/context/ip", json!("10.0.0.1"));
    for (kind, place) in [("meta_capi", "US"), ("tiktok_events", "US-CA")] {
        let refusal =
            build(&document(kind), without_ip.clone(), restricted(place, &["sale_share"])).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::RestrictionNotExpressible, "{kind}");
    }
    let named = build(&document("meta_capi"), without_ip, restricted("US-TX", &["sale_share"])).unwrap();
    assert_eq!(named.body.to_value()["data_processing_options_state"], 1005);
}

#[test]
fn settings_and_events_only_add_restriction() {
    let off = with(document("meta_capi"), "/settings/ldu", json!("off"));
    let decided = build(&off, purchase(), restricted("US-CA", &["sale_share"])).unwrap().body.to_value();
    assert_eq!(decided["data_processing_options"], json!(["LDU"]), "`off` does not lift a decision");

    let asking = with(purchase(), "/properties/data_processing_options", json!(["LDU"]));
    assert_eq!(
        build(&off, asking, Consent::Allow).unwrap().body.to_value()["data_processing_options"],
        json!(["LDU"])
    );

    let not_asking = with(purchase(), "/properties/data_processing_options", json!([]));
    let body = build(&document("meta_capi"), not_asking, restricted("US-CA", &["sale_share"]))
        .unwrap()
        .body
        .to_value();
    assert_eq!(body["data_processing_options"], json!(["LDU"]), "an event does not lift a decision");

    let granting = with(purchase(), "/properties/consent", json!({ "adPersonalization": "CONSENT_GRANTED" }));
    let body = build(&document("google_data_manager"), granting, restricted("DE", &["ad_targeting"]))
        .unwrap()
        .body
        .to_value();
    assert_eq!(
        body["consent"],
        json!({ "adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_DENIED" })
    );
}

#[test]
fn with_user_data_denied_no_identifier_and_no_cart_leaves() {
    let merchant = with(document("google_data_manager"), "/settings/merchant_id", json!("1"));
    let body = build(&merchant, purchase(), restricted("DE", &["ad_user_data"])).unwrap().body.to_value();
    assert_eq!(
        body["consent"],
        json!({ "adUserData": "CONSENT_DENIED", "adPersonalization": "CONSENT_DENIED" })
    );
    assert!(body.get("userData").is_none() && body.get("cartData").is_none(), "{body}");
    assert_eq!(body["adIdentifiers"]["gclid"], "Cj0abc");

    let ga4 = with(document("ga4_mp"), "/settings/send_user_data", json!(true));
    let body = build(&ga4, purchase(), restricted("DE", &["ad_user_data"])).unwrap().body.to_value();
    assert_eq!(body["consent"], json!({ "ad_user_data": "DENIED", "ad_personalization": "DENIED" }));
    assert!(body.get("user_data").is_none(), "{body}");
    let allowed = build(&ga4, purchase(), Consent::Allow).unwrap().body.to_value();
    assert!(allowed["user_data"]["sha256_email_address"].is_array(), "{allowed}");
}

/// What the firewall answers of a connection that needs none of what is denied.
fn allowed_but(denied: &[&str]) -> Consent {
    Consent::from_decision(&ConnectionDecision {
        outcome: 1,
        place: "US-CA".to_owned(),
        denied_purposes: denied.iter().map(|p| (*p).to_owned()).collect(),
        ..ConnectionDecision::default()
    })
}

#[test]
fn what_is_denied_beside_an_allowed_event_is_stated_and_keeps_the_person_out() {
    let whole = with(
        with(document("ga4_mp"), "/settings/send_user_data", json!(true)),
        "/settings/send_ip",
        json!(true),
    );
    let body = |denied: &[&str]| build(&whole, purchase(), allowed_but(denied)).unwrap().body.to_value();
    for denied in [
        &["ad_targeting", "sale_share"][..],
        &["ad_measurement", "ad_targeting", "sale_share"],
        &["functional", "ad_measurement", "ad_targeting", "sale_share"],
        &["sale_share"],
    ] {
        let body = body(denied);
        assert_eq!(body["consent"], json!({ "ad_user_data": "DENIED", "ad_personalization": "DENIED" }));
        assert!(body.get("user_data").is_none() && body.get("ip_override").is_none(), "{denied:?}: {body}");
        assert_eq!(body["client_id"], "1234567890.1700000000", "statistics are allowed");
    }
    let body_of_targeting = body(&["ad_targeting"]);
    assert_eq!(
        body_of_targeting["consent"],
        json!({ "ad_user_data": "GRANTED", "ad_personalization": "DENIED" })
    );
    assert!(body_of_targeting["user_data"].is_object(), "{body_of_targeting}");
    // What no payload speaks of changes none.
    for denied in [&["functional"][..], &["functional", "unheard of"]] {
        let body = body(denied);
        assert_eq!(body["consent"], json!({ "ad_user_data": "GRANTED", "ad_personalization": "GRANTED" }));
        assert!(body["user_data"].is_object() && body["ip_override"].is_string(), "{body}");
    }
}

#[test]
fn what_is_denied_beside_an_allowed_event_is_stated_by_every_platform_or_it_stays() {
    let body = |kind: &str, denied: &[&str]| {
        build(&document(kind), purchase(), allowed_but(denied)).map(|item| item.body.to_value())
    };
    let google = body("google_data_manager", &["sale_share"]).unwrap();
    assert_eq!(
        google["consent"],
        json!({ "adUserData": "CONSENT_DENIED", "adPersonalization": "CONSENT_DENIED" })
    );
    assert!(google.get("userData").is_none(), "{google}");
    for kind in ["google_ads", "meta_capi", "tiktok_events"] {
        let refusal = body(kind, &["ad_targeting"]).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::RestrictionNotExpressible, "{kind}");
    }
    // Statistics and comforts are no affair of theirs.
    assert_eq!(body("google_ads", &["analytics"]).unwrap()["consent"], json!({ "adUserData": "GRANTED" }));
    for kind in KINDS {
        assert!(body(kind, &["functional", "analytics"]).is_ok(), "{kind}");
    }
}

#[test]
fn a_restriction_that_names_nothing_denies_personalisation_at_least() {
    let body =
        build(&document("google_data_manager"), purchase(), restricted("DE", &[])).unwrap().body.to_value();
    assert_eq!(body["consent"]["adPersonalization"], "CONSENT_DENIED");
}

#[test]
fn no_custom_field_reaches_the_consent_fields() {
    for (kind, key) in [("meta_capi", "data_processing_options"), ("tiktok_events", "limited_data_use")] {
        let document = with(document(kind), "/constants", json!({ key: [] }));
        let errors = tracklayer_destination::open(&document, &Default::default()).err().unwrap();
        assert_eq!(errors.0[0].path, format!("constants.{key}"));
    }
    let value: Value = json!({ "custom_data.data_processing_options": [] });
    let document = with(document("meta_capi"), "/constants", value);
    let body = build(&document, purchase(), restricted("US-CA", &["sale_share"])).unwrap().body.to_value();
    assert_eq!(body["data_processing_options"], json!(["LDU"]));
}
