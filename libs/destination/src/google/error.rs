//! The error envelope of both APIs, and what each code means for an event.
//!
//! Sources: googleads v26 error enums (PyPI `google-ads` 34.0.0), `google-ads-datamanager` 0.9.4 `ErrorReason`,
//! developers.google.com/google-ads/api/docs/best-practices/understand-api-errors; 2026-11. The classes are ours.

use std::time::Duration;

use serde_json::Value;

use super::PAUSE_OF_DAY;
use crate::outcome::{Answer, HoldKind, ItemOutcome, bounded_wait, told};
use crate::trial::{Finding, Trial};

const HOURS: u64 = 3600;

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Google had it.
    Before,
    /// Google has a change of the order at that time, or a later one: ours, if this is a repeat.
    BeforeIfOurs,
    /// Once more, alone or in a smaller request.
    AtOnce,
    /// Not before this long; this many attempts in all.
    After(Duration, Option<u32>),
    /// By backoff.
    Backoff,
    /// Throttled.
    Throttled,
    /// This event never.
    Event,
    /// The connection is set up wrongly.
    Connection,
    /// The credential.
    Auth,
    /// The access token only.
    Token,
}

/// One error out of `GoogleAdsFailure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdsError {
    /// `conversionUploadError`.
    pub family: String,
    /// `CLICK_NOT_FOUND`.
    pub code: String,
    /// Index of the item, where the error is about one. An index that was left out is zero.
    pub index: Option<usize>,
    /// The field below the item, snake case.
    pub field: Option<String>,
    /// `quotaErrorDetails.retryDelay`; [`PAUSE_OF_DAY`] where there is none and the quota is one of a day.
    pub retry_delay: Option<Duration>,
    /// For people.
    pub message: String,
}

impl AdsError {
    /// What it means.
    #[must_use]
    pub fn class(&self) -> Class {
        class_of(&self.family, &self.code)
    }

    fn into_finding(self) -> Finding {
        let field = self.field.unwrap_or_default();
        Finding { index: self.index, field, code: self.code, detail: self.message }
    }
}

/// Every error of every `GoogleAdsFailure` among `details`.
#[must_use]
pub fn ads_errors(details: Option<&Value>) -> Vec<AdsError> {
    let failures = details.and_then(Value::as_array).into_iter().flatten();
    failures.filter_map(|d| d.get("errors")?.as_array()).flatten().map(ads_error).collect()
}

