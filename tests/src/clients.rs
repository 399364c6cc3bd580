//! The real clients: SDKs from their registries, installed once into `target/clients`, and Debian's Chromium.
//!
//! Where a machine has no Node, Python or Chromium, a test says `SKIPPED` and why on standard error, past the test runner's
//! capture; with `TRACKLAYER_TESTS_REQUIRE_CLIENTS` set it fails instead. Where the programs are there but the packages
//! cannot be installed, that is a failure.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::binary::{lock, repository, target_dir};

/// How long a client may take to send a handful of events, waiting out a refusal included.
const RUN_LIMIT: std::time::Duration = std::time::Duration::from_secs(90);

/// The folder of the packages that the differential tests alone need: 50 MB, so whoever runs other tests does without.
const SEGMENT_MAPPINGS: &str = "segment-mappings";

/// A client that is ready to run.
#[derive(Debug, Clone)]
pub struct Client {
    program: PathBuf,
    script: PathBuf,
    arguments: Vec<String>,
}

/// The folder of the packages that the warehouse's tests alone need.
const WAREHOUSE: &str = "warehouse";

/// What a client says of its own sending.
#[derive(Debug, Clone, Deserialize)]
pub struct Sent {
    /// message_ids that it takes for delivered.
    pub delivered: Vec<String>,
    /// What it complained of.
    pub errors: Vec<String>,
}

impl Client {
    /// Runs it with more arguments and `input` on standard input; what it printed.
    ///
    /// # Errors
    /// It ended with an error, printed no JSON or took too long; with what it printed.
    pub async fn run<T: DeserializeOwned>(&self, arguments: &[&str], input: &Value) -> anyhow::Result<T> {
        let name = self.script.file_name().unwrap_or_default().to_string_lossy();
        let mut command = tokio::process::Command::new(&self.program);
        command.arg(&self.script).args(&self.arguments).args(arguments).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("could not run {name}"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(input.to_string().as_bytes()).await?;
        drop(stdin);
        let output = tokio::time::timeout(RUN_LIMIT, child.wait_with_output()).await;
        let output = output.with_context(|| format!("{name} does not end within {RUN_LIMIT:?}"))??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{name}: {}\n{out}{err}", output.status);
        let last = out.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("{name} printed no answer:\n{out}{err}"))
    }

    /// Program and script, for what is to run beside the test.
    pub(crate) fn command(&self) -> (&Path, &Path) {
        (&self.program, &self.script)
    }

    /// Sends events and expects that the client takes each for delivered.
    ///
    /// # Panics
    /// It failed or complained.
    pub async fn send(&self, address: &str, write_key: &str, events: &[Value]) {
        let sent: Sent =
            self.run(&[address, write_key], &Value::from(events)).await.expect("the client ends well");
        assert!(sent.errors.is_empty(), "{sent:#?}");
        let mut delivered = sent.delivered;
        let mut expected: Vec<&str> = events.iter().filter_map(|event| event["messageId"].as_str()).collect();
        delivered.sort();
        expected.sort_unstable();
        assert_eq!(delivered, expected);
    }
}

/// A script that runs on Node with the npm packages; none, said aloud, where that cannot be had.
///
/// # Panics
/// The packages cannot be installed.
pub async fn node(script: &'static str) -> Option<Client> {
    ready(move || {
        let node = node_program()?;
        install_npm_packages()?;
        let script = install_script(script)?;
        Ok(Client { program: node, script, arguments: Vec::new() })
    })
    .await
}

/// Segment's own mapping code, which records the requests that it would make; none, said aloud, where that cannot be had.
///
/// # Panics
/// The packages cannot be installed.
pub async fn segment_mappings() -> Option<Client> {
    ready(|| {
        let node = node_program()?;
        install_npm_packages_of(SEGMENT_MAPPINGS)?;
        let script = install_script(&format!("{SEGMENT_MAPPINGS}/mappings.mjs"))?;
        Ok(Client { program: node, script, arguments: Vec::new() })
    })
    .await
}

/// A script that runs on Python with the packages of `requirements.txt`; none, said aloud, where that cannot be had.
///
/// # Panics
/// The packages cannot be installed.
pub async fn python(script: &'static str) -> Option<Client> {
    ready(move || {
        let program = install_python_packages()?;
        Ok(Client { program, script: install_script(script)?, arguments: Vec::new() })
    })
    .await
}

/// Python with DuckDB and a server that speaks S3; none, said aloud, where that cannot be had.
///
/// # Panics
/// The packages cannot be installed.
pub async fn warehouse() -> Option<Client> {
    ready(|| {
        let program = install_python_packages_of(WAREHOUSE)?;
        let script = install_script(&format!("{WAREHOUSE}/warehouse.py"))?;
        Ok(Client { program, script, arguments: Vec::new() })
    })
    .await
}

/// The Python gRPC client with modules that grpcio-tools has generated from `proto/` just now.
///
/// # Panics
/// The packages cannot be installed or the code not generated.
pub async fn python_grpc() -> Option<Client> {
    ready(|| {
        let program = install_python_packages()?;
        let generated = generate_python(&program)?;
        let arguments = vec![generated.display().to_string()];
        Ok(Client { program, script: install_script("grpc_python.py")?, arguments })
    })
    .await
}

/// The shopper in Chromium; none, said aloud, where that cannot be had.
///
/// # Panics
/// The packages cannot be installed.
pub async fn shopper() -> Option<Client> {
    ready(|| {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let chromium = names.iter().find_map(|name| on_path(name));
        let Some(chromium) = chromium else {
            return missing("no Chromium: install the package `chromium`");
        };
        let node = node_program()?;
        install_npm_packages()?;
        let arguments = vec![chromium.display().to_string()];
        Ok(Client { program: node, script: install_script("shopper.mjs")?, arguments })
    })
    .await
}

