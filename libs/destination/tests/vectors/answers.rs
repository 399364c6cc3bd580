//! Answer vectors: HTTP answer → one outcome per sent item.

use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_destination::google::oauth::{TokenOutcome, read_token};
use tracklayer_destination::{
    Answer, Destination, Finding, HoldKind, Item, ItemBody, ItemOutcome, Trial, WorkspaceDefaults,
    data_manager, open,
};

use crate::{oauth, vectors};

fn answer_of(case: &Value) -> Answer {
    let body = match &case["body"] {
        Value::String(text) => text.clone().into_bytes(),
        Value::Null => Vec::new(),
        other => other.to_string().into_bytes(),
    };
    let mut answer = Answer::new(u16::try_from(case["http_status"].as_u64().unwrap()).unwrap(), body);
    for (name, value) in case.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let name: http::HeaderName = name.parse().unwrap();
        answer.headers.insert(name, value.as_str().unwrap().parse().unwrap());
    }
    answer
}

fn item(index: usize) -> Item {
    Item {
        body: ItemBody::of(
            &json!({ "orderId": index.to_string(), "userIdentifiers": [{ "hashedEmail": "00" }] }),
        ),
        notes: Vec::new(),
        group: String::new(),
        exclusive: None,
        event_id: format!("m-{index}"),
        repeatable: true,
        name: "x".to_owned(),
        order: None,
        remark: None,
        keys: None,
        built_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn classify(destination: &dyn Destination, answer: &Answer, count: usize) -> Vec<ItemOutcome> {
    let items: Vec<Item> = (0..count).map(item).collect();
    let outcomes = destination.classify(answer, &items.iter().collect::<Vec<_>>());
    assert_eq!(outcomes.len(), count);
    outcomes
}

fn tiktok() -> Box<dyn Destination> {
    let document =
        json!({ "kind": "tiktok_events", "settings": { "event_source_id": "C4", "access_token": "t" } });
    open(&document, &WorkspaceDefaults::default()).unwrap()
}

fn google(kind: &str) -> Box<dyn Destination> {
    let settings = match kind {
        "google_ads" => {
            json!({ "customer_id": "1234567890", "conversion_action_id": "1", "oauth": oauth() })
        }
        "google_data_manager" => {
            json!({ "operating_account": { "account_id": "1" }, "conversion_action_id": "1", "oauth": oauth() })
        }
        _ => json!({ "measurement_id": "G-ABC123DEF4", "api_secret": "s" }),
    };
    open(&json!({ "kind": kind, "settings": settings }), &WorkspaceDefaults::default()).unwrap()
}

#[test]
fn every_tiktok_answer_is_read_as_published() {
    let file = vectors("tiktok");
    let cases = file["answers"].as_array().unwrap();
    assert_eq!(cases.len(), 32);
    let mut failures = Vec::new();
    for case in cases {
        if let Err(why) = tiktok_agrees(case) {
            failures.push(format!("{}: {why}", case["id"]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Whether one answer is read as its vector says.
pub fn tiktok_agrees(case: &Value) -> Result<(), String> {
    let expected = &case["expected"];
    let outcomes = classify(&*tiktok(), &answer_of(case), 4);
    let (class, scope) = (expected["class"].as_str().unwrap(), expected["scope"].as_str().unwrap());
    let index = expected.get("index").and_then(Value::as_u64);
    for (at, outcome) in outcomes.iter().enumerate() {
        let is_named = index == Some(at as u64);
        let agrees = match (class, scope, outcome) {
            ("delivered", _, ItemOutcome::Delivered { note }) => {
                note.is_some() == (expected.get("warning") == Some(&json!(true)))
            }
            // Nothing was named in it: delivered, with a remark.
            ("partial", _, ItemOutcome::Delivered { note }) => note.is_some(),
            ("permanent", "event", ItemOutcome::Dead { .. }) => is_named,
            ("permanent", "event", ItemOutcome::ResendRest) => !is_named,
            ("permanent" | "configuration", "batch", ItemOutcome::Isolate { .. }) => true,
            ("configuration", "destination", ItemOutcome::HoldLane { kind: HoldKind::Configuration, .. }) => {
                true
            }
            ("auth", "destination", ItemOutcome::HoldLane { kind: HoldKind::Auth, .. }) => true,
            ("throttled", "destination", ItemOutcome::HoldLane { kind: HoldKind::Throttled, after, .. }) => {
                let wait = expected.get("wait_s").and_then(Value::as_u64).map(Duration::from_secs);
                *after == wait
            }
            ("transient", "batch", ItemOutcome::HoldLane { kind: HoldKind::Transient, attempts, .. }) => {
                attempts.map(u64::from) == expected.get("max_attempts").and_then(Value::as_u64)
            }
            _ => false,
        };
        if !agrees {
            return Err(format!("{outcomes:?}, expected {expected}"));
        }
    }
    Ok(())
}

#[test]
fn every_google_answer_is_read_as_published() {
    let file = vectors("google");
    let cases = file["answers"].as_array().unwrap();
    assert_eq!(cases.len(), 40);
    let mut failures = Vec::new();
    for case in cases {
        if let Err(why) = google_agrees(case) {
            failures.push(format!("{}: {why}; expected {}", case["id"], case["expected"]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Whether one answer is read as its vector says.
pub fn google_agrees(case: &Value) -> Result<(), String> {
    let answer = answer_of(case);
    let expected = case["expected"].as_array().unwrap();
    let outcomes = match case["api"].as_str().unwrap() {
        "oauth" => return oauth_agrees(&answer, &expected[0]),
        "data_manager.status" => return status_agrees(&answer, &expected[0]),
        "ga4.debug" => vec![of_trial(google("ga4_mp").read_trial(&answer))],
        "google_ads" => classify(&*google("google_ads"), &answer, expected.len()),
        "data_manager" => classify(&*google("google_data_manager"), &answer, expected.len()),
        "ga4" => classify(&*google("ga4_mp"), &answer, expected.len()),
        other => panic!("{other}"),
    };
    for (outcome, expected) in outcomes.iter().zip(expected) {
        if !item_agrees(outcome, expected) {
            return Err(format!("{outcome:?} is not {expected}"));
        }
    }
    Ok(())
}

/// A trial's result, as it would be of an event.
fn of_trial(trial: Trial) -> ItemOutcome {
    match trial {
        Trial::Passed => ItemOutcome::DELIVERED,
        Trial::Found(mut found) => {
            let Finding { code, detail, .. } = found.remove(0);
            ItemOutcome::Dead { code, detail }
        }
        Trial::Unanswered { .. } => panic!("{trial:?}"),
    }
}

fn item_agrees(outcome: &ItemOutcome, expected: &Value) -> bool {
    let text = |key: &str| expected.get(key).and_then(Value::as_str).unwrap_or_default();
    let wait = expected.get("after").and_then(Value::as_u64).map(Duration::from_secs);
    match (text("outcome"), text("scope"), outcome) {
        ("delivered", _, ItemOutcome::Delivered { .. }) => true,
        (
            "delivered_before",
            _,
            ItemOutcome::DeliveredBefore { code } | ItemOutcome::DeliveredIfRepeated { code, .. },
        ) => code == text("code"),
        ("transient", _, ItemOutcome::Retry { after, code, .. }) => code == text("code") && *after == wait,
        ("transient", _, ItemOutcome::HoldLane { after, code, kind, .. }) => {
            code == text("code")
                && *after == wait
                && matches!(kind, HoldKind::Transient | HoldKind::Throttled)
        }
        ("transient", _, ItemOutcome::ResendRest) => text("code") == "SPLIT",
        ("transient", _, ItemOutcome::RefreshToken { code, .. }) => {
            code == text("code") && wait == Some(Duration::ZERO)
        }
        // Too many in one request: the lane halves it.
        ("transient", _, ItemOutcome::Isolate { code, .. }) => {
            code == text("code") && code.starts_with("TOO_MANY_") && wait == Some(Duration::ZERO)
        }
        ("permanent", "event", ItemOutcome::Dead { code, .. }) => code == text("code"),
        ("permanent", "connection", ItemOutcome::HoldLane { kind: HoldKind::Configuration, code, .. }) => {
            code == text("code")
        }
        ("permanent", "auth", ItemOutcome::HoldLane { kind: HoldKind::Auth, code, .. }) => {
            code == text("code")
        }
        _ => false,
    }
}

fn oauth_agrees(answer: &Answer, expected: &Value) -> Result<(), String> {
    match read_token(answer) {
        TokenOutcome::Failed { kind: HoldKind::Auth, code, .. }
            if expected["scope"] == "auth" && expected["code"] == code.as_str() =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}

fn status_agrees(answer: &Answer, expected: &Value) -> Result<(), String> {
    match data_manager::read_status(answer) {
        data_manager::Verdict::Processing(wait)
            if expected["status"] == "PROCESSING" && expected["after"] == wait.as_secs() =>
        {
            Ok(())
        }
        data_manager::Verdict::Told { status, failed, total, codes, .. }
            if expected["status"] == status.as_str()
                && expected["failed"] == failed
                && expected["total"] == total
                && expected["codes"] == json!(codes) =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}