fn ads_error(error: &Value) -> AdsError {
    let (family, code) = error
        .get("errorCode")
        .and_then(Value::as_object)
        .and_then(|map| map.iter().next())
        .map(|(family, code)| (family.clone(), code.as_str().unwrap_or_default().to_owned()))
        .unwrap_or_default();
    let unpublished = error.pointer("/details/unpublishedErrorCode").and_then(Value::as_str);
    let path = error.pointer("/location/fieldPathElements").and_then(Value::as_array);
    let name =
        |element: &Value| element.get("fieldName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let at = path
        .and_then(|p| p.iter().position(|e| matches!(&*name(e), "conversions" | "conversion_adjustments")));
    let index = at.and_then(|at| {
        let index = path?.get(at)?.get("index").map_or(Some(0), Value::as_u64)?;
        usize::try_from(index).ok()
    });
    let field = at.and_then(|at| path?.get(at + 1).map(name));
    let named =
        error.pointer("/details/quotaErrorDetails/retryDelay").and_then(Value::as_str).and_then(duration_of);
    let retry_delay = named.or_else(|| (family == "quotaError" && is_of_day(error)).then_some(PAUSE_OF_DAY));
    AdsError {
        family,
        code: unpublished.map_or(code, str::to_owned),
        index,
        field,
        retry_delay,
        message: told(error.get("message").and_then(Value::as_str).unwrap_or_default()),
    }
}

/// Whether the quota of a `quotaError` is one of a day. By its name: the limits that depend on an access level ("Get requests for standard
/// access") are those of a day, the others ("Requests per account") are not; else by the message. Source: googleads v26
/// `QuotaErrorDetails.rate_name`; Google Ads API, "Access levels"; 2026-11.
fn is_of_day(error: &Value) -> bool {
    let rate =
        error.pointer("/details/quotaErrorDetails/rateName").and_then(Value::as_str).unwrap_or_default();
    let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
    rate.to_ascii_lowercase().ends_with(" access") || speaks_of_day(rate) || speaks_of_day(message)
}

/// Whether a text of Google's says that it is about a day.
fn speaks_of_day(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["per day", "perday", "daily", "24 hours"].iter().any(|words| text.contains(words))
}

/// "12s", "1.5s", as a lane may take it: none if it is no wait.
#[must_use]
pub fn duration_of(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().strip_suffix('s')?.parse().ok()?;
    bounded_wait(Duration::try_from_secs_f64(seconds).ok()?)
}

/// What an Ads API code means. An unknown code of a known family is permanent for the event, which is kept for replay.
#[must_use]
pub fn class_of(family: &str, code: &str) -> Class {
    match code {
        "CLICK_CONVERSION_ALREADY_EXISTS" | "ORDER_ID_ALREADY_IN_USE" | "CONVERSION_ALREADY_ENHANCED" => {
            return Class::Before;
        }
        // What stands there may say another amount: a change is no sale, which counts once whoever tells of it.
        "CONVERSION_ALREADY_RETRACTED" | "RESTATEMENT_ALREADY_EXISTS" | "MORE_RECENT_RESTATEMENT_FOUND" => {
            return Class::BeforeIfOurs;
        }
        "DUPLICATE_ORDER_ID"
        | "DUPLICATE_CLICK_CONVERSION_IN_REQUEST"
        | "DUPLICATE_ADJUSTMENT_IN_REQUEST"
        | "DUPLICATE_ENHANCEMENT_IN_REQUEST" => return Class::AtOnce,
        "TOO_RECENT_EVENT" | "TOO_RECENT_CONVERSION_ACTION" | "TOO_RECENT_CALL" => {
            return Class::After(Duration::from_secs(6 * HOURS), None);
        }
        "TOO_RECENT_CONVERSION" => return Class::After(Duration::from_secs(24 * HOURS), None),
        // A tag's hit may come late: once more, then it is not there. An enhancement has not the time, see `google_ads`.
        "CONVERSION_NOT_FOUND" => return Class::After(Duration::from_secs(24 * HOURS), Some(2)),
        "NO_CONVERSION_ACTION_FOUND"
        | "INVALID_CONVERSION_ACTION_TYPE"
        | "CUSTOM_VARIABLE_NOT_ENABLED"
        | "CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS"
        | "CUSTOMER_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS"
        | "CONVERSION_ACTION_NOT_ELIGIBLE_FOR_ENHANCEMENT"
        | "INVALID_JOB_ID"
        | "ACCESS_PROHIBITED" => {
            return Class::Connection;
        }
        "CUSTOMER_NOT_ENABLED" => return Class::Auth,
        _ => {}
    }
    if code.starts_with("ONE_PER_CLICK_")
        || code.starts_with("CUSTOMER_DATA_POLICY_PROHIBITS_")
        || code.starts_with("CANNOT_RESTATE_")
        || code.starts_with("ORDER_ID_NOT_PERMITTED_")
    {
        return Class::Connection;
    }
    if code.starts_with("TOO_MANY_") && code.ends_with("_IN_REQUEST") {
        return Class::AtOnce;
    }
    match family {
        "internalError" | "databaseError" => Class::Backoff,
        "quotaError" => Class::Throttled,
        "authenticationError" => match code {
            "OAUTH_TOKEN_EXPIRED" | "OAUTH_TOKEN_INVALID" => Class::Token,
            _ => Class::Auth,
        },
        "authorizationError" => match code {
            "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE" => Class::Connection,
            _ => Class::Auth,
        },
        "headerError" => Class::Auth,
        "partialFailureError" | "notAllowlistedError" | "requestError" => Class::Connection,
        _ => Class::Event,
    }
}

/// An outcome for one item by what its code means.
#[must_use]
pub fn outcome_of(class: Class, code: &str, detail: &str, wait: Option<Duration>) -> ItemOutcome {
    let (code, detail) = (code.to_owned(), detail.to_owned());
    match class {
        Class::Before => ItemOutcome::DeliveredBefore { code },
        Class::BeforeIfOurs => ItemOutcome::DeliveredIfRepeated { code, detail },
        Class::AtOnce => ItemOutcome::Retry { after: Some(Duration::ZERO), attempts: None, code, detail },
        Class::After(after, attempts) => ItemOutcome::Retry { after: Some(after), attempts, code, detail },
        Class::Backoff => ItemOutcome::Retry { after: wait, attempts: None, code, detail },
        Class::Throttled => ItemOutcome::hold(HoldKind::Throttled, wait, code, detail),
        Class::Event => ItemOutcome::Dead { code, detail },
        Class::Connection => ItemOutcome::hold(HoldKind::Configuration, None, code, detail),
        Class::Auth => ItemOutcome::hold(HoldKind::Auth, None, code, detail),
        Class::Token => ItemOutcome::RefreshToken { code, detail },
    }
}

/// The `error` of a failed request.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// `INVALID_ARGUMENT`; `HTTP_502` where the answer is not JSON.
    pub status: String,
    /// For people.
    pub message: String,
    /// `ErrorInfo.reason`.
    pub reason: Option<String>,
    /// `RetryInfo.retryDelay` or the `Retry-After` header, whichever is longer; [`PAUSE_OF_DAY`] where there is neither and the quota that
    /// is used up is one of a day.
    pub wait: Option<Duration>,
    /// `BadRequest.fieldViolations`.
    pub violations: Vec<Violation>,
    /// Errors of the Ads API.
    pub ads: Vec<AdsError>,
}

/// One entry of `fieldViolations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `events.events[0].event_source`.
    pub field: String,
    /// For people.
    pub description: String,
    /// `REQUIRED_FIELD_MISSING`, where given.
    pub reason: Option<String>,
}

