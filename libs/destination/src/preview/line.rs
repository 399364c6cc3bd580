//! One line of input. It is one of
//! - an event of the Segment spec. Beside its own keys may stand what delivery would know of it: `order_state`
//!   (`{"value","total","currency","at","refunded"}`), `known_click_ids` (with `first_seen`), `canonical_key`, and
//!   `dedup_by_order_id`, true where its source is so configured;
//! - an event of the journal, as `journal read --resolved --unmasked` prints it, which has all of that in it but the state of its
//!   order;
//! - a list of both, which go out together;
//! - `{"now":"2026-11-23T12:00:00Z","events":[…]}`: the same at a time of its own.
//!
//! What is wrong with one event of a line is told of that event; what is wrong with the line, of the line.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use tracklayer_event::commerce::commerce_key;
use tracklayer_ids::PartitionKey;
use tracklayer_proto::event::v1::{ConnectionDecision, Event};

use super::answer::{EventRef, NotSent};
use super::resolved::{Stored, stored};
use super::{ConsentChoice, click_ids_of, order_state_of, parse_text};
use crate::deliverable::{Consent, Deliverable};

/// The connection of an installation whose decisions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfConnection {
    /// Its number.
    pub id: i64,
    /// Which change of it this is; a decision for another one would be asked for again by a lane. None: whichever.
    pub revision: Option<u64>,
}

/// What a line is read with.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The time, where a line has none of its own.
    pub now: Timestamp,
    /// What consent is taken to have decided, where the event does not say.
    pub consent: ConsentChoice,
    /// Whose decision of resolve counts; none: `consent` counts for events of the journal, too.
    pub of_connection: Option<OfConnection>,
}

/// A line that was read.
#[derive(Debug)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// When its requests are made.
    pub now: Timestamp,
    /// What is in it.
    pub events: Vec<Given>,
}

/// One event of a line.
#[derive(Debug, Clone)]
pub struct Given {
    /// Which.
    pub event: EventRef,
    /// Generation and partition of the journal that it stands in.
    pub place: Option<(u32, u32)>,
    /// What it is.
    pub subject: Subject,
}

/// An event, or why there is none.
#[derive(Debug, Clone)]
pub enum Subject {
    /// To be planned.
    Ready(Box<Ready>),
    /// Settled before anybody looks at it.
    Settled {
        /// Why it is in no request.
        sort: NotSent,
        /// From a closed list.
        code: String,
        /// Field to blame.
        field: Option<String>,
        /// For people.
        reason: String,
    },
}

/// An event that can be planned.
#[derive(Debug, Clone)]
pub struct Ready {
    /// It, with its decision, and the state of its order where the line has one.
    pub deliverable: Deliverable,
    /// Events of one key keep their order.
    pub order_key: u64,
    /// Whether the decision is for another change of the connection.
    pub of_other_revision: bool,
}

/// What may stand beside an event's own keys, and what tells the lines apart. Of an event, keys of no meaning here may hold anything.
#[derive(Deserialize)]
struct Beside<'l> {
    #[serde(rename = "type")]
    call: Option<IgnoredAny>,
    order_state: Option<Value>,
    known_click_ids: Option<Value>,
    canonical_key: Option<Value>,
    dedup_by_order_id: Option<Value>,
    #[serde(borrow)]
    position: Option<&'l RawValue>,
    resolved: Option<Value>,
    #[serde(borrow)]
    events: Option<&'l RawValue>,
    now: Option<Value>,
}

impl<'l> Beside<'l> {
    /// None: it is no object, or has a key twice.
    fn of(text: &'l str) -> Option<Self> {
        text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
    }
}

#[derive(Deserialize, Clone, Copy)]
struct At {
    generation: u32,
    partition: u32,
}

/// Most events of a list.
const MOST_OF_A_LIST: usize = 10_000;

const NOT_RESOLVED: &str =
    "is a line of `journal read` without the stored event: read it with --resolved --unmasked";

impl Reading {
    /// Reads a line. Nothing that stands in it is an error of the call.
    #[must_use]
    pub fn line(&self, number: u64, text: &str) -> Line {
        let mut line = Line { number, now: self.now, events: Vec::new() };
        if text.trim_start().starts_with('[') {
            line.events = self.list(number, self.now, text);
            return line;
        }
        match Beside::of(text) {
            Some(Beside { call: None, position: None, events: Some(events), now, .. }) => {
                let own = now.map(|now| now.as_str().and_then(|text| text.parse::<Timestamp>().ok()));
                if own == Some(None) {
                    let why = "`now` must be a time such as \"2026-11-23T12:00:00Z\"";
                    line.events.push(invalid_line(number, "invalid_line", why.to_owned()));
                } else {
                    line.now = own.flatten().unwrap_or(self.now);
                    line.events = self.list(number, line.now, events.get());
                }
            }
            _ => line.events.push(self.event(number, 0, self.now, text)),
        }
        line
    }

