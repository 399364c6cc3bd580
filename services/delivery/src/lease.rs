//! Who reads what: leases with an epoch.
//!
//! One keeper per process renews what it holds, takes what is free up to its fair share, and gives back what is more. A
//! task gets a [`Lease`]: its epoch goes into every commit, and [`Lease::surely_held_for`] counts the holder's own
//! monotonic time from *before* the request that renewed it, so that clocks need not agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracklayer_ids::{ConnectionId, Partition, WorkspaceId};
use uuid::Uuid;

use crate::store::StoreError;
use crate::store::leases::LeaseStore;

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
    origin: Instant,
    valid_until_ms: Arc<AtomicU64>,
    lost: CancellationToken,
}

impl Lease {
    /// Whether the lease holds for at least that long, counted from before it was last renewed.
    #[must_use]
    pub fn surely_held_for(&self, time: Duration) -> bool {
        let valid_until = self.origin + Duration::from_millis(self.valid_until_ms.load(Ordering::Acquire));
        !self.lost.is_cancelled() && Instant::now() + time < valid_until
    }

    /// Cancelled when the lease is lost or given back.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Tells the keeper to give the lease back: another process must go on (a block that this one cannot read).
    pub fn give_up(&self) {
        self.lost.cancel();
    }
}

/// Keeps this process's leases.
pub struct LeaseKeeper {
    store: LeaseStore,
    process: Uuid,
    ttl: Duration,
    held: BTreeMap<Duty, Lease>,
}

/// What one round of the keeper changed.
#[derive(Debug, Default)]
pub struct LeaseChanges {
    /// New ones: start the task.
    pub taken: Vec<Lease>,
}

impl LeaseKeeper {
    /// A keeper without leases.
    #[must_use]
    pub fn new(store: LeaseStore, ttl: Duration) -> Self {
        Self { store, process: Uuid::new_v4(), ttl, held: BTreeMap::new() }
    }

    /// This process's name among the members.
    #[must_use]
    pub fn process(&self) -> Uuid {
        self.process
    }

    /// One round: say that we live, renew, give back what is not wanted or too much, take what is free.
    ///
    /// # Errors
    /// The database. Leases then run out by themselves: `surely_held_for` turns false in time.
    pub async fn round(&mut self, wanted: &BTreeSet<Duty>) -> Result<LeaseChanges, StoreError> {
        let members = self.store.announce(self.process, self.ttl).await?;
        self.renew().await?;
        let unwanted: Vec<Duty> = self
            .held
            .values()
            .filter(|lease| lease.lost.is_cancelled() || !wanted.contains(&lease.duty))
            .map(|lease| lease.duty)
            .collect();
        self.give_back(&unwanted).await?;

        let fair_share = wanted.len().div_ceil(members.max(1));
        let surplus: Vec<Duty> =
            self.held.keys().rev().take(self.held.len().saturating_sub(fair_share)).copied().collect();
        self.give_back(&surplus).await?;

        let mut changes = LeaseChanges::default();
        let room = fair_share.saturating_sub(self.held.len());
        let missing: Vec<Duty> =
            wanted.iter().filter(|duty| !self.held.contains_key(duty)).copied().collect();
        if room > 0 && !missing.is_empty() {
            let before = Instant::now();
            for (duty, epoch) in self.store.take_free(self.process, self.ttl, &missing, room).await? {
                let lease = Lease {
                    duty,
                    epoch,
                    origin: before,
                    valid_until_ms: Arc::new(AtomicU64::new(millis(self.ttl))),
                    lost: CancellationToken::new(),
                };
                self.held.insert(duty, lease.clone());
                changes.taken.push(lease);
            }
        }
        metrics::gauge!("tracklayer_leases_held").set(self.held.len() as f64);
        Ok(changes)
    }

    /// Gives everything back, at shutdown: others need not wait for the leases to run out.
    pub async fn release_all(&mut self) {
        let all: Vec<Duty> = self.held.keys().copied().collect();
        if let Err(error) = self.give_back(&all).await {
            tracing::warn!(error = %error, "leases could not be given back and will run out");
        }
        if let Err(error) = self.store.leave(self.process).await {
            tracing::warn!(error = %error, "membership could not be ended and will run out");
        }
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let before = Instant::now();
        let duties: Vec<(Duty, i64)> = self.held.values().map(|lease| (lease.duty, lease.epoch)).collect();
        let renewed: BTreeSet<Duty> =
            self.store.renew(self.process, self.ttl, &duties).await?.into_iter().collect();
        self.held.retain(|duty, lease| {
            if renewed.contains(duty) {
                let until = before.duration_since(lease.origin) + self.ttl;
                lease.valid_until_ms.store(millis(until), Ordering::Release);
                return true;
            }
            tracing::warn!(
                workspace = duty.workspace.0,
                connection = duty.connection.0,
                partition = duty.partition.0,
                "lease was taken by another process"
            );
            lease.lost.cancel();
            false
        });
        Ok(())
    }

    async fn give_back(&mut self, duties: &[Duty]) -> Result<(), StoreError> {
        if duties.is_empty() {
            return Ok(());
        }
        for duty in duties {
            if let Some(lease) = self.held.remove(duty) {
                lease.lost.cancel();
            }
        }
        self.store.give_back(self.process, duties).await
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
