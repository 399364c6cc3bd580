//! The table of a warehouse, whose requests are files, and ten minutes in which its bucket is away. One lane has two files to write at a
//! time, so that it shows which of them are written again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tracklayer_tests::{Clock, Options, Platform, Running, eventually, eventually_within};

use crate::bench::{Bench, Count, states_of};
use crate::bucket::{Bucket, Put, Reply};
use crate::folder;
use crate::outage::{LANES, OUTAGE, RECOVERS, TRIES, UNDER_WAY};
use crate::table::{ledger, markdown, runs};
use crate::{Hurry, keep_table, order};

/// Events of a row, half of each name.
pub const FEW: u64 = 20;
/// Each is a file.
pub const NAMES: [&str; 2] = ["Order Completed", "Product Viewed"];
/// Rows of a file where none is to be full.
const ROOM: u64 = 10_000;
/// Seconds that a server asks to wait.
const ASKED: u64 = 2;
/// How long a fault may take to be over: a file has a minute.
pub const REST: Duration = Duration::from_secs(240);
/// Orders of the outage, half of them before it is a minute old and half after five.
const ORDERS: u64 = 400;
/// Rows of a file in the outage, so that there are many files.
const SMALL: u64 = 5;

/// A fault: so many PUTs meet it.
struct Row {
    title: &'static str,
    reply: Reply,
    times: u64,
    /// What the lane does.
    does: &'static str,
}

const fn row(title: &'static str, reply: Reply, times: u64, does: &'static str) -> Row {
    Row { title, reply, times, does }
}

const REFUSED: &str = "circuit opens at once, one file is tried until it is taken, then the other";
const AWAY: &str = "after three failures the circuit opens: one file is tried under its name, then the other";
const AGAIN: &str = "the one without an answer is written again under its name, the other is not";

const ROWS: [Row; 12] = [
    row("403, twice", Reply::Refuse(403, "AccessDenied"), 2, REFUSED),
    row(
        "404, no such bucket, twice",
        Reply::Refuse(404, "NoSuchBucket"),
        2,
        "the lane holds and finds out by itself, one file first",
    ),
    row(
        "429 with Retry-After: 2, twice",
        Reply::Wait(ASKED),
        2,
        "circuit opens for as long as asked, then one file, then the other",
    ),
    row("throttled in S3's own words (503 SlowDown), twice", Reply::Refuse(503, "SlowDown"), 2, REFUSED),
    row("500, five times", Reply::Refuse(500, "InternalError"), 5, AWAY),
    row("503, five times", Reply::Refuse(503, "ServiceUnavailable"), 5, AWAY),
    row("507, the bucket is full, five times", Reply::Refuse(507, "XMinioStorageFull"), 5, AWAY),
    row("timeout, nothing kept", Reply::Stall { kept: false }, 1, AGAIN),
    row("timeout after the file was kept", Reply::Stall { kept: true }, 1, AGAIN),
    row("connection reset, nothing kept, five times", Reply::Reset { kept: false }, 5, AWAY),
    row("connection reset after the file was kept", Reply::Reset { kept: true }, 1, AGAIN),
    row("truncated answer", Reply::BreakOff, 1, AGAIN),
];

/// A workspace whose only connection writes into the bucket.
struct Warehouse {
    bench: Bench,
    bucket: Bucket,
    id: i64,
}

impl Warehouse {
    async fn create(platform: Running, partitions: u32, rows_per_file: u64) -> Self {
        let bench = Bench::without_connections(platform, partitions).await.unwrap();
        let bucket = Bucket::start().await;
        let id = bench.put_document("lake", &bucket.document(rows_per_file)).await.unwrap();
        bench.at_full_pace(id).await.unwrap();
        bench.is_known(partitions, 1).await.unwrap();
        Self { bench, bucket, id }
    }

    async fn count(&self) -> anyhow::Result<Count> {
        let stats = self.bench.stats_of(self.id).await?;
        Ok(Count {
            requests: self.bucket.puts().len() as u64,
            counted: self.bucket.found().len() as u64,
            states: states_of(stats.as_ref()),
        })
    }

