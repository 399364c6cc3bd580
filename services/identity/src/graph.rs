//! Who belongs together: a pure function from identifiers and edges to profiles, hubs, contested pieces and collisions.
//!
//! The answer depends on the *sets* alone, never on the order in which they were learned, so replays, duplicates and
//! parallel workers agree. It also works on a region of the graph: a hub that was found before says so (`known_hub`), and
//! whether it has neighbours outside the region (`linked_elsewhere`).

use std::collections::{BTreeMap, BTreeSet};

use crate::identifier::ValueMac;
use crate::policy::{TypeIndex, Types};
use crate::union_find::UnionFind;

/// One identifier of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its type.
    pub type_index: TypeIndex,
    /// Its hash.
    pub mac: ValueMac,
    /// It passed a fan-out limit before; limits count up only, so it still does.
    pub known_hub: bool,
    /// A hub with neighbours outside this graph: it cannot belong to one profile.
    pub linked_elsewhere: bool,
}

/// A graph, or a region of one that is closed under links between non-hubs.
#[derive(Debug, Clone, Copy)]
pub struct Graph<'a> {
    /// Rules of the nodes' types.
    pub types: &'a Types,
    /// Distinct identifiers.
    pub nodes: &'a [Node],
    /// Pairs seen together, by index, without those that a decision separates and with those that one merges.
    pub edges: &'a [(usize, usize)],
    /// Pairs that a decision merged.
    pub merged: &'a [(usize, usize)],
}

/// Something that waits for the decision owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collision {
    /// Two values of an exclusive type claim the same identifiers.
    Exclusive {
        /// The types in question.
        types: Vec<TypeIndex>,
        /// All their identifiers in this component, ascending.
        between: Vec<usize>,
        /// What cannot be attributed, ascending.
        through: Vec<usize>,
    },
    /// An identifier with too many neighbours.
    Hub(usize),
    /// A component above the cap: its weakest identifiers stopped linking.
    Oversize {
        /// The strongest identifier of it.
        leader: usize,
    },
}

/// What the graph says. Vectors have one entry for each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Number of the node's profile, dense from 0.
    pub profile: Vec<usize>,
    /// Number of the node's component, dense from 0: what is recomputed together. A hub that belongs to a profile is in
    /// that profile's component, any other hub is alone.
    pub component: Vec<usize>,
    /// Whether the node's profile is one that several anchors claim.
    pub contested: Vec<bool>,
    /// Whether the node passed a fan-out limit.
    pub hub: Vec<bool>,
    /// What waits for an owner.
    pub collisions: Vec<Collision>,
}

/// Edges as neighbour lists.
struct Adjacency {
    neighbours: Vec<Vec<usize>>,
}

impl Adjacency {
    fn new(nodes: usize, edges: &[(usize, usize)]) -> Self {
        let mut neighbours = vec![Vec::new(); nodes];
        for &(a, b) in edges {
            if a != b {
                neighbours[a].push(b);
                neighbours[b].push(a);
            }
        }
        for list in &mut neighbours {
            list.sort_unstable();
            list.dedup();
        }
        Self { neighbours }
    }

    fn of(&self, node: usize) -> &[usize] {
        &self.neighbours[node]
    }
}

/// Profiles, hubs and collisions of a graph.
#[must_use]
pub fn weigh(graph: &Graph<'_>) -> Verdict {
    let adjacency = Adjacency::new(graph.nodes.len(), graph.edges);
    let mut classes = UnionFind::new(graph.nodes.len());
    for &(a, b) in graph.merged {
        if graph.nodes[a].type_index == graph.nodes[b].type_index {
            classes.union(a, b);
        }
    }
    let classes: Vec<usize> = (0..graph.nodes.len()).map(|n| classes.find(n)).collect();
    let scale = Scale { types: graph.types, nodes: graph.nodes, adjacency: &adjacency, classes: &classes };

    let hub: Vec<bool> = (0..graph.nodes.len()).map(|n| scale.is_hub(n)).collect();
    let mut collisions: Vec<Collision> = (0..hub.len()).filter(|&n| hub[n]).map(Collision::Hub).collect();
    let everyone: Vec<usize> = (0..graph.nodes.len()).filter(|&n| !hub[n]).collect();
    let components = scale.connected(&everyone, &hub);

    // A node that does not link: a hub, or one whose type was silenced because its component is too large.
    let mut silent = hub.clone();
    let mut label = Labels::new(graph.nodes.len());
    for component in &components {
        let silenced = scale.silenced_by_size(component);
        if silenced.is_empty() {
            scale.label_component(component, &silent, &mut label, &mut collisions);
            continue;
        }
        collisions.extend(scale.strongest(component).map(|leader| Collision::Oversize { leader }));
        for &node in &silenced {
            silent[node] = true;
        }
        let rest: Vec<usize> = component.iter().copied().filter(|&n| !silent[n]).collect();
        for part in scale.connected(&rest, &silent) {
            scale.label_component(&part, &silent, &mut label, &mut collisions);
        }
    }
    let attributed = label.clone();
    for node in (0..silent.len()).filter(|&n| silent[n]) {
        match scale.only_profile_around(node, &silent, &attributed) {
            Some(neighbour) => label.copy(neighbour, node),
            None => label.alone(node),
        }
    }
    let component = number_components(&components, &hub, &label);
    collisions.sort();
    Verdict { profile: dense(&label.profile), component, contested: label.contested, hub, collisions }
}

