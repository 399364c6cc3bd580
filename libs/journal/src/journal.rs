//! The narrow trait that every journal fulfils: append a batch, read from a place.
//!
//! Events are numbered densely per partition, and a [`Position`] names one of them, whatever the journal. How a journal finds
//! an event is its own affair: PostgreSQL by the position itself; Kafka numbers *records*, each of which is a block of many
//! events, so that a reader carries beside the position the [`Record`] that it stands in. Where a reader stands is a [`Place`].
//!
//! A workspace's events are spread over its partitions by a [`Layout`], which belongs to a generation: a block names the generation
//! that it was spread for, and is not stored when another one is open.
//!
//! Only the holder of a partition's resolve lease gives positions their meaning, by the fenced commit that moves the cursor.

use std::fmt::Debug;
use std::sync::Arc;

use tracklayer_ids::{Generation, Offset, Partition, Position, WorkspaceId};

use crate::ReceivedBlock;
use crate::block::{Block, BlockHeader};
use crate::damage::Condition;
use crate::error::{AppendError, JournalError};
use crate::inspect::Behind;

/// A block for a partition.
#[derive(Debug, Clone)]
pub struct NewBlock {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Its partition.
    pub partition: Partition,
    /// Generation of the layout by which its events belong to the partition.
    pub generation: Generation,
    /// The block.
    pub block: Block,
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is durable, and its first event stands there.
    At(Position),
    /// It is durable. Where it stands is said by who reads.
    Somewhere,
    /// It was not stored: the layout of the workspace was changed.
    Stale,
}

/// How a workspace's events are spread, and since which generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The first generation that is spread so.
    pub generation: Generation,
    /// Over so many partitions.
    pub partitions: u32,
}

/// Over how many partitions a workspace's events are to be spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// So many, 1 to 64.
    pub partitions: u32,
    /// Version of the configuration that says so: an older one changes nothing any more.
    pub revision: u64,
}

/// Which journal an installation uses: `postgres` or `kafka` in settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Tables of the installation's own database.
    #[default]
    Postgres,
    /// Topics of a Kafka cluster.
    Kafka,
}

/// Where a reader stands: the next event to read, and where the journal keeps it, if it numbers otherwise than by events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The next event.
    pub at: Position,
    /// The record that holds it. None: the journal needs none, or this is the beginning of the log.
    pub record: Option<Record>,
}

/// A place between the events of a log of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The log's number of the record that holds the next event.
    pub offset: u64,
    /// Events of that record that are behind the reader.
    pub step: u32,
    /// What the last record looked like of which the reader has read something; none: unknown. If the log holds another one
    /// there, its history was changed.
    pub mark: Option<i64>,
}

/// Where a block stands in a log of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordAt {
    /// The log's number of the record.
    pub offset: u64,
    /// What it looks like: a hash of its header, which holds the payload's checksum, and of its time.
    pub mark: i64,
}

/// How much one read may give: whole blocks until one of these is reached, at least one block if there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Events.
    pub events: i64,
    /// Blocks.
    pub blocks: i64,
}

/// Where a partition ends: the next offset that will be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Its partition.
    pub partition: Partition,
    /// Generation that is being written.
    pub generation: Generation,
    /// Next offset of it.
    pub next: Offset,
}

/// Takes headers of blocks in, each with the position of the block's first event.
pub type EachHeader<'a> = dyn FnMut(Position, &BlockHeader) + Send + 'a;

/// The log behind ingest and resolve.
#[async_trait::async_trait]
pub trait Journal: Debug + Send + Sync {
    /// Which one it is.
    fn kind(&self) -> Kind;

    /// Makes what the coming days need. Safe to repeat; appends go on meanwhile.
    ///
    /// # Errors
    /// The store.
    async fn prepare(&self) -> Result<(), JournalError>;

    /// The layout of a workspace, after it was changed to what is asked for, if that is another one and of a newer configuration.
    /// A journal that cannot change it keeps the first one. Safe to repeat.
    ///
    /// # Errors
    /// The store.
    async fn layout(&self, workspace: WorkspaceId, wanted: Spread) -> Result<Layout, AppendError>;

    /// Every layout that a workspace has or had, for all workspaces to which something was appended.
    ///
    /// # Errors
    /// The store.
    async fn layouts(&self) -> Result<Vec<(WorkspaceId, Layout)>, JournalError>;

    /// Appends blocks and answers when all of them are durable that are not stale, in the order given. Not idempotent: after an
    /// error any of the blocks may be stored.
    ///
    /// # Errors
    /// The store.
    async fn append(&self, blocks: &[NewBlock]) -> Result<Vec<Appended>, AppendError>;

