//! The load: gRPC streams with a window of unacknowledged batches, and HTTP connections with keep-alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_proto::ingest::v1::publish_stream_response::Result as StreamResult;
use tracklayer_proto::ingest::v1::{
    PublishEvent, PublishRequest, PublishStreamRequest, event_result::Outcome,
};

use super::event::with_id;
use crate::dev::Running;
use crate::sample::send::publish_event;

/// Streams at the same time.
const STREAMS: usize = 3;
/// Batches on a stream without an ack.
const WINDOW: usize = 6;
/// HTTP connections.
const CONNECTIONS: usize = 32;
/// The source that sends: its place is California, so that every platform may be sent to.
const SOURCE: &str = "shop-server";

/// Ids never repeat within one run of the bench.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Speed and latency of requests.
pub struct HttpFigures {
    /// Durable events a second.
    pub per_second: f64,
    /// Half of the acks came within.
    pub p50_ms: f64,
    /// 99 of 100 acks came within.
    pub p99_ms: f64,
}

fn write_key(running: &Running) -> anyhow::Result<String> {
    running.addresses.write_keys.get(SOURCE).cloned().with_context(|| format!("no source `{SOURCE}`"))
}

fn now() -> prost_types::Timestamp {
    let now = jiff::Timestamp::now();
    prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }
}

fn parsed(events: &[String]) -> anyhow::Result<Vec<PublishEvent>> {
    let stamp = now();
    events.iter().map(|text| Ok(publish_event(&serde_json::from_str::<Value>(text)?, stamp))).collect()
}

/// A batch whose events have ids of their own; with `new_visitors` each also comes from somebody new.
fn fresh_batch(templates: &[PublishEvent], from: usize, size: usize, new_visitors: bool) -> PublishRequest {
    let stamp = now();
    let events = (0..size)
        .map(|i| {
            let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
            let mut event = templates[(from + i) % templates.len()].clone();
            event.message_id = format!("{id:x}-{}", event.message_id);
            if new_visitors {
                event.anonymous_id = format!("{id:x}-{}", event.anonymous_id);
            }
            event.timestamp = Some(stamp);
            event
        })
        .collect();
    PublishRequest { events, sent_at: Some(stamp) }
}

/// Durable events a second over streams.
///
/// # Errors
/// Ingest refused or went away.
pub async fn grpc_stream(running: &Running, events: &[String], length: Duration) -> anyhow::Result<f64> {
    let templates = Arc::new(parsed(events)?);
    let key = write_key(running)?;
    let started = Instant::now();
    let mut streams = tokio::task::JoinSet::new();
    for stream in 0..STREAMS {
        let (templates, key, address) =
            (Arc::clone(&templates), key.clone(), running.addresses.ingest.clone());
        streams.spawn(async move { one_stream(&address, &key, &templates, stream, started, length).await });
    }
    let mut acknowledged = 0;
    while let Some(done) = streams.join_next().await {
        acknowledged += done??;
    }
    Ok(acknowledged as f64 / started.elapsed().as_secs_f64())
}

async fn one_stream(
    address: &str,
    key: &str,
    templates: &[PublishEvent],
    stream: usize,
    started: Instant,
    length: Duration,
) -> anyhow::Result<u64> {
    let channel = tonic::transport::Endpoint::new(address.to_owned())?
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .connect()
        .await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(WINDOW);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    let bearer: MetadataValue<_> = format!("Bearer {key}").parse()?;
    request.metadata_mut().insert("authorization", bearer);
    let mut client = IngestServiceClient::new(channel);
    // The first batch has to be on its way before the server answers with its headers.
    let mut sequence = 0u64;
    let mut from = stream * 1_000;
    let mut next = || {
        sequence += 1;
        from += 500;
        PublishStreamRequest { sequence, batch: Some(fresh_batch(templates, from, 500, true)) }
    };
    for _ in 0..WINDOW {
        sender.send(next()).await?;
    }
    let mut acks = client.publish_stream(request).await?.into_inner();
    let mut sender = Some(sender);
    let mut in_flight = WINDOW;
    let mut acknowledged = 0;
    while in_flight > 0 {
        let Some(ack) = acks.message().await? else { bail!("the stream ended early") };
        in_flight -= 1;
        match ack.result {
            Some(StreamResult::Response(response)) => {
                let accepted = response
                    .results
                    .iter()
                    .filter(|r| matches!(r.outcome, Some(Outcome::Accepted(_))))
                    .count();
                acknowledged += accepted as u64;
            }
            Some(StreamResult::Refused(refused)) => {
                tokio::time::sleep(Duration::from_millis(u64::from(refused.retry_after_ms).min(1_000))).await;
            }
            None => bail!("an ack without a result"),
        }
        if started.elapsed() > length {
            sender = None;
        } else if let Some(sender) = &sender {
            sender.send(next()).await?;
            in_flight += 1;
        }
    }
    Ok(acknowledged)
}