    async fn health(&self) -> anyhow::Result<String> {
        Ok(self.bench.stats_of(self.id).await?.map(|stats| stats.health).unwrap_or_default())
    }

    /// Waits until so many events more than `before` have come to an end.
    async fn rest(&self, before: &Count, events: u64) -> Count {
        eventually_within(REST, "every event to come to an end", async || {
            let count = self.count().await?;
            let states = count.since(before).states;
            let ended = states.iter().filter(|((state, _), _)| state != "held");
            match ended.map(|(_, count)| count).sum::<u64>() {
                ended if ended == events => Ok(count),
                _ => Err(anyhow::anyhow!("{count:?} {:?}", self.health().await?)),
            }
        })
        .await
    }

    /// Each event that a reader finds is there once.
    fn check_found(&self) {
        let found = self.bucket.found();
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!(found.len(), distinct.len(), "nothing is there twice");
    }

    async fn check_balance(&self) {
        let arguments = ["ledger", "balance", "--workspace", "faults"];
        let balance = self.bench.platform.cli_json(&arguments).await.unwrap();
        assert_eq!(balance["clean"], true, "{balance:#}");
    }
}

/// An event of one of the names, by turns.
pub fn event(message_id: &str, number: u64) -> Value {
    let mut event = order(message_id, SignedDuration::from_secs(60));
    event["event"] = json!(NAMES[number as usize % NAMES.len()]);
    event
}

/// What a row came to.
struct Seen {
    row: Row,
    count: Count,
    puts: Vec<Put>,
}

impl Seen {
    /// What differs from what was expected.
    fn fault(&self) -> Option<String> {
        let expected = Count {
            // Each file once more for each time that it was not written.
            requests: NAMES.len() as u64 + self.row.times,
            counted: FEW,
            states: BTreeMap::from([(("delivered".to_owned(), String::new()), FEW)]),
        };
        (self.count != expected)
            .then(|| format!("{}: {:?} instead of {expected:?}: {:?}", self.row.title, self.count, self.puts))
    }

    fn line(&self) -> String {
        let steps = self.puts.iter().map(|put| {
            let answer = put.status.map_or("no answer".to_owned(), |status| status.to_string());
            format!("{} → {answer}", put.events)
        });
        format!(
            "| warehouse | {} | {}: {} | {} | {} | {} |",
            self.row.title,
            self.row.does,
            runs(steps).join(", "),
            self.count.requests,
            ledger(&self.count),
            self.count.counted,
        )
    }

    /// The time between the last PUT that was told to wait and the next one.
    fn waited(&self) -> Option<Duration> {
        let told = self.puts.iter().rposition(|put| put.status == Some(429))?;
        let next = self.puts.get(told + 1)?;
        Some(next.at.duration_since(self.puts[told].at))
    }
}

