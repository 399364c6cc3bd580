//! Who reads what: leases with an epoch.
//!
//! One keeper per process renews what it holds, takes what is free up to its fair share, and parts with what is more. A
//! task gets a [`Lease`]: its epoch goes into every commit, and [`Lease::surely_held_for`] counts the holder's own
//! monotonic time from *before* the request that renewed it, so that clocks need not agree.
//!
//! A lease is given away only when its task has ended. Until then it is *leaving*: the task is told to begin no new
//! request, and the lease is still renewed, because a successor that finds the intent of a request which is still on the
//! wire would send the same events again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracklayer_ids::{ConnectionId, Partition, WorkspaceId};
use tracklayer_journal::FEATURE_LEVEL;
use uuid::Uuid;

use crate::store::StoreError;
use crate::store::leases::LeaseStore;

/// The feature level of a process that reads the index of sorted runs. One count serves these, replays and blocks, whose next level
/// is above all of them.
pub const INDEX_LEVEL: u32 = 3;
const _: () = assert!(FEATURE_LEVEL < INDEX_LEVEL, "a process says one level for both");
/// The feature level of a process that knows of replays: what a replay has taken is not sent as an event that never was.
pub const REPLAY_LEVEL: u32 = 4;
/// The feature level of this process.
pub const OUR_LEVEL: u32 = REPLAY_LEVEL;

/// What a lease is for: resolve of a partition (`connection` 0) or the lane of a connection in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duty {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// 0 for resolve.
    pub connection: ConnectionId,
    /// The partition.
    pub partition: Partition,
}

impl Duty {
    /// The resolve loop of a partition.
    #[must_use]
    pub fn resolve(workspace: WorkspaceId, partition: Partition) -> Self {
        Self { workspace, connection: ConnectionId(0), partition }
    }

    /// Whether it is a resolve loop.
    #[must_use]
    pub fn is_resolve(self) -> bool {
        self.connection.0 == 0
    }
}

/// A held lease.
#[derive(Debug, Clone)]
pub struct Lease {
    /// What it is for.
    pub duty: Duty,
    /// Of this holder; every commit names it.
    pub epoch: i64,
    /// The history of the database that it was taken in; every commit names it, too.
    pub history: Uuid,
    origin: Instant,
    valid_until_ms: Arc<AtomicU64>,
    lost: CancellationToken,
    for_others: Arc<AtomicBool>,
}

impl Lease {
    /// Whether the lease holds for at least that long, counted from before it was last renewed.
    #[must_use]
    pub fn surely_held_for(&self, time: Duration) -> bool {
        let valid_until = self.origin + Duration::from_millis(self.valid_until_ms.load(Ordering::Acquire));
        !self.lost.is_cancelled() && Instant::now() + time < valid_until
    }

    /// Whether somebody else may hold it by now. One that is leaving is renewed and does not run out.
    #[must_use]
    pub fn has_run_out(&self) -> bool {
        Instant::now() >= self.origin + Duration::from_millis(self.valid_until_ms.load(Ordering::Acquire))
    }

    /// Cancelled when the lease is lost or to be given back: the task ends, and begins no new request.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Says that the task ends and the lease can go.
    pub fn give_up(&self) {
        self.lost.cancel();
    }

    /// As [`Self::give_up`], for what this process cannot read and another may: it does not take the lease again for twice
    /// its length.
    pub fn give_up_to_others(&self) {
        self.for_others.store(true, Ordering::Release);
        self.lost.cancel();
    }

    fn taken(duty: Duty, epoch: i64, history: Uuid, before: Instant, ttl: Duration) -> Self {
        Self {
            duty,
            epoch,
            history,
            origin: before,
            valid_until_ms: Arc::new(AtomicU64::new(millis(ttl))),
            lost: CancellationToken::new(),
            for_others: Arc::default(),
        }
    }

