//! What operators want sent again: dead letters after a mend, what was delivered, what came before the connection began.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tracklayer_delivery::balance::{Balance, Balances};
use tracklayer_delivery::breaker::{Leave, Trouble};
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::lease::{FleetLevel, REPLAY_LEVEL};
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::replay::judge::Judge;
use tracklayer_delivery::replay::planner::{Planner, ReplayError};
use tracklayer_delivery::replay::walk::Walker;
use tracklayer_delivery::replay::{Counts, Origin, Selection, What};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::ledger::LedgerStore;
use tracklayer_delivery::store::orders::{OrderStore, order_hash};
use tracklayer_delivery::store::replays::ReplayStore;
use tracklayer_delivery::store::resolved::ResolvedStore;
use tracklayer_delivery::store::stats::StatsStore;
use tracklayer_destination::HoldKind;
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId};
use tracklayer_journal::{BlockBuilder, PostgresJournal};
use tracklayer_sandbox::{Fault, How, Platform};

use super::bucket::Bucket;
use super::consent::opts_out;
use super::operators::{around_now, holds_as};
use super::rig::{CONNECTION, REVISION, Rig, order, refund};
use crate::services::WORKSPACE;
use crate::wire::Wire;

fn store(rig: &Rig) -> ReplayStore {
    ReplayStore::new(rig.services.database.pool.clone())
}

fn fleet(level: u32) -> FleetLevel {
    let fleet = FleetLevel::default();
    fleet.set(level);
    fleet
}

fn planner(rig: &Rig) -> Planner {
    let index = Index::new(rig.services.database.pool.clone());
    Planner {
        connections: Connections::new(rig.config().clone(), rig.services.master_key.clone()),
        cursors: CursorStore::new(rig.services.database.pool.clone()),
        walker: Walker {
            resolved: ResolvedStore::new(index.clone()),
            ledger: LedgerStore::new(index.clone()),
            replays: store(rig),
        },
        judge: Judge {
            clients: rig.services.clients.clone(),
            config: rig.config().clone(),
            orders: OrderStore::new(index),
            master_key: rig.services.master_key.clone(),
        },
        store: store(rig),
        fleet: fleet(REPLAY_LEVEL),
    }
}

/// All pages of a plan.
pub(super) async fn plan(rig: &Rig, selection: &Selection) -> BTreeMap<What, u64> {
    let (mut all, mut from) = (BTreeMap::new(), None);
    loop {
        let now = Timestamp::now();
        let page = planner(rig).page(WORKSPACE, CONNECTION, selection, from, now).await.unwrap();
        for ((what, _), events) in page.counts {
            *all.entry(what).or_default() += events;
        }
        from = page.next;
        if from.is_none() {
            return all;
        }
    }
}

/// Starts a replay, and the lane is told.
pub(super) async fn start(rig: &Rig, selection: &Selection) -> i64 {
    let replay = planner(rig).start(WORKSPACE, CONNECTION, selection, "ann").await.unwrap();
    rig.replays.look(&store(rig)).await.unwrap();
    replay.id
}

/// What a replay has found, once it is over.
pub(super) async fn over(rig: &Rig, replay: i64) -> BTreeMap<String, u64> {
    tracklayer_testkit::eventually_seen("the replay's end", async || {
        let stored = store(rig).get(WORKSPACE, replay).await.unwrap().unwrap();
        let findings = store(rig).findings(WORKSPACE, replay).await.unwrap();
        if stored.open_lanes > 0 || findings.open > 0 {
            return Err(format!("{stored:?} {findings:?}"));
        }
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for ((what, _), events) in findings.counts {
            *all.entry(what).or_default() += events;
        }
        Ok(all)
    })
    .await
}

