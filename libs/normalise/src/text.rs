//! What all rules begin and end with: trimming, composing, lower-casing, dropping what is not a letter.
//!
//! The trick: nearly every value is ASCII, for which none of the Unicode work is done.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Zero-width non-joiner and joiner: they belong to the spelling of Persian and Indic names and stay inside a text.
const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];

/// A text in normal form C, trimmed; U+200B and U+FEFF are dropped wherever they stand, since they never carry
/// meaning and come from copying. Composing comes first, so that `e` + U+0301 hashes like `é`.
pub(crate) fn tidy(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(trim(text));
    }
    let composed: String = text.chars().filter(|c| !matches!(c, '\u{200b}' | '\u{feff}')).nfc().collect();
    Cow::Owned(trim(&composed).to_owned())
}

/// Trims white space (U+00A0 too), controls and invisible characters from both ends.
pub(crate) fn trim(text: &str) -> &str {
    let bytes = text.as_bytes();
    if let (Some(first), Some(last)) = (bytes.first(), bytes.last())
        && first.is_ascii_graphic()
        && last.is_ascii_graphic()
    {
        return text;
    }
    text.trim_matches(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c))
}

/// Characters without width: joiners, directional marks, soft hyphen, byte order mark.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// Full lower case without a locale (`İ` becomes `i` + U+0307, a final `Σ` becomes `ς`), in normal form C.
pub(crate) fn lower(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase().nfc().collect() }
}

/// What [`letters`] does about spaces and digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Runs of white space become one space; else they go.
    pub spaces: bool,
    /// Digits stay; else they go.
    pub digits: bool,
}

/// Lower case without punctuation and symbols. Letters of every script, their marks and joiners stay.
pub(crate) fn letters(text: &str, keep: Keep) -> String {
    if text.is_ascii() {
        return ascii_letters(text, keep);
    }
    any_letters(text, keep)
}

fn any_letters(text: &str, keep: Keep) -> String {
    let lowered = lower(text);
    let mut out = String::with_capacity(lowered.len());
    for c in lowered.chars() {
        let stays = if c.is_numeric() { keep.digits } else { is_of_a_word(c) };
        if stays {
            out.push(c);
        } else if keep.spaces && c.is_whitespace() && !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    if out.is_ascii() {
        out.truncate(out.trim_end().len());
        return out;
    }
    // Dropping a hyphen may have brought a mark behind another letter: compose again, or a second pass would differ.
    let composed: String = out.nfc().collect();
    let trimmed = trim(&composed);
    if trimmed.chars().any(char::is_alphanumeric) { trimmed.to_owned() } else { String::new() }
}

/// The same of ASCII, which nearly every text is.
fn ascii_letters(text: &str, keep: Keep) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => out.push(char::from(byte.to_ascii_lowercase())),
            b'0'..=b'9' if keep.digits => out.push(char::from(byte)),
            b' ' | b'\t'..=b'\r' if keep.spaces && !out.is_empty() && !out.ends_with(' ') => out.push(' '),
            _ => {}
        }
    }
    out.truncate(out.trim_end_matches(' ').len());
    out
}

fn is_of_a_word(c: char) -> bool {
    let selects_a_variation = ('\u{fe00}'..='\u{fe0f}').contains(&c);
    c.is_alphanumeric() || JOINERS.contains(&c) || (is_combining_mark(c) && !selects_a_variation)
}

