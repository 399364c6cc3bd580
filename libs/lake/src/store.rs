//! Puts a file into its place in one piece, and tells what became of it in the words of HTTP, so that what it means is read by
//! `Destination::classify`, where it can be tested without any store.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::GetResult;
use tracklayer_destination::{Answer, Place};

use crate::bucket::BucketStore;
use crate::folder::FolderStore;

/// What the operator of the installation allows.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Below this folder files may be written; none: nowhere on this machine.
    pub root: Option<PathBuf>,
    /// Whether a bucket may be at a private address.
    pub allow_private: bool,
}

/// A place that may not be written to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What became of a file that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nothing of it was written.
    #[error("{0}")]
    NotWritten(String),
    /// It may be there.
    #[error("{0}")]
    Unknown(String),
}

/// A place, ready to write to.
#[derive(Debug)]
pub enum Store {
    /// A folder.
    Folder(FolderStore),
    /// A bucket.
    Bucket(BucketStore),
}

impl Store {
    /// Looks whether the place may be written to. Writes nothing.
    ///
    /// # Errors
    /// It may not, with what to do.
    pub async fn open(place: &Place, rules: &Rules) -> Result<Self, Refused> {
        match place {
            Place::Folder { path } => {
                FolderStore::open(path.clone(), rules.root.clone()).await.map(Self::Folder)
            }
            Place::Bucket(bucket) => BucketStore::open(bucket, rules.allow_private).map(Self::Bucket),
        }
    }

    /// Writes a file under `folder/name`, or replaces it. It is there whole or as it was before. After `timeout` nobody waits for it
    /// any more.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn write(
        &self,
        folder: &str,
        name: &str,
        content: Bytes,
        timeout: Duration,
    ) -> Result<Answer, WriteError> {
        let written = async {
            match self {
                Self::Folder(store) => store.write(folder, name, content).await,
                Self::Bucket(store) => store.write(folder, name, content).await,
            }
        };
        let late =
            || WriteError::Unknown(format!("the file was not written within {} seconds", timeout.as_secs()));
        tokio::time::timeout(timeout, written).await.unwrap_or_else(|_| Err(late()))
    }

    /// Reads a file again, no more of it than `most` bytes and one, which stand in the body of a good answer. No lane reads: it is for
    /// whoever tries a place.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn read(
        &self,
        folder: &str,
        name: &str,
        most: usize,
        timeout: Duration,
    ) -> Result<Answer, WriteError> {
        let read = async {
            match self {
                Self::Folder(store) => store.read(folder, name, most).await,
                Self::Bucket(store) => store.read(folder, name, most).await,
            }
        };
        let late =
            || WriteError::Unknown(format!("the file was not read within {} seconds", timeout.as_secs()));
        tokio::time::timeout(timeout, read).await.unwrap_or_else(|_| Err(late()))
    }

    /// Removes a file. No lane removes any: it is for whoever tries a place.
    ///
    /// # Errors
    /// There is no answer: it may be there still.
    pub async fn remove(&self, folder: &str, name: &str, timeout: Duration) -> Result<Answer, WriteError> {
        let removed = async {
            match self {
                Self::Folder(store) => store.remove(folder, name).await,
                Self::Bucket(store) => store.remove(folder, name).await,
            }
        };
        let late =
            || WriteError::Unknown(format!("the file was not removed within {} seconds", timeout.as_secs()));
        tokio::time::timeout(timeout, removed).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The beginning of a file, no more than `most` bytes and one: a server may answer without an end.
pub(crate) async fn beginning(found: GetResult, most: usize) -> object_store::Result<Vec<u8>> {
    let mut stream = found.into_stream();
    let mut read = Vec::new();
    while read.len() <= most
        && let Some(part) = stream.next().await
    {
        let part = part?;
        read.extend_from_slice(&part[..part.len().min(most + 1 - read.len())]);
    }
    Ok(read)
}