pub(super) fn found(counts: &[(What, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(what, events)| (what.as_str().to_owned(), *events)).collect()
}

/// Tells the journal of so many events, which resolve is to have read, so that the books can be balanced.
pub(super) async fn received(rig: &Rig, events: usize) {
    let journal = PostgresJournal::new(rig.services.database.pool.clone());
    journal.ensure_partitions(1).await.unwrap();
    let mut builder = BlockBuilder::default();
    (0..events).for_each(|_| builder.push(SourceId(1), 1, b"event"));
    tracklayer_testkit::append(&journal, WORKSPACE, Partition(0), &builder.finish().unwrap()).await.unwrap();
}

/// The connection's balance, which is clean, and which the counts of the live page agree with.
pub(super) async fn balance(rig: &Rig) -> Balance {
    let stats = StatsStore::new(rig.services.database.pool.clone());
    let mut balances = Balances::default();
    stats.read_books(WORKSPACE, &mut balances).await.unwrap();
    let balance = balances.finish().remove(&CONNECTION.0).unwrap();
    assert!(balance.is_clean(), "{balance:?}");
    let mut rolled: BTreeMap<(i16, String), u64> = BTreeMap::new();
    for (_, _, state, reason, events) in stats.states(WORKSPACE).await.unwrap() {
        *rolled.entry((state, reason)).or_default() += events.cast_unsigned();
    }
    let mut booked: BTreeMap<(i16, String), u64> = BTreeMap::new();
    for ((state, reason), events) in balance.states.iter().filter(|((state, _), _)| *state != State::Waiting)
    {
        *booked.entry((state.number(), reason.clone())).or_default() += events;
    }
    assert_eq!(rolled, booked, "the rollups follow the ledger");
    balance
}

pub(super) fn count(balance: &Balance, state: State) -> u64 {
    balance.states.iter().filter(|((of, _), _)| *of == state).map(|(_, events)| events).sum()
}

/// Orders of as many visitors, which the receiver refuses one by one.
async fn died(rig: &mut Rig, events: usize) {
    let refusal = Fault::Status { code: 400, body: Some("unknown field".to_owned()) };
    rig.sandbox.inject(Platform::Webhook, refusal, How::Always);
    received(rig, events).await;
    let orders: Vec<_> = (0..events).map(|n| order(&format!("m-{n}"), &format!("visitor-{n}"))).collect();
    rig.resolved(&orders).await;
    rig.start().await;
    let dead = i64::try_from(events).unwrap();
    rig.reaches("select count(*) from delivery.dead_letter", dead).await;
    rig.sandbox.clear(Platform::Webhook);
}

/// What the receiver counted by its ids, and how many copies more it got.
fn counted(rig: &Rig, platform: Platform) -> (Vec<String>, u32) {
    let counted = rig.sandbox.counted(platform);
    let mut ids: Vec<String> = counted.iter().map(|event| event.event_id.clone()).collect();
    ids.sort_unstable();
    (ids, counted.iter().map(|event| event.duplicates).sum())
}

pub(super) fn letters() -> Selection {
    Selection::of(Origin::DeadLetters)
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_delivered_once_under_the_same_ids_and_their_history_is_told() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 3).await;
    let rejected = Selection { codes: vec!["rejected_by_platform".into()], ..letters() };
    let other = Selection { codes: vec!["missing_value".into()], ..letters() };
    assert_eq!(plan(&rig, &rejected).await, BTreeMap::from([(What::Eligible, 3)]));
    assert_eq!(plan(&rig, &other).await, BTreeMap::new());
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 3, "a plan changes nothing");

    let replay = start(&rig, &rejected).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 3)]));
    for offset in 0..3 {
        let verdict = rig.ends_as(offset, State::Delivered).await;
        assert_eq!(verdict.attempts, 2, "the refused request counts");
    }
    assert_eq!(counted(&rig, Platform::Webhook), (["m-0", "m-1", "m-2"].map(str::to_owned).to_vec(), 0));
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 0);
    assert_eq!(rig.number("select count(*) from delivery.retry").await, 0);
    let after = balance(&rig).await;
    assert_eq!((count(&after, State::Delivered), count(&after, State::Dead)), (3, 0));
    let told = store(&rig).of_event(WORKSPACE, CONNECTION.0, Position::new(1, 0, 0)).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].before, (State::Dead, "rejected_by_platform".to_owned()));
    assert_eq!(told[0].ended.as_ref().map(|ended| ended.0), Some(State::Delivered));

    // Again there is nothing left, in the letters or in the journal.
    let again = start(&rig, &letters()).await;
    assert_eq!(over(&rig, again).await, found(&[]));
    let journal = start(&rig, &Selection::of(Origin::Journal)).await;
    assert_eq!(over(&rig, journal).await, found(&[(What::AlreadyDelivered, 3)]));
    assert_eq!(rig.sandbox.totals()[&Platform::Webhook].requests, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_again_is_a_dead_letter_again_and_not_taken_twice() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 1).await;
    let refusal = Fault::Status { code: 400, body: Some("still unknown".to_owned()) };
    rig.sandbox.inject(Platform::Webhook, refusal, How::Always);
    let replay = start(&rig, &letters()).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 1)]));
    rig.reaches("select count(*) from delivery.dead_letter where answer like '%still unknown%'", 1).await;
    assert_eq!(rig.sandbox.totals()[&Platform::Webhook].requests, 2);
    assert_eq!(count(&balance(&rig).await, State::Dead), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_and_age_are_those_of_now_and_what_is_left_out_stays_as_it_is() {
    let mut rig = Rig::new("meta_capi").await;
    received(&rig, 4).await;
    // A purchase without a value is refused before it is sent; the mend lets a purchase be worth its products.
    let worthless = |id: &str, visitor: &str| {
        let mut event = order(id, visitor);
        event["properties"] = json!({
            "order_id": id, "currency": "USD",
            "products": [{ "product_id": "p", "price": 5, "quantity": 1 }],
        });
        event
    };
    let mut old = worthless("m-old", "cy");
    old["timestamp"] = json!((Timestamp::now() - Duration::from_secs(6 * 24 * 3_600)).to_string());
    rig.resolved(&[worthless("m-ann", "ann"), worthless("m-bob", "bob"), old, order("m-dan", "dan")]).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.dead_letter where code = 'missing_value'", 3).await;
    rig.ends_as(3, State::Delivered).await;

    opts_out(&rig, "ann").await;
    rig.clock.advance(Duration::from_secs(36 * 3_600));
    rig.mend(json!({ "value_fallback": "products" }));
    let selection = letters();
    let planner = planner(&rig);
    let now = rig.clock.now();
    let page = planner.page(WORKSPACE, CONNECTION, &selection, None, now).await.unwrap();
    let planned: BTreeMap<String, u64> = by_what(page.counts);
    let expected = found(&[(What::Eligible, 1), (What::ConsentWithdrawn, 1), (What::Expired, 1)]);
    assert_eq!(planned, expected);
    let mut left_out: Vec<(String, What)> =
        page.left_out.iter().map(|judged| (judged.found.entry.message_id.clone(), judged.what)).collect();
    left_out.sort();
    let named = [("m-ann".to_owned(), What::ConsentWithdrawn), ("m-old".to_owned(), What::Expired)];
    assert_eq!(left_out, named, "each is named");

    let replay = start(&rig, &selection).await;
    assert_eq!(over(&rig, replay).await, expected, "what was planned is what happened");
    rig.ends_as(1, State::Delivered).await;
    for offset in [0, 2] {
        assert_eq!(rig.ends_as(offset, State::Dead).await.reason, "missing_value");
    }
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 2);
    assert_eq!(counted(&rig, Platform::Meta).0, ["m-bob", "m-dan"]);
    balance(&rig).await;
}

