//! The connectors against the platforms' vectors in `tests/vectors/` at the root: payloads and answers; and every kind of
//! vector of each platform's file, those of normalisation too, asserted and counted in one place.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its vectors must fail")]

mod answers;
mod left_out;
// The checks of the library that normalises, so that the count below is one of checks that ran.
#[path = "../../../normalise/tests/vectors/checks.rs"]
mod normalisation;
mod payloads;
mod tally;

use serde_json::{Value, json};

/// Reads a vector file.
pub fn vectors(name: &str) -> Value {
    let path = format!("{}/../../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap()
}

/// An OAuth part for documents that need one.
pub fn oauth() -> Value {
    json!({ "client_id": "client", "client_secret": "secret", "refresh_token": "refresh" })
}

/// The same JSON with every number as a double, so that 45 and 45.0 are equal.
pub fn levelled(value: &Value) -> Value {
    match value {
        Value::Number(n) => json!(n.as_f64()),
        Value::Array(list) => list.iter().map(levelled).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), levelled(v))).collect(),
        other => other.clone(),
    }
}
