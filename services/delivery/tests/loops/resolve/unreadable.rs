//! Bytes that are not what was written, events that cannot be read, and events that must not be.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tracklayer_delivery::balance::Balances;
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::resolve::{ResolveError, Stand, read_event};
use tracklayer_delivery::skips::{SkipError, Stage};
use tracklayer_delivery::store::StoreError;
use tracklayer_delivery::store::stats::StatsStore;
use tracklayer_ids::{Position, SourceId};
use tracklayer_journal::{BlockBuilder, FEATURE_LEVEL};
use tracklayer_proto::event::v1::Event;

use super::rig::{ANOTHER, PARTITION, Rig, event, ids};
use crate::services::{Services, WORKSPACE};

/// Of the second block of ten events; another time it is as it was.
const FLIP_A_BIT: &str =
    "update journal.received set payload = set_byte(payload, 5, get_byte(payload, 5) # 1)
                          where partition = 0 and base_offset = 10";
/// Of which nobody knows whose events they were.
const SPOIL_THE_HEADER: &str =
    "update journal.received set header = '\\xff'::bytea where partition = 0 and base_offset = 10";
/// A lane that answers for everything, and that nobody moves.
const A_LANE: &str = "insert into delivery.lane_cursor values (1, 7, 0, 1, 0, 1, 0)";

fn at(offset: u64) -> Position {
    Position::new(1, 0, offset)
}

/// Three blocks of ten events, of which the second cannot be read, and resolve stands before that.
async fn stopped(spoil: &'static str) -> Rig {
    let rig = Rig::new().await;
    for prefix in ["good", "bad", "behind"] {
        rig.append(PARTITION, prefix, 1, 10).await;
    }
    rig.services.run(A_LANE).await;
    rig.services.run(spoil).await;
    stops(&rig).await;
    rig
}

/// A loop of the partition comes to its end by itself, and stands before the second block.
async fn stops(rig: &Rig) {
    let stopped = rig.start(PARTITION).await;
    tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("it gives the lease up").unwrap();
    assert_eq!(rig.resolver.cursors.resolve(WORKSPACE, PARTITION).await.unwrap().at, at(10));
}

/// What stands in `resolved`, where ten in the middle are lost.
async fn assert_ten_are_lost(rig: &Rig) {
    let resolved = rig.resolved_from(at(0)).await;
    let of = |range: std::ops::Range<usize>| -> Vec<String> {
        resolved[range].iter().map(|event| event.message_id.clone()).collect()
    };
    assert_eq!((of(0..10), of(20..30)), (ids("good", 10), ids("behind", 10)), "in order, and each once");
    assert_eq!(resolved.len(), 30);
    for (offset, event) in resolved.iter().enumerate() {
        let is_lost = (10..20).contains(&offset);
        assert_eq!((event.lost, event.poisoned.is_empty()), (is_lost, !is_lost), "{offset}: {event:?}");
    }
}

