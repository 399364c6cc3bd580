//! The one binary: a sub-command per service, `dev` with all of them, and the operators' command line.

mod bench;
mod cli;
mod demo;
mod dev;
mod migrate;
mod processes;
mod roles;
mod sample;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracklayer_ids::Secret;
use tracklayer_telemetry::{LogFormat, TelemetryConfig};

use crate::cli::connect::DevAddresses;
use crate::cli::{Access, AccessOptions};
use crate::dev::{DevOptions, Running};
use crate::roles::RoleCommand;

/// Delivery builds and drops many small JSON values: the system's allocator took a quarter of its time and kept twice the memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An open platform that takes over event routing: ingest, identity, consent, delivery.
#[derive(Debug, Parser)]
#[command(name = "tracklayer", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    access: AccessOptions,
    /// Which log lines there are, as in `info,tracklayer_delivery=debug`. Logs go to standard error.
    #[arg(long, env = "TRACKLAYER_LOG", global = true)]
    log: Option<String>,
    /// Log lines as JSON for machines, or as coloured text for people.
    #[arg(long, env = "TRACKLAYER_LOG_FORMAT", global = true, value_parser = ["json", "pretty"])]
    log_format: Option<String>,
    /// OTLP/gRPC address of a collector such as Jaeger, `http://127.0.0.1:4317`.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", global = true)]
    otlp_endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Role(RoleCommand),
    /// Run everything on this machine: five services, private PostgreSQL and Redis, sample workspace, platforms' sandbox.
    Dev(DevArgs),
    /// Run everything, send a sample day, print what became of it.
    Demo {
        #[command(flatten)]
        dev: DevArgs,
        #[command(flatten)]
        sample: demo::SampleOptions,
        /// End when the day is done instead of staying up.
        #[arg(long)]
        once: bool,
    },
    /// Send a sample day to a running `dev` and print what became of it.
    Sample {
        #[command(flatten)]
        sample: demo::SampleOptions,
    },
    /// Run the ad platforms' sandbox.
    Sandbox {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
    },
    /// Measure this machine and the platform on it.
    Bench(bench::BenchOptions),
    /// Bring a database to this version's schema.
    Migrate {
        /// PostgreSQL.
        #[arg(long, env = "TRACKLAYER_DATABASE_URL", hide_env_values = true)]
        database_url: String,
    },
    /// Print a new master key.
    MasterKey,
    /// Make another admin key of the installation, for who holds the database but has lost every key.
    RecoverAdminKey {
        /// PostgreSQL.
        #[arg(long, env = "TRACKLAYER_DATABASE_URL", hide_env_values = true)]
        database_url: String,
        /// For recognition.
        #[arg(long, default_value = "recovered")]
        label: String,
    },
    /// Check or show the settings of a service.
    #[command(subcommand)]
    Config(roles::ConfigCommand),
    /// Publish events over gRPC.
    Send(cli::send::Send),
    /// Single events: their story, and what was rejected at the door.
    #[command(subcommand)]
    Events(cli::events::Events),
    /// Workspaces and their keys.
    #[command(subcommand)]
    Workspaces(cli::workspaces::Workspaces),
    /// Sources and their write keys.
    #[command(subcommand)]
    Sources(cli::sources::Sources),
    /// Connections to destinations.
    #[command(subcommand)]
    Connections(ConnectionsCommand),
    /// The ledger: does every event have exactly one state?
    #[command(subcommand)]
    Ledger(cli::ledger::Ledger),
    /// The journal: what it holds, whether it can be read, who is behind.
    #[command(subcommand)]
    Journal(cli::journal::Journal),
    /// Events that will not be delivered unless somebody acts.
    #[command(subcommand)]
    DeadLetters(cli::dead_letters::DeadLetters),
    /// Send events of a connection again: its dead letters after a mend, or what the journal still has.
    #[command(subcommand)]
    Replay(cli::replay::Replay),
    /// Live counts per source and connection.
    Stats,
    /// What events could be matched by at the platforms: e-mail, phone, click ids and the rest, with an estimate of Meta's Event Match
    /// Quality and Meta's own figure.
    Quality(cli::quality::Quality),
    /// Which sources send twins of each other's events: who comes first, and which events have no twin.
    Twins(cli::twins::Twins),
    /// Golden events of a connection: frozen with their requests, and which of them give another one by now.
    #[command(subcommand)]
    Drift(cli::drift::Drift),
    /// Examine an installation: what is well, what is not, and what to do. Exits with 1 where there is a problem.
    Doctor,
    /// Show the exact requests that a connection would send for events; needs no server where the connection is a file.
    Preview(cli::preview::Preview),
    /// Normalise values as a platform wants them, JSON lines in and out; needs no server.
    Normalize,
}

