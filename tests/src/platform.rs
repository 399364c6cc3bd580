//! `tracklayer dev` as a child process: started on free ports in a folder of its own, ready when `start` returns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tracklayer_sandbox::SandboxClient;

use crate::child::Child;
use crate::roles::{Processes, ROLES};
use crate::story::Story;
use crate::{binary, eventually_within};

/// How long `dev` may take: it makes a database, migrates it and starts everything.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long what was sent may take to come to rest, platforms that hold included.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);

/// What `tracklayer dev` writes into `dev.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Addresses {
    /// Ingest's Segment-compatible HTTP.
    pub ingest_http: String,
    /// Ingest's gRPC.
    pub ingest: String,
    /// Identity's gRPC.
    pub identity: String,
    /// Consent's gRPC.
    pub consent: String,
    /// Delivery's gRPC.
    pub delivery: String,
    /// Control's gRPC.
    pub control: String,
    /// The web console.
    pub console: String,
    /// The ad platforms' sandbox.
    pub sandbox: String,
    /// Metrics and health, per service.
    pub ops: BTreeMap<String, String>,
    /// PostgreSQL.
    pub database_url: String,
    /// Redis.
    pub redis_url: String,
    /// Key of the installation.
    pub admin_key: String,
    /// The sample workspace.
    pub workspace_id: i64,
    /// Write keys of its sources, by name.
    pub write_keys: BTreeMap<String, String>,
}

/// What a test may choose.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long a lease holds without renewal, milliseconds; `dev`'s default if none.
    pub lease_ms: Option<u64>,
    /// Share of events that are traced where the sender does not say; `dev`'s default if none.
    pub trace_sample_ratio: Option<f64>,
    /// OTLP/gRPC address of a collector.
    pub otlp_endpoint: Option<String>,
    /// A running PostgreSQL instead of a private one.
    pub database_url: Option<String>,
    /// A running Redis instead of a private one.
    pub redis_url: Option<String>,
    /// Variables of every process that is started, `dev` among them.
    pub variables: Vec<(String, String)>,
    /// More settings for every service, such as `TRACKLAYER_INGEST__MAX_EVENTS_PER_SECOND_PER_SOURCE`. Only with
    /// [`Platform::processes`]: `dev` hands its services an environment of its own.
    pub environment: Vec<(String, String)>,
}

/// The platform under test.
pub struct Platform;

impl Platform {
    /// Everything in one process: `tracklayer dev`.
    ///
    /// # Errors
    /// It did not start; with the end of its log.
    pub async fn start(options: Options) -> anyhow::Result<Running> {
        ensure!(options.environment.is_empty(), "`dev` takes no environment for its services");
        Running::start(&options, false).await
    }

    /// No service: servers (private or given), schema, sample workspace and sandbox, for a test that runs the services itself.
    ///
    /// # Errors
    /// It did not start; with the end of its log.
    pub async fn without_services(options: Options) -> anyhow::Result<Running> {
        ensure!(options.environment.is_empty(), "there is no service that takes an environment");
        Running::start(&options, true).await
    }

    /// The five services as five processes, beside servers and sandbox of a `tracklayer dev --without-services`. All are
    /// started and ready.
    ///
    /// # Errors
    /// Something did not start; with the end of its log.
    pub async fn processes(options: Options) -> anyhow::Result<Processes> {
        let running = Running::start(&options, true).await?;
        let mut processes = Processes::new(running, &options)?;
        for role in ROLES {
            processes.start(role).await?;
        }
        Ok(processes)
    }
}

/// A running platform. Ends, and leaves nothing behind, when it is dropped or when the test process ends.
pub struct Running {
    addresses: Addresses,
    data_dir: PathBuf,
    binary: PathBuf,
    dev: Child,
}

