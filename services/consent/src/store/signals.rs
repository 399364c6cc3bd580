//! What was said.

use std::collections::HashSet;

use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx as _};
use sqlx::{Row as _, postgres::PgRow};
use tracklayer_ids::{SubjectKey, WorkspaceId};
use uuid::Uuid;

use super::{Store, Writing};
use crate::{
    error::StoreError,
    record::{Known, Replaced, Row, Stored},
    statement::{Channel, ContentHash, Decoder},
};

/// What is in force, in one snapshot.
#[derive(Debug)]
pub struct Read {
    /// Under any of the keys.
    pub known: Known,
    /// The newest narrowing that this is the state after.
    pub newest_seq: i64,
    /// The version of the policy that is in force; `None` before the first.
    pub policy: Option<String>,
}

/// One row at least. A standby may lack the newest withdrawals: it is told, so that nothing is decided there.
const READ: &str = "select pg_is_in_recovery() as is_standby,
            coalesce((select seq from consent.narrowing_head where workspace_id = $1), 0) as newest_seq,
            (select version from consent.policy_in_force) as policy,
            s.subject_key, s.channel, s.content_hash, s.content, s.person, s.first_at, s.last_at
     from (select 1) as one
     left join consent.signal as s
         on s.workspace_id = $1 and s.subject_key = any($2) and s.current";

impl Store {
    /// Reads what is in force under any of the keys: one statement, one snapshot.
    ///
    /// # Errors
    /// The database, a standby included.
    pub async fn read_signals(
        &self,
        decoder: &Decoder,
        workspace: WorkspaceId,
        subjects: &HashSet<SubjectKey>,
    ) -> Result<Read, StoreError> {
        let what = "read the signals of a batch";
        let rows = sqlx::query(READ)
            .bind(workspace.0)
            .bind(keys(subjects))
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::of(what))?;
        read(decoder, &rows, what)
    }
}

impl Writing {
    /// Reads what is in force under any of the keys, now that nobody else writes.
    ///
    /// # Errors
    /// The database.
    pub async fn read_signals(
        &mut self,
        decoder: &Decoder,
        subjects: &HashSet<SubjectKey>,
    ) -> Result<Read, StoreError> {
        let what = "read the signals of a batch again";
        let rows = sqlx::query(READ)
            .bind(self.workspace.0)
            .bind(keys(subjects))
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(StoreError::of(what))?;
        read(decoder, &rows, what)
    }

