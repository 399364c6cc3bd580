//! Resolved event + settings → one `ClickConversion` or `ConversionAdjustment`.
//!
//! Source: googleads v26 protos `conversion_upload_service`, `conversion_adjustment_upload_service`; 2026-11.

use jiff::Timestamp;
use rust_decimal::Decimal;
use tracklayer_proto::event::v1::Channel;

use super::settings::{Settings, UploadMode};
use super::{ADJUSTMENTS, CONVERSIONS, MAX_ENHANCEMENT_AGE, MAX_SKEW};
use crate::body::ItemBody;
use crate::commerce::{
    Currency, OrderFacts, Product, check_order_id, decimal_of, number, order_id, products, refund_amount,
};
use crate::connection::Connection;
use crate::deliverable::{Consent, Deliverable, OrderState, text_of};
use crate::fields::{Fields, Member};
use crate::google::action;
use crate::google::customer::CustomerType;
use crate::google::order::{
    Act, Adjusted, ReportedBy, adjusted, check_says_worth, check_sent, currency_left, money, state_to_change,
};
use crate::google::time::conversion_date_time;
use crate::google::user::{Clicks, Identifiers};
use crate::google::{MAX_ADJUSTMENT_AGE, MAX_CONVERSION_AGE};
use crate::json::Json;
use crate::outcome::{Item, Note, OrderEffect, Refusal, RefusalCode, Rule};
use crate::person::{self, PersonKeys};
use crate::quality::{Key, KeySet};
use crate::timing;
use crate::unsent::{self, UnsentOrders};
use crate::usual::{usual, usuals};

/// Most identifiers of one item.
const MAX_IDENTIFIERS: usize = 5;
/// The type of an adjustment that adds identifiers to what a tag reported.
pub(super) const ENHANCEMENT: &str = "ENHANCEMENT";

/// Builds the event's item.
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
    let customer = super::digits(&settings.customer_id);
    let resource = format!("customers/{customer}/conversionActions/{action}");
    check_says_worth(connection, event, act)?;
    check_expressible(&event.decision)?;
    let order_id = order_id(connection, event);
    if let Some(id) = &order_id {
        check_order_id(id)?;
    }
    let is_sale = act == Act::Purchase
        || (act == Act::Conversion
            && action::takes_changes(connection, settings.conversion_action_id.as_deref(), &action));
    let all = products(event, &settings.content_id_from);
    let page = person::page_url(connection, event);
    let mut own_keys = None;
    let (body, time, at, group) = if act.is_adjustment() {
        let time = timing::checked(event, now, Some(MAX_ADJUSTMENT_AGE), MAX_SKEW)?.min(now);
        let state = known_state(connection, settings, event, act, (time, now))?;
        let at = time.max(earliest_change(&state));
        let clicks = || Clicks::of(connection, event, page.as_deref(), notes);
        let body =
            change(connection, settings, event, act, &state, resource, order_id.as_deref(), at, clicks)?;
        (body, time, at, ADJUSTMENTS)
    } else if settings.mode == UploadMode::Enhancement {
        let time = timing::checked(event, now, Some(MAX_ENHANCEMENT_AGE), MAX_SKEW)?.min(now);
        let body =
            enhancement(connection, settings, event, resource, order_id.as_deref(), &mut own_keys, notes)?;
        (body, time, time, ADJUSTMENTS)
    } else {
        let time = timing::checked(event, now, Some(MAX_CONVERSION_AGE), MAX_SKEW)?.min(now);
        let (order_id, page) = (order_id.as_deref(), page.as_deref());
        let body = conversion(
            connection,
            settings,
            event,
            act,
            resource,
            order_id,
            time,
            (&all, page, &mut own_keys),
            notes,
        )?;
        (body, time, time, CONVERSIONS)
    };
    let exclusive = order_id
        .clone()
        .or_else(|| {
            let paired = body.get("gclidDateTimePair").and_then(|pair| pair.get("gclid"));
            body.get("gclid").or(paired).and_then(Member::as_value).and_then(text_of)
        })
        .map(|key| format!("{action}/{key}"));
    let keys = keys_in(&body);
    let repeatable = order_id.is_some() || body.get("gclid").is_some() || group == ADJUSTMENTS;
    Ok(Item {
        order: order_effect(
            connection,
            event,
            act,
            is_sale,
            settings.mode,
            &body,
            order_id.as_deref(),
            (time, at),
        ),
        remark: unsent::remark(event).filter(|_| act.is_adjustment()),
        notes: std::mem::take(notes),
        group: group.to_owned(),
        exclusive,
        event_id: connection.event_id(event).into_owned(),
        repeatable,
        name: action,
        keys: Some(keys),
        body: ItemBody::of(&body),
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
    Key::Street,
    Key::City,
    Key::State,
    Key::PostalCode,
    Key::Country,
    Key::UserAgent,
]);

