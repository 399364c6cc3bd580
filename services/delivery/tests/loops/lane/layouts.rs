//! The number of a workspace's partitions changes: a visitor may have been in another one before.

use sqlx::AssertSqlSafe;
use tracklayer_delivery::ledger::State;
use tracklayer_ids::{PartitionKey, Position};
use tracklayer_sandbox::Platform;

use super::rig::{Rig, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_waits_for_the_others_of_its_connection_and_a_visitor_for_a_retry_in_one_of_them() {
    let mut rig = Rig::new("meta_capi").await;
    // Ann was in partition 1, whose lane has not come to the end of the layout, and there something of hers waits for a retry.
    rig.services
        .run(
            "insert into journal.layout_end values (1, 1, 0, 2), (1, 1, 1, 3);
             insert into delivery.lane_cursor
                 (workspace_id, connection_id, partition, start_generation, start_offset, generation, next_offset)
             values (1, 7, 1, 1, 0, 1, 0);",
        )
        .await;
    waits_in_partition_1(&rig, "ann", 1).await;
    // Carl's retry comes when the lane has long looked whether it may go on.
    rig.due_again(&[order("carl", "carl")]).await;
    rig.services
        .run("update delivery.retry set next_at = now() + interval '1 second' where partition = 0")
        .await;
    rig.resolved(&[order("first", "bob")]).await;
    rig.open_next_generation();
    rig.resolved(&[order("ann-2", "ann"), order("bob-2", "bob")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    rig.services.run("update delivery.lane_cursor set next_offset = 3 where partition = 1").await;

    rig.ends_at(Position::new(2, 0, 1), State::Delivered).await;
    assert_eq!(rig.ends_at(Position::new(2, 0, 0), State::Held).await.reason, "behind");
    // A successor tries what waits before anything else, and does not know yet who waits elsewhere.
    rig.crash().await;
    rig.resolved(&[order("bob-3", "bob")]).await;
    rig.start().await;
    rig.ends_at(Position::new(2, 0, 2), State::Delivered).await;
    rig.services.run("delete from delivery.retry where partition = 1").await;
    rig.ends_at(Position::new(2, 0, 0), State::Delivered).await;
    assert_eq!(sent(&rig), ["first", "carl", "bob-2", "bob-3", "ann-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_since_before_an_event_that_waits_in_another_lane_goes_first() {
    let mut rig = Rig::new("meta_capi").await;
    // Ann was here, then in partition 1, and is here again; something of hers waits in both.
    rig.due_again(&[order("ann-1", "ann")]).await;
    waits_in_partition_1(&rig, "ann", 2).await;
    rig.open_next_generation();
    rig.open_next_generation();
    rig.resolved(&[order("ann-3", "ann"), order("bob-3", "bob")]).await;
    // It comes when the lane has long seen that something of hers waits elsewhere.
    rig.services
        .run("update delivery.retry set next_at = now() + interval '1 second' where partition = 0")
        .await;
    rig.start().await;
    rig.ends_at(Position::new(3, 0, 1), State::Delivered).await;
    rig.ends_as(0, State::Delivered).await;
    assert_eq!(rig.ends_at(Position::new(3, 0, 0), State::Held).await.reason, "behind");
    rig.services.run("delete from delivery.retry where partition = 1").await;
    rig.ends_at(Position::new(3, 0, 0), State::Delivered).await;
    assert_eq!(sent(&rig), ["bob-3", "ann-1", "ann-3"]);
}

/// An event of a visitor waits for an hour in another lane of the connection.
async fn waits_in_partition_1(rig: &Rig, visitor: &str, generation: u32) {
    let key = PartitionKey::of(visitor, "").0.cast_signed();
    let row = format!(
        "insert into delivery.retry (workspace_id, connection_id, partition, generation, event_offset, order_key, attempts,
             next_at, reason, resolved)
         values (1, 7, 1, {generation}, 2, {key}, 1, now() + interval '1 hour', 'retry', '')"
    );
    sqlx::raw_sql(AssertSqlSafe(row)).execute(&rig.services.database.pool).await.unwrap();
}

/// What the platform counts, in order.
fn sent(rig: &Rig) -> Vec<String> {
    rig.sandbox.counted(Platform::Meta).into_iter().map(|counted| counted.event_id).collect()
}