    fn renewed(&self, before: Instant, ttl: Duration) {
        self.valid_until_ms.store(millis(before.duration_since(self.origin) + ttl), Ordering::Release);
    }
}

/// The least feature level of all live processes: nothing is written that one of them cannot read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FleetLevel(Arc<AtomicU32>);

impl FleetLevel {
    /// The level; 0: not known yet.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Says what it is.
    pub fn set(&self, level: u32) {
        self.0.store(level, Ordering::Release);
    }
}

/// Keeps this process's leases. Whoever runs their tasks says with [`Self::ended`] which of these have ended.
pub struct LeaseKeeper {
    store: LeaseStore,
    process: Uuid,
    ttl: Duration,
    held: BTreeMap<Duty, Lease>,
    /// To be given back as soon as their task has ended; renewed until then.
    leaving: BTreeMap<Duty, Lease>,
    /// Taken by another process while their task had not ended yet: not taken again before it has.
    taken_away: BTreeSet<Duty>,
    /// Given up to others, until when.
    avoided: BTreeMap<Duty, Instant>,
    members: usize,
    fleet: FleetLevel,
    /// The history of the database in the last round; none: there was none.
    history: Option<Uuid>,
}

/// What one round of the keeper changed.
#[derive(Debug, Default)]
pub struct LeaseChanges {
    /// New ones: start the task.
    pub taken: Vec<Lease>,
    /// The database has another history than in the round before: all tasks are told to end, and none is begun before what is only
    /// known of that one is forgotten.
    pub anew: bool,
}

impl LeaseKeeper {
    /// A keeper without leases.
    #[must_use]
    pub fn new(store: LeaseStore, ttl: Duration) -> Self {
        Self {
            store,
            process: Uuid::new_v4(),
            ttl,
            held: BTreeMap::new(),
            leaving: BTreeMap::new(),
            taken_away: BTreeSet::new(),
            avoided: BTreeMap::new(),
            members: 1,
            fleet: FleetLevel::default(),
            history: None,
        }
    }

    /// What all live processes can read, as of the last round.
    #[must_use]
    pub fn fleet(&self) -> FleetLevel {
        self.fleet.clone()
    }

    /// This process's name among the members.
    #[must_use]
    pub fn process(&self) -> Uuid {
        self.process
    }

