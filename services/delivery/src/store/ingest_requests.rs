//! Table `delivery.ingest_request`: requests that a platform took and judges later. A lane writes a row in the commit of the request's
//! events; whoever asks about it claims it first, for a while, so that no two processes ask at the same time and one that was away
//! for too long writes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use tracklayer_ids::{ConnectionId, Partition, Position, WorkspaceId};

use super::{StoreError, attempting};
use crate::lane::storable;
use crate::lease::Lease;

/// Rows that one statement forgets, so that none takes long.
const AT_ONCE: i64 = 10_000;

/// Most characters of why nothing was told: parts of it are a platform's words.
const MAX_DETAIL_CHARS: usize = 500;

/// Events by reason.
pub type Reasons = BTreeMap<String, u64>;

/// A request that a platform took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenRequest {
    /// The platform's name of it.
    pub id: String,
    /// Events of it in this commit.
    pub events: u64,
    /// Those of them that a verdict about the whole request moves: not what was delivered before.
    pub positions: Vec<RequestedAt>,
    /// When they were settled.
    pub sent_at: Timestamp,
    /// When to ask first.
    pub first_look_at: Timestamp,
}

/// An event of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedAt {
    /// Where it stands.
    pub position: Position,
    /// Whether a request before this one may have brought it.
    pub sent_before: bool,
}

/// A request that somebody asks about now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Whose.
    pub workspace: WorkspaceId,
    /// The connection.
    pub connection: ConnectionId,
    /// The lane's partition.
    pub partition: Partition,
    /// The platform's name of it.
    pub request_id: String,
    /// Which claim of it this is.
    pub claim: i64,
    /// How often it was asked about, this time included.
    pub looks: u32,
    /// Events of it as committed so far.
    pub events: u64,
    /// When its events were settled.
    pub sent_at: Timestamp,
}

/// What a platform has told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToldStatus {
    /// `SUCCESS`, `PARTIAL_SUCCESS`, `FAILED`, `UNKNOWN`.
    pub status: String,
    /// Events that failed.
    pub failed: u64,
    /// Why.
    pub reasons: Reasons,
    /// Events that were taken with a warning.
    pub warnings: Reasons,
    /// Why nothing was told.
    pub detail: String,
}

/// A request as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRequest {
    /// The platform's name of it.
    pub id: String,
    /// Its events.
    pub events: u64,
    /// When they were settled.
    pub sent_at: Timestamp,
    /// How often it was asked about.
    pub looks: u32,
    /// When it is asked about next.
    pub next_look_at: Option<Timestamp>,
    /// What was told; an empty status: nothing yet.
    pub told: ToldStatus,
    /// When.
    pub told_at: Option<Timestamp>,
}

/// Requests of a connection by status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCount {
    /// Empty: not told yet.
    pub status: String,
    /// Requests.
    pub requests: u64,
    /// Their events.
    pub events: u64,
    /// Those of them that failed.
    pub failed: u64,
}

/// Statements on requests that are judged later.
#[derive(Debug, Clone)]
pub struct IngestRequestStore {
    pub(super) pool: PgPool,
}

