//! The story of one event: where it came from, its twin, profile, consent decision and every delivery.

use std::sync::Arc;

use prost::Message as _;
use serde_json::{Value, json};
use tracklayer_destination::data_manager::request_id;
use tracklayer_ids::{Offset, Partition, Position, WorkspaceId};
use tracklayer_journal::{Journal, JournalError, Layout, Most, Place};
use tracklayer_proto::delivery::v1 as pb;
use tracklayer_proto::event::v1::{Event, EventType, ResolvedEvent};

use crate::holds::{Hold, Holds};
use crate::ingest_requests::told_in_words;
use crate::ledger::State;
use crate::progress::width;
use crate::resolve::message_hash;
use crate::store::StoreError;
use crate::store::cursors::{CursorStore, LaneCursor};
use crate::store::ingest_requests::IngestRequestStore;
use crate::store::ledger::LedgerStore;
use crate::store::replay_events::ReplayedOnce;
use crate::store::replays::ReplayStore;
use crate::store::resolved::ResolvedStore;
use crate::subjects::proto_time;

/// Blocks beyond resolve's cursor that are searched per partition.
const MAX_UNRESOLVED_BLOCKS: i64 = 64;

/// Blocks of one resolved range that are read for an event of it.
const MAX_RECEIVED_BLOCKS: usize = 256;

/// Why a story could not be told.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// Own tables.
    #[error("could not read the ledger")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("could not read the journal")]
    Journal(#[from] JournalError),
}

/// Tells stories.
#[derive(Clone)]
pub struct Stories {
    /// Received events.
    pub journal: Arc<dyn Journal>,
    /// Resolved ones.
    pub resolved: ResolvedStore,
    /// Cursors.
    pub cursors: CursorStore,
    /// Verdicts.
    pub ledger: LedgerStore,
    /// What was sent again.
    pub replays: ReplayStore,
    /// What platforms have said later.
    pub requests: IngestRequestStore,
    /// What holds connections by an operator's will.
    pub holds: Holds,
}

impl Stories {
    /// Every occurrence of a message_id; empty if it was never accepted.
    ///
    /// # Errors
    /// The database.
    pub async fn of(
        &self,
        workspace: WorkspaceId,
        message_id: &str,
        partitions: u32,
    ) -> Result<Vec<pb::EventStory>, StoryError> {
        let lanes = self.cursors.lanes_of(workspace).await?;
        let mut found: Vec<(Position, Event)> = Vec::new();
        let mut forgotten = Vec::new();
        for position in self.resolved.positions_of(workspace, message_hash(message_id)).await? {
            match self.received_at(workspace, position).await? {
                Some(event) => found.push((position, event)),
                None => forgotten.push(position),
            }
        }
        let width = width(self.journal.as_ref(), workspace, partitions).await?;
        let layouts = self.journal.layouts().await?;
        let layouts: Vec<Layout> =
            layouts.into_iter().filter(|(of, _)| *of == workspace).map(|(_, layout)| layout).collect();
        for partition in (0..width).map(Partition) {
            let cursor = self.cursors.resolve(workspace, partition).await?;
            found.extend(self.unresolved(workspace, cursor, message_id).await?);
            // Nor is a layout resolved yet that was opened since.
            for layout in layouts.iter().filter(|layout| layout.generation > cursor.at.generation) {
                let begin = Position { generation: layout.generation, partition, offset: Offset(0) };
                found.extend(self.unresolved(workspace, begin.into(), message_id).await?);
            }
        }
        found.retain(|(_, event)| event.message_id == message_id);
        found.sort_by_key(|(_, event)| event.received_at.map(|t| (t.seconds, t.nanos)));

        let mut stories = Vec::with_capacity(found.len());
        for (position, event) in found {
            stories.push(self.story(workspace, position, &event, &lanes).await?);
        }
        for position in forgotten {
            // Only the ledger knows of it any more.
            let mut story = self.story(workspace, position, &Event::default(), &lanes).await?;
            story.resolved = true;
            story.event_json = json!({ "message_id": message_id, "kept": false }).to_string();
            stories.push(story);
        }
        // The winner first, then its duplicates.
        stories.sort_by_key(|story| story.duplicate_of.is_some());
        Ok(stories)
    }

    async fn received_at(
        &self,
        workspace: WorkspaceId,
        position: Position,
    ) -> Result<Option<Event>, StoryError> {
        let mut place = match self.resolved.received_place(workspace, position).await? {
            Some(place) => place,
            None => position.into(),
        };
        // Where the journal numbers records, what was resolved together may stand in several.
        for _ in 0..MAX_RECEIVED_BLOCKS {
            let blocks = match self.journal.read(workspace, place, Most::blocks(1)).await {
                // It was trimmed: what is left of the event is what was made of it.
                Err(JournalError::Changed { .. } | JournalError::Trimmed { .. }) => Vec::new(),
                read => read?,
            };
            let Some(block) = blocks.first() else { break };
            if block.end() > position.offset {
                let step = usize::try_from(position.offset.0 - block.first.offset.0).unwrap_or(usize::MAX);
                return Ok(block.events()?.get(step).and_then(|bytes| Event::decode(bytes.clone()).ok()));
            }
            place = place.after(&blocks, block.end().0 - place.at.offset.0);
        }
        let resolved = self.resolved_at(workspace, position).await?;
        Ok(resolved.filter(|r| !r.event.is_empty()).and_then(|r| Event::decode(r.event).ok()))
    }

