//! Resolved event + settings → one element of `data`.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_event::commerce::{ORDER_CANCELLED, ORDER_COMPLETED, ORDER_REFUNDED};
use tracklayer_normalise::{Field, Hints, Platform, Reason, fbc};
use tracklayer_proto::event::v1::{Channel, EventType};

use super::custom_data::custom_data;
use super::ids::{self, MessagingChannel};
use super::settings::{ActionSource, Refunds, Settings};
use super::{MAX_EVENT_AGE, MAX_SKEW, MAX_STORE_EVENT_AGE, quality, restriction};
use crate::body::ItemBody;
use crate::clicks;
use crate::commerce::{order_id_is_personal, products};
use crate::connection::{Connection, looks_personal};
use crate::deliverable::{Deliverable, text_of};
use crate::fields::{Fields, Member};
use crate::json::Json;
use crate::mapping::is_true;
use crate::outcome::{Item, Note, NoteKind, Refusal, RefusalCode, Rule};
use crate::person::{self, KeyName, Keys, PersonKeys};
use crate::quality::KeySet;
use crate::timing;
use crate::usual::{usual, usuals};

/// Longest custom event name. Source: Meta, docs/meta-pixel/implementation/conversion-tracking; 2026-11.
const MAX_NAME: usize = 50;

/// Segment's e-commerce events (v2) by Meta's standard names.
const STANDARD: [(&str, &str); 14] = [
    (ORDER_COMPLETED, PURCHASE),
    ("product added", "AddToCart"),
    ("checkout started", "InitiateCheckout"),
    ("payment info entered", "AddPaymentInfo"),
    ("product added to wishlist", "AddToWishlist"),
    ("product viewed", "ViewContent"),
    ("product list viewed", "ViewContent"),
    ("products searched", "Search"),
    ("signed up", "CompleteRegistration"),
    ("lead generated", "Lead"),
    ("lead", "Lead"),
    ("subscription created", "Subscribe"),
    ("subscription started", "Subscribe"),
    ("trial started", "StartTrial"),
];

/// Meta's name of a purchase.
pub const PURCHASE: &str = "Purchase";

/// Meta has no retraction: these lower nothing there.
const REFUNDS: [&str; 2] = [ORDER_REFUNDED, ORDER_CANCELLED];

/// How an event goes to Meta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A purchase: value and currency required.
    Purchase,
    /// A refund as an event of one's own: absolute amount.
    Refund,
    /// Anything else.
    Other,
}

/// Builds the event's element of `data`.
pub fn build(
    connection: &Connection,
    settings: &Settings,
    event: &Deliverable,
    now: Timestamp,
) -> Result<Item, Refusal> {
    let mut notes = Vec::new();
    match element(connection, settings, event, now, &mut notes) {
        Ok(Element { name, event_id, keys, body }) => Ok(Item {
            body,
            notes,
            group: String::new(),
            exclusive: None,
            event_id,
            repeatable: true,
            name,
            order: None,
            remark: None,
            keys: Some(keys),
            built_at: now,
        }),
        Err(refusal) => Err(refusal.with_notes(notes)),
    }
}

/// An element of `data`.
struct Element {
    /// The event's name at Meta.
    name: String,
    /// Its id there.
    event_id: String,
    /// What its person can be matched by.
    keys: KeySet,
    /// Its text.
    body: ItemBody,
}

