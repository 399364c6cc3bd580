//! What the machine can do with nothing of the platform in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tracklayer_ids::Secret;

/// Writes for so long and checkpoints: from then on the segments of PostgreSQL's log are those that were there before, as on a server
/// that has run for a while. Each new one is filled with zeros and synced before anybody goes on.
///
/// # Errors
/// The database.
pub async fn warm(database_url: &str, events: &[String], length: Duration) -> anyhow::Result<()> {
    copy_rows(database_url, events, length).await?;
    checkpoint(database_url).await
}

/// Has what was written before not be written while something else is measured.
///
/// # Errors
/// The database.
pub async fn checkpoint(database_url: &str) -> anyhow::Result<()> {
    let pool = tracklayer_postgres::connect(&Secret::new(database_url.to_owned()), 1).await?;
    sqlx::query("checkpoint").execute(&pool).await?;
    Ok(())
}

/// Rows a second of binary COPY with the same bytes, one row per event, batches of 500, four connections, each batch its own
/// durable transaction.
///
/// # Errors
/// The database.
pub async fn copy_rows(database_url: &str, events: &[String], length: Duration) -> anyhow::Result<f64> {
    let pool = tracklayer_postgres::connect(&Secret::new(database_url.to_owned()), 5).await?;
    sqlx::query("drop table if exists public.bench_copy").execute(&pool).await?;
    sqlx::query("create table public.bench_copy (id bigint generated always as identity primary key, body bytea not null)")
        .execute(&pool)
        .await?;
    let batches: Arc<Vec<Vec<u8>>> = Arc::new(events.chunks(500).map(copy_batch).collect());
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4usize {
        let (pool, batches) = (pool.clone(), Arc::clone(&batches));
        writers.spawn(async move {
            let mut rows = 0u64;
            let mut connection = pool.acquire().await?;
            for batch in batches.iter().cycle().skip(writer * 7) {
                if started.elapsed() > length {
                    break;
                }
                let mut copy = connection
                    .copy_in_raw("copy public.bench_copy (body) from stdin (format binary)")
                    .await?;
                copy.send(batch.as_slice()).await?;
                rows += copy.finish().await?;
            }
            anyhow::Ok(rows)
        });
    }
    let mut rows = 0;
    while let Some(done) = writers.join_next().await {
        rows += done??;
    }
    let rate = rows as f64 / started.elapsed().as_secs_f64();
    sqlx::query("drop table public.bench_copy").execute(&pool).await?;
    Ok(rate)
}

/// Rows a second of what a queue of rows does: one row per event by `unnest` of an array of bytes, batches of 500, four connections,
/// each batch its own durable transaction.
///
/// # Errors
/// The database.
pub async fn insert_rows(database_url: &str, events: &[String], length: Duration) -> anyhow::Result<f64> {
    let pool = tracklayer_postgres::connect(&Secret::new(database_url.to_owned()), 5).await?;
    sqlx::query("drop table if exists public.bench_rows").execute(&pool).await?;
    sqlx::query("create table public.bench_rows (id bigint generated always as identity primary key, body bytea not null)")
        .execute(&pool)
        .await?;
    let batches: Arc<Vec<Vec<Vec<u8>>>> =
        Arc::new(events.chunks(500).map(|c| c.iter().map(|e| e.as_bytes().to_vec()).collect()).collect());
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4usize {
        let (pool, batches) = (pool.clone(), Arc::clone(&batches));
        writers.spawn(async move {
            let mut rows = 0u64;
            let mut connection = pool.acquire().await?;
            for batch in batches.iter().cycle().skip(writer * 7) {
                if started.elapsed() > length {
                    break;
                }
                let inserted = sqlx::query("insert into public.bench_rows (body) select unnest($1::bytea[])")
                    .bind(batch)
                    .execute(&mut *connection)
                    .await?;
                rows += inserted.rows_affected();
            }
            anyhow::Ok(rows)
        });
    }
    let mut rows = 0;
    while let Some(done) = writers.join_next().await {
        rows += done??;
    }
    let rate = rows as f64 / started.elapsed().as_secs_f64();
    sqlx::query("drop table public.bench_rows").execute(&pool).await?;
    Ok(rate)
}

/// PostgreSQL's binary COPY format: a signature, then per row a field count, a length and the bytes, then -1.
fn copy_batch(events: &[String]) -> Vec<u8> {
    let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
    bytes.extend_from_slice(&[0; 8]);
    for event in events {
        bytes.extend_from_slice(&1i16.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(event.len()).unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(event.as_bytes());
    }
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes
}

/// A connection that waits for slow answers: emptying millions of keys takes a while.
async fn connect(client: &redis::Client) -> anyhow::Result<redis::aio::MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    client.get_multiplexed_async_connection_with_config(&config).await.context("could not reach Redis")
}

/// Keys a second of `SET key value NX EX`, in pipelines of 100 over four connections.
///
/// # Errors
/// Redis.
pub async fn set_nx(redis_url: &str, length: Duration) -> anyhow::Result<f64> {
    let client = redis::Client::open(redis_url)?;
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4u64 {
        let client = client.clone();
        writers.spawn(async move {
            let mut connection =
                client.get_multiplexed_async_connection().await.context("could not reach Redis")?;
            let mut keys = 0u64;
            while started.elapsed() < length {
                let mut pipe = redis::pipe();
                for i in 0..100 {
                    pipe.cmd("SET")
                        .arg(format!("bench:{writer}:{}", keys + i))
                        .arg(1)
                        .arg("EX")
                        .arg(60)
                        .arg("NX")
                        .ignore();
                }
                let _: () = pipe.query_async(&mut connection).await?;
                keys += 100;
            }
            anyhow::Ok(keys)
        });
    }
    let mut keys = 0;
    while let Some(done) = writers.join_next().await {
        keys += done??;
    }
    let rate = keys as f64 / started.elapsed().as_secs_f64();
    let mut connection = connect(&client).await?;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
    Ok(rate)
}
