//! Meta's answers: the table of codes, and how the bad event is found.

use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_destination::{Answer, HoldKind, Item, ItemOutcome};

use crate::{build, document, opened, purchase};

fn read(answer: &Answer, count: usize) -> Vec<ItemOutcome> {
    let document = document("meta_capi");
    let item = build(&document, purchase(), tracklayer_destination::Consent::Allow).unwrap();
    let items: Vec<Item> = vec![item; count];
    opened(&document).classify(answer, &items.iter().collect::<Vec<_>>())
}

fn error(status: u16, error: Value) -> Answer {
    Answer::new(status, json!({ "error": error }).to_string())
}

fn hold(outcomes: &[ItemOutcome]) -> (HoldKind, Option<Duration>) {
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "one answer for all: {outcomes:?}");
    match &outcomes[0] {
        ItemOutcome::HoldLane { kind, after, .. } => (*kind, *after),
        other => panic!("not a hold: {other:?}"),
    }
}

#[test]
fn success_needs_events_received() {
    let delivered = read(&Answer::new(200, r#"{"events_received":2,"messages":[],"fbtrace_id":"A"}"#), 2);
    assert_eq!(delivered, vec![ItemOutcome::DELIVERED; 2]);
    let fewer = read(&Answer::new(200, r#"{"events_received":1,"messages":[]}"#), 2);
    assert!(
        matches!(&fewer[1], ItemOutcome::Delivered { note: Some(note) } if note == "events_received 1 of 2"),
        "{fewer:?}"
    );
    let none = read(&Answer::new(200, r#"{"events_received":0,"messages":[]}"#), 2);
    assert_eq!(hold(&none).0, HoldKind::Transient, "{none:?}");
    let late = read(&Answer::new(502, r#"{"events_received":2,"messages":[]}"#), 2);
    assert_eq!(hold(&late).0, HoldKind::Transient, "{late:?}");
    for body in ["<html>login</html>", "{}", "", r#"{"success":true}"#] {
        assert_eq!(hold(&read(&Answer::new(200, body), 2)).0, HoldKind::Transient, "{body}");
    }
}

#[test]
fn codes_decide_and_not_statuses() {
    use HoldKind::{Auth, Configuration, Throttled, Transient};
    for (status, code, subcode, message, kind) in [
        (400, 190, Some(463), "expired", Auth),
        (400, 190, Some(458), "app removed", Auth),
        (401, 190, None, "unparsable", Auth),
        (400, 102, None, "session", Auth),
        (400, 100, None, "Invalid appsecret_proof provided in the API argument", Auth),
        (403, 10, None, "permission", Auth),
        (403, 200, None, "permission", Auth),
        (403, 299, None, "permission", Auth),
        (400, 3, None, "capability", Auth),
        (400, 100, Some(33), "Unsupported post request", Configuration),
        (400, 803, None, "unknown alias", Configuration),
        (400, 100, None, "(#100) The parameter data is required", Configuration),
        (400, 2500, None, "Unknown path components", Configuration),
        (400, 12, None, "deprecated", Configuration),
        (400, 105, None, "too many parameters", Configuration),
        (400, 4, Some(1_504_022), "limit", Throttled),
        (403, 17, Some(2_446_079), "limit", Throttled),
        (400, 613, Some(1_487_742), "limit", Throttled),
        (400, 80004, None, "limit", Throttled),
        (400, 341, None, "limit", Throttled),
        (500, 1, None, "unknown", Transient),
        (503, 2, None, "service", Transient),
        (400, 5000, None, "unknown", Transient),
        (400, -3, None, "unknown", Transient),
        (400, 368, None, "blocked", Transient),
        (400, 21009, None, "somebody else's code", Transient),
    ] {
        let mut body =
            json!({ "message": message, "type": "OAuthException", "code": code, "fbtrace_id": "A" });
        if let Some(subcode) = subcode {
            body["error_subcode"] = json!(subcode);
        }
        let outcomes = read(&error(status, body), 3);
        assert_eq!(hold(&outcomes).0, kind, "{code}/{subcode:?}");
    }
}

#[test]
fn a_passing_trouble_wins_over_the_code() {
    let body = json!({ "message": "x", "code": 100, "error_subcode": 2_804_003, "is_transient": true });
    assert_eq!(hold(&read(&error(400, body), 2)).0, HoldKind::Transient);
}

#[test]
fn a_throttled_lane_waits_as_long_as_the_headers_say() {
    let body = json!({ "message": "limit", "code": 80004 });
    assert_eq!(hold(&read(&error(400, body.clone()), 1)).1, Some(Duration::from_secs(60)));

    let mut answer = error(400, body.clone());
    let usage = r#"{"1":[{"type":"ads_management","estimated_time_to_regain_access":19},{"estimated_time_to_regain_access":3}]}"#;
    answer.headers.insert("x-business-use-case-usage", usage.parse().unwrap());
    assert_eq!(hold(&read(&answer, 1)).1, Some(Duration::from_secs(19 * 60)));

    let mut answer = error(400, body);
    let usage = r#"{"acc_id_util_pct":9.67,"reset_time_duration":100}"#;
    answer.headers.insert("x-ad-account-usage", usage.parse().unwrap());
    assert_eq!(hold(&read(&answer, 1)).1, Some(Duration::from_secs(100)));
}

#[test]
fn an_event_that_is_named_is_dead_and_its_neighbours_go_again() {
    let message = "(#100) $['data'][1]['custom_data']: Unexpected key \"name\" on param \"$['data'][1]\".";
    let body =
        json!({ "message": message, "code": 100, "error_subcode": 2_804_019, "error_user_title": "Erreur" });
    let outcomes = read(&error(400, body), 3);
    assert!(matches!(&outcomes[1], ItemOutcome::Dead { code, .. } if code == "100/2804019"), "{outcomes:?}");
    assert_eq!(outcomes[0], ItemOutcome::ResendRest);
    assert_eq!(outcomes[2], ItemOutcome::ResendRest);
}

#[test]
fn an_event_that_is_not_named_is_looked_for() {
    for subcode in [2_804_001, 2_804_003, 2_804_008, 2_804_009, 2_804_010, 2_804_016, 2_804_023, 2_804_050] {
        let body = json!({ "message": "Invalid parameter", "code": 100, "error_subcode": subcode });
        let outcomes = read(&error(400, body), 4);
        let expected = format!("100/{subcode}");
        assert!(
            outcomes.iter().all(|o| matches!(o, ItemOutcome::Isolate { code, .. } if *code == expected)),
            "{outcomes:?}"
        );
    }
    let beyond = json!({ "message": "$['data'][9]", "code": 100, "error_subcode": 2_804_019 });
    assert!(matches!(read(&error(400, beyond), 2)[0], ItemOutcome::Isolate { .. }));
}

#[test]
fn gateways_speak_html() {
    for status in [500, 502, 503, 504] {
        let outcomes = read(&Answer::new(status, "<html>Sorry, something went wrong.</html>"), 2);
        assert_eq!(hold(&outcomes).0, HoldKind::Transient, "{status}");
    }
    assert_eq!(hold(&read(&Answer::new(429, ""), 2)).0, HoldKind::Throttled);
    assert!(matches!(read(&Answer::new(413, ""), 2)[0], ItemOutcome::Isolate { .. }));
}
