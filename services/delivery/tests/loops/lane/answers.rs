//! Answers that say different things about different events of one request.

use tracklayer_delivery::ledger::State;
use tracklayer_sandbox::{Fault, How, Platform};

use super::rig::{Rig, order};

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_event_of_a_request_is_dead_and_its_neighbours_are_delivered_once() {
    let mut rig = Rig::new("google_ads").await;
    let code = Some("conversionUploadError.EXPIRED_EVENT".to_owned());
    let failing = Fault::PartialFailure { indexes: vec![1], code };
    rig.sandbox.inject(Platform::GoogleAds, failing, How::Times(1));
    rig.resolved(&[order("m-1", "ann"), order("m-2", "bob"), order("m-3", "cy")]).await;
    rig.start().await;
    let dead = rig.ends_as(1, State::Dead).await;
    assert_eq!(dead.reason, "rejected_by_platform");
    assert!(dead.detail.contains("EXPIRED_EVENT"), "{}", dead.detail);
    rig.ends_as(0, State::Delivered).await;
    rig.ends_as(2, State::Delivered).await;
    assert_eq!(rig.sandbox.totals()[&Platform::GoogleAds].requests, 1);
    assert_eq!(rig.sandbox.counted(Platform::GoogleAds).len(), 2);
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn later_events_of_a_visitor_wait_behind_a_retry_and_others_do_not() {
    let mut rig = Rig::new("google_ads").await;
    let failing = Fault::PartialFailure { indexes: vec![0], code: None };
    rig.sandbox.inject(Platform::GoogleAds, failing, How::Always);
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Held).await;
    // The fault is on the first place of each request: only who waits behind is not sent with it.
    rig.resolved(&[order("m-2", "ann"), order("m-3", "ann")]).await;
    assert_eq!(rig.ends_as(1, State::Held).await.reason, "behind");
    assert_eq!(rig.ends_as(2, State::Held).await.attempts, 0, "not sent at all");
    rig.sandbox.clear(Platform::GoogleAds);
    rig.resolved(&[order("m-4", "bob")]).await;
    rig.ends_as(3, State::Delivered).await;
    rig.ends_as(2, State::Delivered).await;
    let counted = rig.sandbox.counted(Platform::GoogleAds);
    let of_ann: Vec<&str> =
        counted.iter().map(|c| c.event_id.as_str()).filter(|id| *id != "order-m-4").collect();
    assert_eq!(of_ann, ["order-m-1", "order-m-2", "order-m-3"]);
    assert!(counted.iter().all(|c| c.duplicates == 0));
    assert_eq!(rig.number("select count(*) from delivery.retry").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nul_in_an_answer_does_not_stop_the_commit() {
    let mut rig = Rig::new("webhook").await;
    let refusal = Fault::Status { code: 400, body: Some("not \0 mine".to_owned()) };
    rig.sandbox.inject(Platform::Webhook, refusal, How::Times(1));
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Dead).await;
    rig.resolved(&[order("m-2", "ann")]).await;
    rig.ends_as(1, State::Delivered).await;
    let (answer,): (String,) = sqlx::query_as("select answer from delivery.dead_letter")
        .fetch_one(&rig.services.database.pool)
        .await
        .unwrap();
    assert_eq!(answer, "400 not  mine");
}
