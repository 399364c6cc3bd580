//! Gives back the journal's room: what every cursor is past, and what nobody may want any more for a rebuild of the claims.
//!
//! Over PostgreSQL it goes by days of the whole installation, and one process at a time sees to it: [`DayKeeper`]. What is
//! dropped is counted in the same transaction, so that the books go on balancing. Over a journal beside the database the holder
//! of a partition's resolve lease sees to its partition: what it reads is never behind what it has committed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracklayer_ids::{ConnectionId, Position, WorkspaceId};
use tracklayer_journal::{Journal, JournalError, Kind, Place};
use tracklayer_rpc::follow::{ConfigWatch, Snapshot};

use crate::dedup::Memory;
use crate::lease::Duty;
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::cursors::CursorStore;
use crate::store::resolved::ResolvedStore;
use crate::store::retention::{Holder, RetentionStore};

/// Days for which partitions of what is resolved are made in advance.
const DAYS_AHEAD: i32 = 3;
/// How often the journal is trimmed.
const EVERY: Duration = Duration::from_secs(60);
/// How often it is told up to where everybody has read: what comes in between counts as unread.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Why the journal was not trimmed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// Own tables, or the log of resolved blocks.
    #[error("could not trim what is resolved")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("could not trim what was received")]
    Journal(#[from] JournalError),
}

/// When a partition was trimmed last.
#[derive(Debug)]
pub struct Trim {
    last: Instant,
}

impl Default for Trim {
    fn default() -> Self {
        Self { last: Instant::now() }
    }
}

impl Trim {
    /// Whether it is time again; if so, the time begins anew.
    pub fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= EVERY;
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// Trims a partition: `received` before where resolve stands, `resolved` before the last of the connections' lanes, as far as
/// it is older than any claim may be.
///
/// # Errors
/// See [`TrimError`]; what was not trimmed now is by a later call.
pub async fn trim(
    journal: &dyn Journal,
    resolved: &ResolvedStore,
    cursors: &CursorStore,
    duty: Duty,
    connections: &[ConnectionId],
    longest_claim: Duration,
) -> Result<(), TrimError> {
    if journal.kind() == Kind::Postgres {
        return Ok(());
    }
    let place: Place = cursors.resolve(duty.workspace, duty.partition).await?;
    journal.trim(&[(duty.workspace, place)]).await?;
    let last_lane: Option<Position> = cursors.last_lane(duty.workspace, duty.partition, connections).await?;
    // A connection whose lane has not begun begins behind what is resolved.
    let before = last_lane.unwrap_or(place.at);
    let forgotten = jiff::Timestamp::now() - longest_claim;
    resolved.trim(duty.workspace, before, forgotten).await?;
    Ok(())
}

/// Makes the days of what is resolved, and over PostgreSQL gives back those that are done with and tells ingest, by the journal, up
/// to where everybody has read.
#[derive(Debug, Clone)]
pub struct DayKeeper {
    /// What was received.
    pub journal: Arc<dyn Journal>,
    /// Cursors and days.
    pub store: RetentionStore,
    /// Whose lanes hold days, and how long claims last.
    pub config: ConfigWatch,
}

impl DayKeeper {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        // Beside each other: to count a day before it is dropped may take long.
        tokio::join!(self.keep_days(&shutdown), self.go_on_telling(&shutdown));
    }

