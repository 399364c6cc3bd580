//! Resolved event + settings → the body of one request.

use std::borrow::Cow;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::Value;
use tracklayer_normalise::{Field, Platform};

use super::names::{REFUND, name_of, sanitised};
use super::recommended;
use super::settings::Settings;
use super::{MAX_EVENT_AGE, MAX_SKEW};
use crate::body::ItemBody;
use crate::clicks;
use crate::commerce::{
    Currency, OrderFacts, Product, check_order_id, decimal_of, number, order_id, products, refund_amount,
    refund_is_unpriced, taken_off,
};
use crate::connection::{Connection, harmless_properties, looks_personal};
use crate::deliverable::{Consent, Deliverable, text_of};
use crate::fields::{Fields, Member};
use crate::google;
use crate::google::order::{Act, ReportedBy, state_of};
use crate::google::user::address;
use crate::json::Json;
use crate::outcome::{Item, Note, OrderEffect, Refusal, RefusalCode, Remark, Rule};
use crate::person::{self, KeyName, PersonKeys};
use crate::quality::{Key, KeySet};
use crate::timing;
use crate::unsent;
use crate::usual::{usual, usuals};

/// Most parameters of an event. Source: GA4 Measurement Protocol, "Limitations"; 2026-11.
const MAX_PARAMS: usize = 25;
/// Most items of an event.
const MAX_ITEMS: usize = 200;
/// Longest text of a parameter; some have their own length.
const MAX_TEXT: usize = 100;

/// Builds the body.
pub fn build(
    connection: &Connection,
    settings: &Settings,
    event: &Deliverable,
    now: Timestamp,
) -> Result<Item, Refusal> {
    let mut notes = Vec::new();
    let built = item(connection, settings, event, now, &mut notes);
    built.map_err(|refusal| refusal.with_notes(notes))
}

