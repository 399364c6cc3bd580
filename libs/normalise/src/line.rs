//! The command `tracklayer normalize`: one line of JSON in, one line of JSON out, without server or network.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{Field, Hints, Outcome, Platform, normalise};

/// Answers one line `{id, destination, field, input, country_code?}` with `{id, normalized?, hash?, omitted?,
/// rejected?}`, where the last two are reasons. `options` may hold `assume_international` and `lower_external_id`.
/// Never fails: what cannot be read is answered as rejected. The machine's clock gives the year after which nobody is
/// born, unless the line says `now_year`.
pub fn answer(line: &str) -> String {
    let Ok(Value::Object(question)) = serde_json::from_str::<Value>(line) else {
        return told(Value::Null, [("rejected", "not a JSON object".to_owned())]);
    };
    let id = question.get("id").cloned().unwrap_or(Value::Null);
    match outcome(&question) {
        Ok(Outcome::Normalised { value, hash: None }) => told(id, [("normalized", value)]),
        Ok(Outcome::Normalised { value, hash: Some(hash) }) => {
            told(id, [("normalized", value), ("hash", hash.to_string())])
        }
        Ok(Outcome::AlreadyHashed { hash }) => told(id, [("hash", hash)]),
        Ok(Outcome::Omitted { reason }) => told(id, [("omitted", reason.text().to_owned())]),
        Ok(Outcome::Rejected { reason }) => told(id, [("rejected", reason.text().to_owned())]),
        Err(why) => told(id, [("rejected", why)]),
    }
}

fn outcome(question: &Map<String, Value>) -> Result<Outcome, String> {
    let text = |key: &str| question.get(key).and_then(Value::as_str);
    let destination = text("destination").or_else(|| text("platform")).ok_or("no destination")?;
    let platform = destination.parse::<Platform>().map_err(|why| why.to_string())?;
    let field = text("field").ok_or("no field")?.parse::<Field>().map_err(|why| why.to_string())?;
    let input = match question.get("input") {
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
        // Ids are numbers in many shops; their text is what the browser's pixel would hash.
        Some(Value::Number(number)) => Cow::Owned(number.to_string()),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return Err("input is neither a string nor a number".to_owned());
        }
    };
    let is_set = |key: &str| {
        let option =
            question.get("options").and_then(|options| options.get(key)).or_else(|| question.get(key));
        option.and_then(Value::as_bool).unwrap_or(false)
    };
    let hints = Hints {
        country: text("country_code").or_else(|| text("country")),
        assume_international: is_set("assume_international"),
        lower_external_id: is_set("lower_external_id"),
        now_year: Some(now_year(question)),
        numbers: None,
    };
    Ok(normalise(platform, field, &input, &hints))
}

fn now_year(question: &Map<String, Value>) -> i16 {
    let said = question.get("now_year").and_then(Value::as_i64).and_then(|year| year.try_into().ok());
    said.unwrap_or_else(|| jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year())
}

fn told<const N: usize>(id: Value, members: [(&str, String); N]) -> String {
    let mut answer = Map::new();
    answer.insert("id".to_owned(), id);
    for (key, value) in members {
        answer.insert(key.to_owned(), Value::String(value));
    }
    Value::Object(answer).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_field_is_told_with_its_form_and_its_digest() {
        let line = r#"{"id":"a","destination":"meta_capi","field":"ct","input":"New York"}"#;
        let hash = crate::sha256_hex("newyork");
        assert_eq!(answer(line), format!(r#"{{"id":"a","normalized":"newyork","hash":"{hash}"}}"#));
    }

    #[test]
    fn a_plain_field_has_no_digest_and_a_digest_no_form() {
        let plain = r#"{"id":1,"destination":"google","field":"city","input":" Köln "}"#;
        assert_eq!(answer(plain), r#"{"id":1,"normalized":"köln"}"#);
        let hash = crate::sha256_hex("x");
        let hashed = format!(r#"{{"id":2,"destination":"tiktok","field":"email","input":"{hash}"}}"#);
        assert_eq!(answer(&hashed), format!(r#"{{"id":2,"hash":"{hash}"}}"#));
    }

    #[test]
    fn a_number_is_taken_for_its_text_and_null_for_nothing() {
        let number = r#"{"id":"n","destination":"tiktok","field":"external_id","input":123}"#;
        assert!(answer(number).contains(r#""normalized":"123""#));
        let nothing = r#"{"id":"n","destination":"tiktok","field":"external_id","input":null}"#;
        assert_eq!(answer(nothing), r#"{"id":"n","omitted":"empty"}"#);
    }

    #[test]
    fn options_and_country_are_heard() {
        let line = r#"{"id":"p","destination":"tiktok","field":"phone","input":"12345678901234","options":{"assume_international":true}}"#;
        assert!(answer(line).contains(r#""normalized":"+12345678901234""#));
        let line =
            r#"{"id":"p","destination":"google","field":"phone","input":"030 901820","country_code":"DE"}"#;
        assert!(answer(line).contains(r#""normalized":"+4930901820""#));
    }

    #[test]
    fn what_cannot_be_read_is_answered_too() {
        assert_eq!(answer("]"), r#"{"id":null,"rejected":"not a JSON object"}"#);
        for line in [
            r#"{"id":"x","destination":"webhook","field":"email","input":"a@b.de"}"#,
            r#"{"id":"x","destination":"meta","field":"shoe","input":"a"}"#,
            r#"{"id":"x","destination":"meta","input":"a"}"#,
            r#"{"id":"x","destination":"meta","field":"email","input":[1]}"#,
        ] {
            assert!(answer(line).starts_with(r#"{"id":"x","rejected":""#), "{line}");
        }
    }
}