async fn meet(warehouse: &Warehouse, place: usize, row: Row) -> Seen {
    let before = warehouse.count().await.unwrap();
    warehouse.bucket.next(row.reply, row.times);
    let events: Vec<Value> =
        (0..FEW).map(|number| event(&format!("file-{place}-{number:03}"), number)).collect();
    warehouse.bench.publish(&events).await.unwrap();
    let count = warehouse.rest(&before, FEW).await.since(&before);
    let puts = warehouse.bucket.puts().split_off(before.requests as usize);
    Seen { row, count, puts }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_warehouse_is_got_over_and_every_event_is_in_one_file() {
    let options = Options { lease_ms: Some(60_000), ..Options::default() };
    let warehouse = Warehouse::create(Platform::start(options).await.unwrap(), 1, ROOM).await;
    let only = std::env::var("FAULTS_ONLY").unwrap_or_default();
    let begun = warehouse.count().await.unwrap();
    let mut seen = Vec::new();
    for (place, row) in ROWS.into_iter().enumerate() {
        if row.title.contains(&only) {
            seen.push(meet(&warehouse, place, row).await);
        }
    }
    let of_folders = folder::lines(&warehouse.bench, 1, &only).await;
    let rows = (seen.len() + of_folders.len()) as u64;
    keep_table(1, &markdown(seen.iter().map(Seen::line).chain(of_folders)));
    let faults: Vec<String> = seen.iter().filter_map(Seen::fault).collect();
    assert!(faults.is_empty(), "{} of {} rows:\n{}", faults.len(), seen.len(), faults.join("\n"));
    for asked in seen.iter().filter(|seen| matches!(seen.row.reply, Reply::Wait(_))) {
        let waited = asked.waited().unwrap_or_else(|| panic!("nobody was told to wait: {:?}", asked.puts));
        assert!(waited >= Duration::from_secs(ASKED), "it came back after {waited:?}");
    }
    // What a folder held kept nobody else: the bucket has it as well.
    warehouse.rest(&begun, rows * FEW).await;
    warehouse.check_found();
    warehouse.check_balance().await;
}

fn message_id(number: u64) -> String {
    format!("away-{number:04}")
}

async fn publish(bench: &Bench, numbers: std::ops::Range<u64>) {
    let events: Vec<Value> =
        numbers.map(|number| order(&message_id(number), SignedDuration::from_secs(60))).collect();
    bench.publish(&events).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_warehouse_storms_in_an_outage_of_ten_minutes() {
    let clock = Arc::new(Clock::start().unwrap());
    let options = Options { variables: clock.variables(), lease_ms: Some(60_000), ..Options::default() };
    let warehouse = Warehouse::create(Platform::start(options).await.unwrap(), LANES, SMALL).await;
    let before = warehouse.count().await.unwrap();
    warehouse.bucket.always(Some(Reply::Refuse(503, "ServiceUnavailable")));
    let began = clock.now();
    publish(&warehouse.bench, 0..ORDERS / 2).await;
    let hurry = Hurry::up(Arc::clone(&clock));
    let age = || clock.now().duration_since(began).unwrap();
    while age() < OUTAGE / 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let health = warehouse.health().await.unwrap();
    assert!(health.contains("ServiceUnavailable") && health.contains("the circuit is open"), "{health}");
    publish(&warehouse.bench, ORDERS / 2..ORDERS).await;
    while age() < OUTAGE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let requests = warehouse.count().await.unwrap().since(&before).requests;
    warehouse.bucket.always(None);
    let after = warehouse.rest(&before, ORDERS).await.since(&before);
    let recovered = age() - OUTAGE;
    drop(hurry);

    let mut attempts = 0;
    for number in 0..ORDERS {
        let deliveries = warehouse.bench.deliveries(&message_id(number)).await.unwrap().unwrap();
        attempts += deliveries.iter().map(|delivery| u64::from(delivery.attempts)).sum::<u64>();
    }
    let delivered = after.states.get(&("delivered".to_owned(), String::new())).copied().unwrap_or(0);
    println!(
        "| connector | requests in the outage | attempts of {ORDERS} events, in all | delivered |\n| --- | ---: | ---: | ---: |\n\
         | warehouse | {requests} | {attempts} | {delivered} |"
    );
    println!("everything was delivered {recovered:?} after the outage of {OUTAGE:?}");
    assert!(attempts < 2 * ORDERS, "{attempts} attempts are a storm");
    // It is looked for, too: not once and never again.
    assert!((8..=UNDER_WAY + TRIES).contains(&requests), "{requests} requests in the outage");
    let files = after.requests - requests;
    assert!(after.requests < 2 * files, "{} requests for {files} files are a storm", after.requests);
    assert_eq!((delivered, after.counted), (ORDERS, ORDERS), "{after:?}");
    assert!(recovered < RECOVERS, "it took {recovered:?} to find out and to catch up");
    warehouse.check_found();
    eventually("the connection to be open", async || match warehouse.health().await?.as_str() {
        "open" => Ok(()),
        health => Err(anyhow::anyhow!("{health}")),
    })
    .await;
    warehouse.check_balance().await;
}
