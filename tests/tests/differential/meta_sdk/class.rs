//! Why our form and the SDK's may differ: each reason with whose rule it is. A difference that fits none is a failure.

/// Where a reason stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// A page of Meta's says so, and the SDK does not follow it.
    Published { rule: &'static str, page: &'static str },
    /// Meta's pages are silent; the reason is ours.
    Silent(&'static str),
}

/// A reason for a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// What differs, in a few words.
    pub name: &'static str,
    /// By what rule.
    pub basis: Basis,
}

/// Meta, Conversions API, "Customer Information Parameters"; 2026-01.
const CIP: &str = "Customer Information Parameters, 2026-01";

const fn published(name: &'static str, rule: &'static str, page: &'static str) -> Class {
    Class { name, basis: Basis::Published { rule, page } }
}

const fn silent(name: &'static str, why: &'static str) -> Class {
    Class { name, basis: Basis::Silent(why) }
}

// Of every hashed key.
pub const BLANK: Class = silent(
    "blank: the SDK hashes nothing or raises, we leave out",
    "one digest would join all who are blank",
);
pub const DIGEST_OF_NOTHING: Class =
    silent("SHA-256 of nothing: the SDK passes it, we leave out", "one digest would join all who are blank");
pub const MD5: Class = published("MD5: the SDK passes it, we leave out", "hashing is SHA-256", CIP);
pub const APPENDIX: Class = published(
    "digest with appendix: the SDK hashes it again or raises, we pass it",
    "a value of the library is passed on",
    "Parameter Builder Library, 2026-06",
);
pub const DIGEST_IN_TEXT: Class = silent(
    "digest of another sort: the SDK hashes it, we leave out",
    "where a name or place is told, a digest matches nobody",
);
pub const INVISIBLE: Class = silent(
    "invisible characters: the SDK hashes them, we drop them",
    "U+200B and U+FEFF come from copying; controls and marks at the ends are no part of a value",
);
pub const COMPOSED: Class = published("decomposed letters: we compose", "\"Valéry\" is hashed composed", CIP);
pub const PLACEHOLDER: Class = silent(
    "placeholder (null, undefined): the SDK hashes it, we leave out",
    "one digest would join all whose field was missing",
);
pub const NOTHING_LEFT: Class =
    published("nothing but punctuation: the SDK hashes it, we leave out", "no punctuation", CIP);

// Texts.
pub const PUNCTUATION: Class = published("punctuation: the SDK keeps it, we drop it", "no punctuation", CIP);
pub const SPACES: Class = silent(
    "spaces inside a name: the SDK keeps them, we drop them",
    "as Meta's parameter builder in the browser does, 2026-06",
);
pub const NO_LETTER: Class = silent(
    "control, format or unassigned characters inside: the SDK hashes them, we drop them",
    "nobody sees them, and no name or place is spelt with them",
);
pub const CITY_DIGITS: Class = silent(
    "numbers of other scripts in a city: the SDK drops 0-9 alone, we drop all",
    "a number in a city is a district",
);
pub const STATE_DIGITS: Class = silent(
    "digits in a state: the SDK drops them, we keep them",
    "the page drops punctuation and spaces only, 2026-01",
);
pub const STATE_CODE: Class =
    published("name of a US state: the SDK hashes the name, we its code", "2-character code", CIP);
pub const STATE_UNKNOWN: Class =
    published("no US state although in the USA: we leave out", "2-character code", CIP);
pub const ZIP_DASH: Class =
    published("dash in a postal code: the SDK cuts there, we close up", "no dash", CIP);
pub const ZIP_FIVE: Class =
    published("ZIP+4 in one: the SDK keeps nine digits, we five", "first 5 digits in the USA", CIP);
pub const ZIP_US: Class =
    published("no US ZIP although in the USA: we leave out", "first 5 digits in the USA", CIP);
pub const ZIP_LETTERS: Class = silent(
    "country letters before a code (D-80331): the SDK keeps or cuts at them, we drop them",
    "they are no part of the code: Deutsche Post and UPU addressing guides, 2026-11",
);

// E-mail.
pub const EMAIL_SPACE: Class = silent(
    "space inside an address: the SDK hashes it, we leave out",
    "the page trims ends only; mending by guess hashes another's",
);
pub const EMAIL_SEVERAL: Class =
    silent("two addresses or more than an address: the SDK hashes it, we leave out", "it is not one address");
pub const EMAIL_LABEL: Class = silent(
    "nothing before the @ or between the dots: the SDK hashes it, we leave out",
    "no such address: RFC 5321, 4.1.2",
);

// Telephone.
pub const PHONE_COUNTRY: Class = published(
    "national number: the SDK hashes it bare or raises, we add the country's code",
    "always include the country code",
    CIP,
);
pub const PHONE_NO_COUNTRY: Class = published(
    "national number of no known country: the SDK hashes it bare, we leave out",
    "always include the country code",
    CIP,
);
pub const PHONE_TRUNK: Class = silent(
    "trunk zero in an international number: the SDK keeps it, we drop it",
    "it is dialled at home only: ITU-T E.164; the page speaks of leading zeros",
);
pub const PHONE_SYMBOLS: Class =
    published("dots, slashes, labels: the SDK raises, we drop them", "symbols and letters go", CIP);
