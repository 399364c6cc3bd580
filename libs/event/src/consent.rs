//! Consent as seen with an event: captured, never interpreted.
//!
//! Whatever of a consent object cannot be read makes it `unreadable`, which counts as a refusal later on. Nothing here may
//! turn a refusal into its absence; so a key that stands twice is unreadable, too.

use serde_json::value::RawValue;
use tracklayer_proto::event::v1::{CategoryPreference, ConsentSignals};

use crate::json::{self, Scalar};

/// Longest consent string that is kept.
pub const MAX_STRING_BYTES: usize = 16 * 1024;
/// Most categories that one banner may have.
const MAX_CATEGORIES: usize = 200;

/// Reads `context.consent`.
pub fn take_consent_object(signals: &mut ConsentSignals, consent: &RawValue, js_or_server: &'static str) {
    if consent.get() == "null" {
        return;
    }
    if consent.get().starts_with('[') && json::is_blank(consent) {
        // An empty object of PHP.
        signals.has_categories = true;
        return;
    }
    let mut members = 0;
    let mut understood = 0;
    let mut seen: Vec<String> = Vec::new();
    let mut interaction = None;
    let read = json::for_each_member(consent.get(), |key, value| {
        members += 1;
        if seen.len() > MAX_CATEGORIES || seen.iter().any(|k| k == key) {
            signals.unreadable = true;
        } else {
            seen.push(key.to_owned());
        }
        understood += 1;
        match key {
            "categoryPreferences" | "category_preferences" => take_categories(signals, value),
            "gpc" | "globalPrivacyControl" | "isGpcEnabled" => take_gpc(signals, value, js_or_server),
            "interaction" => match Scalar::of(value) {
                Scalar::Bool(acted) => interaction = Some(acted),
                Scalar::Null => {}
                _ => interaction = Some(false),
            },
            "tcString" | "tc_string" | "tcfString" | "tcf_string" | "tcf" | "IABTCF_TCString" => {
                take_string(&mut signals.tc_string, &mut signals.unreadable, value);
            }
            "gppString" | "gpp_string" | "gpp" | "IABGPP_HDR_GppString" => {
                take_string(&mut signals.gpp_string, &mut signals.unreadable, value);
            }
            "gppSid" | "gpp_sid" | "IABGPP_GppSID" => take_sections(signals, value),
            "usPrivacy" | "us_privacy" | "uspString" | "usp_string" | "usp" | "IABUSPrivacy_String" => {
                take_string(&mut signals.us_privacy, &mut signals.unreadable, value);
            }
            "gcd" => take_string(&mut signals.gcd, &mut signals.unreadable, value),
            _ => understood -= 1,
        }
    });
    if read.is_err() || (members > 0 && understood == 0) {
        // Not an object, or one that says something in words that we do not know.
        signals.unreadable = true;
    } else if members == 0 {
        // Empty counts as "no" to every category. Source: Segment, Consent in Segment Connections; 2025-11.
        signals.has_categories = true;
    }
    if signals.has_categories {
        signals.interaction = interaction.unwrap_or(true);
    }
}

/// Reads RudderStack's `context.consentManagement`: lists of allowed and denied ids.
pub fn take_consent_management(signals: &mut ConsentSignals, management: &RawValue) {
    if json::is_blank(management) {
        return;
    }
    let read = json::for_each_member(management.get(), |key, value| {
        let allowed = match key {
            "allowedConsentIds" => true,
            "deniedConsentIds" => false,
            _ => return,
        };
        signals.has_categories = true;
        signals.interaction = true;
        let Ok(ids) = json::elements(value.get(), MAX_CATEGORIES) else {
            signals.unreadable |= value.get() != "null" && value.get() != "{}";
            return;
        };
        for id in ids {
            match json::text(id) {
                Some(category) => add_category(signals, &category, allowed),
                None => signals.unreadable = true,
            }
        }
    });
    signals.unreadable |= read.is_err();
}

