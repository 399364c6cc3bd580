//! `tracklayer preview` and `tracklayer normalize`: JSON lines in and out, no server, no database, no network.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use tracklayer_destination::WorkspaceDefaults;
use tracklayer_destination::preview::{ConsentChoice, preview};

/// Exit code where the connection file is not valid.
const INVALID_CONNECTION: u8 = 2;

/// Shows the exact requests that a connection would send for events.
#[derive(Debug, Args)]
pub struct Preview {
    /// The connection document, JSON or YAML.
    #[arg(long)]
    pub connection: PathBuf,
    /// One Segment-spec event a line, or an array of events that go out together; `-` for standard input.
    #[arg(long)]
    pub events: PathBuf,
    /// The clock, RFC 3339; now if not given.
    #[arg(long)]
    pub now: Option<Timestamp>,
    /// What consent decided: allow, restricted or deny.
    #[arg(long, default_value = "allow", conflicts_with = "consent_json")]
    pub consent: String,
    /// What consent decided, as a JSON object in a file.
    #[arg(long)]
    pub consent_json: Option<PathBuf>,
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = std::fs::File::open(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(Box::new(file))
}

/// Runs `preview`.
///
/// # Errors
/// A file cannot be read.
pub fn run_preview(command: &Preview) -> anyhow::Result<ExitCode> {
    let document = match super::connections::read_document(&command.connection) {
        Ok(document) => document,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(ExitCode::from(INVALID_CONNECTION));
        }
    };
    let consent = match &command.consent_json {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?
        }
        None => command.consent.clone(),
    };
    let consent = ConsentChoice::parse(&consent)?;
    let now = command.now.unwrap_or_else(Timestamp::now);
    let workspace = WorkspaceDefaults::default();
    // An invalid document is told before anything is read.
    if let Err(problems) = preview(&document, &workspace, [], now, &consent) {
        eprintln!("the connection file is not valid: {problems}");
        return Ok(ExitCode::from(INVALID_CONNECTION));
    }
    let mut lines = Vec::new();
    for line in BufReader::new(open(&command.events)?).lines() {
        let line = line.context("could not read the events")?;
        if !line.trim().is_empty() {
            lines.push(line);
        }
    }
    let answers = preview(&document, &workspace, lines.iter().map(String::as_str), now, &consent)
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut out = std::io::stdout().lock();
    for answer in answers {
        writeln!(out, "{answer}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `normalize` on standard input.
///
/// # Errors
/// Standard input cannot be read.
pub fn run_normalize() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("could not read standard input")?;
        if !line.trim().is_empty() {
            writeln!(out, "{}", tracklayer_normalise::line::answer(&line))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the JSON Schema of a kind's connection document.
///
/// # Errors
/// There is no such kind.
pub fn run_schema(kind: &str) -> anyhow::Result<ExitCode> {
    let kind = tracklayer_destination::Kind::parse(kind).with_context(|| {
        let kinds: Vec<&str> = tracklayer_destination::Kind::ALL.iter().map(|k| k.as_str()).collect();
        format!("no kind `{kind}`; there are: {}", kinds.join(", "))
    })?;
    println!("{:#}", tracklayer_destination::schema(kind));
    Ok(ExitCode::SUCCESS)
}
