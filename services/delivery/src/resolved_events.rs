//! Resolved events for people and for `preview`: what stands at a position, what resolve found out about it, and its bytes.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tracklayer_ids::{Offset, Position, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;
use tracklayer_proto::event::v1::{ClickIds, ConnectionDecision, Event, ResolvedEvent};

use crate::store::StoreError;
use crate::store::resolved::ResolvedStore;
use crate::story::{proto_position, shown, shown_unmasked};

/// Most stored bytes of a page, so that no answer is larger than a client takes (8 MiB): beside them stand the event and what was
/// found out as text, twice as much at most. One event is in a page in any case.
const MOST_BYTES: usize = 2 * 1024 * 1024;

/// Stored bytes from a position on, at most so many; none: nothing is resolved there yet.
///
/// # Errors
/// The database, corrupt bytes, or what stood there was given back.
pub async fn page(
    store: &ResolvedStore,
    workspace: WorkspaceId,
    from: Position,
    limit: usize,
) -> Result<Vec<(Position, Bytes)>, StoreError> {
    let mut events = Vec::new();
    let (mut next, mut bytes) = (from, 0);
    loop {
        let blocks = store.read(workspace, next, 1).await?;
        let Some(block) = blocks.first() else { return Ok(events) };
        let stored = block.events().map_err(|_| StoreError::Corrupt { what: "a resolved block" })?;
        for (step, event) in (0..).zip(stored) {
            let offset = Offset(block.first.offset.0 + step);
            if offset < next.offset {
                continue;
            }
            bytes += event.len();
            if events.len() >= limit || (bytes > MOST_BYTES && !events.is_empty()) {
                return Ok(events);
            }
            events.push((Position { offset, ..from }, event));
        }
        next.offset = block.end();
    }
}

/// An event of a page on the wire.
#[must_use]
pub fn on_the_wire(position: Position, stored: Bytes, unmasked: bool) -> pb::JournalEvent {
    let resolved = ResolvedEvent::decode(stored.clone()).ok().filter(|_| !stored.is_empty());
    let event = resolved.as_ref().filter(|r| !r.event.is_empty());
    let event = event.and_then(|r| Event::decode(r.event.clone()).ok());
    let show = if unmasked { shown_unmasked } else { shown };
    pb::JournalEvent {
        position: Some(proto_position(position)),
        source_id: resolved.as_ref().map_or(0, |r| r.source_id),
        event_json: event.as_ref().map(show).unwrap_or_default().to_string(),
        outcome_json: resolved.as_ref().map(|r| outcome(r, unmasked)).unwrap_or_default().to_string(),
        resolved: if unmasked { stored.to_vec() } else { Vec::new() },
    }
}

/// What resolve made of an event, as a person may see it. An order's id may be a person's, and a click id is one.
fn outcome(resolved: &ResolvedEvent, unmasked: bool) -> Value {
    let first = resolved.duplicate.as_ref();
    let known = resolved.known_click_ids.clone().unwrap_or_default();
    json!({
        "message_id": resolved.message_id,
        "duplicate_of": first.map(|d| format!("{}/{}/{}", d.generation, d.partition, d.offset)),
        "id_reused": resolved.reused_id.then_some(true),
        "poisoned": Some(&resolved.poisoned).filter(|why| !why.is_empty()),
        "commerce_key": Some(&resolved.commerce_key).filter(|key| unmasked && !key.is_empty()),
        "canonical_key": hex::encode(&resolved.canonical_key),
        "known_click_ids": known_ids(&known, unmasked),
        "decisions": resolved.decisions.iter().map(decision).collect::<Vec<_>>(),
    })
}

fn decision(decision: &ConnectionDecision) -> Value {
    let outcome = match decision.outcome {
        1 => "allow",
        2 => "allow_restricted",
        _ => "deny",
    };
    json!({
        "connection_id": decision.connection_id, "revision": decision.connection_revision, "outcome": outcome,
        "reason": decision.reason, "place": decision.place, "denied_purposes": decision.denied_purposes,
    })
}

fn known_ids(known: &ClickIds, unmasked: bool) -> Value {
    let ids = [
        ("fbclid", &known.fbclid),
        ("fbc", &known.fbc),
        ("fbp", &known.fbp),
        ("gclid", &known.gclid),
        ("gbraid", &known.gbraid),
        ("wbraid", &known.wbraid),
        ("ttclid", &known.ttclid),
        ("ttp", &known.ttp),
        ("ga_client_id", &known.ga_client_id),
    ];
    let seen = ids.into_iter().filter(|(_, id)| !id.is_empty());
    seen.map(|(name, id)| (name.to_owned(), if unmasked { json!(id) } else { json!("…") }))
        .collect::<serde_json::Map<String, Value>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_resolved_event_is_is_shown_only_where_it_was_asked_for() {
        let event = Event { user_id: "customer-9".to_owned(), ..Event::default() };
        let resolved = ResolvedEvent {
            event: event.encode_to_vec().into(),
            commerce_key: "order_completed:customer-9".to_owned(),
            known_click_ids: Some(ClickIds { fbclid: "IwAR-customer-9".to_owned(), ..ClickIds::default() }),
            ..ResolvedEvent::default()
        };
        let stored: Bytes = resolved.encode_to_vec().into();
        let at = Position::new(1, 0, 7);
        let masked = on_the_wire(at, stored.clone(), false);
        let told = format!("{} {}", masked.event_json, masked.outcome_json);
        assert!(!told.contains("customer-9") && masked.resolved.is_empty(), "{told}");
        assert!(masked.outcome_json.contains("fbclid"), "{told}");
        let unmasked = on_the_wire(at, stored.clone(), true);
        assert!(unmasked.event_json.contains("customer-9") && unmasked.outcome_json.contains("IwAR"));
        assert_eq!(unmasked.resolved, stored, "byte for byte");
    }

    #[test]
    fn an_id_that_was_used_before_is_told_of() {
        let told = |reused_id| outcome(&ResolvedEvent { reused_id, ..ResolvedEvent::default() }, false);
        assert_eq!(told(true)["id_reused"], json!(true));
        assert_eq!(told(false)["id_reused"], Value::Null);
    }
}
