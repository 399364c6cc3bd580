//! What a release will bring: of what waits for a connection, which events will be too old for the platform, or not recognised any
//! more as a repetition, when they go out in order at the connection's pace. Asked before a hold and while it lasts, a page at a time.
//!
//! It goes by the same rules as a lane does then. What it cannot know: consent that is withdrawn meanwhile, how long the platform takes,
//! and the age of an order that a refund is about, which some platforms count from the order.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use tracklayer_destination::{Destination, RefusalCode, timing};
use tracklayer_ids::{ConnectionId, Offset, Partition, Position, WorkspaceId};
use tracklayer_proto::consent::v1::Outcome;

use crate::connections::Connections;
use crate::entry::{Entry, EntryBlock};
use crate::give_ups::is_before;
use crate::holds::{Hold, Holds};
use crate::lane::guard;
use crate::lane::plan::{UNKNOWN, repeatable_until};
use crate::lease::Duty;
use crate::pace::Speed;
use crate::store::StoreError;
use crate::store::cursors::{CursorStore, LaneCursor};
use crate::store::lanes::LaneStore;
use crate::store::resolved::ResolvedStore;
use crate::store::retries::RetryStore;

/// Events that a page looks at, about: a second or so.
pub const PAGE_EVENTS: usize = 20_000;
/// Blocks that are in memory at once.
const BLOCKS: i64 = 4;
/// Most events of a page that are named.
const NAMED: usize = 1_000;
/// Retries of a lane that are looked at.
const RETRIES: i64 = 5_000;

/// Why there is no forecast.
#[derive(Debug, thiserror::Error)]
pub enum ForecastError {
    /// There is none.
    #[error("the workspace has no connection {0}")]
    NoConnection(ConnectionId),
    /// Nobody knows its limits.
    #[error("the connection cannot be opened: {0}")]
    Broken(String),
    /// Own tables.
    #[error("could not read what waits")]
    Store(#[from] StoreError),
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The first event of it; its partition is the lane's.
    pub position: Position,
    /// How many events of the lane go out before it.
    pub ahead: u64,
    /// Whether the lane's retries come before it.
    pub retries_first: bool,
}

/// What holds the connection, and when it is released.
#[derive(Debug)]
pub struct Outlook {
    /// What holds it.
    pub hold: Option<Hold>,
    /// Beginning (of one that comes) and end of the freeze that holds, or of the next one.
    pub freeze: (Option<Timestamp>, Option<Timestamp>),
    /// When what waits begins to go out.
    pub release_at: Timestamp,
    /// Events a second from then on; none: at once.
    pub pace: Option<u32>,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// When.
    pub outlook: Outlook,
    /// Events that wait for a retry, of the lanes that this page has begun.
    pub retrying: u64,
    /// Events that are to be sent.
    pub examined: u64,
    /// How many of them will not be delivered.
    pub expiring: u64,
    /// The first of them.
    pub named: Vec<Expiring>,
    /// Events beyond the cursor that were looked at.
    pub looked_at: u64,
    /// Retries of which nothing is foretold.
    pub unexamined: u64,
    /// When the last of the page goes out.
    pub last_at: Option<Timestamp>,
    /// The shortest age limit that was met.
    pub shortest_age_limit: Option<SignedDuration>,
    /// Where the next page begins.
    pub next: Option<Place>,
}

/// An event that will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// Where it stands.
    pub position: Position,
    /// Its id.
    pub message_id: String,
    /// Its name.
    pub name: String,
    /// When it happened.
    pub event_time: Timestamp,
    /// What the ledger will say.
    pub code: &'static str,
    /// Until when it can be sent.
    pub expires_at: Timestamp,
    /// When it goes out.
    pub sent_at: Timestamp,
}

/// Foretells.
#[derive(Clone)]
pub struct Forecaster {
    /// Their limits.
    pub connections: Connections,
    /// What holds them.
    pub holds: Holds,
    /// Where their lanes stand.
    pub cursors: CursorStore,
    /// What waits.
    pub resolved: ResolvedStore,
    /// What waits for a retry.
    pub retries: RetryStore,
    /// Requests without an outcome.
    pub lanes: LaneStore,
    /// Events that a page looks at, up to the end of a few blocks; [`PAGE_EVENTS`] but in tests.
    pub page_events: usize,
}

