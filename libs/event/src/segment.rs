//! One event of the Segment spec, JSON → canonical [`Event`].
//!
//! The envelope is borrowed and typed, and everything else stays the text it came in: building maps is what costs. A key
//! that stands twice in the envelope or in `context` counts with its last value, as in every JSON parser of the senders'
//! languages, and is warned about; inside a consent object it is unreadable.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::value::RawValue;
use tracklayer_ids::SourceId;
use tracklayer_proto::event::v1::{Channel, Event, EventType};

use crate::canonical::{Envelope, complete};
use crate::json::{self, Scalar};
use crate::rejection::{RejectCode, Rejection, Warning};
use crate::scan::{replace_lone_surrogates, scan};
use crate::time::ClientTime;

/// Most bytes that one event's text may have. Source: Segment, HTTP API, "Max request size"; 2025-11.
pub const MAX_EVENT_BYTES: usize = 32_768;

/// How `timestamp` is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// By the client's clock: corrected with `sentAt`, clamped to receipt.
    #[default]
    Client,
    /// Already corrected (preview): taken as it stands, also in the future.
    Corrected,
}

/// What is known about an event apart from its own text.
#[derive(Debug, Clone)]
pub struct ParseContext<'a> {
    /// When the request had been read.
    pub received_at: Timestamp,
    /// The batch's `sentAt`, for events that have none.
    pub sent_at: Option<ClientTime>,
    /// The call that the path names; it wins over `type`.
    pub path_type: Option<EventType>,
    /// The batch's `context`, merged under each event's own. Must be an object that passed [`scan`].
    pub batch_context: Option<&'a RawValue>,
    /// The batch's `integrations`, likewise.
    pub batch_integrations: Option<&'a RawValue>,
    /// The source that the write key names.
    pub source_id: SourceId,
    /// Where the source's events are made.
    pub source_channel: Channel,
    /// The connection's address; counts as the person's for browser and mobile sources only.
    pub connection_ip: &'a str,
    /// The request's User-Agent; counts as the person's for browser sources only.
    pub user_agent: &'a str,
    /// A `Sec-GPC` header line was exactly `1`.
    pub gpc_header: bool,
    /// The source's banner writes defaults, so that categories are no choice made.
    pub banner_writes_defaults: bool,
    /// X-Retry-Count of the request.
    pub client_retry: u32,
    /// How `timestamp` is understood.
    pub clock: Clock,
}

impl ParseContext<'_> {
    /// A context that knows nothing but the time of receipt: a server's event, its clock to be corrected.
    #[must_use]
    pub const fn at(received_at: Timestamp) -> Self {
        Self {
            received_at,
            sent_at: None,
            path_type: None,
            batch_context: None,
            batch_integrations: None,
            source_id: SourceId(0),
            source_channel: Channel::Server,
            connection_ip: "",
            user_agent: "",
            gpc_header: false,
            banner_writes_defaults: false,
            client_retry: 0,
            clock: Clock::Client,
        }
    }

    /// A context for `preview`: each event's `timestamp` is taken as corrected, `now` stands where none is given.
    #[must_use]
    pub const fn preview(now: Timestamp) -> Self {
        let mut context = Self::at(now);
        context.clock = Clock::Corrected;
        context
    }
}

/// Parses one event.
///
/// # Errors
/// The event cannot be accepted as it is; the rejection says why, and which id it had if that could be read.
pub fn parse_event(raw: &[u8], context: &ParseContext<'_>) -> Result<Event, Rejection> {
    let text = std::str::from_utf8(raw)
        .map_err(|_| Rejection::new(RejectCode::InvalidUtf8, "", "the event is not UTF-8"))?;
    parse_event_text(text, context)
}

/// Parses one event whose text is known to be UTF-8, as the element of a batch is.
///
/// # Errors
/// As [`parse_event`].
pub fn parse_event_text(text: &str, context: &ParseContext<'_>) -> Result<Event, Rejection> {
    if text.len() > MAX_EVENT_BYTES {
        // Ten thousand brackets are too many bytes as well; what is wrong with them is the depth.
        if let Err(rejection) = scan(text)
            && rejection.code == RejectCode::TooDeep
        {
            return Err(rejection);
        }
        let reason = format!("the event has {} bytes, at most {MAX_EVENT_BYTES} are taken", text.len());
        return Err(Rejection::new(RejectCode::EventTooLarge, "", reason).of_message(&message_id_of(text)));
    }
    if !text.trim_start().starts_with('{') {
        return Err(match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Rejection::new(RejectCode::NotAnObject, "", "an event must be a JSON object"),
            Err(error) => invalid_json(&error),
        });
    }
    let scanned = scan(text).map_err(|rejection| rejection.of_message(&message_id_of(text)))?;
    if scanned.lone_surrogates.is_empty() {
        return parse_scanned(text, Vec::new(), context);
    }
    let mended = replace_lone_surrogates(text, &scanned.lone_surrogates);
    parse_scanned(&mended, vec![Warning::LoneSurrogateReplaced], context)
}

