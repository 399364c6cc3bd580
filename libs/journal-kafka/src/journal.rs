//! The trait over Kafka.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as LogOffset, TopicPartitionList};
use tracklayer_ids::{Offset, Partition, Position, WorkspaceId};
use tracklayer_journal::inspect::Behind;
use tracklayer_journal::{
    AppendError, Appended, BlockError, Condition, EachHeader, Head, Journal, JournalError, Kind, Layout,
    LayoutStore, Most, NewBlock, Place, ReceivedBlock, Record, RecordAt, ResolvedLog, Spread,
};

use crate::door::Door;
use crate::producer::{Outgoing, Producer, topic_is_gone};
use crate::reader::{Held, Raw, Readers};
use crate::record::{decode, encode};
use crate::resolved::KafkaResolved;
use crate::settings::KafkaSettings;
use crate::topics::{Stage, Topics, patient};
use crate::{KafkaFailure, MAX_RECORD_BYTES};

/// Most stored bytes of one read, unless a single block is larger.
const MAX_READ_BYTES: usize = 8 * 1024 * 1024;
/// Pause of whoever waits for a record while the cluster is away.
const AWAY: Duration = Duration::from_millis(500);

/// The journal of an installation that uses Kafka. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KafkaJournal {
    pub(crate) settings: KafkaSettings,
    pub(crate) topics: Topics,
    producer: Producer,
    readers: Readers,
    layouts: LayoutStore,
}

impl KafkaJournal {
    /// Over a cluster, with layouts in PostgreSQL. It is not connected to yet.
    ///
    /// # Errors
    /// The client library does not take the settings.
    pub fn new(settings: KafkaSettings, layouts: LayoutStore) -> Result<Self, KafkaFailure> {
        let door = Door::default();
        Ok(Self {
            layouts,
            topics: Topics::new(&settings, &door)?,
            producer: Producer::new(&settings, &door)?,
            readers: Readers::new(&settings, &door),
            settings,
        })
    }

    /// Sends blocks to a topic each; the offset of each record.
    pub(crate) async fn produce(
        &self,
        stage: Stage,
        blocks: impl Iterator<Item = (WorkspaceId, Partition, Vec<u8>)>,
    ) -> Result<Vec<u64>, KafkaFailure> {
        let mut records = Vec::new();
        for (workspace, partition, bytes) in blocks {
            let topic = self.topics.name(workspace, stage);
            self.topics.ensure(&topic, partition).await?;
            records.push(Outgoing { topic, partition: partition.0.cast_signed(), bytes });
        }
        let sent = self.producer.send(&records).await;
        if let Err(error) = &sent {
            // The topic may be the reason: whoever comes next looks whether it is there.
            records.iter().for_each(|record| self.topics.forget(&record.topic));
            if topic_is_gone(error) {
                // A client that has seen a topic go does not believe that it is there again.
                self.producer.begin_anew();
            }
        }
        sent
    }

    /// A reader of a topic that stands at a record, without a look at what is there.
    pub(crate) async fn at_record(
        &self,
        workspace: WorkspaceId,
        stage: Stage,
        partition: Partition,
        offset: u64,
    ) -> Result<Held, KafkaFailure> {
        let topic = self.topics.name(workspace, stage);
        self.topics.ensure(&topic, partition).await?;
        let partition = partition.0.cast_signed();
        match self.readers.waiting_at(&topic, partition, offset) {
            Some(held) => Ok(held),
            None => self.readers.open(&topic, partition, offset),
        }
    }

