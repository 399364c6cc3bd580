//! What much work of one workspace leaves to little work of others. A workspace with much to do works in large pieces, or in
//! many, in many places at once, and could keep every core and the disk busy; what another one has just handed over would wait
//! behind all of them. So while there is somebody who does far less, it has half of the cores. With nobody else there, it has all.
//!
//! Who does much is told by what was done lately, and not by the size of a piece: one that floods with small requests is none of
//! the small ones.
//!
//! Two things are shared out. A *place* is for a whole piece, with its statements and calls: it bounds what databases and
//! services are asked for at once. The *processor* is for its computing: a small piece needs it some twenty times, for a fraction
//! of a millisecond each, and in one queue of ready tasks it would wait each time for milliseconds of many large ones. So
//! who gives way is polled on threads of their own, as many as half of the cores ([`Headroom::aside`]), which pause while
//! cores are short. What others wait for meanwhile, such as a connection to a database and what is locked over it, is not held through
//! such pauses: [`not_aside`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;
use tracklayer_ids::WorkspaceId;

use crate::aside::Aside;

/// How long a workspace counts as there after it has done something.
const THERE: Duration = Duration::from_secs(1);
/// What is done is forgotten at this rate: of a steady stream about a second's worth is remembered.
const MEMORY: Duration = Duration::from_secs(1);
/// Events of a second from which on somebody may have to give way.
const MUCH: f64 = 200.0;
/// So many bytes are as much work as one event.
const BYTES_OF_AN_EVENT: f64 = 2_500.0;
/// To somebody who does less than this part of it.
const FAR_LESS: f64 = 0.25;
/// Workspaces that are remembered: the newest.
const MOST: usize = 64;
/// While somebody else is there, one large piece is cut into so many.
const CUT: i64 = 8;
/// Longest wait for a place. Who holds one may itself wait for a database or a service that is slow for one workspace: that must
/// hold up nobody else for longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Workspaces that give way.
const ASIDE: &str = "tracklayer_headroom_aside_workspaces";
/// How much large work pauses.
const PAUSE: &str = "tracklayer_headroom_pause_ratio";

tokio::task_local! {
    /// Where the work stands that is being polled.
    static STAND: Arc<Stand>;
}

/// Shared by all that do the same kind of work in a process.
#[derive(Debug)]
pub struct Headroom {
    large: Arc<Semaphore>,
    aside: Aside,
    lately: Arc<Lately>,
}

/// What workspaces have done lately.
#[derive(Debug, Default)]
struct Lately(Mutex<Vec<Done>>);

#[derive(Debug)]
struct Done {
    workspace: WorkspaceId,
    /// As of `at`.
    events: f64,
    at: Instant,
}

impl Done {
    fn events(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.events * (-passed / MEMORY.as_secs_f64()).exp()
    }

    fn is_there(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < THERE
    }
}

