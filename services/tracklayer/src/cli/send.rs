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
    /// Without it, Segment-spec events are read from standard input, one a line.
    #[arg(long = "type", value_parser = ["track", "page", "screen", "identify", "group", "alias"])]
    pub event_type: Option<String>,
    /// Name of a track event.
    #[arg(long, default_value = "", requires = "event_type")]
    pub event: String,
    /// The person.
    #[arg(long, default_value = "", requires = "event_type")]
    pub user_id: String,
    /// The device.
    #[arg(long, default_value = "", requires = "event_type")]
    pub anonymous_id: String,
    /// Idempotency key; made by the server if not given.
    #[arg(long, default_value = "", requires = "event_type")]
    pub message_id: String,
    /// A JSON object.
    #[arg(long, default_value = "{}", requires = "event_type")]
    pub properties: String,
    /// A JSON object.
    #[arg(long, default_value = "{}", requires = "event_type")]
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
            "properties": object("--properties", &send.properties)?, "context": object("--context", &send.context)?,
        })],
        None => std::io::stdin()
            .lock()
            .lines()
            .zip(1..)
            .map(|(line, number)| {
                let line = line.context("could not read standard input")?;
                serde_json::from_str(&line)
                    .with_context(|| format!("line {number} of standard input is no JSON event"))
            })
            .collect::<anyhow::Result<_>>()?,
    };
    if events.is_empty() {
        bail!(
            "nothing to send: standard input is empty; give an event a line there, or --type and its options"
        );
    }
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

fn object(option: &str, text: &str) -> anyhow::Result<Value> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => bail!("{option} is no JSON object, such as '{{\"currency\": \"EUR\"}}'"),
        Err(error) => Err(error).with_context(|| format!("{option} is no JSON")),
    }
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
