//! What the Ads API's answers mean. A partial failure is HTTP 200: the truth is per item, matched by `location`, never by
//! position or by the message, which tells only the first error.
//!
//! Sources: developers.google.com/google-ads/api/docs/best-practices/partial-failures; recorded answers in
//! segmentio/action-destinations#4016, googleads/google-ads-dotnet#473; 2026-11.

use std::time::Duration;

use serde_json::Value;

use super::payload::{ENHANCEMENT, key_of};
use crate::body::ItemBody;
use crate::google::error::{AdsError, Class, Envelope, ads_errors, outcome_of};
use crate::outcome::{Answer, HoldKind, Item, ItemOutcome, told};
use crate::quality::KeySet;

/// How often an item is tried whose failure has no cause.
const FEW: u32 = 5;
/// The code of an adjustment whose conversion is not there.
const NOT_FOUND: &str = "CONVERSION_NOT_FOUND";
/// How long an enhancement waits for its tag's hit, and how often it is sent in all: it is taken for a day from its event on, so that
/// a wait of a day, as other adjustments have, would always end too late. Ours: Google says no more than that a hit may come late.
const TAGS_HIT: Duration = Duration::from_secs(3 * 3600);
const ENHANCEMENT_ATTEMPTS: u32 = 3;

/// One outcome per sent item.
#[must_use]
pub fn classify(answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
    if (200..=299).contains(&answer.status) {
        return match answer.json() {
            Some(json) => accepted(&json, sent),
            None => {
                let code = format!("HTTP_{}", answer.status);
                let detail = "an answer that is not JSON".to_owned();
                vec![ItemOutcome::hold(HoldKind::Transient, answer.retry_after(), code, detail); sent.len()]
            }
        };
    }
    refused(answer, sent)
}

fn accepted(json: &Value, sent: &[&Item]) -> Vec<ItemOutcome> {
    let results = json.get("results").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let failure = json.get("partialFailureError");
    let errors = ads_errors(failure.and_then(|f| f.get("details")));
    let message = failure.and_then(|f| f.get("message")).and_then(Value::as_str).unwrap_or_default();
    let unplaced: Vec<&AdsError> = errors.iter().filter(|e| e.index.is_none()).collect();

    sent.iter()
        .enumerate()
        .map(|(index, item)| {
            let own: Vec<&AdsError> = errors.iter().filter(|e| e.index == Some(index)).collect();
            let has_result = results.get(index).and_then(Value::as_object).is_some_and(|r| !r.is_empty());
            if own.is_empty() && has_result {
                return ItemOutcome::DELIVERED;
            }
            match telling(&own).or_else(|| telling(&unplaced)) {
                Some(error) => of_item(error, item),
                // Not even a place for a result: whether it was taken is not known.
                None if results.get(index).is_none() => ItemOutcome::HoldLane {
                    after: None,
                    attempts: Some(FEW),
                    kind: HoldKind::Transient,
                    code: "MISSING_RESULT".to_owned(),
                    detail: "a success without a result for each item".to_owned(),
                },
                // Neither taken nor blamed: never "delivered".
                None => ItemOutcome::Retry {
                    after: None,
                    attempts: Some(FEW),
                    code: "UNATTRIBUTED".to_owned(),
                    detail: told(message),
                },
            }
        })
        .collect()
}

/// Of several errors of one item: the first that will not pass by itself, else the first.
fn telling<'e>(errors: &[&'e AdsError]) -> Option<&'e AdsError> {
    let lasting = |e: &&&AdsError| matches!(e.class(), Class::Event | Class::Connection | Class::Auth);
    errors.iter().find(lasting).or_else(|| errors.first()).copied()
}

fn of_item(error: &AdsError, item: &Item) -> ItemOutcome {
    if hits_identifiers_only(error)
        && let Some((body, keys)) = without_identifiers(&item.body.to_value())
    {
        return ItemOutcome::ResendReduced { code: error.code.clone(), body, keys };
    }
    outcome_of(class_for(error, item), &error.code, &advice(error), error.retry_delay)
}

/// What an error means for an item: an enhancement has not the time that other adjustments have.
fn class_for(error: &AdsError, item: &Item) -> Class {
    if error.code == NOT_FOUND && is_enhancement(item) {
        return Class::After(TAGS_HIT, Some(ENHANCEMENT_ATTEMPTS));
    }
    error.class()
}

fn is_enhancement(item: &Item) -> bool {
    item.body.to_value().get("adjustmentType").and_then(Value::as_str) == Some(ENHANCEMENT)
}