impl Lately {
    /// How many workspaces are to give way.
    fn give_way(&self, now: Instant) -> usize {
        let lately = self.lock();
        let of_those_there = lately.iter().filter(|done| done.is_there(now)).map(|done| done.events(now));
        let least = of_those_there.fold(f64::INFINITY, f64::min);
        let gives_way = |own: f64| own >= MUCH && least < own * FAR_LESS;
        lately.iter().filter(|done| gives_way(done.events(now))).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Done>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Headroom {
    /// Lets so many large pieces be at work beside small ones; at least one.
    #[must_use]
    pub fn new(large_at_once: usize) -> Self {
        Self::told_as("", large_at_once)
    }

    /// With half of the cores for large pieces, told in metrics as that of a service.
    #[must_use]
    pub fn of_service(service: &'static str) -> Self {
        let half = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        Self::told_as(service, half)
    }

    fn told_as(service: &'static str, large_at_once: usize) -> Self {
        metrics::describe_gauge!(
            ASIDE,
            "workspaces that do much and give way, beside somebody who does far less"
        );
        metrics::describe_gauge!(
            PAUSE,
            "how many times a step's time large work pauses after it since cores are short, 0 to 9"
        );
        let large_at_once = large_at_once.max(1);
        let lately = Arc::<Lately>::default();
        let told = Arc::clone(&lately);
        let tell = move |pauses: f32| {
            metrics::gauge!(ASIDE, "service" => service).set(told.give_way(Instant::now()) as f64);
            metrics::gauge!(PAUSE, "service" => service).set(f64::from(pauses));
        };
        Self {
            large: Arc::new(Semaphore::new(large_at_once)),
            aside: Aside::new(large_at_once, Arc::new(tell)),
            lately,
        }
    }

    /// Tells of work on so many events, and so many bytes.
    pub fn did(&self, workspace: WorkspaceId, events: usize, bytes: usize) {
        let (now, did) = (Instant::now(), (events as f64).max(bytes as f64 / BYTES_OF_AN_EVENT));
        let mut lately = self.lock();
        if let Some(done) = lately.iter_mut().find(|done| done.workspace == workspace) {
            (done.events, done.at) = (done.events(now) + did, now);
            return;
        }
        if lately.len() >= MOST
            && let Some((oldest, _)) = lately.iter().enumerate().min_by_key(|(_, done)| done.at)
        {
            lately.swap_remove(oldest);
        }
        lately.push(Done { workspace, events: did, at: now });
    }

    /// Whether these workspaces are to give way: they do much, and somebody does far less.
    pub fn gives_way(&self, is_own: impl Fn(WorkspaceId) -> bool) -> bool {
        let now = Instant::now();
        let lately = self.lock();
        let own: f64 = lately.iter().filter(|done| is_own(done.workspace)).map(|done| done.events(now)).sum();
        let does_less =
            |done: &Done| !is_own(done.workspace) && done.is_there(now) && done.events(now) < own * FAR_LESS;
        own >= MUCH && lately.iter().any(does_less)
    }

    /// Whether more than one workspace was there lately.
    pub fn several_are_there(&self) -> bool {
        let now = Instant::now();
        self.lock().iter().filter(|done| done.is_there(now)).nth(1).is_some()
    }

    /// How much of `most` is to be one piece: a part, if they give way. Databases and services do in one go what a piece
    /// asks of them, and know nothing of who waits behind it.
    pub fn piece(&self, is_own: impl Fn(WorkspaceId) -> bool, most: i64) -> i64 {
        if self.gives_way(is_own) { (most / CUT).max(1) } else { most }
    }

    /// Waits for a place, to be kept while a piece is at work. None: it needs none, since they do not give way, or it has waited
    /// long enough.
    pub async fn large(&self, is_own: impl Fn(WorkspaceId) -> bool) -> Option<OwnedSemaphorePermit> {
        if !self.gives_way(is_own) {
            return None;
        }
        tokio::time::timeout(PATIENCE, Arc::clone(&self.large).acquire_owned()).await.ok()?.ok()
    }

    /// Does a piece of work aside, for as long as it holds nothing that others wait for, or here.
    pub async fn work<F>(self: &Arc<Self>, aside: bool, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if aside { self.to_and_fro(None, work).await } else { work.await }
    }

    /// Does work of a workspace: aside for as long as it gives way, and holds nothing that others wait for.
    pub async fn wherever<F>(self: &Arc<Self>, own: WorkspaceId, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.to_and_fro(Some(own), work).await
    }

    /// `own`: none for what goes aside whatever its workspace does.
    async fn to_and_fro<F>(self: &Arc<Self>, own: Option<WorkspaceId>, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let stand = Arc::<Stand>::default();
        let mut work = Box::pin(STAND.scope(Arc::clone(&stand), work));
        loop {
            let here = |work, aside| Here {
                headroom: Arc::clone(self),
                stand: Arc::clone(&stand),
                own,
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

    fn lock(&self) -> MutexGuard<'_, Vec<Done>> {
        self.lately.lock()
    }
}

impl Default for Headroom {
    fn default() -> Self {
        Self::of_service("")
    }
}

/// Does work that holds what others wait for, such as a transaction. It is polled here, and not [aside](Headroom::wherever), where
/// it would keep that through the pauses, and for as long as others are polled on those threads.
pub async fn not_aside<F: Future>(work: F) -> F::Output {
    let Ok(stand) = STAND.try_with(Arc::clone) else { return work.await };
    let comes_from_aside = stand.is_aside.load(Ordering::Relaxed);
    let holds = Holds::new(stand);
    if comes_from_aside {
        // It goes on here, and holds nothing before that.
        tokio::task::yield_now().await;
    }
    let done = work.await;
    drop(holds);
    if comes_from_aside {
        // And aside again, before whatever follows.
        tokio::task::yield_now().await;
    }
    done
}

/// Where a work stands.
#[derive(Debug, Default)]
struct Stand {
    is_aside: AtomicBool,
    /// How many of its parts hold what others wait for.
    holding: AtomicUsize,
}

/// A part of a work holds something for as long as there is this.
struct Holds(Arc<Stand>);

impl Holds {
    fn new(stand: Arc<Stand>) -> Self {
        stand.holding.fetch_add(1, Ordering::Relaxed);
        Self(stand)
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        self.0.holding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Work for as long as it may stay where it is polled; comes back when it is to go on elsewhere.
struct Here<F> {
    headroom: Arc<Headroom>,
    stand: Arc<Stand>,
    own: Option<WorkspaceId>,
    /// Whether it is polled aside.
    aside: bool,
    work: Option<Pin<Box<Standing<F>>>>,
}

/// Work that can be asked where it stands.
type Standing<F> = TaskLocalFuture<Arc<Stand>, F>;

impl<F> Here<F> {
    fn is_to_be_aside(&self) -> bool {
        self.stand.holding.load(Ordering::Relaxed) == 0
            && self.own.is_none_or(|own| self.headroom.gives_way(|seen| seen == own))
    }
}

impl<F: Future> Future for Here<F> {
    type Output = Result<F::Output, Pin<Box<Standing<F>>>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // It is gone only when this future has ended, which is polled no more then.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        // Whatever woke it is not lost: where it goes on it is polled at once.
        if self.is_to_be_aside() != self.aside {
            return Poll::Ready(Err(work));
        }
        self.stand.is_aside.store(self.aside, Ordering::Relaxed);
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
    use std::sync::mpsc;

    use futures::FutureExt as _;

    use super::*;

    const ONE: WorkspaceId = WorkspaceId(1);
    const TWO: WorkspaceId = WorkspaceId(2);
    const THREE: WorkspaceId = WorkspaceId(3);

    /// `ONE` does much beside `TWO`.
    fn with_much(threads: usize) -> Arc<Headroom> {
        let headroom = Headroom::new(threads);
        headroom.did(ONE, 100_000, 0);
        headroom.did(TWO, 1, 0);
        Arc::new(headroom)
    }

    fn gives_way(headroom: &Headroom, workspace: WorkspaceId) -> bool {
        headroom.gives_way(|own| own == workspace)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_much_gives_way_to_who_does_far_less() {
        let headroom = Headroom::new(1);
        headroom.did(ONE, 2_000, 0);
        assert!(!gives_way(&headroom, ONE), "alone with itself");
        headroom.did(TWO, 1_000, 0);
        assert!(!gives_way(&headroom, ONE) && !gives_way(&headroom, TWO), "both do much");
        headroom.did(THREE, 1, 0);
        let give_way = [ONE, TWO, THREE].map(|workspace| gives_way(&headroom, workspace));
        assert_eq!(give_way, [true, true, false]);
        assert_eq!(headroom.lately.give_way(Instant::now()), 2);
        assert!(!headroom.gives_way(|_| true), "whoever asks for all of them");
        tokio::time::advance(THERE).await;
        assert!(!gives_way(&headroom, ONE), "the other was there too long ago");
        assert_eq!(headroom.lately.give_way(Instant::now()), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_workspace_is_not_several_however_much_it_does() {
        let headroom = Headroom::new(1);
        headroom.did(ONE, 1, 0);
        headroom.did(ONE, 100_000, 0);
        assert!(!headroom.several_are_there());
        headroom.did(TWO, 1, 0);
        assert!(headroom.several_are_there());
        tokio::time::advance(THERE).await;
        headroom.did(ONE, 1, 0);
        assert!(!headroom.several_are_there(), "the other was there too long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn many_small_pieces_and_few_of_many_bytes_are_much_as_well() {
        let headroom = Headroom::new(1);
        headroom.did(TWO, 1, 1_000);
        headroom.did(ONE, 1, 600_000);
        assert!(gives_way(&headroom, ONE));
        for _ in 0..700 {
            headroom.did(THREE, 1, 1_000);
        }
        assert!(gives_way(&headroom, THREE));
        assert!(!gives_way(&headroom, TWO));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_done_is_forgotten() {
        let headroom = with_much(1);
        let now = Instant::now();
        let lately = headroom.lock();
        let after = |seconds| lately[0].events(now + Duration::from_secs(seconds));
        assert!((36_000.0..37_500.0).contains(&after(1)), "{}", after(1));
        assert!(after(7) < MUCH);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_workspaces_are_remembered_and_the_newest() {
        let headroom = with_much(1);
        for other in 10..1_000 {
            headroom.did(WorkspaceId(other), 1, 0);
            headroom.did(ONE, 1, 0);
            tokio::time::advance(Duration::from_micros(1)).await;
        }
        assert_eq!(headroom.lock().len(), MOST);
        assert!(gives_way(&headroom, ONE));
    }

    /// None: it waits.
    fn large(headroom: &Headroom, workspace: WorkspaceId) -> Option<Option<OwnedSemaphorePermit>> {
        headroom.large(|own| own == workspace).now_or_never()
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_way_takes_turns_and_in_smaller_pieces() {
        let headroom = with_much(1);
        let held = large(&headroom, ONE).unwrap();
        assert!(held.is_some());
        assert!(large(&headroom, ONE).is_none(), "a second one waits");
        let begun = Instant::now();
        assert!(headroom.large(|own| own == ONE).await.is_none());
        assert!(begun.elapsed() >= PATIENCE, "and not for ever");
        drop(held);
        assert!(large(&headroom, ONE).unwrap().is_some());
        assert!(large(&headroom, TWO).unwrap().is_none(), "the other needs none");
        let piece = |workspace, most| headroom.piece(|own| own == workspace, most);
        assert_eq!([piece(ONE, 2_000), piece(ONE, 3), piece(TWO, 2_000)], [250, 1, 2_000]);
    }

    fn thread() -> Option<String> {
        std::thread::current().name().map(str::to_owned)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_ready_goes_on_while_a_large_piece_is_on_the_processor() {
        let headroom = with_much(1);
        let (sender, receiver) = mpsc::channel();
        // It keeps its thread until another task, in the queue of the only worker, has run.
        let large = {
            let headroom = Arc::clone(&headroom);
            let work = async move { receiver.recv_timeout(Duration::from_secs(20)) };
            tokio::spawn(async move { headroom.work(true, work).await })
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
            let work = async move {
                for _ in 0..20 {
                    let others = now.fetch_add(1, Ordering::SeqCst);
                    most.fetch_max(others + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(500));
                    now.fetch_sub(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            };
            pieces.spawn(async move { headroom.work(true, work).await });
        }
        while let Some(ended) = pieces.join_next().await {
            ended.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_aside_while_it_gives_way_and_comes_back() {
        let headroom = Arc::new(Headroom::new(1));
        let work = {
            let headroom = Arc::clone(&headroom);
            async move {
                let mut threads = vec![thread()];
                headroom.did(ONE, 100_000, 0);
                headroom.did(TWO, 1, 0);
                // Timers and tasks are those of the runtime, wherever it is polled.
                tokio::time::sleep(Duration::from_millis(1)).await;
                threads.push(thread());
                threads.push(tokio::spawn(async { thread() }).await.unwrap());
                headroom.did(TWO, 100_000, 0);
                tokio::task::yield_now().await;
                threads.push(thread());
                threads
            }
        };
        let here = thread();
        let threads = headroom.wherever(ONE, work).await;
        let aside = Some("large-work".to_owned());
        assert_eq!(threads, [here.clone(), aside, here.clone(), here]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_wait_for_is_held_here_and_never_aside() {
        let headroom = with_much(1);
        let work = || async {
            let begun = thread();
            let holds = async {
                let first = thread();
                tokio::time::sleep(Duration::from_millis(1)).await;
                [first, thread()]
            };
            let [first, second] = not_aside(holds).await;
            [begun, first, second, thread()]
        };
        let (here, aside) = (thread(), Some("large-work".to_owned()));
        let expected = [aside.clone(), here.clone(), here.clone(), aside];
        assert_eq!(headroom.wherever(ONE, work()).await, expected, "for as long as it gives way");
        assert_eq!(headroom.work(true, work()).await, expected, "a piece");
        let all_here = [here.clone(), here.clone(), here.clone(), here];
        assert_eq!(headroom.wherever(TWO, work()).await, all_here);
        assert_eq!(work().await, all_here, "and where nobody is asked who gives way");
    }

    #[tokio::test]
    async fn a_panic_aside_goes_on_in_whoever_waits_and_the_threads_stay() {
        let headroom = Arc::new(Headroom::new(1));
        for _ in 0..2 {
            let headroom = Arc::clone(&headroom);
            let waits = tokio::spawn(async move {
                headroom.work(true, async { panic!("of the work") }).await;
            });
            let panic = waits.await.unwrap_err().into_panic();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"of the work"));
        }
        let after = headroom.work(true, async { thread() }).await;
        assert_eq!(after.as_deref(), Some("large-work"));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_dropped() {
        let headroom = Arc::new(Headroom::new(1));
        let (kept, was_aside) = (Arc::new(()), Arc::<AtomicBool>::default());
        let (held, is_aside) = (Arc::clone(&kept), Arc::clone(&was_aside));
        let work = headroom.work(true, async move {
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
