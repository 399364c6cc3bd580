//! What each kind of vector says, and whether the library agrees.

use serde_json::Value;
use tracklayer_normalise::{Field, Hints, Outcome, Platform, Sha256Hex, fbc, google_time, normalise};

/// A value in the platform's form and its digest, or why it is left out.
pub fn normalised(platform: Platform, vector: &Value) -> Result<(), String> {
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
pub fn expected(vector: &Value) -> Option<Outcome> {
    let text = |key: &str| vector[key].as_str().map(str::to_owned);
    if vector["rejected"] == true {
        return None;
    }
    if vector["already_hashed"] == true {
        let hash = text("send").or_else(|| text("passthrough")).or_else(|| text("sha256")).unwrap();
        return Some(Outcome::AlreadyHashed { hash });
    }
    let value = text("normalised").unwrap();
    let hash = text("sha256").map(|hash| {
        let of_value = Sha256Hex::of(&value);
        assert_eq!(hash, of_value.as_str(), "the vector itself: {}", vector["id"]);
        of_value
    });
    Some(Outcome::Normalised { value, hash })
}

/// The `fbc` of a cookie, a click id and addresses.
pub fn fbc(vector: &Value) -> Result<(), String> {
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
}

/// Whether a text is an `fbp`.
pub fn fbp(vector: &Value) -> Result<(), String> {
    let value = vector["value"].as_str().unwrap();
    let got = fbc::valid_fbp(value);
    if Value::Bool(got) == vector["valid"] { Ok(()) } else { Err(format!("{value}: got {got}")) }
}

/// A time in the form of the Google Ads API.
pub fn datetime(vector: &Value) -> Result<(), String> {
    let got = google_time::conversion_date_time(vector["input"].as_str().unwrap());
    let expected = vector["conversionDateTime"].as_str();
    assert_eq!(expected.is_none(), vector["rejected"] == true);
    if got.as_deref().ok() == expected { Ok(()) } else { Err(format!("got {got:?}")) }
}
