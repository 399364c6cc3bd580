//! Request bodies of the Segment API, split into events without parsing these.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::{self, ElementsError};
use crate::rejection::{RejectCode, Rejection, Warning};
use crate::scan::scan;
use crate::time::ClientTime;

/// Most events of one batch. Source: Segment, HTTP API, "Batch"; 2025-11.
pub const MAX_BATCH_EVENTS: usize = 2_500;
/// Most bytes of one batch, inflated. Source: Segment, HTTP API, "Max request size" (500 KB); 2025-11.
pub const MAX_BATCH_BYTES: usize = 512_000;
/// Most bytes of one batch when its `context` and `integrations` stand in each of its events. The limit is ours: 2,500 small
/// events below 30 KB of context would be 75 MB.
pub const MAX_MERGED_BYTES: usize = 8 * MAX_BATCH_BYTES;

/// A batch, its events still text.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Text of each event, in order.
    pub events: Vec<&'a RawValue>,
    /// The batch's `writeKey`.
    pub write_key: Option<Cow<'a, str>>,
    /// The batch's `sentAt`.
    pub sent_at: Option<ClientTime>,
    /// The batch's `context`; an object that passed the scan.
    pub context: Option<&'a RawValue>,
    /// The batch's `integrations`, likewise.
    pub integrations: Option<&'a RawValue>,
    /// What was mended: `sent_at_unparsable`.
    pub warnings: Vec<Warning>,
}

/// Why a body as a whole cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON.
    #[error("the body is not JSON: line {line} column {column}")]
    InvalidJson {
        /// Line of the first character that does not fit.
        line: usize,
        /// Column of it.
        column: usize,
    },
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    InvalidUtf8,
    /// A NUL byte.
    #[error("the body contains a NUL byte")]
    ContainsNul,
    /// JSON, but no object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// No `batch`, or not an array.
    #[error("`batch` must be an array of events")]
    NoBatch,
    /// Nothing in it.
    #[error("`batch` is empty")]
    EmptyBatch,
    /// More events than a batch may have.
    #[error("`batch` has more than {MAX_BATCH_EVENTS} events")]
    TooManyEvents,
    /// What the batch says for each of its events is too large for so many.
    #[error(
        "the batch's context and integrations in each of its events are more than {MAX_MERGED_BYTES} bytes"
    )]
    MergedTooLarge,
    /// The batch's own `context` or `integrations` cannot be used.
    #[error("{0}")]
    Member(Rejection),
}

impl Batch<'_> {
    /// Bytes that what the batch says for all takes when it stands in each of its events.
    #[must_use]
    pub fn merged_bytes(&self) -> usize {
        let shared: usize =
            [self.context, self.integrations].iter().flatten().map(|value| value.get().len()).sum();
        shared * self.events.len()
    }
}

impl BodyError {
    /// The code as clients see it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson { .. } => RejectCode::InvalidJson.as_str(),
            Self::InvalidUtf8 => RejectCode::InvalidUtf8.as_str(),
            Self::ContainsNul => RejectCode::ContainsNul.as_str(),
            Self::NotAnObject => RejectCode::NotAnObject.as_str(),
            Self::NoBatch => "missing_batch",
            Self::EmptyBatch => "batch_empty",
            Self::TooManyEvents | Self::MergedTooLarge => "batch_too_large",
            Self::Member(rejection) => rejection.code.as_str(),
        }
    }
}

/// A body as text.
///
/// # Errors
/// [`BodyError::InvalidUtf8`].
pub fn body_text(body: &[u8]) -> Result<&str, BodyError> {
    std::str::from_utf8(body).map_err(|_| BodyError::InvalidUtf8)
}