fn by_what(counts: Counts) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for ((what, _), events) in counts {
        *all.entry(what.as_str().to_owned()).or_default() += events;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_between_taking_and_sending_stops_the_request() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 1).await;
    // The receiver throttles: the event is taken, and waits.
    let throttled = Fault::TooManyRequests { retry_after: Some(3) };
    rig.sandbox.inject(Platform::Webhook, throttled, How::Times(1));
    let replay = start(&rig, &letters()).await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    opts_out(&rig, "visitor-0").await;
    over(&rig, replay).await;
    let verdict = rig.ends_as(0, State::Blocked).await;
    assert_eq!(verdict.reason, "gpc");
    assert_eq!(counted(&rig, Platform::Webhook).0, Vec::<String>::new());
    assert_eq!(count(&balance(&rig).await, State::Blocked), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_a_replay_doubles_nothing_and_loses_nothing() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 20).await;
    rig.sandbox.inject(Platform::Webhook, Fault::Slow(Duration::from_secs(600)), How::Times(4));
    let replay = start(&rig, &letters()).await;
    tracklayer_testkit::eventually_seen("some to be sent", async || {
        let sent = counted(&rig, Platform::Webhook).0.len();
        if sent > 0 { Ok(()) } else { Err(sent) }
    })
    .await;
    assert!(rig.number("select count(*) from delivery.replay_event where ended_at is null").await > 0);
    rig.crash().await;
    balance(&rig).await;
    rig.sandbox.clear(Platform::Webhook);
    rig.start().await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 20)]));
    let (ids, copies) = counted(&rig, Platform::Webhook);
    assert_eq!(ids.len(), 20, "each is counted once");
    assert!(copies > 0, "and what was on the wire went out again under its id");
    assert_eq!(count(&balance(&rig).await, State::Delivered), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_replay_takes_nothing_more_and_what_was_taken_goes_its_way() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 120).await;
    rig.sandbox.inject(Platform::Webhook, Fault::TooManyRequests { retry_after: Some(2) }, How::Times(1));
    let replay = start(&rig, &letters()).await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    store(&rig).cancel(WORKSPACE, replay, "bob").await.unwrap();
    let cancelled = store(&rig).get(WORKSPACE, replay).await.unwrap().unwrap();
    assert_eq!(cancelled.cancelled.as_ref().map(|(by, _)| by.as_str()), Some("bob"));
    rig.reaches("select count(*) from delivery.replay_event where ended_at is null", 0).await;
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 70, "a page was taken");
    assert_eq!(counted(&rig, Platform::Webhook).0.len(), 50);
    let balance = balance(&rig).await;
    assert_eq!((count(&balance, State::Delivered), count(&balance, State::Dead)), (50, 70));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replays_of_the_same_events_send_each_of_them_once() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 40).await;
    let first = planner(&rig).start(WORKSPACE, CONNECTION, &letters(), "ann").await.unwrap();
    let journal = Selection::of(Origin::Journal);
    let second = planner(&rig).start(WORKSPACE, CONNECTION, &journal, "bob").await.unwrap();
    rig.replays.look(&store(&rig)).await.unwrap();
    assert_eq!(over(&rig, first.id).await, found(&[(What::Eligible, 40)]));
    let second = over(&rig, second.id).await;
    assert_eq!(second.values().sum::<u64>(), 40);
    assert!(!second.contains_key("eligible"), "{second:?}");
    let (ids, copies) = counted(&rig, Platform::Webhook);
    assert_eq!((ids.len(), copies), (40, 0));
    balance(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_goes_out_again_only_if_it_is_forced_and_the_platform_knows_it() {
    let mut rig = Rig::new("meta_capi").await;
    received(&rig, 2).await;
    rig.resolved(&[order("m-1", "ann"), order("m-2", "bob")]).await;
    rig.start().await;
    rig.ends_as(1, State::Delivered).await;
    let journal = Selection::of(Origin::Journal);
    assert_eq!(plan(&rig, &journal).await, BTreeMap::from([(What::AlreadyDelivered, 2)]));
    let forced =
        Selection { delivered_too: true, message_ids: vec!["m-1".into()], ..Selection::of(Origin::Journal) };
    // By id an event is found in the index, whose hashes the rig makes up.
    rig.index_ids(&["m-1", "m-2"]).await;
    let replay = start(&rig, &forced).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 1)]));
    let counted = rig.sandbox.counted(Platform::Meta);
    let copies: Vec<(&str, u32)> = counted.iter().map(|c| (c.event_id.as_str(), c.duplicates)).collect();
    assert_eq!(copies, [("m-1", 1), ("m-2", 0)], "the platform recognised it");
    let timed = rig.number("select sum(events)::bigint from delivery.latency").await;
    assert_eq!(timed, 2, "a repetition is no second delivery");
    assert_eq!(count(&balance(&rig).await, State::Delivered), 2);
    let matched = rig.number("select coalesce(sum(events), 0)::bigint from delivery.match_quality").await;
    assert_eq!(matched, 2, "match quality counts an event once, as the ledger does");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shadow_has_counted_is_counted_once_though_it_dies_in_between() {
    let mut rig = Rig::new("google_ads").await;
    received(&rig, 1).await;
    rig.mend(json!({ "mode": "shadow" }));
    rig.decided_for = REVISION + 1;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Shadowed).await;
    rig.mend(json!({ "mode": "live" }));
    let expired = Some("conversionUploadError.EXPIRED_EVENT".to_owned());
    let refused = Fault::PartialFailure { indexes: vec![0], code: expired };
    rig.sandbox.inject(Platform::GoogleAds, refused, How::Always);
    let first = start(&rig, &Selection::of(Origin::Journal)).await;
    assert_eq!(over(&rig, first).await, found(&[(What::Eligible, 1)]));
    rig.ends_as(0, State::Dead).await;
    rig.sandbox.clear(Platform::GoogleAds);
    let second = start(&rig, &letters()).await;
    assert_eq!(over(&rig, second).await, found(&[(What::Eligible, 1)]));
    rig.ends_as(0, State::Delivered).await;
    let matched = rig.number("select coalesce(sum(events), 0)::bigint from delivery.match_quality").await;
    assert_eq!((matched, count(&balance(&rig).await, State::Delivered)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_stays_so_when_its_forced_replay_is_refused() {
    let mut rig = Rig::new("webhook").await;
    received(&rig, 1).await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let refusal = Fault::Status { code: 400, body: None };
    rig.sandbox.inject(Platform::Webhook, refusal, How::Always);
    let forced = Selection { delivered_too: true, ..Selection::of(Origin::Journal) };
    let replay = start(&rig, &forced).await;
    over(&rig, replay).await;
    let verdict = rig.ends_as(0, State::Delivered).await;
    assert_eq!(verdict.reason, "delivered_before");
    assert!(verdict.detail.contains("its replay ended as dead rejected_by_platform"), "{verdict:?}");
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 0);
    balance(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_past_the_window_goes_out_only_if_it_is_forced_past_it() {
    let mut rig = Rig::new("ga4_mp").await;
    received(&rig, 1).await;
    rig.sandbox.inject(Platform::Ga4, Fault::HangUpAfterAccepting, How::Times(1));
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    assert_eq!(rig.ends_as(0, State::Dead).await.reason, "outcome_unknown");
    let refused = start(&rig, &letters()).await;
    assert_eq!(over(&rig, refused).await, found(&[(What::PastDedupWindow, 1)]));
    assert_eq!(rig.sandbox.totals()[&Platform::Ga4].requests, 1);
    let forced = start(&rig, &Selection { past_dedup_window: true, ..letters() }).await;
    assert_eq!(over(&rig, forced).await, found(&[(What::Eligible, 1)]));
    rig.ends_as(0, State::Delivered).await;
    assert_eq!(rig.sandbox.totals()[&Platform::Ga4].requests, 2);
    balance(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_stays_so_though_its_forced_replay_is_refused() {
    let mut rig = Rig::new("ga4_mp").await;
    received(&rig, 1).await;
    rig.sandbox.inject(Platform::Ga4, Fault::HangUpAfterAccepting, How::Times(1));
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    assert_eq!(rig.ends_as(0, State::Dead).await.reason, "outcome_unknown");
    rig.sandbox.inject(Platform::Ga4, Fault::Status { code: 413, body: None }, How::Times(1));
    let forced = Selection { past_dedup_window: true, ..letters() };
    let replay = start(&rig, &forced).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 1)]));
    let dead = rig.ends_as(0, State::Dead).await;
    assert_eq!(dead.reason, "outcome_unknown", "the first request may have brought it");
    assert!(dead.detail.contains("dead rejected_by_platform"), "{dead:?}");
    let evidence =
        "select count(*) from delivery.dead_letter where code = 'outcome_unknown' and answer like '413%'";
    assert_eq!(rig.number(evidence).await, 1);
    let unforced = start(&rig, &letters()).await;
    assert_eq!(over(&rig, unforced).await, found(&[(What::PastDedupWindow, 1)]));
    assert_eq!(rig.sandbox.totals()[&Platform::Ga4].requests, 2, "it is not counted twice");
    balance(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_answer_is_lost_is_taken_once_and_sent() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 3).await;
    rig.crash().await;
    let marker = "insert into delivery.replay_event";
    let wire = Wire::that_loses_the_commit_of(&rig.services.database.url, marker).await;
    let pool = wire.pool().await;
    rig.start_over(pool).await;
    // The first page is the last one, too: nothing comes after it that would show the lane what it has taken.
    let replay = start(&rig, &letters()).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 3)]));
    assert!(wire.has_played());
    assert_eq!(counted(&rig, Platform::Webhook), (["m-0", "m-1", "m-2"].map(str::to_owned).to_vec(), 0));
    assert_eq!(count(&balance(&rig).await, State::Delivered), 3);
}

