//! Puts `tracklayer dev` together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracklayer_control::seed::{SeedOptions, seed_northline};
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_local::{LocalPostgres, LocalRedis, PgOptions, RedisOptions};
use tracklayer_rpc::Listeners;
use tracklayer_sandbox::Sandbox;

use super::connections;
use crate::cli::connect::DevAddresses;
use crate::roles::{Role, Settings};

/// What can be chosen.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// Folder of the private servers' data, the master key and `dev.json`.
    pub data_dir: PathBuf,
    /// A running PostgreSQL instead of a private one.
    pub database_url: Option<String>,
    /// A running Redis instead of a private one.
    pub redis_url: Option<String>,
    /// The journal over this Kafka cluster instead of PostgreSQL.
    pub kafka_brokers: Option<String>,
    /// What the names of its topics begin with.
    pub kafka_prefix: String,
    /// Free ports instead of the documented ones.
    pub free_ports: bool,
    /// How long a lease holds without renewal, milliseconds.
    pub lease_ms: u64,
    /// Share of events that are traced where the sender does not say.
    pub trace_sample_ratio: f64,
    /// Only the servers, the schema, the workspace and the sandbox; no service. For tests that run the services as processes.
    pub without_services: bool,
}

/// Documented ports; 0 where free ones are wanted.
const PORTS: [(&str, u16); 13] = [
    ("ingest-http", 8080),
    ("console", 8081),
    ("sandbox", 8090),
    ("ingest", 7001),
    ("identity", 7002),
    ("consent", 7003),
    ("delivery", 7004),
    ("control", 7005),
    ("ops-ingest", 9001),
    ("ops-identity", 9002),
    ("ops-consent", 9003),
    ("ops-delivery", 9004),
    ("ops-control", 9005),
];

/// The folder of the data folder below which warehouse connections may write.
const WAREHOUSE: &str = "warehouse";

/// Everything that runs.
pub struct Running {
    /// Where it answers.
    pub addresses: DevAddresses,
    /// The sandbox.
    pub sandbox: Sandbox,
    data_dir: PathBuf,
    shutdown: CancellationToken,
    sandbox_shutdown: CancellationToken,
    services: tokio::task::JoinSet<(&'static str, anyhow::Result<()>)>,
    postgres: Option<LocalPostgres>,
    redis: Option<LocalRedis>,
}

/// The sandbox as a laptop wants it: Data Manager's 300 requests a minute would stretch a sample day over an hour. Every other
/// rule is the platforms' own.
fn sandbox_options() -> tracklayer_sandbox::Options {
    let mut options = tracklayer_sandbox::Options::default();
    options.google.requests_per_minute = 1_000_000;
    options
}

/// A new master key as 64 hexadecimal digits.
///
/// # Errors
/// The operating system gives no random numbers.
pub fn new_master_key() -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0u8; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("the operating system gives no random numbers")?;
    Ok(hex::encode(bytes))
}

fn private_file(path: &Path, content: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("could not write {}", path.display()))?;
    file.write_all(content.as_bytes()).with_context(|| format!("could not write {}", path.display()))
}

fn master_key(data_dir: &Path) -> anyhow::Result<MasterKey> {
    let path = data_dir.join("master.key");
    if !path.exists() {
        private_file(&path, &new_master_key()?)?;
    }
    Ok(MasterKey::read(&path)?)
}

/// One admin key per data folder, kept in `dev.json`: a developer's machine has no better place.
async fn admin_key(pool: &sqlx::PgPool, data_dir: &Path) -> anyhow::Result<String> {
    if let Some(known) = DevAddresses::read(data_dir).map(|dev| dev.admin_key).filter(|key| !key.is_empty()) {
        return Ok(known);
    }
    match tracklayer_control::seed::ensure_first_admin_key(pool).await? {
        Some(key) => Ok(key),
        None => Ok(tracklayer_control::seed::recover_admin_key(pool, "dev").await?.into_inner()),
    }
}