fn item(
    connection: &Connection,
    settings: &Settings,
    event: &Deliverable,
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> Result<Item, Refusal> {
    let name = name_of(connection, settings, event)?;
    let act = act_of(event, &name);
    let time = timing::checked(event, now, Some(MAX_EVENT_AGE), MAX_SKEW)?.min(now);
    check_refund(connection, settings, event, act)?;
    let all = products(event, &settings.content_id_from);
    let mut own_keys = None;
    let mut body = Fields::with_capacity(7);
    let (key, client) = client_id(connection, settings, event)?;
    body.push(key, client);
    match event.event.user_id.trim() {
        "" => {}
        id if looks_personal(Json::Text(id)) => notes.push(Note::rejected("user_id", Rule::LooksPersonal)),
        id => body.push("user_id", id),
    }
    body.push("timestamp_micros", time.as_microsecond());
    body.push_some("consent", consent(&event.decision));
    if settings.send_user_data && !event.decision.denies_user_data() {
        let user = user_data(connection, settings, event, &mut own_keys, notes);
        if !user.is_empty() {
            body.push("user_data", user);
        }
    }
    if settings.send_ip
        && !event.decision.denies_user_data()
        && let Some(ip) = person::address(connection, event, "ip_override", notes)
    {
        body.push("ip_override", ip);
    }
    let params = params(connection, settings, event, &all, (&name, act), notes)?;
    let (order, remark) = order_effect(connection, event, act, &params, time);
    let told = Fields::default().with("name", &*name).with("params", params);
    body.push("events", list_of(told));
    Ok(Item {
        keys: Some(keys_in(&body)),
        body: ItemBody::of(&body),
        notes: std::mem::take(notes),
        group: String::new(),
        exclusive: None,
        event_id: connection.event_id(event).into_owned(),
        // GA4 knows no event ids: a repeat counts again.
        repeatable: false,
        name: name.into_owned(),
        order,
        remark,
        built_at: now,
    })
}

/// What Google Analytics can join a person by.
pub const TAKEN_KEYS: KeySet = KeySet::of(&[
    Key::ClientId,
    Key::ExternalId,
    Key::Email,
    Key::Phone,
    Key::FirstName,
    Key::LastName,
    Key::Street,
    Key::City,
    Key::State,
    Key::PostalCode,
    Key::Country,
    Key::Ip,
]);

/// What of it a body has.
fn keys_in(body: &Fields<'_>) -> KeySet {
    let user = fields_of(body.get("user_data"));
    let address = fields_of(user.and_then(|user| user.get("address")));
    let parts = [Some(body), user, address].into_iter().flatten();
    parts.fold(KeySet::NONE, |keys, part| keys.and(KeySet::of_names(part.names(), key_of)))
}

/// The object that stands there, or that a list there begins with.
fn fields_of<'m, 'a>(member: Option<&'m Member<'a>>) -> Option<&'m Fields<'a>> {
    match member? {
        Member::Object(fields) => Some(fields),
        Member::List(items) => fields_of(items.first()),
        Member::Text(_) | Member::Number(_) | Member::Bool(_) | Member::Value(_) | Member::Texts(_) => None,
    }
}

/// A list of one object.
fn list_of(fields: Fields<'_>) -> Member<'_> {
    std::iter::once(fields).collect()
}

/// The key that stands under a name.
fn key_of(name: &[u8]) -> Option<Key> {
    Some(match name {
        b"client_id" | b"app_instance_id" => Key::ClientId,
        b"user_id" => Key::ExternalId,
        b"sha256_email_address" => Key::Email,
        b"sha256_phone_number" => Key::Phone,
        b"sha256_first_name" => Key::FirstName,
        b"sha256_last_name" => Key::LastName,
        b"sha256_street" => Key::Street,
        b"city" => Key::City,
        b"region" => Key::State,
        b"postal_code" => Key::PostalCode,
        b"country" => Key::Country,
        b"ip_override" => Key::Ip,
        _ => return None,
    })
}

/// What an event does to an order, by its name at GA4: a shop may call its sales and refunds as it likes.
fn act_of(event: &Deliverable, name: &str) -> Act {
    match name {
        "purchase" => Act::Purchase,
        REFUND if Act::of(event) == Act::Cancel => Act::Cancel,
        REFUND => Act::Refund,
        _ => Act::Conversion,
    }
}

/// What the lane must remember about the order, since refunds are told in the terms of what went out for it; and what the ledger
/// says where one was not.
fn order_effect(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    params: &Fields<'_>,
    at: Timestamp,
) -> (Option<OrderEffect>, Option<Remark>) {
    let currency = params.get("currency").and_then(Member::as_value).and_then(Json::as_str);
    match act {
        Act::Purchase => {
            let value = value_in(params);
            (OrderFacts::of(connection, event).sold(value, currency, at, None), None)
        }
        Act::Refund | Act::Cancel => {
            let amount = amount_back(connection, event, act);
            let remark = remark(connection, event, act, amount, currency);
            // What is left open, or is in another currency, says nothing about what is left.
            let counts = !matches!(remark, Some(Remark::AmountOpen | Remark::OtherCurrency));
            let order_id = order_id(connection, event).filter(|_| counts).map(Cow::into_owned);
            (order_id.map(|order_id| OrderEffect::Refunded { order_id, amount, at, changed_at: at }), remark)
        }
        Act::Conversion | Act::Update => (None, None),
    }
}

/// The value that goes out.
fn value_in(params: &Fields<'_>) -> Option<Decimal> {
    params.get("value").and_then(Member::as_value).and_then(decimal_of)
}

fn remark(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    amount: Option<Decimal>,
    currency: Option<&str>,
) -> Option<Remark> {
    if is_left_open(connection, event, act) {
        return Some(Remark::AmountOpen);
    }
    let sold_in = event.order_state.as_ref().and_then(|state| state.currency.as_deref());
    if amount.is_some() && sold_in.is_some() && sold_in != currency {
        return Some(Remark::OtherCurrency);
    }
    unsent::remark(event)
}

/// Refuses a refund of a purchase that was not sent, or of which nothing is left, or not so much as it would take off.
fn check_refund(
    connection: &Connection,
    settings: &Settings,
    event: &Deliverable,
    act: Act,
) -> Result<(), Refusal> {
    if !matches!(act, Act::Refund | Act::Cancel) {
        return Ok(());
    }
    unsent::check_sent(event, settings.unsent_orders)?;
    let Some(state) = &event.order_state else { return Ok(()) };
    unsent::check_something_left(state)?;
    // Told as everything, or as what the order was worth, it would take off again what came back before.
    let is_rest = amount_back(connection, event, act).is_none() && !is_left_open(connection, event, act);
    let is_unknown = !state.is_sold() && unsent::original_value(event).is_none();
    if is_rest && is_unknown && !state.refunded.is_zero() {
        let why = "a part of the order came back before, and what it was worth is not known: say how much comes back, or \
                   properties.original_value";
        return Err(Refusal::new(RefusalCode::MissingValue, why).at("properties.total"));
    }
    Ok(())
}

/// What comes back; none: everything that is left, or it is left open.
fn amount_back(connection: &Connection, event: &Deliverable, act: Act) -> Option<Decimal> {
    refund_amount(connection, event).filter(|_| act != Act::Cancel && !is_left_open(connection, event, act))
}

fn is_left_open(connection: &Connection, event: &Deliverable, act: Act) -> bool {
    act != Act::Cancel && refund_is_unpriced(connection, event)
}

/// A client id is taken from the browser, never invented: an invented one is a new visitor.
fn client_id<'a>(
    connection: &'a Connection,
    settings: &Settings,
    event: &'a Deliverable,
) -> Result<(&'static str, Cow<'a, str>), Refusal> {
    let option = |place| event.at(place).and_then(text_of);
    let (key, found) = if settings.firebase_app_id.is_some() {
        let found = option(usual!("integrations.Google Analytics 4.firebaseAppInstanceId"))
            .or_else(|| connection.text(event, "client_id", usuals!["properties.app_instance_id"]));
        ("app_instance_id", found)
    } else {
        let found = option(usual!("integrations.Google Analytics 4.clientId"))
            .or_else(|| clicks::find(connection, event, clicks::CLIENT_ID, None));
        ("client_id", found)
    };
    // A client id that is a person's address is none, and Google forbids it.
    found.filter(|id| !looks_personal(Json::Text(id))).map(|id| (key, id)).ok_or_else(|| {
        Refusal::new(RefusalCode::NoClientId, format!("no {key}: the event cannot be joined to a visitor"))
            .at("integrations.Google Analytics 4.clientId")
            .as_platform("NO_CLIENT_ID")
    })
}

/// Both words, or nothing where nothing is known. The firewall allows GA4 for analytics alone: what else is denied is said here.
fn consent(decision: &Consent) -> Option<Fields<'static>> {
    let word = |denied: bool| if denied { "DENIED" } else { "GRANTED" };
    (*decision != Consent::AllowUnstated).then(|| {
        Fields::default()
            .with("ad_user_data", word(decision.denies_user_data()))
            .with("ad_personalization", word(decision.denies_personalization()))
    })
}

