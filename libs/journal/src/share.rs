//! How workspaces share a bounded room, such as memory: nobody gets all of it. Who asks may hold at most four times what is free at
//! that moment. One workspace alone thus fills four fifths and no more, two that flood hold four ninths each, and whoever comes
//! next finds room.
//!
//! What a workspace may hold is a room as well, which its sources share by the same rule: of several sources the one that floods
//! comes to nineteen twentieths of what its workspace would, and another one finds the rest.

/// How many times the free room one holder may have.
const TIMES_THE_FREE: usize = 4;

/// Whether one that holds `held` may have `wanted` more of a room of `limit`, of which `taken` is taken by all together.
#[must_use]
pub const fn fits(held: usize, wanted: usize, taken: usize, limit: usize) -> bool {
    wanted == 0 || held.saturating_add(wanted) <= most(held, taken, limit)
}

/// Most that one that holds `held` may come to hold now, with one piece: the room that it may share out in turn.
#[must_use]
pub const fn most(held: usize, taken: usize, limit: usize) -> usize {
    let free = limit.saturating_sub(taken);
    let (share, all_that_is_free) = (free.saturating_mul(TIMES_THE_FREE), held.saturating_add(free));
    if share < all_that_is_free { share } else { all_that_is_free }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_all_of_it_and_what_is_not_free_is_had_by_nobody() {
        assert!(fits(0, 1_000, 0, 1_000), "one piece, with nobody there");
        assert!(!fits(0, 1_001, 0, 1_000));
        assert!(fits(799, 1, 799, 1_000) && !fits(800, 1, 800, 1_000));
        assert!(fits(0, 200, 800, 1_000) && !fits(0, 201, 800, 1_000));
        assert!(fits(1_000, 0, 1_000, 1_000), "nothing is always had");
        assert!(!fits(usize::MAX, 1, 0, 1_000) && !fits(0, 1, 2_000, 1_000));
    }

    #[test]
    fn what_one_may_hold_is_shared_out_in_turn() {
        assert_eq!(most(0, 0, 1_000), 1_000, "one piece");
        assert_eq!(most(700, 700, 1_000), 1_000);
        assert_eq!(most(780, 780, 1_000), 880);
        assert_eq!(most(800, 800, 1_000), 800);
        assert_eq!(most(100, 900, 1_000), 200, "others have taken the rest");
        assert_eq!(most(0, 2_000, 1_000), 0);
    }
}
