//! The conservation law: every accepted event is in exactly one state per connection. A fold over the books, a row at a
//! time: it keeps only sums and where each lane stands, however long the history is.

use std::collections::BTreeMap;

use tracklayer_ids::{ConnectionId, Offset, Partition, Position};

use crate::ledger::{LedgerEntries, State};
use crate::store::cursors::LaneCursor;
use crate::store::stats::{BookReader, LateRow};

/// Most faults that are told of one connection; more are left out.
const MAX_FAULTS: usize = 20;

/// One connection's balance.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Accepted since the connection's start, from the headers.
    pub accepted: u64,
    /// Events per state and reason; `Waiting` from the headers beyond the cursor.
    pub states: BTreeMap<(State, String), u64>,
    /// What is wrong.
    pub faults: Vec<String>,
}

impl Balance {
    /// Accepted minus the sum of the states.
    #[must_use]
    pub fn difference(&self) -> i64 {
        let sum: u64 = self.states.values().sum();
        self.accepted.cast_signed() - sum.cast_signed()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.difference() == 0 && self.faults.is_empty()
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(text);
        }
    }
}

/// The balances of all connections that have lanes, while the books are read.
#[derive(Debug, Default)]
pub struct Balances {
    lanes: BTreeMap<(Partition, ConnectionId), LaneBalance>,
    /// Everything that was ever received in the workspace.
    pub received: u64,
}

#[derive(Debug)]
struct LaneBalance {
    lane: LaneCursor,
    received_end: Option<Position>,
    ledger_end: Position,
    balance: Balance,
}

impl Balances {
    /// The balance of each connection, when all was read.
    #[must_use]
    pub fn finish(self) -> BTreeMap<i64, Balance> {
        let mut balances: BTreeMap<i64, Balance> = BTreeMap::new();
        for ((_, connection), mut lane) in self.lanes {
            lane.finish();
            let all = balances.entry(connection.0).or_default();
            all.accepted += lane.balance.accepted;
            for (state, count) in lane.balance.states.into_iter().filter(|(_, count)| *count > 0) {
                *all.states.entry(state).or_default() += count;
            }
            lane.balance.faults.into_iter().for_each(|fault| all.fault(fault));
        }
        balances
    }
}

impl BookReader for Balances {
    fn lane(&mut self, lane: LaneCursor) {
        let key = (lane.duty.partition, lane.duty.connection);
        let balance = Balance::default();
        self.lanes.insert(key, LaneBalance { lane, received_end: None, ledger_end: lane.start, balance });
    }

    fn received(&mut self, at: Position, events: u64, counted: u64) {
        self.received += counted;
        let of_partition = (at.partition, ConnectionId(i64::MIN))..=(at.partition, ConnectionId(i64::MAX));
        for (_, lane) in self.lanes.range_mut(of_partition) {
            if counted != events {
                lane.balance.fault(format!("the headers of what was received at {at} do not add up"));
            }
            lane.received(at, events, counted);
        }
    }

    fn settled(&mut self, connection: ConnectionId, at: Position, entries: &LedgerEntries, late: &[LateRow]) {
        if let Some(lane) = self.lanes.get_mut(&(at.partition, connection)) {
            lane.settled(at, entries, late);
        }
    }

    fn stray(&mut self, connection: ConnectionId, at: Position) {
        if let Some(lane) = self.lanes.get_mut(&(at.partition, connection)) {
            lane.balance.fault(format!("the late row at {at} belongs to no ledger block"));
        }
    }
}

fn order(position: Position) -> (u32, u64) {
    (position.generation.0, position.offset.0)
}

fn after(at: Position, events: u64) -> Position {
    Position { offset: Offset(at.offset.0 + events), ..at }
}

/// How many of the events that stand from a position on are not before a place, which may be in the middle of them.
fn beyond(place: Position, at: Position, events: u64) -> u64 {
    if order(at) >= order(place) {
        events
    } else if at.generation == place.generation {
        (at.offset.0 + events).saturating_sub(place.offset.0)
    } else {
        0
    }
}

impl LaneBalance {
    fn received(&mut self, at: Position, events: u64, counted: u64) {
        let expected = self.received_end.replace(after(at, events));
        if let Some(expected) = expected.filter(|e| e.generation == at.generation && e.offset != at.offset) {
            self.balance.fault(format!("received has a hole or an overlap at {at}, expected {expected}"));
        }
        self.balance.accepted += beyond(self.lane.start, at, counted);
        let waiting = beyond(self.lane.next, at, counted);
        if waiting > 0 {
            *self.balance.states.entry((State::Waiting, String::new())).or_default() += waiting;
        }
    }

    fn settled(&mut self, at: Position, entries: &LedgerEntries, late: &[LateRow]) {
        let expected = self.ledger_end;
        if at != expected && !(at.generation > expected.generation && at.offset.0 == 0) {
            self.balance.fault(format!("the ledger has a hole or an overlap at {at}, expected {expected}"));
        }
        self.ledger_end = after(at, entries.len() as u64);
        for (key, count) in entries.counts() {
            *self.balance.states.entry(key).or_default() += count;
        }
        for row in late {
            let step = row.offset.checked_sub(at.offset.0).and_then(|step| usize::try_from(step).ok());
            let Some(said) = step.and_then(|step| entries.verdict(step)) else {
                let at = Position { offset: Offset(row.offset), ..at };
                self.balance.fault(format!("the late row at {at} belongs to no ledger block"));
                continue;
            };
            if let Some(count) = self.balance.states.get_mut(&(said.state, said.reason)) {
                *count -= 1;
            }
            *self.balance.states.entry((row.state, row.reason.clone())).or_default() += 1;
        }
    }

