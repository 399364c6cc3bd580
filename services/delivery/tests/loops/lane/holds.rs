//! Holds that an earlier holder of the lane left behind.

use tracklayer_delivery::ledger::State;
use tracklayer_sandbox::{Fault, How, Platform};

use super::rig::{Rig, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_the_platform_asked_for_holds_for_the_next_holder_too() {
    let mut rig = Rig::new("meta_capi").await;
    rig.services.run(
        "insert into delivery.lane_hold (workspace_id, connection_id, partition, kind, detail, attempts, next_at)
         values (1, 7, 0, 'throttled', '368: blocked', 1, now() + interval '40 minutes')",
    )
    .await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where detail like '%earlier holder%'", 1).await;
    let left = "select (extract(epoch from max(next_at) - now()) / 60)::bigint from delivery.lane_hold";
    assert!((39..=40).contains(&rig.number(left).await), "as long as it was asked for");
    assert!(rig.sandbox.requests(10).is_empty(), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_hold_ends_with_its_holder() {
    let mut rig = Rig::new("meta_capi").await;
    rig.services.run(
        "insert into delivery.lane_hold (workspace_id, connection_id, partition, kind, detail, attempts, next_at)
         values (1, 7, 0, 'auth', 'an old token', 9, now() + interval '50 seconds')",
    )
    .await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    assert_eq!(rig.number("select count(*) from delivery.lane_hold").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_may_ask_for_longer_than_five_minutes() {
    let mut rig = Rig::new("webhook").await;
    let throttled = Fault::TooManyRequests { retry_after: Some(3_000) };
    rig.sandbox.inject(Platform::Webhook, throttled, How::Times(1));
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.reaches(
        "select count(*) from delivery.lane_hold where kind = 'throttled' and next_at > now() + interval '49 minutes'",
        1,
    )
    .await;
}
