//! Room in memory for what a lane writes into files: taken before anything of it is read, and given back when it is committed or the lane
//! has to wait. What the lane knows of the events of a write that was begun stays, since it is known here alone; the events
//! themselves stand in the journal, and are read again.

use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use tracklayer_destination::FileTarget;
use tracklayer_ids::Position;

use super::slot::{Evidence, Slot};
use super::{Lane, LaneError};
use crate::entry::Entry;
use crate::file_memory::usual;
use crate::ledger::{State, Verdict};

/// What is known of an event of a write while nothing else of it is in memory.
#[derive(Debug)]
pub(super) struct Carried {
    verdict: Option<Verdict>,
    attempts: u32,
    transient_holds: u32,
    unknown_since: Option<Timestamp>,
    sent_at: Option<SystemTime>,
    evidence: Option<Evidence>,
    field: String,
}

impl Lane {
    /// Waits for room for what is taken next from the cursor on; for all of it where a write was begun that has to be repeated as a
    /// whole.
    pub(super) async fn make_room(&mut self, cursor: Position, target: &FileTarget) -> Result<(), LaneError> {
        let begun = self.writes.end_from(cursor).is_some().then(|| self.writes.bytes_from(cursor));
        self.wait_for_room(begun, usual(target.rows_per_file, target.bytes_per_file)).await
    }

    /// Waits for room for so much if it was `begun`, else for at most so much.
    pub(super) async fn wait_for_room(&mut self, begun: Option<u64>, most: u64) -> Result<(), LaneError> {
        if self.room.is_some() {
            return Ok(());
        }
        let workspace = self.lease.duty.workspace;
        let memory = &self.context.file_memory;
        let room = async {
            match begun {
                Some(bytes) => memory.whole(workspace, bytes).await,
                None => memory.some(workspace, most).await,
            }
        };
        let room = self.lease.lost().run_until_cancelled(room).await;
        self.room = Some(room.ok_or(LaneError::LeaseUnsure)?);
        Ok(())
    }

    /// Bytes that the lane may have in memory for files.
    pub(super) fn room_bytes(&self) -> u64 {
        self.room.as_ref().map_or(0, |room| room.bytes())
    }

    /// Keeps as much room as that, and gives back the rest.
    pub(super) fn keep_room(&mut self, bytes: u64) {
        if let Some(room) = &mut self.room {
            room.keep(bytes);
        }
    }

    /// Gives room back after a round. Where the lane has to wait, it lets go of events that are not written yet; where all have a
    /// verdict, nothing but their commit is missing.
    pub(super) fn let_go(&mut self, has_to_wait: bool) {
        let is_open = self.range.iter().any(|slot| slot.verdict.is_none());
        if has_to_wait && is_open && self.room.is_some() {
            for slot in std::mem::take(&mut self.range) {
                self.carry(slot);
            }
            self.planned_for = None;
        }
        if self.range.is_empty() && self.pending_retries.is_none() {
            self.room = None;
        }
    }

    /// Remembers what a write has brought of an event, or why it was left out of one: the file would be written again without its
    /// neighbours otherwise. What nothing was begun with is found out anew.
    fn carry(&mut self, slot: Slot) {
        let position = slot.entry.position;
        if !self.writes.have(position) && slot.attempts == 0 && slot.sent_at.is_none() {
            return;
        }
        // Planned again, it comes to the same; a file has it or was made without it.
        let verdict = slot.verdict.filter(|v| self.writes.have(position) || v.state == State::Delivered);
        let carried = Carried {
            verdict,
            attempts: slot.attempts,
            transient_holds: slot.transient_holds,
            unknown_since: slot.unknown_since,
            sent_at: slot.sent_at,
            evidence: slot.evidence,
            field: slot.field,
        };
        self.carried.insert(position, carried);
    }

    /// The slot of an event of the range, with what is known of it.
    pub(super) fn slot_of(&mut self, entry: Arc<Entry>) -> Slot {
        let carried = self.carried.remove(&entry.position);
        let slot = Slot::new(entry);
        let Some(carried) = carried else { return slot };
        Slot {
            verdict: carried.verdict,
            attempts: carried.attempts,
            transient_holds: carried.transient_holds,
            unknown_since: carried.unknown_since,
            sent_at: carried.sent_at,
            evidence: carried.evidence,
            field: carried.field,
            ..slot
        }
    }
}
