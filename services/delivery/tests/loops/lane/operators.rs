//! Lanes that an operator holds: paused, frozen by the calendar, and released.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tracklayer_delivery::ledger::State;
use tracklayer_proto::control::v1::{FreezeWindow, Pause};
use tracklayer_sandbox::{Fault, How, Platform};

use super::rig::{Rig, order};

const HOUR: Duration = Duration::from_secs(3_600);

/// Orders of so many visitors in turn, numbered through.
fn orders(prefix: &str, range: std::ops::Range<usize>, visitors: usize) -> Vec<Value> {
    range.map(|n| order(&format!("{prefix}-{n:05}"), &format!("visitor-{}", n % visitors))).collect()
}

pub fn pause(rig: &mut Rig) {
    let pause = Pause { paused_by: "ann".to_owned(), reason: "an audit".to_owned(), ..Pause::default() };
    rig.control_says(|connection, _| connection.pause = Some(pause));
}

pub fn resume(rig: &mut Rig) {
    let now = Timestamp::now();
    rig.control_says(|connection, _| {
        connection.pause = None;
        connection.resumed_at = Some(prost_types::Timestamp { seconds: now.as_second(), nanos: 0 });
    });
}

/// A window around now: it began an hour ago and ends in an hour.
pub fn around_now() -> FreezeWindow {
    let at = |hours: i64| {
        let at = Timestamp::now() + SignedDuration::from_hours(hours);
        at.to_zoned(jiff::tz::TimeZone::UTC).datetime().round(jiff::Unit::Second).unwrap().to_string()
    };
    FreezeWindow {
        freeze_id: 1,
        time_zone: "UTC".to_owned(),
        from: at(-1),
        to: at(1),
        reason: "a peak".to_owned(),
        ..FreezeWindow::default()
    }
}

