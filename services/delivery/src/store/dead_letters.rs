//! Dead letters as what is kept of people: table `delivery.dead_letter` once it is written, and `delivery.dead_letter_narrowing` (how far
//! merges and erasures have been applied to it: see [`super::filed`]). Of a letter that goes the ledger says what it said: dead.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use tracklayer_ids::{ConnectionId, Position, SubjectKey, WorkspaceId};
use uuid::Uuid;

use super::filed::{DEAD_LETTERS, Filed, bytes, reach};
use super::ledger::DeadRow;
use super::{StoreError, attempting};
use crate::entry::Entry;

/// Letters that one statement takes away, so that none takes long.
const AT_ONCE: i64 = 10_000;
/// Letters whose copies are in memory at once.
const COPIES: i64 = 200;

/// Whose a dead letter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// Everybody that the person was linked to when consent was asked; nothing: it is nobody's.
    pub subject_keys: Vec<SubjectKey>,
    /// Newest narrowing that the decision saw.
    pub decided_at: i64,
}

/// Dead letters of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The connection.
    pub connection: ConnectionId,
    /// With one of these codes; none: with any.
    pub codes: Vec<String>,
    /// With one of these ids; none: with any.
    pub message_ids: Vec<String>,
}

impl Whose {
    /// Nothing was applied for good that came after the decision; of nobody nothing ever is.
    fn can_be_written(&self, seen: i64) -> bool {
        self.decided_at >= seen || self.subject_keys.is_empty()
    }
}

/// What happens to them once they are written.
#[derive(Debug, Clone)]
pub struct DeadLetterStore {
    pool: PgPool,
}

/// Whose letters are, as columns for their insert: whether each is filed, and the keys of those that are by their place from 1.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) filed: Vec<bool>,
    pub(super) places: Vec<i64>,
    pub(super) keys: Vec<Vec<u8>>,
}

/// Whose these are, before they are written. What was applied for good meanwhile, after the decision about a letter, could not be applied
/// to it: it is filed a moment later, by its copy.
pub(super) async fn columns(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    rows: &[DeadRow],
) -> Result<Columns, StoreError> {
    let oldest = oldest(rows.iter().filter_map(|row| row.whose.as_ref()));
    let seen = reach_oldest(tx, workspace, oldest).await?;
    let mut columns = Columns::default();
    for (place, row) in (1_i64..).zip(rows) {
        let whose = row.whose.as_ref().filter(|whose| whose.can_be_written(seen));
        columns.filed.push(whose.is_some());
        for key in whose.map(|whose| bytes(&whose.subject_keys)).unwrap_or_default() {
            columns.places.push(place);
            columns.keys.push(key);
        }
    }
    Ok(columns)
}

/// The oldest decision about somebody.
fn oldest<'w>(all: impl Iterator<Item = &'w Whose>) -> Option<i64> {
    all.filter(|whose| !whose.subject_keys.is_empty()).map(|whose| whose.decided_at).min()
}

/// As [`reach`]; where nothing is of anybody, nothing was applied to it.
async fn reach_oldest(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    oldest: Option<i64>,
) -> Result<i64, StoreError> {
    match oldest {
        Some(oldest) => reach(tx, &DEAD_LETTERS, workspace, oldest).await,
        None => Ok(i64::MIN),
    }
}

