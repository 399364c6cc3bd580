//! The steps of the published rules, each on its own, written from the page and with other means than our library: the Unicode
//! tables here are those of the `regex` crate.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization as _;

use super::super::class::{self, Class};

static PUNCTUATION: LazyLock<Regex> = LazyLock::new(|| regex(r"[[\p{P}\p{S}]--\p{Alphabetic}]"));
static NUMBERS: LazyLock<Regex> = LazyLock::new(|| regex(r"\p{N}"));
static SPACES: LazyLock<Regex> = LazyLock::new(|| regex(r"\s"));
static NO_LETTERS: LazyLock<Regex> =
    LazyLock::new(|| regex(r"[^\p{Alphabetic}\p{N}\p{M}\x{200c}\x{200d}]|[\x{fe00}-\x{fe0f}]"));
static LETTER_OR_NUMBER: LazyLock<Regex> = LazyLock::new(|| regex(r"[\p{Alphabetic}\p{N}]"));
static INVISIBLE_ANYWHERE: LazyLock<Regex> = LazyLock::new(|| regex(r"[\x{200b}\x{feff}]"));
static INVISIBLE_ENDS: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^[\s\p{Cc}\x{ad}\x{180e}\p{Cf}]+|[\s\p{Cc}\x{ad}\x{180e}\p{Cf}]+$"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this file compiles")
}

/// A text on its way through a rule, and the reasons for which it is another one now.
pub struct Steps {
    pub text: String,
    pub taken: Vec<Class>,
}

impl Steps {
    /// Begins as the SDK does: lower case, trimmed.
    pub fn of(input: &str) -> Self {
        let lowered = input.to_lowercase();
        // Python counts four more separators as white space.
        let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
        Self { text: lowered.trim_matches(is_space).to_owned(), taken: Vec::new() }
    }

    /// A step that the SDK takes too.
    pub fn same(mut self, step: impl Fn(&str) -> String) -> Self {
        self.text = step(&self.text);
        self
    }

    /// A step that the SDK does not take; a reason if it changes the text.
    pub fn step(mut self, class: Class, step: impl Fn(&str) -> String) -> Self {
        let next = step(&self.text);
        if next != self.text {
            self.text = next;
            self.took(class);
        }
        self
    }

    /// Notes a reason.
    pub fn took(&mut self, class: Class) {
        if !self.taken.contains(&class) {
            self.taken.push(class);
        }
    }

    /// What comes from copying goes, and letters are composed.
    pub fn tidied(self) -> Self {
        self.step(class::INVISIBLE, visible).step(class::COMPOSED, composed)
    }

    /// Only letters, numbers and their marks are left; nothing if there are only marks.
    pub fn letters(self) -> Self {
        self.step(class::PUNCTUATION, |text| PUNCTUATION.replace_all(text, "").into_owned())
            .step(class::SPACES, without_spaces)
            .step(class::NO_LETTER, |text| NO_LETTERS.replace_all(text, "").into_owned())
            .tidied()
            .step(class::NOTHING_LEFT, |text| {
                if LETTER_OR_NUMBER.is_match(text) { text.to_owned() } else { String::new() }
            })
    }

    /// Numbers of every script go.
    pub fn without_numbers(self, class: Class) -> Self {
        self.step(class, |text| NUMBERS.replace_all(text, "").into_owned())
    }
}

/// Without what nobody sees: anywhere the two that come from copying, at the ends everything.
pub fn visible(text: &str) -> String {
    let text = INVISIBLE_ANYWHERE.replace_all(text, "");
    INVISIBLE_ENDS.replace_all(&text, "").into_owned()
}

/// In normal form C.
pub fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// The input without what comes from copying and forms.
pub fn clean(input: &str) -> String {
    visible(&composed(input))
}

pub fn without_spaces(text: &str) -> String {
    SPACES.replace_all(text, "").into_owned()
}

/// Whether the text is as many hex digits.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}