fn element(
    connection: &Connection,
    settings: &Settings,
    event: &Deliverable,
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> Result<Element, Refusal> {
    let (name, shape) = name_of(connection, settings, event)?;
    let source = action_source(connection, settings, event);
    let channel = match source {
        ActionSource::BusinessMessaging => Some(MessagingChannel::of(connection, event)?),
        _ => None,
    };
    // A lead of a conversation has a name of its own.
    let name = if channel.is_some() && name == "Lead" { "LeadSubmitted" } else { name };
    let max_age = if source == ActionSource::PhysicalStore { MAX_STORE_EVENT_AGE } else { MAX_EVENT_AGE };
    let time = timing::checked(event, now, Some(max_age), MAX_SKEW)?.min(now);

    let all = products(event, &settings.content_id_from);
    let mut own_keys = None;
    let mut body = Fields::with_capacity(16);
    let event_id = connection.event_id(event);
    body.push("event_name", name);
    body.push("event_time", timing::floor_seconds(time));
    body.push("event_id", &*event_id);
    body.push("action_source", source.as_str());

    let page = person::page_url(connection, event);
    if source == ActionSource::Website {
        match &page {
            Some(url) => {
                body.push("event_source_url", &**url);
            }
            None => notes.push(Note::warned("event_source_url", Rule::NoPageAddress)),
        }
        if let Some(referrer) = person::referrer(connection, event) {
            body.push("referrer_url", referrer);
        }
    }

    let mut user = user_data(connection, settings, event, page.as_deref(), now, &mut own_keys, notes);
    ids::insert(connection, event, source, &mut user, notes);
    if let Some(channel) = channel {
        channel.check(name, &user)?;
        body.push("messaging_channel", channel.as_str());
    }
    if source == ActionSource::Website && !user.contains("client_user_agent") {
        if settings.require_user_agent {
            return Err(Refusal::new(
                RefusalCode::MissingClientUserAgent,
                "a website event needs a user agent",
            )
            .at("context.userAgent"));
        }
        notes.push(Note::warned("user_data.client_user_agent", Rule::NoUserAgent));
    }
    check_breadth(&user)?;
    let has_address = user.contains("client_ip_address");
    let keys = quality::keys_of(&user);
    body.push("user_data", user);

    let custom = custom_data(connection, settings, event, &all, (name, shape), notes)?;
    if !custom.is_empty() {
        body.push("custom_data", custom);
    }
    if source == ActionSource::App {
        body.push("app_data", app_data(event)?);
    }
    if let Some(original) = original_event(event, notes) {
        body.push("original_event_data", original);
    }
    if event.at(usual!("properties.opt_out")).is_some_and(is_true) {
        body.push("opt_out", true);
    }
    restriction::write(&mut body, event, settings.ldu, has_address)?;

    let body = ItemBody::of(&body);
    Ok(Element { name: name.to_owned(), event_id: event_id.into_owned(), keys, body })
}

/// The earlier event that a delayed one belongs to: `properties.original_event_data`, in Meta's types and without other keys,
/// which would fail the whole request. Source: Meta, CAPI/parameters/server-event, original_event_data; 2026-02.
fn original_event<'e>(event: &'e Deliverable, notes: &mut Vec<Note>) -> Option<Fields<'e>> {
    let stated = event.at(usual!("properties.original_event_data"))?;
    let mut original = Fields::default();
    match stated.at("event_time").map(seconds_of) {
        Some(Some(seconds)) => original.insert("event_time", seconds),
        Some(None) => notes.push(Note::rejected("original_event_data.event_time", Rule::NotTaken)),
        None => {}
    }
    match stated.at("order_id").and_then(text_of) {
        Some(id) if order_id_is_personal(&id) => {
            notes.push(Note::rejected("original_event_data.order_id", Rule::LooksPersonal));
        }
        id => original.insert_some("order_id", id),
    }
    for (key, target) in
        [("event_name", "original_event_data.event_name"), ("event_id", "original_event_data.event_id")]
    {
        match stated.at(key).and_then(text_of) {
            Some(text) if looks_personal(Json::Text(&text)) => {
                notes.push(Note::rejected(target, Rule::LooksPersonal));
            }
            text => original.insert_some(key, text),
        }
    }
    (!original.is_empty()).then_some(original)
}

/// A time as Unix seconds: a whole number of them, also as text, or a time in ISO 8601. What would lie after the year 2100 was meant as
/// milliseconds, and is none.
fn seconds_of(value: Json<'_>) -> Option<i64> {
    const IN_2100: i64 = 4_102_444_800;
    let text = text_of(value)?;
    let seconds = match text.parse::<i64>() {
        Ok(seconds) => seconds,
        Err(_) => timing::floor_seconds(text.parse::<Timestamp>().ok()?),
    };
    (0..IN_2100).contains(&seconds).then_some(seconds)
}