impl DeadLetterStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Whose they are, and how far narrowings were applied to them.
    #[must_use]
    pub fn filed(&self) -> Filed {
        Filed::new(self.pool.clone(), &DEAD_LETTERS)
    }

    /// Files some of the letters of which nobody has said whose they are, by their copies: those of older processes. Answers whether
    /// there may be more.
    ///
    /// # Errors
    /// The database.
    pub async fn file_some(&self) -> Result<bool, StoreError> {
        type Row = (i64, i64, i32, i32, i64, Vec<u8>);
        let rows: Vec<Row> = sqlx::query_as(
            "select workspace_id, connection_id, partition, generation, event_offset, resolved from delivery.dead_letter
             where subject_keys is null order by workspace_id limit $1",
        )
        .bind(COPIES)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read whose dead letters are"))?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= COPIES);
        let mut of_workspaces: BTreeMap<WorkspaceId, Vec<(ConnectionId, Position, Whose)>> = BTreeMap::new();
        for (workspace, connection, partition, generation, offset, copy) in rows {
            let (partition, generation) = (partition.cast_unsigned(), generation.cast_unsigned());
            let position = Position::new(generation, partition, offset.cast_unsigned());
            let entry = Entry::decode(position, copy.into());
            let whose = Whose { subject_keys: entry.subject_keys.to_vec(), decided_at: entry.narrowing_seq };
            let letters = of_workspaces.entry(WorkspaceId(workspace)).or_default();
            letters.push((ConnectionId(connection), position, whose));
        }
        let mut filed = 0;
        for (workspace, letters) in of_workspaces {
            filed += self.file(workspace, &letters).await?;
        }
        // Where nothing could be filed somebody else is at it, or faster: not at once again.
        Ok(is_full && filed > 0)
    }

    async fn file(
        &self,
        workspace: WorkspaceId,
        letters: &[(ConnectionId, Position, Whose)],
    ) -> Result<u64, StoreError> {
        let what = attempting("file dead letters");
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        let oldest = oldest(letters.iter().map(|(_, _, whose)| whose));
        let seen = reach_oldest(&mut tx, workspace, oldest).await?;
        let letters: Vec<_> = letters.iter().filter(|(_, _, whose)| whose.can_be_written(seen)).collect();
        let (mut places, mut keys) = (Vec::new(), Vec::new());
        for (place, (_, _, whose)) in (1_i64..).zip(&letters) {
            keys.extend(bytes(&whose.subject_keys));
            places.resize(keys.len(), place);
        }
        let filed = sqlx::query(
            "with subject as (
                 select s.place, array_agg(s.key) as keys from unnest($6::bigint[], $7::bytea[]) as s (place, key)
                 group by s.place
             )
             update delivery.dead_letter d set subject_keys = coalesce(subject.keys, '{}')
             from unnest($2::bigint[], $3::integer[], $4::integer[], $5::bigint[]) with ordinality as u (c, p, g, o, place)
             left join subject using (place)
             where d.workspace_id = $1 and d.connection_id = u.c and d.partition = u.p and d.generation = u.g
               and d.event_offset = u.o and d.subject_keys is null",
        )
        .bind(workspace.0)
        .bind(letters.iter().map(|(connection, ..)| connection.0).collect::<Vec<_>>())
        .bind(letters.iter().map(|(_, at, _)| at.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(letters.iter().map(|(_, at, _)| at.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(letters.iter().map(|(_, at, _)| at.offset.0.cast_signed()).collect::<Vec<_>>())
        .bind(places)
        .bind(keys)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        tx.commit().await.map_err(&what)?;
        Ok(filed.rows_affected())
    }

    /// Forgets those that died before; answers whether there may be more. What another process forgets, or a replay takes, is left to
    /// it.
    ///
    /// # Errors
    /// The database.
    pub async fn forget(&self, died_before: Timestamp) -> Result<bool, StoreError> {
        let forgotten = sqlx::query(
            "delete from delivery.dead_letter where ctid = any(array(
                 select ctid from delivery.dead_letter where died_at < $1
                 order by died_at limit $2 for update skip locked))",
        )
        .bind(jiff_sqlx::Timestamp::from(died_before))
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await
        .map_err(attempting("forget dead letters"))?;
        Ok(forgotten.rows_affected() >= AT_ONCE.cast_unsigned())
    }

    /// How many letters are selected of those that died before a time, or by now; and that time.
    ///
    /// # Errors
    /// The database.
    pub async fn count(
        &self,
        workspace: WorkspaceId,
        selected: &Selected,
        died_before: Option<Timestamp>,
    ) -> Result<(u64, Timestamp), StoreError> {
        let (letters, died_before): (i64, jiff_sqlx::Timestamp) = sqlx::query_as(
            "select count(*), coalesce($5, now()) from delivery.dead_letter
             where workspace_id = $1 and connection_id = $2 and died_at < coalesce($5, now())
               and (cardinality($3::text[]) = 0 or code = any($3))
               and (cardinality($4::text[]) = 0 or message_id = any($4))",
        )
        .bind(workspace.0)
        .bind(selected.connection.0)
        .bind(&selected.codes)
        .bind(&selected.message_ids)
        .bind(died_before.map(jiff_sqlx::Timestamp::from))
        .fetch_one(&self.pool)
        .await
        .map_err(attempting("count dead letters"))?;
        Ok((letters.cast_unsigned(), died_before.to_jiff()))
    }

    /// Takes away those that are selected, some thousands at a time, and writes down who asked for it; answers how many. What a replay
    /// takes meanwhile is left to it.
    ///
    /// # Errors
    /// The database; what was taken away until then is, and is written down.
    pub async fn close(
        &self,
        workspace: WorkspaceId,
        selected: &Selected,
        died_before: Timestamp,
        asked_by: &str,
    ) -> Result<u64, StoreError> {
        let what = attempting("close dead letters");
        let id = Uuid::now_v7();
        sqlx::query(
            "insert into delivery.dead_letter_close
                 (workspace_id, close_id, connection_id, codes, message_ids, died_before, asked_by)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(workspace.0)
        .bind(id)
        .bind(selected.connection.0)
        .bind(&selected.codes)
        .bind(&selected.message_ids)
        .bind(jiff_sqlx::Timestamp::from(died_before))
        .bind(asked_by)
        .execute(&self.pool)
        .await
        .map_err(&what)?;
        let mut closed = 0;
        loop {
            let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
            let gone = sqlx::query(
                "delete from delivery.dead_letter where ctid = any(array(
                     select ctid from delivery.dead_letter
                     where workspace_id = $1 and connection_id = $2 and died_at < $3
                       and (cardinality($4::text[]) = 0 or code = any($4))
                       and (cardinality($5::text[]) = 0 or message_id = any($5))
                     limit $6 for update skip locked))",
            )
            .bind(workspace.0)
            .bind(selected.connection.0)
            .bind(jiff_sqlx::Timestamp::from(died_before))
            .bind(&selected.codes)
            .bind(&selected.message_ids)
            .bind(AT_ONCE)
            .execute(&mut *tx)
            .await
            .map_err(&what)?
            .rows_affected();
            sqlx::query(
                "update delivery.dead_letter_close set letters = letters + $3
                 where workspace_id = $1 and close_id = $2",
            )
            .bind(workspace.0)
            .bind(id)
            .bind(gone.cast_signed())
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
            tx.commit().await.map_err(&what)?;
            closed += gone;
            // Of those that were found some may have been touched meanwhile: they are found again.
            if gone == 0 {
                return Ok(closed);
            }
        }
    }
}
