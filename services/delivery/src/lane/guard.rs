//! Calls into a connection's code that must not stop its lane. That code is pure, so that nothing is left half done where it
//! panics over an event or an answer; a lane that crashed would begin at the same event again, for ever.

use tracklayer_destination::{Deliverable, Destination, OrderNeed, Skip, plan};

/// What the call answers; none if it crashed.
pub fn unless_it_crashes<T>(call: impl FnOnce() -> T) -> Option<T> {
    let answered = plan::unless_it_crashes(call);
    if answered.is_none() {
        count_crash();
    }
    answered
}

/// Counts a crash.
pub fn count_crash() {
    metrics::counter!("tracklayer_delivery_builder_crashes_total").increment(1);
}

/// Whether the connection wants the event; none if it crashes over it.
pub fn wants(destination: &dyn Destination, event: &Deliverable) -> Option<Result<(), Skip>> {
    unless_it_crashes(|| destination.wants(event))
}

/// The order whose sale says whom the event is about. None, too, if the connection crashes over it.
pub fn borrows_from(destination: &dyn Destination, event: &Deliverable) -> Option<String> {
    unless_it_crashes(|| destination.borrows_from(event)).flatten()
}

/// The order that the event changes. None, too, if the connection crashes over it.
pub fn order_key(destination: &dyn Destination, event: &Deliverable) -> Option<String> {
    unless_it_crashes(|| destination.order_key(event)).flatten()
}

/// The order whose state the event needs. None, too, if the connection crashes over it: its builder reads the same.
pub fn order_need(destination: &dyn Destination, event: &Deliverable) -> Option<OrderNeed> {
    unless_it_crashes(|| destination.order_need(event)).flatten()
}
