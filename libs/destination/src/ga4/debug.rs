//! `/debug/mp/collect`: takes the same body as the real address, says what is wrong with it and keeps nothing. The secret is not
//! checked there, nor whether the stream exists: what passes may still be dropped for either.
//!
//! Source: Google Analytics, "Measurement Protocol: validating events"; 2026-11.

use serde_json::{Value, json};

use super::Ga4;
use crate::outcome::{Answer, Item, told};
use crate::request::HttpRequest;
use crate::trial::{Finding, Trial};

/// The request by which GA4 tries an item, by its strict rules.
pub fn request(ga4: &Ga4, item: &Item) -> HttpRequest {
    let mut body = item.body.to_value();
    if let Some(body) = body.as_object_mut() {
        // The default lets pass what Google only recommends, and what reports then do not show.
        body.insert("validation_behavior".to_owned(), json!("ENFORCE_RECOMMENDATIONS"));
    }
    ga4.request("debug/mp/collect", &body)
}

/// Reads what it says: an empty list is good.
pub fn read(answer: &Answer) -> Trial {
    let json = answer.json().unwrap_or_default();
    let Some(messages) =
        json.get("validationMessages").and_then(Value::as_array).filter(|_| answer.status == 200)
    else {
        let detail = "no answer that GA4's debug address would give".to_owned();
        return Trial::Unanswered { code: format!("HTTP_{}", answer.status), detail };
    };
    let finding = |message: &Value| {
        let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
        Finding {
            index: Some(0),
            field: text("fieldPath").to_owned(),
            code: text("validationCode").to_owned(),
            detail: told(text("description")),
        }
    };
    Trial::of(messages.iter().map(finding).collect())
}
