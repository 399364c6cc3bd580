//! The walk of a replay over one lane: which events it selects, in the order of their positions, and what the ledger says of each.
//! Reads only, a step at a time, so that memory and time are bounded whatever is selected.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracklayer_ids::{Offset, Position, WorkspaceId};

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
/// How long the block of the step before may serve, as long as one serves the lanes.
const BLOCK_SERVES: Duration = Duration::from_secs(60);

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
    /// Selected events of which the ledger is not what was written.
    pub unknown: Vec<Position>,
    /// Whether it was the last.
    pub done: bool,
}

/// The block that a step has come to, decoded: the next step goes on in it. For one lane.
#[derive(Debug, Default)]
pub struct LastBlock(Option<(Instant, EntryBlock)>);

impl LastBlock {
    /// Lets go of one that may serve no longer.
    pub fn let_go(&mut self) {
        self.0 = self.0.take().filter(|(read, _)| read.elapsed() < BLOCK_SERVES);
    }

    fn holding(&self, at: Position) -> Option<&EntryBlock> {
        self.0.as_ref().map(|(_, block)| block).filter(|block| holds(block, at))
    }
}

fn holds(block: &EntryBlock, at: Position) -> bool {
    block.first.generation == at.generation && (block.first.offset.0..block.end()).contains(&at.offset.0)
}

/// Why a block is passed.
enum Passed {
    NotKept,
    Unreadable,
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
    /// The next step, of at most so many events. `last` is what the step before has left of its block.
    ///
    /// # Errors
    /// The database, or a log that cannot be read. Bytes that are not what was written are passed and counted: they must not stop the
    /// lane.
    pub async fn step(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
        last: &mut LastBlock,
    ) -> Result<Step, StoreError> {
        match selection.origin {
            Origin::DeadLetters => self.letters(selection, stretch, limit).await,
            Origin::Journal if selection.message_ids.is_empty() => {
                self.journal(selection, stretch, limit, last).await
            }
            Origin::Journal => self.listed(selection, stretch, limit, last).await,
        }
    }

    async fn letters(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
    ) -> Result<Step, StoreError> {
        let letters = self.replays.letters(stretch, selection, limit).await?;
        let mut step = Step::at(letters.last().map_or(stretch.next, |(position, _)| after(*position)));
        step.done = letters.len() < limit;
        step.walked = letters.len() as u64;
        let entries =
            letters.into_iter().map(|(position, bytes)| Arc::new(Entry::decode(position, bytes.into())));
        self.known(selection, stretch, entries, &mut step).await?;
        Ok(step)
    }

    async fn journal(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
        last: &mut LastBlock,
    ) -> Result<Step, StoreError> {
        let (workspace, end) = (stretch.duty.workspace, stretch.end);
        let outlines = self.resolved.outlines(workspace, stretch.next, OUTLINES).await?;
        let mut is_last = (outlines.len() as i64) < OUTLINES;
        let mut step = Step::at(stretch.next);
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        for outline in outlines {
            // What is passed is counted, and a step that has found something may have to end before that: it is the next one's.
            let goes_on = entries.len() < limit && !is_before(step.next, outline.first);
            if !goes_on && !entries.is_empty() {
                is_last = false;
                break;
            }
            step.pass_gap(selection, stretch, &outline);
            if !is_before(outline.first, end) {
                break;
            }
            // The first one may have been begun already, and the last one is not walked to its end.
            let from = if is_before(outline.first, step.next) { step.next } else { outline.first };
            let until = if is_before(outline.end(), end) { outline.end() } else { end };
            step.next = from;
            if !selection.may_select(outline.first_minute, outline.last_minute) {
                step.pass(until, None);
                continue;
            }
            let opened = match (outline.is_kept, outline.is_readable) {
                (false, _) => Err(Passed::NotKept),
                (true, false) => Err(Passed::Unreadable),
                (true, true) => self.opened(workspace, from, last).await?,
            };
            let block = match opened {
                Ok(block) => block,
                Err(_) if !entries.is_empty() => {
                    is_last = false;
                    break;
                }
                Err(passed) => {
                    step.pass(until, Some(passed));
                    continue;
                }
            };
            let skip = usize::try_from(from.offset.0 - block.first.offset.0).unwrap_or(usize::MAX);
            let rest = block.entries.iter().skip(skip).take_while(|entry| is_before(entry.position, end));
            let had = entries.len();
            entries.extend(rest.take(limit - had).cloned());
            let looked_at = (entries.len() - had) as u64;
            step.walked += looked_at;
            step.next.offset = Offset(from.offset.0 + looked_at);
            if is_before(step.next, until) {
                // More of it is the next step's, and what it lacks of what its row says.
                is_last = false;
                break;
            }
        }
        if is_last && is_before(step.next, end) && entries.is_empty() {
            let left = end.offset.0.saturating_sub(step.next.offset.0);
            // Nothing is kept behind: whether it was of the time that is asked for, nobody knows any more.
            step.not_retained += if step.next.generation == end.generation { left } else { 0 };
            step.next = end;
        }
        step.done = !is_before(step.next, end);
        self.known(selection, stretch, entries, &mut step).await?;
        Ok(step)
    }

