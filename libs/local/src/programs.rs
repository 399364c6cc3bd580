//! Where the servers are installed, and as whom they run.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::LocalError;

const INSTALL_POSTGRES: &str = if cfg!(target_os = "macos") {
    "brew install postgresql@17"
} else {
    "sudo apt-get install postgresql redis-server"
};
const INSTALL_REDIS: &str = if cfg!(target_os = "macos") {
    "brew install redis"
} else {
    "sudo apt-get install postgresql redis-server"
};

/// The programs of one PostgreSQL version.
#[derive(Debug, Clone)]
pub(crate) struct PostgresPrograms {
    pub initdb: PathBuf,
    pub postgres: PathBuf,
}

/// Finds `initdb` and `postgres` of one version: the newest, or the major version that wrote existing data.
pub(crate) fn postgres(data: &Path) -> Result<PostgresPrograms, LocalError> {
    let mut folders = installed_folders();
    let wanted = std::fs::read_to_string(data.join("PG_VERSION")).ok().map(|text| text.trim().to_owned());
    if let Some(wanted) = wanted {
        let any = !folders.is_empty();
        folders.retain(|folder| major_version(folder).is_some_and(|version| version == wanted));
        if folders.is_empty() && any {
            return Err(LocalError::WrongVersion { folder: data.to_owned(), wanted });
        }
    }
    folders
        .into_iter()
        .next()
        .map(|folder| PostgresPrograms { initdb: folder.join("initdb"), postgres: folder.join("postgres") })
        .ok_or(LocalError::Missing { program: "postgres".to_owned(), install: INSTALL_POSTGRES })
}

/// Finds `redis-server`, or its fork `valkey-server`.
pub(crate) fn redis() -> Result<PathBuf, LocalError> {
    in_path("redis-server")
        .or_else(|| in_path("valkey-server"))
        .ok_or(LocalError::Missing { program: "redis-server".to_owned(), install: INSTALL_REDIS })
}

/// Folders with both programs, newest version first: Debian's and Homebrew's places, then PATH.
fn installed_folders() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    let parents = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr"];
    for parent in parents {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digits = name.trim_start_matches("postgresql@").trim_start_matches("pgsql-");
            let Ok(version) = digits.parse() else { continue };
            found.push((version, entry.path().join("bin")));
        }
    }
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut folders: Vec<PathBuf> = found.into_iter().map(|(_, folder)| folder).collect();
    folders.extend(path_folders());
    folders.retain(|folder| is_program(&folder.join("initdb")) && is_program(&folder.join("postgres")));
    folders
}

fn in_path(program: &str) -> Option<PathBuf> {
    let usual = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from);
    path_folders().into_iter().chain(usual).map(|folder| folder.join(program)).find(|path| is_program(path))
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.mode() & 0o111 != 0)
}

/// "15" of `postgres (PostgreSQL) 15.18`.
fn major_version(folder: &Path) -> Option<String> {
    let output = Command::new(folder.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(version.split('.').next()?.to_owned())
}

/// As whom a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunAs {
    pub uid: u32,
    pub gid: u32,
}

/// The user that PostgreSQL must run as: `postgres` where we are root (it refuses root), ourselves else (`None`).
pub(crate) fn postgres_user() -> Result<Option<RunAs>, LocalError> {
    if number_of(&["-u"]) != Some(0) {
        return Ok(None);
    }
    match (number_of(&["-u", "postgres"]), number_of(&["-g", "postgres"])) {
        (Some(uid), Some(gid)) => Ok(Some(RunAs { uid, gid })),
        _ => Err(LocalError::NoPostgresUser),
    }
}

fn number_of(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).stdin(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// Whether the user can enter every folder from the root down to this one.
pub(crate) fn check_enterable(folder: &Path, user: RunAs) -> Result<(), LocalError> {
    for ancestor in folder.ancestors() {
        let Ok(data) = ancestor.metadata() else { continue };
        let bit = if data.uid() == user.uid {
            0o100
        } else if data.gid() == user.gid {
            0o010
        } else {
            0o001
        };
        if data.mode() & bit == 0 {
            return Err(LocalError::NotEnterable { folder: ancestor.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_closed_to_others_is_named() {
        let outer = std::env::temp_dir().join(format!("tracklayer-closed-{}", std::process::id()));
        let inner = outer.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::set_permissions(&outer, std::fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = RunAs { uid: 4_000_001, gid: 4_000_001 };
        let refused = check_enterable(&inner, stranger);
        std::fs::set_permissions(&outer, std::fs::Permissions::from_mode(0o711)).unwrap();
        let allowed = check_enterable(&inner, stranger);
        std::fs::remove_dir_all(&outer).unwrap();
        assert!(matches!(refused, Err(LocalError::NotEnterable { folder }) if folder == outer));
        assert!(allowed.is_ok());
    }

    #[test]
    fn data_of_a_version_that_is_not_installed_are_refused_and_named() {
        let data = std::env::temp_dir().join(format!("tracklayer-version-{}", std::process::id()));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("PG_VERSION"), "9\n").unwrap();
        let found = postgres(&data);
        std::fs::remove_dir_all(&data).unwrap();
        let text = found.unwrap_err().to_string();
        assert!(text.contains("PostgreSQL 9"), "{text}");
    }
}
