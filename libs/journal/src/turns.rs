//! Whose turn it is: what waits for a shard, a queue for each workspace. One that floods fills its own queue, and what another
//! hands over goes with the next append of small ones instead of behind everything.

use std::collections::{HashMap, HashSet, VecDeque};

use tracklayer_ids::WorkspaceId;

/// Bytes of one turn. A workspace with more that waits is a large one, and gives way after so many.
const TURN_BYTES: usize = 64 * 1024;

/// Something that waits.
pub(crate) trait Waits {
    /// Whose it is.
    fn workspace(&self) -> WorkspaceId;
    /// How large.
    fn bytes(&self) -> usize;
}

/// Workspaces by what waits of them: they are not written together, since the small ones would wait for the large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Size {
    Small,
    Large,
}

/// Queues of workspaces, in the order of their turns.
pub(crate) struct Turns<T> {
    /// Those that have something, the one whose turn it is first.
    order: VecDeque<WorkspaceId>,
    queues: HashMap<WorkspaceId, Queue<T>>,
    /// Those of which something is being written: what follows waits for it, so that nothing overtakes.
    under_way: HashSet<WorkspaceId>,
}

struct Queue<T> {
    items: VecDeque<T>,
    bytes: usize,
}

impl<T> Queue<T> {
    const fn size(&self) -> Size {
        if self.bytes > TURN_BYTES { Size::Large } else { Size::Small }
    }
}

impl<T: Waits> Turns<T> {
    pub(crate) fn push(&mut self, item: T) {
        let queue = self.queues.entry(item.workspace()).or_insert_with(|| {
            self.order.push_back(item.workspace());
            Queue { items: VecDeque::new(), bytes: 0 }
        });
        queue.bytes += item.bytes();
        queue.items.push_back(item);
    }

    /// Whether anything waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether workspaces of a size may be written.
    pub(crate) fn has(&self, size: Size) -> bool {
        self.order.iter().any(|workspace| self.may_write(*workspace, size))
    }

    /// Takes what is to be written together of workspaces of a size, as long as `fits` takes it in; at least one. Of those whose
    /// items are taken nothing more is until they are [written](Self::written).
    pub(crate) fn take(&mut self, size: Size, mut fits: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        let mut chosen: HashSet<WorkspaceId> = HashSet::new();
        'turns: loop {
            let next = self
                .order
                .iter()
                .position(|workspace| chosen.contains(workspace) || self.may_write(*workspace, size));
            let Some(workspace) = next.and_then(|place| self.order.remove(place)) else { break };
            let mut turn = 0;
            while turn < TURN_BYTES
                && let Some(queue) = self.queues.get_mut(&workspace)
                && let Some(item) = queue.items.front()
            {
                let full = !fits(item) && !taken.is_empty();
                if full {
                    self.order.push_front(workspace);
                    break 'turns;
                }
                let bytes = item.bytes();
                turn += bytes;
                queue.bytes -= bytes;
                taken.extend(queue.items.pop_front());
                chosen.insert(workspace);
                if queue.items.is_empty() {
                    // Also its memory: what a flood needed is not kept.
                    self.queues.remove(&workspace);
                }
            }
            if self.queues.contains_key(&workspace) {
                self.order.push_back(workspace);
            }
        }
        self.under_way.extend(chosen);
        taken
    }

    /// What was taken of these is written.
    pub(crate) fn written(&mut self, workspaces: impl IntoIterator<Item = WorkspaceId>) {
        for workspace in workspaces {
            self.under_way.remove(&workspace);
        }
    }

    fn may_write(&self, workspace: WorkspaceId, size: Size) -> bool {
        !self.under_way.contains(&workspace)
            && self.queues.get(&workspace).is_some_and(|queue| queue.size() == size)
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), queues: HashMap::new(), under_way: HashSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(i64, u32, usize);

    impl Waits for Item {
        fn workspace(&self) -> WorkspaceId {
            WorkspaceId(self.0)
        }

        fn bytes(&self) -> usize {
            self.2
        }
    }

    fn take(turns: &mut Turns<Item>, size: Size, most: usize) -> Vec<(i64, u32)> {
        let mut left = most;
        let mut fits = |item: &Item| {
            let fits = item.2 <= left;
            left = left.saturating_sub(item.2);
            fits
        };
        turns.take(size, &mut fits).into_iter().map(|item| (item.0, item.1)).collect()
    }

    #[test]
    fn one_that_floods_is_written_apart_from_others_and_in_its_own_order() {
        let mut turns = Turns::default();
        for number in 0..4 {
            turns.push(Item(1, number, TURN_BYTES));
        }
        turns.push(Item(2, 0, 100));
        turns.push(Item(3, 0, 100));
        turns.push(Item(2, 1, 100));
        assert_eq!(take(&mut turns, Size::Small, usize::MAX), [(2, 0), (2, 1), (3, 0)]);
        assert_eq!(take(&mut turns, Size::Large, 2 * TURN_BYTES), [(1, 0), (1, 1)]);
        assert!(!turns.has(Size::Large) && !turns.has(Size::Small) && !turns.is_empty());
        turns.push(Item(2, 2, 100));
        assert!(!turns.has(Size::Small), "it would overtake");
        turns.written([WorkspaceId(2), WorkspaceId(3)]);
        assert_eq!(take(&mut turns, Size::Small, usize::MAX), [(2, 2)]);
        turns.written([WorkspaceId(1)]);
        assert_eq!(take(&mut turns, Size::Large, usize::MAX), [(1, 2), (1, 3)]);
        assert!(turns.is_empty() && turns.queues.is_empty());
    }

    #[test]
    fn large_ones_share_by_bytes_and_not_by_number() {
        let mut turns = Turns::default();
        for number in 0..4 {
            turns.push(Item(1, number, TURN_BYTES / 2));
            turns.push(Item(2, number, TURN_BYTES));
        }
        let expected = [(1, 0), (1, 1), (2, 0), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)];
        assert_eq!(take(&mut turns, Size::Large, usize::MAX), expected);
    }

    #[test]
    fn one_that_is_over_the_limit_goes_alone() {
        let mut turns = Turns::default();
        turns.push(Item(1, 0, 5 * TURN_BYTES));
        turns.push(Item(1, 1, 1));
        assert_eq!(take(&mut turns, Size::Large, TURN_BYTES), [(1, 0)]);
        turns.written([WorkspaceId(1)]);
        assert_eq!(take(&mut turns, Size::Small, TURN_BYTES), [(1, 1)]);
    }

    #[test]
    fn who_did_not_fit_is_first_the_next_time() {
        let mut turns = Turns::default();
        for workspace in 1..=3 {
            turns.push(Item(workspace, 0, 2 * TURN_BYTES));
        }
        assert_eq!(take(&mut turns, Size::Large, 3 * TURN_BYTES), [(1, 0)]);
        turns.push(Item(1, 1, 2 * TURN_BYTES));
        assert_eq!(take(&mut turns, Size::Large, 4 * TURN_BYTES), [(2, 0), (3, 0)]);
        turns.written([WorkspaceId(1)]);
        assert_eq!(take(&mut turns, Size::Large, usize::MAX), [(1, 1)]);
    }
}
