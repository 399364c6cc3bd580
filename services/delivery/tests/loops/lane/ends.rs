//! How a lane ends: at a shutdown, and when its lease is to go to another process.

use std::time::Duration;

use tracklayer_delivery::ledger::State;
use tracklayer_sandbox::{Fault, How, Platform};

use super::rig::{Rig, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_to_end_begins_no_request_and_commits_what_it_has_sent() {
    let mut rig = Rig::new("webhook").await;
    rig.sandbox.inject(Platform::Webhook, Fault::Slow(Duration::from_millis(700)), How::Always);
    // One visitor: a request for each, one after the other.
    let events: Vec<_> = (0..50).map(|n| order(&format!("m-{n}"), "ann")).collect();
    rig.resolved(&events).await;
    rig.start().await;
    rig.takes(Platform::Webhook, 2).await;
    rig.part();
    rig.ended().await;
    rig.ends_as(1, State::Delivered).await;
    let sent = rig.sandbox.totals()[&Platform::Webhook].requests;
    assert!((2..10).contains(&sent), "{sent} requests");
    assert_eq!(
        rig.number("select sum(event_count)::bigint from delivery.ledger_block").await.unsigned_abs(),
        sent
    );
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0, "a successor repeats nothing");
    assert_eq!(rig.number("select count(*) from delivery.lane_hold").await, 0, "to end is no hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_lane_that_is_to_end_is_cut_off_when_its_lease_runs_out_all_the_same() {
    let mut rig = Rig::with_lease("webhook", Duration::from_secs(8)).await;
    rig.sandbox.inject(Platform::Webhook, Fault::Slow(Duration::from_secs(600)), How::Always);
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.takes(Platform::Webhook, 1).await;
    rig.part();
    // The receiver has twenty seconds.
    tokio::time::timeout(Duration::from_secs(15), rig.ended()).await.expect("it is not cut off");
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 1, "the successor knows of it");
    assert_eq!(rig.number("select count(*) from delivery.ledger_block").await, 0);
}