pub const PHONE_EXTENSION: Class =
    silent("extension: the SDK raises, we cut it off", "E.164 has no extensions: ITU-T E.164");
pub const PHONE_DIGITS: Class = silent(
    "digits of another script: the SDK hashes them as they are, we as 0-9",
    "the page's numbers are 0-9",
);
pub const PHONE_LONG: Class =
    silent("more than 15 digits: the SDK hashes them, we leave out", "no number has more: ITU-T E.164");
pub const PHONE_NO_CODE: Class = silent(
    "country code that nobody has: the SDK hashes it, we leave out",
    "ITU-T E.164 assigned country codes",
);
pub const PHONE_NOT_IN_PLAN: Class = silent(
    "number that the country's plan does not have: we leave out",
    "the country's numbering plan (libphonenumber)",
);

// Gender, dates.
pub const GENDER_WORD: Class =
    published("word for a gender: the SDK hashes the word, we f or m", "f or m", CIP);
pub const GENDER_OTHER: Class =
    published("neither f nor m: the SDK hashes the word, we leave out", "f or m", CIP);
pub const DATE_FORM: Class =
    published("another way to write a date: the SDK hashes it as it is, we as YYYYMMDD", "YYYYMMDD", CIP);
pub const DATE_NONE: Class = published(
    "no date of birth from 1900 to now: the SDK hashes it, we leave out",
    "YYYYMMDD, 1900 to now",
    CIP,
);
pub const DATE_PART: Class =
    published("day, month or year in another form: we as digits", "MM, DD, YYYY", CIP);

// Country.
pub const COUNTRY_NAME: Class = published(
    "name or other code of a country: the SDK raises or takes its letters, we its code",
    "two-letter code; \"United States\" is hashed as us",
    CIP,
);
pub const COUNTRY_SYMBOLS: Class = silent(
    "letters with symbols between: the SDK takes what a-z are left for a code, we leave out",
    "other letters than a-z among them make another word; mending by guess hashes another country",
);

// What the SDK does not hash.
pub const EXTERNAL_ID_HASHED: Class = published(
    "external_id: the SDK sends it as it is, we its digest",
    "hashing recommended, one form on every channel",
    CIP,
);
pub const EXTERNAL_ID_NOBODY: Class = silent(
    "external_id of nobody (guest, 0, null): the SDK sends it, we leave out",
    "one id would join all who are unknown",
);
pub const DIGEST_CASE: Class = silent(
    "digest in upper case: the SDK sends it as it is, we in lower case",
    "a digest is compared as text",
);
pub const MADID_CASE: Class =
    published("madid: the SDK sends it as it is, we in lower case", "lower case", CIP);
pub const MADID_NONE: Class =
    published("no advertising id, or all zeros: we leave out", "the id of a device", CIP);
pub const IP_FORM: Class = silent(
    "address in another form: we in the canonical one",
    "RFC 5952; a port and spaces are no part of it",
);
pub const IP_NONE: Class =
    published("private or no address: the SDK sends it, we leave out", "real and public", CIP);
pub const CLICK_NONE: Class = published(
    "malformed fbc or fbp: the SDK sends it, we leave out",
    "fb.index.ms.id",
    "fbp and fbc Parameters, 2026-02",
);
pub const TRIMMED: Class = silent(
    "spaces and invisible characters around: the SDK keeps them, we trim",
    "no id begins or ends with one",
);
pub const CURRENCY_CASE: Class =
    silent("currency: the SDK in lower case, we in upper case", "ISO 4217; Meta takes both");
pub const CURRENCY_NONE: Class = published(
    "no currency: the SDK sends three letters, we leave out",
    "ISO 4217",
    "Custom Data Parameters, 2026-02",
);

/// Every reason.
pub const ALL: &[Class] = &[
    BLANK,
    DIGEST_OF_NOTHING,
    MD5,
    APPENDIX,
    DIGEST_IN_TEXT,
    INVISIBLE,
    COMPOSED,
    PLACEHOLDER,
    NOTHING_LEFT,
    PUNCTUATION,
    SPACES,
    NO_LETTER,
    CITY_DIGITS,
    STATE_DIGITS,
    STATE_CODE,
    STATE_UNKNOWN,
    ZIP_DASH,
    ZIP_FIVE,
    ZIP_US,
    ZIP_LETTERS,
    EMAIL_SPACE,
    EMAIL_SEVERAL,
    EMAIL_LABEL,
    PHONE_COUNTRY,
    PHONE_NO_COUNTRY,
    PHONE_TRUNK,
    PHONE_SYMBOLS,
    PHONE_EXTENSION,
    PHONE_DIGITS,
    PHONE_LONG,
    PHONE_NO_CODE,
    PHONE_NOT_IN_PLAN,
    GENDER_WORD,
    GENDER_OTHER,
    DATE_FORM,
    DATE_NONE,
    DATE_PART,
    COUNTRY_NAME,
    COUNTRY_SYMBOLS,
    EXTERNAL_ID_HASHED,
    EXTERNAL_ID_NOBODY,
    DIGEST_CASE,
    MADID_CASE,
    MADID_NONE,
    IP_FORM,
    IP_NONE,
    CLICK_NONE,
    TRIMMED,
    CURRENCY_CASE,
    CURRENCY_NONE,
];
