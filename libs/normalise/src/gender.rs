//! Gender. Meta alone takes it, as `f` or `m`.

use crate::Reason;
use crate::rule::Form;

const FEMALE: [&str; 21] = [
    "f", "female", "w", "woman", "women", "girl", "lady", "she", "her", "mrs", "ms", "miss", "madam", "frau",
    "weiblich", "femme", "feminin", "femenino", "mujer", "donna", "vrouw",
];
const MALE: [&str; 20] = [
    "m",
    "male",
    "man",
    "men",
    "boy",
    "gentleman",
    "he",
    "him",
    "mr",
    "mister",
    "sir",
    "herr",
    "männlich",
    "maennlich",
    "homme",
    "masculin",
    "masculino",
    "hombre",
    "uomo",
    "mannelijk",
];

/// `f` or `m`; whatever else somebody may say about themselves is left out.
///
/// Source: Meta, "Customer Information Parameters"; 2026-01. Its parameter builder maps words in the same way (2026-06).
pub(crate) fn form(text: &str) -> Form {
    let word = crate::text::lower(text.trim_end_matches('.'));
    if FEMALE.contains(&word.as_str()) {
        Ok("f".to_owned())
    } else if MALE.contains(&word.as_str()) {
        Ok("m".to_owned())
    } else {
        Err(Reason::NeitherFNorM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_women_and_men_become_one_letter() {
        for word in ["F", "Female", "Mrs.", "Frau"] {
            assert_eq!(form(word), Ok("f".into()), "{word}");
        }
        for word in ["m", "MALE", "Mr.", "MÄNNLICH"] {
            assert_eq!(form(word), Ok("m".into()), "{word}");
        }
    }

    #[test]
    fn every_other_answer_is_left_out() {
        for word in ["non-binary", "u", "divers", "prefer not to say", "x", "1"] {
            assert_eq!(form(word), Err(Reason::NeitherFNorM), "{word}");
        }
    }
}
