//! Disjoint sets of indices.

/// Disjoint sets over `0..n`. The representative of a set is its lowest member, so it does not depend on order.
#[derive(Debug, Clone)]
pub struct UnionFind {
    parent: Vec<usize>,
}

impl UnionFind {
    /// Every index alone.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { parent: (0..n).collect() }
    }

    /// The lowest index of the set.
    pub fn find(&mut self, index: usize) -> usize {
        let mut root = index;
        while self.parent[root] != root {
            root = self.parent[root];
        }
        let mut at = index;
        while self.parent[at] != root {
            at = std::mem::replace(&mut self.parent[at], root);
        }
        root
    }

    /// Makes one set of two.
    pub fn union(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_member_stands_for_the_set() {
        let mut sets = UnionFind::new(6);
        sets.union(5, 3);
        sets.union(3, 4);
        sets.union(1, 5);
        assert_eq!((0..6).map(|n| sets.find(n)).collect::<Vec<_>>(), [0, 1, 2, 1, 1, 1]);
    }
}
