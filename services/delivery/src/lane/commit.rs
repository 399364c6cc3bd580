//! What a commit of settled events writes, and what follows from it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::SignedDuration;
use tracklayer_destination::OrderEffect;
use tracklayer_destination::data_manager::{FIRST_STATUS, request_id};
use tracklayer_ids::{Generation, Offset, Partition, Position};
use uuid::Uuid;

use super::plan::UNKNOWN;
use super::slot::Slot;
use super::{Lane, quality};
use crate::ledger::State;
use crate::match_keys::Kept;
use crate::store::filed::MOST_SUBJECTS;
use crate::store::ingest_requests::{RequestedAt, TakenRequest};
use crate::store::ledger::LaneCommit;
use crate::store::match_keys::SealedKey;
use crate::store::orders::order_hash;
use crate::subjects::Asked;

impl Lane {
    /// What a commit of these writes. Changes nothing, so that a commit which fails can be tried again.
    pub(super) fn commit_of(&self, done: &[Slot]) -> LaneCommit {
        let covered = positions_of(done);
        let ended = ended(done);
        let known = |(_, positions): &&(Uuid, Vec<Position>)| positions.iter().all(|p| covered.has(*p));
        LaneCommit {
            id: Uuid::now_v7(),
            settled: done.iter().filter_map(Slot::settled).collect(),
            retries: done.iter().filter_map(Slot::retry_row).collect(),
            dead: done.iter().filter_map(Slot::dead_row).collect(),
            intents: self
                .intents
                .iter()
                .filter(known)
                .map(|(id, _)| *id)
                .chain(self.writes.known_by(|position| ended.has(position)))
                .collect(),
            requests: self.requests,
            match_keys: self.match_keys_of(done),
            taken: self.taken_of(done),
            orders: done.iter().filter_map(Slot::order_effect).collect(),
            there_before: done.iter().filter_map(Slot::sale_there_before).collect(),
            replayed: done.iter().filter_map(Slot::ended).collect(),
            quality: self.counted_names.count(done),
        }
    }

    /// The requests that brought them where the platform judges later, by the id that the verdicts name.
    fn taken_of(&self, done: &[Slot]) -> Vec<TakenRequest> {
        let mut taken: BTreeMap<&str, (u64, Vec<RequestedAt>)> = BTreeMap::new();
        for slot in done {
            let verdict = slot.verdict.as_ref().filter(|verdict| verdict.state == State::Delivered);
            let Some(id) = verdict.and_then(|verdict| request_id(&verdict.detail)) else { continue };
            let (events, movable) = taken.entry(id).or_default();
            *events += 1;
            // What was delivered before stays so, whatever is said of its repetition.
            let before = slot.replayed.as_ref();
            if before.is_none_or(|mark| mark.state != State::Delivered) {
                let may_be_there = before.is_some_and(|mark| mark.reason == UNKNOWN);
                movable.push(RequestedAt {
                    position: slot.entry.position,
                    sent_before: slot.unknown_since.is_some() || may_be_there,
                });
            }
        }
        let sent_at = self.context.clock.now();
        let first = SignedDuration::try_from(FIRST_STATUS).unwrap_or(SignedDuration::MAX);
        let first_look_at = sent_at.checked_add(first).unwrap_or(sent_at);
        taken
            .into_iter()
            .map(|(id, (events, positions))| TakenRequest {
                id: id.to_owned(),
                events,
                positions,
                sent_at,
                first_look_at,
            })
            .collect()
    }

