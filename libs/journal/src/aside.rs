//! Threads beside a runtime on which large pieces of work are polled, as many as may be on a processor at once.
//!
//! What is polled there is inside the runtime all the same: its connections, timers and tasks are the runtime's own. A second
//! runtime would not do, since connections that are opened on it, and shared, are told of their answers by its busy threads.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_task::Runnable;
use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use tracing::Instrument as _;

use crate::pressure::Pressure;

/// Added to the threads' nice value (man 7 sched, "The nice value"): where cores are short, each step is about a quarter less of them.
const GIVES_WAY: i32 = 5;
/// The largest nice value.
const LAST: i32 = 19;
/// Between two looks whether there is work again.
const REST: Duration = Duration::from_millis(50);

/// Told now and then, for as long as there are the threads, for how much of each step's time they pause after it.
pub(crate) type Tell = dyn Fn(f32) + Send + Sync;

/// The threads, made when they are needed for the first time.
pub(crate) struct Aside {
    threads: usize,
    tell: Arc<Tell>,
    /// None: there was no thread to be had.
    queue: OnceLock<Option<Sender<Runnable>>>,
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aside").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Aside {
    pub(crate) fn new(threads: usize, tell: Arc<Tell>) -> Self {
        Self { threads, tell, queue: OnceLock::new() }
    }

    /// Polls work there; ends it where nobody waits for it any more. A panic goes on in whoever waits.
    pub(crate) async fn run<F>(&self, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let begin = || start(self.threads, Arc::clone(&self.tell));
        let Some(queue) = self.queue.get_or_init(begin).clone() else { return work.await };
        let schedule = move |runnable| {
            // Its threads are there for as long as there is a sender.
            let _ = queue.send(runnable);
        };
        let work = work.in_current_span();
        let (runnable, task) = async_task::Builder::new().propagate_panic(true).spawn(|()| work, schedule);
        runnable.schedule();
        task.await
    }
}

fn start(threads: usize, tell: Arc<Tell>) -> Option<Sender<Runnable>> {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let work = Arc::<Work>::default();
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        spawned.inspect_err(|error| tracing::error!(%error, name, "no thread for large work")).is_ok()
    };
    let mut made = 0;
    for _ in 0..threads {
        let (runtime, receiver, work) = (Handle::current(), receiver.clone(), Arc::clone(&work));
        made += usize::from(spawn("large-work", Box::new(move || serve(&runtime, &receiver, &work))));
    }
    let served = made > 0;
    if served {
        spawn("large-work-look", Box::new(move || look(&work, tell.as_ref())));
    }
    Some(sender).filter(|_| served)
}

/// What the threads know of each other.
#[derive(Debug, Default)]
struct Work {
    pressure: Pressure,
    /// Steps so far.
    steps: AtomicUsize,
}

fn serve(runtime: &Handle, queue: &Receiver<Runnable>, work: &Work) {
    let _inside = runtime.enter();
    if let Err(error) = give_way() {
        tracing::warn!(%error, "large work does not give way to small work");
    }
    for runnable in queue {
        let begun = Instant::now();
        runnable.run();
        work.steps.fetch_add(1, Ordering::Relaxed);
        let pause = work.pressure.pause(begun.elapsed());
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

/// Looks whether the processor is short, for as long as there is work.
fn look(work: &Arc<Work>, tell: &Tell) {
    let mut seen = 0;
    // Ends with the threads, which hold it as well.
    while Arc::strong_count(work) > 1 {
        let steps = work.steps.load(Ordering::Relaxed);
        if std::mem::replace(&mut seen, steps) == steps {
            work.pressure.ease();
            std::thread::sleep(REST);
        } else {
            work.pressure.look();
        }
        tell(work.pressure.share());
    }
    tell(0.0);
}

/// Of this thread alone: Linux has a nice value for each.
fn give_way() -> rustix::io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    rustix::process::setpriority_process(None, (nice + GIVES_WAY).min(LAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_threads_pause_after_each_step_while_cores_are_short() {
        const STEP: Duration = Duration::from_millis(4);
        let (sender, receiver) = crossbeam_channel::unbounded();
        let work = Arc::<Work>::default();
        work.pressure.set(5.0);
        let runtime = Handle::current();
        let (begins, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            serve(&runtime, &receiver, &work);
            work.steps.load(Ordering::Relaxed)
        });
        for _ in 0..3 {
            let (queue, begins) = (sender.clone(), begins.clone());
            let step = async move {
                let _ = begins.send(Instant::now());
                std::thread::sleep(STEP);
            };
            let (runnable, task) = async_task::spawn(step, move |runnable| {
                let _ = queue.send(runnable);
            });
            runnable.schedule();
            task.detach();
        }
        drop((sender, begins));
        assert_eq!(thread.join().unwrap(), 3);
        let begun: Vec<Instant> = begun.iter().collect();
        assert!(begun.windows(2).all(|two| two[1] - two[0] >= STEP * 6), "{begun:?}");
    }
}
