//! What was sent for orders, over a real PostgreSQL: its rows are shared by the lanes of a connection.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use rust_decimal::Decimal;
use tracklayer_delivery::lease::{Duty, FleetLevel, INDEX_LEVEL, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::{State, Verdict};
use tracklayer_delivery::runs::{Amount, SoldOrder};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::{LaneCommit, LedgerStore, Settled};
use tracklayer_delivery::store::orders::{OrderStore, order_hash};
use tracklayer_destination::{OrderEffect, OrderNeed, OrderState};
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId, WorkspaceId};
use tracklayer_testkit::{TestDatabase, eventually};

const ORDERS: [&str; 3] = ["o-1", "o-2", "o-3"];

fn lane(partition: u32) -> Duty {
    Duty { workspace: WorkspaceId(1), connection: ConnectionId(7), partition: Partition(partition) }
}

async fn lanes(database: &TestDatabase) -> Vec<Lease> {
    CursorStore::new(database.pool.clone()).begin_lanes(&[lane(0), lane(1)]).await.unwrap();
    let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), Duration::from_secs(600));
    keeper.round(&[lane(0), lane(1)].into()).await.unwrap().taken
}

/// A commit of one delivered event for each effect, in that order.
fn commit_of(lease: &Lease, effects: impl IntoIterator<Item = OrderEffect>) -> LaneCommit {
    let mut commit = LaneCommit::default();
    for (offset, effect) in (0..).zip(effects) {
        commit.settled.push(Settled {
            position: Position::new(1, lease.duty.partition.0, offset),
            source: SourceId(1),
            minute: 1,
            verdict: Verdict::of(State::Delivered, ""),
        });
        commit.orders.push(effect);
    }
    commit
}

fn sold(order: &str, value: i64, total: Option<i64>) -> OrderEffect {
    OrderEffect::Sold {
        order_id: order.to_owned(),
        value: Some(value.into()),
        total: total.map(Decimal::from),
        currency: Some("EUR".to_owned()),
        at: jiff::Timestamp::UNIX_EPOCH,
        match_key: None,
    }
}

/// `None`: everything that is left.
fn refunded(order: &str, amount: Option<Decimal>) -> OrderEffect {
    let at = jiff::Timestamp::UNIX_EPOCH;
    OrderEffect::Refunded { order_id: order.to_owned(), amount, at, changed_at: at }
}

/// A commit of a refund of 5 for each order, in that order.
fn refunds(lease: &Lease, orders: impl Iterator<Item = &'static str>) -> LaneCommit {
    commit_of(lease, orders.map(|order| refunded(order, Some(5.into()))))
}

async fn database() -> TestDatabase {
    tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await
}

