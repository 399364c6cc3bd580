//! Resolved event + settings → one element of `events`.
//!
//! Source: `google-ads-datamanager` 0.9.4 (datamanager_v1 types), developers.google.com/data-manager/api; 2026-11.

use std::borrow::Cow;

use jiff::Timestamp;
use rust_decimal::Decimal;
use tracklayer_proto::event::v1::Channel;

use super::MAX_SKEW;
use super::settings::{EventSource, Settings};
use crate::body::ItemBody;
use crate::commerce::{
    OrderFacts, Product, Remainder, check_order_id, decimal_of, number, order_id, products, refund_amount,
    remainder,
};
use crate::connection::Connection;
use crate::deliverable::{Consent, Deliverable, OrderState, text_of};
use crate::fields::{Fields, Member};
use crate::google::action;
use crate::google::customer::CustomerType;
use crate::google::order::{
    Act, Adjusted, Money, ReportedBy, adjusted, check_says_worth, check_sent, currency_left, money,
    state_to_change,
};
use crate::google::time::rfc3339;
use crate::google::user::{Clicks, Identifiers};
use crate::google::{MAX_ADJUSTMENT_AGE, MAX_CONVERSION_AGE};
use crate::match_key::MatchKey;
use crate::outcome::{Item, Note, OrderEffect, Refusal, RefusalCode};
use crate::person::{self, PersonKeys};
use crate::quality::{Key, KeySet};
use crate::timing;
use crate::unsent;
use crate::usual::usuals;

/// Most identifiers of one event. Source: developers.google.com/data-manager/api/limits; 2026-11.
const MAX_IDENTIFIERS: usize = 10;

/// Builds the event's element of `events`.
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
    let act = Act::of(event);
    let action = action::of(connection, settings.conversion_action_id.as_deref(), event, act)?;
    check_says_worth(connection, event, act)?;
    let max_age = if act.is_adjustment() { MAX_ADJUSTMENT_AGE } else { MAX_CONVERSION_AGE };
    let time = timing::checked(event, now, Some(max_age), MAX_SKEW)?.min(now);
    let order_id = order_id(connection, event);
    if let Some(id) = &order_id {
        check_order_id(id)?;
    }
    let event_id = connection.event_id(event);
    let transaction = transaction_id(settings, order_id.as_deref(), &event_id)?;
    let all = products(event, &settings.content_id_from);
    let page = person::page_url(connection, event);
    let mut own_keys = None;

    let mut body = Fields::with_capacity(12);
    body.push("transactionId", transaction.as_str());
    let (at, worth) = if act.is_adjustment() {
        restated(connection, settings, event, act, order_id.as_deref(), time, now)?
    } else {
        (time, money(connection, event, act, &all, notes)?)
    };
    let is_sale = action::sells(connection, settings.conversion_action_id.as_deref(), event, act);
    let put = if is_sale && order_id.is_some() {
        put_by_sale(connection, event, worth.as_ref())?
    } else {
        worth.clone()
    };
    body.push("eventTimestamp", rfc3339(at));
    if let Some((value, currency)) = put {
        body.push("conversionValue", number(value));
        body.push("currency", currency);
    }
    body.push("eventSource", source_of(settings, connection, event).as_str());
    body.push_some("consent", consent(&event.decision));
    let clicks = Clicks::of(connection, event, page.as_deref(), notes);
    let ids = identifiers(connection, settings, event, &mut own_keys, notes);
    let match_key = insert_user(&mut body, event, act, clicks, &ids)?;
    let is_braid =
        body.get("adIdentifiers").is_some_and(|ids| ids.get("gbraid").or(ids.get("wbraid")).is_some());
    if !is_braid && !act.is_adjustment() && !event.decision.denies_user_data() {
        insert_cart(&mut body, connection, settings, event, &all);
    }
    if settings.send_device_info && !event.decision.denies_user_data() {
        insert_device(&mut body, connection, event, notes);
    }
    let keys = keys_in(&body);
    let tells_of_customer = !act.is_adjustment() && !event.decision.denies_user_data();
    if let Some(customer) = CustomerType::of(event).filter(|_| tells_of_customer) {
        body.insert("userProperties", Fields::default().with("customerType", customer.as_str()));
    }
    let variables = variables(connection, event, notes);
    if !variables.is_empty() {
        body.insert("customVariables", Member::from_iter(variables));
    }
    let order = effect(connection, event, act, is_sale, worth.as_ref(), order_id, time, match_key);
    Ok(Item {
        body: ItemBody::of(&body),
        notes: std::mem::take(notes),
        group: action.clone(),
        exclusive: Some(transaction),
        event_id: event_id.into_owned(),
        repeatable: true,
        name: action,
        order,
        remark: unsent::remark(event).filter(|_| act.is_adjustment()),
        keys: Some(keys),
        built_at: now,
    })
}