impl Violation {
    /// The index behind one of these list names, in the field or, for JSON errors, in the description.
    #[must_use]
    pub fn index(&self, lists: &[&str]) -> Option<usize> {
        [&self.field, &self.description].into_iter().find_map(|text| {
            lists.iter().find_map(|list| {
                let opening = format!("{list}[");
                let rest = &text[text.find(&opening)? + opening.len()..];
                rest[..rest.find(']')?].parse().ok()
            })
        })
    }
}

impl Envelope {
    /// Reads an answer that is not a success.
    #[must_use]
    pub fn of(answer: &Answer) -> Self {
        let json = answer.json().unwrap_or_default();
        let error = json.get("error").cloned().unwrap_or_default();
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let details: Vec<&Value> =
            error.get("details").and_then(Value::as_array).into_iter().flatten().collect();
        let of_type = |name: &str| {
            details.iter().find(|d| text(d, "@type").is_some_and(|kind| kind.ends_with(name))).copied()
        };
        let violations = of_type("BadRequest")
            .and_then(|bad| bad.get("fieldViolations")?.as_array())
            .into_iter()
            .flatten()
            .map(|v| Violation {
                field: text(v, "field").unwrap_or_default(),
                description: text(v, "description").unwrap_or_default(),
                reason: text(v, "reason"),
            })
            .collect();
        let message = text(&error, "message").unwrap_or_default();
        let named = of_type("RetryInfo")
            .and_then(|info| duration_of(&text(info, "retryDelay")?))
            .max(answer.retry_after());
        // Google's front end says of which quota: `quota_unit` is "1/d/{project}" for one of a day, "1/min/{project}" for one of a
        // minute. Source: Service Infrastructure, `google.api.QuotaLimit.unit`; 2026-11.
        let quota = of_type("ErrorInfo").and_then(|info| info.get("metadata"));
        let is_of_day = quota
            .and_then(|quota| text(quota, "quota_unit"))
            .is_some_and(|unit| unit.starts_with("1/d"))
            || quota.and_then(|quota| text(quota, "quota_limit")).is_some_and(|limit| speaks_of_day(&limit))
            || speaks_of_day(&message);
        Self {
            status: text(&error, "status").unwrap_or_else(|| format!("HTTP_{}", answer.status)),
            message: told(&message),
            reason: of_type("ErrorInfo").and_then(|info| text(info, "reason")),
            wait: named.or_else(|| (answer.status == 429 && is_of_day).then_some(PAUSE_OF_DAY)),
            violations,
            ads: ads_errors(error.get("details")),
        }
    }

    /// The part of a failed request that does not depend on the API: one outcome for all items, or none if the body has to
    /// say more (400).
    #[must_use]
    pub fn for_all(&self, status: u16) -> Option<ItemOutcome> {
        let detail = self.message.clone();
        let hold = |kind, after, code: String| ItemOutcome::hold(kind, after, code, &detail);
        let named = self.reason.clone().unwrap_or_else(|| self.status.clone());
        match status {
            401 => Some(ItemOutcome::RefreshToken { code: named, detail }),
            403 => Some(hold(HoldKind::Auth, None, named)),
            404 => Some(hold(HoldKind::Configuration, None, self.status.clone())),
            413 => Some(ItemOutcome::Isolate { code: self.status.clone(), detail }),
            429 => Some(hold(HoldKind::Throttled, self.wait, self.status.clone())),
            400 => None,
            _ => Some(hold(HoldKind::Transient, self.wait, self.status.clone())),
        }
    }
}

/// Reads the answer to a request with `validateOnly`: of the Ads API, whose success may hold a partial failure, and of Data
/// Manager, which refuses the whole request. `lists` are the names that items have in paths.
#[must_use]
pub fn read_trial(answer: &Answer, lists: &[&str]) -> Trial {
    if (200..=299).contains(&answer.status) {
        let Some(json) = answer.json() else {
            let detail = "an answer that is not JSON".to_owned();
            return Trial::Unanswered { code: format!("HTTP_{}", answer.status), detail };
        };
        let failure = json.get("partialFailureError");
        let errors = ads_errors(failure.and_then(|failure| failure.get("details")));
        let found: Vec<Finding> = errors.into_iter().map(AdsError::into_finding).collect();
        return match failure {
            // It failed, and says nothing of why.
            Some(failure) if found.is_empty() => {
                let message = failure.get("message").and_then(Value::as_str).unwrap_or_default();
                let code = "PARTIAL_FAILURE".to_owned();
                Trial::of(vec![Finding { index: None, field: String::new(), code, detail: told(message) }])
            }
            _ => Trial::of(found),
        };
    }
    let envelope = Envelope::of(answer);
    let mut found: Vec<Finding> = envelope.ads.into_iter().map(AdsError::into_finding).collect();
    found.extend(envelope.violations.into_iter().map(|violation| Finding {
        index: violation.index(lists),
        code: violation.reason.clone().unwrap_or_else(|| envelope.status.clone()),
        field: violation.field,
        detail: told(&violation.description),
    }));
    if found.is_empty() {
        let code = envelope.reason.unwrap_or(envelope.status);
        return Trial::Unanswered { code, detail: envelope.message };
    }
    Trial::Found(found)
}
