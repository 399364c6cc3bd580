//! Bytes that are not what was written, events that cannot be read, and events that must not be.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tracklayer_delivery::resolve::read_event;
use tracklayer_ids::Position;
use tracklayer_proto::event::v1::Event;

use super::rig::{ANOTHER, PARTITION, Rig, event, ids};
use crate::services::Services;

#[tokio::test(flavor = "multi_thread")]
async fn a_block_with_a_bad_checksum_stops_its_partition_and_no_other_until_it_is_mended() {
    const FLIP_A_BIT: &str =
        "update journal.received set payload = set_byte(payload, 5, get_byte(payload, 5) # 1)
                              where partition = 0 and base_offset = 10";
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
