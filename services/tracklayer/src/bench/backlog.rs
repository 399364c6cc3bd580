//! A platform that has stopped: what its backlog costs the others, what it costs on disk, and how fast it drains.
//!
//! Every speed is measured with nothing waiting and with the whole backlog, and given as the ratio of the two. Those of ingest and of
//! the other lanes are measured once more when the backlog is gone: what millions of events more in every store cost, waiting or
//! not, and a disk that has written for a quarter of an hour, is no cost of the backlog.

use std::time::{Duration, Instant};

use anyhow::bail;
use sqlx::PgPool;
use tracklayer_sandbox::{Fault, How, Platform, SandboxClient};

use super::{PLATFORMS, Row, choose_platforms, event, load};
use crate::cli::stats::Counts;
use crate::cli::{Access, Output};
use crate::dev::Running;
use crate::processes::{Processes, ROLES};
use crate::roles::Role;

/// The lane that stops, and the others.
const STOPPED: &str = PLATFORMS[0];
const OTHERS: [&str; 2] = [PLATFORMS[1], PLATFORMS[2]];
/// Events of one measurement of the lanes' speed.
const PROBE: usize = 40_000;
/// Events that are made at once.
const CHUNK: usize = 50_000;
/// Most events that wait for a lane that is at work while the backlog is filled: ingest is not to be ahead by all of them.
const AHEAD: u64 = 100_000;
/// Longest wait for anything to move.
const PATIENCE: Duration = Duration::from_secs(300);

/// What one state of the backlog allows.
struct Speeds {
    ingest: f64,
    others: f64,
}

struct Bench<'b> {
    running: &'b Running,
    access: Access,
    sandbox: SandboxClient,
    pool: PgPool,
    length: Duration,
    seed: u64,
}

/// Measures with a backlog of so many events.
///
/// # Errors
/// Something did not start, or nothing moves any more.
pub async fn measure(
    running: &Running,
    processes: &mut Processes,
    events: usize,
    length: Duration,
) -> anyhow::Result<Vec<Row>> {
    for role in ROLES {
        processes.start(role).await?;
    }
    let access = crate::demo::access(&running.addresses, Output::Table)?;
    choose_platforms(running, &access, running.addresses.workspace_id).await?;
    let url = tracklayer_ids::Secret::new(running.addresses.database_url.clone());
    let pool = tracklayer_postgres::connect(&url, 2).await?;
    let sandbox = SandboxClient::new(&running.addresses.sandbox);
    let mut bench = Bench { running, access, sandbox, pool, length, seed: 100 };

    bench.stop().await?;
    let quiet = bench.speeds(processes).await?;
    let small = bench.waiting(STOPPED).await?;
    println!("  {small} wait: the others {:.0} events/s, ingest {:.0} events/s", quiet.others, quiet.ingest);
    let small_drain = bench.drain().await?;
    println!("  drained at {small_drain:.0} events/s");

    bench.stop().await?;
    let drained_bytes = bench.bytes().await?;
    bench.fill(events as u64).await?;
    let held_bytes = bench.bytes().await?;
    let loaded = bench.speeds(processes).await?;
    let large = bench.waiting(STOPPED).await?;
    println!(
        "  {large} wait: the others {:.0} events/s, ingest {:.0} events/s",
        loaded.others, loaded.ingest
    );
    let large_drain = bench.drain().await?;
    println!("  drained at {large_drain:.0} events/s");

    bench.stop().await?;
    let after = bench.speeds(processes).await?;
    println!(
        "  with that gone: the others {:.0} events/s, ingest {:.0} events/s",
        after.others, after.ingest
    );

    let each = (held_bytes.saturating_sub(drained_bytes)) as f64 / events as f64;
    let ratio = |what: &str, with: f64, without: f64| Row {
        what: what.to_owned(),
        figure: format!("{with:.0} events/s"),
        limit: format!("{without:.0} events/s"),
        share: format!("{:.2}", with / without),
    };
    Ok(vec![
        Row::plain("events that wait for the stopped platform", format!("{large} (limits: with {small})")),
        ratio("ingest over gRPC, delivery at rest; without: before", loaded.ingest, quiet.ingest),
        ratio("  without: after", loaded.ingest, after.ingest),
        ratio("received to delivered at the other two; without: before", loaded.others, quiet.others),
        ratio("  without: after", loaded.others, after.others),
        ratio("the stopped lane, once it goes on", large_drain, small_drain),
        Row::plain("bytes on disk for an event of the backlog", format!("{each:.0}")),
    ])
}