/// Reads a statement about Global Privacy Control. `false` and absence are no statement; what is neither is unreadable.
/// Source: W3C, Global Privacy Control, 2026-04.
pub fn take_gpc(signals: &mut ConsentSignals, value: &RawValue, js_or_server: &'static str) {
    let on = match Scalar::of(value) {
        Scalar::Bool(on) => on,
        Scalar::Null => false,
        Scalar::Number("0") => false,
        Scalar::Number("1") => true,
        Scalar::Text(text) => match text.trim() {
            "1" | "true" => true,
            "" | "0" | "false" => false,
            _ => {
                signals.unreadable = true;
                false
            }
        },
        Scalar::Number(_) | Scalar::Other => {
            signals.unreadable = true;
            false
        }
    };
    if on && !signals.gpc {
        signals.gpc = true;
        js_or_server.clone_into(&mut signals.gpc_provenance);
    }
}

/// Whether the signals refuse something, or may: strings are not read here. A map of categories that refuses none may still
/// narrow, by leaving one out; who knows what the banner names has to look at that.
#[must_use]
pub fn refuses(signals: &ConsentSignals) -> bool {
    signals.gpc
        || signals.unreadable
        || (signals.has_categories && signals.categories.is_empty())
        || signals.categories.iter().any(|c| !c.allowed)
        || [&signals.tc_string, &signals.gpp_string, &signals.us_privacy, &signals.gcd]
            .iter()
            .any(|s| !s.is_empty())
}

/// Whether there is any statement at all.
#[must_use]
pub fn says_anything(signals: &ConsentSignals) -> bool {
    refuses(signals) || signals.has_categories || !signals.gpp_sid.is_empty()
}

fn take_categories(signals: &mut ConsentSignals, preferences: &RawValue) {
    signals.has_categories = true;
    if preferences.get().starts_with('[') && json::is_blank(preferences) {
        return;
    }
    let read = json::for_each_member(preferences.get(), |category, allowed| match Scalar::of(allowed) {
        Scalar::Bool(allowed) => add_category(signals, category, allowed),
        Scalar::Text(text) if text == "true" => add_category(signals, category, true),
        Scalar::Text(text) if text == "false" => add_category(signals, category, false),
        Scalar::Null => add_category(signals, category, false),
        _ => {
            add_category(signals, category, false);
            signals.unreadable = true;
        }
    });
    signals.unreadable |= read.is_err();
}

/// Named twice: the refusal counts.
fn add_category(signals: &mut ConsentSignals, category: &str, allowed: bool) {
    if let Some(known) = signals.categories.iter_mut().find(|c| c.category == category) {
        known.allowed &= allowed;
    } else if signals.categories.len() < MAX_CATEGORIES {
        signals.categories.push(CategoryPreference { category: category.to_owned(), allowed });
    } else {
        signals.unreadable = true;
    }
}

fn take_string(slot: &mut String, unreadable: &mut bool, value: &RawValue) {
    match Scalar::of(value) {
        Scalar::Null => {}
        Scalar::Text(text) if text.trim().is_empty() => {}
        Scalar::Text(text) if text.len() <= MAX_STRING_BYTES && (slot.is_empty() || *slot == *text) => {
            *slot = text.into_owned();
        }
        _ => *unreadable = true,
    }
}