/// What of it an item has.
fn keys_in(body: &Fields<'_>) -> KeySet {
    let own = KeySet::of_names(body.names(), key_of);
    let parts = ["userIdentifiers", "gclidDateTimePair"].into_iter().filter_map(|part| body.get(part));
    parts.fold(own, |keys, part| keys.and(KeySet::within(part, key_of)))
}

/// The key that stands under a name.
pub(super) fn key_of(name: &[u8]) -> Option<Key> {
    Some(match name {
        b"gclid" => Key::Gclid,
        b"gbraid" => Key::Gbraid,
        b"wbraid" => Key::Wbraid,
        b"hashedEmail" => Key::Email,
        b"hashedPhoneNumber" => Key::Phone,
        b"hashedFirstName" => Key::FirstName,
        b"hashedLastName" => Key::LastName,
        b"hashedStreetAddress" => Key::Street,
        b"city" => Key::City,
        b"state" => Key::State,
        b"postalCode" => Key::PostalCode,
        b"countryCode" => Key::Country,
        b"userAgent" => Key::UserAgent,
        _ => return None,
    })
}

/// The Ads API takes `adUserData` only: a decision that personalisation is denied cannot be stated, so nothing is sent.
/// Source: googleads v26 `Consent`: "ad_personalization can only be set for customer match and store sales"; 2026-11.
fn check_expressible(decision: &Consent) -> Result<(), Refusal> {
    if !decision.denies_personalization() {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::RestrictionNotExpressible,
        "this API cannot state that ad_personalization is denied; google_data_manager can",
    )
    .at("consent"))
}

#[allow(clippy::too_many_arguments, reason = "one place where all that makes a conversion comes together")]
fn conversion<'a>(
    connection: &'a Connection,
    settings: &'a Settings,
    event: &'a Deliverable,
    act: Act,
    resource: String,
    order_id: Option<&'a str>,
    time: Timestamp,
    (all, page, own): (&'a [Product<'a>], Option<&'a str>, &'a mut Option<PersonKeys>),
    notes: &mut Vec<Note>,
) -> Result<Fields<'a>, Refusal> {
    let mut body = Fields::with_capacity(12);
    body.push("conversionAction", resource);
    body.push("conversionDateTime", date_time(time, event));
    if let Some((value, currency)) = money(connection, event, act, all, notes)? {
        body.push("conversionValue", number(value));
        body.push("currencyCode", currency);
    }
    body.push_some("orderId", order_id);
    let environment = if event.event.channel() == Channel::Mobile { "APP" } else { "WEB" };
    body.push("conversionEnvironment", environment);
    // What denies either of Google's words has been refused by now.
    if event.decision != Consent::AllowUnstated {
        body.push("consent", Fields::default().with("adUserData", "GRANTED"));
    }
    if let Some(customer) = CustomerType::of(event).filter(|customer| *customer != CustomerType::Reengaged) {
        body.push("customerType", customer.as_str());
    }
    let clicks = Clicks::of(connection, event, page, notes);
    // `addressInfo` is refused here (UNSUPPORTED_USER_IDENTIFIER).
    let ids = Identifiers::of(connection, event, settings.default_country.as_deref(), false, own, notes);
    if clicks.is_empty() && ids.is_empty() {
        return Err(Refusal::new(RefusalCode::NoMatchKey, "neither a click id nor an e-mail or phone")
            .at("context.traits.email")
            .as_platform("NO_IDENTIFIER"));
    }
    body.extend(clicks.members());
    if !ids.is_empty() {
        body.insert("userIdentifiers", identifiers(&ids));
    }
    if let Some(cart) = cart(connection, settings, event, all, notes) {
        body.insert("cartData", cart);
    }
    let customer = super::digits(&settings.customer_id);
    let variables = variables(connection, event, &customer, notes);
    if !variables.is_empty() {
        body.insert("customVariables", Member::from_iter(variables));
    }
    Ok(body)
}

