//! What events are reckoned to take in memory on their way into files is what they take: measured, by what the operating system says of
//! the process. Alone in its process, with one test.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Value, json};
use tracklayer_delivery::entry::Entry;
use tracklayer_delivery::file_memory::{reckoned, usual};
use tracklayer_destination::{Consent, Item, preview};
use tracklayer_ids::Position;
use tracklayer_lake::{PlacedRow, encode};
use tracklayer_proto::event::v1::ResolvedEvent;

/// A number of `/proc/self/status`, bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kilobytes: u64 = line.trim_matches([':', '\t', ' ']).split(' ').next().unwrap().parse().unwrap();
    kilobytes * 1_024
}

fn stored(number: usize, properties: &Value) -> Vec<u8> {
    let now = Timestamp::now();
    let event = json!({
        "type": "track", "event": "Order Completed", "messageId": format!("m-{number}"),
        "anonymousId": format!("visitor-{number}"), "properties": properties,
        "context": { "userAgent": "Mozilla/5.0", "page": { "url": "https://shop.example.com/" } },
    });
    let event = preview::parse(event, now).unwrap();
    let received_at = Some(prost_types::Timestamp { seconds: now.as_second(), nanos: 0 });
    let message_id = event.message_id.clone();
    let event = event.encode_to_vec().into();
    ResolvedEvent { event, message_id, received_at, ..ResolvedEvent::default() }.encode_to_vec()
}

/// As a lane does: events, rows, and one file of all. Answers what they are reckoned to take, and what usually such events do.
fn write(events: usize, properties: &Value) -> (u64, u64) {
    let document = json!({ "kind": "warehouse", "mode": "live", "settings": { "url": "file:///exports" } });
    let destination = tracklayer_destination::open(&document, &Default::default()).unwrap();
    let entries: Vec<Arc<Entry>> = (0..events)
        .map(|number| {
            let position = Position::new(1, 0, number as u64);
            Arc::new(Entry::decode(position, stored(number, properties).into()))
        })
        .collect();
    let items: Vec<(Position, Item)> = entries
        .iter()
        .map(|entry| {
            let event = entry.deliverable.as_ref().unwrap().for_connection(Consent::Allow, None);
            (entry.position, destination.build(&event, Timestamp::now()).unwrap())
        })
        .collect();
    let rows: Vec<PlacedRow> = items
        .iter()
        .map(|(position, item)| PlacedRow {
            position: *position,
            row: bytes::Bytes::copy_from_slice(item.body.as_str().as_bytes()),
        })
        .collect();
    let file = encode(&rows, &BTreeMap::new()).unwrap();
    assert!(!file.is_empty());
    let bytes = entries.iter().map(|entry| entry.raw.len()).sum();
    (entries.iter().map(|entry| reckoned(entry)).sum(), usual(events, bytes))
}

#[test]
fn events_take_no_more_memory_than_they_are_reckoned_to() {
    let words = |count: usize| -> Value {
        let words =
            (0..count).map(|n| json!({ "name": format!("product {n} \"new\""), "price": n, "sku": "A-1" }));
        json!({ "products": words.collect::<Vec<_>>() })
    };
    let short = json!({ "list": vec![1; 8_000] });
    // What a smaller one has left to the process is in the larger ones' way: the smallest first.
    let shapes = [
        ("small", 4_000, json!({ "value": 1 }), true),
        ("of several products", 3_000, words(20), true),
        ("one long text", 300, json!({ "note": "x".repeat(30_000) }), true),
        ("thousands of numbers", 300, short, false),
    ];
    let before = status("VmRSS");
    for (name, events, properties, is_usual) in shapes {
        let (reckoned, usual) = write(events, &properties);
        let taken = status("VmHWM").saturating_sub(before);
        let told = format!("{name}: taken {taken}, reckoned {reckoned}, usually {usual}");
        println!("{told}");
        assert!(taken <= reckoned, "{told}");
        assert!(taken * 5 > reckoned * 2, "by far too much: {told}");
        assert_eq!(reckoned <= usual, is_usual, "{told}");
    }
}
