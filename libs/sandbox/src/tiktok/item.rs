//! The checks of one item of `data`.

use jiff::Timestamp;

use super::Refusal;
use crate::json::{Item, Json, Number, Object};
use crate::options::TikTokOptions;

/// Above this an event lies in the future, milliseconds among them.
const MAX_AHEAD: i64 = 10 * 60;
/// Source: TikTok, "Custom events"; 2026-11.
const MAX_NAME: usize = 50;
const HASHED: [&str; 6] = ["email", "phone", "external_id", "first_name", "last_name", "zip_code"];
const CONTENT_TYPES: [&str; 2] = ["product", "product_group"];

/// Source: TikTok, "Supported standard events", with the old names that it still converts; 2026-11.
const STANDARD_EVENTS: [&str; 24] = [
    "AddPaymentInfo",
    "AddToCart",
    "AddToWishlist",
    "ApplicationApproval",
    "ClickButton",
    "CompletePayment",
    "CompleteRegistration",
    "Contact",
    "CustomizeProduct",
    "Download",
    "FindLocation",
    "InitiateCheckout",
    "Lead",
    "PageView",
    "Pageview",
    "PlaceAnOrder",
    "Purchase",
    "Schedule",
    "Search",
    "StartTrial",
    "SubmitApplication",
    "SubmitForm",
    "Subscribe",
    "ViewContent",
];

static NOTHING: Object<'static> = Object(Vec::new());

/// An item that passed.
pub(super) struct Checked<'a> {
    pub(super) name: &'a str,
    pub(super) id: &'a str,
    pub(super) time: i64,
    pub(super) value: Option<Number>,
    pub(super) currency: Option<&'a str>,
}

/// Checks the item at `index`.
pub(super) fn check<'a>(
    index: usize,
    item: &'a Item<'_>,
    source: &str,
    now: Timestamp,
    options: &TikTokOptions,
) -> Result<Checked<'a>, Refusal> {
    let Some(item) = item.object() else {
        return Err(invalid(index, "", "not a valid object."));
    };
    let name = check_name(index, item, source)?;
    let time = check_time(index, item, now, options)?;
    check_ids(index, item)?;
    let user = item.object("user").unwrap_or(&NOTHING);
    if item.present("user").is_some() && item.object("user").is_none() {
        return Err(invalid(index, "user", "not a valid object."));
    }
    check_hashes(user)?;
    let properties = item.object("properties").unwrap_or(&NOTHING);
    if item.present("properties").is_some() && item.object("properties").is_none() {
        return Err(invalid(index, "properties", "not a valid object."));
    }
    check_properties(index, properties)?;
    check_source(index, item, user, source, options)?;
    check_limited_data_use(index, item, user)?;
    Ok(Checked {
        name,
        id: item.text("event_id").unwrap_or(""),
        time,
        value: properties.get("value").and_then(Json::number),
        currency: properties.text("currency"),
    })
}

fn invalid(index: usize, field: &str, why: &str) -> Refusal {
    let dot = if field.is_empty() { "" } else { "." };
    Refusal::params(format!("Invalid value for data.{index}{dot}{field}: {why}"))
}

fn check_name<'a>(index: usize, item: &'a Object<'_>, source: &str) -> Result<&'a str, Refusal> {
    let name = item.text("event").unwrap_or("");
    if name.is_empty() {
        return Err(invalid(index, "event", "not a valid string."));
    }
    if STANDARD_EVENTS.contains(&name) {
        return Ok(name);
    }
    if source == "offline" {
        return Err(invalid(index, "event", "not a standard event."));
    }
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if name.len() > MAX_NAME || !letters || !name.as_bytes()[0].is_ascii_alphabetic() {
        return Err(invalid(
            index,
            "event",
            "a custom event has at most 50 letters, digits, underscores or hyphens and starts with a letter.",
        ));
    }
    Ok(name)
}

fn check_time(
    index: usize,
    item: &Object<'_>,
    now: Timestamp,
    options: &TikTokOptions,
) -> Result<i64, Refusal> {
    let Some(Json::Int(time)) = item.get("event_time") else {
        return Err(invalid(index, "event_time", "not a valid integer."));
    };
    let now = now.as_second();
    let max_age = i64::try_from(options.max_age.as_secs()).unwrap_or(i64::MAX);
    if *time < now.saturating_sub(max_age) {
        return Err(invalid(index, "event_time", "too old."));
    }
    if *time > now.saturating_add(MAX_AHEAD) {
        return Err(invalid(index, "event_time", "in the future."));
    }
    Ok(*time)
}

