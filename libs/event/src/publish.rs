//! One event as services hand it over on gRPC → canonical [`Event`], by the same rules as on HTTP.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tracklayer_proto::event::v1::{Channel, Event, EventType};
use tracklayer_proto::ingest::v1::PublishEvent;

use crate::canonical::{Envelope, FieldNames, complete};
use crate::rejection::{RejectCode, Rejection, Warning};
use crate::scan::{replace_lone_surrogates, scan};
use crate::segment::{MAX_EVENT_BYTES, ParseContext};
use crate::time::{ClientTime, from_proto};

const FIELDS: FieldNames = FieldNames {
    message_id: "message_id",
    anonymous_id: "anonymous_id",
    user_id: "user_id",
    previous_id: "previous_id",
    group_id: "group_id",
    event: "name",
    context: "context_json",
    properties: "properties_json",
};

/// Turns a published event into the stored one. `context.batch_*` and `path_type` are not looked at.
///
/// # Errors
/// The event cannot be accepted as it is; the rejection says why.
pub fn publish_event(event: &PublishEvent, context: &ParseContext<'_>) -> Result<Event, Rejection> {
    build(event, context).map_err(|rejection| rejection.of_message(&event.message_id))
}

/// Bytes of the event that count against the limit.
#[must_use]
pub fn published_bytes(event: &PublishEvent) -> usize {
    prost::Message::encoded_len(event)
}

fn build(event: &PublishEvent, context: &ParseContext<'_>) -> Result<Event, Rejection> {
    let size = published_bytes(event);
    if size > MAX_EVENT_BYTES {
        let reason = format!("the event has {size} bytes, at most {MAX_EVENT_BYTES} are taken");
        return Err(Rejection::new(RejectCode::EventTooLarge, "", reason));
    }
    let event_type = match EventType::try_from(event.r#type) {
        Ok(EventType::Unspecified) => {
            return Err(Rejection::new(RejectCode::MissingType, "type", "the event has no type"));
        }
        Ok(known) => known,
        Err(_) => {
            return Err(Rejection::new(RejectCode::UnknownType, "type", "type is none of the six calls"));
        }
    };
    for (field, text) in [
        ("message_id", &event.message_id),
        ("name", &event.name),
        ("anonymous_id", &event.anonymous_id),
        ("user_id", &event.user_id),
        ("previous_id", &event.previous_id),
        ("group_id", &event.group_id),
    ] {
        if text.contains('\0') {
            return Err(Rejection::new(
                RejectCode::ContainsNul,
                field,
                format!("{field} contains the NUL character"),
            ));
        }
    }
    let mut warnings = Vec::new();
    let original = event.timestamp.as_ref().and_then(|timestamp| {
        let read = from_proto(timestamp);
        if read.is_none() {
            warnings.push(Warning::TimestampUnparsable);
        }
        read.map(ClientTime::utc)
    });
    let named = matches!(event_type, EventType::Track | EventType::Page | EventType::Screen);
    let envelope = Envelope {
        event_type,
        message_id: present(&event.message_id),
        name: if named { present(&event.name) } else { Cow::default() },
        category: Cow::default(),
        anonymous_id: present(&event.anonymous_id),
        user_id: present(&event.user_id),
        previous_id: present(&event.previous_id),
        group_id: present(&event.group_id),
        original,
        sent_at: context.sent_at,
        channel: Channel::try_from(event.channel).ok().filter(|c| *c != Channel::Unspecified),
        properties: object("properties_json", &event.properties_json, &mut warnings)?,
        traits: object("traits_json", &event.traits_json, &mut warnings)?,
        context: object("context_json", &event.context_json, &mut warnings)?,
        integrations: object("integrations_json", &event.integrations_json, &mut warnings)?,
        warnings,
    };
    let mut event_out = complete(envelope, context, &FIELDS)?;
    event.traceparent.clone_into(&mut event_out.traceparent);
    Ok(event_out)
}

/// Blank is absent.
fn present(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(if text.trim().is_empty() { "" } else { text })
}

fn object<'a>(field: &str, text: &'a str, warnings: &mut Vec<Warning>) -> Result<Cow<'a, str>, Rejection> {
    if text.is_empty() {
        return Ok(Cow::default());
    }
    let scanned = scan(text).map_err(|mut rejection| {
        field.clone_into(&mut rejection.field);
        rejection
    })?;
    let text = if scanned.lone_surrogates.is_empty() {
        Cow::Borrowed(text)
    } else {
        warnings.push(Warning::LoneSurrogateReplaced);
        Cow::Owned(replace_lone_surrogates(text, &scanned.lone_surrogates))
    };
    let raw: &RawValue = serde_json::from_str(&text)
        .map_err(|_| Rejection::new(RejectCode::InvalidJson, field, format!("{field} is not JSON")))?;
    match raw.get() {
        "null" => Ok(Cow::default()),
        object if object.starts_with('{') => Ok(text),
        _ => {
            let reason = format!("{field} must be the text of one JSON object");
            Err(Rejection::new(RejectCode::InvalidField, field, reason))
        }
    }
}
