//! `tracklayer demo`: everything started, a sample day sent through the public APIs, live progress, and the table at the end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::connect::DevAddresses;
use crate::cli::output::table;
use crate::cli::stats::Counts;
use crate::cli::{Access, AccessOptions, Output};
use crate::dev::{DevOptions, Running};
use crate::sample::people::{self, Day, From, Part};
use crate::sample::send::{Tally, Target, send};

/// Longest wait for a part of the day to settle.
const SETTLE: Duration = Duration::from_secs(600);

/// The sample day.
#[derive(Debug, Clone, Args)]
pub struct SampleOptions {
    /// Decides who comes and what they do.
    #[arg(long, default_value_t = 2026)]
    pub seed: u64,
    /// How many visitors come.
    #[arg(long, default_value_t = 1_500)]
    pub visitors: usize,
    /// Spreads their visits over so many seconds; 0: they come as fast as they are served.
    #[arg(long, default_value_t = 0)]
    pub over_seconds: u32,
}

/// The target of a running `dev`.
///
/// # Errors
/// The sample workspace's sources are not there.
pub fn target(addresses: &DevAddresses) -> anyhow::Result<Target> {
    let key = |name: &str| {
        addresses
            .write_keys
            .get(name)
            .cloned()
            .ok_or_else(|| anyhow::anyhow!("no source `{name}` in the sample workspace"))
    };
    let write_keys = BTreeMap::from([
        (From::WebUs, key("web-us")?),
        (From::WebDe, key("web-de")?),
        (From::ShopServer, key("shop-server")?),
        (From::ShopServerDe, key("shop-server-de")?),
        (From::Subscriptions, key("subscriptions")?),
        (From::Wholesale, key("wholesale")?),
    ]);
    Ok(Target { http: addresses.ingest_http.clone(), grpc: addresses.ingest.clone(), write_keys })
}

/// An installation's key and addresses as the command line uses them.
///
/// # Errors
/// There is no key.
pub fn access(addresses: &DevAddresses, output: Output) -> anyhow::Result<Access> {
    Access::new(&AccessOptions {
        control: Some(addresses.control.clone()),
        delivery: Some(addresses.delivery.clone()),
        ingest: Some(addresses.ingest.clone()),
        admin_key: Some(addresses.admin_key.clone()),
        workspace: Some(addresses.workspace_id.to_string()),
        data_dir: std::path::PathBuf::new(),
        output,
    })
}

/// Starts everything and shows the day; stays until Ctrl-C unless `once`.
///
/// # Errors
/// Something did not start, or the day did not settle.
pub async fn run(
    dev: DevOptions,
    sample: SampleOptions,
    once: bool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    println!("starting the five services, PostgreSQL, Redis and the platforms' sandbox ...");
    let started = Instant::now();
    let mut running = Running::start(dev).await?;
    println!(
        "up after {:.1} s; console {}  (admin key: {})",
        started.elapsed().as_secs_f64(),
        running.addresses.console,
        running.addresses.admin_key
    );
    let addresses = running.addresses.clone();
    let done = tokio::select! {
        done = show(&addresses, &sample, Output::Table) => done,
        error = running.failed() => Err(error),
        () = stop.cancelled() => Ok(()),
    };
    if done.is_ok() && !once && !stop.is_cancelled() {
        crate::print_addresses(&running.addresses);
        println!("\nstays up until Ctrl-C");
        tokio::select! {
            error = running.failed() => eprintln!("{error:#}"),
            () = stop.cancelled() => {}
        }
    }
    let stopped = running.stop().await;
    done?;
    stopped
}

/// Sends the day, part by part, and prints the table; as JSON, one line for each step and the counts in the last.
///
/// # Errors
/// A client gave up, or nothing settles.
pub async fn show(addresses: &DevAddresses, sample: &SampleOptions, output: Output) -> anyhow::Result<()> {
    let day = people::day(sample.seed, sample.visitors);
    let census = day.census();
    if output == Output::Table {
        println!(
            "sample day, seed {}: {} visitors, {} distinct events, {} with twins and repeats",
            sample.seed, sample.visitors, census.events, census.sent
        );
    }
    let show = Show {
        access: access(addresses, output)?,
        workspace: addresses.workspace_id,
        target: target(addresses)?,
        gap: Duration::from_secs(u64::from(sample.over_seconds)).div_f64(sample.visitors.max(1) as f64),
        day,
        planned: census.sent as u64,
        tally: Arc::new(Tally::default()),
    };
    let before = Instant::now();
    for part in [Part::Day, Part::Evening] {
        show.part(part).await?;
    }
    let counts = Counts::read(&show.access, show.workspace).await?;
    let seconds = before.elapsed().as_secs_f64();
    match output {
        Output::Json => println!("{}", show.document(&counts, seconds)),
        Output::Table => {
            println!("\nthe whole day took {seconds:.1} s\n");
            print!("{}", counts.tables());
            println!("\n{}", summary(&counts, &show.tally));
        }
    }
    Ok(())
}

