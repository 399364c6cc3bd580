//! The index over message_ids and orders: writing a run with a commit, finding in all of them, merging them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt as _;
use sqlx::{FromRow as _, PgConnection, PgPool, Row as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{ConnectionId, Partition, WorkspaceId};

use super::{StoreError, attempting};
use crate::lease::{Duty, FleetLevel, INDEX_LEVEL, OUR_LEVEL};
use crate::resolve::error_chain;
use crate::runs::{Content, FANOUT, Merge, Record, SEGMENT, Step, body, hash_of, of_hash, to_merge};

/// Most hashes that one statement looks for: it compares each with every segment.
const MAX_ASKED: usize = 256;
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

/// A record and its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<R> {
    /// Of the run.
    pub partition: Partition,
    /// Of two runs of a partition the one with the higher number is newer.
    pub run: i64,
    /// The record.
    pub record: R,
}

/// A run that is to be added by the statement of a commit, as [`Index::add`] would: of level 0, in one segment, with the next number.
#[derive(Debug)]
pub(super) struct NewRun {
    pub(super) first_hash: i64,
    pub(super) last_hash: i64,
    pub(super) records: i32,
    pub(super) body: Vec<u8>,
}

impl NewRun {
    /// None: there are no records.
    pub(super) fn of<R: Record>(records: Vec<R>) -> Option<Self> {
        let body = body(records);
        let last = body.len().checked_sub(R::WIDTH)?;
        Some(Self {
            first_hash: hash_of(&body),
            last_hash: hash_of(&body[last..]),
            records: i32::try_from(body.len() / R::WIDTH).unwrap_or(i32::MAX),
            body,
        })
    }
}

/// A segment that a hash may be in.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
struct Segment {
    partition: i32,
    level: i16,
    run: i64,
    segment: i32,
    last_hash: i64,
    records: i32,
    /// What is looked for.
    #[sqlx(skip)]
    hash: i64,
    /// How many of its records stand before the part that was read.
    skip: i32,
}

/// What a part of a segment says.
enum Look {
    /// All of the hash in this run was in it.
    Done,
    /// The hash is not where it was expected: all of the segment has to be read.
    Elsewhere,
    /// The hash goes on in the segment behind it.
    GoesOn,
}

impl Index {
    /// Over the service's pool, of a process that has no others beside it.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let fleet = FleetLevel::default();
        fleet.set(OUR_LEVEL);
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

    /// What all live processes can read.
    #[must_use]
    pub fn fleet(&self) -> &FleetLevel {
        &self.fleet
    }

    /// Whether every process can read runs.
    #[must_use]
    pub fn is_read_by_all(&self) -> bool {
        self.fleet.get() >= INDEX_LEVEL
    }

    /// Adds a run, in the transaction of a commit. Tell [`Self::grew`] once that is through. [`NewRun`] is for a commit of one statement.
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