    /// Gives back the room of all records of a partition before one. The log itself may end before it, or begin behind it.
    pub(crate) async fn delete_before(
        &self,
        workspace: WorkspaceId,
        stage: Stage,
        behind: &[(Partition, u64)],
    ) -> Result<(), KafkaFailure> {
        let topic = self.topics.name(workspace, stage);
        let mut list = TopicPartitionList::new();
        for (partition, offset) in behind.iter().filter(|(_, offset)| *offset > 0) {
            let offset = LogOffset::Offset(offset.cast_signed());
            list.add_partition_offset(&topic, partition.0.cast_signed(), offset)?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        let deleted = self.topics.admin().delete_records(&list, &patient()).await?;
        for element in deleted.elements() {
            match element.error().err().and_then(|error| error.rdkafka_error_code()) {
                None | Some(RDKafkaErrorCode::OffsetOutOfRange) => {}
                Some(code) => return Err(code.into()),
            }
        }
        Ok(())
    }

    /// A reader that stands at a place, after a look whether the log is still the one that was read before.
    async fn at_place(&self, workspace: WorkspaceId, from: Place) -> Result<Held, JournalError> {
        let partition = from.at.partition;
        let topic = self.topics.name(workspace, Stage::Received);
        let failed = failing(topic.clone(), partition);
        let number = partition.0.cast_signed();
        let start = from.record.map_or(0, |record| record.offset);
        if let Some(held) = self.readers.waiting_at(&topic, number, start) {
            return Ok(held);
        }
        self.topics.ensure(&topic, partition).await.map_err(&failed)?;
        let changed =
            |why: String| JournalError::Changed { position: from.at, why: format!("{topic}/{number} {why}") };
        // Asked before a reader is made, which costs threads and connections: what was trimmed is looked for often.
        let (low, high) = self.topics.bounds(&topic, number).await.map_err(&failed)?;
        if start > high {
            return Err(changed(format!("ends at record {high}, and record {start} is next")));
        }
        if start < low {
            return Err(changed(format!("begins at record {low}, and record {start} is next")));
        }
        let Some(marked) = from.record.and_then(|record| record.marked()).filter(|at| at.offset >= low)
        else {
            return self.readers.open(&topic, number, start).map_err(&failed);
        };
        if marked.offset >= high {
            return Err(changed(format!("ends at record {high}, of which something was read")));
        }
        let mut held = self.readers.open(&topic, number, marked.offset).map_err(&failed)?;
        let raw = held.exactly(marked.offset).await.map_err(&failed)?;
        if raw.mark != marked.mark {
            return Err(changed(format!(
                "holds another record {} than the one that was read",
                marked.offset
            )));
        }
        if marked.offset == start {
            held.put_back(raw);
        }
        Ok(held)
    }

    /// Whether a record still looks as it did.
    async fn still_is(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        at: RecordAt,
    ) -> Result<bool, KafkaFailure> {
        let mut held = self.at_record(workspace, Stage::Received, partition, at.offset).await?;
        Ok(held.exactly(at.offset).await?.mark == at.mark)
    }
}

/// Names what was attempted.
pub(crate) fn failing(topic: String, partition: Partition) -> impl Fn(KafkaFailure) -> JournalError {
    move |source| JournalError::Log {
        what: format!("read {topic}/{}", partition.0),
        source: Box::new(source),
    }
}

fn block_of(raw: &Raw, first: Position) -> Result<ReceivedBlock, JournalError> {
    let (header, payload) =
        decode(&raw.bytes).map_err(|source| JournalError::Block { position: first, source })?;
    if header.event_count == 0 {
        // Nobody writes one, and nobody could stand behind it.
        return Err(JournalError::Block { position: first, source: BlockError::Header });
    }
    let payload = payload.to_vec();
    Ok(ReceivedBlock {
        first,
        header,
        payload,
        record: Some(RecordAt { offset: raw.offset, mark: raw.mark }),
    })
}

/// Where the first event of the record stands that a place is in.
fn first_of_record(from: Place) -> Position {
    let step = from.record.map_or(0, |record| u64::from(record.step));
    Position { offset: Offset(from.at.offset.0.saturating_sub(step)), ..from.at }
}

#[async_trait::async_trait]
impl Journal for KafkaJournal {
    fn kind(&self) -> Kind {
        Kind::Kafka
    }

    async fn prepare(&self) -> Result<(), JournalError> {
        // A topic is made before the first record of its workspace.
        Ok(())
    }

