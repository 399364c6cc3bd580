//! Answers that say different things about different events of one request.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_delivery::ledger::State;
use tracklayer_sandbox::{Fault, How, Platform, options};

use super::rig::{Rig, order};

const HOUR: u64 = 3_600;

/// A lane that adds to what a tag reports, at a Google that does not find that so often.
async fn enhancing(not_found: How) -> Rig {
    let mut rig = Rig::new("google_ads").await;
    rig.control_says(|connection, _| {
        let mut document: Value = serde_json::from_str(&connection.document_json).unwrap();
        document["settings"]["mode"] = json!("enhancement");
        document["settings"]["conversion_action_id"] = json!(options::GOOGLE_WEBPAGE_ACTION);
        connection.document_json = document.to_string();
    });
    let code = Some("conversionAdjustmentUploadError.CONVERSION_NOT_FOUND".to_owned());
    rig.sandbox.inject(Platform::GoogleAds, Fault::PartialFailure { indexes: vec![0], code }, not_found);
    rig
}

/// An order of so many hours ago of somebody who is known by an e-mail address.
fn known(hours: u64) -> Value {
    let mut event = order("m-1", "ann");
    event["timestamp"] = json!((Timestamp::now() - Duration::from_secs(hours * HOUR)).to_string());
    event["context"]["traits"] = json!({ "email": "ann@example.com" });
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enhancement_that_comes_before_its_tags_hit_is_sent_again_while_google_takes_it() {
    let mut rig = enhancing(How::Times(1)).await;
    rig.resolved(&[known(1)]).await;
    rig.start().await;
    let held = rig.ends_as(0, State::Held).await;
    assert_eq!(held.reason, "retry");
    assert!(held.detail.contains("CONVERSION_NOT_FOUND"), "{}", held.detail);
    rig.clock.advance(Duration::from_secs(3 * HOUR + 1));
    assert_eq!(rig.ends_as(0, State::Delivered).await.attempts, 2);
    assert_eq!(rig.sandbox.counted(Platform::GoogleAds).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enhancement_without_a_tags_hit_is_dead_for_that_and_not_for_its_age() {
    let mut rig = enhancing(How::Always).await;
    // An hour is left to it, which is less than it waits as a rule: half of that, and then half of the rest.
    rig.resolved(&[known(23)]).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.retry where tries = 1", 1).await;
    rig.clock.advance(Duration::from_secs(HOUR / 2 + 1));
    rig.reaches("select count(*) from delivery.retry where tries = 2", 1).await;
    rig.clock.advance(Duration::from_secs(HOUR / 4 + 1));
    let dead = rig.ends_as(0, State::Dead).await;
    assert_eq!((dead.reason.as_str(), dead.attempts), ("retries_exhausted", 3), "{}", dead.detail);
    assert!(dead.detail.contains("CONVERSION_NOT_FOUND"), "{}", dead.detail);
    assert_eq!(rig.sandbox.totals()[&Platform::GoogleAds].requests, 3);
}

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