/// Where the npm packages are, for the shop that serves the browser's SDK.
pub(crate) fn npm_package(name: &str) -> anyhow::Result<PathBuf> {
    Ok(clients_dir()?.join("node_modules").join(name))
}

/// A program that the machine does not have, as an error that skips.
#[derive(Debug)]
struct Missing(String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

fn missing<T>(why: impl Into<String>) -> anyhow::Result<T> {
    Err(Missing(why.into()).into())
}

async fn ready(prepare: impl FnOnce() -> anyhow::Result<Client> + Send + 'static) -> Option<Client> {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let prepared = tokio::task::spawn_blocking(prepare).await.expect("preparing a client does not panic");
    match prepared {
        Ok(client) => Some(client),
        Err(error) => match error.downcast::<Missing>() {
            Ok(missing) if std::env::var_os("TRACKLAYER_TESTS_REQUIRE_CLIENTS").is_none() => {
                // Straight to the stream: the test runner captures what passes through `eprintln!`.
                let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
                None
            }
            Ok(missing) => panic!("{missing}"),
            Err(error) => panic!("could not prepare a client: {error:#}"),
        },
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn sources_dir() -> PathBuf {
    repository().join("tests/clients")
}

fn clients_dir() -> anyhow::Result<PathBuf> {
    let folder = target_dir()?.join("clients");
    std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    Ok(folder)
}

/// Node 20 or newer: the machine's own, else one from a registry package.
fn node_program() -> anyhow::Result<PathBuf> {
    if on_path("npm").is_none() {
        return missing("no npm: install the package `npm`");
    }
    if on_path("node").is_none() && on_path("python3").is_none() {
        return missing("neither Node nor Python, which would fetch Node: install the package `nodejs`");
    }
    let _one_at_a_time = lock("clients")?;
    let found = run("scripts/tool", &["node"], &repository())?;
    Ok(PathBuf::from(found.trim()))
}

fn install_npm_packages() -> anyhow::Result<()> {
    install_npm_packages_of("")
}

/// The packages that a folder beside the scripts names; the empty one is theirs.
fn install_npm_packages_of(part: &str) -> anyhow::Result<()> {
    let _one_installer = lock("clients")?;
    let folder = clients_dir()?.join(part);
    std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let made_from = ["package.json", "package-lock.json", ".npmrc"];
    once(&sources_dir().join(part), &folder, "npm", &made_from, || {
        run("npm", &["ci", "--silent"], &folder).map(drop)
    })
}

fn install_python_packages() -> anyhow::Result<PathBuf> {
    install_python_packages_of("")
}

/// The packages that a folder beside the scripts names; the empty one is theirs.
fn install_python_packages_of(part: &str) -> anyhow::Result<PathBuf> {
    if on_path("python3").is_none() {
        return missing("no Python: install the packages `python3` and `python3-venv`");
    }
    let _one_installer = lock("clients")?;
    let folder = clients_dir()?.join(part);
    std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let python = folder.join("venv/bin/python");
    once(&sources_dir().join(part), &folder, "pip", &["requirements.txt"], || {
        if run("python3", &["-m", "venv", "--clear", "venv"], &folder).is_err() {
            return missing("Python has no venv: install the package `python3-venv`");
        }
        let install =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
        run(&python.display().to_string(), &install, &folder).map(drop)
    })?;
    Ok(python)
}

/// Copies what an installation is made from and installs, unless the very same was installed before.
fn once(
    sources: &Path,
    folder: &Path,
    what: &str,
    made_from: &[&str],
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut content = Vec::new();
    for file in made_from {
        let source = sources.join(file);
        content
            .extend(std::fs::read(&source).with_context(|| format!("could not read {}", source.display()))?);
    }
    let done = folder.join(format!("installed-{what}"));
    if std::fs::read(&done).is_ok_and(|installed| installed == content) {
        return Ok(());
    }
    for file in made_from {
        std::fs::copy(sources.join(file), folder.join(file))?;
    }
    install()?;
    std::fs::write(&done, content).with_context(|| format!("could not write {}", done.display()))
}

/// Puts a script beside the installed packages, where Node finds them.
fn install_script(name: &str) -> anyhow::Result<PathBuf> {
    let _one_writer = lock("clients")?;
    let script = clients_dir()?.join(name);
    std::fs::copy(sources_dir().join(name), &script).with_context(|| format!("could not copy {name}"))?;
    Ok(script)
}

fn generate_python(python: &Path) -> anyhow::Result<PathBuf> {
    let _one_writer = lock("clients")?;
    let generated = clients_dir()?.join("generated");
    std::fs::create_dir_all(&generated)?;
    let out = generated.display();
    let arguments = [
        "-m".to_owned(),
        "grpc_tools.protoc".to_owned(),
        "-Iproto".to_owned(),
        format!("--python_out={out}"),
        format!("--grpc_python_out={out}"),
        "proto/tracklayer/event/v1/event.proto".to_owned(),
        "proto/tracklayer/ingest/v1/ingest.proto".to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&python.display().to_string(), &arguments, &repository())?;
    Ok(generated)
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<String> {
    let mut command = std::process::Command::new(program);
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("could not run {program}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("`{program} {}`: {}\n{out}{err}", arguments.join(" "), output.status);
    }
    Ok(out.into_owned())
}
