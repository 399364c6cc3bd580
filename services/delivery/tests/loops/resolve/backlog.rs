//! Many blocks at once.

use tracklayer_ids::Position;

use super::rig::{PARTITION, Rig, ids};

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_and_a_new_generation_are_resolved_once_and_in_order() {
    let rig = Rig::new().await;
    rig.append(PARTITION, "first", 25, 300).await;
    let running = rig.start(PARTITION).await;
    rig.wait_until_resolved(Position::new(1, 0, 7_500)).await;

    rig.append(PARTITION, "late", 1, 40).await;
    rig.open_next_generation().await;
    rig.append(PARTITION, "second", 3, 100).await;
    rig.wait_until_resolved(Position::new(2, 0, 300)).await;
    rig.services.shutdown.cancel();
    running.await.unwrap();

    assert_eq!(rig.ids_from(Position::new(1, 0, 0)).await, [ids("first", 7_500), ids("late", 40)].concat());
    assert_eq!(rig.ids_from(Position::new(2, 0, 0)).await, ids("second", 300));
    let (rounds,): (i64,) =
        sqlx::query_as("select count(*) from delivery.resolved where base_offset < 7500 and generation = 1")
            .fetch_one(&rig.services.database.pool)
            .await
            .unwrap();
    assert!(rounds <= 5, "a backlog is taken in whole rounds, not in {rounds}");
}
