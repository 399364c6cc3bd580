//! Group commit: concurrent small requests share one block, one row and one sync of the disk.
//!
//! Partitions go to a few shards; a shard has one append under way at a time, so that what one caller handed
//! over first also gets the lower offset. While an append is under way the next block fills by itself; a linger that grows
//! with the load keeps single events from becoming single rows, and is zero when there is nothing to gather.
//!
//! Bounded: what waits is counted in bytes, and above the limit a caller is told to come back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracklayer_ids::{Generation, Offset, Partition, Position, WorkspaceId};

use crate::Draft;
use crate::block::{Block, BlockBuilder};
use crate::error::AppendError;
use crate::journal::{Appended, Journal, NewBlock, Spread};
use crate::postgres::MAX_BLOCK_EVENTS;
use crate::spread::{Call, Fate, Room, Spreader, Stored, Submission};

/// How the appender gathers.
#[derive(Debug, Clone)]
pub struct AppenderSettings {
    /// Appends under way at the same time, 1 to 64.
    pub shards: usize,
    /// Longest wait for more events under load.
    pub max_linger: Duration,
    /// Most bytes of one append, before compression.
    pub max_append_bytes: usize,
    /// Most bytes that may wait over all shards; above it callers are told to come back.
    pub max_waiting_bytes: usize,
}

impl Default for AppenderSettings {
    fn default() -> Self {
        Self {
            shards: 4,
            max_linger: Duration::from_millis(2),
            max_append_bytes: 2 * 1024 * 1024,
            max_waiting_bytes: 48 * 1024 * 1024,
        }
    }
}

/// Hands events to the journal. Cheap to clone.
#[derive(Clone)]
pub struct Appender {
    spreader: Arc<Spreader>,
    waiting_bytes: Arc<AtomicUsize>,
    limit_bytes: usize,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender").field("waiting_bytes", &self.waiting_bytes()).finish_non_exhaustive()
    }
}

impl Appender {
    /// Starts the shards. They finish what was handed over before they obey `shutdown`.
    #[must_use]
    pub fn start(
        journal: impl Into<Arc<dyn Journal>>,
        settings: AppenderSettings,
        shutdown: &CancellationToken,
    ) -> Self {
        let journal: Arc<dyn Journal> = journal.into();
        let tasks = TaskTracker::new();
        // Unbounded in messages, bounded in bytes: `append` counts before it sends.
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..settings.shards.clamp(1, 64)).map(|_| mpsc::unbounded_channel()).unzip();
        let limit_bytes = settings.max_waiting_bytes;
        let spreader = Arc::new(Spreader::new(Arc::clone(&journal), senders, tasks.clone()));
        for receiver in receivers {
            let shard = Shard {
                journal: Arc::clone(&journal),
                settings: settings.clone(),
                // Not its owner: when the last appender is gone, there is nobody to answer, and the shards end.
                spreader: Arc::downgrade(&spreader),
                receiver,
                held_back: None,
                recent_callers: 0.0,
            };
            tasks.spawn(shard.run(shutdown.clone()));
        }
        tasks.close();
        Self { spreader, waiting_bytes: Arc::default(), limit_bytes, tasks }
    }

    /// Appends events of one workspace, spread as the configuration wants it, and answers when all of them are durable: the
    /// position of each, in order, where the journal knows it by then. (Over Kafka it is given by who reads.)
    ///
    /// # Errors
    /// Overloaded (nothing was stored), stopped, or the database away (some may be stored: repeat under the same ids).
    pub async fn append(
        &self,
        workspace: WorkspaceId,
        wanted: Spread,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Option<Position>>, AppendError> {
        let bytes: usize = drafts.iter().map(Draft::stored_bytes).sum();
        let room = Room::take(&self.waiting_bytes, bytes, self.limit_bytes).map_err(|waiting_bytes| {
            AppendError::Overloaded {
                waiting_bytes,
                limit_bytes: self.limit_bytes,
                retry_after: Duration::from_secs(1),
            }
        })?;
        let mut positions = vec![None; drafts.len()];
        let mut left = positions.len();
        let (answers, mut answered) = mpsc::unbounded_channel();
        let drafts = (0..).zip(drafts).collect();
        self.spreader.enter(Call { workspace, wanted, drafts, room, answers });
        while left > 0 {
            let Stored { indexes, first } = answered.recv().await.ok_or(AppendError::Stopped)??;
            left -= indexes.len();
            for (step, index) in indexes.into_iter().enumerate() {
                positions[index as usize] = first.map(|first| later(first, step as u64));
            }
        }
        Ok(positions)
    }

    /// Bytes that wait for the disk.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Acquire)
    }

    /// Waits until the shards have written what they hold and ended; call after the shutdown token was cancelled.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

/// The position so many events further on.
fn later(position: Position, events: u64) -> Position {
    Position { offset: Offset(position.offset.0 + events), ..position }
}

struct Shard {
    journal: Arc<dyn Journal>,
    settings: AppenderSettings,
    spreader: Weak<Spreader>,
    receiver: mpsc::UnboundedReceiver<Submission>,
    held_back: Option<Submission>,
    /// Smoothed number of callers per append: how much a linger would gather.
    recent_callers: f64,
}

