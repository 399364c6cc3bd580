//! Every normalisation, fbc, fbp and datetime vector of the three platforms' files.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its vectors must stop")]

mod checks;

use serde_json::Value;
use tracklayer_normalise::{Outcome, Platform, line};

fn vectors(file: &str) -> Value {
    let path = format!("{}/../../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list<'a>(file: &'a Value, kind: &str) -> &'a [Value] {
    file[kind].as_array().unwrap()
}

/// Runs `check` over all vectors of a kind and tells of all that differ at once.
fn all(file: &Value, kind: &str, count: usize, check: impl Fn(&Value) -> Result<(), String>) {
    let vectors = list(file, kind);
    let wrong: Vec<String> = vectors
        .iter()
        .filter_map(|vector| {
            check(vector).err().map(|why| format!("{}: {why}", vector["id"].as_str().unwrap_or("?")))
        })
        .collect();
    println!("{kind}: {} of {} vectors agree", vectors.len() - wrong.len(), vectors.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(vectors.len(), count, "number of {kind} vectors");
}

#[test]
fn all_of_metas_normalisation_vectors_agree() {
    all(&vectors("meta.json"), "normalisation", 182, |vector| checks::normalised(Platform::Meta, vector));
}

#[test]
fn all_of_googles_normalisation_vectors_agree() {
    all(&vectors("google.json"), "normalisation", 96, |vector| checks::normalised(Platform::Google, vector));
}

#[test]
fn all_of_tiktoks_normalisation_vectors_agree() {
    all(&vectors("tiktok.json"), "normalisation", 107, |vector| checks::normalised(Platform::Tiktok, vector));
}

#[test]
fn all_of_metas_fbc_vectors_agree() {
    all(&vectors("meta.json"), "fbc", 25, checks::fbc);
}

#[test]
fn all_of_metas_fbp_vectors_agree() {
    all(&vectors("meta.json"), "fbp", 8, checks::fbp);
}

#[test]
fn all_of_googles_datetime_vectors_agree() {
    all(&vectors("google.json"), "datetime", 16, checks::datetime);
}

#[test]
fn the_command_answers_every_vector_as_the_library_does() {
    for (file, destination) in
        [("meta.json", "meta_capi"), ("google.json", "google_ads"), ("tiktok.json", "tiktok_events")]
    {
        for vector in list(&vectors(file), "normalisation") {
            let mut question = vector.clone();
            question["destination"] = destination.into();
            let answer: Value = serde_json::from_str(&line::answer(&question.to_string())).unwrap();
            assert_eq!(answer["id"], vector["id"]);
            let (value, hash) = match checks::expected(vector) {
                Some(Outcome::Normalised { value, hash }) => {
                    (Value::from(value), hash.map_or(Value::Null, |hash| Value::from(hash.as_str())))
                }
                Some(Outcome::AlreadyHashed { hash }) => (Value::Null, hash.into()),
                Some(Outcome::Omitted { .. } | Outcome::Rejected { .. }) | None => (Value::Null, Value::Null),
            };
            assert_eq!((&answer["normalized"], &answer["hash"]), (&value, &hash), "{}", vector["id"]);
            let is_left_out = answer["omitted"].is_string() || answer["rejected"].is_string();
            assert_eq!(is_left_out, vector["rejected"] == true, "{}", vector["id"]);
        }
    }
}
