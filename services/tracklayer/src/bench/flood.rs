//! Far more load than the machine takes: connections that send again at once, whatever they are told, and streams with full
//! windows. What was accepted is counted, and of each refusal whether it says when to come back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic_types::StatusExt as _;
use tracklayer_proto::ingest::v1::event_result::Outcome;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_proto::ingest::v1::publish_stream_response::Result as StreamResult;
use tracklayer_proto::ingest::v1::{PublishEvent, PublishRequest, PublishResponse, PublishStreamRequest};

use super::event;
use super::load::{parsed, stream_channel, with_key};
use super::open_loop::{Answer, read_answer};

/// Threads that send.
const THREADS: usize = 2;
/// HTTP connections of a flood that offers ten times what the machine takes: who comes back at once is answered two seconds later, so
/// that these offer some 300,000 events a second.
pub const TEN_TIMES: usize = 1_500;
/// Of one that takes what it can get: with what each has under way they take more than ingest holds in flight.
pub const ALL_ROOM: usize = 300;
/// Events of a batch over HTTP, most of what a body may have.
const HTTP_BATCH: u64 = 400;
/// gRPC streams.
const STREAMS: usize = 8;
/// Batches that a stream has under way, more than the server's window.
const WINDOW: usize = 48;
/// Events of a batch on a stream.
const GRPC_BATCH: u64 = 400;
/// Before a connection that could not be opened is tried again.
const RECONNECT: Duration = Duration::from_millis(50);

/// Where a flood goes and what it sends.
#[derive(Clone)]
pub struct Target {
    /// Ingest's HTTP.
    pub http: String,
    /// Ingest's gRPC.
    pub grpc: String,
    /// Of the source that floods.
    pub write_key: String,
    /// Texts of orders; each is sent under ids of its own.
    pub orders: Arc<Vec<String>>,
}

/// What became of a flood.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: AtomicU64,
    /// Requests whose answer never came: what they brought may be durable or not.
    unanswered: AtomicU64,
    refused: Mutex<BTreeMap<String, Refused>>,
}

/// Refusals of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Requests.
    pub requests: u64,
    /// Events in them.
    pub events: u64,
    /// Requests that were not told when to come back.
    pub without_time: u64,
}

impl Tally {
    /// Events that were acknowledged.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Requests that were never answered.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Refusals by wire and code.
    pub fn refused(&self) -> BTreeMap<String, Refused> {
        self.lock().clone()
    }

    fn accept(&self, events: u64) {
        self.accepted.fetch_add(events, Ordering::Relaxed);
    }