/// Splits a batch.
///
/// # Errors
/// The body as a whole cannot be taken.
pub fn parse_batch(text: &str) -> Result<Batch<'_>, BodyError> {
    let mut batch = None;
    let mut write_key = None;
    let mut sent_at = None;
    let mut context = None;
    let mut integrations = None;
    for_each_body_member(text, |key, value| match key {
        "batch" => batch = Some(value),
        "writeKey" => write_key = json::text(value),
        "sentAt" => sent_at = Some(value).filter(|v| !json::is_blank(v)),
        "context" => context = Some(value),
        "integrations" => integrations = Some(value),
        _ => {}
    })?;
    let batch = batch.ok_or(BodyError::NoBatch)?;
    let events = json::elements(batch.get(), MAX_BATCH_EVENTS).map_err(|error| match error {
        ElementsError::NotAnArray => BodyError::NoBatch,
        ElementsError::TooMany => BodyError::TooManyEvents,
    })?;
    if events.is_empty() {
        return Err(BodyError::EmptyBatch);
    }
    let parsed_sent_at = sent_at.and_then(json::text).and_then(|text| ClientTime::parse(&text));
    let warnings = match (sent_at, parsed_sent_at) {
        (Some(_), None) => vec![Warning::SentAtUnparsable],
        _ => Vec::new(),
    };
    let batch = Batch {
        events,
        write_key,
        sent_at: parsed_sent_at,
        context: shared_object("context", context)?,
        integrations: shared_object("integrations", integrations)?,
        warnings,
    };
    if batch.merged_bytes() > MAX_MERGED_BYTES { Err(BodyError::MergedTooLarge) } else { Ok(batch) }
}

/// The `writeKey` of a single event's body, or of an event of a batch.
///
/// # Errors
/// The body is not a JSON object.
pub fn write_key_of(text: &str) -> Result<Option<Cow<'_, str>>, BodyError> {
    let mut write_key = None;
    for_each_body_member(text, |key, value| {
        if key == "writeKey" {
            write_key = json::text(value);
        }
    })?;
    Ok(write_key)
}

fn for_each_body_member<'a>(text: &'a str, visit: impl FnMut(&str, &'a RawValue)) -> Result<(), BodyError> {
    json::for_each_member(text, visit).map_err(|error| {
        if text.as_bytes().contains(&0) {
            BodyError::ContainsNul
        } else if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
            && !text.trim_start().starts_with('{')
        {
            BodyError::NotAnObject
        } else {
            BodyError::InvalidJson { line: error.line(), column: error.column() }
        }
    })
}

fn shared_object<'a>(field: &str, value: Option<&'a RawValue>) -> Result<Option<&'a RawValue>, BodyError> {
    let Some(value) = value.filter(|v| !json::is_blank(v)) else { return Ok(None) };
    if !json::is_object(value) {
        let reason = format!("the batch's {field} must be an object");
        return Err(BodyError::Member(Rejection::new(RejectCode::InvalidField, field, reason)));
    }
    let scanned = scan(value.get()).map_err(BodyError::Member)?;
    if !scanned.lone_surrogates.is_empty() {
        let reason = format!("the batch's {field} has half a surrogate pair");
        return Err(BodyError::Member(Rejection::new(RejectCode::InvalidField, field, reason)));
    }
    Ok((value.get() != "{}").then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_body_has_its_own_code() {
        for (body, code) in [
            ("", "invalid_json"),
            ("{", "invalid_json"),
            ("{\"batch\":[}", "invalid_json"),
            ("[]", "not_an_object"),
            ("\"x\"", "not_an_object"),
            ("{}", "missing_batch"),
            ("{\"batch\":{}}", "missing_batch"),
            ("{\"batch\":[]}", "batch_empty"),
            ("{\"batch\":[{}],\"context\":7}", "invalid_field"),
            ("{\"batch\":[\"\0\"]}", "contains_nul"),
        ] {
            assert_eq!(parse_batch(body).unwrap_err().code(), code, "{body}");
        }
        let many = format!("{{\"batch\":[{}{{}}]}}", "{},".repeat(MAX_BATCH_EVENTS));
        assert_eq!(parse_batch(&many).unwrap_err(), BodyError::TooManyEvents);
        assert_eq!(body_text(b"\xff").unwrap_err().code(), "invalid_utf8");
    }

    #[test]
    fn a_context_that_would_blow_up_in_every_event_is_refused() {
        let body = |context: usize, events: usize| {
            let events = vec!["{}"; events].join(",");
            format!(r#"{{"batch":[{events}],"context":{{"x":"{}"}}}}"#, "x".repeat(context))
        };
        assert_eq!(parse_batch(&body(30_000, 2_500)).unwrap_err(), BodyError::MergedTooLarge);
        assert_eq!(BodyError::MergedTooLarge.code(), "batch_too_large");
        let ordinary = body(1_000, 2_500);
        assert_eq!(parse_batch(&ordinary).unwrap().merged_bytes(), 2_500 * 1_008);
    }

    #[test]
    fn deep_nesting_splits_without_recursion() {
        let body = format!("{{\"batch\":[{}{},{{}}]}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(parse_batch(&body).unwrap().events.len(), 2);
    }
}
