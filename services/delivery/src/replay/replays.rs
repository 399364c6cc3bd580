//! Which lanes have a replay to do: one poll per process reads it, each lane sees its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lease::Duty;
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::replays::ReplayStore;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// The replays of all lanes, ascending. Cheap to clone; all clones see the same.
#[derive(Debug, Clone, Default)]
pub struct Replays {
    open: Arc<watch::Sender<HashMap<Duty, Vec<i64>>>>,
}

impl Replays {
    /// The replays of a lane that are not done, ascending; it may have done some of them a moment ago.
    #[must_use]
    pub fn of(&self, duty: Duty) -> Vec<i64> {
        self.open.borrow().get(&duty).cloned().unwrap_or_default()
    }

    /// Ends when there is one that is not among these.
    pub async fn asked(&self, duty: Duty, known: &[i64]) {
        let mut open = self.open.subscribe();
        let is_new = |open: &HashMap<Duty, Vec<i64>>| {
            open.get(&duty).is_some_and(|replays| replays.iter().any(|replay| !known.contains(replay)))
        };
        if open.wait_for(is_new).await.is_err() {
            std::future::pending().await
        }
    }

    /// Looks until `shutdown`. A database that is away is only a later answer.
    pub async fn watch(self, store: ReplayStore, shutdown: CancellationToken) {
        metrics::describe_gauge!("tracklayer_delivery_replaying_lanes", "lanes that have a replay to do");
        metrics::describe_counter!(
            "tracklayer_delivery_replay_events_total",
            "events that replays have looked at, by what they did with them"
        );
        metrics::describe_counter!(
            "tracklayer_delivery_replayed_events_total",
            "events that replays have taken, by the state in which they ended"
        );
        metrics::describe_counter!(
            "tracklayer_delivery_replay_pauses_total",
            "pages of replays that could not be read or judged, and are looked at again later"
        );
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match self.look(&store).await {
                Ok(()) => failing = false,
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(error = %error_chain(&error), "it could not be seen what is to be replayed");
                }
                Err(_) => {}
            }
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// The database; what was known goes on to hold.
    pub async fn look(&self, store: &ReplayStore) -> Result<(), StoreError> {
        let mut open: HashMap<Duty, Vec<i64>> = HashMap::new();
        for (duty, replay) in store.open().await? {
            open.entry(duty).or_default().push(replay);
        }
        metrics::gauge!("tracklayer_delivery_replaying_lanes").set(open.len() as f64);
        self.open.send_if_modified(|known| {
            let differs = *known != open;
            *known = open;
            differs
        });
        Ok(())
    }
}
