//! A server process that cannot outlive its starter.
//!
//! The one trick: a shell script between us and the server reads from a pipe of which only we hold the writing end. The
//! kernel closes it when we end, also by kill -9, and the script then stops the server and removes its folder.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{LocalError, files, programs::RunAs};

const SCRIPT: &str = include_str!("supervisor.sh");
/// How long a server may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// What to start and how it ends.
pub(crate) struct Start<'a> {
    pub server: &'static str,
    pub program: &'a Path,
    pub arguments: Vec<String>,
    /// Variables beside those of this process.
    pub environment: &'a [(String, String)],
    /// What ends it: `INT` or `TERM` (orderly), `QUIT` (at once, for data that nobody wants).
    pub signal: &'static str,
    pub log: &'a Path,
    /// Working folder; removed at the end if `ephemeral`.
    pub folder: &'a Path,
    pub ephemeral: bool,
    pub run_as: Option<RunAs>,
}

/// A running server. Dropping it ends the server without waiting for that.
#[derive(Debug)]
pub(crate) struct Supervised {
    server: &'static str,
    pid: u32,
    pipe: Option<ChildStdin>,
    supervisor: Option<Child>,
    exited: Arc<Mutex<Option<i32>>>,
}

impl Supervised {
    /// Starts the server; it is not ready yet. Blocks for a few milliseconds.
    pub(crate) fn start(start: &Start<'_>) -> Result<Self, LocalError> {
        let folder = if start.ephemeral { start.folder.as_os_str() } else { "".as_ref() };
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(SCRIPT)
            .arg("supervisor")
            .arg(start.signal)
            .arg(start.log)
            .arg(folder)
            .arg(start.program)
            .args(&start.arguments)
            .envs(start.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(start.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the whole group: the servers must outlive the services' own shutdown.
            .process_group(0);
        if let Some(user) = start.run_as {
            command.uid(user.uid).gid(user.gid);
        }
        let mut supervisor = command.spawn().map_err(files("run", Path::new("/bin/sh")))?;
        let refused = |said: &str| LocalError::DidNotStart {
            server: start.server,
            why: format!("its supervisor said `{}`", said.trim()),
            log: tail(start.log),
        };
        let pipe = supervisor.stdin.take();
        let mut lines = BufReader::new(supervisor.stdout.take().ok_or_else(|| refused(""))?);
        let mut first = String::new();
        lines.read_line(&mut first).map_err(files("read from", Path::new("/bin/sh")))?;
        let pid = first.trim().strip_prefix("started ").and_then(|text| text.parse().ok());
        let pid = pid.ok_or_else(|| refused(&first))?;
        let exited = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&exited);
        // Ends with the supervisor's output, that is with the server or with this process.
        std::thread::Builder::new()
            .name(format!("watch-{}", start.server))
            .spawn(move || watch(lines, &seen))
            .map_err(files("watch", start.program))?;
        Ok(Self { server: start.server, pid, pipe, supervisor: Some(supervisor), exited })
    }

    /// Process of the server itself.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Exit code of the server, once it has ended; -1 if it can no longer be known.
    pub(crate) fn exited(&self) -> Option<i32> {
        *self.exited.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends the server and waits until it and its supervisor are gone.
    pub(crate) async fn stop(mut self) -> Result<(), LocalError> {
        drop(self.pipe.take());
        let Some(mut supervisor) = self.supervisor.take() else { return Ok(()) };
        let ended = tokio::task::spawn_blocking(move || supervisor.wait());
        match tokio::time::timeout(STOP_PATIENCE, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(LocalError::DidNotStop {
                server: self.server,
                pid: self.pid,
                seconds: STOP_PATIENCE.as_secs(),
            }),
        }
    }
}

fn watch(mut lines: BufReader<ChildStdout>, exited: &Mutex<Option<i32>>) {
    let mut line = String::new();
    let _ = lines.read_line(&mut line);
    let code = line.trim().strip_prefix("exited ").and_then(|text| text.parse().ok()).unwrap_or(-1);
    *exited.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(code);
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Whether a process with this number runs and its command line contains the text.
pub(crate) fn runs(pid: u32, containing: &str) -> bool {
    let output =
        Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(containing))
}

/// Sends a signal to a process of ours.
pub(crate) fn signal(pid: u32, signal: &str) {
    let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// A port of 127.0.0.1 that was free a moment ago. Another process may take it before the server does: try again then.
pub(crate) fn free_port() -> Result<u16, LocalError> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))
        .map_err(files("find a port on", Path::new("127.0.0.1")))?;
    Ok(listener.local_addr().map_err(files("find a port on", Path::new("127.0.0.1")))?.port())
}
