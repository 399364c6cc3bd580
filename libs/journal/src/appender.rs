//! Group commit: concurrent small requests share one block, one row and one sync of the disk.
//!
//! Partitions go to a few shards. Of a workspace a shard has one append under way at a time, so that what one caller handed
//! over first also gets the lower offset. While an append is under way the next block fills by itself; a linger that grows
//! with the load keeps single events from becoming single rows, and is zero when there is nothing to gather.
//!
//! Fair: workspaces take turns, and those of which much waits are written apart from those of which little does
//! ([`crate::turns`]), so that nobody waits behind all that another one has handed over.
//!
//! Bounded: what waits is counted in bytes, and shared by the workspaces; above the limit a caller is told to come back.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracklayer_ids::{Generation, Offset, Partition, Position, SourceId, WorkspaceId};

use crate::Draft;
use crate::block::{Block, BlockBuilder};
use crate::error::AppendError;
use crate::headroom::{Headroom, not_aside};
use crate::journal::{Appended, Journal, NewBlock, Spread};
use crate::postgres::MAX_BLOCK_EVENTS;
use crate::spread::{Call, Fate, Spreader, Stored, Submission};
use crate::turns::{Size, Turns};
use crate::waiting::WaitingRoom;

/// How the appender gathers.
#[derive(Debug, Clone)]
pub struct AppenderSettings {
    /// Shards, 1 to 64: each has at most two appends under way, one of workspaces with little and one of those with much.
    pub shards: usize,
    /// Longest wait for more events under load.
    pub max_linger: Duration,
    /// Most bytes of one append, before compression.
    pub max_append_bytes: usize,
    /// Most bytes that may wait over all shards and workspaces, of which none gets all; above it callers are told to come back.
    pub max_waiting_bytes: usize,
    /// What large appends leave to small ones, shared with what else the process does for workspaces.
    pub headroom: Arc<Headroom>,
}

impl Default for AppenderSettings {
    fn default() -> Self {
        Self {
            shards: 4,
            max_linger: Duration::from_millis(2),
            max_append_bytes: 2 * 1024 * 1024,
            max_waiting_bytes: 48 * 1024 * 1024,
            headroom: Arc::default(),
        }
    }
}

/// Hands events to the journal. Cheap to clone.
#[derive(Clone)]
pub struct Appender {
    spreader: Arc<Spreader>,
    waiting: Arc<WaitingRoom>,
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
        let waiting = Arc::new(WaitingRoom::new(settings.max_waiting_bytes));
        let spreader = Arc::new(Spreader::new(Arc::clone(&journal), senders, tasks.clone()));
        for receiver in receivers {
            let shard = Shard {
                journal: Arc::clone(&journal),
                settings: settings.clone(),
                // Not its owner: when the last appender is gone, there is nobody to answer, and the shards end.
                spreader: Arc::downgrade(&spreader),
                receiver,
                waiting: Turns::default(),
                headroom: Arc::clone(&settings.headroom),
                recent_callers: 0.0,
            };
            tasks.spawn(shard.run(shutdown.clone()));
        }
        tasks.close();
        Self { spreader, waiting, tasks }
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
        // They are of one request, and so of one source.
        let source = drafts.first().map_or(SourceId(0), |draft| draft.source);
        let room = self.waiting.take(workspace, source, bytes)?;
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
        self.waiting.bytes()
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
    waiting: Turns<Submission>,
    headroom: Arc<Headroom>,
    /// Smoothed number of callers per append: how much a linger would gather.
    recent_callers: f64,
}

impl Shard {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut writing = JoinSet::new();
        let mut busy: HashSet<Size> = HashSet::new();
        let (mut open, mut told) = (true, false);
        loop {
            self.take_in();
            for size in [Size::Small, Size::Large] {
                if busy.contains(&size) || !self.waiting.has(size) {
                    continue;
                }
                if size == Size::Small {
                    self.linger().await;
                }
                let batch = self.gather(size);
                if !batch.is_empty() {
                    busy.insert(size);
                    let (journal, spreader) = (Arc::clone(&self.journal), self.spreader.clone());
                    let headroom = Arc::clone(&self.headroom);
                    writing.spawn(async move {
                        let workspaces: HashSet<WorkspaceId> =
                            batch.iter().map(|submission| submission.workspace).collect();
                        let is_own = |own| workspaces.contains(&own);
                        let aside = size == Size::Large && headroom.gives_way(is_own);
                        let _place = if aside { headroom.large(is_own).await } else { None };
                        let write = async move { write(journal.as_ref(), &spreader, batch).await };
                        headroom.work(aside, write).await;
                        (size, workspaces)
                    });
                }
            }
            if !open && writing.is_empty() && self.waiting.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(written) = writing.join_next() => match written {
                    Ok((size, workspaces)) => {
                        busy.remove(&size);
                        self.waiting.written(workspaces);
                    }
                    Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                },
                received = self.receiver.recv(), if open => match received {
                    Some(submission) => self.waiting.push(submission),
                    None => open = false,
                },
                () = shutdown.cancelled(), if !told => {
                    told = true;
                    self.receiver.close();
                }
            }
        }
    }

    /// Puts what was handed over into its queue.
    fn take_in(&mut self) {
        while let Ok(submission) = self.receiver.try_recv() {
            self.waiting.push(submission);
        }
    }

    /// Under load waits for a little more: nothing while calls are rare, up to the limit when many small ones come together.
    async fn linger(&mut self) {
        if self.recent_callers < 2.0 {
            return;
        }
        let linger = self.settings.max_linger.mul_f64((self.recent_callers / 32.0).min(1.0));
        let deadline = tokio::time::Instant::now() + linger;
        while let Ok(Some(submission)) = tokio::time::timeout_at(deadline, self.receiver.recv()).await {
            self.waiting.push(submission);
        }
    }

    /// Takes what is to be written together.
    fn gather(&mut self, size: Size) -> Vec<Submission> {
        let (mut bytes, mut events) = (0, 0);
        let batch = self.waiting.take(size, |next| {
            bytes += next.bytes;
            events += next.drafts.len();
            bytes <= self.settings.max_append_bytes && events <= MAX_BLOCK_EVENTS as usize
        });
        if size == Size::Small {
            self.recent_callers = self.recent_callers * 0.8 + batch.len() as f64 * 0.2;
        }
        batch
    }
}

/// Appends a batch and answers for it.
async fn write(journal: &dyn Journal, spreader: &Weak<Spreader>, batch: Vec<Submission>) {
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
    let appended = append(journal, builders).await;
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
    let settled = shares.into_iter().map(|(of, start, submission)| (submission, fate(&of, start))).collect();
    if let Some(spreader) = spreader.upgrade() {
        spreader.settle(settled);
    }
}

async fn append(
    journal: &dyn Journal,
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
    // Over a connection of which there are few.
    let appended = not_aside(journal.append(&blocks)).await.inspect_err(|_| {
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
