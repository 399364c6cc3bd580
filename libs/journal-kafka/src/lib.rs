//! The journal over Kafka, for installations that have outgrown one database.
//!
//! A Kafka record is one block, the very bytes that PostgreSQL would store: header, then payload. A workspace has two topics,
//! `<prefix>.<workspace>.received` and `<prefix>.<workspace>.resolved`, and partition n of the workspace is partition n of
//! both: a workspace can be measured, moved and deleted by itself, and no table is needed to say who is where. Topics are made
//! here, with the settings that durability needs ([`topics`]); nothing is ever deleted by time, only by
//! [`tracklayer_journal::Journal::trim`].
//!
//! Acknowledged means: the leader and its in-sync replicas have it (acks=all, idempotent producer), told by the delivery
//! report. Partitions are read by assignment at a place that PostgreSQL holds; no consumer group takes part. Where a place is
//! known with a mark, the record before it must still look as it did, so that a topic which was truncated, made anew or
//! elected uncleanly is found out before anything of it is taken for something else.
//!
//! Modules in reading order: [`settings`] and [`access`]; `client` (what all clients share) and `door` (whether they are let in);
//! [`topics`]; `record` (a block as a record);
//! `producer`; `reader` (consumers that stand somewhere); `journal` and `resolved` (the traits);
//! `behind` (how far readers are behind).

pub mod access;
mod behind;
mod client;
mod door;
mod durability;
mod journal;
mod producer;
mod reader;
mod record;
mod resolved;
pub mod settings;
pub mod topics;

pub use access::{Access, SaslMechanism, SecurityProtocol};
pub use journal::KafkaJournal;
pub use record::encode as encode_record;
pub use settings::KafkaSettings;

use std::sync::Arc;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tracklayer_journal::{Journal, Kind, LayoutStore, PostgresJournal};

/// Most bytes of one record. The topics allow it, and a block that would be larger is made of fewer events.
pub const MAX_RECORD_BYTES: usize = 32 * 1024 * 1024;

/// The journal that an installation has chosen. Nothing is connected to yet.
///
/// # Errors
/// Kafka's client library does not take the settings.
pub fn open(kind: Kind, kafka: KafkaSettings, pool: sqlx::PgPool) -> Result<Arc<dyn Journal>, KafkaFailure> {
    Ok(match kind {
        Kind::Postgres => PostgresJournal::new(pool).into(),
        Kind::Kafka => {
            if kafka.access.shows_its_password() {
                tracing::warn!(
                    "whoever listens between here and the brokers learns kafka_password: see kafka_security_protocol"
                );
            }
            Arc::new(KafkaJournal::new(kafka, LayoutStore::new(pool))?)
        }
    })
}

/// Says loudly what keeps an acknowledged event from outliving a failover, and counts it in
/// `tracklayer_journal_durability_weaknesses`. Looks until it has an answer.
pub async fn tell_weaknesses(journal: Arc<dyn Journal>) {
    loop {
        match journal.weaknesses().await {
            Ok(weaknesses) => {
                metrics::gauge!("tracklayer_journal_durability_weaknesses").set(weaknesses.len() as f64);
                for weakness in weaknesses {
                    tracing::warn!(weakness, "an acknowledged event may not outlive a failover");
                }
                return;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "it could not be seen how durable the journal is; looking again"
                );
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// Pause before another look at a store that did not answer.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);

/// Why something could not be done with the cluster.
#[derive(Debug, thiserror::Error)]
pub enum KafkaFailure {
    /// The client library's or the broker's words.
    #[error(transparent)]
    Client(#[from] KafkaError),
    /// The broker refused an administrative request.
    #[error("the broker refused: {0}")]
    Refused(#[from] RDKafkaErrorCode),
    /// It does not answer.
    #[error("the cluster does not answer within {0:?}")]
    Silent(std::time::Duration),
    /// Nobody answers, since the brokers refuse who asks or are not believed themselves.
    #[error("the brokers and this process do not come together: {why}; {advice}")]
    NotLetIn {
        /// The client library's words, with the broker's.
        why: String,
        /// Which settings to look at.
        advice: &'static str,
    },
    /// A record that should come next did not.
    #[error("after record {before} comes record {found}: something between them is gone")]
    Gap {
        /// The one that should come.
        before: u64,
        /// The one that came.
        found: u64,
    },
    /// The topic was deleted and made anew while it was read: whoever reads on looks first what it is.
    #[error("topic {0} was made anew")]
    MadeAnew(String),
    /// The topic is not there.
    #[error("topic {0} is not there")]
    NoTopic(String),
}

impl KafkaFailure {
    /// Whether all that is known is that no broker did what was asked of it.
    pub(crate) fn is_silence(&self) -> bool {
        let code = match self {
            Self::Silent(_) => return true,
            Self::Client(KafkaError::AdminOp(code)) | Self::Refused(code) => Some(*code),
            Self::Client(error) => error.rdkafka_error_code(),
            Self::NotLetIn { .. } | Self::Gap { .. } | Self::MadeAnew(_) | Self::NoTopic(_) => None,
        };
        matches!(
            code,
            Some(
                RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::MessageTimedOut
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::SSL
                    | RDKafkaErrorCode::TimedOutQueue
            )
        )
    }

    /// Whether the log does not hold the record that was asked for: it begins behind it or ends before it.
    pub(crate) fn is_out_of_range(&self) -> bool {
        let Self::Client(KafkaError::MessageConsumption(code)) = self else { return false };
        // The first is what the library makes of the second where nobody has said that it may read on elsewhere.
        matches!(code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    }
}
