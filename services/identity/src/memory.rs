//! Bounded memories of a process, and maps over keys that nobody outside chooses.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// A map over numbers and keyed hashes, which need no hash that withstands whoever picks them.
pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
/// A set of such.
pub type FastSet<K> = HashSet<K, foldhash::fast::RandomState>;

/// What was noted or asked for lately, in two generations: once the younger has half of what there is room for, the older is
/// forgotten. Nothing is kept in order, so an entry costs its own hash and no more.
#[derive(Debug)]
pub struct Generations<K, V> {
    young: FastMap<K, V>,
    old: FastMap<K, V>,
    /// Room of one generation.
    half: usize,
    taken: usize,
    weigh: fn(&V) -> usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// Room for this much.
    #[must_use]
    pub fn new(capacity: usize, weigh: fn(&V) -> usize) -> Self {
        Self { young: FastMap::default(), old: FastMap::default(), half: capacity / 2, taken: 0, weigh }
    }

    /// What was noted, unless it is forgotten.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.note(key, value);
        }
        self.young.get(key)
    }

    /// Notes a value instead of what was noted before.
    pub fn note(&mut self, key: K, value: V) {
        let weight = (self.weigh)(&value);
        if self.taken + weight > self.half {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.taken = 0;
        }
        self.taken += weight;
        if let Some(before) = self.young.insert(key, value) {
            self.taken -= (self.weigh)(&before);
        }
    }

    /// Forgets it now.
    pub fn forget(&mut self, key: &K) {
        if let Some(before) = self.young.remove(key) {
            self.taken -= (self.weigh)(&before);
        }
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes_once_there_is_no_room() {
        let mut memory = Generations::new(20, |_| 1);
        for n in 0..1_000 {
            memory.note(n, n * 2);
            assert_eq!(memory.get(&0), Some(&0), "asked for all the time");
            assert_eq!(memory.get(&(n - n.min(4))), Some(&(2 * (n - n.min(4)))), "noted just now");
            assert!(memory.young.len() + memory.old.len() <= 20);
        }
        assert_eq!(memory.get(&500), None);
    }

    #[test]
    fn what_is_noted_anew_or_forgotten_never_comes_back() {
        let mut memory = Generations::new(8, |_| 1);
        for key in [1, 2] {
            memory.note(key, "first");
            (10..14).for_each(|n| memory.note(n, ""));
            assert!(memory.old.contains_key(&key));
            memory.note(key, "second");
        }
        assert_eq!(memory.get(&2), Some(&"second"));
        memory.forget(&2);
        assert_eq!(memory.get(&2), None, "nor what it was before");
        assert_eq!(memory.get(&1), Some(&"second"));
        assert_eq!(memory.taken, memory.young.len());
    }

    #[test]
    fn room_is_counted_in_weight() {
        let mut memory = Generations::new(100, |weight: &usize| *weight);
        memory.note('a', 40);
        memory.note('b', 20);
        assert!(memory.old.contains_key(&'a') && memory.taken == 20);
        memory.note('b', 30);
        assert_eq!(memory.taken, 30);
    }
}
