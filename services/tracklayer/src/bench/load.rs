//! The load that takes what it gets: gRPC streams with a window of unacknowledged batches, and HTTP connections with keep-alive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tracklayer_proto::ingest::v1::publish_stream_response::Result as StreamResult;
use tracklayer_proto::ingest::v1::{PublishEvent, event_result::Outcome};

use super::event::{next_number, with_id};
use super::frames::{Frames, publish, publish_stream};
use crate::dev::Running;
use crate::sample::send::publish_event;

/// Streams at the same time.
const STREAMS: usize = 3;
/// Batches on a stream without an ack.
const WINDOW: usize = 6;
/// HTTP connections.
pub const CONNECTIONS: usize = 32;
/// The source that sends: its place is California, so that every platform may be sent to.
const SOURCE: &str = "shop-server";

/// The key of the source that sends.
pub fn write_key(running: &Running) -> anyhow::Result<String> {
    running.addresses.write_keys.get(SOURCE).cloned().with_context(|| format!("no source `{SOURCE}`"))
}

/// The time that events and batches carry.
pub fn now() -> prost_types::Timestamp {
    let now = jiff::Timestamp::now();
    prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }
}

/// The events as a gRPC client has them.
pub fn parsed(events: &[String]) -> anyhow::Result<Vec<PublishEvent>> {
    let stamp = now();
    events.iter().map(|text| Ok(publish_event(&serde_json::from_str::<Value>(text)?, stamp))).collect()
}

/// The same, encoded once for all the times that they are sent.
pub fn frames(events: &[String]) -> anyhow::Result<Frames> {
    Ok(Frames::of(parsed(events)?))
}

/// Durable events a second over streams; with `new_visitors` each event also comes from somebody new.
///
/// # Errors
/// Ingest refused or went away.
pub async fn grpc_stream(
    running: &Running,
    events: &[String],
    length: Duration,
    new_visitors: bool,
) -> anyhow::Result<f64> {
    let frames = Arc::new(frames(events)?);
    let key = write_key(running)?;
    let started = Instant::now();
    let mut streams = tokio::task::JoinSet::new();
    for stream in 0..STREAMS {
        let (frames, key, address) = (Arc::clone(&frames), key.clone(), running.addresses.ingest.clone());
        streams.spawn(async move {
            let until = started + length;
            one_stream(&address, &key, &frames, (stream, new_visitors), until).await
        });
    }
    let mut acknowledged = 0;
    while let Some(done) = streams.join_next().await {
        acknowledged += done??;
    }
    Ok(acknowledged as f64 / started.elapsed().as_secs_f64())
}

/// A connection with windows for whole batches.
pub async fn stream_channel(address: &str) -> anyhow::Result<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::new(address.to_owned())?
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024);
    Ok(endpoint.connect().await?)
}

/// A call that shows its write key.
pub fn with_key<T>(message: T, key: &str) -> anyhow::Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    let bearer: MetadataValue<_> = format!("Bearer {key}").parse()?;
    request.metadata_mut().insert("authorization", bearer);
    Ok(request)
}

async fn one_stream(
    address: &str,
    key: &str,
    frames: &Frames,
    (stream, new_visitors): (usize, bool),
    until: Instant,
) -> anyhow::Result<u64> {
    let (sender, receiver) = tokio::sync::mpsc::channel(WINDOW);
    let request = with_key(ReceiverStream::new(receiver), key)?;
    let channel = stream_channel(address).await?;
    // The first batch has to be on its way before the server answers with its headers.
    let mut sequence = 0u64;
    let mut from = stream * 1_000;
    let mut next = || {
        sequence += 1;
        from += 500;
        frames.stream_batch(sequence, from, 500, new_visitors)
    };
    for _ in 0..WINDOW {
        sender.send(next()).await?;
    }
    let mut acks = publish_stream(&channel, request).await?.into_inner();
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
        if Instant::now() > until {
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
pub async fn http_batches(running: &Running, events: &[String], length: Duration) -> anyhow::Result<f64> {
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
            while started.elapsed() < length {
                let body = http_body(&events, from, 100);
                from += 100;
                let answer = client.post(&url).basic_auth(&key, Some("")).body(body).send().await?;
                match answer.status().as_u16() {
                    200 => {
                        answer.bytes().await?;
                        acknowledged += 100;
                    }
                    429 | 503 => tokio::time::sleep(Duration::from_millis(100)).await,
                    other => bail!("ingest answered {other}"),
                }
            }
            anyhow::Ok(acknowledged)
        });
    }
    let mut acknowledged = 0;
    while let Some(done) = connections.join_next().await {
        acknowledged += done??;
    }
    Ok(acknowledged as f64 / started.elapsed().as_secs_f64())
}

/// A request as it goes over the wire: `count` events from `from` on, each under an id of its own. One goes to `/v1/track`, more
/// are a batch.
pub fn http_request(events: &[String], from: usize, count: usize, basic: &str) -> Vec<u8> {
    let (path, body) = if count == 1 {
        let id = next_number();
        ("/v1/track", with_id(&events[from % events.len()], id))
    } else {
        ("/v1/batch", http_body(events, from, count))
    };
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Basic {basic}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}

fn http_body(events: &[String], from: usize, count: usize) -> String {
    let mut body = String::with_capacity(1_200 * count);
    body.push_str("{\"batch\":[");
    for i in 0..count {
        if i > 0 {
            body.push(',');
        }
        let id = next_number();
        body.push_str(&with_id(&events[(from + i) % events.len()], id));
    }
    body.push_str("]}");
    body
}

/// Publishes every event once, over one connection in batches of 500; at a pace if one is given.
///
/// # Errors
/// Ingest refused or went away.
pub async fn publish_all(running: &Running, events: &Frames, per_second: Option<f64>) -> anyhow::Result<()> {
    let key = write_key(running)?;
    let channel = tonic::transport::Endpoint::new(running.addresses.ingest.clone())?.connect().await?;
    let batch_size = if per_second.is_some() { 50 } else { 500 };
    let started = Instant::now();
    for from in (0..events.len()).step_by(batch_size) {
        if let Some(rate) = per_second {
            let due = started + Duration::from_secs_f64(from as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        let size = batch_size.min(events.len() - from);
        loop {
            let request = with_key(events.batch(from, size, false), &key)?;
            match publish(&channel, request).await {
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
