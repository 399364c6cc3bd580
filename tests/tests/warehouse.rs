//! A warehouse beside the ad platforms, while delivery is killed again and again: every accepted event is in the files once, in order,
//! and the ledger says the same. Once in a folder, once in a bucket of a server that speaks S3; both are read by us and by DuckDB.
//!
//! Delivery is killed at moments at which files are being written. `WAREHOUSE_EVENTS` is how many events there are (2,400 where it is not
//! set), `WAREHOUSE_KILLS` how often it is killed (5).

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use serde_json::{Value, json};
use tracklayer_tests::batches::{in_state, send_batch};
use tracklayer_tests::bucket::BucketServer;
use tracklayer_tests::clients::{self, Client};
use tracklayer_tests::small_disk::SmallDisk;
use tracklayer_tests::{Options, Platform, Processes, Role, Running, eventually, eventually_within};

/// People whose events they are.
const VISITORS: u64 = 41;
/// Events in one request.
const BATCH: u64 = 40;
/// Names of events: what people write into SDKs.
const NAMES: [&str; 8] = [
    "Order Completed",
    "Product Viewed",
    "product_viewed",
    "../../etc/passwd",
    "Заказ оформлен",
    "a/b\\c:d*e?",
    "event=x/day=2000-01-01",
    "CON.\u{202e}",
];
/// Partitions of the workspace.
const PARTITIONS: i64 = 4;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn message_id(number: u64) -> String {
    format!("lake-{number:06}")
}

fn name_of(number: u64) -> &'static str {
    NAMES[(number / 3) as usize % NAMES.len()]
}

fn event(number: u64) -> Value {
    let visitor = number % VISITORS;
    json!({
        "type": "track", "event": name_of(number), "messageId": message_id(number),
        "anonymousId": format!("lake-visitor-{visitor}"),
        "properties": { "revenue": 0.1, "number": number, "note": "it's \"quoted\" and 你好" },
        "context": { "userAgent": "Mozilla/5.0", "ip": "203.0.113.7", "page": { "url": "https://shop.northline.example/" } },
    })
}

async fn publish(url: String, write_key: String, events: u64) {
    let http = reqwest::Client::new();
    for first in (0..events).step_by(BATCH as usize) {
        let batch: Vec<Value> = (first..(first + BATCH).min(events)).map(event).collect();
        send_batch(&http, &url, &write_key, &batch).await.unwrap();
        tokio::time::sleep(Duration::from_millis(450)).await;
    }
}

/// Adds the connection `lake` and waits until its lanes have begun, from where on everything is accounted for.
async fn connect(platform: &Running, database: &sqlx::PgPool, settings: Value) -> i64 {
    let document = json!({ "kind": "warehouse", "mode": "live", "settings": settings });
    let file = platform.data_dir().join("lake.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let made = platform.cli_json(&["connections", "put", "lake", file.to_str().unwrap()]).await.unwrap();
    let shown = made.to_string();
    assert!(!shown.contains("s3cret-key"), "{shown}");
    let id = made[0]["connection_id"].as_i64().unwrap_or_else(|| panic!("{made:#}"));
    eventually("the lanes of the warehouse to begin", async || {
        let lanes =
            number(database, "select count(*) from delivery.lane_cursor where connection_id = $1", id).await;
        if lanes == PARTITIONS { Ok(()) } else { Err(format!("{lanes} lanes")) }
    })
    .await;
    id
}

async fn number(database: &sqlx::PgPool, query: &'static str, id: i64) -> i64 {
    let (number,): (i64,) = sqlx::query_as(query).bind(id).fetch_one(database).await.unwrap();
    number
}

/// Kills delivery while files are being written, so often. Answers how often something was left in the middle.
async fn kill(processes: &mut Processes, database: &sqlx::PgPool, id: i64, times: u64) -> u64 {
    const BEGUN: &str = "select count(*) from delivery.intent where files <> '' and connection_id = $1";
    let mut in_the_middle = 0;
    for _ in 0..times {
        // Kills hit something new: what the one before has left is done by then.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        eventually_within(Duration::from_secs(60), "files to be begun", async || {
            let begun = number(database, BEGUN, id).await;
            if begun > 0 { Ok(()) } else { Err("none") }
        })
        .await;
        processes.kill(Role::Delivery).unwrap();
        in_the_middle += u64::from(number(database, BEGUN, id).await > 0);
        processes.start(Role::Delivery).await.unwrap();
    }
    in_the_middle
}

