//! The walk of a replay over one lane: which events it selects, in the order of their positions, and what the ledger says of each.
//! Reads only, a step at a time, so that memory and time are bounded whatever is selected.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tracklayer_ids::{Offset, Position};

use super::{BEFORE_START, Origin, Selection};
use crate::entry::{Entry, EntryBlock};
use crate::give_ups::is_before;
use crate::lease::Duty;
use crate::ledger::{State, Verdict};
use crate::resolve::message_hash;
use crate::store::StoreError;
use crate::store::ledger::LedgerStore;
use crate::store::replays::ReplayStore;
use crate::store::resolved::{Outline, ResolvedStore};

/// Blocks whose headers a step looks at.
const OUTLINES: i64 = 200;
/// Events of a list of ids that a step reads: each may stand in a block of its own.
const LISTED: usize = 50;

/// What is left to walk of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The lane.
    pub duty: Duty,
    /// Where the connection began there.
    pub start: Position,
    /// What is looked at next.
    pub next: Position,
    /// Where the walk ends.
    pub end: Position,
    /// Letters that came later are not of this replay.
    pub asked_at: Timestamp,
    /// Whether what stands before `start` counts as if the connection answered for it already.
    pub is_plan: bool,
}

/// A selected event.
#[derive(Debug, Clone)]
pub struct Found {
    /// It.
    pub entry: Arc<Entry>,
    /// What the ledger says of it.
    pub before: Verdict,
}

/// A step.
#[derive(Debug)]
pub struct Step {
    /// What it has found.
    pub found: Vec<Found>,
    /// What the next one looks at first.
    pub next: Position,
    /// Positions that were walked.
    pub walked: u64,
    /// Positions whose events the journal has given back.
    pub not_retained: u64,
    /// Positions in blocks that are not what was written.
    pub unreadable: u64,
    /// Whether it was the last.
    pub done: bool,
}

/// Walks.
#[derive(Debug, Clone)]
pub struct Walker {
    /// The journal.
    pub resolved: ResolvedStore,
    /// The ledger.
    pub ledger: LedgerStore,
    /// Dead letters.
    pub replays: ReplayStore,
}

impl Walker {
    /// The next step, of at most so many events.
    ///
    /// # Errors
    /// The database, or bytes that are not what was written.
    pub async fn step(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
    ) -> Result<Step, StoreError> {
        match selection.origin {
            Origin::DeadLetters => self.letters(selection, stretch, limit).await,
            Origin::Journal if selection.message_ids.is_empty() => {
                self.journal(selection, stretch, limit).await
            }
            Origin::Journal => self.listed(selection, stretch, limit).await,
        }
    }

    async fn letters(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
    ) -> Result<Step, StoreError> {
        let letters = self.replays.letters(stretch, selection, limit).await?;
        let done = letters.len() < limit;
        let next = letters.last().map_or(stretch.next, |(position, _)| after(*position));
        let walked = letters.len() as u64;
        let entries =
            letters.into_iter().map(|(position, bytes)| Arc::new(Entry::decode(position, bytes.into())));
        let found = self.known(selection, stretch, entries).await?;
        Ok(Step { found, next, walked, not_retained: 0, unreadable: 0, done })
    }

    async fn journal(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
    ) -> Result<Step, StoreError> {
        let (duty, end) = (stretch.duty, stretch.end);
        let outlines = self.resolved.outlines(duty.workspace, stretch.next, OUTLINES).await?;
        let is_last = (outlines.len() as i64) < OUTLINES;
        let mut step = Step {
            found: Vec::new(),
            next: stretch.next,
            walked: 0,
            not_retained: 0,
            unreadable: 0,
            done: false,
        };
        for outline in outlines {
            step.pass_gap(selection, stretch, &outline);
            if !is_before(outline.first, end) {
                break;
            }
            // The first one may have been begun already.
            let from = if is_before(outline.first, step.next) { step.next } else { outline.first };
            let rest = outline.end().offset.0.saturating_sub(from.offset.0);
            if outline.is_kept && selection.may_select(outline.first_minute, outline.last_minute) {
                step.next = from;
                return self.block(selection, stretch, limit, step, outline.end()).await;
            }
            if !outline.is_kept && selection.may_select(outline.first_minute, outline.last_minute) {
                step.not_retained += rest;
            }
            step.walked += rest;
            step.next = outline.end();
        }
        if is_last || !is_before(step.next, end) {
            let left = end.offset.0.saturating_sub(step.next.offset.0);
            let is_gap = step.next.generation == end.generation && is_before(step.next, end);
            // Nothing is kept behind: whether it was of the time that is asked for, nobody knows any more.
            step.not_retained += if is_gap { left } else { 0 };
            (step.next, step.done) = (end, true);
        }
        Ok(step)
    }

