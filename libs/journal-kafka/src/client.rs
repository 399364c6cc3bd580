//! What all clients share: addresses, patience, and a quiet log.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::door::Door;
use crate::settings::KafkaSettings;

/// How long the cluster may take to answer a question.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// A broker that is away is told once in so many seconds, not twenty times in each.
const TELL_EVERY_SECONDS: i64 = 10;

/// When trouble was told last, in seconds: by one of the many clients of a process for all of them.
static TOLD_AT: AtomicI64 = AtomicI64::new(0);

/// Passes on what a person wants to read, and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    /// Whether a topic was deleted and made anew under a client that reads it.
    topic_made_anew: AtomicBool,
    /// What all clients of the journal know of being let in.
    door: Door,
}

/// How the library says that a topic is another one than before. It goes on at the same offset of the new one, and tells nobody
/// else. Source: librdkafka 2.12.1, `rd_kafka_topic_metadata_update2`; 2026-11.
const CHANGED_ID: &str = " changed id from ";
/// The library's name for what it logs of a connection that failed. Source: as above, `rd_kafka_broker_set_error`.
const FAILED_CONNECTION: &str = "FAIL";
/// The id of a topic of which nothing was known yet.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

impl Quiet {
    /// For a client that comes in through the same door as the others.
    pub(crate) fn before(door: &Door) -> Self {
        Self { topic_made_anew: AtomicBool::default(), door: door.clone() }
    }

    /// Whether a topic that this client reads was made anew. Known before the first record of the new one comes, since a record
    /// is fetched by the topic's id.
    pub(crate) fn topic_was_made_anew(&self) -> bool {
        self.topic_made_anew.load(Ordering::Acquire)
    }

    /// Whether it is time to tell again, for this client and all others.
    fn again() -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs().cast_signed());
        let told = TOLD_AT.load(Ordering::Relaxed);
        now - told >= TELL_EVERY_SECONDS
            && TOLD_AT.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if message.split_once(CHANGED_ID).is_some_and(|(_, ids)| !ids.starts_with(NO_ID)) {
            self.topic_made_anew.store(true, Ordering::Release);
        }
        if facility == FAILED_CONNECTION {
            self.door.hear_of_a_cut(message);
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "kafka client");
            }
            // Each failed attempt to connect is an error to the library; that nothing works is said by who wanted something.
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if is_for_the_reader(&error) {
            return;
        }
        metrics::counter!("tracklayer_kafka_client_errors_total").increment(1);
        self.door.hear(&error, reason);
        if Self::again() {
            tracing::warn!(error = %error, reason, "the kafka client has trouble");
        }
    }
}

impl ConsumerContext for Quiet {}

/// Whether it says where a log begins or ends, which whoever reads it learns anyway and knows what to make of.
fn is_for_the_reader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset)
    )
}

/// The settings of every client.
pub(crate) fn config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.brokers.replace(' ', ""))
        .set("client.id", "tracklayer")
        .set("socket.keepalive.enable", "true")
        .set("socket.connection.setup.timeout.ms", "5000")
        // A broker that comes back is found within a second.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("log.connection.close", "false")
        // A topic that is gone is said to be, before the sender is told only that it took too long.
        .set("topic.metadata.propagation.max.ms", "3000")
        // A topic that came by itself would have the broker's settings, not ours.
        .set("allow.auto.create.topics", "false")
        .set("message.max.bytes", crate::MAX_RECORD_BYTES.to_string());
    settings.access.apply(&mut config);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_clients_that_have_the_same_trouble_one_tells() {
        let told = (0..50).filter(|_| {
            let client = Quiet::default();
            let before = TOLD_AT.load(Ordering::Relaxed);
            client.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
            TOLD_AT.load(Ordering::Relaxed) != before
        });
        assert_eq!(told.count(), 1);
    }

    #[test]
    fn a_topic_that_is_seen_for_the_first_time_is_not_made_anew() {
        let client = Quiet::default();
        client.log(
            RDKafkaLogLevel::Debug,
            "METADATA",
            &format!("Topic t{CHANGED_ID}{NO_ID} to 1dYlnqCJTNGqIFPX2O9BZQ"),
        );
        assert!(!client.topic_was_made_anew());
        client.log(
            RDKafkaLogLevel::Debug,
            "METADATA",
            "Topic t changed id from 1dYlnqCJTNGqIFPX2O9BZQ to xyz",
        );
        assert!(client.topic_was_made_anew());
    }
}
