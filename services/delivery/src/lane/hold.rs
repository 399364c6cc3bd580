//! A lane that an operator holds, and its release.
//!
//! While it is held the cursor stands and nothing is read: what is held waits in the journal alone, and the lane keeps no more of it
//! than what a request has carried already. It looks once a second whether it still is, in memory, and at once when the configuration
//! changes. Released, it sends what has waited in order as ever, a second's worth of its pace at once, until the oldest event before
//! it came after the release or is a few seconds old. That it does is told beside the holds, where who takes the lane over finds it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::slot::{Slot, storable};
use super::{Lane, MAX_HOLD_CHARS};
use crate::holds::{Hold, Holding, RELEASING};
use crate::pace::Speed;

/// Between two looks whether the lane is still held.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Kinds of what is told here.
pub(super) const KINDS: [&str; 3] = ["paused", "frozen", RELEASING];
/// A lane whose oldest event is no older has caught up.
const CAUGHT_UP: SignedDuration = SignedDuration::from_secs(5);

/// A lane as one of those that are paused, frozen or releasing in this process, for as long as it is.
pub(super) struct Counted(metrics::Gauge);

impl Counted {
    fn new(kind: &'static str) -> Self {
        let lanes = metrics::gauge!("tracklayer_delivery_held_lanes", "kind" => kind);
        lanes.increment(1.0);
        Self(lanes)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Lane {
    fn holding(&self) -> std::sync::Arc<Holding> {
        self.context.holds.of(self.lease.duty.workspace, self.lease.duty.connection)
    }

    /// Why the lane is to send nothing.
    pub(super) fn on_hold(&self) -> Option<Hold> {
        self.holding().at(self.context.clock.now())
    }

    /// Lets go of what need not be in memory, and tells why the lane holds.
    pub(super) async fn rest(&mut self, hold: &Hold) {
        // What a request has carried is not forgotten: its outcome is known here alone.
        let kept = |slot: &Slot| was_sent(slot) || self.writes.have(slot.entry.position);
        let kept = self.range.iter().rposition(kept).map_or(0, |last| last + 1);
        self.range.truncate(kept);
        self.range.shrink_to_fit();
        self.planned_for = None;
        if self.told.as_ref() == Some(hold) {
            return;
        }
        let duty = self.lease.duty;
        let detail = storable(&hold.detail(), MAX_HOLD_CHARS);
        let until = hold.until().unwrap_or_else(|| self.context.clock.now());
        if self.told.as_ref().map(Hold::kind) != Some(hold.kind()) {
            metrics::counter!("tracklayer_delivery_holds_total", "kind" => hold.kind()).increment(1);
            self.counted = Some(Counted::new(hold.kind()));
            tracing::info!(
                workspace = duty.workspace.0, connection = duty.connection.0, partition = duty.partition.0,
                kind = hold.kind(), until = %until, "an operator holds the lane"
            );
        }
        self.told = Some(hold.clone());
        if let Err(error) = self.context.lanes.hold(duty, hold.kind(), &detail, 0, until).await {
            tracing::debug!(error = %error, "the hold could not be told");
        }
    }

    /// Where a hold has just ended, here or before the lane was taken over: what has waited goes out at its pace from now on.
    pub(super) async fn begin_release(&mut self) {
        if self.told.take().is_some() || std::mem::take(&mut self.held_before) {
            self.releasing = true;
            self.released = Some(self.context.clock.now());
            self.tell_of_release().await;
        }
    }

    /// Looks whether the oldest event before the lane has waited for a release: one that ended while nobody held the lane's lease,
    /// too. Or whether the lane has caught up.
    pub(super) async fn look_how_old(&mut self, received_ms: Option<i64>) {
        let Some(received) = received_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()) else { return };
        let now = self.context.clock.now();
        // What came after the release never waited for it: a connection that gets as much as its pace would never be through.
        let is_later = self.releasing && self.released.is_some_and(|at| received >= at);
        if is_later || now.duration_since(received) <= CAUGHT_UP {
            self.caught_up().await;
        } else if !self.releasing
            && let Some(at) = self.holding().released_at(now).filter(|at| received < *at)
        {
            self.releasing = true;
            self.released = Some(at);
            self.tell_of_release().await;
        }
    }

    /// Ends a release.
    pub(super) async fn caught_up(&mut self) {
        if std::mem::take(&mut self.releasing) {
            let duty = self.lease.duty;
            tracing::info!(
                workspace = duty.workspace.0,
                connection = duty.connection.0,
                partition = duty.partition.0,
                "the lane has caught up with what had waited for a release"
            );
            self.tell_of_release().await;
        }
    }

    /// Tells that the lane sends what has waited, or that nothing holds it any more.
    pub(super) async fn tell_of_release(&mut self) {
        let duty = self.lease.duty;
        // One at a time: the one before is no longer counted first.
        self.counted = None;
        self.counted = self.speed().map(|_| Counted::new(RELEASING));
        let told = match self.speed() {
            Some(speed) => {
                let detail = format!(
                    "at most {} events a second of what has waited, over all lanes of the connection",
                    speed.per_second
                );
                self.context.lanes.hold(duty, RELEASING, &detail, 0, self.context.clock.now()).await
            }
            None => self.context.lanes.release(duty).await,
        };
        if let Err(error) = told {
            tracing::debug!(error = %error, "the end of a hold could not be told");
        }
    }

    /// How fast the lane's connection sends what has waited; none: as fast as it can, or nothing has waited.
    fn speed(&self) -> Option<Speed> {
        if !self.releasing {
            return None;
        }
        let width = self.context.progress.width(self.lease.duty.workspace).max(1);
        self.holding().pace().map(|per_second| Speed { per_second, width })
    }

    /// How many events the lane takes up at once.
    pub(super) fn at_once(&self) -> usize {
        self.speed().map_or(usize::MAX, Speed::at_once)
    }

    /// Waits until the lane may send so many events.
    pub(super) async fn pace(&self, events: usize) {
        if let Some(speed) = self.speed() {
            self.share.admit(speed, events).await;
        }
    }
}

fn was_sent(slot: &Slot) -> bool {
    slot.sent_at.is_some() || slot.attempts > 0
}
