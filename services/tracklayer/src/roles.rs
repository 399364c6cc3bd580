//! The five services as processes: what each is told on its command line or by the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_rpc::Listeners;

/// What several services are told alike.
#[derive(Debug, Clone)]
pub struct Common {
    /// PostgreSQL.
    pub database_url: String,
    /// Redis.
    pub redis_url: String,
    /// Control's gRPC.
    pub control_address: String,
    /// Identity's gRPC.
    pub identity_address: String,
    /// Consent's gRPC.
    pub consent_address: String,
    /// Delivery's gRPC.
    pub delivery_address: String,
    /// The installation's key.
    pub master_key: MasterKey,
    /// How long a lease holds, milliseconds.
    pub lease_ms: u64,
    /// Share of events that are traced.
    pub trace_sample_ratio: f64,
    /// Webhooks may go to private addresses.
    pub allow_private_webhooks: bool,
}

impl Common {
    fn database(&self) -> Secret<String> {
        Secret::new(self.database_url.clone())
    }

    /// Ingest's settings.
    #[must_use]
    pub fn ingest(&self) -> tracklayer_ingest::Config {
        tracklayer_ingest::Config {
            redis_url: Some(Secret::new(self.redis_url.clone())),
            trace_sample_ratio: self.trace_sample_ratio,
            ..tracklayer_ingest::Config::new(
                self.database(),
                self.control_address.clone(),
                self.consent_address.clone(),
                self.master_key.clone(),
            )
        }
    }

    /// Identity's settings.
    #[must_use]
    pub fn identity(&self) -> tracklayer_identity::Config {
        tracklayer_identity::Config::new(self.database(), self.master_key.clone())
    }

    /// Consent's settings.
    #[must_use]
    pub fn consent(&self) -> tracklayer_consent::Config {
        tracklayer_consent::Config::new(self.database(), self.master_key.clone())
    }

    /// Delivery's settings.
    #[must_use]
    pub fn delivery(&self) -> tracklayer_delivery::Config {
        tracklayer_delivery::Config {
            database_url: self.database(),
            redis_url: Secret::new(self.redis_url.clone()),
            control_address: self.control_address.clone(),
            identity_address: self.identity_address.clone(),
            consent_address: self.consent_address.clone(),
            master_key: self.master_key.clone(),
            lease_ms: self.lease_ms,
            poll_ms: 15,
            entry_cache_bytes: 64 * 1024 * 1024,
            database_connections: 24,
            allow_private_webhooks: self.allow_private_webhooks,
        }
    }

    /// Control's settings.
    #[must_use]
    pub fn control(&self) -> tracklayer_control::Config {
        tracklayer_control::Config {
            database_url: self.database(),
            delivery_address: self.delivery_address.clone(),
            master_key: self.master_key.clone(),
            database_connections: 10,
            console_cookies_https_only: false,
        }
    }
}

/// A service to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes events in.
    Ingest,
    /// Knows who a person is.
    Identity,
    /// Decides what may be sent.
    Consent,
    /// Resolves and delivers.
    Delivery,
    /// Administration and console.
    Control,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Identity => "identity",
            Self::Consent => "consent",
            Self::Delivery => "delivery",
            Self::Control => "control",
        }
    }
}

/// The services, for the command line.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Takes events in: gRPC, Segment-compatible HTTP.
    Ingest(RoleOptions),
    /// Knows who a person is: the identifier graph.
    Identity(RoleOptions),
    /// Decides what may be sent: signals, policies, decisions.
    Consent(RoleOptions),
    /// Resolves what was received and brings it to the destinations.
    Delivery(RoleOptions),
    /// Administration, configuration of the others, web console.
    Control(RoleOptions),
}

