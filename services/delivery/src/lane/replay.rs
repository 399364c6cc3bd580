//! What operators want sent again, as one lane does it: a page at a time is judged and taken, and goes the way of a retry from there.
//!
//! A page is taken between two rounds, in turn with retries and with what is new, and only while few taken events have no end yet. It is
//! as large as a few waves of requests are, so that what is new waits for no more than those. The lane's cursor stays where it is; the
//! replay has a place of its own, which moves in the transaction that takes. Whatever ends the lane in between, its successor finds the
//! place, and what was taken among the retries. A page that cannot be read or judged is no hold of the lane: it is looked at again later.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracklayer_destination::{Destination, Limits, Mode};
use tracklayer_ids::{Position, WorkspaceId};
use tracklayer_journal::not_aside;

use super::plan::UNKNOWN;
use super::send::wave_size;
use super::slot::{Slot, storable};
use super::{Lane, LaneError};
use crate::connections::OpenConnection;
use crate::entry::EntryBlock;
use crate::give_ups::is_before;
use crate::ledger::{State, Verdict};
use crate::replay::judge::{Judge, Judged};
use crate::replay::planner::counts_of;
use crate::replay::walk::{LastBlock, Walker};
use crate::replay::{REPLAY, Selection, What};
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::ledger::{RetryRow, Settled};
use crate::store::replay_events::{Adopted, Take, TakenEvent, Took};
use crate::store::resolved::Outline;

/// Waves of requests that a page is for, if those are not too few events or too many.
const WAVES: usize = 10;
/// Fewest events of a page.
const LEAST_PAGE: usize = 50;
/// Most events of a page.
const MOST_PAGE: usize = 500;
/// Most taken events that are due and have no end yet.
const MOST_DUE: u64 = 500;
/// Most taken events without an end that do not wait for their order: those that wait for another try of their own, too.
const MOST_AHEAD: u64 = 5_000;
/// Most taken events without an end in all. What waits for its order does so for a day.
const MOST_HELD: u64 = 20_000;
/// Blocks that a round makes the connection answer for.
const MOST_ADOPTED: usize = 50;
/// Longest pause after a page that could not be read or judged.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pages in a row that could not be read or judged before the replay behind has its turn in the pauses.
const PATIENCE: u32 = 5;
/// Most characters of what is told of such a page.
const MAX_FAILURE_CHARS: usize = 500;

/// How far a lane is with replays.
#[derive(Debug, Default)]
pub(super) struct Replaying {
    /// Replays that the lane is done with and that may still be told of.
    pub(super) done: Vec<i64>,
    /// Where the connection began here, as far as is known.
    start: Option<Position>,
    /// Whether some of the retries may be of a replay.
    some_open: bool,
    /// Whether it is not known what was taken.
    is_unsure: bool,
    /// Whether the last round was one of these.
    taken_last: bool,
    /// Replays whose last page could not be read or judged.
    failing: HashMap<i64, Failing>,
    /// The block that the last page has ended in.
    block: LastBlock,
    /// Whether little of the last page was to be sent.
    is_sparse: bool,
}

impl Replaying {
    pub(super) fn begins(&mut self, start: Position, some_open: bool) {
        (self.start, self.some_open, self.is_unsure) = (Some(start), some_open, false);
    }

    /// Whose turn it is of these: the oldest one's, unless it has failed again and again and rests.
    fn next_of(&self, open: &[i64], now: Instant) -> Option<i64> {
        for replay in open.iter().filter(|replay| !self.done.contains(replay)) {
            match self.failing.get(replay).filter(|failing| now < failing.until) {
                None => return Some(*replay),
                Some(failing) if failing.times < PATIENCE => return None,
                Some(_) => {}
            }
        }
        None
    }

    /// Most retries of a round: while some are of a replay, no more than a page of it, for the sake of what is new.
    pub(super) fn most_retries(&self, limits: &Limits) -> usize {
        if self.some_open { page_of(limits) } else { usize::MAX }
    }
}

/// A replay whose last page could not be read or judged.
#[derive(Debug, Clone, Copy)]
struct Failing {
    /// Pages in a row.
    times: u32,
    /// It rests until then.
    until: Instant,
}

/// What became of a lane's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is nothing to replay, or not now.
    Nothing,
    /// A page was looked at.
    Taken,
    /// It was the last round's; there may be more.
    Passed,
}