/// Where the conversion happened.
pub fn action_source(connection: &Connection, settings: &Settings, event: &Deliverable) -> ActionSource {
    let stated =
        connection.text(event, "action_source", usuals!["properties.action_source", "context.action_source"]);
    stated.as_deref().and_then(ActionSource::parse).unwrap_or_else(|| match event.event.channel() {
        Channel::Mobile if person::page_url(connection, event).is_none() => ActionSource::App,
        Channel::Mobile | Channel::Browser | Channel::Server | Channel::Unspecified => {
            settings.default_action_source
        }
    })
}

fn name_of<'a>(
    connection: &'a Connection,
    settings: &'a Settings,
    event: &'a Deliverable,
) -> Result<(&'a str, Shape), Refusal> {
    let mapped = connection.mapped_name(event);
    let own = event.folded_name();
    if REFUNDS.contains(&own) {
        return match (mapped, settings.refunds) {
            (Some(name), _) if name == PURCHASE => Err(Refusal::new(
                RefusalCode::EventNotSupported,
                "a refund must not be sent as a purchase: it would count as one more",
            )
            .at("event")),
            (Some(name), _) => Ok((checked_name(name)?, Shape::Refund)),
            (None, Refunds::CustomEvent) => Ok((&settings.refund_event_name, Shape::Refund)),
            (None, Refunds::Skip) => Err(Refusal::new(
                RefusalCode::EventNotSupported,
                "Meta has no refund or retraction; set refunds to custom_event to send one of your own",
            )
            .at("event")),
        };
    }
    let standard = STANDARD.iter().find(|(segment, _)| *segment == own).map(|(_, name)| *name);
    let name = match (mapped, event.event.r#type(), standard) {
        (Some(name), _, _) => name,
        (None, EventType::Page, _) => "PageView",
        (None, EventType::Track, Some(name)) => name,
        (None, EventType::Track, None) if settings.send_custom_events => event.event.name.trim(),
        (None, _, _) => {
            return Err(Refusal::new(RefusalCode::EventNotMapped, "no mapping for this event").at("event"));
        }
    };
    let shape = if name == PURCHASE { Shape::Purchase } else { Shape::Other };
    Ok((checked_name(name)?, shape))
}

fn checked_name(name: &str) -> Result<&str, Refusal> {
    if name.is_empty() || name.chars().count() > MAX_NAME {
        let why = format!("an event name at Meta has 1 to {MAX_NAME} characters");
        return Err(Refusal::new(RefusalCode::InvalidPayload, why).at("event"));
    }
    Ok(name)
}

/// What Meta takes of a person, as lists of hashes. Source: Meta, CAPI/parameters/customer-information-parameters; 2026-01.
const KEYS: [KeyName; 10] = [
    KeyName { field: Field::Email, name: "em", target: "user_data.em", is_list: true },
    KeyName { field: Field::Phone, name: "ph", target: "user_data.ph", is_list: true },
    KeyName { field: Field::FirstName, name: "fn", target: "user_data.fn", is_list: true },
    KeyName { field: Field::LastName, name: "ln", target: "user_data.ln", is_list: true },
    KeyName { field: Field::Gender, name: "ge", target: "user_data.ge", is_list: true },
    KeyName { field: Field::Birthday, name: "db", target: "user_data.db", is_list: true },
    KeyName { field: Field::City, name: "ct", target: "user_data.ct", is_list: true },
    KeyName { field: Field::State, name: "st", target: "user_data.st", is_list: true },
    KeyName { field: Field::PostalCode, name: "zp", target: "user_data.zp", is_list: true },
    KeyName { field: Field::Country, name: "country", target: "user_data.country", is_list: true },
];

