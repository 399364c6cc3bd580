//! Private PostgreSQL and Redis servers, for `tracklayer dev` and for tests.
//!
//! Modules in reading order: `programs` (where the servers are installed, as whom they run), `supervisor` (a small shell
//! process that ends a server when whoever started it is gone, even by kill -9), [`postgres`], [`redis`]. It knows no table
//! and no key of TrackLayer.

pub mod postgres;
mod programs;
pub mod redis;
mod supervisor;

use std::path::PathBuf;

pub use postgres::{LocalPostgres, PgOptions};
pub use redis::{LocalRedis, RedisOptions};

/// Why a private server could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The program is not installed.
    #[error("`{program}` was not found; install it with `{install}`")]
    Missing {
        /// The program.
        program: String,
        /// The command to type.
        install: &'static str,
    },
    /// The data were written by another major version.
    #[error(
        "`{folder}` was written by PostgreSQL {wanted}, which is not installed; install it, or remove the folder to start empty"
    )]
    WrongVersion {
        /// The data folder.
        folder: PathBuf,
        /// Its version.
        wanted: String,
    },
    /// PostgreSQL refuses to run as root, and there is no user to run it as.
    #[error(
        "PostgreSQL refuses to run as root and there is no user `postgres` to run it as; install the package `postgresql` or run as a plain user"
    )]
    NoPostgresUser,
    /// The user that runs the server cannot enter a folder above its data.
    #[error(
        "user `postgres` cannot enter `{folder}`, so PostgreSQL cannot keep its data below it; choose another folder (such as one under /tmp or /var/lib) or `chmod o+x {folder}`"
    )]
    NotEnterable {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process keeps a server in the same folder.
    #[error("`{folder}` is in use by another running process; stop that one or choose another folder")]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A server whose data are thrown away was asked for in a folder that has something in it.
    #[error("`{folder}` is not empty; a server that removes its folder at the end gets only an empty one")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// The asked-for port is taken.
    #[error("port {port} on 127.0.0.1 is taken; choose another or leave it out")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// A file or folder could not be used.
    #[error("could not {doing} `{path}`")]
    Files {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server ended or did not become ready.
    #[error("{server} did not start: {why}\n{log}")]
    DidNotStart {
        /// Which.
        server: &'static str,
        /// What was seen.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// The server did not end in time.
    #[error("{server} (process {pid}) did not end within {seconds} s")]
    DidNotStop {
        /// Which.
        server: &'static str,
        /// Its process.
        pid: u32,
        /// How long was waited.
        seconds: u64,
    },
}

/// Makes the folder and takes the lock that says whose it is; the lock goes with the process, however that ends.
fn take_folder(folder: &std::path::Path, persistent: bool) -> Result<std::fs::File, LocalError> {
    std::fs::create_dir_all(folder).map_err(files("make folder", folder))?;
    let mut entries = std::fs::read_dir(folder).map_err(files("read folder", folder))?;
    if !persistent && entries.next().is_some() {
        return Err(LocalError::NotEmpty { folder: folder.to_owned() });
    }
    let path = folder.join("lock");
    let lock = std::fs::File::create(&path).map_err(files("create", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(LocalError::InUse { folder: folder.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(LocalError::Files { doing: "lock", path, source }),
    }
}

fn files(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::Files { doing, path, source }
}
