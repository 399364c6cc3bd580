//! `control.source`.

use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, Row as _};
use tracklayer_ids::{Secret, SourceId, WorkspaceId};
use tracklayer_postgres::OnConstraint as _;

use super::workspaces::lock_workspace;
use super::{Store, signed, unsigned};
use crate::error::ControlError;
use crate::scope::KeyHash;
use crate::source::{Channel, DedupChange, NewSource, Source, hint_of};

impl Store {
    /// Makes a source with this write key, and its webhooks' settings with their secrets sealed.
    ///
    /// # Errors
    /// [`ControlError::NoWorkspace`], [`ControlError::NameTaken`], [`ControlError::WriteKeyTaken`], the database.
    pub async fn insert_source(
        &self,
        new: &NewSource,
        write_key: &Secret<String>,
        sealed_webhook: Option<String>,
    ) -> Result<Source, ControlError> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        lock_workspace(&mut transaction, new.workspace).await?;
        let inserted = sqlx::query(
            "insert into control.source
                 (workspace_id, name, write_key_sha256, write_key_hint, channel, default_place, user_id_type,
                  dedup_ttl_seconds, banner_writes_defaults, dedup_by_order_id, max_events_per_second, webhook)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::json)
             returning workspace_id, source_id, name, write_key_sha256, write_key_hint, channel, default_place,
                       user_id_type, enabled, dedup_ttl_seconds, banner_writes_defaults, dedup_by_order_id,
                       max_events_per_second, webhook::text as webhook",
        )
        .bind(new.workspace.0)
        .bind(new.name.as_str())
        .bind(KeyHash::of(write_key).0.as_slice())
        .bind(hint_of(write_key))
        .bind(new.channel.as_str())
        .bind(&new.default_place)
        .bind(&new.user_id_type)
        .bind(signed("dedup_ttl_seconds", new.dedup_ttl_seconds)?)
        .bind(new.banner_writes_defaults)
        .bind(new.dedup_by_order_id)
        .bind(signed_rate(new.max_events_per_second)?)
        .bind(sealed_webhook)
        .fetch_one(&mut *transaction)
        .await;
        let row = match inserted {
            Err(error) if tracklayer_postgres::constraint(&error) == Some("source_name_key") => {
                return Err(ControlError::NameTaken { what: "source", name: new.name.to_string() });
            }
            other => other.on_constraint("source_write_key_key", || ControlError::WriteKeyTaken)?,
        };
        let source = source_of(&row)?;
        transaction.commit().await?;
        Ok(source)
    }

    /// Changes how much a source may send.
    ///
    /// # Errors
    /// [`ControlError::NoSource`], the database.
    pub async fn update_source_rate(
        &self,
        workspace: WorkspaceId,
        source_id: SourceId,
        events_per_second: Option<u32>,
    ) -> Result<Source, ControlError> {
        let row = sqlx::query(
            "update control.source set max_events_per_second = $3 where workspace_id = $1 and source_id = $2
             returning workspace_id, source_id, name, write_key_sha256, write_key_hint, channel, default_place,
                       user_id_type, enabled, dedup_ttl_seconds, banner_writes_defaults, dedup_by_order_id,
                       max_events_per_second, webhook::text as webhook",
        )
        .bind(workspace.0)
        .bind(source_id.0)
        .bind(signed_rate(events_per_second)?)
        .fetch_optional(&self.pool)
        .await?;
        source_of(&row.ok_or(ControlError::NoSource { workspace, source_id })?)
    }

    /// Changes how a source's events are deduplicated.
    ///
    /// # Errors
    /// [`ControlError::NoSource`], the database.
    pub async fn update_source_dedup(
        &self,
        workspace: WorkspaceId,
        source_id: SourceId,
        change: DedupChange,
    ) -> Result<Source, ControlError> {
        let ttl = change.ttl_seconds.map(|seconds| signed("dedup_ttl_seconds", seconds)).transpose()?;
        let row = sqlx::query(
            "update control.source
             set dedup_ttl_seconds = coalesce($3, dedup_ttl_seconds),
                 dedup_by_order_id = coalesce($4, dedup_by_order_id)
             where workspace_id = $1 and source_id = $2
             returning workspace_id, source_id, name, write_key_sha256, write_key_hint, channel, default_place,
                       user_id_type, enabled, dedup_ttl_seconds, banner_writes_defaults, dedup_by_order_id,
                       max_events_per_second, webhook::text as webhook",
        )
        .bind(workspace.0)
        .bind(source_id.0)
        .bind(ttl)
        .bind(change.by_order_id)
        .fetch_optional(&self.pool)
        .await?;
        source_of(&row.ok_or(ControlError::NoSource { workspace, source_id })?)
    }

    /// Changes which webhooks a source takes: `change` gets the source as it is, locked, and gives the settings, secrets sealed.
    ///
    /// # Errors
    /// [`ControlError::NoSource`], what `change` says, the database.
    pub async fn update_source_webhook(
        &self,
        workspace: WorkspaceId,
        source_id: SourceId,
        change: impl FnOnce(&Source) -> Result<Option<String>, ControlError>,
    ) -> Result<Source, ControlError> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        let saved = sqlx::query(
            "select workspace_id, source_id, name, write_key_sha256, write_key_hint, channel, default_place,
                    user_id_type, enabled, dedup_ttl_seconds, banner_writes_defaults, dedup_by_order_id,
                    max_events_per_second, webhook::text as webhook
             from control.source where workspace_id = $1 and source_id = $2 for update",
        )
        .bind(workspace.0)
        .bind(source_id.0)
        .fetch_optional(&mut *transaction)
        .await?;
        let mut source = source_of(&saved.ok_or(ControlError::NoSource { workspace, source_id })?)?;
        let sealed = change(&source)?;
        sqlx::query(
            "update control.source set webhook = $3::text::json where workspace_id = $1 and source_id = $2",
        )
        .bind(workspace.0)
        .bind(source_id.0)
        .bind(&sealed)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        source.sealed_webhook = sealed;
        Ok(source)
    }

    /// A workspace's sources, ascending by id; none if there is no such workspace.
    ///
    /// # Errors
    /// The database.
    pub async fn sources(&self, workspace: WorkspaceId) -> Result<Vec<Source>, ControlError> {
        let rows = sqlx::query(
            "select workspace_id, source_id, name, write_key_sha256, write_key_hint, channel, default_place,
                    user_id_type, enabled, dedup_ttl_seconds, banner_writes_defaults, dedup_by_order_id,
                    max_events_per_second, webhook::text as webhook
             from control.source where workspace_id = $1 order by source_id",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(source_of).collect()
    }
}

