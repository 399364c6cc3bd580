//! Which partition an event goes to, also while their number changes.
//!
//! What was handed over first stands first, for each partition key, whatever happens meanwhile: a layout changes only while
//! nothing of its workspace is on its way to the disk. When a shard finds that another layout is open, or a newer configuration
//! asks for one, what comes is parked; what is on its way is stored, or comes back unstored and is parked as well; then the
//! journal is asked, and all of it goes on in the order in which it had come. Only this process is held up so, and only for a
//! workspace whose layout changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracklayer_ids::{Generation, Partition, Position, WorkspaceId};

use crate::Draft;
use crate::error::AppendError;
use crate::journal::{Journal, Layout, Spread};
use crate::turns::Waits;
use crate::waiting::Room;

/// Where the answers for a caller's events go; dropped without one when the appender has stopped.
pub(crate) type Answers = mpsc::UnboundedSender<Result<Stored, AppendError>>;

/// Some of a caller's events are durable.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Which of them, by their number in the call.
    pub(crate) indexes: Vec<u32>,
    /// Where the first of them stands; the others follow. None: the journal does not know yet.
    pub(crate) first: Option<Position>,
}

/// Events of one caller, each with its number in the call.
pub(crate) struct Call {
    pub(crate) workspace: WorkspaceId,
    pub(crate) wanted: Spread,
    pub(crate) drafts: Vec<(u32, Draft)>,
    pub(crate) room: Room,
    pub(crate) answers: Answers,
}

/// Events of one caller for one partition, on their way to a shard.
pub(crate) struct Submission {
    pub(crate) workspace: WorkspaceId,
    pub(crate) partition: Partition,
    pub(crate) generation: Generation,
    pub(crate) drafts: Vec<(u32, Draft)>,
    pub(crate) bytes: usize,
    wanted: Spread,
    number: u64,
    room: Room,
    answers: Answers,
}

/// What became of a submission.
pub(crate) enum Fate {
    /// It is durable, and begins there, where that is known.
    Stored(Option<Position>),
    /// It was spread by a layout that is not open any more, and nothing of it is stored.
    Stale,
    /// It may be stored or not.
    Failed(AppendError),
}

/// Spreads calls over partitions, and these over shards.
pub(crate) struct Spreader {
    journal: Arc<dyn Journal>,
    shards: Vec<mpsc::UnboundedSender<Submission>>,
    workspaces: Mutex<HashMap<WorkspaceId, Way>>,
    tasks: TaskTracker,
}

/// The way of one workspace's events.
struct Way {
    phase: Phase,
    /// Version of the newest configuration that the journal was asked with.
    asked: u64,
    /// Calls so far.
    calls: u64,
    /// Submissions that shards have and have not answered.
    on_their_way: usize,
    /// What waits for a layout, with the number of its call.
    parked: Vec<(u64, Call)>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Events are spread by this layout.
    Open(Layout),
    /// Another one is needed, as soon as nothing is on its way any more.
    Draining,
    /// The journal is being asked.
    Asking,
}

impl Default for Way {
    fn default() -> Self {
        Self { phase: Phase::Draining, asked: 0, calls: 0, on_their_way: 0, parked: Vec::new() }
    }
}

impl Way {
    /// The layout for a call, unless it has to wait for another one.
    fn layout_for(&self, wanted: Spread) -> Option<Layout> {
        let Phase::Open(layout) = self.phase else { return None };
        let another = wanted.partitions != layout.partitions && wanted.revision > self.asked;
        (!another).then_some(layout)
    }

    fn park(&mut self, number: u64, call: Call) {
        self.parked.push((number, call));
        if let Phase::Open(_) = self.phase {
            self.phase = Phase::Draining;
        }
    }
}

