//! Retry rounds: what waits for another try of its own is sent apart from the range.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracklayer_destination::Destination;
use tracklayer_ids::Generation;
use tracklayer_journal::not_aside;

use super::decide::tell_of_fields;
use super::plan;
use super::replay;
use super::slot::Slot;
use super::{Lane, LaneError};
use crate::connections::OpenConnection;
use crate::entry::Entry;
use crate::file_memory::reckoned;
use crate::ledger::State;
use crate::store::StoreError;

/// Retries taken in one round.
pub(super) const RETRY_BATCH: i64 = 500;
/// Pause before another look at what waits behind another lane.
const ELSEWHERE_PAUSE: Duration = Duration::from_secs(1);

impl Lane {
    pub(super) async fn read_waiting(&mut self) -> Result<(), LaneError> {
        self.waiting.set_own(self.context.retries.waiting_keys(self.lease.duty).await?);
        Ok(())
    }

    /// Reads who waits in other lanes from generations before that one: a visitor whose partition the layout has changed.
    pub(super) async fn read_waiting_elsewhere(&mut self, generation: Generation) -> Result<(), LaneError> {
        let keys = self.context.retries.waiting_elsewhere(self.lease.duty, generation).await?;
        self.waiting.set_elsewhere(keys);
        Ok(())
    }

    /// Takes due retries, sends them, commits. `newest` is the generation that the lane stands in.
    pub(super) async fn retry_round(
        &mut self,
        newest: Generation,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        if let Some(generation) = self.entered.filter(|_| self.waiting.waits_elsewhere()) {
            self.read_waiting_elsewhere(generation).await?;
        }
        let now = self.context.clock.now();
        let most = self.at_once().min(self.replaying.most_retries(destination.limits()));
        let most = i64::try_from(most).unwrap_or(i64::MAX).min(RETRY_BATCH);
        let mut due = match destination.files() {
            Some(target) => self.due_for_files(target, now, most, newest).await?,
            None => self.context.retries.due(self.lease.duty, now, most, newest).await?,
        };
        // An intent names one generation: what waits in the next one comes with the next round.
        if let Some(generation) = due.first().map(|row| row.position.generation) {
            due.retain(|row| row.position.generation == generation);
        }
        let mut slots: Vec<Slot> = due
            .into_iter()
            .map(|row| {
                let entry = Entry::decode(row.position, row.resolved.into());
                let mut slot = Slot::new(Arc::new(entry));
                slot.is_retry = true;
                slot.attempts = row.attempts;
                slot.tries = row.tries;
                slot.transient_holds = row.transient_holds;
                slot.unknown_since = row.first_sent_at;
                slot.waited = row.waited;
                slot.key = row.order_key;
                slot.came_under = row.order_key;
                slot
            })
            .collect();
        if slots.is_empty() {
            // What is due all the same stands behind something in another lane.
            self.read_waiting().await?;
            self.waiting.put_off_due(now, now + ELSEWHERE_PAUSE);
            return Ok(());
        }
        self.keep_room(slots.iter().map(|slot| reckoned(&slot.entry)).sum());
        self.read_marks(&mut slots).await?;
        self.plan_slots(&mut slots, connection, destination).await?;
        if let Some(cut) = plan::waits_for_its_order(&slots, destination) {
            slots.truncate(cut);
        }
        tell_of_fields(&mut slots, destination.kind().as_str());
        let sent = self.send_open(&mut slots, connection, destination).await;
        let now = self.context.clock.now();
        for slot in slots.iter_mut().filter(|slot| slot.verdict.is_none() && slot.sent_at.is_some()) {
            // Its row must know what a request has done with it: the platform's window counts from the first one.
            slot.retry_at = Some(now);
            slot.settle(State::Held, "retry", "the platform held the lane", now);
        }
        slots.iter_mut().for_each(|slot| replay::keep_what_was(slot, now));
        let done: Vec<Slot> = slots.into_iter().filter(|slot| slot.verdict.is_some()).collect();
        if !done.is_empty() {
            self.pending_retries = Some((self.commit_of(&done), done));
        }
        self.commit_retries().await?;
        sent
    }

    /// Commits a finished retry round, if there is one. After an error it stays, and the same commit can be tried again.
    pub(super) async fn commit_retries(&mut self) -> Result<(), LaneError> {
        let Some((commit, _)) = &self.pending_retries else { return Ok(()) };
        let started = SystemTime::now();
        match not_aside(self.context.ledger.commit_retries(&self.lease, commit)).await {
            Ok(()) => {}
            Err(StoreError::CursorMoved) => {
                self.forget_range();
                return Err(StoreError::CursorMoved.into());
            }
            Err(error) => return Err(error.into()),
        }
        if let Some((commit, done)) = self.pending_retries.take() {
            self.after_commit(&commit, &done, started);
            let now = self.context.clock.now();
            for slot in &done {
                match slot.retry_row() {
                    Some(row) if row.order_key == slot.came_under => {
                        self.waiting.put_off(row.order_key, row.next_at);
                    }
                    // From behind its visitor, to wait for its order, or behind who does.
                    Some(row) => {
                        self.waiting.finish(slot.came_under, now);
                        self.waiting.join(row.order_key, row.next_at);
                    }
                    None => self.waiting.finish(slot.came_under, now),
                }
            }
        }
        Ok(())
    }
}
