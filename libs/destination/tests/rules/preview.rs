//! Preview: one answer a line, with the exact requests.

use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_destination::preview::{ConsentChoice, preview};
use tracklayer_destination::{Consent, WorkspaceDefaults};

use crate::{deliverable, document, now, opened, purchase, with};

fn told(document: &Value, lines: &[Value], consent: &str) -> Vec<Value> {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let consent = ConsentChoice::parse(consent).unwrap();
    let answers =
        preview(document, &WorkspaceDefaults::default(), lines.iter().map(String::as_str), now(), &consent)
            .unwrap();
    assert!(answers.iter().all(|answer| !answer.contains('\n')));
    answers.iter().map(|answer| serde_json::from_str(answer).unwrap()).collect()
}

#[test]
fn a_line_gives_its_request_with_the_secrets_masked() {
    let answer = &told(&document("meta_capi"), &[purchase()], "allow")[0];
    assert_eq!(answer["status"], "built");
    let request = &answer["requests"][0];
    assert_eq!(request["method"], "POST");
    assert_eq!(request["url"], "https://graph.facebook.com/v26.0/1234567890123456/events");
    assert_eq!(request["headers"]["authorization"], "Bearer ***");
    assert_eq!(request["body"]["data"][0]["event_id"], "m-1");
    assert_eq!(answer["refused"], json!([]));
    assert!(!answer.to_string().contains("s3cret"), "{answer}");
}

#[test]
fn an_event_of_a_source_that_goes_by_the_order_has_the_orders_id() {
    let by_order = with(purchase(), "/dedup_by_order_id", json!(true));
    let order = purchase()["properties"]["order_id"].as_str().unwrap().to_owned();
    let answers = told(&document("meta_capi"), &[by_order, purchase()], "allow");
    let id = |answer: &Value| answer["requests"][0]["body"]["data"][0]["event_id"].clone();
    assert_eq!(id(&answers[0]), format!("order_completed:{order}"));
    assert_eq!(id(&answers[1]), "m-1");
    assert!(!answers[0].to_string().contains("dedup_by_order_id"), "it is no part of the event");
}