/// A row, as far as it is looked at.
#[derive(Debug)]
struct Found {
    message_id: String,
    name: String,
    day: String,
    number: u64,
    visitor: String,
    place: (i64, i64, i64),
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// Reads every file. Each has its rows in order, and is where its rows say.
fn read(folder: &Path) -> Vec<Found> {
    let mut files = Vec::new();
    files_below(folder, &mut files);
    let mut all = Vec::new();
    for path in files {
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap());
        let reader = reader.unwrap_or_else(|error| panic!("{} is not whole: {error}", path.display()));
        let columns: Vec<String> = reader
            .metadata()
            .file_metadata()
            .schema()
            .get_fields()
            .iter()
            .map(|f| f.name().to_owned())
            .collect();
        let at = |name: &str| columns.iter().position(|column| column == name).unwrap();
        let rows: Vec<Found> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| {
                let row = row.unwrap();
                let text = |name: &str| row.get_string(at(name)).unwrap().clone();
                let number = |name: &str| row.get_long(at(name)).unwrap();
                let received = row.get_timestamp_micros(at("received_at")).unwrap();
                let properties: Value = serde_json::from_str(&text("properties")).unwrap();
                assert_eq!(properties["note"], "it's \"quoted\" and 你好");
                Found {
                    message_id: text("message_id"),
                    name: text("event_name"),
                    day: jiff::Timestamp::from_microsecond(received)
                        .unwrap()
                        .strftime("%Y-%m-%d")
                        .to_string(),
                    number: properties["number"].as_u64().unwrap(),
                    visitor: text("anonymous_id"),
                    place: (
                        number("journal_partition"),
                        number("journal_generation"),
                        number("journal_offset"),
                    ),
                }
            })
            .collect();
        assert!(rows.iter().map(|row| row.place).is_sorted(), "{}", path.display());
        let below = path.strip_prefix(folder).unwrap().to_str().unwrap();
        let (first, last) = (rows.first().unwrap(), rows.last().unwrap());
        assert!(
            rows.iter().all(|row| below.contains(&format!("day={}/event=", row.day))),
            "{below}: {rows:?}"
        );
        let (name, mark) = below.strip_suffix(".parquet").unwrap().rsplit_once('-').unwrap();
        let ends = format!("-{:016}-{:016}", first.place.2, last.place.2);
        assert!(name.ends_with(&ends) && mark.len() == 12, "{below}: {first:?} {last:?}");
        all.extend(rows);
    }
    all
}

