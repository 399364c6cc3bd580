//! A file system of its own, small enough to be filled on purpose.
//!
//! The one trick: a shell script mounts it and waits on a pipe of which only we hold the writing end, so that it is unmounted
//! when this process ends, however it ends.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, bail};

/// Mounts, says so, waits for the end of its input, unmounts (lazily: whoever still has a file open keeps it until then), removes
/// the folder and the one above it if nothing is left in that.
const SCRIPT: &str = r#"
mount -t tmpfs -o "size=$1,mode=0755" tracklayer-test "$2" 2>&1 || exit 1
echo mounted
trap '' PIPE
read -r _
umount -l "$2"
rmdir "$2" "${2%/*}" 2>/dev/null
"#;

/// A mounted file system. Unmounted when it is dropped or when this process ends.
pub struct SmallDisk {
    folder: PathBuf,
    pipe: Option<ChildStdin>,
    script: Child,
}

impl SmallDisk {
    /// Mounts `bytes` at `folder`, which is made.
    ///
    /// # Errors
    /// Mounting is not permitted here; with what `mount` said.
    pub fn mount(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        let mut script = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "small-disk", &bytes.to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal ends the test; the script then unmounts.
            .process_group(0)
            .spawn()
            .context("could not run /bin/sh")?;
        let pipe = script.stdin.take();
        let mut said = String::new();
        BufReader::new(script.stdout.take().context("no output of the script")?).read_line(&mut said)?;
        if said.trim() != "mounted" {
            let _ = script.wait();
            bail!("mounting is not permitted here: {}", said.trim());
        }
        Ok(Self { folder: folder.to_owned(), pipe, script })
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// Fills it to the last byte; how many bytes that took.
    ///
    /// # Errors
    /// Something else than a full disk.
    pub fn fill(&self) -> anyhow::Result<u64> {
        let mut file = File::create(self.filler()).context("could not begin to fill the disk")?;
        let piece = vec![0; 1024 * 1024];
        let (mut filled, mut size) = (0, piece.len());
        // Ever smaller pieces, so that nothing is left.
        while size > 0 {
            match file.write(&piece[..size]) {
                Ok(written) => filled += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error).context("could not fill the disk"),
            }
        }
        Ok(filled)
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// The file system.
    pub fn free(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.filler()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("could not free the disk")
            }
            _ => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.pipe.take();
        let _ = self.script.wait();
    }
}
