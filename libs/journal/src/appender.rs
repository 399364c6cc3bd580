//! Group commit: concurrent small requests share one block, one row and one sync of the disk.
//!
//! Partitions are spread over a few shards; a shard has one append under way at a time, so that what one caller handed
//! over first also gets the lower offset. While an append is under way the next block fills by itself; a linger that grows
//! with the load keeps single events from becoming single rows, and is zero when there is nothing to gather.
//!
//! Bounded: what waits is counted in bytes, and above the limit a caller is told to come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracklayer_ids::{Offset, Partition, Position, WorkspaceId};

use crate::Draft;
use crate::block::BlockBuilder;
use crate::error::AppendError;
use crate::journal::{Journal, NewBlock};
use crate::postgres::MAX_BLOCK_EVENTS;

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
            max_linger: Duration::from_millis(3),
            max_append_bytes: 2 * 1024 * 1024,
            max_waiting_bytes: 48 * 1024 * 1024,
        }
    }
}

struct Submission {
    workspace: WorkspaceId,
    partition: Partition,
    drafts: Vec<Draft>,
    bytes: usize,
    answer: oneshot::Sender<Result<Option<Position>, AppendError>>,
}

/// Hands events to the journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Appender {
    shards: Arc<Vec<mpsc::UnboundedSender<Submission>>>,
    waiting_bytes: Arc<AtomicUsize>,
    limit_bytes: usize,
    tasks: TaskTracker,
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
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let tasks = TaskTracker::new();
        let shards = (0..settings.shards.clamp(1, 64))
            .map(|_| {
                // Unbounded in messages, bounded in bytes: `append` counts before it sends.
                let (sender, receiver) = mpsc::unbounded_channel();
                let shard = Shard {
                    journal: Arc::clone(&journal),
                    settings: settings.clone(),
                    waiting_bytes: Arc::clone(&waiting_bytes),
                    receiver,
                    held_back: None,
                    recent_callers: 0.0,
                };
                tasks.spawn(shard.run(shutdown.clone()));
                sender
            })
            .collect();
        tasks.close();
        Self { shards: Arc::new(shards), waiting_bytes, limit_bytes: settings.max_waiting_bytes, tasks }
    }

    /// Appends events of one workspace and answers when all of them are durable: the position of each, in order, where the
    /// journal knows it by then. (Over Kafka it is given by who reads.)
    ///
    /// # Errors
    /// Overloaded (nothing was stored), stopped, or the database away (some may be stored: repeat under the same ids).
    pub async fn append(
        &self,
        workspace: WorkspaceId,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Option<Position>>, AppendError> {
        let total_bytes: usize = drafts.iter().map(|d| d.bytes.len() + 8).sum();
        let waiting = self.waiting_bytes.fetch_add(total_bytes, Ordering::AcqRel) + total_bytes;
        if waiting > self.limit_bytes {
            self.waiting_bytes.fetch_sub(total_bytes, Ordering::AcqRel);
            return Err(AppendError::Overloaded {
                waiting_bytes: waiting,
                limit_bytes: self.limit_bytes,
                retry_after: Duration::from_secs(1),
            });
        }

        let mut by_partition: BTreeMap<Partition, (Vec<usize>, Vec<Draft>)> = BTreeMap::new();
        let count = drafts.len();
        for (index, draft) in drafts.into_iter().enumerate() {
            let group = by_partition.entry(draft.partition).or_default();
            group.0.push(index);
            group.1.push(draft);
        }
        let mut waits = Vec::with_capacity(by_partition.len());
        for (partition, (indexes, drafts)) in by_partition {
            let bytes = drafts.iter().map(|d| d.bytes.len() + 8).sum();
            let (answer, receiver) = oneshot::channel();
            let submission = Submission { workspace, partition, drafts, bytes, answer };
            if self.shards[self.shard_of(workspace, partition)].send(submission).is_err() {
                self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            }
            waits.push((indexes, receiver));
        }
        let mut positions = vec![None; count];
        for (indexes, receiver) in waits {
            let first = receiver.await.map_err(|_| AppendError::Stopped)??;
            for (step, index) in indexes.into_iter().enumerate() {
                positions[index] = first.map(|first| later(first, step as u64));
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

    fn shard_of(&self, workspace: WorkspaceId, partition: Partition) -> usize {
        let spread = workspace.0.unsigned_abs().wrapping_mul(31).wrapping_add(u64::from(partition.0));
        usize::try_from(spread % self.shards.len() as u64).unwrap_or(0)
    }
}

/// The position so many events further on.
fn later(position: Position, events: u64) -> Position {
    Position { offset: Offset(position.offset.0 + events), ..position }
}

struct Shard {
    journal: Arc<dyn Journal>,
    settings: AppenderSettings,
    waiting_bytes: Arc<AtomicUsize>,
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
        let mut builders: BTreeMap<(WorkspaceId, Partition), BlockBuilder> = BTreeMap::new();
        let mut shares = Vec::with_capacity(batch.len());
        let mut bytes = 0;
        for submission in batch {
            let key = (submission.workspace, submission.partition);
            let builder = builders.entry(key).or_default();
            let start = builder.len() as u64;
            for draft in &submission.drafts {
                builder.push(draft.source, draft.minute, &draft.bytes);
            }
            bytes += submission.bytes;
            shares.push((key, start, submission.answer));
        }
        let result = self.append(builders).await;
        self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
        for (key, start, answer) in shares {
            let share = match &result {
                Ok(firsts) => firsts.get(&key).map_or_else(
                    || {
                        Err(AppendError::Unavailable {
                            why: "the store did not answer for the block".to_owned(),
                        })
                    },
                    |first| Ok(first.map(|first| later(first, start))),
                ),
                Err(error) => Err(error.clone()),
            };
            // The caller may have gone away; the events are durable all the same.
            let _ = answer.send(share);
        }
    }

    async fn append(
        &self,
        builders: BTreeMap<(WorkspaceId, Partition), BlockBuilder>,
    ) -> Result<BTreeMap<(WorkspaceId, Partition), Option<Position>>, AppendError> {
        let started = std::time::Instant::now();
        let unavailable = |why: String| AppendError::Unavailable { why };
        let mut blocks: Vec<NewBlock> = Vec::with_capacity(builders.len());
        let mut events = 0;
        let mut plain_bytes = 0;
        for ((workspace, partition), builder) in builders {
            events += builder.len();
            plain_bytes += builder.plain_bytes();
            let block = builder.finish().map_err(|e| unavailable(e.to_string()))?;
            blocks.push((workspace, partition, block));
        }
        let stored_bytes: usize = blocks.iter().map(|b| b.2.payload.len()).sum();
        let positions = self.journal.append(&blocks).await.inspect_err(|_| {
            metrics::counter!("tracklayer_journal_append_failures_total").increment(1);
        })?;
        metrics::counter!("tracklayer_journal_appended_events_total").increment(events as u64);
        metrics::counter!("tracklayer_journal_appended_plain_bytes_total").increment(plain_bytes as u64);
        metrics::counter!("tracklayer_journal_appended_stored_bytes_total").increment(stored_bytes as u64);
        metrics::counter!("tracklayer_journal_appended_blocks_total").increment(blocks.len() as u64);
        metrics::histogram!("tracklayer_journal_append_seconds").record(started.elapsed().as_secs_f64());
        Ok(blocks.iter().zip(positions).map(|(block, position)| ((block.0, block.1), position)).collect())
    }
}
