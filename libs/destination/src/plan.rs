//! What a connection makes of one event, and which items go out together: all that stands between a resolved event and the
//! bytes of a request. A lane and `preview` call these functions and have no others, so that they cannot differ.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use foldhash::fast::RandomState;
use jiff::Timestamp;

use crate::deliverable::{Consent, Deliverable};
use crate::destination::{Destination, Limits, OrderNeed};
use crate::outcome::{Item, OrderEffect, Refusal, Skip};
use crate::timing;

/// Room for what stands around the items of a request.
const ENVELOPE_BYTES: usize = 512;
/// Events that are planned together, whatever the platform takes in a request.
const FEWEST_OF_A_RANGE: usize = 100;
const MOST_OF_A_RANGE: usize = 2_000;

/// What becomes of an event before any request.
#[derive(Debug)]
pub enum Plan {
    /// It goes out, unless the connection is a shadow.
    Send(Box<Item>),
    /// The connection does not want it.
    Skipped(Skip),
    /// Consent denies it.
    Denied {
        /// The firewall's reason.
        reason: String,
    },
    /// It cannot be sent as it is.
    Refused(Refusal),
    /// The connection's code panics over it. That code is pure: nothing is left half done.
    Crashed {
        /// In doing what.
        what: &'static str,
    },
}

/// Plans one event, with the decision and the order's state that it carries. Whether the connection is on is not asked.
#[must_use]
pub fn plan(destination: &dyn Destination, event: &Deliverable, now: Timestamp) -> Plan {
    match unless_it_crashes(|| destination.wants(event)) {
        None => return Plan::Crashed { what: "its filter crashed" },
        Some(Err(skip)) => return Plan::Skipped(skip),
        Some(Ok(())) => {}
    }
    if let Consent::Deny { reason } = &event.decision {
        return Plan::Denied { reason: reason.clone() };
    }
    match unless_it_crashes(|| build(destination, event, now)) {
        None => Plan::Crashed { what: "its builder crashed" },
        Some(Ok(item)) => Plan::Send(Box::new(item)),
        Some(Err(refusal)) => Plan::Refused(refusal),
    }
}

/// Builds an event that has its way to the platform before it: what a builder takes to the last second may be too old there.
fn build(destination: &dyn Destination, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
    let item = destination.build(event, now)?;
    match timing::check_arrival(destination, event, now) {
        Ok(()) => Ok(item),
        Err(refusal) => Err(refusal.with_notes(item.notes)),
    }
}

/// What the call answers; none if it panics.
pub fn unless_it_crashes<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// How many events, those included that need no request, are taken and planned together: those of two requests.
#[must_use]
pub fn events_of_a_range(limits: &Limits) -> usize {
    limits.max_events.saturating_mul(2).clamp(FEWEST_OF_A_RANGE, MOST_OF_A_RANGE)
}

/// Orders that the events of a range sell and change, from its beginning on. A range ends before an event that needs
/// the state of one of them: it is built from what they leave of the order, which is known once they are delivered.
/// What is sold a second time needs to know of the changes alone.
#[derive(Debug, Default)]
pub struct OrdersAhead {
    told: HashSet<String>,
    changed: HashSet<String>,
}

impl OrdersAhead {
    /// Whether an event with this need has to wait for the next range.
    #[must_use]
    pub fn holds_back(&self, need: Option<&OrderNeed>) -> bool {
        need.is_some_and(|need| match need {
            OrderNeed::Changes(order) => self.told.contains(order),
            OrderNeed::Overwrites(order) => self.changed.contains(order),
        })
    }

    /// Puts in what the delivery of the next event does.
    pub fn add(&mut self, effect: Option<&OrderEffect>) {
        let Some(effect) = effect else { return };
        self.told.insert(effect.order_id().to_owned());
        if !matches!(effect, OrderEffect::Sold { .. }) {
            self.changed.insert(effect.order_id().to_owned());
        }
    }
}

/// An item on its way into a request.
#[derive(Debug, Clone, Copy)]
pub struct Open<'i> {
    /// What the caller knows it by.
    pub index: usize,
    /// It.
    pub item: &'i Item,
    /// Items of one key keep their order.
    pub order_key: u64,
}

/// Puts items into requests: at most the platform's events and bytes, one group each, exclusive items apart. Requests are
/// sent in order, and an item never stands in an earlier request than one of its key before it. Answers the indexes of each.
#[must_use]
pub fn requests<'i>(limits: &Limits, open: impl IntoIterator<Item = Open<'i>>) -> Vec<Vec<usize>> {
    struct Request<'i> {
        members: Vec<usize>,
        bytes: usize,
        exclusive: HashSet<&'i str, RandomState>,
    }
    let mut requests: Vec<Request<'i>> = Vec::new();
    let mut newest_of_group: HashMap<&str, usize, RandomState> = HashMap::default();
    let mut newest_of_key: HashMap<u64, usize, RandomState> = HashMap::default();
    for Open { index, item, order_key } in open {
        let bytes = item.body.bytes() + 1;
        let candidate = newest_of_group.get(item.group.as_str()).copied().filter(|&at| {
            let request = &requests[at];
            let later_than_key = newest_of_key.get(&order_key).is_none_or(|&key_at| key_at <= at);
            let distinct = item.exclusive.as_deref().is_none_or(|e| !request.exclusive.contains(e));
            later_than_key
                && distinct
                && request.members.len() < limits.max_events
                && request.bytes + bytes <= limits.max_body_bytes.saturating_sub(ENVELOPE_BYTES)
        });
        let at = candidate.unwrap_or_else(|| {
            requests.push(Request { members: Vec::new(), bytes: 0, exclusive: HashSet::default() });
            newest_of_group.insert(&item.group, requests.len() - 1);
            requests.len() - 1
        });
        requests[at].members.push(index);
        requests[at].bytes += bytes;
        requests[at].exclusive.extend(item.exclusive.as_deref());
        newest_of_key.insert(order_key, at);
    }
    requests.into_iter().map(|request| request.members).collect()
}
