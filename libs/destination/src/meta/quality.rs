//! How well Meta can match what it is sent: an estimate of its own from the keys that went out, and Meta's figure from the Dataset
//! Quality API.
//!
//! **Meta does not publish how it reckons Event Match Quality.** It says that the score of 0 to 10 looks at which customer information
//! comes, of what quality it is, and what share of the events is matched to accounts, which nobody else knows (Meta, Marketing API,
//! reference of `AdsPixelCAPIEMQ`, `composite_score`; 2026-11), and puts the keys into three classes of importance (Meta Business Help
//! Center 765081237991954, "About event match quality"; 2025-11). The classes are Meta's, the numbers of [`WEIGHTS`] are ours.

use serde_json::Value;

use crate::outcome::{Answer, told};
use crate::quality::{EventQuality, Key, KeyCounts, KeySet};

/// What Meta can match a person by. Source: Meta, CAPI/parameters/customer-information-parameters; 2026-01.
pub const TAKEN: KeySet = KeySet::of(&[
    Key::Email,
    Key::Phone,
    Key::ExternalId,
    Key::Fbc,
    Key::Fbp,
    Key::FirstName,
    Key::LastName,
    Key::BirthDate,
    Key::Gender,
    Key::City,
    Key::State,
    Key::PostalCode,
    Key::Country,
    Key::Ip,
    Key::UserAgent,
    Key::MobileAdId,
    Key::FbLoginId,
    Key::LeadId,
]);

/// What of it `user_data` has.
pub fn keys_of(user: &crate::fields::Fields<'_>) -> KeySet {
    KeySet::of_names(user.names(), key_of)
}

/// The key that stands under a name of `user_data`.
fn key_of(name: &[u8]) -> Option<Key> {
    Some(match name {
        b"em" => Key::Email,
        b"ph" => Key::Phone,
        b"external_id" => Key::ExternalId,
        b"fbc" => Key::Fbc,
        b"fbp" => Key::Fbp,
        b"fn" => Key::FirstName,
        b"ln" => Key::LastName,
        b"db" => Key::BirthDate,
        b"ge" => Key::Gender,
        b"ct" => Key::City,
        b"st" => Key::State,
        b"zp" => Key::PostalCode,
        b"country" => Key::Country,
        b"client_ip_address" => Key::Ip,
        b"client_user_agent" => Key::UserAgent,
        b"madid" => Key::MobileAdId,
        b"fb_login_id" => Key::FbLoginId,
        b"lead_id" => Key::LeadId,
        _ => return None,
    })
}

/// How much a key counts in the estimate: 6 for Meta's class *high*, 4 for *medium*, 2 for *low*, of which the two names have one each.
/// Keys that Meta's list does not have (state, gender, address on the network, user agent) count nothing. Source of the classes: Meta
/// Business Help Center 765081237991954; 2025-11. Meta's best practices name others (e-mail, address, names, phone; 2026-06) without
/// an order.
const WEIGHTS: [(Key, f64); 11] = [
    (Key::Email, 6.0),
    (Key::Fbc, 6.0),
    (Key::BirthDate, 4.0),
    (Key::Country, 4.0),
    (Key::Phone, 4.0),
    (Key::ExternalId, 4.0),
    (Key::Fbp, 4.0),
    (Key::FirstName, 1.0),
    (Key::LastName, 1.0),
    (Key::City, 2.0),
    (Key::PostalCode, 2.0),
];

/// Keys that only few events can have: they help where they are there, and their absence lowers nothing.
const RARE: [(Key, f64); 2] = [(Key::FbLoginId, 4.0), (Key::LeadId, 2.0)];

/// An estimate of Meta's score: the weighted share of the keys that went out, of 10. None: there is no event.
pub fn estimate(counts: &KeyCounts) -> Option<f64> {
    if counts.events == 0 {
        return None;
    }
    let weighed =
        |keys: &[(Key, f64)]| keys.iter().map(|(key, weight)| weight * counts.share(*key)).sum::<f64>();
    let whole: f64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    Some((10.0 * (weighed(&WEIGHTS) + weighed(&RARE)) / whole).min(10.0))
}

/// What is asked of the Dataset Quality API. Source: Meta, CAPI/dataset-quality-api; 2026-11.
pub const FIELDS: &str = "web{event_name,event_match_quality{composite_score,match_key_feedback{identifier,coverage{percentage}}}}";

/// Most events of an answer that are read; Meta lists those of the last days.
const MOST_EVENTS: usize = 200;
/// Most keys of an event that are read.
const MOST_KEYS: usize = 50;
/// Most characters of a name.
const MOST_CHARS: usize = 100;

/// Reads an answer of the Dataset Quality API: website events only, a row for each name, anything of which may be missing.
pub fn read(answer: &Answer) -> Result<Vec<EventQuality>, String> {
    Ok(rows(answer)?.iter().filter_map(row).collect())
}

