//! Files in a folder of this machine. A file is made under another name beside the folders that readers look at, flushed to the disk
//! with its entry, and only then moved to its own name, so that nobody ever sees half of it, whatever is switched off meanwhile.

use std::io::ErrorKind;
use std::path::{Path as FsPath, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectStore as _, ObjectStoreExt as _, PutOptions, PutPayload, RenameOptions,
};
use tracklayer_destination::Answer;

use crate::store::{Refused, WriteError, beginning};

/// Where files are until they are whole. Readers of partitioned folders leave out what begins with `_`.
const INCOMPLETE: &str = "_incomplete";
/// How long looking at the folder may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A folder.
#[derive(Debug)]
pub struct FolderStore {
    path: PathBuf,
    files: LocalFileSystem,
}

impl FolderStore {
    /// A file system that is away may not answer for long: nobody but a thread for such waits is kept waiting.
    pub(crate) async fn open(path: PathBuf, root: Option<PathBuf>) -> Result<Self, Refused> {
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&path, root.as_deref()));
        let opened = tokio::time::timeout(OPEN_TIMEOUT, opened).await;
        let late = |_| Refused("the folder's file system does not answer: look at its mount".to_owned());
        opened
            .map_err(late)?
            .unwrap_or_else(|error| Err(Refused(format!("the folder cannot be used: {error}"))))
    }

    fn open_now(path: &FsPath, root: Option<&FsPath>) -> Result<Self, Refused> {
        let Some(root) = root else {
            let why = "files on this machine are not allowed: the operator of the installation sets delivery's `warehouse_root`, or \
                       the connection writes to s3://";
            return Err(Refused(why.to_owned()));
        };
        let real_root = root.canonicalize().map_err(|error| {
            Refused(format!("delivery's `warehouse_root` cannot be used: {error}: mount or make it"))
        })?;
        if !path.starts_with(root) && !path.starts_with(&real_root) {
            return Err(Refused(
                "the folder is not below delivery's `warehouse_root`: choose one that is".to_owned(),
            ));
        }
        // Before anything is made: a link on the way may lead out. One that leads nowhere is there as well.
        let there = path.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(path);
        real_path(there, &real_root)?;
        std::fs::create_dir_all(path).map_err(|error| cannot_be_made(&error))?;
        let path = real_path(path, &real_root)?;
        let files = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| Refused(format!("the folder cannot be used: {error}")))?;
        Ok(Self { path, files: files.with_fsync(true) })
    }

    pub(crate) async fn write(&self, folder: &str, name: &str, content: Bytes) -> Result<Answer, WriteError> {
        let incomplete = place(format!("{INCOMPLETE}/{name}.part"))?;
        let whole = place(format!("{folder}/{name}"))?;
        let mut written = self
            .files
            .put_opts(&incomplete, PutPayload::from_bytes(content), PutOptions::default())
            .await
            .map(drop);
        if written.is_ok() {
            written = self.files.rename_opts(&incomplete, &whole, RenameOptions::default()).await;
        }
        self.forget_leftovers(name).await;
        match written {
            Ok(()) => Ok(Answer::new(200, "")),
            Err(error) => answer_of(&error),
        }
    }

    pub(crate) async fn read(&self, folder: &str, name: &str, most: usize) -> Result<Answer, WriteError> {
        let path = place(format!("{folder}/{name}"))?;
        let read = async {
            let found = self.files.get_opts(&path, GetOptions::default()).await?;
            beginning(found, most).await
        };
        match read.await {
            Ok(content) => Ok(Answer::new(200, content)),
            Err(error) => answer_of(&error),
        }
    }

    pub(crate) async fn remove(&self, folder: &str, name: &str) -> Result<Answer, WriteError> {
        let path = place(format!("{folder}/{name}"))?;
        match self.files.delete(&path).await {
            Ok(()) => Ok(Answer::new(200, "")),
            Err(error) => answer_of(&error),
        }
    }

    /// What a crash has left of the same file. Somebody may be writing it at this moment, whose lease has run out: that fails, and
    /// changes nothing.
    async fn forget_leftovers(&self, name: &str) {
        let folder = self.path.join(INCOMPLETE);
        let begins = format!("{name}.part#");
        let forget = move || {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let left = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&begins));
            left.for_each(|entry| drop(std::fs::remove_file(entry.path())));
        };
        // It is swept up at the next crash otherwise.
        drop(tokio::task::spawn_blocking(forget).await);
    }
}

fn place(path: String) -> Result<Path, WriteError> {
    Path::parse(path).map_err(|error| WriteError::NotWritten(error.to_string()))
}

/// Where the folder is in fact; refused if that is not below the root.
fn real_path(path: &FsPath, real_root: &FsPath) -> Result<PathBuf, Refused> {
    let real = path.canonicalize().map_err(|error| cannot_be_made(&error))?;
    if !real.starts_with(real_root) {
        return Err(Refused("the folder leads out of delivery's `warehouse_root` by a link".to_owned()));
    }
    Ok(real)
}

fn cannot_be_made(error: &std::io::Error) -> Refused {
    let why = "let delivery's user write below `warehouse_root`";
    Refused(format!("the folder cannot be made: {error}: {why}"))
}

/// An error of the operating system as a status.
fn answer_of(error: &Error) -> Result<Answer, WriteError> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let status = match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => 403,
                ErrorKind::NotFound | ErrorKind::NotADirectory => 404,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => 507,
                _ => 500,
            };
            return Ok(Answer::new(status, format!("<Code>{:?}</Code>", error.kind())));
        }
        source = error.source();
    }
    Err(WriteError::Unknown("the folder could not be written to".to_owned()))
}