/// The books are clean, and say how many of which source were accepted; all of them wait for the lane.
async fn assert_books(rig: &Rig, of_sources: &[(i64, u64)]) {
    let stats = StatsStore::new(rig.services.database.pool.clone());
    let of_sources: BTreeMap<i64, u64> = of_sources.iter().copied().collect();
    assert_eq!(stats.accepted(WORKSPACE).await.unwrap(), of_sources);
    let mut balances = Balances::default();
    stats.read_books(WORKSPACE, &mut balances).await.unwrap();
    let balance = balances.finish().remove(&7).unwrap();
    assert!(balance.is_clean(), "{balance:?}");
    assert_eq!((balance.accepted, balance.states[&(State::Waiting, String::new())]), (30, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_block_that_is_skipped_is_lost_alone_and_only_when_it_is_meant() {
    let rig = stopped(FLIP_A_BIT).await;
    let skipping = rig.skipping();
    let skip = async |offset, is_meant| skipping.skip(WORKSPACE, at(offset), "ann", is_meant).await;
    for good in [20, 29] {
        let refused = skip(good, true).await;
        assert!(matches!(refused, Err(SkipError::Readable(first)) if first == at(20)), "{refused:?}");
    }
    let before = skip(9, true).await;
    assert!(matches!(before, Err(SkipError::Resolved { next, .. }) if next == at(10)), "{before:?}");
    let absent = skip(30, true).await;
    assert!(matches!(absent, Err(SkipError::Absent(_))), "{absent:?}");

    let shown = skip(14, false).await.unwrap();
    assert_eq!((shown.first, shown.events, shown.is_counted, shown.stage), (at(10), 10, true, Stage::Shown));
    assert_eq!(shown.sources, [(SourceId(1), 10)]);
    assert!(shown.why.starts_with("checksum is "), "{shown:?}");
    stops(&rig).await;

    for offset in [10, 14] {
        let asked = skip(offset, true).await.unwrap();
        assert_eq!((asked.first, asked.stage), (at(10), Stage::Asked), "it may be said again");
    }
    assert_books(&rig, &[(1, 30)]).await;
    let going = rig.start(PARTITION).await;
    rig.wait_until_resolved(at(30)).await;
    assert_ten_are_lost(&rig).await;
    assert_books(&rig, &[(1, 30)]).await;

    let passed = skip(10, true).await.unwrap();
    assert_eq!((passed.first, passed.events, passed.stage), (at(10), 10, Stage::Passed));
    rig.append(PARTITION, "later", 1, 10).await;
    rig.wait_until_resolved(at(40)).await;
    assert_eq!(rig.ids_from(at(30)).await, ids("later", 10), "and nothing more is lost");
    rig.services.shutdown.cancel();
    going.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_block_whose_header_is_gone_the_row_counts_what_is_lost() {
    let rig = stopped(SPOIL_THE_HEADER).await;
    assert_books(&rig, &[(0, 10), (1, 20)]).await;
    let asked = rig.skipping().skip(WORKSPACE, at(10), "ann", true).await.unwrap();
    assert_eq!((asked.events, asked.sources), (10, vec![]));
    let _going = rig.start(PARTITION).await;
    rig.wait_until_resolved(at(30)).await;
    assert_ten_are_lost(&rig).await;
    assert_books(&rig, &[(0, 10), (1, 20)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_lost_the_lease_skips_nothing_and_a_successor_skips_it_once() {
    let rig = stopped(FLIP_A_BIT).await;
    rig.skipping().skip(WORKSPACE, at(10), "ann", true).await.unwrap();
    let zombie = rig.lease(PARTITION).await;
    let lease = rig.lease(PARTITION).await;
    let fenced = rig.resolver.round(&zombie, &mut Stand::default()).await;
    assert!(matches!(fenced, Err(ResolveError::Store(StoreError::Fenced))), "{fenced:?}");
    assert_eq!(rig.resolved_from(at(0)).await.len(), 10);

    // It comes as far as the commit, and crashes before it knows of it: the next one begins at the cursor.
    assert!(rig.resolver.round(&lease, &mut Stand::default()).await.unwrap());
    let _going = rig.start(PARTITION).await;
    rig.wait_until_resolved(at(30)).await;
    assert_ten_are_lost(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_can_be_read_when_resolve_comes_by_is_not_lost() {
    let rig = stopped(FLIP_A_BIT).await;
    rig.skipping().skip(WORKSPACE, at(10), "ann", true).await.unwrap();
    rig.services.run(FLIP_A_BIT).await;
    let _going = rig.start(PARTITION).await;
    rig.wait_until_resolved(at(30)).await;
    assert_eq!(rig.ids_from(at(0)).await, ["good", "bad", "behind"].map(|prefix| ids(prefix, 10)).concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_wrote_is_not_skipped() {
    let rig = Rig::new().await;
    let mut builder = BlockBuilder::default();
    builder.need_level(FEATURE_LEVEL + 1);
    builder.push(SourceId(1), 1, b"event");
    let block = builder.finish().unwrap();
    tracklayer_testkit::append(&rig.journal, WORKSPACE, PARTITION, &block).await.unwrap();
    let refused = rig.skipping().skip(WORKSPACE, at(0), "ann", true).await;
    assert!(matches!(refused, Err(SkipError::Newer { first, .. }) if first == at(0)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_with_a_bad_checksum_stops_its_partition_and_no_other_until_it_is_mended() {
    let rig = Rig::new().await;
    for prefix in ["good", "bad", "behind"] {
        rig.append(PARTITION, prefix, 1, 10).await;
    }
    rig.append(ANOTHER, "another", 3, 10).await;
    rig.services.run(FLIP_A_BIT).await;

    let stopped = rig.start(PARTITION).await;
    let running = rig.start(ANOTHER).await;
    rig.wait_until_resolved(Position::new(1, 1, 30)).await;
    rig.append(ANOTHER, "later", 1, 10).await;
    rig.wait_until_resolved(Position::new(1, 1, 40)).await;
    tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("it goes on").unwrap();
    assert_eq!(rig.ids_from(Position::new(1, 0, 0)).await, ids("good", 10), "nothing behind the bad block");
    assert_eq!(rig.ids_from(Position::new(1, 1, 0)).await, [ids("another", 30), ids("later", 10)].concat());

    rig.services.run(FLIP_A_BIT).await;
    let mended = rig.start(PARTITION).await;
    rig.wait_until_resolved(Position::new(1, 0, 30)).await;
    let all = ["good", "bad", "behind"].map(|prefix| ids(prefix, 10)).concat();
    assert_eq!(rig.ids_from(Position::new(1, 0, 0)).await, all, "each once, in order");
    rig.services.shutdown.cancel();
    running.await.unwrap();
    mended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_read_stands_raw_in_its_place_and_an_erased_one_is_no_event() {
    let rig = Rig::new().await;
    let garbage = Bytes::from_static(b"\xff\xff\xff");
    let good = |id: &str| Bytes::from(event(id).encode_to_vec());
    rig.append_bytes(PARTITION, &[good("m-0"), garbage.clone(), Bytes::new(), Bytes::new(), good("m-4")])
        .await;
    let _running = rig.start(PARTITION).await;
    rig.wait_until_resolved(Position::new(1, 0, 5)).await;
    let resolved = rig.resolved_from(Position::new(1, 0, 0)).await;
    assert_eq!((resolved[0].message_id.as_str(), resolved[4].message_id.as_str()), ("m-0", "m-4"));
    assert_eq!(resolved[1].event, garbage);
    assert!(resolved[1].poisoned.starts_with("the event cannot be decoded"), "{:?}", resolved[1]);
    for erased in &resolved[2..4] {
        assert_eq!((erased.poisoned.as_str(), &erased.duplicate), ("the event was erased", &None));
    }
}

/// A reader that some events crash.
fn fragile(bytes: &Bytes) -> Result<Event, String> {
    let event = read_event(bytes)?;
    assert!(
        !["first-1", "second-17", "second-18"].contains(&event.message_id.as_str()),
        "this event crashes its reader"
    );
    Ok(event)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_crashes_its_reader_three_times_is_bisected_out_and_stands_raw_in_its_place() {
    let services = Services::start().await;
    let pool = services.database.pool.clone();
    let rig = Rig::over(services, pool, fragile).await;
    rig.append(PARTITION, "first", 1, 40).await;
    rig.append(PARTITION, "second", 1, 40).await;
    let end = Position::new(1, 0, 80);
    let mut crashes = 0;
    loop {
        let running = rig.start(PARTITION).await;
        tokio::select! {
            ended = running => assert!(ended.unwrap_err().is_panic()),
            () = rig.wait_until_resolved(end) => break,
        }
        crashes += 1;
        assert!(crashes < 60, "it is never found");
    }
    assert!(
        (3..=3 * 3 + 3 * 7).contains(&crashes),
        "{crashes} crashes until three events were found among 80"
    );
    let resolved = rig.resolved_from(Position::new(1, 0, 0)).await;
    let all = [ids("first", 40), ids("second", 40)].concat();
    assert_eq!(resolved.len(), all.len());
    let mut unread = Vec::new();
    for (resolved, id) in resolved.iter().zip(all) {
        if resolved.poisoned.is_empty() {
            assert_eq!(resolved.message_id, id);
        } else {
            assert_eq!(resolved.poisoned, "it crashes its reader");
            assert_eq!(Event::decode(resolved.event.clone()).unwrap().message_id, id, "raw, as it came");
            unread.push(id);
        }
    }
    assert_eq!(unread, ["first-1", "second-17", "second-18"], "and nobody else");
}
