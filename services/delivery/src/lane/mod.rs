//! The lane of one connection in one partition: resolved → plan → intent → request → ledger.
//!
//! A lane has its own cursor, so that a platform which is down holds up nobody else. It takes a range, settles what needs no
//! request, sends the rest in order, and commits the settled prefix of the range in one fenced transaction. A failure of the
//! platform holds the lane where it stands; a transient failure of one event makes a retry of it, and later events of its key
//! wait behind it.

mod ahead;
mod answer;
mod commit;
mod decide;
pub(crate) mod early;
mod files;
mod gather;
mod give_up;
pub(crate) mod guard;
mod health;
mod held;
mod hold;
mod late;
pub(crate) mod plan;
mod quality;
mod range;
mod replay;
mod retries;
mod room;
mod send;
pub(crate) mod slot;
mod waiting;
mod writes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracklayer_destination::{HoldKind, Mode};
use tracklayer_ids::{Generation, Offset, Position};
use tracklayer_journal::Headroom;
use uuid::Uuid;

use self::slot::Slot;
pub(crate) use self::slot::storable;
use self::waiting::Waiting;
use self::writes::Writes;
use crate::breaker::{Blocked, Breakers, Joined, Leave, Trouble};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::connections::Connections;
use crate::entry::EntryReader;
use crate::file_memory::{FileMemory, Room};
use crate::follower::FollowError;
use crate::give_ups::GiveUps;
use crate::holds::{Hold, Holds, RELEASING};
use crate::http::Sender;
use crate::lease::Lease;
use crate::match_keys::MatchKeys;
use crate::narrowing::{NarrowingTail, TailUnreadable};
use crate::oauth::Tokens;
use crate::pace::{Pace, Share};
use crate::progress::Progress;
use crate::quota::Quota;
use crate::replay::judge::JudgeError;
use crate::replay::replays::Replays;
use crate::resolve::{OTHERS_PAUSE, error_chain};
use crate::store::StoreError;
use crate::store::cursors::CursorStore;
use crate::store::lanes::LaneStore;
use crate::store::ledger::{LaneCommit, LedgerStore};
use crate::store::orders::OrderStore;
use crate::store::replays::ReplayStore;
use crate::store::retries::RetryStore;
use crate::subjects::ServiceUnavailable;

/// Longest wait between attempts of a held lane.
const LONGEST_HOLD: Duration = Duration::from_secs(60);
/// Longest wait between attempts of one event.
const LONGEST_RETRY: Duration = Duration::from_secs(15 * 60);
/// Attempts of one event before it is dead.
const MAX_RETRIES: u32 = 12;

/// Most characters of the reason of a hold.
const MAX_HOLD_CHARS: usize = 1_000;

/// What lanes work with, shared by all lanes of the process.
pub struct LaneContext {
    /// The wall clock.
    pub clock: Clock,
    /// Connections.
    pub connections: Connections,
    /// What holds them by an operator's will.
    pub holds: Holds,
    /// How fast they are released.
    pub pace: Pace,
    /// Sources.
    pub config: tracklayer_rpc::follow::ConfigWatch,
    /// Resolved events.
    pub entries: EntryReader,
    /// Wake-ups.
    pub progress: Progress,
    /// What operators have given up.
    pub give_ups: GiveUps,
    /// What they want sent again.
    pub replays: Replays,
    /// Cursors.
    pub cursors: CursorStore,
    /// Intents and holds.
    pub lanes: LaneStore,
    /// Commits.
    pub ledger: LedgerStore,
    /// Retries.
    pub retries: RetryStore,
    /// Replays.
    pub replay_store: ReplayStore,
    /// Orders.
    pub orders: OrderStore,
    /// What they were matched by.
    pub match_keys: MatchKeys,
    /// Identity and consent, to ask again.
    pub clients: Clients,
    /// The narrowing log.
    pub narrowing: NarrowingTail,
    /// Requests.
    pub sender: Sender,
    /// Where files may go.
    pub files: tracklayer_lake::Rules,
    /// What lanes may have in memory for them.
    pub file_memory: FileMemory,
    /// Access tokens.
    pub tokens: Tokens,
    /// What the platforms allow, shared by the lanes of a connection.
    pub quota: Quota,
    /// What large rounds leave to small ones.
    pub headroom: Arc<Headroom>,
    /// Whether the platforms work, known to all lanes of a connection.
    pub breakers: Breakers,
    /// Subject keys.
    pub master_key: tracklayer_ids::MasterKey,
}

