//! One connection's circuit: its states, and who of its lanes may try.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::watch;
use tracklayer_destination::outcome::LONGEST_WAIT;
use tracklayer_destination::{HoldKind, Pauses};
use tracklayer_ids::{ConnectionId, Partition};

use super::{Blocked, Trouble};
use crate::clock::{Clock, Due};

/// Requests in a row that fail as a whole until the circuit opens: one more than a single connection that broke explains.
const FAILURES: u32 = 3;
/// So many lanes have to fail, where there are so many: one alone may have an event that the platform always fails over.
const WITNESSES: usize = 2;
/// The shortest and the longest time that a circuit is open where the platform names none; where it says that there is too much,
/// that is the platform's: see [`Pauses`].
const FIRST: Duration = Duration::from_secs(1);
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// Until the next look while somebody else's event is tried.
const LOOK: Duration = Duration::from_secs(1);
/// So much later may the lane try again that tried in vain, while others wait: longer than they take to wake up and plan.
const LATER: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Circuit {
    revision: u64,
    /// How long it is open where the platform says that there is too much and names no time.
    pauses: Pauses,
    state: State,
    /// How often it opened since a request that was no try succeeded.
    opened: u32,
    kind: HoldKind,
    detail: String,
    /// The longest wait that a platform has asked for, in whatever state.
    asked: Option<Due>,
    /// The lanes that have joined; a successor may join before its predecessor is gone.
    lanes: HashMap<Partition, u32>,
    /// Whose requests failed since one was answered.
    failing: HashSet<Partition>,
    /// Who waits.
    waiting: HashSet<Partition>,
    /// Whose event was tried last, in vain.
    in_vain: Option<Partition>,
    answered: u64,
    /// Told when it closes.
    closes: watch::Sender<()>,
    counted: Option<Counted>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { due: Due },
    Tried { number: u64 },
}

/// What a lane that asks is given.
#[derive(Debug)]
pub(super) enum Asked {
    Free,
    Try(u64),
}

/// A circuit as one of those of this process that are not closed, for as long as it is not.
#[derive(Debug)]
struct Counted(metrics::Gauge);

