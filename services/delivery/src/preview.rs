//! `delivery.v1.Preview`: the pure preview of the destinations, over the wire.

use jiff::Timestamp;
use tracklayer_destination::WorkspaceDefaults;
use tracklayer_destination::preview::{ConsentChoice, preview};

/// Answers for each line, or says what is wrong with the connection document or the consent.
///
/// # Errors
/// A sentence for the caller.
pub fn answer(
    document: &str,
    lines: &[String],
    now: Timestamp,
    consent: &str,
) -> Result<Vec<String>, String> {
    let document = serde_json::from_str(document).map_err(|e| format!("is no JSON document: {e}"))?;
    let choice = ConsentChoice::parse(consent).map_err(|e| e.to_string())?;
    let workspace = WorkspaceDefaults::default();
    preview(&document, &workspace, lines.iter().map(String::as_str), now, &choice).map_err(|e| e.to_string())
}