    /// Writes the rows of a batch, at most one per (key, channel, content), and marks what was replaced: one statement. No
    /// row is both, since a statement writes a row once.
    ///
    /// # Errors
    /// The database.
    pub async fn write_signals(&mut self, rows: &[Row], replaced: &[Replaced]) -> Result<(), StoreError> {
        if rows.is_empty() && replaced.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "with incoming as (
                 select * from unnest(
                     $2::uuid[], $3::smallint[], $4::uuid[], $5::text[], $6::boolean[], $7::timestamptz[],
                     $8::timestamptz[], $9::boolean[], $10::text[], $11::text[], $12::timestamptz[]
                 ) as i (subject_key, channel, content_hash, content, person, first_at, last_at, current,
                         provenance, message_id, received_at)
             ),
             replaced as (
                 update consent.signal as s set current = false
                 from unnest($13::uuid[], $14::smallint[], $15::uuid[]) as r (subject_key, channel, content_hash)
                 where s.workspace_id = $1 and s.subject_key = r.subject_key and s.channel = r.channel
                   and s.content_hash = r.content_hash and s.current
             )
             insert into consent.signal as s
                 (workspace_id, subject_key, channel, content_hash, content, person, first_at, last_at, current,
                  provenance, message_id, received_at)
             select $1, subject_key, channel, content_hash, content, person, first_at, last_at, current,
                    provenance, message_id, received_at
             from incoming
             on conflict (workspace_id, subject_key, channel, content_hash) do update set
                 first_at = least(s.first_at, excluded.first_at),
                 last_at = greatest(s.last_at, excluded.last_at),
                 person = s.person or excluded.person,
                 current = excluded.current",
        )
        .bind(self.workspace.0)
        .bind(rows.iter().map(|row| row.subject.uuid()).collect::<Vec<Uuid>>())
        .bind(rows.iter().map(|row| row.statement.channel as i16).collect::<Vec<i16>>())
        .bind(rows.iter().map(|row| Uuid::from_bytes(row.statement.hash.0)).collect::<Vec<Uuid>>())
        .bind(rows.iter().map(|row| &*row.statement.text).collect::<Vec<&str>>())
        .bind(rows.iter().map(|row| row.person).collect::<Vec<bool>>())
        .bind(rows.iter().map(|row| row.first_at.to_sqlx()).collect::<Vec<SqlTimestamp>>())
        .bind(rows.iter().map(|row| row.last_at.to_sqlx()).collect::<Vec<SqlTimestamp>>())
        .bind(rows.iter().map(|row| row.current).collect::<Vec<bool>>())
        .bind(rows.iter().map(|row| &*row.statement.provenance).collect::<Vec<&str>>())
        .bind(rows.iter().map(|row| row.message_id.as_str()).collect::<Vec<&str>>())
        .bind(rows.iter().map(|row| row.received_at.to_sqlx()).collect::<Vec<SqlTimestamp>>())
        .bind(replaced.iter().map(|row| row.subject.uuid()).collect::<Vec<Uuid>>())
        .bind(replaced.iter().map(|row| row.channel as i16).collect::<Vec<i16>>())
        .bind(replaced.iter().map(|row| Uuid::from_bytes(row.hash.0)).collect::<Vec<Uuid>>())
        .execute(&mut *self.transaction)
        .await
        .map_err(StoreError::of("write the signals of a batch"))?;
        Ok(())
    }
}

fn keys(subjects: &HashSet<SubjectKey>) -> Vec<Uuid> {
    subjects.iter().map(|subject| subject.uuid()).collect()
}

fn read(decoder: &Decoder, rows: &[PgRow], what: &'static str) -> Result<Read, StoreError> {
    let first = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(StoreError::of(what))?;
    if first.try_get("is_standby").map_err(StoreError::of(what))? {
        return Err(StoreError::standby(what));
    }
    let newest_seq = first.try_get("newest_seq").map_err(StoreError::of(what))?;
    let policy = first.try_get("policy").map_err(StoreError::of(what))?;
    let mut known = Known::default();
    for row in rows {
        let Some((subject, stored)) = stored(decoder, row).map_err(StoreError::of(what))? else { continue };
        known.insert(subject, stored);
    }
    Ok(Read { known, newest_seq, policy })
}

fn stored(decoder: &Decoder, row: &PgRow) -> Result<Option<(SubjectKey, Stored)>, sqlx::Error> {
    // The outer join's row where no key has anything.
    let Some(subject) = row.try_get::<Option<Uuid>, _>("subject_key")? else { return Ok(None) };
    let number: i16 = row.try_get("channel")?;
    // A channel of a newer release: its reader is not here, so that this one must not decide.
    let channel = Channel::from_number(number)
        .ok_or_else(|| sqlx::Error::Decode(format!("channel {number} is not known").into()))?;
    let hash = ContentHash(row.try_get::<Uuid, _>("content_hash")?.into_bytes());
    let stored = Stored {
        channel,
        hash,
        person: row.try_get("person")?,
        first_at: row.try_get::<SqlTimestamp, _>("first_at")?.to_jiff(),
        last_at: row.try_get::<SqlTimestamp, _>("last_at")?.to_jiff(),
        content: decoder.content(channel, hash, row.try_get("content")?),
    };
    Ok(Some((SubjectKey(subject.into_bytes()), stored)))
}