/// A day while it is sent.
struct Show {
    access: Access,
    workspace: i64,
    target: Target,
    day: Day,
    /// From one visitor to the next.
    gap: Duration,
    /// Events that will be sent.
    planned: u64,
    tally: Arc<Tally>,
}

impl Show {
    /// Sends a part of the day and waits until nothing of it is on its way. That a service cannot be asked for its counts for
    /// a while is no reason to stop: the clients of a real day would not notice either.
    async fn part(&self, part: Part) -> anyhow::Result<()> {
        tokio::select! {
            sent = send(&self.target, &self.day, part, self.gap, Arc::clone(&self.tally)) => sent?,
            never = self.watch() => match never {},
        }
        let deadline = Instant::now() + SETTLE;
        loop {
            let counts = Counts::read(&self.access, self.workspace).await;
            self.tell(counts.as_ref().ok());
            match counts {
                Ok(counts) if counts.settled() => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context("the counts cannot be read"));
                }
                Ok(_) if Instant::now() > deadline => {
                    bail!("the day does not settle: something waits or is held; see `tracklayer stats`");
                }
                Ok(_) | Err(_) => tokio::time::sleep(self.pause()).await,
            }
        }
    }

    async fn watch(&self) -> Infallible {
        loop {
            tokio::time::sleep(self.pause()).await;
            let counts = match self.access.output {
                Output::Json => None,
                Output::Table => Counts::read(&self.access, self.workspace).await.ok(),
            };
            self.tell(counts.as_ref());
        }
    }

    /// Between two lines: people read slower than programs.
    fn pause(&self) -> Duration {
        match self.access.output {
            Output::Json => Duration::from_millis(50),
            Output::Table => Duration::from_millis(500),
        }
    }

    fn tell(&self, counts: Option<&Counts>) {
        let sent = self.tally.events.load(Ordering::Relaxed);
        match self.access.output {
            Output::Json => {
                let repeated = self.tally.retried.load(Ordering::Relaxed);
                let line = json!({ "sent": sent, "planned": self.planned, "repeated_requests": repeated });
                println!("{line}");
            }
            Output::Table => {
                let Some(counts) = counts else {
                    return println!("  sent {sent:>6}  (the counts cannot be read now)");
                };
                let connections: Vec<String> = counts
                    .connections
                    .iter()
                    .map(|(name, c)| {
                        format!(
                            "{name} {}+{} waiting",
                            c.in_state("delivered"),
                            c.waiting + c.in_state("held")
                        )
                    })
                    .collect();
                println!(
                    "  sent {sent:>6}  accepted {:>6}  delivered: {}",
                    counts.received(),
                    connections.join(", ")
                );
            }
        }
    }

    fn document(&self, counts: &Counts, seconds: f64) -> Value {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "sent": of(&self.tally.events), "planned": self.planned, "rejected": of(&self.tally.rejected),
            "requests": of(&self.tally.requests), "repeated_requests": of(&self.tally.retried),
            "seconds": seconds, "counts": counts.document(),
        })
    }
}

fn summary(counts: &Counts, tally: &Tally) -> String {
    let duplicates = counts.connections.values().map(|c| c.in_state("duplicate")).max().unwrap_or(0);
    let rows = vec![
        vec!["received".to_owned(), counts.received().to_string()],
        vec!["duplicates".to_owned(), duplicates.to_string()],
        vec!["rejected".to_owned(), tally.rejected.load(Ordering::Relaxed).to_string()],
        vec!["requests that clients repeated".to_owned(), tally.retried.load(Ordering::Relaxed).to_string()],
    ];
    table(&["the day", "events"], &rows)
}
