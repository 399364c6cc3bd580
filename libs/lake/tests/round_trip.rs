//! What is written is what a reader of Parquet reads, to the last byte.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use parquet::basic::Compression;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use proptest::prelude::*;
use tracklayer_destination::warehouse::row::Row;
use tracklayer_ids::Position;
use tracklayer_lake::table::{SCHEMA_VERSION, encode};
use tracklayer_lake::{EncodeError, PlacedRow};

fn text() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "",
        "\0",
        "\u{feff}",
        "'; drop table events; --",
        "\\\"",
        "{\"a\":1e400}",
        "\u{202e}",
        "\r\n",
        "é́",
    ]);
    prop_oneof![3 => any::<String>(), 1 => hostile.prop_map(str::to_owned), 1 => "[a-z]{0,5000}"]
}

fn time() -> impl Strategy<Value = Timestamp> {
    // Whole microseconds: more a file does not hold.
    (-62_000_000_000_000_000i64..=200_000_000_000_000_000)
        .prop_map(|us| Timestamp::from_microsecond(us).unwrap())
}

fn row() -> impl Strategy<Value = Row> {
    let some = || prop::option::of(text());
    let ids = (text(), text(), some(), some(), some(), some(), some(), some(), some());
    let times = (time(), time(), prop::option::of(time()), prop::option::of(time()), any::<i64>());
    let texts = (some(), some(), some(), some(), some());
    (ids, times, texts).prop_map(|(i, t, x)| Row {
        message_id: i.0,
        event_type: i.1,
        event_name: i.2,
        category: i.3,
        user_id: i.4,
        anonymous_id: i.5,
        group_id: i.6,
        previous_id: i.7,
        profile_key: i.8,
        timestamp: t.0,
        received_at: t.1,
        original_timestamp: t.2,
        sent_at: t.3,
        source_id: t.4,
        channel: x.0,
        properties: x.1,
        traits: x.2,
        context: x.3,
        consent: x.4,
    })
}

fn placed(rows: &[Row]) -> Vec<PlacedRow> {
    let at = |(offset, row): (u64, &Row)| PlacedRow {
        position: Position::new(4_000_000_000, 63, u64::from(u32::MAX) * offset),
        row: serde_json::to_vec(row).unwrap().into(),
    };
    (0..).zip(rows).map(at).collect()
}

fn of_text(field: &Field) -> Option<String> {
    match field {
        Field::Null => None,
        Field::Str(text) => Some(text.clone()),
        other => panic!("no text: {other:?}"),
    }
}

fn of_number(field: &Field) -> Option<i64> {
    match field {
        Field::Null => None,
        Field::Long(number) | Field::TimestampMicros(number) => Some(*number),
        other => panic!("no number: {other:?}"),
    }
}

fn read(file: &Bytes) -> (Vec<Row>, Vec<[i64; 3]>) {
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    let mut rows = Vec::new();
    let mut places = Vec::new();
    for found in reader.get_row_iter(None).unwrap() {
        let found = found.unwrap();
        let columns: BTreeMap<&str, &Field> =
            found.get_column_iter().map(|(name, field)| (name.as_str(), field)).collect();
        assert_eq!(columns.len(), 22);
        let text = |name: &str| of_text(columns[name]);
        let number = |name: &str| of_number(columns[name]);
        let time = |name: &str| number(name).map(|us| Timestamp::from_microsecond(us).unwrap());
        rows.push(Row {
            message_id: text("message_id").unwrap(),
            event_type: text("event_type").unwrap(),
            event_name: text("event_name"),
            category: text("category"),
            user_id: text("user_id"),
            anonymous_id: text("anonymous_id"),
            group_id: text("group_id"),
            previous_id: text("previous_id"),
            profile_key: text("profile_key"),
            timestamp: time("timestamp").unwrap(),
            received_at: time("received_at").unwrap(),
            original_timestamp: time("original_timestamp"),
            sent_at: time("sent_at"),
            source_id: number("source_id").unwrap(),
            channel: text("channel"),
            properties: text("properties"),
            traits: text("traits"),
            context: text("context"),
            consent: text("consent"),
        });
        places.push(
            ["journal_generation", "journal_partition", "journal_offset"].map(|name| number(name).unwrap()),
        );
    }
    (rows, places)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_is_read(rows in prop::collection::vec(row(), 1..40)) {
        let metadata = BTreeMap::from([("tracklayer.connection_id".to_owned(), "7".to_owned())]);
        let placed = placed(&rows);
        let file = encode(&placed, &metadata).unwrap();
        prop_assert!(file == encode(&placed, &metadata).unwrap(), "the same rows are the same bytes");
        let (found, places) = read(&file);
        prop_assert_eq!(found, rows);
        for (place, row) in places.iter().zip(&placed) {
            let at = row.position;
            let wanted = [i64::from(at.generation.0), i64::from(at.partition.0), at.offset.0.cast_signed()];
            prop_assert_eq!(*place, wanted);
        }
    }
}

