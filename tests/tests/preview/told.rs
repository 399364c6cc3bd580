//! What `tracklayer preview` and `journal read` print, as the tests read it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use tracklayer_tests::Running;

/// One line of output.
#[derive(Debug, Deserialize)]
pub struct Told<'l> {
    #[serde(borrow)]
    pub requests: Vec<ToldRequest<'l>>,
    pub refused: Vec<Refused>,
}

/// One request of it.
#[derive(Debug, Deserialize)]
pub struct ToldRequest<'l> {
    pub method: Cow<'l, str>,
    pub url: String,
    pub headers: BTreeMap<String, String>,
    /// Byte for byte.
    #[serde(borrow)]
    pub body: &'l RawValue,
    #[serde(default)]
    pub events: Vec<EventRef>,
}

#[derive(Debug, Deserialize)]
pub struct EventRef {
    pub line: usize,
    pub message_id: String,
}

#[derive(Debug, Deserialize)]
pub struct Refused {
    pub code: String,
    pub reason: String,
}

/// What a run of the command printed.
pub struct Ran {
    pub lines: Vec<String>,
    pub said: String,
    pub took: Duration,
}

/// Runs `tracklayer preview`.
pub async fn preview(platform: &Running, arguments: &[&str], events: &Path) -> Ran {
    let mut command = tokio::process::Command::new(platform.binary());
    command.arg("preview").args(arguments).arg("--events").arg(events);
    command.arg("--data-dir").arg(platform.data_dir()).kill_on_drop(true);
    let began = Instant::now();
    let output = command.output().await.unwrap();
    let took = began.elapsed();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "preview {arguments:?}: {said}");
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    Ran { lines, said, took }
}

/// What the journal has of each partition, as `preview` reads it.
pub async fn resolved_events(platform: &Running) -> Vec<Vec<String>> {
    let held = platform.cli_json(&["journal", "inspect"]).await.unwrap();
    let mut partitions = Vec::new();
    for partition in held["partitions"].as_array().unwrap() {
        let number = partition["head"]["partition"].to_string();
        let arguments = ["journal", "read", &number, "0", "--limit", "1000000", "--resolved", "--unmasked"];
        let text = platform.cli(&arguments).await.unwrap();
        partitions.push(text.lines().map(str::to_owned).collect());
    }
    partitions
}
