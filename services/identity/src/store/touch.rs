//! Times and click ids: what may be written without a lock, because it changes nobody's profile.
//!
//! Rows are written in key order, so two processes that touch the same ones wait and do not deadlock. Click ids count the
//! version of their components (`0006_click_versions.sql`), and so wait for whoever recomputes one.

use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx as _};
use sqlx::{PgConnection, PgExecutor};
use tracklayer_ids::{SourceId, WorkspaceId};

use super::record::LOCK_TIMEOUT;
use super::{Store, bytes};
use crate::click_ids::{ClickKind, Sighting};
use crate::difference::ComponentId;
use crate::error::StoreError;
use crate::identifier::ValueMac;
use crate::memory::FastMap;
use crate::metrics;

/// How often click ids are written again that somebody else's were in the way of.
const TRIES: u32 = 5;

/// A pair as one source saw it in one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenPair<'e> {
    /// Lower hash.
    pub a: ValueMac,
    /// Higher hash.
    pub b: ValueMac,
    /// Who saw it.
    pub source: SourceId,
    /// Earliest sight in the batch.
    pub first_seen: Timestamp,
    /// Latest sight in the batch.
    pub last_seen: Timestamp,
    /// The event of the first sight.
    pub message_id: &'e str,
}

/// A component of which click ids were written. All else about it is what it was at the version before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub component: ComponentId,
    /// Its version when it was locked.
    pub before: i64,
    /// Its version now.
    pub after: i64,
}

impl Store {
    /// Notes that known pairs were seen again, or by another source. Safe to repeat.
    ///
    /// # Errors
    /// The database.
    pub async fn touch(&self, workspace: WorkspaceId, pairs: &[SeenPair<'_>]) -> Result<(), StoreError> {
        if pairs.is_empty() {
            return Ok(());
        }
        insert_links(&self.pool, workspace, pairs).await.map_err(StoreError::of("note that links were seen"))
    }

    /// Keeps sightings of click ids, the later of each kind. Answers with the components that they are seen in. Safe to repeat.
    ///
    /// # Errors
    /// The database.
    pub async fn keep_clicks(
        &self,
        workspace: WorkspaceId,
        clicks: &[(ValueMac, ClickKind, &Sighting)],
    ) -> Result<Vec<Seen>, StoreError> {
        if clicks.is_empty() {
            return Ok(Vec::new());
        }
        let mut tries = 0;
        loop {
            match self.try_keep_clicks(workspace, clicks).await {
                Ok(seen) => return Ok(seen),
                Err(error) if tries < TRIES && why_again(&error).is_some() => {
                    metrics::retried(why_again(&error).unwrap_or_default());
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..2 << tries))).await;
                }
                Err(error) => return Err(StoreError::of("keep click ids")(error)),
            }
        }
    }

    /// The components whose versions change by it are locked first, in the order in which everybody locks them: what is
    /// inserted and what is updated would each lock its own. They are asked for by an array: a join would be planned for the
    /// few rows that a new workspace seems to have, and read all of its components.
    async fn try_keep_clicks(
        &self,
        workspace: WorkspaceId,
        clicks: &[(ValueMac, ClickKind, &Sighting)],
    ) -> Result<Vec<Seen>, sqlx::Error> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        sqlx::query("select set_config('lock_timeout', $1, true)")
            .bind(LOCK_TIMEOUT)
            .execute(&mut *transaction)
            .await?;
        let before: Vec<(i64, i64)> = sqlx::query_as(
            "select c.component_id, c.version from identity.component c
             where c.workspace_id = $1 and c.component_id = any(array(
                 select distinct i.component_id
                 from unnest($2::bytea[]) as x(mac)
                 cross join lateral (
                     select i.component_id from identity.identifier i
                     where i.workspace_id = $1 and i.value_mac = x.mac limit 1
                 ) i
             ))
             order by c.component_id for no key update",
        )
        .bind(workspace.0)
        .bind(bytes(clicks.iter().map(|(mac, _, _)| mac)))
        .fetch_all(&mut *transaction)
        .await?;
        insert_clicks(&mut *transaction, workspace, clicks).await?;
        let after = versions(&mut transaction, workspace, &before).await?;
        transaction.commit().await?;
        let seen = before.into_iter().filter_map(|(component, before)| {
            Some(Seen { component: ComponentId(component), before, after: *after.get(&component)? })
        });
        Ok(seen.collect())
    }
}

