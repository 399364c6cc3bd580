//! Members and leases. Times are PostgreSQL's clock.

use std::time::Duration;

use sqlx::PgPool;
use tracklayer_ids::{ConnectionId, Partition, WorkspaceId};
use tracklayer_journal::Kind;
use uuid::Uuid;

use super::{StoreError, attempting};
use crate::lease::Duty;

/// Statements on `delivery.member` and `delivery.lease`.
#[derive(Debug, Clone)]
pub struct LeaseStore {
    pool: PgPool,
    journal: Kind,
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Members {
    /// Processes that live, the asking one included.
    pub count: usize,
    /// The least feature level of all that may still read.
    pub level: u32,
}

type Columns = (Vec<i64>, Vec<i64>, Vec<i32>);

fn columns<'a>(duties: impl Iterator<Item = &'a Duty>) -> Columns {
    let mut columns = Columns::default();
    for duty in duties {
        columns.0.push(duty.workspace.0);
        columns.1.push(duty.connection.0);
        columns.2.push(duty.partition.0.cast_signed());
    }
    columns
}

fn duty(row: (i64, i64, i32)) -> Duty {
    Duty {
        workspace: WorkspaceId(row.0),
        connection: ConnectionId(row.1),
        partition: Partition(row.2.cast_unsigned()),
    }
}

impl LeaseStore {
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

    /// The history of the database that is written to; begins it, if nobody has.
    ///
    /// # Errors
    /// The database.
    pub async fn history(&self) -> Result<Uuid, StoreError> {
        // Over Kafka no position is given out by the database: what was resolved and lost is read again, and numbered as before.
        sqlx::query_scalar("select journal.renew($1)")
            .bind(self.journal == Kind::Postgres)
            .fetch_one(&self.pool)
            .await
            .map_err(attempting("look which history the database has"))
    }

    /// Says that the process lives and what it can read, forgets those that do not live, and counts the members.
    ///
    /// # Errors
    /// The database.
    pub async fn announce(&self, process: Uuid, level: u32, ttl: Duration) -> Result<Members, StoreError> {
        let (others, least): (i64, Option<i32>) = sqlx::query_as(
            "with gone as (
                 delete from delivery.member where process <> $1 and seen_at < now() - 3 * $2::interval
             ), me as (
                 insert into delivery.member (process, seen_at, feature_level) values ($1, now(), $3)
                 on conflict (process) do update set seen_at = now()
             )
             select count(*) filter (where seen_at >= now() - $2::interval), min(feature_level)
             from delivery.member where process <> $1 and seen_at >= now() - 3 * $2::interval",
        )
        .bind(process)
        .bind(ttl)
        .bind(level.cast_signed())
        .fetch_one(&self.pool)
        .await
        .map_err(attempting("announce the process"))?;
        Ok(Members {
            count: usize::try_from(others).unwrap_or(0) + 1,
            level: least.map_or(level, |least| level.min(least.cast_unsigned())),
        })
    }

    /// Ends the membership.
    ///
    /// # Errors
    /// The database.
    pub async fn leave(&self, process: Uuid) -> Result<(), StoreError> {
        sqlx::query("delete from delivery.member where process = $1")
            .bind(process)
            .execute(&self.pool)
            .await
            .map_err(attempting("end the membership"))?;
        Ok(())
    }

    /// Renews leases; answers those that are still this process's.
    ///
    /// # Errors
    /// The database.
    pub async fn renew(
        &self,
        process: Uuid,
        ttl: Duration,
        duties: &[(Duty, i64)],
    ) -> Result<Vec<Duty>, StoreError> {
        let (workspaces, connections, partitions) = columns(duties.iter().map(|d| &d.0));
        let epochs: Vec<i64> = duties.iter().map(|d| d.1).collect();
        let rows = sqlx::query_as(
            "update delivery.lease l set expires_at = now() + $6::interval
             from unnest($2::bigint[], $3::bigint[], $4::integer[], $5::bigint[]) as w (w, c, p, e)
             where l.workspace_id = w.w and l.connection_id = w.c and l.partition = w.p
               and l.epoch = w.e and l.holder = $1
             returning l.workspace_id, l.connection_id, l.partition",
        )
        .bind(process)
        .bind(workspaces)
        .bind(connections)
        .bind(partitions)
        .bind(epochs)
        .bind(ttl)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("renew leases"))?;
        Ok(rows.into_iter().map(duty).collect())
    }

    /// Takes up to `room` of those that nobody holds or whose holder let them run out; each gets the next epoch. Locked `for update`
    /// before: commits of an earlier holder would take no notice of an epoch that was only updated (`super::fence`).
    ///
    /// # Errors
    /// The database.
    pub async fn take_free(
        &self,
        process: Uuid,
        ttl: Duration,
        duties: &[Duty],
        room: usize,
    ) -> Result<Vec<(Duty, i64)>, StoreError> {
        let (workspaces, connections, partitions) = columns(duties.iter());
        sqlx::query(
            "insert into delivery.lease (workspace_id, connection_id, partition, holder, epoch, expires_at)
             select w, c, p, null, 0, now() from unnest($1::bigint[], $2::bigint[], $3::integer[]) as w (w, c, p)
             order by w, c, p on conflict do nothing",
        )
        .bind(&workspaces)
        .bind(&connections)
        .bind(&partitions)
        .execute(&self.pool)
        .await
        .map_err(attempting("make leases"))?;
        let rows: Vec<(i64, i64, i32, i64)> = sqlx::query_as(
            "with free as (
                 select l.workspace_id, l.connection_id, l.partition
                 from delivery.lease l
                 join unnest($2::bigint[], $3::bigint[], $4::integer[]) as w (w, c, p)
                   on l.workspace_id = w.w and l.connection_id = w.c and l.partition = w.p
                 where l.holder is null or l.expires_at < now()
                 order by l.workspace_id, l.connection_id, l.partition
                 limit $5 for update of l skip locked
             )
             update delivery.lease l set holder = $1, epoch = l.epoch + 1, expires_at = now() + $6::interval
             from free f
             where l.workspace_id = f.workspace_id and l.connection_id = f.connection_id and l.partition = f.partition
             returning l.workspace_id, l.connection_id, l.partition, l.epoch",
        )
        .bind(process)
        .bind(workspaces)
        .bind(connections)
        .bind(partitions)
        .bind(i64::try_from(room).unwrap_or(i64::MAX))
        .bind(ttl)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("take leases"))?;
        Ok(rows.into_iter().map(|(w, c, p, epoch)| (duty((w, c, p)), epoch)).collect())
    }

    /// Gives leases back, if they are still those of these epochs.
    ///
    /// # Errors
    /// The database.
    pub async fn give_back(&self, process: Uuid, leases: &[(Duty, i64)]) -> Result<(), StoreError> {
        let (workspaces, connections, partitions) = columns(leases.iter().map(|l| &l.0));
        let epochs: Vec<i64> = leases.iter().map(|l| l.1).collect();
        sqlx::query(
            "update delivery.lease l set holder = null, expires_at = now()
             from unnest($2::bigint[], $3::bigint[], $4::integer[], $5::bigint[]) as w (w, c, p, e)
             where l.workspace_id = w.w and l.connection_id = w.c and l.partition = w.p
               and l.epoch = w.e and l.holder = $1",
        )
        .bind(process)
        .bind(workspaces)
        .bind(connections)
        .bind(partitions)
        .bind(epochs)
        .execute(&self.pool)
        .await
        .map_err(attempting("give leases back"))?;
        Ok(())
    }
}
