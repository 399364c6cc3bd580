//! The disk budget: how large a backlog in the journal may become. What is read of it needs room for what delivery makes of it,
//! so that a full journal can always drain; a disk that is full to its end can not.
//!
//! Size alone does not tell a backlog from a busy day, which is kept until it is over. So senders are told to come back while
//! the journal takes more than its budget and a day is kept that readers should long be done with; until it takes a tenth less,
//! or that day is read. Both are looked at every few seconds, not for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracklayer_config::ByteSize;
use tracklayer_journal::{Journal, JournalError};

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

    /// Its bytes; 0: without an end.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most.get()
    }

    /// What the journal takes at the moment, and the oldest day that readers should be done with and are not.
    pub fn measured(&self, bytes: u64, late_day: Option<&str>) {
        let most = self.most.get();
        let was_full = self.full.load(Ordering::Relaxed);
        let full = most > 0 && late_day.is_some() && bytes > if was_full { lower_mark(most) } else { most };
        metrics::journal_measured(bytes, late_day.is_some(), full);
        if full == was_full {
            return;
        }
        self.full.store(full, Ordering::Relaxed);
        if full {
            tracing::error!(
                bytes,
                budget = most,
                late_day,
                "readers are behind and the journal takes more than its budget (`journal_budget`): events are refused until \
                 the oldest days of it are read and given back; `tracklayer journal lag` says who is behind"
            );
        } else {
            tracing::info!(bytes, budget = most, "the journal has room again: events are accepted");
        }
    }

    /// Looks once. `false`: the journal's room is not ours to measure.
    ///
    /// # Errors
    /// The store; what was known goes on to hold.
    pub async fn look(&self, journal: &dyn Journal) -> Result<bool, JournalError> {
        let Some(bytes) = journal.stored_bytes().await? else { return Ok(false) };
        self.measured(bytes, journal.late_day().await?.as_deref());
        Ok(true)
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
            match self.look(journal.as_ref()).await {
                Ok(false) => return,
                Ok(true) => failing = false,
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
            budget.measured(bytes, Some("2020-01-01"));
            budget.admit().is_ok()
        };
        let measured = [950, 1_000, 1_001, 990, 901, 900, 1_000];
        assert_eq!(measured.map(after), [true, true, false, false, false, true, true]);
    }

    #[test]
    fn what_readers_keep_up_with_is_never_too_much() {
        let budget = Budget::new(ByteSize(1_000));
        budget.measured(u64::MAX, None);
        assert!(budget.admit().is_ok());
        budget.measured(1_001, Some("2020-01-01"));
        assert!(budget.admit().is_err());
        budget.measured(u64::MAX, None);
        assert!(budget.admit().is_ok());
    }

    #[test]
    fn without_a_budget_there_is_always_room() {
        let budget = Budget::new(ByteSize(0));
        budget.measured(u64::MAX, Some("2020-01-01"));
        assert!(budget.admit().is_ok());
    }
}
