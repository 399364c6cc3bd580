//! The disk budget: how large a backlog in the journal may become. What is read of it needs room for what delivery makes of it,
//! so that a full journal can always drain; a disk that is full to its end can not.
//!
//! What is counted is what somebody has still to read, of whatever day: today's, too, since an outage at midnight fills a disk long
//! before that day is over. What everybody has read of a day is kept until it is over, and gives nobody a reason to come back: a busy
//! day is no backlog. Once a day is late, what it and the days after it take is counted as well, read or not, since none of them goes
//! before it.
//!
//! That bounds a backlog, and not the disk: how much comes in a day is not for a budget to say. Whoever has a disk that a day may fill
//! sets a limit, which counts everything. It refuses also while nobody is behind, for as long as until the day is over and dropped; it
//! does not wait for something that never comes.
//!
//! Senders are told to come back until a tenth less is counted. It is looked at every few seconds, not for each request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    limit: ByteSize,
    full: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

/// What a look at the journal has found.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Bytes that `received` takes of the database's disk, read or not.
    pub bytes: u64,
    /// Bytes of these that somebody has still to read, about; none: it is not known.
    pub unread: Option<u64>,
    /// The oldest day that readers should be done with and are not.
    pub late_day: Option<String>,
}

/// As of the last look.
#[derive(Debug, Default)]
struct Seen {
    unread: Option<u64>,
    over: Over,
}

/// What is too much. Each has its own end: what one of them refuses for does not make the others refuse earlier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Over {
    /// More is unread than the budget.
    unread: bool,
    /// A day is late, and more is kept than the budget.
    late: bool,
    /// More is kept than the limit.
    limit: bool,
}

impl Budget {
    /// For a backlog of so many bytes, and for everything together; 0: without an end. There is room until something else was
    /// measured.
    #[must_use]
    pub fn new(most: ByteSize, limit: ByteSize) -> Self {
        Self { most, limit, full: Arc::default(), seen: Arc::default() }
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

    /// Bytes of everything together; 0: without an end.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.get()
    }

    /// What was unread at the last look; none: it is not known.
    #[must_use]
    pub fn unread(&self) -> Option<u64> {
        self.seen().unread
    }

    /// Goes by what was found.
    pub fn measured(&self, found: &Measured) {
        let (budget, limit) = (self.most.get(), self.limit.get());
        let mut seen = self.seen();
        let before = seen.over;
        let over = Over {
            unread: found.unread.is_some_and(|unread| is_over(unread, budget, before.unread)),
            late: found.late_day.is_some() && is_over(found.bytes, budget, before.late),
            limit: is_over(found.bytes, limit, before.limit),
        };
        *seen = Seen { unread: found.unread, over };
        drop(seen);
        self.full.store(over.any(), Ordering::Relaxed);
        metrics::journal_measured(found, over.any());
        if over == before {
            return;
        }
        let Measured { bytes, unread, late_day } = found;
        if over.any() {
            tracing::error!(
                bytes,
                unread,
                budget,
                limit,
                late_day,
                unread_is_over = over.unread,
                late_is_over = over.late,
                limit_is_over = over.limit,
                "the journal is full: events are refused until more of it is read (`journal_budget`), or given back \
                 (`journal_limit`); `tracklayer journal lag` says who is behind"
            );
        } else {
            tracing::info!(bytes, unread, budget, limit, "the journal has room again: events are accepted");
        }
    }

    /// Looks once. `false`: the journal's room is not ours to measure.
    ///
    /// # Errors
    /// The store; what was known goes on to hold.
    pub async fn look(&self, journal: &dyn Journal) -> Result<bool, JournalError> {
        let Some(bytes) = journal.stored_bytes().await? else { return Ok(false) };
        // It is an estimate, and no more is unread than there is.
        let unread = journal.unread_bytes().await?.map(|unread| unread.min(bytes));
        self.measured(&Measured { bytes, unread, late_day: journal.late_day().await? });
        Ok(true)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Over {
    const fn any(self) -> bool {
        self.unread || self.late || self.limit
    }
}

/// Whether it is more than that, or has not become a tenth less since it was.
const fn is_over(bytes: u64, most: u64, was_over: bool) -> bool {
    most > 0 && bytes > if was_over { most - most / 10 } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(bytes: u64) -> Measured {
        Measured { bytes, unread: Some(0), late_day: Some("2020-01-01".to_owned()) }
    }

    fn today(bytes: u64, unread: u64) -> Measured {
        Measured { bytes, unread: Some(unread), late_day: None }
    }

    fn refuses(budget: &Budget, found: &Measured) -> bool {
        budget.measured(found);
        budget.admit().is_err()
    }

    #[test]
    fn a_full_journal_is_full_until_it_is_a_tenth_smaller() {
        let of: [fn(u64) -> Measured; 2] = [late, |bytes| today(u64::MAX, bytes)];
        for found in of {
            let budget = Budget::new(ByteSize(1_000), ByteSize(0));
            let measured = [950, 1_000, 1_001, 990, 901, 900, 1_000];
            let refused = measured.map(|bytes| refuses(&budget, &found(bytes)));
            assert_eq!(refused, [false, false, true, true, true, false, false]);
        }
        let limited = Budget::new(ByteSize(0), ByteSize(1_000));
        let refused = [1_000, 1_001, 901, 900].map(|bytes| refuses(&limited, &today(bytes, 0)));
        assert_eq!(refused, [false, true, true, false], "though nothing is behind");
    }

    #[test]
    fn what_readers_keep_up_with_is_never_too_much() {
        let budget = Budget::new(ByteSize(1_000), ByteSize(0));
        assert!(!refuses(&budget, &today(u64::MAX, 1_000)));
        let nobody_told = Measured { bytes: u64::MAX, ..Measured::default() };
        assert!(!refuses(&budget, &nobody_told));
        assert!(refuses(&budget, &late(1_001)));
        assert!(!refuses(&budget, &today(u64::MAX, 1_000)), "the late day is read");
    }

    #[test]
    fn what_one_reason_refuses_for_brings_no_other_forward() {
        let budget = Budget::new(ByteSize(1_000), ByteSize(2_000));
        assert!(refuses(&budget, &today(1_950, 1_001)));
        assert!(!refuses(&budget, &today(1_950, 900)), "over nine tenths of a limit that was never reached");
        assert_eq!(budget.unread(), Some(900));
    }

    #[test]
    fn without_a_budget_there_is_always_room() {
        let budget = Budget::new(ByteSize(0), ByteSize(0));
        assert!(!refuses(&budget, &late(u64::MAX)));
        assert!(!refuses(&budget, &today(u64::MAX, u64::MAX)));
    }
}
