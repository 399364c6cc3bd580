//! Positions whose event cannot be read, erased ones, and lost ones.

use prost::Message as _;
use tracklayer_delivery::ledger::State;
use tracklayer_proto::event::v1::ResolvedEvent;
use tracklayer_sandbox::Platform;

use super::rig::{Rig, order};

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
