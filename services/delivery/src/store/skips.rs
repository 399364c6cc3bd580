//! Blocks of received events that cannot be read and that operators have given up.

use sqlx::PgPool;
use tracklayer_ids::{Offset, Position, WorkspaceId};
use tracklayer_journal::Damage;
use tracklayer_journal::postgres::MAX_BLOCK_EVENTS;

use super::{StoreError, attempting};

/// Statements on `delivery.skipped_block`.
#[derive(Debug, Clone)]
pub struct SkipStore {
    pool: PgPool,
}

/// A block that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Its first event.
    pub first: Position,
    /// How many positions are its.
    pub events: u32,
    /// Whether that is how many events were written into it.
    pub is_counted: bool,
    /// Why it could not be read.
    pub why: String,
}

impl GivenUp {
    /// The position behind its last event.
    #[must_use]
    pub fn end(&self) -> Position {
        Position { offset: Offset(self.first.offset.0 + u64::from(self.events)), ..self.first }
    }
}

impl SkipStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Gives a block up. Safe to repeat: what was said first stays.
    ///
    /// # Errors
    /// The database.
    pub async fn ask(
        &self,
        workspace: WorkspaceId,
        damage: &Damage,
        asked_by: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "insert into delivery.skipped_block
                 (workspace_id, partition, generation, base_offset, event_count, is_counted, why, asked_by)
             values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict on constraint skipped_block_pkey do nothing",
        )
        .bind(workspace.0)
        .bind(damage.first.partition.0.cast_signed())
        .bind(damage.first.generation.0.cast_signed())
        .bind(damage.first.offset.0.cast_signed())
        .bind(damage.events.cast_signed())
        .bind(damage.is_counted)
        .bind(damage.why.to_string())
        .bind(asked_by)
        .execute(&self.pool)
        .await
        .map_err(attempting("give a block up"))?;
        Ok(())
    }

    /// The block in which a position is, if it was given up.
    ///
    /// # Errors
    /// The database.
    pub async fn find(&self, workspace: WorkspaceId, at: Position) -> Result<Option<GivenUp>, StoreError> {
        let row: Option<(i64, i32, bool, String)> = sqlx::query_as(
            "select base_offset, event_count, is_counted, why from delivery.skipped_block
             where workspace_id = $1 and partition = $2 and generation = $3
               and base_offset > $4 - $5 and base_offset <= $4 and base_offset + event_count > $4",
        )
        .bind(workspace.0)
        .bind(at.partition.0.cast_signed())
        .bind(at.generation.0.cast_signed())
        .bind(at.offset.0.cast_signed())
        .bind(MAX_BLOCK_EVENTS)
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("look whether a block was given up"))?;
        Ok(row.map(|(base, events, is_counted, why)| GivenUp {
            first: Position { offset: Offset(base.cast_unsigned()), ..at },
            events: events.cast_unsigned(),
            is_counted,
            why,
        }))
    }
}