/// Profile labels while they are being given. A label is the index of one member.
#[derive(Clone)]
struct Labels {
    profile: Vec<usize>,
    contested: Vec<bool>,
}

impl Labels {
    fn new(nodes: usize) -> Self {
        Self { profile: (0..nodes).collect(), contested: vec![false; nodes] }
    }

    fn give(&mut self, nodes: &[usize], label: usize, contested: bool) {
        for &node in nodes {
            self.profile[node] = label;
            self.contested[node] = contested;
        }
    }

    fn copy(&mut self, from: usize, to: usize) {
        self.profile[to] = self.profile[from];
        self.contested[to] = self.contested[from];
    }

    fn alone(&mut self, node: usize) {
        self.give(&[node], node, false);
    }
}

/// What every step below looks at.
struct Scale<'a> {
    types: &'a Types,
    nodes: &'a [Node],
    adjacency: &'a Adjacency,
    /// Index of the exclusive value that stands for all that decisions merged with it.
    classes: &'a [usize],
}

impl Scale<'_> {
    fn is_hub(&self, node: usize) -> bool {
        let type_index = self.nodes[node].type_index;
        if self.types.is_exclusive(type_index) {
            return false;
        }
        if self.nodes[node].known_hub {
            return true;
        }
        let mut seen: BTreeMap<TypeIndex, BTreeSet<usize>> = BTreeMap::new();
        for &neighbour in self.adjacency.of(node) {
            seen.entry(self.nodes[neighbour].type_index).or_default().insert(self.classes[neighbour]);
        }
        seen.iter().any(|(neighbour_type, classes)| {
            self.types.limit(type_index, *neighbour_type).is_some_and(|max| classes.len() > max as usize)
        })
    }

    /// Connected components of `among` over edges between nodes that are not silent, each ascending.
    fn connected(&self, among: &[usize], silent: &[bool]) -> Vec<Vec<usize>> {
        let mut inside = vec![false; self.nodes.len()];
        for &node in among {
            inside[node] = true;
        }
        let mut sets = UnionFind::new(self.nodes.len());
        for &node in among {
            for &neighbour in self.adjacency.of(node) {
                if inside[neighbour] && !silent[node] && !silent[neighbour] {
                    sets.union(node, neighbour);
                }
            }
        }
        let mut by_root: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &node in among {
            by_root.entry(sets.find(node)).or_default().push(node);
        }
        by_root.into_values().collect()
    }

    /// Identifiers of the two weakest non-exclusive types of a component that is above the cap.
    fn silenced_by_size(&self, component: &[usize]) -> Vec<usize> {
        if component.len() <= self.types.max_cluster() {
            return Vec::new();
        }
        let mut linking: Vec<(u16, &str, TypeIndex)> = component
            .iter()
            .map(|&n| self.nodes[n].type_index)
            .filter(|&t| !self.types.is_exclusive(t))
            .map(|t| (self.types.priority(t), self.types.name(t), t))
            .collect();
        linking.sort_unstable();
        linking.dedup();
        let weakest: Vec<TypeIndex> = linking.iter().rev().take(2).map(|(_, _, t)| *t).collect();
        component.iter().copied().filter(|&n| weakest.contains(&self.nodes[n].type_index)).collect()
    }

    fn strongest(&self, component: &[usize]) -> Option<usize> {
        crate::leader::leader(self.types, component.iter().copied(), |&n| {
            (self.nodes[n].type_index, self.nodes[n].mac)
        })
    }

    /// Exclusive types of which `nodes` hold two classes or more.
    fn clashing_types(&self, nodes: impl IntoIterator<Item = usize>) -> BTreeSet<TypeIndex> {
        let mut classes: BTreeMap<TypeIndex, BTreeSet<usize>> = BTreeMap::new();
        for node in nodes {
            let type_index = self.nodes[node].type_index;
            if self.types.is_exclusive(type_index) {
                classes.entry(type_index).or_default().insert(self.classes[node]);
            }
        }
        classes.into_iter().filter(|(_, of_type)| of_type.len() > 1).map(|(t, _)| t).collect()
    }

    /// One component: a single profile, or, where exclusive values clash, a profile for each group of anchors that is
    /// certain and one for each piece that is not.
    fn label_component(
        &self,
        component: &[usize],
        silent: &[bool],
        label: &mut Labels,
        collisions: &mut Vec<Collision>,
    ) {
        let clashing = self.clashing_types(component.iter().copied());
        if clashing.is_empty() {
            label.give(component, component[0], false);
            return;
        }
        let (anchors, others): (Vec<usize>, Vec<usize>) =
            component.iter().partition(|&&n| clashing.contains(&self.nodes[n].type_index));
        let pieces = self.connected(&others, silent);
        let near: Vec<BTreeSet<usize>> = pieces
            .iter()
            .map(|piece| {
                let around = piece.iter().flat_map(|&n| self.adjacency.of(n));
                around.filter(|n| anchors.binary_search(n).is_ok()).map(|&n| self.classes[n]).collect()
            })
            .collect();
        let homes = self.join_anchors(&anchors, &near);
        for &anchor in &anchors {
            label.give(&[anchor], homes[&self.classes[anchor]], false);
        }
        let mut through = Vec::new();
        for (piece, near) in pieces.iter().zip(&near) {
            let around: BTreeSet<usize> = near.iter().map(|class| homes[class]).collect();
            match around.first() {
                Some(&home) if around.len() == 1 => label.give(piece, home, false),
                _ => {
                    label.give(piece, piece[0], true);
                    through.extend_from_slice(piece);
                }
            }
        }
        through.sort_unstable();
        let mut types: Vec<TypeIndex> = clashing.into_iter().collect();
        types.sort_by_key(|&t| self.types.name(t));
        collisions.push(Collision::Exclusive { types, between: anchors, through });
    }

    /// Which anchors are one profile: label by class. Anchors of different types join by a direct edge or by a piece
    /// that asks for it, if the whole group then holds one class of each type; if not, each class stays alone.
    fn join_anchors(&self, anchors: &[usize], near: &[BTreeSet<usize>]) -> BTreeMap<usize, usize> {
        let mut groups = UnionFind::new(self.nodes.len());
        for &anchor in anchors {
            for &other in self.adjacency.of(anchor) {
                let of_other_type = self.nodes[other].type_index != self.nodes[anchor].type_index;
                if of_other_type && anchors.binary_search(&other).is_ok() {
                    groups.union(self.classes[anchor], self.classes[other]);
                }
            }
        }
        for piece in near.iter().filter(|near| self.clashing_types(near.iter().copied()).is_empty()) {
            let mut classes = piece.iter();
            if let Some(&first) = classes.next() {
                classes.for_each(|&class| groups.union(first, class));
            }
        }
        let mut members: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for &anchor in anchors {
            members.entry(groups.find(self.classes[anchor])).or_default().insert(self.classes[anchor]);
        }
        let mut homes = BTreeMap::new();
        for (group, classes) in members {
            let certain = self.clashing_types(classes.iter().copied()).is_empty();
            homes.extend(classes.into_iter().map(|class| (class, if certain { group } else { class })));
        }
        homes
    }

    /// A neighbour of a silent node that stands for the one profile all its linking neighbours are in.
    fn only_profile_around(&self, node: usize, silent: &[bool], label: &Labels) -> Option<usize> {
        if self.nodes[node].linked_elsewhere {
            return None;
        }
        let mut around = self.adjacency.of(node).iter().copied().filter(|&n| !silent[n]);
        let first = around.next()?;
        around.all(|n| label.profile[n] == label.profile[first]).then_some(first)
    }
}

/// Numbers the components from 0, and puts a hub where its profile is.
fn number_components(components: &[Vec<usize>], hub: &[bool], label: &Labels) -> Vec<usize> {
    let mut component = vec![usize::MAX; hub.len()];
    let mut of_profile = BTreeMap::new();
    for (number, members) in components.iter().enumerate() {
        for &node in members {
            component[node] = number;
            of_profile.insert(label.profile[node], number);
        }
    }
    let mut next = components.len();
    for node in (0..hub.len()).filter(|&n| hub[n]) {
        component[node] = *of_profile.entry(label.profile[node]).or_insert_with(|| {
            next += 1;
            next - 1
        });
    }
    component
}

/// The same partition with labels from 0, in order of first appearance.
fn dense(labels: &[usize]) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    labels
        .iter()
        .map(|label| {
            let next = numbers.len();
            *numbers.entry(*label).or_insert(next)
        })
        .collect()
}
