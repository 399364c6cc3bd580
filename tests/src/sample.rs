//! The sample day as a process of its own: `tracklayer sample --output json`, followed line by line.

use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::platform::Running;

/// A day on its way.
pub struct SampleDay {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    last: Option<Value>,
}

/// How far the clients are.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Sent {
    /// Events in answered requests.
    pub sent: u64,
    /// Events that will be sent.
    pub planned: u64,
}

impl SampleDay {
    /// Starts sending.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(platform: &Running, seed: u64, visitors: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(platform.binary());
        command
            .args(["sample", "--output", "json", "--seed", &seed.to_string()])
            .args(["--visitors", &visitors.to_string(), "--data-dir"])
            .arg(platform.data_dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("could not run the sample day")?;
        let output = child.stdout.take().context("no output of the sample day")?;
        Ok(Self { child, lines: BufReader::new(output).lines(), last: None })
    }

    /// Waits until the clients have sent that share of the day, 0 to 1.
    ///
    /// # Errors
    /// The day ended before.
    pub async fn sent(&mut self, share: f64) -> anyhow::Result<Sent> {
        loop {
            let line = self.next().await?.context("the day was over already")?;
            ensure!(line.get("counts").is_none(), "the day was over already");
            let sent = Sent::deserialize(&line)?;
            if sent.sent as f64 >= share * sent.planned as f64 {
                return Ok(sent);
            }
        }
    }

    /// Waits until everything is sent and at rest; the counts at the end.
    ///
    /// # Errors
    /// A client gave up or nothing settles; with what was printed.
    pub async fn end(mut self) -> anyhow::Result<Value> {
        while self.next().await?.is_some() {}
        let status = self.child.wait().await?;
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said).await?;
        }
        ensure!(status.success(), "the sample day ended with {status}: {said}");
        self.last.take().filter(|last| last.get("counts").is_some()).context("no counts at the end")
    }

    async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        let Some(line) = self.lines.next_line().await? else { return Ok(None) };
        let line: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        self.last = Some(line.clone());
        Ok(Some(line))
    }
}