/// What the ledger says, and what the files hold: each event once, and everybody's in the order in which they came.
async fn check(platform: &Running, found: &[Found], events: u64) {
    let lake = platform.cli_json(&["stats"]).await.unwrap()["connections"]["lake"].clone();
    assert_eq!((in_state(&lake, "delivered"), in_state(&lake, "dead")), (events, 0), "{lake:#}");
    let balance = platform.cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
    let ids: BTreeSet<&str> = found.iter().map(|row| row.message_id.as_str()).collect();
    let sent: BTreeSet<String> = (0..events).map(message_id).collect();
    let lost: Vec<&String> = sent.iter().filter(|id| !ids.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    assert_eq!((found.len(), ids.len()), (sent.len(), sent.len()), "each once");
    let mut by_visitor: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for row in found {
        assert_eq!(row.name, name_of(row.number));
        by_visitor.entry(&row.visitor).or_default().push(row);
    }
    for (visitor, mut rows) in by_visitor {
        rows.sort_by_key(|row| row.place);
        assert!(rows.iter().all(|row| row.place.0 == rows[0].place.0), "{visitor} is in one partition");
        assert!(rows.iter().map(|row| row.number).is_sorted(), "{visitor}'s events keep their order");
    }
    let story = platform.story(&message_id(0)).await.unwrap();
    assert_eq!(story.first().at("lake").state, "delivered");
}

/// What DuckDB finds in the same files.
async fn check_with_duckdb(client: &Client, folder: &Path, events: u64, files: usize) {
    let said: Value = client.run(&["read", folder.to_str().unwrap()], &json!(null)).await.unwrap();
    assert_eq!(
        (&said["rows"], &said["ids"], &said["wrong_day"]),
        (&json!(events), &json!(events), &json!(0))
    );
    assert_eq!(said["files"], json!(files), "{said:#}");
    assert_eq!(said["revenue"], format!("{}.{}0", events / 10, events % 10), "to the cent");
    for (column, kind) in [
        ("message_id", "VARCHAR"),
        ("event_name", "VARCHAR"),
        ("properties", "VARCHAR"),
        ("timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("original_timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("source_id", "BIGINT"),
        ("journal_offset", "BIGINT"),
        ("day", "VARCHAR"),
        ("event", "VARCHAR"),
    ] {
        assert_eq!(said["columns"][column], kind, "{column} of {:#}", said["columns"]);
    }
    for name in NAMES {
        let wanted = (0..events).filter(|number| name_of(*number) == name).count();
        assert_eq!(said["by_name"][name], json!(wanted), "{name:?}");
    }
    println!("DuckDB: {events} events in {files} files, revenue {}", said["revenue"]);
}

/// Services as processes; files may be written below a folder.
async fn start(root: &Path) -> (Processes, sqlx::PgPool) {
    let environment = vec![("TRACKLAYER_DELIVERY__WAREHOUSE_ROOT".to_owned(), root.display().to_string())];
    let options = Options { lease_ms: Some(1_000), environment, ..Options::default() };
    let processes = Platform::processes(options).await.unwrap();
    let database = sqlx::PgPool::connect(&processes.platform().addresses().database_url).await.unwrap();
    (processes, database)
}

/// Publishes everything while delivery is killed; returns when nothing is on its way any more.
async fn live_through(processes: &mut Processes, database: &sqlx::PgPool, settings: Value, events: u64) {
    let id = connect(processes.platform(), database, settings).await;
    let (url, key) = (
        processes.platform().addresses().ingest_http.clone(),
        processes.platform().write_key("web-us").to_owned(),
    );
    let publishing = tokio::spawn(publish(url, key, events));
    let kills = from_environment("WAREHOUSE_KILLS", 5);
    let in_the_middle = kill(processes, database, id, kills).await;
    publishing.await.unwrap();
    eventually_within(Duration::from_secs(180), "the warehouse to have everything", async || {
        let lake = processes.platform().cli_json(&["stats"]).await?["connections"]["lake"].clone();
        let done = in_state(&lake, "delivered") == events && lake["waiting"] == 0;
        if done { Ok(()) } else { Err(anyhow::anyhow!("{lake:#}")) }
    })
    .await;
    let left = number(database, "select count(*) from delivery.intent where connection_id = $1", id).await;
    assert_eq!(left, 0, "nothing is left begun");
    println!(
        "{events} events, delivery killed {kills} times, {in_the_middle} times with files begun and not committed"
    );
    assert!(in_the_middle > 0 || kills == 0, "the kills hit no file");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_in_the_files_of_a_folder_once_however_often_delivery_is_killed() {
    let events = from_environment("WAREHOUSE_EVENTS", 2_400);
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("northline/events");
    let (mut processes, database) = start(root.path()).await;
    let settings = json!({
        "url": format!("file://{}", folder.display()), "rows_per_file": 100, "seconds_per_file": 1,
    });
    live_through(&mut processes, &database, settings, events).await;
    let mut incomplete = Vec::new();
    files_below(&folder.join("_incomplete"), &mut incomplete);
    assert!(incomplete.is_empty(), "nothing half is left: {incomplete:?}");
    std::fs::remove_dir(folder.join("_incomplete")).unwrap();
    let found = read(&folder);
    check(processes.platform(), &found, events).await;
    if let Some(client) = clients::warehouse().await {
        let mut files = Vec::new();
        files_below(&folder, &mut files);
        check_with_duckdb(&client, &folder, events, files.len()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_in_a_bucket_once_however_often_delivery_is_killed() {
    let events = from_environment("WAREHOUSE_EVENTS", 2_400);
    let Some(client) = clients::warehouse().await else { return };
    let root = tempfile::tempdir().unwrap();
    let server = BucketServer::start(&client, root.path(), "northline-lake").await.unwrap();
    let (mut processes, database) = start(Path::new("/nowhere")).await;
    let settings = json!({
        "url": "s3://northline-lake/events", "endpoint": server.endpoint(), "region": "eu-central-1",
        "access_key_id": "test", "secret_access_key": "s3cret-key", "rows_per_file": 100, "seconds_per_file": 1,
    });
    live_through(&mut processes, &database, settings, events).await;
    let copy = root.path().join("copy");
    let copied: Value = client
        .run(&["fetch", server.endpoint(), "northline-lake", copy.to_str().unwrap()], &json!(null))
        .await
        .unwrap();
    let folder = copy.join("events");
    check(processes.platform(), &read(&folder), events).await;
    let files = usize::try_from(copied["objects"].as_u64().unwrap()).unwrap();
    check_with_duckdb(&client, &folder, events, files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_the_warehouse_alone_and_everything_is_there_once_there_is_room() {
    const EVENTS: u64 = 80;
    let platform = Platform::start(Options::default()).await.unwrap();
    let folder = platform.data_dir().join("warehouse/disk");
    let disk = match SmallDisk::mount(&folder, 8 * 1024 * 1024) {
        Ok(disk) => disk,
        Err(error) => {
            // Straight to the stream: the test runner captures what passes through `eprintln!`.
            let _ = writeln!(std::io::stderr(), "SKIPPED a full disk: {error:#}");
            return;
        }
    };
    disk.fill().unwrap();
    let database = sqlx::PgPool::connect(&platform.addresses().database_url).await.unwrap();
    let settings = json!({ "url": format!("file://{}", folder.display()), "seconds_per_file": 1 });
    connect(&platform, &database, settings).await;
    publish(platform.addresses().ingest_http.clone(), platform.write_key("web-us").to_owned(), EVENTS).await;
    eventually("the warehouse to say that the disk is full", async || {
        let stats = platform.cli_json(&["stats"]).await?["connections"].clone();
        let health = stats["lake"]["health"].as_str().unwrap_or_default().to_owned();
        let others = in_state(&stats["crm-webhook"], "delivered") == EVENTS;
        let full = health.contains("StorageFull: the folder's disk is full: make room");
        if full && others { Ok(()) } else { Err(anyhow::anyhow!("{stats:#}")) }
    })
    .await;
    assert_eq!(read(&folder.join("_incomplete")).len(), 0, "nothing half is left in the way");
    disk.free().unwrap();
    eventually_within(Duration::from_secs(90), "everything to be written", async || {
        let lake = platform.cli_json(&["stats"]).await?["connections"]["lake"].clone();
        if in_state(&lake, "delivered") == EVENTS { Ok(()) } else { Err(anyhow::anyhow!("{lake:#}")) }
    })
    .await;
    check(&platform, &read(&folder), EVENTS).await;
}
