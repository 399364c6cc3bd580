//! What the books say where the journal is not in the database: the rows of what is resolved, and the headers of what the
//! journal holds beyond that.
//!
//! Whoever watches the counts asks again and again. What was counted of the journal is remembered, as sums and a place, so
//! that each record is looked at once however often somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::Mutex;
use tracklayer_ids::{Partition, Position, WorkspaceId};
use tracklayer_journal::{Journal, JournalError, Kind, Place};

use crate::balance::Balances;
use crate::store::StoreError;
use crate::store::stats::{BookReader as _, StatsStore, beyond};

/// Why the books could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// Own tables.
    #[error("could not read the books")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("could not count what the journal holds")]
    Journal(#[from] JournalError),
}

/// Counts of a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted events per source.
    pub accepted: BTreeMap<i64, u64>,
    /// Events beyond each connection's cursors.
    pub waiting: BTreeMap<i64, u64>,
}

/// Reads the books. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Books {
    stats: StatsStore,
    journal: Arc<dyn Journal>,
    counted: Arc<Mutex<HashMap<WorkspaceId, Counted>>>,
}

/// What was counted of a workspace's journal so far.
#[derive(Debug, Default)]
struct Counted {
    /// Per source: resolved where the count began, and what was counted since.
    accepted: BTreeMap<i64, u64>,
    /// Up to where, per partition.
    ends: BTreeMap<Partition, Place>,
}

impl Counted {
    /// Whether the count can go on: it stands in the same history as resolve and not behind it.
    fn goes_on(&self, places: &[Place]) -> bool {
        places.iter().all(|place| {
            self.ends.get(&place.at.partition).is_some_and(|end| {
                end.at.generation == place.at.generation && end.at.offset >= place.at.offset
            })
        })
    }
}

impl Books {
    /// Of these tables and that journal.
    #[must_use]
    pub fn new(stats: StatsStore, journal: Arc<dyn Journal>) -> Self {
        Self { stats, journal, counted: Arc::default() }
    }

    /// The balances of a workspace, and what it has received.
    ///
    /// # Errors
    /// See [`BooksError`].
    pub async fn balances(&self, workspace: WorkspaceId) -> Result<Balances, BooksError> {
        let mut balances = Balances::default();
        match self.journal.kind() {
            Kind::Postgres => self.stats.read_books(workspace, &mut balances).await?,
            Kind::Kafka => {
                for place in self.stats.read_resolved_books(workspace, &mut balances).await? {
                    let mut each = |first, header: &tracklayer_journal::BlockHeader| {
                        let (at, events, counted) = beyond(place, first, header);
                        balances.received(at, events, counted);
                    };
                    self.journal.count(workspace, place, &mut each).await?;
                }
            }
        }
        Ok(balances)
    }

    /// What a workspace has accepted and what of it waits.
    ///
    /// # Errors
    /// See [`BooksError`].
    pub async fn counts(&self, workspace: WorkspaceId) -> Result<Counts, BooksError> {
        if self.journal.kind() == Kind::Postgres {
            let accepted = self.stats.accepted(workspace).await?;
            return Ok(Counts { accepted, waiting: self.stats.waiting(workspace).await? });
        }
        // One count at a time: two would read the same records.
        let mut all = self.counted.lock().await;
        let resolved = self.stats.resolved_counts(workspace).await?;
        let counted = all.entry(workspace).or_default();
        if !counted.goes_on(&resolved.places) {
            let ends = resolved.places.iter().map(|place| (place.at.partition, *place)).collect();
            *counted = Counted { accepted: resolved.accepted, ends };
        }
        let Counted { accepted, ends } = counted;
        for place in ends.values_mut() {
            let from = *place;
            // Counted beside, so that an error in the middle counts nothing twice.
            let mut more: BTreeMap<i64, u64> = BTreeMap::new();
            let mut each = |first: Position, header: &tracklayer_journal::BlockHeader| {
                let mut behind = from.at.offset.0.saturating_sub(first.offset.0);
                for count in &header.counts {
                    // Of a block in whose middle resolve stands it is not said whose events are behind: the first ones'.
                    let skipped = behind.min(u64::from(count.count));
                    behind -= skipped;
                    *more.entry(count.source_id).or_default() += u64::from(count.count) - skipped;
                }
            };
            let end = self.journal.count(workspace, from, &mut each).await?;
            *place = end;
            more.into_iter().for_each(|(source, events)| *accepted.entry(source).or_default() += events);
        }
        let ends: Vec<Position> = ends.values().map(|end| end.at).collect();
        let accepted = accepted.clone();
        drop(all);
        Ok(Counts { accepted, waiting: self.stats.waiting_up_to(workspace, &ends).await? })
    }
}