/// The versions of components by now.
async fn versions(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    components: &[(i64, i64)],
) -> Result<FastMap<i64, i64>, sqlx::Error> {
    if components.is_empty() {
        return Ok(FastMap::default());
    }
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "select c.component_id, c.version from identity.component c
         where c.workspace_id = $1 and c.component_id = any($2)",
    )
    .bind(workspace.0)
    .bind(components.iter().map(|(component, _)| *component).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Why a statement may come through when it is tried again; none: it will not.
fn why_again(error: &sqlx::Error) -> Option<&'static str> {
    match error.as_database_error()?.code()?.as_ref() {
        // An identifier that came or moved between the lock and the write.
        "40P01" => Some("deadlock"),
        "55P03" => Some("lock_timeout"),
        _ => None,
    }
}

async fn insert_clicks(
    executor: impl PgExecutor<'_>,
    workspace: WorkspaceId,
    clicks: &[(ValueMac, ClickKind, &Sighting)],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into identity.click_id (workspace_id, value_mac, kind, value, first_seen, last_seen)
         select $1, x.mac, x.kind, x.value, x.first_seen, x.last_seen
         from unnest($2::bytea[], $3::int2[], $4::text[], $5::timestamptz[], $6::timestamptz[])
             as x(mac, kind, value, first_seen, last_seen)
         order by x.mac, x.kind
         on conflict (workspace_id, value_mac, kind) do update set
             value = excluded.value,
             first_seen = case when click_id.value = excluded.value
                 then least(click_id.first_seen, excluded.first_seen) else excluded.first_seen end,
             last_seen = greatest(click_id.last_seen, excluded.last_seen)
         where click_id.value = excluded.value
            or (excluded.last_seen, excluded.value) > (click_id.last_seen, click_id.value)",
    )
    .bind(workspace.0)
    .bind(bytes(clicks.iter().map(|(mac, _, _)| mac)))
    .bind(clicks.iter().map(|(_, kind, _)| *kind as i16).collect::<Vec<_>>())
    .bind(clicks.iter().map(|(_, _, seen)| seen.value.as_str()).collect::<Vec<_>>())
    .bind(clicks.iter().map(|(_, _, seen)| seen.first_seen.to_sqlx()).collect::<Vec<_>>())
    .bind(clicks.iter().map(|(_, _, seen)| seen.last_seen.to_sqlx()).collect::<Vec<SqlTimestamp>>())
    .execute(executor)
    .await?;
    Ok(())
}

/// Writes evidence of distinct (pair, source).
pub(super) async fn insert_links(
    executor: impl PgExecutor<'_>,
    workspace: WorkspaceId,
    pairs: &[SeenPair<'_>],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into identity.link (workspace_id, a_mac, b_mac, source_id, first_seen, last_seen, first_message_id)
         select $1, x.a, x.b, x.source, x.first_seen, x.last_seen, x.message_id
         from unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], $7::text[])
             as x(a, b, source, first_seen, last_seen, message_id)
         order by x.a, x.b, x.source
         on conflict (workspace_id, a_mac, b_mac, source_id) do update set
             first_message_id = case when excluded.first_seen < link.first_seen
                 then excluded.first_message_id else link.first_message_id end,
             first_seen = least(link.first_seen, excluded.first_seen),
             last_seen = greatest(link.last_seen, excluded.last_seen)",
    )
    .bind(workspace.0)
    .bind(bytes(pairs.iter().map(|p| &p.a)))
    .bind(bytes(pairs.iter().map(|p| &p.b)))
    .bind(pairs.iter().map(|p| p.source.0).collect::<Vec<_>>())
    .bind(pairs.iter().map(|p| p.first_seen.to_sqlx()).collect::<Vec<SqlTimestamp>>())
    .bind(pairs.iter().map(|p| p.last_seen.to_sqlx()).collect::<Vec<SqlTimestamp>>())
    .bind(pairs.iter().map(|p| p.message_id).collect::<Vec<_>>())
    .execute(executor)
    .await?;
    Ok(())
}
