//! Cursors of resolve and of the lanes.

use sqlx::{PgConnection, PgPool};
use tracklayer_ids::{ConnectionId, Generation, Offset, Partition, Position, WorkspaceId};
use tracklayer_journal::{Kind, Place, Record};

use super::resolved::{ResolveCursor, record};
use super::{StoreError, attempting, fence};
use crate::lease::{Duty, Lease};

/// Statements on the cursors.
#[derive(Debug, Clone)]
pub struct CursorStore {
    pool: PgPool,
    journal: Kind,
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

/// What is between a cursor and the place of its partition's resolve, over a journal of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Events that resolve has passed and the cursor has not.
    pub events: u64,
    /// Where resolve stands.
    pub resolve: Place,
    /// Seconds since the cursor's next event was resolved; none: it is not.
    pub resolved_ago: Option<u64>,
}

/// Makes the cursors that are missing. A connection's first ones begin where their partitions stand in the table of that name;
/// one of a partition that is missing among those was added since by a newer configuration, and begins with the layout that has it.
macro_rules! begin_lanes_at {
    ($heads:literal) => {
        concat!(
            "insert into delivery.lane_cursor
                 (workspace_id, connection_id, partition, start_generation, start_offset, generation, next_offset)
             select u.w, u.c, u.p, b.generation, b.next_offset, b.generation, b.next_offset
             from unnest($1::bigint[], $2::bigint[], $3::integer[]) as u (w, c, p)
             left join ",
            $heads,
            " h on h.workspace_id = u.w and h.partition = u.p
             cross join lateral (
                 select min(l.generation) as added from journal.layout l
                 where l.workspace_id = u.w and l.partitions > u.p and l.generation >= (
                     select min(c.start_generation) from delivery.lane_cursor c
                     where c.workspace_id = u.w and c.connection_id = u.c)
             ) a
             cross join lateral (
                 select coalesce(a.added, h.generation, 1) as generation,
                        case when a.added is null then coalesce(h.next_offset, 0) else 0 end as next_offset
             ) b
             on conflict on constraint lane_cursor_pkey do nothing"
        )
    };
}

