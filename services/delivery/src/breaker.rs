//! The circuit breaker of each connection, shared by its lanes in this process.
//!
//! A platform that is down is not asked by every lane. After a few requests in a row that failed as a whole the circuit opens: no
//! lane sends. When its time has come one lane at a time tries a single event; its answer closes the circuit or opens it again, for
//! longer. What a platform itself says of a wait (`Retry-After`, a usage header) opens it at once, for just so long. An answer that is
//! about events, whatever its status, is the answer of a platform that works.
//!
//! One event that a platform always fails over is no platform that is down: where a connection has several lanes, two of them have to
//! fail, and who tried in vain lets another lane that waits try first.
//!
//! ```text
//! closed ── three failures in a row, or a wait that was asked for ──► open ── its time has come ──► one event is tried
//!   ▲                                                                  ▲                               │         │
//!   │                                                                  └────────── it failed ──────────┘         │
//!   └──────────────────────────────────────────── it was answered ───────────────────────────────────────────────┘
//! ```
//!
//! Nothing of it is kept: a process that starts learns it anew, from three requests. Each process has circuits of its own, so that
//! as many events are tried at the same time as there are processes with a lane of the connection.

mod circuit;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracklayer_destination::{HoldKind, Pauses};
use tracklayer_ids::{ConnectionId, Partition};

use self::circuit::{Asked, Circuit};
use crate::clock::{Clock, Due};

/// The circuits of all connections in this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Breakers {
    clock: Clock,
    circuits: Arc<Mutex<HashMap<ConnectionId, Circuit>>>,
}

/// A lane at its connection's circuit, for as long as it runs. The circuit goes with the last of them.
#[derive(Debug)]
pub struct Joined {
    breakers: Breakers,
    connection: ConnectionId,
    lane: Partition,
}

/// A request that failed as a whole, for a reason that is not its events'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Of what kind.
    pub kind: HoldKind,
    /// For people.
    pub detail: String,
    /// How long the platform asks to wait.
    pub after: Option<Duration>,
}

impl Trouble {
    /// Whether one such answer is enough: the platform has said that the next request fares the same.
    fn is_certain(&self) -> bool {
        self.after.is_some() || matches!(self.kind, HoldKind::Throttled | HoldKind::Auth)
    }

    /// Whether it is about the account, whatever its credential: another revision of the connection fares the same.
    fn is_of_the_account(&self) -> bool {
        self.after.is_some() && self.kind == HoldKind::Throttled
    }
}

/// Whether a lane may send.
#[derive(Debug)]
pub enum Leave {
    /// As it likes.
    Free,
    /// A single event, to see whether the platform works again.
    Try(Try),
}

impl Leave {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Free => None,
            Self::Try(tried) => Some(tried.number),
        }
    }
}

/// Leave to try a single event. Dropped without a word of what came of it, another lane may try.
#[derive(Debug)]
pub struct Try {
    breakers: Breakers,
    connection: ConnectionId,
    number: u64,
}

impl Drop for Try {
    fn drop(&mut self) {
        if let Some(circuit) = self.breakers.circuits().get_mut(&self.connection) {
            circuit.came_to_nothing(self.number, &self.breakers.clock);
        }
    }
}

/// Why a lane may not send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Of what kind the trouble is.
    pub kind: HoldKind,
    /// What the platform said last.
    pub detail: String,
    /// When to ask again.
    pub due: Due,
    /// Whether somebody else's event is being tried.
    pub is_tried: bool,
}

impl Breakers {
    /// Closed circuits that go by that clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, circuits: Arc::default() }
    }

    /// Lets a lane have part in its connection's circuit.
    #[must_use]
    pub fn join(&self, connection: ConnectionId, lane: Partition) -> Joined {
        self.circuits().entry(connection).or_default().join(lane);
        Joined { breakers: self.clone(), connection, lane }
    }

    fn circuits(&self) -> MutexGuard<'_, HashMap<ConnectionId, Circuit>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Joined {
    /// How long the circuit is open where the platform says that there is too much and names no time.
    pub fn pauses_as(&self, pauses: Pauses) {
        self.with(|circuit, _| circuit.pauses_as(pauses));
    }

    /// Asks for leave to send.
    ///
    /// # Errors
    /// The circuit is open.
    pub fn ask(&self, revision: u64) -> Result<Leave, Blocked> {
        let asked = self.with(|circuit, clock| {
            circuit.renew(revision, self.connection);
            circuit.ask(self.lane, clock)
        })?;
        Ok(match asked {
            Asked::Free => Leave::Free,
            Asked::Try(number) => {
                Leave::Try(Try { breakers: self.breakers.clone(), connection: self.connection, number })
            }
        })
    }

    /// Makes sure that it is worth the work to ask: nothing is taken.
    ///
    /// # Errors
    /// The circuit is open, and it is not the lane's turn to try.
    pub fn look(&self, revision: u64) -> Result<(), Blocked> {
        self.with(|circuit, clock| {
            circuit.renew(revision, self.connection);
            circuit.look(self.lane, clock)
        })
    }

    /// Why the lane may not send at the moment, unless it tries.
    #[must_use]
    pub fn blocked(&self) -> Option<Blocked> {
        self.with(|circuit, clock| circuit.blocked(self.lane, clock))
    }

    /// How many requests of the connection were answered about their events, in this process.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.with(|circuit, _| circuit.answered())
    }

    /// A request was answered, and the answer was about its events. Of requests that were under way when the circuit opened this
    /// says nothing new: the event that is tried decides.
    pub fn worked(&self, revision: u64, leave: &Leave) {
        self.with(|circuit, clock| {
            if circuit.renew(revision, self.connection) {
                circuit.worked(self.connection, leave.number(), clock);
            }
        });
    }

    /// A request failed as a whole.
    pub fn failed(&self, revision: u64, leave: &Leave, trouble: &Trouble) {
        self.with(|circuit, clock| {
            if circuit.renew(revision, self.connection) || trouble.is_of_the_account() {
                circuit.failed(self.connection, self.lane, leave.number(), trouble, clock);
            }
        });
    }

    /// Resolves when the circuit closes.
    pub async fn closes(&self) {
        let closes =
            self.with(|circuit, clock| circuit.blocked(self.lane, clock).map(|_| circuit.subscribe()));
        // None: it has closed meanwhile.
        if let Some(mut closes) = closes {
            // Its sender lives as long as the circuit, and the circuit as long as who has joined it.
            let _ = closes.changed().await;
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Circuit, &Clock) -> T) -> T {
        act(self.breakers.circuits().entry(self.connection).or_default(), &self.breakers.clock)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut circuits = self.breakers.circuits();
        if circuits.get_mut(&self.connection).is_some_and(|circuit| circuit.leave(self.lane)) {
            circuits.remove(&self.connection);
        }
    }
}

#[cfg(test)]
mod tests;