impl Forecaster {
    /// A page of what waits for a connection, from a place or the beginning on.
    ///
    /// # Errors
    /// See [`ForecastError`].
    pub async fn page(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        release_at: Option<Timestamp>,
        from: Option<Place>,
        now: Timestamp,
    ) -> Result<Page, ForecastError> {
        let open =
            self.connections.one(workspace, connection).ok_or(ForecastError::NoConnection(connection))?;
        let destination = open.destination.as_ref().map_err(|why| ForecastError::Broken(why.clone()))?;
        let lanes = self.cursors.lanes_of(workspace).await?;
        let lanes: Vec<LaneCursor> =
            lanes.into_iter().filter(|lane| lane.duty.connection == connection).collect();
        let outlook = self.outlook(workspace, connection, release_at, now);
        let width = u32::try_from(lanes.len()).unwrap_or(u32::MAX).max(1);
        let speed = outlook.pace.map(|per_second| Speed { per_second, width });
        let mut page = Page {
            outlook,
            retrying: 0,
            examined: 0,
            expiring: 0,
            named: Vec::new(),
            looked_at: 0,
            unexamined: 0,
            last_at: None,
            shortest_age_limit: None,
            next: None,
        };
        let first = from.map_or(Partition(0), |from| from.position.partition);
        let Some(at) = lanes.iter().position(|lane| lane.duty.partition >= first) else { return Ok(page) };
        let lane = &lanes[at];
        // A lane whose cursor has passed the place since, or one that is another now, begins where it stands.
        let begin = Place { position: lane.next, ahead: 0, retries_first: true };
        let same_lane = from.filter(|from| from.position.partition == lane.duty.partition);
        let begin = match same_lane {
            Some(from) if is_before(from.position, lane.next) => Place { position: lane.next, ..from },
            Some(from) => from,
            None => begin,
        };
        let mut walk = Walk {
            destination: destination.as_ref(),
            connection,
            speed,
            ahead: begin.ahead,
            page: &mut page,
        };
        if begin.retries_first {
            self.look_at_retries(lane.duty, &mut walk).await?;
        }
        let rest = self.look_at_range(lane.duty, begin.position, &mut walk).await?;
        let ahead = walk.ahead;
        page.next = match rest {
            Some(position) => Some(Place { position, ahead, retries_first: false }),
            None => {
                let next = lanes.get(at + 1);
                next.map(|lane| Place { position: lane.next, ahead: 0, retries_first: true })
            }
        };
        Ok(page)
    }

