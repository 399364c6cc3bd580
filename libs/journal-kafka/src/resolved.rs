//! Resolved blocks as records. Which of them exist is said by delivery's index alone.

use tracklayer_ids::{Partition, WorkspaceId};
use tracklayer_journal::{AppendError, Block, JournalError, ResolvedLog};

use crate::MAX_RECORD_BYTES;
use crate::journal::{KafkaJournal, failing};
use crate::record::{decode, encode};
use crate::topics::Stage;

/// Room for what a record has beside the block.
const ENVELOPE_BYTES: usize = 1024;

/// The `resolved` topics.
#[derive(Debug, Clone)]
pub(crate) struct KafkaResolved {
    journal: KafkaJournal,
}

impl KafkaResolved {
    pub(crate) fn new(journal: KafkaJournal) -> Self {
        Self { journal }
    }
}

#[async_trait::async_trait]
impl ResolvedLog for KafkaResolved {
    fn max_block_bytes(&self) -> usize {
        MAX_RECORD_BYTES - ENVELOPE_BYTES
    }

    async fn append(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        block: &Block,
    ) -> Result<u64, AppendError> {
        let record = std::iter::once((workspace, partition, encode(block)));
        let unavailable = |why: String| AppendError::Unavailable { why };
        let offsets = self
            .journal
            .produce(Stage::Resolved, record)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        offsets.first().copied().ok_or_else(|| unavailable("the broker named no offset".to_owned()))
    }

    async fn read(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        record: u64,
    ) -> Result<Vec<u8>, JournalError> {
        let failed = failing(self.journal.topics.name(workspace, Stage::Resolved), partition);
        let mut held =
            self.journal.at_record(workspace, Stage::Resolved, partition, record).await.map_err(&failed)?;
        let raw = held.exactly(record).await.map_err(&failed)?;
        // What it should be stands in the index; the checksum there is compared with these bytes.
        Ok(decode(&raw.bytes).map(|(_, payload)| payload.to_vec()).unwrap_or_default())
    }

    async fn trim(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        record: u64,
    ) -> Result<(), JournalError> {
        let deleted = self.journal.delete_before(workspace, Stage::Resolved, &[(partition, record)]).await;
        deleted.map_err(|source| JournalError::Log {
            what: format!("trim {}/{}", self.journal.topics.name(workspace, Stage::Resolved), partition.0),
            source: Box::new(source),
        })
    }
}
