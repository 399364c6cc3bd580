//! A private PostgreSQL server.
//!
//! Layout of its folder: `data` (the cluster), `run` (the socket), `password`, `log`, `lock`. Over the socket, which only
//! its user and root can enter, no password is asked; over 127.0.0.1 it is, since everybody on the machine can get there.

use std::{
    fs::File,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};

use crate::{
    LocalError, files,
    programs::{self, RunAs},
    supervisor::{self, Start, Supervised},
    take_folder,
};

/// The database and its owner.
const NAME: &str = "tracklayer";
/// How long a start may take; crash recovery of a large journal is in it.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long a server whose starter was killed may take to end by itself.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest path of a Unix socket. Source: Linux, unix(7), `sun_path` (108 bytes with the final zero); 2025-11. macOS: 104.
const MAX_SOCKET_PATH: usize = 100;

/// Which server to start.
#[derive(Debug, Clone)]
pub struct PgOptions {
    /// Its folder; made if it is missing. Only an empty one unless `persistent`.
    pub data_dir: PathBuf,
    /// Port of 127.0.0.1; a free one if `None`.
    pub port: Option<u16>,
    /// Keep the data at the end. Otherwise the folder is removed when the server ends or its starter is gone.
    pub persistent: bool,
    /// Further settings (`fsync`, `max_connections` …). Unless said here, the server is durable.
    pub settings: Vec<(String, String)>,
    /// Variables of its processes beside those of this one.
    pub environment: Vec<(String, String)>,
}

/// A running server. It ends with this value, or with this process, however that ends.
#[derive(Debug)]
pub struct LocalPostgres {
    server: Supervised,
    url: String,
    tcp_url: String,
    port: u16,
    folder: PathBuf,
    _lock: File,
}

impl LocalPostgres {
    /// Starts the server and waits until it takes connections. Makes a new cluster in an empty folder, goes on with an
    /// existing one (also after a crash), and ends a server that a killed process left behind there.
    ///
    /// # Errors
    /// See [`LocalError`]; each says what to do.
    pub async fn start(options: PgOptions) -> Result<Self, LocalError> {
        let folder = std::path::absolute(&options.data_dir).map_err(files("find", &options.data_dir))?;
        let lock = take_folder(&folder, options.persistent)?;
        let (prepared, persistent) = (folder.clone(), options.persistent);
        let (run_as, programs, password) = blocking(move || prepare(&prepared, persistent)).await?;
        end_orphan(&folder).await?;

        let tries = if options.port.is_some() { 1 } else { 5 };
        let mut outcome = Err(LocalError::PortTaken { port: options.port.unwrap_or_default() });
        for _ in 0..tries {
            let port = match options.port {
                Some(port) => port,
                None => supervisor::free_port()?,
            };
            outcome = launch(&folder, &options, &programs, run_as, port).await;
            match outcome {
                Err(LocalError::PortTaken { .. }) => {}
                _ => break,
            }
        }
        let (server, port) = outcome?;
        let tcp_url = format!("postgres://{NAME}:{password}@127.0.0.1:{port}/{NAME}");
        let url = match socket_folder(&folder) {
            Some(socket) => format!("postgres://{NAME}@{}:{port}/{NAME}", percent_encoded(&socket)),
            None => tcp_url.clone(),
        };
        Ok(Self { server, url, tcp_url, port, folder, _lock: lock })
    }

    /// Address of the database `tracklayer`, over the Unix socket where its path is short enough. Carries a credential.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same over 127.0.0.1 and with the password, for what cannot use a Unix socket.
    #[must_use]
    pub fn tcp_url(&self) -> &str {
        &self.tcp_url
    }

    /// Address of another database of this server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        match self.url.rsplit_once('/') {
            Some((server, _)) => format!("{server}/{database}"),
            None => self.url.clone(),
        }
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

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Ends the server in an orderly way and waits for it.
    ///
    /// # Errors
    /// [`LocalError::DidNotStop`] after a minute.
    pub async fn stop(self) -> Result<(), LocalError> {
        self.server.stop().await
    }
}

