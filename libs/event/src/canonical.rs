//! From an envelope, whatever wire it came on, to the stored event: the rules that HTTP and gRPC share.

use std::borrow::Cow;

use bytes::Bytes;
use tracklayer_ids::{IdError, MessageId};
use tracklayer_proto::event::v1::{Channel, ClickIds, ConsentSignals, Event, EventType};

use crate::context::{ContextFields, place_of_traits, read_context};
use crate::rejection::{RejectCode, Rejection, Warning};
use crate::segment::{Clock, ParseContext};
use crate::time::{ClientTime, correct, to_proto};
use crate::{click_ids, json, place};

/// Longest id of a person, device or account.
pub const MAX_ID_BYTES: usize = 512;
/// Longest name of an event or page.
pub const MAX_NAME_BYTES: usize = 1_024;
/// Longest page address; a longer one is left to the raw context.
pub const MAX_PAGE_URL_BYTES: usize = 8_192;
/// What is kept of the request's user agent; it is repeated in every event of a batch.
const MAX_USER_AGENT_BYTES: usize = 1_024;

/// What both wires say about an event. Empty text is absent.
#[derive(Debug, Default)]
pub(crate) struct Envelope<'a> {
    pub event_type: EventType,
    pub message_id: Cow<'a, str>,
    pub name: Cow<'a, str>,
    pub category: Cow<'a, str>,
    pub anonymous_id: Cow<'a, str>,
    pub user_id: Cow<'a, str>,
    pub previous_id: Cow<'a, str>,
    pub group_id: Cow<'a, str>,
    pub original: Option<ClientTime>,
    pub sent_at: Option<ClientTime>,
    pub channel: Option<Channel>,
    pub properties: Cow<'a, str>,
    pub traits: Cow<'a, str>,
    pub context: Cow<'a, str>,
    pub integrations: Cow<'a, str>,
    pub warnings: Vec<Warning>,
}

/// How a wire spells the fields, for the answer to its sender.
pub(crate) struct FieldNames {
    pub message_id: &'static str,
    pub anonymous_id: &'static str,
    pub user_id: &'static str,
    pub previous_id: &'static str,
    pub group_id: &'static str,
    pub event: &'static str,
    pub context: &'static str,
    pub properties: &'static str,
}

/// The Segment spec's spelling.
pub(crate) const SEGMENT_FIELDS: FieldNames = FieldNames {
    message_id: "messageId",
    anonymous_id: "anonymousId",
    user_id: "userId",
    previous_id: "previousId",
    group_id: "groupId",
    event: "event",
    context: "context",
    properties: "properties",
};

/// Checks the rules and builds the stored event.
pub(crate) fn complete(
    envelope: Envelope<'_>,
    context: &ParseContext<'_>,
    fields: &FieldNames,
) -> Result<Event, Rejection> {
    check_ids(&envelope, fields)?;
    let message_id = message_id(&envelope.message_id, fields.message_id)?;

    let js_or_server = match context.source_channel {
        Channel::Browser | Channel::Mobile => "js",
        Channel::Server | Channel::Unspecified => "server",
    };
    let mut ids = ClickIds::default();
    let mut signals = ConsentSignals::default();
    if context.gpc_header {
        signals.gpc = true;
        "sec_gpc_header".clone_into(&mut signals.gpc_provenance);
    }
    let properties = read_properties(&envelope, &mut ids, fields)?;
    let seen = if envelope.context.is_empty() {
        ContextFields::default()
    } else {
        read_context(&envelope.context, js_or_server, &mut ids, &mut signals).map_err(|_| {
            Rejection::new(RejectCode::InvalidField, fields.context, "context must be a JSON object")
        })?
    };
    signals.interaction &= !context.banner_writes_defaults;
    signals.place = first_place([
        seen.place,
        if envelope.event_type == EventType::Group {
            String::new()
        } else {
            place_of_traits_text(&envelope.traits)
        },
        properties.place,
    ]);

    let page_url = if seen.page_url.is_empty() { properties.url } else { seen.page_url }.into_owned();
    let library = seen.library;
    click_ids::take_query(&mut ids, &page_url);
    click_ids::take_query(&mut ids, &seen.page_search);
    if !envelope.integrations.is_empty() {
        click_ids::take_integrations(&mut ids, &envelope.integrations);
    }

    let mut warnings = envelope.warnings;
    let original = envelope.original.map(|t| t.instant);
    let timestamp = match context.clock {
        Clock::Corrected => original.unwrap_or(context.received_at),
        Clock::Client => {
            let corrected = correct(original, envelope.sent_at.map(|t| t.instant), context.received_at);
            if corrected.clamped {
                warnings.push(Warning::TimestampClamped);
            }
            corrected.instant
        }
    };
    if click_ids::has_click(&ids) {
        ids.first_seen = Some(to_proto(timestamp));
    }

    let channel = envelope.channel.or(seen.channel).unwrap_or(context.source_channel);
    let at_the_person = |c| matches!(c, Channel::Browser | Channel::Mobile);
    // A server's connection is the shop's; only a source that is itself at the person may lend its address.
    let own_connection = at_the_person(context.source_channel) && at_the_person(channel);
    let ip = match seen.ip.trim() {
        "" if own_connection || seen.direct => context.connection_ip.to_owned(),
        ip => ip.to_owned(),
    };
    let browser = context.source_channel == Channel::Browser && channel == Channel::Browser;
    let user_agent = match seen.user_agent.trim() {
        "" if browser => truncated(context.user_agent, MAX_USER_AGENT_BYTES).to_owned(),
        user_agent => user_agent.to_owned(),
    };

    Ok(Event {
        message_id: message_id.to_string(),
        r#type: envelope.event_type.into(),
        name: envelope.name.into_owned(),
        category: envelope.category.into_owned(),
        anonymous_id: envelope.anonymous_id.into_owned(),
        user_id: envelope.user_id.into_owned(),
        previous_id: envelope.previous_id.into_owned(),
        group_id: envelope.group_id.into_owned(),
        timestamp: Some(to_proto(timestamp)),
        original_timestamp: original.map(to_proto),
        sent_at: envelope.sent_at.map(|t| to_proto(t.instant)),
        received_at: Some(to_proto(context.received_at)),
        utc_offset_seconds: envelope.original.map_or(0, |t| t.utc_offset_seconds),
        source_id: context.source_id.0,
        channel: channel.into(),
        ip,
        user_agent,
        page_url: if page_url.len() <= MAX_PAGE_URL_BYTES { page_url } else { String::new() },
        click_ids: (ids != ClickIds::default()).then_some(ids),
        consent: (signals != ConsentSignals::default()).then_some(signals),
        properties_json: json_bytes(envelope.properties),
        traits_json: json_bytes(envelope.traits),
        context_json: json_bytes(envelope.context),
        integrations_json: json_bytes(envelope.integrations),
        traceparent: String::new(),
        library,
        warnings: warnings.iter().map(|w| w.as_str().to_owned()).collect(),
        client_retry: context.client_retry,
    })
}