#[test]
fn events_of_an_array_go_out_together_and_a_bad_one_alone_is_refused() {
    let late = with(purchase(), "/timestamp", json!("2026-11-01T00:00:00Z"));
    let second = with(purchase(), "/messageId", json!("m-2"));
    let answer = &told(&document("meta_capi"), &[json!([purchase(), late, second])], "")[0];
    assert_eq!(answer["status"], "partly_refused");
    assert_eq!(answer["requests"].as_array().unwrap().len(), 1);
    assert_eq!(answer["requests"][0]["body"]["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["refused"][0]["index"], 1);
    assert_eq!(answer["refused"][0]["code"], "event_too_old");
    assert_eq!(answer["refused"][0]["field"], "timestamp");
}

#[test]
fn an_event_of_1970_is_refused_by_every_ad_platform() {
    let old = with(purchase(), "/timestamp", json!("1970-01-01T00:00:00Z"));
    for kind in ["meta_capi", "tiktok_events", "google_data_manager", "google_ads", "ga4_mp"] {
        let answer = &told(&document(kind), std::slice::from_ref(&old), "allow")[0];
        assert_eq!(answer["refused"][0]["code"], "event_too_old", "{kind}: {answer}");
    }
}

#[test]
fn what_would_be_too_old_when_it_arrives_is_refused_two_minutes_before() {
    for kind in ["meta_capi", "tiktok_events", "google_data_manager", "google_ads", "ga4_mp"] {
        let destination = opened(&document(kind));
        let limit =
            destination.max_event_age(&deliverable(purchase(), Consent::Allow, None)).expect("a limit");
        assert!(limit > Duration::from_secs(3_600 + 120), "{kind}: of a young event it is not asked for");
        for (seconds_left, refused) in [(119, true), (121, false)] {
            let at = now() - limit + Duration::from_secs(seconds_left);
            let event = with(purchase(), "/timestamp", json!(at.to_string()));
            let built = destination.build(&deliverable(event.clone(), Consent::Allow, None), now());
            assert!(built.is_ok(), "{kind}: a builder goes by the limit itself");
            let answer = &told(&document(kind), &[event], "allow")[0];
            assert_eq!(answer["refused"][0]["code"] == "event_too_old", refused, "{kind}: {answer}");
        }
    }
}

#[test]
fn google_takes_a_conversion_for_as_long_as_the_longest_window_of_an_action() {
    for (kind, timestamp, refused) in [
        ("google_data_manager", "2026-08-25T13:00:00Z", false),
        ("google_data_manager", "2026-08-25T11:00:00Z", true),
        ("google_ads", "2026-08-25T13:00:00Z", false),
        ("google_ads", "2026-08-25T11:00:00Z", true),
    ] {
        let event = with(purchase(), "/timestamp", json!(timestamp));
        let answer = &told(&document(kind), &[event], "allow")[0];
        assert_eq!(answer["refused"][0]["code"] == "event_too_old", refused, "{kind} {timestamp}: {answer}");
    }
}

#[test]
fn every_status_has_its_cause() {
    let meta = document("meta_capi");
    let test_order = with(purchase(), "/properties/test", json!(true));
    let ahead = with(purchase(), "/timestamp", json!("2026-11-23T13:00:00Z"));
    let nameless = with(purchase(), "/event", json!(""));
    for (event, consent, status, code) in [
        (test_order, "allow", "filtered", "test_order"),
        (ahead, "allow", "refused", "event_in_future"),
        (nameless, "allow", "invalid", "missing_event_name"),
        (purchase(), "deny", "blocked", "consent_denied"),
    ] {
        let answer = &told(&meta, &[event], consent)[0];
        assert_eq!(answer["status"], status, "{answer}");
        if status != "invalid" {
            assert_eq!(answer["refused"][0]["code"], code, "{answer}");
        }
        assert_eq!(answer["requests"], json!([]));
    }
    let broken = preview(&meta, &WorkspaceDefaults::default(), ["{"], now(), &ConsentChoice::Allow).unwrap();
    assert!(broken[0].contains("\"status\":\"invalid\""), "{}", broken[0]);
}

#[test]
fn order_state_and_known_clicks_stand_beside_the_event() {
    let refund = json!({
        "type": "track", "event": "Order Refunded", "userId": "u", "timestamp": "2026-11-23T11:00:00Z",
        "properties": { "order_id": "o-1001", "total": 10, "currency": "EUR" },
        "order_state": { "value": 30.5, "at": "2026-11-20T14:03:21Z", "refunded": "0.5" },
        "known_click_ids": { "gclid": "Cj0known" }
    });
    let answer = &told(&document("google_data_manager"), &[refund], "allow")[0];
    let event = &answer["requests"][0]["body"]["events"][0];
    assert_eq!(event["conversionValue"], 20);
    assert_eq!(event["adIdentifiers"]["gclid"], "Cj0known");
    assert!(event["eventTimestamp"].as_str().unwrap().starts_with("2026-11-20"));
}

#[test]
fn restricted_is_stated_in_the_events_place() {
    let answer = &told(&document("meta_capi"), &[purchase()], "restricted")[0];
    let event = &answer["requests"][0]["body"]["data"][0];
    assert_eq!(event["data_processing_options"], json!(["LDU"]));
    let stated = r#"{"outcome":"allow_restricted","place":"US-CA","denied_purposes":["sale_share"]}"#;
    let answer = &told(&document("meta_capi"), &[purchase()], stated)[0];
    assert_eq!(answer["requests"][0]["body"]["data"][0]["data_processing_options_state"], 1000);
}

#[test]
fn googles_words_are_read_strictly() {
    for (text, expected) in [
        ("{}", Consent::AllowUnstated),
        (r#"{"ad_user_data":"granted","ad_personalization":"granted"}"#, Consent::Allow),
        (
            r#"{"ad_user_data":"granted"}"#,
            Consent::Restricted {
                place: String::new(),
                denied_purposes: vec!["ad_personalization".to_owned()],
            },
        ),
        (
            r#"{"outcome":"allow","place":"US-CA","denied_purposes":["ad_targeting"]}"#,
            Consent::AllowInPart { denied_purposes: vec!["ad_targeting".to_owned()] },
        ),
        (r#"{"outcome":"deny","reason":"gpc"}"#, Consent::Deny { reason: "gpc".to_owned() }),
    ] {
        assert_eq!(ConsentChoice::parse(text), Ok(ConsentChoice::Stated(expected)), "{text}");
    }
    assert!(ConsentChoice::parse("perhaps").is_err());
    assert!(ConsentChoice::parse("[]").is_err());
}

#[test]
fn a_preview_needs_no_credentials() {
    for kind in crate::KINDS {
        let mut document = document(kind);
        let settings = document["settings"].as_object_mut().unwrap();
        for key in ["access_token", "oauth", "api_secret", "secret", "access_key_id", "secret_access_key"] {
            settings.remove(key);
        }
        let answer = &told(&document, &[purchase()], "allow")[0];
        assert_eq!(answer["status"], "built", "{kind}: {answer}");
    }
}

#[test]
fn what_is_left_out_is_told_with_its_field_and_reason() {
    let mut event = purchase();
    event["context"]["traits"] = json!({ "email": "john.example.com", "phone": "+1 650 555 1212" });
    event["context"]["ip"] = json!("10.0.0.1");
    for (kind, part) in [("meta_capi", "user_data"), ("tiktok_events", "user")] {
        let answer = &told(&document(kind), std::slice::from_ref(&event), "allow")[0];
        assert_eq!(answer["status"], "built", "{answer}");
        let notes = answer["notes"].as_array().unwrap();
        let told: Vec<_> = notes
            .iter()
            .map(|note| [&note["about"], &note["code"], &note["kind"]].map(Value::clone))
            .collect();
        assert!(told.contains(&[json!("email"), json!("no_at"), json!("rejected")]), "{answer}");
        assert!(told.contains(&[json!("ip"), json!("not_public"), json!("rejected")]), "{answer}");
        let email = notes.iter().find(|note| note["about"] == "email").unwrap();
        assert!(email["field"].as_str().unwrap().starts_with(part), "{email}");
        assert_eq!((&email["index"], &email["reason"]), (&json!(0), &json!("no @")));
        assert!(!answer["notes"].to_string().contains("john"), "{answer}");
    }
}

#[test]
fn a_refused_event_tells_what_had_been_left_out_of_it() {
    let mut event = purchase();
    event["userId"] = json!("undefined");
    event["context"] = json!({ "traits": { "email": "john" }, "page": { "url": "https://shop.example/" } });
    for kind in ["meta_capi", "tiktok_events"] {
        let answer = &told(&document(kind), std::slice::from_ref(&event), "allow")[0];
        assert_eq!(answer["refused"][0]["code"], "no_match_key", "{answer}");
        let notes = answer["notes"].as_array().unwrap();
        let about = |field: &str| notes.iter().any(|note| note["about"] == field && note["index"] == 0);
        assert!(about("email") && about("external_id"), "{answer}");
    }
    event["context"] = json!({ "traits": { "phone": "0171 2345678" } });
    event["properties"].as_object_mut().unwrap().remove("gclid");
    for kind in ["google_ads", "google_data_manager"] {
        let answer = &told(&document(kind), std::slice::from_ref(&event), "allow")[0];
        assert_eq!(answer["refused"][0]["code"], "no_match_key", "{answer}");
        let code = |note: &Value| note["about"] == "phone" && note["code"] == "country_unknown";
        assert!(answer["notes"].as_array().unwrap().iter().any(code), "{answer}");
    }
}
