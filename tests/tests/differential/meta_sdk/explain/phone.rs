//! Telephone numbers. Where the input was made from a real number, ours must be that number.

use tracklayer_normalise::Outcome;

use super::super::case::{Case, Theirs, Truth};
use super::super::class::{self, Class};
use super::super::inputs::phone::{COUNTRIES, UNASSIGNED};
use super::number::decimal;
use super::published::clean;
use super::value;

pub fn phone(case: &Case, ours: &Outcome, theirs: &Theirs) -> Vec<Class> {
    match (value(ours), &case.truth) {
        (Some(value), Truth::Is(number)) if value == number => of_number(case, number, theirs),
        (None, Truth::Is(_)) if is_national(&case.input) && case.country.is_none() => {
            vec![class::PHONE_NO_COUNTRY]
        }
        (None, Truth::None | Truth::Unknown) => of_no_number(case, theirs),
        _ => Vec::new(),
    }
}

/// Why the SDK does not send the number that the input tells.
fn of_number(case: &Case, number: &str, theirs: &Theirs) -> Vec<Class> {
    let input = case.input.as_str();
    let (raises, theirs) = (theirs.error.is_some(), theirs.form.as_deref());
    let mut reasons = Vec::new();
    if clean(input) != input.trim() {
        reasons.push(class::INVISIBLE);
    }
    if input.chars().any(|c| !c.is_ascii() && decimal(c).is_some()) {
        reasons.push(class::PHONE_DIGITS);
    }
    if is_national(input) && adds_country(case, number) {
        reasons.push(class::PHONE_COUNTRY);
    } else if theirs.is_some_and(|theirs| has_trunk_zero(theirs, number))
        || has_trunk_zero(&digits(input), number)
    {
        reasons.push(class::PHONE_TRUNK);
    }
    // The SDK raises: it takes digits, spaces, hyphens and round brackets alone.
    if raises && has_extension(input) {
        reasons.push(class::PHONE_EXTENSION);
    }
    let takes = |c: char| decimal(c).is_some() || c.is_whitespace() || matches!(c, '+' | '-' | '(' | ')');
    if raises && !clean(input).chars().all(takes) {
        reasons.push(class::PHONE_SYMBOLS);
    }
    reasons
}

/// Whether the number is the country's code and what is written without the trunk prefix.
fn adds_country(case: &Case, number: &str) -> bool {
    COUNTRIES.iter().filter(|at| case.country == Some(at.alpha2)).any(|at| {
        let written = digits(&case.input);
        let home = written.strip_prefix(at.trunk).unwrap_or(&written);
        number.strip_prefix(at.code).is_some_and(|rest| home.starts_with(rest))
    })
}

/// Whether `written` is the number with a zero behind its country's code.
fn has_trunk_zero(written: &str, number: &str) -> bool {
    let written = written.trim_start_matches('0');
    COUNTRIES.iter().any(|at| {
        number.strip_prefix(at.code).is_some_and(|rest| written.starts_with(&format!("{}0{rest}", at.code)))
    })
}

/// Why what the SDK sends is no number.
fn of_no_number(case: &Case, theirs: &Theirs) -> Vec<Class> {
    let Some(sent) = theirs.form.as_deref().map(digits) else { return Vec::new() };
    if sent.len() > 15 {
        vec![class::PHONE_LONG]
    } else if !is_national(&case.input) && UNASSIGNED.iter().any(|code| sent.starts_with(code)) {
        vec![class::PHONE_NO_CODE]
    } else if is_national(&case.input) && case.country.is_none() {
        vec![class::PHONE_NO_COUNTRY]
    } else if is_national(&case.input) && case.truth == Truth::None {
        vec![class::PHONE_NOT_IN_PLAN]
    } else {
        Vec::new()
    }
}

/// Neither a plus nor the two zeros that stand for it before the first digit.
fn is_national(input: &str) -> bool {
    let plus = input.contains(['+', '\u{ff0b}']);
    !plus && !digits(input).starts_with("00")
}

fn has_extension(input: &str) -> bool {
    ["ext. ", "x", "#", "Durchwahl "].iter().any(|mark| input.contains(mark))
}

fn digits(text: &str) -> String {
    text.chars().filter_map(decimal).collect()
}
