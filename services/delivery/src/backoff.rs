//! Exponential backoff with full jitter.

use std::time::Duration;

/// The wait before attempt `attempt` (from 1): random between nothing and `first * 2^(attempt-1)`, at most `longest`, but
/// never less than a tenth of that, so that nobody spins.
#[must_use]
pub fn full_jitter(attempt: u32, first: Duration, longest: Duration) -> Duration {
    let ceiling = first.saturating_mul(1u32 << attempt.saturating_sub(1).min(20)).min(longest);
    ceiling.mul_f64(0.1 + 0.9 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_under_the_longest() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        for attempt in 1..60 {
            let wait = full_jitter(attempt, first, longest);
            assert!(wait <= longest && wait >= Duration::from_millis(10), "{attempt}: {wait:?}");
        }
        assert!(full_jitter(1, first, longest) <= first);
    }
}
