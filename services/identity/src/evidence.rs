//! Everything that was ever seen of a workspace, as sets, and the profiles that follow from it.
//!
//! The store keeps the same answer up to date region by region; this is what it must always equal.

use std::collections::{BTreeMap, BTreeSet};

use crate::decision::{Decision, Standing, pair};
use crate::graph::{Collision, Graph, Node, Verdict, weigh};
use crate::identifier::ValueMac;
use crate::leader::leader;
use crate::policy::{TypeIndex, Types};

/// Observations, decisions and erasures.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    seen: BTreeMap<ValueMac, TypeIndex>,
    pairs: BTreeSet<(ValueMac, ValueMac)>,
    /// What the decision owner decided.
    pub decisions: Vec<Decision>,
    /// What was erased.
    pub erased: BTreeSet<ValueMac>,
}

/// The graph of an [`Evidence`] with its verdict.
#[derive(Debug, Clone)]
pub struct Profiles {
    /// The identifiers, ascending by hash.
    pub nodes: Vec<Node>,
    /// What the graph says about them.
    pub verdict: Verdict,
}

impl Evidence {
    /// Adds what one event carried: distinct, not blocked by policy, at most the strongest eight.
    pub fn observe(&mut self, together: &[(TypeIndex, ValueMac)]) {
        for &(type_index, mac) in together {
            self.seen.insert(mac, type_index);
            self.pairs
                .extend(together.iter().filter(|(_, other)| *other > mac).map(|(_, other)| (mac, *other)));
        }
    }

    /// The profiles that follow.
    #[must_use]
    pub fn profiles(&self, types: &Types) -> Profiles {
        let standing = Standing::of(&self.decisions);
        let nodes: Vec<Node> = self
            .seen
            .iter()
            .filter(|(mac, _)| !self.erased.contains(mac) && !standing.blocked.contains(mac))
            .map(|(&mac, &type_index)| Node { type_index, mac, known_hub: false, linked_elsewhere: false })
            .collect();
        let place: BTreeMap<ValueMac, usize> =
            nodes.iter().enumerate().map(|(n, node)| (node.mac, n)).collect();
        let indices = |pairs: &BTreeSet<(ValueMac, ValueMac)>| -> Vec<(usize, usize)> {
            pairs.iter().filter_map(|(a, b)| Some((*place.get(a)?, *place.get(b)?))).collect()
        };
        let mut linked: BTreeSet<_> = self.pairs.difference(&standing.separated).copied().collect();
        linked.extend(standing.merged.iter().map(|&(a, b)| pair(a, b)));
        let verdict = weigh(&Graph {
            types,
            nodes: &nodes,
            edges: &indices(&linked),
            merged: &indices(&standing.merged),
        });
        Profiles { nodes, verdict }
    }
}

impl Profiles {
    /// The profiles as sets of hashes, each with its leader; ascending.
    #[must_use]
    pub fn members(&self, types: &Types) -> Vec<(BTreeSet<ValueMac>, ValueMac)> {
        let mut by_profile: BTreeMap<usize, Vec<&Node>> = BTreeMap::new();
        for (node, profile) in self.nodes.iter().zip(&self.verdict.profile) {
            by_profile.entry(*profile).or_default().push(node);
        }
        let mut all: Vec<_> = by_profile
            .into_values()
            .filter_map(|members| {
                let leader = leader(types, members.iter().copied(), |node| (node.type_index, node.mac))?;
                Some((members.iter().map(|node| node.mac).collect(), leader.mac))
            })
            .collect();
        all.sort();
        all
    }

    /// Hashes of the identifiers that several anchors claim.
    #[must_use]
    pub fn contested(&self) -> BTreeSet<ValueMac> {
        let contested = self.nodes.iter().zip(&self.verdict.contested).filter(|(_, contested)| **contested);
        contested.map(|(node, _)| node.mac).collect()
    }

    /// Collisions by hash instead of by index.
    #[must_use]
    pub fn collisions(&self) -> BTreeSet<CollisionKey> {
        self.verdict.collisions.iter().map(|collision| CollisionKey::new(collision, &self.nodes)).collect()
    }
}

/// What makes a collision that collision: its kind and whom it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CollisionKey {
    /// Which kind.
    pub kind: CollisionKind,
    /// Anchors; the hub; the leader of an oversize component.
    pub between: BTreeSet<ValueMac>,
    /// What cannot be attributed.
    pub through: BTreeSet<ValueMac>,
}

/// Kind of a collision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CollisionKind {
    /// Two values of an exclusive type.
    Exclusive,
    /// Too many neighbours.
    Hub,
    /// Too many identifiers in one component.
    Oversize,
}

impl CollisionKind {
    /// Its name in tables and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Hub => "hub",
            Self::Oversize => "oversize",
        }
    }
}

impl CollisionKey {
    /// Of a collision in a graph.
    #[must_use]
    pub fn new(collision: &Collision, nodes: &[Node]) -> Self {
        let macs = |indices: &[usize]| indices.iter().map(|&n| nodes[n].mac).collect();
        let (kind, between, through) = match collision {
            Collision::Exclusive { between, through, .. } => {
                (CollisionKind::Exclusive, macs(between), macs(through))
            }
            Collision::Hub(hub) => (CollisionKind::Hub, macs(&[*hub]), BTreeSet::new()),
            Collision::Oversize { leader } => (CollisionKind::Oversize, macs(&[*leader]), BTreeSet::new()),
        };
        Self { kind, between, through }
    }
}
