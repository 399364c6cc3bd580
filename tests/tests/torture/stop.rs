//! A stop of days: every process and server is killed, days pass on all their clocks and on the platforms', and all start again.
//! What stood in the database in between is written down: it says what may have happened to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;
use tracklayer_ids::{Generation, Offset, Partition, Position};

use crate::faults::Scene;
use crate::stage::Stage;
use crate::workspace::Workspace;

/// How long connections may take to end whose processes were killed.
const ALONE_LIMIT: Duration = Duration::from_secs(20);
/// How long a stop may take; clients try as long.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How long clients go on at least when an edge takes events again.
pub const LOAD_AFTERWARDS: Duration = Duration::from_secs(2);

/// What stood there while nothing ran.
#[derive(Debug, Clone)]
pub struct Stopped {
    pub hours: u64,
    /// Where resolve stood.
    resolved: BTreeMap<Partition, (Generation, Offset)>,
    /// Events of a connection that a request may have brought, as nobody knows.
    pub open: BTreeSet<(i64, Position)>,
}

impl Stopped {
    /// Whether it was resolved before the stop, and so has claimed its message_id then.
    pub fn was_resolved(&self, position: &Position) -> bool {
        let end = self.resolved.get(&position.partition);
        end.is_some_and(|end| (position.generation, position.offset) < *end)
    }
}

/// Stops everything for so many hours. Whether it could be done.
pub async fn stop(scene: &Scene, hours: u64) -> anyhow::Result<bool> {
    let Scene { stage, workspace, memory, reading } = scene;
    let Ok(clock) = &stage.clock else { return Ok(false) };
    let limit = Instant::now() + STOP_LIMIT;
    memory.go_on_until(limit);
    // Nobody who holds one of these waits for another.
    let mut members = Vec::new();
    for member in stage.fleet.members() {
        members.push(member.hold().await);
    }
    let (mut postgres, mut redis) = (stage.postgres.lock().await, stage.redis.lock().await);
    for member in &mut members {
        member.kill()?;
    }
    leave_alone(stage).await?;
    // Days that have passed are dropped once they are read.
    reading.lock().await.go_on().await?;
    let stopped = look(stage, workspace, hours).await?;
    redis.kill().await?;
    postgres.kill().await?;

    clock.advance(Duration::from_secs(hours * 3_600))?;

    postgres.start_again().await?;
    redis.start_again(false).await?;
    for member in &mut members {
        member.start()?;
    }
    drop(members);
    let edges = ["ingest-1", "ingest-2"].map(|edge| stage.fleet.member(edge));
    while edges[0].ready().await.is_err() && edges[1].ready().await.is_err() {
        ensure!(Instant::now() < limit, "no edge is ready {STOP_LIMIT:?} after the beginning of a stop");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    memory.resume_after(stopped, Instant::now() + LOAD_AFTERWARDS);
    Ok(true)
}

/// Ends what killed processes have left behind in the server: a statement that it has begun would go on.
async fn leave_alone(stage: &Stage) -> anyhow::Result<()> {
    // On one connection: the pool would open another for each that it finds ended.
    let mut connection = stage.pool.acquire().await?;
    let until = Instant::now() + ALONE_LIMIT;
    loop {
        let others: i64 = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where backend_type = 'client backend' and pid <> pg_backend_pid()",
        )
        .fetch_one(&mut *connection)
        .await?;
        if others == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{others} connections to PostgreSQL do not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn look(stage: &Stage, workspace: &Workspace, hours: u64) -> anyhow::Result<Stopped> {
    let cursors: Vec<(i32, i32, i64)> = sqlx::query_as(
        "select partition, generation, next_offset from delivery.resolve_cursor where workspace_id = $1",
    )
    .bind(workspace.id.0)
    .fetch_all(&stage.pool)
    .await?;
    let cursors = cursors.into_iter().map(|(partition, generation, next)| {
        let end = (Generation(generation.cast_unsigned()), Offset(next.cast_unsigned()));
        (Partition(partition.cast_unsigned()), end)
    });
    let open: Vec<(i64, i32, i32, i64)> = sqlx::query_as(
        "select connection_id, partition, generation, unnest(event_offsets) from delivery.intent where workspace_id = $1
         union select connection_id, partition, generation, event_offset from delivery.retry
         where workspace_id = $1 and first_sent_at is not null",
    )
    .bind(workspace.id.0)
    .fetch_all(&stage.pool)
    .await?;
    let open = open.into_iter().map(|(connection, partition, generation, offset)| {
        let [partition, generation] = [partition, generation].map(i32::cast_unsigned);
        (connection, Position::new(generation, partition, offset.cast_unsigned()))
    });
    Ok(Stopped { hours, resolved: cursors.collect(), open: open.collect() })
}
