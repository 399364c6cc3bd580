//! What the decision owner decided: part of the evidence, so that replays keep it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::identifier::ValueMac;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Both are the same person: two values of an exclusive type may then be in one profile.
    Merge(ValueMac, ValueMac),
    /// Both are not linked, whatever was seen.
    Separate(ValueMac, ValueMac),
    /// The identifier is shared by many and links nobody.
    Block(ValueMac),
}

/// One decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// When. Per pair the latest counts; of two at the same time the one with the higher id.
    pub at: Timestamp,
    /// Its number in the workspace.
    pub id: i64,
    /// What.
    pub act: Act,
}

/// The decisions that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Pairs that are the same person, lower hash first.
    pub merged: BTreeSet<(ValueMac, ValueMac)>,
    /// Pairs that are not linked, lower hash first.
    pub separated: BTreeSet<(ValueMac, ValueMac)>,
    /// Identifiers that link nobody.
    pub blocked: BTreeSet<ValueMac>,
}

impl Standing {
    /// Picks the latest of each pair.
    #[must_use]
    pub fn of(decisions: &[Decision]) -> Self {
        let mut latest: BTreeMap<(ValueMac, ValueMac), (Timestamp, i64, bool)> = BTreeMap::new();
        let mut standing = Self::default();
        for decision in decisions {
            let (a, b, merge) = match decision.act {
                Act::Merge(a, b) => (a, b, true),
                Act::Separate(a, b) => (a, b, false),
                Act::Block(mac) => {
                    standing.blocked.insert(mac);
                    continue;
                }
            };
            let entry = latest.entry(pair(a, b)).or_insert((decision.at, decision.id, merge));
            if (decision.at, decision.id) > (entry.0, entry.1) {
                *entry = (decision.at, decision.id, merge);
            }
        }
        for (pair, (_, _, merge)) in latest {
            let side = if merge { &mut standing.merged } else { &mut standing.separated };
            side.insert(pair);
        }
        standing
    }
}

/// A pair, lower hash first.
#[must_use]
pub fn pair(a: ValueMac, b: ValueMac) -> (ValueMac, ValueMac) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_decision_of_a_pair_counts_whatever_the_order() {
        let (a, b) = (ValueMac([1; 32]), ValueMac([2; 32]));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let merge = Decision { at: at("2026-11-01T00:00:00Z"), id: 1, act: Act::Merge(a, b) };
        let separate = Decision { at: at("2026-11-02T00:00:00Z"), id: 2, act: Act::Separate(b, a) };
        let forth = Standing::of(&[merge, separate]);
        assert_eq!(forth, Standing::of(&[separate, merge]));
        assert_eq!((forth.merged.len(), forth.separated.len()), (0, 1));
        let same_time = Decision { id: 3, at: separate.at, ..merge };
        assert_eq!(Standing::of(&[same_time, separate]).merged.len(), 1);
    }
}
