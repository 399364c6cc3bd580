//! Which rule applies to a field at a platform, and the steps that all rules share.

use crate::digest::{self, Kind};
use crate::phone::Numbers;
use crate::{
    Field, Outcome, Platform, Reason, address, click, date, email, fbc, gender, google_time, ids, money,
    name, phone, place, text,
};

/// What is known beside the value. `Default` knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The person's country: ISO 3166-1 code or English name. Needed for national telephone numbers, states of the
    /// USA and postal codes; a number that says its own country wins.
    pub country: Option<&'a str>,
    /// Takes bare digits without a country as an international number without its `+`.
    pub assume_international: bool,
    /// Lower-cases TikTok's external_id. The pixel's `identify` must do the same. Meta's is always lower-cased.
    pub lower_external_id: bool,
    /// Telephone numbers of the same event that were read before.
    pub numbers: Option<&'a Numbers>,
    /// The current year, after which nobody is born; without it 2100.
    pub now_year: Option<i16>,
}

/// The value in the platform's form, or why it must be left out.
pub(crate) type Form = Result<String, Reason>;

/// Brings one value into the form in which the platform wants it, hashed where it wants a digest. Never panics; the
/// same input always gives the same outcome, and a normalised value given again is itself (a telephone number at
/// Meta, where the form has no `+`, needs its country or `assume_international` for that).
pub fn normalise(platform: Platform, field: Field, input: &str, hints: &Hints) -> Outcome {
    let text = text::tidy(input);
    if text.is_empty() {
        return Outcome::Omitted { reason: Reason::Empty };
    }
    let treatment = treatment(platform, field);
    if treatment == Treatment::NotTaken {
        return Outcome::Rejected { reason: Reason::NotAField };
    }
    match (digest::kind(&text), treatment) {
        (Kind::Sha256(hash), Treatment::Hashed) => return Outcome::AlreadyHashed { hash },
        (Kind::Empty, Treatment::Hashed) => {
            return Outcome::Rejected { reason: Reason::HashOfNothing };
        }
        // An id may look like MD5: it is an id all the same.
        (Kind::Md5, Treatment::Hashed) if field != Field::ExternalId => {
            return Outcome::Rejected { reason: Reason::Md5 };
        }
        _ => {}
    }
    if platform == Platform::Meta && treatment == Treatment::Hashed && digest::has_meta_appendix(&text) {
        return Outcome::AlreadyHashed { hash: text.into_owned() };
    }
    match form(platform, field, &text, hints) {
        Err(reason) => Outcome::Rejected { reason },
        Ok(value) if value.is_empty() => Outcome::Rejected { reason: Reason::NothingLeft },
        // Persons called Null lose a match key; all rows of "null" would else be one person.
        Ok(value)
            if is_told_by_a_person(field)
                && (text::is_placeholder(&text) || text::is_placeholder(&value)) =>
        {
            Outcome::Rejected { reason: Reason::Placeholder }
        }
        // Where a person's data were expected, a digest of another sort matches nobody, and one that goes out plain
        // is no city. Dropping hyphens can make one of what was none: a UUID in a name.
        Ok(value) if is_told_by_a_person(field) && digest::kind(&value) != Kind::None => {
            Outcome::Rejected { reason: Reason::Digest }
        }
        Ok(value) if treatment == Treatment::Plain => Outcome::Normalised { value, hash: None },
        Ok(value) => {
            let hash = Some(digest::Sha256Hex::of(&value));
            Outcome::Normalised { value, hash }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Hashed,
    Plain,
    NotTaken,
}

/// Which fields a platform takes, and how. Sources: Meta, "Customer Information Parameters" (2026-01); Google,
/// Data Manager API, "Format user data", and Google Analytics, "Send user-provided data with User-ID" (2026-11);
/// TikTok, Events API 2.0, "Parameters", as cited by integrations (2026-08).
fn treatment(platform: Platform, field: Field) -> Treatment {
    use Field::*;
    use Treatment::{Hashed, NotTaken, Plain};
    match (platform, field) {
        (_, Email | Phone | FirstName | LastName) => Hashed,
        (_, Ip | UserAgent | MobileAdId | ClickId | OpaqueId | Currency | Locale) => Plain,
        (Platform::Meta, Gender | Birthday | BirthDay | BirthMonth | BirthYear) => Hashed,
        (Platform::Meta, City | State | PostalCode | Country | ExternalId) => Hashed,
        (Platform::Meta, Fbc | Fbp) => Plain,
        (Platform::Google | Platform::Ga4, Street) => Hashed,
        (Platform::Google | Platform::Ga4, City | State | PostalCode | Country | ExternalId) => Plain,
        (Platform::Google, ConversionDateTime) => Plain,
        (Platform::Tiktok, PostalCode | ExternalId) => Hashed,
        (Platform::Tiktok, City | State | Country) => Plain,
        (
            _,
            Gender | Birthday | BirthDay | BirthMonth | BirthYear | Street | Fbc | Fbp | ConversionDateTime,
        ) => NotTaken,
    }
}

/// Whether two platforms want this text in the same form, whatever it is: then what was made for one is good for the other. False where
/// that is not known.
pub fn is_same_form(one: Platform, other: Platform, field: Field, text: &str) -> bool {
    use Field::*;
    let is = |platform| one == platform || other == platform;
    let (are_of_google, is_one_of_google) = match (one, other) {
        (Platform::Google | Platform::Ga4, Platform::Google | Platform::Ga4) => (true, true),
        (Platform::Google | Platform::Ga4, _) | (_, Platform::Google | Platform::Ga4) => (false, true),
        _ => (false, false),
    };
    // Meta alone takes a digest with an appendix, which is longer than that.
    let is_short = || text.len() < 64;
    // GA4 alone drops digits, Google alone titles, which are words of their own.
    let has_digits = || is(Platform::Ga4) && text.chars().any(char::is_numeric);
    let is_a_word = || !is_one_of_google || text.bytes().all(|byte| byte.is_ascii_graphic());
    match field {
        Email => are_of_google || (is_short() && (!is_one_of_google || !email::is_of_gmail(text))),
        Phone => !is(Platform::Meta),
        FirstName | LastName => are_of_google && !has_digits() || is_short() && is_a_word() && !has_digits(),
        Street | Country => are_of_google,
        City | State => are_of_google && !has_digits(),
        PostalCode => (are_of_google && !text.contains(['.', '~'])) || (!is_one_of_google && is_short()),
        _ => false,
    }
}

/// Names and addresses: texts of letters in which a digest would pass for a value.
fn is_told_by_a_person(field: Field) -> bool {
    use Field::*;
    matches!(field, FirstName | LastName | Street | City | State | PostalCode)
}

fn form(platform: Platform, field: Field, text: &str, hints: &Hints) -> Form {
    match field {
        Field::Email => email::form(platform, text),
        Field::Phone => phone::form(platform, text, hints),
        Field::FirstName | Field::LastName => Ok(name::form(platform, text)),
        Field::Gender => gender::form(text),
        Field::Birthday => date::birthday(text, hints.now_year),
        Field::BirthDay => date::part(text, date::Part::Day, hints.now_year),
        Field::BirthMonth => date::part(text, date::Part::Month, hints.now_year),
        Field::BirthYear => date::part(text, date::Part::Year, hints.now_year),
        Field::Street => Ok(place::street(text)),
        Field::City => Ok(place::city(platform, text)),
        Field::State => place::state(platform, text, hints.country),
        Field::PostalCode => place::postal_code(platform, text, hints.country),
        Field::Country => place::country(platform, text),
        Field::ExternalId => ids::external_id(platform, text, hints.lower_external_id),
        Field::Ip => address::public(text),
        Field::MobileAdId => ids::mobile_ad_id(platform, text),
        Field::UserAgent | Field::OpaqueId | Field::Locale => ids::opaque(text),
        Field::ClickId => click::form(text),
        Field::Fbc if fbc::valid_fbc(text) => Ok(text.to_owned()),
        Field::Fbc => Err(Reason::NotAnFbc),
        Field::Fbp if fbc::valid_fbp(text) => Ok(text.to_owned()),
        Field::Fbp => Err(Reason::NotAnFbp),
        Field::Currency => money::currency(text).map(str::to_owned).ok_or(Reason::NotACurrency),
        Field::ConversionDateTime => {
            google_time::conversion_date_time(text).map_err(google_time::BadTime::reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(platform: Platform, field: Field, input: &str) -> Option<Reason> {
        normalise(platform, field, input, &Hints::default()).reason()
    }

    #[test]
    fn what_is_blank_is_omitted_and_what_is_bad_is_rejected() {
        let blank = normalise(Platform::Meta, Field::City, " \u{a0}\u{feff}", &Hints::default());
        assert_eq!(blank, Outcome::Omitted { reason: Reason::Empty });
        let bad = normalise(Platform::Meta, Field::FirstName, "---", &Hints::default());
        assert_eq!(bad, Outcome::Rejected { reason: Reason::NothingLeft });
    }

    #[test]
    fn the_digest_of_nothing_is_refused_everywhere() {
        let of_nothing = digest::sha256_hex("");
        for platform in [Platform::Meta, Platform::Google, Platform::Ga4, Platform::Tiktok] {
            assert_eq!(reason(platform, Field::Email, &of_nothing), Some(Reason::HashOfNothing));
        }
    }

    #[test]
    fn a_digest_is_refused_where_plain_text_goes_out() {
        let digest = digest::sha256_hex("berlin");
        assert_eq!(reason(Platform::Google, Field::City, &digest), Some(Reason::Digest));
        assert!(normalise(Platform::Meta, Field::City, &digest, &Hints::default()).wire().is_some());
    }

    #[test]
    fn an_address_of_gmail_is_googles_own() {
        let is_same = |text| is_same_form(Platform::Meta, Platform::Google, Field::Email, text);
        for text in ["jane.doe@gmail.com", " Jane+x@GoogleMail.com\u{a0}"] {
            let forms = [Platform::Meta, Platform::Google]
                .map(|of| normalise(of, Field::Email, text, &Hints::default()));
            assert_ne!(forms[0].wire(), forms[1].wire(), "{text}");
            assert!(!is_same(text), "{text}");
            assert!(is_same_form(Platform::Google, Platform::Ga4, Field::Email, text), "{text}");
        }
        assert!(is_same("jane.doe@mail.example"));
    }

    #[test]
    fn a_uuid_is_not_a_name() {
        assert_eq!(
            reason(Platform::Meta, Field::FirstName, "3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
            Some(Reason::Digest)
        );
    }

    #[test]
    fn a_placeholder_is_no_name_and_no_place() {
        for text in ["null", "N-u-l-l", "undefined", "(not set)", "[object Object]"] {
            for field in [Field::FirstName, Field::LastName, Field::City, Field::PostalCode] {
                assert_eq!(reason(Platform::Meta, field, text), Some(Reason::Placeholder), "{text}");
            }
        }
        assert_eq!(reason(Platform::Meta, Field::LastName, "Na"), None);
    }

    #[test]
    fn a_platform_gets_no_field_that_it_does_not_know() {
        assert_eq!(reason(Platform::Tiktok, Field::Gender, "f"), Some(Reason::NotAField));
        assert_eq!(reason(Platform::Meta, Field::Street, "Main St"), Some(Reason::NotAField));
    }

    #[test]
    fn metas_appendix_is_meant_for_meta_only() {
        let appended = format!("{}.AQQCAQIB", digest::sha256_hex("a@b.example"));
        let outcome = normalise(Platform::Meta, Field::Email, &appended, &Hints::default());
        assert_eq!(outcome.wire(), Some(appended.as_str()));
        assert_eq!(reason(Platform::Tiktok, Field::Email, &appended), Some(Reason::NoAt));
    }
}
