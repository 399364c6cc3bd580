//! Passing what an operator has given up: it is settled without a request and committed like any range. Works whatever the lane
//! waits for, and whether its connection can be opened or not.

use super::plan;
use super::{Lane, LaneError};
use crate::give_ups::is_before;

/// Events that one commit passes.
const AT_ONCE: usize = 2_000;

impl Lane {
    /// Passes the next events of what is given up. `false`: there is nothing, or resolve has not read it yet.
    pub(super) async fn give_up(&mut self) -> Result<bool, LaneError> {
        let duty = self.lease.duty;
        let Some(until) = self.context.give_ups.until(duty) else { return Ok(false) };
        // What a request has brought is told first, and as what it is.
        self.commit_finished().await?;
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None => self.begin().await?,
        };
        if !is_before(cursor, until) {
            return Ok(false);
        }
        // Looked at before the read, as for any range.
        let resolved = *self.context.progress.partition(duty.workspace, duty.partition).resolved.borrow();
        if self.range.is_empty() {
            let entries = self.context.entries.from(&self.lease, cursor, AT_ONCE, None).await?;
            let passed = entries.into_iter().take_while(|entry| is_before(entry.position, until));
            self.range = passed.map(|entry| self.slot_of(entry)).collect();
        }
        if self.range.is_empty() {
            return Ok(self.enter_next_generation(cursor, resolved));
        }
        let now = self.context.clock.now();
        for slot in self.range.iter_mut().take_while(|slot| is_before(slot.entry.position, until)) {
            if slot.verdict.is_none() {
                slot.unknown_since =
                    slot.unknown_since.or_else(|| self.unknown.get(&slot.entry.position).copied());
                plan::give_up(slot, now);
            }
        }
        // What lies behind `until` and shares a file with what is given up cannot be written under that file's name any more.
        self.writes.tear(cursor, until);
        self.commit_prefix().await?;
        if self.cursor.is_some_and(|cursor| !is_before(cursor, until)) {
            let (workspace, connection) = (duty.workspace.0, duty.connection.0);
            tracing::warn!(
                workspace, connection, partition = duty.partition.0, from = %cursor, until = %until,
                "what an operator gave up was passed without being sent"
            );
        }
        Ok(true)
    }
}