/// The value of a decimal digit of any script that a telephone number or a date is written in.
pub(crate) fn decimal_digit(c: char) -> Option<u8> {
    /// The zeros of Unicode's runs of ten decimal digits (category Nd). Source: Unicode 17, UnicodeData.txt; 2026-11.
    const ZEROS: [char; 40] = [
        '0',
        '\u{660}',
        '\u{6f0}',
        '\u{7c0}',
        '\u{966}',
        '\u{9e6}',
        '\u{a66}',
        '\u{ae6}',
        '\u{b66}',
        '\u{be6}',
        '\u{c66}',
        '\u{ce6}',
        '\u{d66}',
        '\u{de6}',
        '\u{e50}',
        '\u{ed0}',
        '\u{f20}',
        '\u{1040}',
        '\u{1090}',
        '\u{17e0}',
        '\u{1810}',
        '\u{1946}',
        '\u{19d0}',
        '\u{1a80}',
        '\u{1a90}',
        '\u{1b50}',
        '\u{1bb0}',
        '\u{1c40}',
        '\u{1c50}',
        '\u{a620}',
        '\u{a8d0}',
        '\u{a900}',
        '\u{a9d0}',
        '\u{a9f0}',
        '\u{aa50}',
        '\u{abf0}',
        '\u{ff10}',
        '\u{104a0}',
        '\u{11066}',
        '\u{1e950}',
    ];
    if c.is_ascii() {
        return c.is_ascii_digit().then(|| c as u8 - b'0');
    }
    ZEROS
        .iter()
        .find_map(|zero| (c as u32).checked_sub(*zero as u32).filter(|d| *d < 10))
        .map(|digit| digit as u8)
}

/// Words that programs write where a person's data are missing.
pub(crate) fn is_placeholder(text: &str) -> bool {
    const WORDS: [&str; 6] = ["null", "undefined", "n/a", "(null)", "(not set)", "[object object]"];
    // Each text of a person is asked, twice.
    matches!(text.len(), 3 | 4 | 6 | 9 | 15) && WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Keep = Keep { spaces: true, digits: true };
    const BARE: Keep = Keep { spaces: false, digits: false };

    #[test]
    fn invisible_ends_and_no_break_spaces_are_trimmed() {
        assert_eq!(tidy("\u{a0}\u{feff} anna \u{200b}\t\u{0}"), "anna");
        assert_eq!(tidy("\u{202a}+1 650\u{202c}"), "+1 650");
        assert_eq!(tidy("a\u{200b}b"), "ab");
        assert_eq!(tidy("ab"), Cow::Borrowed("ab"));
    }

    #[test]
    fn decomposed_letters_are_composed() {
        assert_eq!(tidy("Vale\u{301}ry"), "Val\u{e9}ry");
    }

    #[test]
    fn lower_case_is_that_of_no_locale() {
        assert_eq!(lower("GRO\u{1e9e}"), "groß");
        assert_eq!(lower("ΣΊΣΥΦΟΣ"), "σίσυφος");
        assert_eq!(lower("\u{130}pek"), "i\u{307}pek");
    }

    #[test]
    fn punctuation_goes_and_letters_of_every_script_stay() {
        assert_eq!(letters("O\u{2019}Brien-Smith", WORDS), "obriensmith");
        assert_eq!(letters("  Apt #4,  5th  Ave ", WORDS), "apt 4 5th ave");
        assert_eq!(letters("Frankfurt (Main) 60", BARE), "frankfurtmain");
        assert_eq!(letters("東京 정", BARE), "東京정");
        assert_eq!(letters("\u{2764}\u{fe0f} \u{1f600}", WORDS), "");
        assert_eq!(letters("e-\u{301}", WORDS), "é");
        assert_eq!(letters("علی\u{200c}رضا", WORDS), "علی\u{200c}رضا");
    }

    proptest::proptest! {
        #[test]
        fn ascii_has_the_letters_that_it_has_as_any_text(text in "[ -~\\t-\\r\\x00]{0,24}") {
            for (spaces, digits) in [(true, true), (true, false), (false, true), (false, false)] {
                let keep = Keep { spaces, digits };
                proptest::prop_assert_eq!(ascii_letters(&text, keep), any_letters(&text, keep));
            }
        }
    }

    #[test]
    fn decimal_digits_of_other_scripts_have_their_value() {
        assert_eq!(decimal_digit('\u{669}'), Some(9));
        assert_eq!(decimal_digit('\u{ff18}'), Some(8));
        assert_eq!(decimal_digit('७'), Some(7));
        assert_eq!(decimal_digit('²'), None);
        assert_eq!(decimal_digit('a'), None);
        assert_eq!(decimal_digit('\u{66a}'), None);
    }
}
