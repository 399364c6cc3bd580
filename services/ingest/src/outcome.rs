//! One event on its way through ingest, and what became of it.

use bytes::Bytes;
use tracklayer_event::Rejection;
use tracklayer_proto::event::v1::Event;

/// What is kept of a rejected event's text.
pub const MAX_KEPT_BYTES: usize = 32_768;

/// An event as parsed.
#[derive(Debug)]
pub enum Incoming {
    /// Fit to be stored.
    Event(Box<Event>),
    /// Not fit, with the beginning of what came.
    Rejected {
        /// Why.
        rejection: Rejection,
        /// The first bytes of it.
        raw: Bytes,
    },
}

impl Incoming {
    /// A rejected event.
    #[must_use]
    pub fn rejected(rejection: Rejection, raw: &[u8]) -> Self {
        Self::Rejected { rejection, raw: Bytes::copy_from_slice(&raw[..raw.len().min(MAX_KEPT_BYTES)]) }
    }
}

impl Outcome {
    /// In metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Duplicate { .. } => "duplicate",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// What became of one event, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Durable now.
    Accepted {
        /// Its id.
        message_id: String,
        /// What was mended.
        warnings: Vec<String>,
    },
    /// Durable before: a repeat that brings nothing new.
    Duplicate {
        /// Its id.
        message_id: String,
    },
    /// Not stored for delivery.
    Rejected(Rejection),
}
