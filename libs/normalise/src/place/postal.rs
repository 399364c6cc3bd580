//! Postal codes.

use crate::Platform;
use crate::Reason;
use crate::rule::Form;
use crate::text::{self, Keep};

/// Letters of the old car or CEPT codes that people write before an all-digit code ("D-80331"). Countries where the
/// letters are part of the code (Latvia, Luxembourg's own notation aside) are not here.
/// Source: Deutsche Post and UPU addressing guides advise against them; 2026-11.
const COUNTRY_LETTERS: [(&str, &[&str]); 14] = [
    ("DE", &["d", "de"]),
    ("AT", &["a", "at"]),
    ("CH", &["ch"]),
    ("LI", &["fl", "li"]),
    ("FR", &["f", "fr"]),
    ("BE", &["b", "be"]),
    ("IT", &["i", "it"]),
    ("LU", &["l", "lu"]),
    ("NL", &["nl"]),
    ("DK", &["dk"]),
    ("SE", &["s", "se"]),
    ("NO", &["n", "no"]),
    ("FI", &["fi", "fin"]),
    ("ES", &["e", "es"]),
];

/// A postal code in the platform's form. `country` is an alpha-2 code in upper case.
///
/// Meta ("Customer Information Parameters", 2026-01): lower case, no space or dash, in the USA the first five digits,
/// in the UK the whole code. TikTok: the same (2026-08). Google (protos' `AddressInfo`, 2026-11): trimmed, in the USA
/// five digits or five and four. GA4: `.` and `~` off, trimmed.
pub(crate) fn form(platform: Platform, text: &str, country: Option<&str>) -> Form {
    match platform {
        Platform::Meta | Platform::Tiktok => compact(text, country),
        Platform::Google => plain(text, country),
        Platform::Ga4 => {
            let without: String = text.chars().filter(|c| !matches!(c, '.' | '~')).collect();
            plain(&text::tidy(&without), country)
        }
    }
}

fn compact(text: &str, country: Option<&str>) -> Form {
    let keep = Keep { spaces: false, digits: true };
    if country == Some("US") {
        return first_five(text::letters(text, keep));
    }
    let lowered = text::lower(text);
    let code = text::letters(without_country_letters(&lowered, country), keep);
    // Five digits, a dash and four digits are a ZIP+4; nearly nobody else writes so.
    let is_zip_plus_4 = country.is_none() && text.len() == 10 && text.as_bytes()[5] == b'-';
    if is_zip_plus_4 && let Ok(zip) = first_five(code.clone()) {
        return Ok(zip);
    }
    Ok(code)
}

fn first_five(mut code: String) -> Form {
    let is_zip = matches!(code.len(), 5 | 9) && code.bytes().all(|b| b.is_ascii_digit());
    if !is_zip {
        return Err(Reason::UsZipLength);
    }
    code.truncate(5);
    Ok(code)
}

fn without_country_letters<'a>(code: &'a str, country: Option<&str>) -> &'a str {
    let Some((_, letters)) =
        country.and_then(|of| COUNTRY_LETTERS.iter().find(|(country, _)| *country == of))
    else {
        return code;
    };
    let separated = code.split_once(['-', ' ']);
    match separated {
        Some((before, rest))
            if letters.contains(&before) && rest.trim_start().starts_with(|c: char| c.is_ascii_digit()) =>
        {
            rest
        }
        _ => code,
    }
}

/// Google's form. A ZIP that is none would fail the whole request at the Data Manager API (INVALID_POSTAL_CODE).
fn plain(text: &str, country: Option<&str>) -> Form {
    if !text.contains(char::is_alphanumeric) {
        return Err(Reason::NothingLeft);
    }
    if country == Some("US") {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let is_five_and_four = text.len() == 10 && matches!(text.as_bytes()[5], b'-' | b' ') && digits == 9;
        let is_zip = digits == text.len() && matches!(digits, 5 | 9) || is_five_and_four;
        return if is_zip { Ok(text.to_owned()) } else { Err(Reason::UsZipLength) };
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zip_is_five_digits_at_meta_and_tiktok() {
        for text in ["94035", "94035-1234", "940351234", "94035 1234"] {
            assert_eq!(form(Platform::Meta, text, Some("US")), Ok("94035".into()), "{text}");
        }
        assert_eq!(form(Platform::Tiktok, "94103-1234", None), Ok("94103".into()));
        for text in ["2115", "9403", "SW1A 1AA"] {
            assert_eq!(form(Platform::Meta, text, Some("US")), Err(Reason::UsZipLength));
        }
    }

    #[test]
    fn country_letters_go_only_where_they_are_none_of_the_code() {
        assert_eq!(form(Platform::Meta, "D-80331", Some("DE")), Ok("80331".into()));
        assert_eq!(form(Platform::Meta, "A 1010", Some("AT")), Ok("1010".into()));
        assert_eq!(form(Platform::Meta, "LV-1010", Some("LV")), Ok("lv1010".into()));
        assert_eq!(form(Platform::Meta, "B-1 1AA", Some("GB")), Ok("b11aa".into()));
    }

    #[test]
    fn google_gets_the_code_as_it_is_written() {
        assert_eq!(form(Platform::Google, "SW1A 1AA", Some("GB")), Ok("SW1A 1AA".into()));
        assert_eq!(form(Platform::Google, "94045-1234", Some("US")), Ok("94045-1234".into()));
        assert_eq!(form(Platform::Google, "94-0451234", Some("US")), Err(Reason::UsZipLength));
        assert_eq!(form(Platform::Ga4, "~01067.", Some("DE")), Ok("01067".into()));
    }
}
