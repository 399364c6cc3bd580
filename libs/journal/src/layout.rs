//! Layouts in PostgreSQL, whichever journal they are of: how many partitions a workspace has, and had; and of which generations a
//! log of records has lost something.

use sqlx::PgPool;
use tracklayer_ids::{Generation, Position, WorkspaceId};

use crate::error::JournalError;
use crate::journal::{Layout, Spread};

/// Statements on layouts and lost generations.
#[derive(Debug, Clone)]
pub struct LayoutStore {
    pool: PgPool,
}

impl LayoutStore {
    /// Over a pool whose database has the `journal` schema.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The layout that is open, after the wanted one was opened if it is newer. Ends the generation in all partitions at once.
    ///
    /// # Errors
    /// The database.
    pub async fn open(&self, workspace: WorkspaceId, wanted: Spread) -> Result<Layout, sqlx::Error> {
        self.ask(
            "select out_generation, out_partitions from journal.open_layout($1, $2, $3)",
            workspace,
            wanted,
        )
        .await
    }

    /// The layout of a journal that never changes it: the first one that was wanted.
    ///
    /// # Errors
    /// The database.
    pub async fn keep(&self, workspace: WorkspaceId, wanted: Spread) -> Result<Layout, sqlx::Error> {
        self.ask(
            "select out_generation, out_partitions from journal.keep_layout($1, $2, $3)",
            workspace,
            wanted,
        )
        .await
    }

    /// All of them.
    ///
    /// # Errors
    /// The database.
    pub async fn all(&self) -> Result<Vec<(WorkspaceId, Layout)>, JournalError> {
        let rows: Vec<(i64, i32, i32)> = sqlx::query_as(
            "select workspace_id, generation, partitions from journal.layout order by workspace_id, generation",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "read the journal's layouts", source })?;
        Ok(rows.into_iter().map(|(workspace, g, p)| (WorkspaceId(workspace), layout(g, p))).collect())
    }

    /// Which of these positions are of a generation that no log of records has lost anything of, as its readers have told.
    ///
    /// # Errors
    /// The database.
    pub async fn not_lost(
        &self,
        workspace: WorkspaceId,
        positions: &[Position],
    ) -> Result<Vec<bool>, JournalError> {
        sqlx::query_scalar(
            "select u.g > coalesce(l.generation, 0)
             from unnest($2::integer[], $3::integer[]) with ordinality as u (p, g, n)
             left join journal.lost_generation l on l.workspace_id = $1 and l.partition = u.p
             order by u.n",
        )
        .bind(workspace.0)
        .bind(positions.iter().map(|at| at.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(positions.iter().map(|at| at.generation.0.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "read what a log has lost", source })
    }

    async fn ask(
        &self,
        statement: &'static str,
        workspace: WorkspaceId,
        wanted: Spread,
    ) -> Result<Layout, sqlx::Error> {
        let (generation, partitions): (i32, i32) = sqlx::query_as(statement)
            .bind(workspace.0)
            .bind(wanted.partitions.cast_signed())
            .bind(wanted.revision.cast_signed())
            .fetch_one(&self.pool)
            .await?;
        Ok(layout(generation, partitions))
    }
}

fn layout(generation: i32, partitions: i32) -> Layout {
    Layout { generation: Generation(generation.cast_unsigned()), partitions: partitions.cast_unsigned() }
}
