//! Telephone numbers: real ones of a dozen countries in every dress, and digits that are none.

use fastrand::Rng;

use super::super::case::Truth;
use super::pick;

/// A country's code, what is dialled before a national number, and numbers of it without either.
pub struct Country {
    pub alpha2: &'static str,
    pub code: &'static str,
    pub trunk: &'static str,
    pub numbers: [&'static str; 2],
}

const fn country(
    alpha2: &'static str,
    code: &'static str,
    trunk: &'static str,
    numbers: [&'static str; 2],
) -> Country {
    Country { alpha2, code, trunk, numbers }
}

/// Source: ITU-T E.164, national numbering plans; numbers reserved for fiction or of the plans' own examples.
pub const COUNTRIES: [Country; 12] = [
    country("US", "1", "", ["6505551212", "2125550123"]),
    country("GB", "44", "0", ["2079460018", "7911123456"]),
    country("DE", "49", "0", ["1712345678", "30901820"]),
    country("FR", "33", "0", ["612345678", "123456789"]),
    country("IT", "39", "", ["0612345678", "3931234567"]),
    country("BR", "55", "0", ["11961234567", "2123456789"]),
    country("JP", "81", "0", ["312345678", "9012345678"]),
    country("AU", "61", "0", ["412345678", "212345678"]),
    country("RU", "7", "8", ["9123456789", "4951234567"]),
    country("IN", "91", "0", ["9876543210", "9123456789"]),
    country("ES", "34", "", ["612345678", "912345678"]),
    country("CH", "41", "0", ["446681800", "781234567"]),
];

/// Country codes that nobody has. Source: ITU-T E.164, list of assigned country codes; 2026-11.
pub const UNASSIGNED: [&str; 6] = ["210", "292", "384", "422", "699", "999"];

/// Digits that are no number of the USA. Source: NANP: no area code begins with 0 or 1, and seven digits have none.
const NOT_IN_US: [&str; 4] = ["5550100", "1234567890", "0123456789", "12125550"];

pub fn number(rng: &mut Rng) -> (String, Option<&'static str>, Truth) {
    match rng.u8(0..16) {
        0 => {
            let text = format!("+{} {}", pick(rng, &UNASSIGNED), digits(rng, 8));
            (text, None, Truth::None)
        }
        1 => (format!("+49{}", digits(rng, 14)), None, Truth::None),
        2 => {
            let length = rng.usize(5..19);
            (digits(rng, length), None, Truth::None)
        }
        3 => (pick(rng, &NOT_IN_US).to_owned(), Some("US"), Truth::None),
        4 => {
            let text = pick(
                rng,
                &[
                    "1-800-FLOWERS",
                    "unknown",
                    "a1@b.example",
                    "*67 650 555",
                    "44+20",
                    "+",
                    "()",
                    "0",
                    "+0000000000",
                ],
            );
            (text.to_owned(), None, Truth::None)
        }
        5..9 => national(rng),
        _ => international(rng),
    }
}

fn international(rng: &mut Rng) -> (String, Option<&'static str>, Truth) {
    let at = &COUNTRIES[rng.usize(0..COUNTRIES.len())];
    let number = pick(rng, &at.numbers);
    let truth = Truth::Is(format!("{}{number}", at.code));
    let prefix = pick(rng, &["+", "+", "+", "00", "+00", "tel: +", "(+", "\u{ff0b}"]);
    let (open, close) = if prefix == "(+" { ("", ")") } else { ("", "") };
    let trunk = match (at.trunk, rng.u8(0..6)) {
        ("0", 0) => "(0)",
        ("0", 1) => "0",
        _ => "",
    };
    let text = format!("{open}{prefix}{}{close} {trunk}{}", at.code, grouped(rng, number));
    (dressed(rng, &text), None, truth)
}

/// As it is dialled at home, with or without the country known; or with the country's code and no plus.
fn national(rng: &mut Rng) -> (String, Option<&'static str>, Truth) {
    let at = &COUNTRIES[rng.usize(0..COUNTRIES.len())];
    let number = pick(rng, &at.numbers);
    let truth = Truth::Is(format!("{}{number}", at.code));
    let prefix = match rng.u8(0..5) {
        0 => at.code,
        _ => at.trunk,
    };
    let text = format!("{prefix}{}", grouped(rng, number));
    let country = if rng.u8(0..4) == 0 { None } else { Some(at.alpha2) };
    (dressed(rng, &text), country, truth)
}

fn grouped(rng: &mut Rng, number: &str) -> String {
    let (area, rest) = number.split_at(3);
    let sep = pick(rng, &["", " ", "-", " - ", ".", "/", "\u{2013}", "\u{a0}"]);
    format!("{area}{sep}{rest}")
}

fn dressed(rng: &mut Rng, text: &str) -> String {
    match rng.u8(0..16) {
        0 => format!("{text} {}{}", pick(rng, &["ext. ", "x", "#", "Durchwahl "]), rng.u16(1..999)),
        1 => in_script(text, '\u{660}'),
        2 => in_script(text, '\u{ff10}'),
        _ => text.to_owned(),
    }
}

/// The same with the digits of another script, given by its zero.
fn in_script(text: &str, zero: char) -> String {
    let digit = |c: char| c.to_digit(10).and_then(|d| char::from_u32(zero as u32 + d)).unwrap_or(c);
    text.chars().map(digit).collect()
}

/// Digits, the first of them not zero.
fn digits(rng: &mut Rng, number: usize) -> String {
    (0..number).map(|at| char::from(rng.u8(if at == 0 { b'2'..=b'9' } else { b'0'..=b'9' }))).collect()
}
