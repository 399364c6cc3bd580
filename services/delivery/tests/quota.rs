//! Quotas that processes share, against a real Redis and the real clock.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use redis::aio::ConnectionManager;
use tokio::time::{Instant, timeout_at};
use tracklayer_delivery::clock::Clock;
use tracklayer_delivery::quota::Quota;
use tracklayer_destination::{Limits, QuotaKey};
use tracklayer_ids::ConnectionId;
use tracklayer_testkit::TestRedis;

const SHOP: ConnectionId = ConnectionId(1);
const PORTAL: ConnectionId = ConnectionId(2);

/// A twentieth of them may go ahead of its time, and half of that at once. So long after the first request there are turns for so many:
/// one each 60/5700 s, and 150.
const PER_MINUTE: u32 = 6_000;

fn turns(seconds: f64) -> f64 {
    seconds * 5_700.0 / 60.0 + 150.0
}

fn limits() -> Limits {
    Limits {
        max_events: 1,
        max_body_bytes: 1,
        dedup_window: None,
        requests_per_minute: Some(PER_MINUTE),
        requests_per_day: None,
        whose: Some(QuotaKey::of(&["project"])),
        max_concurrent: 8,
        timeout: Duration::from_secs(1),
    }
}

async fn connect(redis: &TestRedis) -> ConnectionManager {
    ConnectionManager::new(redis::Client::open(redis.url.as_str()).unwrap()).await.unwrap()
}

/// One of so many processes.
fn process(redis: &ConnectionManager, processes: usize) -> Quota {
    let quota = Quota::default().shared_over(redis.clone());
    quota.share_among(processes);
    quota
}

/// How many requests a lane that is never idle sends until then, each answered at once.
async fn sent(quota: &Quota, connection: ConnectionId, limits: &Limits, until: Instant) -> f64 {
    let mut sent = 0.0;
    // A turn that is due at once is taken before the time is looked at.
    while Instant::now() < until
        && let Ok(admitted) = timeout_at(until, quota.admit(connection, limits)).await
    {
        drop(admitted.unwrap());
        sent += 1.0;
    }
    sent
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_project_share_its_minute_in_all_processes() {
    let redis = tracklayer_testkit::redis().await;
    let redis = connect(&redis).await;
    let (one, other) = (process(&redis, 2), process(&redis, 2));
    let (limits, until) = (limits(), in_seconds(3));
    let (shop, portal) = tokio::join!(sent(&one, SHOP, &limits, until), sent(&other, PORTAL, &limits, until));
    let all = shop + portal;
    assert!(all <= turns(3.0) + 8.0, "one limit for both: {shop} and {portal}");
    assert!(all >= turns(3.0) * 0.85, "and nearly all of it: {shop} and {portal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_all_lanes_has_all_of_the_limit_and_with_another_no_more() {
    let server = tracklayer_testkit::redis().await;
    let mut redis = connect(&server).await;
    let (one, other) = (process(&redis, 3), process(&redis, 3));
    let limits = Limits { whose: None, ..limits() };
    let alone = sent(&one, SHOP, &limits, in_seconds(2)).await;
    assert!(alone >= turns(2.0) * 0.85, "not a third of it: {alone}");

    let statistics: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
    let scripts = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    let asked: f64 = scripts.split(',').next().unwrap().parse().unwrap();
    assert!(asked * 10.0 < alone, "turns are taken in batches: {asked} questions for {alone} requests");

    let until = in_seconds(2);
    let (more, others) = tokio::join!(sent(&one, SHOP, &limits, until), sent(&other, SHOP, &limits, until));
    assert!(others > 0.0, "both get some");
    // Between the two there may have been a moment.
    assert!(alone + more + others <= turns(4.0) + 30.0, "{alone}, then {more} and {others}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_each_process_has_its_part_and_nobody_waits_for_redis() {
    let redis = tracklayer_testkit::redis().await;
    let connection = connect(&redis).await;
    let quota = process(&connection, 3);
    redis.server.stop().await.unwrap();
    let begun = Instant::now();
    drop(quota.admit(SHOP, &limits()).await.unwrap());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // A third of the limit is 2,000, of which 1,900 are spread; what may go ahead may have gone ahead over Redis.
    let sent = sent(&quota, SHOP, &limits(), in_seconds(3)).await;
    assert!((60.0..=100.0).contains(&sent), "a third of what is allowed in three seconds: {sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_day_and_a_redis_that_forgets_is_told() {
    let server = tracklayer_testkit::redis().await;
    let mut redis = connect(&server).await;
    let clock = Clock::default();
    let (one, other) =
        (process(&redis, 2).by_clock(clock.clone()), process(&redis, 2).by_clock(clock.clone()));
    let limits = Limits { requests_per_minute: None, requests_per_day: Some(10), ..limits() };
    for _ in 0..6 {
        drop(one.admit(SHOP, &limits).await.unwrap());
    }
    drop(other.admit_all(PORTAL, &limits, 4).await.unwrap());
    let day = Duration::from_secs(24 * 3_600);
    for (quota, connection) in [(&one, SHOP), (&other, PORTAL)] {
        let full = quota.admit(connection, &limits).await.unwrap_err();
        assert!(full.wait + Duration::from_secs(2) > day && full.wait <= day + Duration::from_secs(600));
        assert!(full.to_string().contains("10 requests"), "{full}");
    }

    let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
    one.admit_all(SHOP, &limits, 5).await.unwrap_err();
    // The limit was raised.
    let more = Limits { requests_per_day: Some(20), ..limits };
    drop(one.admit_all(SHOP, &more, 5).await.unwrap());

    clock.advance(day + Duration::from_secs(600));
    drop(other.admit_all(PORTAL, &limits, 8).await.unwrap());
    one.admit_all(SHOP, &limits, 3).await.unwrap_err();
}