/// Writes what a commit has settled. A request whose events are settled by two commits has one row; where it
/// was said to have failed between them, it is asked about once more, since that holds for the later ones as
/// well.
pub(super) async fn write(
    tx: &mut PgConnection,
    lease: &Lease,
    requests: &[TakenRequest],
) -> Result<(), StoreError> {
    if requests.is_empty() {
        return Ok(());
    }
    let at = |time: &dyn Fn(&TakenRequest) -> Timestamp| {
        requests.iter().map(|request| jiff_sqlx::Timestamp::from(time(request))).collect::<Vec<_>>()
    };
    // By the number of their request in this statement.
    let placed: Vec<(i64, RequestedAt)> = (1..)
        .zip(requests)
        .flat_map(|(number, request)| request.positions.iter().map(move |at| (number, *at)))
        .collect();
    sqlx::query(
        "insert into delivery.ingest_request as r
             (workspace_id, connection_id, partition, request_id, events, sent_at, next_look_at, generations,
              event_offsets, sent_before)
         select $1, $2, $3, u.id, u.events, u.sent_at, u.look_at, coalesce(p.generations, '{}'),
                coalesce(p.event_offsets, '{}'), coalesce(p.sent_before, '{}')
         from unnest($4::text[], $5::bigint[], $6::timestamptz[], $7::timestamptz[]) with ordinality
                  as u (id, events, sent_at, look_at, number)
         left join (
             select t.number, array_agg(t.g order by t.g, t.o) as generations,
                    array_agg(t.o order by t.g, t.o) as event_offsets,
                    array_agg(t.b order by t.g, t.o) as sent_before
             from unnest($8::bigint[], $9::integer[], $10::bigint[], $11::boolean[]) as t (number, g, o, b)
             group by t.number
         ) p on p.number = u.number
         order by u.id
         on conflict on constraint ingest_request_pkey do update
         set events = r.events + excluded.events,
             generations = r.generations || excluded.generations,
             event_offsets = r.event_offsets || excluded.event_offsets,
             sent_before = r.sent_before || excluded.sent_before,
             told_at = case when r.status <> 'FAILED' then r.told_at end,
             next_look_at = case when r.status <> 'FAILED' then r.next_look_at
                                 else excluded.next_look_at end",
    )
    .bind(lease.duty.workspace.0)
    .bind(lease.duty.connection.0)
    .bind(lease.duty.partition.0.cast_signed())
    .bind(requests.iter().map(|request| request.id.clone()).collect::<Vec<_>>())
    .bind(requests.iter().map(|request| request.events.cast_signed()).collect::<Vec<_>>())
    .bind(at(&|request: &TakenRequest| request.sent_at))
    .bind(at(&|request: &TakenRequest| request.first_look_at))
    .bind(placed.iter().map(|(number, _)| *number).collect::<Vec<i64>>())
    .bind(placed.iter().map(|(_, at)| at.position.generation.0.cast_signed()).collect::<Vec<_>>())
    .bind(placed.iter().map(|(_, at)| at.position.offset.0.cast_signed()).collect::<Vec<_>>())
    .bind(placed.iter().map(|(_, at)| at.sent_before).collect::<Vec<_>>())
    .execute(&mut *tx)
    .await
    .map_err(attempting("remember requests that are judged later"))?;
    Ok(())
}

/// Writes down what was told. Answers whether this claim still counted, and no more of the request's events
/// were committed since: then it is asked about again, as it is now.
pub(super) async fn write_told(
    connection: &mut PgConnection,
    claimed: &Claimed,
    told: &ToldStatus,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // Where its events stand is of use to a failure alone.
    let done = sqlx::query(
        "update delivery.ingest_request
         set looks = $5, status = $6, failed = $7, reasons = $8, warnings = $9, detail = $10, told_at = $11,
             next_look_at = null,
             generations = case when $6 = 'FAILED' then generations else '{}' end,
             event_offsets = case when $6 = 'FAILED' then event_offsets else '{}' end,
             sent_before = case when $6 = 'FAILED' then sent_before else '{}' end
         where workspace_id = $1 and connection_id = $2 and request_id = $3 and claim = $4 and told_at is null
           and events = $12",
    )
    .bind(claimed.workspace.0)
    .bind(claimed.connection.0)
    .bind(&claimed.request_id)
    .bind(claimed.claim)
    .bind(claimed.looks.cast_signed())
    .bind(&told.status)
    .bind(told.failed.cast_signed())
    .bind(Json(&told.reasons))
    .bind(Json(&told.warnings))
    .bind(storable(&told.detail, MAX_DETAIL_CHARS))
    .bind(jiff_sqlx::Timestamp::from(now))
    .bind(claimed.events.cast_signed())
    .execute(connection)
    .await
    .map_err(attempting("write down a verdict about a request"))?;
    Ok(done.rows_affected() == 1)
}