/// What is refunded of an order after these effects, committed together.
async fn refunded_after(effects: impl IntoIterator<Item = OrderEffect>) -> Decimal {
    let database = database().await;
    let lease = lanes(&database).await.remove(0);
    let commit = commit_of(&lease, effects);
    let first = Position::new(1, lease.duty.partition.0, 0);
    LedgerStore::new(Index::new(database.pool.clone())).commit_range(&lease, first, &commit).await.unwrap();
    let states = OrderStore::new(Index::new(database.pool.clone()))
        .states(lease.duty, &["o-1".to_owned()])
        .await
        .unwrap();
    states["o-1"].refunded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_of_everything_leaves_nothing_also_of_an_order_without_a_total_of_its_own() {
    let whole = || refunded("o-1", None);
    assert_eq!(refunded_after([sold("o-1", 50, None), whole()]).await, Decimal::from(50));
    assert_eq!(refunded_after([sold("o-1", 50, Some(60)), whole()]).await, Decimal::from(60));
    assert_eq!(
        refunded_after([sold("o-1", 50, Some(0)), whole()]).await,
        Decimal::from(50),
        "paid with a voucher: refunds are measured against the value"
    );
    let part = refunded("o-1", Some(70.into()));
    assert_eq!(
        refunded_after([sold("o-1", 50, Some(60)), part, whole()]).await,
        Decimal::from(70),
        "what came back before stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_beyond_every_amount_do_not_make_an_order_whole_again() {
    let most = || refunded("o-1", Some(Decimal::MAX));
    assert_eq!(refunded_after([sold("o-1", 50, None), most(), most()]).await, Decimal::MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lanes_that_commit_the_same_orders_the_other_way_round_do_not_deadlock() {
    let database = database().await;
    let leases = lanes(&database).await;
    // Both lanes stop at the order in the middle of theirs, with the first one locked.
    let mut middle = database.pool.begin().await.unwrap();
    sqlx::query(
        "insert into delivery.order_sent (workspace_id, connection_id, order_hash) values (1, 7, $1)",
    )
    .bind(order_hash(ORDERS[1]))
    .execute(&mut *middle)
    .await
    .unwrap();
    let ledger = LedgerStore::new(Index::new(database.pool.clone()));
    let committing: Vec<_> = leases
        .into_iter()
        .map(|lease| {
            let there = lease.duty.partition.0 == 0;
            let commit = if there {
                refunds(&lease, ORDERS.into_iter())
            } else {
                refunds(&lease, ORDERS.into_iter().rev())
            };
            let ledger = ledger.clone();
            let first = Position::new(1, lease.duty.partition.0, 0);
            tokio::spawn(async move { ledger.commit_range(&lease, first, &commit).await })
        })
        .collect();
    eventually("both commits to wait for a lock", async || {
        let (waiting,): (i64,) = sqlx::query_as(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
             and query like '%delivery.order_sent%'",
        )
        .fetch_one(&database.pool)
        .await
        .unwrap();
        (waiting == 2).then_some(())
    })
    .await;
    middle.commit().await.unwrap();
    for commit in committing {
        commit.await.unwrap().unwrap();
    }
    let ids = ORDERS.map(str::to_owned);
    let states = OrderStore::new(Index::new(database.pool.clone())).states(lane(0), &ids).await.unwrap();
    for order in ORDERS {
        assert_eq!(states[order].refunded, Decimal::from(10), "both refunds of {order}");
    }
}

fn restated(order: &str, value: i64) -> OrderEffect {
    OrderEffect::Restated {
        order_id: order.to_owned(),
        value: Some(value.into()),
        total: None,
        currency: None,
        at: jiff::Timestamp::UNIX_EPOCH,
        changed_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// What is known of an order after commits of one effect each, beside processes of that level; then the rows and the runs.
async fn state_after(effects: impl IntoIterator<Item = (u32, OrderEffect)>) -> (OrderState, i64, i64) {
    let database = database().await;
    let lease = lanes(&database).await.remove(0);
    let fleet = FleetLevel::default();
    let index = Index::beside(database.pool.clone(), fleet.clone());
    let ledger = LedgerStore::new(index.clone());
    for (offset, (level, effect)) in (0..).zip(effects) {
        fleet.set(level);
        let mut commit = commit_of(&lease, [effect]);
        let first = Position::new(1, lease.duty.partition.0, offset);
        commit.settled[0].position = first;
        ledger.commit_range(&lease, first, &commit).await.unwrap();
    }
    let states = OrderStore::new(index).states(lease.duty, &["o-1".to_owned()]).await.unwrap();
    let count = async |sql| sqlx::query_scalar::<_, i64>(sql).fetch_one(&database.pool).await.unwrap();
    let rows = count("select count(*) from delivery.order_sent").await;
    let runs = count("select count(*) from delivery.index_run").await;
    (states["o-1"].clone(), rows, runs)
}

fn state(value: i64, total: Option<i64>, refunded: i64) -> OrderState {
    OrderState {
        value: Some(value.into()),
        total: total.map(Decimal::from),
        currency: Some("EUR".to_owned()),
        at: Some(jiff::Timestamp::UNIX_EPOCH),
        refunded: refunded.into(),
        ..OrderState::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_known_alike_whether_the_index_has_it_or_a_row() {
    let part = || refunded("o-1", Some(5.into()));
    let cases = [
        (vec![sold("o-1", 50, Some(60))], state(50, Some(60), 0), 0),
        (vec![sold("o-1", 50, Some(60)), sold("o-1", 40, None)], state(40, None, 0), 0),
        (vec![sold("o-1", 50, Some(60)), part()], state(50, Some(60), 5), 1),
        (vec![sold("o-1", 50, Some(60)), part(), part()], state(50, Some(60), 10), 1),
        (vec![sold("o-1", 50, Some(60)), refunded("o-1", None)], state(50, Some(60), 60), 1),
        (vec![sold("o-1", 50, None), part(), refunded("o-1", None)], state(50, None, 50), 1),
        (vec![sold("o-1", 50, Some(60)), part(), restated("o-1", 30)], state(30, None, 0), 1),
        (vec![sold("o-1", 50, Some(60)), restated("o-1", 30), part()], state(30, None, 5), 1),
        (vec![part(), sold("o-1", 50, Some(60))], state(50, Some(60), 5), 1),
        (vec![sold("o-1", 50, None), part(), sold("o-1", 70, None)], state(70, None, 5), 1),
        (
            vec![restated("o-1", 30), refunded("o-1", None)],
            OrderState { currency: None, at: None, ..state(30, None, 30) },
            1,
        ),
    ];
    for (effects, expected, rows) in cases {
        let told = format!("{effects:?}");
        let is_changed = effects.iter().any(|effect| !matches!(effect, OrderEffect::Sold { .. }));
        let adjusted_at = is_changed.then_some(jiff::Timestamp::UNIX_EPOCH);
        let all_back = matches!(effects.last(), Some(OrderEffect::Refunded { amount: None, .. }));
        let restated = effects.iter().any(|effect| matches!(effect, OrderEffect::Restated { .. }));
        let changed_at = adjusted_at;
        let restated_at = restated.then_some(jiff::Timestamp::UNIX_EPOCH);
        let expected = OrderState { adjusted_at, changed_at, restated_at, all_back, restated, ..expected };
        let runs = effects.iter().filter(|effect| matches!(effect, OrderEffect::Sold { .. })).count() as i64;
        let beside = |level| effects.iter().cloned().map(move |effect| (level, effect));
        assert_eq!(state_after(beside(INDEX_LEVEL)).await, (expected.clone(), rows, runs), "{told}");
        assert_eq!(
            state_after(beside(INDEX_LEVEL - 1)).await,
            (expected.clone(), 1, 0),
            "all in rows: {told}"
        );
        // An upgrade between the first and the second.
        let levels = [INDEX_LEVEL - 1].into_iter().chain(std::iter::repeat(INDEX_LEVEL));
        let upgraded = levels.zip(effects.iter().cloned());
        assert_eq!(state_after(upgraded).await.0, expected, "upgraded: {told}");
        assert_eq!(state_after_one_commit(&effects).await, expected, "in one commit: {told}");
    }
    // What is sold again after everything came back is worth what it was sold for.
    let again = [sold("o-1", 50, None), refunded("o-1", None), sold("o-1", 70, None)];
    let adjusted_at = Some(jiff::Timestamp::UNIX_EPOCH);
    let expected = OrderState { adjusted_at, changed_at: adjusted_at, ..state(70, None, 50) };
    assert_eq!(state_after_one_commit(&again).await, expected);
}

async fn state_after_one_commit(effects: &[OrderEffect]) -> OrderState {
    let database = database().await;
    let lease = lanes(&database).await.remove(0);
    let index = Index::new(database.pool.clone());
    let first = Position::new(1, lease.duty.partition.0, 0);
    let commit = commit_of(&lease, effects.iter().cloned());
    LedgerStore::new(index.clone()).commit_range(&lease, first, &commit).await.unwrap();
    OrderStore::new(index).states(lease.duty, &["o-1".to_owned()]).await.unwrap()["o-1"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_a_row_was_made_too_early_for_counts() {
    let sale = |value: i64, seconds: i64| SoldOrder {
        hash: order_hash("o-1"),
        value: Amount::of(value.into()),
        total: None,
        currency: Some(*b"EUR"),
        at: seconds * 1_000_000,
    };
    // The row was made of what was there by then: nothing, or an earlier sale.
    for before in [vec![], vec![sold("o-1", 50, None)]] {
        let database = database().await;
        let lease = lanes(&database).await.remove(0);
        let index = Index::new(database.pool.clone());
        let (ledger, orders) = (LedgerStore::new(index.clone()), OrderStore::new(index.clone()));
        let known = async || orders.states(lease.duty, &["o-1".to_owned()]).await.unwrap()["o-1"].clone();
        let mut offset = 0;
        let mut commit = async |effects: Vec<OrderEffect>| {
            let first = Position::new(1, lease.duty.partition.0, offset);
            let mut commit = commit_of(&lease, effects);
            for settled in &mut commit.settled {
                settled.position.offset.0 = offset;
                offset += 1;
            }
            ledger.commit_range(&lease, first, &commit).await.unwrap();
        };
        commit([before, vec![refunded("o-1", Some(5.into()))]].concat()).await;
        // Another partition sold the order meanwhile, and did not see the row.
        let mut tx = index.pool().begin().await.unwrap();
        index.add(&mut tx, lane(1), vec![sale(70, 9)]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((known().await.value, known().await.refunded), (Some(70.into()), 5.into()));
        commit(vec![refunded("o-1", Some(10.into()))]).await;
        assert_eq!((known().await.value, known().await.refunded), (Some(70.into()), 15.into()));
        commit(vec![refunded("o-1", None)]).await;
        assert_eq!(known().await.refunded, 70.into(), "all of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amount_that_fits_no_record_gets_a_row() {
    let most = || OrderEffect::Sold {
        order_id: "o-1".to_owned(),
        value: Some(Decimal::MAX),
        total: None,
        currency: Some("EUR".to_owned()),
        at: jiff::Timestamp::UNIX_EPOCH,
        match_key: None,
    };
    let (state, rows, runs) =
        state_after([(INDEX_LEVEL, sold("o-1", 50, None)), (INDEX_LEVEL, most())]).await;
    assert_eq!((state.value, rows, runs), (Some(Decimal::MAX), 1, 1));
    let (state, ..) = state_after([(INDEX_LEVEL, most()), (INDEX_LEVEL, sold("o-1", 50, None))]).await;
    assert_eq!(state.value, Some(50.into()), "sold again, for what fits: the row knows it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_order_that_two_partitions_sold_the_later_sale_counts() {
    let database = database().await;
    let leases = lanes(&database).await;
    let index = Index::new(database.pool.clone());
    for (lease, value, seconds) in [(&leases[0], 70, 9), (&leases[1], 50, 4)] {
        let mut effect = sold("o-1", value, None);
        if let OrderEffect::Sold { at, .. } = &mut effect {
            *at = jiff::Timestamp::from_second(seconds).unwrap();
        }
        let first = Position::new(1, lease.duty.partition.0, 0);
        let ledger = LedgerStore::new(index.clone());
        ledger.commit_range(lease, first, &commit_of(lease, [effect])).await.unwrap();
    }
    let states = OrderStore::new(index).states(lane(0), &["o-1".to_owned()]).await.unwrap();
    assert_eq!(states["o-1"].value, Some(70.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_change_of_an_order_is_known_whatever_it_was_and_in_which_order_they_came() {
    let at = |second: i64| jiff::Timestamp::from_second(second).unwrap();
    // Each is told a second after it happened.
    let back = |amount, second| OrderEffect::Refunded {
        order_id: "o-1".to_owned(),
        amount,
        at: at(second),
        changed_at: at(second - 1),
    };
    let part = |second| back(Some(5.into()), second);
    let whole = |second| back(None, second);
    let anew = |second| OrderEffect::Restated {
        order_id: "o-1".to_owned(),
        value: Some(30.into()),
        total: None,
        currency: None,
        at: at(second),
        changed_at: at(second - 1),
    };
    for (effects, restated) in [
        ([part(3), part(9)], None),
        ([part(9), part(3)], None),
        ([whole(9), part(3)], None),
        ([part(3), whole(9)], None),
        ([anew(9), part(4)], Some(8)),
        ([part(4), anew(9)], Some(8)),
        ([part(9), anew(4)], Some(3)),
        ([anew(9), anew(4)], Some(8)),
    ] {
        let told = format!("{effects:?}");
        let effects = [sold("o-1", 50, Some(60))].into_iter().chain(effects);
        let (state, ..) = state_after(effects.map(|effect| (INDEX_LEVEL, effect))).await;
        assert_eq!((state.adjusted_at, state.changed_at), (Some(at(9)), Some(at(8))), "{told}");
        assert_eq!(state.restated_at, restated.map(at), "{told}");
    }
    // A sale has no new value before it.
    for level in [INDEX_LEVEL, INDEX_LEVEL - 1] {
        let effects = [sold("o-1", 50, None), anew(9), sold("o-1", 70, None), anew(4)];
        let known = async |most: usize| {
            let effects = effects.iter().take(most).cloned().map(|effect| (level, effect));
            state_after(effects).await.0.restated_at
        };
        assert_eq!(
            (known(2).await, known(3).await, known(4).await),
            (Some(at(8)), None, Some(at(3))),
            "{level}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_that_an_earlier_version_forgot_by_a_sale_counts_no_more() {
    let database = database().await;
    let lease = lanes(&database).await.remove(0);
    let index = Index::new(database.pool.clone());
    let (ledger, orders) = (LedgerStore::new(index.clone()), OrderStore::new(index));
    let first = Position::new(1, lease.duty.partition.0, 0);
    ledger.commit_range(&lease, first, &commit_of(&lease, [restated("o-1", 30)])).await.unwrap();
    let known = async || orders.states(lease.duty, &["o-1".to_owned()]).await.unwrap()["o-1"].restated_at;
    assert_eq!(known().await, Some(jiff::Timestamp::UNIX_EPOCH));
    // As that version writes a sale: it does not know the column.
    sqlx::query("update delivery.order_sent set restated = false").execute(&database.pool).await.unwrap();
    assert_eq!(known().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_an_earlier_version_told_happened_when_it_was_told() {
    let database = database().await;
    let lease = lanes(&database).await.remove(0);
    let index = Index::new(database.pool.clone());
    let (ledger, orders) = (LedgerStore::new(index.clone()), OrderStore::new(index));
    // As that version writes it: it does not know the column.
    sqlx::query(
        "insert into delivery.order_sent (workspace_id, connection_id, order_hash, value, refunded, adjusted_at)
         values (1, 7, $1, 50, 5, 'epoch'::timestamptz + interval '9 seconds')",
    )
    .bind(order_hash("o-1"))
    .execute(&database.pool)
    .await
    .unwrap();
    let known = async || orders.states(lease.duty, &["o-1".to_owned()]).await.unwrap()["o-1"].clone();
    let ninth = jiff::Timestamp::from_second(9).ok();
    assert_eq!(known().await.changed_at, ninth);
    // An older change that comes after it does not take that away.
    let first = Position::new(1, lease.duty.partition.0, 0);
    let older = commit_of(&lease, [refunded("o-1", Some(5.into()))]);
    ledger.commit_range(&lease, first, &older).await.unwrap();
    assert_eq!((known().await.changed_at, known().await.refunded), (ninth, 10.into()));
}

fn restated_in(currency: &str, value: i64) -> OrderEffect {
    let mut effect = restated("o-1", value);
    if let OrderEffect::Restated { currency: of, .. } = &mut effect {
        *of = Some(currency.to_owned());
    }
    effect
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_is_kept_with_its_currency_and_one_without_leaves_it() {
    for (effects, currency) in [
        (vec![sold("o-1", 50, None), restated_in("USD", 54)], "USD"),
        (vec![sold("o-1", 50, None), restated_in("USD", 54), refunded("o-1", Some(5.into()))], "USD"),
        (vec![sold("o-1", 50, None), refunded("o-1", Some(5.into())), restated_in("USD", 54)], "USD"),
        (vec![sold("o-1", 50, None), restated("o-1", 40)], "EUR"),
        (vec![restated_in("USD", 54)], "USD"),
        (vec![restated_in("USD", 54), restated_in("EUR", 50)], "EUR"),
        (vec![sold("o-1", 50, None), restated_in("USD", 54), sold("o-1", 60, None)], "EUR"),
    ] {
        let told = format!("{effects:?}");
        for level in [INDEX_LEVEL, INDEX_LEVEL - 1] {
            let effects = effects.iter().cloned().map(|effect| (level, effect));
            let (state, ..) = state_after(effects).await;
            assert_eq!(state.currency.as_deref(), Some(currency), "{level}: {told}");
        }
    }
}

/// What is known of an order after these effects, one commit each, and then of a sale of it that the platform had before.
async fn state_after_there(effects: &[OrderEffect], level: u32, there: &[OrderEffect]) -> OrderState {
    let database = database().await;
    let lease = lanes(&database).await.remove(0);
    let fleet = FleetLevel::default();
    fleet.set(level);
    let index = Index::beside(database.pool.clone(), fleet);
    let ledger = LedgerStore::new(index.clone());
    let mut commits: Vec<LaneCommit> =
        effects.iter().map(|effect| commit_of(&lease, [effect.clone()])).collect();
    let mut last = commit_of(&lease, [sold("o-9", 1, None)]);
    last.there_before = there.to_vec();
    commits.push(last);
    for (offset, mut commit) in (0..).zip(commits) {
        let first = Position::new(1, lease.duty.partition.0, offset);
        commit.settled[0].position = first;
        ledger.commit_range(&lease, first, &commit).await.unwrap();
    }
    OrderStore::new(index).states(lease.duty, &["o-1".to_owned()]).await.unwrap()["o-1"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_the_platform_had_before_counts_only_where_none_is_known() {
    let there = [sold("o-1", 100, None)];
    for level in [INDEX_LEVEL, INDEX_LEVEL - 1] {
        let after = async |effects: &[OrderEffect]| state_after_there(effects, level, &there).await;
        assert_eq!(after(&[]).await, state(100, None, 0), "{level}: another system told of it");
        assert_eq!(after(&[sold("o-1", 80, None)]).await, state(80, None, 0), "{level}: the first counts");
        let back = after(&[sold("o-1", 80, None), refunded("o-1", None)]).await;
        assert!(back.all_back && back.value == Some(80.into()), "{level}: {back:?}");
        let anew = after(&[sold("o-1", 80, None), restated("o-1", 60)]).await;
        assert!(anew.restated && anew.value == Some(60.into()), "{level}: {anew:?}");
        let part = after(&[refunded("o-1", Some(30.into()))]).await;
        assert_eq!((part.value, part.refunded), (Some(100.into()), 30.into()), "{level}: none was known");
        // Two of them, and one beside a sale in the same commit.
        let two = [sold("o-1", 80, None), sold("o-1", 100, None)];
        assert_eq!(state_after_there(&[], level, &two).await, state(80, None, 0), "{level}");
    }
    let database = database().await;
    let lease = lanes(&database).await.remove(0);
    let index = Index::new(database.pool.clone());
    let mut commit = commit_of(&lease, [sold("o-1", 80, None)]);
    commit.there_before = there.to_vec();
    let first = Position::new(1, lease.duty.partition.0, 0);
    LedgerStore::new(index.clone()).commit_range(&lease, first, &commit).await.unwrap();
    let states = OrderStore::new(index).states(lease.duty, &["o-1".to_owned()]).await.unwrap();
    assert_eq!(states["o-1"], state(80, None, 0), "beside the sale that was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_overwrites_an_order_is_told_of_it_only_if_it_was_changed() {
    let database = database().await;
    let lease = lanes(&database).await.remove(0);
    let index = Index::new(database.pool.clone());
    let sales = ["o-1", "o-2", "o-3"].map(|order| sold(order, 50, None));
    let first = Position::new(1, lease.duty.partition.0, 0);
    let commit = commit_of(&lease, sales.into_iter().chain([refunded("o-2", Some(5.into()))]));
    LedgerStore::new(index.clone()).commit_range(&lease, first, &commit).await.unwrap();
    let need = |order: &str| OrderNeed::Overwrites(order.to_owned());
    let needs = [need("o-1"), need("o-2"), OrderNeed::Changes("o-3".to_owned()), need("o-4")];
    let states = OrderStore::new(index).states_for(lease.duty, &needs).await.unwrap();
    let mut known: Vec<&str> = states.keys().map(String::as_str).collect();
    known.sort_unstable();
    assert_eq!(known, ["o-2", "o-3"]);
    assert_eq!(states["o-2"].refunded, 5.into());
    assert_eq!(states["o-3"], state(50, None, 0));
}
