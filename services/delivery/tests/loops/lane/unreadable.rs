//! Positions whose event cannot be read, erased ones, and lost ones.

use prost::Message as _;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::skips::{SkipError, Skipping, Stage};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::resolved::ResolvedStore;
use tracklayer_delivery::store::skips::SkipStore;
use tracklayer_ids::Position;
use tracklayer_journal::PostgresJournal;
use tracklayer_proto::event::v1::ResolvedEvent;
use tracklayer_sandbox::Platform;

use super::rig::{Rig, order};
use crate::services::WORKSPACE;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_dead_lettered_raw_and_an_erased_event_is_not_sent() {
    let mut rig = Rig::new("webhook").await;
    let crashing = ResolvedEvent {
        event: b"as it came".as_slice().into(),
        poisoned: "it crashes its reader".to_owned(),
        ..ResolvedEvent::default()
    };
    let garbage = b"\xff\xff\xff".to_vec();
    rig.resolved_bytes(&[crashing.encode_to_vec(), garbage.clone(), Vec::new()]).await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(3, State::Delivered).await;
    let whys = ["it crashes its reader", "the resolved event cannot be decoded", "the event was erased"];
    for (offset, why) in (0..).zip(whys) {
        let dead = rig.ends_as(offset, State::Dead).await;
        assert_eq!((dead.reason.as_str(), dead.detail.as_str()), ("poisoned", why));
    }
    assert_eq!(rig.sandbox.counted(Platform::Webhook).len(), 1);
    let letters: Vec<(Vec<u8>,)> =
        sqlx::query_as("select resolved from delivery.dead_letter order by event_offset")
            .fetch_all(&rig.services.database.pool)
            .await
            .unwrap();
    let raw = ResolvedEvent::decode(letters[0].0.as_slice()).unwrap();
    assert_eq!((&raw.event[..], &letters[1].0), (&b"as it came"[..], &garbage));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_with_its_block_is_told_as_lost_and_leaves_no_letter() {
    let mut rig = Rig::new("webhook").await;
    let lost = ResolvedEvent {
        poisoned: "its block cannot be read".to_owned(),
        lost: true,
        source_id: 1,
        ..ResolvedEvent::default()
    };
    rig.resolved_bytes(&[lost.encode_to_vec(), lost.encode_to_vec()]).await;
    rig.resolved(&[order("m-2", "ann")]).await;
    rig.start().await;
    rig.ends_as(2, State::Delivered).await;
    for offset in [0, 1] {
        let dead = rig.ends_as(offset, State::Dead).await;
        assert_eq!((dead.reason.as_str(), dead.detail.as_str()), ("lost", "its block cannot be read"));
    }
    assert_eq!(rig.sandbox.counted(Platform::Webhook).len(), 1);
    let told = "select coalesce(sum(events), 0)::bigint from delivery.rollup where connection_id = 7 and reason = 'lost'";
    assert_eq!(rig.number(told).await, 2);
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 0, "there is nothing to keep");
}

/// Header and payload.
fn bytes_of(row: &PgRow) -> (Vec<u8>, Vec<u8>) {
    (row.get(0), row.get(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_holds_at_a_bad_resolved_block_until_lost_events_stand_in_its_place() {
    let mut rig = Rig::new("webhook").await;
    rig.resolved(&[order("m-0", "ann"), order("m-1", "bob")]).await;
    rig.resolved(&[order("m-2", "ann")]).await;
    let pool = rig.services.database.pool.clone();
    let stored = async || {
        let row = sqlx::query("select header, payload from delivery.resolved where base_offset = 0");
        bytes_of(&row.fetch_one(&pool).await.unwrap())
    };
    rig.services
        .run(
            "update delivery.resolved set payload = set_byte(payload, 5, get_byte(payload, 5) # 1)
             where base_offset = 0",
        )
        .await;
    let rotten = stored().await;
    rig.start().await;
    rig.reaches(
        "select count(*) from delivery.lane_hold where detail like '%journal skip 1/0/0 --resolved%'",
        1,
    )
    .await;

    let skipping = Skipping {
        journal: PostgresJournal::new(pool.clone()).into(),
        cursors: CursorStore::new(pool.clone()),
        store: SkipStore::new(pool.clone()),
        resolved: ResolvedStore::new(Index::new(pool.clone())),
    };
    let skip = async |offset, is_meant| {
        skipping.skip_resolved(WORKSPACE, Position::new(1, 0, offset), "ann", is_meant).await
    };
    let good = skip(2, true).await;
    assert!(matches!(good, Err(SkipError::Readable(first)) if first.offset.0 == 2), "{good:?}");
    let absent = skip(3, true).await;
    assert!(matches!(absent, Err(SkipError::Absent(_))), "{absent:?}");
    let shown = skip(1, false).await.unwrap();
    assert_eq!((shown.first.offset.0, shown.events, shown.stage), (0, 2, Stage::Shown));
    assert_eq!(stored().await, rotten, "nothing was meant");

    assert_eq!(skip(0, true).await.unwrap().stage, Stage::Passed);
    let again = skip(0, true).await;
    assert!(matches!(again, Err(SkipError::Readable(_))), "{again:?}");
    rig.ends_as(2, State::Delivered).await;
    for offset in [0, 1] {
        assert_eq!(rig.ends_as(offset, State::Dead).await.reason, "lost");
    }
    assert_eq!(rig.sandbox.counted(Platform::Webhook).len(), 1);
    let kept =
        sqlx::query("select header, payload from delivery.replaced_block").fetch_all(&pool).await.unwrap();
    let kept: Vec<_> = kept.iter().map(bytes_of).collect();
    assert_eq!(kept, [rotten], "the bytes as they were, once");
}