fn user_data<'a>(
    connection: &'a Connection,
    settings: &Settings,
    event: &'a Deliverable,
    page: Option<&str>,
    now: Timestamp,
    own: &'a mut Option<PersonKeys>,
    notes: &mut Vec<Note>,
) -> Fields<'a> {
    let mut user = Fields::with_capacity(20);
    // Nobody is born later, wherever he is.
    let now_year = Some(now.to_zoned(jiff::tz::TimeZone::UTC).year());
    let country = settings.default_country.as_deref();
    let person = person::keys_of(connection, event, Platform::Meta, &KEYS, (country, now_year), own);
    person.insert(&KEYS, &mut user, notes);
    let mut keys = Keys::new(Platform::Meta, Hints::default(), notes);
    let external = connection.external_id(event);
    if let Some(hash) =
        keys.one(format_args!("user_data.external_id"), Field::ExternalId, external.as_deref())
    {
        user.push("external_id", Member::from_iter([hash]));
    }
    let madid = connection.text(event, "advertising_id", usuals!["context.device.advertisingId"]);
    if let Some(madid) = keys.one(format_args!("user_data.madid"), Field::MobileAdId, madid.as_deref()) {
        user.push("madid", madid);
    }
    if let Some(ip) = person::address(connection, event, "user_data.client_ip_address", notes) {
        user.push("client_ip_address", ip);
    }
    if let Some(agent) = person::user_agent(connection, event) {
        user.push("client_user_agent", agent);
    }
    if let Some(fbp) = fbp(connection, event, notes) {
        user.push("fbp", fbp);
    }
    if let Some(fbc) = fbc(connection, event, page, notes) {
        user.push("fbc", fbc);
    }
    user
}

fn fbp<'a>(
    connection: &'a Connection,
    event: &'a Deliverable,
    notes: &mut Vec<Note>,
) -> Option<Cow<'a, str>> {
    let found = clicks::find(connection, event, clicks::FBP, None);
    if found.is_none() && clicks::unusable(connection, event, clicks::FBP, None).is_none() {
        return None;
    }
    if let Some(value) = found.filter(|value| fbc::valid_fbp(value)) {
        return Some(value);
    }
    notes.push(Note::of_value(NoteKind::Rejected, Field::Fbp, "user_data.fbp", Reason::NotAnFbp));
    None
}

/// The `_fbc` cookie, unless the page's own click id is a newer one; without a cookie it is built from the click id. A
/// malformed one would refuse the whole request (2804001), so it is left out. Only an event that brings neither takes what
/// is known of the person's or device's earlier click.
fn fbc(
    connection: &Connection,
    event: &Deliverable,
    page: Option<&str>,
    notes: &mut Vec<Note>,
) -> Option<String> {
    let event_ms = event.time().as_millisecond();
    let cookie = clicks::of_event(connection, event, clicks::FBC, None);
    let fbclid = clicks::of_event(connection, event, clicks::FBCLID, page);
    if fbclid.is_none()
        && let Some(reason) = clicks::unusable(connection, event, clicks::FBCLID, page)
    {
        notes.push(Note::of_value(NoteKind::Rejected, Field::ClickId, "fbclid", reason));
    }
    let referrer = person::referrer(connection, event);
    let is_broken = match &cookie {
        Some(cookie) => !fbc::valid_fbc(cookie),
        None => clicks::unusable(connection, event, clicks::FBC, None).is_some(),
    };
    if is_broken {
        notes.push(Note::of_value(NoteKind::Rejected, Field::Fbc, "user_data.fbc", Reason::NotAnFbc));
    }
    let own = fbc::Click {
        cookie: cookie.as_deref(),
        fbclid: fbclid.as_deref(),
        page_url: page,
        referrer: referrer.as_deref(),
        first_seen_ms: event_ms,
        ..fbc::Click::default()
    };
    own.fbc().or_else(|| {
        let known = &event.known_click_ids;
        let seen = known.first_seen.as_ref().and_then(crate::deliverable::instant);
        let seen_ms = seen.map_or(event_ms, |seen| seen.as_millisecond().min(event_ms));
        fbc::prefer(clicks::usable(&known.fbc), clicks::usable(&known.fbclid), seen_ms)
    })
}

