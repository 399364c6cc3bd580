//! States and territories of the USA.

/// Two-letter codes and names, both in lower case without spaces.
/// Source: USPS Publication 28, appendix B; 2026-11.
const STATES: [(&str, &str); 62] = [
    ("al", "alabama"),
    ("ak", "alaska"),
    ("az", "arizona"),
    ("ar", "arkansas"),
    ("ca", "california"),
    ("co", "colorado"),
    ("ct", "connecticut"),
    ("de", "delaware"),
    ("dc", "districtofcolumbia"),
    ("fl", "florida"),
    ("ga", "georgia"),
    ("hi", "hawaii"),
    ("id", "idaho"),
    ("il", "illinois"),
    ("in", "indiana"),
    ("ia", "iowa"),
    ("ks", "kansas"),
    ("ky", "kentucky"),
    ("la", "louisiana"),
    ("me", "maine"),
    ("md", "maryland"),
    ("ma", "massachusetts"),
    ("mi", "michigan"),
    ("mn", "minnesota"),
    ("ms", "mississippi"),
    ("mo", "missouri"),
    ("mt", "montana"),
    ("ne", "nebraska"),
    ("nv", "nevada"),
    ("nh", "newhampshire"),
    ("nj", "newjersey"),
    ("nm", "newmexico"),
    ("ny", "newyork"),
    ("nc", "northcarolina"),
    ("nd", "northdakota"),
    ("oh", "ohio"),
    ("ok", "oklahoma"),
    ("or", "oregon"),
    ("pa", "pennsylvania"),
    ("ri", "rhodeisland"),
    ("sc", "southcarolina"),
    ("sd", "southdakota"),
    ("tn", "tennessee"),
    ("tx", "texas"),
    ("ut", "utah"),
    ("vt", "vermont"),
    ("va", "virginia"),
    ("wa", "washington"),
    ("wv", "westvirginia"),
    ("wi", "wisconsin"),
    ("wy", "wyoming"),
    ("as", "americansamoa"),
    ("gu", "guam"),
    ("mp", "northernmarianaislands"),
    ("pr", "puertorico"),
    ("vi", "usvirginislands"),
    ("dc", "washingtondc"),
    ("aa", "armedforcesamericas"),
    ("ae", "armedforceseurope"),
    ("ap", "armedforcespacific"),
    ("fm", "federatedstatesofmicronesia"),
    ("pw", "palau"),
];

/// The code of a state given as code, name or ISO 3166-2 ("US-CA"). `bare` is `text` in lower case without spaces and
/// punctuation.
pub(super) fn code(text: &str, bare: &str) -> Option<&'static str> {
    let is_iso = bare.len() == 4 && text.len() == 5 && text.as_bytes()[2] == b'-' && bare.starts_with("us");
    let wanted = if is_iso { &bare[2..] } else { bare };
    STATES.iter().find(|(code, name)| *code == wanted || *name == wanted).map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_known_by_itself_and_by_its_name() {
        for (code_of, name) in STATES {
            assert_eq!(code(code_of, code_of), Some(code_of));
            assert_eq!(code(name, name), Some(code_of));
        }
    }

    #[test]
    fn an_iso_subdivision_is_a_state_too() {
        assert_eq!(code("US-CA", "usca"), Some("ca"));
        assert_eq!(code("usca", "usca"), None);
        assert_eq!(code("US-ZZ", "uszz"), None);
    }
}