/// Options of every service.
#[derive(Debug, Clone, Args)]
pub struct RoleOptions {
    /// Where gRPC listens.
    #[arg(long, env = "TRACKLAYER_LISTEN_GRPC", default_value = "0.0.0.0:7000")]
    pub listen_grpc: SocketAddr,
    /// Where HTTP listens: the Segment-compatible edge of ingest, the console of control.
    #[arg(long, env = "TRACKLAYER_LISTEN_HTTP", default_value = "0.0.0.0:8080")]
    pub listen_http: SocketAddr,
    /// Where /metrics, /healthz and /readyz listen.
    #[arg(long, env = "TRACKLAYER_LISTEN_OPS", default_value = "0.0.0.0:9000")]
    pub listen_ops: SocketAddr,
    /// PostgreSQL, the primary.
    #[arg(long, env = "TRACKLAYER_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Redis, for ingest and delivery.
    #[arg(long, env = "TRACKLAYER_REDIS_URL", hide_env_values = true, default_value = "redis://127.0.0.1:6379")]
    pub redis_url: String,
    /// File with the master key: 64 hexadecimal digits. Make one with `tracklayer master-key`.
    #[arg(long, env = "TRACKLAYER_MASTER_KEY_FILE")]
    pub master_key_file: PathBuf,
    /// Control's gRPC.
    #[arg(long, env = "TRACKLAYER_CONTROL_ADDRESS", default_value = "http://127.0.0.1:7005")]
    pub control_address: String,
    /// Identity's gRPC.
    #[arg(long, env = "TRACKLAYER_IDENTITY_ADDRESS", default_value = "http://127.0.0.1:7002")]
    pub identity_address: String,
    /// Consent's gRPC.
    #[arg(long, env = "TRACKLAYER_CONSENT_ADDRESS", default_value = "http://127.0.0.1:7003")]
    pub consent_address: String,
    /// Delivery's gRPC.
    #[arg(long, env = "TRACKLAYER_DELIVERY_ADDRESS", default_value = "http://127.0.0.1:7004")]
    pub delivery_address: String,
    /// Delivery: how long a lease holds without renewal, milliseconds.
    #[arg(long, env = "TRACKLAYER_LEASE_MS", default_value_t = 10_000)]
    pub lease_ms: u64,
    /// Ingest: share of events that are traced where the sender does not say, 0 to 1.
    #[arg(long, env = "TRACKLAYER_TRACE_SAMPLE_RATIO", default_value_t = 0.01)]
    pub trace_sample_ratio: f64,
    /// Delivery: webhook connections may go to private addresses.
    #[arg(long, env = "TRACKLAYER_ALLOW_PRIVATE_WEBHOOKS")]
    pub allow_private_webhooks: bool,
}

impl RoleOptions {
    fn common(&self) -> anyhow::Result<Common> {
        Ok(Common {
            database_url: self.database_url.clone(),
            redis_url: self.redis_url.clone(),
            control_address: self.control_address.clone(),
            identity_address: self.identity_address.clone(),
            consent_address: self.consent_address.clone(),
            delivery_address: self.delivery_address.clone(),
            master_key: MasterKey::read(&self.master_key_file)?,
            lease_ms: self.lease_ms,
            trace_sample_ratio: self.trace_sample_ratio,
            allow_private_webhooks: self.allow_private_webhooks,
        })
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("could not listen on {address}"))
}

/// Runs a service until `shutdown`.
///
/// # Errors
/// It could not start, or ended with an error.
pub async fn run(role: Role, options: &RoleOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    let common = options.common()?;
    let http = match role {
        Role::Ingest | Role::Control => Some(listen(options.listen_http).await?),
        Role::Identity | Role::Consent | Role::Delivery => None,
    };
    let listeners =
        Listeners { grpc: listen(options.listen_grpc).await?, http, ops: listen(options.listen_ops).await? };
    tracing::info!(service = role.as_str(), grpc = %options.listen_grpc, ops = %options.listen_ops, "service starts");
    match role {
        Role::Ingest => tracklayer_ingest::run(common.ingest(), listeners, shutdown).await?,
        Role::Identity => tracklayer_identity::run(common.identity(), listeners, shutdown).await?,
        Role::Consent => tracklayer_consent::run(common.consent(), listeners, shutdown).await?,
        Role::Delivery => tracklayer_delivery::run(common.delivery(), listeners, shutdown).await?,
        Role::Control => {
            let pool = tracklayer_postgres::connect(&Secret::new(common.database_url.clone()), 2).await?;
            if let Some(key) = tracklayer_control::seed::ensure_first_admin_key(&pool).await? {
                // Printed once and kept nowhere: to standard output, not into the log.
                println!("first admin key of this installation, shown only now: {key}");
            }
            pool.close().await;
            tracklayer_control::run(common.control(), listeners, shutdown).await?;
        }
    }
    tracing::info!(service = role.as_str(), "service ended");
    Ok(())
}