fn check_ids(envelope: &Envelope<'_>, fields: &FieldNames) -> Result<(), Rejection> {
    let missing = |field: &str, why: &str| Err(Rejection::new(RejectCode::MissingIds, field, why));
    if envelope.user_id.is_empty() && envelope.anonymous_id.is_empty() {
        let why = format!("one of {} and {} is required", fields.user_id, fields.anonymous_id);
        return missing(fields.user_id, &why);
    }
    match envelope.event_type {
        EventType::Alias if envelope.user_id.is_empty() => {
            return missing(fields.user_id, "alias needs the id to join with");
        }
        EventType::Alias if envelope.previous_id.is_empty() => {
            return missing(fields.previous_id, "alias needs the id that is joined");
        }
        EventType::Group if envelope.group_id.is_empty() => {
            return missing(fields.group_id, "group needs the id of the group");
        }
        EventType::Track if envelope.name.is_empty() => {
            return Err(Rejection::new(
                RejectCode::MissingEventName,
                fields.event,
                "a track call needs an event name",
            ));
        }
        _ => {}
    }
    for (field, value, max) in [
        (fields.user_id, &envelope.user_id, MAX_ID_BYTES),
        (fields.anonymous_id, &envelope.anonymous_id, MAX_ID_BYTES),
        (fields.previous_id, &envelope.previous_id, MAX_ID_BYTES),
        (fields.group_id, &envelope.group_id, MAX_ID_BYTES),
        (fields.event, &envelope.name, MAX_NAME_BYTES),
        ("category", &envelope.category, MAX_NAME_BYTES),
    ] {
        if value.len() > max {
            let reason = format!("{field} has {} bytes, at most {max} are taken", value.len());
            return Err(Rejection::new(RejectCode::InvalidField, field, reason));
        }
    }
    Ok(())
}

fn message_id(given: &str, field: &str) -> Result<MessageId, Rejection> {
    if given.is_empty() {
        return Ok(MessageId::generate());
    }
    MessageId::parse(given).map_err(|error| match error {
        IdError::Length { max, got, .. } => {
            let reason = format!("{field} has {got} characters, at most {max} are taken");
            Rejection::new(RejectCode::MessageIdTooLong, field, reason)
        }
        IdError::ControlCharacter { .. } => {
            Rejection::new(RejectCode::InvalidField, field, format!("{field} contains a control character"))
        }
    })
}

/// What one pass over `properties` gives beside click ids.
#[derive(Default)]
struct PropertyFields<'a> {
    /// `properties.url` of a page call.
    url: Cow<'a, str>,
    /// Place of the shipping, else of the billing address.
    place: String,
}

fn read_properties<'a>(
    envelope: &'a Envelope<'_>,
    ids: &mut ClickIds,
    names: &FieldNames,
) -> Result<PropertyFields<'a>, Rejection> {
    let mut found = PropertyFields::default();
    if envelope.properties.is_empty() {
        return Ok(found);
    }
    let page = envelope.event_type == EventType::Page;
    let mut billing = String::new();
    json::for_each_member(&envelope.properties, |key, value| match key {
        "url" if page => found.url = json::text(value).unwrap_or_default(),
        "shipping_address" | "shippingAddress" => found.place = place::of_address(value),
        "billing_address" | "billingAddress" => billing = place::of_address(value),
        _ => click_ids::take_member(ids, key, value),
    })
    .map_err(|_| {
        Rejection::new(RejectCode::InvalidField, names.properties, "properties must be a JSON object")
    })?;
    if found.place.is_empty() {
        found.place = billing;
    }
    Ok(found)
}

fn place_of_traits_text(traits: &str) -> String {
    if traits.is_empty() { String::new() } else { place_of_traits(traits) }
}

fn first_place(candidates: [String; 3]) -> String {
    candidates.into_iter().find(|place| !place.is_empty()).unwrap_or_default()
}

fn json_bytes(text: Cow<'_, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => Bytes::copy_from_slice(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    }
}

fn truncated(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
