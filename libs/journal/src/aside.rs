//! Threads beside a runtime on which large pieces of work are polled, as many as may be on a processor at once.
//!
//! What is polled there is inside the runtime all the same: its connections, timers and tasks are the runtime's own. A second
//! runtime would not do, since connections that are opened on it, and shared, are told of their answers by its busy threads.

use std::future::Future;
use std::sync::OnceLock;

use async_task::Runnable;
use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use tracing::Instrument as _;

/// Added to the threads' nice value (man 7 sched, "The nice value"): where cores are short, each step is about a quarter less of them.
const GIVES_WAY: i32 = 5;
/// The largest nice value.
const LAST: i32 = 19;

/// The threads, made when they are needed for the first time.
#[derive(Debug)]
pub(crate) struct Aside {
    threads: usize,
    /// None: there was no thread to be had.
    queue: OnceLock<Option<Sender<Runnable>>>,
}

impl Aside {
    pub(crate) const fn new(threads: usize) -> Self {
        Self { threads, queue: OnceLock::new() }
    }

    /// Polls work there; ends it where nobody waits for it any more. A panic goes on in whoever waits.
    pub(crate) async fn run<F>(&self, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let Some(queue) = self.queue.get_or_init(|| start(self.threads)).clone() else { return work.await };
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

fn start(threads: usize) -> Option<Sender<Runnable>> {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let mut made = 0;
    for _ in 0..threads {
        let (runtime, receiver) = (Handle::current(), receiver.clone());
        let thread = std::thread::Builder::new().name("large-work".to_owned());
        match thread.spawn(move || serve(&runtime, &receiver)) {
            Ok(_) => made += 1,
            Err(error) => tracing::error!(%error, "no thread for large work"),
        }
    }
    Some(sender).filter(|_| made > 0)
}

fn serve(runtime: &Handle, queue: &Receiver<Runnable>) {
    let _inside = runtime.enter();
    if let Err(error) = give_way() {
        tracing::warn!(%error, "large work does not give way to small work");
    }
    for runnable in queue {
        runnable.run();
    }
}

/// Of this thread alone: Linux has a nice value for each.
fn give_way() -> rustix::io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    rustix::process::setpriority_process(None, (nice + GIVES_WAY).min(LAST))
}
