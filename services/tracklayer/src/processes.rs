//! The five services as child processes of this one, beside the servers that `dev` started: what a cluster looks like from
//! inside one machine. Used by `bench`, which must tell the memory of each role apart.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use crate::cli::connect::DevAddresses;
use crate::roles::Role;

/// Roles in the order of their start.
pub const ROLES: [Role; 5] = [Role::Control, Role::Identity, Role::Consent, Role::Delivery, Role::Ingest];

/// Running roles.
pub struct Processes {
    environment: BTreeMap<String, String>,
    addresses: DevAddresses,
    log_dir: std::path::PathBuf,
    children: BTreeMap<&'static str, Child>,
}

impl Processes {
    /// None yet; logs go to files in `data_dir`.
    #[must_use]
    pub fn new(addresses: DevAddresses, environment: BTreeMap<String, String>, data_dir: &Path) -> Self {
        Self { environment, addresses, log_dir: data_dir.to_owned(), children: BTreeMap::new() }
    }

    /// Starts a role and waits until it wants traffic.
    ///
    /// # Errors
    /// It ended or does not become ready.
    pub async fn start(&mut self, role: Role) -> anyhow::Result<()> {
        let name = role.as_str();
        let bare = |url: &str| url.trim_start_matches("http://").to_owned();
        let (grpc, http) = match role {
            Role::Ingest => (&self.addresses.ingest, Some(&self.addresses.ingest_http)),
            Role::Identity => (&self.addresses.identity, None),
            Role::Consent => (&self.addresses.consent, None),
            Role::Delivery => (&self.addresses.delivery, None),
            Role::Control => (&self.addresses.control, Some(&self.addresses.console)),
        };
        let ops = self.addresses.ops.get(name).with_context(|| format!("no ops address for {name}"))?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_dir.join(format!("{name}.log")))
            .context("could not open a log file")?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(name)
            // As in the image (k8s/Dockerfile).
            .env("MIMALLOC_PURGE_DELAY", "10000")
            .envs(&self.environment)
            .env("TRACKLAYER_PROCESS__LISTEN_GRPC", bare(grpc))
            .env("TRACKLAYER_PROCESS__LISTEN_OPS", bare(ops))
            .env("TRACKLAYER_PROCESS__MASTER_KEY_FILE", self.log_dir.join("master.key"))
            .env("TRACKLAYER_LOG", "warn")
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        if let Some(http) = http {
            command.env("TRACKLAYER_PROCESS__LISTEN_HTTP", bare(http));
        }
        let mut child = command.spawn().with_context(|| format!("could not start {name}"))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let client = reqwest::Client::new();
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended at its start with {status}; see {}/{name}.log", self.log_dir.display());
            }
            let answer = client.get(format!("{ops}/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            if Instant::now() > deadline {
                bail!("{name} does not become ready; see {}/{name}.log", self.log_dir.display());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        self.children.insert(name, child);
        Ok(())
    }

    /// The most memory that each running role has ever had resident, bytes; Linux only.
    #[must_use]
    pub fn peak_resident_bytes(&self) -> BTreeMap<&'static str, u64> {
        let peak = |child: &Child| status_bytes(child.id()?, "VmHWM:");
        self.children.iter().filter_map(|(name, child)| Some((*name, peak(child)?))).collect()
    }

    /// Memory that each running role has resident now, bytes; Linux only.
    #[must_use]
    pub fn resident_bytes(&self) -> BTreeMap<&'static str, u64> {
        let now = |child: &Child| status_bytes(child.id()?, "VmRSS:");
        self.children.iter().filter_map(|(name, child)| Some((*name, now(child)?))).collect()
    }

    /// Fails if a role has ended by itself.
    ///
    /// # Errors
    /// Which, and how.
    pub fn all_run(&mut self) -> anyhow::Result<()> {
        for (name, child) in &mut self.children {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended by itself with {status}; see {}/{name}.log", self.log_dir.display());
            }
        }
        Ok(())
    }

    /// Processor time that each running role has used so far, seconds; Linux only.
    #[must_use]
    pub fn cpu_seconds(&self) -> BTreeMap<&'static str, f64> {
        self.children.iter().filter_map(|(name, child)| Some((*name, cpu_seconds(child.id()?)?))).collect()
    }

    /// Ends one of them.
    pub async fn stop_one(&mut self, role: Role) {
        if let Some(mut child) = self.children.remove(role.as_str()) {
            let _ = child.kill().await;
        }
    }

    /// Ends all of them.
    pub async fn stop(&mut self) {
        for child in self.children.values_mut() {
            let _ = child.kill().await;
        }
        self.children.clear();
    }
}

/// A size that Linux tells of a process. Source: Linux, proc(5), `status`; 2025-11.
fn status_bytes(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}

/// Processor time of a process, user and system.
#[must_use]
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    /// Linux counts in hundredths of a second on every architecture that it runs on today. Source: Linux, proc(5), `stat`; 2025-11.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces; what follows its parenthesis does not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}