/// Orders that the receiver refuses, each in a block of its own in the journal and in the ledger.
async fn died_one_by_one(rig: &mut Rig, events: i64) {
    let refusal = Fault::Status { code: 400, body: None };
    rig.sandbox.inject(Platform::Webhook, refusal, How::Always);
    rig.start().await;
    for n in 0..events {
        rig.resolved(&[order(&format!("m-{n}"), &format!("visitor-{n}"))]).await;
        rig.reaches("select count(*) from delivery.dead_letter", n + 1).await;
    }
    rig.sandbox.clear(Platform::Webhook);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_counted_and_passed() {
    let mut rig = Rig::new("webhook").await;
    died_one_by_one(&mut rig, 5).await;
    rig.services
        .run(
            r"update delivery.resolved set header = '\xff' where base_offset = 1;
              update delivery.resolved set payload = '\xff' where base_offset = 2;
              update delivery.ledger_block set entries = '\xff' where base_offset = 3;",
        )
        .await;
    let journal = Selection::of(Origin::Journal);
    let planned = plan(&rig, &journal).await;
    assert_eq!(planned, BTreeMap::from([(What::Eligible, 2), (What::Unreadable, 3)]));
    let replay = start(&rig, &journal).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 2), (What::Unreadable, 3)]));
    assert_eq!(counted(&rig, Platform::Webhook).0, ["m-0", "m-4"]);
    assert_eq!(store(&rig).get(WORKSPACE, replay).await.unwrap().unwrap().walked, (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_over_blocks_of_one_event() {
    let mut rig = Rig::new("webhook").await;
    died_one_by_one(&mut rig, 60).await;
    rig.sandbox.inject(Platform::Webhook, Fault::TooManyRequests { retry_after: Some(2) }, How::Times(1));
    let replay = start(&rig, &Selection::of(Origin::Journal)).await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    assert_eq!(store(&rig).get(WORKSPACE, replay).await.unwrap().unwrap().walked, (50, 60));
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 60)]));
    let (ids, copies) = counted(&rig, Platform::Webhook);
    assert_eq!((ids.len(), copies), (60, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_of_ids_is_looked_up_in_parts() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 130).await;
    let ids: Vec<String> = (0..130).map(|n| format!("m-{n}")).collect();
    rig.index_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // All but the first ten.
    let listed = Selection { message_ids: ids[10..].to_vec(), ..Selection::of(Origin::Journal) };
    let replay = start(&rig, &listed).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 120)]));
    let (sent, copies) = counted(&rig, Platform::Webhook);
    assert_eq!((sent.len(), copies), (120, 0));
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_began_later_can_be_made_to_answer_for_what_came_before() {
    let mut rig = Rig::new("webhook").await;
    received(&rig, 8).await;
    let orders: Vec<_> = (0..8).map(|n| order(&format!("m-{n}"), &format!("visitor-{n}"))).collect();
    rig.resolved(&orders[..3]).await;
    rig.resolved(&orders[3..7]).await;
    // It began in the middle of the second block.
    rig.services.run("update delivery.lane_cursor set start_offset = 5, next_offset = 5").await;
    rig.resolved(&orders[7..]).await;
    rig.start().await;
    rig.ends_as(7, State::Delivered).await;
    assert_eq!(balance(&rig).await.accepted, 3);

    let plain = Selection::of(Origin::Journal);
    assert_eq!(plan(&rig, &plain).await, BTreeMap::from([(What::AlreadyDelivered, 3)]));
    let page = planner(&rig).page(WORKSPACE, CONNECTION, &plain, None, Timestamp::now()).await.unwrap();
    assert_eq!(page.before_start, 5, "it is told that there is more");

    let all = Selection { before_start: true, ..plain };
    let planned = plan(&rig, &all).await;
    assert_eq!(planned, BTreeMap::from([(What::Eligible, 5), (What::AlreadyDelivered, 3)]));
    let replay = start(&rig, &all).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 5), (What::AlreadyDelivered, 3)]));
    let (ids, copies) = counted(&rig, Platform::Webhook);
    assert_eq!((ids.len(), copies), (8, 0));
    let balance = balance(&rig).await;
    assert_eq!((balance.accepted, count(&balance, State::Delivered)), (8, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_time_and_names_selects_from_the_journal_and_the_rest_before_the_start_is_filtered() {
    let mut rig = Rig::new("webhook").await;
    received(&rig, 6).await;
    let at = |hours: u64| Timestamp::now() - Duration::from_secs(hours * 3_600);
    let mut page = order("m-page", "ann");
    page["event"] = json!("Product Viewed");
    rig.resolved_at(at(9), &[order("m-0", "ann"), order("m-1", "bob")]).await;
    rig.resolved_at(at(5), &[order("m-2", "ann"), page]).await;
    rig.resolved_at(at(1), &[order("m-3", "ann"), order("m-4", "bob")]).await;
    rig.services.run("update delivery.lane_cursor set start_offset = 6, next_offset = 6").await;
    rig.start().await;
    let selection = Selection {
        before_start: true,
        received_from: Some(at(6)),
        received_to: Some(at(2)),
        event_names: vec!["Order Completed".to_owned()],
        ..Selection::of(Origin::Journal)
    };
    assert_eq!(plan(&rig, &selection).await, BTreeMap::from([(What::Eligible, 1)]));
    let replay = start(&rig, &selection).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 1)]));
    assert_eq!(counted(&rig, Platform::Webhook).0, ["m-2"]);
    let balance = balance(&rig).await;
    assert_eq!(balance.accepted, 4, "it answers from the first block on that is asked for");
    assert_eq!((count(&balance, State::Delivered), count(&balance, State::Filtered)), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_off_or_unknown_is_not_replayed_and_one_turned_off_meanwhile_waits() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 1).await;
    let off = |rig: &mut Rig, mode: &str| rig.mend(json!({ "mode": mode }));
    let replay = planner(&rig).start(WORKSPACE, CONNECTION, &letters(), "ann").await.unwrap();
    off(&mut rig, "off");
    rig.replays.look(&store(&rig)).await.unwrap();
    let refused = planner(&rig).start(WORKSPACE, CONNECTION, &letters(), "ann").await.unwrap_err();
    assert!(matches!(refused, ReplayError::NotLive("off")), "{refused}");
    let unknown = planner(&rig).start(WORKSPACE, ConnectionId(9), &letters(), "ann").await.unwrap_err();
    assert!(matches!(unknown, ReplayError::NoConnection(_)), "{unknown}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 1, "it is not filtered");
    off(&mut rig, "live");
    assert_eq!(over(&rig, replay.id).await, found(&[(What::Eligible, 1)]));
    rig.ends_as(0, State::Delivered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_walked_over_generations_and_a_retry_of_each_is_known() {
    let mut rig = Rig::new("webhook").await;
    let refusal = Fault::Status { code: 400, body: None };
    rig.sandbox.inject(Platform::Webhook, refusal, How::Always);
    rig.resolved(&[order("m-1", "ann"), order("m-2", "bob")]).await;
    rig.open_next_generation();
    rig.resolved(&[order("m-3", "ann")]).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.dead_letter", 3).await;
    rig.sandbox.clear(Platform::Webhook);
    let journal = Selection::of(Origin::Journal);
    assert_eq!(plan(&rig, &journal).await, BTreeMap::from([(What::Eligible, 3)]));
    let replay = start(&rig, &journal).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 3)]));
    rig.ends_at(Position::new(2, 0, 0), State::Delivered).await;
    assert_eq!(counted(&rig, Platform::Webhook), (["m-1", "m-2", "m-3"].map(str::to_owned).to_vec(), 0));
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_connection_takes_nothing_until_it_is_resumed() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 1).await;
    rig.control_says(|connection, _| connection.pause = Some(Default::default()));
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'paused'", 1).await;
    let replay = start(&rig, &letters()).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 1);
    rig.control_says(|connection, _| connection.pause = None);
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 1)]));
    rig.ends_as(0, State::Delivered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_circuit_is_open_nothing_is_taken() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 3).await;
    // Another lane of the connection was told to wait.
    let other = rig.breakers.join(CONNECTION, Partition(1));
    // Within the five minutes for which a receiver takes a signature.
    let after = Some(Duration::from_secs(200));
    let trouble = Trouble { kind: HoldKind::Throttled, detail: "429".to_owned(), after };
    other.failed(REVISION, &Leave::Free, &trouble);
    let replay = start(&rig, &letters()).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 3);
    rig.clock.advance(Duration::from_secs(240));
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 3)]));
    assert_eq!(counted(&rig, Platform::Webhook).0.len(), 3);
    let blocked = other.blocked();
    assert!(blocked.is_none(), "the first of them has closed it: {blocked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_the_middle_of_a_replay_costs_single_tries_and_no_event() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 120).await;
    let had = rig.sandbox.totals()[&Platform::Webhook].requests;
    rig.sandbox.inject(Platform::Webhook, Fault::Status { code: 503, body: None }, How::Always);
    let replay = start(&rig, &letters()).await;
    rig.reaches("select count(*) from delivery.lane_hold where detail like '%the circuit is open%'", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tried = rig.sandbox.totals()[&Platform::Webhook].requests - had;
    assert!(tried < 25, "{tried} requests of 120 events");
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 70, "no second page");
    rig.sandbox.clear(Platform::Webhook);
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 120)]));
    let (ids, copies) = counted(&rig, Platform::Webhook);
    assert_eq!((ids.len(), copies), (120, 0));
    assert_eq!(count(&balance(&rig).await, State::Delivered), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_holds_what_a_replay_has_taken_and_its_age_is_that_of_the_release() {
    let mut rig = Rig::new("meta_capi").await;
    received(&rig, 2).await;
    let worthless = |id: &str, ago: Duration| {
        let mut event = order(id, id);
        event["timestamp"] = json!((Timestamp::now() - ago).to_string());
        event["properties"] = json!({
            "order_id": id, "currency": "USD",
            "products": [{ "product_id": "p", "price": 5, "quantity": 1 }],
        });
        event
    };
    let week = Duration::from_secs(7 * 24 * 3_600);
    let old = worthless("m-old", week - Duration::from_secs(1_800));
    rig.resolved(&[old, worthless("m-new", Duration::from_secs(60))]).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.dead_letter where code = 'missing_value'", 2).await;
    rig.mend(json!({ "value_fallback": "products" }));
    rig.sandbox.inject(Platform::Meta, Fault::TooManyRequests { retry_after: Some(2) }, How::Times(1));
    let replay = start(&rig, &letters()).await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    rig.control_says(|_, freezes| freezes.push(around_now()));
    holds_as(&rig, "frozen").await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(rig.sandbox.totals()[&Platform::Meta].requests, 1, "nothing goes out in the window");
    rig.clock.advance(Duration::from_secs(3_602));
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 2)]));
    rig.ends_as(1, State::Delivered).await;
    let dead = rig.ends_as(0, State::Dead).await;
    assert_eq!(dead.reason, "event_too_old");
    assert_eq!(counted(&rig, Platform::Meta).0, ["m-new"]);
    balance(&rig).await;
}

