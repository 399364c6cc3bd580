//! The five services as processes, and how they get their settings: compiled-in defaults, a file, the environment.
//!
//! `tracklayer dev` hands its services an environment of its own and goes the same way, so that a service cannot tell the
//! difference.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracklayer_config::{LoadRequest, load_checked};
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_rpc::Listeners;

/// Sections of the settings with their compiled-in defaults; the defaults' comments are the documentation.
pub const SECTIONS: [(&str, &str); 6] = [
    ("process", include_str!("defaults/process.toml")),
    ("ingest", include_str!("defaults/ingest.toml")),
    ("identity", include_str!("defaults/identity.toml")),
    ("consent", include_str!("defaults/consent.toml")),
    ("delivery", include_str!("defaults/delivery.toml")),
    ("control", include_str!("defaults/control.toml")),
];

/// Sockets and key of a process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessConfig {
    /// Where gRPC listens.
    pub listen_grpc: SocketAddr,
    /// Where HTTP listens.
    pub listen_http: SocketAddr,
    /// Where metrics and health listen.
    pub listen_ops: SocketAddr,
    /// File with the master key.
    pub master_key_file: PathBuf,
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

impl RoleCommand {
    /// Which, and its options.
    #[must_use]
    pub fn split(self) -> (Role, RoleOptions) {
        match self {
            Self::Ingest(options) => (Role::Ingest, options),
            Self::Identity(options) => (Role::Identity, options),
            Self::Consent(options) => (Role::Consent, options),
            Self::Delivery(options) => (Role::Delivery, options),
            Self::Control(options) => (Role::Control, options),
        }
    }
}

/// Options of every service.
#[derive(Debug, Clone, Args)]
pub struct RoleOptions {
    /// TOML file with a table per section ([common], [process], [ingest] …). Environment variables such as
    /// `TRACKLAYER_COMMON__DATABASE_URL` or `TRACKLAYER_PROCESS__LISTEN_GRPC` win over it.
    #[arg(long, env = "TRACKLAYER_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Checks and shows settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with the settings of a service.
    Check {
        /// ingest, identity, consent, delivery, control or process.
        section: String,
        #[command(flatten)]
        options: RoleOptions,
    },
    /// Print the settings in force, secrets as ***.
    Show {
        /// ingest, identity, consent, delivery, control or process.
        section: String,
        #[command(flatten)]
        options: RoleOptions,
    },
}

/// Where settings come from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's file.
    pub file: Option<PathBuf>,
    /// Variables.
    pub environment: BTreeMap<String, String>,
}

impl Settings {
    /// The process's own environment and the operator's file.
    #[must_use]
    pub fn of_process(options: &RoleOptions) -> Self {
        Self { file: options.config.clone(), environment: std::env::vars().collect() }
    }

    fn request(&self, section: &'static str) -> anyhow::Result<LoadRequest<'_>> {
        let (section, defaults) = SECTIONS
            .iter()
            .find(|(name, _)| *name == section)
            .with_context(|| format!("no section `{section}`"))?;
        Ok(LoadRequest { defaults, file: self.file.as_deref(), environment: &self.environment, section })
    }

    fn load<T: DeserializeOwned>(
        &self,
        section: &'static str,
        with_key: impl FnOnce(&mut T),
        problems: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<T> {
        let loaded = load_checked(self.request(section)?, |_: &T| Vec::<String>::new())?;
        let mut config = loaded.config;
        with_key(&mut config);
        let problems = problems(&config);
        if !problems.is_empty() {
            bail!("the settings of {section} cannot be used:\n  {}", problems.join("\n  "));
        }
        Ok(config)
    }

    /// Sockets and key.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn process(&self) -> anyhow::Result<ProcessConfig> {
        self.load("process", |_| {}, |_| Vec::new())
    }

    /// Ingest's settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn ingest(&self, key: &MasterKey) -> anyhow::Result<tracklayer_ingest::Config> {
        self.load(
            "ingest",
            |c: &mut tracklayer_ingest::Config| c.master_key = key.clone(),
            tracklayer_ingest::Config::problems,
        )
    }

    /// Identity's settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn identity(&self, key: &MasterKey) -> anyhow::Result<tracklayer_identity::Config> {
        self.load(
            "identity",
            |c: &mut tracklayer_identity::Config| c.master_key = key.clone(),
            tracklayer_identity::Config::problems,
        )
    }

    /// Consent's settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn consent(&self, key: &MasterKey) -> anyhow::Result<tracklayer_consent::Config> {
        self.load(
            "consent",
            |c: &mut tracklayer_consent::Config| c.master_key = key.clone(),
            tracklayer_consent::Config::problems,
        )
    }

    /// Delivery's settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn delivery(&self, key: &MasterKey) -> anyhow::Result<tracklayer_delivery::Config> {
        self.load(
            "delivery",
            |c: &mut tracklayer_delivery::Config| c.master_key = key.clone(),
            tracklayer_delivery::Config::problems,
        )
    }

    /// Control's settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn control(&self, key: &MasterKey) -> anyhow::Result<tracklayer_control::Config> {
        self.load(
            "control",
            |c: &mut tracklayer_control::Config| c.master_key = key.clone(),
            tracklayer_control::Config::problems,
        )
    }
}

