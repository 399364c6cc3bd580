//! E-mail addresses, names, places.

use tracklayer_normalise::Outcome;

use super::super::case::{Case, Theirs, Truth};
use super::super::class::{self, Class};
use super::published::{Steps, clean, is_hex, visible, without_spaces};
use super::value;

/// Words that programs write where a person's data are missing.
const PLACEHOLDERS: [&str; 6] = ["null", "undefined", "n/a", "(null)", "(not set)", "[object object]"];

pub fn email(case: &Case, ours: &Outcome) -> Vec<Class> {
    let steps = Steps::of(&case.input).tidied();
    let address = steps.text.as_str();
    let Some(value) = value(ours) else { return no_address(address).into_iter().collect() };
    if value == address { steps.taken } else { Vec::new() }
}

/// Why a text is no single address.
fn no_address(text: &str) -> Option<Class> {
    let (local, domain) = text.split_once('@')?;
    let alone = |c: char| {
        !matches!(c, '<' | '>' | ',' | ';') && !c.is_control() && !visible(&c.to_string()).is_empty()
    };
    if text.contains(char::is_whitespace) {
        Some(class::EMAIL_SPACE)
    } else if domain.contains('@') || !text.chars().all(alone) {
        Some(class::EMAIL_SEVERAL)
    } else if local.is_empty() || domain.split('.').any(str::is_empty) {
        Some(class::EMAIL_LABEL)
    } else {
        None
    }
}

pub fn name(case: &Case, ours: &Outcome) -> Vec<Class> {
    told(case, ours, Steps::of(&case.input).tidied().letters())
}

pub fn city(case: &Case, ours: &Outcome) -> Vec<Class> {
    let steps = Steps::of(&case.input).same(without_what_the_sdk_drops).tidied();
    told(case, ours, steps.without_numbers(class::CITY_DIGITS).letters())
}

pub fn state(case: &Case, ours: &Outcome) -> Vec<Class> {
    let kept = |c: &char| !matches!(c, '.' | '-' | '(' | ')') && !c.is_whitespace();
    let mut steps = Steps::of(&case.input).same(|text| text.chars().filter(kept).collect());
    if steps.text.contains(|c: char| c.is_ascii_digit()) {
        steps.took(class::STATE_DIGITS);
    }
    let mut steps = steps.tidied().letters();
    if let Truth::Is(code) = &case.truth {
        steps = steps.step(class::STATE_CODE, |_| code.clone());
    } else if case.country == Some("US") && value(ours).is_none() && !steps.text.is_empty() {
        return vec![class::STATE_UNKNOWN];
    }
    told(case, ours, steps)
}

pub fn postal_code(case: &Case, ours: &Outcome) -> Vec<Class> {
    let steps = Steps::of(&case.input).same(without_spaces).tidied();
    let mut steps = steps.step(class::ZIP_DASH, |text| text.replace('-', "")).letters();
    match &case.truth {
        Truth::Is(code) => {
            let is_zip_plus_4 =
                steps.text.len() == 9 && code.len() == 5 && steps.text.starts_with(code.as_str());
            let before =
                steps.text.strip_suffix(code.as_str()).filter(|before| matches!(before.len(), 1..=2));
            if is_zip_plus_4 {
                steps = steps.step(class::ZIP_FIVE, |_| code.clone());
            } else if before.is_some_and(|before| before.bytes().all(|b| b.is_ascii_lowercase())) {
                steps = steps.step(class::ZIP_LETTERS, |_| code.clone());
            }
            if steps.text != *code {
                return Vec::new();
            }
        }
        Truth::Unknown | Truth::None if case.country == Some("US") && value(ours).is_none() => {
            let is_zip = matches!(steps.text.len(), 5 | 9) && steps.text.bytes().all(|b| b.is_ascii_digit());
            return if is_zip { Vec::new() } else { vec![class::ZIP_US] };
        }
        Truth::Unknown | Truth::None => {}
    }
    told(case, ours, steps)
}

pub fn country(case: &Case, ours: &Outcome, theirs: &Theirs) -> Vec<Class> {
    match (value(ours), &case.truth) {
        (Some(value), Truth::Is(code)) if value == code => vec![class::COUNTRY_NAME],
        // The SDK throws away what is no a-z, and takes what is left if it happens to be a code.
        (None, Truth::None | Truth::Unknown) => {
            let text = clean(&case.input).to_lowercase();
            let left: String = text.chars().filter(char::is_ascii_lowercase).collect();
            let is_mended = theirs.form.as_deref() == Some(left.as_str()) && left.len() == 2 && left != text;
            if is_mended { vec![class::COUNTRY_SYMBOLS] } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

/// What the SDK drops from cities and states.
fn without_what_the_sdk_drops(text: &str) -> String {
    let dropped = |c: &char| c.is_ascii_digit() || matches!(c, '.' | '-' | '(' | ')') || c.is_whitespace();
    text.chars().filter(|c| !dropped(c)).collect()
}

/// What a person tells: the published form, unless that is nobody's.
fn told(case: &Case, ours: &Outcome, steps: Steps) -> Vec<Class> {
    if let Some(value) = value(ours) {
        return if value == steps.text { steps.taken } else { Vec::new() };
    }
    let is_placeholder = |text: &str| PLACEHOLDERS.contains(&text);
    if steps.text.is_empty() {
        vec![class::NOTHING_LEFT]
    } else if is_placeholder(&clean(&case.input).to_lowercase()) || is_placeholder(&steps.text) {
        vec![class::PLACEHOLDER]
    } else if [32, 40, 64, 96, 128].iter().any(|digits| is_hex(&steps.text, *digits)) {
        vec![class::DIGEST_IN_TEXT]
    } else {
        Vec::new()
    }
}