    async fn go_on_telling(&self, shutdown: &CancellationToken) {
        let mut ticks = tokio::time::interval(TOLD_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let Some(snapshot) = self.config.snapshot() else { continue };
            match self.tell_read(&snapshot).await {
                Ok(()) => failing = false,
                // Told once: the database may be away for as long as it likes.
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(
                        error = %error_chain(&error),
                        "ingest was not told what of the journal is read, and counts what comes as unread"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// Tells the journal up to where all cursors have read, if it is this process's turn.
    ///
    /// # Errors
    /// See [`TrimError`]; what was told before holds.
    pub async fn tell_read(&self, snapshot: &Snapshot) -> Result<(), TrimError> {
        if !self.journal.wants_to_be_told().await? {
            return Ok(());
        }
        let behind = self.store.least_places(&connections_of(snapshot)).await?;
        self.journal.tell_read(&behind).await?;
        Ok(())
    }

    async fn keep_days(&self, shutdown: &CancellationToken) {
        metrics::describe_gauge!(
            "tracklayer_delivery_journal_held",
            "1 for the first cursor that keeps a day of `received`, and with it all later ones, an hour after its end"
        );
        let mut held = None;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            self.make_days().await;
            let Some(snapshot) = self.config.snapshot() else { continue };
            match self.give_back(&snapshot).await {
                Ok(holder) => tell(std::mem::replace(&mut held, holder.clone()), holder),
                Err(error) => tracing::warn!(error = %error_chain(&error), "the journal was not trimmed"),
            }
        }
    }

    /// Makes the days to come. To be awaited once before anything is resolved: a day of which the default partition has a row
    /// gets none of its own any more.
    pub async fn make_days(&self) {
        if let Err(error) = self.store.ensure_days(DAYS_AHEAD).await {
            tracing::warn!(error = %error_chain(&error), "the days of what is resolved were not made");
        }
    }

    /// Drops the days that all cursors are past, and of what is resolved those that are older than any claim may be, too. What
    /// somebody else is at is left to him. Answers whom a day waits for that ended over an hour ago.
    ///
    /// # Errors
    /// See [`TrimError`]; what was not given back now is by a later call.
    pub async fn give_back(&self, snapshot: &Snapshot) -> Result<Option<Holder>, TrimError> {
        if self.journal.kind() != Kind::Postgres {
            return Ok(None);
        }
        let Some(_one_process) = self.store.lock().await? else { return Ok(None) };
        let connections = connections_of(snapshot);
        let behind = self.store.least_places(&connections).await?;
        self.journal.trim(&behind).await?;
        let forgotten = jiff::Timestamp::now() - Memory::of_config(snapshot).longest();
        self.store.drop_settled_days(forgotten, &behind).await?;
        match self.journal.late_day().await? {
            Some(day) => Ok(self.store.holder(day, &connections).await?),
            None => Ok(None),
        }
    }
}

/// Names whom the journal waits for, once for each.
fn tell(before: Option<Holder>, now: Option<Holder>) {
    if before == now {
        return;
    }
    let gauge = |holder: &Holder, value: f64| {
        let of = [
            ("workspace", holder.workspace.0.to_string()),
            ("connection", holder.connection.map_or_else(|| "resolve".to_owned(), |id| id.0.to_string())),
            ("partition", holder.partition.0.to_string()),
        ];
        metrics::gauge!("tracklayer_delivery_journal_held", &of).set(value);
    };
    if let Some(holder) = before {
        gauge(&holder, 0.0);
    }
    if let Some(holder) = now {
        gauge(&holder, 1.0);
        tracing::warn!(
            workspace = holder.workspace.0,
            connection = holder.connection.map(|id| id.0),
            partition = holder.partition.0,
            day = holder.day,
            "a day of the journal, and with it all later ones of every workspace, is kept until this lane (without a \
             connection: resolve) has read it"
        );
    }
}

/// Every connection of every workspace.
#[must_use]
pub fn connections_of(snapshot: &Snapshot) -> Vec<(WorkspaceId, ConnectionId)> {
    let of_workspace = |(id, workspace): (&WorkspaceId, &tracklayer_proto::control::v1::WorkspaceConfig)| {
        let id = *id;
        let ids: Vec<_> = workspace.connections.iter().map(|c| (id, ConnectionId(c.connection_id))).collect();
        ids
    };
    snapshot.workspaces.iter().flat_map(of_workspace).collect()
}