    fn refuse(&self, code: &str, events: u64, has_time: bool) {
        let mut refused = self.lock();
        let refused = refused.entry(code.to_owned()).or_default();
        refused.requests += 1;
        refused.events += events;
        refused.without_time += u64::from(!has_time);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Senders at work, on threads of their own: the quiet workspace's senders and the platforms' stand-ins live in this process
/// too, and would otherwise wait in one queue with hundreds that are never idle.
pub struct Flood {
    /// What has become of it so far.
    pub tally: Arc<Tally>,
    senders: tokio::task::JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Flood {
    /// Begins.
    ///
    /// # Errors
    /// The events are none.
    pub fn start(target: &Target, connections: usize) -> anyhow::Result<Self> {
        let (tally, stop) = (Arc::<Tally>::default(), CancellationToken::new());
        let templates = Arc::new(parsed(&target.orders)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("flood")
            .enable_all()
            .build()
            .context("no threads for the flood")?;
        let all = all_senders(target.clone(), connections, templates, Arc::clone(&tally), stop.clone());
        let senders = tokio::task::spawn_blocking(move || runtime.block_on(all));
        Ok(Self { tally, senders, stop })
    }

    /// Sends nothing more, and waits for the answers to what is under way.
    ///
    /// # Errors
    /// An answer was neither success nor "come back".
    pub async fn stop(mut self) -> anyhow::Result<Arc<Tally>> {
        self.stop.cancel();
        (&mut self.senders).await??;
        Ok(Arc::clone(&self.tally))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // Also where the bench ends with an error: its senders would go on, and the process with them.
        self.stop.cancel();
    }
}

async fn all_senders(
    target: Target,
    connections: usize,
    templates: Arc<Vec<PublishEvent>>,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut senders = JoinSet::new();
    for sender in 0..connections {
        senders.spawn(one_connection(target.clone(), sender, Arc::clone(&tally), stop.clone()));
    }
    for sender in 0..STREAMS {
        let templates = Arc::clone(&templates);
        senders.spawn(streams(target.clone(), templates, sender, Arc::clone(&tally), stop.clone()));
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    Ok(())
}

/// A request with orders, each under ids of its own.
pub fn http_request(orders: &[String], from: usize, count: u64, write_key: &str) -> Vec<u8> {
    let mut body = String::with_capacity(1_200 * count as usize);
    body.push_str("{\"batch\":[");
    for i in 0..count as usize {
        if i > 0 {
            body.push(',');
        }
        body.push_str(&event::as_new_order(&orders[(from + i) % orders.len()]));
    }
    body.push_str("]}");
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{write_key}:"));
    let mut request = format!(
        "POST /v1/batch HTTP/1.1\r\nHost: bench\r\nAuthorization: Basic {basic}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}

async fn one_connection(
    target: Target,
    sender: usize,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let host = target.http.trim_start_matches("http://").to_owned();
    let mut from = sender * 641;
    let mut next = || {
        from += HTTP_BATCH as usize;
        http_request(&target.orders, from, HTTP_BATCH, &target.write_key)
    };
    let mut request = next();
    while !stop.is_cancelled() {
        let Ok(stream) = TcpStream::connect(&host).await else {
            tokio::time::sleep(RECONNECT).await;
            continue;
        };
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while !stop.is_cancelled() {
            let answer = match exchange(&mut stream, &request).await {
                Ok(answer) => answer,
                Err(_) => {
                    // It may have been taken: the next one is another.
                    tally.unanswered.fetch_add(1, Ordering::Relaxed);
                    request = next();
                    break;
                }
            };
            match answer.status {
                200 => {
                    tally.accept(accepted_of(&answer)?);
                    request = next();
                }
                // As a client does: the same once more.
                429 | 503 => {
                    let body: serde_json::Value = serde_json::from_slice(&answer.body)?;
                    let code = body["code"].as_str().unwrap_or("no code");
                    let code = format!("http {} {code}", answer.status);
                    tally.refuse(&code, HTTP_BATCH, answer.retry_after.is_some());
                }
                other => bail!("ingest answered {other}: {}", String::from_utf8_lossy(&answer.body)),
            }
        }
    }
    Ok(())
}

async fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8]) -> anyhow::Result<Answer> {
    stream.write_all(request).await?;
    read_answer(stream).await
}

/// All of them, unless the answer names some that were not taken.
fn accepted_of(answer: &Answer) -> anyhow::Result<u64> {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).context("an answer is no JSON")?;
    match body["rejected"].as_array() {
        Some(rejected) => bail!("ingest rejected {} orders: {}", rejected.len(), body["rejected"][0]),
        None => Ok(HTTP_BATCH),
    }
}

/// One stream after the other, until told to stop.
async fn streams(
    target: Target,
    templates: Arc<Vec<PublishEvent>>,
    sender: usize,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut from = sender * 977;
    while !stop.is_cancelled() {
        let Ok(channel) = stream_channel(&target.grpc).await else {
            tokio::time::sleep(RECONNECT).await;
            continue;
        };
        let mut client = IngestServiceClient::new(channel);
        let (requests, receiver) = tokio::sync::mpsc::channel(WINDOW);
        let mut sequence = 0;
        let mut next = || {
            sequence += 1;
            from += GRPC_BATCH as usize;
            PublishStreamRequest { sequence, batch: Some(batch(&templates, from)) }
        };
        for _ in 0..WINDOW {
            requests.send(next()).await?;
        }
        let mut acks =
            match client.publish_stream(with_key(ReceiverStream::new(receiver), &target.write_key)?).await {
                Ok(acks) => acks.into_inner(),
                Err(status) => {
                    refused_stream(&status, &tally)?;
                    continue;
                }
            };
        let mut requests = Some(requests);
        let mut under_way = WINDOW;
        while under_way > 0 {
            let ack = match acks.message().await {
                Ok(Some(ack)) => ack,
                Ok(None) => break,
                Err(status) => {
                    refused_stream(&status, &tally)?;
                    break;
                }
            };
            under_way -= 1;
            match ack.result {
                Some(StreamResult::Response(response)) => tally.accept(accepted(&response)?),
                Some(StreamResult::Refused(refused)) => {
                    tally.refuse(&format!("grpc {}", refused.code), GRPC_BATCH, refused.retry_after_ms > 0);
                }
                None => bail!("an ack without a result"),
            }
            if stop.is_cancelled() {
                requests = None;
            } else if let Some(requests) = &requests
                && requests.send(next()).await.is_ok()
            {
                under_way += 1;
            }
        }
        tally.unanswered.fetch_add(under_way as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn batch(templates: &[PublishEvent], from: usize) -> PublishRequest {
    let events = (0..GRPC_BATCH as usize)
        .map(|i| {
            let mut order = templates[(from + i) % templates.len()].clone();
            let number = event::next_number();
            order.message_id = format!("{number:x}-{}", order.message_id);
            order.properties_json = event::with_order_id(&order.properties_json, number);
            order.context_json = event::with_click(&order.context_json, number);
            order
        })
        .collect();
    PublishRequest { events, sent_at: None }
}

fn accepted(response: &PublishResponse) -> anyhow::Result<u64> {
    for result in &response.results {
        match &result.outcome {
            Some(Outcome::Accepted(_)) => {}
            other => bail!("ingest did not accept an order: {other:?}"),
        }
    }
    Ok(response.results.len() as u64)
}

/// A stream that was not begun or went no further; what it had under way is unanswered.
fn refused_stream(status: &tonic::Status, tally: &Tally) -> anyhow::Result<()> {
    match status.code() {
        tonic::Code::ResourceExhausted | tonic::Code::Unavailable => {
            let details = status.get_error_details();
            let has_time = details.retry_info().is_some_and(|info| info.retry_delay.is_some());
            let code = details.error_info().map_or("no reason", |info| info.reason.as_str());
            tally.refuse(&format!("grpc stream {code}"), 0, has_time);
            Ok(())
        }
        _ => Err(anyhow::Error::from(status.clone()).context("ingest ended a stream")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_names_no_time_is_counted() {
        let tally = Tally::default();
        tally.refuse("http 429 overloaded", 400, true);
        tally.refuse("http 429 overloaded", 400, false);
        let expected = Refused { requests: 2, events: 800, without_time: 1 };
        assert_eq!(tally.refused(), BTreeMap::from([("http 429 overloaded".to_owned(), expected)]));
        let of_stream = tonic::Status::resource_exhausted("no details");
        refused_stream(&of_stream, &tally).unwrap();
        assert_eq!(tally.refused()["grpc stream no reason"].without_time, 1);
        assert!(refused_stream(&tonic::Status::internal("x"), &tally).is_err(), "no refusal at all");
    }
}
