//! Events that crash their reader. A crash ends a partition's task, and the next one begins at the same event: without a
//! memory the partition would stand there for ever.
//!
//! The third crash on a range halves the next one, and so does each further one, until an event that crashes is alone. That
//! one is passed on unread. The memory is the process's: another one that takes the lease meanwhile finds out by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tracklayer_ids::Position;

use crate::lease::Duty;

/// Crashes on a range until it is taken apart: the first ones may have been somebody else's fault.
const PATIENCE: u32 = 3;

/// The ranges under suspicion, of all partitions.
#[derive(Debug, Default)]
pub struct Suspects {
    ranges: Mutex<HashMap<Duty, Suspicion>>,
}

#[derive(Debug)]
struct Suspicion {
    /// Where the range ends that crashed last.
    until: Position,
    crashes: u32,
    /// Most events of the next try; 0: its first event is known to crash.
    most: usize,
}

/// How a range is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// As many events as there are.
    Usual,
    /// So many at most: one of these, or of those behind them, crashed.
    AtMost(usize),
    /// The first event only, and that one is not looked at.
    FirstUnread,
}

impl Care {
    /// Most events to take.
    #[must_use]
    pub fn most(self) -> usize {
        match self {
            Self::Usual => usize::MAX,
            Self::AtMost(most) => most,
            Self::FirstUnread => 1,
        }
    }
}

/// Watches over the reading of a range: dropped by a crash, it says so.
#[must_use = "the range is watched as long as this lives"]
pub struct Watch<'a> {
    suspects: &'a Suspects,
    duty: Duty,
    first: Position,
    events: usize,
}

impl Suspects {
    /// How the range that begins there is to be read.
    pub fn care(&self, duty: Duty, at: Position) -> Care {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suspicion) = ranges.get(&duty) else { return Care::Usual };
        if place(at) >= place(suspicion.until) {
            ranges.remove(&duty);
            return Care::Usual;
        }
        match (suspicion.crashes, suspicion.most) {
            (..PATIENCE, _) => Care::Usual,
            (_, 0) => Care::FirstUnread,
            (_, most) => Care::AtMost(most),
        }
    }

    /// Watches over a range while it is worked on.
    pub fn watch(&self, duty: Duty, first: Position, events: usize) -> Watch<'_> {
        Watch { suspects: self, duty, first, events }
    }

    fn crashed(&self, duty: Duty, first: Position, events: usize) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ranges.get(&duty).filter(|suspicion| place(first) < place(suspicion.until));
        let crashes = before.map_or(0, |suspicion| suspicion.crashes) + 1;
        let until = Position { offset: tracklayer_ids::Offset(first.offset.0 + events as u64), ..first };
        tracing::error!(
            workspace = duty.workspace.0,
            partition = duty.partition.0,
            %first,
            events,
            crashes,
            "reading a range crashed"
        );
        ranges.insert(duty, Suspicion { until, crashes, most: events / 2 });
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.suspects.crashed(self.duty, self.first, self.events);
        }
    }
}

fn place(position: Position) -> (u32, u64) {
    (position.generation.0, position.offset.0)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tracklayer_ids::{Partition, WorkspaceId};

    use super::*;

    /// Reads 64 events of which some crash; answers the unread ones and the number of crashes.
    fn read(crashing: &[u64]) -> (Vec<u64>, u32) {
        let suspects = Suspects::default();
        let duty = Duty::resolve(WorkspaceId(1), Partition(0));
        let (mut at, mut unread, mut crashes) = (0, Vec::new(), 0);
        while at < 64 {
            let first = Position::new(1, 0, at);
            let care = suspects.care(duty, first);
            let events = usize::try_from(64 - at).unwrap().min(care.most());
            let range = at..at + events as u64;
            let done = catch_unwind(AssertUnwindSafe(|| {
                let _watch = suspects.watch(duty, first, events);
                assert!(care == Care::FirstUnread || !range.clone().any(|event| crashing.contains(&event)));
            }));
            if done.is_err() {
                crashes += 1;
                assert!(crashes < 60, "it is never found");
                continue;
            }
            if care == Care::FirstUnread {
                unread.push(at);
            }
            at = range.end;
        }
        (unread, crashes)
    }

    #[test]
    fn exactly_those_that_crash_are_left_unread() {
        assert_eq!(read(&[]), (vec![], 0));
        assert_eq!(read(&[0]).0, [0]);
        assert_eq!(read(&[63]).0, [63]);
        assert_eq!(read(&[5, 6, 40]).0, [5, 6, 40]);
    }

    #[test]
    fn a_range_is_taken_apart_at_its_third_crash_and_halved_from_then_on() {
        let (unread, crashes) = read(&[21]);
        assert_eq!(unread, [21]);
        assert!((3..=3 + 6).contains(&crashes), "{crashes} crashes over 64 events");
        let (suspects, duty) = (Suspects::default(), Duty::resolve(WorkspaceId(1), Partition(0)));
        let first = Position::new(1, 0, 0);
        for expected in [Care::Usual, Care::Usual, Care::AtMost(32)] {
            suspects.crashed(duty, first, 64);
            assert_eq!(suspects.care(duty, first), expected);
        }
        assert_eq!(
            suspects.care(duty, Position::new(1, 0, 64)),
            Care::Usual,
            "behind it nothing is suspected"
        );
        assert_eq!(suspects.care(duty, first), Care::Usual, "and it is forgotten then");
    }
}
