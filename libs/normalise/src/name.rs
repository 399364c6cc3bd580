//! First and last names.

use crate::Platform;
use crate::text::{self, Keep};

/// Titles before a name that Google wants dropped.
/// Source: Google, Data Manager API, "Format user data"; 2026-11 (it names Mrs.; the others are of the same kind).
const TITLES: [&str; 7] = ["mr", "mrs", "ms", "miss", "mx", "dr", "prof"];

/// Suffixes behind a name that Google wants dropped. Source: as above (it names Jr.).
const SUFFIXES: [&str; 5] = ["jr", "sr", "ii", "iii", "iv"];

/// A name in the platform's form. `text` is tidy.
///
/// Meta: lower case, no punctuation, UTF-8 ("Customer Information Parameters", 2026-01); about spaces inside it is
/// silent, and its parameter builder, hence the browser, drops them. TikTok: the same; Segment's destination, which
/// TikTok maintains, drops white space (2026-08). Google: lower case, punctuation off, no title or suffix; spaces
/// inside stay, since its guide trims the ends only. GA4: also no digits ("Send user-provided data with User-ID",
/// 2026-11).
pub(crate) fn form(platform: Platform, text: &str) -> String {
    let keep = match platform {
        Platform::Meta | Platform::Tiktok => Keep { spaces: false, digits: true },
        Platform::Google => Keep { spaces: true, digits: true },
        Platform::Ga4 => Keep { spaces: true, digits: false },
    };
    let name = text::letters(text, keep);
    match platform {
        Platform::Google | Platform::Ga4 => without_titles(&name).to_owned(),
        Platform::Meta | Platform::Tiktok => name,
    }
}

/// The name without titles and suffixes, as long as a name is left.
fn without_titles(mut name: &str) -> &str {
    loop {
        // A joiner at the end of a word may have become one at the end of the name.
        name = text::trim(name);
        match (name.split_once(' '), name.rsplit_once(' ')) {
            (Some((first, rest)), _) if TITLES.contains(&first) => name = rest,
            (_, Some((rest, last))) if SUFFIXES.contains(&last) => name = rest,
            _ => return name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn google_drops_titles_and_suffixes_but_never_the_whole_name() {
        for (text, name) in [
            ("Prof. Dr. Jane", "jane"),
            ("Smith, Jr.", "smith"),
            ("Smith Jr. III", "smith"),
            ("Dr.", "dr"),
            ("Mr Jr", "jr"),
            ("Drew", "drew"),
        ] {
            assert_eq!(form(Platform::Google, text), name, "{text}");
        }
        assert_eq!(form(Platform::Meta, "Mrs. Jane"), "mrsjane");
    }

    #[test]
    fn ga4_drops_digits_too() {
        assert_eq!(form(Platform::Ga4, "Jane 2nd"), "jane nd");
        assert_eq!(form(Platform::Google, "Jane 2nd"), "jane 2nd");
    }
}
