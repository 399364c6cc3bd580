//! A child process that cannot outlive the test.
//!
//! The one trick: a shell script between us and the program reads from a pipe of which only we hold the writing end. The
//! kernel closes it when we end, also by a panic in a static or by kill -9, and the script then ends the program and removes
//! its folder.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

const SCRIPT: &str = include_str!("child.sh");
/// How long a program may take to end after it was told to.
const END_PATIENCE: Duration = Duration::from_secs(45);

/// A running program. Dropping it ends the program (SIGTERM) and waits for that.
pub(crate) struct Child {
    name: String,
    pid: u32,
    pipe: Option<ChildStdin>,
    script: Process,
    exited: Arc<(Mutex<Option<i32>>, Condvar)>,
    log: PathBuf,
}

impl Child {
    /// Starts a program with its output appended to `log`; `remove` is deleted when it has ended.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
        remove: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("could not open {}", log.display()))?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "child"])
            .arg(remove.unwrap_or(Path::new("")))
            .arg(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            // Ctrl-C in a terminal ends the test; the script then sees to the program, in order.
            .process_group(0);
        let mut script = command.spawn().context("could not run /bin/sh")?;
        let pipe = script.stdin.take();
        let mut lines = BufReader::new(script.stdout.take().context("no output of the script")?);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        let pid = first.trim().strip_prefix("started ").and_then(|pid| pid.parse().ok());
        let pid = pid.with_context(|| format!("{name} did not start: {first}"))?;
        let exited = Arc::new((Mutex::new(None), Condvar::new()));
        let tell = Arc::clone(&exited);
        std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = lines.read_line(&mut rest);
            let code = rest.trim().strip_prefix("exited ").and_then(|code| code.parse().ok()).unwrap_or(-1);
            *tell.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
            tell.1.notify_all();
        });
        Ok(Self { name: name.to_owned(), pid, pipe, script, exited, log: log.to_owned() })
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its exit code as a shell tells it (128 + signal); none while it runs.
    pub(crate) fn exited(&self) -> Option<i32> {
        *self.exit()
    }

    fn exit(&self) -> MutexGuard<'_, Option<i32>> {
        self.exited.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT`, `TERM`).
    pub(crate) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        ensure!(self.exited().is_none(), "{} has ended already", self.name);
        let sent = Command::new("/bin/kill").args(["-s", signal, &self.pid.to_string()]).status()?;
        ensure!(sent.success(), "could not send {signal} to {}", self.name);
        Ok(())
    }

    /// Waits until it has ended; its exit code.
    pub(crate) fn wait(&self) -> anyhow::Result<i32> {
        let until = Instant::now() + END_PATIENCE;
        let mut exit = self.exit();
        loop {
            if let Some(code) = *exit {
                return Ok(code);
            }
            let left = until.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "{} does not end; its log:\n{}", self.name, self.log_tail());
            exit = self.exited.1.wait_timeout(exit, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

/// The last lines of a log.
pub(crate) fn log_tail(log: &Path) -> String {
    let mut text = Vec::new();
    let _ = File::open(log).and_then(|mut file| file.read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

impl Drop for Child {
    fn drop(&mut self) {
        self.pipe.take();
        let _ = self.script.wait();
    }
}
