//! Telephone numbers: E.164, with `+` at Google and TikTok, without it at Meta.
//!
//! A number is found in three steps: read the digits out of what a person wrote (`written`), decide whether they are
//! international or national, and bring them to country code and national number by the country's numbering plan
//! (`plan`, Google's libphonenumber data). A national number without a known country is left out: its digits would
//! be somebody else's number abroad.

mod plan;
mod written;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::Reason;
use crate::rule::Form;
use crate::{Hints, Platform, place};
use plan::Plan;
use written::Written;

/// Fewest digits of a number with its country code. Meta and Google publish none; shorter ones are service numbers.
const FEWEST_DIGITS: usize = 7;
/// Most digits of a number with its country code. Source: ITU-T E.164; 2010-11.
const MOST_DIGITS: usize = 15;
/// Country codes whose national numbers keep their leading zero: Italy with the Vatican, San Marino.
/// Source: ITU-T E.164 national numbering plans; 2026-11.
const KEEP_ZERO: [&str; 3] = ["39", "378", "379"];

/// The number in the platform's form.
///
/// Sources: Meta, "Customer Information Parameters" (2026-01): digits, country code, no leading zeros, no symbols or
/// letters. Google, Data Manager API, "Format user data" (2026-11) and TikTok (2026-08): E.164 with `+`.
pub(crate) fn form(platform: Platform, text: &str, hints: &Hints) -> Form {
    let read = || e164(&written::read(text)?, hints);
    let e164 = hints.numbers.map_or_else(read, |numbers| numbers.get_or(text, hints, read))?;
    Ok(match platform {
        Platform::Meta => e164,
        Platform::Google | Platform::Ga4 | Platform::Tiktok => joined("+", &e164),
    })
}

/// Telephone numbers of one event that were read before. They are the same digits at every platform, and most of what normalising a
/// person takes is to find them in their numbering plan.
#[derive(Default)]
pub struct Numbers(Mutex<Vec<Known>>);

/// One number, by all that it depends on.
struct Known {
    text: String,
    country: Option<&'static str>,
    assume_international: bool,
    form: Form,
}

/// Most numbers that are kept: an event names one or two.
const MOST_KNOWN: usize = 4;

