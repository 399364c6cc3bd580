//! A lane that writes files: an event is in one file, once, whatever ends in between.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use tracklayer_delivery::breaker::{Leave, Trouble};
use tracklayer_delivery::entry::Entry;
use tracklayer_delivery::file_memory::{FileMemory, reckoned};
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::store::lanes::LaneStore;
use tracklayer_destination::HoldKind;
use tracklayer_ids::{Partition, Position};
use tracklayer_lake::Rules;
use tracklayer_proto::consent::v1::{Place, RecordItem, RecordRequest, Subject, SubjectLevel};
use tracklayer_proto::event::v1::{CategoryPreference, ConsentSignals};
use tracklayer_testkit::eventually_seen;

use super::bucket::{Bucket, Reply};
use super::rig::{CONNECTION, REVISION, Rig, order};
use crate::services::WORKSPACE;

/// An event of this name.
fn event(number: usize, name: &str) -> Value {
    let mut event = order(&format!("m-{number}"), &format!("visitor-{number}"));
    event["event"] = json!(name);
    event
}

/// Six events of three names, in turn.
fn six(from: usize) -> Vec<Value> {
    let names = ["Order Completed", "Product Viewed", "../Заказ"];
    (from..from + 6).map(|number| event(number, names[number % 3])).collect()
}

async fn puts(bucket: &Bucket, wanted: usize) {
    eventually_seen("the files to be written", async || {
        let puts = bucket.puts().len();
        if puts >= wanted { Ok(()) } else { Err(puts) }
    })
    .await;
}

/// All message_ids that a reader finds; each of them once.
fn found(bucket: &Bucket) -> BTreeSet<String> {
    let all: Vec<String> = bucket.found().into_values().flatten().collect();
    let distinct: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(all.len(), distinct.len(), "nothing is there twice: {:?}", bucket.found());
    distinct
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
    numbers.into_iter().map(|number| format!("m-{number}")).collect()
}

