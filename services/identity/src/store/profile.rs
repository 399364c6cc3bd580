//! One profile, for people who look.

use jiff::Timestamp;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::Row;
use tracklayer_ids::{SubjectKey, WorkspaceId};

use super::lookup::MAX_MEMBERS;
use super::{Store, key_of};
use crate::error::StoreError;
use crate::identifier::ValueMac;

/// A profile with its identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its canonical key.
    pub key: SubjectKey,
    /// Its identifiers by key, at most [`MAX_MEMBERS`].
    pub members: Vec<Member>,
    /// Open collisions that touch it.
    pub collisions: Vec<String>,
}

/// One identifier of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its type.
    pub type_name: String,
    /// Its key.
    pub key: SubjectKey,
    /// First evidence of it.
    pub first_seen: Option<Timestamp>,
}

impl Store {
    /// The profile that holds an identifier; `None` if it was never seen with another.
    ///
    /// # Errors
    /// The database.
    pub async fn profile_of(
        &self,
        workspace: WorkspaceId,
        mac: ValueMac,
    ) -> Result<Option<Profile>, StoreError> {
        self.read_profile(workspace, mac).await.map_err(StoreError::of("read a profile"))
    }

    async fn read_profile(
        &self,
        workspace: WorkspaceId,
        mac: ValueMac,
    ) -> Result<Option<Profile>, sqlx::Error> {
        let rows = sqlx::query(
            "select p.key as profile_key, i.type, i.key, s.first_seen
             from identity.identifier asked
             join identity.profile p on p.workspace_id = $1 and p.profile_id = asked.profile_id
             join identity.identifier i on i.workspace_id = $1 and i.profile_id = p.profile_id
             cross join lateral (
                 select min(l.first_seen) as first_seen from (
                     select first_seen from identity.link where workspace_id = $1 and a_mac = i.value_mac
                     union all
                     select first_seen from identity.link where workspace_id = $1 and b_mac = i.value_mac
                 ) l
             ) s
             where asked.workspace_id = $1 and asked.value_mac = $2
             order by i.key
             limit $3",
        )
        .bind(workspace.0)
        .bind(mac.0)
        .bind(MAX_MEMBERS)
        .fetch_all(&self.pool)
        .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let key = key_of(first.try_get("profile_key")?);
        let members = rows
            .iter()
            .map(|row| {
                let first_seen: Option<SqlTimestamp> = row.try_get("first_seen")?;
                Ok(Member {
                    type_name: row.try_get("type")?,
                    key: key_of(row.try_get("key")?),
                    first_seen: first_seen.map(SqlTimestamp::to_jiff),
                })
            })
            .collect::<Result<_, sqlx::Error>>()?;
        let collisions = sqlx::query_scalar(
            "select encode(substr(c.fingerprint, 1, 16), 'hex')
             from identity.identifier asked
             join identity.identifier i on i.workspace_id = $1 and i.profile_id = asked.profile_id
             join identity.collision c on c.workspace_id = $1 and c.component_id = i.component_id
                 and c.state = 'open' and (i.value_mac = any(c.between_macs) or i.value_mac = any(c.through_macs))
             where asked.workspace_id = $1 and asked.value_mac = $2
             group by c.fingerprint
             order by c.fingerprint",
        )
        .bind(workspace.0)
        .bind(mac.0)
        .fetch_all(&self.pool)
        .await?;
        Ok(Some(Profile { key, members, collisions }))
    }
}
