//! Why values are left out.

use std::fmt;

/// Declares [`Reason`] with its codes and texts, so that no list of them can be short of one.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $code:literal $text:literal,)+) => {
        /// Why a value is left out: a closed list without personal data, in which each has a code (for metrics and programs)
        /// and a text (for people).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason as it stands in metrics: snake case, never changed.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// The reason for people.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// Nothing but white space.
    Empty "empty" "empty",
    /// The platform takes no such field.
    NotAField "not_a_field" "not a field of this platform",
    /// A source hashed a blank field: it would join everybody whose field was blank.
    HashOfNothing "hash_of_nothing" "SHA-256 of the empty string",
    /// A digest of 32 digits where SHA-256 is wanted.
    Md5 "md5" "MD5, not SHA-256",
    /// A digest where the value itself was expected.
    Digest "digest" "a digest, not the value itself",
    /// The platform's form drops everything that was there.
    NothingLeft "nothing_left" "nothing left",
    /// What a program or a shop writes where it knows nothing.
    Placeholder "placeholder" "placeholder",
    /// A UUID of zeros as a person's id.
    NilUuid "nil_uuid" "nil UUID",
    /// An advertising id of zeros: the person has refused tracking.
    TrackingRefused "tracking_refused" "all-zero id: tracking refused",
    /// No UUID with hyphens.
    NotAnAdvertisingId "not_an_advertising_id" "not an advertising id",
    /// White space where there is none in such a value.
    WhiteSpace "white_space" "white space inside",
    /// A control character in an id.
    ControlCharacter "control_character" "control character inside",
    /// An ad server's placeholder for a click id.
    UnreplacedMacro "unreplaced_macro" "unreplaced macro",
    /// Longer than any such id.
    TooLong "too_long" "too long",
    /// No `@` in an e-mail address.
    NoAt "no_at" "no @",
    /// More than one `@`.
    SeveralAts "several_ats" "more than one @",
    /// Nothing before the `@`.
    EmptyLocalPart "empty_local_part" "empty local part",
    /// Nothing behind the `@`.
    EmptyDomain "empty_domain" "empty domain",
    /// A domain that begins or ends with a dot, or has two in a row.
    EmptyLabel "empty_label" "empty label in the domain",
    /// A domain of one label: no public one.
    NoDotInDomain "no_dot_in_domain" "no dot in the domain",
    /// More than one address, or a name beside it.
    NotAnAddressAlone "not_an_address_alone" "not an address alone",
    /// No digit in a telephone number.
    NoDigits "no_digits" "no digits",
    /// Something else than a number.
    NotANumber "not_a_number" "not a number",
    /// A plus sign behind the first digit.
    PlusInside "plus_inside" "a plus sign inside",
    /// Letters among the digits.
    LettersInside "letters_inside" "letters inside",
    /// A telephone number of zeros.
    AllZeros "all_zeros" "all zeros",
    /// An international number that begins with 0.
    CountryCodeZero "country_code_zero" "a country code cannot start with 0",
    /// An international number of no country.
    NoSuchCountryCode "no_such_country_code" "no such country code",
    /// A national number of a person whose country is not known.
    CountryUnknown "country_unknown" "national form and no country known",
    /// A number that the country's numbering plan does not have.
    NotInPlan "not_in_plan" "not in the country's numbering plan",
    /// Fewer than 7 digits with the country code.
    TooFewDigits "too_few_digits" "fewer than 7 digits",
    /// More than 15 digits with the country code.
    TooManyDigits "too_many_digits" "more than 15 digits",
    /// No date of birth in digits.
    NotADate "not_a_date" "not a date",
    /// A year of two digits.
    ShortYear "short_year" "four-digit year required",
    /// A day that the calendar does not have.
    NoSuchDate "no_such_date" "month or day out of range",
    /// A year of birth before 1900.
    YearBefore1900 "year_before_1900" "year before 1900",
    /// A year of birth that has not come yet.
    YearInFuture "year_in_future" "year in the future",
    /// A year of birth, given alone, that is one of both.
    YearOutOfRange "year_out_of_range" "year before 1900 or in the future",
    /// No day of a month.
    NoDayOfMonth "no_day_of_month" "no day from 01 to 31",
    /// No month.
    NoMonth "no_month" "no month from 01 to 12",
    /// More digits than a part of a date has.
    OutOfRange "out_of_range" "out of range",
    /// A gender that Meta does not take.
    NeitherFNorM "neither_f_nor_m" "neither f nor m",
    /// No state of the USA, of somebody who lives there.
    NotAUsState "not_a_us_state" "not a US state",
    /// A ZIP of the USA of another length.
    UsZipLength "us_zip_length" "a US ZIP has 5 or 9 digits",
    /// Neither code nor English name of a country.
    NotACountry "not_a_country" "no ISO 3166-1 code and no English name",
    /// Two letters that are no country.
    NotAlpha2 "not_alpha_2" "not an ISO 3166-1 alpha-2 code",
    /// No IP address.
    NotAnIp "not_an_ip" "not an IP address",
    /// An address of a proxy or of a private network.
    NotPublic "not_public" "not a public address",
    /// No click id of Meta's cookie.
    NotAnFbc "not_an_fbc" "not of the form fb.index.milliseconds.fbclid",
    /// No browser id of Meta's cookie.
    NotAnFbp "not_an_fbp" "not of the form fb.index.milliseconds.number",
    /// No currency to pay in.
    NotACurrency "not_a_currency" "not an ISO 4217 code",
    /// No date with a time of day.
    NotATime "not_a_time" "not a date and time of day",
    /// A day or a time of day that does not exist.
    NoSuchTime "no_such_time" "no such day or time of day",
    /// A time without a zone.
    NoZone "no_zone" "no zone",
    /// A zone that is no offset.
    NotAnOffset "not_an_offset" "not an offset from UTC",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_code_and_a_text_of_its_own() {
        let codes: HashSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        let texts: HashSet<&str> = Reason::ALL.iter().map(|reason| reason.text()).collect();
        assert_eq!((codes.len(), texts.len()), (Reason::ALL.len(), Reason::ALL.len()));
        let is_label =
            |code: &str| code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        assert!(codes.iter().all(|code| is_label(code)), "{codes:?}");
    }
}
