//! A private Redis server.
//!
//! Always with `maxmemory-policy noeviction`: an evicted claim would let a duplicate through.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    LocalError, files, programs,
    supervisor::{self, Start, Supervised},
    take_folder,
};

/// How long a start may take; loading an append-only file is in it.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a server whose starter was killed may take to end by itself.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Which server to start.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Its folder; made if it is missing. Only an empty one unless `persistent`.
    pub dir: PathBuf,
    /// Port of 127.0.0.1; a free one if `None`.
    pub port: Option<u16>,
    /// Keep an append-only file, synced each second. Otherwise a restart finds nothing.
    pub appendonly: bool,
    /// Keep the folder at the end. Otherwise it is removed when the server ends or its starter is gone.
    pub persistent: bool,
    /// Variables of its process beside those of this one.
    pub environment: Vec<(String, String)>,
}

/// A running server. It ends with this value, or with this process, however that ends.
#[derive(Debug)]
pub struct LocalRedis {
    server: Supervised,
    port: u16,
    _lock: File,
}

impl LocalRedis {
    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// See [`LocalError`]; each says what to do.
    pub async fn start(options: RedisOptions) -> Result<Self, LocalError> {
        let folder = std::path::absolute(&options.dir).map_err(files("find", &options.dir))?;
        let lock = take_folder(&folder, options.persistent)?;
        let program = programs::redis()?;
        end_orphan(&folder, &program).await?;
        let tries = if options.port.is_some() { 1 } else { 5 };
        let mut outcome = Err(LocalError::PortTaken { port: options.port.unwrap_or_default() });
        for _ in 0..tries {
            let port = match options.port {
                Some(port) => port,
                None => supervisor::free_port()?,
            };
            outcome = launch(&folder, &options, &program, port).await;
            match outcome {
                Err(LocalError::PortTaken { .. }) => {}
                _ => break,
            }
        }
        let (server, port) = outcome?;
        Ok(Self { server, port, _lock: lock })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Whether the server is still there.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.server.exited().is_none()
    }

    /// Ends the server in an orderly way and waits for it.
    ///
    /// # Errors
    /// [`LocalError::DidNotStop`] after a minute.
    pub async fn stop(self) -> Result<(), LocalError> {
        self.server.stop().await
    }
}

/// Ends a server that a killed process left behind in this folder.
async fn end_orphan(folder: &Path, program: &Path) -> Result<(), LocalError> {
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let started = tokio::time::Instant::now();
    let mut asked = false;
    loop {
        let pid = std::fs::read_to_string(folder.join("pid")).ok().and_then(|text| text.trim().parse().ok());
        let Some(pid) = pid.filter(|pid| supervisor::runs(*pid, &name)) else { return Ok(()) };
        // The number may belong to another Redis by now: only the one that works in this folder is ours.
        let port =
            std::fs::read_to_string(folder.join("port")).ok().and_then(|text| text.trim().parse().ok());
        let ours = match port {
            Some(port) => folder_of(port).await.is_some_and(|theirs| Path::new(&theirs) == folder),
            None => false,
        };
        if !ours {
            return Ok(());
        }
        if !asked && started.elapsed() > Duration::from_secs(2) {
            tracing::info!(pid, "ending a Redis server that a killed process left behind");
            supervisor::signal(pid, "TERM");
            asked = true;
        }
        if started.elapsed() > ORPHAN_PATIENCE {
            return Err(LocalError::DidNotStop { server: "Redis", pid, seconds: ORPHAN_PATIENCE.as_secs() });
        }
        tokio::time::sleep(PAUSE * 5).await;
    }
}

async fn launch(
    folder: &Path,
    options: &RedisOptions,
    program: &Path,
    port: u16,
) -> Result<(Supervised, u16), LocalError> {
    if std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
        return Err(LocalError::PortTaken { port });
    }
    let log = folder.join("log");
    let port_file = folder.join("port");
    std::fs::write(&port_file, port.to_string()).map_err(files("write", &port_file))?;
    let path = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        ("--port", port.to_string()),
        ("--bind", "127.0.0.1".to_owned()),
        ("--dir", folder.display().to_string()),
        ("--pidfile", path("pid")),
        ("--daemonize", "no".to_owned()),
        ("--save", String::new()),
        ("--appendonly", if options.appendonly { "yes" } else { "no" }.to_owned()),
        ("--appendfsync", "everysec".to_owned()),
        ("--maxmemory-policy", "noeviction".to_owned()),
    ];
    let server = Supervised::start(&Start {
        server: "Redis",
        program,
        arguments: arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect(),
        environment: &options.environment,
        signal: if options.persistent { "TERM" } else { "KILL" },
        log: &log,
        folder,
        ephemeral: !options.persistent,
        run_as: None,
    })?;
    wait_until_ready(folder, &server, port).await?;
    Ok((server, port))
}

async fn wait_until_ready(folder: &Path, server: &Supervised, port: u16) -> Result<(), LocalError> {
    let failed = |why: String| LocalError::DidNotStart {
        server: "Redis",
        why,
        log: supervisor::tail(&folder.join("log")),
    };
    let started = tokio::time::Instant::now();
    loop {
        if let Some(code) = server.exited() {
            return Err(failed(format!("it ended with code {code}")));
        }
        // Asking for its folder, too: another server may have taken the port between the look and the start.
        if let Some(theirs) = folder_of(port).await {
            if Path::new(&theirs) != folder {
                return Err(LocalError::PortTaken { port });
            }
            // It answers questions about itself while it still reads its append-only file, and refuses all others.
            if has_loaded(port).await {
                return Ok(());
            }
        }
        if started.elapsed() > START_PATIENCE {
            return Err(failed(format!("it did not answer within {} s", START_PATIENCE.as_secs())));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the server answers ordinary commands.
async fn has_loaded(port: u16) -> bool {
    let ping = async {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    ping.await.is_ok()
}

/// The folder in which the server behind a port works; `None` while nobody answers.
async fn folder_of(port: u16) -> Option<String> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    let answer: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("dir").query_async(&mut connection).await.ok()?;
    answer.into_iter().nth(1)
}
