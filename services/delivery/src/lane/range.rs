//! A range of the resolved journal: planning it, and committing its settled beginning.

use std::time::SystemTime;

use tracklayer_destination::Destination;
use tracklayer_destination::plan::events_of_a_range;
use tracklayer_ids::{Offset, Position};
use tracklayer_journal::not_aside;

use super::decide::tell_of_fields;
use super::plan;
use super::{Lane, LaneError};
use crate::connections::OpenConnection;
use crate::store::StoreError;

impl Lane {
    /// Takes the next range and plans it, or plans one anew that was planned for another state of the connection. `false`:
    /// there is nothing to do.
    pub(super) async fn take_range(
        &mut self,
        cursor: Position,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<bool, LaneError> {
        if !self.range.is_empty() && self.planned_for == Some(connection.revision) {
            return Ok(true);
        }
        let duty = self.lease.duty;
        let end = self.context.progress.partition(duty.workspace, duty.partition).end_here();
        let fresh = self.range.is_empty();
        // Only after what was there to do: whoever has waited looks, whatever is known here. What is released has to be looked for, too:
        // that there is nothing left says that the lane has caught up.
        let may_pass = self.worked_last && !self.releasing && destination.files().is_none();
        if fresh && may_pass && end == Some(cursor) {
            return Ok(false);
        }
        let mut range = std::mem::take(&mut self.range);
        if fresh {
            let workspace = duty.workspace;
            // Two requests for each commit, where they are as large.
            let limit = match destination.files() {
                Some(files) => files.rows_per_file,
                None => events_of_a_range(destination.limits()),
            };
            let begun = self.writes.end_from(cursor);
            let mut entries = match destination.files() {
                Some(files) => self.gather(cursor, begun, files).await?,
                None => self.context.entries.from(&self.lease, cursor, limit, end).await?,
            };
            let bytes = entries.iter().map(|entry| entry.raw.len()).sum();
            self.context.headroom.did(workspace, entries.len(), bytes);
            self.look_how_old(entries.iter().map(|entry| entry.received_ms).find(|ms| *ms > 0)).await;
            // What is sent is committed within a second or two: a crash leaves no more of it unknown.
            entries.truncate(if begun.is_some() { usize::MAX } else { self.at_once() });
            range.extend(entries.into_iter().map(|entry| self.slot_of(entry)));
        }
        let planned = self.plan_slots(&mut range, connection, destination).await;
        if let Some(cut) = plan::waits_for_its_order(&range, destination).filter(|_| fresh) {
            range.truncate(cut);
        }
        tell_of_fields(&mut range, destination.kind().as_str());
        // Also after an error: some of it may have been sent.
        self.range = range;
        self.planned_for = planned.is_ok().then_some(connection.revision);
        planned?;
        Ok(!self.range.is_empty())
    }

    /// Commits the settled beginning of the range. After an error nothing is forgotten, and the same commit can be tried again:
    /// only a cursor that another one moved makes the lane begin anew.
    pub(super) async fn commit_prefix(&mut self) -> Result<(), LaneError> {
        let settled = self.range.iter().take_while(|slot| slot.verdict.is_some()).count();
        if settled == 0 {
            return Ok(());
        }
        let first = self.range[0].entry.position;
        let end = Position { offset: Offset(first.offset.0 + settled as u64), ..first };
        // Who takes the lane over could not write a file again of which a part is behind the cursor.
        if self.writes.would_be_torn_at(end) {
            return Ok(());
        }
        let commit = self.commit_of(&self.range[..settled]);
        let started = SystemTime::now();
        match not_aside(self.context.ledger.commit_range(&self.lease, first, &commit)).await {
            Ok(()) => {}
            Err(StoreError::CursorMoved) => {
                // The epoch held, so nobody but us can have moved it: an earlier try came through and only its answer was lost.
                let stands = self.context.cursors.lane(self.lease.duty).await?.map(|cursor| cursor.next);
                if stands != Some(end) {
                    self.forget_range();
                    return Err(StoreError::CursorMoved.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        let rest = self.range.split_off(settled);
        let done = std::mem::replace(&mut self.range, rest);
        self.cursor = Some(end);
        self.after_commit(&commit, &done, started);
        for row in &commit.retries {
            self.waiting.add(row.order_key, row.next_at);
        }
        Ok(())
    }
}