    async fn unresolved(
        &self,
        workspace: WorkspaceId,
        from: Place,
        message_id: &str,
    ) -> Result<Vec<(Position, Event)>, StoryError> {
        let mut found = Vec::new();
        for block in self.journal.read(workspace, from, Most::blocks(MAX_UNRESOLVED_BLOCKS)).await? {
            for (step, bytes) in block.events()?.into_iter().enumerate() {
                let event = Event::decode(bytes).ok().filter(|event| event.message_id == message_id);
                let offset = Offset(block.first.offset.0 + step as u64);
                found.extend(event.map(|event| (Position { offset, ..block.first }, event)));
            }
        }
        Ok(found)
    }

    /// What the ledger has of a delivery, and what the platform has said since of the request that brought it.
    async fn with_verdict(
        &self,
        workspace: WorkspaceId,
        connection: i64,
        detail: String,
    ) -> Result<String, StoryError> {
        let Some(id) = request_id(&detail) else { return Ok(detail) };
        let told = self.requests.one(workspace, connection, id).await?;
        Ok(told
            .map_or_else(|| detail.clone(), |request| format!("{detail}; {}", told_in_words(&request.told))))
    }

    async fn story(
        &self,
        workspace: WorkspaceId,
        position: Position,
        event: &Event,
        lanes: &[LaneCursor],
    ) -> Result<pb::EventStory, StoryError> {
        let resolved = self.resolved_at(workspace, position).await?;
        let mut deliveries = Vec::new();
        for lane in lanes.iter().filter(|lane| lane.duty.partition == position.partition) {
            if (position.generation, position.offset) < (lane.start.generation, lane.start.offset) {
                continue;
            }
            let connection = lane.duty.connection.0;
            let verdict = self.ledger.verdict(workspace, connection, position).await?;
            let replays = self.replays.of_event(workspace, connection, position).await?;
            let decision = resolved
                .as_ref()
                .and_then(|r| r.decisions.iter().find(|d| d.connection_id == connection))
                .map(|d| match d.outcome {
                    1 => format!("allow ({})", d.place),
                    2 => format!("restricted: {} ({})", d.reason, d.place),
                    _ => format!("deny: {} ({})", d.reason, d.place),
                });
            deliveries.push(match verdict {
                None => {
                    let hold = self.holds.of(workspace, lane.duty.connection).at(jiff::Timestamp::now());
                    let state = if hold.is_some() { State::Held } else { State::Waiting };
                    pb::DeliveryStory {
                        connection_id: connection,
                        state: state.as_str().to_owned(),
                        reason: hold.as_ref().map(|hold| hold.kind().to_owned()).unwrap_or_default(),
                        detail: hold.as_ref().map(Hold::detail).unwrap_or_default(),
                        consent: decision.unwrap_or_default(),
                        ..pb::DeliveryStory::default()
                    }
                }
                Some((verdict, at)) => pb::DeliveryStory {
                    connection_id: connection,
                    state: verdict.state.as_str().to_owned(),
                    reason: verdict.reason,
                    consent: decision.unwrap_or(verdict.consent),
                    attempts: verdict.attempts,
                    latency_ms: verdict.latency_ms,
                    detail: self.with_verdict(workspace, connection, verdict.detail).await?,
                    at: Some(proto_time(at)),
                    replays: replays.into_iter().map(proto_replayed).collect(),
                },
            });
        }
        Ok(pb::EventStory {
            position: Some(proto_position(position)),
            event_json: shown(event).to_string(),
            source_id: event.source_id,
            received_at: event.received_at,
            duplicate_of: resolved.as_ref().and_then(|r| r.duplicate.as_ref()).map(|d| pb::Position {
                generation: d.generation,
                partition: d.partition,
                offset: d.offset,
            }),
            canonical_key: resolved.as_ref().map(|r| hex::encode(&r.canonical_key)).unwrap_or_default(),
            reused_id: resolved.as_ref().is_some_and(|r| r.reused_id),
            resolved: resolved.is_some(),
            deliveries,
        })
    }

    async fn resolved_at(
        &self,
        workspace: WorkspaceId,
        position: Position,
    ) -> Result<Option<ResolvedEvent>, StoryError> {
        let blocks = match self.resolved.read(workspace, position, 1).await {
            Err(StoreError::Trimmed) => Vec::new(),
            read => read?,
        };
        let Some(block) = blocks.first() else { return Ok(None) };
        let step = usize::try_from(position.offset.0 - block.first.offset.0).unwrap_or(usize::MAX);
        Ok(block.events()?.get(step).and_then(|bytes| ResolvedEvent::decode(bytes.clone()).ok()))
    }
}

