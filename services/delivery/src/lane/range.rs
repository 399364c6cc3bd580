//! A range of the resolved journal: planning it, and committing its settled beginning.

use std::time::SystemTime;

use tracklayer_destination::Destination;
use tracklayer_ids::{Offset, Position};

use super::slot::Slot;
use super::{Lane, LaneError};
use crate::connections::OpenConnection;
use crate::store::StoreError;

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

    /// Commits the settled beginning of the range. After an error nothing is forgotten, and the same commit can be tried again:
    /// only a cursor that another one moved makes the lane begin anew.
    pub(super) async fn commit_prefix(&mut self) -> Result<(), LaneError> {
        let settled = self.range.iter().take_while(|slot| slot.verdict.is_some()).count();
        if settled == 0 {
            return Ok(());
        }
        let first = self.range[0].entry.position;
        let end = Position { offset: Offset(first.offset.0 + settled as u64), ..first };
        let commit = self.commit_of(&self.range[..settled]);
        let started = SystemTime::now();
        match self.context.ledger.commit_range(&self.lease, first, &commit).await {
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
        let done: Vec<Slot> = self.range.drain(..settled).collect();
        self.cursor = Some(end);
        self.after_commit(&commit, &done, started);
        if !commit.retries.is_empty() {
            self.read_waiting().await?;
        }
        Ok(())
    }
}
