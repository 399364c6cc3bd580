//! A platform that fails whole requests, and one that says how much of its limit is used.

use std::time::Duration;

use serde_json::Value;
use tracklayer_delivery::ledger::State;
use tracklayer_ids::Partition;
use tracklayer_sandbox::{Fault, How, Platform};

use super::operators::{pause, resume};
use super::rig::{CONNECTION, REVISION, Rig, order};

fn orders(count: usize) -> Vec<Value> {
    (0..count).map(|n| order(&format!("m-{n}"), &format!("visitor-{n}"))).collect()
}

/// Events in each request that Meta got.
fn sizes(rig: &Rig) -> Vec<usize> {
    rig.sandbox.requests(100).iter().map(|request| request.body.matches("\"event_id\"").count()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_single_events_are_tried_and_the_rest_waits() {
    let mut rig = Rig::new("meta_capi").await;
    rig.sandbox.inject(Platform::Meta, Fault::Status { code: 500, body: None }, How::Times(4));
    rig.resolved(&orders(10)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where detail like '%500%the circuit is open%'", 1)
        .await;
    for offset in 0..10 {
        let verdict = rig.ends_as(offset, State::Delivered).await;
        assert_eq!(verdict.attempts, if offset == 0 { 5 } else { 2 }, "{offset}");
    }
    assert_eq!(sizes(&rig), [10, 1, 1, 1, 1, 9], "the fourth and the fifth were tries of the open circuit");
    let at: Vec<i64> = rig.sandbox.requests(10).iter().map(|request| request.at_ms).collect();
    assert!(at[3] - at[2] >= 500 && at[4] - at[3] >= 1_000, "open for longer each time: {at:?}");
    rig.reaches("select count(*) from delivery.lane_hold", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_was_asked_for_ends_when_the_clock_shows_it() {
    let mut rig = Rig::new("meta_capi").await;
    let throttled = Fault::TooManyRequests { retry_after: Some(1_200) };
    rig.sandbox.inject(Platform::Meta, throttled, How::Times(1));
    rig.resolved(&orders(3)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    rig.clock.advance(Duration::from_secs(1_150));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sizes(&rig), [3], "not before");
    rig.clock.advance(Duration::from_secs(60));
    rig.ends_as(2, State::Delivered).await;
    assert_eq!(sizes(&rig), [3, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_google_names_no_time_the_lane_waits_by_googles_own_figures() {
    let mut rig = Rig::new("google_ads").await;
    let throttled = Fault::Status { code: 429, body: Some("{}".to_owned()) };
    rig.sandbox.inject(Platform::GoogleAds, throttled, How::Times(1));
    rig.resolved(&orders(1)).await;
    rig.start().await;
    // Five seconds, up to half of it less by chance; elsewhere it is one.
    let waits = "select count(*) from delivery.lane_hold
                 where kind = 'throttled' and next_at > since + interval '1.2 seconds'";
    rig.reaches(waits, 1).await;
    rig.clock.advance(Duration::from_secs(5));
    rig.ends_as(0, State::Delivered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_used_up_holds_the_lane_and_says_so_until_the_limit_is_another() {
    let may_send = |rig: &mut Rig, per_day: u32| {
        rig.control_says(|connection, _| {
            let mut document: Value = serde_json::from_str(&connection.document_json).unwrap();
            document["settings"]["requests_per_day"] = per_day.into();
            connection.document_json = document.to_string();
            connection.revision += 1;
        });
    };
    let mut rig = Rig::new("google_data_manager").await;
    may_send(&mut rig, 1);
    rig.start().await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.ends_as(0, State::Delivered).await;
    rig.resolved(&[order("m-2", "bob")]).await;
    let held = "select count(*) from delivery.lane_hold
                where kind = 'throttled' and detail like '%the 1 requests are made%all connections of its project%'
                  and next_at > since + interval '23 hours'";
    rig.reaches(held, 1).await;
    may_send(&mut rig, 2);
    rig.ends_as(1, State::Delivered).await;
    rig.reaches("select count(*) from delivery.lane_hold", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_too_old_while_the_circuit_was_open_is_told_and_not_sent() {
    let mut rig = Rig::new("meta_capi").await;
    rig.sandbox.inject(Platform::Meta, Fault::TooManyRequests { retry_after: Some(3_000) }, How::Times(1));
    rig.resolved(&orders(2)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    rig.clock.advance(Duration::from_secs(8 * 24 * 3_600));
    for offset in 0..2 {
        let dead = rig.ends_as(offset, State::Dead).await;
        assert_eq!((dead.reason.as_str(), dead.attempts), ("event_too_old", 1));
    }
    assert_eq!(sizes(&rig), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn near_its_limit_a_platform_gets_requests_further_apart() {
    let mut rig = Rig::new("meta_capi").await;
    rig.sandbox.inject(Platform::Meta, Fault::NearLimit { percent: 80 }, How::Always);
    rig.resolved(&orders(1)).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    rig.resolved(&[order("m-next", "bob")]).await;
    rig.ends_as(1, State::Delivered).await;
    let at: Vec<i64> = rig.sandbox.requests(10).iter().map(|request| request.at_ms).collect();
    assert!(at.len() == 2 && at[1] - at[0] >= 1_900, "{at:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_answer_puts_off_goes_out_together_again() {
    let mut rig = Rig::new("google_ads").await;
    let failing = Fault::PartialFailure { indexes: (0..10).collect(), code: None };
    rig.sandbox.inject(Platform::GoogleAds, failing, How::Times(1));
    rig.resolved(&orders(10)).await;
    rig.start().await;
    for offset in 0..10 {
        assert_eq!(rig.ends_as(offset, State::Delivered).await.attempts, 2);
    }
    assert_eq!(rig.sandbox.totals()[&Platform::GoogleAds].requests, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_kills_no_event_however_often_it_is_tried() {
    let mut rig = Rig::new("webhook").await;
    rig.sandbox.inject(Platform::Webhook, Fault::Status { code: 500, body: None }, How::Always);
    rig.resolved(&orders(1)).await;
    rig.start().await;
    let sent = |rig: &Rig| rig.sandbox.totals().get(&Platform::Webhook).map_or(0, |totals| totals.requests);
    // More than the attempts after which a receiver's trouble is taken for the event's.
    while sent(&rig) < 25 {
        rig.clock.advance(Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let held = "select count(*) from delivery.lane_hold where kind = 'transient' and attempts >= 20";
    rig.reaches(held, 1).await;
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_receiver_never_answers_dies_while_others_are_answered() {
    let mut rig = Rig::new("webhook").await;
    rig.sandbox.inject(Platform::Webhook, Fault::Status { code: 500, body: None }, How::Always);
    rig.resolved(&orders(2)).await;
    // Another lane of the connection, whose events are answered.
    let other = rig.breakers.join(CONNECTION, Partition(1));
    rig.start().await;
    let answered = tokio::spawn(async move {
        loop {
            if let Ok(leave) = other.ask(REVISION) {
                other.worked(REVISION, &leave);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let hurry = rig.clock.clone();
    let hurry = tokio::spawn(async move {
        loop {
            hurry.advance(Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let dead = rig.ends_as(0, State::Dead).await;
    assert_eq!(dead.reason, "outcome_unknown", "a receiver that fails may have taken it");
    // An answer counts where another event was answered since the one before.
    assert!((20..30).contains(&dead.attempts), "{}", dead.attempts);
    assert!(dead.detail.contains("rejected_by_platform: HTTP_500"), "{}", dead.detail);
    answered.abort();
    hurry.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_has_only_retries_waits_longer_each_time() {
    let mut rig = Rig::new("meta_capi").await;
    rig.sandbox.inject(Platform::Meta, Fault::Status { code: 500, body: None }, How::Always);
    rig.due_again(&orders(1)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where attempts >= 4", 1).await;
}

/// How long the workers of this test have worked.
fn busy() -> Duration {
    let metrics = tokio::runtime::Handle::current().metrics();
    (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_paused_behind_a_circuit_rests_when_that_closes() {
    let mut rig = Rig::new("meta_capi").await;
    rig.sandbox.inject(Platform::Meta, Fault::Status { code: 500, body: None }, How::Times(3));
    rig.resolved(&orders(1)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where detail like '%the circuit is open%'", 1).await;
    pause(&mut rig);
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'paused'", 1).await;
    let other = rig.breakers.join(CONNECTION, Partition(1));
    rig.clock.advance(Duration::from_secs(60));
    let tried = other.ask(REVISION).expect("its time has come");
    other.worked(REVISION, &tried);
    drop(tried);
    let before = busy();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let worked = busy() - before;
    assert!(worked < Duration::from_secs(1), "two seconds of rest: {worked:?} of work");
    resume(&mut rig);
    rig.ends_as(0, State::Delivered).await;
}