    async fn layout(&self, workspace: WorkspaceId, wanted: Spread) -> Result<Layout, AppendError> {
        let kept = self.layouts.keep(workspace, wanted).await;
        let layout = kept.map_err(|error| AppendError::Unavailable { why: error.to_string() })?;
        if layout.partitions != wanted.partitions {
            // No broker can refuse a record because its sender has not heard of a change.
            tracing::warn!(
                workspace = workspace.0,
                partitions = layout.partitions,
                wanted = wanted.partitions,
                "the number of a workspace's partitions cannot be changed over kafka; it stays what it was"
            );
        }
        Ok(layout)
    }

    async fn layouts(&self) -> Result<Vec<(WorkspaceId, Layout)>, JournalError> {
        self.layouts.all().await
    }

    async fn append(&self, blocks: &[NewBlock]) -> Result<Vec<Appended>, AppendError> {
        let unavailable = |why: String| AppendError::Unavailable { why };
        let largest = blocks.iter().map(|new| new.block.stored_bytes()).max().unwrap_or(0);
        if largest > MAX_RECORD_BYTES - 1024 {
            return Err(unavailable(format!("a block of {largest} bytes is too large")));
        }
        let records = blocks.iter().map(|new| (new.workspace, new.partition, encode(&new.block)));
        self.produce(Stage::Received, records).await.map_err(|error| unavailable(error.to_string()))?;
        Ok(vec![Appended::Somewhere; blocks.len()])
    }

