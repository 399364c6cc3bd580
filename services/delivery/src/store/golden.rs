//! Tables `delivery.golden_event` (events with the requests that they gave, sealed) and `delivery.golden_narrowing` (how far merges and
//! erasures have been applied to them: see [`super::filed`]).

use jiff::Timestamp;
use sqlx::PgPool;
use tracklayer_ids::{ConnectionId, SubjectKey, WorkspaceId};

use super::filed::{Filed, GOLDEN_EVENTS, bytes};
use super::{StoreError, attempting};

/// One golden event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldenRow {
    /// From 1.
    pub number: u32,
    /// The clock that its request is built by.
    pub clock: Timestamp,
    /// When it was frozen; set by the database.
    pub frozen_at: Timestamp,
    /// With which release.
    pub version: String,
    /// With which change of the connection.
    pub revision: u64,
    /// Input and request, sealed.
    pub sealed: String,
    /// Whose it is.
    pub subject_keys: Vec<SubjectKey>,
}

/// Golden events.
#[derive(Debug, Clone)]
pub struct GoldenStore {
    pool: PgPool,
}

/// Keys of many rows, as columns: the row's number and one of its keys.
fn columns(rows: &[GoldenRow]) -> (Vec<i32>, Vec<Vec<u8>>) {
    let of_row = |row: &GoldenRow| {
        let number = row.number.cast_signed();
        bytes(&row.subject_keys).into_iter().map(move |key| (number, key)).collect::<Vec<_>>()
    };
    rows.iter().flat_map(of_row).unzip()
}

impl GoldenStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Puts these in the place of all golden events of a connection. `reached`: a number that the narrowing log had come to before it was
    /// asked whose they are. `false`: later ones were applied for good already, and nothing was written; whose they are has to be asked
    /// again.
    ///
    /// # Errors
    /// The database.
    pub async fn replace(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        reached: i64,
        rows: &[GoldenRow],
    ) -> Result<bool, StoreError> {
        let what = attempting("freeze golden events");
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        sqlx::query(
            "insert into delivery.golden_narrowing (workspace_id, seen_seq) values ($1, $2)
             on conflict on constraint golden_narrowing_pkey do nothing",
        )
        .bind(workspace.0)
        .bind(reached)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        // What is applied waits for this to end, and two who freeze the same connection for each other.
        let seen: i64 = sqlx::query_scalar(
            "select seen_seq from delivery.golden_narrowing where workspace_id = $1 for update",
        )
        .bind(workspace.0)
        .fetch_one(&mut *tx)
        .await
        .map_err(&what)?;
        if reached < seen {
            return Ok(false);
        }
        sqlx::query("delete from delivery.golden_event where workspace_id = $1 and connection_id = $2")
            .bind(workspace.0)
            .bind(connection.0)
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        let (numbers, keys) = columns(rows);
        sqlx::query(
            "with subject as (
                 select s.number, array_agg(s.key) as keys
                 from unnest($8::integer[], $9::bytea[]) as s (number, key) group by s.number
             )
             insert into delivery.golden_event
                 (workspace_id, connection_id, number, clock, version, revision, sealed, subject_keys)
             select $1, $2, u.number, u.clock, u.version, u.revision, u.sealed, subject.keys
             from unnest($3::integer[], $4::timestamptz[], $5::text[], $6::bigint[], $7::text[])
                 as u (number, clock, version, revision, sealed)
             join subject using (number)",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(rows.iter().map(|row| row.number.cast_signed()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| jiff_sqlx::Timestamp::from(row.clock)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.version.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.revision.cast_signed()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sealed.as_str()).collect::<Vec<_>>())
        .bind(numbers)
        .bind(keys)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        tx.commit().await.map_err(&what)?;
        Ok(true)
    }

    /// The golden events of a connection, in their order.
    ///
    /// # Errors
    /// The database.
    pub async fn of_connection(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
    ) -> Result<Vec<GoldenRow>, StoreError> {
        type Row = (i32, jiff_sqlx::Timestamp, jiff_sqlx::Timestamp, String, i64, String, Vec<Vec<u8>>);
        let rows: Vec<Row> = sqlx::query_as(
            "select number, clock, frozen_at, version, revision, sealed, subject_keys from delivery.golden_event
             where workspace_id = $1 and connection_id = $2 order by number",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read golden events"))?;
        let golden = |(number, clock, frozen_at, version, revision, sealed, keys): Row| GoldenRow {
            number: number.cast_unsigned(),
            clock: clock.to_jiff(),
            frozen_at: frozen_at.to_jiff(),
            version,
            revision: revision.cast_unsigned(),
            sealed,
            subject_keys: keys.iter().filter_map(|key| SubjectKey::from_slice(key)).collect(),
        };
        Ok(rows.into_iter().map(golden).collect())
    }

    /// Freezes some of them anew: those that are still what was read (`was`, sealed) get what stands in the new rows. Answers how many.
    ///
    /// # Errors
    /// The database.
    pub async fn freeze_anew(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        was: &[String],
        rows: &[GoldenRow],
    ) -> Result<u64, StoreError> {
        let frozen = sqlx::query(
            "update delivery.golden_event g
             set sealed = u.sealed, version = u.version, revision = u.revision, frozen_at = now()
             from unnest($3::integer[], $4::text[], $5::text[], $6::text[], $7::bigint[])
                 as u (number, was, sealed, version, revision)
             where g.workspace_id = $1 and g.connection_id = $2 and g.number = u.number and g.sealed = u.was",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(rows.iter().map(|row| row.number.cast_signed()).collect::<Vec<_>>())
        .bind(was.to_vec())
        .bind(rows.iter().map(|row| row.sealed.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.version.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.revision.cast_signed()).collect::<Vec<_>>())
        .execute(&self.pool)
        .await
        .map_err(attempting("freeze golden events anew"))?;
        Ok(frozen.rows_affected())
    }

    /// Forgets those of a connection; answers how many.
    ///
    /// # Errors
    /// The database.
    pub async fn forget(&self, workspace: WorkspaceId, connection: ConnectionId) -> Result<u64, StoreError> {
        let gone =
            sqlx::query("delete from delivery.golden_event where workspace_id = $1 and connection_id = $2")
                .bind(workspace.0)
                .bind(connection.0)
                .execute(&self.pool)
                .await
                .map_err(attempting("forget golden events"))?;
        Ok(gone.rows_affected())
    }

    /// Whose they are, and how far narrowings were applied to them.
    #[must_use]
    pub fn filed(&self) -> Filed {
        Filed::new(self.pool.clone(), &GOLDEN_EVENTS)
    }
}