    /// The block that holds a position, from the last step or read.
    async fn opened<'l>(
        &self,
        workspace: WorkspaceId,
        at: Position,
        last: &'l mut LastBlock,
    ) -> Result<Result<&'l EntryBlock, Passed>, StoreError> {
        last.let_go();
        if last.holding(at).is_none() {
            last.0 = None;
            let read = match self.resolved.read(workspace, at, 1).await {
                Err(StoreError::Trimmed) => return Ok(Err(Passed::NotKept)),
                Err(StoreError::Corrupt { .. }) => return Ok(Err(Passed::Unreadable)),
                read => read?,
            };
            let Some(read) = read.first() else { return Ok(Err(Passed::NotKept)) };
            let block = match EntryBlock::decode(read) {
                Err(StoreError::Corrupt { .. }) => return Ok(Err(Passed::Unreadable)),
                block => block?,
            };
            last.0 = Some((Instant::now(), block));
        }
        Ok(last.holding(at).ok_or(Passed::Unreadable))
    }

    /// A list of ids is looked up.
    async fn listed(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        limit: usize,
        last: &mut LastBlock,
    ) -> Result<Step, StoreError> {
        let duty = stretch.duty;
        let hashes: Vec<i64> = selection.message_ids.iter().map(|id| message_hash(id)).collect();
        let mut positions = self.resolved.positions_of_all(duty.workspace, &hashes).await?;
        positions.retain(|at| {
            at.partition == duty.partition && !is_before(*at, stretch.next) && is_before(*at, stretch.end)
        });
        positions.sort_by_key(|at| (at.generation, at.offset));
        positions.dedup();
        let most = limit.min(LISTED);
        let done = positions.len() <= most;
        positions.truncate(most);
        let next = positions.last().map_or(stretch.end, |at| after(*at));
        let mut step = Step { walked: positions.len() as u64, done, ..Step::at(next) };
        let mut entries = Vec::new();
        for at in positions {
            let entry = match self.opened(duty.workspace, at, last).await? {
                Err(Passed::NotKept) => {
                    step.not_retained += 1;
                    continue;
                }
                Err(Passed::Unreadable) => {
                    step.unreadable += 1;
                    continue;
                }
                Ok(block) => {
                    let skip = usize::try_from(at.offset.0 - block.first.offset.0).unwrap_or(usize::MAX);
                    block.entries.get(skip).cloned()
                }
            };
            entries.extend(entry);
        }
        self.known(selection, stretch, entries, &mut step).await?;
        Ok(step)
    }

    /// Puts those of them that are selected into the step, and what the ledger says of each.
    async fn known(
        &self,
        selection: &Selection,
        stretch: &Stretch,
        entries: impl IntoIterator<Item = Arc<Entry>>,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let selected: Vec<Arc<Entry>> =
            entries.into_iter().filter(|entry| selection.selects(entry)).collect();
        let positions: Vec<Position> = selected.iter().map(|entry| entry.position).collect();
        let duty = stretch.duty;
        let mut verdicts: HashMap<Position, Option<Verdict>> =
            self.ledger.verdicts(duty.workspace, duty.connection, &positions).await?;
        for entry in selected {
            let before = match verdicts.remove(&entry.position) {
                Some(Some(verdict)) => verdict,
                // What became of it cannot be told: it might go out twice.
                Some(None) => {
                    step.unknown.push(entry.position);
                    continue;
                }
                None if !is_before(entry.position, stretch.start) => Verdict::of(State::Waiting, ""),
                None if stretch.is_plan => Verdict::of(State::Filtered, BEFORE_START),
                // The connection does not answer for it.
                None => continue,
            };
            step.found.push(Found { entry, before });
        }
        Ok(())
    }
}

impl Step {
    fn at(next: Position) -> Self {
        Self {
            found: Vec::new(),
            next,
            walked: 0,
            not_retained: 0,
            unreadable: 0,
            unknown: Vec::new(),
            done: false,
        }
    }

    /// Passes what is left of a block.
    fn pass(&mut self, until: Position, why: Option<Passed>) {
        let rest = until.offset.0.saturating_sub(self.next.offset.0);
        match why {
            None => {}
            Some(Passed::NotKept) => self.not_retained += rest,
            Some(Passed::Unreadable) => self.unreadable += rest,
        }
        self.walked += rest;
        self.next = until;
    }

    /// Ends before a position that it has found, and so many events of what it has found.
    pub fn end_before(&mut self, at: Position, left: u64, origin: Origin) {
        let passed = match origin {
            Origin::DeadLetters => left,
            Origin::Journal => self.next.offset.0.saturating_sub(at.offset.0),
        };
        self.walked = self.walked.saturating_sub(passed);
        self.unknown.retain(|unknown| is_before(*unknown, at));
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