impl IngestRequestStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Takes requests that are due until `claimed_until`: then somebody else may have them. Of each connection no more than `each`, of all
    /// of them no more than `most`, the longest waiting first; none of the connections `but`.
    ///
    /// # Errors
    /// The database.
    pub async fn claim(
        &self,
        now: Timestamp,
        claimed_until: Timestamp,
        each: i64,
        most: i64,
        but: &[ConnectionId],
    ) -> Result<Vec<Claimed>, StoreError> {
        // From one connection to the next by the index, however many requests each has due.
        let rows: Vec<ClaimedRow> = sqlx::query_as(
            "with recursive busy as (
                 (select workspace_id, connection_id from delivery.ingest_request
                  where next_look_at is not null order by workspace_id, connection_id limit 1)
                 union all
                 select beyond.workspace_id, beyond.connection_id
                 from busy cross join lateral (
                     select r.workspace_id, r.connection_id from delivery.ingest_request r
                     where r.next_look_at is not null
                       and (r.workspace_id, r.connection_id) > (busy.workspace_id, busy.connection_id)
                     order by r.workspace_id, r.connection_id limit 1
                 ) beyond
             ), due as (
                 select mine.workspace_id, mine.connection_id, mine.request_id
                 from busy cross join lateral (
                     select r.workspace_id, r.connection_id, r.request_id, r.next_look_at
                     from delivery.ingest_request r
                     where r.workspace_id = busy.workspace_id and r.connection_id = busy.connection_id
                       and r.next_look_at <= $1
                     order by r.next_look_at limit $3 for update skip locked
                 ) mine
                 where busy.connection_id <> all($5::bigint[])
                 order by mine.next_look_at limit $4
             )
             update delivery.ingest_request r set claim = r.claim + 1, next_look_at = $2
             from due
             where r.workspace_id = due.workspace_id and r.connection_id = due.connection_id
               and r.request_id = due.request_id
             returning r.workspace_id, r.connection_id, r.partition, r.request_id, r.claim, r.looks, r.events,
                       r.sent_at",
        )
        .bind(jiff_sqlx::Timestamp::from(now))
        .bind(jiff_sqlx::Timestamp::from(claimed_until))
        .bind(each)
        .bind(most)
        .bind(but.iter().map(|connection| connection.0).collect::<Vec<i64>>())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("claim requests that are judged later"))?;
        Ok(rows
            .into_iter()
            .map(|(workspace, connection, partition, request_id, claim, looks, events, sent_at)| Claimed {
                workspace: WorkspaceId(workspace),
                connection: ConnectionId(connection),
                partition: Partition(partition.cast_unsigned()),
                request_id,
                claim,
                looks: looks.cast_unsigned().saturating_add(1),
                events: events.cast_unsigned(),
                sent_at: sent_at.to_jiff(),
            })
            .collect())
    }

    /// Writes down what was told of a request whose events stay what they are. Answers whether this claim
    /// still counted.
    ///
    /// # Errors
    /// The database.
    pub async fn tell(
        &self,
        claimed: &Claimed,
        told: &ToldStatus,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let acquired = self.pool.acquire().await;
        let mut connection = acquired.map_err(attempting("write down a verdict about a request"))?;
        write_told(&mut connection, claimed, told, now).await
    }

    /// Asks again later. `looks`: how often it counts as asked about from now on.
    ///
    /// # Errors
    /// The database.
    pub async fn put_off(
        &self,
        claimed: &Claimed,
        looks: u32,
        until: Timestamp,
        detail: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "update delivery.ingest_request set looks = $5, next_look_at = $6, detail = $7
             where workspace_id = $1 and connection_id = $2 and request_id = $3 and claim = $4 and told_at is null",
        )
        .bind(claimed.workspace.0)
        .bind(claimed.connection.0)
        .bind(&claimed.request_id)
        .bind(claimed.claim)
        .bind(looks.cast_signed())
        .bind(jiff_sqlx::Timestamp::from(until))
        .bind(storable(detail, MAX_DETAIL_CHARS))
        .execute(&self.pool)
        .await
        .map_err(attempting("put off asking about a request"))?;
        Ok(())
    }

    /// Forgets what was told before that time, at most so many that it does not take long.
    ///
    /// # Errors
    /// The database.
    pub async fn forget(&self, before: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "delete from delivery.ingest_request where ctid = any(array(
                 select ctid from delivery.ingest_request where told_at < $1 limit $2))",
        )
        .bind(jiff_sqlx::Timestamp::from(before))
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await
        .map_err(attempting("forget old verdicts about requests"))?;
        Ok(())
    }

    /// Requests of a connection by status.
    ///
    /// # Errors
    /// The database.
    pub async fn counts(
        &self,
        workspace: WorkspaceId,
        connection: i64,
    ) -> Result<Vec<StatusCount>, StoreError> {
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "select status, count(*), sum(events)::bigint, sum(failed)::bigint from delivery.ingest_request
             where workspace_id = $1 and connection_id = $2 group by status order by status",
        )
        .bind(workspace.0)
        .bind(connection)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("count requests by their verdicts"))?;
        let count = |(status, requests, events, failed): (String, i64, i64, i64)| StatusCount {
            status,
            requests: requests.cast_unsigned(),
            events: events.cast_unsigned(),
            failed: failed.cast_unsigned(),
        };
        Ok(rows.into_iter().map(count).collect())
    }

    /// Requests of a connection, newest first; only those that did not go well if `troubled`.
    ///
    /// # Errors
    /// The database.
    pub async fn list(
        &self,
        workspace: WorkspaceId,
        connection: i64,
        troubled: bool,
        most: i64,
    ) -> Result<Vec<ListedRequest>, StoreError> {
        // Two statements: each has its index.
        let statement = if troubled {
            "select request_id, events, sent_at, looks, next_look_at, status, failed, reasons, warnings, detail, told_at
             from delivery.ingest_request
             where workspace_id = $1 and connection_id = $2
               and told_at is not null and (status <> 'SUCCESS' or warnings <> '{}')
             order by sent_at desc limit $3"
        } else {
            "select request_id, events, sent_at, looks, next_look_at, status, failed, reasons, warnings, detail, told_at
             from delivery.ingest_request where workspace_id = $1 and connection_id = $2
             order by sent_at desc limit $3"
        };
        let rows: Vec<Row> = sqlx::query_as(statement)
            .bind(workspace.0)
            .bind(connection)
            .bind(most)
            .fetch_all(&self.pool)
            .await
            .map_err(attempting("list requests that are judged later"))?;
        Ok(rows.into_iter().map(Row::listed).collect())
    }

    /// One request.
    ///
    /// # Errors
    /// The database.
    pub async fn one(
        &self,
        workspace: WorkspaceId,
        connection: i64,
        request_id: &str,
    ) -> Result<Option<ListedRequest>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "select request_id, events, sent_at, looks, next_look_at, status, failed, reasons, warnings, detail, told_at
             from delivery.ingest_request where workspace_id = $1 and connection_id = $2 and request_id = $3",
        )
        .bind(workspace.0)
        .bind(connection)
        .bind(request_id)
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("read a request that is judged later"))?;
        Ok(row.map(Row::listed))
    }
}

type ClaimedRow = (i64, i64, i32, String, i64, i32, i64, jiff_sqlx::Timestamp);

#[derive(sqlx::FromRow)]
struct Row {
    request_id: String,
    events: i64,
    sent_at: jiff_sqlx::Timestamp,
    looks: i32,
    next_look_at: Option<jiff_sqlx::Timestamp>,
    status: String,
    failed: i64,
    reasons: Json<Reasons>,
    warnings: Json<Reasons>,
    detail: String,
    told_at: Option<jiff_sqlx::Timestamp>,
}

impl Row {
    fn listed(self) -> ListedRequest {
        ListedRequest {
            id: self.request_id,
            events: self.events.cast_unsigned(),
            sent_at: self.sent_at.to_jiff(),
            looks: self.looks.cast_unsigned(),
            next_look_at: self.next_look_at.map(jiff_sqlx::Timestamp::to_jiff),
            told: ToldStatus {
                status: self.status,
                failed: self.failed.cast_unsigned(),
                reasons: self.reasons.0,
                warnings: self.warnings.0,
                detail: self.detail,
            },
            told_at: self.told_at.map(jiff_sqlx::Timestamp::to_jiff),
        }
    }
}