/// What an operator reads: Google's words, or better ones where they do not say what to do.
fn advice(error: &AdsError) -> String {
    match error.code.as_str() {
        // Closed to newcomers. Source: Google Ads developer blog, "Changes to offline click conversion"; 2026-05.
        "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE" => {
            "Google takes no uploads of this project by the Ads API: use a connection of kind google_data_manager"
                .to_owned()
        }
        _ => error.message.clone(),
    }
}

/// Terms, or settings of enhanced conversions for leads, only matter where there are identifiers; an older guide refuses
/// them beside a braid.
fn hits_identifiers_only(error: &AdsError) -> bool {
    matches!(
        error.code.as_str(),
        "CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS" | "CUSTOMER_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS"
    ) || (error.code == "VALUE_MUST_BE_UNSET" && error.field.as_deref() == Some("user_identifiers"))
}

/// The item by its click id alone, and its keys; none if it has no click id, or nothing to leave out.
fn without_identifiers(body: &Value) -> Option<(ItemBody, KeySet)> {
    let mut reduced = body.as_object()?.clone();
    let has_click = ["gclid", "gbraid", "wbraid"].iter().any(|key| reduced.contains_key(*key));
    reduced.remove("userIdentifiers")?;
    let keys = KeySet::of_names(reduced.keys().map(String::as_str), key_of);
    has_click.then(|| (ItemBody::of(&reduced), keys))
}

/// The whole request was refused.
fn refused(answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
    let envelope = Envelope::of(answer);
    let all = |outcome: ItemOutcome| vec![outcome; sent.len()];
    if let Some(error) = telling(&envelope.ads.iter().collect::<Vec<_>>()) {
        return refused_for(error, answer.status, envelope.wait, sent);
    }
    if let Some(outcome) = envelope.for_all(answer.status) {
        return all(outcome);
    }
    let bad = envelope
        .violations
        .iter()
        .find_map(|v| v.index(&["conversions", "conversion_adjustments", "conversionAdjustments"]))
        .filter(|index| *index < sent.len());
    match bad {
        Some(bad) => one_dead(bad, sent.len(), &envelope.status, &envelope.message),
        // A violation outside the list is about the request that we build, which no bisection mends.
        None if !envelope.violations.is_empty() => {
            all(ItemOutcome::hold(HoldKind::Configuration, None, envelope.status, envelope.message))
        }
        None => all(ItemOutcome::Isolate { code: envelope.status, detail: envelope.message }),
    }
}

/// The whole request was refused, and an error says why. What it says about one item is that item's; its neighbours were not
/// judged and go out again.
fn refused_for(
    error: &AdsError,
    status: u16,
    envelope_wait: Option<Duration>,
    sent: &[&Item],
) -> Vec<ItemOutcome> {
    let count = sent.len();
    let wait = error.retry_delay.max(envelope_wait);
    let (code, detail) = (error.code.clone(), advice(error));
    let is_size = code.starts_with("TOO_MANY_") && code.ends_with("_IN_REQUEST");
    let about = if count == 1 { Some(0) } else { error.index.filter(|index| *index < count) };
    match (error.class(), about) {
        (Class::Connection | Class::Auth | Class::Token | Class::Throttled, _) => {
            vec![outcome_of(error.class(), &code, &detail, wait); count]
        }
        // A server in trouble proves nothing about an item, whatever it names.
        (_, _) if status >= 500 => vec![ItemOutcome::hold(HoldKind::Transient, wait, code, detail); count],
        (Class::Backoff, _) => vec![ItemOutcome::hold(HoldKind::Transient, wait, code, detail); count],
        (
            Class::Event | Class::Before | Class::BeforeIfOurs | Class::AtOnce | Class::After(..),
            Some(index),
        ) if !is_size => {
            one_apart(index, count, &outcome_of(class_for(error, sent[index]), &code, &detail, wait))
        }
        (Class::Event | Class::Before | Class::BeforeIfOurs | Class::AtOnce | Class::After(..), _) => {
            vec![ItemOutcome::Isolate { code, detail }; count]
        }
    }
}

fn one_dead(bad: usize, count: usize, code: &str, detail: &str) -> Vec<ItemOutcome> {
    one_apart(bad, count, &ItemOutcome::Dead { code: code.to_owned(), detail: detail.to_owned() })
}

/// One item has an outcome of its own; the others go out again without it.
fn one_apart(apart: usize, count: usize, outcome: &ItemOutcome) -> Vec<ItemOutcome> {
    (0..count).map(|index| if index == apart { outcome.clone() } else { ItemOutcome::ResendRest }).collect()
}