/// Runs `tracklayer config`.
///
/// # Errors
/// What is wrong with the settings.
pub fn check(command: ConfigCommand) -> anyhow::Result<()> {
    let (section, options, show) = match command {
        ConfigCommand::Check { section, options } => (section, options, false),
        ConfigCommand::Show { section, options } => (section, options, true),
    };
    let settings = Settings::of_process(&options);
    // The key's content is no setting: checks go without the file.
    let key = MasterKey::new([1; 32]);
    let shown = match section.as_str() {
        "process" => settings.process().map(|_| {
            tracklayer_config::show::<ProcessConfig>(settings.request("process")?).map_err(Into::into)
        }),
        "ingest" => settings.ingest(&key).map(|_| {
            tracklayer_config::show::<tracklayer_ingest::Config>(settings.request("ingest")?)
                .map_err(Into::into)
        }),
        "identity" => settings.identity(&key).map(|_| {
            tracklayer_config::show::<tracklayer_identity::Config>(settings.request("identity")?)
                .map_err(Into::into)
        }),
        "consent" => settings.consent(&key).map(|_| {
            tracklayer_config::show::<tracklayer_consent::Config>(settings.request("consent")?)
                .map_err(Into::into)
        }),
        "delivery" => settings.delivery(&key).map(|_| {
            tracklayer_config::show::<tracklayer_delivery::Config>(settings.request("delivery")?)
                .map_err(Into::into)
        }),
        "control" => settings.control(&key).map(|_| {
            tracklayer_config::show::<tracklayer_control::Config>(settings.request("control")?)
                .map_err(Into::into)
        }),
        other => {
            bail!("no section `{other}`; there are: process, ingest, identity, consent, delivery, control")
        }
    };
    let shown: anyhow::Result<String> = shown?;
    match (show, shown) {
        (true, Ok(text)) => print!("{text}"),
        (false, Ok(_)) => println!("the settings of {section} can be used"),
        (_, Err(error)) => return Err(error),
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("could not listen on {address}"))
}

/// Runs a service on its sockets until `shutdown`.
///
/// # Errors
/// Its settings cannot be used, it could not start, or it ended with an error.
pub async fn serve(
    role: Role,
    settings: &Settings,
    key: &MasterKey,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    match role {
        Role::Ingest => tracklayer_ingest::run(settings.ingest(key)?, listeners, shutdown).await?,
        Role::Identity => tracklayer_identity::run(settings.identity(key)?, listeners, shutdown).await?,
        Role::Consent => tracklayer_consent::run(settings.consent(key)?, listeners, shutdown).await?,
        Role::Delivery => tracklayer_delivery::run(settings.delivery(key)?, listeners, shutdown).await?,
        Role::Control => tracklayer_control::run(settings.control(key)?, listeners, shutdown).await?,
    }
    Ok(())
}

/// Runs a service as this process until `shutdown`.
///
/// # Errors
/// Its settings cannot be used, it could not start, or it ended with an error.
pub async fn run(role: Role, options: &RoleOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = Settings::of_process(options);
    let known: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    tracklayer_config::unknown_sections(settings.file.as_deref(), &settings.environment, &known)?;
    let process = settings.process()?;
    let key = MasterKey::read(&process.master_key_file)?;
    let http = match role {
        Role::Ingest | Role::Control => Some(listen(process.listen_http).await?),
        Role::Identity | Role::Consent | Role::Delivery => None,
    };
    let listeners =
        Listeners { grpc: listen(process.listen_grpc).await?, http, ops: listen(process.listen_ops).await? };
    if role == Role::Control {
        let database: Secret<String> = settings.control(&key)?.database_url;
        let pool = tracklayer_postgres::connect(&database, 2).await?;
        if let Some(first) = tracklayer_control::seed::ensure_first_admin_key(&pool).await? {
            // Printed once and kept nowhere: to standard output, not into the log.
            println!("first admin key of this installation, shown only now: {first}");
        }
        pool.close().await;
    }
    tracing::info!(service = role.as_str(), grpc = %process.listen_grpc, ops = %process.listen_ops, "service starts");
    serve(role, &settings, &key, listeners, shutdown).await?;
    tracing::info!(service = role.as_str(), "service ended");
    Ok(())
}
