//! Properties of the graph over random evidence, checked by other means than the graph's own.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use tracklayer_identity::decision::{Act, Decision, pair};
use tracklayer_identity::evidence::{Evidence, Profiles};
use tracklayer_identity::identifier::ValueMac;
use tracklayer_identity::policy::{Policy, TypeIndex, Types};

const TYPE_NAMES: [&str; 6] =
    ["user_id", "shopify_customer_id", "email", "phone", "device_id", "anonymous_id"];

type Seen = Vec<(usize, u8)>;
type Decided = (u8, (usize, u8), (usize, u8));

fn types() -> Types {
    Types::new(Arc::new(Policy::default()))
}

fn identifier(types: &mut Types, (kind, value): (usize, u8)) -> (TypeIndex, ValueMac) {
    // A hash whose order has nothing to do with type or value.
    let mut random = fastrand::Rng::with_seed((kind as u64) << 32 | u64::from(value));
    (types.intern(TYPE_NAMES[kind]), ValueMac(std::array::from_fn(|_| random.u8(..))))
}

fn event() -> impl Strategy<Value = Seen> {
    prop::collection::vec((0..TYPE_NAMES.len(), 0u8..5), 1..4)
}

fn history() -> impl Strategy<Value = Vec<Seen>> {
    prop::collection::vec(event(), 1..40)
}

/// Few events over many values: clashes and hubs are rare.
fn sparse_history() -> impl Strategy<Value = Vec<Seen>> {
    prop::collection::vec(prop::collection::vec((0..TYPE_NAMES.len(), 0u8..20), 1..4), 1..12)
}

fn decisions() -> impl Strategy<Value = Vec<Decided>> {
    let side = || (0..TYPE_NAMES.len(), 0u8..5);
    prop::collection::vec((0u8..3, side(), side()), 0..4)
}

fn evidence(types: &mut Types, events: &[Seen], decided: &[Decided]) -> Evidence {
    let mut evidence = Evidence::default();
    for event in events {
        let together: BTreeSet<_> = event.iter().map(|value| identifier(types, *value)).collect();
        evidence.observe(&together.into_iter().collect::<Vec<_>>());
    }
    for (id, (act, a, b)) in (1..).zip(decided) {
        let (a, b) = (identifier(types, *a).1, identifier(types, *b).1);
        let act = match act {
            0 => Act::Merge(a, b),
            1 => Act::Separate(a, b),
            _ => Act::Block(a),
        };
        evidence.decisions.push(Decision { at: Timestamp::UNIX_EPOCH, id, act });
    }
    evidence
}