/// A row of which only the necessary is there.
fn least() -> Row {
    serde_json::from_value(serde_json::json!({
        "message_id": "m", "event_type": "track", "timestamp": "2026-11-29T12:00:00.123456789Z",
        "received_at": "2026-11-29T12:00:01Z", "source_id": 1,
    }))
    .unwrap()
}

#[test]
fn a_file_says_what_its_columns_are() {
    let rows = vec![least(); 1_000];
    let file = encode(&placed(&rows), &BTreeMap::from([("k".to_owned(), "v".to_owned())])).unwrap();
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    let metadata = reader.metadata();
    let pairs: Vec<(String, Option<String>)> = metadata
        .file_metadata()
        .key_value_metadata()
        .unwrap()
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone()))
        .collect();
    let (key, version) = SCHEMA_VERSION;
    let wanted = [(key.to_owned(), Some(version.to_owned())), ("k".to_owned(), Some("v".to_owned()))];
    assert_eq!(pairs, wanted);
    let schema = metadata.file_metadata().schema_descr();
    let columns: Vec<String> = schema
        .columns()
        .iter()
        .map(|column| {
            format!("{} {:?} {:?}", column.name(), column.physical_type(), column.logical_type_ref())
        })
        .collect();
    are_the_promised_ones(&columns);
    let group = metadata.row_group(0);
    assert!(group.columns().iter().all(|column| matches!(column.compression(), Compression::ZSTD(_))));
    assert!(file.len() < 16_000, "{} bytes for a thousand rows of nothing", file.len());
    // What is finer than a microsecond is cut off.
    let (found, _) = read(&file);
    assert_eq!(found[0].timestamp.to_string(), "2026-11-29T12:00:00.123456Z");
}

/// The columns are a promise: only ever more of them, at the end.
fn are_the_promised_ones(columns: &[String]) {
    let names: Vec<&str> = columns.iter().map(|column| column.split(' ').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "message_id",
            "event_type",
            "event_name",
            "category",
            "user_id",
            "anonymous_id",
            "group_id",
            "previous_id",
            "profile_key",
            "timestamp",
            "received_at",
            "original_timestamp",
            "sent_at",
            "source_id",
            "channel",
            "properties",
            "traits",
            "context",
            "consent",
            "journal_generation",
            "journal_partition",
            "journal_offset",
        ]
    );
    for column in columns {
        let is_time = ["timestamp", "received_at", "original_timestamp", "sent_at"]
            .iter()
            .any(|time| column.starts_with(&format!("{time} ")));
        let is_number = column.starts_with("source_id ") || column.starts_with("journal_");
        let fits = match (is_time, is_number) {
            (true, _) => column.contains("INT64 Some(Timestamp") && column.to_uppercase().contains("MICROS"),
            (_, true) => column.ends_with("INT64 None"),
            _ => column.ends_with("BYTE_ARRAY Some(String)"),
        };
        assert!(fits, "{column}");
    }
}

#[test]
fn what_is_no_row_is_told_by_its_place() {
    let mut rows = placed(&[least(), least()]);
    rows[1].row = Bytes::from_static(b"{\"message_id\":7}");
    let error = encode(&rows, &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, EncodeError::Row { position, .. } if position == rows[1].position), "{error:?}");
}
