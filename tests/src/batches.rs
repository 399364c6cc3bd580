//! Events in batches, as a server sends them, and what the stats say has become of them.

use anyhow::Context;
use serde_json::{Value, json};

use crate::Running;

/// Sends one batch to an ingest, which has to take all of it.
///
/// # Errors
/// It did not.
pub async fn send_batch(
    http: &reqwest::Client,
    ingest: &str,
    write_key: &str,
    batch: &[Value],
) -> anyhow::Result<()> {
    let request = http.post(format!("{ingest}/v1/batch")).basic_auth(write_key, Some(""));
    let answer = request.json(&json!({ "batch": batch })).send().await.context("ingest is not there")?;
    let said: Value = answer.json().await.context("ingest did not answer in JSON")?;
    anyhow::ensure!(said == json!({ "success": true }), "ingest did not take a batch: {said}");
    Ok(())
}

/// Publishes events through the source `web-us`, so many in a request, one request after the other.
///
/// # Errors
/// Ingest did not take one of them.
pub async fn publish(platform: &Running, events: &[Value], in_a_request: usize) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    for batch in events.chunks(in_a_request) {
        let addresses = platform.addresses();
        send_batch(&http, &addresses.ingest_http, platform.write_key("web-us"), batch).await?;
    }
    Ok(())
}

/// How many events of a connection, as `stats` shows it, are in a state.
#[must_use]
pub fn in_state(connection: &Value, state: &str) -> u64 {
    let states = connection["states"].as_array().into_iter().flatten();
    states.filter(|s| s["state"] == state).filter_map(|s| s["events"].as_u64()).sum()
}