/// What Google can match a person by.
pub const TAKEN_KEYS: KeySet = KeySet::of(&[
    Key::Gclid,
    Key::Gbraid,
    Key::Wbraid,
    Key::Email,
    Key::Phone,
    Key::FirstName,
    Key::LastName,
    Key::PostalCode,
    Key::Country,
    Key::Ip,
    Key::UserAgent,
]);

/// What of it an event has.
fn keys_in(body: &Fields<'_>) -> KeySet {
    let parts =
        ["adIdentifiers", "userData", "eventDeviceInfo"].into_iter().filter_map(|part| body.get(part));
    parts.fold(KeySet::NONE, |keys, part| keys.and(KeySet::within(part, key_of)))
}

/// The key that stands under a name.
fn key_of(name: &[u8]) -> Option<Key> {
    Some(match name {
        b"gclid" => Key::Gclid,
        b"gbraid" => Key::Gbraid,
        b"wbraid" => Key::Wbraid,
        b"emailAddress" => Key::Email,
        b"phoneNumber" => Key::Phone,
        b"givenName" => Key::FirstName,
        b"familyName" => Key::LastName,
        b"postalCode" => Key::PostalCode,
        b"regionCode" => Key::Country,
        b"ipAddress" => Key::Ip,
        b"userAgent" => Key::UserAgent,
        _ => return None,
    })
}

/// The order's id, else the event's: with a transaction id a repeat adjusts what is there instead of counting twice.
fn transaction_id(settings: &Settings, order_id: Option<&str>, event_id: &str) -> Result<String, Refusal> {
    let id = format!("{}{}", settings.transaction_id_prefix, order_id.unwrap_or(event_id));
    // Seen refused in a live test although validateOnly takes it, and one refused event fails its whole request.
    // Source: superdesigndev/treg#151; 2026.
    if id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::new(
            RefusalCode::InvalidPayload,
            "Google refuses purely numeric transaction ids: set transaction_id_prefix",
        )
        .at("properties.order_id"));
    }
    Ok(id)
}

/// An adjustment is the same transaction once more with what is left; a retraction does not exist, so it is restated to 0.
/// Source: D/events/google-ads/conversion-adjustments; 2026-11.
fn restated(
    connection: &Connection,
    settings: &Settings,
    event: &Deliverable,
    act: Act,
    order_id: Option<&str>,
    time: Timestamp,
    now: Timestamp,
) -> Result<(Timestamp, Option<Money>), Refusal> {
    if order_id.is_none() {
        return Err(Refusal::new(RefusalCode::NoMatchKey, "a change of an order needs the order id")
            .at("properties.order_id"));
    }
    check_sent(event, act, settings.unsent_orders, now)?;
    let state = state_to_change(connection, event, act, ReportedBy::Us, (time, now))?;
    let left = match adjusted(connection, event, act, &state)? {
        Adjusted::Void => Decimal::ZERO,
        Adjusted::Worth(value) => value,
    };
    let code = currency_left(connection, event, act, &state)?;
    Ok((state.at.unwrap_or(time), Some((left, code))))
}

/// What a sale puts there. Google takes it in place of the value that stands there, which undoes what it was told
/// of the order since. So what was sold and then changed is not sold again; of what was changed before it was sold,
/// what is left goes out.
/// Source: D/events/google-ads/conversion-adjustments; 2026-11.
fn put_by_sale(
    connection: &Connection,
    event: &Deliverable,
    worth: Option<&Money>,
) -> Result<Option<Money>, Refusal> {
    let Some(state) = event.order_state.as_ref().filter(|state| state.is_changed()) else {
        return Ok(worth.cloned());
    };
    if state.is_sold() || state.is_all_back() {
        return Err(Refusal::new(
            RefusalCode::OrderAdjusted,
            "Google was told of a refund, a cancellation or a new value of the order by now, which its sale would \
             undo: if the order is worth something else, tell that as Order Updated",
        )
        .at("properties.order_id"));
    }
    let Some((value, code)) = worth.cloned() else { return Ok(None) };
    let total = OrderFacts::of(connection, event).total;
    let sold =
        OrderState { value: Some(value), total, currency: Some(code.clone().into_owned()), ..state.clone() };
    let left = match remainder(Some(&sold), Some(Decimal::ZERO)) {
        Remainder::Nothing => Decimal::ZERO,
        Remainder::Left(left) => left,
        Remainder::Unknown => value,
    };
    Ok(Some((left, code)))
}

