//! `tracklayer send`: publishes events over gRPC.

use std::io::BufRead as _;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_proto::ingest::v1::{EventResult, PublishRequest, event_result::Outcome};

use super::connect::{AccessOptions, DevAddresses};
use super::output::print_rows;
use crate::sample::send::publish_event;

/// Publishes one event from options, or JSON lines from standard input.
#[derive(Debug, Args)]
pub struct Send {
    /// The source's write key.
    #[arg(long, env = "TRACKLAYER_WRITE_KEY", hide_env_values = true)]
    pub write_key: String,
    /// track, page, screen, identify, group or alias. Without it, Segment-spec events are read from standard input, one a line.
    #[arg(long = "type")]
    pub event_type: Option<String>,
    /// Name of a track event.
    #[arg(long, default_value = "")]
    pub event: String,
    /// The person.
    #[arg(long, default_value = "")]
    pub user_id: String,
    /// The device.
    #[arg(long, default_value = "")]
    pub anonymous_id: String,
    /// Idempotency key; made by the server if not given.
    #[arg(long, default_value = "")]
    pub message_id: String,
    /// A JSON object.
    #[arg(long, default_value = "{}")]
    pub properties: String,
    /// A JSON object.
    #[arg(long, default_value = "{}")]
    pub context: String,
}

/// Runs it.
///
/// # Errors
/// What ingest answered, or input that is no JSON.
pub async fn run(options: &AccessOptions, send: Send) -> anyhow::Result<()> {
    let address = options
        .ingest
        .clone()
        .or_else(|| {
            DevAddresses::read(&options.data_dir).map(|dev| dev.ingest).filter(|known| !known.is_empty())
        })
        .context("no address: give --ingest, or start `tracklayer dev` in this folder")?;
    let events: Vec<Value> = match &send.event_type {
        Some(event_type) => vec![json!({
            "type": event_type, "event": send.event, "userId": send.user_id, "anonymousId": send.anonymous_id,
            "messageId": send.message_id,
            "properties": serde_json::from_str::<Value>(&send.properties).context("--properties is no JSON")?,
            "context": serde_json::from_str::<Value>(&send.context).context("--context is no JSON")?,
        })],
        None => std::io::stdin()
            .lock()
            .lines()
            .map(|line| Ok(serde_json::from_str(&line?)?))
            .collect::<anyhow::Result<_>>()
            .context("standard input must hold one JSON event a line")?,
    };
    let now = jiff::Timestamp::now();
    let stamp = prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() };
    let channel =
        tonic::transport::Endpoint::new(address)?.connect().await.context("could not reach ingest")?;
    let mut client = IngestServiceClient::new(channel);
    let mut rejected = 0;
    for chunk in events.chunks(500) {
        let batch = chunk.iter().map(|event| publish_event(event, stamp)).collect();
        let mut request = tonic::Request::new(PublishRequest { events: batch, sent_at: Some(stamp) });
        let bearer: MetadataValue<_> =
            format!("Bearer {}", send.write_key).parse().context("the write key is no text")?;
        request.metadata_mut().insert("authorization", bearer);
        let results = client.publish(request).await?.into_inner().results;
        rejected += results.iter().filter(|r| matches!(r.outcome, Some(Outcome::Rejected(_)))).count();
        let document = results.iter().map(document).collect();
        let rows: Vec<Vec<String>> = results
            .iter()
            .map(|r| {
                let (what, why) = words(r);
                vec![r.message_id.clone(), what.to_owned(), why]
            })
            .collect();
        print_rows(options.output, &document, &["message_id", "outcome", "why"], &rows);
    }
    if rejected > 0 {
        bail!("rejected: {rejected} of {}", events.len());
    }
    Ok(())
}

fn words(result: &EventResult) -> (&'static str, String) {
    match &result.outcome {
        Some(Outcome::Accepted(accepted)) => ("accepted", accepted.warnings.join(", ")),
        Some(Outcome::Duplicate(_)) => ("duplicate", String::new()),
        Some(Outcome::Rejected(r)) => ("rejected", format!("{} {} {}", r.code, r.field, r.reason)),
        None => ("unknown", String::new()),
    }
}

fn document(result: &EventResult) -> Value {
    let (outcome, why) = words(result);
    json!({ "message_id": result.message_id, "outcome": outcome, "why": why })
}
