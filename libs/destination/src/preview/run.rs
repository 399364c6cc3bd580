//! A run over many lines: each answered alone, or their events put into requests as a lane puts them. It holds one range at a time,
//! and a bounded number of orders.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::ConsentChoice;
use super::answer::{Answer, Built, EventRef, NotSent, Told};
use super::line::{Given, Line, OfConnection, Reading, Ready, Subject, invalid_line};
use crate::deliverable::OrderState;
use crate::destination::{Destination, OrderNeed};
use crate::order_book::OrderBook;
use crate::outcome::Item;
use crate::plan::{Open, OrdersAhead, Plan, events_of_a_range, plan, requests, unless_it_crashes};
use crate::request::MASK;

/// Where the states of orders come from that an event needs and its line does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orders {
    /// From nowhere: lines are independent of each other.
    #[default]
    Given,
    /// From the events before it.
    OfEvents,
    /// From what the caller learns of them ([`Run::orders_to_learn`]), and from the events before it.
    Learned,
}

/// What a run goes by.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The time, where a line has none of its own.
    pub now: Timestamp,
    /// What consent is taken to have decided, where an event does not say.
    pub consent: ConsentChoice,
    /// Whose decisions of resolve count.
    pub of_connection: Option<OfConnection>,
    /// Orders.
    pub orders: Orders,
    /// Put events into requests as a lane does that has all of them before it, rather than answering each line alone.
    pub batched: bool,
}

impl Terms {
    /// Each line alone, at this time, by this decision.
    #[must_use]
    pub const fn at(now: Timestamp, consent: ConsentChoice) -> Self {
        Self { now, consent, of_connection: None, orders: Orders::Given, batched: false }
    }
}

/// What became of all that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines.
    pub lines: u64,
    /// Events of them.
    pub events: u64,
    /// Events in requests.
    pub in_requests: u64,
    /// Requests.
    pub requests: u64,
    /// All others, by the ledger's state and reason (and `invalid`, which the ledger never sees).
    pub others: BTreeMap<(&'static str, String), u64>,
    /// Events that were built from what was learned of their order.
    pub of_learned_orders: u64,
    /// Events whose decision is for another change of the connection.
    pub of_other_revision: u64,
    /// Orders that were forgotten for others.
    pub forgotten_orders: u64,
}

struct Pending {
    now: Timestamp,
    given: Given,
}

/// A run.
pub struct Run<'d> {
    destination: &'d dyn Destination,
    reading: Reading,
    orders: Orders,
    batched: bool,
    book: OrderBook,
    pending: Vec<Pending>,
    summary: Summary,
}

impl<'d> Run<'d> {
    /// Of a connection.
    #[must_use]
    pub fn new(destination: &'d dyn Destination, terms: Terms) -> Self {
        let Terms { now, consent, of_connection, orders, batched } = terms;
        Self {
            destination,
            reading: Reading { now, consent, of_connection },
            orders,
            batched,
            book: OrderBook::default(),
            pending: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Reads a line.
    #[must_use]
    pub fn read(&self, number: u64, text: &str) -> Line {
        self.reading.line(number, text)
    }

    /// A line of which nothing could be read.
    #[must_use]
    pub fn unreadable(&self, number: u64, why: String) -> Line {
        let events = vec![invalid_line(number, "invalid_line", why)];
        Line { number, now: self.reading.now, events }
    }

    /// The orders that the events of these lines need, and that were not learned yet.
    #[must_use]
    pub fn orders_to_learn(&self, lines: &[Line]) -> Vec<String> {
        if self.orders != Orders::Learned {
            return Vec::new();
        }
        let events = lines.iter().flat_map(|line| &line.events);
        let mut needed: Vec<String> = events
            .filter_map(|given| match &given.subject {
                Subject::Ready(ready) => self.order_of(ready).map(|need| need.order_id().to_owned()),
                Subject::Settled { .. } => None,
            })
            .filter(|order| !self.book.is_learned(order))
            .collect();
        needed.sort_unstable();
        needed.dedup();
        needed
    }

    /// How an order stands before the run; none: nothing is known of it.
    pub fn learn(&mut self, order_id: &str, state: Option<OrderState>) {
        self.book.learn(order_id, state);
    }

    /// Takes the next line; answers what is complete by now.
    pub fn take(&mut self, line: Line) -> Vec<Answer> {
        self.summary.lines += 1;
        self.summary.events += line.events.len() as u64;
        let Line { number, now, events } = line;
        if self.batched {
            return self.put_in_order(number, now, events);
        }
        let mut pending: Vec<Pending> = events.into_iter().map(|given| Pending { now, given }).collect();
        let mut answer = Answer::default();
        while !pending.is_empty() {
            let ends = self.settle_range(&mut pending, &mut answer);
            pending.drain(..ends);
        }
        vec![answer]
    }

    /// Answers what is left of the last range.
    pub fn finish(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while !self.pending.is_empty() {
            answers.push(self.next_range());
        }
        answers
    }

    /// What became of everything so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { forgotten_orders: self.book.forgotten(), ..self.summary.clone() }
    }

    fn put_in_order(&mut self, number: u64, now: Timestamp, events: Vec<Given>) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut invalid = Answer { range: Some((number, number)), ..Answer::default() };
        let full = events_of_a_range(self.destination.limits());
        for given in events {
            // No journal has such an event.
            if matches!(given.subject, Subject::Settled { sort: NotSent::Invalid, .. }) {
                self.settle(given, &mut invalid);
                continue;
            }
            if self.pending.last().is_some_and(|last| last.given.place != given.place) {
                answers.extend(self.finish());
            }
            self.pending.push(Pending { now, given });
            while self.pending.len() >= full {
                answers.push(self.next_range());
            }
        }
        if !invalid.refused.is_empty() {
            answers.push(invalid);
        }
        answers
    }