/// What an order is worth at a platform by now, in dollars, and how often it was changed there.
fn worth(rig: &Rig, platform: Platform, order_id: &str) -> (String, u32) {
    let orders = rig.sandbox.orders(platform);
    let order = orders.into_iter().find(|order| order.order_id == order_id).unwrap();
    (order.amounts["USD"].clone(), order.changes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_waits_for_its_order_of_the_same_replay_and_is_taken_off_once() {
    let mut rig = Rig::new("google_ads").await;
    received(&rig, 2).await;
    rig.mend(json!({ "mode": "off" }));
    // The refund stands first, and neither was sent.
    rig.resolved(&[refund("r-1", "server", "order-m-1", 30), order("m-1", "ann")]).await;
    rig.start().await;
    for offset in 0..2 {
        assert_eq!(rig.ends_as(offset, State::Filtered).await.reason, "mode_off");
    }
    rig.mend(json!({ "mode": "live" }));
    let journal = Selection::of(Origin::Journal);
    let page = planner(&rig).page(WORKSPACE, CONNECTION, &journal, None, Timestamp::now()).await.unwrap();
    let early = (What::Eligible, "order_unknown".to_owned());
    assert_eq!(page.counts, Counts::from([((What::Eligible, String::new()), 1), (early, 1)]));
    let replay = start(&rig, &journal).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 2)]));
    for offset in 0..2 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(worth(&rig, Platform::GoogleAds, "order-m-1"), ("70".to_owned(), 1));
    let refunded = "select refunded::bigint from delivery.order_sent";
    assert_eq!(rig.number(refunded).await, 30);

    // Told again, the refund would be taken off the rest, and the sale would be worth all of it.
    let forced = Selection { delivered_too: true, ..journal };
    let again = start(&rig, &forced).await;
    assert_eq!(over(&rig, again).await, found(&[(What::Eligible, 1), (What::AlreadyDelivered, 1)]));
    rig.ends_as(1, State::Delivered).await;
    assert_eq!(worth(&rig, Platform::GoogleAds, "order-m-1"), ("70".to_owned(), 1));
    assert_eq!(rig.number(refunded).await, 30, "the books know of the refund as before");
    assert_eq!(count(&balance(&rig).await, State::Delivered), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_is_replayed_puts_nothing_back_that_was_taken_off_its_order() {
    let mut rig = Rig::new("google_data_manager").await;
    rig.resolved(&[order("m-1", "ann"), order("m-2", "bob")]).await;
    rig.start().await;
    rig.resolved(&[refund("r-1", "ann", "order-m-1", 30)]).await;
    for offset in 0..3 {
        rig.ends_as(offset, State::Delivered).await;
    }
    let forced = Selection { delivered_too: true, ..Selection::of(Origin::Journal) };
    let page = planner(&rig).page(WORKSPACE, CONNECTION, &forced, None, Timestamp::now()).await.unwrap();
    let adjusted = (What::AlreadyDelivered, "order_adjusted".to_owned());
    assert_eq!(page.counts, Counts::from([((What::Eligible, String::new()), 1), (adjusted, 2)]));
    let replay = start(&rig, &forced).await;
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 1), (What::AlreadyDelivered, 2)]));
    assert_eq!(worth(&rig, Platform::DataManager, "order-m-1"), ("70".to_owned(), 1));
    assert_eq!(worth(&rig, Platform::DataManager, "order-m-2"), ("100".to_owned(), 1), "nothing was off it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_whose_refund_is_told_while_a_replay_has_it_stays_delivered_and_is_not_sent() {
    let mut rig = Rig::new("google_data_manager").await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let throttled = Fault::TooManyRequests { retry_after: Some(60) };
    rig.sandbox.inject(Platform::DataManager, throttled, How::Times(1));
    let forced = Selection { delivered_too: true, ..Selection::of(Origin::Journal) };
    let replay = start(&rig, &forced).await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    // A lane of another partition tells of a refund meanwhile.
    sqlx::query(
        "insert into delivery.order_sent
             (workspace_id, connection_id, order_hash, value, currency, sold_at, refunded)
         values (1, 7, $1, 100, 'USD', now(), 30)",
    )
    .bind(order_hash("order-m-1"))
    .execute(&rig.services.database.pool)
    .await
    .unwrap();
    rig.clock.advance(Duration::from_secs(120));
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 1)]));
    let verdict = rig.ends_as(0, State::Delivered).await;
    assert_eq!(verdict.reason, "delivered_before");
    assert!(verdict.detail.contains("filtered order_adjusted"), "{}", verdict.detail);
    assert_eq!(worth(&rig, Platform::DataManager, "order-m-1"), ("100".to_owned(), 0), "not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_does_not_wait_for_the_end_of_a_replay() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 600).await;
    rig.sandbox.inject(Platform::Webhook, Fault::Slow(Duration::from_millis(20)), How::Always);
    let replay = start(&rig, &letters()).await;
    tracklayer_testkit::eventually_seen("the replay to be on its way", async || {
        let sent = counted(&rig, Platform::Webhook).0.len();
        if sent > 0 { Ok(()) } else { Err(sent) }
    })
    .await;
    rig.resolved(&[order("m-live", "somebody")]).await;
    rig.ends_as(600, State::Delivered).await;
    let left = rig.number("select count(*) from delivery.dead_letter").await;
    assert!(left > 300, "{left} letters are still to be taken");
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 600)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_cannot_be_read_holds_nobody() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 1).await;
    let replay = planner(&rig).start(WORKSPACE, CONNECTION, &letters(), "ann").await.unwrap();
    rig.services.run("update delivery.replay set origin = 'somewhere'").await;
    rig.replays.look(&store(&rig)).await.unwrap();
    rig.resolved(&[order("m-live", "somebody")]).await;
    rig.ends_as(1, State::Delivered).await;
    assert_eq!(rig.number("select count(*) from delivery.lane_hold").await, 0);
    let told = "select count(*) from delivery.replay_lane where failure like '%stored bytes of a replay%'";
    rig.reaches(told, 1).await;
    rig.services.run("update delivery.replay set origin = 'dead_letters'").await;
    assert_eq!(over(&rig, replay.id).await, found(&[(What::Eligible, 1)]));
    assert_eq!(rig.number(told).await, 0, "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_writes_files_is_not_replayed_and_it_is_said_why() {
    let bucket = Bucket::start().await;
    let rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    let journal = Selection::of(Origin::Journal);
    let refused = planner(&rig).start(WORKSPACE, CONNECTION, &journal, "ann").await.unwrap_err();
    assert!(matches!(refused, ReplayError::WritesFiles), "{refused}");
    assert!(refused.to_string().contains("each event exactly once"), "{refused}");
    let planned = planner(&rig).page(WORKSPACE, CONNECTION, &journal, None, Timestamp::now()).await;
    assert!(matches!(planned, Err(ReplayError::WritesFiles)), "{planned:?}");
    assert_eq!(rig.number("select count(*) from delivery.replay").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_no_more_than_twenty_replays_that_are_not_over() {
    let mut rig = Rig::new("webhook").await;
    died(&mut rig, 1).await;
    let behind = Planner { fleet: fleet(REPLAY_LEVEL - 1), ..planner(&rig) };
    let refused = behind.start(WORKSPACE, CONNECTION, &letters(), "ann").await.unwrap_err();
    assert!(matches!(refused, ReplayError::Upgrading), "an older process may take a lane over: {refused}");
    let mut first = None;
    for _ in 0..20 {
        let started = planner(&rig).start(WORKSPACE, CONNECTION, &letters(), "ann").await.unwrap();
        first.get_or_insert(started.id);
    }
    let refused = planner(&rig).start(WORKSPACE, CONNECTION, &letters(), "ann").await.unwrap_err();
    assert!(matches!(refused, ReplayError::TooMany { open: 20 }), "{refused}");
    store(&rig).cancel(WORKSPACE, first.unwrap(), "bob").await.unwrap();
    planner(&rig).start(WORKSPACE, CONNECTION, &letters(), "ann").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_little_is_sent_again_more_is_looked_at_and_no_more_is_taken() {
    let mut rig = Rig::new("webhook").await;
    received(&rig, 320).await;
    let orders: Vec<_> = (0..320).map(|n| order(&format!("m-{n}"), &format!("visitor-{n}"))).collect();
    rig.resolved(&orders[..200]).await;
    rig.start().await;
    rig.ends_as(199, State::Delivered).await;
    let refusal = Fault::Status { code: 400, body: None };
    rig.sandbox.inject(Platform::Webhook, refusal, How::Always);
    rig.resolved(&orders[200..]).await;
    rig.reaches("select count(*) from delivery.dead_letter", 120).await;
    rig.sandbox.clear(Platform::Webhook);
    // The first page of those that died is taken, and waits.
    rig.sandbox.inject(Platform::Webhook, Fault::TooManyRequests { retry_after: Some(2) }, How::Times(1));
    let replay = start(&rig, &Selection::of(Origin::Journal)).await;
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'throttled'", 1).await;
    let taken = rig.number("select count(*) from delivery.replay_event").await;
    assert_eq!(taken, 50, "though all of them were looked at");
    assert_eq!(store(&rig).get(WORKSPACE, replay).await.unwrap().unwrap().walked, (250, 320));
    assert_eq!(over(&rig, replay).await, found(&[(What::Eligible, 120), (What::AlreadyDelivered, 200)]));
    assert_eq!(store(&rig).get(WORKSPACE, replay).await.unwrap().unwrap().walked, (320, 320));
    let (ids, copies) = counted(&rig, Platform::Webhook);
    assert_eq!((ids.len(), copies), (320, 0));
    balance(&rig).await;
}
