//! Gives days back that everybody has read, over PostgreSQL.
//!
//! A day is counted first, at leisure, and dropped by one call that takes the counts with it: whoever counts what was received
//! reads blocks and dropped ranges together, and comes to the same sum before and after. The call
//! looks again whether the counts are of everything, since an append that began before midnight may have come late.

use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::PgPool;
use tracklayer_ids::WorkspaceId;

use crate::block::BlockHeader;
use crate::error::JournalError;
use crate::journal::Place;
use crate::postgres::{LOCK_NOT_AVAILABLE, PostgresJournal};

/// SQLSTATE of a day that holds more than was counted.
const NOT_ALL_COUNTED: &str = "40001";
/// How often a day is tried to be dropped between long reads, and the pause between two tries.
const DROP_TRIES: u32 = 5;
const DROP_PAUSE: Duration = Duration::from_millis(200);
/// After its end a day has so long to be read and dropped.
const LATE: Duration = Duration::from_secs(3600);

/// What stands in one day without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    workspace: i64,
    partition: i32,
    generation: i32,
    first: i64,
    next: i64,
    counted: i64,
}

type BlockRow = (i32, i64, i32, Vec<u8>);

impl PostgresJournal {
    /// Drops past days in which nothing stands that is not behind these places, from the oldest on. A long read is not made to
    /// wait, nor those behind it: what could not be locked at once is left for a later call. Answers how many were dropped.
    ///
    /// # Errors
    /// The database. What was dropped until then is.
    pub async fn drop_read_days(&self, behind: &[(WorkspaceId, Place)]) -> Result<usize, JournalError> {
        let mut dropped = 0;
        for day in days_before(&self.pool, Duration::ZERO).await? {
            if holds_unread(&self.pool, &day, behind).await? || !self.drop_day(&day).await? {
                break;
            }
            tracing::info!(day, "a day of the journal that everybody has read was dropped");
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Bytes of all days of `received` with their indexes on PostgreSQL's disk, read or not: a day goes when it is over and everybody
    /// has read it. What delivery resolved stays for the time of its claims and says nothing.
    ///
    /// # Errors
    /// The database.
    pub async fn bytes_on_disk(&self) -> Result<u64, JournalError> {
        let bytes: i64 = sqlx::query_scalar(
            "select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint
             from pg_partition_tree('journal.received')",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "see how large the journal is", source })?;
        Ok(bytes.cast_unsigned())
    }

    /// The oldest day that is still kept though it ended more than an hour ago: where readers keep up, it is gone by then.
    ///
    /// # Errors
    /// The database.
    pub async fn oldest_late_day(&self) -> Result<Option<String>, JournalError> {
        Ok(days_before(&self.pool, LATE).await?.into_iter().next())
    }

    /// `false`: not now.
    async fn drop_day(&self, day: &str) -> Result<bool, JournalError> {
        let mut tries = 0;
        loop {
            let ranges = ranges_of(&self.pool, day).await?;
            let column = |of: fn(&Range) -> i64| ranges.iter().map(of).collect::<Vec<_>>();
            let dropped = sqlx::query("select journal.drop_day($1::text::date, $2, $3, $4, $5, $6, $7)")
                .bind(day)
                .bind(column(|range| range.workspace))
                .bind(ranges.iter().map(|range| range.partition).collect::<Vec<_>>())
                .bind(ranges.iter().map(|range| range.generation).collect::<Vec<_>>())
                .bind(column(|range| range.first))
                .bind(column(|range| range.next))
                .bind(column(|range| range.counted))
                .execute(&self.pool)
                .await;
            let Err(source) = dropped else { return Ok(true) };
            let code = source.as_database_error().and_then(|e| e.code());
            if !matches!(code.as_deref(), Some(LOCK_NOT_AVAILABLE | NOT_ALL_COUNTED)) {
                return Err(JournalError::Database { what: "drop a day that is read", source });
            }
            tries += 1;
            if tries >= DROP_TRIES {
                return Ok(false);
            }
            tokio::time::sleep(DROP_PAUSE).await;
        }
    }
}

/// Days that ended so long ago of which something is kept, the oldest first.
async fn days_before(pool: &PgPool, ago: Duration) -> Result<Vec<String>, JournalError> {
    sqlx::query_scalar(
        "select day::text from (
             select to_date(substr(c.relname, 10), 'YYYYMMDD') as day
             from pg_inherits i join pg_class c on c.oid = i.inhrelid
             where i.inhparent = 'journal.received'::regclass and c.relname ~ '^received_[0-9]{8}$'
             union select appended_on from only journal.received_default
         ) as days
         where day < ((now() - make_interval(secs => $1)) at time zone 'utc')::date order by day",
    )
    .bind(ago.as_secs_f64())
    .fetch_all(pool)
    .await
    .map_err(|source| JournalError::Database { what: "look for past days of the journal", source })
}

/// Whether a day holds anything of whom no place is given, or that stands behind it.
async fn holds_unread(
    pool: &PgPool,
    day: &str,
    behind: &[(WorkspaceId, Place)],
) -> Result<bool, JournalError> {
    // Offsets rise, so that the last block of a partition speaks for all of them.
    sqlx::query_scalar(
        "select exists (
             select 1 from journal.head h
             left join unnest($1::bigint[], $2::integer[], $3::integer[], $4::bigint[]) as b (w, p, g, o)
               on b.w = h.workspace_id and b.p = h.partition
             cross join lateral (
                 select r.generation, r.base_offset + r.event_count as behind from journal.received r
                 where r.workspace_id = h.workspace_id and r.partition = h.partition
                   and r.appended_on = $5::text::date
                 order by r.generation desc, r.base_offset desc limit 1
             ) last
             where b.w is null or (last.generation, last.behind) > (b.g, b.o))",
    )
    .bind(behind.iter().map(|b| b.0.0).collect::<Vec<_>>())
    .bind(behind.iter().map(|b| b.1.at.partition.0.cast_signed()).collect::<Vec<_>>())
    .bind(behind.iter().map(|b| b.1.at.generation.0.cast_signed()).collect::<Vec<_>>())
    .bind(behind.iter().map(|b| b.1.at.offset.0.cast_signed()).collect::<Vec<_>>())
    .bind(day)
    .fetch_one(pool)
    .await
    .map_err(|source| JournalError::Database { what: "look whether a day is read", source })
}

/// Everything that stands in a day.
async fn ranges_of(pool: &PgPool, day: &str) -> Result<Vec<Range>, JournalError> {
    let failed = |source| JournalError::Database { what: "count what stands in a day", source };
    let heads: Vec<(i64, i32)> =
        sqlx::query_as("select workspace_id, partition from journal.head order by workspace_id, partition")
            .fetch_all(pool)
            .await
            .map_err(failed)?;
    let mut ranges: Vec<Range> = Vec::new();
    // A statement for each partition, so that none takes as long as the day is large.
    for (workspace, partition) in heads {
        let mut rows = sqlx::query_as::<_, BlockRow>(
            "select generation, base_offset, event_count, header from journal.received
             where workspace_id = $1 and partition = $2 and appended_on = $3::text::date
             order by generation, base_offset",
        )
        .bind(workspace)
        .bind(partition)
        .bind(day)
        .fetch(pool);
        while let Some((generation, first, events, header)) = rows.try_next().await.map_err(failed)? {
            let next = first + i64::from(events);
            let counted = counted(events, &header);
            match ranges.last_mut() {
                Some(last)
                    if (last.workspace, last.partition, last.generation, last.next)
                        == (workspace, partition, generation, first) =>
                {
                    last.next = next;
                    last.counted += counted;
                }
                _ => ranges.push(Range { workspace, partition, generation, first, next, counted }),
            }
        }
    }
    Ok(ranges)
}

/// Events by the counts of a block's header; of one that cannot be read, as many as its row says.
fn counted(events: i32, header: &[u8]) -> i64 {
    let header = BlockHeader::read(header);
    header.map_or(i64::from(events), |header| header.counts.iter().map(|c| i64::from(c.count)).sum())
}
