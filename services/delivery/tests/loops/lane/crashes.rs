//! A crash after the platform took a request and before the commit that says so.

use std::time::Duration;

use tracklayer_delivery::ledger::State;
use tracklayer_ids::Position;
use tracklayer_sandbox::{Fault, How, Platform};

use super::rig::{Rig, order};

/// A lane that crashes while the answer to its first request is on the way.
async fn crashed(kind: &str, platform: Platform) -> Rig {
    let mut rig = Rig::new(kind).await;
    rig.sandbox.inject(platform, Fault::Slow(Duration::from_secs(600)), How::Times(1));
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.takes(platform, 1).await;
    rig.crash().await;
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 1);
    assert_eq!(rig.number("select count(*) from delivery.ledger_block").await, 0);
    rig
}

/// Whether the successor gave the event up, telling what to do, and goes on.
async fn is_given_up(rig: &mut Rig, platform: Platform) {
    rig.start().await;
    let dead = rig.ends_as(0, State::Dead).await;
    assert_eq!((dead.reason.as_str(), dead.attempts), ("outcome_unknown", 0));
    assert!(dead.detail.contains("look it up at the platform, then replay or close it"), "{}", dead.detail);
    rig.resolved(&[order("m-2", "ann")]).await;
    rig.ends_as(1, State::Delivered).await;
    let sent: Vec<String> = rig.sandbox.counted(platform).into_iter().map(|c| c.event_id).collect();
    assert_eq!((sent.len(), rig.sandbox.totals()[&platform].duplicates), (2, 0), "{sent:?}");
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
    assert_eq!(
        rig.number("select count(*) from delivery.dead_letter where code = 'outcome_unknown'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_the_window_the_same_id_goes_out_again_and_the_platform_counts_it_once() {
    let mut rig = crashed("meta_capi", Platform::Meta).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let counted = rig.sandbox.counted(Platform::Meta);
    assert_eq!((counted.len(), counted[0].event_id.as_str(), counted[0].duplicates), (1, "m-1", 1));
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_window_it_is_dead_and_says_what_to_do() {
    let mut rig = crashed("meta_capi", Platform::Meta).await;
    rig.services.run("update delivery.intent set started_at = now() - interval '48 hours'").await;
    is_given_up(&mut rig, Platform::Meta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_window_it_is_dead_at_once_and_says_what_to_do() {
    let mut rig = crashed("ga4_mp", Platform::Ga4).await;
    is_given_up(&mut rig, Platform::Ga4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_of_two_generations_are_known_again_after_a_crash() {
    let mut rig = Rig::new("ga4_mp").await;
    rig.due_again(&[order("m-1", "ann")]).await;
    rig.open_next_generation();
    rig.due_again(&[order("m-2", "bob")]).await;
    rig.sandbox.inject(Platform::Ga4, Fault::Slow(Duration::from_secs(600)), How::Times(2));
    rig.start().await;
    rig.takes(Platform::Ga4, 1).await;
    rig.crash().await;
    rig.sandbox.clear(Platform::Ga4);
    rig.start().await;
    let unknown = rig.ends_as(0, State::Dead).await;
    assert_eq!(unknown.reason, "outcome_unknown");
    rig.ends_at(Position::new(2, 0, 0), State::Delivered).await;
    assert_eq!(rig.sandbox.counted(Platform::Ga4).len(), 2, "each was sent once");
}
