//! GA4's Measurement Protocol: `POST /mp/collect` answers 204 whatever it gets and drops silently what is
//! wrong; `POST /debug/mp/collect` says what is wrong and keeps nothing. What the former drops is written
//! down here as a warning.
//!
//! Source: Google Analytics, Measurement Protocol (GA4), "Reference", "Limitations", "Validating events";
//! 2026-11.

use std::borrow::Cow;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::google::{is_currency, is_sha256};
use crate::json::{Items, Json, Object};
use crate::platform::Platform;
use crate::store::Arrival;

const MAX_EVENTS: usize = 25;
const MAX_PARAMS: usize = 25;
const MAX_NAME: usize = 40;
const MAX_VALUE: usize = 100;
const MAX_ITEMS: usize = 200;
const MAX_PROPERTIES: usize = 25;
const MAX_PROPERTY_NAME: usize = 24;
const MAX_PROPERTY_VALUE: usize = 36;
const MAX_BODY: usize = 130_000;
const MAX_AGE_SECONDS: i64 = 72 * 3600;
/// Google publishes no margin.
const MAX_AHEAD_SECONDS: i64 = 15 * 60;

const RESERVED_EVENTS: [&str; 22] = [
    "ad_activeview",
    "ad_click",
    "ad_exposure",
    "ad_impression",
    "ad_query",
    "ad_reward",
    "adunit_exposure",
    "app_background",
    "app_clear_data",
    "app_exception",
    "app_install",
    "app_remove",
    "app_update",
    "app_upgrade",
    "error",
    "first_open",
    "first_visit",
    "in_app_purchase",
    "os_update",
    "screen_view",
    "session_start",
    "user_engagement",
];
/// Starts that events, parameters and user properties may not have.
const RESERVED_STARTS: [&str; 5] = ["_", "firebase_", "ga_", "google_", "gtag."];
/// Starts of whole families of events that GA4 makes itself.
const RESERVED_FAMILIES: [&str; 3] = ["app_store_", "dynamic_link_", "notification_"];
const RESERVED_PROPERTIES: [&str; 5] =
    ["first_open_time", "first_visit_time", "last_deep_link_referrer", "user_id", "first_open_after_install"];

/// Something that the debug page would say.
struct Finding {
    /// The event it is about; none: the whole request.
    event: Option<usize>,
    field: String,
    text: String,
    code: &'static str,
}

/// Answers a request.
pub(crate) fn answer(world: &World, inbound: &Inbound<'_>) -> Answer {
    let debug = match inbound.path {
        "/mp/collect" => false,
        "/debug/mp/collect" => true,
        _ => return Answer::html(404, "Error 404 (Not Found)!!1"),
    };
    if *inbound.method != Method::POST {
        return Answer::empty(405);
    }
    let findings = findings(inbound);
    if debug {
        let messages: Vec<Value> = findings
            .iter()
            .map(|finding| {
                json!({ "fieldPath": finding.field, "description": finding.text, "validationCode": finding.code })
            })
            .collect();
        return Answer::json(200, &json!({ "validationMessages": messages }));
    }
    collect(world, inbound, &findings);
    Answer::empty(204)
}

#[derive(serde::Deserialize)]
struct Listed<'a> {
    #[serde(borrow, default)]
    events: Option<Items<'a>>,
}

/// Keeps what is good.
fn collect(world: &World, inbound: &Inbound<'_>, findings: &[Finding]) {
    let measurement = inbound.parameter("measurement_id").or_else(|| inbound.parameter("firebase_app_id"));
    let secret = inbound.parameter("api_secret").unwrap_or_default();
    let known = measurement.as_ref().and_then(|id| world.options.ga4.get(id)) == Some(&secret);
    let items = match serde_json::from_slice::<Listed<'_>>(inbound.body) {
        Ok(Listed { events: Some(Items::List(items)) }) => items,
        _ => Vec::new(),
    };
    let whole = findings.iter().any(|finding| finding.event.is_none());
    let stream = measurement.unwrap_or_default();
    let body: Option<Json<'_>> = serde_json::from_slice(inbound.body).ok();
    let shared_time = match &body {
        Some(Json::Object(body)) => micros(body),
        _ => None,
    };
    let (empty, mut arrivals) = (Object::default(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let bad = whole || findings.iter().any(|finding| finding.event == Some(index));
        if bad || !known || inbound.failing(index) {
            continue;
        }
        let Some(event) = item.object() else { continue };
        let params = event.object("params").unwrap_or(&empty);
        arrivals.push(Arrival {
            key: None,
            identity: &stream,
            name: event.text("name").unwrap_or("").into(),
            id: params.text("transaction_id").unwrap_or("").into(),
            time: micros(event).or(shared_time).map_or(inbound.now.as_second(), |micros| micros / 1_000_000),
            value: params.get("value").and_then(Json::number),
            currency: params.text("currency").map(Cow::Borrowed),
            body: item.text,
        });
    }
    let book = world.book(Platform::Ga4);
    book.accept(&arrivals, inbound.now, Duration::ZERO);
    let mut pages = book.open();
    pages.totals.refused_events += (items.len() - arrivals.len()) as u64;
    pages.warn("unknown_stream_or_secret", u64::from(!known));
    for finding in findings {
        pages.warn(finding.code, 1);
    }
}

