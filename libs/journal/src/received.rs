//! A block as a reader gets it.

use bytes::Bytes;
use tracklayer_ids::{Offset, Position};

use crate::block::BlockHeader;
use crate::error::JournalError;
use crate::journal::RecordAt;

/// A block as read.
#[derive(Debug, Clone)]
pub struct ReceivedBlock {
    /// Position of its first event.
    pub first: Position,
    /// Decoded header.
    pub header: BlockHeader,
    /// Payload as stored.
    pub payload: Vec<u8>,
    /// Where it stands in a log of records; none if the journal needs none.
    pub record: Option<RecordAt>,
}

impl ReceivedBlock {
    /// The offset after its last event.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset(self.first.offset.0 + u64::from(self.header.event_count))
    }

    /// Its events, checked against the header.
    ///
    /// # Errors
    /// [`JournalError::Block`]: the stored bytes are not what was written.
    pub fn events(&self) -> Result<Vec<Bytes>, JournalError> {
        self.header
            .events(&self.payload)
            .map_err(|source| JournalError::Block { position: self.first, source })
    }
}