impl Numbers {
    fn get_or(&self, text: &str, hints: &Hints, read: impl FnOnce() -> Form) -> Form {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let country = hints.country.and_then(place::alpha2);
        let is_it = |known: &&Known| {
            known.text == text
                && known.country == country
                && known.assume_international == hints.assume_international
        };
        if let Some(known) = kept().iter().find(is_it) {
            return known.form.clone();
        }
        let form = read();
        let mut known = kept();
        if known.len() < MOST_KNOWN {
            known.push(Known {
                text: text.to_owned(),
                country,
                assume_international: hints.assume_international,
                form: form.clone(),
            });
        }
        form
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Country code and national number, digits only.
fn e164(written: &Written, hints: &Hints) -> Form {
    let digits = written.digits.as_str();
    if digits.bytes().all(|digit| digit == b'0') {
        return Err(Reason::AllZeros);
    }
    if written.has_plus {
        // "+0049" and "+0044" are a habit of forms that put the plus in front by themselves.
        let skipped = if digits.starts_with("00") { 2 } else { 0 };
        return international(&digits[skipped..], written.zero_before(skipped));
    }
    let country = hints.country.and_then(place::alpha2).and_then(plan::of_country);
    if let Some(rest) = digits.strip_prefix("00") {
        let dialled = international(rest, written.zero_before(2));
        match (&dialled, country) {
            (Ok(number), Some(_)) if plan::is_possible(number) => return dialled,
            (_, None) => return dialled,
            _ => {}
        }
    }
    if let Some(plan) = country {
        if let Some(skipped) = plan.dialled_abroad(digits) {
            let dialled = international(&digits[skipped..], written.zero_before(skipped));
            if dialled.as_ref().is_ok_and(|number| plan::is_possible(number)) {
                return dialled;
            }
        }
        return national(digits, plan);
    }
    if hints.assume_international {
        return international(digits, written.zero_before(0));
    }
    Err(Reason::CountryUnknown)
}

/// A number that begins with its country code. `zero_at` is where a bracketed zero stands.
fn international(digits: &str, zero_at: Option<usize>) -> Form {
    if digits.starts_with('0') {
        return Err(Reason::CountryCodeZero);
    }
    within_bounds(digits.len())?;
    let code = plan::country_code(digits).ok_or(Reason::NoSuchCountryCode)?;
    let mut rest = digits[code.len()..].to_owned();
    if zero_at == Some(code.len()) && !KEEP_ZERO.contains(&code) {
        rest.remove(0);
    }
    if let Some(plan) = plan::of_code(code)
        && let Some(stripped) = plan.without_trunk_prefix(&rest)
        && !plan.matches(&rest)
        && plan.matches(&stripped)
    {
        rest = stripped;
    }
    within_bounds(code.len() + rest.len())?;
    Ok(joined(code, &rest))
}

/// A number as it is dialled inside its country, or one that begins with the country's code all the same.
fn national(digits: &str, plan: &Plan) -> Form {
    if plan.code().len() + digits.len() < FEWEST_DIGITS {
        return Err(Reason::TooFewDigits);
    }
    let significant = plan.already_international(digits).map_or_else(|| in_plan(digits, plan), Ok)?;
    within_bounds(plan.code().len() + significant.len())?;
    Ok(joined(plan.code(), &significant))
}

/// The national number without its trunk prefix.
fn in_plan(digits: &str, plan: &Plan) -> Form {
    let significant = match plan.without_trunk_prefix(digits) {
        Some(stripped) if plan.matches(&stripped) || !plan.matches(digits) => stripped,
        _ => digits.to_owned(),
    };
    if plan.matches(&significant) { Ok(significant) } else { Err(Reason::NotInPlan) }
}

fn joined(start: &str, rest: &str) -> String {
    let mut text = String::with_capacity(start.len() + rest.len());
    text.push_str(start);
    text.push_str(rest);
    text
}

fn within_bounds(digits: usize) -> Result<(), Reason> {
    match digits {
        0..FEWEST_DIGITS => Err(Reason::TooFewDigits),
        FEWEST_DIGITS..=MOST_DIGITS => Ok(()),
        _ => Err(Reason::TooManyDigits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_country(text: &str, country: &str) -> Form {
        form(Platform::Google, text, &Hints { country: Some(country), ..Hints::default() })
    }

    fn anywhere(text: &str) -> Form {
        form(Platform::Google, text, &Hints::default())
    }

    #[test]
    fn a_trunk_prefix_goes_and_italys_zero_stays() {
        assert_eq!(anywhere("+44 (0)20 7946 0018"), Ok("+442079460018".into()));
        assert_eq!(anywhere("+44 020 7946 0018"), Ok("+442079460018".into()));
        assert_eq!(anywhere("+39 (0)6 1234 5678"), Ok("+390612345678".into()));
        assert_eq!(anywhere("+0049 30 901820"), Ok("+4930901820".into()));
        assert_eq!(in_country("06 20 123 4567", "HU"), Ok("+36201234567".into()));
    }

    #[test]
    fn a_number_with_its_country_code_but_no_plus_is_seen() {
        assert_eq!(in_country("49 171 2345678", "DE"), Ok("+491712345678".into()));
        assert_eq!(in_country("447911123456", "GB"), Ok("+447911123456".into()));
        assert_eq!(in_country("79123456789", "RU"), Ok("+79123456789".into()));
        assert_eq!(in_country("919876543210", "IN"), Ok("+919876543210".into()));
        // Begins with 91 and is a whole Indian mobile number.
        assert_eq!(in_country("91221 23456", "IN"), Ok("+919122123456".into()));
        assert_eq!(in_country("393 123 4567", "IT"), Ok("+393931234567".into()));
        assert_eq!(in_country("36 123 456", "HU"), Ok("+3636123456".into()));
    }

    #[test]
    fn the_prefix_for_dialling_abroad_is_the_countrys_own() {
        assert_eq!(in_country("011 44 20 7946 0018", "US"), Ok("+442079460018".into()));
        assert_eq!(in_country("0011 44 20 7946 0018", "AU"), Ok("+442079460018".into()));
        assert_eq!(in_country("010 44 20 7946 0018", "JP"), Ok("+442079460018".into()));
        assert_eq!(in_country("810 44 20 7946 0018", "RU"), Ok("+442079460018".into()));
        assert_eq!(in_country("0041 44 668 18 00", "BR"), Ok("+41446681800".into()));
        assert_eq!(anywhere("0044 20 7946 0018"), Ok("+442079460018".into()));
    }

    #[test]
    fn what_no_plan_knows_is_left_out() {
        for (text, country) in [
            ("5550100", "US"),
            ("1234567890", "US"),
            ("1-800-FLOWERS", "US"),
            ("0000000000", "US"),
            ("12345", "US"),
            ("999999999999999", "FR"),
        ] {
            assert!(in_country(text, country).is_err(), "{text}");
        }
        assert_eq!(anywhere("+2101234567"), Err(Reason::NoSuchCountryCode));
        assert_eq!(anywhere("+0 123 456 789"), Err(Reason::CountryCodeZero));
        assert_eq!(anywhere("0171 2345678"), Err(Reason::CountryUnknown));
    }

    #[test]
    fn a_number_that_was_read_before_is_told_by_all_that_it_depends_on() {
        let numbers = Numbers::default();
        let texts = ["020 7946 0018", "+44 20 7946 0018", "442079460018", "x"];
        let hints = [Some("GB"), Some("DE"), None].into_iter().flat_map(|country| {
            [true, false].map(|assume_international| Hints {
                country,
                assume_international,
                ..Hints::default()
            })
        });
        for _ in 0..2 {
            for (hints, text) in hints.clone().flat_map(|hints| texts.map(|text| (hints, text))) {
                let kept = Hints { numbers: Some(&numbers), ..hints };
                for platform in [Platform::Meta, Platform::Google] {
                    assert_eq!(form(platform, text, &kept), form(platform, text, &hints), "{text} {hints:?}");
                }
            }
        }
        assert_eq!(numbers.0.lock().unwrap().len(), MOST_KNOWN, "bounded");
        assert_eq!(format!("{numbers:?}"), "***");
    }

    #[test]
    fn an_unknown_country_is_no_country() {
        assert_eq!(in_country("0171 2345678", "Atlantis"), Err(Reason::CountryUnknown));
        assert_eq!(in_country("0171 2345678", "Germany"), Ok("+491712345678".into()));
    }

    #[test]
    fn argentinas_mobile_prefix_is_rewritten() {
        assert_eq!(in_country("011 15 2345-6789", "AR"), Ok("+5491123456789".into()));
        assert_eq!(anywhere("+54 9 11 2345-6789"), Ok("+5491123456789".into()));
    }
}
