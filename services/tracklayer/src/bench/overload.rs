//! `tracklayer bench --overload SECONDS`: what becomes of far more load than the machine takes, and of a workspace whose neighbour
//! sends it.
//!
//! First one workspace floods: every accepted order has to arrive at three platforms, everything else has to be told when to come
//! back, and no process may grow or end. Then a quiet workspace is measured alone and beside one that floods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tracklayer_proto::control::v1::{CreateSourceRequest, CreateWorkspaceRequest};
use tracklayer_proto::delivery::v1::BalanceLedgerRequest;
use tracklayer_sandbox::{Platform, SandboxClient};

use super::flood::{ALL_ROOM, Flood, TEN_TIMES, Tally, Target, http_request};
use super::{PLATFORMS, choose_platforms, clear_latencies, delivered, event, load, open_loop};
use crate::cli::output::table;
use crate::cli::stats::Counts;
use crate::cli::{Access, Output};
use crate::dev::Running;
use crate::processes::Processes;

/// What the quiet workspace sends, single orders a second.
const QUIET_PER_SECOND: f64 = 50.0;
/// Connections of the quiet workspace's senders: enough that none of them waits for an answer before it sends again.
const QUIET_CONNECTIONS: usize = 64;
/// What runs before the quiet workspace is measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// What one workspace's flood may cost another: its p99 alone, times this.
const FAIR: f64 = 2.0;
/// Delivery that gets nothing done, or tells nothing, for so long has stopped.
const STANDSTILL: Duration = Duration::from_secs(600);
/// Between two looks at the processes' memory.
const SAMPLE: Duration = Duration::from_secs(1);

