//! What was said.

use std::collections::HashSet;

use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx as _};
use sqlx::{Row as _, postgres::PgRow};
use tracklayer_ids::{SubjectKey, WorkspaceId};
use uuid::Uuid;

use super::{Store, Writing};
use crate::{
    error::StoreError,
    record::{Known, Row, Stored},
    statement::{Channel, ContentHash, Decoder},
};

impl Store {
    /// Reads what is in force under any of the keys, and the newest narrowing that this is the state after: one statement,
    /// one snapshot.
    ///
    /// # Errors
    /// The database.
    pub async fn read_signals(
        &self,
        decoder: &Decoder,
        workspace: WorkspaceId,
        subjects: &HashSet<SubjectKey>,
    ) -> Result<(Known, i64), StoreError> {
        let rows = sqlx::query(
            "select coalesce((select seq from consent.narrowing_head where workspace_id = $1), 0) as newest_seq,
                    s.subject_key, s.channel, s.content_hash, s.content, s.person, s.first_at, s.last_at
             from (select 1) as one
             left join consent.signal as s
                 on s.workspace_id = $1 and s.subject_key = any($2) and s.current",
        )
        .bind(workspace.0)
        .bind(keys(subjects))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("read the signals of a batch"))?;
        let newest = rows.first().map(|row| row.try_get("newest_seq")).transpose();
        let newest = newest.map_err(StoreError::of("read the newest narrowing"))?.unwrap_or(0);
        Ok((known(decoder, &rows)?, newest))
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
    ) -> Result<Known, StoreError> {
        let rows = sqlx::query(
            "select subject_key, channel, content_hash, content, person, first_at, last_at
             from consent.signal
             where workspace_id = $1 and subject_key = any($2) and current",
        )
        .bind(self.workspace.0)
        .bind(keys(subjects))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(StoreError::of("read the signals of a batch again"))?;
        known(decoder, &rows)
    }

    /// Writes the rows of a batch, at most one per (key, channel, content), and marks what they replace: one statement.
    ///
    /// # Errors
    /// The database.
    pub async fn write_signals(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        if rows.is_empty() {
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
             -- 1 (gpc) and 8 (explicit) are never replaced by something newer.
             newest as (
                 select subject_key, channel, max(last_at) as at
                 from incoming where channel not in (1, 8) group by subject_key, channel
             ),
             replaced as (
                 update consent.signal as s set current = false
                 from newest as n
                 where s.workspace_id = $1 and s.subject_key = n.subject_key and s.channel = n.channel
                   and s.current and s.last_at < n.at
                   and not exists (
                       select from incoming as i
                       where i.subject_key = s.subject_key and i.channel = s.channel
                         and i.content_hash = s.content_hash
                   )
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
                 current = s.current or excluded.current",
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
        .execute(&mut *self.transaction)
        .await
        .map_err(StoreError::of("write the signals of a batch"))?;
        Ok(())
    }
}

fn keys(subjects: &HashSet<SubjectKey>) -> Vec<Uuid> {
    subjects.iter().map(|subject| subject.uuid()).collect()
}

fn known(decoder: &Decoder, rows: &[PgRow]) -> Result<Known, StoreError> {
    let mut known = Known::default();
    for row in rows {
        let Some((subject, stored)) = stored(decoder, row).map_err(StoreError::of("read a signal"))? else {
            continue;
        };
        known.insert(subject, stored);
    }
    Ok(known)
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
