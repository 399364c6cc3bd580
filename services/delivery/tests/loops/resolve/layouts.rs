//! The number of a workspace's partitions changes.

use tracklayer_delivery::dedup::DedupError;
use tracklayer_delivery::lease::{Duty, Lease};
use tracklayer_delivery::resolve::{ResolveError, Stand};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_ids::{ConnectionId, Generation, Partition, Position};
use tracklayer_journal::{Journal as _, Spread};

use super::rig::{ANOTHER, PARTITION, Rig, ids};
use crate::services::WORKSPACE;

async fn change_to(rig: &Rig, partitions: u32, revision: u64) {
    rig.journal.layout(WORKSPACE, Spread { partitions, revision }).await.unwrap();
}

/// One round; the first one of all makes the claims' generation, and is repeated.
async fn round(rig: &Rig, lease: &Lease, stand: &mut Stand) -> bool {
    loop {
        match rig.resolver.round(lease, stand).await {
            Err(ResolveError::Dedup(DedupError::HistoryChanged)) => {}
            ended => return ended.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_partition_goes_into_the_next_layout_before_all_have_read_the_one_before() {
    let rig = Rig::new().await;
    rig.append(PARTITION, "one", 1, 10).await;
    rig.append(ANOTHER, "two", 1, 20).await;
    change_to(&rig, 3, 1).await;
    rig.append(PARTITION, "next", 1, 5).await;
    rig.wait_until_received(Position::new(2, 0, 5)).await;

    let (lease, mut stand) = (rig.lease(PARTITION).await, Stand::default());
    let mut round = async || round(&rig, &lease, &mut stand).await;
    assert!(round().await, "what was received before is resolved");
    for _ in 0..3 {
        assert!(!round().await, "the other partition has read nothing yet");
    }
    assert_eq!(rig.ids_from(Position::new(2, 0, 0)).await, [""; 0]);

    let (other, mut others) = (rig.lease(ANOTHER).await, Stand::default());
    assert!(self::round(&rig, &other, &mut others).await);
    assert!(round().await, "the step");
    assert!(round().await);
    assert_eq!(rig.ids_from(Position::new(2, 0, 0)).await, ids("next", 5));
    assert!(self::round(&rig, &other, &mut others).await, "it goes on as well, to nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_what_is_left_is_resolved_before_what_comes_in_a_generation_further_on() {
    let rig = Rig::new().await;
    rig.append(PARTITION, "left", 1, 4).await;
    rig.services.run("update journal.history set timeline = 'of the one before'").await;
    rig.append(PARTITION, "since", 1, 3).await;
    let running = rig.start(PARTITION).await;
    rig.wait_until_resolved(Position::new(3, 0, 3)).await;
    assert_eq!(rig.ids_from(Position::new(1, 0, 0)).await, ids("left", 4));
    assert_eq!(rig.ids_from(Position::new(3, 0, 0)).await, ids("since", 3));
    rig.services.shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_added_is_read_when_the_others_are_done() {
    let rig = Rig::new().await;
    rig.append(PARTITION, "one", 1, 10).await;
    change_to(&rig, 8, 1).await;
    let added = Partition(6);
    rig.append(added, "added", 1, 5).await;
    rig.wait_until_received(Position::new(2, 6, 5)).await;
    let (lease, mut stand) = (rig.lease(added).await, Stand::default());
    assert!(!round(&rig, &lease, &mut stand).await);
    let running = rig.start(PARTITION).await;
    rig.wait_until_resolved(Position::new(1, 0, 10)).await;
    assert!(round(&rig, &lease, &mut stand).await, "the step");
    assert!(round(&rig, &lease, &mut stand).await);
    assert_eq!(rig.ids_from(Position::new(2, 6, 0)).await, ids("added", 5));
    rig.services.shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_answers_for_all_of_a_partition_that_was_added_while_it_was_there() {
    let rig = Rig::new().await;
    let cursors = CursorStore::new(rig.services.database.pool.clone());
    let lanes = |connection, partitions: std::ops::Range<u32>| -> Vec<Duty> {
        let connection = ConnectionId(connection);
        partitions.map(|n| Duty { workspace: WORKSPACE, connection, partition: Partition(n) }).collect()
    };
    rig.append(PARTITION, "before", 1, 3).await;
    cursors.begin_lanes(&lanes(7, 0..4)).await.unwrap();
    rig.append(PARTITION, "since", 1, 2).await;
    change_to(&rig, 6, 1).await;
    rig.append(Partition(5), "added", 1, 4).await;
    rig.append(PARTITION, "moved", 1, 2).await;
    cursors.begin_lanes(&[lanes(7, 0..6), lanes(8, 0..6)].concat()).await.unwrap();
    let start = async |duty: Duty| cursors.lane(duty).await.unwrap().unwrap().start;
    assert_eq!(start(lanes(7, 0..1)[0]).await, Position::new(1, 0, 3));
    assert_eq!(start(lanes(7, 5..6)[0]).await, Position::new(2, 5, 0), "all of it");
    assert_eq!(start(lanes(8, 0..1)[0]).await, Position::new(2, 0, 2));
    assert_eq!(start(lanes(8, 5..6)[0]).await, Position::new(2, 5, 4), "what is accepted from then on");

    let lane = lanes(7, 5..6)[0];
    assert!(!cursors.lane_may_enter(lane, Generation(2)).await.unwrap(), "two wait in partition 0");
    let lane = lanes(8, 5..6)[0];
    assert!(cursors.lane_may_enter(lane, Generation(2)).await.unwrap(), "it has nothing there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_there_before_anything_was_appended_answers_for_all_of_it() {
    let rig = Rig::new().await;
    let cursors = CursorStore::new(rig.services.database.pool.clone());
    let duty = |n| Duty { workspace: WORKSPACE, connection: ConnectionId(7), partition: Partition(n) };
    // Its four lanes begin, then the configuration says eight, and ingest hears of that first.
    cursors.begin_lanes(&[0, 1, 2, 3].map(duty)).await.unwrap();
    change_to(&rig, 8, 1).await;
    rig.append(Partition(6), "early", 1, 3).await;
    cursors.begin_lanes(&[6].map(duty)).await.unwrap();
    assert_eq!(cursors.lane(duty(6)).await.unwrap().unwrap().start, Position::new(1, 6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_read_that_only_events_from_before_layouts_tell_of() {
    let rig = Rig::new().await;
    rig.services
        .run("insert into journal.head (workspace_id, partition, next_offset) values (1, 6, 3)")
        .await;
    rig.wait_until_received(Position::new(1, 6, 3)).await;
    assert_eq!(rig.resolver.progress.width(WORKSPACE), 7);
}