/// Folders, owner, cluster, password: everything before the start. Blocks.
fn prepare(
    folder: &Path,
    persistent: bool,
) -> Result<(Option<RunAs>, programs::PostgresPrograms, String), LocalError> {
    let data = folder.join("data");
    let programs = programs::postgres(&data)?;
    let run_as = programs::postgres_user()?;
    let run = folder.join("run");
    std::fs::create_dir_all(&run).map_err(files("make folder", &run))?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&run, private.clone()).map_err(files("set the mode of", &run))?;
    let password_file = folder.join("password");
    if !password_file.exists() {
        std::fs::write(&password_file, random_hex()?).map_err(files("write", &password_file))?;
        std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o600))
            .map_err(files("set the mode of", &password_file))?;
    }
    let password = std::fs::read_to_string(&password_file).map_err(files("read", &password_file))?;

    let log = folder.join("log");
    File::options().append(true).create(true).open(&log).map_err(files("create", &log))?;
    if let Some(user) = run_as {
        for path in [folder, run.as_path(), password_file.as_path(), log.as_path()] {
            chown(path, Some(user.uid), Some(user.gid)).map_err(files("give to user `postgres`", path))?;
        }
        programs::check_enterable(folder, user)?;
    }
    if !data.join("PG_VERSION").exists() {
        make_cluster(folder, &data, &password_file, &programs, run_as, persistent)?;
    }
    Ok((run_as, programs, password.trim().to_owned()))
}

