//! `tracklayer bench`: how fast the platform is on this machine, each figure beside the machine's own limit measured in the
//! same run. The services run as processes; load generator, PostgreSQL, Redis and the sandbox share the cores with them.
//!
//! [`event`] makes realistic events, [`frames`] their bytes, [`limits`] measures the machine; [`load`] and [`wrk`] send as fast as they can, which is
//! the speed, [`open_loop`] at a pace of its own, which is the latency. Here they are put together. Two are benches of their own:
//! [`backlog`] has one platform stop, and [`overload`] tells what becomes of the load of [`flood`], which is far more than the
//! machine takes.

mod backlog;
mod event;
mod flood;
mod frames;
mod limits;
mod load;
mod open_loop;
mod overload;
mod wrk;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, ValueEnum};

use crate::cli::Output;
use crate::cli::output::table;
use crate::cli::stats::Counts;
use crate::dev::{DevOptions, Running};
use crate::processes::{Processes, ROLES};
use crate::roles::Role;

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    /// Length of each measurement, seconds.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Events that go from receipt to three platforms.
    #[arg(long, default_value_t = 60_000)]
    pub end_to_end_events: usize,
    /// Measure these alone; all where none is named. The machine's limit is always measured.
    #[arg(long, value_enum, value_name = "FIGURE")]
    pub only: Vec<Figure>,
    /// The journal over this Kafka cluster instead of PostgreSQL, `host:port,host:port`.
    #[arg(long)]
    pub kafka_brokers: Option<String>,
    /// Instead of everything else: what a backlog of so many events costs whose platform has stopped, and how it drains.
    #[arg(long)]
    pub backlog: Option<usize>,
    /// Instead of figures, show what becomes of far more load than the machine takes: for so many seconds from one workspace, then
    /// from another's neighbour. Fails if an accepted event is not delivered or a refusal does not say when to come back.
    #[arg(long, value_name = "SECONDS")]
    pub overload: Option<u64>,
}

/// A figure with its latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// Received to delivered at three sandboxes.
    EndToEnd,
    /// Events over gRPC, delivery stopped.
    Grpc,
    /// Batches over HTTP, delivery stopped.
    Http,
    /// Single events over HTTP, delivery stopped.
    Single,
    /// Events over gRPC, delivery at work.
    Beside,
}

impl BenchOptions {
    fn wants(&self, figure: Figure) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }
}

struct Row {
    what: String,
    figure: String,
    limit: String,
    share: String,
}

/// Measures and prints.
///
/// # Errors
/// Something did not start or an answer was missing.
pub async fn run(options: BenchOptions) -> anyhow::Result<()> {
    let data_dir = std::env::temp_dir().join(format!("tracklayer-bench-{}", std::process::id()));
    let dev = DevOptions {
        data_dir: data_dir.clone(),
        database_url: None,
        redis_url: None,
        kafka_brokers: options.kafka_brokers.clone(),
        // Topics that are there from an earlier run would be taken for this one's.
        kafka_prefix: format!("bench-{}", uuid::Uuid::new_v4().simple()),
        free_ports: true,
        lease_ms: 5_000,
        trace_sample_ratio: 0.0,
        without_services: true,
    };
    let running = Running::start(dev.clone()).await?;
    let environment = crate::dev::start::environment(&running.addresses, &dev);
    let mut processes = Processes::new(running.addresses.clone(), environment, &data_dir);
    let measured = match options.overload {
        Some(seconds) => overload(&running, &mut processes, seconds).await,
        None => measure(&options, &running, &mut processes, &data_dir).await,
    };
    processes.stop().await;
    running.stop().await?;
    let _ = std::fs::remove_dir_all(&data_dir);
    measured
}

async fn overload(running: &Running, processes: &mut Processes, seconds: u64) -> anyhow::Result<()> {
    for role in ROLES {
        processes.start(role).await?;
    }
    overload::run(running, processes, Duration::from_secs(seconds)).await
}

