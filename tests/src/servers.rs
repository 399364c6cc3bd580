//! Private PostgreSQL and Redis servers that a test may kill, empty and starve of disk. Each keeps its port over restarts, and
//! its data on a small file system of its own where mounting is permitted.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use tracklayer_local::{LocalPostgres, LocalRedis, PgOptions, RedisOptions};

use crate::platform::new_folder;
use crate::small_disk::SmallDisk;

/// Room for the cluster, its write-ahead log and some hundred thousand events; or for as many claims.
const DISK_BYTES: u64 = 320 * 1024 * 1024;
/// Redis' own name of the folder with its append-only files. Source: Redis 7.0, redis.conf, `appenddirname`; 2026-11.
const APPEND_ONLY: &str = "appendonlydir";
/// How long a killed process may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// Where a server keeps its data: removed when it is dropped, and, where mounting is permitted, also when this process ends.
struct Room {
    folder: PathBuf,
    disk: Result<SmallDisk, String>,
}

impl Room {
    fn make() -> anyhow::Result<Self> {
        let folder = new_folder()?;
        let disk = SmallDisk::mount(&folder.join("disk"), DISK_BYTES).map_err(|error| format!("{error:#}"));
        Ok(Self { folder, disk })
    }

    fn server(&self) -> PathBuf {
        self.folder.join("disk/server")
    }

    fn copy(&self) -> PathBuf {
        self.folder.join("disk/copy")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.disk.is_err() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A PostgreSQL server. Ended at once when it is dropped or when this process ends.
pub struct Postgres {
    // Dropped before its disk.
    server: Option<LocalPostgres>,
    port: u16,
    url: String,
    room: Room,
    variables: Vec<(String, String)>,
}

impl Postgres {
    /// Starts it, empty, with these variables of its processes.
    ///
    /// # Errors
    /// It is not installed or did not start.
    pub async fn start(variables: Vec<(String, String)>) -> anyhow::Result<Self> {
        let (port, room) = (free_port()?, Room::make()?);
        let mut new = Self { server: None, port, url: String::new(), room, variables };
        new.start_again().await?;
        Ok(new)
    }

    /// Why there is no disk that can be filled; none if there is one.
    #[must_use]
    pub fn no_disk(&self) -> Option<&str> {
        self.room.disk.as_ref().err().map(String::as_str)
    }

    /// Its address over TCP.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address through a proxy.
    #[must_use]
    pub fn url_through(&self, proxy: SocketAddr) -> String {
        self.url.replace(&format!(":{}/", self.port), &format!(":{}/", proxy.port()))
    }

    /// Its socket.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Starts it on its data, unless it runs. It ends by itself when it finds no room to recover in.
    ///
    /// # Errors
    /// It did not start.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        if self.server.as_ref().is_some_and(LocalPostgres::is_running) {
            return Ok(());
        }
        if let Some(ended) = self.server.take() {
            ended.stop().await?;
        }
        let settings = [
            ("max_connections", "300"),
            ("shared_buffers", "64MB"),
            ("max_wal_size", "96MB"),
            ("min_wal_size", "48MB"),
            // A full disk is met where a segment is begun, not only where a table grows.
            ("wal_recycle", "off"),
        ];
        let options = PgOptions {
            data_dir: self.room.server(),
            port: Some(self.port),
            persistent: true,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            environment: self.variables.clone(),
        };
        let server = LocalPostgres::start(options).await?;
        self.url = server.tcp_url().to_owned();
        self.server = Some(server);
        Ok(())
    }

