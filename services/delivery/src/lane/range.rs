//! A range of the resolved journal: planning it, and committing its settled beginning.

use std::time::SystemTime;

use tracklayer_destination::Destination;
use tracklayer_ids::{Offset, Position};

use super::slot::Slot;
use super::{Lane, LaneError};
use crate::connections::OpenConnection;

impl Lane {
    /// Gives each slot its decision and order, and plans it.
    pub(super) async fn plan_range(
        &mut self,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        let mut range = std::mem::take(&mut self.range);
        let planned = self.plan_slots(&mut range, connection, destination).await;
        if planned.is_ok() {
            self.range = range;
        }
        planned
    }

    /// Commits the settled beginning of the range.
    pub(super) async fn commit_prefix(&mut self) -> Result<(), LaneError> {
        let settled = self.range.iter().take_while(|slot| slot.verdict.is_some()).count();
        if settled == 0 {
            return Ok(());
        }
        let done: Vec<Slot> = self.range.drain(..settled).collect();
        let first = done[0].entry.position;
        let commit = self.commit_of(&done);
        let started = SystemTime::now();
        self.context.ledger.commit_range(&self.lease, first, &commit).await?;
        self.after_commit(&commit, &done, started);
        self.cursor = Some(Position { offset: Offset(first.offset.0 + done.len() as u64), ..first });
        if !commit.retries.is_empty() {
            self.read_waiting().await?;
        }
        Ok(())
    }
}
