//! What holds for every input: no panic, and a normalised value is its own normal form.

use proptest::prelude::*;
use tracklayer_normalise::{
    Field, Hints, Outcome, Platform, click, fbc, google_time, is_same_form, line, money, normalise, place,
};

const PLATFORMS: [Platform; 4] = [Platform::Meta, Platform::Google, Platform::Ga4, Platform::Tiktok];
const FIELDS: [Field; 25] = [
    Field::Email,
    Field::Phone,
    Field::FirstName,
    Field::LastName,
    Field::Gender,
    Field::Birthday,
    Field::BirthDay,
    Field::BirthMonth,
    Field::BirthYear,
    Field::Street,
    Field::City,
    Field::State,
    Field::PostalCode,
    Field::Country,
    Field::ExternalId,
    Field::Ip,
    Field::UserAgent,
    Field::MobileAdId,
    Field::Locale,
    Field::Fbc,
    Field::Fbp,
    Field::ClickId,
    Field::OpaqueId,
    Field::Currency,
    Field::ConversionDateTime,
];
const COUNTRIES: [Option<&str>; 12] = [
    None,
    Some("US"),
    Some("DE"),
    Some("GB"),
    Some("IT"),
    Some("BR"),
    Some("AR"),
    Some("RU"),
    Some("JP"),
    Some("AU"),
    Some("IN"),
    Some("nowhere"),
];

/// Texts near to what the rules look at, and any texts at all.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "\\PC{0,40}",
        "[ -~]{0,24}",
        "[+]?[0-9 ()./-]{0,24}",
        "[0-9+() x#;,é\u{660}-\u{669}-]{0,20}",
        "[A-Za-zÀ-ÿΑ-ωİß'’ .\u{300}-\u{304}\u{200b}-\u{200d}-]{0,24}",
        "[a-zA-Z.+ ]{0,10}@[a-zA-Z.]{0,10}(gmail.com|googlemail.com|b.de)?",
        "[0-9]{1,4}[-/. T][0-9]{1,4}[-/. T][0-9:]{0,8}[Z+-]?[0-9:]{0,5}",
        "[0-9a-fA-F]{32}|[0-9a-fA-F-]{36}|[0-9a-fA-F]{64}(\\.[A-Za-z]{2,8})?",
        "(mr|dr|jr|ii|null|US-|D-)?[. -]?[A-Za-z0-9]{0,8}[. -](jr|mr|iv|1010)?",
        "fb\\.[0-9]{0,2}\\.[0-9]{0,4}\\.[A-Za-z0-9.]{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn normalising_twice_is_the_same_as_once(text in texts(), country in prop::sample::select(COUNTRIES.to_vec())) {
        for platform in PLATFORMS {
            for field in FIELDS {
                let hints = Hints { country, ..Hints::default() };
                let once = normalise(platform, field, &text, &hints);
                let Outcome::Normalised { value, .. } = &once else { continue };
                prop_assert!(!value.is_empty());
                // Meta's form of a number has no plus, which is what says that it is international.
                let again = if field == Field::Phone { format!("+{}", value.trim_start_matches('+')) } else { value.clone() };
                prop_assert_eq!(&normalise(platform, field, &again, &hints), &once, "{:?} {:?}", platform, field);
            }
        }
    }

    #[test]
    fn what_is_the_same_form_at_two_platforms_is_the_same(text in texts(), country in prop::sample::select(COUNTRIES.to_vec())) {
        let hints = Hints { country, ..Hints::default() };
        for (one, other) in PLATFORMS.into_iter().flat_map(|one| PLATFORMS.map(|other| (one, other))) {
            for field in FIELDS.into_iter().filter(|field| is_same_form(one, other, *field, &text)) {
                let (one, other) = (normalise(one, field, &text, &hints), normalise(other, field, &text, &hints));
                prop_assert_eq!((one.wire(), one.reason()), (other.wire(), other.reason()), "{:?}", field);
            }
        }
    }

    #[test]
    fn a_digest_goes_out_as_64_hex_digits(text in texts()) {
        for platform in PLATFORMS {
            let outcome = normalise(platform, Field::Email, &text, &Hints::default());
            if let Some(wire) = outcome.wire() {
                let digest = wire.split('.').next().unwrap_or_default();
                prop_assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }

    #[test]
    fn a_telephone_number_is_7_to_15_digits(text in texts(), country in prop::sample::select(COUNTRIES.to_vec())) {
        let hints = Hints { country, assume_international: true, ..Hints::default() };
        if let Outcome::Normalised { value, .. } = normalise(Platform::Meta, Field::Phone, &text, &hints) {
            prop_assert!((7..=15).contains(&value.len()) && !value.starts_with('0'));
            prop_assert!(value.bytes().all(|b| b.is_ascii_digit()));
        }
    }

    #[test]
    fn an_fbc_that_is_built_is_valid(cookie in texts(), fbclid in texts(), url in texts(), ms in any::<i64>()) {
        let click = fbc::Click {
            cookie: Some(&cookie),
            fbclid: Some(&fbclid),
            page_url: Some(&url),
            referrer: Some(&fbclid),
            cookie_domain: Some(&url),
            first_seen_ms: ms,
        };
        if let Some(fbc) = click.fbc() {
            prop_assert!(fbc::valid_fbc(&fbc));
        }
    }

    #[test]
    fn nothing_panics(text in texts(), other in texts()) {
        click::from_url(&text, &other);
        google_time::conversion_date_time(&text).ok();
        line::answer(&text);
        money::currency(&text);
        place::alpha2(&text);
        fbc::prefer(Some(&text), Some(&other), 1);
    }
}