pub async fn holds_as(rig: &Rig, kind: &'static str) {
    tracklayer_testkit::eventually_seen("the lane's hold", async || {
        let pool = &rig.services.database.pool;
        let told: Option<String> =
            sqlx::query_scalar("select kind from delivery.lane_hold").fetch_optional(pool).await.unwrap();
        if told.as_deref() == Some(kind) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

/// What Meta counted, in the order of arrival.
fn taken(rig: &Rig) -> Vec<String> {
    rig.sandbox.counted(Platform::Meta).into_iter().map(|counted| counted.event_id).collect()
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["messageId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_connection_sends_nothing_and_everything_in_order_once_it_is_resumed() {
    let mut rig = Rig::new("meta_capi").await;
    pause(&mut rig);
    let events = orders("m", 0..300, 7);
    rig.resolved(&events).await;
    rig.start().await;
    holds_as(&rig, "paused").await;
    let told = "select count(*) from delivery.lane_hold where detail = 'by operator `ann`: an audit'";
    assert_eq!(rig.number(told).await, 1, "who and why is told");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(rig.sandbox.requests(10).is_empty(), "nothing was sent");
    assert_eq!(rig.number("select count(*) from delivery.ledger_block").await, 0, "the cursor stands");

    resume(&mut rig);
    rig.takes(Platform::Meta, 300).await;
    assert_eq!(taken(&rig), ids(&events));
    rig.reaches("select count(*) from delivery.lane_hold", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_the_wire_is_finished_and_no_other_is_begun() {
    let mut rig = Rig::new("meta_capi").await;
    rig.sandbox.inject(Platform::Meta, Fault::Slow(Duration::from_millis(1_500)), How::Times(1));
    // One visitor's: the second request waits for the first.
    let events = orders("m", 0..1_200, 1);
    rig.resolved(&events).await;
    rig.start().await;
    tracklayer_testkit::eventually("the first request", async || {
        (!rig.sandbox.counted(Platform::Meta).is_empty()).then_some(())
    })
    .await;
    pause(&mut rig);
    holds_as(&rig, "paused").await;
    let sent = taken(&rig).len();
    assert!((1..1_200).contains(&sent), "the second request was not begun: {sent}");
    rig.reaches("select coalesce(sum(events), 0)::bigint from delivery.rollup where state = 6", sent as i64)
        .await;
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0, "its outcome is known");

    resume(&mut rig);
    rig.takes(Platform::Meta, 1_200).await;
    assert_eq!(taken(&rig), ids(&events));
    let copies: u32 = rig.sandbox.counted(Platform::Meta).iter().map(|counted| counted.duplicates).sum();
    assert_eq!(copies, 0, "and nothing went out twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_to_be_tried_again_waits_for_the_resumption_too() {
    let mut rig = Rig::new("meta_capi").await;
    pause(&mut rig);
    rig.due_again(&orders("again", 0..3, 3)).await;
    rig.start().await;
    holds_as(&rig, "paused").await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!((rig.number("select count(*) from delivery.retry").await, taken(&rig).len()), (3, 0));
    resume(&mut rig);
    rig.takes(Platform::Meta, 3).await;
    rig.reaches("select count(*) from delivery.retry", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_ends_by_the_clock_and_what_it_held_goes_out_in_order_at_its_pace() {
    let mut rig = Rig::new("meta_capi").await;
    rig.control_says(|connection, freezes| {
        connection.release_events_per_second = Some(200);
        freezes.push(around_now());
    });
    let events = orders("m", 0..700, 11);
    rig.resolved(&events).await;
    rig.start().await;
    holds_as(&rig, "frozen").await;
    assert!(rig.sandbox.requests(10).is_empty());

    // Nobody says anything: the clock does.
    rig.clock.advance(HOUR + Duration::from_secs(1));
    holds_as(&rig, "releasing").await;
    rig.takes(Platform::Meta, 700).await;
    assert_eq!(taken(&rig), ids(&events));
    let arrivals: Vec<i64> = rig.sandbox.counted(Platform::Meta).iter().map(|c| c.arrived_at_ms).collect();
    let took = arrivals.last().unwrap() - arrivals.first().unwrap();
    // A second's worth goes at once, the other 500 take their time.
    assert!(took > 2_300, "700 events at 200 a second took {took} ms");
    rig.reaches("select count(*) from delivery.lane_hold", 0).await;

    // Caught up, it does not wait for the pace any more, which would take 20 s.
    let more = orders("n", 0..4_000, 11);
    let begun = std::time::Instant::now();
    rig.resolved_at(rig.clock.now(), &more).await;
    rig.takes(Platform::Meta, 4_700).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_after_a_release_does_not_wait_for_its_pace() {
    let mut rig = Rig::new("meta_capi").await;
    rig.control_says(|connection, freezes| {
        connection.release_events_per_second = Some(100);
        freezes.push(around_now());
    });
    rig.resolved(&orders("held", 0..200, 11)).await;
    rig.start().await;
    holds_as(&rig, "frozen").await;
    rig.clock.advance(HOUR + Duration::from_secs(1));
    holds_as(&rig, "releasing").await;
    // Received times of these events are whole seconds.
    rig.clock.advance(Duration::from_secs(2));
    // Old by the time it is its turn, which is how a connection looks that gets more than its pace.
    rig.resolved_at(rig.clock.now(), &orders("later", 0..4_000, 11)).await;
    rig.clock.advance(Duration::from_secs(60));
    let begun = std::time::Instant::now();
    rig.takes(Platform::Meta, 4_200).await;
    assert!(begun.elapsed() < Duration::from_secs(25), "at the pace it would be 42 s: {:?}", begun.elapsed());
    rig.reaches("select count(*) from delivery.lane_hold", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_lane_over_in_the_middle_of_a_release_keeps_its_pace() {
    let mut rig = Rig::new("meta_capi").await;
    rig.control_says(|connection, _| connection.release_events_per_second = Some(50));
    pause(&mut rig);
    rig.resolved(&orders("m", 0..500, 5)).await;
    rig.start().await;
    holds_as(&rig, "paused").await;
    rig.clock.advance(HOUR);
    // Without the time of the release: who takes over has nothing but what was told of the lane.
    rig.control_says(|connection, _| connection.pause = None);
    tracklayer_testkit::eventually("some of it", async || (taken(&rig).len() >= 50).then_some(())).await;
    rig.crash().await;
    holds_as(&rig, "releasing").await;
    let (begun, before) = (std::time::Instant::now(), taken(&rig).len());
    rig.start().await;
    rig.takes(Platform::Meta, 500).await;
    let left = (500 - before).saturating_sub(50) as u64;
    assert!(begun.elapsed() > Duration::from_millis(left * 20 * 8 / 10), "{left} in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_that_ended_while_nobody_held_the_lane_is_released_at_its_pace_too() {
    let mut rig = Rig::new("meta_capi").await;
    rig.control_says(|connection, freezes| {
        connection.release_events_per_second = Some(100);
        freezes.push(around_now());
    });
    rig.resolved(&orders("m", 0..300, 3)).await;
    rig.clock.advance(HOUR + Duration::from_secs(60));
    let begun = std::time::Instant::now();
    rig.start().await;
    rig.takes(Platform::Meta, 300).await;
    assert!(begun.elapsed() > Duration::from_millis(1_600), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pace_everything_goes_at_once() {
    let mut rig = Rig::new("meta_capi").await;
    rig.control_says(|connection, freezes| {
        connection.release_events_per_second = Some(0);
        freezes.push(around_now());
    });
    rig.resolved(&orders("m", 0..2_000, 50)).await;
    rig.start().await;
    holds_as(&rig, "frozen").await;
    let begun = std::time::Instant::now();
    rig.clock.advance(HOUR + Duration::from_secs(1));
    rig.takes(Platform::Meta, 2_000).await;
    rig.ends_as(1_999, State::Delivered).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    rig.reaches("select count(*) from delivery.lane_hold", 0).await;
}
