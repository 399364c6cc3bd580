//! Tables of what is kept of people. A row says by subject keys (`subject_keys`) whom it is of: a merge adds to them, an erasure takes
//! the row away. Both stand in consent's log; beside each table stands how far they have been applied to it for good (`seen_seq`).
//!
//! They are read again and again from a number that lies a while back: a lane may write a row whose decision is older than what was
//! applied meanwhile. A row whose decision is older than that number takes the number back to itself: what came after its decision is
//! applied again, to it as to all.

use std::collections::BTreeSet;

use sqlx::{PgConnection, PgPool};
use tracklayer_ids::{SubjectKey, WorkspaceId};

use super::{StoreError, attempting};

/// Most subject keys of a row: of nobody has identity told more than so many.
pub const MOST_SUBJECTS: usize = 1_000;

/// What an entry of the narrowing log does to the keys of whom it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// They are one person by now.
    Merged(BTreeSet<SubjectKey>),
    /// They were erased.
    Erased(BTreeSet<SubjectKey>),
}

impl Change {
    fn named(&self) -> &BTreeSet<SubjectKey> {
        match self {
            Self::Merged(keys) | Self::Erased(keys) => keys,
        }
    }
}

/// The statements on one table, and on how far narrowings were applied to it.
#[derive(Debug)]
pub(super) struct Statements {
    begin: &'static str,
    take_back: &'static str,
    share: &'static str,
    workspaces: &'static str,
    seen: &'static str,
    lock: &'static str,
    named: &'static str,
    rename: &'static str,
    remove: &'static str,
    advance: &'static str,
}

macro_rules! statements {
    ($rows:literal, $narrowing:literal) => {
        Statements {
            begin: concat!(
                "insert into delivery.",
                $narrowing,
                " (workspace_id, seen_seq) values ($1, $2) on conflict on constraint ",
                $narrowing,
                "_pkey do nothing"
            ),
            take_back: concat!(
                "update delivery.",
                $narrowing,
                " set seen_seq = $2 where workspace_id = $1 and seen_seq > $2"
            ),
            share: concat!(
                "select seen_seq from delivery.",
                $narrowing,
                " where workspace_id = $1 for share"
            ),
            workspaces: concat!("select workspace_id from delivery.", $narrowing),
            seen: concat!("select seen_seq from delivery.", $narrowing, " where workspace_id = $1"),
            lock: concat!(
                "select seen_seq from delivery.",
                $narrowing,
                " where workspace_id = $1 for update"
            ),
            named: concat!(
                "select ctid::text, subject_keys from delivery.",
                $rows,
                " where workspace_id = $1 and subject_keys && $2::bytea[] order by ctid for update"
            ),
            rename: concat!(
                "with subject as (
                     select s.place, array_agg(s.key) as keys from unnest($1::text[], $2::bytea[]) as s (place, key)
                     group by s.place
                 )
                 update delivery.",
                $rows,
                " r set subject_keys = subject.keys from subject where r.ctid = subject.place::tid"
            ),
            remove: concat!("delete from delivery.", $rows, " where ctid = any($1::text[]::tid[])"),
            advance: concat!("update delivery.", $narrowing, " set seen_seq = $2 where workspace_id = $1"),
        }
    };
}

/// What orders were matched by.
pub(super) static MATCH_KEYS: Statements = statements!("order_match_key", "match_key_narrowing");
/// Golden events.
pub(super) static GOLDEN_EVENTS: Statements = statements!("golden_event", "golden_narrowing");

/// Dead letters.
pub(super) static DEAD_LETTERS: Statements = statements!("dead_letter", "dead_letter_narrowing");

/// One table.
#[derive(Debug, Clone)]
pub struct Filed {
    pool: PgPool,
    statements: &'static Statements,
}

/// Makes sure that a table's rows whose oldest decision is of that number get all that came after it, in the transaction that writes
/// them. Answers up to which number everything is applied for good: a row whose decision is older cannot be written, since somebody
/// else was faster.
pub(super) async fn reach(
    tx: &mut PgConnection,
    statements: &'static Statements,
    workspace: WorkspaceId,
    oldest: i64,
) -> Result<i64, StoreError> {
    let what = attempting("see how far narrowings were applied");
    sqlx::query(statements.begin).bind(workspace.0).bind(oldest).execute(&mut *tx).await.map_err(&what)?;
    // The lane of another partition may have decided on less and write first, which happens at a workspace's first rows as a rule. Who
    // decided on no less locks nothing here.
    sqlx::query(statements.take_back)
        .bind(workspace.0)
        .bind(oldest)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
    // Shared: lanes do not wait for each other, and what is applied waits for them all. Only what was applied for good between these
    // two statements is newer than a decision now.
    sqlx::query_scalar(statements.share).bind(workspace.0).fetch_one(tx).await.map_err(&what)
}

/// Keys as the database takes them.
pub(super) fn bytes<'k>(keys: impl IntoIterator<Item = &'k SubjectKey>) -> Vec<Vec<u8>> {
    keys.into_iter().map(|key| key.0.to_vec()).collect()
}

impl Filed {
    pub(super) fn new(pool: PgPool, statements: &'static Statements) -> Self {
        Self { pool, statements }
    }

