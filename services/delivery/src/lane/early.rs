//! Changes of orders that come before their order: a refund whose sale another partition has not sent yet, or that a shop reports
//! first. It waits aside, behind nobody but earlier changes of the same order, and holds up no visitor: its own order may be the
//! next event of the same one. When the order was sent it goes out; when it was not sent in time it is dead, with what to do.

use jiff::{SignedDuration, Timestamp};
use tracklayer_destination::Refusal;

use super::slot::Slot;
use crate::ledger::State;

/// The reason of whatever waits for its order.
pub const ORDER_UNKNOWN: &str = "order_unknown";
/// How long a change waits for its order, from the moment that its lane first looked: longer than an event is tried again, so that
/// an order which can be sent at all has been. A freeze does not count, since the lane looks at nothing meanwhile.
pub const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24);
/// Shortest time between two looks.
const FIRST_LOOK: SignedDuration = SignedDuration::from_secs(1);
/// Longest time between two looks.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(15);

/// Lets a change wait for its order, or settles it as dead where it has waited long enough.
pub fn hold_or_bury(slot: &mut Slot, refusal: &Refusal, now: Timestamp) {
    let since = *slot.waiting_since.get_or_insert(now);
    let waited = now.duration_since(since);
    let Some(order) = slot.order_wait.filter(|_| waited < LONGEST_WAIT) else {
        slot.settle(State::Dead, refusal.code.as_str(), &refusal.reason, now);
        return;
    };
    slot.key = order;
    slot.retry_at = now.checked_add(pause(waited)).ok();
    let until = since.checked_add(LONGEST_WAIT).unwrap_or(Timestamp::MAX);
    slot.settle(State::Held, ORDER_UNKNOWN, &format!("waits for its order until {until:.0}"), now);
}

/// Whether it waits for its order.
#[must_use]
pub fn is_early(slot: &Slot) -> bool {
    slot.verdict.as_ref().is_some_and(|v| v.state == State::Held && v.reason == ORDER_UNKNOWN)
}

/// Until the next look: a quarter of the time that it has waited.
fn pause(waited: SignedDuration) -> SignedDuration {
    (waited / 4).clamp(FIRST_LOOK, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rarer_and_stay_a_number() {
        assert_eq!(pause(SignedDuration::ZERO), FIRST_LOOK);
        assert_eq!(pause(SignedDuration::from_secs(40)), SignedDuration::from_secs(10));
        assert_eq!(pause(SignedDuration::from_hours(20)), LONGEST_PAUSE);
        let (mut waited, mut looks) = (SignedDuration::ZERO, 0);
        while waited < LONGEST_WAIT {
            waited += pause(waited);
            looks += 1;
        }
        assert!((100..200).contains(&looks), "{looks}");
    }
}