fn date_time(time: Timestamp, event: &Deliverable) -> String {
    conversion_date_time(time, event.event.utc_offset_seconds)
}

fn identifiers<'a>(ids: &Identifiers<'a>) -> Member<'a> {
    let one = |name, hash: &'a str| {
        let mut one = Fields::with_capacity(1);
        one.push(name, hash);
        one
    };
    let mut list: Vec<Fields<'_>> = ids.emails.iter().map(|hash| one("hashedEmail", hash.as_str())).collect();
    list.extend(ids.phones.iter().map(|hash| one("hashedPhoneNumber", hash.as_str())));
    list.truncate(MAX_IDENTIFIERS - usize::from(ids.address.is_some()));
    if let Some(address) = ids.address {
        let mut info = Fields::with_capacity(7);
        info.push("hashedFirstName", address.first_name);
        info.push("hashedLastName", address.last_name);
        info.push_some("hashedStreetAddress", address.street);
        info.push_some("city", address.city);
        info.push_some("state", address.state);
        info.push("countryCode", address.country);
        info.push("postalCode", address.postal_code);
        list.push(Fields::default().with("addressInfo", info));
    }
    Member::from_iter(list)
}

fn cart<'a>(
    connection: &Connection,
    settings: &'a Settings,
    event: &Deliverable,
    all: &'a [Product<'a>],
    notes: &mut Vec<Note>,
) -> Option<Fields<'a>> {
    let merchant = settings.merchant_id.as_ref()?;
    let items: Vec<Fields<'_>> = all
        .iter()
        .filter_map(|p| {
            let id = p.id.as_deref()?;
            // A larger one is no int32 and refuses the whole request.
            let Ok(quantity) = i32::try_from(p.quantity) else {
                notes.push(Note::rejected("cartData.items.quantity", Rule::OutOfBounds));
                return None;
            };
            let mut item = Fields::default().with("productId", id).with("quantity", quantity);
            if let Some(price) = p.price {
                item.insert("unitPrice", number(price));
            }
            Some(item)
        })
        .collect();
    if items.is_empty() {
        return None;
    }
    // int64 is a JSON string.
    let mut cart = Fields::default().with("merchantId", merchant.as_str());
    for (key, value) in
        [("feedCountryCode", &settings.feed_country), ("feedLanguageCode", &settings.feed_language)]
    {
        if let Some(value) = value {
            cart.insert(key, value.as_str());
        }
    }
    let discount = connection.find(event, "discount", usuals!["properties.discount"]).and_then(decimal_of);
    if let Some(discount) = discount.filter(|discount| !discount.is_sign_negative()) {
        cart.insert("localTransactionCost", number(discount));
    }
    cart.insert("items", Member::from_iter(items));
    Some(cart)
}

