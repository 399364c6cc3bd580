//! What an operator has given up: a lane passes it without a request, whatever it waits for, and the ledger says so.

use std::sync::Arc;

use serde_json::json;
use tracklayer_delivery::balance::{Balance, Balances};
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::retention::DayKeeper;
use tracklayer_delivery::store::give_ups::{GiveUpStore, Unread};
use tracklayer_delivery::store::retention::RetentionStore;
use tracklayer_delivery::store::stats::StatsStore;
use tracklayer_ids::{ConnectionId, Partition, SourceId};
use tracklayer_journal::{BlockBuilder, Journal as _, PostgresJournal, Spread};
use tracklayer_proto::control::v1::WatchConfigResponse;
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_sandbox::{Fault, How, Platform};

use super::rig::{Rig, order};
use crate::services::WORKSPACE;

const SEVEN: ConnectionId = ConnectionId(7);

/// Events of one visitor, numbered through.
fn orders(range: std::ops::Range<usize>) -> Vec<serde_json::Value> {
    range.map(|n| order(&format!("m-{n}"), "ann")).collect()
}

/// What the journal received of what resolve is to read: so many events before 2020, then so many today.
async fn received(rig: &Rig, before: usize, today: usize) -> PostgresJournal {
    let journal = PostgresJournal::new(rig.services.database.pool.clone());
    journal.ensure_partitions(1).await.unwrap();
    for (events, is_old) in [(before, true), (today, false)] {
        let mut builder = BlockBuilder::default();
        (0..events).for_each(|_| builder.push(SourceId(1), 1, b"event"));
        let block = builder.finish().unwrap();
        tracklayer_testkit::append(&journal, WORKSPACE, Partition(0), &block).await.unwrap();
        if is_old {
            rig.services.run("update journal.received set appended_on = '2019-12-31'").await;
        }
    }
    journal
}

fn store(rig: &Rig) -> GiveUpStore {
    GiveUpStore::new(rig.services.database.pool.clone())
}

/// Gives up what was received before 2020.
async fn give_up(rig: &Rig) -> Vec<Unread> {
    let unread = store(rig).unread_before(WORKSPACE, &[SEVEN], "2020-01-01").await.unwrap();
    store(rig).ask(&unread).await.unwrap();
    rig.give_ups.look(&store(rig)).await.unwrap();
    unread
}

/// The connection's balance, which is clean.
async fn balance(rig: &Rig) -> Balance {
    let mut balances = Balances::default();
    StatsStore::new(rig.services.database.pool.clone()).read_books(WORKSPACE, &mut balances).await.unwrap();
    let balance = balances.finish().remove(&SEVEN.0).unwrap();
    assert!(balance.is_clean(), "{balance:?}");
    balance
}