async fn measure(
    options: &BenchOptions,
    running: &Running,
    processes: &mut Processes,
    folder: &Path,
) -> anyhow::Result<()> {
    let length = Duration::from_secs(options.seconds);
    if let Some(events) = options.backlog {
        println!("measuring with one platform stopped ...");
        let rows = backlog::measure(running, processes, events, length).await?;
        print(rows, "without a backlog");
        return Ok(());
    }
    let events = event::realistic(20_000, 7);
    let bytes: usize = events.iter().map(String::len).sum();
    println!(
        "events of {} bytes on average, zstd level 1: {:.1}:1 in blocks of 500",
        bytes / events.len(),
        event::ratio(&events)
    );

    println!("measuring the machine: PostgreSQL binary COPY and rows, Redis pipelined SET NX ...");
    let url = &running.addresses.database_url;
    limits::warm(url, &events, length.max(WARM_UP)).await?;
    let copy = limits::copy_rows(url, &events, length).await?;
    limits::checkpoint(url).await?;
    let inserted = limits::insert_rows(url, &events, length).await?;
    limits::checkpoint(url).await?;
    let set_nx = limits::set_nx(&running.addresses.redis_url, length).await?;
    let mut rows = vec![
        Row::limit("raw binary COPY, 1 row per event, 4 connections", copy, "events/s"),
        Row::rate("a row per event by unnest, 4 connections", inserted, "events/s", copy),
        Row::limit("Redis SET NX, pipelines of 100, 4 connections", set_nx, "keys/s"),
    ];

    for row in &rows {
        println!("  {}: {}", row.what, row.figure);
    }
    for role in ROLES {
        processes.start(role).await?;
    }
    if options.wants(Figure::EndToEnd) {
        rows.extend(way_to_platforms(options, running, processes, copy).await?);
    }
    let delivery_memory = processes.peak_resident_bytes();
    processes.stop_one(Role::Delivery).await;

    let load = Load::new(running, events, length, copy)?;
    if options.wants(Figure::Grpc) {
        rows.extend(load.grpc().await?);
    }
    if options.wants(Figure::Http) {
        rows.extend(load.batches().await?);
    }
    if options.wants(Figure::Single) {
        rows.extend(load.singles(folder).await?);
    }
    if options.wants(Figure::Beside) {
        println!("measuring ingest over gRPC with delivery at work ...");
        processes.start(Role::Delivery).await?;
        let beside = load::grpc_stream(running, &load.events, length, true).await?;
        println!("  {beside:.0} events/s");
        rows.push(Row::rate("durable over gRPC stream, delivery at work", beside, "events/s", copy));
    }
    let memory = processes.peak_resident_bytes();
    for role in ROLES {
        let name = role.as_str();
        let peak = memory.get(name).max(delivery_memory.get(name)).copied().unwrap_or(0);
        rows.push(Row::plain(
            &format!("most resident memory of {name}"),
            format!("{} MiB", peak / 1_048_576),
        ));
    }
    print(rows, "machine's limit");
    Ok(())
}

async fn way_to_platforms(
    options: &BenchOptions,
    running: &Running,
    processes: &Processes,
    copy: f64,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    println!("measuring the way to three platforms: {} events ...", options.end_to_end_events);
    let cpu_before = processes.cpu_seconds();
    let end_to_end = end_to_end(options, running).await?;
    let cpu_after = processes.cpu_seconds();
    println!("  {:.0} events/s, p99 {} ms at half of that", end_to_end.per_second, end_to_end.p99_ms);
    rows.push(Row::rate("received to delivered at three sandboxes", end_to_end.per_second, "events/s", copy));
    rows.push(Row::plain(
        "  receipt to delivery p50 / p99 at half of that",
        format!("{} / {} ms", end_to_end.p50_ms, end_to_end.p99_ms),
    ));
    for (role, after) in &cpu_after {
        let used = after - cpu_before.get(role).copied().unwrap_or(0.0);
        let each = used * 1_000_000.0 / end_to_end.events as f64;
        rows.push(Row::plain(
            &format!("  processor time of {role} on that way"),
            format!("{each:.0} us an event"),
        ));
    }
    Ok(rows)
}

fn print(rows: Vec<Row>, limit: &str) {
    let cells: Vec<Vec<String>> =
        rows.into_iter().map(|r| vec![r.what, r.figure, r.limit, r.share]).collect();
    println!("\n{}", table(&["figure", "measured", limit, "share"], &cells));
}

/// Ingest alone: how much it makes durable on each way, and how long acks take at half and at a tenth of that.
/// What is sent to ingest, and where to.
struct Load<'a> {
    running: &'a Running,
    events: Arc<Vec<String>>,
    write_key: String,
    /// The write key as HTTP has it.
    basic: String,
    length: Duration,
    limit: f64,
}

impl<'a> Load<'a> {
    fn new(running: &'a Running, events: Vec<String>, length: Duration, limit: f64) -> anyhow::Result<Self> {
        let write_key = load::write_key(running)?;
        let engine = base64::engine::general_purpose::STANDARD;
        let basic = base64::Engine::encode(&engine, format!("{write_key}:"));
        Ok(Self { running, events: Arc::new(events), write_key, basic, length, limit })
    }