impl Shard {
    async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let first = match self.held_back.take() {
                Some(submission) => submission,
                None => tokio::select! {
                    biased;
                    received = self.receiver.recv() => match received {
                        Some(submission) => submission,
                        None => return,
                    },
                    () = shutdown.cancelled() => {
                        self.receiver.close();
                        match self.receiver.recv().await {
                            Some(submission) => submission,
                            None => return,
                        }
                    }
                },
            };
            let batch = self.gather(first).await;
            self.write(batch).await;
        }
    }

    /// Takes what waits, and under load lingers for a little more.
    async fn gather(&mut self, first: Submission) -> Vec<Submission> {
        let mut bytes = first.bytes;
        let mut events = first.drafts.len();
        let mut batch = vec![first];
        let linger = self.linger(batch[0].drafts.len());
        let deadline = tokio::time::Instant::now() + linger;
        loop {
            let next = match self.receiver.try_recv() {
                Ok(next) => next,
                Err(_) if linger.is_zero() => break,
                Err(_) => match tokio::time::timeout_at(deadline, self.receiver.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => break,
                },
            };
            let full = bytes + next.bytes > self.settings.max_append_bytes
                || events + next.drafts.len() > MAX_BLOCK_EVENTS as usize;
            if full {
                self.held_back = Some(next);
                break;
            }
            bytes += next.bytes;
            events += next.drafts.len();
            batch.push(next);
        }
        self.recent_callers = self.recent_callers * 0.8 + batch.len() as f64 * 0.2;
        batch
    }

    /// Nothing while calls are rare or large; up to the limit when many small ones come together.
    fn linger(&self, first_events: usize) -> Duration {
        if self.recent_callers < 2.0 || first_events >= 256 {
            return Duration::ZERO;
        }
        self.settings.max_linger.mul_f64((self.recent_callers / 32.0).min(1.0))
    }

    async fn write(&mut self, batch: Vec<Submission>) {
        let mut builders: BTreeMap<BlockOf, BlockBuilder> = BTreeMap::new();
        let mut shares = Vec::with_capacity(batch.len());
        for submission in batch {
            let of = (submission.workspace, submission.partition, submission.generation);
            let builder = builders.entry(of).or_default();
            let start = builder.len() as u64;
            for (_, draft) in &submission.drafts {
                builder.push(draft.source, draft.minute, &draft.bytes);
            }
            shares.push((of, start, submission));
        }
        let appended = self.append(builders).await;
        let fate = |of: &BlockOf, start: u64| match &appended {
            Ok(blocks) => match blocks.get(of) {
                Some(Appended::At(first)) => Fate::Stored(Some(later(*first, start))),
                Some(Appended::Somewhere) => Fate::Stored(None),
                Some(Appended::Stale) => Fate::Stale,
                None => Fate::Failed(AppendError::Unavailable {
                    why: "the store did not answer for the block".to_owned(),
                }),
            },
            Err(error) => Fate::Failed(error.clone()),
        };
        let settled =
            shares.into_iter().map(|(of, start, submission)| (submission, fate(&of, start))).collect();
        if let Some(spreader) = self.spreader.upgrade() {
            spreader.settle(settled);
        }
    }

    async fn append(
        &self,
        builders: BTreeMap<BlockOf, BlockBuilder>,
    ) -> Result<BTreeMap<BlockOf, Appended>, AppendError> {
        let started = std::time::Instant::now();
        let unavailable = |why: String| AppendError::Unavailable { why };
        let mut blocks: Vec<NewBlock> = Vec::with_capacity(builders.len());
        let mut plain_bytes = Vec::with_capacity(builders.len());
        for ((workspace, partition, generation), builder) in builders {
            plain_bytes.push(builder.plain_bytes());
            let block = builder.finish().map_err(|e| unavailable(e.to_string()))?;
            blocks.push(NewBlock { workspace, partition, generation, block });
        }
        let appended = self.journal.append(&blocks).await.inspect_err(|_| {
            metrics::counter!("tracklayer_journal_append_failures_total").increment(1);
        })?;
        let mut counted = Counted::default();
        for ((block, appended), plain_bytes) in blocks.iter().zip(&appended).zip(plain_bytes) {
            if *appended != Appended::Stale {
                counted.add(&block.block, plain_bytes);
            }
        }
        counted.tell();
        metrics::histogram!("tracklayer_journal_append_seconds").record(started.elapsed().as_secs_f64());
        let of = |block: &NewBlock| (block.workspace, block.partition, block.generation);
        Ok(blocks.iter().map(of).zip(appended).collect())
    }
}

/// What one block is of.
type BlockOf = (WorkspaceId, Partition, Generation);

/// What an append has stored.
#[derive(Default)]
struct Counted {
    blocks: u64,
    events: u64,
    plain_bytes: u64,
    stored_bytes: u64,
}

impl Counted {
    fn add(&mut self, block: &Block, plain_bytes: usize) {
        self.blocks += 1;
        self.events += u64::from(block.header.event_count);
        self.plain_bytes += plain_bytes as u64;
        self.stored_bytes += block.payload.len() as u64;
    }

    fn tell(&self) {
        metrics::counter!("tracklayer_journal_appended_events_total").increment(self.events);
        metrics::counter!("tracklayer_journal_appended_plain_bytes_total").increment(self.plain_bytes);
        metrics::counter!("tracklayer_journal_appended_stored_bytes_total").increment(self.stored_bytes);
        metrics::counter!("tracklayer_journal_appended_blocks_total").increment(self.blocks);
    }
}
