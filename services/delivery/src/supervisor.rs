//! Runs a task for each lease of this process, renews the leases meanwhile, and gives each back when its task has ended,
//! also when it has crashed.
//!
//! Nothing here waits for a task, because leases have to be renewed at all times: a task that is told to end is joined when
//! it has, also at shutdown.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracklayer_rpc::Readiness;
use tracklayer_rpc::follow::ConfigWatch;

use crate::lease::{Duty, Lease, LeaseKeeper};
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::cursors::CursorStore;

/// What the supervisor runs.
pub trait Tasks: Send {
    /// Every duty that the configuration asks for; none before there is one.
    fn wanted(&self) -> Option<BTreeSet<Duty>>;
    /// The task of a lease. It ends when the lease is lost, which it is to be at shutdown, too.
    fn task(&self, lease: Lease, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static;
    /// Told each round how many processes share the work.
    fn shared_among(&self, processes: usize);
    /// Told when the database has another history: what is only known of the one before is to be forgotten.
    fn forget(&self) {}
}

/// Keeps leases and tasks in step.
pub struct Supervisor<T> {
    keeper: LeaseKeeper,
    ttl: Duration,
    cursors: CursorStore,
    config: ConfigWatch,
    readiness: Readiness,
    work: T,
    begun: BTreeSet<Duty>,
    running: JoinSet<()>,
    duties: HashMap<Id, Duty>,
}

impl<T: Tasks> Supervisor<T> {
    /// A supervisor without tasks. Keeper and cursors work on a pool of their own, so that lanes which wait for a
    /// connection never keep a lease from being renewed.
    #[must_use]
    pub fn new(
        keeper: LeaseKeeper,
        ttl: Duration,
        cursors: CursorStore,
        config: ConfigWatch,
        readiness: Readiness,
        work: T,
    ) -> Self {
        Self {
            keeper,
            ttl,
            cursors,
            config,
            readiness,
            work,
            begun: BTreeSet::new(),
            running: JoinSet::new(),
            duties: HashMap::new(),
        }
    }

    /// Runs until `shutdown`, and then until the last task has ended and its lease is given back.
    pub async fn run(mut self, shutdown: CancellationToken) {
        // A third of the lease: two renewals may fail before it runs out.
        let mut ticks = tokio::time::interval((self.ttl / 3).min(Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut config = self.config.clone();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = config.changed() => {}
                Some(ended) = self.running.join_next_with_id() => {
                    self.reap(ended).await;
                    continue;
                }
                () = shutdown.cancelled() => break,
            }
            if let Err(error) = self.round(&shutdown).await {
                self.readiness.set(false, "the database is away");
                tracing::warn!(error = %error_chain(&error), "leases could not be kept");
            }
        }
        self.readiness.set(false, "shutting down");
        // A lane may have many requests before it: it begins none of them any more.
        self.keeper.part_with_all();
        while !self.running.is_empty() {
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => self.reap(ended).await,
                _ = ticks.tick() => if let Err(error) = self.keeper.renew().await {
                    tracing::warn!(error = %error_chain(&error), "leases could not be renewed while tasks end");
                },
            }
        }
        self.keeper.leave().await;
    }

    async fn round(&mut self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let Some(wanted) = self.work.wanted() else { return Ok(()) };
        let new: Vec<Duty> =
            wanted.iter().filter(|d| !d.is_resolve() && !self.begun.contains(*d)).copied().collect();
        if !new.is_empty() {
            self.cursors.begin_lanes(&new).await?;
            self.begun.extend(new);
        }
        let changes = self.keeper.round(&wanted).await?;
        if changes.anew {
            // The history that is left may lack cursors that were begun.
            self.begun.clear();
            self.work.forget();
        }
        for lease in changes.taken {
            let duty = lease.duty;
            let task = self.running.spawn(self.work.task(lease, shutdown.clone()));
            self.duties.insert(task.id(), duty);
        }
        self.work.shared_among(self.keeper.members());
        self.readiness.set(true, "");
        Ok(())
    }

    async fn reap(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(crash) => crash.id(),
        };
        let Some(duty) = self.duties.remove(&id) else { return };
        if let Err(crash) = ended {
            metrics::counter!("tracklayer_delivery_task_crashes_total").increment(1);
            tracing::error!(
                workspace = duty.workspace.0,
                connection = duty.connection.0,
                partition = duty.partition.0,
                error = %crash,
                "a task crashed; its lease is free for another try"
            );
        }
        if let Err(error) = self.keeper.ended(&[duty]).await {
            tracing::warn!(error = %error_chain(&error), "a lease could not be given back and will run out");
        }
    }
}