fn source_of(settings: &Settings, connection: &Connection, event: &Deliverable) -> EventSource {
    let stated = connection.text(event, "action_source", usuals!["properties.action_source"]);
    match stated.as_deref() {
        Some("website") => EventSource::Web,
        Some("app") => EventSource::App,
        Some("physical_store") => EventSource::InStore,
        Some("phone_call") => EventSource::Phone,
        Some("chat" | "business_messaging") => EventSource::Message,
        _ if event.event.channel() == Channel::Mobile => EventSource::App,
        _ => settings.event_source,
    }
}

/// Both fields of the consent, or nothing where nothing is known: never UNSPECIFIED.
fn consent(decision: &Consent) -> Option<Fields<'static>> {
    let word = |denied: bool| if denied { "CONSENT_DENIED" } else { "CONSENT_GRANTED" };
    (*decision != Consent::AllowUnstated).then(|| {
        Fields::default()
            .with("adUserData", word(decision.denies_user_data()))
            .with("adPersonalization", word(decision.denies_personalization()))
    })
}

/// With user data denied only the click id remains: no identifiers, no cart. A change that has neither says what its order was
/// matched by; Google ignores it there, and refuses the event without it. Answers what a later change can say.
fn insert_user<'a>(
    body: &mut Fields<'a>,
    event: &'a Deliverable,
    act: Act,
    clicks: Clicks<'a>,
    ids: &Identifiers<'a>,
) -> Result<Option<MatchKey>, Refusal> {
    if clicks.is_empty() && ids.is_empty() {
        let of_order = event.order_state.as_ref().filter(|_| act.is_adjustment());
        let of_order = of_order.and_then(|state| state.match_key.as_ref());
        if let Some(key) = of_order.filter(|key| key.is_click() || !event.decision.denies_user_data()) {
            key.insert_into(body);
            return Ok(None);
        }
        return Err(Refusal::new(
            RefusalCode::NoMatchKey,
            if act.is_adjustment() {
                "neither a click id nor an e-mail, phone or whole address, and none of its order's that may be used"
            } else {
                "neither a click id nor an e-mail, phone or whole address"
            },
        )
        .at("context.traits.email")
        .as_platform("NO_IDENTIFIERS_PROVIDED"));
    }
    let match_key = MatchKey::of(&clicks, ids);
    if !clicks.is_empty() {
        body.push("adIdentifiers", clicks.members());
    }
    if !ids.is_empty() {
        body.push("userData", Fields::default().with("userIdentifiers", listed(ids)));
    }
    Ok(match_key)
}

/// Whether an event has nothing of its own that it may be matched by.
pub fn knows_nobody(connection: &Connection, settings: &Settings, event: &Deliverable) -> bool {
    let mut notes = Vec::new();
    let page = person::page_url(connection, event);
    Clicks::of(connection, event, page.as_deref(), &mut notes).is_empty()
        && identifiers(connection, settings, event, &mut None, &mut notes).is_empty()
}

/// None where user data is denied.
fn identifiers<'a>(
    connection: &Connection,
    settings: &Settings,
    event: &'a Deliverable,
    own: &'a mut Option<PersonKeys>,
    notes: &mut Vec<Note>,
) -> Identifiers<'a> {
    if event.decision.denies_user_data() {
        return Identifiers::default();
    }
    Identifiers::of(connection, event, settings.default_country.as_deref(), true, own, notes)
}