    fn next_range(&mut self) -> Answer {
        let mut pending = std::mem::take(&mut self.pending);
        let mut answer = Answer::default();
        let ends = self.settle_range(&mut pending, &mut answer);
        let line_of = |pending: &Pending| pending.given.event.line;
        answer.range = pending.first().map(line_of).zip(pending[..ends].last().map(line_of));
        pending.drain(..ends);
        self.pending = pending;
        answer
    }

    fn order_of(&self, ready: &Ready) -> Option<OrderNeed> {
        unless_it_crashes(|| self.destination.order_need(&ready.deliverable)).flatten()
    }

    /// Plans events up to the first that has to wait for its order, and puts their requests together. Answers how many they were:
    /// at least one.
    fn settle_range(&mut self, pending: &mut [Pending], answer: &mut Answer) -> usize {
        let mut ahead = OrdersAhead::default();
        let mut open: Vec<(EventRef, u64, Item)> = Vec::new();
        let mut ends = pending.len();
        for (place, Pending { now, given }) in pending.iter_mut().enumerate() {
            let Subject::Ready(ready) = &mut given.subject else {
                self.settle(given.clone(), answer);
                continue;
            };
            let needed = self.order_of(ready);
            if ahead.holds_back(needed.as_ref()) {
                ends = place;
                break;
            }
            self.summary.of_other_revision += u64::from(ready.of_other_revision);
            if let Some(need) = needed.filter(|_| ready.deliverable.order_state.is_none()) {
                let order = need.order_id();
                // Of one that was looked for and is not there it is known that it was not sent.
                let is_all_known = self.orders == Orders::OfEvents || self.book.is_learned(order);
                let unsent = || is_all_known.then(OrderState::default);
                ready.deliverable.order_state = self.book.state(order).cloned().or_else(unsent);
                let is_change = matches!(need, OrderNeed::Changes(_));
                self.summary.of_learned_orders += u64::from(is_change && self.book.was_known(order));
            }
            let event = given.event.clone();
            match plan(self.destination, &ready.deliverable, *now) {
                Plan::Send(item) => {
                    ahead.add(item.order.as_ref());
                    answer.notes.extend(item.notes.iter().map(|note| (event.clone(), note.clone())));
                    open.push((event, ready.order_key, *item));
                }
                Plan::Skipped(skip) => {
                    let code = skip.reason.as_str();
                    let told = Told::new(event, NotSent::Filtered, code, skip.detail);
                    self.tell(answer, "filtered", code, told);
                }
                Plan::Denied { reason } => {
                    let told = Told::new(event, NotSent::Blocked, "consent_denied", reason.clone());
                    self.tell(answer, "blocked", &reason, told);
                }
                Plan::Refused(refusal) => {
                    let code = refusal.code.as_str();
                    answer.notes.extend(refusal.notes.into_iter().map(|note| (event.clone(), note)));
                    let told = Told::new(event, NotSent::Refused, code, refusal.reason);
                    let told = Told { field: refusal.field, ..told };
                    self.tell(answer, refusal.code.fate().as_str(), code, told);
                }
                Plan::Crashed { what } => self.tell_of_crash(answer, event, what),
            }
        }
        self.put_together(&open, answer);
        ends
    }

    fn put_together(&mut self, open: &[(EventRef, u64, Item)], answer: &mut Answer) {
        let items = open.iter().enumerate();
        let items = items.map(|(index, (_, order_key, item))| Open { index, item, order_key: *order_key });
        let mut queue: Vec<Vec<usize>> = requests(self.destination.limits(), items);
        queue.reverse();
        let token = tracklayer_ids::Secret::new(MASK.to_owned());
        while let Some(members) = queue.pop() {
            let of: Vec<&Item> = members.iter().map(|index| &open[*index].2).collect();
            match unless_it_crashes(|| self.destination.assemble(&of, Some(&token))) {
                Some(request) => {
                    if self.orders != Orders::Given {
                        of.iter().filter_map(|item| item.order.as_ref()).for_each(|e| self.book.apply(e));
                    }
                    self.summary.requests += 1;
                    self.summary.in_requests += members.len() as u64;
                    let events = members.iter().map(|index| open[*index].0.clone()).collect();
                    answer.requests.push(Built { request, events });
                }
                None => match members.as_slice() {
                    [alone] => {
                        let event = open[*alone].0.clone();
                        self.tell_of_crash(answer, event, "putting its request together crashed");
                    }
                    // As a lane does: halves, until the event to blame is alone.
                    _ => {
                        let (first, second) = members.split_at(members.len() / 2);
                        queue.extend([second.to_vec(), first.to_vec()]);
                    }
                },
            }
        }
    }

    fn settle(&mut self, given: Given, answer: &mut Answer) {
        let Subject::Settled { sort, code, field, reason } = given.subject else { return };
        let (state, counted) = match sort {
            NotSent::Duplicate => ("duplicate", ""),
            NotSent::Invalid => ("invalid", code.as_str()),
            NotSent::Refused | NotSent::Blocked | NotSent::Filtered => ("dead", code.as_str()),
        };
        let told = Told { field, ..Told::new(given.event, sort, &code, reason) };
        self.tell(answer, state, counted, told);
    }

    fn tell_of_crash(&mut self, answer: &mut Answer, event: EventRef, what: &str) {
        let told = Told::new(event, NotSent::Refused, "poisoned", what.to_owned());
        self.tell(answer, "dead", "poisoned", told);
    }

    fn tell(&mut self, answer: &mut Answer, state: &'static str, reason: &str, told: Told) {
        *self.summary.others.entry((state, reason.to_owned())).or_default() += 1;
        answer.refused.push(told);
    }
}