    async fn grpc(&self) -> anyhow::Result<Vec<Row>> {
        println!("measuring ingest over gRPC, delivery stopped ...");
        let frames = Arc::new(load::frames(&self.events)?);
        let peak = load::grpc_stream(self.running, &self.events, self.length, true).await?;
        println!("  {peak:.0} events/s");
        let mut rows =
            vec![Row::rate("durable over gRPC stream, batches of 500", peak, "events/s", self.limit)];
        // A client that sends at its own pace has a tenth as much to send in each batch when it has a tenth of the events.
        for (share, batch, name) in [
            (0.5, 500, "half of that"),
            (0.1, 500, "a tenth of that"),
            (0.1, 50, "a tenth of that, in batches of 50"),
        ] {
            let address = &self.running.addresses.ingest;
            let acks =
                open_loop::grpc(address, &self.write_key, &frames, peak * share, batch, self.length).await?;
            rows.push(acks_at(name, acks));
        }
        Ok(rows)
    }

    async fn batches(&self) -> anyhow::Result<Vec<Row>> {
        println!("measuring ingest over HTTP, batches of 100 ...");
        let peak = load::http_batches(self.running, &self.events, self.length).await?;
        println!("  {peak:.0} events/s");
        let what = "durable over HTTP, batches of 100, 32 connections";
        let mut rows = vec![Row::rate(what, peak, "events/s", self.limit)];
        rows.extend(self.acks(peak, 100, load::CONNECTIONS).await?);
        Ok(rows)
    }

    async fn singles(&self, folder: &Path) -> anyhow::Result<Vec<Row>> {
        println!("measuring ingest over HTTP, single events ...");
        let singles = wrk::single_events(self.running, &self.events, folder, &self.basic, self.length);
        let Some(singles) = singles.await? else {
            println!("  skipped: wrk is not installed (Debian: apt-get install wrk)");
            return Ok(Vec::new());
        };
        println!("  {:.0} requests/s, p99 {:.1} ms", singles.per_second, singles.p99_ms);
        let what = format!("durable single events over HTTP, {} connections (wrk)", wrk::CONNECTIONS);
        let mut rows = vec![Row::rate(&what, singles.per_second, "requests/s", self.limit)];
        rows.extend(self.acks(singles.per_second, 1, wrk::CONNECTIONS).await?);
        Ok(rows)
    }

    /// Latencies over HTTP at shares of a speed, events/s, in requests of so many.
    async fn acks(&self, peak: f64, count: usize, connections: usize) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (share, name) in SHARES {
            let request = request_maker(&self.events, &self.basic, count);
            let (address, rate) = (&self.running.addresses.ingest_http, peak * share / count as f64);
            let acks = open_loop::http(address, rate, connections, self.length, request).await?;
            rows.push(acks_at(name, acks));
        }
        Ok(rows)
    }
}

/// How long PostgreSQL is written to before anything is measured: about 2 GB of its log.
const WARM_UP: Duration = Duration::from_secs(10);

/// Loads at which latency is measured.
const SHARES: [(f64, &str); 2] = [(0.5, "half of that"), (0.1, "a tenth of that")];

/// An ack that takes longer than this, milliseconds, is told with its second.
const SLOW_MS: f64 = 25.0;

fn acks_at(name: &str, mut acks: open_loop::Latencies) -> Row {
    let slow = acks.slow_seconds(SLOW_MS);
    let told: Vec<String> = slow.iter().map(|(second, worst)| format!("{second} s: {worst:.0} ms")).collect();
    println!(
        "  acks at {name}: p50 {:.1}, p90 {:.1}, p99 {:.1} ms; over {SLOW_MS} ms in {} seconds: {}",
        acks.at(0.50),
        acks.at(0.90),
        acks.at(0.99),
        slow.len(),
        told.join(", ")
    );
    let refused = if acks.refused > 0 { format!("; {} refused", acks.refused) } else { String::new() };
    Row::plain(
        &format!("  ack p50 / p99 at {name}"),
        format!("{:.1} / {:.1} ms{refused}", acks.at(0.50), acks.at(0.99)),
    )
}

/// Makes requests of so many events, each time with others.
fn request_maker(
    events: &Arc<Vec<String>>,
    basic: &str,
    count: usize,
) -> impl Fn() -> Vec<u8> + Clone + Send + 'static {
    let (events, basic) = (Arc::clone(events), basic.to_owned());
    let from = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    move || {
        let from = from.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        load::http_request(&events, from, count, &basic)
    }
}

