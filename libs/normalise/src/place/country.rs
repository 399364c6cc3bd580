//! Countries: ISO 3166-1 alpha-2.

use std::sync::LazyLock;

use celes::Country;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use crate::Platform;
use crate::Reason;
use crate::rule::Form;

/// The alpha-2 code, in upper case, of a country given as alpha-2, alpha-3 or English name, in any case; `UK` is taken
/// for `GB`. `None` for everything else, `XX` and names in other languages among them.
pub fn alpha2(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let country = match text.len() {
        2 if text.eq_ignore_ascii_case("uk") => return Some("GB"),
        2 => return CODES.get(slot_of(text)?).copied().flatten(),
        3 => Country::from_alpha3(text).ok().or_else(|| by_name(text)),
        4..=64 => by_name(text),
        _ => None,
    };
    country.map(|country| country.alpha2)
}

/// The codes of two letters by [`slot_of`]: every field of an address asks for its country's.
static CODES: LazyLock<Vec<Option<&'static str>>> = LazyLock::new(|| {
    let letters = || (b'a'..=b'z').map(char::from);
    let codes = letters().flat_map(|first| letters().map(move |second| String::from_iter([first, second])));
    codes.map(|code| Country::from_alpha2(&code).ok().map(|country| country.alpha2)).collect()
});

/// How many numbers [`slot_of`] has.
pub(crate) const SLOTS: usize = 26 * 26;

/// A number for each two letters, in any case.
pub(crate) fn slot_of(code: &str) -> Option<usize> {
    let place = |letter: u8| {
        let letter = letter.to_ascii_lowercase();
        letter.is_ascii_lowercase().then(|| usize::from(letter - b'a'))
    };
    let [first, second] = code.as_bytes() else { return None };
    Some(place(*first)? * 26 + place(*second)?)
}

/// Country in the platform's form. Meta sends names through its own tools, so names and alpha-3 are mapped there
/// ("Customer Information Parameters", worked example "United States", 2026-01). Google and TikTok want the alpha-2
/// code and say so: what is longer was never a code and is refused.
pub(crate) fn form(platform: Platform, text: &str) -> Form {
    match platform {
        Platform::Meta => {
            let code = alpha2(text).ok_or(Reason::NotACountry)?;
            Ok(code.to_ascii_lowercase())
        }
        Platform::Tiktok => Ok(two_letters(text)?.to_ascii_lowercase()),
        Platform::Google | Platform::Ga4 => Ok(two_letters(text)?.to_owned()),
    }
}

fn two_letters(text: &str) -> Result<&'static str, Reason> {
    if text.len() == 2 { alpha2(text) } else { None }.ok_or(Reason::NotAlpha2)
}

fn by_name(text: &str) -> Option<Country> {
    let bare: String = text
        .replace('&', "and")
        .nfd()
        .filter(|c| c.is_alphanumeric() && !is_combining_mark(*c))
        .flat_map(char::to_lowercase)
        .collect();
    let known = |name: &str| Country::from_name(name).or_else(|_| Country::from_alias(name)).ok();
    known(&bare).or_else(|| known(bare.strip_prefix("the")?)).or_else(|| {
        let code = COMMON_NAMES.iter().find(|(name, _)| *name == bare)?.1;
        Country::from_alpha2(code).ok()
    })
}

/// English names in daily use that the table of official names lacks, without spaces.
const COMMON_NAMES: [(&str, &str); 8] = [
    ("wales", "gb"),
    ("uae", "ae"),
    ("bolivia", "bo"),
    ("vietnam", "vn"),
    ("hongkong", "hk"),
    ("macau", "mo"),
    ("reunion", "re"),
    ("curacao", "cw"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_english_names_are_known() {
        for (text, code) in [
            ("us", "US"),
            ("USA", "US"),
            ("United States", "US"),
            ("United States of America", "US"),
            ("The Netherlands", "NL"),
            ("UK", "GB"),
            ("United Kingdom", "GB"),
            ("Great Britain", "GB"),
            ("Wales", "GB"),
            ("Germany", "DE"),
            ("Côte d'Ivoire", "CI"),
            ("Ivory Coast", "CI"),
            ("Türkiye", "TR"),
            ("Turkey", "TR"),
            ("South Korea", "KR"),
            ("Russia", "RU"),
            ("Czech Republic", "CZ"),
            ("Vietnam", "VN"),
            ("Viet Nam", "VN"),
            ("Bolivia", "BO"),
            ("Hong Kong", "HK"),
            ("UAE", "AE"),
            ("United Arab Emirates", "AE"),
            ("New Zealand", "NZ"),
            ("Samoa", "WS"),
            ("Taiwan", "TW"),
            ("Trinidad and Tobago", "TT"),
            ("Bosnia & Herzegovina", "BA"),
            ("Réunion", "RE"),
            ("Curaçao", "CW"),
            ("Iran", "IR"),
            ("Tanzania", "TZ"),
            ("Moldova", "MD"),
        ] {
            assert_eq!(alpha2(text), Some(code), "{text}");
        }
    }

    #[test]
    fn every_code_is_its_own() {
        let countries = Country::get_countries();
        assert!(countries.len() > 240);
        for country in countries {
            assert_eq!(alpha2(country.alpha2), Some(country.alpha2));
            assert_eq!(alpha2(&country.alpha2.to_lowercase()), Some(country.alpha2));
        }
    }

    #[test]
    fn what_is_no_country_is_none() {
        for text in ["", "x", "xx", "Deutschland", "EU", "Atlantis", "840", "ü"] {
            assert_eq!(alpha2(text), None, "{text}");
        }
    }

    #[test]
    fn each_platform_has_its_case_and_its_patience() {
        assert_eq!(form(Platform::Meta, "Germany"), Ok("de".into()));
        assert_eq!(form(Platform::Tiktok, "DE"), Ok("de".into()));
        assert_eq!(form(Platform::Google, "de"), Ok("DE".into()));
        assert_eq!(form(Platform::Google, "uk"), Ok("GB".into()));
        assert!(form(Platform::Google, "DEU").is_err());
        assert!(form(Platform::Tiktok, "Germany").is_err());
    }
}