impl Counted {
    fn new(kind: HoldKind) -> Self {
        let circuits = metrics::gauge!("tracklayer_delivery_open_circuits", "kind" => kind.as_str());
        circuits.increment(1.0);
        Self(circuits)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Default for Circuit {
    fn default() -> Self {
        Self {
            revision: 0,
            pauses: Pauses::USUAL,
            state: State::Closed { failures: 0 },
            opened: 0,
            kind: HoldKind::Transient,
            detail: String::new(),
            asked: None,
            lanes: HashMap::new(),
            failing: HashSet::new(),
            waiting: HashSet::new(),
            in_vain: None,
            answered: 0,
            closes: watch::Sender::new(()),
            counted: None,
        }
    }
}

impl Circuit {
    pub(super) fn join(&mut self, lane: Partition) {
        *self.lanes.entry(lane).or_default() += 1;
    }

    /// Whether that was the last lane.
    pub(super) fn leave(&mut self, lane: Partition) -> bool {
        if let Some(count) = self.lanes.get_mut(&lane) {
            *count -= 1;
            if *count == 0 {
                self.lanes.remove(&lane);
                self.waiting.remove(&lane);
                self.failing.remove(&lane);
            }
        }
        self.lanes.is_empty()
    }

    pub(super) fn pauses_as(&mut self, pauses: Pauses) {
        self.pauses = pauses;
    }

    /// Begins anew for a new revision, since its address or its credential may be another. Whether that revision is the newest.
    pub(super) fn renew(&mut self, revision: u64, connection: ConnectionId) -> bool {
        if revision > self.revision {
            if self.counted.is_some() {
                tracing::debug!(
                    connection = connection.0,
                    "a new revision of the connection: the circuit is closed"
                );
            }
            self.close();
            self.revision = revision;
            self.opened = 0;
        }
        revision == self.revision
    }

    pub(super) fn ask(&mut self, lane: Partition, clock: &Clock) -> Result<Asked, Blocked> {
        self.look(lane, clock)?;
        if let State::Closed { .. } = self.state {
            return Ok(Asked::Free);
        }
        self.waiting.remove(&lane);
        let number = fastrand::u64(..);
        self.state = State::Tried { number };
        metrics::counter!("tracklayer_delivery_circuit_tries_total").increment(1);
        Ok(Asked::Try(number))
    }

    pub(super) fn look(&mut self, lane: Partition, clock: &Clock) -> Result<(), Blocked> {
        let Some(blocked) = self.blocked(lane, clock) else { return Ok(()) };
        if !blocked.is_tried && clock.left(&blocked.due).is_zero() {
            return Ok(());
        }
        self.waiting.insert(lane);
        Err(blocked)
    }

    pub(super) fn blocked(&self, lane: Partition, clock: &Clock) -> Option<Blocked> {
        let (due, is_tried) = match self.state {
            State::Closed { .. } => return None,
            State::Open { due } if self.lets_others_try(lane) => (due.put_off(LATER), false),
            State::Open { due } => (due, false),
            State::Tried { .. } => (clock.due_in(LOOK), true),
        };
        Some(Blocked { kind: self.kind, detail: self.detail.clone(), due, is_tried })
    }

    fn lets_others_try(&self, lane: Partition) -> bool {
        self.in_vain == Some(lane) && self.waiting.iter().any(|waiting| *waiting != lane)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.closes.subscribe()
    }

    pub(super) fn came_to_nothing(&mut self, number: u64, clock: &Clock) {
        if self.is_tried_as(Some(number)) {
            self.state = State::Open { due: self.not_before(clock.due_in(Duration::ZERO), clock) };
        }
    }

    pub(super) fn worked(&mut self, connection: ConnectionId, tried: Option<u64>, clock: &Clock) {
        self.answered += 1;
        match self.state {
            State::Closed { .. } => {
                self.state = State::Closed { failures: 0 };
                self.opened = 0;
                self.failing.clear();
                self.waiting.clear();
            }
            State::Tried { .. } if self.is_tried_as(tried) => {
                let now = clock.due_in(Duration::ZERO);
                let due = self.not_before(now, clock);
                if due != now {
                    // Somebody was asked to wait meanwhile.
                    self.state = State::Open { due };
                    return;
                }
                tracing::info!(
                    connection = connection.0,
                    "the platform answers again; the circuit is closed"
                );
                metrics::counter!("tracklayer_delivery_circuit_changes_total", "to" => "closed").increment(1);
                self.close();
            }
            State::Open { .. } | State::Tried { .. } => {}
        }
    }

    pub(super) fn failed(
        &mut self,
        connection: ConnectionId,
        lane: Partition,
        tried: Option<u64>,
        trouble: &Trouble,
        clock: &Clock,
    ) {
        if let Some(after) = trouble.after {
            self.asked = Some(self.not_before(clock.due_in(after.min(LONGEST_WAIT)), clock));
        }
        self.waiting.insert(lane);
        match self.state {
            State::Closed { failures } => {
                let failures = failures + 1;
                self.failing.insert(lane);
                let enough = if self.opened > 0 { 1 } else { FAILURES };
                let witnesses = self.lanes.len().min(WITNESSES);
                let is_down = failures >= enough && self.failing.len() >= witnesses;
                if trouble.is_certain() || is_down {
                    self.open(connection, trouble, clock);
                } else {
                    self.state = State::Closed { failures };
                }
            }
            State::Tried { .. } if self.is_tried_as(tried) => {
                self.in_vain = Some(lane);
                self.open(connection, trouble, clock);
            }
            // It was under way when the circuit opened: what it was asked to wait counts.
            State::Open { due } => self.state = State::Open { due: self.not_before(due, clock) },
            State::Tried { .. } => {}
        }
    }

    fn is_tried_as(&self, tried: Option<u64>) -> bool {
        matches!(self.state, State::Tried { number } if tried == Some(number))
    }

    /// Then, or when the wait is over that was asked for, whichever is later.
    fn not_before(&self, due: Due, clock: &Clock) -> Due {
        self.asked.map_or(due, |asked| clock.later(due, asked))
    }

    fn close(&mut self) {
        self.state = State::Closed { failures: 0 };
        self.counted = None;
        self.asked = None;
        self.in_vain = None;
        self.failing.clear();
        self.waiting.clear();
        self.closes.send_replace(());
    }

    fn open(&mut self, connection: ConnectionId, trouble: &Trouble, clock: &Clock) {
        self.opened += 1;
        self.kind = trouble.kind;
        self.detail.clone_from(&trouble.detail);
        let wait = match trouble.after {
            Some(after) => after.min(LONGEST_WAIT),
            None if trouble.kind == HoldKind::Throttled => open_for(self.opened, self.pauses),
            None => open_for(self.opened, Pauses { first: FIRST, longest: LONGEST }),
        };
        let due = self.not_before(clock.due_in(wait), clock);
        self.state = State::Open { due };
        let (kind, seconds) = (trouble.kind.as_str(), clock.left(&due).as_secs_f64());
        // Told once, not by each lane, and not at each try.
        if self.counted.is_none() {
            metrics::counter!("tracklayer_delivery_circuit_changes_total", "to" => "open").increment(1);
            tracing::warn!(
                connection = connection.0, kind, error = %trouble.detail, seconds,
                "the platform fails whole requests; the circuit is open, and single events are tried"
            );
        } else {
            tracing::debug!(
                connection = connection.0, kind, error = %trouble.detail, seconds,
                "an event was tried in vain"
            );
        }
        self.counted = Some(Counted::new(trouble.kind));
    }
}

/// How long a circuit is open that has opened so often: twice as long each time, and up to half of it less by chance, so that
/// processes do not try in step.
fn open_for(opened: u32, pauses: Pauses) -> Duration {
    let ceiling = pauses.first.saturating_mul(1 << opened.saturating_sub(1).min(20)).min(pauses.longest);
    ceiling.mul_f64(0.5 + 0.5 * fastrand::f64())
}
