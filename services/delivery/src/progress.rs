//! How far the journal and resolve have come, per partition: what resolve loops and lanes wait on.
//!
//! One poll per process reads all heads and cursors; resolve also tells its lanes directly, so that the usual way waits for
//! no poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{ConnectionId, Partition, Position, WorkspaceId};
use tracklayer_journal::{Journal, JournalError};

use crate::resolve::error_chain;
use crate::store::cursors::CursorStore;

/// How far resolve may be ahead of the foremost lane, events. Beyond it nobody has use for more, and what waits longer than the
/// cache of decoded events holds it is read and decoded again, once for every lane.
const AHEAD: u64 = 1_000;
/// How far behind resolve a lane that is not the foremost may be and still be waited for, events: about what the cache of decoded
/// events holds of a partition. Lanes that keep together read what is there.
const REACH: u64 = 4_000;
/// Of how many parts of its time resolve spends one, at most, waiting for such lanes: a platform that is a little slower than the
/// others costs them no more.
const PATIENCE: u32 = 10;
/// Most that is saved up for one wait.
const MOST_PATIENCE: Duration = Duration::from_millis(200);
/// Longest wait for lanes: resolve goes on slowly whatever they do, so that links and signals are known in time.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Pause after a poll that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The ends of one partition: the next position that will be written.
pub struct PartitionProgress {
    /// Of `received`.
    pub received: watch::Sender<Position>,
    /// Of `resolved`.
    pub resolved: watch::Sender<Position>,
    /// Up to where this process itself has resolved; none: it has not.
    here: Mutex<Option<Position>>,
    /// Where this process' lanes stand that are on and not held.
    lanes: watch::Sender<HashMap<ConnectionId, Position>>,
    patience: Mutex<Patience>,
}

impl PartitionProgress {
    fn new(begin: Position) -> Self {
        Self {
            received: watch::Sender::new(begin),
            resolved: watch::Sender::new(begin),
            here: Mutex::default(),
            lanes: watch::Sender::default(),
            patience: Mutex::new(Patience { saved: Duration::ZERO, since: Instant::now() }),
        }
    }

    /// This process has resolved that far.
    pub fn resolved_here(&self, end: Position) {
        *self.here.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        Progress::raise(&self.resolved, end);
    }

    /// Where `resolved` ends, if it was this process that came there and nobody is known to have come further: to look for more is in
    /// vain, unless another process has taken resolve over a moment ago. None: only the database knows.
    #[must_use]
    pub fn end_here(&self) -> Option<Position> {
        let here = *self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.filter(|here| *here == *self.resolved.borrow())
    }

    /// A lane has come that far and goes on.
    pub fn lane_stands(&self, connection: ConnectionId, at: Position) {
        self.lanes.send_if_modified(|lanes| lanes.insert(connection, at) != Some(at));
    }

    /// A lane is held, off, or has ended: nobody waits for it.
    pub fn lane_rests(&self, connection: ConnectionId) {
        self.lanes.send_if_modified(|lanes| lanes.remove(&connection).is_some());
    }

    /// Whether a lane of this process is about to read what is resolved now.
    #[must_use]
    pub fn has_lanes(&self) -> bool {
        !self.lanes.borrow().is_empty()
    }