fn seen(profiles: &Profiles, types: &Types) -> (Vec<(BTreeSet<ValueMac>, ValueMac)>, BTreeSet<ValueMac>) {
    (profiles.members(types), profiles.contested())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn order_and_duplicates_change_nothing(
        events in history(),
        shuffled in any::<u64>(),
        decided in decisions(),
    ) {
        let mut types = types();
        let forth = evidence(&mut types, &events, &decided).profiles(&types);
        let mut other = [events.clone(), events].concat();
        fastrand::Rng::with_seed(shuffled).shuffle(&mut other);
        let back = evidence(&mut types, &other, &decided).profiles(&types);
        prop_assert_eq!(seen(&forth, &types), seen(&back, &types));
        prop_assert_eq!(forth.collisions(), back.collisions());
    }

    #[test]
    fn no_profile_holds_two_values_of_an_exclusive_type_unless_merged(
        events in history(),
        decided in decisions(),
    ) {
        let mut types = types();
        let evidence = evidence(&mut types, &events, &decided);
        let profiles = evidence.profiles(&types);
        let kinds: BTreeMap<ValueMac, TypeIndex> =
            profiles.nodes.iter().map(|node| (node.mac, node.type_index)).collect();
        // Merged pairs, made transitive by repetition.
        let mut same: BTreeSet<(ValueMac, ValueMac)> = BTreeSet::new();
        let standing = tracklayer_identity::decision::Standing::of(&evidence.decisions);
        same.extend(standing.merged.iter().filter(|(a, b)| {
            kinds.contains_key(a) && kinds.get(a) == kinds.get(b)
        }));
        loop {
            let before = same.len();
            let all: Vec<_> = same.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
            for (a, b) in &all {
                for (_, d) in all.iter().filter(|(c, d)| c == b && d != a) {
                    same.insert(pair(*a, *d));
                }
            }
            if same.len() == before {
                break;
            }
        }
        for (members, _) in profiles.members(&types) {
            let exclusive: Vec<_> = members.iter().filter(|mac| types.is_exclusive(kinds[mac])).collect();
            for a in &exclusive {
                for b in exclusive.iter().filter(|b| **b > *a && kinds[**b] == kinds[*a]) {
                    prop_assert!(same.contains(&pair(**a, **b)));
                }
            }
        }
    }

    #[test]
    fn profiles_partition_what_is_not_blocked(events in history(), decided in decisions()) {
        let mut types = types();
        let evidence = evidence(&mut types, &events, &decided);
        let blocked: BTreeSet<ValueMac> = evidence
            .decisions
            .iter()
            .filter_map(|d| if let Act::Block(mac) = d.act { Some(mac) } else { None })
            .collect();
        let mut expected: BTreeSet<ValueMac> = BTreeSet::new();
        for value in events.iter().flatten() {
            expected.insert(identifier(&mut types, *value).1);
        }
        let members = evidence.profiles(&types).members(&types);
        let listed: Vec<ValueMac> = members.iter().flat_map(|(macs, _)| macs.iter().copied()).collect();
        let distinct: BTreeSet<ValueMac> = listed.iter().copied().collect();
        prop_assert_eq!(listed.len(), distinct.len());
        prop_assert_eq!(distinct, expected.difference(&blocked).copied().collect::<BTreeSet<_>>());
    }

    #[test]
    fn without_clash_or_hub_the_profiles_are_the_connected_components(events in sparse_history()) {
        let mut types = types();
        let profiles = evidence(&mut types, &events, &[]).profiles(&types);
        prop_assume!(profiles.verdict.collisions.is_empty());
        // Sets that touch are poured together until none does.
        let mut pools: Vec<BTreeSet<ValueMac>> = Vec::new();
        for event in &events {
            let mut pool: BTreeSet<ValueMac> =
                event.iter().map(|value| identifier(&mut types, *value).1).collect();
            let (touching, apart): (Vec<_>, Vec<_>) = pools.into_iter().partition(|p| !p.is_disjoint(&pool));
            touching.into_iter().for_each(|p| pool.extend(p));
            pools = apart;
            pools.push(pool);
        }
        let expected: BTreeSet<BTreeSet<ValueMac>> = pools.into_iter().collect();
        let got: BTreeSet<BTreeSet<ValueMac>> = profiles.members(&types).into_iter().map(|(m, _)| m).collect();
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn above_the_cap_the_two_weakest_types_stop_linking() {
    let mut types = types();
    let mut evidence = Evidence::default();
    // A chain e0 – a0 – e1 – a1 – … of 1,200 identifiers, and a user at its head.
    let numbered = |types: &mut Types, name: &str, n: u16| {
        let mut random = fastrand::Rng::with_seed(u64::from(n) << 8 | name.len() as u64);
        (types.intern(name), ValueMac(std::array::from_fn(|_| random.u8(..))))
    };
    let user = numbered(&mut types, "user_id", 0);
    for n in 0..600 {
        let email = numbered(&mut types, "email", n);
        let anonymous = numbered(&mut types, "anonymous_id", n);
        let next = numbered(&mut types, "email", n + 1);
        evidence.observe(&[email, anonymous]);
        evidence.observe(&[anonymous, next]);
    }
    evidence.observe(&[user, numbered(&mut types, "email", 0)]);
    let profiles = evidence.profiles(&types);
    assert_eq!(profiles.collisions().len(), 1);
    assert!(profiles.members(&types).iter().all(|(members, _)| members.len() <= 3));
    let components: BTreeSet<usize> = profiles.verdict.component.iter().copied().collect();
    assert_eq!(components.len(), 1);
}