/// Runs both parts; the services are up.
///
/// # Errors
/// An accepted event was not delivered, a refusal named no time, or a process ended.
pub async fn run(running: &Running, processes: &mut Processes, length: Duration) -> anyhow::Result<()> {
    let access = crate::demo::access(&running.addresses, Output::Table)?;
    choose_platforms(running, &access, running.addresses.workspace_id).await?;
    let orders = Arc::new(event::orders(40_000, 17));
    let target = Target {
        http: running.addresses.ingest_http.clone(),
        grpc: running.addresses.ingest.clone(),
        write_key: load::write_key(running)?,
        orders,
    };
    let faults = flood(running, processes, &access, &target, length).await?;
    neighbours(running, processes, &access, &target, length).await?;
    if !faults.is_empty() {
        bail!("under overload:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// One workspace floods; returns what went wrong.
async fn flood(
    running: &Running,
    processes: &mut Processes,
    access: &Access,
    target: &Target,
    length: Duration,
) -> anyhow::Result<Vec<String>> {
    let workspace = running.addresses.workspace_id;
    let before = State::read(running, &Counts::read(access, workspace).await?).await?;
    println!("flooding for {} s: every connection sends again at once ...", length.as_secs());
    let begun = Instant::now();
    let flood = Flood::start(target, TEN_TIMES)?;
    let mut memory = Memory::default();
    memory.sample_until(processes, tokio::time::sleep(length)).await?;
    let during = memory.samples.len();
    let tally = flood.stop().await?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("  {} events accepted; waiting until they are delivered ...", tally.accepted());
    let counts = memory.sample_until(processes, drained(access, workspace)).await??;
    let after = State::read(running, &counts).await?;

    let mut faults = Vec::new();
    let accepted = after.received - before.received;
    if tally.unanswered() == 0 && accepted != tally.accepted() {
        faults.push(format!("{} events were acknowledged, {accepted} are in the journal", tally.accepted()));
    }
    if accepted < tally.accepted() {
        faults
            .push(format!("only {accepted} of {} acknowledged events are in the journal", tally.accepted()));
    }
    let mut rows = vec![
        vec!["accepted".to_owned(), format!("{accepted} events, {:.0}/s", accepted as f64 / seconds)],
        vec!["requests that were never answered".to_owned(), tally.unanswered().to_string()],
    ];
    for (name, arrived) in &after.delivered {
        let (delivered, counted) = before.delivered[name].until(arrived);
        rows.push(vec![format!("delivered to {name}"), format!("{delivered}; counted there: {counted}")]);
        if (delivered, counted) != (accepted, accepted) {
            faults.push(format!(
                "{accepted} accepted, {delivered} delivered to {name}, {counted} counted there"
            ));
        }
    }
    let offered = accepted + refusals(&tally, &mut rows, &mut faults);
    rows.push(vec![
        "offered".to_owned(),
        format!("{offered} events, {:.1} times what was accepted", offered as f64 / accepted.max(1) as f64),
    ]);
    memory.rows(during, &mut rows);
    println!("\n{}", table(&["overload", "measured"], &rows));

    let balance = access.delivery()?.balance_ledger(BalanceLedgerRequest { workspace_id: workspace }).await?;
    if !balance.into_inner().clean {
        faults.push("the ledger does not balance".to_owned());
    }
    Ok(faults)
}

/// Writes down who was refused; returns how many events that were.
fn refusals(tally: &Tally, rows: &mut Vec<Vec<String>>, faults: &mut Vec<String>) -> u64 {
    let refused = tally.refused();
    for (code, refused) in &refused {
        let text = format!("{} requests with {} events", refused.requests, refused.events);
        rows.push(vec![format!("refused: {code}"), text]);
        if refused.without_time > 0 {
            faults.push(format!("{} refusals `{code}` did not say when to come back", refused.without_time));
        }
    }
    refused.values().map(|refused| refused.events).sum()
}

/// A quiet workspace alone, then beside one that floods.
async fn neighbours(
    running: &Running,
    processes: &mut Processes,
    access: &Access,
    quiet: &Target,
    length: Duration,
) -> anyhow::Result<()> {
    let noisy = Target { write_key: second_workspace(running, access).await?, ..quiet.clone() };
    println!("measuring a quiet workspace alone: {QUIET_PER_SECOND} orders a second ...");
    send_quietly(quiet, WARM_UP).await?;
    let mut alone = measure_quiet(running, access, quiet, length).await?;
    println!("measuring it while another floods ...");
    let flood = Flood::start(&noisy, ALL_ROOM)?;
    send_quietly(quiet, WARM_UP).await?;
    let mut beside = measure_quiet(running, access, quiet, length).await?;
    let tally = flood.stop().await?;
    processes.all_run()?;

    let ratio = f64::from(beside.p99_ms) / f64::from(alone.p99_ms.max(1));
    let row = |what: &str, quiet: &mut Quiet| {
        let acks = &mut quiet.acks;
        vec![
            what.to_owned(),
            format!("{} / {} ms", quiet.p50_ms, quiet.p99_ms),
            format!("{:.1} / {:.1} ms", acks.at(0.50), acks.at(0.99)),
            acks.refused.to_string(),
        ]
    };
    let rows = [row("alone", &mut alone), row("beside a flood", &mut beside)];
    println!("\n{}", table(&["quiet workspace", "receipt to delivery p50 / p99", "acks", "refused"], &rows));
    println!("the other had {} events accepted meanwhile", tally.accepted());
    let verdict = if ratio <= FAIR { "within" } else { "NOT within" };
    println!("p99 beside a flood: {ratio:.1} times the quiet one, {verdict} {FAIR} times");
    Ok(())
}

struct Quiet {
    p50_ms: u32,
    p99_ms: u32,
    acks: open_loop::Latencies,
}

async fn measure_quiet(
    running: &Running,
    access: &Access,
    target: &Target,
    length: Duration,
) -> anyhow::Result<Quiet> {
    let workspace = running.addresses.workspace_id;
    drained(access, workspace).await?;
    clear_latencies(running).await?;
    let acks = send_quietly(target, length).await?;
    let counts = drained(access, workspace).await?;
    let worst = |pick: usize| counts.connections.values().map(|c| c.latency_ms[pick]).max().unwrap_or(0);
    Ok(Quiet { p50_ms: worst(0), p99_ms: worst(2), acks })
}

async fn send_quietly(target: &Target, length: Duration) -> anyhow::Result<open_loop::Latencies> {
    let (orders, key) = (Arc::clone(&target.orders), target.write_key.clone());
    let request = move || http_request(&orders, fastrand::usize(..orders.len()), 1, &key);
    open_loop::http(&target.http, QUIET_PER_SECOND, QUIET_CONNECTIONS, length, request).await
}

/// Another workspace with the same platforms; returns its write key.
async fn second_workspace(running: &Running, access: &Access) -> anyhow::Result<String> {
    let mut control = access.control()?;
    let request = CreateWorkspaceRequest {
        name: "noisy".to_owned(),
        partitions: 4,
        ..CreateWorkspaceRequest::default()
    };
    let made = control.create_workspace(request).await?.into_inner().workspace;
    let workspace_id = made.context("control made no workspace")?.workspace_id;
    choose_platforms(running, access, workspace_id).await?;
    let request = CreateSourceRequest {
        workspace_id,
        name: "shop".to_owned(),
        channel: "server".to_owned(),
        default_place: "US-CA".to_owned(),
        ..CreateSourceRequest::default()
    };
    Ok(control.create_source(request).await?.into_inner().write_key)
}

/// Waits until nothing of a workspace is on its way, for as long as something is done; returns what is counted then.
async fn drained(access: &Access, workspace: i64) -> anyhow::Result<Counts> {
    let (mut done, mut since) = (0, Instant::now());
    loop {
        let counts = match Counts::read(access, workspace).await {
            Ok(counts) => counts,
            // A machine that has more than it can do may answer late.
            Err(_) if since.elapsed() < STANDSTILL => continue,
            Err(error) => return Err(error.context("the counts cannot be read")),
        };
        if counts.settled() {
            return Ok(counts);
        }
        let delivered = delivered(&counts);
        if delivered != done {
            (done, since) = (delivered, Instant::now());
        } else if since.elapsed() > STANDSTILL {
            bail!("delivery does not drain:\n{}", counts.tables());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// What has arrived at a platform.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    delivered: u64,
    counted: u64,
}

impl Arrived {
    fn until(&self, later: &Self) -> (u64, u64) {
        (later.delivered - self.delivered, later.counted - self.counted)
    }
}

struct State {
    received: u64,
    delivered: BTreeMap<&'static str, Arrived>,
}

impl State {
    async fn read(running: &Running, counts: &Counts) -> anyhow::Result<Self> {
        let totals = SandboxClient::new(&running.addresses.sandbox).totals().await?;
        let arrived = |(name, platform): (&'static str, Platform)| {
            let delivered = counts.connections.get(name).map_or(0, |c| c.in_state("delivered"));
            (name, Arrived { delivered, counted: totals.get(&platform).map_or(0, |t| t.counted) })
        };
        let platforms = PLATFORMS.into_iter().zip([Platform::Meta, Platform::GoogleAds, Platform::TikTok]);
        Ok(Self { received: counts.received(), delivered: platforms.map(arrived).collect() })
    }
}

/// Resident memory of the processes, one sample a second.
#[derive(Debug, Default)]
struct Memory {
    samples: Vec<BTreeMap<&'static str, u64>>,
}

impl Memory {
    /// Samples until something else is done.
    async fn sample_until<T>(
        &mut self,
        processes: &mut Processes,
        done: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        let mut done = std::pin::pin!(done);
        let mut ticks = tokio::time::interval(SAMPLE);
        loop {
            tokio::select! {
                done = &mut done => return Ok(done),
                _ = ticks.tick() => {
                    processes.all_run()?;
                    self.samples.push(processes.resident_bytes());
                }
            }
        }
    }

    /// First and last quarter of the flood, and the most at all.
    fn rows(&self, during: usize, rows: &mut Vec<Vec<String>>) {
        let quarter = during.div_ceil(4);
        let mib = |bytes: u64| bytes / 1_048_576;
        for role in ["ingest", "delivery", "identity", "consent"] {
            let of: Vec<u64> = self.samples.iter().filter_map(|sample| sample.get(role).copied()).collect();
            let mean = |part: &[u64]| part.iter().sum::<u64>() / part.len().max(1) as u64;
            let first = mean(of.get(..quarter).unwrap_or_default());
            let last = mean(of.get(during.saturating_sub(quarter)..during).unwrap_or_default());
            let most = of.iter().max().copied().unwrap_or(0);
            let text = format!("{} / {} / {} MiB", mib(first), mib(last), mib(most));
            rows.push(vec![format!("resident {role}: first quarter / last quarter / most"), text]);
        }
    }
}
