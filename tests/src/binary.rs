//! Where the `tracklayer` under test is: beside the test binaries, of the same profile. The Makefile builds it first; where
//! it is missing (`cargo test -p tracklayer-tests` on a fresh checkout) it is built once, under a lock.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// The folder of the running build: `target/debug`.
fn profile_dir() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("no path of the test itself")?;
    let deps = test.parent().context("the test has no folder")?;
    Ok(deps.parent().context("the test's folder has none above it")?.to_owned())
}

/// The build folder, `target`: where what is installed for tests, and what they keep, is.
///
/// # Errors
/// The test runs elsewhere than in a build folder.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    Ok(profile_dir()?.parent().context("no target folder")?.to_owned())
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// The binary under test: that of `TRACKLAYER_TESTS_BINARY`, else the build's own, built if it is not there.
pub(crate) fn tracklayer() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("TRACKLAYER_TESTS_BINARY") {
        return Ok(PathBuf::from(named));
    }
    let binary = profile_dir()?.join("tracklayer");
    if binary.exists() {
        return Ok(binary);
    }
    let _one_builder = lock("tracklayer-build")?;
    if !binary.exists() {
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        cargo.args(["build", "--locked", "-p", "tracklayer"]).current_dir(repository());
        match profile_dir()?.file_name().and_then(|name| name.to_str()) {
            Some("debug") => {}
            Some(profile) => drop(cargo.args(["--profile", profile])),
            None => bail!("the build folder has no name"),
        }
        let built = cargo.status().context("could not run cargo")?;
        ensure!(built.success(), "could not build tracklayer");
    }
    Ok(binary)
}

/// Waits until no other process holds this lock; held until the file is dropped.
pub(crate) fn lock(name: &str) -> anyhow::Result<std::fs::File> {
    let path = target_dir()?.join(format!("{name}.lock"));
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("could not open {}", path.display()))?;
    file.lock().with_context(|| format!("could not lock {}", path.display()))?;
    Ok(file)
}
