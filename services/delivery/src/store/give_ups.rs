//! What operators give up unread: what it would be, what was asked for, and what of that is done.

use sqlx::PgPool;
use tracklayer_ids::{ConnectionId, Partition, Position, WorkspaceId};
use tracklayer_journal::postgres::MAX_BLOCK_EVENTS;

use super::{StoreError, attempting};
use crate::lease::Duty;

/// Statements on `delivery.lane_give_up`.
#[derive(Debug, Clone)]
pub struct GiveUpStore {
    pool: PgPool,
}

/// What a lane has not passed yet of what was received before some day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    /// The lane.
    pub duty: Duty,
    /// What it handles next.
    pub next: Position,
    /// What it would handle next if it gave all of that up.
    pub until: Position,
    /// Events in between.
    pub events: u64,
    /// Those of them that resolve has not read: the lane passes them when it has.
    pub unresolved: u64,
}

/// Workspace, connection, partition, generation, next offset.
type LaneRow = (i64, i64, i32, i32, i64);

/// Connection, partition; generation and offset of the lane's cursor, and of the end of those days; events in between, and those of
/// them that are not resolved.
type UnreadRow = (i64, i32, i32, i64, i32, i64, i64, i64);

impl GiveUpStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// What these connections' lanes have not passed of what the journal in PostgreSQL received before a day (as in 2026-01-31,
    /// UTC), by connection and partition. A lane that is past all of it is left out. Looks through the blocks in between.
    ///
    /// # Errors
    /// The database.
    pub async fn unread_before(
        &self,
        workspace: WorkspaceId,
        connections: &[ConnectionId],
        day: &str,
    ) -> Result<Vec<Unread>, StoreError> {
        let rows: Vec<UnreadRow> = sqlx::query_as(
            "select l.connection_id, l.partition, l.generation, l.next_offset, last.generation, last.behind,
                    coalesce(unread.events, 0)::bigint, coalesce(unread.unresolved, 0)::bigint
             from delivery.lane_cursor l
             left join delivery.resolve_cursor c on c.workspace_id = l.workspace_id and c.partition = l.partition
             cross join lateral (
                 -- Offsets rise, so that the last block of those days speaks for all of them.
                 select r.generation, r.base_offset + r.event_count as behind from journal.received r
                 where r.workspace_id = l.workspace_id and r.partition = l.partition and r.appended_on < $3::text::date
                 order by r.generation desc, r.base_offset desc limit 1
             ) last
             cross join lateral (
                 select sum(case when r.generation > l.generation then r.event_count
                                 else least(r.event_count, r.base_offset + r.event_count - l.next_offset) end) as events,
                        sum(case when (r.generation, r.base_offset) >= (coalesce(c.generation, 1), coalesce(c.next_offset, 0))
                                 then r.event_count
                                 when r.generation < coalesce(c.generation, 1) then 0
                                 else greatest(r.base_offset + r.event_count - coalesce(c.next_offset, 0), 0) end) as unresolved
                 from journal.received r
                 where r.workspace_id = l.workspace_id and r.partition = l.partition
                   and (r.generation, r.base_offset) > (l.generation, l.next_offset - $4)
                   and (r.generation > l.generation or r.base_offset + r.event_count > l.next_offset)
                   and (r.generation, r.base_offset) < (last.generation, last.behind)
             ) unread
             where l.workspace_id = $1 and l.connection_id = any($2)
               and (last.generation, last.behind) > (l.generation, l.next_offset)
             order by l.connection_id, l.partition",
        )
        .bind(workspace.0)
        .bind(connections.iter().map(|connection| connection.0).collect::<Vec<_>>())
        .bind(day)
        .bind(MAX_BLOCK_EVENTS)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("see what was not read before a day"))?;
        Ok(rows.into_iter().map(|row| unread(workspace, row)).collect())
    }

    /// As [`GiveUpStore::unread_before`], of what was resolved before that day: a journal that is not in PostgreSQL does not say
    /// which events it received when. What is not resolved is not among them.
    ///
    /// # Errors
    /// The database.
    pub async fn unread_resolved_before(
        &self,
        workspace: WorkspaceId,
        connections: &[ConnectionId],
        day: &str,
    ) -> Result<Vec<Unread>, StoreError> {
        let rows: Vec<UnreadRow> = sqlx::query_as(
            "select l.connection_id, l.partition, l.generation, l.next_offset, last.generation, last.behind,
                    coalesce(unread.events, 0)::bigint, 0::bigint
             from delivery.lane_cursor l
             cross join lateral (
                 -- Of a partition one block is resolved after the other.
                 select r.generation, r.base_offset + r.event_count as behind from delivery.resolved r
                 where r.workspace_id = l.workspace_id and r.partition = l.partition
                   and r.resolved_at < ($3::text::timestamp at time zone 'utc')
                 order by r.generation desc, r.base_offset desc limit 1
             ) last
             cross join lateral (
                 select sum(case when r.generation > l.generation then r.event_count
                                 else least(r.event_count, r.base_offset + r.event_count - l.next_offset) end) as events
                 from delivery.resolved r
                 where r.workspace_id = l.workspace_id and r.partition = l.partition
                   and (r.generation, r.base_offset) > (l.generation, l.next_offset - $4)
                   and (r.generation > l.generation or r.base_offset + r.event_count > l.next_offset)
                   and (r.generation, r.base_offset) < (last.generation, last.behind)
             ) unread
             where l.workspace_id = $1 and l.connection_id = any($2)
               and (last.generation, last.behind) > (l.generation, l.next_offset)
             order by l.connection_id, l.partition",
        )
        .bind(workspace.0)
        .bind(connections.iter().map(|connection| connection.0).collect::<Vec<_>>())
        .bind(day)
        .bind(MAX_BLOCK_EVENTS)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("see what was not passed of what was resolved before a day"))?;
        Ok(rows.into_iter().map(|row| unread(workspace, row)).collect())
    }

    /// Asks the lanes' holders to pass it. What was asked for before stays if it reaches further.
    ///
    /// # Errors
    /// The database.
    pub async fn ask(&self, unread: &[Unread]) -> Result<(), StoreError> {
        sqlx::query(
            "insert into delivery.lane_give_up as a (workspace_id, connection_id, partition, generation, next_offset)
             select * from unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::bigint[])
             on conflict on constraint lane_give_up_pkey do update
             set generation = excluded.generation, next_offset = excluded.next_offset, asked_at = excluded.asked_at
             where (a.generation, a.next_offset) < (excluded.generation, excluded.next_offset)",
        )
        .bind(unread.iter().map(|lane| lane.duty.workspace.0).collect::<Vec<_>>())
        .bind(unread.iter().map(|lane| lane.duty.connection.0).collect::<Vec<_>>())
        .bind(unread.iter().map(|lane| lane.duty.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(unread.iter().map(|lane| lane.until.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(unread.iter().map(|lane| lane.until.offset.0.cast_signed()).collect::<Vec<_>>())
        .execute(&self.pool)
        .await
        .map_err(attempting("ask lanes to give up"))?;
        Ok(())
    }

    /// What is asked for, each with what the lane is to handle next; forgets what is done.
    ///
    /// # Errors
    /// The database.
    pub async fn asked(&self) -> Result<Vec<(Duty, Position)>, StoreError> {
        let what = attempting("read what lanes are to give up");
        let rows: Vec<LaneRow> = sqlx::query_as(
            "select workspace_id, connection_id, partition, generation, next_offset from delivery.lane_give_up",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let done: Vec<LaneRow> = sqlx::query_as(
            "delete from delivery.lane_give_up a using delivery.lane_cursor l
             where l.workspace_id = a.workspace_id and l.connection_id = a.connection_id and l.partition = a.partition
               and (l.generation, l.next_offset) >= (a.generation, a.next_offset)
             returning a.workspace_id, a.connection_id, a.partition, a.generation, a.next_offset",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        let open = rows.into_iter().filter(|row| !done.contains(row));
        Ok(open
            .map(|(workspace, connection, partition, generation, next)| {
                let duty = duty((workspace, connection, partition));
                (duty, position(duty.partition, generation, next))
            })
            .collect())
    }
}

fn unread(workspace: WorkspaceId, row: UnreadRow) -> Unread {
    let (connection, partition, generation, next, until_generation, until, events, unresolved) = row;
    let duty = duty((workspace.0, connection, partition));
    Unread {
        duty,
        next: position(duty.partition, generation, next),
        until: position(duty.partition, until_generation, until),
        events: events.cast_unsigned(),
        unresolved: unresolved.cast_unsigned(),
    }
}

fn duty((workspace, connection, partition): (i64, i64, i32)) -> Duty {
    Duty {
        workspace: WorkspaceId(workspace),
        connection: ConnectionId(connection),
        partition: Partition(partition.cast_unsigned()),
    }
}

fn position(partition: Partition, generation: i32, next: i64) -> Position {
    Position::new(generation.cast_unsigned(), partition.0, next.cast_unsigned())
}
