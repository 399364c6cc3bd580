//! Who waits for a retry: the keys of the lane's retry rows, kept in memory so that a commit need not read them all again, and
//! those of other lanes from before a change of the layout, behind which the lane's own events wait.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

/// Order keys with something waiting. What stands behind the earliest event of a key waits for it, whatever its own time.
#[derive(Debug, Default)]
pub struct Waiting {
    keys: HashMap<u64, Key>,
    by_time: BTreeSet<(Timestamp, u64)>,
    elsewhere: HashSet<u64>,
}

#[derive(Debug)]
struct Key {
    /// Rows that wait; 0 while the first of them is not committed yet.
    rows: u64,
    /// When the earliest of them is due.
    next_at: Timestamp,
}

impl Waiting {
    /// Sets what waits here, as it stands in the database: key, time of its earliest event, number of rows.
    pub fn set_own(&mut self, rows: Vec<(u64, Timestamp, u64)>) {
        self.by_time = rows.iter().map(|(key, next_at, _)| (*next_at, *key)).collect();
        self.keys = rows.into_iter().map(|(key, next_at, rows)| (key, Key { rows, next_at })).collect();
    }

    /// Whether something of the key waits, here or elsewhere.
    #[must_use]
    pub fn contains(&self, key: u64) -> bool {
        self.keys.contains_key(&key) || self.elsewhere.contains(&key)
    }

    /// Keys of which something waits in other lanes. Only a replay adds one there: of what was new to that lane none is left. Once the
    /// list is empty it is not read again, so that what a replay takes there may go out after what is newer here.
    pub fn set_elsewhere(&mut self, keys: impl IntoIterator<Item = u64>) {
        self.elsewhere = keys.into_iter().collect();
    }

    /// Whether something waits in other lanes, as far as was last seen.
    #[must_use]
    pub fn waits_elsewhere(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// What is due by now is looked at again only then.
    pub fn put_off_due(&mut self, now: Timestamp, next_at: Timestamp) {
        let due: Vec<u64> =
            self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect();
        due.into_iter().for_each(|key| self.put_off(key, next_at));
    }

    /// When the next retry is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// An event of the key is going to wait: later ones wait behind it from now on.
    pub fn announce(&mut self, key: u64, next_at: Timestamp) {
        if let Entry::Vacant(free) = self.keys.entry(key) {
            free.insert(Key { rows: 0, next_at });
            self.by_time.insert((next_at, key));
        }
    }

    /// A row was committed.
    pub fn add(&mut self, key: u64, next_at: Timestamp) {
        self.announce(key, next_at);
        if let Some(waiting) = self.keys.get_mut(&key) {
            waiting.rows += 1;
        }
    }

    /// A row of another key has come under this one, where it may be the earliest: the key is looked at no later than for it.
    pub fn join(&mut self, key: u64, next_at: Timestamp) {
        self.add(key, next_at);
        if self.keys.get(&key).is_some_and(|waiting| next_at < waiting.next_at) {
            self.put_off(key, next_at);
        }
    }

    /// The earliest event of a key waits again.
    pub fn put_off(&mut self, key: u64, next_at: Timestamp) {
        if let Some(waiting) = self.keys.get_mut(&key) {
            self.by_time.remove(&(waiting.next_at, key));
            waiting.next_at = next_at;
            self.by_time.insert((next_at, key));
        }
    }

    /// The earliest event of a key waits no longer; the next one of it, if any, is due at once.
    pub fn finish(&mut self, key: u64, now: Timestamp) {
        let Some(waiting) = self.keys.get_mut(&key) else { return };
        waiting.rows = waiting.rows.saturating_sub(1);
        if waiting.rows > 0 {
            return self.put_off(key, now);
        }
        self.by_time.remove(&(waiting.next_at, key));
        self.keys.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn of(rows: Vec<(u64, Timestamp, u64)>) -> Waiting {
        let mut waiting = Waiting::default();
        waiting.set_own(rows);
        waiting
    }

    #[test]
    fn a_key_waits_until_the_last_of_its_rows_is_finished() {
        let mut waiting = Waiting::default();
        waiting.announce(1, at(60));
        assert!(waiting.contains(1) && !waiting.contains(2), "before the commit already");
        waiting.add(1, at(60));
        waiting.add(1, at(10));
        assert_eq!(waiting.next_at(), Some(at(60)), "what stands behind waits for the earliest");
        waiting.finish(1, at(61));
        assert_eq!(waiting.next_at(), Some(at(61)), "the one behind is due at once");
        waiting.finish(1, at(62));
        assert!(!waiting.contains(1));
        assert_eq!(waiting.next_at(), None);
    }

    #[test]
    fn what_comes_under_another_key_may_be_the_earliest_there() {
        let mut waiting = of(vec![(1, at(900), 1)]);
        waiting.join(1, at(10));
        assert_eq!(waiting.next_at(), Some(at(10)));
        waiting.join(1, at(2_000));
        assert_eq!(waiting.next_at(), Some(at(10)), "a later one waits for it");
        for second in [11, 12] {
            waiting.finish(1, at(second));
            assert!(waiting.contains(1));
        }
        waiting.finish(1, at(13));
        assert!(!waiting.contains(1));
    }

    #[test]
    fn who_waits_in_another_lane_is_waited_for_whatever_waits_here() {
        let mut waiting = of(vec![(1, at(10), 1), (2, at(20), 1)]);
        waiting.set_elsewhere([1, 3]);
        assert!(waiting.contains(3) && waiting.waits_elsewhere(), "though nothing of it waits here yet");
        waiting.announce(3, at(5));
        assert_eq!(waiting.next_at(), Some(at(5)), "its first event here waits as well");
        waiting.set_own(vec![(2, at(20), 1)]);
        assert!(waiting.contains(3), "what waits here has nothing to do with it");
        waiting.set_elsewhere([]);
        assert!(!waiting.contains(3) && waiting.contains(2));
    }

    #[test]
    fn what_is_due_and_cannot_go_yet_is_put_off() {
        let mut waiting = of(vec![(1, at(10), 1), (2, at(20), 1), (3, at(30), 1)]);
        waiting.put_off_due(at(20), at(40));
        assert_eq!(waiting.next_at(), Some(at(30)), "not due yet, and so as it was");
        waiting.put_off_due(at(39), at(60));
        assert_eq!(waiting.next_at(), Some(at(40)));
    }

    #[test]
    fn the_next_retry_is_the_earliest_of_all_keys() {
        let mut waiting = of(vec![(1, at(30), 1), (2, at(20), 2)]);
        assert_eq!(waiting.next_at(), Some(at(20)));
        waiting.put_off(2, at(90));
        assert_eq!(waiting.next_at(), Some(at(30)));
    }
}
