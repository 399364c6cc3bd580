//! The journal over PostgreSQL: append is one call of `journal.append_to`, read is one indexed range.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tracklayer_ids::{Generation, Offset, Partition, Position, WorkspaceId};

use crate::block::BlockHeader;
use crate::damage::Condition;
use crate::error::{AppendError, JournalError};
use crate::inspect::Behind;
use crate::journal::{
    Appended, EachHeader, Head, Journal, Kind, Layout, MAX_READ_BLOCKS, Most, NewBlock, Place, Record,
    ResolvedLog, Spread,
};
use crate::layout::LayoutStore;
use crate::received::ReceivedBlock;

/// Most events in one block: what an appender never exceeds, and how far before a cursor a reader has to look.
pub const MAX_BLOCK_EVENTS: i64 = 8_192;

/// SQLSTATE of a lock that was not to be had in time.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// How often a time partition is tried to be attached between long reads, and the pause between two tries.
const ATTACH_TRIES: u32 = 5;
const ATTACH_PAUSE: Duration = Duration::from_millis(200);
/// Days for which time partitions are made in advance.
const DAYS_AHEAD: i32 = 3;

/// Reads and appends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresJournal {
    pub(crate) pool: PgPool,
}

/// Source: PostgreSQL 15, "PostgreSQL Error Codes", class 23; 2025-11.
fn is_check_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.code().as_deref() == Some("23514"))
}

impl PostgresJournal {
    /// Over a pool whose database has the `journal` schema.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Makes the time partitions of today and the coming days. Safe to repeat, and appends go on meanwhile. A long read is
    /// not made to wait, nor those behind it: this gives way and tries a few times.
    ///
    /// # Errors
    /// The database; also if long reads left no gap. What no day's partition takes goes to the default one.
    pub async fn ensure_partitions(&self, days_ahead: i32) -> Result<(), JournalError> {
        let mut tries = 0;
        loop {
            let made = sqlx::query("select journal.ensure_partitions($1)")
                .bind(days_ahead)
                .execute(&self.pool)
                .await;
            let Err(source) = made else { return Ok(()) };
            tries += 1;
            // A row of the day reached the default partition meanwhile: the next try leaves that day alone.
            let gave_way = is_check_violation(&source)
                || source
                    .as_database_error()
                    .is_some_and(|e| e.code().as_deref() == Some(LOCK_NOT_AVAILABLE));
            if !gave_way || tries >= ATTACH_TRIES {
                return Err(JournalError::Database { what: "make the journal's time partitions", source });
            }
            tokio::time::sleep(ATTACH_PAUSE).await;
        }
    }

    /// Appends one block per (workspace, partition) and answers when those that are not stale are durable, all of them or none.
    /// Not idempotent: after an error the blocks may be stored.
    ///
    /// # Errors
    /// The database.
    pub async fn append(&self, blocks: &[NewBlock]) -> Result<Vec<Appended>, sqlx::Error> {
        let workspaces: Vec<i64> = blocks.iter().map(|b| b.workspace.0).collect();
        let partitions: Vec<i32> = blocks.iter().map(|b| b.partition.0.cast_signed()).collect();
        let generations: Vec<i32> = blocks.iter().map(|b| b.generation.0.cast_signed()).collect();
        let counts: Vec<i32> = blocks.iter().map(|b| b.block.header.event_count.cast_signed()).collect();
        let headers: Vec<&[u8]> = blocks.iter().map(|b| b.block.header_bytes.as_slice()).collect();
        let payloads: Vec<&[u8]> = blocks.iter().map(|b| b.block.payload.as_slice()).collect();
        let call = || {
            sqlx::query("select ord, out_base_offset from journal.append_to($1, $2, $3, $4, $5, $6)")
                .bind(&workspaces)
                .bind(&partitions)
                .bind(&generations)
                .bind(&counts)
                .bind(&headers)
                .bind(&payloads)
                .fetch_all(&self.pool)
        };
        let rows = match call().await {
            // A partition of the day was attached while this was on its way to the default one: surely nothing was stored, and
            // the way is another one now.
            Err(error) if is_check_violation(&error) => call().await?,
            other => other?,
        };
        let mut appended = vec![Appended::Stale; blocks.len()];
        for row in rows {
            let index = usize::try_from(row.try_get::<i64, _>(0)? - 1).unwrap_or(usize::MAX);
            let base: Option<i64> = row.try_get(1)?;
            if let (Some(appended), Some(block), Some(base)) =
                (appended.get_mut(index), blocks.get(index), base)
            {
                *appended = Appended::At(Position {
                    generation: block.generation,
                    partition: block.partition,
                    offset: Offset(base.cast_unsigned()),
                });
            }
        }
        Ok(appended)
    }

