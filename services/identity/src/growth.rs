//! News that need no look at the graph: new identifiers that join the profile of those whom they were seen with, and change
//! nothing else. Pure.
//!
//! A verdict ([`crate::graph`]) is about a whole component, and to read that of a person with a hundred browsers takes hundreds
//! of probes. A visitor id a week is what people bring most, and what it does follows from the event and a few rows: linked
//! with the profile by somebody who is no hub, it is in the profile; of no exclusive type, it claims nobody; weaker than a member,
//! it does not lead; within the fan-out limits and below the cap, nobody stops linking. The store checks the rest under the
//! component's lock: that all stand where they were thought to stand, how many neighbours they have, how large the component is
//! and was, whether a decision is about the new ones.
//! Whatever is not plainly so is left to the verdict.
//!
//! Where the rules have changed, what is stored follows from those before until the next verdict about the component: a decision, or
//! evidence that is no such news. Who only joins brings none, but where somebody stopped linking because the component was too
//! large: that is looked at anew with whatever comes. So a type that becomes exclusive splits a stored profile only once its
//! component is recomputed.

use std::collections::{BTreeMap, BTreeSet};

use crate::difference::{ComponentId, ProfileId};
use crate::identifier::Identifier;
use crate::policy::{TypeIndex, Types};
use crate::store::lookup::Place;
use crate::union_find::UnionFind;

/// New identifiers and those of one profile whom they were seen with. All numbers are places in the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// The component.
    pub component: ComponentId,
    /// The profile that they join.
    pub profile: ProfileId,
    /// The new ones.
    pub new: Vec<usize>,
    /// Those whom they were seen with.
    pub beside: Vec<Beside>,
}

/// Somebody whom new identifiers were seen with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// Who.
    pub place: usize,
    /// Most neighbours, of any type, that leave room for the new ones within all fan-out limits; `None`: no limit is concerned.
    pub room: Option<u32>,
}

/// The groups of new evidence that may be such news. `pairs` are places of identifiers.
#[must_use]
pub fn joinings(
    types: &Types,
    identifiers: &[(Identifier, Option<Place>)],
    pairs: impl IntoIterator<Item = (usize, usize)>,
) -> Vec<Joining> {
    let is_hub = |n: usize| identifiers[n].1.is_some_and(|place| place.hub);
    let mut together = UnionFind::new(identifiers.len());
    // A hub links nobody.
    let mut linked = UnionFind::new(identifiers.len());
    let mut neighbours = vec![BTreeSet::new(); identifiers.len()];
    for (a, b) in pairs {
        together.union(a, b);
        if !is_hub(a) && !is_hub(b) {
            linked.union(a, b);
        }
        neighbours[a].insert(b);
        neighbours[b].insert(a);
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for n in 0..identifiers.len() {
        groups.entry(together.find(n)).or_default().push(n);
    }
    let linked: Vec<usize> = (0..identifiers.len()).map(|n| linked.find(n)).collect();
    let evidence = Evidence { types, identifiers, neighbours: &neighbours, linked: &linked };
    groups.into_values().filter_map(|group| evidence.joining(group)).collect()
}

/// The evidence alone passes a fan-out limit.
struct TooMany;

struct Evidence<'a> {
    types: &'a Types,
    identifiers: &'a [(Identifier, Option<Place>)],
    neighbours: &'a [BTreeSet<usize>],
    linked: &'a [usize],
}

