//! How workspaces share a bounded room, such as memory: nobody gets all of it. Who asks may hold at most four times what is free at
//! that moment. One workspace alone thus fills four fifths and no more, two that flood hold four ninths each, and whoever comes
//! next finds room.

/// How many times the free room one holder may have.
const TIMES_THE_FREE: usize = 4;

/// Whether one that holds `held` may have `wanted` more of a room of `limit`, of which `taken` is taken by all together.
#[must_use]
pub const fn fits(held: usize, wanted: usize, taken: usize, limit: usize) -> bool {
    let free = limit.saturating_sub(taken);
    wanted == 0 || (wanted <= free && held.saturating_add(wanted) <= free.saturating_mul(TIMES_THE_FREE))
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
}