    /// Reads whole blocks in order, from the one that holds the event at `from`. What stands before a block that cannot be read
    /// is given without it. Nothing: there is no more at the moment.
    ///
    /// # Errors
    /// The store, a first block that cannot be read, or [`JournalError::Changed`].
    async fn read(
        &self,
        workspace: WorkspaceId,
        from: Place,
        most: Most,
    ) -> Result<Vec<ReceivedBlock>, JournalError>;

    /// Looks at the block in which a place is, to its last byte, whether all of it can be read: at the block alone, whatever stands
    /// before it. Changes nothing.
    ///
    /// # Errors
    /// The store, or [`JournalError::Changed`]; never [`JournalError::Block`].
    async fn look_at(&self, workspace: WorkspaceId, at: Place) -> Result<Condition, JournalError>;

    /// Shows the header of each block from a place to the present end, in order, with the position of the block's first event.
    /// Answers where that end is. Takes one block at a time into memory.
    ///
    /// # Errors
    /// As [`Journal::read`].
    async fn count(
        &self,
        workspace: WorkspaceId,
        from: Place,
        each: &mut EachHeader<'_>,
    ) -> Result<Place, JournalError>;

    /// The heads of all partitions, where one question answers for all; else nothing, and [`Journal::arrival`] tells.
    ///
    /// # Errors
    /// The store.
    async fn heads(&self) -> Result<Vec<Head>, JournalError>;

    /// How far places are behind the present ends of their partitions, in their order. Takes no longer where more waits: nothing
    /// that waits is read. Over PostgreSQL both figures are exact. Over a log of records, which are numbered and hold several
    /// events each, the events are reckoned by the mean of the records before the place (at least one in each), and the age is
    /// at most a second or a sixteenth too small.
    ///
    /// # Errors
    /// The store.
    async fn behind(&self, places: &[(WorkspaceId, Place)]) -> Result<Vec<Behind>, JournalError>;

    /// Ends when there may be something to read from there on. May never end: callers look again after a while by themselves.
    async fn arrival(&self, workspace: WorkspaceId, from: Place);

    /// Where reading goes on after [`JournalError::Changed`], in a new generation: behind the newest of `known` that the log
    /// still holds as it was, else at the log's beginning. `known` are places that were committed, newest first. None: this
    /// journal numbers by events, and opens a generation by itself where its history changes.
    ///
    /// # Errors
    /// The store.
    async fn surviving(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        known: &[Record],
    ) -> Result<Option<Record>, JournalError>;

    /// Which of these positions hold an event for sure: the others may be of events that were lost with an earlier history of the
    /// store. Over PostgreSQL what is not held is lost; over a log of records only its readers know, and tell.
    ///
    /// # Errors
    /// The store.
    async fn holds(&self, workspace: WorkspaceId, positions: &[Position]) -> Result<Vec<bool>, JournalError>;

    /// Gives back the room of what stands before these places, one for each partition: the least of all its cursors. What
    /// shares its room with something that stands behind is kept.
    ///
    /// # Errors
    /// The store. What was not trimmed now is by a later call.
    async fn trim(&self, behind: &[(WorkspaceId, Place)]) -> Result<(), JournalError>;

    /// Bytes that `received` takes of the database's disk; none: it is not in the database.
    ///
    /// # Errors
    /// The store.
    async fn stored_bytes(&self) -> Result<Option<u64>, JournalError>;

    /// The oldest day, as in 2026-01-31, that readers should long be done with and are not. None, too, where days are not ours
    /// to drop.
    ///
    /// # Errors
    /// The store.
    async fn late_day(&self) -> Result<Option<String>, JournalError> {
        Ok(None)
    }

    /// Bytes of [`Journal::stored_bytes`] that somebody has still to read, about: what stands behind the places that were told. None:
    /// it is not known, or not in the database.
    ///
    /// # Errors
    /// The store.
    async fn unread_bytes(&self) -> Result<Option<u64>, JournalError> {
        Ok(None)
    }

    /// Whether whoever asks now is to [tell](Journal::tell_read) up to where everybody has read; for some seconds it is then
    /// nobody else's turn. Never where [`Journal::unread_bytes`] is not known.
    ///
    /// # Errors
    /// The store.
    async fn wants_to_be_told(&self) -> Result<bool, JournalError> {
        Ok(false)
    }

    /// Tells up to where everybody has read, as for [`Journal::trim`]. Nothing is given back for it. Safe to repeat.
    ///
    /// # Errors
    /// The store.
    async fn tell_read(&self, _behind: &[(WorkspaceId, Place)]) -> Result<(), JournalError> {
        Ok(())
    }

    /// What keeps an acknowledged event from outliving a failover, in words for an operator; nothing if it does.
    ///
    /// # Errors
    /// The store.
    async fn weaknesses(&self) -> Result<Vec<String>, JournalError>;