fn listed<'a>(ids: &Identifiers<'a>) -> Member<'a> {
    let one = |name, hash: &'a str| {
        let mut one = Fields::with_capacity(1);
        one.push(name, hash);
        one
    };
    let mut list: Vec<Fields<'_>> =
        ids.emails.iter().map(|hash| one("emailAddress", hash.as_str())).collect();
    list.extend(ids.phones.iter().map(|hash| one("phoneNumber", hash.as_str())));
    list.truncate(MAX_IDENTIFIERS - usize::from(ids.address.is_some()));
    if let Some(address) = ids.address {
        // Street, city and state are for Analytics only.
        let mut parts = Fields::with_capacity(4);
        parts.push("givenName", address.first_name);
        parts.push("familyName", address.last_name);
        parts.push("regionCode", address.country);
        parts.push("postalCode", address.postal_code);
        list.push(Fields::default().with("address", parts));
    }
    Member::from_iter(list)
}

/// The browser in which it happened. Source: `google-ads-datamanager` 0.9.4, `DeviceInfo`; 2026-11.
fn insert_device<'a>(
    body: &mut Fields<'a>,
    connection: &'a Connection,
    event: &'a Deliverable,
    notes: &mut Vec<Note>,
) {
    let mut device = Fields::default();
    device.insert_some("userAgent", person::user_agent(connection, event));
    device.insert_some("ipAddress", person::address(connection, event, "eventDeviceInfo.ipAddress", notes));
    if !device.is_empty() {
        body.insert("eventDeviceInfo", device);
    }
}

fn insert_cart<'a>(
    body: &mut Fields<'a>,
    connection: &Connection,
    settings: &'a Settings,
    event: &Deliverable,
    all: &'a [Product<'a>],
) {
    let Some(merchant) = &settings.merchant_id else { return };
    let items: Vec<Fields<'_>> = all
        .iter()
        .filter_map(|p| {
            // int64 is a JSON string.
            let mut item = Fields::default()
                .with("merchantProductId", p.id.as_deref()?)
                .with("quantity", p.quantity.to_string());
            if let Some(price) = p.price {
                item.insert("unitPrice", number(price));
            }
            Some(item)
        })
        .collect();
    if items.is_empty() {
        return;
    }
    let mut cart = Fields::default().with("merchantId", merchant.as_str());
    let feed =
        [("merchantFeedLabel", &settings.feed_label), ("merchantFeedLanguageCode", &settings.feed_language)];
    for (key, value) in feed {
        if let Some(value) = value {
            cart.insert(key, value.as_str());
        }
    }
    let discount = connection.find(event, "discount", usuals!["properties.discount"]).and_then(decimal_of);
    if let Some(discount) = discount.filter(|discount| !discount.is_sign_negative()) {
        cart.insert("transactionDiscount", number(discount));
    }
    cart.insert("items", Member::from_iter(items));
    body.insert("cartData", cart);
}

fn variables(connection: &Connection, event: &Deliverable, notes: &mut Vec<Note>) -> Vec<Fields<'static>> {
    connection
        .custom_fields(event, "custom_variables.", notes)
        .into_iter()
        .filter_map(|(variable, value)| {
            Some(Fields::default().with("variable", variable).with("value", text_of(&value)?.into_owned()))
        })
        .collect()
}

#[allow(clippy::too_many_arguments, reason = "all that says what became of an order")]
fn effect(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    is_sale: bool,
    worth: Option<&Money>,
    order_id: Option<Cow<'_, str>>,
    at: Timestamp,
    match_key: Option<MatchKey>,
) -> Option<OrderEffect> {
    let value = worth.map(|(value, _)| *value);
    match act {
        Act::Purchase | Act::Conversion if !is_sale => None,
        Act::Purchase | Act::Conversion => {
            let facts = OrderFacts::of(connection, event);
            facts.sold(value, worth.map(|(_, code)| &**code), at, match_key)
        }
        Act::Refund => Some(OrderEffect::Refunded {
            order_id: order_id?.into_owned(),
            amount: refund_amount(connection, event),
            at,
            changed_at: at,
        }),
        Act::Cancel => {
            Some(OrderEffect::Refunded { order_id: order_id?.into_owned(), amount: None, at, changed_at: at })
        }
        Act::Update => Some(OrderEffect::Restated {
            order_id: order_id?.into_owned(),
            value,
            total: OrderFacts::of(connection, event).total,
            currency: worth.map(|(_, code)| code.clone().into_owned()),
            at,
            changed_at: at,
        }),
    }
}
