//! Cities, states, postal codes, countries.

use fastrand::Rng;

use super::super::case::Truth;
use super::{cased, decomposed, pick};

const CITIES: [&str; 24] = [
    "New York",
    "St. Louis",
    "Frankfurt (Main)",
    "São Paulo",
    "Köln",
    "Paris 15",
    "Washington, D.C.",
    "Coeur d'Alene",
    "L\u{2019}Aquila",
    "Stratford-upon-Avon",
    "Århus",
    "東京",
    "서울",
    "Москва",
    "القاهرة",
    "İzmir",
    "Winston\u{2013}Salem",
    "Zürich/Wetzikon",
    "Praha ８",
    "القاهرة ٣",
    "Ⅷ District",
    "Łódź",
    "Ho Chi Minh City",
    "16e Arr.",
];

/// What stands in a field for a state, its country, and the two letters of a US state.
const STATES: [(&str, Option<&str>, Option<&str>); 24] = [
    ("CA", Some("US"), Some("ca")),
    ("California", Some("US"), Some("ca")),
    ("new york", Some("US"), Some("ny")),
    ("US-TX", Some("US"), Some("tx")),
    ("N.Y.", Some("US"), Some("ny")),
    ("D.C.", Some("US"), Some("dc")),
    ("Washington, D.C.", Some("US"), Some("dc")),
    ("Puerto Rico", Some("US"), Some("pr")),
    ("Ontario", Some("US"), None),
    ("Freedonia", Some("US"), None),
    ("California", None, Some("ca")),
    ("CA", None, Some("ca")),
    ("Bayern", Some("DE"), None),
    ("Baden-Württemberg", Some("DE"), None),
    ("Nordrhein Westfalen", None, None),
    ("ON", Some("CA"), None),
    ("New South Wales", Some("AU"), None),
    ("São Paulo", Some("BR"), None),
    ("東京都", Some("JP"), None),
    ("FR-75", Some("FR"), None),
    ("Region 5", Some("PH"), None),
    ("Île-de-France", Some("FR"), None),
    ("Val-d'Oise", Some("FR"), None),
    ("Hawai\u{2bb}i", Some("US"), None),
];

/// A postal code, its country, and its published form where it is one of that country.
const POSTAL_CODES: [(&str, Option<&str>, Option<&str>); 30] = [
    ("94035", Some("US"), Some("94035")),
    ("94035-1234", Some("US"), Some("94035")),
    ("940351234", Some("US"), Some("94035")),
    ("94035 1234", Some("US"), Some("94035")),
    ("9403", Some("US"), None),
    ("SW1A 1AA", Some("US"), None),
    ("94035-1234", None, Some("94035")),
    ("94035", None, Some("94035")),
    ("SW1A 1AA", Some("GB"), Some("sw1a1aa")),
    ("sw1a1aa", None, Some("sw1a1aa")),
    ("EC1A-1BB", Some("GB"), Some("ec1a1bb")),
    ("B-1 1AA", Some("GB"), Some("b11aa")),
    ("80331", Some("DE"), Some("80331")),
    ("D-80331", Some("DE"), Some("80331")),
    ("DE 80331", Some("DE"), Some("80331")),
    ("A-1010", Some("AT"), Some("1010")),
    ("00-950", Some("PL"), Some("00950")),
    ("00-950", None, Some("00950")),
    ("1000-001", Some("PT"), Some("1000001")),
    ("01310-100", Some("BR"), Some("01310100")),
    ("100-0001", Some("JP"), Some("1000001")),
    ("K1A 0B1", Some("CA"), Some("k1a0b1")),
    ("1234 AB", Some("NL"), Some("1234ab")),
    ("NL-1234 AB", Some("NL"), Some("1234ab")),
    ("LV-1010", Some("LV"), Some("lv1010")),
    ("CH-8001", Some("CH"), Some("8001")),
    ("F-75001", Some("FR"), Some("75001")),
    ("101 00", Some("GR"), Some("10100")),
    ("SW1A\u{2013}1AA", Some("GB"), Some("sw1a1aa")),
    ("〒100-0001", Some("JP"), Some("1000001")),
];

/// What stands in a field for a country, and its code.
const COUNTRIES: [(&str, Option<&str>); 35] = [
    ("US", Some("us")),
    ("us", Some("us")),
    ("De", Some("de")),
    ("gb", Some("gb")),
    ("UK", Some("gb")),
    ("USA", Some("us")),
    ("DEU", Some("de")),
    ("GBR", Some("gb")),
    ("United States", Some("us")),
    ("United States of America", Some("us")),
    ("Germany", Some("de")),
    ("The Netherlands", Some("nl")),
    ("Côte d'Ivoire", Some("ci")),
    ("Ivory Coast", Some("ci")),
    ("Türkiye", Some("tr")),
    ("South Korea", Some("kr")),
    ("Great Britain", Some("gb")),
    ("Bosnia & Herzegovina", Some("ba")),
    ("Viet Nam", Some("vn")),
    ("New Zealand", Some("nz")),
    ("Deutschland", None),
    ("XX", None),
    ("EU", None),
    ("840", None),
    ("Atlantis", None),
    ("ü", None),
    ("Élan", None),
    ("d-e", None),
    ("(us)", None),
    ("us.", None),
    ("U.S.", None),
    ("u s", None),
    ("deü", None),
    ("zz", None),
    ("x", None),
];

pub fn city(rng: &mut Rng) -> String {
    let city = pick(rng, &CITIES);
    let city = cased(rng, city);
    decomposed(rng, &city)
}

pub fn state(rng: &mut Rng) -> (String, Option<&'static str>, Truth) {
    let (text, country, code) = pick(rng, &STATES);
    let text = cased(rng, text);
    (decomposed(rng, &text), country, code.map_or(Truth::Unknown, |code| Truth::Is(code.to_owned())))
}

pub fn postal_code(rng: &mut Rng) -> (String, Option<&'static str>, Truth) {
    let (text, country, form) = pick(rng, &POSTAL_CODES);
    (cased(rng, text), country, form.map_or(Truth::None, |form| Truth::Is(form.to_owned())))
}

pub fn country(rng: &mut Rng) -> (String, Option<&'static str>, Truth) {
    let (text, code) = pick(rng, &COUNTRIES);
    (cased(rng, text), None, code.map_or(Truth::None, |code| Truth::Is(code.to_owned())))
}
