//! The log: record batches, durable before they are acknowledged, read from a position.
//!
//! Modules in reading order: [`block`] (the stored bytes: a header, then the events), [`journal`] (the trait, and what a place
//! in a log is), `damage` (a block that cannot be read), [`postgres`] (it over PostgreSQL; over Kafka it is a crate of its own)
//! with `retention` (days that everybody has read), `unread` (how much is still to be read) and [`inspect`] (what operators ask), `layout` (how many partitions, and what a
//! log has lost), [`appender`] (group commit across concurrent small requests) with `spread` (which partition, also while their
//! number changes) and `waiting` (how much may wait for it, [`share`]d by the workspaces), [`claim`] (the value that dedup keeps in
//! Redis: the position of a first occurrence).
//!
//! Append and read know nothing of what an event means: they take encoded bytes, a partition key, a source and a minute. Only
//! [`claim`] reads an event, since ingest's look and delivery's dedup must hash it alike.

pub mod appender;
mod aside;
pub mod block;
pub mod claim;
mod damage;
mod error;
mod headroom;
pub mod inspect;
pub mod journal;
mod layout;
pub mod postgres;
mod pressure;
mod received;
mod retention;
pub mod share;
mod spread;
mod turns;
mod unread;
mod waiting;

pub use appender::{Appender, AppenderSettings};
pub use block::{Block, BlockBuilder, BlockHeader, COMMERCE_LEVEL, FEATURE_LEVEL, SourceMinuteCount};
pub use damage::{Condition, Damage};
pub use error::{AppendError, BlockError, JournalError};
pub use headroom::{Headroom, not_aside};
pub use journal::{
    Appended, EachHeader, Head, Journal, Kind, Layout, Most, NewBlock, Place, Record, RecordAt, ResolvedLog,
    Spread,
};
pub use layout::LayoutStore;
pub use postgres::PostgresJournal;
pub use received::ReceivedBlock;

/// Migrations of schema `journal`.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// One encoded event on its way into the journal.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What decides its partition.
    pub key: tracklayer_ids::PartitionKey,
    /// Source, for the counts in the header.
    pub source: tracklayer_ids::SourceId,
    /// Minute of receipt since the Unix epoch, for the counts in the header.
    pub minute: i64,
    /// The encoded `event.v1.Event`.
    pub bytes: bytes::Bytes,
}

impl Draft {
    /// Bytes that it takes while it waits, and of a block before compression.
    pub(crate) fn stored_bytes(&self) -> usize {
        self.bytes.len() + 8
    }
}