/// Why a round of a lane ended early. Nothing is lost: the cursor stands where the last commit put it.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// Own tables.
    #[error("could not keep the lane's books")]
    Store(#[from] StoreError),
    /// Identity or consent could not be asked again.
    #[error("could not decide again")]
    Service(#[from] ServiceUnavailable),
    /// The narrowing log.
    #[error("could not make sure that nobody was narrowed")]
    Narrowing(#[from] TailUnreadable),
    /// The connection's document cannot be opened.
    #[error("the connection cannot be opened: {0}")]
    Broken(String),
    /// No configuration, or the connection is gone from it.
    #[error("the connection is not in the configuration")]
    NoConnection,
    /// An operator holds the connection.
    #[error("{}: {}", .0.kind(), .0.detail())]
    OnHold(Hold),
    /// The lease does not surely hold long enough for a request.
    #[error("the lease does not surely hold")]
    LeaseUnsure,
    /// The platform holds the lane.
    #[error("{kind}: {detail}")]
    Held {
        /// throttled, transient, auth, configuration.
        kind: &'static str,
        /// What the platform said.
        detail: String,
        /// Not before; none: the lane's own backoff.
        after: Option<Duration>,
    },
    /// The connection's circuit is open: the lane has met no trouble of its own.
    #[error("{}: {}", .0.kind.as_str(), .0.detail)]
    CircuitOpen(Blocked),
}

/// What came of a round.
enum Round {
    /// Something, or something is begun.
    Worked,
    /// Nothing of it was at the platform, and more is to be done at once: retries are due, or a page of a replay was looked at. Nothing
    /// has shown that the platform works.
    OnlyAside,
    /// There was nothing to do.
    Idle,
}

impl Round {
    fn with_nothing_new(more_aside: bool) -> Self {
        if more_aside { Self::OnlyAside } else { Self::Idle }
    }
}

impl From<JudgeError> for LaneError {
    fn from(error: JudgeError) -> Self {
        match error {
            JudgeError::Store(error) => Self::Store(error),
            JudgeError::Service(error) => Self::Service(error),
            JudgeError::NoConfiguration => Self::NoConnection,
        }
    }
}

impl From<FollowError> for LaneError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Store(error) => Self::Store(error),
            FollowError::Narrowing(error) => Self::Narrowing(error),
        }
    }
}