impl Running {
    async fn start(options: &Options, without_services: bool) -> anyhow::Result<Self> {
        let binary = binary::tracklayer()?;
        let data_dir = new_folder()?;
        let mut arguments: Vec<String> = ["dev", "--free-ports", "--data-dir"].map(str::to_owned).to_vec();
        arguments.push(data_dir.display().to_string());
        if without_services {
            arguments.push("--without-services".to_owned());
        }
        let mut option = |name: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        };
        option("--lease-ms", options.lease_ms.map(|ms| ms.to_string()));
        option("--trace-sample-ratio", options.trace_sample_ratio.map(|ratio| ratio.to_string()));
        option("--otlp-endpoint", options.otlp_endpoint.clone());
        option("--database-url", options.database_url.clone());
        option("--redis-url", options.redis_url.clone());
        let keep = std::env::var_os("TRACKLAYER_TESTS_KEEP").is_some();
        let log = data_dir.join("dev.log");
        let mut environment = options.variables.clone();
        environment.push(("TRACKLAYER_LOG_FORMAT".to_owned(), "pretty".to_owned()));
        let remove = (!keep).then_some(data_dir.as_path());
        let dev = Child::start("tracklayer dev", &binary, &arguments, &environment, &log, remove)?;
        let addresses = started(&dev, &data_dir, without_services).await?;
        Ok(Self { addresses, data_dir, binary, dev })
    }

    /// Where everything answers.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The data folder: logs, `dev.json`, `master.key`.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The binary under test.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Write key of a source of the sample workspace.
    ///
    /// # Panics
    /// There is no such source.
    #[must_use]
    pub fn write_key(&self, source: &str) -> &str {
        self.addresses.write_keys.get(source).unwrap_or_else(|| panic!("no source `{source}`"))
    }

    /// The ad platforms' side.
    #[must_use]
    pub fn sandbox(&self) -> SandboxClient {
        SandboxClient::new(&self.addresses.sandbox)
    }

    /// Runs the command line against this platform and gives what it printed.
    ///
    /// # Errors
    /// The command failed; with what it printed.
    pub async fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.binary);
        command.args(arguments).arg("--data-dir").arg(&self.data_dir).kill_on_drop(true);
        let output = command.output().await.context("could not run the command line")?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success(),
            "`tracklayer {}`: {}\n{out}{err}",
            arguments.join(" "),
            output.status
        );
        Ok(out.into_owned())
    }

    /// As [`Self::cli`] with `--output json`.
    ///
    /// # Errors
    /// The command failed or printed something else.
    pub async fn cli_json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.cli(&[arguments, &["--output", "json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Makes a source of the sample workspace with a write key of the test's choice and waits until the edge knows it.
    ///
    /// # Errors
    /// The command failed.
    ///
    /// # Panics
    /// The edge does not get to know it.
    pub async fn create_source(
        &self,
        name: &str,
        channel: &str,
        place: &str,
        key: &str,
    ) -> anyhow::Result<()> {
        let place = if place.is_empty() { vec![] } else { vec!["--default-place", place] };
        let head = ["sources", "create", name, "--channel", channel, "--write-key", key];
        self.cli(&[&head[..], &place].concat()).await?;
        let url = format!("{}/v1/projects/{key}/settings", self.addresses.ingest_http);
        crate::eventually(&format!("the edge to know the source {name}"), async || {
            let status = reqwest::get(&url).await?.status();
            if status.is_success() { Ok(()) } else { Err(anyhow!("{status}")) }
        })
        .await;
        Ok(())
    }

    /// Everything that the platform tells of a message_id.
    ///
    /// # Errors
    /// The command failed.
    pub async fn story(&self, message_id: &str) -> anyhow::Result<Story> {
        Story::parse(&self.cli_json(&["events", "show", message_id]).await?)
    }

    /// The story of a message_id once nothing of it is on its way: every occurrence resolved, every connection with an end.
    ///
    /// # Panics
    /// It does not come to rest; with the story as last seen.
    pub async fn settled_story(&self, message_id: &str) -> Story {
        crate::eventually(&format!("the end of the story of {message_id}"), async || {
            let story = self.story(message_id).await?;
            if story.at_rest() { Ok(story) } else { Err(anyhow!("{story:#?}")) }
        })
        .await
    }

    /// Waits until nothing waits and nothing is held, on any connection.
    ///
    /// # Panics
    /// It does not come to rest; with the counts as last seen.
    pub async fn settled(&self) {
        eventually_within(SETTLE_LIMIT, "nothing waiting and nothing held", async || {
            let stats = self.cli_json(&["stats"]).await?;
            let on_its_way = |connection: &Value| {
                let held = connection["states"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|s| s["state"] == "held" && s["events"].as_u64().unwrap_or(0) > 0);
                held || connection["waiting"].as_u64() != Some(0)
            };
            let connections = stats["connections"].as_object().context("no connections")?;
            match connections.values().any(on_its_way) {
                true => Err(anyhow!("{stats:#}")),
                false => Ok(()),
            }
        })
        .await;
    }

    /// The end of `dev`'s own log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.dev.log_tail()
    }
}

async fn started(dev: &Child, data_dir: &Path, without_services: bool) -> anyhow::Result<Addresses> {
    let http = reqwest::Client::new();
    let until = tokio::time::Instant::now() + START_LIMIT;
    let mut seen;
    loop {
        match ready(&http, data_dir, without_services).await {
            Ok(addresses) => return Ok(addresses),
            Err(why) => seen = why,
        }
        if let Some(code) = dev.exited() {
            bail!("`tracklayer dev` ended at its start with {code}:\n{}", dev.log_tail());
        }
        if tokio::time::Instant::now() > until {
            bail!("`tracklayer dev` is not ready after {START_LIMIT:?}: {seen:#}\n{}", dev.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ready(http: &reqwest::Client, data_dir: &Path, without_services: bool) -> anyhow::Result<Addresses> {
    let dev = std::fs::read(data_dir.join("dev.json")).context("no dev.json yet")?;
    let addresses: Addresses = serde_json::from_slice(&dev).context("dev.json is being written")?;
    if !without_services {
        for (role, ops) in &addresses.ops {
            let answer = http.get(format!("{ops}/readyz")).send().await?;
            ensure!(answer.status().is_success(), "{role}: {}", answer.text().await?);
        }
    }
    Ok(addresses)
}

/// A folder that PostgreSQL's own user can enter, as it refuses to run as root.
pub(crate) fn new_folder() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = std::env::temp_dir().join(format!("tracklayer-e2e-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}
