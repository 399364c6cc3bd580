//! Table `ingest.shopify_order`.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgPool;
use tracklayer_ids::{SourceId, WorkspaceId};

/// Keeps what is known of an order; where something was known before, what `merge` makes of that. An order that comes again as it was is
/// written again once a day, so that it is not forgotten.
///
/// # Errors
/// The database.
pub async fn keep(
    pool: &PgPool,
    (workspace, source): (WorkspaceId, SourceId),
    order: &str,
    known: &str,
    merge: impl FnOnce(&str) -> String + Send,
) -> Result<(), sqlx::Error> {
    let mut transaction = tracklayer_postgres::begin(pool).await?;
    // Waits for whoever inserts the same order just now.
    let inserted = sqlx::query(
        "insert into ingest.shopify_order (workspace_id, source_id, order_id, known) values ($1, $2, $3, $4)
         on conflict on constraint shopify_order_pkey do nothing",
    )
    .bind(workspace.0)
    .bind(source.0)
    .bind(order)
    .bind(known)
    .execute(&mut *transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        let before: Option<String> = sqlx::query_scalar(
            "select known from ingest.shopify_order where workspace_id = $1 and source_id = $2 and order_id = $3 for update",
        )
        .bind(workspace.0)
        .bind(source.0)
        .bind(order)
        .fetch_optional(&mut *transaction)
        .await?;
        let merged = before.map_or_else(|| known.to_owned(), |before| merge(&before));
        sqlx::query(
            "insert into ingest.shopify_order as old (workspace_id, source_id, order_id, known) values ($1, $2, $3, $4)
             on conflict on constraint shopify_order_pkey
             do update set known = excluded.known, seen_at = excluded.seen_at
             where old.known <> excluded.known or old.seen_at < now() - interval '1 day'",
        )
        .bind(workspace.0)
        .bind(source.0)
        .bind(order)
        .bind(merged)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// What is known of an order.
///
/// # Errors
/// The database.
pub async fn select(
    pool: &PgPool,
    (workspace, source): (WorkspaceId, SourceId),
    order: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select known from ingest.shopify_order where workspace_id = $1 and source_id = $2 and order_id = $3",
    )
    .bind(workspace.0)
    .bind(source.0)
    .bind(order)
    .fetch_optional(pool)
    .await
}

/// Deletes what was seen last before an instant; how many.
///
/// # Errors
/// The database.
pub async fn delete_before(pool: &PgPool, before: Timestamp) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query("delete from ingest.shopify_order where seen_at < $1")
        .bind(before.to_sqlx())
        .execute(pool)
        .await?;
    Ok(deleted.rows_affected())
}
