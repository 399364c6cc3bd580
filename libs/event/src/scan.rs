//! One pass over an event's text before anything parses it: what the grammar of JSON allows and we cannot carry.
//!
//! The parser below only *skips* what it does not need, without recursion, so it would let through 10,000 brackets, a NUL,
//! half a surrogate pair or 1e999; whoever parses the stored text later would fail on them. The text need not be JSON here:
//! whatever it is, the scan ends, and what is not JSON is found by the parser afterwards.

use crate::rejection::{RejectCode, Rejection};

/// Deepest nesting of objects and arrays, the event itself included. Well under the 128 of our own JSON parser.
pub const MAX_DEPTH: usize = 64;

/// What the pass found that has to be mended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Byte positions of escapes (`\ud83d`) that are half a pair.
    pub lone_surrogates: Vec<usize>,
}

/// Looks through the text of one event.
///
/// # Errors
/// Nested too deep, contains a NUL, or a number that no platform can read.
pub fn scan(text: &str) -> Result<Scan, Rejection> {
    let bytes = text.as_bytes();
    let mut found = Scan::default();
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = scan_string(bytes, at + 1, &mut found)?;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let reason = format!("objects and arrays are nested more than {MAX_DEPTH} deep");
                    return Err(Rejection::new(RejectCode::TooDeep, "", reason));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'0'..=b'9' => {
                at = scan_number(bytes, at)?;
                continue;
            }
            0 => return Err(contains_nul()),
            _ => {}
        }
        at += 1;
    }
    Ok(found)
}

/// Replaces each lone half by U+FFFD, whose escape has the same length.
#[must_use]
pub fn replace_lone_surrogates(text: &str, positions: &[usize]) -> String {
    let mut mended = String::with_capacity(text.len());
    let mut from = 0;
    for &at in positions {
        mended.push_str(&text[from..at]);
        mended.push_str("\\ufffd");
        from = at + 6;
    }
    mended.push_str(&text[from..]);
    mended
}

fn contains_nul() -> Rejection {
    Rejection::new(RejectCode::ContainsNul, "", "a text contains the NUL character")
}

/// From behind the opening quote to behind the closing one.
fn scan_string(bytes: &[u8], mut at: usize, found: &mut Scan) -> Result<usize, Rejection> {
    let mut high_half: Option<usize> = None;
    loop {
        let Some(run) = plain_run(&bytes[at.min(bytes.len())..]) else { return Ok(bytes.len()) };
        if run > 0 {
            found.lone_surrogates.extend(high_half.take());
        }
        at += run;
        match bytes[at] {
            0 => return Err(contains_nul()),
            b'"' => {
                found.lone_surrogates.extend(high_half.take());
                return Ok(at + 1);
            }
            _ => {}
        }
        let unit = (bytes.get(at + 1) == Some(&b'u')).then(|| code_unit(bytes, at + 2)).flatten();
        match unit {
            Some(0) => return Err(contains_nul()),
            Some(0xd800..=0xdbff) => {
                found.lone_surrogates.extend(high_half.replace(at));
                at += 6;
            }
            Some(0xdc00..=0xdfff) => {
                if high_half.take().is_none() {
                    found.lone_surrogates.push(at);
                }
                at += 6;
            }
            Some(_) => {
                found.lone_surrogates.extend(high_half.take());
                at += 6;
            }
            None => {
                found.lone_surrogates.extend(high_half.take());
                at += 2;
            }
        }
    }
}

/// Bytes before the first quote, backslash or NUL; eight at a time, since most of an event is inside of texts.
fn plain_run(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A high bit for each byte that is zero; bytes above the first such one may be marked wrongly, the first never.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let found = zeros(word) | zeros(quote) | zeros(backslash);
        if found != 0 {
            return Some(index * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let run = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0))?;
    Some(words.len() * 8 + run)
}

fn code_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?))
}

/// From a number's first digit to behind its last. Only long or exponential ones can be out of a double's range.
fn scan_number(bytes: &[u8], from: usize) -> Result<usize, Rejection> {
    let length = bytes[from..]
        .iter()
        .position(|b| !matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        .unwrap_or(bytes.len() - from);
    let number = &bytes[from..from + length];
    let suspicious = length > 300 || number.iter().any(|b| matches!(b, b'e' | b'E'));
    let infinite = suspicious
        && std::str::from_utf8(number).ok().and_then(|n| n.parse::<f64>().ok()).is_some_and(f64::is_infinite);
    if infinite {
        return Err(Rejection::new(RejectCode::InvalidField, "", "a number is out of range"));
    }
    Ok(from + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<RejectCode> {
        scan(text).err().map(|r| r.code)
    }

    #[test]
    fn nesting_counts_outside_of_texts_only() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(code(&deep(MAX_DEPTH)), None);
        assert_eq!(code(&deep(MAX_DEPTH + 1)), Some(RejectCode::TooDeep));
        assert_eq!(code(&deep(10_000)), Some(RejectCode::TooDeep));
        assert_eq!(code(&format!("[{:?}]", "[".repeat(500))), None);
    }

    #[test]
    fn a_nul_is_found_and_an_escaped_backslash_is_none() {
        assert_eq!(code(r#"{"a":"x\u0000"}"#), Some(RejectCode::ContainsNul));
        assert_eq!(code(r#"{"a\u0000":1}"#), Some(RejectCode::ContainsNul));
        assert_eq!(code("{\"a\":\"\0\"}"), Some(RejectCode::ContainsNul));
        assert_eq!(code(r#"{"a":"\\u0000"}"#), None);
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced_and_a_whole_one_kept() {
        let cut = r#"{"a":"\ud83d","b":"\ud83d\ude00","c":"\ude00x","d":"\ud83d\ud83d\ude00","e":"\ud83dx"}"#;
        let found = scan(cut).unwrap();
        let mended = replace_lone_surrogates(cut, &found.lone_surrogates);
        let value: serde_json::Value = serde_json::from_str(&mended).unwrap();
        let expected =
            serde_json::json!({"a":"\u{fffd}","b":"😀","c":"\u{fffd}x","d":"\u{fffd}😀","e":"\u{fffd}x"});
        assert_eq!(value, expected);
    }

    #[test]
    fn a_number_beyond_a_double_is_refused() {
        assert_eq!(code(r#"{"a":1e999}"#), Some(RejectCode::InvalidField));
        assert_eq!(code(r#"{"a":-1e999}"#), Some(RejectCode::InvalidField));
        assert_eq!(code(r#"{"a":[1e30,12345678901234567890.5,-0.0]}"#), None);
        assert_eq!(code(&format!("{{\"a\":{}}}", "9".repeat(400))), Some(RejectCode::InvalidField));
    }

    proptest::proptest! {
        #[test]
        fn a_plain_run_ends_where_a_plain_search_ends(bytes in proptest::collection::vec(proptest::sample::select(vec![b'a', b'"', b'\\', 0, 0x80, 0xff, 1, b'#', b']']), 0..40)) {
            let expected = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0));
            proptest::prop_assert_eq!(plain_run(&bytes), expected);
        }

        #[test]
        fn any_text_ends_the_scan_and_mending_keeps_it_text(text in "[\\\\\"u0d8{}\\[\\]\u{0}é]{0,60}") {
            if let Ok(found) = scan(&text) {
                let _ = replace_lone_surrogates(&text, &found.lone_surrogates);
            }
        }
    }
}