    async fn read(
        &self,
        workspace: WorkspaceId,
        from: Place,
        most: Most,
    ) -> Result<Vec<ReceivedBlock>, JournalError> {
        let failed = failing(self.topics.name(workspace, Stage::Received), from.at.partition);
        let mut held = self.at_place(workspace, from).await?;
        let mut first = first_of_record(from);
        let mut next = from.record.map_or(0, |record| record.offset);
        let mut blocks: Vec<ReceivedBlock> = Vec::new();
        let (mut events, mut bytes) = (0i64, 0);
        let mut looked_again = false;
        loop {
            let raw = match held.take(next).await {
                Ok(Some(raw)) => raw,
                Ok(None) => break,
                // What came before it is good; the next read meets the error again.
                Err(_) if !blocks.is_empty() => break,
                // Trimmed under its reader: whoever looks anew where the log begins can say so.
                Err(error) if error.is_out_of_range() && !looked_again => {
                    looked_again = true;
                    held = self.at_place(workspace, from).await?;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let block = match block_of(&raw, first) {
                Ok(block) => block,
                // Who comes for it finds it where it is.
                Err(error) => {
                    held.put_back(raw);
                    if blocks.is_empty() {
                        return Err(error);
                    }
                    break;
                }
            };
            events += i64::from(block.header.event_count);
            bytes += block.payload.len();
            if !blocks.is_empty() && (events > most.events || bytes > MAX_READ_BYTES) {
                held.put_back(raw);
                break;
            }
            first.offset = block.end();
            next += 1;
            blocks.push(block);
            if i64::try_from(blocks.len()).is_ok_and(|blocks| blocks >= most.blocks) {
                break;
            }
        }
        Ok(blocks)
    }

    async fn look_at(&self, workspace: WorkspaceId, at: Place) -> Result<Condition, JournalError> {
        let failed = failing(self.topics.name(workspace, Stage::Received), at.at.partition);
        let mut held = self.at_place(workspace, at).await?;
        let (_, end) = held.bounds().await.map_err(&failed)?;
        let (number, step) = at.record.map_or((0, 0), |record| (record.offset, record.step));
        if number >= end {
            return Ok(Condition::Absent);
        }
        let raw = held.exactly(number).await.map_err(&failed)?;
        let record = Some(RecordAt { offset: raw.offset, mark: raw.mark });
        let (header, payload) = match decode(&raw.bytes) {
            Ok((header, payload)) => (Ok(header), payload),
            Err(why) => (Err(why), <&[u8]>::default()),
        };
        let mut condition = Condition::of(first_of_record(at), None, header, payload, record);
        if let Condition::Damaged(damage) = &mut condition {
            // Whoever has read a part of it stands inside of it.
            damage.events = damage.events.max(step.saturating_add(1));
        }
        // Who comes for it finds it where it is.
        held.put_back(raw);
        Ok(condition)
    }

    async fn count(
        &self,
        workspace: WorkspaceId,
        from: Place,
        each: &mut EachHeader<'_>,
    ) -> Result<Place, JournalError> {
        let failed = failing(self.topics.name(workspace, Stage::Received), from.at.partition);
        let mut held = self.at_place(workspace, from).await?;
        let (_, end) = held.bounds().await.map_err(&failed)?;
        let mut place = from;
        let start = from.record.map_or(0, |record| record.offset);
        for record in start..end {
            let raw = held.exactly(record).await.map_err(&failed)?;
            let block = block_of(&raw, first_of_record(place))?;
            each(block.first, &block.header);
            let events = block.end().0 - place.at.offset.0;
            place = place.after(&[block], events);
        }
        Ok(place)
    }

    async fn heads(&self) -> Result<Vec<Head>, JournalError> {
        Ok(Vec::new())
    }

    async fn arrival(&self, workspace: WorkspaceId, from: Place) {
        let arrived = match self.at_place(workspace, from).await {
            Ok(mut held) => held.arrival().await.is_ok(),
            // The next read tells.
            Err(JournalError::Changed { .. }) => true,
            Err(_) => false,
        };
        if !arrived {
            tokio::time::sleep(AWAY).await;
        }
    }

    async fn behind(&self, places: &[(WorkspaceId, Place)]) -> Result<Vec<Behind>, JournalError> {
        self.behind_ends(places).await.map_err(|source| JournalError::Log {
            what: "see how far somebody is behind".to_owned(),
            source: Box::new(source),
        })
    }

    async fn surviving(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        known: &[Record],
    ) -> Result<Option<Record>, JournalError> {
        let failed = failing(self.topics.name(workspace, Stage::Received), partition);
        let (low, high) = {
            let mut held = self.at_record(workspace, Stage::Received, partition, 0).await.map_err(&failed)?;
            // Only to ask: what stands at the beginning may be trimmed.
            held.give_up();
            held.bounds().await.map_err(&failed)?
        };
        for record in known {
            let Some(marked) = record.marked().filter(|at| (low..high).contains(&at.offset)) else {
                continue;
            };
            if self.still_is(workspace, partition, marked).await.map_err(&failed)? {
                return Ok(Some(*record));
            }
        }
        Ok(Some(Record { offset: low, step: 0, mark: None }))
    }

    async fn holds(&self, workspace: WorkspaceId, positions: &[Position]) -> Result<Vec<bool>, JournalError> {
        self.layouts.not_lost(workspace, positions).await
    }

    async fn trim(&self, behind: &[(WorkspaceId, Place)]) -> Result<(), JournalError> {
        for (workspace, place) in behind {
            // The record before the place stays: by it the next reader knows the log again.
            let Some(kept) = place.record.and_then(|record| record.marked()) else { continue };
            let partition = place.at.partition;
            let deleted = self.delete_before(*workspace, Stage::Received, &[(partition, kept.offset)]).await;
            deleted.map_err(|source| JournalError::Log {
                what: format!("trim {}/{}", self.topics.name(*workspace, Stage::Received), partition.0),
                source: Box::new(source),
            })?;
        }
        Ok(())
    }

    async fn stored_bytes(&self) -> Result<Option<u64>, JournalError> {
        // The brokers' disks are theirs to watch.
        Ok(None)
    }

    async fn weaknesses(&self) -> Result<Vec<String>, JournalError> {
        self.durability_weaknesses().await.map_err(|source| JournalError::Log {
            what: "look how durable the topics are".to_owned(),
            source: Box::new(source),
        })
    }

    fn resolved(&self) -> Option<Arc<dyn ResolvedLog>> {
        Some(Arc::new(KafkaResolved::new(self.clone())))
    }
}
