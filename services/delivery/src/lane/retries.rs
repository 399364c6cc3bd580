//! Retry rounds: what waits for another try of its own is sent apart from the range.

use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use tracklayer_destination::Destination;

use super::slot::Slot;
use super::{Lane, LaneError};
use crate::connections::OpenConnection;
use crate::entry::Entry;

/// Retries taken in one round.
const RETRY_BATCH: i64 = 500;

impl Lane {
    pub(super) async fn read_waiting(&mut self) -> Result<(), LaneError> {
        let waiting = self.context.retries.waiting_keys(self.lease.duty).await?;
        self.next_retry = waiting.iter().map(|(_, at)| *at).min();
        self.waiting_keys = waiting.into_iter().map(|(key, _)| key).collect();
        Ok(())
    }

    /// Takes due retries, sends them, commits.
    pub(super) async fn retry_round(
        &mut self,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        let due = self.context.retries.due(self.lease.duty, Timestamp::now(), RETRY_BATCH).await?;
        let mut slots: Vec<Slot> = due
            .into_iter()
            .map(|row| {
                let entry = Entry::decode(row.position, row.resolved.into());
                let mut slot = Slot::new(Arc::new(entry));
                slot.is_retry = true;
                slot.attempts = row.attempts;
                slot.unknown_since = row.first_sent_at;
                slot
            })
            .collect();
        if slots.is_empty() {
            return self.read_waiting().await;
        }
        self.plan_slots(&mut slots, connection, destination).await?;
        let sent = self.send_open(&mut slots, connection, destination).await;
        for slot in slots.iter().filter(|slot| slot.verdict.is_none()) {
            // Its row does not know yet that a request may have brought it: the window counts from that one.
            let repeatable = slot.item.as_ref().is_some_and(|item| item.repeatable);
            if let Some(since) = slot.unknown_since.filter(|_| repeatable) {
                self.unknown.entry(slot.entry.position).or_insert(since);
            }
        }
        let done: Vec<Slot> = slots.into_iter().filter(|slot| slot.verdict.is_some()).collect();
        if !done.is_empty() {
            let commit = self.commit_of(&done);
            let started = SystemTime::now();
            self.context.ledger.commit_retries(&self.lease, &commit).await?;
            self.after_commit(&commit, &done, started);
        }
        self.read_waiting().await?;
        sent
    }
}
