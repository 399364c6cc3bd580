//! The sample day as a process of its own: `tracklayer sample --output json`, followed line by line.

use std::process::Stdio;

use anyhow::{Context, anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::platform::Running;

/// A day on its way.
pub struct SampleDay {
    child: Child,
    /// The newest line. Read as it comes, so that a test that is busy does not see an old one.
    newest: watch::Receiver<Value>,
    reader: JoinHandle<anyhow::Result<()>>,
}

/// How far the clients are.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Sent {
    /// Events in answered requests.
    pub sent: u64,
    /// Events that will be sent.
    pub planned: u64,
    /// Requests that were sent again, because there was no answer or one that asks for it.
    pub repeated_requests: u64,
}

impl Sent {
    /// Which share of the day that is, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.sent as f64 / self.planned as f64
    }
}

impl SampleDay {
    /// Starts sending; the visitors come one after the other over so many seconds (0: as fast as they are served).
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(platform: &Running, seed: u64, visitors: usize, over_seconds: u32) -> anyhow::Result<Self> {
        let mut command = Command::new(platform.binary());
        command
            .args(["sample", "--output", "json", "--seed", &seed.to_string()])
            .args(["--visitors", &visitors.to_string(), "--over-seconds", &over_seconds.to_string()])
            .arg("--data-dir")
            .arg(platform.data_dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("could not run the sample day")?;
        let output = child.stdout.take().context("no output of the sample day")?;
        let (newest, lines) = watch::channel(Value::Null);
        Ok(Self { child, newest: lines, reader: tokio::spawn(read(output, newest)) })
    }

    /// Waits until the clients are as far as that; how far they are then.
    ///
    /// # Errors
    /// The day is over.
    pub async fn until(&mut self, far_enough: impl Fn(Sent) -> bool) -> anyhow::Result<Sent> {
        let reached = |line: &Value| Sent::deserialize(line).is_ok_and(&far_enough);
        let line = self.newest.wait_for(reached).await.map_err(|_| anyhow!("the day is over"))?;
        ensure!(line.get("counts").is_none(), "the day is over");
        Ok(Sent::deserialize(&*line)?)
    }

    /// Waits until everything is sent and at rest; the counts at the end.
    ///
    /// # Errors
    /// A client gave up or nothing settles; with what was printed.
    pub async fn end(mut self) -> anyhow::Result<Value> {
        self.reader.await??;
        let status = self.child.wait().await?;
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said).await?;
        }
        ensure!(status.success(), "the sample day ended with {status}: {said}");
        let last = self.newest.borrow().clone();
        ensure!(last.get("counts").is_some(), "no counts at the end: {last}");
        Ok(last)
    }
}

async fn read(output: ChildStdout, newest: watch::Sender<Value>) -> anyhow::Result<()> {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        newest.send_replace(serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?);
    }
    Ok(())
}