/// A lane that has crashed when two of its three files were there and none was answered for.
async fn crashed(bucket: &Bucket) -> Rig {
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.always(Reply::KeepAndHang);
    rig.resolved(&six(0)).await;
    rig.start().await;
    // Two at a time: the third waits for one of them to end.
    puts(bucket, 2).await;
    rig.crash().await;
    assert_eq!(rig.number("select count(*) from delivery.intent where files <> ''").await, 1);
    bucket.always(Reply::Keep);
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_cut_off_are_written_again_with_the_same_names_and_bytes() {
    let bucket = Bucket::start().await;
    let mut rig = crashed(&bucket).await;
    let before = bucket.puts();
    // Cut anew, the files would have these as well.
    rig.resolved(&six(6)).await;
    rig.start().await;
    for offset in 0..12 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(found(&bucket), ids(0..12));
    assert_eq!(bucket.found().len(), 6, "three files of each write: {:?}", bucket.found());
    let after = &bucket.puts()[before.len()..];
    for (name, bytes) in &before {
        let again =
            after.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("{name}: {after:?}"));
        assert!(
            again.1 == *bytes,
            "{name} is the same file: what arrives of the first one later changes nothing"
        );
    }
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_its_folder_its_name_and_its_events_in_order() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    rig.resolved(&six(0)).await;
    rig.start().await;
    rig.ends_as(5, State::Delivered).await;
    let found = bucket.found();
    let day = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let installation = rig.services.master_key.installation();
    let expected = [("order_completed", 0), ("product_viewed", 1), ("unnamed-", 2)];
    for ((name, events), (event, first)) in found.iter().zip(expected) {
        assert!(name.starts_with(&format!("lake/events/day={day}/event={event}")), "{name}");
        let (rest, mark) = name.strip_suffix(".parquet").unwrap().rsplit_once('-').unwrap();
        let file = format!("/{installation}-c7-p000-g00001-{first:016}-{:016}", first + 3);
        assert!(rest.ends_with(&file) && mark.len() == 12, "{name}");
        assert_eq!(*events, [format!("m-{first}"), format!("m-{}", first + 3)]);
    }
    assert_eq!(found.len(), 3);
    assert_eq!(rig.ends_as(0, State::Delivered).await.attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_that_cannot_be_written_holds_the_lane_and_the_others_are_not_written_again() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.next([Reply::Keep, Reply::Refuse(403, "AccessDenied"), Reply::Keep]);
    rig.resolved(&six(0)).await;
    rig.start().await;
    rig.ends_as(5, State::Delivered).await;
    assert_eq!(found(&bucket), ids(0..6));
    let names: Vec<String> = bucket.puts().into_iter().map(|(name, _)| name).collect();
    assert_eq!((names.len(), names.iter().collect::<BTreeSet<_>>().len()), (4, 3), "{names:?}");
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_refuses_is_told_with_what_to_do_and_goes_out_when_it_is_mended() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.always(Reply::Refuse(404, "NoSuchBucket"));
    rig.resolved(&six(0)).await;
    rig.start().await;
    rig.reaches(
        "select count(*) from delivery.lane_hold where kind = 'configuration' and detail like '%NoSuchBucket: there is no such bucket: make it%'",
        1,
    )
    .await;
    assert_eq!(rig.number("select count(*) from delivery.ledger_block").await, 0);
    bucket.always(Reply::Keep);
    rig.ends_as(5, State::Delivered).await;
    assert_eq!(found(&bucket), ids(0..6));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_waits_for_more_until_it_is_enough_or_old_enough() {
    let bucket = Bucket::start().await;
    let settings = bucket.settings(json!({ "rows_per_file": 4, "seconds_per_file": 3600 }));
    let mut rig = Rig::with_settings("warehouse", settings).await;
    rig.resolved(&six(0)[..3]).await;
    rig.start().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(bucket.puts().len(), 0, "three are not enough");
    rig.resolved(&six(0)[3..]).await;
    rig.ends_as(3, State::Delivered).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(found(&bucket), ids(0..4), "never more than four rows");
    // Later than an hour after they were received.
    rig.clock.advance(Duration::from_secs(3_601));
    rig.ends_as(5, State::Delivered).await;
    assert_eq!(found(&bucket), ids(0..6));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_rest_of_a_write_that_leads_elsewhere_by_now_is_for_a_person() {
    let (bucket, other) = (Bucket::start().await, Bucket::start().await);
    let mut rig = crashed(&bucket).await;
    leads_to(&mut rig, &other);
    rig.resolved(&six(6)).await;
    rig.start().await;
    for offset in 0..6 {
        let dead = rig.ends_as(offset, State::Dead).await;
        assert_eq!(dead.reason, "outcome_unknown");
        assert!(dead.detail.contains("look for the event in the files"), "{}", dead.detail);
    }
    rig.ends_as(11, State::Delivered).await;
    assert_eq!(found(&other), ids(6..12), "nothing is in both places");
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_withdraws_after_a_crash_is_left_out_of_the_file() {
    let bucket = Bucket::start().await;
    let mut rig = crashed(&bucket).await;
    opts_out(&rig, "visitor-0").await;
    rig.start().await;
    let dead = rig.ends_as(0, State::Dead).await;
    assert_eq!(dead.reason, "outcome_unknown");
    rig.ends_as(5, State::Delivered).await;
    assert_eq!(found(&bucket), ids(1..6), "written again without it");
    let names: BTreeSet<String> = bucket.puts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 3, "under the same name: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_withdraws_before_a_file_is_blocked_and_never_in_it() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    rig.resolved(&six(0)).await;
    opts_out(&rig, "visitor-1").await;
    rig.start().await;
    rig.ends_as(1, State::Blocked).await;
    rig.ends_as(5, State::Delivered).await;
    assert_eq!(found(&bucket), ids([0, 2, 3, 4, 5]));
    assert!(bucket.puts().iter().all(|(_, bytes)| !bytes.windows(3).any(|three| three == b"m-1")));
}

/// Somebody turns statistics off.
async fn opts_out(rig: &Rig, visitor: &str) {
    assert_eq!(says(rig, visitor, false).await, 1);
}

/// Somebody says whether statistics may be made. Answers how many that narrowed.
async fn says(rig: &Rig, visitor: &str, allowed: bool) -> u64 {
    let device = rig.services.master_key.workspace(WORKSPACE).subject("anonymous_id", visitor);
    let subject =
        Subject { key: device.0.to_vec(), level: SubjectLevel::Device.into(), ..Subject::default() };
    let signals = ConsentSignals {
        has_categories: true,
        interaction: true,
        categories: vec![CategoryPreference { category: "Analytics".to_owned(), allowed }],
        place: "US-TX".to_owned(),
        ..ConsentSignals::default()
    };
    let now = jiff::Timestamp::now();
    let now = Some(prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() });
    let item = RecordItem {
        subjects: vec![subject],
        signals: Some(signals),
        captured_at: now,
        received_at: now,
        places: vec![Place { code: "US-TX".to_owned(), provenance: "event".to_owned() }],
        message_id: format!("signal-{visitor}-{allowed}"),
        ..RecordItem::default()
    };
    let request = RecordRequest { workspace_id: WORKSPACE.0, items: vec![item] };
    let recorded = rig.services.clients.consent.clone().record(request).await.unwrap().into_inner();
    u64::from(recorded.narrowed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_written_to_only_where_the_operator_allows_it() {
    let exports = tempfile::tempdir().unwrap();
    let folder = exports.path().join("northline");
    let settings = json!({ "url": format!("file://{}", folder.display()), "seconds_per_file": 1 });
    let mut rig = Rig::with_settings("warehouse", settings).await;
    rig.resolved(&six(0)).await;
    rig.start().await;
    let refused = "select count(*) from delivery.lane_hold where kind = 'configuration' and detail like '%warehouse_root%'";
    rig.reaches(refused, 1).await;
    rig.crash().await;
    assert!(!folder.exists());
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0, "nothing was begun");

    rig.files = Rules { root: Some(exports.path().to_owned()), allow_private: false };
    rig.start().await;
    rig.ends_as(5, State::Delivered).await;
    let days: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let days: BTreeSet<String> = days.into_iter().map(|name| name.into_string().unwrap()).collect();
    assert!(days.len() == 2 && days.contains("_incomplete"), "{days:?}");
    let left = std::fs::read_dir(folder.join("_incomplete")).unwrap().count();
    assert_eq!(left, 0, "nothing half is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_write_that_was_given_up_is_not_written_over() {
    let bucket = Bucket::start().await;
    let mut rig = crashed(&bucket).await;
    let before = found(&bucket);
    // As if an operator had given the first event up in between: the cursor stands behind it.
    rig.services.run("update delivery.lane_cursor set next_offset = 1 where connection_id = 7").await;
    let intents = LaneStore::new(rig.services.database.pool.clone());
    assert_eq!(intents.open_intents(Rig::duty()).await.unwrap().len(), 1);
    let puts_before = bucket.puts().len();
    rig.resolved(&six(6)).await;
    rig.start().await;
    for offset in 1..6 {
        let dead = rig.ends_at(Position::new(1, 0, offset), State::Dead).await;
        assert_eq!(dead.reason, "outcome_unknown");
    }
    rig.ends_as(11, State::Delivered).await;
    let files: BTreeSet<String> = before.union(&ids(6..12)).cloned().collect();
    assert_eq!(found(&bucket), files, "what the files had they have");
    assert_eq!(bucket.puts().len(), puts_before + 3);
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_withdraws_while_files_are_written_is_not_in_those_that_come_after() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.always(Reply::KeepAndWait);
    rig.resolved(&six(0)).await;
    rig.start().await;
    // Two at a time: the third comes after.
    puts(&bucket, 2).await;
    opts_out(&rig, "visitor-5").await;
    bucket.answers();
    rig.ends_as(5, State::Blocked).await;
    rig.ends_as(2, State::Delivered).await;
    assert_eq!(found(&bucket), ids(0..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_begun_go_where_the_connection_leads_by_then() {
    let (bucket, other) = (Bucket::start().await, Bucket::start().await);
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.always(Reply::KeepAndWait);
    rig.resolved(&six(0)).await;
    rig.start().await;
    puts(&bucket, 2).await;
    leads_to(&mut rig, &other);
    bucket.answers();
    for offset in 0..6 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(found(&bucket), ids([0, 3, 1, 4]), "what was begun");
    assert_eq!(found(&other), ids([2, 5]), "and the rest, which nobody had tried to write");
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

/// The connection leads elsewhere from now on.
fn leads_to(rig: &mut Rig, bucket: &Bucket) {
    let mut document = json!({ "kind": "warehouse", "mode": "live", "settings": bucket.settings(json!({})) });
    let paths = tracklayer_destination::secret_paths(tracklayer_destination::Kind::Warehouse);
    tracklayer_secrets::seal_document(&rig.services.master_key.secrets(), &mut document, paths).unwrap();
    rig.control_says(|connection, _| {
        connection.document_json = document.to_string();
        connection.revision += 1;
    });
}

/// Events of one name, each with that many bytes of text.
fn large(numbers: std::ops::Range<usize>, bytes: usize) -> Vec<Value> {
    let large = |number: usize| {
        let mut event = event(number, "Order Completed");
        event["properties"]["note"] = json!("x".repeat(bytes));
        event
    };
    numbers.map(large).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_gathered_than_there_is_room_for() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    rig.file_memory = FileMemory::new(2_000_000);
    rig.resolved(&large(0..100, 5_000)).await;
    rig.start().await;
    for offset in 0..100 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(found(&bucket), ids(0..100));
    let one = rig.resolve_event(&large(0..1, 5_000)[0], jiff::Timestamp::now()).encode_to_vec();
    let one = Entry::decode(Position::new(1, 0, 0), one.into());
    let most = rig.file_memory.of_a_workspace() / reckoned(&one);
    let rows: Vec<usize> = bucket.found().values().map(Vec::len).collect();
    assert!(rows.iter().all(|rows| *rows as u64 <= most), "at most {most} a file: {rows:?}");
    assert!(rows.iter().any(|rows| *rows > 10), "and as many as there is room for: {rows:?}");
    eventually_seen("the room to be given back", async || none_in_use(&rig)).await;
}

fn none_in_use(rig: &Rig) -> Result<(), u64> {
    match rig.file_memory.in_use() {
        0 => Ok(()),
        bytes => Err(bytes),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_waits_for_room_before_it_begins_anything() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    let others = rig.file_memory.whole(WORKSPACE, u64::MAX).await;
    rig.due_again(&six(0)).await;
    rig.resolved(&six(6)).await;
    rig.start().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(bucket.puts().len(), 0);
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0, "nothing was begun");
    drop(others);
    for offset in 0..12 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(found(&bucket), ids(0..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_held_lets_go_of_its_events_and_knows_what_was_written() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.always(Reply::Refuse(503, "SlowDown"));
    bucket.next([Reply::Keep]);
    rig.resolved(&six(0)).await;
    rig.start().await;
    rig.reaches("select count(*) from delivery.lane_hold where attempts > 1", 1).await;
    eventually_seen("the held lane to have nothing in memory", async || none_in_use(&rig)).await;
    assert_eq!(rig.number("select count(*) from delivery.ledger_block").await, 0, "nothing is committed");
    let kept: Vec<String> = bucket.found().into_keys().collect();
    bucket.always(Reply::Keep);
    for offset in 0..6 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(found(&bucket), ids(0..6));
    let puts = bucket.puts();
    let of_kept = puts.iter().filter(|(name, _)| kept.contains(name)).count();
    assert_eq!((kept.len(), of_kept), (1, 1), "what was written is not written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_left_out_of_a_file_does_not_take_its_place_after_a_hold() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.always(Reply::Refuse(403, "AccessDenied"));
    bucket.next([Reply::KeepAndWait, Reply::KeepAndWait]);
    rig.resolved(&six(0)).await;
    opts_out(&rig, "visitor-0").await;
    rig.start().await;
    puts(&bucket, 2).await;
    bucket.answers();
    rig.reaches("select count(*) from delivery.lane_hold where attempts > 1", 1).await;
    says(&rig, "visitor-0", true).await;
    bucket.always(Reply::Keep);
    rig.ends_as(0, State::Blocked).await;
    for offset in 1..6 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(found(&bucket), ids(1..6));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_again_is_in_one_file_whatever_else_comes_due_meanwhile() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.always(Reply::KeepAndHangUp);
    let later = jiff::Timestamp::now() + Duration::from_secs(2);
    rig.due_again(&large(0..2, 10)).await;
    rig.due_again_at(later, &large(2..3, 10)).await;
    rig.start().await;
    puts(&bucket, 1).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let (first, _) = bucket.puts()[0].clone();
    bucket.always(Reply::Keep);
    for offset in 0..3 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(found(&bucket), ids(0..3));
    assert_eq!(bucket.found().len(), 2, "a file of two and one of what came after: {:?}", bucket.found());
    assert_eq!(bucket.found()[&first], ["m-0", "m-1"]);
    rig.reaches("select count(*) from delivery.intent", 0).await;
    assert_eq!(rig.number("select count(*) from delivery.retry").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tried_again_and_cut_off_is_written_again_as_the_same_file() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.always(Reply::KeepAndHang);
    rig.due_again(&six(0)).await;
    rig.start().await;
    puts(&bucket, 2).await;
    rig.crash().await;
    let before = bucket.puts();
    bucket.always(Reply::Keep);
    rig.resolved(&six(6)).await;
    rig.start().await;
    for offset in 0..12 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(found(&bucket), ids(0..12));
    assert_eq!(bucket.found().len(), 6, "{:?}", bucket.found());
    let after = &bucket.puts()[before.len()..];
    for (name, bytes) in &before {
        assert!(
            after.iter().any(|(other, again)| other == name && again == bytes),
            "{name} is the same file"
        );
    }
    rig.reaches("select count(*) from delivery.intent", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_is_tried_with_one_file_at_a_time() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    bucket.next([Reply::Refuse(503, "ServiceUnavailable"); 5]);
    rig.resolved(&six(0)).await;
    rig.start().await;
    let told = "select count(*) from delivery.lane_hold where detail like '%ServiceUnavailable%the circuit is open%'";
    rig.reaches(told, 1).await;
    rig.ends_as(5, State::Delivered).await;
    assert_eq!(found(&bucket), ids(0..6));
    let names: Vec<String> = bucket.puts().into_iter().map(|(name, _)| name).collect();
    // Two together; then the first alone, until it is there; then the others.
    assert_eq!(names.len(), 2 + 4 + 2, "{names:?}");
    assert!(names[2..6].iter().all(|name| *name == names[2]) && names[..2].contains(&names[2]), "{names:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3, "the same names each time: {names:?}");
    rig.reaches("select count(*) from delivery.lane_hold", 0).await;
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_written_while_another_lane_has_the_circuit_open_until_the_key_is_mended() {
    let bucket = Bucket::start().await;
    let mut rig = Rig::with_settings("warehouse", bucket.settings(json!({}))).await;
    let other = rig.breakers.join(CONNECTION, Partition(1));
    let after = Some(Duration::from_secs(3_000));
    let refused = Trouble { kind: HoldKind::Auth, detail: "AccessDenied".to_owned(), after };
    other.failed(REVISION, &Leave::Free, &refused);
    rig.resolved(&six(0)).await;
    rig.start().await;
    let told = "select count(*) from delivery.lane_hold where kind = 'auth' and detail like '%AccessDenied%the circuit is open%'";
    rig.reaches(told, 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(bucket.puts().len(), 0);
    assert_eq!(rig.number("select count(*) from delivery.intent").await, 0, "nothing was begun");
    rig.control_says(|connection, _| connection.revision += 1);
    rig.ends_as(5, State::Delivered).await;
    assert_eq!(found(&bucket), ids(0..6));
    assert_eq!(bucket.puts().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_the_lanes_own_waits_by_itself_when_the_time_of_an_open_circuit_has_come() {
    // No folder is allowed: what the lane finds out says nothing of the circuit, which stays as it is.
    let settings = json!({ "url": "file:///nowhere/northline", "seconds_per_file": 1 });
    let mut rig = Rig::with_settings("warehouse", settings).await;
    let other = rig.breakers.join(CONNECTION, Partition(1));
    let away = Trouble { kind: HoldKind::Throttled, detail: "away".to_owned(), after: None };
    other.failed(REVISION, &Leave::Free, &away);
    rig.clock.advance(Duration::from_secs(3_600));
    rig.resolved(&six(0)).await;
    rig.start().await;
    let told = "select count(*) from delivery.lane_hold where kind = 'configuration' and attempts >= 2";
    rig.reaches(told, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let attempts = rig.number("select max(attempts)::bigint from delivery.lane_hold").await;
    assert!(attempts < 30, "{attempts} in a second");
}
