//! Whose earlier decisions are out of date after a change of profiles: pure.
//!
//! A decision of consent is made for a person and everybody whom the person is linked to at that moment, the canonical key
//! among them. When the same company is another one later, the decision has to be made again: it may now be bound by what
//! somebody else said, and a later opt-out of the new company would not name it. One key of each company that changed finds
//! every such decision: the canonical key of a profile that was stored, the own key of an identifier that was not.

use std::collections::{BTreeMap, BTreeSet};

use tracklayer_ids::SubjectKey;

use crate::difference::{ProfileId, ProfileState, Stored};

/// Why decisions have to be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Company came, and nobody left.
    Merge,
    /// Somebody left.
    Split,
}

impl Cause {
    /// Its name in consent's log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Split => "split",
        }
    }
}

/// Companies that changed for one cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outdated {
    /// One key of each.
    pub keys: BTreeSet<SubjectKey>,
    /// Everybody who was in one of them.
    pub nodes: Vec<usize>,
}

/// Compares the companies of the nodes before, as stored, and after.
#[must_use]
pub fn outdated(
    stored: &[Stored],
    before: &BTreeMap<ProfileId, ProfileState>,
    profile_of: &[ProfileId],
) -> BTreeMap<Cause, Outdated> {
    // An identifier that was not stored was a company of its own: others may have been decided about by its computed key.
    let mut companies: BTreeMap<(Option<ProfileId>, usize), Vec<usize>> = BTreeMap::new();
    for (n, old) in stored.iter().enumerate() {
        let company = if old.is_new { (None, n) } else { (Some(old.profile), 0) };
        companies.entry(company).or_default().push(n);
    }
    let mut sizes: BTreeMap<ProfileId, usize> = BTreeMap::new();
    for profile in profile_of {
        *sizes.entry(*profile).or_default() += 1;
    }
    let mut outdated: BTreeMap<Cause, Outdated> = BTreeMap::new();
    for ((profile, _), nodes) in companies {
        let now: BTreeSet<ProfileId> = nodes.iter().map(|&n| profile_of[n]).collect();
        let grown = now.iter().any(|profile| sizes[profile] > nodes.len());
        let cause = match now.len() {
            1 if !grown => continue,
            1 => Cause::Merge,
            _ => Cause::Split,
        };
        let canonical = profile.and_then(|profile| before.get(&profile)).map(|state| state.key);
        let entry = outdated.entry(cause).or_default();
        entry.keys.extend(canonical.or_else(|| nodes.first().map(|&n| stored[n].key)));
        entry.nodes.extend(nodes);
    }
    outdated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::difference::ComponentId;

    /// (key, profile before; 0: not stored, profile after)
    fn compare(rows: &[(u8, i64, i64)]) -> Vec<(Cause, Vec<u8>)> {
        let stored: Vec<Stored> = rows
            .iter()
            .map(|(key, before, _)| Stored {
                key: SubjectKey([*key; 16]),
                component: ComponentId(1),
                profile: ProfileId(*before),
                hub: false,
                contested: false,
                is_new: *before == 0,
            })
            .collect();
        let mut before = BTreeMap::new();
        for old in stored.iter().filter(|old| !old.is_new) {
            let (profile, component, key) = (old.profile, old.component, old.key);
            before.entry(profile).or_insert(ProfileState { profile, component, key, person: true });
        }
        let after: Vec<ProfileId> = rows.iter().map(|row| ProfileId(row.2)).collect();
        let found = outdated(&stored, &before, &after);
        found.into_iter().map(|(cause, of)| (cause, of.keys.iter().map(|key| key.0[0]).collect())).collect()
    }

    #[test]
    fn each_side_of_a_merge_is_named_once() {
        assert_eq!(compare(&[(1, 10, 10), (2, 10, 10), (3, 11, 10)]), [(Cause::Merge, vec![1, 3])]);
    }

    #[test]
    fn an_identifier_that_was_not_stored_and_the_profile_that_it_joins_are_named() {
        assert_eq!(compare(&[(1, 10, 10), (2, 10, 10), (3, 0, 10)]), [(Cause::Merge, vec![1, 3])]);
        assert_eq!(compare(&[(1, 0, 10), (2, 0, 10)]), [(Cause::Merge, vec![1, 2])]);
    }

    #[test]
    fn whoever_leaves_is_found_by_the_key_of_the_profile_that_was() {
        assert_eq!(compare(&[(1, 10, 10), (2, 10, 12)]), [(Cause::Split, vec![1])]);
        // The device leaves one profile, a stranger joins the other part.
        let both = compare(&[(1, 10, 10), (2, 10, 12), (3, 11, 12)]);
        assert_eq!(both, [(Cause::Merge, vec![3]), (Cause::Split, vec![1])]);
    }

    #[test]
    fn who_keeps_the_same_company_is_not_named_whatever_its_number() {
        assert_eq!(compare(&[(1, 10, 7), (2, 10, 7), (3, 11, 11), (4, 0, 9)]), []);
    }
}