/// Custom variables by id; Google forbids personal data in them.
fn variables(
    connection: &Connection,
    event: &Deliverable,
    customer: &str,
    notes: &mut Vec<Note>,
) -> Vec<Fields<'static>> {
    connection
        .custom_fields(event, "custom_variables.", notes)
        .into_iter()
        .filter_map(|(id, value)| {
            let variable = format!("customers/{customer}/conversionCustomVariables/{id}");
            Some(
                Fields::default()
                    .with("conversionCustomVariable", variable)
                    .with("value", text_of(&value)?.into_owned()),
            )
        })
        .collect()
}

/// A refund, cancellation or new value: RETRACTION or RESTATEMENT.
#[allow(clippy::too_many_arguments, reason = "one place where all that makes an adjustment comes together")]
fn change<'a>(
    connection: &Connection,
    settings: &Settings,
    event: &Deliverable,
    act: Act,
    state: &OrderState,
    resource: String,
    order_id: Option<&'a str>,
    at: Timestamp,
    clicks: impl FnOnce() -> Clicks<'a>,
) -> Result<Fields<'a>, Refusal> {
    let mut body = Fields::default();
    body.insert("conversionAction", resource);
    body.insert("adjustmentDateTime", date_time(at, event));
    match order_id {
        Some(id) => {
            body.insert("orderId", id);
        }
        // Only for conversions that went out without an order id; the time must be the one uploaded, to the second.
        // Never for those that a tag reported (MISSING_ORDER_ID_FOR_WEBPAGE).
        None => match (clicks().gclid, state.at) {
            (Some(gclid), Some(at)) if settings.mode == UploadMode::Conversion => {
                let pair = Fields::default()
                    .with("gclid", gclid)
                    .with("conversionDateTime", original_time(event, at));
                body.insert("gclidDateTimePair", pair);
            }
            _ => {
                return Err(Refusal::new(
                    RefusalCode::NoMatchKey,
                    "an adjustment needs the order id, or the gclid and time of the conversion",
                )
                .at("properties.order_id"));
            }
        },
    }
    match adjusted(connection, event, act, state)? {
        Adjusted::Void => {
            body.insert("adjustmentType", "RETRACTION");
        }
        Adjusted::Worth(value) => {
            check_not_retracted(state)?;
            let code = currency_left(connection, event, act, state)?;
            body.insert("adjustmentType", "RESTATEMENT");
            let restated = Fields::default().with("adjustedValue", number(value)).with("currencyCode", code);
            body.insert("restatementValue", restated);
        }
    }
    Ok(body)
}

/// What is known of the order that an event changes.
fn known_state(
    connection: &Connection,
    settings: &Settings,
    event: &Deliverable,
    act: Act,
    (time, now): (Timestamp, Timestamp),
) -> Result<OrderState, Refusal> {
    // Of an order that the tag reports nothing has to be sent from here.
    let (by, policy) = match settings.mode {
        UploadMode::Conversion => (ReportedBy::Us, settings.unsent_orders),
        UploadMode::Enhancement => (ReportedBy::Tag, UnsentOrders::Send),
    };
    check_sent(event, act, policy, now)?;
    state_to_change(connection, event, act, by, (time, now))
}

/// Refuses to tell a new value of a conversion that was retracted: Google changes it no more, whatever its order is worth again.
/// Source: googleads v26 `ConversionAdjustmentUploadError` (`CONVERSION_ALREADY_RETRACTED`); 2026-11.
fn check_not_retracted(state: &OrderState) -> Result<(), Refusal> {
    if !state.is_all_back() {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::NothingToUpdate,
        "all of the order came back, for which Google Ads was told to retract its conversion: a retraction is final, and no value can be \
         told after it",
    )
    .at("properties.total")
    .as_platform("CONVERSION_ALREADY_RETRACTED"))
}

/// The first second at which a conversion can be changed: uploaded to the second, it must lie before (`ADJUSTMENT_PRECEDES_CONVERSION`),
/// and so must every change before this one (`RESTATEMENT_ALREADY_EXISTS`, `MORE_RECENT_RESTATEMENT_FOUND`). Clocks of two systems are
/// often further apart than a sale and its cancellation, and parts of a refund are often paid back within one second.
/// Source: googleads v26 `ConversionAdjustmentUploadError`; 2026-11.
fn earliest_change(state: &OrderState) -> Timestamp {
    let behind =
        |at: Timestamp| Timestamp::from_second(timing::floor_seconds(at).saturating_add(1)).unwrap_or(at);
    state.at.max(state.adjusted_at).map_or(Timestamp::MIN, behind)
}