impl Bench<'_> {
    /// The platform answers 503 to everything.
    async fn stop(&self) -> anyhow::Result<()> {
        let fault = Fault::Status { code: 503, body: None };
        self.sandbox.inject(Platform::Meta, fault, How::Always).await?;
        Ok(())
    }

    /// The speed of ingest alone, and of the lanes that go on.
    async fn speeds(&mut self, processes: &mut Processes) -> anyhow::Result<Speeds> {
        processes.stop_one(Role::Delivery).await;
        let templates = event::realistic(20_000, 7);
        // All of it is delivered afterwards: people with one visitor each, and not with hundreds.
        let ingest = load::grpc_stream(self.running, &templates, self.length, false).await?;
        processes.start(Role::Delivery).await?;
        self.others_done(0).await?;
        let events = load::frames(&event::orders(PROBE, self.next_seed()))?;
        let begun = Instant::now();
        load::publish_all(self.running, &events, None).await?;
        self.others_done(0).await?;
        Ok(Speeds { ingest, others: PROBE as f64 / begun.elapsed().as_secs_f64() })
    }

    /// Publishes until so many wait for the stopped platform, and the others have had them.
    async fn fill(&mut self, events: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut filled = 0;
        while filled < events {
            let count = usize::try_from(events - filled).unwrap_or(CHUNK).min(CHUNK);
            let orders = load::frames(&event::orders(count, self.next_seed()))?;
            load::publish_all(self.running, &orders, None).await?;
            filled += count as u64;
            self.others_done(AHEAD).await?;
            println!("  {filled} of {events} after {:.0} s", begun.elapsed().as_secs_f64());
        }
        self.others_done(0).await
    }

    /// The platform answers again: events a second until nothing waits.
    async fn drain(&self) -> anyhow::Result<f64> {
        let waiting = self.waiting(STOPPED).await?;
        self.sandbox.clear(Platform::Meta).await?;
        // The lane looks again when its hold is over: its first delivery is the beginning.
        let moved = self.until(|counts| waits(counts, STOPPED) < waiting).await?;
        let (begun, rest) = (Instant::now(), waits(&moved, STOPPED));
        self.until(|counts| waits(counts, STOPPED) == 0).await?;
        Ok(rest as f64 / begun.elapsed().as_secs_f64())
    }

    async fn others_done(&self, most: u64) -> anyhow::Result<()> {
        self.until(|counts| OTHERS.iter().all(|name| waits(counts, name) <= most)).await.map(drop)
    }

    async fn waiting(&self, name: &str) -> anyhow::Result<u64> {
        Ok(waits(&self.counts().await?, name))
    }

    async fn counts(&self) -> anyhow::Result<Counts> {
        Counts::read(&self.access, self.running.addresses.workspace_id).await
    }

    /// Waits for a state, as long as anything moves.
    async fn until(&self, reached: impl Fn(&Counts) -> bool) -> anyhow::Result<Counts> {
        let mut last = (Vec::new(), Instant::now());
        loop {
            let counts = self.counts().await?;
            if reached(&counts) {
                return Ok(counts);
            }
            let now: Vec<u64> = PLATFORMS.iter().map(|name| waits(&counts, name)).collect();
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                bail!("nothing has moved for {PATIENCE:?}:\n{}", counts.tables());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn bytes(&self) -> anyhow::Result<u64> {
        let bytes: i64 =
            sqlx::query_scalar("select pg_database_size(current_database())").fetch_one(&self.pool).await?;
        Ok(bytes.unsigned_abs())
    }

    fn next_seed(&mut self) -> u64 {
        self.seed += 1;
        self.seed
    }
}

/// Beyond the cursor of a connection, and what it holds back for another try.
fn waits(counts: &Counts, name: &str) -> u64 {
    counts.connections.get(name).map_or(0, |connection| connection.waiting + connection.in_state("held"))
}