    /// Ends every process of it at once (`kill -9`), as the loss of its machine does.
    ///
    /// # Errors
    /// It does not go.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        let processes = processes_of(server.pid())?;
        signal("KILL", &processes)?;
        server.stop().await?;
        gone(&processes).await
    }

    /// Fills its disk; how many bytes that took.
    ///
    /// # Errors
    /// There is no disk that can be filled.
    pub fn fill_disk(&self) -> anyhow::Result<u64> {
        self.disk()?.fill()
    }

    /// Gives it its room back.
    ///
    /// # Errors
    /// The file system.
    pub fn free_disk(&self) -> anyhow::Result<()> {
        self.disk()?.free()
    }

    fn disk(&self) -> anyhow::Result<&SmallDisk> {
        self.room.disk.as_ref().map_err(|why| anyhow!("{why}"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nobody wants the data: no orderly end, which would write them all out.
        if let Some(server) = &self.server {
            let _ = processes_of(server.pid()).and_then(|processes| signal("KILL", &processes));
        }
    }
}

/// A Redis server with an append-only file. Ended at once when it is dropped or when this process ends.
pub struct Redis {
    server: Option<LocalRedis>,
    port: u16,
    room: Room,
    variables: Vec<(String, String)>,
}

impl Redis {
    /// Starts it, empty, with these variables of its process.
    ///
    /// # Errors
    /// It is not installed or did not start.
    pub async fn start(variables: Vec<(String, String)>) -> anyhow::Result<Self> {
        let mut new = Self { server: None, port: free_port()?, room: Room::make()?, variables };
        new.start_again(false).await?;
        Ok(new)
    }

    /// Its socket.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Starts it on its data or on none, unless it runs.
    ///
    /// # Errors
    /// It did not start.
    pub async fn start_again(&mut self, empty: bool) -> anyhow::Result<()> {
        if self.server.as_ref().is_some_and(LocalRedis::is_running) {
            return Ok(());
        }
        let dir = self.room.server();
        if empty && dir.exists() {
            std::fs::remove_dir_all(&dir).context("could not remove Redis' data")?;
        }
        let environment = self.variables.clone();
        let options =
            RedisOptions { dir, port: Some(self.port), appendonly: true, persistent: true, environment };
        self.server = Some(LocalRedis::start(options).await?);
        Ok(())
    }

    /// Keeps its data as they are now, as a replica that hears of nothing more does.
    ///
    /// # Errors
    /// The file system.
    pub fn keep_copy(&self) -> anyhow::Result<()> {
        copy_folder(&self.room.server().join(APPEND_ONLY), &self.room.copy())
    }

    /// Starts it, which must not run, on the copy of [`Self::keep_copy`]: a stale replica was promoted.
    ///
    /// # Errors
    /// There is no copy, or it did not start.
    pub async fn start_on_copy(&mut self) -> anyhow::Result<()> {
        let data = self.room.server().join(APPEND_ONLY);
        std::fs::remove_dir_all(&data).context("could not remove Redis' data")?;
        std::fs::rename(self.room.copy(), data).context("there is no copy of Redis' data")?;
        self.start_again(false).await
    }

    /// Ends it at once (`kill -9`).
    ///
    /// # Errors
    /// It does not go.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        let pid = server.pid();
        signal("KILL", &[pid])?;
        server.stop().await?;
        gone(&[pid]).await
    }

    /// Removes every key (`FLUSHALL`).
    ///
    /// # Errors
    /// It does not run.
    pub fn flush(&self) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.address()).context("could not reach Redis")?;
        stream.set_read_timeout(Some(GONE_LIMIT))?;
        stream.write_all(b"FLUSHALL\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"+OK\r\n", "Redis answered {:?}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            let _ = signal("KILL", &[server.pid()]);
        }
    }
}

/// Files only; replaces what was there. A file that grows meanwhile may be cut at its end, which Redis takes for a crash.
fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to).with_context(|| format!("could not remove {}", to.display()))?;
    }
    std::fs::create_dir(to).with_context(|| format!("could not make {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("could not list {}", from.display()))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name())).context("could not copy a file")?;
    }
    Ok(())
}

/// A port of 127.0.0.1 below those that outgoing connections get, so that none of these sits on it while its server is away.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    for _ in 0..1_000 {
        let port = fastrand::u16(20_000..32_000);
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(anyhow!("no port of 20000 to 31999 is free"))
}

fn signal(signal: &str, pids: &[u32]) -> anyhow::Result<()> {
    let mut command = Command::new("/bin/kill");
    // Some may have ended by themselves meanwhile.
    command.args(["-s", signal]).args(pids.iter().map(u32::to_string)).stderr(Stdio::null());
    command.status().context("could not run /bin/kill").map(drop)
}

/// A server and its children; the server is stopped first, so that it has no new one when they are counted.
fn processes_of(server: u32) -> anyhow::Result<Vec<u32>> {
    signal("STOP", &[server])?;
    let mut processes = vec![server];
    for entry in std::fs::read_dir("/proc").context("could not list processes")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if field_of(pid, 1).and_then(|parent| parent.parse().ok()) == Some(server) {
            processes.push(pid);
        }
    }
    Ok(processes)
}

/// Waits until none of these runs any more.
async fn gone(pids: &[u32]) -> anyhow::Result<()> {
    // Who has ended and whom nobody has asked about yet does not run.
    let runs = |pid: u32| field_of(pid, 0).is_some_and(|state| !matches!(state.as_str(), "Z" | "X"));
    let begun = Instant::now();
    loop {
        let left: Vec<u32> = pids.iter().copied().filter(|pid| runs(*pid)).collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(begun.elapsed() < GONE_LIMIT, "killed processes do not go: {left:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A field of `/proc/PID/stat` behind the name: 0 is the state, 1 the parent.
fn field_of(pid: u32, place: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(place).map(str::to_owned)
}
