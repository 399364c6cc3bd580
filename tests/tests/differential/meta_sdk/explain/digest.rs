//! What was a digest before it came, and what is nothing at all: the same for every hashed key.

use std::sync::LazyLock;

use regex::Regex;
use tracklayer_normalise::Outcome;

use super::super::case::{Case, Key};
use super::super::class::{self, Class};
use super::published::{clean, is_hex};

const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static WITH_APPENDIX: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[0-9A-Fa-f]{64}\.([A-Za-z0-9_-]{8}|AQ|Ag|Aw|BA|BQ|Bg)$").expect("the pattern compiles")
});

pub fn reasons(case: &Case, ours: &Outcome) -> Vec<Class> {
    let text = clean(&case.input);
    match ours {
        Outcome::Omitted { .. } if text.is_empty() => vec![class::BLANK],
        Outcome::Rejected { .. } if text.eq_ignore_ascii_case(OF_NOTHING) => vec![class::DIGEST_OF_NOTHING],
        Outcome::Rejected { .. } if is_hex(&text, 32) && is_hashed(case.key) => vec![class::MD5],
        Outcome::AlreadyHashed { hash } if WITH_APPENDIX.is_match(&text) && *hash == text => {
            if case.key == Key::ExternalId { around(case, &text) } else { vec![class::APPENDIX] }
        }
        Outcome::AlreadyHashed { hash } if is_hex(&text, 64) && *hash == text.to_ascii_lowercase() => {
            let mut reasons = around(case, &text);
            // Only an external_id goes out as it came; elsewhere the SDK lowers a digest that it recognises.
            if case.key == Key::ExternalId && *hash != text {
                reasons.push(class::DIGEST_CASE);
            }
            reasons
        }
        _ => Vec::new(),
    }
}

fn is_hashed(key: Key) -> bool {
    !matches!(key, Key::ExternalId | Key::MobileAdId | Key::Ip | Key::Fbc | Key::Fbp | Key::Currency)
}

fn around(case: &Case, text: &str) -> Vec<Class> {
    match (case.input == text, is_hashed(case.key)) {
        (true, _) => Vec::new(),
        (false, true) => vec![class::INVISIBLE],
        (false, false) => vec![class::TRIMMED],
    }
}