/// Durable events a second over HTTP.
///
/// # Errors
/// Ingest refused for good.
pub async fn http_batches(
    running: &Running,
    events: &[String],
    length: Duration,
) -> anyhow::Result<HttpFigures> {
    let key = write_key(running)?;
    let url = format!("{}/v1/batch", running.addresses.ingest_http);
    let client = reqwest::Client::builder().pool_max_idle_per_host(CONNECTIONS).build()?;
    let events = Arc::new(events.to_vec());
    let started = Instant::now();
    let mut connections = tokio::task::JoinSet::new();
    for connection in 0..CONNECTIONS {
        let (client, url, key, events) = (client.clone(), url.clone(), key.clone(), Arc::clone(&events));
        connections.spawn(async move {
            let mut from = connection * 600;
            let mut acknowledged = 0u64;
            let mut latencies = Vec::new();
            while started.elapsed() < length {
                let body = http_body(&events, from);
                from += 100;
                let sent = Instant::now();
                let answer = client.post(&url).basic_auth(&key, Some("")).body(body).send().await?;
                match answer.status().as_u16() {
                    200 => {
                        answer.bytes().await?;
                        latencies.push(sent.elapsed().as_secs_f64() * 1_000.0);
                        acknowledged += 100;
                    }
                    429 | 503 => tokio::time::sleep(Duration::from_millis(100)).await,
                    other => bail!("ingest answered {other}"),
                }
            }
            anyhow::Ok((acknowledged, latencies))
        });
    }
    let (mut acknowledged, mut latencies) = (0, Vec::new());
    while let Some(done) = connections.join_next().await {
        let (events, mut times) = done??;
        acknowledged += events;
        latencies.append(&mut times);
    }
    let per_second = acknowledged as f64 / started.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    Ok(HttpFigures { per_second, p50_ms: at(0.50), p99_ms: at(0.99) })
}

fn http_body(events: &[String], from: usize) -> String {
    let mut body = String::with_capacity(120_000);
    body.push_str("{\"batch\":[");
    for i in 0..100 {
        if i > 0 {
            body.push(',');
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        body.push_str(&with_id(&events[(from + i) % events.len()], id));
    }
    body.push_str("]}");
    body
}

/// Publishes every event once, over one connection in batches of 500; at a pace if one is given.
///
/// # Errors
/// Ingest refused or went away.
pub async fn publish_all(
    running: &Running,
    events: &[String],
    per_second: Option<f64>,
) -> anyhow::Result<()> {
    let templates = parsed(events)?;
    let key = write_key(running)?;
    let channel = tonic::transport::Endpoint::new(running.addresses.ingest.clone())?.connect().await?;
    let batch_size = if per_second.is_some() { 50 } else { 500 };
    let started = Instant::now();
    let mut sent = 0usize;
    for chunk in templates.chunks(batch_size) {
        if let Some(rate) = per_second {
            let due = started + Duration::from_secs_f64(sent as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        sent += chunk.len();
        loop {
            let mut request = tonic::Request::new(fresh_batch(chunk, 0, chunk.len(), false));
            let bearer: MetadataValue<_> = format!("Bearer {key}").parse()?;
            request.metadata_mut().insert("authorization", bearer);
            match IngestServiceClient::new(channel.clone()).publish(request).await {
                Ok(_) => break,
                Err(status)
                    if matches!(status.code(), tonic::Code::ResourceExhausted | tonic::Code::Unavailable) =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => return Err(status.into()),
            }
        }
    }
    Ok(())
}