fn check_ids(index: usize, item: &Object<'_>) -> Result<(), Refusal> {
    let is_text =
        |object: &Object<'_>, name: &str| object.present(name).is_none_or(|value| value.text().is_some());
    if !is_text(item, "event_id") {
        // Without an index, as seen: stape-io/tiktok-tag issue 10.
        return Err(Refusal::params("Invalid value for event_id: not a valid string."));
    }
    let Some(properties) = item.object("properties") else { return Ok(()) };
    for name in ["order_id", "shop_id"] {
        if !is_text(properties, name) {
            return Err(invalid(index, &format!("properties.{name}"), "not a valid string."));
        }
    }
    let contents = properties.list("contents").unwrap_or(&[]);
    for (place, content) in contents.iter().enumerate() {
        if let Json::Object(content) = content
            && !is_text(content, "content_id")
        {
            let text = format!("data.{index}.properties.contents.{place}.content_id: Not a valid string");
            return Err(Refusal::params(text));
        }
    }
    if let Some(ids) = properties.list("content_ids")
        && ids.iter().any(|id| id.text().is_none())
    {
        return Err(invalid(index, "properties.content_ids", "not a valid list of strings."));
    }
    Ok(())
}

fn check_hashes(user: &Object<'_>) -> Result<(), Refusal> {
    for name in HASHED {
        let good = match user.present(name) {
            None => true,
            Some(Json::Text(text)) => is_hash(text),
            Some(Json::List(list)) => list.iter().all(|item| item.text().is_some_and(is_hash)),
            Some(_) => false,
        };
        if !good {
            return Err(Refusal(40062, "PII must be hashed.".into()));
        }
    }
    Ok(())
}

/// A digest is 64 lower-case hex digits; looked at without a branch for each.
fn is_hash(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() | (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().fold(true, |good, byte| good & is_digit(byte))
}

fn check_properties(index: usize, properties: &Object<'_>) -> Result<(), Refusal> {
    let number = |object: &Object<'_>, name: &str| object.present(name).is_none_or(Json::is_number);
    if !number(properties, "value") {
        return Err(invalid(index, "properties.value", "not a valid number."));
    }
    let currency = properties.present("currency");
    let known = currency.is_some_and(|currency| {
        currency.text().is_some_and(|text| text.parse::<iso_currency::Currency>().is_ok())
    });
    if !known && (currency.is_some() || properties.present("value").is_some()) {
        return Err(invalid(index, "properties.currency", "not an ISO 4217 currency."));
    }
    if let Some(kind) = properties.present("content_type")
        && !kind.text().is_some_and(|kind| CONTENT_TYPES.contains(&kind))
    {
        return Err(invalid(index, "properties.content_type", "neither product nor product_group."));
    }
    let contents = match properties.present("contents") {
        None => return Ok(()),
        Some(Json::List(contents)) => contents,
        Some(_) => return Err(invalid(index, "properties.contents", "not a valid list.")),
    };
    for (place, content) in contents.iter().enumerate() {
        let field = |name: &str| format!("properties.contents.{place}{name}");
        let Json::Object(content) = content else {
            return Err(invalid(index, &field(""), "not a valid object."));
        };
        for name in ["price", "quantity"] {
            if !number(content, name) {
                return Err(invalid(index, &field(&format!(".{name}")), "not a valid number."));
            }
        }
    }
    Ok(())
}

/// What each kind of source demands and refuses. Source: TikTok, Events API 2.0, "Event payload"; 2026-11.
fn check_source(
    index: usize,
    item: &Object<'_>,
    user: &Object<'_>,
    source: &str,
    options: &TikTokOptions,
) -> Result<(), Refusal> {
    let inner = |object: &str, name: &str| {
        item.object(object).and_then(|object| object.text(name)).is_some_and(|text| !text.trim().is_empty())
    };
    let has = |name: &str| user.get(name).is_some_and(|value| !value.is_blank());
    let required = |field: &str| Err(invalid(index, field, "missing."));
    if matches!(source, "offline" | "crm") {
        for name in ["page", "limited_data_use"] {
            if item.present(name).is_some() {
                return Err(invalid(index, name, &format!("not supported for {source} events.")));
            }
        }
    }
    let contact = has("email") || has("phone");
    match source {
        "web" if !inner("page", "url") => required("page.url"),
        "app" if !inner("app", "app_id") => required("app.app_id"),
        "offline" if !contact => required("user.email or user.phone"),
        "crm" if !inner("lead", "lead_id") => required("lead.lead_id"),
        "crm" if !contact && !has("external_id") => required("user.email, user.phone or user.external_id"),
        "web" | "app" if options.require_match_key && user.0.iter().all(|(_, value)| value.is_blank()) => {
            required("user")
        }
        _ => Ok(()),
    }
}

/// Limited data use works by the address. Source: TikTok, "Limited Data Use"; 2026-11.
fn check_limited_data_use(index: usize, item: &Object<'_>, user: &Object<'_>) -> Result<(), Refusal> {
    match item.present("limited_data_use") {
        None | Some(Json::Flag(false)) => Ok(()),
        Some(Json::Flag(true)) if user.get("ip").is_some_and(|ip| !ip.is_blank()) => Ok(()),
        Some(Json::Flag(true)) => Err(invalid(index, "user.ip", "missing; limited_data_use needs it.")),
        Some(_) => Err(invalid(index, "limited_data_use", "not a valid boolean.")),
    }
}
