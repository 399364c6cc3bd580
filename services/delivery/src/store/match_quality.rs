//! Tables `delivery.match_quality` and `delivery.match_quality_left_out` (what the persons of events could be matched by, counted), and
//! `delivery.platform_quality` with its readings (what the platforms say of it).

use std::collections::BTreeMap;

use sqlx::PgPool;
use tracklayer_destination::{EventQuality, Key, KeyCounts};
use tracklayer_ids::{ConnectionId, WorkspaceId};

use super::{StoreError, attempting};

/// Rows that one statement forgets, so that none takes long.
const AT_ONCE: i64 = 10_000;
/// Most events (connections' names of them) of a report; those that came most often.
pub const MOST_EVENTS: usize = 1_000;

/// What a commit counts of the events of one name that were received in one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualityRow {
    /// Of receipt.
    pub minute: i64,
    /// The platform's name.
    pub event_name: String,
    /// What went out.
    pub counts: KeyCounts,
    /// What was of no use, and why.
    pub left_out: BTreeMap<(Key, &'static str), u64>,
}

/// The events of one name at one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedEvent {
    /// The connection.
    pub connection: ConnectionId,
    /// The platform's name.
    pub event_name: String,
    /// What went out.
    pub counts: KeyCounts,
    /// What was of no use, and why.
    pub left_out: BTreeMap<(Key, String), u64>,
}

/// What a platform was asked about a connection, and what it said.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The connection.
    pub connection: ConnectionId,
    /// When it was asked last.
    pub asked_at: jiff::Timestamp,
    /// When it answered last.
    pub read_at: Option<jiff::Timestamp>,
    /// Why there was no answer at the last try; empty: there was one.
    pub problem: String,
    /// Its figures as of `read_at`, by event.
    pub events: Vec<EventQuality>,
}

/// Match quality.
#[derive(Debug, Clone)]
pub struct MatchQualityStore {
    pool: PgPool,
}