/// One lane.
pub struct Lane {
    context: Arc<LaneContext>,
    lease: Lease,
    cursor: Option<Position>,
    /// Events of earlier holders whose request has no known outcome, with the time of that request.
    unknown: HashMap<Position, Timestamp>,
    /// Open intents and their events, oldest first; settled with the commit that covers the last of them.
    intents: Vec<(Uuid, Vec<Position>)>,
    /// Files that were begun and are not committed yet.
    writes: Writes,
    /// What waits until it is enough for files.
    gathering: Option<gather::Gathering>,
    /// Room in memory for what goes into files.
    room: Option<Room>,
    /// What is known of events that are not in memory.
    carried: HashMap<Position, room::Carried>,
    /// The id of the next intent. Kept while it is not known whether it was written, so that none is left behind.
    next_intent: Uuid,
    /// Who waits for a retry, or behind one.
    waiting: Waiting,
    /// The generation that the lane may work in; none: it was not looked yet whether it may.
    entered: Option<Generation>,
    /// Whether the layout was changed where the lane stands, and another lane of the connection has not come as far.
    waits_for_others: bool,
    /// Whether the last round was one of retries.
    retried_last: bool,
    /// Whether there was something to do in the last round.
    worked_last: bool,
    /// Obeyed from an earlier holder: what the platform said holds for every process.
    hold_until: Option<(Timestamp, &'static str)>,
    holds: u32,
    /// Its place at the connection's circuit.
    circuit: Joined,
    /// Which trouble of the platform was counted last against an event.
    last_trouble: Option<answer::LastTrouble>,
    /// Whether it waits for the connection's circuit to close.
    behind_circuit: bool,
    requests: u64,
    /// The range under work survives a hold, so that what was delivered before it is not sent again.
    range: Vec<Slot>,
    /// The state of the connection that the range was planned for; none: it has to be planned.
    planned_for: Option<u64>,
    /// Why an operator holds the lane, as it was last told.
    told: Option<Hold>,
    /// Whether an operator held the lane when it was taken over.
    held_before: bool,
    /// Whether the lane sends what has waited for a release, and has not caught up yet.
    releasing: bool,
    /// When that began.
    released: Option<Timestamp>,
    /// Counts the lane while an operator holds or has held it.
    counted: Option<hold::Counted>,
    /// Its part in the pace of releases.
    share: Share,
    /// A finished retry round whose commit failed: committed again before anything else is sent.
    pending_retries: Option<(LaneCommit, Vec<Slot>)>,
    /// How far the lane is with what operators want sent again.
    replaying: replay::Replaying,
    /// By which names it counts what events could be matched by.
    counted_names: quality::Names,
}

impl Lane {
    /// A lane that begins where its cursor stands.
    #[must_use]
    pub fn new(context: Arc<LaneContext>, lease: Lease) -> Self {
        let share = context.pace.join(lease.duty.connection);
        let circuit = context.breakers.join(lease.duty.connection, lease.duty.partition);
        Self {
            context,
            lease,
            cursor: None,
            unknown: HashMap::new(),
            intents: Vec::new(),
            writes: Writes::default(),
            gathering: None,
            room: None,
            carried: HashMap::new(),
            next_intent: Uuid::now_v7(),
            waiting: Waiting::default(),
            entered: None,
            waits_for_others: false,
            retried_last: false,
            worked_last: false,
            hold_until: None,
            holds: 0,
            circuit,
            last_trouble: None,
            behind_circuit: false,
            requests: 0,
            range: Vec::new(),
            planned_for: None,
            told: None,
            held_before: false,
            releasing: false,
            released: None,
            counted: None,
            share,
            pending_retries: None,
            replaying: replay::Replaying::default(),
            counted_names: quality::Names::default(),
        }
    }

    /// Runs until the lease is lost or `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let (headroom, workspace) = (Arc::clone(&self.context.headroom), self.lease.duty.workspace);
        headroom.wherever(workspace, self.rounds(shutdown)).await;
    }

