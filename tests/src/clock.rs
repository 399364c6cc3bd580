//! A wall clock that a test sets, for real processes: a small library that they preload shows them a time as far ahead as a file
//! says (`tests/clock/shift.c`). The C compiler that Rust links with builds it.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};

use crate::platform::new_folder;

const SOURCE: &str = include_str!("../clock/shift.c");
/// Where the library finds its file.
const VARIABLE: &str = "TRACKLAYER_TESTS_CLOCK";

/// The time of all processes that were started with its variables.
pub struct Clock {
    folder: PathBuf,
    file: File,
    ahead_ms: AtomicU64,
}

impl Clock {
    /// A clock that shows the machine's time until it is moved.
    ///
    /// # Errors
    /// There is no C compiler, or programs here do not preload what it makes.
    pub fn start() -> anyhow::Result<Self> {
        let folder = new_folder()?;
        std::fs::write(folder.join("shift.c"), SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o", "shift.so", "shift.c"]).current_dir(&folder);
        let built = compiler.output().context("could not run cc")?;
        ensure!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
        let path = folder.join("ahead");
        std::fs::write(&path, [0; 8])?;
        // PostgreSQL runs as a user of its own.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
        let file = File::options().write(true).open(&path)?;
        let clock = Self { folder, file, ahead_ms: AtomicU64::new(0) };
        clock.is_followed()?;
        Ok(clock)
    }

    /// Whether a program shows what it is set to.
    fn is_followed(&self) -> anyhow::Result<()> {
        const STEP: Duration = Duration::from_secs(400 * 24 * 3_600);
        self.show(STEP)?;
        let date =
            Command::new("date").arg("+%s").envs(self.variables()).output().context("could not run date")?;
        self.show(Duration::ZERO)?;
        let shown: u64 =
            String::from_utf8_lossy(&date.stdout).trim().parse().context("date shows no time")?;
        let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        ensure!(
            Duration::from_secs(shown).saturating_sub(real) > STEP / 2,
            "programs do not follow a preloaded clock here"
        );
        Ok(())
    }

    /// What a process has to be started with.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let path = |name| self.folder.join(name).display().to_string();
        vec![("LD_PRELOAD".to_owned(), path("shift.so")), (VARIABLE.to_owned(), path("ahead"))]
    }

    /// Moves it forward, in all processes at once.
    ///
    /// # Errors
    /// The file system.
    pub fn advance(&self, by: Duration) -> anyhow::Result<()> {
        let by_ms = u64::try_from(by.as_millis())?;
        let before = self.ahead_ms.fetch_add(by_ms, Ordering::SeqCst);
        self.show(Duration::from_millis(before + by_ms))
    }

    fn show(&self, ahead: Duration) -> anyhow::Result<()> {
        let nanoseconds = i64::try_from(ahead.as_nanos())?;
        self.file.write_all_at(&nanoseconds.to_ne_bytes(), 0).context("could not set the clock")
    }

    /// The time that it shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_the_time_that_the_clock_was_moved_to() {
        let clock = Clock::start().unwrap();
        let seen = || {
            let date = Command::new("date").arg("+%s").envs(clock.variables()).output().unwrap();
            Duration::from_secs(String::from_utf8_lossy(&date.stdout).trim().parse().unwrap())
        };
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let before = seen();
        clock.advance(hours(49)).unwrap();
        clock.advance(hours(100)).unwrap();
        let jump = seen() - before;
        assert!((hours(149)..hours(150)).contains(&jump), "{jump:?}");
        let ours = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!((hours(149)..hours(150)).contains(&(ours - before)), "{ours:?}");
    }
}
