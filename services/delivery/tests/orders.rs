//! What was sent for orders, over a real PostgreSQL: its rows are shared by the lanes of a connection.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use rust_decimal::Decimal;
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::{State, Verdict};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::{LaneCommit, LedgerStore, Settled};
use tracklayer_delivery::store::orders::{OrderStore, order_hash};
use tracklayer_destination::OrderEffect;
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

/// A commit of one event for each order, in that order.
fn refunds(lease: &Lease, orders: impl Iterator<Item = &'static str>) -> LaneCommit {
    let mut commit = LaneCommit::default();
    for (offset, order) in (0..).zip(orders) {
        commit.settled.push(Settled {
            position: Position::new(1, lease.duty.partition.0, offset),
            source: SourceId(1),
            minute: 1,
            verdict: Verdict::of(State::Delivered, ""),
        });
        commit.orders.push(OrderEffect::Refunded {
            order_id: order.to_owned(),
            amount: Some(Decimal::from(5)),
            at: jiff::Timestamp::UNIX_EPOCH,
        });
    }
    commit
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lanes_that_commit_the_same_orders_the_other_way_round_do_not_deadlock() {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
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
    let ledger = LedgerStore::new(database.pool.clone());
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
    let states = OrderStore::new(database.pool.clone()).states(lane(0), &ids).await.unwrap();
    for order in ORDERS {
        assert_eq!(states[order].refunded, Decimal::from(10), "both refunds of {order}");
    }
}