    fn list(&self, number: u64, now: Timestamp, text: &str) -> Vec<Given> {
        match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(events) if events.len() > MOST_OF_A_LIST => {
                let why = format!("has {} events; a list takes at most {MOST_OF_A_LIST}", events.len());
                vec![invalid_line(number, "invalid_line", why)]
            }
            Ok(events) => {
                let given = |(index, event): (usize, &&RawValue)| self.event(number, index, now, event.get());
                events.iter().enumerate().map(given).collect()
            }
            Err(error) => vec![invalid_line(number, "invalid_json", format!("no JSON list: {error}"))],
        }
    }

    fn event(&self, line: u64, index: usize, now: Timestamp, text: &str) -> Given {
        let invalid = |code: &str, field: Option<String>, reason: String| Given {
            event: EventRef { line, index, message_id: String::new() },
            place: None,
            subject: Subject::Settled { sort: NotSent::Invalid, code: code.to_owned(), field, reason },
        };
        let Some(beside) = Beside::of(text) else {
            return match parse_text(text, now) {
                // What is no event is told in ingest's words.
                Err(rejection) => invalid(rejection.code.as_str(), Some(rejection.field), rejection.reason),
                Ok(_) => invalid("invalid_line", None, "has a key twice".to_owned()),
            };
        };
        if let Some(at) = beside.position.filter(|_| beside.call.is_none()) {
            let Ok(at) = serde_json::from_str::<At>(at.get()) else {
                let why = "`position` must have generation and partition";
                return invalid("invalid_line", Some("position".to_owned()), why.to_owned());
            };
            let Some(bytes) = beside.resolved.as_ref().and_then(Value::as_str) else {
                return invalid("not_resolved", Some("resolved".to_owned()), NOT_RESOLVED.to_owned());
            };
            return match stored(bytes) {
                Ok(stored) => self.resolved(line, index, at, stored, &beside),
                Err(why) => invalid("invalid_line", Some("resolved".to_owned()), format!("`resolved` {why}")),
            };
        }
        match parse_text(text, now) {
            Ok(event) => self.sent(line, index, event, &beside),
            Err(rejection) => invalid(rejection.code.as_str(), Some(rejection.field), rejection.reason),
        }
    }

    /// An event of the Segment spec.
    fn sent(&self, line: u64, index: usize, event: Event, beside: &Beside<'_>) -> Given {
        let by_order = beside.dedup_by_order_id == Some(Value::Bool(true));
        let commerce_key = by_order.then(|| commerce_key(&event)).flatten().unwrap_or_default();
        let known = beside.known_click_ids.as_ref().map(click_ids_of).unwrap_or_default();
        let decision = self.stated(&event);
        let event_ref = EventRef { line, index, message_id: event.message_id.clone() };
        let order_key = PartitionKey::of(&event.anonymous_id, &event.user_id).0;
        let key_hex = beside.canonical_key.as_ref().and_then(Value::as_str).unwrap_or_default();
        let state = beside.order_state.as_ref().and_then(order_state_of);
        let deliverable =
            Deliverable::new(event, known, key_hex, decision, state).with_commerce_key(&commerce_key);
        let ready = Ready { deliverable, order_key, of_other_revision: false };
        Given { event: event_ref, place: None, subject: Subject::Ready(Box::new(ready)) }
    }

    /// An event of the journal.
    fn resolved(&self, line: u64, index: usize, at: At, stored: Stored, beside: &Beside<'_>) -> Given {
        let place = Some((at.generation, at.partition));
        let (message_id, subject) = match stored {
            Stored::Duplicate { message_id, of } => {
                let code = NotSent::Duplicate;
                (message_id, settled(code, "duplicate", format!("of {of}")))
            }
            Stored::Poisoned { message_id, why, is_lost } => {
                let reason = if is_lost { "lost" } else { "poisoned" };
                (message_id, settled(NotSent::Refused, reason, why))
            }
            Stored::Event(event, resolved) => {
                let message_id = event.message_id.clone();
                let order_key = PartitionKey::of(&event.anonymous_id, &event.user_id).0;
                let decision = self.of_connection.map(|connection| {
                    let decision = resolved.decisions.iter().find(|d| d.connection_id == connection.id);
                    (Consent::of_resolve(decision), is_of_other_revision(connection, decision))
                });
                let (decision, of_other_revision) = decision.unwrap_or_else(|| (self.stated(&event), false));
                let state = beside.order_state.as_ref().and_then(order_state_of);
                let deliverable = Deliverable::of_resolved(
                    *event,
                    resolved.known_click_ids,
                    &resolved.canonical_key,
                    &resolved.commerce_key,
                )
                .for_connection(decision, state);
                let ready = Ready { deliverable, order_key, of_other_revision };
                (message_id, Subject::Ready(Box::new(ready)))
            }
        };
        Given { event: EventRef { line, index, message_id }, place, subject }
    }

    fn stated(&self, event: &Event) -> Consent {
        self.consent.of(event.consent.as_ref().map_or("", |consent| consent.place.as_str()))
    }
}

fn is_of_other_revision(connection: OfConnection, decision: Option<&ConnectionDecision>) -> bool {
    let decided_for = decision.map_or(0, |decision| decision.connection_revision);
    connection.revision.is_some_and(|revision| revision != decided_for)
}

fn settled(sort: NotSent, code: &str, reason: String) -> Subject {
    Subject::Settled { sort, code: code.to_owned(), field: None, reason }
}

/// A line of which nothing can be read.
#[must_use]
pub fn invalid_line(number: u64, code: &str, reason: String) -> Given {
    Given {
        event: EventRef { line: number, index: 0, message_id: String::new() },
        place: None,
        subject: settled(NotSent::Invalid, code, reason),
    }
}
