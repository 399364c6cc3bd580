//! The disk budget: how large the journal may become. What is read of it needs room for what delivery makes of it, so that a
//! full journal can always drain; a disk that is full to its end can not.
//!
//! What it takes is looked at every few seconds, not for each request. Above the budget senders are told to come back until it
//! takes a tenth less.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracklayer_config::ByteSize;
use tracklayer_journal::Journal;

use crate::error::IngestError;
use crate::metrics;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3);
/// When a sender is told to ask again: a journal that is full does not empty in a second.
const RETRY_AFTER: Duration = Duration::from_secs(15);

/// Whether the journal has room. Cheap to clone; all clones see the same.
#[derive(Debug, Clone)]
pub struct Budget {
    most: ByteSize,
    full: Arc<AtomicBool>,
}

impl Budget {
    /// Of so many bytes; 0: without an end. There is room until something else was measured.
    #[must_use]
    pub fn new(most: ByteSize) -> Self {
        Self { most, full: Arc::default() }
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// [`IngestError::JournalFull`].
    pub fn admit(&self) -> Result<(), IngestError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(IngestError::JournalFull { retry_after: RETRY_AFTER });
        }
        Ok(())
    }

    /// What the journal takes at the moment.
    pub fn measured(&self, bytes: u64) {
        let most = self.most.get();
        let was_full = self.full.load(Ordering::Relaxed);
        let full = most > 0 && bytes > if was_full { lower_mark(most) } else { most };
        metrics::journal_measured(bytes, full);
        if full == was_full {
            return;
        }
        self.full.store(full, Ordering::Relaxed);
        if full {
            tracing::error!(
                bytes,
                budget = most,
                "the journal takes more than its budget (`journal_budget`): events are refused until days of it are read and \
                 given back, see `tracklayer journal lag`"
            );
        } else {
            tracing::info!(bytes, budget = most, "the journal has room again: events are accepted");
        }
    }

    /// Looks until `shutdown`. Where the journal's room is not ours to measure, it ends at once.
    pub async fn watch(self, journal: Arc<dyn Journal>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match journal.stored_bytes().await {
                Ok(None) => return,
                Ok(Some(bytes)) => {
                    failing = false;
                    self.measured(bytes);
                }
                // Told once. What was known goes on to hold: a database that is away takes nothing anyway.
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "it could not be seen how large the journal is");
                }
                Err(_) => {}
            }
        }
    }
}

/// From here on down there is room again.
fn lower_mark(most: u64) -> u64 {
    most - most / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_journal_is_full_until_it_is_a_tenth_smaller() {
        let budget = Budget::new(ByteSize(1_000));
        let after = |bytes| {
            budget.measured(bytes);
            budget.admit().is_ok()
        };
        let measured = [950, 1_000, 1_001, 990, 901, 900, 1_000];
        assert_eq!(measured.map(after), [true, true, false, false, false, true, true]);
    }

    #[test]
    fn without_a_budget_there_is_always_room() {
        let budget = Budget::new(ByteSize(0));
        budget.measured(u64::MAX);
        assert!(budget.admit().is_ok());
    }
}