fn proto_replayed(once: ReplayedOnce) -> pb::ReplayedOnce {
    let (state, reason, ended_at) = match once.ended {
        Some((state, reason, at)) => (state.as_str().to_owned(), reason, Some(proto_time(at))),
        None => Default::default(),
    };
    pb::ReplayedOnce {
        replay_id: once.replay,
        state_before: once.before.0.as_str().to_owned(),
        reason_before: once.before.1,
        taken_at: Some(proto_time(once.taken_at)),
        state,
        reason,
        ended_at,
    }
}

/// A position on the wire.
#[must_use]
pub fn proto_position(position: Position) -> pb::Position {
    pb::Position {
        generation: position.generation.0,
        partition: position.partition.0,
        offset: position.offset.0,
    }
}

/// An event as a person may see it: what it was, never whose.
pub(crate) fn shown(event: &Event) -> Value {
    let consent = event.consent.clone().unwrap_or_default();
    let names = |json: &[u8]| -> Vec<String> {
        serde_json::from_slice::<serde_json::Map<String, Value>>(json)
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default()
    };
    let strings: Vec<&str> =
        [("tcf", &consent.tc_string), ("gpp", &consent.gpp_string), ("usp", &consent.us_privacy)]
            .into_iter()
            .filter(|(_, string)| !string.is_empty())
            .map(|(name, _)| name)
            .collect();
    let time = |t: &Option<prost_types::Timestamp>| {
        t.as_ref().and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok()).map(|t| t.to_string())
    };
    json!({
        "message_id": event.message_id,
        "type": type_name(event.r#type),
        "name": event.name,
        "anonymous_id": masked(&event.anonymous_id),
        "user_id": masked(&event.user_id),
        "timestamp": time(&event.timestamp),
        "received_at": time(&event.received_at),
        "channel": format!("{:?}", event.channel()).to_lowercase(),
        "library": event.library,
        "client_retry": event.client_retry,
        "warnings": event.warnings,
        "consent": {
            "gpc": consent.gpc,
            "gpc_provenance": consent.gpc_provenance,
            "categories": consent.categories.iter().map(|c| json!({ c.category.clone(): c.allowed })).collect::<Vec<_>>(),
            "strings": strings,
            "unreadable": consent.unreadable,
        },
        "properties": names(&event.properties_json),
        "traits": names(&event.traits_json),
    })
}

/// An event as it was sent.
pub(crate) fn shown_unmasked(event: &Event) -> Value {
    let mut value = shown(event);
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
    if let Some(fields) = value.as_object_mut() {
        for (name, sent) in [
            ("anonymous_id", json!(event.anonymous_id)),
            ("user_id", json!(event.user_id)),
            ("previous_id", json!(event.previous_id)),
            ("group_id", json!(event.group_id)),
            ("ip", json!(event.ip)),
            ("user_agent", json!(event.user_agent)),
            ("page_url", json!(event.page_url)),
            ("properties", json(&event.properties_json)),
            ("traits", json(&event.traits_json)),
            ("context", json(&event.context_json)),
        ] {
            fields.insert(name.to_owned(), sent);
        }
    }
    value
}

fn type_name(number: i32) -> &'static str {
    match EventType::try_from(number).unwrap_or_default() {
        EventType::Unspecified => "unknown",
        EventType::Track => "track",
        EventType::Page => "page",
        EventType::Screen => "screen",
        EventType::Identify => "identify",
        EventType::Group => "group",
        EventType::Alias => "alias",
    }
}

/// The beginning of an id, to know it again by: three characters, and never more than a third of it.
fn masked(id: &str) -> String {
    if id.is_empty() {
        return String::new();
    }
    let characters = id.chars().count();
    let start: String = id.chars().take(3.min(characters / 3)).collect();
    format!("{start}… ({characters} characters)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_an_event_is_is_shown_only_where_it_was_asked_for() {
        let event = Event {
            user_id: "customer-9".to_owned(),
            ip: "203.0.113.9".to_owned(),
            traits_json: br#"{"email":"someone@example.com"}"#.to_vec().into(),
            ..Event::default()
        };
        let (masked, unmasked) = (shown(&event).to_string(), shown_unmasked(&event).to_string());
        for private in ["customer-9", "203.0.113.9", "someone@example.com"] {
            assert!(!masked.contains(private) && unmasked.contains(private), "{private}");
        }
    }

    #[test]
    fn of_an_id_a_third_is_shown_at_most() {
        assert_eq!(masked(""), "");
        assert_eq!(masked("42"), "… (2 characters)");
        assert_eq!(masked("u-1"), "u… (3 characters)");
        assert_eq!(masked("äöüßé"), "ä… (5 characters)");
        assert_eq!(masked("customer-9"), "cus… (10 characters)");
    }
}