struct EndToEnd {
    events: usize,
    per_second: f64,
    p50_ms: u32,
    p99_ms: u32,
}

/// Publishes everything as fast as it is taken and waits for the last delivery (the speed), then publishes at half of that
/// speed and reads the latency.
async fn end_to_end(options: &BenchOptions, running: &Running) -> anyhow::Result<EndToEnd> {
    let access = crate::demo::access(&running.addresses, Output::Table)?;
    let workspace = running.addresses.workspace_id;
    choose_platforms(running, &access, workspace).await?;
    let before = delivered(&Counts::read(&access, workspace).await?);

    let events = load::frames(&event::orders(options.end_to_end_events, 11))?;
    let started = Instant::now();
    load::publish_all(running, &events, None).await?;
    settle(&access, workspace).await?;
    let seconds = started.elapsed().as_secs_f64();
    let after = delivered(&Counts::read(&access, workspace).await?);
    if after - before < (options.end_to_end_events as u64) * 3 {
        bail!(
            "only {} deliveries of {} events at three platforms",
            after - before,
            options.end_to_end_events
        );
    }
    let per_second = options.end_to_end_events as f64 / seconds;

    let paced = (per_second / 2.0 * options.seconds as f64) as usize;
    let paced = load::frames(&event::orders(paced, 13))?;
    clear_latencies(running).await?;
    load::publish_all(running, &paced, Some(per_second / 2.0)).await?;
    settle(&access, workspace).await?;
    let counts = Counts::read(&access, workspace).await?;
    let worst = |pick: fn(&[u32; 3]) -> u32| {
        counts.connections.values().map(|c| pick(&c.latency_ms)).max().unwrap_or(0)
    };
    Ok(EndToEnd {
        events: events.len() + paced.len(),
        per_second,
        p50_ms: worst(|l| l[0]),
        p99_ms: worst(|l| l[2]),
    })
}

/// Connections that the figure is about.
const PLATFORMS: [&str; 3] = ["meta", "google-ads", "tiktok"];

/// The figure is about three ad platforms that take batches as fast as they come. Off are the sample workspace's webhook, which
/// takes a request for each event, and its Data Manager, which takes 300 requests a minute and would be measured instead of
/// us; Google is there by the Ads API.
async fn choose_platforms(
    running: &Running,
    access: &crate::cli::Access,
    workspace_id: i64,
) -> anyhow::Result<()> {
    let mut documents =
        vec![("google-ads".to_owned(), crate::dev::connections::google_ads(&running.sandbox))];
    for (name, mut document) in crate::dev::connections::sample(&running.sandbox) {
        if !PLATFORMS.contains(&name.as_str()) {
            document["mode"] = serde_json::json!("off");
        }
        documents.push((name, document));
    }
    for (name, document) in documents {
        let request = tracklayer_proto::control::v1::PutConnectionRequest {
            workspace_id,
            name,
            document_json: document.to_string(),
        };
        access.control()?.put_connection(request).await?;
    }
    Ok(())
}

/// The latency histogram is cumulative; the second measurement starts from an empty one.
async fn clear_latencies(running: &Running) -> anyhow::Result<()> {
    let url = tracklayer_ids::Secret::new(running.addresses.database_url.clone());
    let pool = tracklayer_postgres::connect(&url, 1).await?;
    sqlx::query("delete from delivery.latency").execute(&pool).await?;
    Ok(())
}

fn delivered(counts: &Counts) -> u64 {
    PLATFORMS.iter().filter_map(|name| counts.connections.get(*name)).map(|c| c.in_state("delivered")).sum()
}

async fn settle(access: &crate::cli::Access, workspace: i64) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(900);
    loop {
        let counts = Counts::read(access, workspace).await?;
        if counts.settled() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("delivery does not drain:\n{}", counts.tables());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Row {
    fn limit(what: &str, rate: f64, unit: &str) -> Self {
        let figure = format!("{rate:.0} {unit}");
        Self { what: what.to_owned(), figure, limit: "the limit".to_owned(), share: String::new() }
    }

    fn rate(what: &str, rate: f64, unit: &str, limit: f64) -> Self {
        Self {
            what: what.to_owned(),
            figure: format!("{rate:.0} {unit}"),
            limit: format!("{limit:.0} {unit}"),
            share: format!("{:.2}", rate / limit),
        }
    }

    fn plain(what: &str, figure: String) -> Self {
        Self { what: what.to_owned(), figure, limit: String::new(), share: String::new() }
    }
}