fn micros(object: &Object<'_>) -> Option<i64> {
    match object.get("timestamp_micros")? {
        Json::Int(micros) => Some(*micros),
        Json::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn findings(inbound: &Inbound<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |event: Option<usize>, field: &str, text: String, code: &'static str| {
        found.push(Finding { event, field: field.to_owned(), text, code });
    };
    if inbound.body.len() > MAX_BODY {
        say(None, "", "The request body is too large.".to_owned(), "EXCEEDED_MAX_ENTITIES");
    }
    let Ok(Json::Object(body)) = serde_json::from_slice::<Json<'_>>(inbound.body) else {
        say(None, "", "Unable to parse Measurement Protocol JSON payload.".to_owned(), "VALUE_INVALID");
        return found;
    };
    let app = inbound.parameter("firebase_app_id").is_some();
    let id = if app { "app_instance_id" } else { "client_id" };
    if body.text(id).is_none_or(|text| text.trim().is_empty()) {
        say(None, id, format!("Measurement requires a {id}."), "VALUE_REQUIRED");
    }
    if let Some(micros) = micros(&body) {
        check_time(None, micros, inbound.now, &mut say);
    }
    check_consent(&body, &mut say);
    check_user_data(&body, &mut say);
    check_user_properties(&body, &mut say);
    match body.list("events") {
        None | Some([]) => {
            say(None, "events", "At least one event is required.".to_owned(), "VALUE_REQUIRED")
        }
        Some(events) if events.len() > MAX_EVENTS => {
            say(None, "events", format!("More than {MAX_EVENTS} events."), "EXCEEDED_MAX_ENTITIES");
        }
        Some(events) => {
            for (index, event) in events.iter().enumerate() {
                check_event(index, event, inbound.now, &mut say);
            }
        }
    }
    found
}

type Say<'s> = dyn FnMut(Option<usize>, &str, String, &'static str) + 's;

fn check_time(event: Option<usize>, micros: i64, now: Timestamp, say: &mut Say<'_>) {
    let age = now.as_second() - micros / 1_000_000;
    if !(-MAX_AHEAD_SECONDS..=MAX_AGE_SECONDS).contains(&age) {
        say(event, "timestamp_micros", "The timestamp is out of bounds.".to_owned(), "VALUE_OUT_OF_BOUNDS");
    }
}

fn check_consent(body: &Object<'_>, say: &mut Say<'_>) {
    let Some(consent) = body.object("consent") else { return };
    for (key, value) in &consent.0 {
        let known = matches!(key.as_ref(), "ad_user_data" | "ad_personalization");
        if !known || !matches!(value.text(), Some("GRANTED" | "DENIED")) {
            let text = format!("Consent {key} must be GRANTED or DENIED.");
            say(None, &format!("consent.{key}"), text, "VALUE_INVALID");
        }
    }
}

/// Members that are digests: a list of them, or one. Source: Google Analytics, "Send user-provided data with User-ID"; 2026-11.
fn check_user_data(body: &Object<'_>, say: &mut Say<'_>) {
    let Some(user) = body.object("user_data") else { return };
    let mut check = |at: &str, object: &Object<'_>| {
        for (key, value) in object.0.iter().filter(|(key, _)| key.starts_with("sha256_")) {
            let good = match value {
                Json::Text(text) => is_sha256(text),
                Json::List(list) => list.iter().all(|item| item.text().is_some_and(is_sha256)),
                _ => false,
            };
            if !good {
                let field = format!("user_data.{at}{key}");
                say(None, &field, format!("{key} must be SHA-256 in hex."), "VALUE_INVALID");
            }
        }
    };
    check("", user);
    for address in user.list("address").unwrap_or(&[]) {
        if let Json::Object(address) = address {
            check("address.", address);
        }
    }
}