/// Where GA4 has the keys that it takes lists of.
const CONTACTS: [KeyName; 2] = [
    KeyName {
        field: Field::Email,
        name: "sha256_email_address",
        target: "user_data.sha256_email_address",
        is_list: true,
    },
    KeyName {
        field: Field::Phone,
        name: "sha256_phone_number",
        target: "user_data.sha256_phone_number",
        is_list: true,
    },
];

fn user_data<'a>(
    connection: &Connection,
    settings: &Settings,
    event: &'a Deliverable,
    own: &'a mut Option<PersonKeys>,
    notes: &mut Vec<Note>,
) -> Fields<'a> {
    let country = settings.default_country.as_deref();
    let keys = person::keys_of(connection, event, Platform::Ga4, &google::user::KEYS, (country, None), own);
    let mut user = Fields::with_capacity(3);
    keys.insert(&CONTACTS, &mut user, notes);
    if let Some(address) = address(keys, notes) {
        let mut parts = Fields::with_capacity(7);
        parts.push("sha256_first_name", address.first_name);
        parts.push("sha256_last_name", address.last_name);
        parts.push_some("sha256_street", address.street);
        parts.push_some("city", address.city);
        parts.push_some("region", address.state);
        parts.push("postal_code", address.postal_code);
        parts.push("country", address.country);
        user.push("address", list_of(parts));
    }
    user
}

