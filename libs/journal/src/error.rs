//! What can go wrong between an event and the disk.

use std::time::Duration;

use tracklayer_ids::Position;

/// Why an append was not acknowledged. Nothing of it may be assumed durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// More would wait than the appender may hold, or than this workspace may have of that.
    #[error("{waiting_bytes} bytes would wait for the journal: of {limit_bytes} no workspace gets all")]
    Overloaded {
        /// Bytes that would wait, of all workspaces together.
        waiting_bytes: usize,
        /// Bytes allowed to wait.
        limit_bytes: usize,
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The store did not take it. It may or may not be stored: repeat under the same message_id.
    #[error("could not append to the journal: {why}")]
    Unavailable {
        /// The store's words.
        why: String,
    },
    /// The appender is shutting down.
    #[error("the journal's appender has stopped")]
    Stopped,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The database.
    #[error("could not {what}")]
    Database {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// The cluster that keeps the log.
    #[error("could not {what}")]
    Log {
        /// What was attempted.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log is not the one that was read before: truncated, made anew, or with records gone that nobody had read. Reading
    /// goes on in a new generation, where [`crate::Journal::surviving`] says.
    #[error("the log at {position} is not what it was: {why}")]
    Changed {
        /// Where the reader stood.
        position: Position,
        /// What was found.
        why: String,
    },
    /// What stood there was given back: every cursor was past it.
    #[error("what stood at {position} is not kept any more")]
    Trimmed {
        /// Where the reader stood.
        position: Position,
    },
    /// The stored bytes.
    #[error("block at {position} cannot be read")]
    Block {
        /// Its first event.
        position: Position,
        /// Why.
        #[source]
        source: BlockError,
    },
}

/// Why stored bytes are no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The header is not the message that it should be.
    #[error("the header cannot be decoded")]
    Header,
    /// Written by a newer version than this reader understands.
    #[error("the block needs feature level {needed}, this reader has {supported}")]
    FeatureLevel {
        /// The block's.
        needed: u32,
        /// Ours.
        supported: u32,
    },
    /// The payload is not what was written.
    #[error("checksum is {found:08x}, the header says {expected:08x}")]
    Checksum {
        /// Of the payload as read.
        found: u32,
        /// Of the payload as written.
        expected: u32,
    },
    /// Compression unknown or broken.
    #[error("the payload cannot be decompressed")]
    Compression,
    /// Fewer or more events than the header says.
    #[error("the payload holds {found} events, the header says {expected}")]
    Count {
        /// Found.
        found: usize,
        /// Expected.
        expected: usize,
    },
}