/// Keys that Meta finds too broad: only keys of one of these sets, or a subset, and the event fails its request (2804050).
/// Source: Meta, CAPI/best-practices; 2026-01.
fn check_breadth(user: &Fields<'_>) -> Result<(), Refusal> {
    const TOO_BROAD: [&[&str]; 4] = [
        &["ct", "country", "st", "zp", "ge", "client_user_agent"],
        &["db", "client_user_agent"],
        &["fn", "ge"],
        &["ln", "ge"],
    ];
    if TOO_BROAD.iter().any(|set| user.names().all(|name| set.contains(&name))) {
        return Err(Refusal::new(
            RefusalCode::NoMatchKey,
            "nothing that tells one person from many: an e-mail, phone, id, click id or address is needed",
        )
        .at("user_data")
        .as_platform("2804050"));
    }
    Ok(())
}

/// `app_data`: extinfo is exactly 16 texts, unknown ones empty. Source: Meta, CAPI/parameters/app-data; 2026-02.
fn app_data(event: &Deliverable) -> Result<Value, Refusal> {
    let text = |place| event.at(place).and_then(text_of).unwrap_or_default();
    let system =
        format!("{} {}", text(usual!("context.os.name")), text(usual!("context.device.type"))).to_lowercase();
    let version = if system.contains("android") {
        "a2"
    } else if system.contains("ios") || system.contains("ipados") || system.contains("iphone") {
        "i2"
    } else {
        return Err(Refusal::new(
            RefusalCode::InvalidPayload,
            "an app event needs context.os.name iOS or Android",
        )
        .at("context.os.name"));
    };
    if text(usual!("context.os.version")).is_empty() {
        return Err(Refusal::new(RefusalCode::InvalidPayload, "an app event needs context.os.version")
            .at("context.os.version"));
    }
    let extinfo = [
        Cow::Borrowed(version),
        text(usual!("context.app.namespace")),
        text(usual!("context.app.version")),
        text(usual!("context.app.build")),
        text(usual!("context.os.version")),
        text(usual!("context.device.model")),
        text(usual!("context.locale")),
        Cow::default(),
        text(usual!("context.network.carrier")),
        text(usual!("context.screen.width")),
        text(usual!("context.screen.height")),
        text(usual!("context.screen.density")),
        Cow::default(),
        Cow::default(),
        Cow::default(),
        text(usual!("context.timezone")),
    ];
    // Segment's plugins for iOS tell the answer to Apple's question beside the flag, or instead of it.
    let tracking = match event.at(usual!("context.device.adTrackingEnabled")) {
        Some(flag) => is_true(flag),
        None => text(usual!("context.device.trackingStatus")).eq_ignore_ascii_case("authorized"),
    };
    let collecting = event.at(usual!("properties.application_tracking_enabled")).is_none_or(is_true);
    Ok(json!({
        "advertiser_tracking_enabled": u8::from(tracking),
        "application_tracking_enabled": u8::from(collecting),
        "extinfo": extinfo,
    }))
}

/// Properties that have their own place in the payload and never go along as custom ones.
pub const TAKEN: [&str; 50] = [
    "action_source",
    "event_id",
    "fbp",
    "fbc",
    "fbclid",
    "gclid",
    "gbraid",
    "wbraid",
    "ttclid",
    "ttp",
    "url",
    "referrer",
    "path",
    "title",
    "search",
    "order_id",
    "orderId",
    "currency",
    "value",
    "revenue",
    "total",
    "products",
    "product_id",
    "sku",
    "price",
    "quantity",
    "opt_out",
    "limited_data_use",
    "data_processing_options",
    "data_processing_options_country",
    "data_processing_options_state",
    "subscription_id",
    "fb_login_id",
    "lead_id",
    "anon_id",
    "page_id",
    "page_scoped_user_id",
    "ctwa_clid",
    "ig_account_id",
    "ig_sid",
    "whatsapp_business_account_id",
    "messaging_channel",
    "application_tracking_enabled",
    "original_event_data",
    "net_revenue",
    "predicted_ltv",
    "delivery_category",
    "status",
    "item_number",
    "customer_segmentation",
];
