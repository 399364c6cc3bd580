//! Consumers that stand somewhere in a partition. A reader who goes on where the last read ended finds the consumer that has
//! fetched ahead meanwhile; anybody else gets one of their own. What is not used for a while is closed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::KafkaFailure;
use crate::client::{PATIENCE, Quiet, config};
use crate::door::Door;
use crate::record::mark;
use crate::settings::KafkaSettings;

/// Most consumers that wait for somebody to go on. Each has some threads and up to [`PREFETCH_KILOBYTES`].
const MAX_IDLE: usize = 64;
/// How long one waits.
const IDLE: Duration = Duration::from_secs(60);
/// What a consumer fetches ahead. A single record may be larger.
const PREFETCH_KILOBYTES: u32 = 2_048;
/// How often whoever waits looks whether the topic is still the same.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Records that are rather read over than a consumer made.
const SHORT_WAY: u64 = 16;

/// A record as it came.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) offset: u64,
    pub(crate) mark: i64,
    pub(crate) bytes: Vec<u8>,
}

/// A consumer and where it stands.
struct Reader {
    consumer: StreamConsumer<Quiet>,
    topic: String,
    partition: i32,
    next: u64,
    /// Came while somebody waited for it.
    peeked: Option<Raw>,
    /// Whether the broker has answered since it was opened.
    answered: bool,
    used: Instant,
}

/// All consumers of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Readers {
    settings: KafkaSettings,
    door: Door,
    idle: Arc<Mutex<Vec<Reader>>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

/// A reader in somebody's hands; given back when they let it go, unless it has failed.
pub(crate) struct Held {
    reader: Option<Reader>,
    readers: Readers,
    failed: bool,
}

impl Readers {
    pub(crate) fn new(settings: &KafkaSettings, door: &Door) -> Self {
        Self { settings: settings.clone(), door: door.clone(), idle: Arc::default() }
    }

    /// A reader that stands at a record or a few before it; none: nobody does.
    pub(crate) fn waiting_at(&self, topic: &str, partition: i32, offset: u64) -> Option<Held> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let near = |reader: &Reader| {
            reader.topic == topic
                && reader.partition == partition
                && reader.position() <= offset
                && offset - reader.position() <= SHORT_WAY
        };
        let found = idle.iter().enumerate().filter(|(_, reader)| near(reader));
        let (index, _) = found.max_by_key(|(_, reader)| reader.position())?;
        let reader = idle.swap_remove(index);
        Some(Held { reader: Some(reader), readers: self.clone(), failed: false })
    }

    /// A new one that stands there.
    pub(crate) fn open(&self, topic: &str, partition: i32, offset: u64) -> Result<Held, KafkaFailure> {
        let mut config = config(&self.settings);
        config
            // The library wants the name of a group; none is joined, and nothing is committed to it.
            .set("group.id", format!("{}.readers", self.settings.prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Where the log does not hold the record, that is an error and no reason to read another one.
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            // Only so does the library say that a topic was made anew under its reader.
            .set("debug", "metadata")
            .set_log_level(RDKafkaLogLevel::Debug)
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.queue.backoff.ms", "20")
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", PREFETCH_KILOBYTES.to_string());
        let consumer = StreamConsumer::from_config_and_context(&config, Quiet::before(&self.door))?;
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(topic, partition, Offset::Offset(offset.cast_signed()))?;
        consumer.assign(&at)?;
        let reader = Reader {
            consumer,
            topic: topic.to_owned(),
            partition,
            next: offset,
            peeked: None,
            answered: false,
            used: Instant::now(),
        };
        Ok(Held { reader: Some(reader), readers: self.clone(), failed: false })
    }

    fn give_back(&self, mut reader: Reader) {
        reader.used = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(reader);
        let mut closed: Vec<Reader> = Vec::new();
        let mut index = 0;
        while index < idle.len() {
            if idle[index].used.elapsed() > IDLE {
                closed.push(idle.swap_remove(index));
            } else {
                index += 1;
            }
        }
        if idle.len() > MAX_IDLE {
            let oldest =
                idle.iter().enumerate().min_by_key(|(_, reader)| reader.used).map(|(index, _)| index);
            closed.extend(oldest.map(|index| idle.swap_remove(index)));
        }
        drop(idle);
        closed.into_iter().for_each(close);
    }
}

impl Reader {
    /// The first record that it can still give.
    fn position(&self) -> u64 {
        self.peeked.as_ref().map_or(self.next, |raw| raw.offset)
    }
}

/// Closing waits for the library's threads: elsewhere, so that nobody else waits.
fn close(reader: Reader) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(reader))),
        Err(_) => drop(reader),
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        if self.failed { close(reader) } else { self.readers.give_back(reader) }
    }
}