fn make_cluster(
    folder: &Path,
    data: &Path,
    password_file: &Path,
    programs: &programs::PostgresPrograms,
    run_as: Option<RunAs>,
    persistent: bool,
) -> Result<(), LocalError> {
    // A half-made cluster (killed in the middle) has no PG_VERSION, and initdb refuses a folder with anything in it.
    let unfinished = folder.join("data.new");
    for remains in [&unfinished, &data.to_owned()] {
        if remains.exists() {
            std::fs::remove_dir_all(remains).map_err(files("remove", remains))?;
        }
    }
    let mut command = Command::new(&programs.initdb);
    command
        .arg("-D")
        .arg(&unfinished)
        .args(["-U", NAME, "-E", "UTF8", "--locale=C", "--data-checksums", "--no-instructions"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg(format!("--pwfile={}", password_file.display()))
        .current_dir(folder)
        .stdin(Stdio::null());
    if !persistent {
        // Nobody wants these data after a crash: seconds less on a busy disk.
        command.arg("--no-sync");
    }
    if let Some(user) = run_as {
        use std::os::unix::process::CommandExt as _;
        command.uid(user.uid).gid(user.gid);
    }
    let output = command.output().map_err(files("run", &programs.initdb))?;
    if !output.status.success() {
        return Err(LocalError::DidNotStart {
            server: "PostgreSQL",
            why: format!("initdb ended with {}", output.status),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    std::fs::rename(&unfinished, data).map_err(files("rename to", data))
}

/// Ends a server that runs on these data without a starter, and clears a stale `postmaster.pid`: its number may belong to
/// another process by now (in a container it nearly always does), and then PostgreSQL would refuse to start for ever.
async fn end_orphan(folder: &Path) -> Result<(), LocalError> {
    let data = folder.join("data");
    let pid_file = data.join("postmaster.pid");
    let started = tokio::time::Instant::now();
    let mut asked = "";
    loop {
        let Ok(text) = std::fs::read_to_string(&pid_file) else { return Ok(()) };
        let pid = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| supervisor::runs(*pid, &data.to_string_lossy())) else {
            tracing::info!("removing the process file of a server that crashed");
            return match std::fs::remove_file(&pid_file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(files("remove", &pid_file)(error))
                }
                _ => Ok(()),
            };
        };
        let wish = match started.elapsed() {
            elapsed if elapsed < Duration::from_secs(2) => "",
            elapsed if elapsed < ORPHAN_PATIENCE => "INT",
            elapsed if elapsed < ORPHAN_PATIENCE * 2 => "QUIT",
            elapsed => {
                return Err(LocalError::DidNotStop { server: "PostgreSQL", pid, seconds: elapsed.as_secs() });
            }
        };
        if wish != asked {
            tracing::info!(pid, "ending a database server that a killed process left behind");
            supervisor::signal(pid, wish);
            asked = wish;
        }
        tokio::time::sleep(PAUSE * 5).await;
    }
}

async fn launch(
    folder: &Path,
    options: &PgOptions,
    programs: &programs::PostgresPrograms,
    run_as: Option<RunAs>,
    port: u16,
) -> Result<(Supervised, u16), LocalError> {
    if std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
        return Err(LocalError::PortTaken { port });
    }
    let log = folder.join("log");
    let socket = socket_folder(folder).map(|path| path.display().to_string()).unwrap_or_default();
    let mut arguments = vec!["-D".to_owned(), folder.join("data").display().to_string()];
    let mut set = |name: &str, value: &str| arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
    set("port", &port.to_string());
    set("listen_addresses", "127.0.0.1");
    set("unix_socket_directories", &socket);
    for (name, value) in &options.settings {
        set(name, value);
    }
    let server = Supervised::start(&Start {
        server: "PostgreSQL",
        program: &programs.postgres,
        arguments,
        environment: &options.environment,
        signal: if options.persistent { "INT" } else { "QUIT" },
        log: &log,
        folder,
        ephemeral: !options.persistent,
        run_as,
    })?;
    wait_until_ready(folder, &server).await?;
    create_database(folder, port).await?;
    Ok((server, port))
}

/// The server writes its state into line 8 of its process file. Source: PostgreSQL 15, src/include/utils/pidfile.h; 2025-11.
async fn wait_until_ready(folder: &Path, server: &Supervised) -> Result<(), LocalError> {
    let pid_file = folder.join("data/postmaster.pid");
    let failed = |why: String| LocalError::DidNotStart {
        server: "PostgreSQL",
        why,
        log: supervisor::tail(&folder.join("log")),
    };
    let started = tokio::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
        let mut lines = text.lines();
        let ours = lines.next().is_some_and(|line| line.trim() == server.pid().to_string());
        if ours && lines.nth(6).is_some_and(|line| line.trim() == "ready") {
            return Ok(());
        }
        if let Some(code) = server.exited() {
            return Err(failed(format!("it ended with code {code}")));
        }
        if started.elapsed() > START_PATIENCE {
            return Err(failed(format!("it was not ready after {} s", START_PATIENCE.as_secs())));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn create_database(folder: &Path, port: u16) -> Result<(), LocalError> {
    let failed = |error: sqlx::Error| LocalError::DidNotStart {
        server: "PostgreSQL",
        why: format!("its database could not be created: {error}"),
        log: supervisor::tail(&folder.join("log")),
    };
    let password = std::fs::read_to_string(folder.join("password")).unwrap_or_default();
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .username(NAME)
        .password(password.trim())
        .port(port)
        .database("postgres");
    let options = match socket_folder(folder) {
        Some(socket) => options.socket(socket),
        None => options.host("127.0.0.1"),
    };
    let mut connection = PgConnection::connect_with(&options).await.map_err(failed)?;
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(NAME)
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    if !exists {
        sqlx::query("create database tracklayer").execute(&mut connection).await.map_err(failed)?;
    }
    let _ = connection.close().await;
    Ok(())
}

/// Where the socket is; `None` where its path would be too long for the system.
fn socket_folder(folder: &Path) -> Option<PathBuf> {
    let run = folder.join("run");
    let longest = run.join(".s.PGSQL.65535.lock");
    (longest.as_os_str().len() < MAX_SOCKET_PATH && run.to_str().is_some()).then_some(run)
}

fn percent_encoded(path: &Path) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in path.to_string_lossy().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// 32 hexadecimal digits from the system's source of randomness.
fn random_hex() -> Result<String, LocalError> {
    use std::{fmt::Write as _, io::Read as _};
    let path = Path::new("/dev/urandom");
    let mut bytes = [0u8; 16];
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).map_err(files("read", path))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(LocalError::DidNotStart {
            server: "PostgreSQL",
            why: format!("its preparation broke off: {error}"),
            log: String::new(),
        }),
    }
}
