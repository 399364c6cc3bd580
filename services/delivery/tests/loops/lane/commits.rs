//! Commits that fail after the send, or come through without saying so.

use tracklayer_delivery::ledger::State;
use tracklayer_sandbox::{Fault, How, Platform};

use super::rig::{Rig, order};
use crate::wire::Wire;

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_after_the_send_is_committed_again_and_nothing_is_sent_twice() {
    let mut rig = Rig::new("meta_capi").await;
    rig.services
        .run(
            "create sequence public.tries;
         create function public.fail_twice() returns trigger language plpgsql as $$
         begin
             if nextval('public.tries') <= 2 then raise exception 'the disk is full'; end if;
             return new;
         end $$;
         create trigger fail_twice before insert on delivery.ledger_block
         for each row execute function public.fail_twice();",
        )
        .await;
    rig.resolved(&[order("m-1", "ann"), order("m-2", "bob")]).await;
    rig.start().await;
    rig.ends_as(1, State::Delivered).await;
    let verdict = rig.ends_as(0, State::Delivered).await;
    assert_eq!(rig.number("select last_value from public.tries").await, 3, "two commits failed");
    assert_eq!((verdict.attempts, rig.sandbox.totals()[&Platform::Meta].requests), (1, 1));
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
    assert_eq!(rig.number("select requests from delivery.request_count").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_counts_and_nothing_is_sent_twice() {
    let mut rig = Rig::new("meta_capi").await;
    let wire =
        Wire::that_loses_the_commit_of(&rig.services.database.url, "insert into delivery.ledger_block").await;
    let pool = wire.pool().await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start_over(pool).await;
    rig.ends_as(0, State::Delivered).await;
    rig.resolved(&[order("m-2", "ann")]).await;
    rig.ends_as(1, State::Delivered).await;
    assert!(wire.has_played());
    let totals = rig.sandbox.totals()[&Platform::Meta].clone();
    assert_eq!((totals.requests, totals.duplicates), (2, 0), "one for each of them");
    assert_eq!(rig.number("select sum(events)::bigint from delivery.rollup where state = 6").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_an_order_whose_commit_is_lost_counts_once_as_well() {
    let mut rig = Rig::new("ga4_mp").await;
    let wire =
        Wire::that_loses_the_commit_of(&rig.services.database.url, "insert into delivery.ledger_block").await;
    let pool = wire.pool().await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start_over(pool).await;
    rig.ends_as(0, State::Delivered).await;
    rig.resolved(&[order("m-2", "ann")]).await;
    rig.ends_as(1, State::Delivered).await;
    assert!(wire.has_played());
    assert_eq!(rig.sandbox.totals()[&Platform::Ga4].requests, 2);
    assert_eq!(rig.number("select sum(events)::bigint from delivery.rollup where state = 6").await, 2);
    assert_eq!(rig.number("select count(*) from delivery.index_run where connection_id = 7").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_which_nothing_is_special_costs_a_lane_three_statements() {
    let mut rig = Rig::new("meta_capi").await;
    rig.resolves_here = true;
    let wire = Wire::that_counts(&rig.services.database.url).await;
    rig.start_over(wire.pool().await).await;
    rig.resolved(&[order("m-0", "ann")]).await;
    rig.ends_as(0, State::Delivered).await;
    wire.take_statements();
    // What an event costs after its commit is counted with the next one.
    for n in 1..=5 {
        rig.resolved(&[order(&format!("m-{n}"), "ann")]).await;
        rig.ends_as(n, State::Delivered).await;
    }
    assert_eq!(wire.take_statements(), 5 * 3, "what is resolved; the intent; the commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_retries_whose_answer_is_lost_is_not_applied_twice() {
    let mut rig = Rig::new("google_ads").await;
    let wire =
        Wire::that_loses_the_commit_of(&rig.services.database.url, "delete from delivery.ledger_late").await;
    let pool = wire.pool().await;
    let failing = Fault::PartialFailure { indexes: vec![0], code: None };
    rig.sandbox.inject(Platform::GoogleAds, failing, How::Times(1));
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start_over(pool).await;
    let verdict = rig.ends_as(0, State::Delivered).await;
    rig.resolved(&[order("m-2", "ann")]).await;
    rig.ends_as(1, State::Delivered).await;
    assert!(wire.has_played());
    assert_eq!((verdict.attempts, rig.sandbox.totals()[&Platform::GoogleAds].requests), (2, 3));
    assert_eq!(rig.number("select count(*) from delivery.retry").await, 0);
    assert_eq!(rig.number("select sum(events)::bigint from delivery.latency").await, 2, "each once");
    assert_eq!(
        rig.number("select sum(events)::bigint from delivery.rollup where connection_id = 7").await,
        2
    );
}
