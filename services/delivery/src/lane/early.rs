//! Changes of orders that come before their order: a refund whose sale another partition has not sent yet, or that a shop reports
//! first. It waits aside, behind nobody but earlier changes of the same order, and holds up no visitor: its own order may be the
//! next event of the same one. When the order was sent it goes out; when it was not sent in time it is dead, with what to do.

use jiff::{SignedDuration, Timestamp};
use tracklayer_destination::Refusal;

use super::slot::Slot;
use crate::ledger::State;

/// The reason of whatever waits for its order.
pub const ORDER_UNKNOWN: &str = "order_unknown";
/// How long a change waits for its order: longer than an event is tried again, so that an order which can be sent at all has been.
/// Only the pauses between looks count, and each look comes after one: what a hold of the connection, or a lane that nobody runs,
/// takes beside them is no time in which the order could have been sent.
pub const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24);
/// Shortest time between two looks.
const FIRST_LOOK: SignedDuration = SignedDuration::from_secs(1);
/// Longest time between two looks.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(15);

/// Lets a change wait for its order, or settles it as dead where it has waited long enough.
pub fn hold_or_bury(slot: &mut Slot, refusal: &Refusal, now: Timestamp) {
    let waited = slot.waited.map_or(SignedDuration::ZERO, |waited| waited + pause(waited));
    slot.waited = Some(waited);
    let Some(order) = slot.order_wait.filter(|_| waited < LONGEST_WAIT) else {
        slot.settle(State::Dead, refusal.code.as_str(), &refusal.reason, now);
        return;
    };
    slot.key = order;
    slot.retry_at = now.checked_add(pause(waited)).ok();
    let detail = format!(
        "has waited for its order for {waited:#}, of at most 24 hours, holds of the connection apart"
    );
    slot.settle(State::Held, ORDER_UNKNOWN, &detail, now);
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
    use std::sync::Arc;

    use tracklayer_destination::RefusalCode;
    use tracklayer_ids::Position;

    use super::*;
    use crate::entry::Entry;

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

    fn looked_at(waited: Option<SignedDuration>, now: Timestamp) -> Slot {
        let mut slot = Slot::new(Arc::new(Entry::decode(Position::new(1, 0, 0), vec![].into())));
        (slot.waited, slot.order_wait) = (waited, Some(5));
        hold_or_bury(&mut slot, &Refusal::new(RefusalCode::OrderNotSent, "send the order"), now);
        slot
    }

    #[test]
    fn a_hold_of_days_is_no_wait() {
        let at = |hours: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        let first = looked_at(None, at(0));
        assert!(is_early(&first));
        assert_eq!(first.waited, Some(SignedDuration::ZERO));
        // Frozen for three days: the next look comes that late, and is the second.
        let later = looked_at(first.waited, at(72));
        assert!(is_early(&later), "{:?}", later.verdict);
        assert_eq!(later.waited, Some(FIRST_LOOK));
        let almost = looked_at(Some(LONGEST_WAIT - LONGEST_PAUSE - FIRST_LOOK), at(72));
        assert!(is_early(&almost));
        let over = looked_at(almost.waited, at(72));
        assert_eq!(
            over.verdict.as_ref().map(|v| (v.state, v.reason.as_str())),
            Some((State::Dead, "order_not_sent"))
        );
    }
}