impl Held {
    /// The next record from `offset` on, if one is there. A new reader waits for the broker's first answer, any other takes
    /// what has come: what is on its way yet is for a later look.
    pub(crate) async fn take(&mut self, offset: u64) -> Result<Option<Raw>, KafkaFailure> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let Some(reader) = self.reader.as_mut() else { return Ok(None) };
            if let Some(raw) = reader.peeked.take() {
                if raw.offset >= offset {
                    return Ok(Some(raw));
                }
                continue;
            }
            let came = if reader.answered {
                match reader.consumer.recv().now_or_never() {
                    Some(came) => came,
                    None => return self.same_topic().map(|()| None),
                }
            } else {
                let first = tokio::time::timeout_at(until, reader.consumer.recv());
                match first.await {
                    Ok(came) => came,
                    Err(_) => {
                        self.failed = true;
                        return Err(self.readers.door.explain(KafkaFailure::Silent(PATIENCE)));
                    }
                }
            };
            let came = match came {
                Ok(message) => Ok(raw(&message)),
                Err(error) => Err(error),
            };
            if let Some(raw) = self.came(came)?
                && raw.offset >= offset
            {
                return Ok(Some(raw));
            }
        }
    }

    /// Waits until there is a record, and keeps it for [`Held::take`]. Can be given up at any time.
    pub(crate) async fn arrival(&mut self) -> Result<(), KafkaFailure> {
        loop {
            let Some(reader) = self.reader.as_mut() else { return Ok(()) };
            if reader.peeked.is_some() {
                return Ok(());
            }
            let came = match tokio::time::timeout(LOOK_EVERY, reader.consumer.recv()).await {
                Ok(Ok(message)) => Ok(raw(&message)),
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    self.same_topic()?;
                    continue;
                }
            };
            if let Some(raw) = self.came(came)? {
                if let Some(reader) = self.reader.as_mut() {
                    reader.peeked = Some(raw);
                }
                return Ok(());
            }
        }
    }

    /// The record `offset`, waiting for it: it is known to be there.
    pub(crate) async fn exactly(&mut self, offset: u64) -> Result<Raw, KafkaFailure> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(raw) = self.take(offset).await? {
                if raw.offset == offset {
                    return Ok(raw);
                }
                self.failed = true;
                return Err(KafkaFailure::Gap { before: offset, found: raw.offset });
            }
            match tokio::time::timeout_at(until, self.arrival()).await {
                Ok(arrived) => arrived?,
                Err(_) => {
                    self.failed = true;
                    return Err(self.readers.door.explain(KafkaFailure::Silent(PATIENCE)));
                }
            }
        }
    }

    /// Nobody is to go on with it.
    pub(crate) fn give_up(&mut self) {
        self.failed = true;
    }

    /// Puts a record back that was taken last.
    pub(crate) fn put_back(&mut self, raw: Raw) {
        if let Some(reader) = self.reader.as_mut() {
            reader.peeked = Some(raw);
        }
    }

    /// Where the log begins and ends: its first record, and the number of the next one.
    pub(crate) async fn bounds(&mut self) -> Result<(u64, u64), KafkaFailure> {
        let Some(reader) = self.reader.take() else { return Err(KafkaFailure::Silent(PATIENCE)) };
        let asked = tokio::task::spawn_blocking(move || {
            let bounds = reader.consumer.fetch_watermarks(&reader.topic, reader.partition, PATIENCE);
            (reader, bounds)
        });
        let (reader, bounds) = asked.await.map_err(|_| KafkaFailure::Silent(PATIENCE))?;
        self.reader = Some(reader);
        let (low, high) = bounds.inspect_err(|_| self.failed = true)?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    /// At the end of a topic that was made anew with as many records nothing would ever come.
    fn same_topic(&mut self) -> Result<(), KafkaFailure> {
        let Some(reader) = self.reader.as_ref() else { return Ok(()) };
        if !reader.consumer.context().topic_was_made_anew() {
            return Ok(());
        }
        self.failed = true;
        Err(KafkaFailure::MadeAnew(reader.topic.clone()))
    }

    /// Takes note of what came; none: it was no record. Records come one after the other, or something is wrong.
    fn came(&mut self, came: Result<Raw, KafkaError>) -> Result<Option<Raw>, KafkaFailure> {
        self.same_topic()?;
        let Some(reader) = self.reader.as_mut() else { return Ok(None) };
        match came {
            Ok(raw) if raw.offset == reader.next => {
                reader.answered = true;
                reader.next += 1;
                Ok(Some(raw))
            }
            Ok(raw) => {
                self.failed = true;
                Err(KafkaFailure::Gap { before: reader.next, found: raw.offset })
            }
            Err(KafkaError::PartitionEOF(_)) => {
                reader.answered = true;
                Ok(None)
            }
            // The library goes on by itself as soon as there is a broker: a reader that was left alone meanwhile is as good as new.
            Err(error) if is_of_the_way(&error) => Ok(None),
            Err(error) => {
                self.failed = true;
                Err(self.readers.door.explain(error.into()))
            }
        }
    }
}

/// Whether it says that brokers are away or were, and nothing about the log.
fn is_of_the_way(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}

fn raw(message: &rdkafka::message::BorrowedMessage<'_>) -> Raw {
    let bytes = message.payload().unwrap_or_default().to_vec();
    let time_ms = message.timestamp().to_millis().unwrap_or(0);
    Raw { offset: message.offset().cast_unsigned(), mark: mark(&bytes, time_ms), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_whose_broker_is_away_has_not_failed() {
        // Nobody listens there.
        let readers = Readers::new(&KafkaSettings::new("127.0.0.1:1"), &Door::default());
        let mut held = readers.open("received", 0, 0).unwrap();
        let error =
            held.reader.as_ref().unwrap().consumer.recv().await.map(|message| raw(&message)).unwrap_err();
        assert!(held.came(Err(error.clone())).is_ok_and(|came| came.is_none()), "{error:?}");
        assert!(!held.failed, "{error:?}");
        held.came(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OffsetOutOfRange))).unwrap_err();
        assert!(held.failed);
    }
}
