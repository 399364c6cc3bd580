//! `tracklayer normalize` and `tracklayer connections schema`: no server, no database, no network.

use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

use anyhow::Context;

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
