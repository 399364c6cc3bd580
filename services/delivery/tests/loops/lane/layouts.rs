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
    let key = PartitionKey::of("ann", "").0.cast_signed();
    let waits_elsewhere = format!(
        "insert into delivery.retry (workspace_id, connection_id, partition, generation, event_offset, order_key, attempts,
             next_at, reason, resolved)
         values (1, 7, 1, 1, 2, {key}, 1, now() + interval '1 hour', 'retry', '')"
    );
    sqlx::raw_sql(AssertSqlSafe(waits_elsewhere)).execute(&rig.services.database.pool).await.unwrap();
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
    rig.services.run("delete from delivery.retry where partition = 1").await;
    rig.ends_at(Position::new(2, 0, 0), State::Delivered).await;
    let counted = rig.sandbox.counted(Platform::Meta);
    let sent: Vec<&str> = counted.iter().map(|c| c.event_id.as_str()).collect();
    assert_eq!(sent, ["first", "carl", "bob-2", "ann-2"]);
}