/// `[7, 8]`, `7`, "7_8" or "7,8"; -1 says that none is in force.
fn take_sections(signals: &mut ConsentSignals, value: &RawValue) {
    let mut add = |text: &str| match text.trim().parse::<i32>() {
        Ok(section) if signals.gpp_sid.len() < 64 => signals.gpp_sid.push(section),
        _ => signals.unreadable = true,
    };
    match Scalar::of(value) {
        Scalar::Null => {}
        Scalar::Number(number) => add(number),
        Scalar::Text(text) => text.split(['_', ',']).filter(|part| !part.trim().is_empty()).for_each(add),
        Scalar::Bool(_) => signals.unreadable = true,
        Scalar::Other => match json::elements(value.get(), 64) {
            Ok(sections) => sections.into_iter().for_each(|s| add(s.get().trim_matches('"'))),
            Err(_) => signals.unreadable = true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(consent: &str) -> ConsentSignals {
        let mut signals = ConsentSignals::default();
        take_consent_object(&mut signals, &RawValue::from_string(consent.to_owned()).unwrap(), "js");
        signals
    }

    #[test]
    fn categories_are_kept_with_the_customers_names() {
        let signals = read(r#"{"categoryPreferences":{"Advertising":true,"Analytics":false}}"#);
        let categories: Vec<_> =
            signals.categories.iter().map(|c| (c.category.as_str(), c.allowed)).collect();
        assert_eq!(categories, [("Advertising", true), ("Analytics", false)]);
        assert!(signals.has_categories && signals.interaction && !signals.unreadable && refuses(&signals));
        assert!(!refuses(&read(r#"{"categoryPreferences":{"Advertising":true}}"#)));
    }

    #[test]
    fn an_empty_object_says_no_to_all_and_null_says_nothing() {
        for empty in ["{}", "[]", r#"{"categoryPreferences":{}}"#, r#"{"categoryPreferences":[]}"#] {
            let signals = read(empty);
            assert!(
                signals.has_categories && signals.categories.is_empty() && !signals.unreadable,
                "{empty}"
            );
            assert!(refuses(&signals), "{empty}");
        }
        assert_eq!(read("null"), ConsentSignals::default());
    }

    #[test]
    fn what_cannot_be_read_counts_as_unreadable_and_never_as_absent() {
        for broken in [
            "\"yes\"",
            "7",
            "[1]",
            "true",
            r#"{"foo":"bar"}"#,
            r#"{"categoryPreferences":null}"#,
            r#"{"categoryPreferences":"all"}"#,
            r#"{"categoryPreferences":{"Advertising":{}}}"#,
            r#"{"categoryPreferences":{"Advertising":1}}"#,
            r#"{"gpc":"maybe"}"#,
            r#"{"tcString":{}}"#,
            r#"{"gppSid":"seven"}"#,
            r#"{"categoryPreferences":{"A":true},"categoryPreferences":{"A":true}}"#,
        ] {
            assert!(read(broken).unreadable, "{broken}");
        }
    }

    #[test]
    fn a_category_named_twice_is_refused() {
        let signals = read(r#"{"categoryPreferences":{"Advertising":false,"Advertising":true}}"#);
        assert_eq!(signals.categories.len(), 1);
        assert!(!signals.categories[0].allowed);
    }

    #[test]
    fn strings_come_under_every_name_that_is_in_use() {
        let signals = read(
            r#"{"tcfString":"CP","gpp":"DB","gpp_sid":"7_8","uspString":"1YNN","gcd":"13r3","gpc":true}"#,
        );
        assert_eq!((signals.tc_string.as_str(), signals.gpp_string.as_str()), ("CP", "DB"));
        assert_eq!((signals.gpp_sid.as_slice(), signals.us_privacy.as_str()), ([7, 8].as_slice(), "1YNN"));
        assert_eq!(
            (signals.gpc, signals.gpc_provenance.as_str(), signals.has_categories),
            (true, "js", false)
        );
        assert_eq!(read(r#"{"gppSid":[7,"8"]}"#).gpp_sid, [7, 8]);
    }

    #[test]
    fn gpc_off_is_no_statement() {
        for off in ["false", "null", "0", "\"0\"", "\"\""] {
            let signals = read(&format!("{{\"gpc\":{off}}}"));
            assert!(!signals.gpc && !signals.unreadable, "{off}");
        }
        for on in ["true", "1", "\"1\"", "\"true\""] {
            assert!(read(&format!("{{\"gpc\":{on}}}")).gpc, "{on}");
        }
    }

    #[test]
    fn denied_ids_of_consent_management_are_categories_refused() {
        let mut signals = ConsentSignals::default();
        let management =
            r#"{"provider":"oneTrust","allowedConsentIds":["C0001"],"deniedConsentIds":["C0004"]}"#;
        take_consent_management(&mut signals, &RawValue::from_string(management.to_owned()).unwrap());
        let categories: Vec<_> =
            signals.categories.iter().map(|c| (c.category.as_str(), c.allowed)).collect();
        assert_eq!(categories, [("C0001", true), ("C0004", false)]);
    }

    proptest::proptest! {
        #[test]
        fn adding_a_refusal_is_never_lost(allowed: bool, more in proptest::collection::vec(("[a-c]", proptest::bool::ANY), 0..6)) {
            let mut text = format!("\"x\":{allowed}");
            for (name, value) in &more {
                text.push_str(&format!(",\"{name}\":{value}"));
            }
            let signals = read(&format!("{{\"categoryPreferences\":{{{text}}}}}"));
            for (name, value) in &more {
                if !value {
                    proptest::prop_assert!(signals.categories.iter().any(|c| &c.category == name && !c.allowed));
                }
            }
        }
    }
}