/// The sources of all workspaces, on a connection of the caller's.
pub(super) async fn select_all_sources(on: impl PgExecutor<'_>) -> Result<Vec<Source>, ControlError> {
    let rows = sqlx::query(
        "select workspace_id, source_id, name, write_key_sha256, write_key_hint, channel, default_place,
                user_id_type, enabled, dedup_ttl_seconds, banner_writes_defaults, dedup_by_order_id,
                max_events_per_second, webhook::text as webhook
         from control.source order by workspace_id, source_id",
    )
    .fetch_all(on)
    .await?;
    rows.iter().map(source_of).collect()
}

fn source_of(row: &PgRow) -> Result<Source, ControlError> {
    let id = SourceId(row.try_get("source_id")?);
    let corrupt = |column: &str| ControlError::Corrupt { what: format!("{column} of source {id}") };
    let channel: String = row.try_get("channel")?;
    let sha256: Vec<u8> = row.try_get("write_key_sha256")?;
    Ok(Source {
        id,
        workspace: WorkspaceId(row.try_get("workspace_id")?),
        name: row.try_get("name")?,
        write_key_sha256: KeyHash(sha256.try_into().map_err(|_| corrupt("write_key_sha256"))?),
        write_key_hint: row.try_get("write_key_hint")?,
        channel: Channel::parse(&channel).ok_or_else(|| corrupt("channel"))?,
        default_place: row.try_get("default_place")?,
        user_id_type: row.try_get("user_id_type")?,
        enabled: row.try_get("enabled")?,
        dedup_ttl_seconds: unsigned("dedup_ttl_seconds of a source", row.try_get("dedup_ttl_seconds")?)?,
        banner_writes_defaults: row.try_get("banner_writes_defaults")?,
        dedup_by_order_id: row.try_get("dedup_by_order_id")?,
        max_events_per_second: row
            .try_get::<Option<i32>, _>("max_events_per_second")?
            .map(|rate| unsigned("max_events_per_second of a source", rate))
            .transpose()?,
        sealed_webhook: row.try_get("webhook")?,
    })
}

fn signed_rate(events_per_second: Option<u32>) -> Result<Option<i32>, ControlError> {
    events_per_second.map(|rate| signed("max_events_per_second", rate)).transpose()
}