fn check_user_properties(body: &Object<'_>, say: &mut Say<'_>) {
    let Some(properties) = body.object("user_properties") else { return };
    if properties.0.len() > MAX_PROPERTIES {
        say(None, "user_properties", format!("More than {MAX_PROPERTIES}."), "EXCEEDED_MAX_ENTITIES");
    }
    for (name, value) in &properties.0 {
        let field = format!("user_properties.{name}");
        if RESERVED_PROPERTIES.contains(&name.as_ref()) || is_reserved_start(name) {
            say(None, &field, format!("User property [{name}] is reserved."), "NAME_RESERVED");
        } else if !is_name(name, MAX_PROPERTY_NAME) {
            say(None, &field, format!("User property has invalid name [{name}]."), "NAME_INVALID");
        }
        let text = match value {
            Json::Object(value) => value.text("value"),
            _ => None,
        };
        if text.is_some_and(|text| text.chars().count() > MAX_PROPERTY_VALUE) {
            say(None, &field, "The value is too long.".to_owned(), "VALUE_OUT_OF_BOUNDS");
        }
    }
}

fn is_reserved_start(name: &str) -> bool {
    RESERVED_STARTS.iter().any(|start| name.starts_with(start))
}

/// A letter, then letters, digits and underscores.
fn is_name(name: &str, max: usize) -> bool {
    name.len() <= max
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn check_event(index: usize, event: &Json<'_>, now: Timestamp, say: &mut Say<'_>) {
    let at = Some(index);
    let Json::Object(event) = event else {
        say(at, "events", format!("Event at index: [{index}] is no object."), "VALUE_INVALID");
        return;
    };
    let name = event.text("name").unwrap_or("");
    let bad = |why: &str| format!("Event at index: [{index}] has {why} name [{name}].");
    if name.is_empty() {
        say(at, "events", format!("Event at index: [{index}] needs a name."), "VALUE_REQUIRED");
    } else if !is_name(name, MAX_NAME) {
        say(at, "events", bad("invalid"), "NAME_INVALID");
    } else if RESERVED_EVENTS.contains(&name)
        || is_reserved_start(name)
        || RESERVED_FAMILIES.iter().any(|start| name.starts_with(start))
    {
        say(at, "events", bad("reserved"), "NAME_RESERVED");
    }
    if let Some(micros) = micros(event) {
        check_time(at, micros, now, say);
    }
    let Some(params) = event.object("params") else { return };
    if params.0.len() > MAX_PARAMS {
        say(at, "events.params", format!("More than {MAX_PARAMS} parameters."), "EXCEEDED_MAX_ENTITIES");
    }
    for (key, value) in &params.0 {
        check_param(index, key, value, say);
    }
    if params.get("value").is_some() && params.text("currency").is_none() {
        say(at, "events.params.currency", "A value needs a currency.".to_owned(), "VALUE_REQUIRED");
    }
    let field = "events.params.value";
    if params.get("value").is_some_and(|value| value.number().is_none()) {
        say(at, field, "The value must be a number.".to_owned(), "VALUE_INVALID");
    }
    if let Some(currency) = params.text("currency").filter(|currency| !is_currency(currency)) {
        let text = format!("[{currency}] is not an ISO 4217 currency.");
        say(at, "events.params.currency", text, "VALUE_INVALID");
    }
    let has_transaction = params.text("transaction_id").is_some_and(|id| !id.is_empty());
    if matches!(name, "purchase" | "refund") && !has_transaction {
        let text = format!("Event [{name}] needs a transaction_id.");
        say(at, "events.params.transaction_id", text, "VALUE_REQUIRED");
    }
}

fn check_param(index: usize, key: &str, value: &Json<'_>, say: &mut Say<'_>) {
    let at = Some(index);
    let field = format!("events.params.{key}");
    if !is_name(key, MAX_NAME) || is_reserved_start(key) {
        say(at, &field, format!("Parameter has invalid name [{key}]."), "NAME_INVALID");
    }
    match value {
        Json::Text(text) => {
            let max = match key {
                "page_location" => 1_000,
                "page_referrer" => 420,
                "page_title" => 300,
                _ => MAX_VALUE,
            };
            if text.chars().count() > max {
                say(at, &field, format!("The value is longer than {max}."), "VALUE_OUT_OF_BOUNDS");
            }
        }
        Json::List(items) if key == "items" => {
            if items.len() > MAX_ITEMS {
                say(at, &field, format!("More than {MAX_ITEMS} items."), "EXCEEDED_MAX_ENTITIES");
            }
            let named = |item: &Json<'_>| match item {
                Json::Object(item) => item.text("item_id").or_else(|| item.text("item_name")).is_some(),
                _ => false,
            };
            if !items.iter().all(named) {
                say(at, &field, "Each item needs item_id or item_name.".to_owned(), "VALUE_REQUIRED");
            }
        }
        Json::List(_) | Json::Object(_) | Json::Null => {
            say(at, &field, "The value must be a text, a number or a boolean.".to_owned(), "VALUE_INVALID");
        }
        Json::Flag(_) | Json::Int(_) | Json::Real(_) => {}
    }
}
