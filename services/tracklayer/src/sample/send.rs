//! Brings a day to ingest: browsers and servers over HTTP as the SDKs do, the wholesale portal over gRPC.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tracklayer_proto::event::v1::EventType;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_proto::ingest::v1::{PublishEvent, PublishRequest, event_result};

use super::people::{Call, Day, From, Part};

/// Visitors at the same time.
const CONCURRENT_VISITORS: usize = 24;
/// A client gives up after this many attempts of one request.
const MAX_ATTEMPTS: u32 = 400;

/// Where to send, and under which write keys.
#[derive(Debug, Clone)]
pub struct Target {
    /// Ingest's HTTP address.
    pub http: String,
    /// Ingest's gRPC address.
    pub grpc: String,
    /// Write key per source.
    pub write_keys: BTreeMap<From, String>,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests answered with success.
    pub requests: AtomicU64,
    /// Events in them.
    pub events: AtomicU64,
    /// Events that were rejected.
    pub rejected: AtomicU64,
    /// Attempts that failed and were repeated.
    pub retried: AtomicU64,
}

/// Sends one part of a day, a visitor coming each `gap`; returns when every request was answered.
///
/// # Errors
/// A client gave up: ingest refused for good, or was away for too long.
pub async fn send(
    target: &Target,
    day: &Day,
    part: Part,
    gap: Duration,
    tally: Arc<Tally>,
) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let channel = tonic::transport::Endpoint::new(target.grpc.clone())?.connect_lazy();
    let begun = tokio::time::Instant::now();
    let calls =
        day.visitors.iter().map(|v| v.calls.iter().filter(|c| c.part == part).collect::<Vec<&Call>>());
    let visits = calls.filter(|calls| !calls.is_empty()).zip(0u32..).map(|(calls, number)| {
        let (http, channel, tally) = (http.clone(), channel.clone(), Arc::clone(&tally));
        async move {
            tokio::time::sleep_until(begun + gap * number).await;
            for call in calls {
                for _ in 0..=call.repeats {
                    send_call(target, &http, &channel, call, &tally).await?;
                }
            }
            anyhow::Ok(())
        }
    });
    let mut visits = futures::stream::iter(visits).buffer_unordered(CONCURRENT_VISITORS);
    while let Some(done) = visits.next().await {
        done?;
    }
    Ok(())
}

async fn send_call(
    target: &Target,
    http: &reqwest::Client,
    channel: &tonic::transport::Channel,
    call: &Call,
    tally: &Tally,
) -> anyhow::Result<()> {
    let write_key = target.write_keys.get(&call.from).context("no write key for a source of the sample")?;
    for attempt in 0..MAX_ATTEMPTS {
        let sent = match call.from {
            From::Wholesale => over_grpc(channel, write_key, call).await?,
            From::WebUs | From::WebDe | From::ShopServer | From::ShopServerDe | From::Subscriptions => {
                over_http(&target.http, http, write_key, call).await?
            }
        };
        match sent {
            Sent::Done { rejected } => {
                tally.requests.fetch_add(1, Ordering::Relaxed);
                tally.events.fetch_add(call.events.len() as u64, Ordering::Relaxed);
                tally.rejected.fetch_add(rejected, Ordering::Relaxed);
                return Ok(());
            }
            Sent::Again { after } => {
                tally.retried.fetch_add(1, Ordering::Relaxed);
                let backoff = Duration::from_millis(50 << attempt.min(5));
                tokio::time::sleep(after.unwrap_or(backoff)).await;
            }
        }
    }
    bail!("ingest did not take a request in {MAX_ATTEMPTS} attempts")
}

enum Sent {
    Done { rejected: u64 },
    Again { after: Option<Duration> },
}

async fn over_http(base: &str, http: &reqwest::Client, write_key: &str, call: &Call) -> anyhow::Result<Sent> {
    let now = jiff::Timestamp::now().to_string();
    let events: Vec<Value> = call
        .events
        .iter()
        .map(|event| {
            let mut event = event.clone();
            event["timestamp"] = json!(now);
            event
        })
        .collect();
    let body = json!({ "batch": events, "sentAt": now, "writeKey": write_key });
    let mut request = http
        .post(format!("{base}/v1/batch"))
        .basic_auth(write_key, Some(""))
        .header("content-type", "application/json")
        .body(body.to_string());
    if call.gpc {
        request = request.header("sec-gpc", "1");
    }
    let Ok(response) = request.send().await else { return Ok(Sent::Again { after: None }) };
    let status = response.status().as_u16();
    let after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    if status == 429 || status >= 500 {
        return Ok(Sent::Again { after });
    }
    let Ok(answer) = response.json::<Value>().await else { return Ok(Sent::Again { after: None }) };
    if status != 200 {
        bail!("ingest answered {status}: {answer}");
    }
    let rejected = answer["rejected"].as_array().map_or(0, |list| list.len() as u64);
    Ok(Sent::Done { rejected })
}

async fn over_grpc(
    channel: &tonic::transport::Channel,
    write_key: &str,
    call: &Call,
) -> anyhow::Result<Sent> {
    let now = jiff::Timestamp::now();
    let stamp = prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() };
    let events = call.events.iter().map(|event| publish_event(event, stamp)).collect();
    let mut request = tonic::Request::new(PublishRequest { events, sent_at: Some(stamp) });
    let bearer: MetadataValue<_> = format!("Bearer {write_key}").parse()?;
    request.metadata_mut().insert("authorization", bearer);
    match IngestServiceClient::new(channel.clone()).publish(request).await {
        Ok(answer) => {
            let rejected = answer
                .into_inner()
                .results
                .iter()
                .filter(|r| matches!(r.outcome, Some(event_result::Outcome::Rejected(_))))
                .count();
            Ok(Sent::Done { rejected: rejected as u64 })
        }
        Err(status) => match status.code() {
            tonic::Code::Unauthenticated | tonic::Code::InvalidArgument => bail!("ingest answered {status}"),
            _ => Ok(Sent::Again { after: None }),
        },
    }
}

/// A Segment-spec event as a service publishes it over gRPC.
#[must_use]
pub fn publish_event(event: &Value, timestamp: prost_types::Timestamp) -> PublishEvent {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let object =
        |key: &str| event.get(key).filter(|v| v.is_object()).map(Value::to_string).unwrap_or_default();
    let event_type = match event["type"].as_str().unwrap_or_default() {
        "track" => EventType::Track,
        "page" => EventType::Page,
        "screen" => EventType::Screen,
        "identify" => EventType::Identify,
        "group" => EventType::Group,
        "alias" => EventType::Alias,
        _ => EventType::Unspecified,
    };
    PublishEvent {
        message_id: text("messageId"),
        r#type: event_type.into(),
        name: if event_type == EventType::Track { text("event") } else { text("name") },
        anonymous_id: text("anonymousId"),
        user_id: text("userId"),
        previous_id: text("previousId"),
        group_id: text("groupId"),
        timestamp: Some(timestamp),
        properties_json: object("properties"),
        traits_json: object("traits"),
        context_json: object("context"),
        integrations_json: object("integrations"),
        ..PublishEvent::default()
    }
}
