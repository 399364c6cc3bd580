//! What a platform allows: requests a minute and a day of whoever it counts them for, and requests of a connection at the same time.
//!
//! For whom requests are counted, the connector says ([`Limits::whose`]): connections of one Cloud project share what Google allows it,
//! others have a limit of their own. All lanes of all processes take their turns from one place in Redis (`quota/shared.rs`), some in advance
//! (`quota/bucket.rs`), so that one process with all the lanes has all of the limit. While Redis does not answer the limit is divided by the
//! processes that take part, so that all of them together stay below it. The requests of a minute are spread evenly, with room for a few at
//! once; in no minute there are more than allowed. Where those of a day are used up nobody waits here: the lane is told until when.
//!
//! Where a platform says beside its answers how much of its limit is used, requests keep apart once little is left: by a second
//! at three quarters, and by twice as much for each further twentieth. All processes hear the same, and keep apart so many times
//! as long as there are of them.
//!
//! Requests at the same time are counted in this process alone: no platform publishes a limit of them, the number only keeps one
//! connection from taking more than it needs.

mod bucket;
mod shared;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::ConnectionManager;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracklayer_destination::{Limits, QuotaKey, Usage};
use tracklayer_ids::ConnectionId;

use self::bucket::{Among, Bucket};
use self::shared::SharedQuota;
use crate::clock::Clock;

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
    buckets: Arc<Mutex<HashMap<Owner, Arc<Bucket>>>>,
    processes: Arc<AtomicUsize>,
    shared: Option<SharedQuota>,
    clock: Clock,
}

/// For whom the requests of a minute and a day are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Connection(ConnectionId),
    Named(QuotaKey),
}

/// The requests of a day are used up. Nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {per_day} requests are made that {whose} may make within 24 hours")]
pub struct DayIsUsedUp {
    /// The limit.
    pub per_day: u32,
    /// Who has it, for people.
    pub whose: &'static str,
    /// How long it is until there is room again, at least.
    pub wait: Duration,
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
        Self {
            gates: Arc::default(),
            buckets: Arc::default(),
            processes: Arc::new(AtomicUsize::new(1)),
            shared: None,
            clock: Clock::default(),
        }
    }
}

impl Quota {
    /// The same, shared with all processes over Redis.
    #[must_use]
    pub fn shared_over(self, redis: ConnectionManager) -> Self {
        Self { shared: Some(SharedQuota::new(redis)), ..self }
    }

    /// The same, with days by that clock.
    #[must_use]
    pub fn by_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Describes its metrics, once the recorder is there: before anything is sent.
    pub fn describe_metrics() {
        metrics::describe_counter!(
            "tracklayer_delivery_quota_waits_total",
            "requests that waited for their turn in a platform's limit of a minute"
        );
        metrics::describe_counter!(
            "tracklayer_delivery_quota_days_used_up_total",
            "requests for which a platform's limit of a day had no room"
        );
        metrics::describe_counter!(
            "tracklayer_delivery_quota_asks_total",
            "questions to Redis for turns, each for several requests as a rule"
        );
        metrics::describe_gauge!(
            "tracklayer_delivery_quota_divided",
            "1 while Redis does not answer and each process goes by its own part of every limit, else 0"
        );
        metrics::gauge!("tracklayer_delivery_quota_divided").set(0.0);
    }

    /// Says how many processes share the limits.
    pub fn share_among(&self, processes: usize) {
        self.processes.store(processes.max(1), Ordering::Relaxed);
    }

    /// Waits until the connection may send one more request. First come, first served. Whoever has waited has to look again
    /// whether its lease still holds.
    ///
    /// # Errors
    /// Nothing is left of the day.
    pub async fn admit(&self, connection: ConnectionId, limits: &Limits) -> Result<Admission, DayIsUsedUp> {
        self.admit_all(connection, limits, 1).await
    }

