//! What consent has yet to be told: rows written with the change that they are about, deleted once consent has them.
//!
//! The one trick: a row is its writer's own for a moment (`not_before`), and whoever takes it over moves that moment on. So
//! nobody holds a lock while consent is asked, and two processes rarely tell the same; if they do, it costs one more decision.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tracklayer_ids::{SubjectKey, WorkspaceId};
use uuid::Uuid;

use super::{Store, key_of, uuids};
use crate::error::StoreError;
use crate::narrowing::{Cause, Outdated};

/// Most keys that consent takes in one narrowing.
const MAX_KEYS: usize = 10_000;
/// Longest evidence that consent takes.
const MAX_EVIDENCE_BYTES: usize = 200;
/// Rows that one process takes over at once.
const MAX_TAKEN: i64 = 200;
/// How long a row is its taker's own. With a round on top, shorter than the ten seconds after which a lane asks again anyway.
const OWN_FOR: &str = "6 seconds";

/// A narrowing that consent has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Its number.
    pub id: i64,
    /// merge, split or erasure.
    pub cause: String,
    /// Whom it names, at most as many as consent takes.
    pub keys: Vec<SubjectKey>,
    /// The event that brought it.
    pub evidence: String,
}

impl Store {
    /// Takes over the oldest rows whose owner did not see to them, in their order.
    ///
    /// # Errors
    /// The database.
    pub async fn take_over_narrowings(&self) -> Result<Vec<Waiting>, StoreError> {
        let failed = "read what consent has yet to be told";
        let rows = sqlx::query(
            "update identity.narrowing n set not_before = clock_timestamp() + $1::interval
             from (
                 select workspace_id, narrowing_id from identity.narrowing
                 where not_before <= clock_timestamp()
                 order by not_before limit $2
                 for update skip locked
             ) as due
             where n.workspace_id = due.workspace_id and n.narrowing_id = due.narrowing_id
             returning n.workspace_id, n.narrowing_id, n.cause, n.subject_keys, n.evidence",
        )
        .bind(OWN_FOR)
        .bind(MAX_TAKEN)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of(failed))?;
        let mut taken: Vec<Waiting> =
            rows.iter().map(waiting).collect::<Result<_, _>>().map_err(StoreError::of(failed))?;
        taken.sort_by_key(|row| (row.workspace, row.id));
        Ok(taken)
    }

    /// Forgets what consent was told. Safe to repeat.
    ///
    /// # Errors
    /// The database: they are told once more, which costs a decision and nothing else.
    pub async fn forget_narrowings(&self, told: &[Waiting]) -> Result<(), StoreError> {
        if told.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "delete from identity.narrowing n using unnest($1::bigint[], $2::bigint[]) as x(workspace, id)
             where n.workspace_id = x.workspace and n.narrowing_id = x.id",
        )
        .bind(told.iter().map(|row| row.workspace.0).collect::<Vec<_>>())
        .bind(told.iter().map(|row| row.id).collect::<Vec<_>>())
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("forget what consent was told"))?;
        Ok(())
    }
}

/// Writes down, in the transaction of a change, whom consent has to name for it: one statement, or none.
pub(super) async fn write_narrowings(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    outdated: &BTreeMap<Cause, Outdated>,
    cause_of: impl Fn(&[usize]) -> String,
) -> Result<Vec<Waiting>, sqlx::Error> {
    if outdated.is_empty() {
        return Ok(Vec::new());
    }
    let (mut causes, mut evidence): (Vec<&str>, Vec<String>) = Default::default();
    let (mut owners, mut keys): (Vec<i64>, Vec<Uuid>) = Default::default();
    for (cause, of) in outdated {
        let because = fitting(cause_of(&of.nodes));
        let all = uuids(of.keys.iter().copied());
        for some in all.chunks(MAX_KEYS) {
            causes.push(cause.as_str());
            evidence.push(because.clone());
            keys.extend_from_slice(some);
            owners.resize(keys.len(), i64::try_from(causes.len()).unwrap_or(i64::MAX));
        }
    }
    let rows = sqlx::query(
        "insert into identity.narrowing (workspace_id, cause, subject_keys, evidence, not_before)
         select $1, x.cause, k.keys, x.evidence, clock_timestamp() + $6::interval
         from unnest($2::text[], $3::text[]) with ordinality as x(cause, evidence, n)
         join (select owner, array_agg(key) as keys from unnest($4::bigint[], $5::uuid[]) as k(owner, key)
               group by owner) as k on k.owner = x.n
         order by x.n
         returning workspace_id, narrowing_id, cause, subject_keys, evidence",
    )
    .bind(workspace.0)
    .bind(causes)
    .bind(evidence)
    .bind(owners)
    .bind(keys)
    .bind(OWN_FOR)
    .fetch_all(connection)
    .await?;
    rows.iter().map(waiting).collect()
}

/// As much of an id as consent takes.
fn fitting(mut text: String) -> String {
    let end = (0..=MAX_EVIDENCE_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

fn waiting(row: &PgRow) -> Result<Waiting, sqlx::Error> {
    let keys: Vec<Uuid> = row.try_get("subject_keys")?;
    Ok(Waiting {
        workspace: WorkspaceId(row.try_get("workspace_id")?),
        id: row.try_get("narrowing_id")?,
        cause: row.try_get("cause")?,
        keys: keys.into_iter().map(key_of).collect(),
        evidence: row.try_get("evidence")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_longer_than_consent_takes_is_cut_between_characters() {
        assert_eq!(fitting("m-1".to_owned()), "m-1");
        assert_eq!(fitting("€".repeat(99)).len(), 198);
        assert_eq!(fitting("m".repeat(400)).len(), 200);
    }
}