    /// Reads whole blocks from the one that holds `from`, in order, until about `max_events` or `max_blocks`.
    ///
    /// # Errors
    /// The database, or a header that cannot be read.
    pub async fn read(
        &self,
        workspace: WorkspaceId,
        from: Position,
        max_blocks: i64,
    ) -> Result<Vec<ReceivedBlock>, JournalError> {
        let rows = sqlx::query(
            "select base_offset, header, payload from journal.received
             where workspace_id = $1 and partition = $2 and generation = $3
               and base_offset > $4 - $6 and base_offset + event_count > $4
             order by base_offset limit $5",
        )
        .bind(workspace.0)
        .bind(from.partition.0.cast_signed())
        .bind(from.generation.0.cast_signed())
        .bind(from.offset.0.cast_signed())
        .bind(max_blocks)
        .bind(MAX_BLOCK_EVENTS)
        .fetch_all(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "read the journal", source })?;
        received_blocks(rows, from)
    }

    /// Reads whole blocks from the one that holds `from`: as many as hold `max_events` together, at least one if there is any.
    /// Blocks beyond that are not even fetched.
    ///
    /// # Errors
    /// The database, or a header that cannot be read.
    pub async fn read_up_to(
        &self,
        workspace: WorkspaceId,
        from: Position,
        max_events: i64,
    ) -> Result<Vec<ReceivedBlock>, JournalError> {
        let rows = sqlx::query(
            "select base_offset, header, payload from (
                 select base_offset, event_count, header, payload,
                        sum(event_count) over (order by base_offset) as events_so_far
                 from (
                     select base_offset, event_count, header, payload from journal.received
                     where workspace_id = $1 and partition = $2 and generation = $3
                       and base_offset > $4 - $6 and base_offset + event_count > $4
                     order by base_offset limit $7
                 ) as near
             ) as counted
             where events_so_far <= $5 or events_so_far = event_count
             order by base_offset",
        )
        .bind(workspace.0)
        .bind(from.partition.0.cast_signed())
        .bind(from.generation.0.cast_signed())
        .bind(from.offset.0.cast_signed())
        .bind(max_events)
        .bind(MAX_BLOCK_EVENTS)
        .bind(MAX_READ_BLOCKS)
        .fetch_all(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "read the journal", source })?;
        received_blocks(rows, from)
    }

    /// The block in which a position is, looked at to its last byte.
    async fn condition(&self, workspace: WorkspaceId, at: Position) -> Result<Condition, JournalError> {
        let row: Option<(i64, i32, Vec<u8>, Vec<u8>)> = sqlx::query_as(
            "select base_offset, event_count, header, payload from journal.received
             where workspace_id = $1 and partition = $2 and generation = $3
               and base_offset > $4 - $5 and base_offset <= $4 and base_offset + event_count > $4",
        )
        .bind(workspace.0)
        .bind(at.partition.0.cast_signed())
        .bind(at.generation.0.cast_signed())
        .bind(at.offset.0.cast_signed())
        .bind(MAX_BLOCK_EVENTS)
        .fetch_optional(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "look at a block of the journal", source })?;
        let Some((base, events, header, payload)) = row else { return Ok(Condition::Absent) };
        let first = Position { offset: Offset(base.cast_unsigned()), ..at };
        let header = BlockHeader::read(&header);
        Ok(Condition::of(first, Some(events.cast_unsigned()), header, &payload, None))
    }

    /// Which of these positions hold an event: those before the end of their partition, or of the generation that has ended.
    async fn held(&self, workspace: WorkspaceId, positions: &[Position]) -> Result<Vec<bool>, JournalError> {
        sqlx::query_scalar(
            "select coalesce(u.o < case when h.generation = u.g then h.next_offset
                                        when h.generation > u.g then e.next_offset end, false)
             from unnest($2::integer[], $3::integer[], $4::bigint[]) with ordinality as u (p, g, o, n)
             left join journal.head h on h.workspace_id = $1 and h.partition = u.p
             left join journal.layout_end e
                 on e.workspace_id = $1 and e.generation = u.g and e.partition = u.p
             order by u.n",
        )
        .bind(workspace.0)
        .bind(positions.iter().map(|at| at.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(positions.iter().map(|at| at.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(positions.iter().map(|at| at.offset.0.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "look what the journal holds", source })
    }

    async fn durability_weaknesses(&self) -> Result<Vec<String>, JournalError> {
        let (fsync, commit, standbys, timeline): (String, String, String, String) = sqlx::query_as(
            "select current_setting('fsync'), current_setting('synchronous_commit'),
                    current_setting('synchronous_standby_names'), journal.timeline()",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "look how durable a commit is", source })?;
        let mut weaknesses = Vec::new();
        if fsync != "on" {
            weaknesses
                .push("fsync is off: a crash of the database's machine loses acknowledged events".into());
        }
        // Source: PostgreSQL 15, "Write Ahead Log", synchronous_commit; 2025-11.
        if commit == "off" {
            weaknesses
                .push("synchronous_commit is off: a crash of the database loses acknowledged events".into());
        }
        if standbys.trim().is_empty() {
            weaknesses.push(
                "there is no synchronous standby (synchronous_standby_names is empty): the loss of the database's disk \
                 loses acknowledged events"
                    .into(),
            );
        } else if commit == "local" {
            weaknesses.push(
                "synchronous_commit is local: a promotion of the standby loses acknowledged events".into(),
            );
        }
        if timeline.starts_with("untold") {
            weaknesses.push(
                "the database does not tell its timeline (pg_current_wal_lsn, pg_walfile_name): a failover that loses \
                 acknowledged events is not noticed, and new ones may be taken for them"
                    .into(),
            );
        }
        Ok(weaknesses)
    }

    /// The heads of every partition that was ever written.
    ///
    /// # Errors
    /// The database.
    pub async fn heads(&self) -> Result<Vec<Head>, JournalError> {
        let rows: Vec<(i64, i32, i32, i64)> =
            sqlx::query_as("select workspace_id, partition, generation, next_offset from journal.head")
                .fetch_all(&self.pool)
                .await
                .map_err(|source| JournalError::Database { what: "read the journal's heads", source })?;
        Ok(rows
            .into_iter()
            .map(|(workspace, partition, generation, next)| Head {
                workspace: WorkspaceId(workspace),
                partition: Partition(partition.cast_unsigned()),
                generation: Generation(generation.cast_unsigned()),
                next: Offset(next.cast_unsigned()),
            })
            .collect())
    }
}

/// What stands before a block that cannot be read is given without it.
fn received_blocks(rows: Vec<PgRow>, from: Position) -> Result<Vec<ReceivedBlock>, JournalError> {
    let mut blocks = Vec::with_capacity(rows.len());
    for row in rows {
        let read = |source| JournalError::Database { what: "read the journal", source };
        let base: i64 = row.try_get(0).map_err(read)?;
        let header: &[u8] = row.try_get(1).map_err(read)?;
        let first = Position { offset: Offset(base.cast_unsigned()), ..from };
        if blocks.is_empty() && first.offset > from.offset {
            return Err(JournalError::Trimmed { position: from });
        }
        let header = match BlockHeader::read(header) {
            Err(_) if !blocks.is_empty() => break,
            header => header.map_err(|source| JournalError::Block { position: first, source })?,
        };
        let payload = row.try_get(2).map_err(read)?;
        blocks.push(ReceivedBlock { first, header, payload, record: None });
    }
    Ok(blocks)
}

impl From<PostgresJournal> for Arc<dyn Journal> {
    fn from(journal: PostgresJournal) -> Self {
        Arc::new(journal)
    }
}

#[async_trait::async_trait]
impl Journal for PostgresJournal {
    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    async fn prepare(&self) -> Result<(), JournalError> {
        self.ensure_partitions(DAYS_AHEAD).await
    }

    async fn layout(&self, workspace: WorkspaceId, wanted: Spread) -> Result<Layout, AppendError> {
        let opened = LayoutStore::new(self.pool.clone()).open(workspace, wanted).await;
        let layout = opened.map_err(|error| AppendError::Unavailable { why: error.to_string() })?;
        if layout.partitions != wanted.partitions {
            tracing::warn!(
                workspace = workspace.0,
                partitions = layout.partitions,
                wanted = wanted.partitions,
                revision = wanted.revision,
                "a newer configuration than this one has said how many partitions a workspace has; if control's database was \
                 restored, say it again"
            );
        }
        Ok(layout)
    }

    async fn layouts(&self) -> Result<Vec<(WorkspaceId, Layout)>, JournalError> {
        LayoutStore::new(self.pool.clone()).all().await
    }

    async fn append(&self, blocks: &[NewBlock]) -> Result<Vec<Appended>, AppendError> {
        let appended = Self::append(self, blocks).await;
        appended.map_err(|error| AppendError::Unavailable { why: error.to_string() })
    }

    async fn read(
        &self,
        workspace: WorkspaceId,
        from: Place,
        most: Most,
    ) -> Result<Vec<ReceivedBlock>, JournalError> {
        if most.events == i64::MAX {
            Self::read(self, workspace, from.at, most.blocks).await
        } else {
            self.read_up_to(workspace, from.at, most.events).await
        }
    }

    async fn look_at(&self, workspace: WorkspaceId, at: Place) -> Result<Condition, JournalError> {
        self.condition(workspace, at.at).await
    }

    async fn count(
        &self,
        workspace: WorkspaceId,
        from: Place,
        each: &mut EachHeader<'_>,
    ) -> Result<Place, JournalError> {
        let mut place = from;
        loop {
            let blocks = Self::read(self, workspace, place.at, 1).await?;
            let Some(block) = blocks.first() else { return Ok(place) };
            each(block.first, &block.header);
            place.at.offset = block.end();
        }
    }

    async fn heads(&self) -> Result<Vec<Head>, JournalError> {
        Self::heads(self).await
    }

    async fn arrival(&self, _: WorkspaceId, _: Place) {
        // One statement answers for the heads of all partitions: whoever waits asks that.
        std::future::pending().await
    }

    async fn surviving(
        &self,
        _: WorkspaceId,
        _: Partition,
        _: &[Record],
    ) -> Result<Option<Record>, JournalError> {
        Ok(None)
    }

    async fn holds(&self, workspace: WorkspaceId, positions: &[Position]) -> Result<Vec<bool>, JournalError> {
        self.held(workspace, positions).await
    }

    async fn trim(&self, behind: &[(WorkspaceId, Place)]) -> Result<(), JournalError> {
        self.drop_read_days(behind).await.map(drop)
    }

    async fn behind(&self, places: &[(WorkspaceId, Place)]) -> Result<Vec<Behind>, JournalError> {
        let places: Vec<_> = places.iter().map(|(workspace, place)| (*workspace, place.at)).collect();
        self.behind_heads(&places).await
    }

    async fn stored_bytes(&self) -> Result<Option<u64>, JournalError> {
        self.bytes_on_disk().await.map(Some)
    }

    async fn late_day(&self) -> Result<Option<String>, JournalError> {
        self.oldest_late_day().await
    }

    async fn unread_bytes(&self) -> Result<Option<u64>, JournalError> {
        self.estimate_unread_bytes().await
    }

    async fn wants_to_be_told(&self) -> Result<bool, JournalError> {
        self.is_time_to_tell().await
    }

    async fn tell_read(&self, behind: &[(WorkspaceId, Place)]) -> Result<(), JournalError> {
        self.write_read_places(behind).await
    }

    async fn weaknesses(&self) -> Result<Vec<String>, JournalError> {
        self.durability_weaknesses().await
    }

    fn resolved(&self) -> Option<Arc<dyn ResolvedLog>> {
        None
    }
}
