//! The wall clock that lanes go by, so that a test can move it, and waits that go by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Between two looks of a wait at the wall clock, which may have been moved.
const LOOK: Duration = Duration::from_millis(200);

/// The machine's wall clock, unless it was moved. Cheap to clone; all clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

/// The end of a wait: when the wall clock shows it, or when so much time has passed as was to be waited, whatever comes first. A
/// wall clock that is set back makes nobody wait longer, and a machine that was suspended waits no longer than it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    at: Timestamp,
    latest: Instant,
}

impl Due {
    /// When, by the wall clock.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// So much later.
    #[must_use]
    pub fn put_off(self, by: Duration) -> Self {
        let at = SignedDuration::try_from(by).ok().and_then(|by| self.at.checked_add(by).ok());
        Self { at: at.unwrap_or(Timestamp::MAX), latest: self.latest + by }
    }
}

impl Clock {
    /// The time that it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        let now = Timestamp::now();
        now.checked_add(ahead).unwrap_or(now)
    }

    /// Moves it forward, for tests.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(by, Ordering::Relaxed);
    }

    /// The end of a wait that begins now.
    #[must_use]
    pub fn due_in(&self, wait: Duration) -> Due {
        let by = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        Due { at: self.now().checked_add(by).unwrap_or(Timestamp::MAX), latest: Instant::now() + wait }
    }

    /// What is left of a wait; nothing: it is over.
    #[must_use]
    pub fn left(&self, due: &Due) -> Duration {
        let by_wall = Duration::try_from(due.at.duration_since(self.now())).unwrap_or_default();
        by_wall.min(due.latest.saturating_duration_since(Instant::now()))
    }

    /// Of two waits the one of which more is left.
    #[must_use]
    pub fn later(&self, one: Due, other: Due) -> Due {
        if self.left(&other) > self.left(&one) { other } else { one }
    }

    /// Waits until it is over.
    pub async fn sleep_until(&self, due: Due) {
        loop {
            let left = self.left(&due);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_over_when_its_time_has_passed_and_earlier_when_the_clock_is_moved() {
        let clock = Clock::default();
        let (began, due) = (Instant::now(), clock.due_in(MINUTE));
        clock.sleep_until(due).await;
        // The wall clock stands still beside a paused one: what has passed decides.
        assert!((MINUTE..MINUTE + LOOK).contains(&began.elapsed()), "{:?}", began.elapsed());
        let (began, due) = (Instant::now(), clock.due_in(MINUTE));
        clock.advance(MINUTE);
        clock.sleep_until(due).await;
        assert!(began.elapsed() <= LOOK, "{:?}", began.elapsed());
    }

    #[test]
    fn the_later_of_two_waits_is_the_longer_one() {
        let clock = Clock::default();
        let (short, long) = (clock.due_in(MINUTE), clock.due_in(MINUTE * 2));
        assert_eq!((clock.later(short, long), clock.later(long, short)), (long, long));
        clock.advance(MINUTE * 2);
        let next = clock.due_in(MINUTE);
        assert_eq!(clock.later(long, next), next, "the long one is over by now");
        assert_eq!(clock.left(&next.put_off(MINUTE)).as_secs_f64().round(), 120.0);
    }
}