impl CursorStore {
    /// Over the service's pool, beside the journal in PostgreSQL.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::beside(pool, Kind::Postgres)
    }

    /// Over the service's pool, beside that journal.
    #[must_use]
    pub fn beside(pool: PgPool, journal: Kind) -> Self {
        Self { pool, journal }
    }

    /// Partitions whose cursor is that of another journal in which something is left to read, or which reached further: an
    /// installation that changes its journal drains the old one first.
    ///
    /// # Errors
    /// The database.
    pub async fn of_another_journal(&self) -> Result<Vec<(WorkspaceId, Partition)>, StoreError> {
        // Over PostgreSQL no cursor stands in a log of records; over Kafka all that PostgreSQL's heads count is read.
        let statement = match self.journal {
            Kind::Postgres => {
                "select workspace_id, partition from delivery.resolve_cursor where record_offset is not null"
            }
            Kind::Kafka => {
                "select h.workspace_id, h.partition from journal.head h
                 left join delivery.resolve_cursor c on c.workspace_id = h.workspace_id and c.partition = h.partition
                 where (h.generation, h.next_offset) > (coalesce(c.generation, 1), coalesce(c.next_offset, 0))"
            }
        };
        let rows: Vec<(i64, i32)> = sqlx::query_as(statement)
            .fetch_all(&self.pool)
            .await
            .map_err(attempting("look whether the journal was changed"))?;
        Ok(rows.into_iter().map(|(w, p)| (WorkspaceId(w), Partition(p.cast_unsigned()))).collect())
    }

    /// Whether any partition has been read over Kafka.
    ///
    /// # Errors
    /// The database.
    pub async fn stand_in_kafka(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "select exists (select from delivery.resolve_cursor where record_offset is not null)",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(attempting("look whether kafka was read"))
    }

    /// Where resolve stands in a partition; begins at offset 0 of generation 1.
    ///
    /// # Errors
    /// The database.
    pub async fn resolve(&self, workspace: WorkspaceId, partition: Partition) -> Result<Place, StoreError> {
        let what = attempting("read the resolve cursor");
        let row: Option<PlaceRow> = sqlx::query_as(
            "select generation, next_offset, record_offset, record_step, record_mark
             from delivery.resolve_cursor where workspace_id = $1 and partition = $2",
        )
        .bind(workspace.0)
        .bind(partition.0.cast_signed())
        .fetch_optional(&self.pool)
        .await
        .map_err(&what)?;
        if let Some(row) = row {
            return Ok(place(partition, row));
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
        Ok(Position::new(1, partition.0, 0).into())
    }

    /// Opens the next generation of a partition's received events: it begins at that record, and the one before ends where the
    /// cursor stands.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::CursorMoved`] or the database.
    pub async fn open_generation(
        &self,
        lease: &Lease,
        ended: Position,
        begins: Record,
    ) -> Result<Place, StoreError> {
        let what = attempting("open a generation");
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        fence(&mut tx, lease).await?;
        let moved = sqlx::query(
            "update delivery.resolve_cursor set generation = $3 + 1, next_offset = 0,
                    record_offset = $5, record_step = $6, record_mark = $7
             where workspace_id = $1 and partition = $2 and generation = $3 and next_offset = $4",
        )
        .bind(lease.duty.workspace.0)
        .bind(lease.duty.partition.0.cast_signed())
        .bind(ended.generation.0.cast_signed())
        .bind(ended.offset.0.cast_signed())
        .bind(begins.offset.cast_signed())
        .bind(begins.step.cast_signed())
        .bind(begins.mark)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        if moved.rows_affected() != 1 {
            return Err(StoreError::CursorMoved);
        }
        sqlx::query(
            "insert into delivery.ended_generation (workspace_id, partition, generation, next_offset)
             values ($1, $2, $3, $4)",
        )
        .bind(lease.duty.workspace.0)
        .bind(lease.duty.partition.0.cast_signed())
        .bind(ended.generation.0.cast_signed())
        .bind(ended.offset.0.cast_signed())
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        // Ingest, which knows no cursor, takes no claim up to here for granted any more.
        sqlx::query("select journal.tell_lost($1, $2, $3)")
            .bind(lease.duty.workspace.0)
            .bind(lease.duty.partition.0.cast_signed())
            .bind(ended.generation.0.cast_signed())
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        tx.commit().await.map_err(&what)?;
        let at = Position::new(ended.generation.0 + 1, ended.partition.0, 0);
        Ok(Place { at, record: Some(begins) })
    }

    /// The places of resolve in all partitions of a workspace that have one.
    ///
    /// # Errors
    /// The database.
    pub async fn places(&self, workspace: WorkspaceId) -> Result<Vec<Place>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(attempting("read the resolve cursors"))?;
        places_of(&mut connection, workspace).await
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
    /// accepted from then on, whatever becomes of the number of partitions. Safe to repeat; an existing cursor is left alone.
    ///
    /// # Errors
    /// The database.
    pub async fn begin_lanes(&self, duties: &[Duty]) -> Result<(), StoreError> {
        let workspaces: Vec<i64> = duties.iter().map(|d| d.workspace.0).collect();
        let connections: Vec<i64> = duties.iter().map(|d| d.connection.0).collect();
        let partitions: Vec<i32> = duties.iter().map(|d| d.partition.0.cast_signed()).collect();
        // Over Kafka the head is known in records only: there a connection answers for what is resolved from then on.
        let statement = match self.journal {
            Kind::Postgres => begin_lanes_at!("journal.head"),
            Kind::Kafka => begin_lanes_at!("delivery.resolve_cursor"),
        };
        sqlx::query(statement)
            .bind(workspaces)
            .bind(connections)
            .bind(partitions)
            .execute(&self.pool)
            .await
            .map_err(attempting("begin lanes"))?;
        Ok(())
    }

    /// Whether a generation may be resolved: what was received before a change of the layout is, in all partitions.
    ///
    /// # Errors
    /// The database.
    pub async fn resolve_may_enter(
        &self,
        workspace: WorkspaceId,
        generation: Generation,
    ) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "select not exists (
                 select 1 from journal.layout_end e
                 left join delivery.resolve_cursor c on c.workspace_id = e.workspace_id and c.partition = e.partition
                 where e.workspace_id = $1 and e.generation < $2
                   and (c.generation is null or (c.generation, c.next_offset) < (e.generation, e.next_offset)))",
        )
        .bind(workspace.0)
        .bind(generation.0.cast_signed())
        .fetch_one(&self.pool)
        .await
        .map_err(attempting("look whether the layout before is resolved"))
    }

    /// Whether a lane may go into a generation: what was received before a change of the layout is behind all lanes of its
    /// connection, settled or waiting for a retry.
    ///
    /// # Errors
    /// The database.
    pub async fn lane_may_enter(&self, duty: Duty, generation: Generation) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "select not exists (
                 select 1 from journal.layout_end e
                 left join delivery.lane_cursor c
                   on c.workspace_id = e.workspace_id and c.connection_id = $2 and c.partition = e.partition
                 where e.workspace_id = $1 and e.generation < $3
                   and (c.generation is null or (c.generation, c.next_offset) < (e.generation, e.next_offset)))",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(generation.0.cast_signed())
        .fetch_one(&self.pool)
        .await
        .map_err(attempting("look whether the layout before is behind all lanes"))
    }

    /// Where the last of these connections' lanes in a partition stands; none: none was begun.
    ///
    /// # Errors
    /// The database.
    pub async fn last_lane(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        connections: &[ConnectionId],
    ) -> Result<Option<Position>, StoreError> {
        let row: Option<(i32, i64)> = sqlx::query_as(
            "select generation, next_offset from delivery.lane_cursor
             where workspace_id = $1 and partition = $2 and connection_id = any($3)
             order by generation, next_offset limit 1",
        )
        .bind(workspace.0)
        .bind(partition.0.cast_signed())
        .bind(connections.iter().map(|connection| connection.0).collect::<Vec<_>>())
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("find the last lane"))?;
        Ok(row.map(|(generation, next)| {
            Position::new(generation.cast_unsigned(), partition.0, next.cast_unsigned())
        }))
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

    /// Where the cursors of these stand; one that was never begun is left out, except for resolve's, which begins at the
    /// beginning.
    ///
    /// # Errors
    /// The database.
    pub async fn of(&self, duties: &[Duty]) -> Result<Vec<(Duty, Position)>, StoreError> {
        let rows: Vec<(i64, i64, i32, i32, i64)> = sqlx::query_as(
            "select u.w, u.c, u.p, coalesce(l.generation, r.generation, 1), coalesce(l.next_offset, r.next_offset, 0)
             from unnest($1::bigint[], $2::bigint[], $3::integer[]) as u (w, c, p)
             left join delivery.lane_cursor l
               on l.workspace_id = u.w and l.connection_id = u.c and l.partition = u.p
             left join delivery.resolve_cursor r on u.c = 0 and r.workspace_id = u.w and r.partition = u.p
             where u.c = 0 or l.workspace_id is not null",
        )
        .bind(duties.iter().map(|duty| duty.workspace.0).collect::<Vec<_>>())
        .bind(duties.iter().map(|duty| duty.connection.0).collect::<Vec<_>>())
        .bind(duties.iter().map(|duty| duty.partition.0.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read cursors"))?;
        Ok(rows
            .into_iter()
            .map(|(workspace, connection, partition, generation, next)| {
                let partition = partition.cast_unsigned();
                let next = Position::new(generation.cast_unsigned(), partition, next.cast_unsigned());
                let (workspace, partition) = (WorkspaceId(workspace), Partition(partition));
                (Duty { workspace, connection: connection.into(), partition }, next)
            })
            .collect())
    }

    /// What is between these cursors and the places of their partitions' resolve, in their order. A few rows for each of them
    /// however much is between.
    ///
    /// # Errors
    /// The database.
    pub async fn ahead(&self, cursors: &[(Duty, Position)]) -> Result<Vec<Ahead>, StoreError> {
        let rows: Vec<AheadRow> = sqlx::query_as(
            "select coalesce(r.generation, u.g), coalesce(r.next_offset, u.o), r.record_offset, r.record_step, r.record_mark,
                    case when near.behind > u.o
                         then greatest(extract(epoch from now() - near.resolved_at), 0)::bigint end,
                    greatest(case when r.generation is null then 0
                                  when r.generation = u.g then r.next_offset - u.o
                                  else greatest(coalesce(own.behind, 0) - u.o, 0) + coalesce(later.events, 0) + r.next_offset
                             end, 0)::bigint
             from unnest($1::bigint[], $2::integer[], $3::integer[], $4::bigint[]) with ordinality as u (w, p, g, o, n)
             left join delivery.resolve_cursor r on r.workspace_id = u.w and r.partition = u.p
             -- The block in which the place is, if it is in one.
             left join lateral (
                 select d.resolved_at, d.base_offset + d.event_count as behind from delivery.resolved d
                 where d.workspace_id = u.w and d.partition = u.p and d.generation = u.g and d.base_offset <= u.o
                 order by d.base_offset desc limit 1
             ) near on true
             -- Of an earlier generation the end, and how many events those between have.
             left join lateral (
                 select d.base_offset + d.event_count as behind from delivery.resolved d
                 where d.workspace_id = u.w and d.partition = u.p and d.generation = u.g
                 order by d.base_offset desc limit 1
             ) own on r.generation > u.g
             left join lateral (
                 select sum((
                     select d.base_offset + d.event_count from delivery.resolved d
                     where d.workspace_id = u.w and d.partition = u.p and d.generation = middle.g
                     order by d.base_offset desc limit 1)) as events
                 from generate_series(u.g + 1, r.generation - 1) as middle (g)
             ) later on true
             order by u.n",
        )
        .bind(cursors.iter().map(|(duty, _)| duty.workspace.0).collect::<Vec<_>>())
        .bind(cursors.iter().map(|(_, next)| next.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(cursors.iter().map(|(_, next)| next.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(cursors.iter().map(|(_, next)| next.offset.0.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("see what is between cursors and resolve"))?;
        let ahead = |((_, next), row): (&(Duty, Position), AheadRow)| {
            let (generation, offset, record_offset, step, mark, resolved_ago, events) = row;
            let resolve = place(next.partition, (generation, offset, record_offset, step, mark));
            let resolved_ago = resolved_ago.map(i64::cast_unsigned);
            Ahead { events: events.cast_unsigned(), resolve, resolved_ago }
        };
        Ok(cursors.iter().zip(rows).map(ahead).collect())
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

/// Generation, next offset; offset, step and mark of the record.
type PlaceRow = (i32, i64, Option<i64>, Option<i32>, Option<i64>);

/// As [`PlaceRow`]; seconds since the cursor's event was resolved; events between.
type AheadRow = (i32, i64, Option<i64>, Option<i32>, Option<i64>, Option<i64>, i64);

/// The partition, then as [`PlaceRow`].
type PartitionPlaceRow = (i32, i32, i64, Option<i64>, Option<i32>, Option<i64>);

fn place(partition: Partition, row: PlaceRow) -> Place {
    let (generation, next, offset, step, mark) = row;
    Place {
        at: Position::new(generation.cast_unsigned(), partition.0, next.cast_unsigned()),
        record: offset.map(|offset| record(offset, step.unwrap_or(0), mark)),
    }
}

/// The places of resolve in all partitions of a workspace, by partition.
pub(super) async fn places_of(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
) -> Result<Vec<Place>, StoreError> {
    let rows: Vec<PartitionPlaceRow> = sqlx::query_as(
        "select partition, generation, next_offset, record_offset, record_step, record_mark
         from delivery.resolve_cursor where workspace_id = $1 order by partition",
    )
    .bind(workspace.0)
    .fetch_all(connection)
    .await
    .map_err(attempting("read the resolve cursors"))?;
    let placed =
        |(p, g, n, o, s, m): (i32, _, _, _, _, _)| place(Partition(p.cast_unsigned()), (g, n, o, s, m));
    Ok(rows.into_iter().map(placed).collect())
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
