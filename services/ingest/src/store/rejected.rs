//! Table `ingest.rejected`.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgPool, Row as _};
use tracklayer_ids::{SourceId, WorkspaceId};

/// A rejected event as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// Source that sent it.
    pub source: SourceId,
    /// When it was received.
    pub received_at: Timestamp,
    /// Its id, if it had one.
    pub message_id: String,
    /// From the closed list.
    pub code: String,
    /// Path of the field.
    pub field: String,
    /// For people.
    pub reason: String,
    /// The first bytes of what came.
    pub raw: Vec<u8>,
}

/// Keeps rows of one workspace, in one statement.
///
/// # Errors
/// The database.
pub async fn insert(pool: &PgPool, workspace: WorkspaceId, rows: &[RejectedRow]) -> Result<(), sqlx::Error> {
    let sources: Vec<i64> = rows.iter().map(|r| r.source.0).collect();
    let received: Vec<jiff_sqlx::Timestamp> = rows.iter().map(|r| r.received_at.to_sqlx()).collect();
    let message_ids: Vec<&str> = rows.iter().map(|r| r.message_id.as_str()).collect();
    let codes: Vec<&str> = rows.iter().map(|r| r.code.as_str()).collect();
    let fields: Vec<&str> = rows.iter().map(|r| r.field.as_str()).collect();
    let reasons: Vec<&str> = rows.iter().map(|r| r.reason.as_str()).collect();
    let raws: Vec<&[u8]> = rows.iter().map(|r| r.raw.as_slice()).collect();
    sqlx::query(
        "insert into ingest.rejected (workspace_id, source_id, received_at, message_id, code, field, reason, raw)
         select $1, u.* from unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[],
             $8::bytea[]) as u",
    )
    .bind(workspace.0)
    .bind(sources)
    .bind(received)
    .bind(message_ids)
    .bind(codes)
    .bind(fields)
    .bind(reasons)
    .bind(raws)
    .execute(pool)
    .await?;
    Ok(())
}

/// The newest rows of a workspace, newest first.
///
/// # Errors
/// The database.
pub async fn newest(
    pool: &PgPool,
    workspace: WorkspaceId,
    limit: i64,
) -> Result<Vec<RejectedRow>, sqlx::Error> {
    let rows = sqlx::query(
        "select source_id, received_at, message_id, code, field, reason, raw
         from ingest.rejected where workspace_id = $1 order by rejected_id desc limit $2",
    )
    .bind(workspace.0)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(RejectedRow {
                source: SourceId(row.try_get("source_id")?),
                received_at: row.try_get::<jiff_sqlx::Timestamp, _>("received_at")?.to_jiff(),
                message_id: row.try_get("message_id")?,
                code: row.try_get("code")?,
                field: row.try_get("field")?,
                reason: row.try_get("reason")?,
                raw: row.try_get("raw")?,
            })
        })
        .collect()
}

/// Deletes what was received before an instant; how many.
///
/// # Errors
/// The database.
pub async fn delete_before(pool: &PgPool, before: Timestamp) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query("delete from ingest.rejected where received_at < $1")
        .bind(before.to_sqlx())
        .execute(pool)
        .await?;
    Ok(deleted.rows_affected())
}
