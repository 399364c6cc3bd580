//! The events of a Data Manager request: what is violated at once, and what is only said later.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::data_manager::{Target, needs_transaction};
use super::{is_click_id, is_currency};
use crate::json::{Json, Object};
use crate::store::{Arrival, Key, Pages};

/// Source: Google, Data Manager API, "Limits"; 2026-11.
const MAX_IDENTIFIERS: usize = 10;

/// A violated field.
pub(super) struct Violation {
    pub(super) field: String,
    pub(super) text: String,
    pub(super) reason: &'static str,
}

impl Violation {
    pub(super) fn new(field: &str, text: &str, reason: &'static str) -> Self {
        Self { field: field.to_owned(), text: text.to_owned(), reason }
    }

    pub(super) fn wire(&self) -> Value {
        json!({ "field": self.field, "description": self.text, "reason": self.reason })
    }
}

/// Checks the event at `index`.
pub(super) fn check_event(
    index: usize,
    event: &Object<'_>,
    encoding: Option<&'static str>,
    targets: &[Target<'_>],
    violations: &mut Vec<Violation>,
) {
    let mut add = |field: &str, text: &str, reason: &'static str| {
        let dot = if field.is_empty() { "" } else { "." };
        let field = format!("events.events[{index}]{dot}{field}");
        violations.push(Violation { field, text: text.to_owned(), reason });
    };
    let missing = "Required field is missing.";
    if event.proto("eventTimestamp").is_none() {
        add("event_timestamp", missing, "REQUIRED_FIELD_MISSING");
    }
    // Optional by the reference, refused in practice. Source: googleapis/google-cloud-php issue 9201;
    // 2026-11.
    let source = event.proto("eventSource");
    if source.is_none_or(|source| {
        matches!(source, Json::Int(0)) || source.text() == Some("EVENT_SOURCE_UNSPECIFIED")
    }) {
        add("event_source", missing, "REQUIRED_FIELD_MISSING");
    }
    match event.proto_text("transactionId") {
        // Source: superdesigndev/treg issue 151; 2026-11.
        Some(id) if id.bytes().all(|byte| byte.is_ascii_digit()) => {
            add("transaction_id", "Transaction ID must not be purely numeric.", "INVALID_FORMAT");
        }
        None if needs_transaction(targets) => add("transaction_id", missing, "REQUIRED_FIELD_MISSING"),
        Some(_) | None => {}
    }
    if let Some(currency) = event.proto_text("currency").filter(|currency| !is_currency(currency)) {
        add("currency", &format!("Currency code {currency} is not valid."), "INVALID_CURRENCY_CODE");
    }
    for reference in event.proto_list("destinationReferences") {
        let known = targets.iter().any(|target| reference.text() == Some(target.reference));
        if !known {
            add("destination_references", "There is no such destination.", "INVALID_DESTINATION");
        }
    }
    let identifiers =
        event.proto_object("userData").map_or(&[] as &[Json<'_>], |user| user.proto_list("userIdentifiers"));
    if identifiers.is_empty() && !has_ad_identifier(event) {
        add("", "No identifiers were provided.", "NO_IDENTIFIERS_PROVIDED");
    }
    if identifiers.len() > MAX_IDENTIFIERS {
        add(
            "user_data.user_identifiers",
            "There are too many user identifiers.",
            "TOO_MANY_USER_IDENTIFIERS",
        );
    }
    for (place, identifier) in identifiers.iter().enumerate() {
        let Json::Object(identifier) = identifier else { continue };
        for (field, text, reason) in identifier_violations(identifier, encoding) {
            let dot = if field.is_empty() { "" } else { "." };
            add(&format!("user_data.user_identifiers[{place}]{dot}{field}"), text, reason);
        }
    }
}

fn has_ad_identifier(event: &Object<'_>) -> bool {
    event.proto_object("adIdentifiers").is_some_and(|ids| {
        ["gclid", "gbraid", "wbraid", "dclid", "sessionAttributes", "mobileDeviceId"]
            .into_iter()
            .any(|name| ids.proto_text(name).is_some())
    })
}

type Finding = (&'static str, &'static str, &'static str);

fn identifier_violations(identifier: &Object<'_>, encoding: Option<&'static str>) -> Vec<Finding> {
    let mut found = Vec::new();
    let given = ["emailAddress", "phoneNumber", "address"].into_iter();
    if given.filter(|name| identifier.proto(name).is_some()).count() != 1 {
        return vec![("", "Exactly one identifier must be set.", "REQUIRED_FIELD_MISSING")];
    }
    let mut hash = |field: &'static str, text: Option<&str>| match text.map(|text| check_hash(text, encoding))
    {
        None => found.push((field, "Required field is missing.", "REQUIRED_FIELD_MISSING")),
        Some(Err((text, reason))) => found.push((field, text, reason)),
        Some(Ok(())) => {}
    };
    if identifier.proto("emailAddress").is_some() {
        hash("email_address", identifier.proto_text("emailAddress"));
    }
    if identifier.proto("phoneNumber").is_some() {
        hash("phone_number", identifier.proto_text("phoneNumber"));
    }
    if let Some(address) = identifier.proto_object("address") {
        hash("address.given_name", address.proto_text("givenName"));
        hash("address.family_name", address.proto_text("familyName"));
        if address.proto("addressLine").is_some() {
            hash("address.address_line", address.proto_text("addressLine"));
        }
        let region = address.proto_text("regionCode").unwrap_or("");
        if region.len() != 2 || !region.bytes().all(|byte| byte.is_ascii_uppercase()) {
            found.push(("address.region_code", "Region code is not valid.", "INVALID_FORMAT"));
        }
        if address.proto_text("postalCode").is_none_or(|code| code.trim().is_empty()) {
            found.push(("address.postal_code", "Postal code is not valid.", "INVALID_POSTAL_CODE"));
        }
    }
    found
}

fn check_hash(text: &str, encoding: Option<&'static str>) -> Result<(), (&'static str, &'static str)> {
    let bytes = match encoding {
        None => return Err(("The encoding of the request is missing.", "REQUIRED_FIELD_MISSING")),
        Some("HEX") => hex::decode(text).map_err(|_| ("Not hex.", "INVALID_HEX_ENCODING"))?,
        Some(_) => STANDARD.decode(text).map_err(|_| ("Not base64.", "INVALID_BASE64_ENCODING"))?,
    };
    if bytes.len() == 32 { Ok(()) } else { Err(("Not a SHA-256 hash.", "INVALID_SHA256_FORMAT")) }
}

/// Counts an event at a destination. The same transaction id at the same action is an adjustment: value and
/// currency are overwritten and nothing is counted twice. An error is the reason that the verdict will give.
pub(super) fn count(
    pages: &mut Pages,
    target: &Target<'_>,
    event: &Object<'_>,
    text: &str,
    now: Timestamp,
    failing: bool,
) -> Result<(), &'static str> {
    if failing {
        return Err("INTERNAL_ERROR");
    }
    let time =
        event.proto_text("eventTimestamp").and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now);
    if time < now && now.duration_since(time).unsigned_abs() > target.action.lookback {
        return Err("EVENT_TOO_OLD");
    }
    let click = |name: &str| event.proto_object("adIdentifiers").and_then(|ids| ids.proto_text(name));
    for (name, reason) in
        [("gclid", "INVALID_GCLID"), ("gbraid", "INVALID_GBRAID"), ("wbraid", "INVALID_WBRAID")]
    {
        if click(name).is_some_and(|click| !is_click_id(click)) {
            return Err(reason);
        }
    }
    let (customer, action) = (target.customer.id.as_str(), target.action.id.as_str());
    let transaction = event.proto_text("transactionId");
    let any_click = click("gclid").or_else(|| click("gbraid")).or_else(|| click("wbraid"));
    let second = time.as_second().to_string();
    let key = match (transaction, any_click) {
        (Some(id), _) => Some(Key::of(&["transaction", customer, action, id])),
        (None, Some(click)) => Some(Key::of(&["click", customer, action, click, &second])),
        (None, None) => None,
    };
    let value = event.proto("conversionValue").and_then(Json::number);
    let currency = event.proto_text("currency");
    if let Some(first) = key.and_then(|key| pages.find(key)) {
        pages.repeat(first);
        if transaction.is_none() {
            return Err("DUPLICATE_GCLID");
        }
        pages.restate(first, value, currency);
        return Ok(());
    }
    let id = match (transaction, any_click) {
        (Some(id), _) => Cow::Borrowed(id),
        (None, Some(click)) => Cow::Owned(format!("{click}@{second}")),
        (None, None) => Cow::Borrowed(""),
    };
    let arrival = Arrival {
        key: None,
        identity: &format!("{customer}/{action}"),
        name: event.proto_text("eventName").unwrap_or("CONVERSION").into(),
        id,
        time: time.as_second(),
        value,
        currency: currency.map(Cow::Borrowed),
        body: text,
    };
    let record = pages.count(&arrival, now);
    if let Some(key) = key {
        pages.bind(key, record);
    }
    Ok(())
}