    fn outlook(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        release_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Outlook {
        let holding = self.holds.of(workspace, connection);
        let hold = holding.at(now);
        let freeze = match &hold {
            Some(Hold::Frozen { until, .. }) => (None, *until),
            Some(Hold::Paused { .. }) | None => {
                let next = holding.next(now);
                (next.map(|span| span.from), next.map(|span| span.to))
            }
        };
        let by_itself = match &hold {
            // Nobody knows when it is resumed: this is for now.
            Some(Hold::Paused { .. }) => None,
            Some(Hold::Frozen { .. }) | None => freeze.1,
        };
        let release_at = release_at.or(by_itself).unwrap_or(now).max(now);
        Outlook { hold, freeze, release_at, pace: holding.pace() }
    }

    async fn look_at_retries(&self, duty: Duty, walk: &mut Walk<'_>) -> Result<(), ForecastError> {
        let (rows, all) = self.retries.first_of(duty, RETRIES).await?;
        walk.page.retrying += all;
        walk.page.unexamined += all.saturating_sub(rows.len() as u64);
        for row in rows {
            walk.look(&Entry::decode(row.position, row.resolved.into()), row.first_sent_at);
        }
        Ok(())
    }

    /// Looks at what waits from a position on; answers where it went on if the page had not ended.
    async fn look_at_range(
        &self,
        duty: Duty,
        from: Position,
        walk: &mut Walk<'_>,
    ) -> Result<Option<Position>, ForecastError> {
        let resolved = self.cursors.of(&[Duty::resolve(duty.workspace, duty.partition)]).await?;
        let end = resolved.first().map_or(from, |(_, end)| *end);
        let mut unknown: HashMap<Position, Timestamp> = HashMap::new();
        for intent in self.lanes.open_intents(duty).await? {
            for offset in intent.offsets {
                let at = Position::new(intent.generation.0, duty.partition.0, offset);
                unknown.entry(at).or_insert(intent.started_at);
            }
        }
        let (mut next, mut looked) = (from, 0);
        while is_before(next, end) {
            let blocks = self.resolved.read(duty.workspace, next, BLOCKS).await?;
            if blocks.is_empty() {
                // Nothing is left of this generation; the next one begins at 0.
                if next.generation == end.generation {
                    break;
                }
                next = Position::new(next.generation.0 + 1, duty.partition.0, 0);
                continue;
            }
            for block in &blocks {
                let block = EntryBlock::decode(block)?;
                let skip =
                    usize::try_from(next.offset.0.saturating_sub(block.first.offset.0)).unwrap_or(usize::MAX);
                for entry in block.entries.iter().skip(skip) {
                    walk.look(entry, unknown.get(&entry.position).copied());
                    looked += 1;
                    walk.page.looked_at += 1;
                }
                next.offset = Offset(block.end());
                if looked >= self.page_events && is_before(next, end) {
                    return Ok(Some(next));
                }
            }
        }
        Ok(None)
    }
}

/// A page while it is made.
struct Walk<'a> {
    destination: &'a dyn Destination,
    connection: ConnectionId,
    speed: Option<Speed>,
    /// Events of the lane that go out before the next one.
    ahead: u64,
    page: &'a mut Page,
}

impl Walk<'_> {
    fn look(&mut self, entry: &Entry, unknown_since: Option<Timestamp>) {
        let Some(deliverable) = &entry.deliverable else { return };
        let is_wanted = guard::wants(self.destination, deliverable).is_some_and(|wants| wants.is_ok());
        let denied = i32::from(Outcome::Deny).cast_unsigned();
        if !is_wanted || entry.decision(self.connection).is_some_and(|decision| decision.outcome == denied) {
            return;
        }
        let sent_at = self.sent_at();
        self.ahead += 1;
        self.page.examined += 1;
        self.page.last_at = self.page.last_at.max(Some(sent_at));
        let limit = guard::unless_it_crashes(|| self.destination.max_event_age(deliverable)).flatten();
        let too_old = limit.map(|limit| timing::sendable_until(deliverable, limit));
        let limit = limit.and_then(|limit| SignedDuration::try_from(limit).ok());
        self.page.shortest_age_limit = match (self.page.shortest_age_limit, limit) {
            (Some(known), Some(limit)) => Some(known.min(limit)),
            (known, limit) => known.or(limit),
        };
        let event_time = deliverable.time();
        // A file is written again under its name, whenever that is.
        let unknown_since = unknown_since.filter(|_| self.destination.files().is_none());
        let forgotten =
            unknown_since.map(|since| repeatable_until(since, self.destination.limits().dedup_window));
        // Whichever ends first; an event that a request may have brought is never told as too old.
        let expires_at = too_old.into_iter().chain(forgotten).min();
        let Some(expires_at) = expires_at.filter(|expires_at| *expires_at < sent_at) else { return };
        self.page.expiring += 1;
        if self.page.named.len() < NAMED {
            let code = if unknown_since.is_some() { UNKNOWN } else { RefusalCode::EventTooOld.as_str() };
            self.page.named.push(Expiring {
                position: entry.position,
                message_id: entry.message_id.clone(),
                name: deliverable.event.name.clone(),
                event_time,
                code,
                expires_at,
                sent_at,
            });
        }
    }

    /// When the next event goes out.
    fn sent_at(&self) -> Timestamp {
        let release_at = self.page.outlook.release_at;
        let Some(speed) = self.speed else { return release_at };
        let ms =
            u128::from(self.ahead) * 1_000 * u128::from(speed.width) / u128::from(speed.per_second.max(1));
        let after = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
        release_at.checked_add(after).unwrap_or(Timestamp::MAX)
    }
}
