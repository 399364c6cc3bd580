//! What a replay would do, a page at a time; and starting it.

use jiff::Timestamp;
use tracklayer_destination::{Destination, Mode};
use tracklayer_ids::{ConnectionId, Position, WorkspaceId};

use super::judge::{Judge, JudgeError, Judged};
use super::walk::{LastBlock, Step, Stretch, Walker};
use super::{Counts, Origin, Selection, What};
use crate::connections::{Connections, OpenConnection};
use crate::lease::{FleetLevel, REPLAY_LEVEL};
use crate::store::StoreError;
use crate::store::cursors::{CursorStore, LaneCursor};
use crate::store::replays::{ReplayStore, StoredReplay};

/// Events of a page.
const PAGE_EVENTS: usize = 2_000;
/// Most events of a page that are named.
const NAMED: usize = 100;
/// Most replays of a connection that are not over.
const MOST_OPEN: u64 = 20;

/// Why there is no plan, and no replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is none.
    #[error("the workspace has no connection {0}")]
    NoConnection(ConnectionId),
    /// Nobody can build its requests.
    #[error("the connection cannot be opened: {0}")]
    Broken(String),
    /// Nothing would be sent.
    #[error(
        "the connection is `{0}`, so that a replay would send nothing: make it `live` with `tracklayer connections put`, and ask again"
    )]
    NotLive(&'static str),
    /// A repetition would stay.
    #[error(
        "a connection that writes files is not replayed: its files hold each event exactly once, nobody recognises a repetition there, and \
         nothing can be taken back out of them. See what is missing with `tracklayer dead-letters list --connection NAME`, read it with \
         `tracklayer journal read --resolved`, and load it beside the files"
    )]
    WritesFiles,
    /// An older process would send what a replay has taken, and forget what it was.
    #[error(
        "some processes of delivery are of an earlier version and know of no replays: end the upgrade (`tracklayer doctor` says which \
         levels there are), and ask again a minute later"
    )]
    Upgrading,
    /// They are done one after the other.
    #[error(
        "the connection has {open} replays that are not over: wait for their end or end some with `tracklayer replay cancel`; `tracklayer \
         replay list` names them"
    )]
    TooMany {
        /// How many.
        open: u64,
    },
    /// Own tables.
    #[error("could not read what is to be replayed")]
    Store(#[from] StoreError),
    /// Identity and consent.
    #[error("could not decide about what is to be replayed")]
    Judge(#[from] JudgeError),
}

/// A page of a plan.
#[derive(Debug)]
pub struct Page {
    /// Selected events.
    pub counts: Counts,
    /// The first of those that are not sent.
    pub left_out: Vec<Judged>,
    /// Where the next page begins.
    pub next: Option<Position>,
    /// Positions that it has walked.
    pub walked: u64,
    /// Those of all pages, about; of the first page only.
    pub positions: u64,
    /// For how long the platform recognises a repetition.
    pub dedup_window: Option<std::time::Duration>,
    /// Events that would be sent and are older.
    pub older_than_window: u64,
    /// Events from before the connection began; of the first page only.
    pub before_start: u64,
}

/// Plans and starts.
#[derive(Clone)]
pub struct Planner {
    /// Their settings.
    pub connections: Connections,
    /// Their lanes.
    pub cursors: CursorStore,
    /// What is selected.
    pub walker: Walker,
    /// What becomes of it.
    pub judge: Judge,
    /// Replays.
    pub store: ReplayStore,
    /// What all processes know of.
    pub fleet: FleetLevel,
}

impl Planner {
    /// A page, from a place or the beginning on.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn page(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        selection: &Selection,
        from: Option<Position>,
        now: Timestamp,
    ) -> Result<Page, ReplayError> {
        let open = self.live(workspace, connection)?;
        let destination = destination_of(&open)?;
        let lanes = self.lanes(workspace, connection).await?;
        let mut page = Page {
            counts: Counts::new(),
            left_out: Vec::new(),
            next: None,
            walked: 0,
            positions: 0,
            dedup_window: destination.limits().dedup_window,
            older_than_window: 0,
            before_start: 0,
        };
        let mut stretches: Vec<Stretch> = lanes.iter().map(|lane| stretch_of(lane, selection, now)).collect();
        if from.is_none() {
            for stretch in &stretches {
                page.positions += self.store.positions(stretch, selection).await?;
                page.before_start += self.store.kept_before_start(stretch, selection).await?;
            }
        }
        let Some(at) =
            stretches.iter().position(|s| from.is_none_or(|from| s.duty.partition >= from.partition))
        else {
            return Ok(page);
        };
        if let Some(from) = from.filter(|from| from.partition == stretches[at].duty.partition) {
            stretches[at].next = from;
        }
        let stretch = stretches[at];
        let mut step = self.walker.step(selection, &stretch, PAGE_EVENTS, &mut LastBlock::default()).await?;
        page.walked = step.walked;
        let found = std::mem::take(&mut step.found);
        let judged = self.judge.judge(stretch.duty, selection, &open, destination, found, now).await?;
        page.counts = counts_of(&judged, &step);
        let is_sent = |judged: &&Judged| judged.what == What::Eligible;
        page.older_than_window =
            judged.iter().filter(is_sent).filter(|judged| judged.is_past_window).count() as u64;
        page.left_out =
            judged.into_iter().filter(|judged| judged.what != What::Eligible).take(NAMED).collect();
        page.next = match step.done {
            false => Some(step.next),
            true => stretches.get(at + 1).map(|next| next.next),
        };
        Ok(page)
    }

    /// Writes a replay down.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn start(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        selection: &Selection,
        asked_by: &str,
    ) -> Result<StoredReplay, ReplayError> {
        self.live(workspace, connection)?;
        if self.fleet.get() < REPLAY_LEVEL {
            return Err(ReplayError::Upgrading);
        }
        let lanes = self.lanes(workspace, connection).await?;
        let now = Timestamp::now();
        let mut stretches = Vec::new();
        for stretch in lanes.iter().map(|lane| stretch_of(lane, selection, now)) {
            stretches.push((stretch, self.store.positions(&stretch, selection).await?));
        }
        let replay = self
            .store
            .start(workspace, connection, selection, asked_by, &stretches, MOST_OPEN)
            .await?
            .ok_or(ReplayError::TooMany { open: MOST_OPEN })?;
        tracing::info!(
            workspace = workspace.0,
            connection = connection.0,
            replay = replay.id,
            asked_by,
            origin = selection.origin.as_str(),
            delivered_too = selection.delivered_too,
            past_dedup_window = selection.past_dedup_window,
            "a replay was asked for"
        );
        Ok(replay)
    }

    async fn lanes(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
    ) -> Result<Vec<LaneCursor>, ReplayError> {
        let lanes = self.cursors.lanes_of(workspace).await?;
        Ok(lanes.into_iter().filter(|lane| lane.duty.connection == connection).collect())
    }

    /// The connection, if it sends.
    fn live(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
    ) -> Result<std::sync::Arc<OpenConnection>, ReplayError> {
        let open =
            self.connections.one(workspace, connection).ok_or(ReplayError::NoConnection(connection))?;
        let destination = destination_of(&open)?;
        if destination.files().is_some() {
            return Err(ReplayError::WritesFiles);
        }
        match destination.mode() {
            Mode::Live => Ok(open),
            Mode::Off => Err(ReplayError::NotLive("off")),
            Mode::Shadow => Err(ReplayError::NotLive("shadow")),
        }
    }
}

fn destination_of(open: &OpenConnection) -> Result<&dyn Destination, ReplayError> {
    open.destination.as_deref().map_err(|why| ReplayError::Broken(why.clone()))
}

/// All that a replay walks of a lane.
fn stretch_of(lane: &LaneCursor, selection: &Selection, now: Timestamp) -> Stretch {
    let begins_before = selection.origin == Origin::DeadLetters || selection.before_start;
    let first = Position::new(1, lane.duty.partition.0, 0);
    Stretch {
        duty: lane.duty,
        start: lane.start,
        next: if begins_before { first } else { lane.start },
        end: lane.next,
        asked_at: now,
        is_plan: selection.before_start,
    }
}

/// Adds up what a step has found.
#[must_use]
pub fn counts_of(judged: &[Judged], step: &Step) -> Counts {
    let mut counts = Counts::new();
    for judged in judged {
        *counts.entry((judged.what, judged.reason.clone())).or_default() += 1;
    }
    let unreadable = step.unreadable + step.unknown.len() as u64;
    for (what, events) in [(What::NotRetained, step.not_retained), (What::Unreadable, unreadable)] {
        if events > 0 {
            *counts.entry((what, String::new())).or_default() += events;
        }
    }
    counts
}
