//! A lane that has met trouble, or whose connection's circuit is open: why it waits, until when, and what is told of it.

use std::time::Duration;

use tokio::time::Instant;
use tracklayer_destination::outcome::LONGEST_WAIT;

use super::slot;
use super::{LONGEST_HOLD, Lane, LaneError, MAX_HOLD_CHARS};
use crate::clock::Due;
use crate::resolve::error_chain;

impl Lane {
    /// Remembers and tells why the lane waits, and until when. What was sent is kept: its commit is tried again.
    pub(super) async fn held(&mut self, error: &LaneError) -> Due {
        let circuit = self.circuit.blocked();
        let (kind, due) = match (error, circuit) {
            (LaneError::CircuitOpen(blocked), _) => {
                self.behind_circuit = true;
                (blocked.kind.as_str(), blocked.due)
            }
            // What opened it, or another like it: the circuit knows until when, unless the lane itself was asked for more, or its
            // trouble is none of the circuit's, whose time may have come.
            (LaneError::Held { after, .. }, Some(circuit)) => {
                self.behind_circuit = true;
                self.holds += 1;
                let (kind, wait) = self.own_wait(error);
                let is_over = self.context.clock.left(&circuit.due).is_zero();
                let own = (after.is_some() || is_over).then(|| self.context.clock.due_in(wait));
                (kind, own.map_or(circuit.due, |own| self.context.clock.later(circuit.due, own)))
            }
            (error, _) => {
                self.behind_circuit = false;
                self.holds += 1;
                let (kind, wait) = self.own_wait(error);
                (kind, self.context.clock.due_in(wait))
            }
        };
        // Somebody's event is being tried, which takes a moment: nothing new to tell.
        let told_before = matches!(error, LaneError::CircuitOpen(blocked) if blocked.is_tried);
        if !told_before {
            self.tell_of_hold(error, kind, due).await;
        }
        due
    }

    /// How long the lane waits where no circuit says it.
    fn own_wait(&self, error: &LaneError) -> (&'static str, Duration) {
        let (kind, after, longest) = match error {
            LaneError::Held { kind, after, .. } => (*kind, *after, LONGEST_HOLD),
            LaneError::CircuitOpen(blocked) => (blocked.kind.as_str(), None, LONGEST_HOLD),
            LaneError::Broken(_) => ("configuration", None, Duration::from_secs(5)),
            LaneError::Store(_) => ("database", None, Duration::from_secs(2)),
            LaneError::Service(_) | LaneError::Narrowing(_) => {
                ("consent_unknown", None, Duration::from_secs(2))
            }
            LaneError::NoConnection | LaneError::LeaseUnsure | LaneError::OnHold(_) => {
                ("waiting", None, Duration::from_secs(1))
            }
        };
        let backoff = || crate::backoff::full_jitter(self.holds, Duration::from_millis(100), longest);
        (kind, after.unwrap_or_else(backoff).min(LONGEST_WAIT))
    }

    async fn tell_of_hold(&self, error: &LaneError, kind: &'static str, due: Due) {
        let duty = self.lease.duty;
        let mut detail = slot::storable(&error_chain(error), MAX_HOLD_CHARS);
        if self.behind_circuit {
            // The circuit itself is told of once, not by each of its lanes.
            detail.push_str(&format!(
                "; the circuit is open, and a single event is tried from {:.0} on",
                due.at()
            ));
            tracing::debug!(workspace = duty.workspace.0, connection = duty.connection.0, partition = duty.partition.0, kind, error = %detail, "lane holds");
        } else {
            tracing::warn!(workspace = duty.workspace.0, connection = duty.connection.0, partition = duty.partition.0, kind, error = %detail, "lane holds");
        }
        if !matches!(error, LaneError::CircuitOpen(_)) {
            metrics::counter!("tracklayer_delivery_holds_total", "kind" => kind).increment(1);
        }
        if let Err(error) = self.context.lanes.hold(duty, kind, &detail, self.holds, due.at()).await {
            tracing::debug!(error = %error, "the hold could not be told");
        }
    }

    pub(super) async fn moved(&mut self) {
        if self.holds > 0 || self.behind_circuit {
            self.holds = 0;
            self.behind_circuit = false;
            self.tell_of_release().await;
        }
    }

    /// Waits as long as was said, by the wall clock where one decides.
    pub(super) async fn wait_is_over(&self, over: Instant, due: Option<Due>) {
        match due {
            Some(due) => self.context.clock.sleep_until(due).await,
            None => tokio::time::sleep_until(over).await,
        }
    }
}