impl Evidence<'_> {
    fn joining(&self, group: Vec<usize>) -> Option<Joining> {
        let (new, known): (Vec<usize>, Vec<usize>) =
            group.into_iter().partition(|&n| self.identifiers[n].1.is_none());
        let home = known.iter().filter_map(|&n| self.identifiers[n].1).find(|place| !place.hub)?;
        let at_home = |place: Place| {
            !place.contested && (place.component, place.profile) == (home.component, home.profile)
        };
        let all_at_home = known.iter().all(|&n| self.identifiers[n].1.is_some_and(at_home));
        let linking: BTreeSet<usize> = known
            .iter()
            .filter(|&&n| self.identifiers[n].1.is_some_and(|place| !place.hub))
            .map(|&n| self.linked[n])
            .collect();
        let all_linked = new.iter().all(|&n| linking.contains(&self.linked[n]));
        let nothing_else = known
            .iter()
            .all(|&n| self.neighbours[n].iter().all(|&other| self.identifiers[other].1.is_none()));
        if new.is_empty() || !all_at_home || !all_linked || !nothing_else || !self.lead(&known, &new) {
            return None;
        }
        if new.iter().any(|&n| self.room(n).is_err()) {
            return None;
        }
        let beside = known.iter().map(|&place| Ok(Beside { place, room: self.room(place)? }));
        let beside = beside.collect::<Result<Vec<_>, TooMany>>().ok()?;
        Some(Joining { component: home.component, profile: home.profile, new, beside })
    }

    /// Whether nothing that a profile is known by, its leader and whether it is a person, can come from the new ones.
    fn lead(&self, known: &[usize], new: &[usize]) -> bool {
        let type_of = |n: usize| self.identifiers[n].0.type_index;
        let strength = |n: usize| self.types.strength(type_of(n), self.identifiers[n].0.mac);
        let strongest = known.iter().map(|&n| strength(n)).min();
        let is_person = known.iter().any(|&n| self.types.is_person(type_of(n)));
        new.iter().all(|&n| {
            !self.types.is_exclusive(type_of(n))
                && strongest.is_some_and(|strongest| strongest < strength(n))
                && (is_person || !self.types.is_person(type_of(n)))
        })
    }

    /// How many neighbours it may have besides those of the evidence, as far as that is limited. A hub stays one, and an
    /// exclusive identifier never becomes one.
    fn room(&self, n: usize) -> Result<Option<u32>, TooMany> {
        let (identifier, place) = &self.identifiers[n];
        if self.types.is_exclusive(identifier.type_index) || place.is_some_and(|place| place.hub) {
            return Ok(None);
        }
        let mut gained: BTreeMap<TypeIndex, u32> = BTreeMap::new();
        for &neighbour in &self.neighbours[n] {
            *gained.entry(self.identifiers[neighbour].0.type_index).or_default() += 1;
        }
        let mut room = None;
        for (neighbour_type, count) in gained {
            if let Some(limit) = self.types.limit(identifier.type_index, neighbour_type) {
                let left = limit.checked_sub(count).ok_or(TooMany)?;
                room = Some(room.map_or(left, |room: u32| room.min(left)));
            }
        }
        Ok(room)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracklayer_ids::SubjectKey;

    use super::*;
    use crate::identifier::ValueMac;
    use crate::policy::Policy;

    const HOME: (i64, bool, bool) = (1, false, false);
    const HUB: (i64, bool, bool) = (1, true, false);

    /// (type, hash, (profile, hub, contested) if it is stored)
    type Row = (&'static str, u8, Option<(i64, bool, bool)>);

    fn found(rows: &[Row], pairs: &[(usize, usize)]) -> Vec<Joining> {
        let mut types = Types::new(Arc::new(Policy::default()));
        let identifiers: Vec<_> = rows
            .iter()
            .map(|(name, mac, place)| {
                let type_index = types.intern(name);
                let (mac, key) = (ValueMac([*mac; 32]), SubjectKey([*mac; 16]));
                let place = place.map(|(profile, hub, contested)| Place {
                    component: ComponentId(7),
                    profile: ProfileId(profile),
                    hub,
                    contested,
                });
                (Identifier { type_index, mac, key }, place)
            })
            .collect();
        joinings(&types, &identifiers, pairs.iter().copied())
    }

    #[test]
    fn a_new_browser_of_a_known_person_joins() {
        let rows = [("user_id", 1, Some(HOME)), ("email", 2, Some(HOME)), ("anonymous_id", 3, None)];
        let joining = found(&rows, &[(0, 2), (1, 2)]).remove(0);
        assert_eq!(
            (joining.component, joining.profile, joining.new),
            (ComponentId(7), ProfileId(1), vec![2])
        );
        let beside = [Beside { place: 0, room: None }, Beside { place: 1, room: Some(199) }];
        assert_eq!(joining.beside, beside, "an address may have 200 browsers, a login any number");
    }

    /// What is told where it fails, the identifiers, and who was seen with whom.
    type Case<'a> = (&'a str, &'a [Row], &'a [(usize, usize)]);

    #[test]
    fn whatever_may_change_more_is_left_to_the_verdict() {
        let user: Row = ("user_id", 1, Some(HOME));
        let browser: Row = ("anonymous_id", 3, None);
        let cases: &[Case<'_>] = &[
            ("another login", &[user, ("app_user_id", 2, None)], &[(0, 1)]),
            ("a stronger one leads", &[("anonymous_id", 1, Some(HOME)), ("device_id", 2, None)], &[(0, 1)]),
            ("a lower hash leads", &[("anonymous_id", 4, Some(HOME)), browser], &[(0, 1)]),
            ("two profiles", &[user, ("email", 2, Some((2, false, false))), browser], &[(0, 2), (1, 2)]),
            ("contested", &[("email", 2, Some((1, false, true))), browser], &[(0, 1)]),
            ("a pair of known ones", &[user, ("email", 2, Some(HOME)), browser], &[(0, 1), (0, 2)]),
            ("a hub alone links nobody", &[user, ("email", 2, Some(HUB)), browser], &[(1, 2)]),
            (
                "a hub between",
                &[user, ("email", 2, Some(HUB)), browser, ("anonymous_id", 4, None)],
                &[(0, 2), (1, 2), (1, 3)],
            ),
            (
                "a hub of somebody else",
                &[user, ("email", 2, Some((2, true, false))), browser],
                &[(0, 2), (1, 2)],
            ),
            ("nobody known", &[("user_id", 1, None), browser], &[(0, 1)]),
            (
                "too many at once",
                &[
                    ("user_id", 1, Some(HOME)),
                    ("anonymous_id", 2, None),
                    ("email", 3, None),
                    ("email", 4, None),
                    ("email", 5, None),
                    ("email", 6, None),
                    ("email", 7, None),
                    ("email", 8, None),
                ],
                &[(0, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (1, 7)],
            ),
        ];
        for (what, rows, pairs) in cases {
            assert_eq!(found(rows, pairs), [], "{what}");
        }
        let beside_a_hub = [user, ("email", 2, Some(HUB)), browser];
        assert_eq!(found(&beside_a_hub, &[(0, 2), (1, 2)]).len(), 1, "a hub of the profile stays what it is");
    }
}