/// The original's time in the offset in which it was written, if the event quotes it.
fn original_time(event: &Deliverable, at: Timestamp) -> String {
    let quoted = event.at(usual!("properties.original_timestamp")).and_then(text_of);
    let offset = quoted.and_then(|text| {
        let pieces = jiff::fmt::temporal::Pieces::parse(&*text).ok()?.to_numeric_offset()?;
        Some(pieces.seconds())
    });
    conversion_date_time(at, offset.unwrap_or(0))
}

/// Identifiers for a conversion that the tag reported.
fn enhancement<'a>(
    connection: &'a Connection,
    settings: &Settings,
    event: &'a Deliverable,
    resource: String,
    order_id: Option<&'a str>,
    own: &'a mut Option<PersonKeys>,
    notes: &mut Vec<Note>,
) -> Result<Fields<'a>, Refusal> {
    let order_id = order_id.ok_or_else(|| {
        Refusal::new(RefusalCode::InvalidPayload, "an enhancement needs the order id that the tag reported")
            .at("properties.order_id")
    })?;
    let ids = Identifiers::of(connection, event, settings.default_country.as_deref(), true, own, notes);
    if ids.is_empty() {
        return Err(Refusal::new(
            RefusalCode::NoMatchKey,
            "an enhancement needs an e-mail, phone or whole address",
        )
        .at("context.traits.email"));
    }
    let mut body = Fields::default()
        .with("conversionAction", resource)
        .with("adjustmentType", ENHANCEMENT)
        .with("orderId", order_id);
    if let Some(agent) = person::user_agent(connection, event) {
        body.insert("userAgent", agent);
    }
    body.insert("userIdentifiers", identifiers(&ids));
    Ok(body)
}

#[allow(clippy::too_many_arguments, reason = "all that says what became of an order")]
fn order_effect(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    is_sale: bool,
    mode: UploadMode,
    body: &Fields<'_>,
    order_id: Option<&str>,
    (time, at): (Timestamp, Timestamp),
) -> Option<OrderEffect> {
    let restated = |name: &str| body.get("restatementValue")?.get(name)?.as_value();
    match act {
        Act::Purchase | Act::Conversion if !is_sale => None,
        Act::Purchase | Act::Conversion if mode == UploadMode::Conversion => {
            let value = body.get("conversionValue").and_then(Member::as_value).and_then(decimal_of);
            let currency = body.get("currencyCode").and_then(Member::as_value).and_then(Json::as_str);
            OrderFacts::of(connection, event).sold(value, currency, time, None)
        }
        // What the tag should have said of it, so that a part of it can be taken off.
        Act::Purchase | Act::Conversion => {
            let value = connection.worth.stated(event)?;
            let currency = Currency::of(connection, event);
            OrderFacts::of(connection, event).sold(Some(value), currency.code(), time, None)
        }
        Act::Refund => Some(OrderEffect::Refunded {
            order_id: order_id?.to_owned(),
            amount: refund_amount(connection, event),
            at,
            changed_at: time,
        }),
        Act::Cancel => {
            Some(OrderEffect::Refunded { order_id: order_id?.to_owned(), amount: None, at, changed_at: time })
        }
        Act::Update => Some(OrderEffect::Restated {
            order_id: order_id?.to_owned(),
            value: restated("adjustedValue").and_then(decimal_of).or(Some(Decimal::ZERO)),
            total: OrderFacts::of(connection, event).total,
            currency: restated("currencyCode").and_then(Json::as_str).map(str::to_owned),
            at,
            changed_at: time,
        }),
    }
}
