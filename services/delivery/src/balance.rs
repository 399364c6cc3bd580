//! The conservation law: every accepted event is in exactly one state per connection. A pure function of the books.

use std::collections::BTreeMap;

use tracklayer_ids::Position;

use crate::ledger::State;
use crate::store::cursors::LaneCursor;
use crate::store::stats::Books;

/// Most faults that are told of one connection; more are counted.
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

/// Balances every connection that has lanes.
#[must_use]
pub fn balance(books: &Books) -> BTreeMap<i64, Balance> {
    let mut balances: BTreeMap<i64, Balance> = BTreeMap::new();
    for lane in &books.lanes {
        let balance = balances.entry(lane.duty.connection.0).or_default();
        for at in &books.bad_headers {
            balance.fault(format!("the header of the received block at {at} does not add up"));
        }
        count_received(books, lane, balance);
        count_settled(books, lane, balance);
    }
    balances
}

fn order(position: Position) -> (u32, u64) {
    (position.generation.0, position.offset.0)
}

fn count_received(books: &Books, lane: &LaneCursor, balance: &mut Balance) {
    let mut expected: Option<Position> = None;
    let mine = books.received.iter().filter(|(at, _)| at.partition == lane.duty.partition);
    for (at, count) in mine {
        let end = Position { offset: tracklayer_ids::Offset(at.offset.0 + u64::from(*count)), ..*at };
        if let Some(expected) = expected.filter(|e| e.generation == at.generation && e.offset != at.offset) {
            balance.fault(format!("received has a hole or an overlap at {at}, expected {expected}"));
        }
        expected = Some(end);
        if order(*at) < order(lane.start) {
            continue;
        }
        balance.accepted += u64::from(*count);
        let waiting = if order(*at) >= order(lane.next) {
            u64::from(*count)
        } else if at.generation == lane.next.generation && end.offset > lane.next.offset {
            end.offset.0 - lane.next.offset.0
        } else {
            0
        };
        if waiting > 0 {
            *balance.states.entry((State::Waiting, String::new())).or_default() += waiting;
        }
    }
}

fn count_settled(books: &Books, lane: &LaneCursor, balance: &mut Balance) {
    let connection = lane.duty.connection.0;
    let blocks = books.blocks.get(&connection).map_or(&[][..], Vec::as_slice);
    let mine: Vec<_> = blocks.iter().filter(|(at, _)| at.partition == lane.duty.partition).collect();
    let mut expected = lane.start;
    for (at, entries) in &mine {
        let follows = *at == expected || (at.generation > expected.generation && at.offset.0 == 0);
        if !follows {
            balance.fault(format!("the ledger has a hole or an overlap at {at}, expected {expected}"));
        }
        expected = Position { offset: tracklayer_ids::Offset(at.offset.0 + entries.len() as u64), ..*at };
        for (key, count) in entries.counts() {
            *balance.states.entry(key).or_default() += count;
        }
    }
    if expected != lane.next && lane.next.generation == expected.generation {
        balance.fault(format!("the cursor stands at {}, the ledger ends at {expected}", lane.next));
    }
    let late = books.late.get(&connection).map_or(&[][..], Vec::as_slice);
    for (at, state, reason) in late.iter().filter(|(at, ..)| at.partition == lane.duty.partition) {
        let covering = mine.partition_point(|(first, _)| order(*first) <= order(*at)).checked_sub(1);
        let said = covering.and_then(|index| {
            let (first, entries) = mine[index];
            let step = usize::try_from(at.offset.0.checked_sub(first.offset.0)?).ok()?;
            (first.generation == at.generation).then(|| entries.verdict(step)).flatten()
        });
        let Some(said) = said else {
            balance.fault(format!("the late row at {at} belongs to no ledger block"));
            continue;
        };
        if let Some(count) = balance.states.get_mut(&(said.state, said.reason)) {
            *count -= 1;
        }
        *balance.states.entry((*state, reason.clone())).or_default() += 1;
    }
    balance.states.retain(|_, count| *count > 0);
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::{ConnectionId, Partition, WorkspaceId};

    use super::*;
    use crate::lease::Duty;
    use crate::ledger::{LedgerEntries, Verdict};

    fn lane(start: u64, next: u64) -> LaneCursor {
        let duty = Duty { workspace: WorkspaceId(1), connection: ConnectionId(7), partition: Partition(0) };
        LaneCursor { duty, start: Position::new(1, 0, start), next: Position::new(1, 0, next) }
    }

    fn block(base: u64, states: &[State]) -> (Position, LedgerEntries) {
        let verdicts: Vec<Verdict> = states.iter().map(|s| Verdict::of(*s, "")).collect();
        (Position::new(1, 0, base), LedgerEntries::pack(verdicts.iter()))
    }

    fn books() -> Books {
        Books {
            received: vec![(Position::new(1, 0, 0), 3), (Position::new(1, 0, 3), 4)],
            lanes: vec![lane(0, 4)],
            blocks: [(
                7,
                vec![block(0, &[State::Delivered, State::Duplicate]), block(2, &[State::Held, State::Dead])],
            )]
            .into(),
            ..Books::default()
        }
    }

    #[test]
    fn waiting_is_counted_inside_the_block_where_the_cursor_stands() {
        let balance = &balance(&books())[&7];
        assert_eq!(balance.accepted, 7);
        assert_eq!(balance.states[&(State::Waiting, String::new())], 3);
        assert!(balance.is_clean(), "{balance:?}");
    }

    #[test]
    fn a_late_row_takes_the_place_of_what_its_block_said() {
        let mut books = books();
        books.late.insert(7, vec![(Position::new(1, 0, 2), State::Delivered, String::new())]);
        let balance = &balance(&books)[&7];
        assert_eq!(balance.states[&(State::Delivered, String::new())], 2);
        assert!(!balance.states.contains_key(&(State::Held, String::new())));
        assert!(balance.is_clean(), "{balance:?}");
    }

    #[test]
    fn a_lost_ledger_block_is_a_difference_and_a_hole() {
        let mut books = books();
        books.blocks.get_mut(&7).unwrap().remove(0);
        let balance = &balance(&books)[&7];
        assert_eq!(balance.difference(), 2);
        assert!(balance.faults[0].contains("hole or an overlap at 1/0/2"), "{balance:?}");
    }

    #[test]
    fn a_block_that_is_there_twice_is_found() {
        let mut books = books();
        let blocks = books.blocks.get_mut(&7).unwrap();
        blocks.insert(1, blocks[0].clone());
        let balance = &balance(&books)[&7];
        assert_eq!(balance.difference(), -2);
        assert!(!balance.faults.is_empty());
    }

    #[test]
    fn what_was_accepted_before_the_start_is_no_business_of_the_connection() {
        let mut books = books();
        books.lanes = vec![lane(3, 3)];
        books.blocks.clear();
        let balance = &balance(&books)[&7];
        assert_eq!(balance.accepted, 4);
        assert!(balance.is_clean(), "{balance:?}");
    }
}
