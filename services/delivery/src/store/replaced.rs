//! Resolved blocks as they are stored, whether they can be read or not, and lost events in the place of one that cannot.

use sqlx::Row as _;
use tracklayer_ids::{Offset, Position, WorkspaceId};
use tracklayer_journal::postgres::MAX_BLOCK_EVENTS;
use tracklayer_journal::{Block, BlockHeader, Condition, Damage};

use super::resolved::ResolvedStore;
use super::{StoreError, attempting};

/// A resolved block that was looked at, with its row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// What was found.
    pub condition: Condition,
    header: Vec<u8>,
    payload: Option<Vec<u8>>,
    record: Option<i64>,
}

impl ResolvedStore {
    /// The resolved block in which a position is, looked at to its last byte; none: there is none, or its payload was given back.
    ///
    /// # Errors
    /// The database, or the log.
    pub async fn look_at(&self, workspace: WorkspaceId, at: Position) -> Result<Option<Looked>, StoreError> {
        let what = attempting("look at a resolved block");
        let row = sqlx::query(
            "select base_offset, event_count, header, payload, payload_record from delivery.resolved
             where workspace_id = $1 and partition = $2 and generation = $3
               and base_offset > $4 - $5 and base_offset <= $4 and base_offset + event_count > $4",
        )
        .bind(workspace.0)
        .bind(at.partition.0.cast_signed())
        .bind(at.generation.0.cast_signed())
        .bind(at.offset.0.cast_signed())
        .bind(MAX_BLOCK_EVENTS)
        .fetch_optional(self.pool())
        .await
        .map_err(&what)?;
        let Some(row) = row else { return Ok(None) };
        let base: i64 = row.try_get("base_offset").map_err(&what)?;
        let events: i32 = row.try_get("event_count").map_err(&what)?;
        let header: Vec<u8> = row.try_get("header").map_err(&what)?;
        let kept: Option<Vec<u8>> = row.try_get("payload").map_err(&what)?;
        let record: Option<i64> = row.try_get("payload_record").map_err(&what)?;
        let Some(payload) = self.payload(workspace, at.partition, kept.clone(), record).await? else {
            return Ok(None);
        };
        let first = Position { offset: Offset(base.cast_unsigned()), ..at };
        let read = BlockHeader::read(&header);
        let condition = Condition::of(first, Some(events.cast_unsigned()), read, &payload, None);
        Ok(Some(Looked { condition, header, payload: kept, record }))
    }

    /// Puts a block in the place of one that cannot be read, if that is still as it was looked at, and keeps its bytes beside.
    /// `false`: it is another one by now.
    ///
    /// # Errors
    /// The database.
    pub async fn replace(
        &self,
        workspace: WorkspaceId,
        looked: &Looked,
        damage: &Damage,
        block: &Block,
        asked_by: &str,
    ) -> Result<bool, StoreError> {
        let replaced = sqlx::query(
            "with before as (
                 select header, payload from delivery.resolved
                 where workspace_id = $1 and partition = $2 and generation = $3 and base_offset = $4
                   and event_count = $5 and header = $6
                   and payload is not distinct from $11 and payload_record is not distinct from $12
                 for update
             ), replaced as (
                 update delivery.resolved r set header = $7, payload = $8, payload_record = null
                 from before
                 where r.workspace_id = $1 and r.partition = $2 and r.generation = $3 and r.base_offset = $4
                 returning 1
             )
             insert into delivery.replaced_block
                 (workspace_id, partition, generation, base_offset, event_count, header, payload, why, asked_by)
             select $1, $2, $3, $4, $5, b.header, b.payload, $9, $10 from before b, replaced",
        )
        .bind(workspace.0)
        .bind(damage.first.partition.0.cast_signed())
        .bind(damage.first.generation.0.cast_signed())
        .bind(damage.first.offset.0.cast_signed())
        .bind(damage.events.cast_signed())
        .bind(&looked.header)
        .bind(&block.header_bytes)
        .bind(&block.payload)
        .bind(damage.why.to_string())
        .bind(asked_by)
        .bind(looked.payload.as_deref())
        .bind(looked.record)
        .execute(self.pool())
        .await
        .map_err(attempting("put lost events in the place of a resolved block"))?;
        Ok(replaced.rows_affected() == 1)
    }
}
