//! What a new verdict changes in what is stored: pure, so that the store only writes.
//!
//! Numbers are kept where most members keep them, so a merge rewrites the smaller side.

use std::collections::{BTreeMap, BTreeSet};

use tracklayer_ids::SubjectKey;

use crate::graph::{Node, Verdict};
use crate::leader::leader;
use crate::narrowing::{Cause, Outdated, outdated};
use crate::policy::Types;
use crate::union_find::UnionFind;

/// Number of a component within its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId(pub i64);

/// Number of a profile within its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileId(pub i64);

impl ComponentId {
    /// No component: numbers that are given start far above it.
    pub const NONE: Self = Self(0);
}

impl ProfileId {
    /// No profile.
    pub const NONE: Self = Self(0);
}

/// What is stored about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The identifier's seed key.
    pub key: SubjectKey,
    /// Its component, or the one it was provisionally given.
    pub component: ComponentId,
    /// Its profile, or the one it was provisionally given.
    pub profile: ProfileId,
    /// Whether it is a hub.
    pub hub: bool,
    /// Whether its profile is contested.
    pub contested: bool,
    /// Inserted by this transaction: its numbers are provisional.
    pub is_new: bool,
}

/// A node that must be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// Which.
    pub node: usize,
    /// Its component now.
    pub component: ComponentId,
    /// Its profile now.
    pub profile: ProfileId,
    /// Whether it is a hub now.
    pub hub: bool,
    /// Whether its profile is contested now.
    pub contested: bool,
}

/// A profile that is new or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileState {
    /// Which.
    pub profile: ProfileId,
    /// Its component.
    pub component: ComponentId,
    /// Its canonical key.
    pub key: SubjectKey,
    /// Whether a person is known, not just a device.
    pub person: bool,
}

/// What happened to profiles that were stored before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Several became one.
    Merge,
    /// Identifiers turned out to be claimed by several.
    Contest,
    /// One became several.
    Split,
    /// A stronger identifier leads now.
    Rekey,
}

/// An entry of the merge log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Keys before, ascending.
    pub before: Vec<SubjectKey>,
    /// Keys after, ascending.
    pub after: Vec<SubjectKey>,
    /// Nodes of the profiles concerned.
    pub nodes: Vec<usize>,
}

/// Everything to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Identifiers.
    pub rewrites: Vec<Rewrite>,
    /// All components of the region with their sizes.
    pub components: BTreeMap<ComponentId, usize>,
    /// Components that are no more.
    pub gone_components: Vec<ComponentId>,
    /// Profiles that are new or changed.
    pub profiles: Vec<ProfileState>,
    /// Profiles that are no more.
    pub gone_profiles: Vec<ProfileId>,
    /// Entries of the merge log.
    pub changes: Vec<Change>,
    /// Whose earlier decisions are out of date.
    pub outdated: BTreeMap<Cause, Outdated>,
    /// The component of each node now.
    pub component_of: Vec<ComponentId>,
}

impl ChangeKind {
    /// Its name in the merge log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Contest => "contest",
            Self::Split => "split",
            Self::Rekey => "rekey",
        }
    }
}

/// Compares. `fresh` hands out numbers that were never used.
pub fn difference(
    types: &Types,
    nodes: &[Node],
    stored: &[Stored],
    verdict: &Verdict,
    mut fresh: impl FnMut() -> i64,
) -> Difference {
    let old_components: Vec<(i64, bool)> = stored.iter().map(|s| (s.component.0, s.is_new)).collect();
    let old_profiles: Vec<(i64, bool)> = stored.iter().map(|s| (s.profile.0, s.is_new)).collect();
    let component_of: Vec<ComponentId> =
        keep_numbers(&verdict.component, &old_components, &mut fresh).into_iter().map(ComponentId).collect();
    let profile_of: Vec<ProfileId> =
        keep_numbers(&verdict.profile, &old_profiles, &mut fresh).into_iter().map(ProfileId).collect();

    let before = profiles(types, nodes, stored, |n| {
        (!stored[n].is_new).then_some((stored[n].profile, stored[n].component))
    });
    let after = profiles(types, nodes, stored, |n| Some((profile_of[n], component_of[n])));
    let mut result = Difference {
        changes: changes(stored, verdict, &profile_of, &before, &after),
        outdated: outdated(stored, &before, &profile_of),
        ..Difference::default()
    };
    for (n, old) in stored.iter().enumerate() {
        let now = Stored {
            component: component_of[n],
            profile: profile_of[n],
            hub: verdict.hub[n],
            contested: verdict.contested[n],
            ..*old
        };
        if now != *old {
            let Stored { component, profile, hub, contested, .. } = now;
            result.rewrites.push(Rewrite { node: n, component, profile, hub, contested });
        }
        *result.components.entry(component_of[n]).or_default() += 1;
    }
    let old_ids: BTreeSet<ComponentId> = stored.iter().filter(|s| !s.is_new).map(|s| s.component).collect();
    result.gone_components = old_ids.into_iter().filter(|id| !result.components.contains_key(id)).collect();
    result.gone_profiles = before.keys().filter(|id| !after.contains_key(id)).copied().collect();
    result.profiles = after.into_values().filter(|state| before.get(&state.profile) != Some(state)).collect();
    result.component_of = component_of;
    result
}