    /// What is recorded under these hashes and is wanted, of all partitions.
    ///
    /// # Errors
    /// The database, or bytes that are no record.
    pub async fn find<R: Record>(
        &self,
        connection: &mut PgConnection,
        of: (WorkspaceId, ConnectionId),
        hashes: &[i64],
        wanted: impl Fn(&Found<R>) -> bool,
    ) -> Result<Vec<Found<R>>, StoreError> {
        let mut found = Vec::new();
        for hashes in hashes.chunks(MAX_ASKED) {
            for tries_left in (0..LOOKUP_TRIES).rev() {
                match find_some(connection, of, hashes, &wanted).await {
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

    /// Whose runs are to be merged. Where a merge fails, the next try is after as many commits.
    fn due(&self) -> Vec<Duty> {
        let mut counts = self.grown.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        for (duty, count) in counts.iter_mut().filter(|(_, count)| **count >= FANOUT) {
            *count = 0;
            due.push(*duty);
        }
        due
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
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
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

/// One look at all runs, which are as one statement sees them; what is not where it was expected is read after that.
async fn find_some<R: Record>(
    connection: &mut PgConnection,
    (workspace, of): (WorkspaceId, ConnectionId),
    hashes: &[i64],
    wanted: &impl Fn(&Found<R>) -> bool,
) -> Result<Vec<Found<R>>, StoreError> {
    let what = attempting("look something up in the index");
    let (mut found, mut left) = (Vec::new(), Vec::new());
    // Hashes are spread evenly, so that a record stands about where its hash is between the first and the last. Where those
    // places of all hashes would be as much as the run, it is read once as it is: one that is not full is all of its run.
    let mut rows = sqlx::query(
        "with r as (
             select r.partition, r.level, r.run,
                    r.records < $5 and cardinality($3::bigint[]) * (4 * sqrt(r.records) + 16) >= r.records as whole
             from delivery.index_run r
             where r.workspace_id = $1 and r.connection_id = $2 and r.segment = 0
         )
         select s.partition, s.level, s.run, s.segment, s.last_hash, s.records, null::bigint as hash, 0 as skip,
                s.body as part
         from r join delivery.index_run s
             on s.workspace_id = $1 and s.connection_id = $2 and s.partition = r.partition and s.level = r.level
                 and s.run = r.run and s.segment = 0
         where r.whole
         union all
         select r.partition, r.level, r.run, s.segment, s.last_hash, s.records, u.hash, p.skip,
                substr(s.body, p.skip * $4 + 1, (p.stop - p.skip) * $4) as part
         from r
         cross join unnest($3::bigint[]) as u (hash)
         cross join lateral (
             select s.* from delivery.index_run s
             where s.workspace_id = $1 and s.connection_id = $2 and s.partition = r.partition and s.level = r.level
               and s.run = r.run and s.last_hash >= u.hash
             order by s.last_hash, s.segment limit 1
         ) as s
         cross join lateral (
             select (u.hash::float8 - s.first_hash::float8)
                        / greatest(s.last_hash::float8 - s.first_hash::float8, 1) * s.records as middle,
                    2 * sqrt(s.records) + 8 as around
         ) as m
         cross join lateral (
             select greatest(0, floor(m.middle - m.around)::integer) as skip,
                    least(s.records, ceil(m.middle + m.around)::integer) as stop
         ) as p
         where not r.whole and s.first_hash <= u.hash",
    )
    .bind(workspace.0)
    .bind(of.0)
    .bind(hashes)
    .bind(i32::try_from(R::WIDTH).unwrap_or(i32::MAX))
    .bind(i32::try_from(SEGMENT).unwrap_or(i32::MAX))
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(&what)? {
        let segment = Segment::from_row(&row).map_err(&what)?;
        let hash: Option<i64> = row.try_get("hash").map_err(&what)?;
        let part: &[u8] = row.try_get("part").map_err(&what)?;
        let of_run = if hash.is_none() { hashes } else { &[] };
        for hash in hash.iter().chain(of_run).copied().filter(|hash| *hash <= segment.last_hash) {
            let segment = Segment { hash, ..segment };
            match look(&segment, part, &mut found, wanted)? {
                Look::Done => {}
                elsewhere => left.push((segment, elsewhere)),
            }
        }
    }
    drop(rows);
    for (mut segment, mut look_at) in left {
        loop {
            let body = match look_at {
                Look::Done => break,
                Look::Elsewhere => read_segment(connection, (workspace, of), &segment).await?,
                Look::GoesOn => match next_segment(connection, (workspace, of), &segment).await? {
                    Some((next, body)) => {
                        segment = next;
                        body
                    }
                    None => break,
                },
            };
            segment.skip = 0;
            look_at = look(&segment, &body, &mut found, wanted)?;
        }
    }
    Ok(found)
}

/// Takes what a part of a segment has of the hash, if that is surely all of it.
fn look<R: Record>(
    segment: &Segment,
    part: &[u8],
    found: &mut Vec<Found<R>>,
    wanted: &impl Fn(&Found<R>) -> bool,
) -> Result<Look, StoreError> {
    let (skip, records) = (segment.skip.cast_unsigned() as usize, segment.records.cast_unsigned() as usize);
    let whole = (skip == 0, skip + part.len() / R::WIDTH >= records);
    let (of_hash, sure) = of_hash(part, R::WIDTH, segment.hash, whole);
    if !sure {
        return Ok(Look::Elsewhere);
    }
    for record in of_hash.chunks(R::WIDTH) {
        let record = R::read(record).ok_or(StoreError::Corrupt { what: "a record of the index" })?;
        let partition = Partition(segment.partition.cast_unsigned());
        let record = Found { partition, run: segment.run, record };
        if wanted(&record) {
            found.push(record);
        }
    }
    Ok(if segment.last_hash == segment.hash { Look::GoesOn } else { Look::Done })
}

/// All of a segment, if it was not merged meanwhile.
async fn read_segment(
    connection: &mut PgConnection,
    (workspace, of): (WorkspaceId, ConnectionId),
    segment: &Segment,
) -> Result<Vec<u8>, StoreError> {
    let body: Option<Vec<u8>> = sqlx::query_scalar(
        "select body from delivery.index_run
         where workspace_id = $1 and connection_id = $2 and partition = $3 and level = $4 and run = $5
           and last_hash = $6 and segment = $7",
    )
    .bind(workspace.0)
    .bind(of.0)
    .bind(segment.partition)
    .bind(segment.level)
    .bind(segment.run)
    .bind(segment.last_hash)
    .bind(segment.segment)
    .fetch_optional(connection)
    .await
    .map_err(attempting("read a segment of the index"))?;
    body.ok_or(StoreError::IndexMoved)
}

/// The segment behind one that ends with the hash; none: there is none.
async fn next_segment(
    connection: &mut PgConnection,
    (workspace, of): (WorkspaceId, ConnectionId),
    segment: &Segment,
) -> Result<Option<(Segment, Vec<u8>)>, StoreError> {
    let rows: Vec<(i32, i64, i32, Vec<u8>)> = sqlx::query_as(
        "select segment, last_hash, records, body from delivery.index_run
         where workspace_id = $1 and connection_id = $2 and partition = $3 and level = $4 and run = $5
           and (last_hash, segment) >= ($6, $7)
         order by last_hash, segment limit 2",
    )
    .bind(workspace.0)
    .bind(of.0)
    .bind(segment.partition)
    .bind(segment.level)
    .bind(segment.run)
    .bind(segment.last_hash)
    .bind(segment.segment)
    .fetch_all(connection)
    .await
    .map_err(attempting("read the next segment of the index"))?;
    let mut rows = rows.into_iter();
    // The one that was read before has to be there still, or what is behind it is another run's business by now.
    if rows.next().is_none_or(|(number, ..)| number != segment.segment) {
        return Err(StoreError::IndexMoved);
    }
    Ok(rows.next().map(|(number, last_hash, records, body)| {
        (Segment { segment: number, last_hash, records, skip: 0, ..*segment }, body)
    }))
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
    let runs: Vec<(i64, i64)> = sqlx::query_as(
        "select run, sum(records)::bigint from delivery.index_run
         where workspace_id = $1 and connection_id = $2 and partition = $3 and level = $4
         group by run order by run",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(level)
    .fetch_all(&mut *tx)
    .await
    .map_err(&what)?;
    let Some(runs) = to_merge(&runs) else { return Ok(None) };
    let records: i64 = runs.iter().map(|(_, records)| records).sum();
    let numbers: Vec<i64> = runs.iter().map(|(run, _)| *run).collect();
    write_merged(tx, duty, level, &numbers).await?;
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
async fn write_merged(tx: &mut PgConnection, duty: Duty, level: i16, runs: &[i64]) -> Result<(), StoreError> {
    let content = Content::of(duty.connection);
    let mut merge = Merge::new(content, runs.len());
    // What was read last of each.
    let mut read = vec![(i64::MIN, -1i32); runs.len()];
    let number = runs.last().copied();
    let mut segment = Vec::with_capacity(SEGMENT * content.width());
    let mut written = 0i32;
    loop {
        match merge.step(&mut segment) {
            Step::Empty(source) => {
                let (last_hash, before) = read[source];
                let next: Option<(i64, i32, Vec<u8>)> = sqlx::query_as(
                    "select last_hash, segment, body from delivery.index_run
                     where workspace_id = $1 and connection_id = $2 and partition = $3 and level = $4 and run = $5
                       and (last_hash, segment) > ($6, $7)
                     order by last_hash, segment limit 1",
                )
                .bind(duty.workspace.0)
                .bind(duty.connection.0)
                .bind(duty.partition.0.cast_signed())
                .bind(level)
                .bind(runs[source])
                .bind(last_hash)
                .bind(before)
                .fetch_optional(&mut *tx)
                .await
                .map_err(attempting("read a run of the index"))?;
                let body = next.map(|(last_hash, segment, body)| {
                    read[source] = (last_hash, segment);
                    body
                });
                if body.as_ref().is_some_and(|body| body.len() % content.width() != 0) {
                    return Err(StoreError::Corrupt { what: "a run of the index" });
                }
                merge.fill(source, body);
            }
            Step::Done if segment.is_empty() => return Ok(()),
            Step::Done => {
                insert(tx, duty, level + 1, number, written, &segment).await?;
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
