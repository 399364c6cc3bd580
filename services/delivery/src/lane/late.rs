//! Retries of a lane that writes files: rows that come late, after the files of their stretch of the journal.
//!
//! What is tried again goes into files of its own, which are written like any others: intent, then files, then the commit that knows of
//! them. A file whose outcome is not known is written again under its name, of the same rows less those that may not be written any
//! more, before any other retry is looked at, by whoever has the lane then: among others they would be a second time in a file of
//! another name.

use jiff::Timestamp;
use tracklayer_destination::FileTarget;
use tracklayer_ids::Generation;

use super::retries::RETRY_BATCH;
use super::{Lane, LaneError};
use crate::file_memory::usual;
use crate::store::ledger::RetryRow;

/// What an event may have as it is stored: its own 32 KiB, and what resolve has found out about it.
const MOST_STORED_BYTES: usize = 65_536;

impl Lane {
    /// The retries of the next round: those of a write that was begun, else at most so many that are due.
    pub(super) async fn due_for_files(
        &mut self,
        target: &FileTarget,
        now: Timestamp,
        most: i64,
        newest: Generation,
    ) -> Result<Vec<RetryRow>, LaneError> {
        let begun = self.begun_retries().await?;
        let rows = match begun {
            Some(rows) => rows,
            None => {
                let batch = usize::try_from(RETRY_BATCH).unwrap_or(usize::MAX);
                let all = usual(batch, target.bytes_per_file.min(MOST_STORED_BYTES * batch));
                self.wait_for_room(None, all).await?;
                let fit = self.room_bytes() / usual(1, MOST_STORED_BYTES);
                let most = most.min(i64::try_from(fit).unwrap_or(i64::MAX)).max(1);
                self.context.retries.due(self.lease.duty, now, most, newest).await?
            }
        };
        Ok(rows)
    }

    /// The events of the oldest write of retries that was begun, as far as they still wait.
    async fn begun_retries(&mut self) -> Result<Option<Vec<RetryRow>>, LaneError> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        while let Some(write) = self.writes.late(cursor) {
            let (id, bytes, open) = (write.id, write.bytes(), write.open());
            let mut rows = Vec::new();
            if let Some(first) = open.first() {
                self.wait_for_room(Some(bytes), bytes).await?;
                let offsets: Vec<u64> = open.iter().map(|position| position.offset.0).collect();
                rows = self.context.retries.at(self.lease.duty, first.generation, &offsets).await?;
            }
            if !rows.is_empty() {
                self.writes.only(id, |position| rows.iter().any(|row| row.position == position));
                return Ok(Some(rows));
            }
            // All of them have an outcome: an earlier holder has committed that.
            self.withdraw_write(id).await?;
            self.room = None;
        }
        Ok(None)
    }
}
