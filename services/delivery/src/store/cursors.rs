//! Cursors of resolve and of the lanes.

use sqlx::{PgConnection, PgPool};
use tracklayer_ids::{Generation, Offset, Partition, Position, WorkspaceId};

use super::resolved::ResolveCursor;
use super::{StoreError, attempting};
use crate::lease::Duty;

/// Statements on the cursors.
#[derive(Debug, Clone)]
pub struct CursorStore {
    pool: PgPool,
}

/// A lane's range: where it began and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneCursor {
    /// Of what.
    pub duty: Duty,
    /// The first position that the connection answers for.
    pub start: Position,
    /// The next position to settle.
    pub next: Position,
}

impl CursorStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Where resolve stands in a partition; begins at offset 0 of generation 1.
    ///
    /// # Errors
    /// The database.
    pub async fn resolve(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
    ) -> Result<Position, StoreError> {
        let what = attempting("read the resolve cursor");
        let row: Option<(i32, i64)> = sqlx::query_as(
            "select generation, next_offset from delivery.resolve_cursor where workspace_id = $1 and partition = $2",
        )
        .bind(workspace.0)
        .bind(partition.0.cast_signed())
        .fetch_optional(&self.pool)
        .await
        .map_err(&what)?;
        if let Some((generation, next)) = row {
            return Ok(Position::new(generation.cast_unsigned(), partition.0, next.cast_unsigned()));
        }
        // Whoever comes first makes it; only its holder's fenced commits move it.
        sqlx::query(
            "insert into delivery.resolve_cursor (workspace_id, partition, generation, next_offset)
             values ($1, $2, 1, 0) on conflict on constraint resolve_cursor_pkey do nothing",
        )
        .bind(workspace.0)
        .bind(partition.0.cast_signed())
        .execute(&self.pool)
        .await
        .map_err(&what)?;
        Ok(Position::new(1, partition.0, 0))
    }

    /// All resolve cursors.
    ///
    /// # Errors
    /// The database.
    pub async fn all_resolve(&self) -> Result<Vec<ResolveCursor>, StoreError> {
        let rows: Vec<(i64, i32, i32, i64)> = sqlx::query_as(
            "select workspace_id, partition, generation, next_offset from delivery.resolve_cursor",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read the resolve cursors"))?;
        Ok(rows
            .into_iter()
            .map(|(w, p, g, o)| ResolveCursor {
                workspace: WorkspaceId(w),
                partition: Partition(p.cast_unsigned()),
                generation: Generation(g.cast_unsigned()),
                next: Offset(o.cast_unsigned()),
            })
            .collect())
    }

    /// Makes the cursors of lanes that have none, at the partition's present head: a connection answers for what is
    /// accepted from then on. Safe to repeat; an existing cursor is left alone.
    ///
    /// # Errors
    /// The database.
    pub async fn begin_lanes(&self, duties: &[Duty]) -> Result<(), StoreError> {
        let workspaces: Vec<i64> = duties.iter().map(|d| d.workspace.0).collect();
        let connections: Vec<i64> = duties.iter().map(|d| d.connection.0).collect();
        let partitions: Vec<i32> = duties.iter().map(|d| d.partition.0.cast_signed()).collect();
        sqlx::query(
            "insert into delivery.lane_cursor
                 (workspace_id, connection_id, partition, start_generation, start_offset, generation, next_offset)
             select u.w, u.c, u.p, coalesce(h.generation, 1), coalesce(h.next_offset, 0),
                    coalesce(h.generation, 1), coalesce(h.next_offset, 0)
             from unnest($1::bigint[], $2::bigint[], $3::integer[]) as u (w, c, p)
             left join journal.head h on h.workspace_id = u.w and h.partition = u.p
             on conflict on constraint lane_cursor_pkey do nothing",
        )
        .bind(workspaces)
        .bind(connections)
        .bind(partitions)
        .execute(&self.pool)
        .await
        .map_err(attempting("begin lanes"))?;
        Ok(())
    }

    /// Where a lane stands; none: it was never begun.
    ///
    /// # Errors
    /// The database.
    pub async fn lane(&self, duty: Duty) -> Result<Option<LaneCursor>, StoreError> {
        let row: Option<(i32, i64, i32, i64)> = sqlx::query_as(
            "select start_generation, start_offset, generation, next_offset from delivery.lane_cursor
             where workspace_id = $1 and connection_id = $2 and partition = $3",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("read a lane's cursor"))?;
        Ok(row.map(|(sg, so, g, o)| LaneCursor {
            duty,
            start: Position::new(sg.cast_unsigned(), duty.partition.0, so.cast_unsigned()),
            next: Position::new(g.cast_unsigned(), duty.partition.0, o.cast_unsigned()),
        }))
    }

    /// All lanes of a workspace.
    ///
    /// # Errors
    /// The database.
    pub async fn lanes_of(&self, workspace: WorkspaceId) -> Result<Vec<LaneCursor>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(attempting("read the lanes' cursors"))?;
        let mut lanes = Vec::new();
        each_lane(&mut connection, workspace, |lane| lanes.push(lane)).await?;
        Ok(lanes)
    }
}

/// Every lane of a workspace, by connection and partition.
pub(super) async fn each_lane(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    mut each: impl FnMut(LaneCursor),
) -> Result<(), StoreError> {
    let rows: Vec<(i64, i32, i32, i64, i32, i64)> = sqlx::query_as(
        "select connection_id, partition, start_generation, start_offset, generation, next_offset
         from delivery.lane_cursor where workspace_id = $1 order by connection_id, partition",
    )
    .bind(workspace.0)
    .fetch_all(connection)
    .await
    .map_err(attempting("read the lanes' cursors"))?;
    for (connection, partition, start_generation, start, generation, next) in rows {
        let partition = partition.cast_unsigned();
        each(LaneCursor {
            duty: Duty { workspace, connection: connection.into(), partition: Partition(partition) },
            start: Position::new(start_generation.cast_unsigned(), partition, start.cast_unsigned()),
            next: Position::new(generation.cast_unsigned(), partition, next.cast_unsigned()),
        });
    }
    Ok(())
}