#[derive(Debug, Subcommand)]
enum ConnectionsCommand {
    #[command(flatten)]
    Online(cli::connections::Connections),
    Try(cli::tries::Try),
    /// Print the JSON Schema of a kind's connection document; needs no server.
    Schema {
        /// meta_capi, google_data_manager, google_ads, ga4_mp, tiktok_events, webhook, warehouse.
        kind: String,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct DevArgs {
    /// A running PostgreSQL instead of a private one.
    #[arg(long)]
    database_url: Option<String>,
    /// A running Redis instead of a private one.
    #[arg(long)]
    redis_url: Option<String>,
    /// The journal over this Kafka cluster instead of PostgreSQL, `host:port,host:port`.
    #[arg(long)]
    kafka_brokers: Option<String>,
    /// What the names of its topics begin with: another one is another, empty journal.
    #[arg(long, default_value = "tracklayer-dev")]
    kafka_prefix: String,
    /// Free ports instead of the documented ones; they are in `dev.json` of the data folder.
    #[arg(long)]
    free_ports: bool,
    /// How long a lease holds without renewal, milliseconds.
    #[arg(long, default_value_t = 5_000)]
    lease_ms: u64,
    /// Share of events that are traced where the sender does not say, 0 to 1.
    #[arg(long, default_value_t = 0.01)]
    trace_sample_ratio: f64,
    /// Start the servers, the schema, the sample workspace and the sandbox, but no service.
    #[arg(long, hide = true)]
    without_services: bool,
}

impl DevArgs {
    fn options(&self, data_dir: PathBuf) -> DevOptions {
        DevOptions {
            data_dir,
            database_url: self.database_url.clone(),
            redis_url: self.redis_url.clone(),
            kafka_brokers: self.kafka_brokers.clone(),
            kafka_prefix: self.kafka_prefix.clone(),
            free_ports: self.free_ports,
            lease_ms: self.lease_ms,
            trace_sample_ratio: self.trace_sample_ratio,
            without_services: self.without_services,
        }
    }
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", cli::output::told(&error));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    // Pure commands need neither runtime nor logs.
    match &cli.command {
        Command::Preview(preview) if preview.needs_no_server() => return cli::preview::run_alone(preview),
        Command::Normalize => return cli::pure::run_normalize(),
        Command::Connections(ConnectionsCommand::Schema { kind }) => return cli::pure::run_schema(kind),
        Command::Connections(ConnectionsCommand::Try(command)) if command.sample.is_at_hand() => {
            return cli::tries::run_at_hand(command, cli.access.output);
        }
        Command::MasterKey => {
            println!("{}", dev::start::new_master_key()?);
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    if let Command::Config(command) = cli.command {
        roles::check(command)?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(cli))
}

/// A token that is cancelled by Ctrl-C or SIGTERM.
fn until_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}

fn telemetry(cli: &Cli, service: &str, quiet: bool) -> TelemetryConfig {
    let default_format = if quiet { LogFormat::Pretty } else { LogFormat::Json };
    TelemetryConfig {
        service: service.to_owned(),
        log_format: match cli.log_format.as_deref() {
            Some("json") => LogFormat::Json,
            Some(_) => LogFormat::Pretty,
            None => default_format,
        },
        log_filter: cli.log.clone().unwrap_or_else(|| if quiet { "warn" } else { "info" }.to_owned()),
        otlp_endpoint: cli.otlp_endpoint.clone().unwrap_or_default(),
        ..TelemetryConfig::default()
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // One TLS provider for the whole process; a second call only says that it is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = match &cli.command {
        Command::Role(RoleCommand::Ingest(_)) => "ingest",
        Command::Role(RoleCommand::Identity(_)) => "identity",
        Command::Role(RoleCommand::Consent(_)) => "consent",
        Command::Role(RoleCommand::Delivery(_)) => "delivery",
        Command::Role(RoleCommand::Control(_)) => "control",
        Command::Dev(_) | Command::Demo { .. } => "tracklayer-dev",
        _ => "tracklayer-cli",
    };
    let quiet = !matches!(cli.command, Command::Role(_));
    let guard = tracklayer_telemetry::init(&telemetry(&cli, service, quiet))?;
    let stop = until_signal()?;
    let data_dir = cli.access.data_dir.clone();
    let done = match cli.command {
        Command::Role(role) => {
            let (role, options) = role.split();
            roles::run(role, &options, stop).await
        }
        Command::Dev(dev) => run_dev(dev.options(data_dir), stop).await,
        Command::Demo { dev, sample, once } => demo::run(dev.options(data_dir), sample, once, stop).await,
        Command::Sample { sample } => {
            match DevAddresses::read(&data_dir).filter(|dev| !dev.ingest.is_empty()) {
                Some(addresses) => demo::show(&addresses, &sample, cli.access.output).await,
                None => Err(anyhow::anyhow!("no `tracklayer dev` runs in {}", data_dir.display())),
            }
        }
        Command::Bench(options) => bench::run(options).await,
        Command::Sandbox { listen } => run_sandbox(listen, stop).await,
        Command::Migrate { database_url } => {
            let pool = tracklayer_postgres::connect(&Secret::new(database_url), 2).await?;
            migrate::all(&pool).await
        }
        Command::RecoverAdminKey { database_url, label } => {
            let pool = tracklayer_postgres::connect(&Secret::new(database_url), 2).await?;
            let key = tracklayer_control::recover_admin_key(&pool, &label).await?;
            println!("{}", key.expose());
            Ok(())
        }
        Command::Send(send) => cli::send::run(&cli.access, send).await,
        Command::Events(command) => cli::events::run(&Access::new(&cli.access)?, command).await,
        Command::Workspaces(command) => cli::workspaces::run(&Access::new(&cli.access)?, command).await,
        Command::Sources(command) => cli::sources::run(&Access::new(&cli.access)?, command).await,
        Command::Connections(ConnectionsCommand::Online(command)) => {
            cli::connections::run(&Access::new(&cli.access)?, command).await
        }
        Command::Connections(ConnectionsCommand::Try(command)) => {
            cli::tries::run(&Access::new(&cli.access)?, &command).await
        }
        Command::Ledger(command) => cli::ledger::run(&Access::new(&cli.access)?, command).await,
        Command::Journal(command) => cli::journal::run(&Access::new(&cli.access)?, command).await,
        Command::DeadLetters(command) => cli::dead_letters::run(&Access::new(&cli.access)?, command).await,
        Command::Replay(command) => cli::replay::run(&Access::new(&cli.access)?, command, stop).await,
        Command::Stats => cli::stats::run(&Access::new(&cli.access)?).await,
        Command::Drift(command) => cli::drift::run(&Access::new(&cli.access)?, &command).await,
        Command::Quality(command) => cli::quality::run(&Access::new(&cli.access)?, &command).await,
        Command::Twins(command) => cli::twins::run(&Access::new(&cli.access)?, &command).await,
        Command::Doctor => cli::doctor::run(&Access::new(&cli.access)?).await,
        Command::Preview(preview) => cli::preview::run(&Access::new(&cli.access)?, &preview).await,
        Command::Normalize
        | Command::MasterKey
        | Command::Config(_)
        | Command::Connections(ConnectionsCommand::Schema { .. }) => Ok(()),
    };
    guard.shutdown().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn run_dev(options: DevOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let mut running = tokio::select! {
        running = Running::start(options) => running?,
        () = stop.cancelled() => return Ok(()),
    };
    print_addresses(&running.addresses);
    println!("\nready; Ctrl-C stops everything");
    let failed = tokio::select! {
        error = running.failed() => Some(error),
        () = stop.cancelled() => None,
    };
    let stopped = running.stop().await;
    match failed {
        Some(error) => Err(error),
        None => stopped,
    }
}

/// Where everything answers, for people.
fn print_addresses(at: &DevAddresses) {
    println!("\nconsole         {}", at.console);
    println!("admin key       {}", at.admin_key);
    println!("Segment HTTP    {}/v1/batch", at.ingest_http);
    println!("gRPC            ingest {}  delivery {}  control {}", at.ingest, at.delivery, at.control);
    println!("sandbox         {}/_sandbox/totals", at.sandbox);
    for (source, key) in &at.write_keys {
        println!("write key       {key}  ({source})");
    }
    for (service, ops) in &at.ops {
        println!("metrics         {ops}/metrics  ({service})");
    }
}

async fn run_sandbox(listen: SocketAddr, stop: CancellationToken) -> anyhow::Result<()> {
    let sandbox =
        tracklayer_sandbox::Sandbox::start(listen, tracklayer_sandbox::Options::default(), stop.clone())
            .await?;
    println!("sandbox at {}; totals at {}/_sandbox/totals", sandbox.base_url(), sandbox.base_url());
    stop.cancelled().await;
    sandbox.stopped().await;
    Ok(())
}
