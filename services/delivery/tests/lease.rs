//! Fair shares of leases, and how long a holder may be sure.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use tracklayer_delivery::lease::{Duty, LeaseKeeper};
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_ids::{Partition, WorkspaceId};

fn duties(count: u32) -> BTreeSet<Duty> {
    (0..count).map(|p| Duty::resolve(WorkspaceId(1), Partition(p))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_and_a_leaver_strands_nothing() {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
    let store = LeaseStore::new(database.pool.clone());
    let wanted = duties(6);
    let ttl = Duration::from_secs(20);
    let mut first = LeaseKeeper::new(store.clone(), ttl);
    let alone = first.round(&wanted).await.unwrap().taken;
    assert_eq!(alone.len(), 6, "alone it holds everything");

    let mut second = LeaseKeeper::new(store.clone(), ttl);
    assert!(second.round(&wanted).await.unwrap().taken.is_empty(), "nothing is free yet");
    first.round(&wanted).await.unwrap();
    assert_eq!(alone.iter().filter(|lease| lease.lost().is_cancelled()).count(), 3);
    let shared = second.round(&wanted).await.unwrap().taken;
    assert_eq!(shared.len(), 3);
    assert!(shared.iter().all(|lease| lease.epoch == 2), "each new holder raises the epoch");

    second.release_all().await;
    assert!(shared.iter().all(|lease| lease.lost().is_cancelled()));
    assert_eq!(first.round(&wanted).await.unwrap().taken.len(), 3, "given back, not waited out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_only_sure_for_what_is_left_of_its_lease() {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
    let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), Duration::from_secs(10));
    let lease = keeper.round(&duties(1)).await.unwrap().taken.remove(0);
    assert!(lease.surely_held_for(Duration::from_secs(5)));
    assert!(!lease.surely_held_for(Duration::from_secs(10)), "counted from before the request that took it");

    sqlx::query("update delivery.lease set epoch = epoch + 1").execute(&database.pool).await.unwrap();
    keeper.round(&BTreeSet::new()).await.unwrap();
    assert!(!lease.surely_held_for(Duration::ZERO), "taken by another: not held at all");
}
