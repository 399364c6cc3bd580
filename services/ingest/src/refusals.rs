//! How often one workspace is told to come back. A refusal costs too: what the request brought has to be read over, or its
//! connection would be broken. A sender that sends the same again at once could so keep the cores busy with nothing but
//! refusals. So a workspace has a rate of them; above it the answer comes later, by up to two seconds. Who comes back when told to is never held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Holder;

/// From one answer to the next, above the rate.
const EVERY: Duration = Duration::from_millis(20);
/// How much sooner than that answers may come: fifty at once.
const AHEAD: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(2);
/// Most answers that are held at a time; each keeps its connection. Above it they go out at once.
const MOST_HELD: usize = 8_192;

/// The rates. Workspaces are few, so they are never forgotten.
#[derive(Debug, Default)]
pub struct Refusals {
    /// When the next answer is due if all keep to the rate.
    due: Mutex<HashMap<Holder, Instant>>,
    held: AtomicUsize,
}

impl Refusals {
    /// Waits until a refusal may go out. Nothing of the request is to be held meanwhile. Sources count for their workspace: many
    /// that do not wait cost as much as one.
    pub async fn pace(&self, holder: Holder) {
        let wait = self.wait(holder.part_of().unwrap_or(holder), Instant::now());
        if wait.is_zero() {
            return;
        }
        let held = Held::new(&self.held);
        if held.others < MOST_HELD {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long an answer that is ready now has to wait.
    fn wait(&self, holder: Holder, now: Instant) -> Duration {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let due = due.entry(holder).or_insert(now);
        let wait = due.saturating_duration_since(now + AHEAD).min(LONGEST);
        *due = (*due).max(now).min(now + AHEAD + LONGEST) + EVERY;
        wait
    }
}

/// One answer that is held; no more when dropped, also where its client went away.
struct Held<'a> {
    all: &'a AtomicUsize,
    others: usize,
}

impl<'a> Held<'a> {
    fn new(all: &'a AtomicUsize) -> Self {
        Self { all, others: all.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::WorkspaceId;

    use super::*;

    const ONE: Holder = Holder::Workspace(WorkspaceId(1));
    const TWO: Holder = Holder::Workspace(WorkspaceId(2));

    #[test]
    fn fifty_go_out_at_once_and_then_fifty_a_second() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let waits: Vec<Duration> = (0..60).map(|_| refusals.wait(ONE, now)).collect();
        assert!(waits[..=50].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[51..54], [EVERY, 2 * EVERY, 3 * EVERY]);
        assert_eq!(refusals.wait(TWO, now), Duration::ZERO, "another workspace");
    }

    #[test]
    fn no_answer_waits_longer_than_two_seconds_however_many_there_are() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let longest = (0..10_000).map(|_| refusals.wait(ONE, now)).max();
        assert_eq!(longest, Some(LONGEST));
        let after = (0..2).map(|second| refusals.wait(ONE, now + Duration::from_secs(2 + 2 * second)));
        assert_eq!(after.collect::<Vec<_>>(), [EVERY, Duration::ZERO], "and it is soon forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_held_until_they_are_due_and_only_so_many() {
        let refusals = Refusals::default();
        let begun = Instant::now();
        for _ in 0..52 {
            refusals.pace(ONE).await;
        }
        assert!((EVERY..2 * EVERY).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert_eq!(refusals.held.load(Ordering::Relaxed), 0);
        refusals.held.store(MOST_HELD, Ordering::Relaxed);
        let begun = Instant::now();
        for _ in 0..100 {
            refusals.pace(ONE).await;
        }
        assert!(begun.elapsed().is_zero(), "those above go out at once");
    }
}
