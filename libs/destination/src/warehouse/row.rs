//! One event as a row. `docs/warehouse.md` has the table of columns.
//!
//! INVARIANT: a pure function of the resolved event: no clock, no setting, nothing of consent's decision. A row that is made again
//! after a crash is the same row.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracklayer_proto::event::v1::{Channel, ConsentSignals, EventType};

use crate::deliverable::{Deliverable, instant};

/// The columns that come from the event. Where it stands in the journal is added by the lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The event's id.
    pub message_id: String,
    /// track, page, screen, identify, group, alias.
    pub event_type: String,
    /// The exact name; of a page or screen, its name.
    pub event_name: Option<String>,
    /// Of a page or screen.
    pub category: Option<String>,
    /// The sender's id of the person.
    pub user_id: Option<String>,
    /// The device's id.
    pub anonymous_id: Option<String>,
    /// Group: the account.
    pub group_id: Option<String>,
    /// Alias: the id before.
    pub previous_id: Option<String>,
    /// The profile's key across domains when the event was resolved, 32 hexadecimal digits.
    pub profile_key: Option<String>,
    /// When it happened, corrected for the device's clock; receipt where it does not say.
    pub timestamp: Timestamp,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// When it happened by the sender's clock.
    pub original_timestamp: Option<Timestamp>,
    /// When it was sent by the sender's clock.
    pub sent_at: Option<Timestamp>,
    /// The source.
    pub source_id: i64,
    /// browser, server, mobile.
    pub channel: Option<String>,
    /// `properties`, the text as it came: no number is rounded.
    pub properties: Option<String>,
    /// `traits`, likewise.
    pub traits: Option<String>,
    /// `context`, likewise.
    pub context: Option<String>,
    /// Consent's signals as they came with the event.
    pub consent: Option<String>,
}

impl Row {
    /// The row of an event.
    #[must_use]
    pub fn of(event: &Deliverable) -> Self {
        let source = &event.event;
        let at = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(instant);
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // Ingest has validated it: what is no UTF-8 all the same is better read in part than not at all.
        let json = |bytes: &[u8]| text(&String::from_utf8_lossy(bytes));
        let event_type = match source.r#type() {
            EventType::Track => "track",
            EventType::Page => "page",
            EventType::Screen => "screen",
            EventType::Identify => "identify",
            EventType::Group => "group",
            EventType::Alias => "alias",
            EventType::Unspecified => "unspecified",
        };
        let channel = match source.channel() {
            Channel::Browser => "browser",
            Channel::Server => "server",
            Channel::Mobile => "mobile",
            Channel::Unspecified => "",
        };
        Self {
            message_id: source.message_id.clone(),
            event_type: event_type.to_owned(),
            event_name: text(&source.name),
            category: text(&source.category),
            user_id: text(&source.user_id),
            anonymous_id: text(&source.anonymous_id),
            group_id: text(&source.group_id),
            previous_id: text(&source.previous_id),
            profile_key: text(&event.canonical_key_hex),
            timestamp: event.time(),
            received_at: at(&source.received_at).unwrap_or(Timestamp::UNIX_EPOCH),
            original_timestamp: at(&source.original_timestamp),
            sent_at: at(&source.sent_at),
            source_id: source.source_id,
            channel: text(channel),
            properties: json(&source.properties_json),
            traits: json(&source.traits_json),
            context: json(&source.context_json),
            consent: source.consent.as_ref().and_then(signals),
        }
    }
}

/// The signals as JSON text, in one order; none where there are none.
fn signals(consent: &ConsentSignals) -> Option<String> {
    let mut map = Map::new();
    if consent.gpc {
        map.insert("gpc".to_owned(), json!(true));
    }
    if consent.has_categories {
        let categories: Map<String, Value> =
            consent.categories.iter().map(|c| (c.category.clone(), json!(c.allowed))).collect();
        map.insert("categories".to_owned(), Value::Object(categories));
        map.insert("interaction".to_owned(), json!(consent.interaction));
    }
    for (key, text) in [
        ("gpc_provenance", &consent.gpc_provenance),
        ("tc_string", &consent.tc_string),
        ("gpp_string", &consent.gpp_string),
        ("us_privacy", &consent.us_privacy),
        ("gcd", &consent.gcd),
        ("place", &consent.place),
    ] {
        if !text.is_empty() {
            map.insert(key.to_owned(), json!(text));
        }
    }
    if !consent.gpp_sid.is_empty() {
        map.insert("gpp_sid".to_owned(), json!(consent.gpp_sid));
    }
    if consent.unreadable {
        map.insert("unreadable".to_owned(), json!(true));
    }
    (!map.is_empty()).then(|| Value::Object(map).to_string())
}
