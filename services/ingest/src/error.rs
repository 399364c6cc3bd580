//! Why a request as a whole was not worked on. What becomes of one event is never an error: see [`crate::outcome`].

use std::time::Duration;

use tracklayer_rpc::{Code, RpcError};

/// The request as a whole; nothing of it may be assumed durable.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// No configuration was received yet. Never answered as "unknown key": an SDK drops what is refused.
    #[error("no configuration has been received from control yet")]
    NoConfiguration,
    /// No write key anywhere.
    #[error("the request names no write key")]
    MissingWriteKey,
    /// A write key of no enabled source.
    #[error("the write key is not known")]
    UnknownWriteKey,
    /// A write key of a source that takes signed webhooks, without a signature.
    #[error(
        "this source takes signed webhooks only: make another source for events that are sent with a write key"
    )]
    SignedWebhooksOnly,
    /// Not allowed to see the workspace.
    #[error("the key may not see this workspace")]
    NotYourWorkspace,
    /// More is in flight than memory allows.
    #[error("too much is in flight")]
    Overloaded {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The journal takes more room than it may.
    #[error("the journal is full: what stands in it has to be delivered first")]
    JournalFull {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The source sends more than it may.
    #[error("the source sends more events than it may")]
    RateLimited {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The bytes of a message did not come in time.
    #[error("the message did not arrive in time")]
    SlowMessage,
    /// The journal did not take the events.
    #[error("could not append to the journal")]
    Journal {
        /// Why.
        #[source]
        source: tracklayer_journal::AppendError,
    },
    /// A narrowing signal could not be written to the consent log.
    #[error("could not record consent signals")]
    Consent {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table of ingest's could not be read or written.
    #[error("could not read or write a table of ingest")]
    Store {
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The request has no events.
    #[error("the batch is empty")]
    EmptyBatch,
    /// The request is over its limits.
    #[error("the batch has {found} {unit}, at most {limit} are taken")]
    BatchTooLarge {
        /// How many.
        found: usize,
        /// Of what.
        unit: &'static str,
        /// Allowed.
        limit: usize,
    },
}

impl IngestError {
    /// The code as HTTP clients and stream acks see it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoConfiguration => "no_configuration",
            Self::MissingWriteKey => "missing_write_key",
            Self::UnknownWriteKey => "unknown_write_key",
            Self::SignedWebhooksOnly => "signed_webhooks_only",
            Self::NotYourWorkspace => "permission_denied",
            Self::Overloaded { .. } => "overloaded",
            Self::JournalFull { .. } => "journal_full",
            Self::RateLimited { .. } => "rate_limited",
            Self::SlowMessage => "body_timeout",
            Self::Journal { .. } | Self::Consent { .. } | Self::Store { .. } => "unavailable",
            Self::EmptyBatch => "batch_empty",
            Self::BatchTooLarge { .. } => "batch_too_large",
        }
    }
}

impl From<tracklayer_journal::AppendError> for IngestError {
    fn from(source: tracklayer_journal::AppendError) -> Self {
        match source {
            tracklayer_journal::AppendError::Overloaded { retry_after, .. } => {
                Self::Overloaded { retry_after }
            }
            source => Self::Journal { source },
        }
    }
}

impl RpcError for IngestError {
    fn describe(&self) -> (Code, &'static str) {
        match self {
            Self::NoConfiguration => (Code::Unavailable, "NO_CONFIGURATION"),
            Self::MissingWriteKey => (Code::Unauthenticated, "MISSING_WRITE_KEY"),
            Self::UnknownWriteKey => (Code::Unauthenticated, "UNKNOWN_WRITE_KEY"),
            Self::SignedWebhooksOnly => (Code::PermissionDenied, "SIGNED_WEBHOOKS_ONLY"),
            Self::NotYourWorkspace => (Code::PermissionDenied, "NOT_YOUR_WORKSPACE"),
            Self::Overloaded { .. } => (Code::ResourceExhausted, "OVERLOADED"),
            Self::JournalFull { .. } => (Code::ResourceExhausted, "JOURNAL_FULL"),
            Self::RateLimited { .. } => (Code::ResourceExhausted, "RATE_LIMITED"),
            Self::SlowMessage => (Code::Unavailable, "MESSAGE_TIMEOUT"),
            Self::Journal { .. } => (Code::Unavailable, "JOURNAL_UNAVAILABLE"),
            Self::Consent { .. } => (Code::Unavailable, "CONSENT_UNAVAILABLE"),
            Self::Store { .. } => (Code::Unavailable, "STORE_UNAVAILABLE"),
            Self::EmptyBatch => (Code::InvalidArgument, "BATCH_EMPTY"),
            Self::BatchTooLarge { .. } => (Code::InvalidArgument, "BATCH_TOO_LARGE"),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after }
            | Self::JournalFull { retry_after }
            | Self::RateLimited { retry_after } => Some(*retry_after),
            Self::NoConfiguration
            | Self::SlowMessage
            | Self::Journal { .. }
            | Self::Consent { .. }
            | Self::Store { .. } => Some(Duration::from_secs(1)),
            Self::MissingWriteKey
            | Self::UnknownWriteKey
            | Self::SignedWebhooksOnly
            | Self::NotYourWorkspace
            | Self::EmptyBatch
            | Self::BatchTooLarge { .. } => None,
        }
    }

    fn field(&self) -> Option<(String, String)> {
        match self {
            Self::EmptyBatch | Self::BatchTooLarge { .. } => Some(("events".to_owned(), self.to_string())),
            _ => None,
        }
    }
}
