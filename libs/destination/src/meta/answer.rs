//! What Meta's answers mean. Decided by `code` and `error_subcode`: statuses mislead (throttling comes as 400 or 403) and
//! titles are localised.
//!
//! Sources: Meta, docs/graph-api/guides/error-handling; marketing-api/error-reference; docs/graph-api/overview/rate-limiting;
//! 2026-11. Subcodes as seen in public issues of the official SDKs and GTM templates.

use std::time::Duration;

use serde_json::Value;

use super::usage::wait_of;
use crate::outcome::{Answer, HoldKind, Item, ItemOutcome, told};

/// Wait when Meta throttles and names no time.
const THROTTLED: Duration = Duration::from_secs(60);
/// Wait after a policy block (368), which lasts hours.
const BLOCKED: Duration = Duration::from_secs(3600);

/// How often a request is repeated of which Meta says that it received nothing.
const FEW: u32 = 5;

/// One outcome per sent item.
#[must_use]
pub fn classify(answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
    let json = answer.json();
    if let Some(error) = json.as_ref().and_then(|j| j.get("error")).filter(|e| e.is_object()) {
        return classify_error(answer, error, sent.len());
    }
    let received = json.as_ref().and_then(|j| j.get("events_received")).and_then(Value::as_u64);
    if let (200..=299, Some(json), Some(received @ 1..)) = (answer.status, &json, received) {
        return vec![ItemOutcome::Delivered { note: note(answer, json, received, sent.len()) }; sent.len()];
    }
    let code = format!("HTTP_{}", answer.status);
    let all = |outcome| vec![outcome; sent.len()];
    match answer.status {
        // Meta counts repeats among the received, so none received means none taken, whatever the status says.
        200..=299 if received == Some(0) => all(ItemOutcome::HoldLane {
            after: answer.retry_after(),
            attempts: Some(FEW),
            kind: HoldKind::Transient,
            code: "NONE_RECEIVED".to_owned(),
            detail: "events_received is 0".to_owned(),
        }),
        401 => all(hold(HoldKind::Auth, None, code, "the token was not accepted")),
        413 => all(ItemOutcome::Isolate { code, detail: "the request is too large".to_owned() }),
        429 => all(hold(
            HoldKind::Throttled,
            answer.retry_after().or(Some(THROTTLED)),
            code,
            "too many requests",
        )),
        _ => all(hold(HoldKind::Transient, answer.retry_after(), code, "no answer that Meta would give")),
    }
}

fn note(answer: &Answer, json: &Value, received: u64, sent: usize) -> Option<String> {
    let mut notes = Vec::new();
    if usize::try_from(received) != Ok(sent) {
        notes.push(format!("events_received {received} of {sent}"));
    }
    if let Some(messages) = json.get("messages").and_then(Value::as_array).filter(|list| !list.is_empty()) {
        notes.push(format!("{} messages", messages.len()));
    }
    if answer.header("x-ad-api-version-warning").is_some() {
        notes.push("the API version was upgraded by Meta: raise api_version".to_owned());
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

fn classify_error(answer: &Answer, error: &Value, count: usize) -> Vec<ItemOutcome> {
    let number = |key: &str| error.get(key).and_then(Value::as_i64);
    let (code, subcode) = (number("code").unwrap_or(0), number("error_subcode"));
    let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
    let is_transient = error.get("is_transient").and_then(Value::as_bool) == Some(true);
    let name = subcode.map_or_else(|| code.to_string(), |subcode| format!("{code}/{subcode}"));
    let detail = told(message);
    let all = |outcome| vec![outcome; count];

    match (code, subcode) {
        (190 | 102 | 104, _) => all(hold(HoldKind::Auth, None, name, &detail)),
        (100, None) if message.contains("appsecret_proof") => all(hold(HoldKind::Auth, None, name, &detail)),
        (4 | 17 | 32 | 341 | 613 | 80000 | 80003 | 80004 | 80014, _) => {
            let wait = wait_of(answer).max(answer.retry_after()).unwrap_or(THROTTLED);
            all(hold(HoldKind::Throttled, Some(wait), name, &detail))
        }
        (368, _) => all(hold(HoldKind::Transient, Some(BLOCKED), name, &detail)),
        _ if is_transient || matches!(code, 1 | 2 | 5000) || code < 0 || answer.status >= 500 => {
            all(hold(HoldKind::Transient, answer.retry_after(), name, &detail))
        }
        (3 | 10 | 200..=299, _) => all(hold(HoldKind::Auth, None, name, &detail)),
        (100, Some(33)) | (803, _) => all(hold(HoldKind::Configuration, None, name, &detail)),
        (100, subcode) => match (bad_index(error, count), subcode) {
            (Some(bad), _) => one_dead(bad, count, &name, &detail),
            (None, Some(_)) => all(ItemOutcome::Isolate { code: name, detail }),
            // Nothing about an event: the request itself is malformed, which no bisection mends.
            (None, None) => all(hold(HoldKind::Configuration, None, name, &detail)),
        },
        (105 | 12 | 2500, _) => all(hold(HoldKind::Configuration, None, name, &detail)),
        _ if answer.status == 401 => all(hold(HoldKind::Auth, None, name, &detail)),
        // Unknown codes are tried again, as others do: an event is not given up on a guess.
        _ => all(hold(HoldKind::Transient, answer.retry_after(), name, &detail)),
    }
}

fn hold(kind: HoldKind, after: Option<Duration>, code: String, detail: &str) -> ItemOutcome {
    ItemOutcome::HoldLane { after, attempts: None, kind, code, detail: detail.to_owned() }
}

fn one_dead(bad: usize, count: usize, code: &str, detail: &str) -> Vec<ItemOutcome> {
    (0..count)
        .map(|index| {
            if index == bad {
                ItemOutcome::Dead { code: code.to_owned(), detail: detail.to_owned() }
            } else {
                ItemOutcome::ResendRest
            }
        })
        .collect()
}

/// The index in `$['data'][3]['custom_data']`, where a text names one.
fn bad_index(error: &Value, count: usize) -> Option<usize> {
    ["message", "error_user_msg", "error_user_title", "error_data"]
        .iter()
        .filter_map(|key| error.get(*key))
        .find_map(|value| index_in(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .filter(|index| *index < count)
}

fn index_in(text: &str) -> Option<usize> {
    ["['data'][", "[\"data\"][", "data["].iter().find_map(|opening| {
        let rest = &text[text.find(opening)? + opening.len()..];
        rest[..rest.find(']')?].parse().ok()
    })
}
