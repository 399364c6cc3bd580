//! Sends records, and answers when the in-sync replicas have them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::client::{PATIENCE, Quiet, config};
use crate::door::Door;
use crate::settings::KafkaSettings;
use crate::{KafkaFailure, MAX_RECORD_BYTES};

/// How often it is looked for a partition that should be there, and the pause after a look.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

type Native = FutureProducer<Quiet>;

/// A record to send.
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) bytes: Vec<u8>,
}

/// An idempotent producer that is replaced when it has failed for good. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Producer {
    settings: KafkaSettings,
    door: Door,
    native: Arc<Mutex<Native>>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    pub(crate) fn new(settings: &KafkaSettings, door: &Door) -> Result<Self, KafkaFailure> {
        let native = Arc::new(Mutex::new(connect(settings, door)?));
        Ok(Self { settings: settings.clone(), door: door.clone(), native })
    }

    /// Sends records, those of a partition in this order, and answers when all are durable: the offset of each.
    pub(crate) async fn send(&self, records: &[Outgoing]) -> Result<Vec<u64>, KafkaFailure> {
        let mut looks = 0;
        loop {
            match self.send_once(records).await {
                // A partition that has just been made is not known to this client yet. Records that had a place may stand there
                // twice afterwards, as after any error.
                Err(error) if topic_is_gone(&error) && looks < LOOKS => {
                    looks += 1;
                    self.look_at_topics(records).await;
                }
                Err(error) => return Err(self.door.explain(error)),
                Ok(offsets) => {
                    self.door.opened();
                    return Ok(offsets);
                }
            }
        }
    }

    /// Brings the client's knowledge of the records' topics up to date.
    async fn look_at_topics(&self, records: &[Outgoing]) {
        let native = self.native.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let topics: BTreeSet<String> = records.iter().map(|record| record.topic.clone()).collect();
        let asked = tokio::task::spawn_blocking(move || {
            for topic in topics {
                // What it has not learned it does not know at the next try either.
                let _ = native.client().fetch_metadata(Some(&topic), PATIENCE);
            }
        });
        let _ = asked.await;
        tokio::time::sleep(LOOK_PAUSE).await;
    }

    async fn send_once(&self, records: &[Outgoing]) -> Result<Vec<u64>, KafkaFailure> {
        let native = self.native.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // All are queued before the first is awaited: nothing comes between them.
        let mut reports = Vec::with_capacity(records.len());
        let mut failed: Option<KafkaError> = None;
        for record in records {
            let record: FutureRecord<'_, (), [u8]> =
                FutureRecord::to(&record.topic).partition(record.partition).payload(&record.bytes);
            match native.send_result(record) {
                Ok(report) => reports.push(report),
                Err((error, _)) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let mut offsets = Vec::with_capacity(reports.len());
        // All are awaited, also behind a failed one: nothing is under way when the caller hears of it.
        for report in reports {
            match report.await {
                Ok(Ok(delivery)) => offsets.push(delivery.offset.cast_unsigned()),
                Ok(Err((error, _))) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or(Some(KafkaError::Canceled)),
            }
        }
        match failed {
            None => Ok(offsets),
            Some(error) => {
                self.replace_if_dead(&native);
                Err(error.into())
            }
        }
    }

    /// A producer whose order the broker cannot vouch for any more refuses everything from then on. Another one begins anew;
    /// what was under way is not acknowledged.
    fn replace_if_dead(&self, failed: &Native) {
        let Some((code, reason)) = failed.client().fatal_error() else { return };
        let native = self.native.lock().unwrap_or_else(PoisonError::into_inner);
        if native.client().fatal_error().is_none() {
            return;
        }
        tracing::error!(%code, reason, "the kafka producer failed for good; another one takes its place");
        drop(native);
        self.begin_anew();
    }

    /// Puts another producer in the place of this one. What is under way is finished by whoever waits for it.
    pub(crate) fn begin_anew(&self) {
        metrics::counter!("tracklayer_kafka_producers_replaced_total").increment(1);
        match connect(&self.settings, &self.door) {
            Ok(new) => *self.native.lock().unwrap_or_else(PoisonError::into_inner) = new,
            Err(error) => tracing::error!(%error, "there is no other kafka producer"),
        }
    }
}

/// Whether the error says that the topic is not there (any more).
pub(crate) fn topic_is_gone(error: &KafkaFailure) -> bool {
    let code = match error {
        KafkaFailure::Client(error) => error.rdkafka_error_code(),
        _ => None,
    };
    matches!(
        code,
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

fn connect(settings: &KafkaSettings, door: &Door) -> Result<Native, KafkaFailure> {
    let mut config = config(settings);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.codec", "none")
        // Whoever hands a block over has lingered already.
        .set("linger.ms", "0")
        // It is the first to connect, and hears what becomes of that: see `door`.
        .set("log.connection.close", "true")
        .set_log_level(RDKafkaLogLevel::Info)
        .set("request.timeout.ms", "4000")
        // Longer than most failovers of a partition's leader take, and shorter than SDKs wait for an answer: who is told to come
        // back does, with the same ids.
        .set("delivery.timeout.ms", "8000")
        .set("queue.buffering.max.kbytes", (4 * MAX_RECORD_BYTES / 1024).to_string());
    Ok(Native::from_config_and_context(&config, Quiet::before(door))?)
}
