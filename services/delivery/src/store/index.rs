//! The index over message_ids and orders: writing a run with a commit, finding in all of them, merging them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{ConnectionId, Partition, WorkspaceId};

use super::{StoreError, attempting};
use crate::lease::{Duty, FleetLevel, INDEX_LEVEL};
use crate::resolve::error_chain;
use crate::runs::{Content, FANOUT, MAX_RECORDS, Merge, Record, SEGMENT, Step, body, hash_of, of_hash};

/// Most hashes that one statement looks for: it compares each with every segment.
const MAX_ASKED: usize = 256;
/// Most runs that are merged at once.
const MAX_SOURCES: i64 = 4 * FANOUT as i64;
/// How often a lookup begins again because a merge has moved what it was about to read.
const LOOKUP_TRIES: usize = 5;

/// The index. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Index {
    pool: PgPool,
    fleet: FleetLevel,
    grown: Arc<Grown>,
}

/// How many runs commits of this process have added since their last merge.
#[derive(Debug, Default)]
struct Grown {
    counts: Mutex<HashMap<Duty, usize>>,
    enough: Notify,
}

/// A record, and how new it is: the least age of a partition is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<R> {
    /// Of the run.
    pub partition: Partition,
    /// What is newer has a lower level, or a higher number on the same.
    pub age: (i16, std::cmp::Reverse<i64>),
    /// The record.
    pub record: R,
}

/// A part of a segment, by which a lookup goes on.
#[derive(sqlx::FromRow)]
struct Part {
    partition: i32,
    level: i16,
    run: i64,
    segment: i32,
    records: i32,
    hash: i64,
    skip: i32,
    part: Vec<u8>,
}