struct Sockets(BTreeMap<&'static str, TcpListener>);

impl Sockets {
    async fn bind(free: bool) -> anyhow::Result<Self> {
        let mut sockets = BTreeMap::new();
        for (name, port) in PORTS.iter().filter(|(name, _)| *name != "sandbox") {
            let port = if free { 0 } else { *port };
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let listener = TcpListener::bind(address).await.with_context(|| {
                format!("port {port} for {name} is taken: stop what uses it, or start with --free-ports")
            })?;
            sockets.insert(*name, listener);
        }
        Ok(Self(sockets))
    }

    fn url(&self, name: &str) -> anyhow::Result<String> {
        let listener = self.0.get(name).with_context(|| format!("no socket `{name}`"))?;
        Ok(format!("http://{}", listener.local_addr()?))
    }

    fn take(&mut self, name: &str) -> anyhow::Result<TcpListener> {
        self.0.remove(name).with_context(|| format!("socket `{name}` was taken already"))
    }

    fn listeners(&mut self, grpc: &str, http: Option<&str>) -> anyhow::Result<Listeners> {
        Ok(Listeners {
            grpc: self.take(grpc)?,
            http: http.map(|name| self.take(name)).transpose()?,
            ops: self.take(&format!("ops-{grpc}"))?,
        })
    }
}

impl Running {
    /// Starts everything and returns when the services are up.
    ///
    /// # Errors
    /// A program is missing (with the command that installs it), a port is taken, the database is not usable.
    pub async fn start(options: DevOptions) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("could not make {}", options.data_dir.display()))?;
        let data_dir = std::path::absolute(&options.data_dir)?;
        std::fs::create_dir_all(data_dir.join(WAREHOUSE))
            .with_context(|| format!("could not make a folder in {}", data_dir.display()))?;
        let master_key = master_key(&data_dir)?;
        let (postgres, database_url) = database(&options, &data_dir).await?;
        let (redis, redis_url) = dedup_store(&options, &data_dir).await?;

        let pool = tracklayer_postgres::connect(&Secret::new(database_url.clone()), 4).await?;
        crate::migrate::all(&pool).await?;
        let admin_key = admin_key(&pool, &data_dir).await?;

        let sandbox_shutdown = CancellationToken::new();
        let sandbox_port = if options.free_ports { 0 } else { 8090 };
        let sandbox = Sandbox::start(
            SocketAddr::from(([127, 0, 0, 1], sandbox_port)),
            sandbox_options(),
            sandbox_shutdown.clone(),
        )
        .await
        .context("could not start the sandbox: stop what uses its port, or start with --free-ports")?;
        let seed = SeedOptions { connections: connections::sample(&sandbox), ..SeedOptions::default() };
        let seeded = seed_northline(&pool, &master_key, &seed).await?;
        pool.close().await;

        let mut sockets = Sockets::bind(options.free_ports).await?;
        let mut addresses = DevAddresses {
            ingest_http: sockets.url("ingest-http")?,
            ingest: sockets.url("ingest")?,
            identity: sockets.url("identity")?,
            consent: sockets.url("consent")?,
            delivery: sockets.url("delivery")?,
            control: sockets.url("control")?,
            console: sockets.url("console")?,
            sandbox: sandbox.base_url(),
            ops: BTreeMap::new(),
            database_url,
            redis_url,
            admin_key,
            workspace_id: seeded.workspace_id.0,
            write_keys: seeded.sources.into_iter().map(|s| (s.name, s.write_key)).collect(),
        };
        for role in ["ingest", "identity", "consent", "delivery", "control"] {
            addresses.ops.insert(role.to_owned(), sockets.url(&format!("ops-{role}"))?);
        }
        private_file(&DevAddresses::path(&data_dir), &serde_json::to_string_pretty(&addresses)?)?;

        let mut running = Self {
            addresses,
            sandbox,
            data_dir,
            shutdown: CancellationToken::new(),
            sandbox_shutdown,
            services: tokio::task::JoinSet::new(),
            postgres,
            redis,
        };
        if !options.without_services {
            running.spawn_services(&mut sockets, &options, &master_key)?;
            running.ready().await?;
        }
        Ok(running)
    }

    fn spawn_services(
        &mut self,
        sockets: &mut Sockets,
        options: &DevOptions,
        master_key: &MasterKey,
    ) -> anyhow::Result<()> {
        let settings = Settings { file: None, environment: environment(&self.addresses, options) };
        let roles = [
            (Role::Control, Some("console")),
            (Role::Identity, None),
            (Role::Consent, None),
            (Role::Delivery, None),
            (Role::Ingest, Some("ingest-http")),
        ];
        for (role, http) in roles {
            let listeners = sockets.listeners(role.as_str(), http)?;
            let (settings, key, stop) = (settings.clone(), master_key.clone(), self.shutdown.clone());
            self.services.spawn(async move {
                (role.as_str(), crate::roles::serve(role, &settings, &key, listeners, stop).await)
            });
        }
        Ok(())
    }

    /// Waits until every service says that it wants traffic.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let http = reqwest::Client::new();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        let waits: Vec<String> = self.addresses.ops.values().map(|ops| format!("{ops}/readyz")).collect();
        for url in waits {
            loop {
                tokio::select! {
                    Some(ended) = self.services.join_next() => {
                        let (name, result) = ended?;
                        result.with_context(|| format!("{name} could not start"))?;
                        anyhow::bail!("{name} ended while it was started");
                    }
                    answer = http.get(&url).send() => match answer {
                        Ok(answer) if answer.status().is_success() => break,
                        Ok(answer) if tokio::time::Instant::now() > deadline => {
                            anyhow::bail!("{url} does not become ready: {}", answer.text().await.unwrap_or_default());
                        }
                        Err(error) if tokio::time::Instant::now() > deadline => return Err(error.into()),
                        _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                    },
                }
            }
        }
        Ok(())
    }

    /// Resolves when a service ends by itself, which it should not.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.services.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow::anyhow!("{name} ended by itself"),
            Some(Ok((name, Err(error)))) => error.context(format!("{name} failed")),
            Some(Err(panic)) => anyhow::anyhow!("a service panicked: {panic}"),
            None => std::future::pending().await,
        }
    }

    /// Stops everything in order: services, sandbox, servers. `dev.json` keeps only what the next start needs.
    ///
    /// # Errors
    /// A server did not stop.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        while let Some(ended) = self.services.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(error))) => {
                    tracing::warn!(service = name, error = %format!("{error:#}"), "service ended with an error")
                }
                Err(panic) => tracing::error!(error = %panic, "service panicked"),
            }
        }
        self.sandbox_shutdown.cancel();
        self.sandbox.stopped().await;
        let kept = DevAddresses { admin_key: self.addresses.admin_key.clone(), ..DevAddresses::default() };
        private_file(&DevAddresses::path(&self.data_dir), &serde_json::to_string_pretty(&kept)?)?;
        if let Some(redis) = self.redis.take() {
            redis.stop().await?;
        }
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await?;
        }
        Ok(())
    }
}

