//! Requests whose outcome nobody knows.

use std::time::Duration;

use tracklayer_delivery::ledger::State;
use tracklayer_sandbox::{Fault, How, Options, Platform};

use super::consent::opts_out;
use super::rig::{Rig, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_an_answer_is_repeated_under_the_same_id_inside_the_window() {
    let mut rig = Rig::new("meta_capi").await;
    rig.sandbox.inject(Platform::Meta, Fault::HangUpAfterAccepting, How::Times(1));
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    let verdict = rig.ends_as(0, State::Delivered).await;
    assert_eq!(verdict.attempts, 2);
    let counted = rig.sandbox.counted(Platform::Meta);
    assert_eq!((counted.len(), counted[0].duplicates), (1, 1), "the platform knew it");
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_of_an_earlier_holder_is_repeated_inside_the_window_and_given_up_past_it() {
    let mut rig = Rig::new("meta_capi").await;
    rig.services
        .run(
            "insert into delivery.intent
             (workspace_id, connection_id, partition, intent_id, epoch, generation, event_offsets, started_at)
         values (1, 7, 0, gen_random_uuid(), 0, 1, '{0}', now() - interval '3 days'),
                (1, 7, 0, gen_random_uuid(), 0, 1, '{1}', now() - interval '1 hour')",
        )
        .await;
    rig.resolved(&[order("m-1", "ann"), order("m-2", "bob")]).await;
    rig.start().await;
    let dead = rig.ends_as(0, State::Dead).await;
    assert_eq!((dead.reason.as_str(), dead.attempts), ("outcome_unknown", 0));
    rig.ends_as(1, State::Delivered).await;
    assert_eq!(rig.sandbox.counted(Platform::Meta).len(), 1);
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0, "both have their outcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_sent_before_an_opt_out_is_neither_repeated_nor_said_to_be_kept_back() {
    let mut rig = Rig::new("meta_capi").await;
    rig.services
        .run(
            "insert into delivery.intent
             (workspace_id, connection_id, partition, intent_id, epoch, generation, event_offsets, started_at)
         values (1, 7, 0, gen_random_uuid(), 0, 1, '{0}', now() - interval '1 minute')",
        )
        .await;
    rig.resolved(&[order("m-1", "ann"), order("m-2", "ann"), order("m-3", "bob")]).await;
    opts_out(&rig, "ann").await;
    rig.start().await;
    let dead = rig.ends_as(0, State::Dead).await;
    assert_eq!(dead.reason, "outcome_unknown");
    assert!(dead.detail.contains("does not go out again (blocked"), "{dead:?}");
    rig.ends_as(1, State::Blocked).await;
    rig.ends_as(2, State::Delivered).await;
    let counted = rig.sandbox.counted(Platform::Meta);
    assert_eq!(counted.iter().map(|c| c.event_id.as_str()).collect::<Vec<_>>(), ["m-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_repeat_is_recognised_nothing_goes_out_twice_and_the_next_event_does() {
    for fault in [Fault::HangUpAfterAccepting, Fault::ErrorAfterAccepting] {
        let mut rig = Rig::new("ga4_mp").await;
        rig.sandbox.inject(Platform::Ga4, fault.clone(), How::Times(1));
        rig.resolved(&[order("m-1", "ann")]).await;
        rig.start().await;
        let dead = rig.ends_as(0, State::Dead).await;
        assert_eq!((dead.reason.as_str(), dead.attempts), ("outcome_unknown", 1), "{fault:?}");
        rig.resolved(&[order("m-2", "ann")]).await;
        rig.ends_as(1, State::Delivered).await;
        assert_eq!(rig.sandbox.totals()[&Platform::Ga4].requests, 2, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_remembers_when_a_request_first_may_have_brought_it() {
    let mut rig = Rig::new("google_ads").await;
    let failing = Fault::PartialFailure { indexes: vec![0], code: None };
    rig.sandbox.inject(Platform::GoogleAds, failing, How::Times(1));
    rig.sandbox.inject(Platform::GoogleAds, Fault::HangUpBeforeReading, How::Always);
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.retry where first_sent_at is not null and attempts >= 3", 1)
        .await;
    rig.sandbox.clear(Platform::GoogleAds);
    let verdict = rig.ends_as(0, State::Delivered).await;
    assert!(verdict.attempts >= 4, "{verdict:?}");
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_leaves_one_intent_and_uses_up_nobodys_tries() {
    let mut rig = Rig::new("meta_capi").await;
    rig.sandbox.inject(Platform::Meta, Fault::Status { code: 500, body: None }, How::Always);
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.reaches("select coalesce(max(attempts), 0)::bigint from delivery.lane_hold", 4).await;
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 1);
    rig.sandbox.clear(Platform::Meta);
    let verdict = rig.ends_as(0, State::Delivered).await;
    assert!(verdict.attempts >= 5, "{verdict:?}");
    rig.reaches("select count(*) from delivery.lane_hold", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_cut_off_when_its_lease_runs_out() {
    let mut rig = Rig::with_lease("meta_capi", Duration::from_secs(5)).await;
    rig.sandbox.inject(Platform::Meta, Fault::Slow(Duration::from_secs(600)), How::Always);
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where detail like '%the lease ran out%'", 1).await;
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 1, "the successor knows of it");
    assert_eq!(rig.number("select count(*) from delivery.ledger_block").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_may_have_been_taken_is_given_up_past_the_window() {
    let mut rig = Rig::new("meta_capi").await;
    rig.due_again(&[order("m-1", "ann"), order("m-2", "bob")]).await;
    rig.services
        .run(
            "update delivery.retry set first_sent_at = now() - interval '48 hours' where event_offset = 0;
             update delivery.retry set first_sent_at = now() - interval '40 hours' where event_offset = 1;",
        )
        .await;
    rig.start().await;
    assert_eq!(rig.ends_as(0, State::Dead).await.reason, "outcome_unknown");
    rig.ends_as(1, State::Delivered).await;
    assert_eq!(rig.sandbox.counted(Platform::Meta).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_too_often_after_a_request_without_an_answer_may_be_there() {
    let mut rig = Rig::new("google_ads").await;
    rig.due_again(&[order("m-1", "ann"), order("m-2", "bob")]).await;
    rig.services
        .run(
            "update delivery.retry set tries = 11;
             update delivery.retry set first_sent_at = now() - interval '1 hour' where event_offset = 0;",
        )
        .await;
    let failing = Fault::PartialFailure { indexes: vec![0, 1], code: None };
    rig.sandbox.inject(Platform::GoogleAds, failing, How::Always);
    rig.start().await;
    let unknown = rig.ends_as(0, State::Dead).await;
    assert_eq!(unknown.reason, "outcome_unknown");
    assert!(unknown.detail.contains("the platform kept refusing it"), "{unknown:?}");
    assert_eq!(rig.ends_as(1, State::Dead).await.reason, "retries_exhausted", "this one is not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_much_later_carries_the_same_id_a_fresh_time_and_a_fresh_signature() {
    /// How old a signature the receiver takes, and how much longer it makes the lane wait.
    const TOLERANCE: Duration = Duration::from_secs(5);
    const WAIT: u64 = 8;
    let mut options = Options::default();
    options.webhook.tolerance = TOLERANCE;
    let mut rig = Rig::with("webhook", Duration::from_secs(600), options).await;
    rig.sandbox.inject(Platform::Webhook, Fault::HangUpAfterAccepting, How::Times(1));
    let throttled = Fault::TooManyRequests { retry_after: Some(WAIT) };
    rig.sandbox.inject(Platform::Webhook, throttled, How::Times(1));
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    let verdict = rig.ends_as(0, State::Delivered).await;
    assert_eq!(verdict.attempts, 3, "{verdict:?}");
    let counted = rig.sandbox.counted(Platform::Webhook);
    assert_eq!((counted.len(), counted[0].duplicates), (1, 1), "the receiver knew it");
    let requests = rig.sandbox.requests(10);
    let told = |header: &str| requests.iter().map(|r| r.headers[header].clone()).collect::<Vec<_>>();
    assert_eq!(told("webhook-id"), ["m-1"; 3]);
    let at: Vec<u64> = told("webhook-timestamp").iter().map(|at| at.parse().unwrap()).collect();
    assert!(at[2] - at[1] >= WAIT, "{at:?}");
}