    /// The workspaces of which there are or were rows.
    ///
    /// # Errors
    /// The database.
    pub async fn workspaces(&self) -> Result<Vec<WorkspaceId>, StoreError> {
        let ids: Vec<i64> = sqlx::query_scalar(self.statements.workspaces)
            .fetch_all(&self.pool)
            .await
            .map_err(attempting("read of which workspaces something is kept"))?;
        Ok(ids.into_iter().map(WorkspaceId).collect())
    }

    /// Up to which number of the narrowing log everything is applied for good; none: nothing was ever kept.
    ///
    /// # Errors
    /// The database.
    pub async fn seen(&self, workspace: WorkspaceId) -> Result<Option<i64>, StoreError> {
        sqlx::query_scalar(self.statements.seen)
            .bind(workspace.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(attempting("read how far narrowings were applied"))
    }

    /// Applies changes that came after `seen`, in their order, and remembers `now_seen`. `false`: somebody else was faster, and
    /// `seen` is another number by now. Applying a change again changes nothing.
    ///
    /// # Errors
    /// The database.
    pub async fn narrow(
        &self,
        workspace: WorkspaceId,
        seen: i64,
        now_seen: i64,
        changes: &[Change],
    ) -> Result<bool, StoreError> {
        let what = attempting("apply narrowings to what is kept of people");
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        let stands: Option<i64> = sqlx::query_scalar(self.statements.lock)
            .bind(workspace.0)
            .fetch_optional(&mut *tx)
            .await
            .map_err(&what)?;
        if stands != Some(seen) {
            return Ok(false);
        }
        self.apply(&mut tx, workspace, changes).await?;
        sqlx::query(self.statements.advance)
            .bind(workspace.0)
            .bind(now_seen)
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        tx.commit().await.map_err(&what)?;
        Ok(true)
    }

    async fn apply(
        &self,
        tx: &mut PgConnection,
        workspace: WorkspaceId,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let named: BTreeSet<SubjectKey> = changes.iter().flat_map(Change::named).copied().collect();
        if named.is_empty() {
            return Ok(());
        }
        let what = attempting("apply narrowings to what is kept of people");
        // They are locked: nobody moves them until the end of the transaction.
        let rows: Vec<(String, Vec<Vec<u8>>)> = sqlx::query_as(self.statements.named)
            .bind(workspace.0)
            .bind(bytes(&named))
            .fetch_all(&mut *tx)
            .await
            .map_err(&what)?;
        let (mut places, mut keys, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (place, of) in rows {
            let before: BTreeSet<SubjectKey> =
                of.iter().filter_map(|key| SubjectKey::from_slice(key)).collect();
            match narrowed(before.clone(), changes) {
                None => gone.push(place),
                Some(after) if after == before => {}
                Some(after) => {
                    keys.extend(bytes(&after));
                    places.resize(keys.len(), place);
                }
            }
        }
        if !places.is_empty() {
            sqlx::query(self.statements.rename)
                .bind(places)
                .bind(keys)
                .execute(&mut *tx)
                .await
                .map_err(&what)?;
        }
        if !gone.is_empty() {
            sqlx::query(self.statements.remove).bind(gone).execute(tx).await.map_err(&what)?;
        }
        Ok(())
    }
}

/// Whose a row is after changes; none: it goes. Merges first: whoever is erased is so with all that was merged with him by then, and
/// more is taken away rather than less. One that would be of more than identity ever tells of is given up.
fn narrowed(keys: BTreeSet<SubjectKey>, changes: &[Change]) -> Option<BTreeSet<SubjectKey>> {
    let merged = changes.iter().fold(keys, |mut keys, change| {
        if let Change::Merged(together) = change
            && !keys.is_disjoint(together)
        {
            keys.extend(together.iter().copied());
        }
        keys
    });
    let is_erased = changes.iter().any(|change| match change {
        Change::Erased(erased) => !merged.is_disjoint(erased),
        Change::Merged(_) => false,
    });
    (!is_erased && merged.len() <= MOST_SUBJECTS).then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(of: &[u8]) -> BTreeSet<SubjectKey> {
        of.iter().map(|number| SubjectKey([*number; 16])).collect()
    }

    #[test]
    fn a_row_goes_with_whoever_its_person_was_merged_with() {
        let merged = |of: &[u8]| Change::Merged(keys(of));
        let erased = |of: &[u8]| Change::Erased(keys(of));
        assert_eq!(narrowed(keys(&[1]), &[]), Some(keys(&[1])));
        assert_eq!(narrowed(keys(&[1]), &[merged(&[2, 3])]), Some(keys(&[1])), "others'");
        assert_eq!(narrowed(keys(&[1]), &[merged(&[1, 2]), merged(&[2, 3])]), Some(keys(&[1, 2, 3])));
        assert_eq!(narrowed(keys(&[1]), &[erased(&[2])]), Some(keys(&[1])));
        assert_eq!(narrowed(keys(&[1]), &[merged(&[1, 2]), erased(&[2])]), None);
        assert_eq!(narrowed(keys(&[1, 2]), &[erased(&[2])]), None);
    }
}
