//! What the Data Manager API's answers mean. It fails fast: one bad event, and nothing of the request was processed. A
//! success only says "accepted"; the verdict comes half an hour later, per request and in counts.
//!
//! Sources: D/concepts/understand-errors, D/diagnostics; `google-ads-datamanager` 0.9.4 `ErrorReason`; 2026-11.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::google::error::Envelope;
use crate::outcome::{Answer, HoldKind, Item, ItemOutcome};

const UNCONFIRMED: &str = "unconfirmed: request ";
/// How the ledger's detail of an event begins that was taken first, and refused with its whole request by the
/// verdict.
const REFUSED_LATER: &str = "refused later, with all of request ";

/// The request id in the note of a delivered item, to ask for its verdict.
#[must_use]
pub fn request_id(note: &str) -> Option<&str> {
    note.strip_prefix(UNCONFIRMED)?.split(';').next().map(str::trim)
}

/// What the ledger says of an event that was taken, and refused later with its whole request. `code` is the
/// reason, or the most frequent one of several.
#[must_use]
pub fn refused_later(request_id: &str, code: &str) -> String {
    format!("{REFUSED_LATER}{request_id}: {code}")
}

/// Whether the ledger's detail of a dead event is [`refused_later`]'s: it counted as delivered before.
#[must_use]
pub fn is_refused_later(detail: &str) -> bool {
    detail.starts_with(REFUSED_LATER)
}

/// One outcome per sent item.
#[must_use]
pub fn classify(answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
    let all = |outcome: ItemOutcome| vec![outcome; sent.len()];
    if (200..=299).contains(&answer.status) {
        let json = answer.json().unwrap_or_default();
        let Some(id) = json.get("requestId").and_then(Value::as_str) else {
            let code = format!("HTTP_{}", answer.status);
            return all(ItemOutcome::hold(HoldKind::Transient, None, code, "a success without a request id"));
        };
        let warnings = json.get("fieldWarnings").and_then(Value::as_array).map_or(0, Vec::len);
        let warned = if warnings > 0 { format!("; {warnings} field warnings") } else { String::new() };
        return all(ItemOutcome::Delivered { note: Some(format!("{UNCONFIRMED}{id}{warned}")) });
    }
    let envelope = Envelope::of(answer);
    envelope.for_all(answer.status).map_or_else(|| bad_request(&envelope, sent.len()), all)
}

fn bad_request(envelope: &Envelope, count: usize) -> Vec<ItemOutcome> {
    let code = |reason: &Option<String>| reason.clone().unwrap_or_else(|| envelope.status.clone());
    let of_request = envelope.violations.iter().map(|v| &v.reason).chain([&envelope.reason]).flatten();
    for reason in of_request {
        let (code, detail) = (reason.clone(), envelope.message.clone());
        match reason.as_str() {
            "INTERNAL_ERROR" | "DEADLINE_EXCEEDED" | "RESOURCE_EXHAUSTED" => {
                return vec![ItemOutcome::hold(HoldKind::Transient, envelope.wait, code, detail); count];
            }
            // The lane halves it.
            "TOO_MANY_EVENTS" => return vec![ItemOutcome::Isolate { code, detail }; count],
            _ => {}
        }
    }
    let mut dead: BTreeMap<usize, (String, String)> = BTreeMap::new();
    for violation in &envelope.violations {
        let reason = code(&violation.reason);
        match violation.index(&["events"]).filter(|index| *index < count) {
            Some(index) if !is_of_connection(&reason) => {
                dead.entry(index).or_insert((reason, violation.field.clone()));
            }
            // Outside the events, or a reason of the connection: no event is to blame.
            Some(_) | None => return vec![hold(reason, violation.field.clone()); count],
        }
    }
    if !dead.is_empty() {
        return (0..count)
            .map(|index| match dead.get(&index) {
                Some((code, detail)) => ItemOutcome::Dead { code: code.clone(), detail: detail.clone() },
                None => ItemOutcome::ResendRest,
            })
            .collect();
    }
    let reason = code(&envelope.reason);
    if is_of_connection(&reason) {
        return vec![hold(reason, envelope.message.clone()); count];
    }
    vec![ItemOutcome::Isolate { code: reason, detail: envelope.message.clone() }; count]
}

fn hold(code: String, detail: String) -> ItemOutcome {
    let kind = if code == "PERMISSION_DENIED" { HoldKind::Auth } else { HoldKind::Configuration };
    ItemOutcome::hold(kind, None, code, detail)
}

fn is_of_connection(reason: &str) -> bool {
    matches!(
        reason,
        "INVALID_DESTINATION"
            | "INVALID_CONVERSION_ACTION_ID"
            | "INVALID_CONVERSION_ACTION_TYPE"
            | "TERMS_AND_CONDITIONS_NOT_SIGNED"
            | "NOT_ALLOWLISTED"
            | "MISMATCHED_ACCOUNT_TYPE"
            | "PERMISSION_DENIED"
    ) || reason.starts_with("DESTINATION_ACCOUNT_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_later_is_known_again_and_waits_for_no_verdict() {
        let detail = refused_later("r-1", "PROCESSING_ERROR_REASON_NO_CONSENT");
        assert_eq!(detail, "refused later, with all of request r-1: PROCESSING_ERROR_REASON_NO_CONSENT");
        assert!(is_refused_later(&detail) && request_id(&detail).is_none());
        let unconfirmed = format!("{UNCONFIRMED}r-1; 2 field warnings");
        assert!(!is_refused_later(&unconfirmed) && request_id(&unconfirmed) == Some("r-1"));
    }
}
