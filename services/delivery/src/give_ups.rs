//! What operators give up unread, so that the journal's days can go though a lane stands still: the lane passes it without a
//! request, by the same commits as ever, and the ledger says so.
//!
//! It is asked for in a table, which one poll per process reads; each lane sees here what it is asked for. Only what is
//! resolved can be passed: whatever resolve has not read waits for that, since nobody else knows which event stands where.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::Position;

use crate::lease::Duty;
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::give_ups::GiveUpStore;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// What lanes are asked for. Cheap to clone; all clones see the same.
#[derive(Debug, Clone, Default)]
pub struct GiveUps {
    asked: Arc<watch::Sender<HashMap<Duty, Position>>>,
}

/// Whether a position is before another of its partition.
#[must_use]
pub fn is_before(at: Position, other: Position) -> bool {
    (at.generation, at.offset) < (other.generation, other.offset)
}

impl GiveUps {
    /// What a lane is to handle next, unless it is past that already; none: it is asked for nothing.
    #[must_use]
    pub fn until(&self, duty: Duty) -> Option<Position> {
        self.asked.borrow().get(&duty).copied()
    }

    /// Ends when a lane is asked for something.
    pub async fn asked(&self, duty: Duty) {
        let mut asked = self.asked.subscribe();
        if asked.wait_for(|asked| asked.contains_key(&duty)).await.is_err() {
            std::future::pending().await
        }
    }

    /// Looks until `shutdown`. A database that is away is only a later answer.
    pub async fn watch(self, store: GiveUpStore, shutdown: CancellationToken) {
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
                    tracing::warn!(error = %error_chain(&error), "it could not be seen what lanes are to give up");
                }
                Err(_) => {}
            }
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// The database; what was known goes on to hold.
    pub async fn look(&self, store: &GiveUpStore) -> Result<(), StoreError> {
        let asked: HashMap<Duty, Position> = store.asked().await?.into_iter().collect();
        self.asked.send_if_modified(|known| {
            let differs = *known != asked;
            *known = asked;
            differs
        });
        Ok(())
    }
}
