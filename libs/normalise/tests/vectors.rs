//! Every normalisation, fbc, fbp and datetime vector of the three platforms' files.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its vectors must stop")]

use serde_json::Value;
use tracklayer_normalise::{Field, Hints, Outcome, Platform, fbc, google_time, line, normalise, sha256_hex};

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

fn normalised(platform: Platform, vector: &Value) -> Result<(), String> {
    let field: Field = vector["field"].as_str().unwrap().parse().map_err(|why| format!("{why}"))?;
    let input = match &vector["input"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let hints = Hints {
        country: vector["country_code"].as_str(),
        assume_international: vector["options"]["assume_international"] == true,
        now_year: Some(2026),
        ..Hints::default()
    };
    let outcome = normalise(platform, field, &input, &hints);
    let expected = expected(vector);
    let agrees = match (&expected, &outcome) {
        // The files call both by one name; the reason "empty" or "blank" is what is omitted here.
        (None, Outcome::Omitted { .. }) => input.trim().is_empty(),
        (None, Outcome::Rejected { .. }) => !input.trim().is_empty(),
        (Some(expected), outcome) => expected == outcome,
        (None, _) => false,
    };
    if agrees { Ok(()) } else { Err(format!("expected {expected:?}, got {outcome:?}")) }
}

/// The outcome that a vector asks for; `None` if the field is left out.
fn expected(vector: &Value) -> Option<Outcome> {
    let text = |key: &str| vector[key].as_str().map(str::to_owned);
    if vector["rejected"] == true {
        return None;
    }
    if vector["already_hashed"] == true {
        let hash = text("send").or_else(|| text("passthrough")).or_else(|| text("sha256")).unwrap();
        return Some(Outcome::AlreadyHashed { hash });
    }
    let value = text("normalised").unwrap();
    let hash = text("sha256");
    if let Some(hash) = &hash {
        assert_eq!(*hash, sha256_hex(&value), "the vector itself: {}", vector["id"]);
    }
    Some(Outcome::Normalised { value, hash })
}

#[test]
fn all_of_metas_normalisation_vectors_agree() {
    all(&vectors("meta.json"), "normalisation", 182, |vector| normalised(Platform::Meta, vector));
}

#[test]
fn all_of_googles_normalisation_vectors_agree() {
    all(&vectors("google.json"), "normalisation", 96, |vector| normalised(Platform::Google, vector));
}

#[test]
fn all_of_tiktoks_normalisation_vectors_agree() {
    all(&vectors("tiktok.json"), "normalisation", 107, |vector| normalised(Platform::Tiktok, vector));
}

#[test]
fn all_of_metas_fbc_vectors_agree() {
    all(&vectors("meta.json"), "fbc", 25, |vector| {
        let text = |key: &str| vector[key].as_str();
        let first_seen_ms = vector["ts_ms"]
            .as_i64()
            .or_else(|| vector["ts_s"].as_i64().map(|seconds| seconds * 1000))
            .or_else(|| text("ts").map(|ts| ts.parse::<jiff::Timestamp>().unwrap().as_millisecond()))
            .unwrap();
        let click = fbc::Click {
            cookie: text("cookie"),
            fbclid: text("fbclid"),
            page_url: text("url"),
            referrer: text("referrer"),
            cookie_domain: text("cookie_domain"),
            first_seen_ms,
        };
        let got = click.fbc();
        if got.as_deref() == text("expected") { Ok(()) } else { Err(format!("got {got:?}")) }
    });
}

#[test]
fn all_of_metas_fbp_vectors_agree() {
    all(&vectors("meta.json"), "fbp", 8, |vector| {
        let value = vector["value"].as_str().unwrap();
        let got = fbc::valid_fbp(value);
        if Value::Bool(got) == vector["valid"] { Ok(()) } else { Err(format!("{value}: got {got}")) }
    });
}

#[test]
fn all_of_googles_datetime_vectors_agree() {
    all(&vectors("google.json"), "datetime", 16, |vector| {
        let got = google_time::conversion_date_time(vector["input"].as_str().unwrap());
        let expected = vector["conversionDateTime"].as_str();
        assert_eq!(expected.is_none(), vector["rejected"] == true);
        if got.as_deref().ok() == expected { Ok(()) } else { Err(format!("got {got:?}")) }
    });
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
            let (value, hash) = match expected(vector) {
                Some(Outcome::Normalised { value, hash }) => {
                    (Value::from(value), hash.map_or(Value::Null, Value::from))
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
