//! What a platform allows per connection, shared by the connection's lanes in all partitions: requests a minute, and
//! requests at the same time.
//!
//! The minute's requests are divided by the processes that take part, so that all of them together stay below the limit.
//! They are spread evenly, with room for a few at once; in no minute there are more than allowed.
//!
//! Where a platform says beside its answers how much of its limit is used, requests keep apart once little is left: by a second
//! at three quarters, and by twice as much for each further twentieth. All processes hear the same, and keep apart so many times
//! as long as there are of them.
//!
//! Requests at the same time are counted in this process alone: no platform publishes a limit of them, the number only keeps one
//! connection from taking more than it needs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracklayer_destination::{Limits, Usage};
use tracklayer_ids::ConnectionId;

const MINUTE: Duration = Duration::from_secs(60);
/// One of so many requests of a minute may go ahead of its time.
const AHEAD: u32 = 20;

/// From how much of a limit on requests keep apart, percent. Meta names no figure; at three quarters the rolling hour of its limits has
/// fifteen minutes left of what was used.
const MUCH: u32 = 75;
/// How far they keep apart then, and with how many more percent that doubles.
const APART: Duration = Duration::from_secs(1);
const DOUBLES: u32 = 5;
/// What a platform said so long ago says nothing any more.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The quotas of all connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Quota {
    gates: Arc<Mutex<HashMap<ConnectionId, Gate>>>,
    processes: Arc<AtomicUsize>,
}

/// Leave for requests; held until their answers are there.
#[derive(Debug)]
#[must_use = "the requests count as ended when this is dropped"]
pub struct Admission {
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Gate {
    concurrent: Arc<Semaphore>,
    /// When the next request is due, were all of them spread evenly.
    next: Instant,
    /// Little of the platform's limit is left.
    little: Option<Little>,
}

#[derive(Debug)]
struct Little {
    apart: Duration,
    /// When the last request goes that was given leave, or went.
    last: Instant,
    said: Instant,
}

impl Default for Quota {
    fn default() -> Self {
        Self { gates: Arc::default(), processes: Arc::new(AtomicUsize::new(1)) }
    }
}

impl Quota {
    /// Says how many processes share the limits.
    pub fn share_among(&self, processes: usize) {
        self.processes.store(processes.max(1), Ordering::Relaxed);
    }

    /// Waits until the connection may send one more request. First come, first served. Whoever has waited has to look again
    /// whether its lease still holds.
    pub async fn admit(&self, connection: ConnectionId, limits: &Limits) -> Admission {
        self.admit_all(connection, limits, 1).await
    }

    /// As [`Self::admit`], for requests that go out together: leave for all of them or none, so that two lanes never wait for
    /// what the other holds. No more of them than may be under way at the same time.
    pub async fn admit_all(&self, connection: ConnectionId, limits: &Limits, requests: usize) -> Admission {
        let concurrent = self.with(connection, limits, |gate| Arc::clone(&gate.concurrent));
        let together = u32::try_from(requests.clamp(1, at_once(limits))).unwrap_or(u32::MAX);
        let Ok(permit) = concurrent.acquire_many_owned(together).await else {
            // Nobody closes it.
            return std::future::pending().await;
        };
        if let Some(per_minute) = limits.requests_per_minute {
            let due = self.with(connection, limits, |gate| {
                (0..together).map(|_| self.take_turn(gate, per_minute)).max().unwrap_or_else(Instant::now)
            });
            if !due.saturating_duration_since(Instant::now()).is_zero() {
                metrics::counter!("tracklayer_delivery_quota_waits_total").increment(1);
                tokio::time::sleep_until(due).await;
            }
        }
        if let Some(due) = self.with(connection, limits, |gate| self.keep_apart(gate, together)) {
            metrics::counter!("tracklayer_delivery_usage_waits_total").increment(1);
            tokio::time::sleep_until(due).await;
        }
        Admission { _permit: permit }
    }