/// What a cluster's ConfigMap would say to the services.
#[must_use]
pub fn environment(at: &DevAddresses, options: &DevOptions) -> BTreeMap<String, String> {
    let data_dir = std::path::absolute(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone());
    let common = [
        ("DATABASE_URL", at.database_url.clone()),
        ("REDIS_URL", at.redis_url.clone()),
        ("CONTROL_ADDRESS", at.control.clone()),
        ("IDENTITY_ADDRESS", at.identity.clone()),
        ("CONSENT_ADDRESS", at.consent.clone()),
        ("DELIVERY_ADDRESS", at.delivery.clone()),
        ("LEASE_MS", options.lease_ms.to_string()),
        ("TRACE_SAMPLE_RATIO", options.trace_sample_ratio.to_string()),
        ("ALLOW_PRIVATE_ADDRESSES", "true".to_owned()),
        ("WAREHOUSE_ROOT", data_dir.join(WAREHOUSE).display().to_string()),
    ];
    // One machine has one broker: a second replica has no place.
    let kafka = options.kafka_brokers.iter().flat_map(|brokers| {
        [
            ("JOURNAL", "kafka".to_owned()),
            ("KAFKA_BROKERS", brokers.clone()),
            ("KAFKA_PREFIX", options.kafka_prefix.clone()),
            ("KAFKA_REPLICATION", "1".to_owned()),
        ]
    });
    common.into_iter().chain(kafka).map(|(key, value)| (format!("TRACKLAYER_COMMON__{key}"), value)).collect()
}

async fn database(options: &DevOptions, data_dir: &Path) -> anyhow::Result<(Option<LocalPostgres>, String)> {
    if let Some(url) = &options.database_url {
        return Ok((None, url.clone()));
    }
    let settings = [
        ("max_connections", "200"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "4GB"),
        // Segments of the log are kept for reuse: making one takes tens of milliseconds, for which every ack waits.
        ("min_wal_size", "2GB"),
        ("wal_compression", "lz4"),
        // What is written to tables is handed to the disk soon: the kernel otherwise gathers it for half a minute, and every
        // ack waits behind a gigabyte that is then written at once.
        ("backend_flush_after", "1MB"),
    ];
    let postgres = LocalPostgres::start(PgOptions {
        data_dir: data_dir.join("postgres"),
        port: None,
        persistent: true,
        settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        environment: Vec::new(),
    })
    .await?;
    let url = postgres.url().to_owned();
    Ok((Some(postgres), url))
}

async fn dedup_store(options: &DevOptions, data_dir: &Path) -> anyhow::Result<(Option<LocalRedis>, String)> {
    if let Some(url) = &options.redis_url {
        return Ok((None, url.clone()));
    }
    let redis = LocalRedis::start(RedisOptions {
        dir: data_dir.join("redis"),
        port: None,
        appendonly: true,
        persistent: true,
        environment: Vec::new(),
    })
    .await?;
    let url = redis.url();
    Ok((Some(redis), url))
}