    /// As [`Self::admit`], for requests that go out together: leave for all of them or none, so that two lanes never wait for
    /// what the other holds. No more of them than may be under way at the same time.
    ///
    /// # Errors
    /// Less is left of the day.
    pub async fn admit_all(
        &self,
        connection: ConnectionId,
        limits: &Limits,
        requests: usize,
    ) -> Result<Admission, DayIsUsedUp> {
        let concurrent = self.with(connection, limits, |gate| Arc::clone(&gate.concurrent));
        let together = u32::try_from(requests.clamp(1, at_once(limits))).unwrap_or(u32::MAX);
        let Ok(permit) = concurrent.acquire_many_owned(together).await else {
            // Nobody closes it.
            return std::future::pending().await;
        };
        if limits.requests_per_minute.is_some() || limits.requests_per_day.is_some() {
            let (shared, processes, now) = (self.shared.as_ref(), self.processes(), self.clock.now());
            let bucket = self.bucket(connection, limits);
            let taken = bucket.take(limits, together, Among { shared, processes, now }).await;
            let due = taken.inspect_err(|_| {
                metrics::counter!("tracklayer_delivery_quota_days_used_up_total").increment(1);
            })?;
            if !due.saturating_duration_since(Instant::now()).is_zero() {
                metrics::counter!("tracklayer_delivery_quota_waits_total").increment(1);
                tokio::time::sleep_until(due).await;
            }
        }
        if let Some(due) = self.with(connection, limits, |gate| self.keep_apart(gate, together)) {
            metrics::counter!("tracklayer_delivery_usage_waits_total").increment(1);
            tokio::time::sleep_until(due).await;
        }
        Ok(Admission { _permit: permit })
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

    fn bucket(&self, connection: ConnectionId, limits: &Limits) -> Arc<Bucket> {
        let owner = limits.whose.map_or(Owner::Connection(connection), Owner::Named);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(owner).or_insert_with(|| {
            Arc::new(match owner {
                Owner::Connection(connection) => Bucket::new(format!("c{}", connection.0), "the connection"),
                Owner::Named(key) => Bucket::new(key.to_string(), "all connections of its project together"),
            })
        });
        Arc::clone(bucket)
    }

    fn with<T>(&self, connection: ConnectionId, limits: &Limits, act: impl FnOnce(&mut Gate) -> T) -> T {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates
            .entry(connection)
            .or_insert_with(|| Gate { concurrent: Arc::new(Semaphore::new(at_once(limits))), little: None });
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
    const MINUTE: Duration = Duration::from_secs(60);

    fn limits(requests_per_minute: Option<u32>, max_concurrent: usize) -> Limits {
        Limits {
            max_events: 1,
            max_body_bytes: 1,
            dedup_window: None,
            requests_per_minute,
            requests_per_day: None,
            whose: None,
            max_concurrent,
            timeout: MINUTE,
        }
    }

    /// Seconds from the start at which so many requests of a connection went out, each answered at once.
    async fn sent_at(quota: &Quota, limits: &Limits, requests: usize) -> Vec<f64> {
        let start = Instant::now();
        let mut sent = Vec::new();
        for _ in 0..requests {
            drop(quota.admit(CONNECTION, limits).await.unwrap());
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
        let first = quota.admit(CONNECTION, &limits).await.unwrap();
        let _second = quota.admit(CONNECTION, &limits).await.unwrap();
        let third = tokio::time::timeout(MINUTE, quota.admit(CONNECTION, &limits)).await;
        assert!(third.is_err(), "two are under way");
        let _other = quota.admit(ConnectionId(8), &limits).await.unwrap();
        drop(first);
        let _third = tokio::time::timeout(MINUTE, quota.admit(CONNECTION, &limits)).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_go_out_together_each_count() {
        let quota = Quota::default();
        let limits = limits(Some(300), 4);
        let first = quota.admit_all(CONNECTION, &limits, 3).await.unwrap();
        let second = tokio::time::timeout(MINUTE, quota.admit_all(CONNECTION, &limits, 2)).await;
        assert!(second.is_err(), "five would be under way");
        drop(first);
        let start = Instant::now();
        for _ in 0..75 {
            drop(quota.admit_all(CONNECTION, &limits, 4).await.unwrap());
        }
        assert!(start.elapsed() < MINUTE, "300 fit into a minute");
        drop(quota.admit_all(CONNECTION, &limits, 4).await.unwrap());
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
            drop(quota.admit(CONNECTION, &limits).await.unwrap());
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
            drop(quota.admit(CONNECTION, &limits).await.unwrap());
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
    async fn connections_for_which_a_platform_counts_together_share_the_minute() {
        let quota = Quota::default();
        let project = |name| Limits { whose: Some(QuotaKey::of(&[name])), ..limits(Some(300), 2) };
        let (one, other) = (project("one"), project("other"));
        let start = Instant::now();
        for request in 0..301 {
            drop(quota.admit(ConnectionId(request % 10), &one).await.unwrap());
        }
        assert!(start.elapsed() >= MINUTE, "ten connections have one limit: {:?}", start.elapsed());
        let start = Instant::now();
        drop(quota.admit(CONNECTION, &other).await.unwrap());
        assert!(start.elapsed().is_zero(), "another project has its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_that_is_used_up_says_until_when_and_each_process_has_its_part() {
        let clock = Clock::default();
        let quota = Quota::default().by_clock(clock.clone());
        let limits = Limits { requests_per_day: Some(6), ..limits(None, 4) };
        drop(quota.admit_all(CONNECTION, &limits, 4).await.unwrap());
        let full = quota.admit_all(CONNECTION, &limits, 3).await.unwrap_err();
        let day = Duration::from_secs(24 * 3_600);
        assert_eq!(full.per_day, 6);
        assert!(
            full.wait + Duration::from_secs(1) > day && full.wait <= day + Duration::from_secs(600),
            "{full:?}"
        );
        drop(quota.admit_all(CONNECTION, &limits, 2).await.unwrap());
        // Another hour of the day: what was sent first comes back first.
        let other = Quota::default().by_clock(clock.clone());
        other.share_among(2);
        drop(other.admit(CONNECTION, &limits).await.unwrap());
        clock.advance(Duration::from_secs(3_600));
        drop(other.admit_all(CONNECTION, &limits, 2).await.unwrap());
        let full = other.admit(CONNECTION, &limits).await.unwrap_err();
        assert!(full.wait <= day - Duration::from_secs(3_000), "half of six are its own: {full:?}");
        clock.advance(full.wait);
        drop(other.admit(CONNECTION, &limits).await.unwrap());
        other.admit(CONNECTION, &limits).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_published_limit_nobody_waits() {
        let sent = sent_at(&Quota::default(), &limits(None, 1), 10_000).await;
        assert!(sent[9_999] < 0.001);
    }
}