fn invalid_json(error: &serde_json::Error) -> Rejection {
    let reason = format!("not JSON at line {} column {}", error.line(), error.column());
    Rejection::new(RejectCode::InvalidJson, "", reason)
}

/// The id of an event that is rejected before it is parsed, as far as it can be had.
#[must_use]
pub fn message_id_of(text: &str) -> String {
    let mut id = String::new();
    // An event that ends in the middle may have named its id before.
    let _ = json::for_each_member(text, |key, value| {
        if key == "messageId" {
            id = json::text(value).filter(|id| id.len() <= 400).map(Cow::into_owned).unwrap_or_default();
        }
    });
    id
}

/// Members of the envelope.
const MEMBERS: usize = 17;

/// Number of a member. A `match` compiles to a look at the length first; a list of names would be walked for each key.
fn member_of(key: &str) -> Option<usize> {
    Some(match key {
        "type" => 0,
        "messageId" => 1,
        "anonymousId" => 2,
        "userId" => 3,
        "event" => 4,
        "name" => 5,
        "category" => 6,
        "previousId" => 7,
        "groupId" => 8,
        "timestamp" => 9,
        "originalTimestamp" => 10,
        "sentAt" => 11,
        "channel" => 12,
        "properties" => 13,
        "traits" => 14,
        "context" => 15,
        "integrations" => 16,
        _ => return None,
    })
}

fn parse_scanned(text: &str, warnings: Vec<Warning>, context: &ParseContext<'_>) -> Result<Event, Rejection> {
    let mut members: [Option<&RawValue>; MEMBERS] = [None; MEMBERS];
    let mut repeated = false;
    json::for_each_member(text, |key, value| {
        if let Some(member) = member_of(key) {
            repeated |= members[member].replace(value).is_some();
        }
    })
    .map_err(|error| invalid_json(&error))?;
    let [
        event_type,
        message_id,
        anonymous_id,
        user_id,
        event,
        name,
        category,
        previous_id,
        group_id,
        timestamp,
        original_timestamp,
        sent_at,
        channel,
        properties,
        traits,
        own_context,
        integrations,
    ] = members;

    let mut envelope = Envelope { warnings, ..Envelope::default() };
    if repeated {
        envelope.warnings.push(Warning::DuplicateKey);
    }
    envelope.message_id = id("messageId", message_id)?;
    let named = |rejection: Rejection| {
        let id = message_id.and_then(json::text).filter(|id| id.len() <= 400);
        rejection.of_message(&id.unwrap_or_default())
    };
    envelope.event_type = type_of(event_type, context.path_type, &mut envelope.warnings).map_err(named)?;
    envelope.anonymous_id = id("anonymousId", anonymous_id).map_err(named)?;
    envelope.user_id = id("userId", user_id).map_err(named)?;
    envelope.previous_id = id("previousId", previous_id).map_err(named)?;
    envelope.group_id = id("groupId", group_id).map_err(named)?;
    envelope.name = match envelope.event_type {
        EventType::Track => event.and_then(json::text).unwrap_or_default(),
        EventType::Page | EventType::Screen => name.and_then(json::text).unwrap_or_default(),
        _ => Cow::default(),
    };
    envelope.category = match envelope.event_type {
        EventType::Page | EventType::Screen => category.and_then(json::text).unwrap_or_default(),
        _ => Cow::default(),
    };
    envelope.channel = channel.and_then(json::text).and_then(|text| crate::context::channel_of(&text));
    // RudderStack's clients send both, and mean the original one.
    envelope.original = client_time(original_timestamp, Warning::TimestampUnparsable, &mut envelope.warnings);
    if envelope.original.is_none() {
        envelope.original = client_time(timestamp, Warning::TimestampUnparsable, &mut envelope.warnings);
    }
    envelope.sent_at =
        client_time(sent_at, Warning::SentAtUnparsable, &mut envelope.warnings).or(context.sent_at);
    envelope.properties = object("properties", properties, None).map_err(named)?;
    envelope.traits = object("traits", traits, None).map_err(named)?;
    envelope.context = object("context", own_context, context.batch_context).map_err(named)?;
    envelope.integrations =
        object("integrations", integrations, context.batch_integrations).map_err(named)?;
    let size = text.len() + context.batch_context.map_or(0, |c| c.get().len());
    let size = size + context.batch_integrations.map_or(0, |i| i.get().len());
    if size > MAX_EVENT_BYTES {
        let reason = format!(
            "the event and its batch's context have {size} bytes, at most {MAX_EVENT_BYTES} are taken"
        );
        return Err(named(Rejection::new(RejectCode::EventTooLarge, "", reason)));
    }
    complete(envelope, context, &crate::canonical::SEGMENT_FIELDS).map_err(named)
}

