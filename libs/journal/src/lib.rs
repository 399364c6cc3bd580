//! The log: record batches, durable before they are acknowledged, read from a position.
//!
//! Modules in reading order: [`block`] (the stored bytes: a header, then the events), [`journal`] (the trait, and what a place
//! in a log is), [`postgres`] (it over PostgreSQL; over Kafka it is a crate of its own) with `retention` (days that everybody has
//! read) and [`inspect`] (what operators ask), [`appender`] (group commit across concurrent small requests), [`claim`] (the value
//! that dedup keeps in Redis: the position of a first occurrence).
//!
//! Append and read know nothing of what an event means: they take encoded bytes, a partition, a source and a minute. Only
//! [`claim`] reads an event, since ingest's look and delivery's dedup must hash it alike.

pub mod appender;
pub mod block;
pub mod claim;
mod error;
pub mod inspect;
pub mod journal;
pub mod postgres;
mod received;
mod retention;

pub use appender::{Appender, AppenderSettings};
pub use block::{Block, BlockBuilder, BlockHeader, COMMERCE_LEVEL, FEATURE_LEVEL, SourceMinuteCount};
pub use error::{AppendError, BlockError, JournalError};
pub use journal::{EachHeader, Head, Journal, Kind, Most, NewBlock, Place, Record, RecordAt, ResolvedLog};
pub use postgres::PostgresJournal;
pub use received::ReceivedBlock;

/// Migrations of schema `journal`.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// One encoded event on its way into the journal.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Partition of the visitor.
    pub partition: tracklayer_ids::Partition,
    /// Source, for the counts in the header.
    pub source: tracklayer_ids::SourceId,
    /// Minute of receipt since the Unix epoch, for the counts in the header.
    pub minute: i64,
    /// The encoded `event.v1.Event`.
    pub bytes: bytes::Bytes,
}
