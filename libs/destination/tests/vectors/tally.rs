//! Every kind of vector of the ad platforms' files: that it is asserted, and how many there are of it.

use std::collections::BTreeMap;

use serde_json::Value;
use tracklayer_normalise::Platform;

use crate::{answers, normalisation, payloads, vectors};

/// Asserts one vector of a kind, which is a list of the file; an error says how it differs. A kind that nobody asserts ends
/// the test.
fn assert_one(name: &str, file: &Value, kind: &str, vector: &Value) -> Result<(), String> {
    let built = |check: &dyn Fn(&mut Vec<String>)| {
        let mut failures = Vec::new();
        check(&mut failures);
        failures.pop().map_or(Ok(()), Err)
    };
    match (name, kind) {
        ("meta", "normalisation") => normalisation::normalised(Platform::Meta, vector),
        ("google", "normalisation") => normalisation::normalised(Platform::Google, vector),
        ("tiktok", "normalisation") => normalisation::normalised(Platform::Tiktok, vector),
        ("meta", "fbc") => normalisation::fbc(vector),
        ("meta", "fbp") => normalisation::fbp(vector),
        ("google", "datetime") => normalisation::datetime(vector).and_then(|()| payloads::datetime(vector)),
        ("meta", "payloads") => built(&|failures| payloads::check_meta(file, vector, failures)),
        ("google", "payloads") => built(&|failures| payloads::check_google(vector, failures)),
        ("tiktok", "payloads") => built(&|failures| payloads::check_tiktok(vector, failures)),
        ("google", "answers") => answers::google_agrees(vector),
        ("tiktok", "answers") => answers::tiktok_agrees(vector),
        _ => panic!("{name}.json has `{kind}`, which no test asserts"),
    }
}

#[test]
fn every_kind_of_vector_is_asserted_and_counted() {
    for name in ["meta", "google", "tiktok"] {
        let file = vectors(name);
        let mut asserted: BTreeMap<String, usize> = BTreeMap::new();
        for (kind, vectors) in file.as_object().unwrap().iter() {
            let Some(vectors) = vectors.as_array() else { continue };
            assert!(!vectors.is_empty(), "{name}.json has no `{kind}`");
            for vector in vectors {
                let told = assert_one(name, &file, kind, vector);
                assert_eq!(told, Ok(()), "{name} {kind} {}", vector["id"]);
                // Identifiers differ more from one another than other kinds do: each is told of alone.
                let line = match kind.as_str() {
                    "normalisation" => format!("{kind} {}", vector["field"].as_str().unwrap()),
                    _ => kind.clone(),
                };
                *asserted.entry(line).or_default() += 1;
            }
        }
        let all: usize = asserted.values().sum();
        assert!(all > 100, "{name}.json is cut short: {all} vectors");
        for (line, count) in asserted {
            println!("{name:<7} {line:<28} {count:>4} agree");
        }
        println!("{name:<7} {:<28} {all:>4} agree", "all");
    }
}