fn params<'a>(
    connection: &'a Connection,
    settings: &Settings,
    event: &'a Deliverable,
    all: &'a [Product<'a>],
    (name, act): (&str, Act),
    notes: &mut Vec<Note>,
) -> Result<Fields<'a>, Refusal> {
    let mut params = Fields::with_capacity(10);
    insert_money(&mut params, connection, event, act, all, notes)?;
    for &(param, from) in recommended::params_of(name) {
        let field = if param == "search_term" { "query" } else { param };
        let found = connection.text(event, field, from);
        insert_text(&mut params, param, found, MAX_TEXT);
    }
    if name == "page_view" {
        insert_page(&mut params, connection, event);
    }
    let items: Vec<Fields<'_>> = all.iter().filter_map(ga4_item).take(MAX_ITEMS).collect();
    if !items.is_empty() && !is_all_of_it(event, name, &params) {
        params.insert("items", items.into_iter().collect::<Member<'_>>());
    }
    if recommended::takes_others(name) {
        let taken = |(key, value): (String, Value)| {
            let key = sanitised(&key).filter(|key| !is_reserved_param(key))?;
            Some((key, cut(value)))
        };
        params.insert_new(harmless_properties(event, &TAKEN).into_iter().filter_map(taken));
    }
    let own_name =
        |key: &str| sanitised(key).filter(|name| !is_reserved_param(name) && !BUILT.contains(&name.as_str()));
    for name in connection.owned_custom_fields(event, "params.").filter_map(own_name) {
        params.remove(&name);
    }
    for (key, value) in connection.custom_fields(event, "params.", notes) {
        let name = own_name(&key);
        match (name, value) {
            (Some(name), value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => {
                params.insert(name, cut(value));
            }
            // GA4 would drop it, or the whole event, without a word.
            _ => notes.push(Note::rejected(format!("params.{key}"), Rule::NotAParameter)),
        }
    }
    let session = event
        .at(usual!("integrations.Google Analytics 4.sessionId"))
        .and_then(text_of)
        .or_else(|| connection.text(event, "session_id", usuals!["properties.ga_session_id"]))
        .filter(|id| id.bytes().all(|b| b.is_ascii_digit()));
    let room = MAX_PARAMS - 2;
    if params.names().count() > room {
        notes.push(Note::omitted("params", Rule::TooManyParameters));
        let mut kept = Fields::with_capacity(MAX_PARAMS);
        kept.extend(params.into_iter().take(room));
        params = kept;
    }
    insert_text(&mut params, "session_id", session, MAX_TEXT);
    params.insert("engagement_time_msec", settings.engagement_time_msec);
    Ok(params)
}

/// Parameters that are built here and checked; a custom one of that name would get round the checks.
const BUILT: [&str; 4] = ["transaction_id", "value", "currency", "items"];

const TAKEN: [&str; 10] = [
    "products",
    "event_id",
    "value",
    "revenue",
    "total",
    "currency",
    "client_id",
    "ga_session_id",
    "test",
    "items",
];

fn is_reserved_param(key: &str) -> bool {
    ["firebase_", "ga_", "google_", "gtag"].iter().any(|prefix| key.starts_with(prefix))
}

/// Purchases and refunds need their transaction; a value needs its currency.
fn insert_money<'a>(
    params: &mut Fields<'a>,
    connection: &'a Connection,
    event: &'a Deliverable,
    act: Act,
    all: &[Product<'_>],
    notes: &mut Vec<Note>,
) -> Result<(), Refusal> {
    let is_order = matches!(act, Act::Purchase | Act::Refund | Act::Cancel);
    if is_order {
        let id = order_id(connection, event).ok_or_else(|| {
            Refusal::new(RefusalCode::InvalidPayload, "a purchase or refund needs the order id")
                .at("properties.order_id")
        })?;
        check_order_id(&id)?;
        // Cut off it would be another order's as well.
        if id.chars().count() > MAX_TEXT {
            let why = format!("GA4 takes order ids of at most {MAX_TEXT} characters");
            return Err(Refusal::new(RefusalCode::InvalidPayload, why).at("properties.order_id"));
        }
        params.insert("transaction_id", id);
    }
    let currency = Currency::of(connection, event);
    let mut code = currency.code();
    let value = match act {
        Act::Purchase => {
            let value = connection.worth.of_purchase(event, all)?;
            currency.required()?;
            Some(value)
        }
        Act::Refund | Act::Cancel => {
            let sold = event.order_state.as_ref().and_then(|state| state.currency.as_deref());
            // Everything that is left is so in the order's currency, whatever the refund says.
            let is_rest =
                amount_back(connection, event, act).is_none() && !is_left_open(connection, event, act);
            code = if is_rest { sold.or(code) } else { code.or(sold) };
            refund_value(connection, event, act, code)
        }
        Act::Conversion | Act::Update => connection.worth.of_other(event, all),
    };
    match (value, code) {
        (Some(value), Some(code)) => {
            params.insert("value", number(value));
            params.insert("currency", code);
        }
        (Some(_), None) => notes.push(Note::rejected("params.value", Rule::ValueWithoutCurrency)),
        (None, _) => {}
    }
    if is_order {
        for (key, place) in [("tax", usual!("properties.tax")), ("shipping", usual!("properties.shipping"))] {
            if let Some(amount) = connection.find(event, key, &[place]).and_then(decimal_of) {
                params.insert(key, number(amount));
            }
        }
    }
    Ok(())
}

/// What a refund takes off, in the terms of the purchase that went out: 138.60 without tax is not refunded with 155.98. As
/// stated where the purchase is not known, or was in another currency, and nothing where it is left open what came back.
fn refund_value(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    currency: Option<&str>,
) -> Option<Decimal> {
    if is_left_open(connection, event, act) {
        return None;
    }
    let state = state_of(event, ReportedBy::Us);
    let is_in_its_currency = state.currency.as_deref().is_none_or(|sold| Some(sold) == currency);
    is_in_its_currency
        .then(|| taken_off(&state, amount_back(connection, event, act)))
        .flatten()
        .or_else(|| refund_amount(connection, event))
}

/// Whether a refund is all of an order that went out: then its items say nothing more.
fn is_all_of_it(event: &Deliverable, name: &str, params: &Fields<'_>) -> bool {
    let Some(state) = event.order_state.as_ref().filter(|_| name == REFUND) else { return false };
    state.refunded.is_zero() && state.value.is_some_and(|sold| value_in(params) == Some(sold))
}

fn insert_page<'a>(params: &mut Fields<'a>, connection: &'a Connection, event: &'a Deliverable) {
    insert_text(params, "page_location", person::page_url(connection, event), 1_000);
    insert_text(params, "page_referrer", person::referrer(connection, event), 420);
    let title = event
        .at(usual!("properties.title"))
        .or_else(|| event.at(usual!("context.page.title")))
        .and_then(text_of);
    insert_text(params, "page_title", title, 300);
}

