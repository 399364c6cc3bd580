//! Payload vectors: event + settings → the exact item, or the refusal.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracklayer_destination::google::time::conversion_date_time;
use tracklayer_destination::preview::{ConsentChoice, parse};
use tracklayer_destination::{Consent, Deliverable, Item, OrderState, Refusal, WorkspaceDefaults, open};
use tracklayer_event::time::ClientTime;
use tracklayer_proto::event::v1::ClickIds;

use crate::{levelled, oauth, vectors};

struct Case {
    document: Value,
    event: Value,
    consent: Consent,
    order_state: Option<OrderState>,
    now: Timestamp,
}

impl Case {
    fn build(&self) -> Result<(Item, Value), Refusal> {
        let destination = open(&self.document, &WorkspaceDefaults::default()).unwrap();
        let event = parse(self.event.clone(), self.now).unwrap();
        let event =
            Deliverable::new(event, ClickIds::default(), "", self.consent.clone(), self.order_state.clone());
        destination.wants(&event).unwrap();
        let item = destination.build(&event, self.now)?;
        let request = destination.assemble(&[&item], None).masked();
        Ok((item, request))
    }
}

fn take(settings: &mut Map<String, Value>, key: &str) -> Option<Value> {
    settings.remove(key)
}

/// The vectors' settings as a document: what they share goes to the document, the rest stays the kind's own.
fn document(kind: &str, settings: &mut Map<String, Value>) -> Map<String, Value> {
    let mut document = json!({ "kind": kind, "mode": "live" }).as_object().cloned().unwrap();
    for key in ["value_from", "event_id_from", "external_id_from"] {
        if let Some(value) = take(settings, key) {
            document.insert(key.to_owned(), value);
        }
    }
    document
}

fn check(file: &str, case: &Value, built: Result<(Item, Value), Refusal>, failures: &mut Vec<String>) {
    let id = case["id"].as_str().unwrap();
    match (case.get("refused"), built) {
        (None, Ok((item, request))) => {
            if levelled(&item.body.to_value()) != levelled(&case["expected"]) {
                let (ours, theirs) = (&item.body.to_value(), &case["expected"]);
                failures.push(format!("{file} {id}:\n  ours     {ours}\n  expected {theirs}"));
            }
            if let Some(expected) = case.get("request") {
                let path = request["url"].as_str().unwrap().trim_start_matches("https://graph.facebook.com");
                if path != expected["path"] || levelled(&request["body"]) != levelled(&expected["body"]) {
                    failures.push(format!("{file} {id}: request {request}"));
                }
            }
        }
        (Some(expected), Err(refusal)) => {
            if refusal.code.as_str() != expected["code"] {
                failures.push(format!("{file} {id}: refused with {refusal:?}, expected {expected}"));
            }
        }
        (None, Err(refusal)) => failures.push(format!("{file} {id}: refused with {refusal:?}")),
        (Some(expected), Ok((item, _))) => {
            failures.push(format!("{file} {id}: built {}, expected {expected}", item.body.to_value()));
        }
    }
}

