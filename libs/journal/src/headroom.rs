//! What large work of one workspace leaves to small work of others. A workspace with much to do works in large pieces, in many
//! places at once, and could keep every core and the disk busy; what another one has just handed over would wait behind all of
//! them. So while there is somebody whose pieces are small, large ones have half of the cores. With nobody else there, they have
//! all.
//!
//! Two things are shared out. A *place* is for a whole large piece, with its statements and calls: it bounds what databases and
//! services are asked for at once. The *processor* is for its computing: a small piece needs it some twenty times, for a fraction
//! of a millisecond each, and in one queue of ready tasks it would wait each time for milliseconds of many large ones. So
//! large pieces are polled on threads of their own, as many as half of the cores ([`Headroom::aside`]), which pause while
//! cores are short.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracklayer_ids::WorkspaceId;

use crate::aside::Aside;

/// How long a workspace counts as there after a small piece.
const THERE: Duration = Duration::from_secs(1);
/// While somebody else is there, one large piece is cut into so many.
const CUT: i64 = 8;
/// Longest wait for a place. Who holds one may itself wait for a database or a service that is slow for one workspace: that must
/// hold up nobody else for longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Shared by all that do the same kind of work in a process.
#[derive(Debug)]
pub struct Headroom {
    large: Arc<Semaphore>,
    aside: Aside,
    /// The newest small pieces of two workspaces, the newer one first: one of them is another's, whoever asks.
    small: Mutex<[Option<(WorkspaceId, Instant)>; 2]>,
}

impl Headroom {
    /// Lets so many large pieces be at work beside small ones; at least one.
    #[must_use]
    pub fn new(large_at_once: usize) -> Self {
        let large_at_once = large_at_once.max(1);
        Self {
            large: Arc::new(Semaphore::new(large_at_once)),
            aside: Aside::new(large_at_once),
            small: Mutex::default(),
        }
    }

    /// Tells of a small piece.
    pub fn small(&self, workspace: WorkspaceId) {
        let mut small = self.lock();
        if small[0].is_some_and(|(newest, _)| newest != workspace) {
            small.swap(0, 1);
        }
        small[0] = Some((workspace, Instant::now()));
    }

    /// How much of `most` is to be one piece: a part, if somebody else is there. Databases and services do in one go what a piece
    /// asks of them, and know nothing of who waits behind it.
    pub fn piece(&self, is_own: impl Fn(WorkspaceId) -> bool, most: i64) -> i64 {
        if self.another_is_there(is_own) { (most / CUT).max(1) } else { most }
    }

    /// Waits for a place for a large piece, to be kept while it is at work. None: it needs none, since nobody else is there, or has
    /// waited long enough.
    pub async fn large(&self, is_own: impl Fn(WorkspaceId) -> bool) -> Option<OwnedSemaphorePermit> {
        if !self.another_is_there(is_own) {
            return None;
        }
        tokio::time::timeout(PATIENCE, Arc::clone(&self.large).acquire_owned()).await.ok()?.ok()
    }

    /// Does a large piece of work aside, if somebody else is there.
    pub async fn aside<F>(&self, is_own: impl Fn(WorkspaceId) -> bool, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if self.another_is_there(is_own) { self.aside.run(work).await } else { work.await }
    }

    /// Does work of a workspace that is large at times, as it says: then aside, if somebody else is there.
    pub async fn wherever<F>(
        self: &Arc<Self>,
        own: WorkspaceId,
        is_large: Arc<AtomicBool>,
        work: F,
    ) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut work = Box::pin(work);
        loop {
            let here = |work, aside| Here {
                headroom: Arc::clone(self),
                own,
                is_large: Arc::clone(&is_large),
                aside,
                work: Some(work),
            };
            match here(work, false).await {
                Ok(done) => return done,
                Err(moves) => work = moves,
            }
            match self.aside.run(here(work, true)).await {
                Ok(done) => return done,
                Err(moves) => work = moves,
            }
        }
    }

    fn another_is_there(&self, is_own: impl Fn(WorkspaceId) -> bool) -> bool {
        let there = |seen: &(WorkspaceId, Instant)| !is_own(seen.0) && seen.1.elapsed() < THERE;
        self.lock().iter().flatten().any(there)
    }

    fn lock(&self) -> MutexGuard<'_, [Option<(WorkspaceId, Instant)>; 2]> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Headroom {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2))
    }
}