    /// Waits until the foremost lane has come near to where resolve stands, and a little for those close behind it. It is the
    /// foremost, so that a slow platform never holds up the others; where every lane is held, nobody is waited for.
    pub async fn lanes_near(&self, resolve: Position) {
        let mut lanes = self.lanes.subscribe();
        let is_within = |at: &Position, distance: u64| {
            at.generation != resolve.generation || at.offset.0.saturating_add(distance) > resolve.offset.0
        };
        let near = lanes.wait_for(|lanes| {
            let foremost = lanes.values().max_by_key(|at| (at.generation, at.offset));
            foremost.is_none_or(|at| is_within(at, AHEAD))
        });
        let _ = tokio::time::timeout(LONGEST_WAIT, near).await;
        let together = lanes.wait_for(|lanes| {
            lanes.values().filter(|at| is_within(at, REACH)).all(|at| is_within(at, AHEAD))
        });
        let begun = Instant::now();
        let most = self.patience().at(begun);
        let _ = tokio::time::timeout(most, together).await;
        self.patience().spend(begun, Instant::now());
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time for waiting, saved up while nobody waits.
struct Patience {
    saved: Duration,
    since: Instant,
}

impl Patience {
    fn at(&mut self, now: Instant) -> Duration {
        let more = now.saturating_duration_since(self.since) / PATIENCE;
        self.saved = (self.saved + more).min(MOST_PATIENCE);
        self.since = now;
        self.saved
    }

    fn spend(&mut self, from: Instant, to: Instant) {
        self.saved = self.saved.saturating_sub(to.saturating_duration_since(from));
        self.since = to;
    }
}

type Partitions = HashMap<(WorkspaceId, Partition), Arc<PartitionProgress>>;

/// All partitions. Cheap to clone.
#[derive(Clone, Default)]
pub struct Progress {
    partitions: Arc<Mutex<Partitions>>,
    /// The most partitions that a workspace has or had.
    widths: Arc<Mutex<HashMap<WorkspaceId, u32>>>,
}

impl Progress {
    /// The ends of a partition.
    #[must_use]
    pub fn partition(&self, workspace: WorkspaceId, partition: Partition) -> Arc<PartitionProgress> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Position::new(1, partition.0, 0);
        let entry = partitions.entry((workspace, partition));
        Arc::clone(entry.or_insert_with(|| Arc::new(PartitionProgress::new(begin))))
    }

    /// The most partitions that a workspace has or had, as the journal and the cursors know it; 0 before it has any.
    #[must_use]
    pub fn width(&self, workspace: WorkspaceId) -> u32 {
        self.widths.lock().unwrap_or_else(PoisonError::into_inner).get(&workspace).copied().unwrap_or(0)
    }

    /// Forgets all ends, which may be beyond those of another history of the database. Who has asked for a partition before keeps
    /// what it has, and ends.
    pub fn forget(&self) {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn widen(&self, workspace: WorkspaceId, partitions: u32) {
        let mut widths = self.widths.lock().unwrap_or_else(PoisonError::into_inner);
        let width = widths.entry(workspace).or_default();
        *width = partitions.max(*width);
    }

    /// Raises an end; never lowers it.
    pub fn raise(end: &watch::Sender<Position>, position: Position) {
        end.send_if_modified(|known| {
            let higher = (position.generation, position.offset) > (known.generation, known.offset);
            if higher {
                *known = position;
            }
            higher
        });
    }

    /// Polls until `shutdown`. A database that is away is only a later answer.
    pub async fn poll(
        self,
        journal: Arc<dyn Journal>,
        cursors: CursorStore,
        interval: Duration,
        shutdown: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match self.poll_once(journal.as_ref(), &cursors).await {
                Ok(()) => failing = false,
                Err(error) => {
                    // Told once: the database may be away for as long as it likes.
                    if !std::mem::replace(&mut failing, true) {
                        let error = error_chain(error.as_ref());
                        tracing::warn!(error, "layouts, heads and cursors could not be read; trying on");
                    }
                    ticks.reset_after(AFTER_FAILURE.max(interval));
                }
            }
        }
    }

    async fn poll_once(
        &self,
        journal: &dyn Journal,
        cursors: &CursorStore,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        for (workspace, layout) in journal.layouts().await? {
            self.widen(workspace, layout.partitions);
        }
        for head in journal.heads().await? {
            let end = Position { generation: head.generation, partition: head.partition, offset: head.next };
            Self::raise(&self.partition(head.workspace, head.partition).received, end);
            self.widen(head.workspace, head.partition.0 + 1);
        }
        for cursor in cursors.all_resolve().await? {
            let end =
                Position { generation: cursor.generation, partition: cursor.partition, offset: cursor.next };
            Self::raise(&self.partition(cursor.workspace, cursor.partition).resolved, end);
            self.widen(cursor.workspace, cursor.partition.0 + 1);
        }
        Ok(())
    }
}

/// The most partitions that a workspace has or had, as the journal knows it, or is to have.
///
/// # Errors
/// The journal.
pub async fn width(
    journal: &dyn Journal,
    workspace: WorkspaceId,
    configured: u32,
) -> Result<u32, JournalError> {
    let layouts = journal.layouts().await?;
    let widths = layouts.iter().filter(|(of, _)| *of == workspace).map(|(_, layout)| layout.partitions);
    let heads = journal.heads().await?;
    let heads = heads.iter().filter(|head| head.workspace == workspace).map(|head| head.partition.0 + 1);
    Ok(widths.chain(heads).max().unwrap_or(0).max(configured).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: ConnectionId = ConnectionId(1);
    const TIKTOK: ConnectionId = ConnectionId(2);

    fn at(offset: u64) -> Position {
        Position::new(1, 0, offset)
    }

    async fn is_near(progress: &PartitionProgress, resolve: Position) -> bool {
        let begun = tokio::time::Instant::now();
        progress.lanes_near(resolve).await;
        begun.elapsed() < LONGEST_WAIT
    }

    #[tokio::test(start_paused = true)]
    async fn resolve_waits_for_the_foremost_lane() {
        let progress = PartitionProgress::new(at(0));
        assert!(is_near(&progress, at(1_000_000)).await, "no lane of this process");
        progress.lane_stands(META, at(100));
        assert!(is_near(&progress, at(AHEAD + 99)).await);
        assert!(!is_near(&progress, at(AHEAD + 100)).await, "a second is the longest wait");
        progress.lane_stands(TIKTOK, at(1_000));
        assert!(is_near(&progress, at(AHEAD + 100)).await, "the slower one holds up nobody");
        progress.lane_rests(TIKTOK);
        assert!(!is_near(&progress, at(AHEAD + 100)).await);
        progress.lane_rests(META);
        assert!(is_near(&progress, at(AHEAD + 100)).await, "all are held");
        progress.lane_stands(META, at(100));
        assert!(is_near(&progress, Position::new(2, 0, 1_000_000)).await, "a generation is no distance");
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_close_behind_are_waited_for_a_tenth_of_the_time_and_no_others() {
        let waited = async |progress: &PartitionProgress, resolve| {
            let begun = Instant::now();
            progress.lanes_near(resolve).await;
            begun.elapsed().as_millis()
        };
        let progress = PartitionProgress::new(at(0));
        progress.lane_stands(META, at(5_000));
        progress.lane_stands(TIKTOK, at(3_000));
        assert_eq!(waited(&progress, at(5_000)).await, 0, "nothing is saved yet");
        let (begun, mut in_all) = (Instant::now(), 0);
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            in_all += waited(&progress, at(5_000)).await;
        }
        let share = begun.elapsed().as_millis() / in_all;
        assert_eq!(
            (in_all / 50, share),
            (30, 11),
            "a platform that stays close behind costs the others a tenth"
        );
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(waited(&progress, at(5_000)).await, 200, "the most that is saved up");
        tokio::time::sleep(Duration::from_secs(60)).await;
        progress.lane_stands(META, at(3_000 + REACH));
        assert_eq!(waited(&progress, at(3_000 + REACH)).await, 0, "out of reach");
        progress.lane_stands(TIKTOK, at(4_500));
        assert_eq!(waited(&progress, at(5_000)).await, 0, "near enough");
    }

    #[test]
    fn the_end_is_known_where_this_process_came_there_and_nobody_went_further() {
        let progress = PartitionProgress::new(at(0));
        assert_eq!(progress.end_here(), None, "it has resolved nothing yet");
        progress.resolved_here(at(3));
        assert_eq!((progress.end_here(), *progress.resolved.borrow()), (Some(at(3)), at(3)));
        Progress::raise(&progress.resolved, at(5));
        assert_eq!(progress.end_here(), None, "another process has it by now");
        progress.resolved_here(at(8));
        assert_eq!(progress.end_here(), Some(at(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_of_another_history_of_the_database_is_forgotten() {
        let (progress, workspace) = (Progress::default(), WorkspaceId(1));
        let before = progress.partition(workspace, Partition(0));
        Progress::raise(&before.resolved, at(5_000));
        Progress::raise(&progress.partition(workspace, Partition(0)).resolved, at(4_900));
        assert_eq!(*before.resolved.borrow(), at(5_000), "an end is never lowered");
        progress.forget();
        let after = progress.partition(workspace, Partition(0));
        Progress::raise(&after.resolved, at(4_900));
        assert_eq!(*after.resolved.borrow(), at(4_900));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_moves_ends_the_wait() {
        let progress = Arc::new(PartitionProgress::new(at(0)));
        progress.lane_stands(META, at(0));
        let waiting = tokio::spawn({
            let progress = Arc::clone(&progress);
            async move { is_near(&progress, at(AHEAD)).await }
        });
        tokio::task::yield_now().await;
        progress.lane_stands(META, at(1));
        assert!(waiting.await.unwrap());
    }
}
