//! The event's own address as a place: "DE", "US-CA", "unknown", or empty where it carries none.
//!
//! An address that is there and names a country in a way that we cannot read is "unknown", the strictest place: the
//! source's default must not stand for it.

use serde_json::value::RawValue;

use crate::json;

/// The strictest place.
pub const UNKNOWN: &str = "unknown";

/// The place of an address object (`country` or `countryCode`, `state` or `region`); empty if it names no country.
#[must_use]
pub fn of_address(address: &RawValue) -> String {
    let mut country = None;
    let mut region = None;
    if !json::is_object(address) {
        return String::new();
    }
    let _ = json::for_each_member(address.get(), |key, value| match key {
        "country" | "countryCode" | "country_code" => country = json::text(value).or(country.take()),
        "state" | "region" | "province" | "stateCode" | "province_code" => {
            region = json::text(value).or(region.take());
        }
        _ => {}
    });
    country.map_or_else(String::new, |country| of(&country, region.as_deref().unwrap_or_default()))
}

/// The place of a country and a region.
#[must_use]
pub fn of(country: &str, region: &str) -> String {
    let Some(country) = country_code(country) else { return UNKNOWN.to_owned() };
    if country != "US" {
        return country;
    }
    match us_state_code(region) {
        Some(state) => format!("US-{state}"),
        None => country,
    }
}

fn country_code(country: &str) -> Option<String> {
    let country = country.trim();
    if country.len() == 2 && country.bytes().all(|b| b.is_ascii_alphabetic()) {
        let code = country.to_ascii_uppercase();
        return Some(if code == "UK" { "GB".to_owned() } else { code });
    }
    let code = match country.to_lowercase().as_str() {
        "usa" | "u.s." | "u.s.a." | "united states" | "united states of america" => "US",
        "deu" | "germany" | "deutschland" => "DE",
        "gbr" | "united kingdom" | "great britain" | "england" | "scotland" | "wales" => "GB",
        "fra" | "france" => "FR",
        "aut" | "austria" | "österreich" => "AT",
        "che" | "switzerland" | "schweiz" | "suisse" => "CH",
        "nld" | "netherlands" | "the netherlands" | "nederland" => "NL",
        "bel" | "belgium" => "BE",
        "ita" | "italy" | "italia" => "IT",
        "esp" | "spain" | "españa" => "ES",
        "prt" | "portugal" => "PT",
        "pol" | "poland" | "polska" => "PL",
        "dnk" | "denmark" | "danmark" => "DK",
        "swe" | "sweden" | "sverige" => "SE",
        "nor" | "norway" | "norge" => "NO",
        "fin" | "finland" | "suomi" => "FI",
        "irl" | "ireland" => "IE",
        "can" | "canada" => "CA",
        "aus" | "australia" => "AU",
        "jpn" | "japan" => "JP",
        _ => return None,
    };
    Some(code.to_owned())
}

/// Codes of ISO 3166-2:US, states and the District of Columbia, with their names.
#[rustfmt::skip]
const US_STATES: [(&str, &str); 51] = [
    ("AL", "alabama"), ("AK", "alaska"), ("AZ", "arizona"), ("AR", "arkansas"), ("CA", "california"),
    ("CO", "colorado"), ("CT", "connecticut"), ("DE", "delaware"), ("DC", "district of columbia"), ("FL", "florida"),
    ("GA", "georgia"), ("HI", "hawaii"), ("ID", "idaho"), ("IL", "illinois"), ("IN", "indiana"), ("IA", "iowa"),
    ("KS", "kansas"), ("KY", "kentucky"), ("LA", "louisiana"), ("ME", "maine"), ("MD", "maryland"),
    ("MA", "massachusetts"), ("MI", "michigan"), ("MN", "minnesota"), ("MS", "mississippi"), ("MO", "missouri"),
    ("MT", "montana"), ("NE", "nebraska"), ("NV", "nevada"), ("NH", "new hampshire"), ("NJ", "new jersey"),
    ("NM", "new mexico"), ("NY", "new york"), ("NC", "north carolina"), ("ND", "north dakota"), ("OH", "ohio"),
    ("OK", "oklahoma"), ("OR", "oregon"), ("PA", "pennsylvania"), ("RI", "rhode island"), ("SC", "south carolina"),
    ("SD", "south dakota"), ("TN", "tennessee"), ("TX", "texas"), ("UT", "utah"), ("VT", "vermont"),
    ("VA", "virginia"), ("WA", "washington"), ("WV", "west virginia"), ("WI", "wisconsin"), ("WY", "wyoming"),
];

fn us_state_code(region: &str) -> Option<&'static str> {
    let region = region.trim();
    let region = region.strip_prefix("US-").unwrap_or(region);
    let found = US_STATES
        .iter()
        .find(|(code, name)| region.eq_ignore_ascii_case(code) || region.eq_ignore_ascii_case(name));
    found.map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_common_names_are_read() {
        for (country, region, place) in [
            ("US", "CA", "US-CA"),
            ("us", "California", "US-CA"),
            ("USA", "US-CO", "US-CO"),
            ("US", "", "US"),
            ("US", "Mars", "US"),
            ("de", "BE", "DE"),
            ("Germany", "", "DE"),
            ("UK", "", "GB"),
        ] {
            assert_eq!(of(country, region), place, "{country} {region}");
        }
    }

    #[test]
    fn a_country_that_cannot_be_read_is_the_strictest_place() {
        assert_eq!(of("Westeros", ""), UNKNOWN);
        let address = RawValue::from_string(r#"{"city":"Berlin"}"#.to_owned()).unwrap();
        assert_eq!(of_address(&address), "");
    }
}