    fn finish(&mut self) {
        let (next, end) = (self.lane.next, self.ledger_end);
        if end != next && next.generation == end.generation {
            self.balance.fault(format!("the cursor stands at {next}, the ledger ends at {end}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::WorkspaceId;

    use super::*;
    use crate::lease::Duty;
    use crate::ledger::Verdict;

    const CONNECTION: ConnectionId = ConnectionId(7);
    const LATER: ConnectionId = ConnectionId(8);

    fn lane(start: u64, next: u64) -> LaneCursor {
        let duty = Duty { workspace: WorkspaceId(1), connection: CONNECTION, partition: Partition(0) };
        LaneCursor { duty, start: Position::new(1, 0, start), next: Position::new(1, 0, next) }
    }

    fn block(base: u64, states: &[State]) -> (Position, LedgerEntries) {
        let verdicts: Vec<Verdict> = states.iter().map(|s| Verdict::of(*s, "")).collect();
        (Position::new(1, 0, base), LedgerEntries::pack(verdicts.iter()))
    }

    /// Seven received events in two blocks, and the ledger of a lane.
    fn balance(lane: LaneCursor, ledger: &[(Position, LedgerEntries)], late: &[LateRow]) -> Balance {
        let mut balances = Balances::default();
        balances.lane(lane);
        balances.received(Position::new(1, 0, 0), 3, 3);
        balances.received(Position::new(1, 0, 3), 4, 4);
        for (at, entries) in ledger {
            let inside =
                |row: &&LateRow| (at.offset.0..at.offset.0 + entries.len() as u64).contains(&row.offset);
            let late: Vec<LateRow> = late.iter().filter(inside).cloned().collect();
            balances.settled(CONNECTION, *at, entries, &late);
        }
        balances.finish().remove(&CONNECTION.0).unwrap()
    }

    fn ledger() -> Vec<(Position, LedgerEntries)> {
        vec![block(0, &[State::Delivered, State::Duplicate]), block(2, &[State::Held, State::Dead])]
    }

    #[test]
    fn waiting_is_counted_inside_the_block_where_the_cursor_stands() {
        let balance = balance(lane(0, 4), &ledger(), &[]);
        assert_eq!(balance.accepted, 7);
        assert_eq!(balance.states[&(State::Waiting, String::new())], 3);
        assert!(balance.is_clean(), "{balance:?}");
    }

    #[test]
    fn a_late_row_takes_the_place_of_what_its_block_said() {
        let late = LateRow { offset: 2, state: State::Delivered, reason: String::new() };
        let balance = balance(lane(0, 4), &ledger(), &[late]);
        assert_eq!(balance.states[&(State::Delivered, String::new())], 2);
        assert!(!balance.states.contains_key(&(State::Held, String::new())));
        assert!(balance.is_clean(), "{balance:?}");
    }

    #[test]
    fn a_lost_ledger_block_is_a_difference_and_a_hole() {
        let balance = balance(lane(0, 4), &ledger()[1..], &[]);
        assert_eq!(balance.difference(), 2);
        assert!(balance.faults[0].contains("hole or an overlap at 1/0/2"), "{balance:?}");
    }

    #[test]
    fn a_block_that_is_there_twice_is_found() {
        let mut ledger = ledger();
        ledger.insert(1, ledger[0].clone());
        let balance = balance(lane(0, 4), &ledger, &[]);
        assert_eq!(balance.difference(), -2);
        assert!(!balance.faults.is_empty());
    }

    #[test]
    fn a_cursor_beyond_the_end_of_the_ledger_is_a_fault() {
        let balance = balance(lane(0, 4), &ledger()[..1], &[]);
        assert!(balance.faults[0].contains("the ledger ends at 1/0/2"), "{balance:?}");
    }

    #[test]
    fn of_what_was_dropped_each_connection_answers_for_what_it_began_before() {
        let mut balances = Balances::default();
        let began_later = LaneCursor { duty: Duty { connection: LATER, ..lane(0, 0).duty }, ..lane(30, 38) };
        balances.lane(lane(0, 40));
        balances.lane(began_later);
        balances.received(Position::new(1, 0, 0), 40, 40);
        balances.received(Position::new(1, 0, 40), 2, 2);
        assert_eq!(balances.received, 42);
        let balances = balances.finish();
        let waiting = |balance: &Balance| balance.states[&(State::Waiting, String::new())];
        let (first, later) = (&balances[&CONNECTION.0], &balances[&LATER.0]);
        assert_eq!((first.accepted, waiting(first)), (42, 2));
        assert_eq!((later.accepted, waiting(later)), (12, 4), "a lane that nobody moves waits");
    }

    #[test]
    fn what_was_accepted_before_the_start_is_no_business_of_the_connection() {
        let balance = balance(lane(3, 3), &[], &[]);
        assert_eq!(balance.accepted, 4);
        assert!(balance.is_clean(), "{balance:?}");
    }
}
