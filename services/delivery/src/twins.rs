//! The twin audit: which source's events another source sends as well, which of the two comes first, and which have no twin.
//!
//! Only duplicates are counted, by the commit that resolves them; what a source has sent in all is in the ledger's sums already. A winner
//! is accepted and no copy, so that winners are what was accepted less the copies.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::SourceId;
use tracklayer_proto::event::v1::ResolvedEvent;

use crate::clock::Clock;
use crate::dedup::{CopyKind, CopyOf, SameBy};
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::twins::{TwinKey, TwinRows, TwinStore, TwinWindow};

/// How often it is looked whether something has to be forgotten.
const EVERY: Duration = Duration::from_secs(60);

/// What the commit of these events counts: `copies` says of each what it repeats.
#[must_use]
pub fn counted(events: &[ResolvedEvent], copies: &[Option<CopyOf>]) -> TwinRows {
    let mut rows = TwinRows::new();
    for (event, copy) in events.iter().zip(copies) {
        let Some(copy) = copy else { continue };
        let key = TwinKey {
            // As the header of its block has it: the sums of what was accepted are by that.
            minute: event.received_at.as_ref().map_or(0, |at| at.seconds.div_euclid(60)),
            first: copy.winner,
            second: SourceId(event.source_id),
            by_order: copy.by == SameBy::Order,
        };
        let counts = rows.entry(key).or_default();
        counts.copies += 1;
        match copy.kind {
            CopyKind::Repeat => {}
            CopyKind::Twin { is_first } => {
                counts.twins += 1;
                counts.first_twins += u64::from(is_first);
            }
        }
    }
    rows
}

/// What a window says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinAudit {
    /// Ascending.
    pub sources: Vec<OfSource>,
    /// Whoever's event came first before whoever's twin did; ascending.
    pub pairs: Vec<OfPair>,
}

/// The events of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfSource {
    /// Whose.
    pub source: SourceId,
    /// All that it sent, each once: those that won, and the twins of others' that it brought.
    pub events: u64,
    /// Those that won and had a twin.
    pub first: u64,
    /// Those that were the twin of another source's.
    pub second: u64,
    /// Those that won and have no twin.
    pub alone: u64,
    /// What it sent again of its own winners.
    pub repeats: u64,
    /// What it sent of another source's winner after it had brought a twin of that.
    pub further: u64,
}

/// Winners of one source with a twin of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfPair {
    /// Whose events won.
    pub first: SourceId,
    /// Whose were the twins.
    pub second: SourceId,
    /// By the message_id.
    pub by_message_id: u64,
    /// By the order.
    pub by_order: u64,
}

impl TwinAudit {
    /// Of what was counted. At the edges of a window a twin may be in it whose winner is not: no figure is below none for that.
    #[must_use]
    pub fn of(window: &TwinWindow) -> Self {
        let mut sources: BTreeMap<SourceId, OfSource> = BTreeMap::new();
        let mut pairs: BTreeMap<(SourceId, SourceId), OfPair> = BTreeMap::new();
        for (source, accepted) in &window.accepted {
            of(&mut sources, *source).events = *accepted;
        }
        for ((first, second, by_order), counts) in &window.copies {
            let copied = of(&mut sources, *second);
            copied.events = copied.events.saturating_sub(counts.copies - counts.twins);
            copied.second += counts.twins;
            if first == second {
                copied.repeats += counts.copies;
                continue;
            }
            copied.further += counts.copies - counts.twins;
            of(&mut sources, *first).first += counts.first_twins;
            let (first, second) = (*first, *second);
            let none = OfPair { first, second, by_message_id: 0, by_order: 0 };
            let pair = pairs.entry((first, second)).or_insert(none);
            if *by_order {
                pair.by_order += counts.twins;
            } else {
                pair.by_message_id += counts.twins;
            }
        }
        for source in sources.values_mut() {
            source.alone = source.events.saturating_sub(source.second + source.first);
        }
        // What cannot be read has no source.
        sources.remove(&SourceId(0));
        let sources = sources.into_values().collect();
        Self { sources, pairs: pairs.into_values().collect() }
    }
}

fn of(sources: &mut BTreeMap<SourceId, OfSource>, source: SourceId) -> &mut OfSource {
    let none = OfSource { source, events: 0, first: 0, second: 0, alone: 0, repeats: 0, further: 0 };
    sources.entry(source).or_insert(none)
}

/// Ends what is counted by age.
#[derive(Debug, Clone)]
pub struct Twins {
    /// Own tables.
    pub store: TwinStore,
    /// Days for which counts are kept.
    pub kept_days: u32,
}

impl Twins {
    /// Forgets, until `shutdown`.
    pub async fn run(self, clock: Clock, shutdown: CancellationToken) {
        // What is not forgotten now is by whoever comes next.
        let _ = shutdown.run_until_cancelled(self.keep_forgetting(&clock)).await;
    }

    async fn keep_forgetting(&self, clock: &Clock) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.forget(clock.now()).await {
                tracing::warn!(error = %error_chain(&error), "counts of twins were not forgotten");
            }
        }
    }

    /// Forgets all that is too old.
    ///
    /// # Errors
    /// The database. What was not done is by the next call.
    pub async fn forget(&self, now: Timestamp) -> Result<(), StoreError> {
        let first_kept = now.as_second().div_euclid(60) - i64::from(self.kept_days) * 24 * 60;
        // First, so that nobody takes what is being forgotten for what never was.
        self.store.start_at(first_kept).await?;
        while self.store.forget(first_kept).await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