impl MatchQualityStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// What was counted of events that were received from minute `from` on and before minute `until`; of one connection or, without
    /// one, of all. At most [`MOST_EVENTS`] names, the most frequent first; whether there are more.
    ///
    /// # Errors
    /// The database.
    pub async fn report(
        &self,
        workspace: WorkspaceId,
        connection: Option<ConnectionId>,
        from: i64,
        until: i64,
    ) -> Result<(Vec<ReportedEvent>, bool), StoreError> {
        let what = attempting("read what events were matched by");
        // One look at both tables: a lane may commit in between.
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        let connection = connection.map(|connection| connection.0);
        let mut rows: Vec<(i64, String, i64)> = sqlx::query_as(
            "select connection_id, event_name, sum(events)::bigint from delivery.match_quality
             where workspace_id = $1 and ($2::bigint is null or connection_id = $2) and minute >= $3 and minute < $4
             group by connection_id, event_name
             order by sum(events) desc, connection_id, event_name limit $5",
        )
        .bind(workspace.0)
        .bind(connection)
        .bind(from)
        .bind(until)
        .bind(i64::try_from(MOST_EVENTS + 1).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        let has_more = rows.len() > MOST_EVENTS;
        rows.truncate(MOST_EVENTS);
        let connections: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let names: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
        let sent: Vec<(i64, String, i64, i64)> = sqlx::query_as(
            "select q.connection_id, q.event_name, s.place, sum(s.n)::bigint
             from delivery.match_quality q
             join unnest($4::bigint[], $5::text[]) as wanted (connection_id, event_name)
                 on wanted.connection_id = q.connection_id and wanted.event_name = q.event_name
             cross join unnest(q.sent) with ordinality as s (n, place)
             where q.workspace_id = $1 and q.minute >= $2 and q.minute < $3
             group by q.connection_id, q.event_name, s.place",
        )
        .bind(workspace.0)
        .bind(from)
        .bind(until)
        .bind(&connections)
        .bind(&names)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        let left: Vec<(i64, String, i16, String, i64)> = sqlx::query_as(
            "select l.connection_id, l.event_name, l.key, l.reason, sum(l.events)::bigint
             from delivery.match_quality_left_out l
             join unnest($4::bigint[], $5::text[]) as wanted (connection_id, event_name)
                 on wanted.connection_id = l.connection_id and wanted.event_name = l.event_name
             where l.workspace_id = $1 and l.minute >= $2 and l.minute < $3
             group by l.connection_id, l.event_name, l.key, l.reason",
        )
        .bind(workspace.0)
        .bind(from)
        .bind(until)
        .bind(&connections)
        .bind(&names)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        let places: BTreeMap<(i64, &str), usize> = rows
            .iter()
            .enumerate()
            .map(|(place, (connection, event_name, _))| ((*connection, event_name.as_str()), place))
            .collect();
        let mut reported: Vec<ReportedEvent> = rows
            .iter()
            .map(|(connection, event_name, events)| ReportedEvent {
                connection: ConnectionId(*connection),
                event_name: event_name.clone(),
                counts: KeyCounts { events: events.cast_unsigned(), ..KeyCounts::default() },
                left_out: BTreeMap::new(),
            })
            .collect();
        // A key that this version does not know, a newer one has counted: it is left out.
        for (connection, event_name, place, events) in sent {
            let of_event = places.get(&(connection, event_name.as_str()));
            let number = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let Some(count) = of_event.and_then(|at| reported[*at].counts.sent.get_mut(number)) {
                *count = events.cast_unsigned();
            }
        }
        for (connection, event_name, key, reason, events) in left {
            let key = usize::try_from(key).ok().and_then(Key::from_number);
            if let (Some(at), Some(key)) = (places.get(&(connection, event_name.as_str())), key) {
                reported[*at].left_out.insert((key, reason), events.cast_unsigned());
            }
        }
        Ok((reported, has_more))
    }

    /// Forgets what was received before that minute, at most some thousands of rows; answers whether there may be more. What another
    /// process forgets is left to it.
    ///
    /// # Errors
    /// The database.
    pub async fn forget(&self, before: i64) -> Result<bool, StoreError> {
        let what = attempting("forget what events were matched by");
        let counted = sqlx::query(
            "delete from delivery.match_quality where ctid = any(array(
                 select ctid from delivery.match_quality where minute < $1
                 order by minute limit $2 for update skip locked))",
        )
        .bind(before)
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await
        .map_err(&what)?;
        let left_out = sqlx::query(
            "delete from delivery.match_quality_left_out where ctid = any(array(
                 select ctid from delivery.match_quality_left_out where minute < $1
                 order by minute limit $2 for update skip locked))",
        )
        .bind(before)
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await
        .map_err(&what)?;
        Ok(counted.rows_affected().max(left_out.rows_affected()) >= AT_ONCE.cast_unsigned())
    }

    /// Takes the turn to ask a platform about a connection: `false` where somebody has asked for this change of it, or a later one, within
    /// that time.
    ///
    /// # Errors
    /// The database.
    pub async fn take_turn(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        revision: u64,
        every: std::time::Duration,
    ) -> Result<bool, StoreError> {
        let taken = sqlx::query(
            "insert into delivery.platform_quality_reading as r (workspace_id, connection_id, revision, asked_at)
             values ($1, $2, $3, now())
             on conflict on constraint platform_quality_reading_pkey do update
             set revision = excluded.revision, asked_at = excluded.asked_at
             where r.revision < excluded.revision or r.asked_at <= now() - make_interval(secs => $4)",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(revision.cast_signed())
        .bind(every.as_secs_f64())
        .execute(&self.pool)
        .await
        .map_err(attempting("take the turn to ask a platform for its match quality"))?;
        Ok(taken.rows_affected() == 1)
    }

    /// Keeps what a platform has said, in the place of what it said before. Where somebody asks for another change of the connection by
    /// then, it is of no use any more, and nothing is kept.
    ///
    /// # Errors
    /// The database.
    pub async fn keep(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        revision: u64,
        events: &[EventQuality],
    ) -> Result<(), StoreError> {
        let what = attempting("keep what a platform says of match quality");
        // A name that comes twice counts once.
        let by_name: BTreeMap<&str, &EventQuality> =
            events.iter().map(|event| (event.event_name.as_str(), event)).collect();
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        let kept = sqlx::query(
            "update delivery.platform_quality_reading set read_at = now(), problem = ''
             where workspace_id = $1 and connection_id = $2 and revision = $3",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(revision.cast_signed())
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        if kept.rows_affected() == 0 {
            return Ok(());
        }
        sqlx::query("delete from delivery.platform_quality where workspace_id = $1 and connection_id = $2")
            .bind(workspace.0)
            .bind(connection.0)
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        let coverage = |event: &&EventQuality| {
            let by_key: BTreeMap<&str, f64> =
                event.coverage.iter().map(|(key, percent)| (key.as_str(), *percent)).collect();
            // Texts and numbers that came as JSON: nothing in it can fail.
            serde_json::to_string(&by_key).unwrap_or_else(|_| "{}".to_owned())
        };
        sqlx::query(
            "insert into delivery.platform_quality (workspace_id, connection_id, event_name, score, coverage)
             select $1, $2, u.n, u.s, u.c::jsonb
             from unnest($3::text[], $4::double precision[], $5::text[]) as u (n, s, c)",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(by_name.keys().copied().collect::<Vec<_>>())
        .bind(by_name.values().map(|event| event.score).collect::<Vec<_>>())
        .bind(by_name.values().map(coverage).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        tx.commit().await.map_err(&what)
    }

    /// Says why a platform has given no figure, unless somebody asks for another change of the connection by then. What it said before
    /// stays, with its time.
    ///
    /// # Errors
    /// The database.
    pub async fn miss(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        revision: u64,
        problem: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "update delivery.platform_quality_reading set problem = $4
             where workspace_id = $1 and connection_id = $2 and revision = $3",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(revision.cast_signed())
        .bind(problem)
        .execute(&self.pool)
        .await
        .map_err(attempting("say why a platform has no match quality"))?;
        Ok(())
    }

    /// What the platforms have said about a workspace's connections.
    ///
    /// # Errors
    /// The database.
    pub async fn readings(&self, workspace: WorkspaceId) -> Result<Vec<Reading>, StoreError> {
        let what = attempting("read what platforms say of match quality");
        type Row = (i64, jiff_sqlx::Timestamp, Option<jiff_sqlx::Timestamp>, String);
        let rows: Vec<Row> = sqlx::query_as(
            "select connection_id, asked_at, read_at, problem from delivery.platform_quality_reading
             where workspace_id = $1 order by connection_id",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        let figures: Vec<(i64, String, Option<f64>, String)> = sqlx::query_as(
            "select connection_id, event_name, score, coverage::text from delivery.platform_quality
             where workspace_id = $1 order by connection_id, event_name",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        let mut of_connection: BTreeMap<i64, Vec<EventQuality>> = BTreeMap::new();
        for (connection, event_name, score, coverage) in figures {
            let coverage: BTreeMap<String, f64> = serde_json::from_str(&coverage)
                .map_err(|_| StoreError::Corrupt { what: "a platform's match quality" })?;
            let coverage = coverage.into_iter().collect();
            of_connection.entry(connection).or_default().push(EventQuality { event_name, score, coverage });
        }
        let readings = rows.into_iter().map(|(connection, asked_at, read_at, problem)| Reading {
            connection: ConnectionId(connection),
            asked_at: asked_at.to_jiff(),
            read_at: read_at.map(jiff_sqlx::Timestamp::to_jiff),
            problem,
            events: of_connection.remove(&connection).unwrap_or_default(),
        });
        Ok(readings.collect())
    }
}