    /// Reads the block that the step has come to. One whose bytes are not what was written is passed: it must not stop the lane.
    async fn block(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
        mut step: Step,
        end: Position,
    ) -> Result<Step, StoreError> {
        let blocks = self.resolved.read(stretch.duty.workspace, step.next, 1).await?;
        let block = match blocks.first().map(EntryBlock::decode).ok_or(StoreError::Trimmed)? {
            Err(StoreError::Corrupt { .. }) => {
                let end = if is_before(end, stretch.end) { end } else { stretch.end };
                let rest = end.offset.0.saturating_sub(step.next.offset.0);
                (step.walked, step.unreadable) = (step.walked + rest, step.unreadable + rest);
                (step.next, step.done) = (end, !is_before(end, stretch.end));
                return Ok(step);
            }
            block => block?,
        };
        let skip = step.next.offset.0.saturating_sub(block.first.offset.0);
        let rest = block.entries.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        let entries: Vec<Arc<Entry>> =
            rest.take(limit).take_while(|entry| is_before(entry.position, stretch.end)).cloned().collect();
        step.walked += entries.len() as u64;
        step.next.offset = Offset(step.next.offset.0 + entries.len() as u64);
        step.done = !is_before(step.next, stretch.end);
        step.found = self.known(selection, stretch, entries).await?;
        Ok(step)
    }

    /// A list of ids is looked up.
    async fn listed(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
    ) -> Result<Step, StoreError> {
        let duty = stretch.duty;
        let hashes: Vec<i64> = selection.message_ids.iter().map(|id| message_hash(id)).collect();
        let mut positions = self.resolved.positions_of_all(duty.workspace, &hashes).await?;
        positions.retain(|at| {
            at.partition == duty.partition && !is_before(*at, stretch.next) && is_before(*at, stretch.end)
        });
        positions.sort_by_key(|at| (at.generation, at.offset));
        positions.dedup();
        let done = positions.len() <= limit.min(LISTED);
        positions.truncate(limit.min(LISTED));
        let mut step = Step {
            found: Vec::new(),
            next: positions.last().map_or(stretch.end, |at| after(*at)),
            walked: positions.len() as u64,
            not_retained: 0,
            unreadable: 0,
            done,
        };
        let mut entries = Vec::new();
        let mut block: Option<EntryBlock> = None;
        for at in positions {
            let holds = |block: &EntryBlock| {
                block.first.generation == at.generation
                    && (block.first.offset.0..block.end()).contains(&at.offset.0)
            };
            if !block.as_ref().is_some_and(holds) {
                let read = match self.resolved.read(duty.workspace, at, 1).await {
                    Err(StoreError::Trimmed) => Vec::new(),
                    read => read?,
                };
                block = match read.first().map(EntryBlock::decode).transpose() {
                    Err(StoreError::Corrupt { .. }) => {
                        step.unreadable += 1;
                        continue;
                    }
                    block => block?,
                };
            }
            let entry = block.as_ref().filter(|block| holds(block)).and_then(|block| {
                let step = usize::try_from(at.offset.0 - block.first.offset.0).ok()?;
                block.entries.get(step).cloned()
            });
            match entry {
                Some(entry) => entries.push(entry),
                None => step.not_retained += 1,
            }
        }
        step.found = self.known(selection, stretch, entries).await?;
        Ok(step)
    }

    /// Those of them that are selected, and what the ledger says of each.
    async fn known(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        entries: impl IntoIterator<Item = Arc<Entry>>,
    ) -> Result<Vec<Found>, StoreError> {
        let selected: Vec<Arc<Entry>> =
            entries.into_iter().filter(|entry| selection.selects(entry)).collect();
        let positions: Vec<Position> = selected.iter().map(|entry| entry.position).collect();
        let duty = stretch.duty;
        let mut verdicts: HashMap<Position, Verdict> =
            self.ledger.verdicts(duty.workspace, duty.connection, &positions).await?;
        let found = selected.into_iter().filter_map(|entry| {
            let before = match verdicts.remove(&entry.position) {
                Some(verdict) => verdict,
                None if !is_before(entry.position, stretch.start) => Verdict::of(State::Waiting, ""),
                None if stretch.is_plan => Verdict::of(State::Filtered, BEFORE_START),
                // The connection does not answer for it.
                None => return None,
            };
            Some(Found { entry, before })
        });
        Ok(found.collect())
    }
}

impl Step {
    /// Ends before a position that it has found, and so many events of what it has found.
    pub fn end_before(&mut self, at: Position, left: u64, origin: Origin) {
        let passed = match origin {
            Origin::DeadLetters => left,
            Origin::Journal => self.next.offset.0.saturating_sub(at.offset.0),
        };
        self.walked = self.walked.saturating_sub(passed);
        (self.next, self.done) = (at, false);
    }

    /// What is missing before a block was given back with its day.
    fn pass_gap(&mut self, selection: &Selection, stretch: &Stretch, outline: &Outline) {
        let until = if is_before(outline.first, stretch.end) { outline.first } else { stretch.end };
        if !is_before(self.next, until) {
            return;
        }
        // Of a generation before that one nobody knows how long it was.
        if self.next.generation == until.generation && selection.may_select(i64::MIN, outline.first_minute) {
            self.not_retained += until.offset.0 - self.next.offset.0;
        }
        self.next = until;
    }
}

fn after(position: Position) -> Position {
    Position { offset: Offset(position.offset.0 + 1), ..position }
}