    async fn rounds(mut self, shutdown: CancellationToken) {
        let duty = self.lease.duty;
        let progress = self.context.progress.partition(duty.workspace, duty.partition);
        let mut resolved = progress.resolved.subscribe();
        let mut config = self.context.config.clone();
        while !shutdown.is_cancelled() && !self.lease.lost().is_cancelled() {
            resolved.borrow_and_update();
            let round = self.round().await;
            self.worked_last = matches!(round, Ok(Round::Worked));
            self.let_go(round.is_err());
            match self.cursor.filter(|_| round.is_ok() && !self.waits_for_others && self.keeps_up()) {
                Some(cursor) => progress.lane_stands(duty.connection, cursor),
                None => progress.lane_rests(duty.connection),
            }
            // By the wall clock only where something is waited for that a clock decides.
            let mut due = None;
            let wait = match round {
                Ok(Round::Worked) => {
                    self.moved().await;
                    continue;
                }
                Ok(Round::OnlyAside) => continue,
                Ok(Round::Idle) => {
                    self.moved().await;
                    self.idle_wait()
                }
                Err(LaneError::Store(StoreError::Fenced)) => {
                    self.lease.give_up();
                    return;
                }
                Err(LaneError::OnHold(hold)) => {
                    // An operator decides when it goes on, not the circuit; it asks there again.
                    self.behind_circuit = false;
                    self.rest(&hold).await;
                    hold::LOOK
                }
                // It is to end; that is no hold.
                Err(LaneError::LeaseUnsure) if self.lease.lost().is_cancelled() => break,
                Err(error) => {
                    if let LaneError::Store(StoreError::Newer { .. }) = error {
                        self.lease.give_up_to_others();
                    }
                    let held = self.held(&error).await;
                    due = Some(held);
                    self.context.clock.left(&held)
                }
            };
            let on_hold = self.told.is_some();
            let idle = self.holds == 0 && !on_hold && !self.behind_circuit;
            let (replays, known) = (self.context.replays.clone(), self.context.replays.of(duty));
            let over = Instant::now() + wait;
            // Also while a platform asked the lane to wait: giving up needs no request.
            let mut may_give_up = true;
            loop {
                tokio::select! {
                    () = self.wait_is_over(over, due) => break,
                    () = self.circuit.closes(), if self.behind_circuit && !on_hold => break,
                    _ = resolved.changed() => {
                        if idle {
                            break;
                        }
                        may_give_up = true;
                    }
                    // A mended credential or address needs no more waiting.
                    () = config.changed(), if on_hold || self.behind_circuit => break,
                    () = replays.asked(duty, &known), if idle => break,
                    () = self.lease.lost().cancelled() => break,
                    () = shutdown.cancelled() => break,
                    () = self.context.give_ups.asked(duty), if may_give_up => {
                        may_give_up = self.give_up_while_waiting().await;
                    }
                }
            }
        }
        progress.lane_rests(duty.connection);
        // What was sent and could not be committed yet gets a last try: a successor would have to send it again.
        if let Err(error) = self.commit_finished().await {
            tracing::warn!(error = %error_chain(&error), "what was sent could not be committed before the end");
        }
    }

    /// `false`: no more can be given up at the moment.
    async fn give_up_while_waiting(&mut self) -> bool {
        let gave_up = self.give_up().await;
        self.let_go(false);
        if let Err(error) = &gave_up {
            tracing::warn!(error = %error_chain(error), "a lane could not give up what it was asked to");
        }
        gave_up.unwrap_or(false)
    }

    /// Whether resolve may wait for it. One that is off has next to nothing to do with an event: who waited for it would run away
    /// from all others. One that gathers events for files is behind for as long as it does.
    fn keeps_up(&self) -> bool {
        let connection = self.context.connections.one(self.lease.duty.workspace, self.lease.duty.connection);
        let destination = connection.as_ref().and_then(|c| c.destination.as_ref().ok());
        destination.is_some_and(|d| d.mode() != Mode::Off && d.files().is_none())
    }

    fn idle_wait(&self) -> Duration {
        let until_retry = self.waiting.next_at().map(|at| {
            let ms = at.as_millisecond() - self.context.clock.now().as_millisecond();
            Duration::from_millis(u64::try_from(ms).unwrap_or(0).max(10))
        });
        let longest = if self.waits_for_others { OTHERS_PAUSE } else { Duration::from_secs(5) };
        let until_full =
            self.gathering.as_ref().map_or(longest, |gathering| gathering.left(self.context.clock.now()));
        until_retry.unwrap_or(LONGEST_HOLD).min(longest).min(until_full)
    }

    fn forget_range(&mut self) {
        self.cursor = None;
        self.range.clear();
        self.carried.clear();
        self.pending_retries = None;
        self.intents.clear();
        self.writes.clear();
    }

