//! How fast what has waited for a release goes out: so many events a second for a connection, over all its lanes in all processes.
//!
//! A lane of `width` has a `width`th of the pace, wherever it runs, and the lanes of one process share what they have together. No
//! process has to know of another: the sum stays below the pace however the lanes are spread, and while they move. What a lane that
//! has caught up leaves unused in one process is not used in another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracklayer_ids::ConnectionId;

/// The paces of all connections in this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    gates: Arc<Mutex<HashMap<ConnectionId, Gate>>>,
}

#[derive(Debug)]
struct Gate {
    /// Lanes of the connection in this process.
    lanes: u32,
    /// When the next event is due.
    next: Instant,
}

/// A lane's part in its connection's pace, for as long as it lives.
#[derive(Debug)]
pub struct Share {
    pace: Pace,
    connection: ConnectionId,
}

/// How fast a connection sends what has waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Events a second of all its lanes; at least 1.
    pub per_second: u32,
    /// How many lanes it has, in all processes; at least 1.
    pub width: u32,
}

impl Speed {
    /// How many events a lane sends at once: what it may send within a second, and one at least.
    #[must_use]
    pub fn at_once(self) -> usize {
        usize::try_from(self.per_second / self.width.max(1)).unwrap_or(usize::MAX).max(1)
    }
}

impl Pace {
    /// Counts a lane in.
    #[must_use]
    pub fn join(&self, connection: ConnectionId) -> Share {
        self.gates().entry(connection).or_insert_with(|| Gate { lanes: 0, next: Instant::now() }).lanes += 1;
        Share { pace: self.clone(), connection }
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<ConnectionId, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Waits until the lane may send so many more events. First come, first served among the lanes of the process. Whoever has waited
    /// has to look again whether it still may.
    pub async fn admit(&self, speed: Speed, events: usize) {
        let due = {
            let mut gates = self.pace.gates();
            // It is there for as long as this lives.
            let Some(gate) = gates.get_mut(&self.connection) else { return };
            let lanes = f64::from(gate.lanes.clamp(1, speed.width.max(1)));
            let mine = f64::from(speed.per_second.max(1)) * lanes / f64::from(speed.width.max(1));
            let due = gate.next.max(Instant::now());
            gate.next = due + Duration::from_secs_f64(events as f64 / mine);
            due
        };
        metrics::counter!("tracklayer_delivery_paced_events_total").increment(events as u64);
        tokio::time::sleep_until(due).await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut gates = self.pace.gates();
        let is_last = gates.get_mut(&self.connection).is_some_and(|gate| {
            gate.lanes = gate.lanes.saturating_sub(1);
            // What was just sent still counts for who takes the lane over.
            gate.lanes == 0 && gate.next <= Instant::now()
        });
        if is_last {
            gates.remove(&self.connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: ConnectionId = ConnectionId(1);

    async fn send(share: &Share, speed: Speed, events: usize) -> usize {
        let mut sent = 0;
        while sent < events {
            let some = speed.at_once().min(events - sent);
            share.admit(speed, some).await;
            sent += some;
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_of_two_processes_together_keep_the_pace() {
        let speed = Speed { per_second: 400, width: 4 };
        let (one, other) = (Pace::default(), Pace::default());
        let lanes = [one.join(META), one.join(META), one.join(META), other.join(META)];
        let begun = Instant::now();
        let sent = futures::future::join_all(lanes.iter().map(|lane| send(lane, speed, 1_000))).await;
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(sent.iter().sum::<usize>(), 4_000);
        assert!((9.0..10.1).contains(&took), "4,000 events at 400 a second took {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_without_all_lanes_sends_only_their_part() {
        let speed = Speed { per_second: 400, width: 4 };
        let pace = Pace::default();
        let lane = pace.join(META);
        let begun = Instant::now();
        send(&lane, speed, 1_000).await;
        let took = begun.elapsed().as_secs_f64();
        assert!((9.0..10.1).contains(&took), "1,000 events at 100 a second took {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn less_than_one_event_a_second_and_lane_is_a_pace_too() {
        let speed = Speed { per_second: 1, width: 4 };
        assert_eq!(speed.at_once(), 1);
        let pace = Pace::default();
        let lane = pace.join(META);
        let begun = Instant::now();
        send(&lane, speed, 3).await;
        assert_eq!(begun.elapsed().as_secs(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_begins_again_does_not_begin_with_a_fresh_second() {
        let speed = Speed { per_second: 10, width: 1 };
        let pace = Pace::default();
        let first = pace.join(META);
        first.admit(speed, 10).await;
        drop(first);
        let begun = Instant::now();
        pace.join(META).admit(speed, 1).await;
        assert_eq!(begun.elapsed().as_secs(), 1);
        drop(pace.join(META));
        tokio::time::advance(Duration::from_secs(60)).await;
        drop(pace.join(META));
        assert!(pace.gates().is_empty(), "connections that are gone leave nothing behind");
    }
}