impl Spreader {
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        shards: Vec<mpsc::UnboundedSender<Submission>>,
        tasks: TaskTracker,
    ) -> Self {
        Self { journal, shards, workspaces: Mutex::default(), tasks }
    }

    /// Takes a call over: it goes to the shards now, or when its layout is known.
    pub(crate) fn enter(self: &Arc<Self>, call: Call) {
        let workspace = call.workspace;
        let mut workspaces = self.lock();
        let way = workspaces.entry(workspace).or_default();
        way.calls += 1;
        let number = way.calls;
        match way.layout_for(call.wanted) {
            Some(layout) => self.hand_over(way, layout, number, call),
            None => {
                way.park(number, call);
                self.ask_if_quiet(workspace, way);
            }
        }
    }

    /// Answers for what a shard has written, and takes back what it could not write.
    pub(crate) fn settle(self: &Arc<Self>, settled: Vec<(Submission, Fate)>) {
        let mut answers = Vec::with_capacity(settled.len());
        let mut workspaces = self.lock();
        for (submission, fate) in settled {
            let workspace = submission.workspace;
            let way = workspaces.entry(workspace).or_default();
            way.on_their_way = way.on_their_way.saturating_sub(1);
            match fate {
                Fate::Stale => way.park(submission.number, submission.into_call()),
                Fate::Stored(first) => answers.push((submission, Ok(first))),
                Fate::Failed(error) => answers.push((submission, Err(error))),
            }
            self.ask_if_quiet(workspace, way);
        }
        drop(workspaces);
        for (submission, answer) in answers {
            let Submission { drafts, room, answers, .. } = submission;
            drop(room);
            let stored =
                |first| Stored { indexes: drafts.into_iter().map(|(index, _)| index).collect(), first };
            // The caller may have gone away; the events are durable all the same.
            let _ = answers.send(answer.map(stored));
        }
    }

    fn hand_over(&self, way: &mut Way, layout: Layout, number: u64, call: Call) {
        let Call { workspace, wanted, drafts, room, answers } = call;
        let mut by_partition: BTreeMap<Partition, Vec<(u32, Draft)>> = BTreeMap::new();
        for (index, draft) in drafts {
            by_partition.entry(draft.key.partition(layout.partitions)).or_default().push((index, draft));
        }
        for (partition, drafts) in by_partition {
            let submission = Submission {
                workspace,
                partition,
                generation: layout.generation,
                bytes: drafts.iter().map(|(_, draft)| draft.stored_bytes()).sum(),
                drafts,
                wanted,
                number,
                room: room.clone(),
                answers: answers.clone(),
            };
            if self.shards[self.shard_of(workspace, partition)].send(submission).is_ok() {
                way.on_their_way += 1;
            }
        }
    }

    fn shard_of(&self, workspace: WorkspaceId, partition: Partition) -> usize {
        let spread = workspace.0.unsigned_abs().wrapping_mul(31).wrapping_add(u64::from(partition.0));
        usize::try_from(spread % self.shards.len() as u64).unwrap_or(0)
    }

    fn ask_if_quiet(self: &Arc<Self>, workspace: WorkspaceId, way: &mut Way) {
        if matches!(way.phase, Phase::Draining) && way.on_their_way == 0 && !way.parked.is_empty() {
            way.phase = Phase::Asking;
            self.tasks.spawn(Arc::clone(self).ask(workspace));
        }
    }

    /// Asks the journal, and lets go what is parked; after an error it is answered with that, and whoever comes next asks again.
    async fn ask(self: Arc<Self>, workspace: WorkspaceId) {
        let newest = self.lock().get(&workspace).and_then(|way| {
            way.parked.iter().map(|(_, call)| call.wanted).max_by_key(|wanted| wanted.revision)
        });
        let Some(wanted) = newest else { return };
        let answer = self.journal.layout(workspace, wanted).await;
        let mut workspaces = self.lock();
        let way = workspaces.entry(workspace).or_default();
        let mut parked = std::mem::take(&mut way.parked);
        parked.sort_by_key(|(number, _)| *number);
        match answer {
            Ok(layout) => {
                way.phase = Phase::Open(layout);
                way.asked = way.asked.max(wanted.revision);
                parked.into_iter().for_each(|(number, call)| self.hand_over(way, layout, number, call));
            }
            Err(error) => {
                way.phase = Phase::Draining;
                drop(workspaces);
                for (_, call) in parked {
                    drop(call.room);
                    let _ = call.answers.send(Err(error.clone()));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Way>> {
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waits for Submission {
    fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Submission {
    fn into_call(self) -> Call {
        let Self { workspace, wanted, drafts, room, answers, .. } = self;
        Call { workspace, wanted, drafts, room, answers }
    }
}