    /// Takes what the platform says of its limit.
    pub fn heed(&self, connection: ConnectionId, usage: Usage) {
        metrics::histogram!("tracklayer_delivery_platform_usage_percent").record(f64::from(usage.percent));
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(gate) = gates.get_mut(&connection) else { return };
        let now = Instant::now();
        gate.little = (usage.percent >= MUCH).then(|| {
            let doubled = (usage.percent.min(100) - MUCH) / DOUBLES;
            let apart = APART * (1 << doubled) * self.processes();
            // Behind what has been given out already: other lanes may wait for their time.
            let last = gate.little.as_ref().map_or(now, |before| before.last);
            Little { apart, last, said: now }
        });
    }

    /// When these requests may go, if little is left and they have to wait.
    fn keep_apart(&self, gate: &mut Gate, requests: u32) -> Option<Instant> {
        let now = Instant::now();
        let little = gate.little.as_mut().filter(|little| now < little.said + FORGOTTEN)?;
        let due = (little.last + little.apart).max(now);
        little.last = due + little.apart * requests.saturating_sub(1);
        (due > now).then_some(due)
    }

    fn processes(&self) -> u32 {
        u32::try_from(self.processes.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// When this request may go; the next one is due a step later.
    fn take_turn(&self, gate: &mut Gate, per_minute: u32) -> Instant {
        let processes = self.processes();
        // A limit below one per process and minute: each gets less than one.
        let mine = per_minute / processes;
        let ahead = mine / AHEAD;
        let step = if mine == 0 { MINUTE * processes / per_minute.max(1) } else { MINUTE / (mine - ahead) };
        let now = Instant::now();
        let due = gate.next.max(now);
        gate.next = due + step;
        due.checked_sub(step * ahead).unwrap_or(now).max(now)
    }

    fn with<T>(&self, connection: ConnectionId, limits: &Limits, act: impl FnOnce(&mut Gate) -> T) -> T {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(connection).or_insert_with(|| Gate {
            concurrent: Arc::new(Semaphore::new(at_once(limits))),
            next: Instant::now(),
            little: None,
        });
        act(gate)
    }
}

fn at_once(limits: &Limits) -> usize {
    limits.max_concurrent.clamp(1, 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: ConnectionId = ConnectionId(7);

    fn limits(requests_per_minute: Option<u32>, max_concurrent: usize) -> Limits {
        Limits {
            max_events: 1,
            max_body_bytes: 1,
            dedup_window: None,
            requests_per_minute,
            max_concurrent,
            timeout: MINUTE,
        }
    }

    /// Seconds from the start at which so many requests of a connection went out, each answered at once.
    async fn sent_at(quota: &Quota, limits: &Limits, requests: usize) -> Vec<f64> {
        let start = Instant::now();
        let mut sent = Vec::new();
        for _ in 0..requests {
            drop(quota.admit(CONNECTION, limits).await);
            sent.push(start.elapsed().as_secs_f64());
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn in_no_minute_more_requests_go_out_than_are_allowed_and_nearly_as_many_do() {
        let quota = Quota::default();
        let sent = sent_at(&quota, &limits(Some(300), 2), 900).await;
        let most = sent.iter().map(|at| sent.iter().filter(|t| (*at..at + 60.0).contains(*t)).count()).max();
        assert_eq!(most, Some(300));
        assert!(sent[15] < 0.001, "a few may go at once: {:?}", &sent[..20]);
        assert!(sent[899] < 190.0, "the limit is used: {}", sent[899]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_hour_does_not_save_up_requests() {
        let quota = Quota::default();
        let limits = limits(Some(60), 2);
        sent_at(&quota, &limits, 1).await;
        tokio::time::advance(MINUTE * 60).await;
        let sent = sent_at(&quota, &limits, 100).await;
        assert_eq!(sent.iter().filter(|at| **at < 60.0).count(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn processes_share_the_minute() {
        let quota = Quota::default();
        quota.share_among(3);
        let sent = sent_at(&quota, &limits(Some(300), 2), 200).await;
        assert_eq!(sent.iter().filter(|at| **at < 60.0).count(), 100);
        quota.share_among(10);
        let slow = sent_at(&Quota::clone(&quota), &limits(Some(5), 2), 4).await;
        assert!(slow[3] - slow[2] >= 120.0, "half a request a minute each: {slow:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_of_a_connection_share_its_concurrent_requests_and_other_connections_have_their_own() {
        let quota = Quota::default();
        let limits = limits(None, 2);
        let first = quota.admit(CONNECTION, &limits).await;
        let _second = quota.admit(CONNECTION, &limits).await;
        let third = tokio::time::timeout(MINUTE, quota.admit(CONNECTION, &limits)).await;
        assert!(third.is_err(), "two are under way");
        let _other = quota.admit(ConnectionId(8), &limits).await;
        drop(first);
        let _third = tokio::time::timeout(MINUTE, quota.admit(CONNECTION, &limits)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_go_out_together_each_count() {
        let quota = Quota::default();
        let limits = limits(Some(300), 4);
        let first = quota.admit_all(CONNECTION, &limits, 3).await;
        let second = tokio::time::timeout(MINUTE, quota.admit_all(CONNECTION, &limits, 2)).await;
        assert!(second.is_err(), "five would be under way");
        drop(first);
        let start = Instant::now();
        for _ in 0..75 {
            drop(quota.admit_all(CONNECTION, &limits, 4).await);
        }
        assert!(start.elapsed() < MINUTE, "300 fit into a minute");
        drop(quota.admit_all(CONNECTION, &limits, 4).await);
        assert!(start.elapsed() >= MINUTE, "and four more do not");
    }

    fn used(percent: u32) -> Usage {
        Usage { percent }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_apart_where_little_of_the_limit_is_left_and_not_for_ever() {
        let (quota, limits) = (Quota::default(), limits(None, 4));
        sent_at(&quota, &limits, 1).await;
        quota.heed(CONNECTION, used(74));
        assert!(sent_at(&quota, &limits, 10).await[9] < 0.001, "enough is left");
        for (percent, apart) in [(75, 1.0), (84, 2.0), (90, 8.0), (100, 32.0), (400, 32.0)] {
            quota.heed(CONNECTION, used(0));
            quota.heed(CONNECTION, used(percent));
            let sent = sent_at(&quota, &limits, 4).await;
            assert!((sent[3] - 4.0 * apart).abs() < 0.1, "{percent} %: {sent:?}");
        }
        tokio::time::advance(FORGOTTEN).await;
        assert!(sent_at(&quota, &limits, 10).await[9] < 0.001, "that was long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_that_tells_of_the_limit_leaves_the_next_request_its_wait() {
        let (quota, limits) = (Quota::default(), limits(None, 4));
        let start = Instant::now();
        for _ in 0..4 {
            drop(quota.admit(CONNECTION, &limits).await);
            quota.heed(CONNECTION, used(80));
        }
        let took = start.elapsed().as_secs_f64();
        assert!((took - 6.0).abs() < 0.1, "nothing before the first word, then two seconds each: {took}");
        quota.share_among(3);
        quota.heed(CONNECTION, used(80));
        let sent = sent_at(&quota, &limits, 3).await;
        assert!((sent[2] - sent[1] - 6.0).abs() < 0.1, "three processes hear the same: {sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_does_not_give_out_again_what_other_lanes_wait_for() {
        let (quota, limits) = (Quota::default(), limits(None, 8));
        sent_at(&quota, &limits, 1).await;
        quota.heed(CONNECTION, used(80));
        let start = Instant::now();
        let lane = || async {
            drop(quota.admit(CONNECTION, &limits).await);
            let sent = start.elapsed().as_secs_f64();
            quota.heed(CONNECTION, used(80));
            sent
        };
        let four = || async { tokio::join!(lane(), lane(), lane(), lane()) };
        let (early, late) = tokio::join!(four(), async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            lane().await
        });
        for (sent, due) in
            [early.0, early.1, early.2, early.3, late].into_iter().zip([2.0, 4.0, 6.0, 8.0, 10.0])
        {
            assert!((sent - due).abs() < 0.1, "{early:?}, {late}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_published_limit_nobody_waits() {
        let sent = sent_at(&Quota::default(), &limits(None, 1), 10_000).await;
        assert!(sent[9_999] < 0.001);
    }
}