fn type_of(
    given: Option<&RawValue>,
    path: Option<EventType>,
    warnings: &mut Vec<Warning>,
) -> Result<EventType, Rejection> {
    let given = given.map(Scalar::of).filter(|g| *g != Scalar::Null);
    let parsed = match &given {
        Some(Scalar::Text(text)) => event_type_of(text),
        _ => None,
    };
    match (path, parsed, given) {
        (Some(path), parsed, given) => {
            if given.is_some() && parsed != Some(path) {
                warnings.push(Warning::TypeFromPath);
            }
            Ok(path)
        }
        (None, Some(parsed), _) => Ok(parsed),
        (None, None, Some(Scalar::Text(text))) if !text.trim().is_empty() => Err(Rejection::new(
            RejectCode::UnknownType,
            "type",
            "type must be track, page, screen, identify, group or alias",
        )),
        (None, None, None | Some(Scalar::Text(_))) => {
            Err(Rejection::new(RejectCode::MissingType, "type", "the event has no type"))
        }
        (None, None, Some(_)) => {
            Err(Rejection::new(RejectCode::UnknownType, "type", "type must be a string"))
        }
    }
}

/// The call that a `type` or a path names.
#[must_use]
pub fn event_type_of(text: &str) -> Option<EventType> {
    let known = [
        ("track", EventType::Track),
        ("page", EventType::Page),
        ("screen", EventType::Screen),
        ("identify", EventType::Identify),
        ("group", EventType::Group),
        ("alias", EventType::Alias),
    ];
    known.iter().find(|(name, _)| text.trim().eq_ignore_ascii_case(name)).map(|(_, found)| *found)
}

/// An id: text, or a number that a careless caller gave; blank is absent.
fn id<'a>(field: &str, value: Option<&'a RawValue>) -> Result<Cow<'a, str>, Rejection> {
    let Some(value) = value else { return Ok(Cow::default()) };
    match Scalar::of(value) {
        Scalar::Bool(_) | Scalar::Other => {
            Err(Rejection::new(RejectCode::InvalidField, field, format!("{field} must be a string")))
        }
        scalar => Ok(scalar.into_text().unwrap_or_default()),
    }
}

fn client_time(
    value: Option<&RawValue>,
    unparsable: Warning,
    warnings: &mut Vec<Warning>,
) -> Option<ClientTime> {
    let read = match Scalar::of(value?) {
        Scalar::Null => return None,
        Scalar::Text(text) => ClientTime::parse(&text),
        Scalar::Number(number) => ClientTime::from_epoch(number),
        Scalar::Bool(_) | Scalar::Other => None,
    };
    if read.is_none() && !warnings.contains(&unparsable) {
        warnings.push(unparsable);
    }
    read
}

fn object<'a>(
    field: &str,
    own: Option<&'a RawValue>,
    batch: Option<&'a RawValue>,
) -> Result<Cow<'a, str>, Rejection> {
    let own = own.filter(|value| !json::is_blank(value));
    if own.is_some_and(|value| !json::is_object(value)) {
        return Err(Rejection::new(RejectCode::InvalidField, field, format!("{field} must be an object")));
    }
    match (own, batch) {
        (None, None) => Ok(Cow::default()),
        (Some(one), None) | (None, Some(one)) => Ok(Cow::Borrowed(one.get())),
        (Some(own), Some(batch)) if own.get().len() + batch.get().len() > MAX_EVENT_BYTES => {
            let reason = format!("{field} and the batch's {field} are too large together");
            Err(Rejection::new(RejectCode::EventTooLarge, field, reason))
        }
        (Some(own), Some(batch)) => json::merge_objects(own.get(), batch.get())
            .map(Cow::Owned)
            .map_err(|_| Rejection::new(RejectCode::InvalidField, field, format!("{field} cannot be read"))),
    }
}