    /// Processes that took part in the last round, this one included.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members
    }

    /// One round: say that we live, renew, part with what is not wanted or too much, take what is free.
    ///
    /// # Errors
    /// The database. Leases then run out by themselves: `surely_held_for` turns false in time.
    pub async fn round(&mut self, wanted: &BTreeSet<Duty>) -> Result<LeaseChanges, StoreError> {
        let history = self.store.history().await?;
        if self.history.replace(history).is_some_and(|known| known != history) {
            metrics::counter!("tracklayer_journal_generations_opened_total").increment(1);
            tracing::error!(
                %history,
                "the database has another history (a standby was promoted, or a backup restored): acknowledged events may be \
                 lost, and what was sent in the last moments may be sent again under the same ids; new generations begin"
            );
            self.part_with_all();
            return Ok(LeaseChanges { taken: Vec::new(), anew: true });
        }
        let members = self.store.announce(self.process, OUR_LEVEL, self.ttl).await?;
        self.members = members.count;
        self.fleet.set(members.level);
        self.renew().await?;
        let unwanted: Vec<Duty> = self
            .held
            .values()
            .filter(|lease| lease.lost.is_cancelled() || !wanted.contains(&lease.duty))
            .map(|lease| lease.duty)
            .collect();
        self.part_with(&unwanted);

        let fair_share = wanted.len().div_ceil(self.members);
        let surplus: Vec<Duty> =
            self.held.keys().rev().take(self.held.len().saturating_sub(fair_share)).copied().collect();
        self.part_with(&surplus);

        let mut changes = LeaseChanges::default();
        let room = fair_share.saturating_sub(self.held.len());
        let missing = self.missing(wanted);
        if room > 0 && !missing.is_empty() {
            let before = Instant::now();
            for (duty, epoch) in self.store.take_free(self.process, self.ttl, &missing, room).await? {
                let lease = Lease::taken(duty, epoch, history, before, self.ttl);
                self.held.insert(duty, lease.clone());
                changes.taken.push(lease);
            }
        }
        metrics::gauge!("tracklayer_leases_held").set(self.held.len() as f64);
        metrics::gauge!("tracklayer_leases_leaving").set(self.leaving.len() as f64);
        Ok(changes)
    }

    /// Renews what is held or leaving. Part of [`Self::round`]; alone at shutdown, while tasks wind down.
    ///
    /// # Errors
    /// The database.
    pub async fn renew(&mut self) -> Result<(), StoreError> {
        let ours = || self.held.values().chain(self.leaving.values());
        let duties: Vec<(Duty, i64)> = ours().map(|lease| (lease.duty, lease.epoch)).collect();
        if duties.is_empty() {
            return Ok(());
        }
        let before = Instant::now();
        let renewed: BTreeSet<Duty> =
            self.store.renew(self.process, self.ttl, &duties).await?.into_iter().collect();
        for (duty, _) in duties {
            if renewed.contains(&duty) {
                let lease = self.held.get(&duty).or_else(|| self.leaving.get(&duty));
                lease.inspect(|lease| lease.renewed(before, self.ttl));
                continue;
            }
            tracing::warn!(
                workspace = duty.workspace.0,
                connection = duty.connection.0,
                partition = duty.partition.0,
                "lease was taken by another process"
            );
            if let Some(lease) = self.held.remove(&duty).or_else(|| self.leaving.remove(&duty)) {
                lease.lost.cancel();
                self.taken_away.insert(duty);
            }
        }
        Ok(())
    }

    /// Tells tasks to end; their leases are kept until they have.
    pub fn part_with(&mut self, duties: &[Duty]) {
        for duty in duties {
            if let Some(lease) = self.held.remove(duty) {
                lease.lost.cancel();
                self.leaving.insert(*duty, lease);
            }
        }
    }

    /// Tells all tasks to end: at shutdown, or because the database has another history.
    pub fn part_with_all(&mut self) {
        let all: Vec<Duty> = self.held.keys().copied().collect();
        self.part_with(&all);
    }

    /// These tasks have ended, in whatever way: their leases are free for everybody.
    ///
    /// # Errors
    /// The database. The leases are not renewed any more and run out.
    pub async fn ended(&mut self, duties: &[Duty]) -> Result<(), StoreError> {
        let mut free: Vec<(Duty, i64)> = Vec::new();
        for duty in duties {
            self.taken_away.remove(duty);
            if let Some(lease) = self.held.remove(duty).or_else(|| self.leaving.remove(duty)) {
                lease.lost.cancel();
                if lease.for_others.load(Ordering::Acquire) {
                    self.avoided.insert(*duty, Instant::now() + 2 * self.ttl);
                }
                free.push((*duty, lease.epoch));
            }
        }
        if free.is_empty() { Ok(()) } else { self.store.give_back(self.process, &free).await }
    }

    /// Ends the membership, after all tasks have: others need not wait for it to run out.
    pub async fn leave(&mut self) {
        if let Err(error) = self.store.leave(self.process).await {
            tracing::warn!(error = %error, "membership could not be ended and will run out");
        }
    }

    /// What is wanted and has no task here, running or winding down.
    fn missing(&mut self, wanted: &BTreeSet<Duty>) -> Vec<Duty> {
        let now = Instant::now();
        self.avoided.retain(|_, until| *until > now);
        wanted
            .iter()
            .filter(|duty| {
                !self.held.contains_key(duty)
                    && !self.leaving.contains_key(duty)
                    && !self.taken_away.contains(duty)
                    && !self.avoided.contains_key(duty)
            })
            .copied()
            .collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