    /// What the orders that were sold were matched by, sealed. One that cannot be sealed is not kept, nor one of nobody, or of more
    /// than identity tells of: it could not be found again for whoever wants to be forgotten.
    fn match_keys_of(&self, done: &[Slot]) -> Vec<SealedKey> {
        let workspace = self.lease.duty.workspace;
        let Some(snapshot) = self.context.config.snapshot() else { return Vec::new() };
        let mut sealer = None;
        let sold = done.iter().filter_map(|slot| match slot.order.as_ref()? {
            OrderEffect::Sold { order_id, at, match_key: Some(key), .. } => Some((slot, order_id, at, key)),
            OrderEffect::Sold { .. } | OrderEffect::Restated { .. } | OrderEffect::Refunded { .. } => None,
        });
        sold.filter(|(slot, ..)| (1..=MOST_SUBJECTS).contains(&slot.subject_keys.len()))
            .filter_map(|(slot, order_id, at, key)| {
                let event = &slot.deliverable.as_ref()?.event;
                let kept = Kept::of(key, Asked::about(event, workspace, &snapshot).identifiers)?;
                let sealer = sealer.get_or_insert_with(|| self.context.match_keys.sealer(workspace));
                Some(SealedKey {
                    hash: order_hash(order_id),
                    sold_at: *at,
                    sealed: sealer.seal(&kept)?,
                    subject_keys: slot.subject_keys.to_vec(),
                    decided_at: slot.decided_at,
                })
            })
            .collect()
    }

    /// Forgets what a commit has settled, and tells about it.
    pub(super) fn after_commit(&mut self, commit: &LaneCommit, done: &[Slot], started: SystemTime) {
        let covered = positions_of(done);
        for (_, positions) in &mut self.intents {
            positions.retain(|position| !covered.has(*position));
        }
        self.intents.retain(|(_, positions)| !positions.is_empty());
        let ended = ended(done);
        self.writes.committed(|position| ended.has(position));
        self.requests = self.requests.saturating_sub(commit.requests);

        self.counted_names.learn(&commit.quality);
        if !commit.quality.is_empty() {
            let opened = self.context.connections.one(self.lease.duty.workspace, self.lease.duty.connection);
            let destination = opened.as_ref().and_then(|opened| opened.destination.as_ref().ok());
            if let Some(destination) = destination {
                quality::tell(&commit.quality, destination.kind().as_str());
            }
        }

        let connection = self.lease.duty.connection;
        let ended = SystemTime::now();
        let mut counts: BTreeMap<State, u64> = BTreeMap::new();
        let latencies = metrics::histogram!("tracklayer_delivery_latency_seconds");
        for (slot, settled) in done.iter().zip(&commit.settled) {
            self.unknown.remove(&settled.position);
            let verdict = &settled.verdict;
            *counts.entry(verdict.state).or_default() += 1;
            let is_again = slot.replayed.as_ref().is_some_and(|before| before.state == State::Delivered);
            if verdict.state == State::Delivered && !is_again {
                latencies.record(f64::from(verdict.latency_ms) / 1_000.0);
            }
            if !tracklayer_telemetry::is_sampled(slot.entry.traceparent()) {
                continue;
            }
            let attributes = [
                ("connection_id", connection.to_string()),
                ("state", verdict.state.as_str().to_owned()),
                ("reason", verdict.reason.clone()),
                ("attempts", verdict.attempts.to_string()),
            ];
            let begun = slot.sent_at.unwrap_or(started);
            let _ = tracklayer_telemetry::event_span(
                "deliver",
                slot.entry.traceparent(),
                begun,
                ended,
                &attributes,
            );
        }
        for ended in &commit.replayed {
            metrics::counter!("tracklayer_delivery_replayed_events_total", "state" => ended.state.as_str())
                .increment(1);
        }
        for (state, count) in counts {
            metrics::counter!("tracklayer_delivery_events_total", "state" => state.as_str()).increment(count);
        }
    }
}

/// Sorted: a commit's events nearly always are.
struct Positions(Vec<Position>);

impl Positions {
    fn has(&self, position: Position) -> bool {
        self.0.binary_search_by_key(&place(&position), place).is_ok()
    }
}

fn place(position: &Position) -> (Generation, Partition, Offset) {
    (position.generation, position.partition, position.offset)
}

/// Those that do not wait for another try: a file that may be there is written again with them under its name.
fn ended(done: &[Slot]) -> Positions {
    positions_of(done.iter().filter(|slot| slot.verdict.as_ref().is_none_or(|v| v.state != State::Held)))
}

fn positions_of<'s>(done: impl IntoIterator<Item = &'s Slot>) -> Positions {
    let mut positions: Vec<Position> = done.into_iter().map(|slot| slot.entry.position).collect();
    positions.sort_by_key(place);
    Positions(positions)
}