fn assert_none(failures: &[String], cases: usize) {
    assert!(failures.is_empty(), "{} of {cases} cases:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_meta_payload_is_as_published() {
    let file = vectors("meta");
    let mut failures = Vec::new();
    let cases = file["payloads"].as_array().unwrap();
    assert_eq!(cases.len(), 29);
    for case in cases {
        check_meta(&file, case, &mut failures);
    }
    assert_none(&failures, cases.len());
}

#[test]
fn every_tiktok_payload_is_as_published() {
    let file = vectors("tiktok");
    let mut failures = Vec::new();
    let cases = file["payloads"].as_array().unwrap();
    assert_eq!(cases.len(), 16);
    for case in cases {
        check_tiktok(case, &mut failures);
    }
    assert_none(&failures, cases.len());
}

#[test]
fn every_google_payload_is_as_published() {
    let file = vectors("google");
    let mut failures = Vec::new();
    let cases = file["payloads"].as_array().unwrap();
    assert_eq!(cases.len(), 36);
    for case in cases {
        check_google(case, &mut failures);
    }
    assert_none(&failures, cases.len());
}

/// Builds one of Meta's payloads; what differs from its vector is added to `failures`.
pub fn check_meta(file: &Value, case: &Value, failures: &mut Vec<String>) {
    let mut settings = file["settings_default"].as_object().cloned().unwrap();
    settings.extend(case["settings"].as_object().cloned().unwrap());
    check("meta", case, token_case("meta_capi", settings, case).build(), failures);
}

/// The same of TikTok's.
pub fn check_tiktok(case: &Value, failures: &mut Vec<String>) {
    let settings = case["settings"].as_object().cloned().unwrap();
    check("tiktok", case, token_case("tiktok_events", settings, case).build(), failures);
}

/// The same of Google's.
pub fn check_google(case: &Value, failures: &mut Vec<String>) {
    check("google", case, google_case(case).build(), failures);
}

/// A time as ingest reads it and Google Ads is told of it. What the vector rejects for want of a zone is taken in UTC on that way,
/// as its reason says; what is no time is none.
pub fn datetime(vector: &Value) -> Result<(), String> {
    let read = ClientTime::parse(vector["input"].as_str().unwrap());
    let sent = read.map(|time| conversion_date_time(time.instant, time.utc_offset_seconds));
    match (vector["conversionDateTime"].as_str(), sent.as_deref()) {
        (Some(expected), Some(sent)) if expected == sent => Ok(()),
        (None, Some(sent)) if sent.ends_with("+00:00") => Ok(()),
        (None, None) => Ok(()),
        _ => Err(format!("over the wire {sent:?}")),
    }
}

/// A case of a kind whose only credential is a token.
fn token_case(kind: &str, mut settings: Map<String, Value>, case: &Value) -> Case {
    let now = take(&mut settings, "now").unwrap().as_str().unwrap().parse().unwrap();
    let mut document = document(kind, &mut settings);
    settings.insert("access_token".to_owned(), json!("token"));
    document.insert("settings".to_owned(), Value::Object(settings));
    Case {
        document: Value::Object(document),
        event: case["event"].clone(),
        consent: Consent::Allow,
        order_state: None,
        now,
    }
}

fn google_case(case: &Value) -> Case {
    let kind = case["connection_kind"].as_str().unwrap();
    let mut settings = case["settings"].as_object().cloned().unwrap();
    let event_time: Timestamp = case["event"]["timestamp"].as_str().unwrap().parse().unwrap();
    let now = take(&mut settings, "now").map_or(event_time + jiff::SignedDuration::from_mins(1), |now| {
        now.as_str().unwrap().parse().unwrap()
    });
    let consent = take(&mut settings, "consent").unwrap();
    let consent = match ConsentChoice::parse(&consent.to_string()).unwrap() {
        ConsentChoice::Stated(consent) => consent,
        other => panic!("{other:?}"),
    };
    let value = take(&mut settings, "original_value");
    let at = take(&mut settings, "original_timestamp");
    let order_state = (value.is_some() || at.is_some()).then(|| OrderState {
        value: value.map(|v| v.to_string().parse().unwrap()),
        at: at.map(|t| t.as_str().unwrap().parse().unwrap()),
        ..OrderState::default()
    });
    let mut document = document(kind, &mut settings);
    match kind {
        "ga4_mp" => {
            settings.insert("api_secret".to_owned(), json!("secret"));
        }
        "google_data_manager" => {
            let destination = take(&mut settings, "destination").unwrap();
            let account = &destination["operatingAccount"];
            settings.insert(
                "operating_account".to_owned(),
                json!({ "account_type": account["accountType"], "account_id": account["accountId"] }),
            );
            assert_eq!(settings["conversion_action_id"], destination["productDestinationId"]);
            settings.remove("customer_id");
            settings.insert("oauth".to_owned(), oauth());
        }
        _ => {
            settings.insert("oauth".to_owned(), oauth());
        }
    }
    document.insert("settings".to_owned(), Value::Object(settings));
    Case { document: Value::Object(document), event: case["event"].clone(), consent, order_state, now }
}
