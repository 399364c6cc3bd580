//! How far the resolve loops and lanes of this process are behind, as metrics.
//!
//! Whoever holds a lease tells of it, and nobody else: so a sum over replicas counts nothing twice. A series goes to 0 when its
//! lease leaves. There are two for each (connection, partition) and for each partition's resolve loop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracklayer_journal::inspect::Behind;

use crate::inspection::{Inspection, InspectionError};
use crate::lease::{Duty, Lease};
use crate::resolve::error_chain;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

const EVENTS: &str = "tracklayer_delivery_backlog_events";
const SECONDS: &str = "tracklayer_delivery_backlog_seconds";

/// What this process tells of. Cheap to clone; all clones see the same.
#[derive(Debug, Clone, Default)]
pub struct Backlog {
    leases: Arc<Mutex<BTreeMap<Duty, Lease>>>,
}

/// Tells of a lease for as long as it lives.
#[derive(Debug)]
pub struct Told {
    backlog: Backlog,
    duty: Duty,
}

impl Backlog {
    /// Tells of a lease from now on.
    #[must_use]
    pub fn tell_of(&self, lease: &Lease) -> Told {
        self.leases().insert(lease.duty, lease.clone());
        Told { backlog: self.clone(), duty: lease.duty }
    }

    /// Looks until `shutdown`. It ends at once where the journal's heads are known to nobody here.
    pub async fn watch(self, inspection: Inspection, shutdown: CancellationToken) {
        describe();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match self.look(&inspection).await {
                Ok(()) => failing = false,
                Err(InspectionError::OtherJournal) => return,
                // Told once: the database may be away for as long as it likes.
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(error = %error_chain(&error), "it could not be seen how far lanes are behind");
                }
                Err(_) => {}
            }
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// See [`InspectionError`]; what was told before stays.
    pub async fn look(&self, inspection: &Inspection) -> Result<(), InspectionError> {
        let duties: Vec<Duty> = self.leases().keys().copied().collect();
        if duties.is_empty() {
            return Ok(());
        }
        let lags = inspection.lags_of(&duties).await?;
        // Under the lock, so that nothing is told of a lease that has left meanwhile.
        let leases = self.leases();
        for lag in lags {
            let Some(lease) = leases.get(&lag.duty) else { continue };
            // Whoever has it by now tells of it.
            let behind = if lease.has_run_out() { Behind::default() } else { lag.behind };
            tell(lag.duty, behind);
        }
        Ok(())
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<Duty, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut leases = self.backlog.leases();
        leases.remove(&self.duty);
        tell(self.duty, Behind::default());
    }
}

fn describe() {
    metrics::describe_gauge!(
        EVENTS,
        "events received that a lane (connection `resolve`: a partition's resolve loop) has not passed yet; told by whoever holds its \
         lease. Over Kafka those that are not resolved yet are reckoned: as many in each record as in those before. As many series as \
         connections times partitions, and one for each partition"
    );
    metrics::describe_gauge!(
        SECONDS,
        "age of the oldest of tracklayer_delivery_backlog_events; 0: nothing waits. As many series as that"
    );
}

fn tell(duty: Duty, behind: Behind) {
    let connection = if duty.is_resolve() { "resolve".to_owned() } else { duty.connection.to_string() };
    let of = [
        ("workspace", duty.workspace.0.to_string()),
        ("connection", connection),
        ("partition", duty.partition.0.to_string()),
    ];
    // Counts and ages stay far below 2^52, where a float would begin to skip.
    metrics::gauge!(EVENTS, &of).set(behind.events as f64);
    metrics::gauge!(SECONDS, &of).set(behind.seconds as f64);
}