impl Index {
    /// Over the service's pool, of a process that has no others beside it.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let fleet = FleetLevel::default();
        fleet.set(INDEX_LEVEL);
        Self::beside(pool, fleet)
    }

    /// Over the service's pool. Runs are written once all processes can read them.
    #[must_use]
    pub fn beside(pool: PgPool, fleet: FleetLevel) -> Self {
        Self { pool, fleet, grown: Arc::default() }
    }

    /// The service's pool.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether every process can read runs.
    #[must_use]
    pub fn is_read_by_all(&self) -> bool {
        self.fleet.get() >= INDEX_LEVEL
    }

    /// Adds a run, in the transaction of a commit. Tell [`Self::grew`] once that is through.
    ///
    /// # Errors
    /// The database.
    pub async fn add<R: Record>(
        &self,
        tx: &mut PgConnection,
        duty: Duty,
        records: Vec<R>,
    ) -> Result<(), StoreError> {
        let body = body(records);
        if body.is_empty() {
            return Ok(());
        }
        insert(tx, duty, 0, None, 0, &body).await
    }

    /// A commit that added a run is through.
    pub fn grew(&self, duty: Duty) {
        let mut counts = self.grown.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // What an earlier process left is looked at with the first.
        let count = counts.entry(duty).or_insert(FANOUT - 1);
        *count += 1;
        if *count >= FANOUT {
            self.grown.enough.notify_one();
        }
    }

    /// What is recorded under these hashes, of all partitions.
    ///
    /// # Errors
    /// The database, or bytes that are no record.
    pub async fn find<R: Record>(
        &self,
        connection: &mut PgConnection,
        of: (WorkspaceId, ConnectionId),
        hashes: &[i64],
    ) -> Result<Vec<Found<R>>, StoreError> {
        let mut found = Vec::new();
        for hashes in hashes.chunks(MAX_ASKED) {
            for tries_left in (0..LOOKUP_TRIES).rev() {
                match self.find_some(connection, of, hashes).await {
                    Err(StoreError::IndexMoved) if tries_left > 0 => {}
                    some => {
                        found.extend(some?);
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    async fn find_some<R: Record>(
        &self,
        connection: &mut PgConnection,
        (workspace, of): (WorkspaceId, ConnectionId),
        hashes: &[i64],
    ) -> Result<Vec<Found<R>>, StoreError> {
        let mut found = Vec::new();
        // Hashes are spread evenly, so that a record stands about where its hash is between the first and the last.
        let parts: Vec<Part> = sqlx::query_as(
                "select r.partition, r.level, r.run, r.segment, r.records, u.hash, p.skip,
                        substr(r.body, p.skip * $4 + 1, (p.stop - p.skip) * $4) as part
                 from unnest($3::bigint[]) as u (hash)
                 join delivery.index_run r
                     on r.workspace_id = $1 and r.connection_id = $2 and u.hash between r.first_hash and r.last_hash
                 cross join lateral (
                     select (u.hash::float8 - r.first_hash::float8)
                                / greatest(r.last_hash::float8 - r.first_hash::float8, 1) * r.records as middle,
                            4 * sqrt(r.records) + 8 as around
                 ) as m
                 cross join lateral (
                     select greatest(0, floor(m.middle - m.around)::integer) as skip,
                            least(r.records, ceil(m.middle + m.around)::integer) as stop
                 ) as p",
            )
            .bind(workspace.0)
            .bind(of.0)
            .bind(hashes)
            .bind(width::<R>())
            .fetch_all(&mut *connection)
            .await
            .map_err(attempting("look something up in the index"))?;
        for part in parts {
            let ends = part.part.len() / R::WIDTH + usize::try_from(part.skip).unwrap_or(0);
            let whole = (part.skip == 0, ends >= usize::try_from(part.records).unwrap_or(usize::MAX));
            let (records, sure) = of_hash(&part.part, R::WIDTH, part.hash, whole);
            if sure {
                take(&mut found, &part, records)?;
            } else {
                let whole = self.segment(connection, (workspace, of), &part).await?;
                let (records, _) = of_hash(&whole, R::WIDTH, part.hash, (true, true));
                take(&mut found, &part, records)?;
            }
        }
        Ok(found)
    }

    /// All of a segment, if it was not merged meanwhile.
    async fn segment(
        &self,
        connection: &mut PgConnection,
        (workspace, of): (WorkspaceId, ConnectionId),
        part: &Part,
    ) -> Result<Vec<u8>, StoreError> {
        let body: Option<Vec<u8>> = sqlx::query_scalar(
            "select body from delivery.index_run
             where workspace_id = $1 and connection_id = $2 and partition = $3 and level = $4 and run = $5
               and segment = $6",
        )
        .bind(workspace.0)
        .bind(of.0)
        .bind(part.partition)
        .bind(part.level)
        .bind(part.run)
        .bind(part.segment)
        .fetch_optional(connection)
        .await
        .map_err(attempting("read a segment of the index"))?;
        body.ok_or(StoreError::IndexMoved)
    }

    /// Merges wherever commits of this process have added enough runs, until `shutdown`.
    pub async fn keep_merged(self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.grown.enough.notified()).await.is_some() {
            for duty in self.due() {
                if shutdown.is_cancelled() {
                    return;
                }
                if let Err(error) = self.merge_all(duty).await {
                    let error = error_chain(&error);
                    tracing::warn!(
                        workspace = duty.workspace.0,
                        error,
                        "the index was not merged; the next commits try again"
                    );
                }
            }
        }
    }

    fn due(&self) -> Vec<Duty> {
        let mut counts = self.grown.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let due = counts.iter_mut().filter(|(_, count)| **count >= FANOUT);
        due.map(|(duty, count)| (*duty, *count = 0).0).collect()
    }

    /// Merges the levels that have become full, from the lowest on.
    ///
    /// # Errors
    /// The database.
    pub async fn merge_all(&self, duty: Duty) -> Result<(), StoreError> {
        for level in 0..i16::MAX {
            if !self.merge(duty, level).await? {
                break;
            }
        }
        Ok(())
    }

    /// Makes one run of the next level of all runs of a level; `false`: there are too few, or they are too large, or somebody
    /// else is about it. A merge changes nothing of what is found, so that it needs no lease.
    async fn merge(&self, duty: Duty, level: i16) -> Result<bool, StoreError> {
        let what = attempting("merge runs of the index");
        let mut tx = self.pool.begin().await.map_err(&what)?;
        let Some(records) = merge_level(&mut tx, duty, level).await? else {
            // Not left to the pool, which may take its time: the lock would keep the next merge away.
            tx.rollback().await.map_err(&what)?;
            return Ok(false);
        };
        tx.commit().await.map_err(&what)?;
        metrics::counter!("tracklayer_index_merged_records_total").increment(records.cast_unsigned());
        Ok(true)
    }
}

/// How many records were merged; none: there is nothing to merge.
async fn merge_level(tx: &mut PgConnection, duty: Duty, level: i16) -> Result<Option<i64>, StoreError> {
    let what = attempting("merge runs of the index");
    let alone: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("delivery.index_run {}/{}/{}", duty.workspace.0, duty.connection.0, duty.partition.0))
        .fetch_one(&mut *tx)
        .await
        .map_err(&what)?;
    if !alone {
        return Ok(None);
    }
    // After a while without merges there are more than enough, and each is read at the same time: the oldest.
    let runs: Vec<(i64, i64)> = sqlx::query_as(
        "select run, sum(records)::bigint from delivery.index_run
         where workspace_id = $1 and connection_id = $2 and partition = $3 and level = $4
         group by run order by run limit $5",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(level)
    .bind(MAX_SOURCES)
    .fetch_all(&mut *tx)
    .await
    .map_err(&what)?;
    let records: i64 = runs.iter().map(|(_, records)| records).sum();
    let (Some((newest, _)), true) = (runs.last(), runs.len() >= FANOUT && records <= MAX_RECORDS) else {
        return Ok(None);
    };
    let numbers: Vec<i64> = runs.iter().map(|(run, _)| *run).collect();
    write_merged(tx, duty, level, &numbers, *newest).await?;
    sqlx::query(
        "delete from delivery.index_run
         where workspace_id = $1 and connection_id = $2 and partition = $3 and level = $4 and run = any($5)",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(level)
    .bind(&numbers)
    .execute(tx)
    .await
    .map_err(&what)?;
    Ok(Some(records))
}

/// Reads runs side by side and writes what they hold as one of the next level.
async fn write_merged(
    tx: &mut PgConnection,
    duty: Duty,
    level: i16,
    runs: &[i64],
    number: i64,
) -> Result<(), StoreError> {
    let content = Content::of(duty.connection);
    let mut merge = Merge::new(content, runs.len());
    let mut segments_read = vec![0i32; runs.len()];
    let mut segment = Vec::with_capacity(SEGMENT * content.width());
    let mut written = 0i32;
    loop {
        match merge.step(&mut segment) {
            Step::Empty(source) => {
                let body: Option<Vec<u8>> = sqlx::query_scalar(
                    "select body from delivery.index_run
                     where workspace_id = $1 and connection_id = $2 and partition = $3 and level = $4 and run = $5
                       and segment = $6",
                )
                .bind(duty.workspace.0)
                .bind(duty.connection.0)
                .bind(duty.partition.0.cast_signed())
                .bind(level)
                .bind(runs[source])
                .bind(segments_read[source])
                .fetch_optional(&mut *tx)
                .await
                .map_err(attempting("read a run of the index"))?;
                segments_read[source] += 1;
                if body.as_ref().is_some_and(|body| body.len() % content.width() != 0) {
                    return Err(StoreError::Corrupt { what: "a run of the index" });
                }
                merge.fill(source, body);
            }
            Step::Done if segment.is_empty() => return Ok(()),
            Step::Done => {
                insert(tx, duty, level + 1, Some(number), written, &segment).await?;
                segment.clear();
                written += 1;
            }
        }
    }
}

/// Without a number it is a new run, with the next one.
async fn insert(
    tx: &mut PgConnection,
    duty: Duty,
    level: i16,
    number: Option<i64>,
    segment: i32,
    body: &[u8],
) -> Result<(), StoreError> {
    let width = Content::of(duty.connection).width();
    let records = i32::try_from(body.len() / width).unwrap_or(i32::MAX);
    sqlx::query(
        "insert into delivery.index_run
             (workspace_id, connection_id, partition, level, run, segment, first_hash, last_hash, records, body)
         values ($1, $2, $3, $4, coalesce($5, nextval('delivery.index_run_number')), $6, $7, $8, $9, $10)",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(level)
    .bind(number)
    .bind(segment)
    .bind(hash_of(body))
    .bind(hash_of(&body[body.len() - width..]))
    .bind(records)
    .bind(body)
    .execute(tx)
    .await
    .map_err(attempting("write a run of the index"))?;
    Ok(())
}

fn width<R: Record>() -> i32 {
    i32::try_from(R::WIDTH).unwrap_or(i32::MAX)
}

fn take<R: Record>(found: &mut Vec<Found<R>>, part: &Part, records: &[u8]) -> Result<(), StoreError> {
    for record in records.chunks(R::WIDTH) {
        let record = R::read(record).ok_or(StoreError::Corrupt { what: "a record of the index" })?;
        let partition = Partition(part.partition.cast_unsigned());
        found.push(Found { partition, age: (part.level, std::cmp::Reverse(part.run)), record });
    }
    Ok(())
}
