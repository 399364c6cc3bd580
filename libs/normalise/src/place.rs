//! The parts of a postal address: street, city, state, postal code, country.
//!
//! Sources, unless a rule names its own: Meta, "Customer Information Parameters" (2026-01); Google, Data Manager API,
//! "Format user data" and the protos' `AddressInfo` (2026-11); Google Analytics, "Send user-provided data with
//! User-ID" (2026-11); TikTok, Events API 2.0 as integrations have it (2026-08).

mod country;
mod postal;
mod us_state;

use crate::Platform;
use crate::Reason;
use crate::rule::Form;
use crate::text::{self, Keep};

pub use country::alpha2;
pub(crate) use country::{SLOTS, slot_of};

/// Country in the platform's form: lower case at Meta and TikTok, upper case at Google.
pub(crate) fn country(platform: Platform, text: &str) -> Form {
    country::form(platform, text)
}

/// Postal code in the platform's form.
pub(crate) fn postal_code(platform: Platform, text: &str, country: Option<&str>) -> Form {
    postal::form(platform, text, country.and_then(alpha2))
}

/// Street and house number. Google alone takes it: symbols off, lower case, trimmed.
pub(crate) fn street(text: &str) -> String {
    text::letters(text, Keep { spaces: true, digits: true })
}

/// City: lower case without punctuation. Meta: no spaces, and no digits, which are districts and not the name
/// ("Paris 15"). TikTok: no spaces. Google: spaces stay; GA4: no digits.
pub(crate) fn city(platform: Platform, text: &str) -> String {
    let keep = match platform {
        Platform::Meta => Keep { spaces: false, digits: false },
        Platform::Tiktok => Keep { spaces: false, digits: true },
        Platform::Google => Keep { spaces: true, digits: true },
        Platform::Ga4 => Keep { spaces: true, digits: false },
    };
    text::letters(text, keep)
}

/// State or province. Meta and TikTok: two letters in the USA, elsewhere the whole name, lower case without spaces
/// and punctuation. Google: lower case without symbols; no code is asked for.
pub(crate) fn state(platform: Platform, text: &str, country: Option<&str>) -> Form {
    match platform {
        Platform::Google => return Ok(text::letters(text, Keep { spaces: true, digits: true })),
        Platform::Ga4 => return Ok(text::letters(text, Keep { spaces: true, digits: false })),
        Platform::Meta | Platform::Tiktok => {}
    }
    let bare = text::letters(text, Keep { spaces: false, digits: true });
    match country.and_then(alpha2) {
        Some("US") => us_state::code(text, &bare).map(str::to_owned).ok_or(Reason::NotAUsState),
        Some(_) => Ok(bare),
        // Without a country a name of one of the states is taken for it: hardly any other region bears one.
        None => Ok(us_state::code(text, &bare).map_or(bare, str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_city_loses_what_the_platform_does_not_want() {
        let city = |platform| city(platform, "Frankfurt (Main) 60");
        assert_eq!(city(Platform::Meta), "frankfurtmain");
        assert_eq!(city(Platform::Tiktok), "frankfurtmain60");
        assert_eq!(city(Platform::Google), "frankfurt main 60");
        assert_eq!(city(Platform::Ga4), "frankfurt main");
    }

    #[test]
    fn a_state_of_the_usa_is_two_letters_and_others_keep_their_name() {
        assert_eq!(state(Platform::Meta, "New York", Some("US")), Ok("ny".into()));
        assert_eq!(state(Platform::Tiktok, "California", Some("USA")), Ok("ca".into()));
        assert_eq!(state(Platform::Meta, "California", None), Ok("ca".into()));
        assert_eq!(state(Platform::Meta, "Ontario", Some("CA")), Ok("ontario".into()));
        assert_eq!(state(Platform::Meta, "Bayern", None), Ok("bayern".into()));
        assert_eq!(state(Platform::Google, "New York", Some("US")), Ok("new york".into()));
        assert_eq!(state(Platform::Tiktok, "Freedonia", Some("US")), Err(Reason::NotAUsState));
    }
}
