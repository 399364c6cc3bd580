//! Random inputs, the same for the same seed: what people, shops and forms write into each field, and what nobody should.
//!
//! Characters are those that Unicode 12 and later know alike, so that the tables of Python, Rust and the crates agree.

pub mod phone;
mod place;
mod text;

use fastrand::Rng;
use unicode_normalization::UnicodeNormalization as _;

use super::case::{Case, Key, Truth};

/// What copying and forms leave around a value: seen white space, and what nobody sees.
const AROUND: [&str; 14] = [
    " ", "  ", "\t", "\n", "\r\n", "\u{a0}", "\u{3000}", "\u{2003}", "\u{200b}", "\u{feff}", "\u{200e}",
    "\u{202a}", "\0", "\u{ad}",
];

/// Texts that are nobody's data.
const HOSTILE: [&str; 28] = [
    "",
    " ",
    "\u{a0}",
    "\u{200b}",
    "\u{feff}\u{200b}",
    "\t\r\n",
    "null",
    "NULL",
    "undefined",
    "n/a",
    "(not set)",
    "[object Object]",
    "-",
    "...",
    "'",
    "\u{2764}\u{fe0f}",
    "\u{1f600}",
    "0",
    "00000000-0000-0000-0000-000000000000",
    "NaN",
    "guest",
    "<script>",
    "a\u{0}b",
    "\u{202e}gnirts",
    "N-u-l-l",
    "\u{1d400}\u{1d401}",
    "½²Ⅷ",
    "\u{300}",
];

/// As many cases as asked for, key after key.
pub fn cases(seed: u64, number: usize) -> Vec<Case> {
    let mut rng = Rng::with_seed(seed);
    Key::ALL.iter().cycle().take(number).map(|key| case(&mut rng, *key)).collect()
}

fn case(rng: &mut Rng, key: Key) -> Case {
    let (input, country, truth) = match rng.u8(0..100) {
        0..6 => (pick(rng, &HOSTILE).to_owned(), text::country(rng), Truth::Unknown),
        6..14 => (digest(rng), text::country(rng), Truth::Unknown),
        14..16 => (text::long(rng, key), None, Truth::Unknown),
        _ => usual(rng, key),
    };
    // Who puts something around a value does not change what it tells.
    let input = if rng.u8(0..10) < 3 { around(rng, &input) } else { input };
    Case { key, input, country, truth }
}

fn usual(rng: &mut Rng, key: Key) -> (String, Option<&'static str>, Truth) {
    match key {
        Key::Phone => phone::number(rng),
        Key::Country => place::country(rng),
        Key::State => place::state(rng),
        Key::PostalCode => place::postal_code(rng),
        Key::City => (place::city(rng), text::country(rng), Truth::Unknown),
        Key::Email => (text::email(rng), None, Truth::Unknown),
        Key::FirstName | Key::LastName => (text::name(rng), None, Truth::Unknown),
        Key::Gender => text::gender(rng),
        Key::Birthday => text::birthday(rng),
        Key::BirthDay | Key::BirthMonth | Key::BirthYear => (text::date_part(rng), None, Truth::Unknown),
        Key::ExternalId => (text::external_id(rng), None, Truth::Unknown),
        Key::MobileAdId => (text::mobile_ad_id(rng), None, Truth::Unknown),
        Key::Ip => (text::ip(rng), None, Truth::Unknown),
        Key::Fbc | Key::Fbp => (text::cookie(rng), None, Truth::Unknown),
        Key::Currency => (text::currency(rng), None, Truth::Unknown),
    }
}

/// What was hashed before it came: by SHA-256, by something else, by Meta's own library; or by nothing.
fn digest(rng: &mut Rng) -> String {
    let hex = |rng: &mut Rng, digits: usize| -> String {
        (0..digits).map(|_| char::from(pick(rng, b"0123456789abcdef"))).collect()
    };
    let mut text = match rng.u8(0..9) {
        0..3 => hex(rng, 64),
        3 => hex(rng, 32),
        4 => hex(rng, 40),
        5 => hex(rng, 63),
        6 => "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        7 => format!("{}.{}", hex(rng, 64), pick(rng, &["AQQCAQIB", "AQABAQIA", "Bg"])),
        _ => format!("{}.{}", hex(rng, 64), pick(rng, &["xyz", "ZZ"])),
    };
    if rng.u8(0..4) == 0 {
        text = text.to_ascii_uppercase();
    }
    text
}

fn around(rng: &mut Rng, text: &str) -> String {
    let (before, behind) = (pick(rng, &AROUND), pick(rng, &AROUND));
    match rng.u8(0..4) {
        0 => format!("{before}{text}"),
        1 => format!("{text}{behind}"),
        2 => format!("{before}{text}{behind}"),
        _ => inside(rng, text, "\u{200b}"),
    }
}

/// `what` somewhere inside the text.
fn inside(rng: &mut Rng, text: &str, what: &str) -> String {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).collect();
    match places.as_slice() {
        [] => text.to_owned(),
        places => {
            let at = pick(rng, places);
            format!("{}{what}{}", &text[..at], &text[at..])
        }
    }
}

fn cased(rng: &mut Rng, text: &str) -> String {
    match rng.u8(0..4) {
        0 => text.to_uppercase(),
        1 => text.to_lowercase(),
        _ => text.to_owned(),
    }
}

fn decomposed(rng: &mut Rng, text: &str) -> String {
    if rng.u8(0..5) == 0 { text.nfd().collect() } else { text.to_owned() }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}
