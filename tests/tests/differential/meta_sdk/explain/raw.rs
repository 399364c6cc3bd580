//! What the SDK sends as it is: ids, addresses of machines, cookies; and the currency.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use regex::Regex;
use tracklayer_normalise::Outcome;

use super::super::case::{Case, Theirs};
use super::super::class::{self, Class};
use super::published::clean;
use super::value;

/// What shops write as the id of somebody whom they do not know.
const NOBODY: [&str; 13] = [
    "null",
    "undefined",
    "nan",
    "none",
    "nil",
    "n/a",
    "unknown",
    "anonymous",
    "guest",
    "(null)",
    "(not set)",
    "[object object]",
    "0",
];

/// Currencies among the inputs. Source: ISO 4217, list one; XAU is a metal, XTS a test, XXX none.
const CURRENCIES: [&str; 6] = ["USD", "EUR", "GBP", "JPY", "KWD", "CHF"];

static UUID: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"));
static NIL: LazyLock<Regex> = LazyLock::new(|| regex(r"^(0-?){32}$"));
static COOKIE: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^fb\.[0-9]+\.[0-9]+\.[^.\s]+(\.[A-Za-z0-9_-]{8}|\.(AQ|Ag|Aw|BA|BQ|Bg))?$"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this file compiles")
}

pub fn external_id(case: &Case, ours: &Outcome) -> Vec<Class> {
    let text = clean(&case.input);
    match value(ours) {
        Some(value) if value == super::published::composed(&text.to_lowercase()) => {
            vec![class::EXTERNAL_ID_HASHED]
        }
        None if NOBODY.contains(&text.to_lowercase().as_str()) || NIL.is_match(&text) => {
            vec![class::EXTERNAL_ID_NOBODY]
        }
        _ => Vec::new(),
    }
}

pub fn mobile_ad_id(case: &Case, ours: &Outcome) -> Vec<Class> {
    let text = clean(&case.input);
    let is_id = UUID.is_match(&text) && !NIL.is_match(&text);
    match value(ours) {
        Some(value) if is_id && value == text.to_lowercase() => {
            let cased = (value != text).then_some(class::MADID_CASE);
            cased.into_iter().chain(trimmed(case, &text)).collect()
        }
        None if !is_id => vec![class::MADID_NONE],
        _ => Vec::new(),
    }
}

pub fn ip(case: &Case, ours: &Outcome) -> Vec<Class> {
    let text = clean(&case.input);
    let parsed = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    match (value(ours), parsed.map(|address| address.to_canonical())) {
        (Some(value), Ok(address)) if value == address.to_string() => vec![class::IP_FORM],
        (None, Ok(address)) if is_of_no_person(address) => vec![class::IP_NONE],
        (None, Err(_)) => vec![class::IP_NONE],
        _ => Vec::new(),
    }
}

/// Source: IANA special-purpose address registries; 2026-11.
fn is_of_no_person(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            matches!(
                (a, b),
                (0 | 10 | 127 | 224.., _) | (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168)
            )
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            v6.is_loopback()
                || v6.is_unspecified()
                || matches!(first, 0xfc00..=0xfdff | 0xfe80..=0xfebf | 0xff00..)
        }
    }
}

pub fn cookie(case: &Case, ours: &Outcome) -> Vec<Class> {
    let text = clean(&case.input);
    match value(ours) {
        Some(value) if COOKIE.is_match(&text) && value == text => trimmed(case, &text).into_iter().collect(),
        None if !COOKIE.is_match(&text) => vec![class::CLICK_NONE],
        _ => Vec::new(),
    }
}

pub fn currency(case: &Case, ours: &Outcome, theirs: &Theirs) -> Vec<Class> {
    let text = clean(&case.input).to_uppercase();
    let is_code = CURRENCIES.contains(&text.as_str());
    match (value(ours), theirs.wire.as_deref()) {
        (Some(value), Some(theirs)) if is_code && value == text && value.to_lowercase() == theirs => {
            vec![class::CURRENCY_CASE]
        }
        (None, Some(_)) if !is_code => vec![class::CURRENCY_NONE],
        _ => Vec::new(),
    }
}

fn trimmed(case: &Case, text: &str) -> Option<Class> {
    (case.input != text).then_some(class::TRIMMED)
}