impl Lane {
    /// After a page whose end is not known: what waits is read anew, once it is certain.
    pub(super) async fn see_what_was_taken(&mut self) -> Result<(), LaneError> {
        if self.replaying.is_unsure {
            self.context.replay_store.wait_for_takes(self.lease.duty).await?;
            self.read_waiting().await?;
            self.replaying.is_unsure = false;
        }
        Ok(())
    }

    /// Every other round may be one of a replay. While the connection's circuit is open nothing is taken: it could not go out, and a
    /// replay that is cancelled leaves what it has not taken as it was.
    pub(super) async fn replay_in_turn(
        &mut self,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<Turn, LaneError> {
        if std::mem::take(&mut self.replaying.taken_last) {
            return Ok(Turn::Passed);
        }
        let may_take =
            self.range.is_empty() && destination.mode() == Mode::Live && destination.files().is_none();
        // Only looked at: a lane that has taken nothing does not wait for leave to try. Where nothing else is there to try with, a page is
        // taken when it is time.
        let is_open = self.circuit.blocked().is_some_and(|blocked| {
            let is_time = !blocked.is_tried && self.context.clock.left(&blocked.due).is_zero();
            !is_time || self.waiting.next_at().is_some()
        });
        let open = self.context.replays.of(self.lease.duty);
        self.replaying.done.retain(|done| open.contains(done));
        self.replaying.failing.retain(|failing, _| open.contains(failing));
        let next = self.replaying.next_of(&open, Instant::now());
        let Some(replay) = next.filter(|_| may_take && !is_open) else {
            self.replaying.block.let_go();
            return Ok(Turn::Nothing);
        };
        match self.replay_page(replay, connection, destination).await {
            Ok(taken) => {
                self.replaying.failing.remove(&replay);
                self.replaying.taken_last = taken;
                Ok(if taken { Turn::Taken } else { Turn::Nothing })
            }
            // The lane is another's, or is to be.
            Err(error @ LaneError::Store(StoreError::Fenced | StoreError::Newer { .. })) => Err(error),
            Err(error) => {
                self.rest_from(replay, &error).await;
                Ok(Turn::Nothing)
            }
        }
    }

    /// What is new does not wait for a replay that cannot go on, nor does the replay behind it for ever. Whoever looks is told.
    async fn rest_from(&mut self, replay: i64, error: &LaneError) {
        let times = self.replaying.failing.get(&replay).map_or(0, |failing| failing.times).saturating_add(1);
        let pause = crate::backoff::full_jitter(times, Duration::from_millis(500), LONGEST_PAUSE);
        self.replaying.failing.insert(replay, Failing { times, until: Instant::now() + pause });
        metrics::counter!("tracklayer_delivery_replay_pauses_total").increment(1);
        let (duty, why) = (self.lease.duty, error_chain(error));
        tracing::warn!(
            workspace = duty.workspace.0, connection = duty.connection.0, partition = duty.partition.0, replay,
            pause = ?pause, error = %why, "a page of a replay could not be taken"
        );
        let why = storable(&why, MAX_FAILURE_CHARS);
        if let Err(error) = self.context.replay_store.failed(duty, replay, &why).await {
            tracing::debug!(error = %error, "that a replay rests could not be told");
        }
    }

    /// Looks at the next page of a replay. `false`: too much of what was taken is on its way.
    async fn replay_page(
        &mut self,
        replay: i64,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<bool, LaneError> {
        let duty = self.lease.duty;
        let store = &self.context.replay_store;
        let ahead = store.ahead(duty, self.context.clock.now()).await?;
        let free = usize::try_from(MOST_DUE.saturating_sub(ahead.due)).unwrap_or(usize::MAX);
        let full = page_of(destination.limits());
        let page = full.min(free);
        // Where little is sent again, more is looked at.
        let looked_at = if self.replaying.is_sparse && page == full { MOST_PAGE } else { page };
        if page == 0 || ahead.not_early >= MOST_AHEAD || ahead.all >= MOST_HELD {
            return Ok(false);
        }
        let start = match self.replaying.start {
            Some(start) => start,
            None => self.context.cursors.lane(duty).await?.ok_or(LaneError::NoConnection)?.start,
        };
        let Some((selection, stretch)) = store.stretch(duty, replay, start).await? else {
            // Its last page may have come through, and nobody heard it.
            (self.replaying.is_unsure, self.replaying.some_open) = (true, true);
            self.see_what_was_taken().await?;
            self.replaying.done.push(replay);
            return Ok(true);
        };
        if selection.before_start && self.adopt(&selection, start).await? {
            return Ok(true);
        }
        let headroom = &self.context.headroom;
        let place = headroom.large(|own| own == duty.workspace).await;
        let mut step = self.walker().step(&selection, &stretch, looked_at, &mut self.replaying.block).await?;
        let now = self.context.clock.now();
        let found = std::mem::take(&mut step.found);
        let bytes = found.iter().map(|found| found.entry.raw.len()).sum();
        headroom.did(duty.workspace, found.len(), bytes);
        let mut judged = self.judge().judge(duty, &selection, connection, destination, found, now).await?;
        drop(place);
        let eligible = |(_, judged): &(usize, &Judged)| judged.what == What::Eligible;
        self.replaying.is_sparse = judged.iter().enumerate().filter(eligible).count() <= page / 10;
        let beyond = judged.iter().enumerate().filter(eligible).nth(page);
        if let Some((beyond, at)) = beyond.map(|(n, first)| (n, first.found.entry.position)) {
            let left = (judged.len() - beyond) as u64;
            step.end_before(at, left, selection.origin);
            judged.truncate(beyond);
        }
        let counts = counts_of(&judged, &step);
        let eligible = judged.into_iter().filter(|judged| judged.what == What::Eligible);
        let take = Take {
            replay,
            from: stretch.next,
            next: step.next,
            done: step.done,
            walked: step.walked,
            counts: &counts,
            events: eligible.map(|judged| taken(judged, replay, now)).collect(),
        };
        if !take.events.is_empty() {
            // Until it has answered it is not known whether these wait.
            (self.replaying.is_unsure, self.replaying.some_open) = (true, true);
        }
        match not_aside(self.context.replay_store.take(&self.lease, &take)).await? {
            Took::All => {
                for ((what, _), events) in &counts {
                    metrics::counter!("tracklayer_delivery_replay_events_total", "what" => what.as_str())
                        .increment(*events);
                }
                if take.done {
                    self.replaying.done.push(replay);
                }
            }
            Took::Cancelled => self.replaying.done.push(replay),
            // An earlier page has come through.
            Took::Moved => (self.replaying.is_unsure, self.replaying.some_open) = (true, true),
        }
        self.see_what_was_taken().await?;
        Ok(true)
    }

    /// Makes the connection answer for some blocks before where it began, if they are selected. `false`: there is none any more.
    async fn adopt(&mut self, selection: &Selection, mut start: Position) -> Result<bool, LaneError> {
        for adopted_before in 0..MOST_ADOPTED {
            let Some(adopted) = self.to_adopt(selection, start).await? else {
                return Ok(adopted_before > 0);
            };
            // Also where another try has come through: the next page sees where it begins.
            self.replaying.start = None;
            if !self.context.replay_store.adopt(&self.lease, start, &adopted).await? {
                return Ok(true);
            }
            start = adopted.first;
            self.replaying.start = Some(start);
        }
        Ok(true)
    }

    /// The block before where the connection began, if it is selected and there. One that cannot be read ends it: nobody knows of which
    /// sources its events are, and the ledger has no hole.
    async fn to_adopt(&self, selection: &Selection, start: Position) -> Result<Option<Adopted>, LaneError> {
        let workspace = self.lease.duty.workspace;
        let resolved = self.context.entries.store();
        let Some(outline) = resolved.outline_before(workspace, start).await? else { return Ok(None) };
        // Also what came after the range: what stands between it and the beginning belongs to it.
        let is_selected =
            selection.received_from.is_none_or(|from| outline.last_minute >= from.as_second().div_euclid(60));
        // The ledger has no hole: neither inside a generation, nor at the beginning of one.
        let is_next = match outline.first.generation == start.generation {
            true => !is_before(outline.end(), start),
            false => start.offset.0 == 0,
        };
        if !outline.is_kept || !is_selected || !is_next {
            return Ok(None);
        }
        let adopted = match outline.is_readable {
            true => self.adopted(workspace, &outline, start).await,
            false => Err(StoreError::Corrupt { what: "a resolved header" }),
        };
        match adopted {
            Ok(adopted) => Ok(Some(adopted)),
            Err(StoreError::Corrupt { what }) => {
                let partition = start.partition.0;
                tracing::warn!(
                    workspace = workspace.0, connection = self.lease.duty.connection.0, partition, first = %outline.first, what,
                    "a block cannot be read: the connection answers for what came after it"
                );
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The events of a block that stand before the connection's first.
    async fn adopted(
        &self,
        workspace: WorkspaceId,
        outline: &Outline,
        start: Position,
    ) -> Result<Adopted, StoreError> {
        let mut adopted =
            Adopted { first: outline.first, events: outline.events, counts: Default::default() };
        if !is_before(start, outline.end()) {
            for (minute, source, events) in &outline.counts {
                *adopted.counts.entry((*minute, *source)).or_default() += events;
            }
            return Ok(adopted);
        }
        // The connection began in the middle of it.
        let blocks = self.context.entries.store().read(workspace, outline.first, 1).await?;
        // Its day may have gone since its header was read.
        let block = EntryBlock::decode(blocks.first().ok_or(StoreError::Trimmed)?)?;
        adopted.events = 0;
        for entry in block.entries.iter().filter(|entry| is_before(entry.position, start)) {
            let minute = entry.received_ms.div_euclid(60_000);
            *adopted.counts.entry((minute, entry.source.0)).or_default() += 1;
            adopted.events += 1;
        }
        Ok(adopted)
    }

    fn walker(&self) -> Walker {
        Walker {
            resolved: self.context.entries.store().clone(),
            ledger: self.context.ledger.clone(),
            replays: self.context.replay_store.clone(),
        }
    }

    fn judge(&self) -> Judge {
        Judge {
            clients: self.context.clients.clone(),
            config: self.context.config.clone(),
            orders: self.context.orders.clone(),
            master_key: self.context.master_key.clone(),
        }
    }

    /// Sees which of the retries a replay has taken.
    pub(super) async fn read_marks(&mut self, slots: &mut [Slot]) -> Result<(), LaneError> {
        if !self.replaying.some_open {
            return Ok(());
        }
        let duty = self.lease.duty;
        let positions: Vec<Position> = slots.iter().map(|slot| slot.entry.position).collect();
        let mut marks = self.context.replay_store.marks(duty, &positions).await?;
        // As long as there is a replay, one of its pages may come through of which nobody has heard.
        if marks.is_empty() && !self.replaying.is_unsure && self.context.replays.of(duty).is_empty() {
            let ahead = self.context.replay_store.ahead(duty, self.context.clock.now()).await?;
            self.replaying.some_open = ahead.all > 0;
        }
        for slot in slots {
            slot.replayed = marks.remove(&slot.entry.position);
        }
        Ok(())
    }
}

/// Events of a page: so many that what is new waits for a few waves of requests.
fn page_of(limits: &Limits) -> usize {
    let wave = wave_size(limits).saturating_mul(limits.max_events);
    wave.saturating_mul(WAVES).clamp(LEAST_PAGE, MOST_PAGE)
}

fn taken(judged: Judged, replay: i64, now: Timestamp) -> TakenEvent {
    let Judged { found, unknown_since, .. } = judged;
    let (entry, before) = (found.entry, found.before);
    let latency = now.as_millisecond().saturating_sub(entry.received_ms).max(0);
    let verdict = Verdict {
        detail: format!("taken by replay {replay}"),
        attempts: before.attempts,
        latency_ms: u32::try_from(latency).unwrap_or(u32::MAX),
        ..Verdict::of(State::Held, REPLAY)
    };
    let settled = Settled {
        position: entry.position,
        source: entry.source,
        minute: entry.received_ms.div_euclid(60_000),
        verdict,
    };
    let row = RetryRow {
        position: entry.position,
        order_key: entry.order_key,
        attempts: before.attempts,
        tries: 0,
        transient_holds: 0,
        next_at: now,
        first_sent_at: unknown_since,
        waited: None,
        reason: REPLAY.to_owned(),
        resolved: entry.raw.to_vec(),
    };
    TakenEvent { before, settled, row }
}

/// What the platform had before a replay, it has whatever became of that; and what it may have had is not said to be kept back.
pub(super) fn keep_what_was(slot: &mut Slot, now: Timestamp) {
    let (Some(mark), Some(verdict)) = (&slot.replayed, &slot.verdict) else { return };
    let told = format!("{} {}", verdict.state.as_str(), verdict.reason);
    let told = match verdict.detail.as_str() {
        "" => told.trim().to_owned(),
        detail => format!("{}: {detail}", told.trim()),
    };
    match (mark.state, verdict.state) {
        (_, State::Held) => {}
        // What it did to its order it did at its first delivery.
        (State::Delivered, State::Delivered) => slot.order = None,
        (State::Delivered, _) => {
            let detail = format!("it was delivered before; its replay ended as {told}");
            slot.evidence = None;
            slot.settle(State::Delivered, "delivered_before", &detail, now);
        }
        // Though nothing of this replay may be there, what was before it may.
        (State::Dead, State::Dead) if mark.reason == UNKNOWN && verdict.reason == UNKNOWN => {}
        (State::Dead, State::Dead | State::Blocked | State::Filtered | State::Shadowed)
            if mark.reason == UNKNOWN =>
        {
            let detail = format!(
                "a request that carried this event ended without an answer, and its replay ended as {told}: look it up at the platform"
            );
            slot.settle(State::Dead, UNKNOWN, &detail, now);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::entry::Entry;
    use crate::store::replay_events::Mark;

    fn ended(before: (State, &str), after: (State, &str)) -> Verdict {
        let entry = Entry::decode(Position::new(1, 0, 0), vec![].into());
        let mut slot = Slot::new(Arc::new(entry));
        slot.replayed = Some(Mark { state: before.0, reason: before.1.to_owned(), was_counted: false });
        slot.settle(after.0, after.1, "because", Timestamp::UNIX_EPOCH);
        keep_what_was(&mut slot, Timestamp::UNIX_EPOCH);
        slot.verdict.unwrap()
    }

    #[test]
    fn a_page_is_a_few_waves_of_requests() {
        let limits = |max_events, max_concurrent, requests_per_minute| Limits {
            max_events,
            max_body_bytes: 1_000_000,
            dedup_window: None,
            requests_per_minute,
            requests_per_day: None,
            whose: None,
            max_concurrent,
            timeout: Duration::from_secs(1),
        };
        assert_eq!(page_of(&limits(1, 16, None)), 50, "a request for each event");
        assert_eq!(page_of(&limits(3, 16, None)), 120);
        assert_eq!(page_of(&limits(1_000, 4, None)), 500, "half a request");
        assert_eq!(page_of(&limits(10, 16, Some(60))), 100, "one request at a time");
        let mut replaying = Replaying::default();
        assert_eq!(replaying.most_retries(&limits(1, 16, None)), usize::MAX);
        replaying.some_open = true;
        assert_eq!(
            replaying.most_retries(&limits(1, 16, None)),
            50,
            "nor does a round of retries take longer"
        );
    }

    #[test]
    fn who_fails_again_and_again_lets_the_next_one_go_first_in_its_pauses() {
        let now = Instant::now();
        let mut replaying = Replaying::default();
        assert_eq!(replaying.next_of(&[3, 5], now), Some(3));
        let until = now + Duration::from_secs(9);
        replaying.failing.insert(3, Failing { times: PATIENCE - 1, until });
        assert_eq!(replaying.next_of(&[3, 5], now), None, "what keeps it may keep them all");
        replaying.failing.insert(3, Failing { times: PATIENCE, until });
        assert_eq!(replaying.next_of(&[3, 5], now), Some(5));
        assert_eq!(replaying.next_of(&[3, 5], until), Some(3), "it has rested");
        replaying.done.push(5);
        assert_eq!(replaying.next_of(&[3, 5], now), None);
    }

    #[test]
    fn what_was_delivered_stays_so_and_what_its_replay_met_is_told() {
        let before = (State::Delivered, "");
        for after in [(State::Dead, "rejected_by_platform"), (State::Blocked, "gpc"), (State::Dead, UNKNOWN)]
        {
            let verdict = ended(before, after);
            assert_eq!((verdict.state, verdict.reason.as_str()), (State::Delivered, "delivered_before"));
            assert!(verdict.detail.contains(after.1) && verdict.detail.contains("because"), "{verdict:?}");
        }
        assert_eq!(ended(before, (State::Delivered, "")).reason, "");
        assert_eq!(ended(before, (State::Held, "retry")).state, State::Held, "it has no end yet");
    }

    #[test]
    fn what_may_have_been_sent_is_not_said_to_be_kept_back_or_refused() {
        let unknown = (State::Dead, UNKNOWN);
        for after in [
            (State::Blocked, "gpc"),
            (State::Dead, "rejected_by_platform"),
            (State::Dead, "order_not_sent"),
            (State::Dead, "missing_value"),
            (State::Dead, "retries_exhausted"),
        ] {
            let verdict = ended(unknown, after);
            assert_eq!((verdict.state, verdict.reason.as_str()), unknown, "{after:?}");
            let told = format!("{} {}: because", after.0.as_str(), after.1);
            assert!(verdict.detail.contains(&told), "{verdict:?}");
        }
        assert_eq!(ended(unknown, unknown).detail, "because", "it says so already");
        assert_eq!(ended(unknown, (State::Delivered, "")).state, State::Delivered);
        assert_eq!(ended((State::Dead, "missing_value"), (State::Blocked, "gpc")).state, State::Blocked);
    }
}
