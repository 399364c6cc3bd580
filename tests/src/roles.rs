//! The five services as five processes beside servers that stay: what a cluster looks like from inside one machine. A test
//! kills, stops and starts them as it likes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::child::{Child, log_tail};
use crate::platform::{Options, Running};

/// How long a role may take to want traffic.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Administration and configuration.
    Control,
    /// Who a person is.
    Identity,
    /// What may be sent.
    Consent,
    /// Resolve and lanes.
    Delivery,
    /// The edge.
    Ingest,
}

/// In the order of their start.
pub const ROLES: [Role; 5] = [Role::Control, Role::Identity, Role::Consent, Role::Delivery, Role::Ingest];

impl Role {
    /// The sub-command.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Identity => "identity",
            Self::Consent => "consent",
            Self::Delivery => "delivery",
            Self::Ingest => "ingest",
        }
    }
}

/// The roles that run. Dropping ends them in order, then servers and sandbox.
pub struct Processes {
    // Declared before the platform, so dropped before it: services end while their stores still run.
    children: BTreeMap<Role, Child>,
    environment: Vec<(String, String)>,
    platform: Running,
}

impl Processes {
    pub(crate) fn new(platform: Running, options: &Options) -> anyhow::Result<Self> {
        let at = platform.addresses();
        let common = [
            ("DATABASE_URL", at.database_url.clone()),
            ("REDIS_URL", at.redis_url.clone()),
            ("CONTROL_ADDRESS", at.control.clone()),
            ("IDENTITY_ADDRESS", at.identity.clone()),
            ("CONSENT_ADDRESS", at.consent.clone()),
            ("DELIVERY_ADDRESS", at.delivery.clone()),
            ("LEASE_MS", options.lease_ms.unwrap_or(5_000).to_string()),
            ("TRACE_SAMPLE_RATIO", options.trace_sample_ratio.unwrap_or(0.01).to_string()),
            ("ALLOW_PRIVATE_ADDRESSES", "true".to_owned()),
        ];
        let mut environment: Vec<(String, String)> =
            common.into_iter().map(|(key, value)| (format!("TRACKLAYER_COMMON__{key}"), value)).collect();
        let master_key = platform.data_dir().join("master.key").display().to_string();
        environment.push(("TRACKLAYER_PROCESS__MASTER_KEY_FILE".to_owned(), master_key));
        environment.push(("TRACKLAYER_LOG".to_owned(), "warn".to_owned()));
        if let Some(endpoint) = &options.otlp_endpoint {
            environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint.clone()));
        }
        environment.extend(options.variables.iter().chain(&options.environment).cloned());
        Ok(Self { children: BTreeMap::new(), environment, platform })
    }

    /// Servers, sandbox, command line, addresses.
    #[must_use]
    pub fn platform(&self) -> &Running {
        &self.platform
    }

    /// Starts a role and waits until it wants traffic.
    ///
    /// # Errors
    /// It runs already, ended at its start or does not become ready; with the end of its log.
    pub async fn start(&mut self, role: Role) -> anyhow::Result<()> {
        if self.children.get(&role).is_some_and(|child| child.exited().is_none()) {
            bail!("{} runs already", role.as_str());
        }
        let until = tokio::time::Instant::now() + START_LIMIT;
        loop {
            let child = self.spawn(role)?;
            match self.wait_until_ready(role, &child, until).await {
                Ok(()) => {
                    self.children.insert(role, child);
                    return Ok(());
                }
                // Somebody's connection sits on the port for a moment, as one that goes out may.
                Err(why) if why.contains("could not listen") && tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(why) => bail!("{} did not start: {why}", role.as_str()),
            }
        }
    }

    fn spawn(&self, role: Role) -> anyhow::Result<Child> {
        let at = self.platform.addresses();
        let (grpc, http) = match role {
            Role::Ingest => (&at.ingest, Some(&at.ingest_http)),
            Role::Identity => (&at.identity, None),
            Role::Consent => (&at.consent, None),
            Role::Delivery => (&at.delivery, None),
            Role::Control => (&at.control, Some(&at.console)),
        };
        let bare = |url: &str| url.trim_start_matches("http://").to_owned();
        let mut environment = self.environment.clone();
        environment.push(("TRACKLAYER_PROCESS__LISTEN_GRPC".to_owned(), bare(grpc)));
        environment.push(("TRACKLAYER_PROCESS__LISTEN_OPS".to_owned(), bare(self.ops(role)?)));
        if let Some(http) = http {
            environment.push(("TRACKLAYER_PROCESS__LISTEN_HTTP".to_owned(), bare(http)));
        }
        let name = role.as_str();
        let log = self.platform.data_dir().join(format!("{name}.log"));
        Child::start(name, self.platform.binary(), &[name.to_owned()], &environment, &log, None)
    }

    fn ops(&self, role: Role) -> anyhow::Result<&str> {
        let ops = self.platform.addresses().ops.get(role.as_str());
        ops.map(String::as_str).with_context(|| format!("no ops address of {}", role.as_str()))
    }

    async fn wait_until_ready(
        &self,
        role: Role,
        child: &Child,
        until: tokio::time::Instant,
    ) -> Result<(), String> {
        let url = format!("{}/readyz", self.ops(role).map_err(|error| error.to_string())?);
        let http = reqwest::Client::new();
        loop {
            let seen = match http.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            if let Some(code) = child.exited() {
                return Err(format!("ended with {code}\n{}", child.log_tail()));
            }
            if tokio::time::Instant::now() > until {
                return Err(format!("not ready: {seen}\n{}", child.log_tail()));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Ends a role at once (`kill -9`) and returns when it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, role: Role) -> anyhow::Result<()> {
        let child = self.children.remove(&role).with_context(|| format!("{} does not run", role.as_str()))?;
        child.signal("KILL")?;
        child.wait().map(drop)
    }

    /// Ends a role in order (SIGTERM) and returns its exit code.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop(&mut self, role: Role) -> anyhow::Result<i32> {
        let child = self.children.remove(&role).with_context(|| format!("{} does not run", role.as_str()))?;
        child.signal("TERM")?;
        child.wait()
    }

    /// Makes a role stand still (SIGSTOP), as a paused machine does.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self, role: Role) -> anyhow::Result<()> {
        self.running(role)?.signal("STOP")
    }

    /// Lets a paused role go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self, role: Role) -> anyhow::Result<()> {
        self.running(role)?.signal("CONT")
    }

    /// Process number of a role.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self, role: Role) -> anyhow::Result<u32> {
        self.running(role).map(Child::pid)
    }

    fn running(&self, role: Role) -> anyhow::Result<&Child> {
        self.children.get(&role).with_context(|| format!("{} does not run", role.as_str()))
    }

    /// The end of a role's log; stays over restarts.
    #[must_use]
    pub fn log_tail(&self, role: Role) -> String {
        log_tail(&self.platform.data_dir().join(format!("{}.log", role.as_str())))
    }
}