fn insert_text<'a>(params: &mut Fields<'a>, key: &'static str, text: Option<Cow<'a, str>>, most: usize) {
    params.insert_some(key, text.map(|text| at_most(text, most)));
}

fn cut(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(at_most(text.into(), MAX_TEXT).into_owned()),
        other => other,
    }
}

/// The first so many characters.
fn at_most(text: Cow<'_, str>, most: usize) -> Cow<'_, str> {
    // Where there are no more bytes there are no more characters.
    let end = if text.len() > most { text.char_indices().nth(most) } else { None };
    match (end, text) {
        (None, text) => text,
        (Some((end, _)), Cow::Borrowed(text)) => Cow::Borrowed(&text[..end]),
        (Some((end, _)), Cow::Owned(text)) => Cow::Owned(text[..end].to_owned()),
    }
}

fn ga4_item<'a>(product: &'a Product<'_>) -> Option<Fields<'a>> {
    fn text<'a>(text: &'a Option<Cow<'_, str>>) -> Option<Cow<'a, str>> {
        text.as_deref().map(|text| at_most(text.into(), MAX_TEXT))
    }
    let mut item = Fields::with_capacity(8);
    item.push_some("item_id", text(&product.id));
    item.push_some("item_name", text(&product.name));
    if item.is_empty() {
        return None;
    }
    item.push_some("price", product.price.map(number));
    item.push("quantity", product.quantity);
    item.push_some("item_brand", text(&product.brand));
    item.push_some("item_category", text(&product.category));
    item.push_some("item_variant", text(&product.variant));
    item.push_some("coupon", text(&product.coupon));
    item.push_some("affiliation", text(&product.affiliation));
    item.push_some("index", product.position);
    Some(item)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, most, cut) in [("Größe", 5, "Größe"), ("Größe", 3, "Grö"), ("Größe", 0, ""), ("", 3, "")]
        {
            assert_eq!(at_most(text.into(), most), cut);
            assert_eq!(at_most(text.to_owned().into(), most), cut);
        }
    }

    #[test]
    fn an_item_without_id_and_name_is_no_item() {
        let priced = Product { price: decimal_of(&json!(3)), ..Product::default() };
        assert_eq!(ga4_item(&priced), None);
    }
}