    /// Commits what is settled and was not committed yet: a failed commit is repeated, its events are not sent again.
    async fn commit_finished(&mut self) -> Result<(), LaneError> {
        self.commit_retries().await?;
        self.commit_prefix().await
    }

    /// One round: due retries, then a range.
    async fn round(&mut self) -> Result<Round, LaneError> {
        let duty = self.lease.duty;
        if self.give_up().await? {
            return Ok(Round::Worked);
        }
        let connection =
            self.context.connections.one(duty.workspace, duty.connection).ok_or(LaneError::NoConnection)?;
        let destination = match &connection.destination {
            Ok(destination) => destination.as_ref(),
            Err(why) => return Err(LaneError::Broken(why.clone())),
        };
        self.circuit.pauses_as(destination.pauses());
        self.commit_finished().await?;
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None => self.begin().await?,
        };
        if let Some(hold) = self.on_hold() {
            return Err(LaneError::OnHold(hold));
        }
        self.begin_release().await;
        if let Some((until, kind)) = self.hold_until.take() {
            let left = until.duration_since(self.context.clock.now());
            if let Ok(after) = Duration::try_from(left)
                && !after.is_zero()
            {
                let detail = "the platform asked an earlier holder of the lane to wait".to_owned();
                let kind_of =
                    [HoldKind::Throttled, HoldKind::Transient].into_iter().find(|k| k.as_str() == kind);
                if let Some(kind) = kind_of {
                    // It holds for the other lanes of the connection as well.
                    let trouble = Trouble { kind, detail: detail.clone(), after: Some(after) };
                    self.circuit.failed(connection.revision, &Leave::Free, &trouble);
                }
                return Err(LaneError::Held { kind, detail, after: Some(after) });
            }
        }
        // While a range is under work there are keys in it that are announced, and that the database does not know of.
        if self.range.is_empty() {
            self.see_what_was_taken().await?;
        }
        // Turn about: neither many retries nor many new events keep the other waiting.
        let due = self.waiting.next_at().is_some_and(|at| at <= self.context.clock.now());
        if due && self.range.is_empty() && !self.retried_last {
            self.retried_last = true;
            if self.holds > 0 || self.behind_circuit {
                self.circuit.look(connection.revision).map_err(LaneError::CircuitOpen)?;
            }
            self.retry_round(cursor.generation, &connection, destination).await?;
            return Ok(Round::Worked);
        }
        self.retried_last = false;
        let replayed = self.replay_in_turn(&connection, destination).await?;
        if replayed == replay::Turn::Taken {
            return Ok(Round::OnlyAside);
        }
        let due = due || replayed == replay::Turn::Passed;
        if !self.enter(cursor.generation).await? {
            return Ok(Round::with_nothing_new(due));
        }
        // Looked at before the read: what is resolved in between is in this generation, or after all of it.
        let resolved = *self.context.progress.partition(duty.workspace, duty.partition).resolved.borrow();
        if let Some(files) = destination.files().filter(|_| destination.mode() == Mode::Live)
            && !self.has_enough(cursor, resolved, files).await?
        {
            return Ok(Round::with_nothing_new(due));
        }
        if let Some(files) = destination.files() {
            self.make_room(cursor, files).await?;
        }
        let place = self.context.headroom.large(|own| own == duty.workspace).await;
        let taken = self.take_range(cursor, &connection, destination).await?;
        drop(place);
        if !taken {
            self.caught_up().await;
            let goes_over = self.enter_next_generation(cursor, resolved);
            return Ok(if goes_over { Round::Worked } else { Round::with_nothing_new(due) });
        }
        let mut range = std::mem::take(&mut self.range);
        let sent = self.send_open(&mut range, &connection, destination).await;
        self.range = range;
        self.commit_prefix().await?;
        sent?;
        Ok(Round::Worked)
    }

    /// Goes into a generation, if the lane may. Visitors of this partition may have been in another one before a change of the
    /// layout: their events there are behind all lanes of the connection by then, and who of them waits for a retry is waited for.
    async fn enter(&mut self, generation: Generation) -> Result<bool, LaneError> {
        if self.entered == Some(generation) {
            return Ok(true);
        }
        self.waits_for_others = !self.context.cursors.lane_may_enter(self.lease.duty, generation).await?;
        if !self.waits_for_others {
            self.read_waiting_elsewhere(generation).await?;
            self.entered = Some(generation);
        }
        Ok(!self.waits_for_others)
    }

    /// Goes over to the next generation where nothing is left of the cursor's and a later one was resolved before that was seen.
    fn enter_next_generation(&mut self, cursor: Position, resolved: Position) -> bool {
        let over = resolved.generation > cursor.generation;
        if over {
            self.cursor = Some(Position::new(cursor.generation.0 + 1, cursor.partition.0, 0));
        }
        over
    }

    /// An earlier holder's hold: obeyed where the platform asked for it, else over, since this one has not met its cause.
    async fn take_hold_over(&mut self) -> Result<(), LaneError> {
        let duty = self.lease.duty;
        let Some((kind, next_at)) = self.context.lanes.hold_of(duty).await? else { return Ok(()) };
        if self.holds > 0 {
            // Our own, from before the lane began anew.
            return Ok(());
        }
        if hold::KINDS.contains(&kind.as_str()) {
            // By an operator: whether it still holds, the configuration says. What has waited for its end is not behind us yet.
            self.held_before = kind != RELEASING;
            self.releasing = true;
            // What is told of a release is told when it begins.
            self.released = (kind == RELEASING).then_some(next_at);
            return Ok(());
        }
        let left = next_at.duration_since(self.context.clock.now());
        let longest_of_ours = SignedDuration::try_from(LONGEST_HOLD).unwrap_or(SignedDuration::MAX);
        if kind == HoldKind::Throttled.as_str() && left.is_positive() {
            self.hold_until = Some((next_at, HoldKind::Throttled.as_str()));
        } else if kind == HoldKind::Transient.as_str() && left > longest_of_ours {
            self.hold_until = Some((next_at, HoldKind::Transient.as_str()));
        } else {
            self.context.lanes.release(duty).await?;
        }
        Ok(())
    }

    /// Reads the cursor, the intents that an earlier holder left, and who waits.
    async fn begin(&mut self) -> Result<Position, LaneError> {
        let duty = self.lease.duty;
        let cursor = self.context.cursors.lane(duty).await?.ok_or(LaneError::NoConnection)?;
        self.unknown.clear();
        self.intents.clear();
        self.writes.clear();
        for intent in self.context.lanes.open_intents(duty).await? {
            let positions: Vec<Position> = intent
                .offsets
                .iter()
                .map(|offset| Position {
                    generation: intent.generation,
                    partition: duty.partition,
                    offset: Offset(*offset),
                })
                .collect();
            for position in &positions {
                self.unknown.entry(*position).or_insert(intent.started_at);
            }
            if intent.files.is_empty() {
                self.intents.push((intent.id, positions));
            } else {
                self.writes.take_over(intent.id, &intent.files, positions, cursor.next);
            }
        }
        self.context.replay_store.wait_for_takes(duty).await?;
        self.context.replay_store.end_what_has_ended(duty).await?;
        let ahead = self.context.replay_store.ahead(duty, self.context.clock.now()).await?;
        self.replaying.begins(cursor.start, ahead.all > 0);
        self.read_waiting().await?;
        self.take_hold_over().await?;
        self.cursor = Some(cursor.next);
        Ok(cursor.next)
    }
}

const OUTCOME_UNKNOWN: &str = "a request that carried this event ended without an answer, and the platform does not recognise a \
                               repeat any more: look it up at the platform, then replay or close it";