/// A number for each label: the old number that most of its members have, each number once, else a fresh one. Stored
/// members count before provisional ones; of equals the lower number stays. 0 is no number.
fn keep_numbers(labels: &[usize], old: &[(i64, bool)], fresh: &mut impl FnMut() -> i64) -> Vec<i64> {
    let mut votes: BTreeMap<(usize, i64), (u32, u32)> = BTreeMap::new();
    for (label, (number, is_new)) in labels.iter().zip(old).filter(|(_, (number, _))| *number != 0) {
        let vote = votes.entry((*label, *number)).or_default();
        vote.0 += u32::from(!is_new);
        vote.1 += 1;
    }
    let mut ranked: Vec<_> = votes.into_iter().map(|((label, number), vote)| (vote, number, label)).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut number_of: BTreeMap<usize, i64> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (_, number, label) in ranked {
        if !number_of.contains_key(&label) && taken.insert(number) {
            number_of.insert(label, number);
        }
    }
    labels.iter().map(|label| *number_of.entry(*label).or_insert_with(&mut *fresh)).collect()
}

/// The profiles of the nodes that `place` puts somewhere.
fn profiles(
    types: &Types,
    nodes: &[Node],
    stored: &[Stored],
    place: impl Fn(usize) -> Option<(ProfileId, ComponentId)>,
) -> BTreeMap<ProfileId, ProfileState> {
    let mut members: BTreeMap<ProfileId, (ComponentId, Vec<usize>)> = BTreeMap::new();
    for n in 0..nodes.len() {
        if let Some((profile, component)) = place(n) {
            members.entry(profile).or_insert((component, Vec::new())).1.push(n);
        }
    }
    members
        .into_iter()
        .filter_map(|(profile, (component, members))| {
            let person = members.iter().any(|&n| types.is_person(nodes[n].type_index));
            let leader = leader(types, members, |&n| (nodes[n].type_index, nodes[n].mac))?;
            Some((profile, ProfileState { profile, component, key: stored[leader].key, person }))
        })
        .collect()
}