fn count(balance: &Balance, state: State, reason: &str) -> u64 {
    balance.states.get(&(state, reason.to_owned())).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_lane_is_relieved_and_what_it_gave_up_is_never_sent() {
    let mut rig = Rig::new("webhook").await;
    rig.sandbox.inject(Platform::Webhook, Fault::TooManyRequests { retry_after: None }, How::Always);
    let journal = received(&rig, 3, 2).await;
    rig.resolved(&orders(0..4)).await;
    rig.resolved(&orders(4..5)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    let before = balance(&rig).await;
    assert_eq!((before.accepted, count(&before, State::Waiting, "")), (5, 5));

    let unread = give_up(&rig).await;
    let told: Vec<_> =
        unread.iter().map(|lane| (lane.until.offset.0, lane.events, lane.unresolved)).collect();
    assert_eq!(told, [(3, 3, 0)]);
    for offset in 0..3 {
        let verdict = rig.ends_as(offset, State::Dead).await;
        assert_eq!(verdict.reason, "retention");
    }
    let after = balance(&rig).await;
    assert_eq!((after.accepted, count(&after, State::Waiting, "")), (5, 2));
    assert_eq!(count(&after, State::Dead, "retention"), 3);
    let dead = "select coalesce(sum(events), 0)::bigint from delivery.rollup where reason = 'retention'";
    assert_eq!(rig.number(dead).await, 3);
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 0, "no copies: they take room");
    assert_eq!(store(&rig).asked().await.unwrap(), [], "it is done");

    let keeper = DayKeeper {
        journal: Arc::new(journal),
        store: RetentionStore::new(rig.services.database.pool.clone()),
        config: ConfigWatch::fixed(WatchConfigResponse::default()),
    };
    keeper.give_back(&rig.config().snapshot().unwrap()).await.unwrap();
    assert_eq!(
        rig.number("select sum(event_count)::bigint from journal.received").await,
        2,
        "the day is gone"
    );
    assert_eq!(balance(&rig).await, after);

    rig.sandbox.clear(Platform::Webhook);
    rig.ends_as(3, State::Delivered).await;
    rig.ends_as(4, State::Delivered).await;
    let counted = rig.sandbox.counted(Platform::Webhook);
    let mut sent: Vec<&str> = counted.iter().map(|event| event.event_id.as_str()).collect();
    sent.sort_unstable();
    assert_eq!(sent, ["m-3", "m-4"]);
    assert_eq!(count(&balance(&rig).await, State::Delivered, ""), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn to_give_up_ends_no_wait_that_the_platform_asked_for() {
    let mut rig = Rig::new("webhook").await;
    rig.sandbox.inject(Platform::Webhook, Fault::TooManyRequests { retry_after: Some(3_000) }, How::Times(1));
    received(&rig, 1, 1).await;
    rig.resolved(&orders(0..2)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    give_up(&rig).await;
    rig.ends_as(0, State::Dead).await;
    let left = "select count(*) from delivery.lane_hold where next_at > now() + interval '40 minutes'";
    assert_eq!(rig.number(left).await, 1);
    assert_eq!(rig.sandbox.totals()[&Platform::Webhook].requests, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_resolve_has_not_read_is_given_up_when_it_has_also_over_generations() {
    let mut rig = Rig::new("webhook").await;
    rig.sandbox.inject(Platform::Webhook, Fault::TooManyRequests { retry_after: Some(3_000) }, How::Times(1));
    let journal = received(&rig, 4, 0).await;
    journal.layout(WORKSPACE, Spread { partitions: 1, revision: 1 }).await.unwrap();
    received(&rig, 2, 1).await;
    rig.services.run("update journal.received set appended_on = '2019-12-30' where generation = 1").await;
    rig.resolved(&orders(0..2)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    let unread = give_up(&rig).await;
    assert_eq!((unread[0].events, unread[0].unresolved), (6, 4));
    rig.reaches("select next_offset from delivery.lane_cursor", 2).await;
    assert_eq!(count(&balance(&rig).await, State::Waiting, ""), 5, "only what is resolved");

    rig.resolved(&orders(2..4)).await;
    rig.open_next_generation();
    rig.resolved(&orders(4..7)).await;
    let second = |offset| tracklayer_ids::Position::new(2, 0, offset);
    rig.ends_at(second(1), State::Dead).await;
    let balance = balance(&rig).await;
    assert_eq!((count(&balance, State::Dead, "retention"), count(&balance, State::Waiting, "")), (6, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_may_have_brought_was_no_longer_unread() {
    let mut rig = Rig::new("webhook").await;
    rig.sandbox.inject(Platform::Webhook, Fault::HangUpAfterAccepting, How::Always);
    received(&rig, 2, 1).await;
    rig.resolved(&orders(0..3)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold", 1).await;
    give_up(&rig).await;
    let first = rig.ends_as(0, State::Dead).await;
    assert_eq!(first.reason, "outcome_unknown");
    assert!(first.detail.contains("(dead retention: an operator gave it up"), "{first:?}");
    assert_eq!(rig.ends_as(1, State::Dead).await.reason, "retention", "it waited behind the first");
    let letters =
        "select count(*) from delivery.dead_letter where code = 'outcome_unknown' and event_offset = 0";
    assert_eq!(rig.number(letters).await, 1, "somebody has to look it up");
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_of_a_platform_that_is_gone_is_relieved() {
    let mut rig = Rig::with_settings("webhook", json!({ "url": "http://127.0.0.1:1/", "secret": "s" })).await;
    received(&rig, 2, 1).await;
    rig.resolved(&orders(0..3)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'transient'", 1).await;
    give_up(&rig).await;
    for offset in 0..2 {
        assert_eq!(rig.ends_as(offset, State::Dead).await.reason, "retention");
    }
    assert_eq!(count(&balance(&rig).await, State::Waiting, ""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_connection_cannot_be_opened_is_relieved_too() {
    let mut rig = Rig::with_settings("webhook", json!({})).await;
    received(&rig, 2, 1).await;
    rig.resolved(&orders(0..3)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'configuration'", 1).await;
    give_up(&rig).await;
    assert_eq!(rig.ends_as(1, State::Dead).await.reason, "retention");
    assert_eq!(count(&balance(&rig).await, State::Waiting, ""), 1);
}