    /// Where resolved blocks are kept, if not in the database beside their index.
    fn resolved(&self) -> Option<Arc<dyn ResolvedLog>>;
}

/// A log of resolved blocks. Only an index in the database says which of its records exist: one that no index names was written
/// by somebody who had lost the lease, and nobody ever reads it.
#[async_trait::async_trait]
pub trait ResolvedLog: Debug + Send + Sync {
    /// Most bytes that a block's header and payload may have together.
    fn max_block_bytes(&self) -> usize;

    /// Appends a block and answers its record's number when it is durable. After an error it may be stored.
    ///
    /// # Errors
    /// The store.
    async fn append(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        block: &Block,
    ) -> Result<u64, AppendError>;

    /// Reads the payload of a block by its record's number.
    ///
    /// # Errors
    /// The store, or there is no block any more.
    async fn read(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        record: u64,
    ) -> Result<Vec<u8>, JournalError>;

    /// Gives back the room of all records before that one.
    ///
    /// # Errors
    /// The store.
    async fn trim(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        record: u64,
    ) -> Result<(), JournalError>;
}

impl Most {
    /// So many events, in as many blocks as it takes.
    #[must_use]
    pub const fn events(events: i64) -> Self {
        Self { events, blocks: MAX_READ_BLOCKS }
    }

    /// So many blocks.
    #[must_use]
    pub const fn blocks(blocks: i64) -> Self {
        Self { events: i64::MAX, blocks }
    }
}

/// Most blocks of one read.
pub(crate) const MAX_READ_BLOCKS: i64 = 256;

impl From<Position> for Place {
    fn from(at: Position) -> Self {
        Self { at, record: None }
    }
}

impl Place {
    /// The place behind the first `events` events that a read from here has given.
    #[must_use]
    pub fn after(self, blocks: &[ReceivedBlock], events: u64) -> Self {
        let at = Position { offset: Offset(self.at.offset.0 + events), ..self.at };
        let mut record = self.record;
        for block in blocks.iter().take_while(|block| block.first.offset < at.offset) {
            let Some(here) = block.record else { continue };
            record = Some(if block.end() <= at.offset {
                Record { offset: here.offset + 1, step: 0, mark: Some(here.mark) }
            } else {
                let step = u32::try_from(at.offset.0 - block.first.offset.0).unwrap_or(u32::MAX);
                Record { offset: here.offset, step, mark: Some(here.mark) }
            });
        }
        Self { at, record }
    }
}

impl Record {
    /// The record that the mark belongs to; none: the reader has read nothing yet.
    #[must_use]
    pub fn marked(&self) -> Option<RecordAt> {
        let offset = if self.step > 0 { Some(self.offset) } else { self.offset.checked_sub(1) };
        Some(RecordAt { offset: offset?, mark: self.mark? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockBuilder;
    use tracklayer_ids::SourceId;

    fn block(first: u64, events: usize, record: u64) -> ReceivedBlock {
        let mut builder = BlockBuilder::default();
        (0..events).for_each(|_| builder.push(SourceId(1), 1, b"event"));
        let block = builder.finish().unwrap();
        ReceivedBlock {
            first: Position::new(1, 0, first),
            header: block.header,
            payload: block.payload,
            record: Some(RecordAt { offset: record, mark: record.cast_signed() * 100 }),
        }
    }

    #[test]
    fn a_place_moves_over_whole_records_and_into_the_middle_of_one() {
        let blocks = [block(8, 4, 20), block(12, 3, 21), block(15, 5, 22)];
        let from = Place {
            at: Position::new(1, 0, 10),
            record: Some(Record { offset: 20, step: 2, mark: Some(2_000) }),
        };
        let after = |events| {
            let place = from.after(&blocks, events);
            let record = place.record.unwrap();
            (place.at.offset.0, record.offset, record.step, record.mark.unwrap())
        };
        assert_eq!(after(1), (11, 20, 3, 2_000));
        assert_eq!(after(2), (12, 21, 0, 2_000));
        assert_eq!(after(4), (14, 21, 2, 2_100));
        assert_eq!(after(5), (15, 22, 0, 2_100));
        assert_eq!(after(10), (20, 23, 0, 2_200));
    }

    #[test]
    fn the_mark_is_of_the_record_before_or_of_the_one_that_the_reader_stands_in() {
        let marked = |offset, step| Record { offset, step, mark: Some(7) }.marked().map(|at| at.offset);
        assert_eq!(marked(5, 0), Some(4));
        assert_eq!(marked(5, 1), Some(5));
        assert_eq!(marked(0, 0), None);
    }
}
