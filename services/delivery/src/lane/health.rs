//! What a lane tells the other lanes of its connection about the platform: by the circuit, and by the quota.

use tracklayer_destination::{Answer, Destination, HoldKind, Usage};

use super::{Lane, LaneError};
use crate::breaker::{Leave, Trouble};
use crate::connections::OpenConnection;
use crate::quota::DayIsUsedUp;

/// What one answer, or none, says of the connection as a whole.
#[derive(Debug)]
pub(super) enum Sign {
    /// The platform judges events.
    Works,
    /// Nothing.
    Silent,
    /// The request failed as a whole.
    Trouble(Trouble),
}

/// What the answers of a wave say together.
#[derive(Debug, Default)]
pub(super) struct Health {
    worked: bool,
    troubles: Vec<Trouble>,
    usage: Option<Usage>,
}

impl Health {
    pub(super) fn note(&mut self, sign: Sign) {
        match sign {
            Sign::Works => self.worked = true,
            Sign::Silent => {}
            Sign::Trouble(trouble) => self.troubles.push(trouble),
        }
    }

    /// Takes what the platform says of its limits beside a good answer; the most of several. That only spaces requests out, however
    /// much is used: which of a platform's limits counts is not sure, and the answer was good. What it refuses names its own wait.
    pub(super) fn read_usage(&mut self, destination: &dyn Destination, answer: &Answer) {
        let is_good = (200..=299).contains(&answer.status);
        let Some(usage) = is_good.then(|| destination.usage(answer)).flatten() else { return };
        if self.usage.is_none_or(|before| usage.percent >= before.percent) {
            self.usage = Some(usage);
        }
    }
}

impl Lane {
    /// Leave to send, from the connection's circuit.
    pub(super) fn leave(&self, connection: &OpenConnection) -> Result<Leave, LaneError> {
        self.circuit.ask(connection.revision).map_err(LaneError::CircuitOpen)
    }

    /// Looks again after a wait: another lane may have met trouble meanwhile. Who tries goes on.
    pub(super) fn still_has_leave(&self, leave: &Leave) -> Result<(), LaneError> {
        match (leave, self.circuit.blocked()) {
            (Leave::Free, Some(blocked)) => Err(LaneError::CircuitOpen(blocked)),
            (Leave::Free, None) | (Leave::Try(_), _) => Ok(()),
        }
    }

    /// Why the lane waits where the platform's day is used up: so do the other lanes of the connection, unless its settings change.
    pub(super) fn day_is_used_up(
        &self,
        connection: &OpenConnection,
        leave: &Leave,
        used_up: &DayIsUsedUp,
    ) -> LaneError {
        let (kind, detail, after) = (HoldKind::Throttled, used_up.to_string(), Some(used_up.wait));
        // Another revision may have another limit.
        if !self.has_changed(connection) {
            self.circuit.failed(connection.revision, leave, &Trouble { kind, detail: detail.clone(), after });
        }
        LaneError::Held { kind: kind.as_str(), detail, after }
    }

    /// Tells circuit and quota what a wave has shown. Of requests that went out together one that was answered says more than one
    /// that was not: the platform is there.
    pub(super) fn tell_of_platform(&self, connection: &OpenConnection, leave: &Leave, health: Health) {
        let revision = connection.revision;
        if health.worked {
            self.circuit.worked(revision, leave);
        }
        for trouble in &health.troubles {
            let asked = trouble.after.is_some();
            if !health.worked || asked {
                self.circuit.failed(revision, leave, trouble);
            }
        }
        if let Some(usage) = health.usage {
            self.context.quota.heed(connection.id, usage);
        }
    }
}