/// The rows of an answer.
pub(super) fn rows(answer: &Answer) -> Result<Vec<Value>, String> {
    let json = answer.json();
    if let Some(error) = json.as_ref().and_then(|json| json.get("error")).filter(|error| error.is_object()) {
        return Err(refused(error));
    }
    let rows = json.as_ref().and_then(|json| json.get("web")).and_then(Value::as_array);
    match (answer.status, rows) {
        (200..=299, Some(rows)) => Ok(rows.iter().take(MOST_EVENTS).cloned().collect()),
        // Where nothing came for days there is no row and no list.
        (200..=299, None) if json.as_ref().is_some_and(Value::is_object) => Ok(Vec::new()),
        (status, _) => Err(format!("no answer that Meta would give (HTTP {status})")),
    }
}

fn row(row: &Value) -> Option<EventQuality> {
    let quality = row.get("event_match_quality");
    let keys = quality.and_then(|quality| quality.get("match_key_feedback")).and_then(Value::as_array);
    let coverage = keys.into_iter().flatten().take(MOST_KEYS).filter_map(|key| {
        let percentage = key.get("coverage")?.get("percentage")?.as_f64()?;
        Some((our_word(&short(key.get("identifier")?.as_str()?)), percentage))
    });
    Some(EventQuality {
        event_name: short(row.get("event_name")?.as_str()?),
        score: quality.and_then(|quality| quality.get("composite_score")).and_then(Value::as_f64),
        coverage: coverage.collect(),
    })
}

fn short(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MOST_CHARS).collect()
}

/// Our word for a key as Meta calls it there; its own where we have none.
fn our_word(identifier: &str) -> String {
    match identifier {
        "ip_address" => Key::Ip.as_str().to_owned(),
        other => other.to_owned(),
    }
}

fn refused(error: &Value) -> String {
    let number = |key: &str| error.get(key).and_then(Value::as_i64);
    let code = number("code").unwrap_or(0);
    let name =
        number("error_subcode").map_or_else(|| code.to_string(), |subcode| format!("{code}/{subcode}"));
    let message = told(error.get("message").and_then(Value::as_str).unwrap_or_default());
    let advice = match code {
        190 | 102 | 104 => ": the access token is not accepted",
        3 | 10 | 200..=299 | 803 => ": the token's user needs the permission to manage the dataset",
        100 if number("error_subcode") == Some(33) => ": the dataset is not shared with the token's user",
        _ => "",
    };
    format!("Meta refused with {name}: {message}{advice}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn estimated(keys: &[Key]) -> f64 {
        estimate(&KeyCounts::of_one(KeySet::of(keys))).unwrap()
    }

    #[test]
    fn the_estimate_is_the_weighted_share_of_the_keys() {
        assert_eq!(estimate(&KeyCounts::default()), None, "of no event there is none");
        assert_eq!(estimated(&[]), 0.0);
        assert_eq!(estimated(&[Key::UserAgent, Key::Ip, Key::State, Key::Gender]), 0.0, "not on Meta's list");
        let whole: f64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        assert_eq!(whole, 38.0);
        assert_eq!(estimated(&[Key::Email]), 60.0 / 38.0);
        assert_eq!(estimated(&[Key::Email, Key::Phone, Key::LastName]), 110.0 / 38.0);
        let all: Vec<Key> = Key::ALL.into_iter().collect();
        assert_eq!(estimated(&all), 10.0, "what is rare lifts it no higher");
        assert!(estimated(&[Key::LeadId]) > 0.0);
    }

    #[test]
    fn a_key_that_half_of_the_events_have_counts_half() {
        let mut counts = KeyCounts::of_one(KeySet::of(&[Key::Email]));
        counts.add(KeySet::NONE);
        assert_eq!(estimate(&counts), Some(30.0 / 38.0));
    }

    #[test]
    fn metas_answer_is_read_whatever_is_missing() {
        let body = json!({ "web": [
            { "event_name": "Purchase", "event_match_quality": { "composite_score": 6.2, "match_key_feedback": [
                { "identifier": "email", "coverage": { "percentage": 100 } },
                { "identifier": "ip_address", "coverage": { "percentage": 87.5 } },
                { "identifier": "fbc" },
            ] } },
            { "event_name": "Lead" },
            { "event_match_quality": { "composite_score": 1 } },
        ] });
        let read_body = |status, body: &Value| read(&Answer::new(status, body.to_string()));
        let coverage = vec![("email".to_owned(), 100.0), ("ip".to_owned(), 87.5)];
        let purchase = EventQuality { event_name: "Purchase".to_owned(), score: Some(6.2), coverage };
        let lead = EventQuality { event_name: "Lead".to_owned(), score: None, coverage: Vec::new() };
        assert_eq!(read_body(200, &body), Ok(vec![purchase, lead]));
        assert_eq!(read_body(200, &json!({})), Ok(Vec::new()), "nothing came for days");
        assert!(read(&Answer::new(200, "<html>")).unwrap_err().contains("no answer that Meta would give"));
        assert!(read(&Answer::new(502, "")).unwrap_err().contains("502"));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refusal =
            |error: Value| read(&Answer::new(400, json!({ "error": error }).to_string())).unwrap_err();
        let missing = refusal(json!({ "code": 200, "message": "Permissions error" }));
        assert!(
            missing.contains("200: Permissions error")
                && missing.contains("permission to manage the dataset"),
            "{missing}"
        );
        let token = refusal(json!({ "code": 190, "error_subcode": 463, "message": "for a@example.com" }));
        assert!(token.contains("190/463: for ***") && token.contains("token"), "{token}");
    }
}