/// Log entries: one for each set of profiles, before and after, that share members and are not the same.
fn changes(
    stored: &[Stored],
    verdict: &Verdict,
    profile_of: &[ProfileId],
    before: &BTreeMap<ProfileId, ProfileState>,
    after: &BTreeMap<ProfileId, ProfileState>,
) -> Vec<Change> {
    let old_place: BTreeMap<ProfileId, usize> = before.keys().enumerate().map(|(n, id)| (*id, n)).collect();
    let new_place: BTreeMap<ProfileId, usize> =
        after.keys().enumerate().map(|(n, id)| (*id, old_place.len() + n)).collect();
    let mut related = UnionFind::new(old_place.len() + new_place.len());
    for (old, now) in stored.iter().zip(profile_of) {
        if let (false, Some(&old), Some(&now)) = (old.is_new, old_place.get(&old.profile), new_place.get(now))
        {
            related.union(old, now);
        }
    }
    let mut groups: BTreeMap<usize, Change> = BTreeMap::new();
    let mut newly_contested = BTreeSet::new();
    for (n, (old, now)) in stored.iter().zip(profile_of).enumerate() {
        let Some(&place) = new_place.get(now) else { continue };
        let group = related.find(place);
        if !old.is_new && verdict.contested[n] && !old.contested {
            newly_contested.insert(group);
        }
        let empty =
            || Change { kind: ChangeKind::Rekey, before: Vec::new(), after: Vec::new(), nodes: Vec::new() };
        groups.entry(group).or_insert_with(empty).nodes.push(n);
    }
    for (id, state) in before {
        if let Some(change) = groups.get_mut(&related.find(old_place[id])) {
            change.before.push(state.key);
        }
    }
    for (id, state) in after {
        if let Some(change) = groups.get_mut(&related.find(new_place[id])) {
            change.after.push(state.key);
        }
    }
    groups
        .into_iter()
        .filter_map(|(group, mut change)| {
            change.before.sort_unstable();
            change.after.sort_unstable();
            if change.before.is_empty() || change.before == change.after {
                return None;
            }
            change.kind = if newly_contested.contains(&group) {
                ChangeKind::Contest
            } else if change.before.len() > change.after.len() {
                ChangeKind::Merge
            } else if change.before.len() < change.after.len() {
                ChangeKind::Split
            } else {
                ChangeKind::Rekey
            };
            Some(change)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::graph::{Graph, weigh};
    use crate::identifier::ValueMac;
    use crate::policy::Policy;

    /// (type, hash, component, profile, new)
    type Row = (&'static str, u8, i64, i64, bool);

    fn compare(rows: &[Row], edges: &[(usize, usize)]) -> Difference {
        let mut types = Types::new(Arc::new(Policy::default()));
        let nodes: Vec<Node> = rows
            .iter()
            .map(|(name, mac, ..)| Node {
                type_index: types.intern(name),
                mac: ValueMac([*mac; 32]),
                known_hub: false,
                linked_elsewhere: false,
            })
            .collect();
        let stored: Vec<Stored> = rows
            .iter()
            .map(|(_, mac, component, profile, is_new)| Stored {
                key: SubjectKey([*mac; 16]),
                component: ComponentId(*component),
                profile: ProfileId(*profile),
                hub: false,
                contested: false,
                is_new: *is_new,
            })
            .collect();
        let verdict = weigh(&Graph { types: &types, nodes: &nodes, edges, merged: &[] });
        let mut next = 100;
        difference(&types, &nodes, &stored, &verdict, || {
            next += 1;
            next
        })
    }

    #[test]
    fn a_new_visitor_needs_no_rewrite() {
        let change = compare(&[("user_id", 1, 10, 20, true), ("anonymous_id", 2, 10, 20, true)], &[(0, 1)]);
        assert_eq!((change.rewrites.len(), change.changes.len()), (0, 0));
        assert_eq!(change.components, [(ComponentId(10), 2)].into());
        let expected = ProfileState {
            profile: ProfileId(20),
            component: ComponentId(10),
            key: SubjectKey([1; 16]),
            person: true,
        };
        assert_eq!(change.profiles, [expected]);
    }

    #[test]
    fn nobody_keeps_the_number_of_nowhere() {
        let change = compare(&[("user_id", 1, 0, 0, true), ("anonymous_id", 2, 0, 0, true)], &[(0, 1)]);
        assert_eq!(change.rewrites.len(), 2);
        assert_eq!(change.components, [(ComponentId(101), 2)].into());
    }

    #[test]
    fn a_merge_rewrites_the_smaller_side_and_is_logged() {
        let rows = [
            ("email", 1, 10, 20, false),
            ("anonymous_id", 2, 10, 20, false),
            ("anonymous_id", 3, 11, 21, false),
        ];
        let change = compare(&rows, &[(0, 1), (0, 2)]);
        assert_eq!(change.rewrites.iter().map(|r| r.node).collect::<Vec<_>>(), [2]);
        assert_eq!(change.gone_components, [ComponentId(11)]);
        assert_eq!(change.gone_profiles, [ProfileId(21)]);
        assert_eq!(change.changes.len(), 1);
        assert_eq!(change.changes[0].kind, ChangeKind::Merge);
        assert_eq!(change.changes[0].after, [SubjectKey([1; 16])]);
    }

    #[test]
    fn a_contested_device_leaves_its_user() {
        let rows =
            [("user_id", 1, 10, 20, false), ("anonymous_id", 2, 10, 20, false), ("user_id", 3, 10, 20, true)];
        let change = compare(&rows, &[(0, 1), (1, 2)]);
        assert_eq!(change.changes[0].kind, ChangeKind::Contest);
        assert_eq!(change.changes[0].before, [SubjectKey([1; 16])]);
        assert_eq!(change.changes[0].after, [SubjectKey([1; 16]), SubjectKey([2; 16])]);
        assert_eq!(change.components, [(ComponentId(10), 3)].into());
        // The device and the new user leave; the first user keeps the profile.
        assert_eq!(change.rewrites.iter().map(|r| r.node).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(change.profiles.len(), 2);
    }

    #[test]
    fn a_stronger_identifier_changes_the_key() {
        let rows =
            [("email", 5, 10, 20, false), ("anonymous_id", 2, 10, 20, false), ("user_id", 9, 10, 20, true)];
        let change = compare(&rows, &[(0, 1), (0, 2)]);
        assert_eq!(change.rewrites.len(), 0);
        assert_eq!(change.changes[0].kind, ChangeKind::Rekey);
        assert_eq!(change.changes[0].after, [SubjectKey([9; 16])]);
    }
}
