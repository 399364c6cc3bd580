//! What may be given back: the least of all cursors of a partition, and the days of `delivery.resolved`.

use sqlx::{PgConnection, PgPool};
use tracklayer_ids::{ConnectionId, Partition, Position, WorkspaceId};
use tracklayer_journal::Place;

use super::{StoreError, attempting};

/// SQLSTATE of a lock that was not to be had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// SQLSTATE of a row that came to the default partition while the day's own was made.
const CHECK_VIOLATION: &str = "23514";

/// A cursor that a day waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The day, as in 2026-01-31.
    pub day: String,
    /// Whose events it holds.
    pub workspace: WorkspaceId,
    /// Of which lane; none: resolve itself has not read them.
    pub connection: Option<ConnectionId>,
    /// Partition of the workspace.
    pub partition: Partition,
}

/// Where a day of `received` ends in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayEnd {
    /// The day, as in 2026-01-31.
    pub day: String,
    /// Whether nothing is received in it any more.
    pub over: bool,
    /// Behind its last event.
    pub end: Position,
}

/// Statements on what is given back.
#[derive(Debug, Clone)]
pub struct RetentionStore {
    pool: PgPool,
}

impl RetentionStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Lets one process of the installation give back at a time; none: another does. The lock is the returned connection's,
    /// which is out of the pool, so that it goes with it however this ends.
    ///
    /// # Errors
    /// The database.
    pub async fn lock(&self) -> Result<Option<PgConnection>, StoreError> {
        let what = attempting("lock what is given back");
        let mut connection = self.pool.acquire().await.map_err(&what)?.detach();
        let (locked,): (bool,) =
            sqlx::query_as("select pg_try_advisory_lock(hashtext('delivery.retention'))")
                .fetch_one(&mut connection)
                .await
                .map_err(&what)?;
        Ok(locked.then_some(connection))
    }

    /// For each partition of the journal in PostgreSQL the least of where resolve stands and where the lanes of these
    /// connections do, and those that somebody holds, who may know of a connection that was made a moment ago. The lane of any
    /// other connection holds nothing back: nobody will ever move it. Of a partition that resolve has not begun it is the
    /// beginning.
    ///
    /// # Errors
    /// The database.
    pub async fn least_places(
        &self,
        connections: &[(WorkspaceId, ConnectionId)],
    ) -> Result<Vec<(WorkspaceId, Place)>, StoreError> {
        let rows: Vec<(i64, i32, i32, i64)> = sqlx::query_as(
            "select h.workspace_id, h.partition, lowest.generation, lowest.next_offset
             from journal.head h
             left join delivery.resolve_cursor c on c.workspace_id = h.workspace_id and c.partition = h.partition
             cross join lateral (
                 select generation, next_offset from (
                     select coalesce(c.generation, 1) as generation, coalesce(c.next_offset, 0) as next_offset
                     union all
                     select l.generation, l.next_offset
                     from delivery.lane_cursor l
                     where l.workspace_id = h.workspace_id and l.partition = h.partition
                       and (l.workspace_id, l.connection_id) in (select * from unnest($1::bigint[], $2::bigint[]))
                     union all
                     select l.generation, l.next_offset
                     from delivery.lease e
                     join delivery.lane_cursor l
                       on l.workspace_id = e.workspace_id and l.connection_id = e.connection_id and l.partition = e.partition
                     where e.workspace_id = h.workspace_id and e.partition = h.partition
                       and e.holder is not null and e.expires_at >= now()
                 ) as cursors
                 order by generation, next_offset limit 1
             ) as lowest
             order by h.workspace_id, h.partition",
        )
        .bind(connections.iter().map(|connection| connection.0.0).collect::<Vec<_>>())
        .bind(connections.iter().map(|connection| connection.1.0).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("find the least of the cursors"))?;
        Ok(rows
            .into_iter()
            .map(|(workspace, partition, generation, next)| {
                let (partition, next) = (partition.cast_unsigned(), next.cast_unsigned());
                let at = Position::new(generation.cast_unsigned(), partition, next);
                (WorkspaceId(workspace), at.into())
            })
            .collect())
    }

    /// The first cursor, of resolve or of the lanes of these connections, that has not read a day of `received` to its end.
    ///
    /// # Errors
    /// The database.
    pub async fn holder(
        &self,
        day: String,
        connections: &[(WorkspaceId, ConnectionId)],
    ) -> Result<Option<Holder>, StoreError> {
        let row: Option<(i64, Option<i64>, i32)> = sqlx::query_as(
            "select h.workspace_id, cursors.connection_id, h.partition
             from journal.head h
             cross join lateral (
                 -- Offsets rise, so that the last block of a partition speaks for all of them.
                 select r.generation, r.base_offset + r.event_count as behind from journal.received r
                 where r.workspace_id = h.workspace_id and r.partition = h.partition and r.appended_on = $3::text::date
                 order by r.generation desc, r.base_offset desc limit 1
             ) as last
             left join delivery.resolve_cursor c on c.workspace_id = h.workspace_id and c.partition = h.partition
             cross join lateral (
                 select null::bigint as connection_id, coalesce(c.generation, 1) as generation,
                        coalesce(c.next_offset, 0) as next_offset
                 union all
                 select l.connection_id, l.generation, l.next_offset
                 from unnest($1::bigint[], $2::bigint[]) as u (w, c)
                 join delivery.lane_cursor l
                   on l.workspace_id = u.w and l.connection_id = u.c and l.partition = h.partition
                 where u.w = h.workspace_id
             ) as cursors
             where (last.generation, last.behind) > (cursors.generation, cursors.next_offset)
             order by h.workspace_id, h.partition, cursors.connection_id nulls first limit 1",
        )
        .bind(connections.iter().map(|connection| connection.0.0).collect::<Vec<_>>())
        .bind(connections.iter().map(|connection| connection.1.0).collect::<Vec<_>>())
        .bind(&day)
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("find what a day waits for"))?;
        Ok(row.map(|(workspace, connection, partition)| Holder {
            day,
            workspace: WorkspaceId(workspace),
            connection: connection.map(ConnectionId),
            partition: Partition(partition.cast_unsigned()),
        }))
    }

    /// Where the days of a workspace's `received` end, by day and partition.
    ///
    /// # Errors
    /// The database.
    pub async fn day_ends(&self, workspace: WorkspaceId) -> Result<Vec<DayEnd>, StoreError> {
        let rows: Vec<(String, bool, i32, i32, i64)> = sqlx::query_as(
            "select distinct on (appended_on, partition)
                    appended_on::text, appended_on < (now() at time zone 'utc')::date, partition, generation,
                    base_offset + event_count
             from journal.received where workspace_id = $1
             order by appended_on, partition, generation desc, base_offset desc",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("see where days end"))?;
        let day_end = |(day, over, partition, generation, end): (String, bool, i32, i32, i64)| {
            let (generation, partition) = (generation.cast_unsigned(), partition.cast_unsigned());
            DayEnd { day, over, end: Position::new(generation, partition, end.cast_unsigned()) }
        };
        Ok(rows.into_iter().map(day_end).collect())
    }

    /// Makes the partitions of `delivery.resolved` for today and the coming days, or leaves it to a later call.
    ///
    /// # Errors
    /// The database.
    pub async fn ensure_days(&self, days_ahead: i32) -> Result<(), StoreError> {
        let made = sqlx::query("select delivery.ensure_days($1)").bind(days_ahead).execute(&self.pool).await;
        match made {
            Err(error) if has_code(&error, &[LOCK_NOT_AVAILABLE, CHECK_VIOLATION]) => Ok(()),
            made => made.map(drop).map_err(attempting("make the days of what is resolved")),
        }
    }

    /// Drops days of `delivery.resolved` that ended before a time and are behind these places, the oldest first. A long read is
    /// not made to wait, nor those behind it: what could not be locked at once is left for a later call. Answers how many were
    /// dropped.
    ///
    /// # Errors
    /// The database. What was dropped until then is.
    pub async fn drop_settled_days(
        &self,
        before: jiff::Timestamp,
        behind: &[(WorkspaceId, Place)],
    ) -> Result<usize, StoreError> {
        let mut dropped = 0;
        loop {
            let name: Result<Option<String>, sqlx::Error> =
                sqlx::query_scalar("select delivery.drop_settled_day($1, $2, $3, $4, $5)")
                    .bind(jiff_sqlx::Timestamp::from(before))
                    .bind(behind.iter().map(|b| b.0.0).collect::<Vec<_>>())
                    .bind(behind.iter().map(|b| b.1.at.partition.0.cast_signed()).collect::<Vec<_>>())
                    .bind(behind.iter().map(|b| b.1.at.generation.0.cast_signed()).collect::<Vec<_>>())
                    .bind(behind.iter().map(|b| b.1.at.offset.0.cast_signed()).collect::<Vec<_>>())
                    .fetch_one(&self.pool)
                    .await;
            match name {
                Err(error) if has_code(&error, &[LOCK_NOT_AVAILABLE]) => return Ok(dropped),
                Err(error) => return Err(attempting("drop a day of what is resolved")(error)),
                Ok(None) => return Ok(dropped),
                Ok(Some(table)) => {
                    tracing::info!(table, "a day of what is resolved was dropped");
                    dropped += 1;
                }
            }
        }
    }
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(|e| e.code());
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_cursor_that_a_day_waits_for_is_named() {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &crate::MIGRATOR),
        ])
        .await;
        let run =
            async |sql: &'static str| sqlx::raw_sql(sql).execute(&database.pool).await.map(drop).unwrap();
        let store = RetentionStore::new(database.pool.clone());
        let lanes = [(WorkspaceId(1), ConnectionId(7)), (WorkspaceId(1), ConnectionId(8))];
        let named = async |lanes: &[(WorkspaceId, ConnectionId)]| {
            let holder = store.holder("2020-01-01".to_owned(), lanes).await.unwrap();
            holder.map(|holder| (holder.workspace.0, holder.connection.map(|id| id.0), holder.partition.0))
        };
        run(
            "create table journal.received_20200101 partition of journal.received
                 for values from ('2020-01-01') to ('2020-01-02');
             insert into journal.received values (1, 3, 1, 0, 5, '2020-01-01', default, '', '');
             insert into journal.head (workspace_id, partition, generation, next_offset) values (1, 3, 1, 5)",
        )
        .await;
        assert_eq!(named(&lanes).await, Some((1, None, 3)), "nobody has begun");
        run("insert into delivery.resolve_cursor values (1, 3, 1, 5);
             insert into delivery.lane_cursor values (1, 7, 3, 1, 0, 1, 5), (1, 8, 3, 1, 0, 1, 4)")
        .await;
        assert_eq!(named(&lanes).await, Some((1, Some(8), 3)));
        assert_eq!(named(&lanes[..1]).await, None, "a connection that was removed holds nothing");
        run("update delivery.lane_cursor set next_offset = 5").await;
        assert_eq!(named(&lanes).await, None);
    }
}
