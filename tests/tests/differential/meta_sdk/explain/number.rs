//! Gender and dates of birth.

use tracklayer_normalise::Outcome;

use super::super::case::{Case, Key, NOW_YEAR, Truth};
use super::super::class::{self, Class};
use super::published::clean;
use super::value;

pub fn gender(case: &Case, ours: &Outcome) -> Vec<Class> {
    match (value(ours), &case.truth) {
        (Some(value), Truth::Is(letter)) if value == letter => vec![class::GENDER_WORD],
        (None, Truth::None | Truth::Unknown) => vec![class::GENDER_OTHER],
        _ => Vec::new(),
    }
}

pub fn birthday(case: &Case, ours: &Outcome) -> Vec<Class> {
    match (value(ours), &case.truth) {
        (Some(value), Truth::Is(date)) if value == date => vec![class::DATE_FORM],
        (None, Truth::None | Truth::Unknown) => vec![class::DATE_NONE],
        _ => Vec::new(),
    }
}

/// The day, month or year alone: one number, of the right length and size.
pub fn part(case: &Case, ours: &Outcome) -> Vec<Class> {
    let published = number_of(case.key, &clean(&case.input));
    match (value(ours), published) {
        (Some(value), Some(number)) if value == number => vec![class::DATE_PART],
        (None, None) => vec![class::DATE_NONE],
        _ => Vec::new(),
    }
}

fn number_of(key: Key, text: &str) -> Option<String> {
    let runs: Vec<String> = text
        .split(|c: char| !c.is_numeric())
        .filter(|run| !run.is_empty())
        .map(|run| run.chars().filter_map(decimal).collect())
        .collect();
    let [run] = runs.as_slice() else { return None };
    if text.chars().any(char::is_alphabetic) {
        return None;
    }
    let number: i16 = run.parse().ok()?;
    match key {
        Key::BirthDay if run.len() <= 2 && (1..=31).contains(&number) => Some(format!("{number:02}")),
        Key::BirthMonth if run.len() <= 2 && (1..=12).contains(&number) => Some(format!("{number:02}")),
        Key::BirthYear if run.len() == 4 && (1900..=NOW_YEAR).contains(&number) => Some(run.clone()),
        _ => None,
    }
}

/// Digits as these tests write them: ASCII, Arabic, Devanagari, full width.
pub fn decimal(c: char) -> Option<char> {
    ['0', '\u{660}', '\u{966}', '\u{ff10}'].iter().find_map(|zero| {
        let digit = (c as u32).checked_sub(*zero as u32).filter(|digit| *digit < 10)?;
        char::from_digit(digit, 10)
    })
}