/// Work for as long as it may stay where it is polled; comes back when it is to go on elsewhere.
struct Here<F> {
    headroom: Arc<Headroom>,
    own: WorkspaceId,
    is_large: Arc<AtomicBool>,
    /// Whether it is polled aside.
    aside: bool,
    work: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Here<F> {
    type Output = Result<F::Output, Pin<Box<F>>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // It is gone only when this future has ended, which is polled no more then.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let own = self.own;
        let belongs_aside =
            self.is_large.load(Ordering::Relaxed) && self.headroom.another_is_there(|seen| seen == own);
        // Whatever woke it is not lost: where it goes on it is polled at once.
        if belongs_aside != self.aside {
            return Poll::Ready(Err(work));
        }
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => {
                self.work = Some(work);
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use futures::FutureExt as _;

    use super::*;

    const ONE: WorkspaceId = WorkspaceId(1);
    const TWO: WorkspaceId = WorkspaceId(2);

    /// None: it waits.
    fn large(headroom: &Headroom, workspace: WorkspaceId) -> Option<Option<OwnedSemaphorePermit>> {
        headroom.large(|own| own == workspace).now_or_never()
    }

    #[tokio::test]
    async fn large_pieces_take_turns_only_while_another_workspace_has_small_ones() {
        let headroom = Headroom::new(1);
        headroom.small(ONE);
        assert!(large(&headroom, ONE).unwrap().is_none(), "alone with itself");
        headroom.small(TWO);
        let held = large(&headroom, ONE).unwrap();
        assert!(held.is_some());
        assert!(large(&headroom, ONE).is_none(), "a second one waits");
        let begun = Instant::now();
        assert!(headroom.large(|own| own == ONE).await.is_none());
        assert!(begun.elapsed() >= PATIENCE, "and not for ever");
        drop(held);
        assert!(large(&headroom, TWO).unwrap().is_some(), "the other is there as well");
    }

    #[test]
    fn a_large_piece_is_cut_only_while_another_workspace_has_small_ones() {
        let headroom = Headroom::new(1);
        let piece = |most| headroom.piece(|own| own == ONE, most);
        headroom.small(ONE);
        assert_eq!(piece(2_000), 2_000, "alone with itself");
        headroom.small(TWO);
        assert_eq!([2_000, 3].map(piece), [250, 1]);
    }

    #[tokio::test]
    async fn many_small_pieces_of_one_do_not_hide_another() {
        let headroom = Headroom::new(1);
        headroom.small(TWO);
        for _ in 0..3 {
            headroom.small(ONE);
        }
        assert!(large(&headroom, ONE).unwrap().is_some() && large(&headroom, TWO).unwrap().is_some());
    }

    const LARGE: fn() -> Arc<AtomicBool> = || Arc::new(AtomicBool::new(true));

    fn thread() -> Option<String> {
        std::thread::current().name().map(str::to_owned)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_ready_goes_on_while_a_large_piece_is_on_the_processor() {
        let headroom = Arc::new(Headroom::new(1));
        headroom.small(TWO);
        let (sender, receiver) = mpsc::channel();
        // It keeps its thread until another task, in the queue of the only worker, has run.
        let large = {
            let headroom = Arc::clone(&headroom);
            let work = async move { receiver.recv_timeout(Duration::from_secs(20)) };
            tokio::spawn(async move { headroom.aside(|own| own == ONE, work).await })
        };
        let small = tokio::spawn(async move { sender.send(7) });
        assert_eq!(large.await.unwrap(), Ok(7));
        small.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn as_many_large_pieces_are_on_the_processor_as_there_are_threads() {
        let headroom = Arc::new(Headroom::new(2));
        let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut pieces = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (now, most, headroom) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&headroom));
            headroom.small(TWO);
            let work = async move {
                for _ in 0..20 {
                    let others = now.fetch_add(1, Ordering::SeqCst);
                    most.fetch_max(others + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(500));
                    now.fetch_sub(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            };
            pieces.spawn(async move { headroom.aside(|own| own == ONE, work).await });
        }
        while let Some(ended) = pieces.join_next().await {
            ended.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn work_goes_aside_while_it_is_large_and_another_is_there_and_comes_back() {
        let headroom = Arc::new(Headroom::new(1));
        let is_large = LARGE();
        let work = {
            let (headroom, is_large) = (Arc::clone(&headroom), Arc::clone(&is_large));
            async move {
                let mut threads = vec![thread()];
                headroom.small(TWO);
                // Timers and tasks are those of the runtime, wherever it is polled.
                tokio::time::sleep(Duration::from_millis(1)).await;
                threads.push(thread());
                threads.push(tokio::spawn(async { thread() }).await.unwrap());
                is_large.store(false, Ordering::Relaxed);
                tokio::task::yield_now().await;
                threads.push(thread());
                threads
            }
        };
        let here = thread();
        let threads = headroom.wherever(ONE, is_large, work).await;
        let aside = Some("large-work".to_owned());
        assert_eq!(threads, [here.clone(), aside, here.clone(), here]);
    }

    #[tokio::test]
    async fn a_panic_aside_goes_on_in_whoever_waits_and_the_threads_stay() {
        let headroom = Arc::new(Headroom::new(1));
        for _ in 0..2 {
            headroom.small(TWO);
            let headroom = Arc::clone(&headroom);
            let waits = tokio::spawn(async move {
                headroom.aside(|own| own == ONE, async { panic!("of the work") }).await;
            });
            let panic = waits.await.unwrap_err().into_panic();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"of the work"));
        }
        headroom.small(TWO);
        let after = headroom.aside(|own| own == ONE, async { thread() }).await;
        assert_eq!(after.as_deref(), Some("large-work"));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_dropped() {
        let headroom = Arc::new(Headroom::new(1));
        headroom.small(TWO);
        let (kept, was_aside) = (Arc::new(()), Arc::<AtomicBool>::default());
        let (held, is_aside) = (Arc::clone(&kept), Arc::clone(&was_aside));
        let work = headroom.aside(|own| own == ONE, async move {
            let _held = held;
            is_aside.store(thread().as_deref() == Some("large-work"), Ordering::Relaxed);
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(200), work).await.is_err());
        assert!(was_aside.load(Ordering::Relaxed));
        // The threads drop it.
        let dropped = async {
            while Arc::strong_count(&kept) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), dropped).await.is_ok());
    }
}
