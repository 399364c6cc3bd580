//! Resolved event + settings → one element of `data`.

use std::borrow::Cow;

use jiff::Timestamp;
use tracklayer_normalise::{Field, Hints, Platform};

use super::names::{Name, name_of};
use super::settings::{EventSource, Settings};
use super::{MAX_SKEW, max_age, source};
use crate::body::ItemBody;
use crate::clicks;
use crate::commerce::{Currency, Product, custom_value, number, order_id_to_send, products};
use crate::connection::{Connection, harmless_properties, looks_personal};
use crate::deliverable::{Consent, Deliverable, text_of};
use crate::fields::{Fields, Member};
use crate::mapping::is_true;
use crate::outcome::{Item, Note, NoteKind, Refusal, RefusalCode, Rule};
use crate::person::{self, KeyName, Keys, PersonKeys};
use crate::quality::{Key, KeySet};
use crate::timing;
use crate::usual::{Usual, usual, usuals};

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
            group: settings.test_event_code.clone().unwrap_or_default(),
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
    /// The event's name at TikTok.
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
    let name = name_of(connection, settings, event)?;
    let time = timing::checked(event, now, Some(max_age(settings)), MAX_SKEW)?;
    let kind = settings.event_source;

    let page = person::page_url(connection, event);
    let event_id = connection.event_id(event);
    let all = products(event, &settings.content_id_from);
    let mut own_keys = None;
    let mut body = Fields::with_capacity(10);
    body.push("event", &*name.text);
    body.push("event_time", timing::floor_seconds(time));
    body.push("event_id", &*event_id);

    let user = user(connection, settings, event, page.as_deref(), &mut own_keys, notes);
    check_match_key(&user, kind)?;
    if is_limited(settings, event, kind, user.contains("ip"))? {
        body.push("limited_data_use", true);
    }
    let keys = KeySet::of_names(user.names(), key_of);
    body.push("user", user);

    match kind {
        EventSource::Web => {
            let url = page.as_deref().or(settings.default_page_url.as_deref()).ok_or_else(|| {
                Refusal::new(
                    RefusalCode::InvalidPayload,
                    "a web event needs a page address; set default_page_url",
                )
                .at("context.page.url")
            })?;
            let mut about = Fields::with_capacity(2);
            about.push("url", url);
            about.push_some("referrer", person::referrer(connection, event));
            body.push("page", about);
        }
        EventSource::App => {
            body.push("app", source::app(settings, event)?);
        }
        EventSource::Crm => {
            body.push("lead", source::lead(connection, event)?);
        }
        EventSource::Offline => {}
    }

    if matches!(kind, EventSource::Web | EventSource::App)
        && let Some(ad) = source::ad(event, notes)
    {
        body.push("ad", ad);
    }

    let properties = properties(connection, event, &all, &name, notes)?;
    body.push("properties", properties);
    let body = ItemBody::of(&body);
    Ok(Element { name: name.text.into_owned(), event_id: event_id.into_owned(), keys, body })
}

/// What TikTok can match a person by. Source: TikTok, "How to set up matching events with Events API"; 2026-08.
pub const TAKEN_KEYS: KeySet = KeySet::of(&[
    Key::Email,
    Key::Phone,
    Key::ExternalId,
    Key::Ttclid,
    Key::Ttp,
    Key::FirstName,
    Key::LastName,
    Key::City,
    Key::State,
    Key::PostalCode,
    Key::Country,
    Key::Ip,
    Key::UserAgent,
    Key::MobileAdId,
]);

/// The key that stands under a name of `user`.
fn key_of(name: &[u8]) -> Option<Key> {
    Some(match name {
        b"email" => Key::Email,
        b"phone" => Key::Phone,
        b"external_id" => Key::ExternalId,
        b"ttclid" => Key::Ttclid,
        b"ttp" => Key::Ttp,
        b"first_name" => Key::FirstName,
        b"last_name" => Key::LastName,
        b"city" => Key::City,
        b"state" => Key::State,
        b"zip_code" => Key::PostalCode,
        b"country" => Key::Country,
        b"ip" => Key::Ip,
        b"user_agent" => Key::UserAgent,
        b"idfa" | b"gaid" => Key::MobileAdId,
        _ => return None,
    })
}

/// What TikTok takes of a person. Source: TikTok, Events API 2.0, as integrations cite it; 2026-08.
const KEYS: [KeyName; 8] = [
    KeyName { field: Field::Email, name: "email", target: "user.email", is_list: true },
    KeyName { field: Field::Phone, name: "phone", target: "user.phone", is_list: true },
    KeyName { field: Field::FirstName, name: "first_name", target: "user.first_name", is_list: false },
    KeyName { field: Field::LastName, name: "last_name", target: "user.last_name", is_list: false },
    KeyName { field: Field::City, name: "city", target: "user.city", is_list: false },
    KeyName { field: Field::State, name: "state", target: "user.state", is_list: false },
    KeyName { field: Field::PostalCode, name: "zip_code", target: "user.zip_code", is_list: false },
    KeyName { field: Field::Country, name: "country", target: "user.country", is_list: false },
];

fn user<'a>(
    connection: &'a Connection,
    settings: &Settings,
    event: &'a Deliverable,
    page: Option<&'a str>,
    own: &'a mut Option<PersonKeys>,
    notes: &mut Vec<Note>,
) -> Fields<'a> {
    let mut user = Fields::with_capacity(18);
    if let Some(ip) = person::address(connection, event, "user.ip", notes) {
        user.push("ip", ip);
    }
    if let Some(agent) = person::user_agent(connection, event) {
        user.push("user_agent", agent);
    }
    if let Some(locale) = connection.text(event, "locale", usuals!["context.locale"]) {
        let is_plain = !locale.contains('_');
        user.push("locale", if is_plain { locale } else { locale.replace('_', "-").into() });
    }
    let of_referrer = || {
        let referrer = person::referrer(connection, event).filter(|r| same_host(r, page))?;
        clicks::from_query(&referrer, "ttclid").map(|id| Cow::Owned(id.into_owned()))
    };
    let ttclid = clicks::of_event(connection, event, clicks::TTCLID, page)
        .or_else(of_referrer)
        .or_else(|| clicks::usable(&event.known_click_ids.ttclid).map(Cow::Borrowed));
    let ttp = clicks::find(connection, event, clicks::TTP, None)
        .or_else(|| clicks::usable_text(event.at(usual!("properties._ttp")).and_then(text_of)?));
    if ttclid.is_none()
        && let Some(reason) = clicks::unusable(connection, event, clicks::TTCLID, page)
    {
        notes.push(Note::of_value(NoteKind::Rejected, Field::ClickId, "user.ttclid", reason));
    }
    user.push_some("ttclid", ttclid);
    user.push_some("ttp", ttp);
    let country = settings.default_country.as_deref();
    let person = person::keys_of(connection, event, Platform::Tiktok, &KEYS, (country, None), own);
    let (contacts, others) = KEYS.split_at(2);
    person.insert(contacts, &mut user, notes);
    let hints = Hints { lower_external_id: settings.external_id_lower_case, ..Hints::default() };
    let external = connection.external_id(event);
    let hash = Keys::new(Platform::Tiktok, hints, notes).one(
        format_args!("user.external_id"),
        Field::ExternalId,
        external.as_deref(),
    );
    if let Some(hash) = hash {
        user.push("external_id", Member::from_iter([hash]));
    }
    person.insert(others, &mut user, notes);
    let mut keys = Keys::new(Platform::Tiktok, hints, notes);
    let device = connection.text(event, "advertising_id", usuals!["context.device.advertisingId"]);
    let android = event
        .at(usual!("context.os.name"))
        .and_then(text_of)
        .is_some_and(|os| os.eq_ignore_ascii_case("android"));
    let key = if android { "gaid" } else { "idfa" };
    if let Some(id) = keys.one(format_args!("user.{key}"), Field::MobileAdId, device.as_deref()) {
        user.push(key, id);
    }
    let vendor = connection.text(event, "idfv", usuals!["properties.idfv", "context.device.idfv"]);
    if let Some(id) = keys.one(format_args!("user.idfv"), Field::MobileAdId, vendor.as_deref()) {
        user.push("idfv", id);
    }
    if let Some(status) = source::att_status(connection, event, notes) {
        user.push("att_status", status);
    }
    user
}

fn same_host(referrer: &str, page: Option<&str>) -> bool {
    let host = |text: &str| url::Url::parse(text).ok().and_then(|u| u.host_str().map(str::to_owned));
    page.and_then(host).is_some_and(|own| host(referrer).is_some_and(|other| other == own))
}

/// At least one key that TikTok can match a person by; offline and CRM sources are stricter.
fn check_match_key(user: &Fields<'_>, source: EventSource) -> Result<(), Refusal> {
    let has = |key: &str| user.contains(key);
    let found = match source {
        EventSource::Web | EventSource::App => {
            ["email", "phone", "external_id", "ttclid", "ttp", "idfa", "gaid"].iter().any(|key| has(key))
                || (has("ip") && has("user_agent"))
        }
        EventSource::Offline => has("email") || has("phone"),
        EventSource::Crm => has("email") || has("phone") || has("external_id"),
    };
    if found {
        return Ok(());
    }
    let needed = match source {
        EventSource::Web | EventSource::App => "an e-mail, phone, id, click id, or address with user agent",
        EventSource::Offline => "an e-mail or phone",
        EventSource::Crm => "an e-mail, phone or id",
    };
    Err(Refusal::new(RefusalCode::NoMatchKey, format!("nothing to match a person by: {needed} is needed"))
        .at("user"))
}

/// Whether data use is limited: by the decision, by the event, by the setting. Source: TikTok portal 1771101204435970:
/// eligible US places, needs the person's address, web and app sources only; 2026-08.
fn is_limited(
    settings: &Settings,
    event: &Deliverable,
    source: EventSource,
    has_address: bool,
) -> Result<bool, Refusal> {
    let decided = match &event.decision {
        // The kind needs every purpose of ads: an answer that allows it without one of them contradicts itself.
        Consent::AllowInPart { .. } if event.decision.denies_personalization() => {
            let why = "consent allows this event and denies ads: limited data use needs a place";
            return Err(not_expressible(why.to_owned()));
        }
        Consent::Allow | Consent::AllowInPart { .. } | Consent::AllowUnstated => false,
        Consent::Restricted { place, .. } => {
            if place != "US" && !place.starts_with("US-") {
                return Err(not_expressible(format!("limited data use does not exist in `{place}`")));
            }
            true
        }
        Consent::Deny { .. } => return Err(not_expressible("consent denies this event".to_owned())),
    };
    let asked =
        settings.limited_data_use || event.at(usual!("properties.limited_data_use")).is_some_and(is_true);
    if !decided && !asked {
        return Ok(false);
    }
    match source {
        EventSource::Web | EventSource::App if has_address => Ok(true),
        EventSource::Web | EventSource::App => {
            Err(not_expressible("limited data use needs the person's public address".to_owned())
                .at("user.ip"))
        }
        EventSource::Offline | EventSource::Crm => {
            Err(not_expressible(format!("a source of kind {} has no limited data use", source.as_str())))
        }
    }
}

fn not_expressible(reason: String) -> Refusal {
    Refusal::new(RefusalCode::RestrictionNotExpressible, reason)
}

/// Properties that have their own place and never go along as custom ones.
const TAKEN: [&str; 29] = [
    "event_id",
    "limited_data_use",
    "ttclid",
    "ttp",
    "_ttp",
    "fbp",
    "fbc",
    "fbclid",
    "gclid",
    "gbraid",
    "wbraid",
    "url",
    "referrer",
    "path",
    "title",
    "search",
    "products",
    "lead_id",
    "lead_event_source",
    "order_id",
    "orderId",
    "revenue",
    "total",
    "action_source",
    "ad",
    "idfv",
    "att_status",
    "num_items",
    "predicted_ltv",
];

/// What goes along as the event states it, in the type that TikTok takes, with what a note calls it.
const STATED: [(&str, Usual, &str); 6] = [
    ("description", usual!("properties.description"), "properties.description"),
    ("status", usual!("properties.status"), "properties.status"),
    ("shop_id", usual!("properties.shop_id"), "properties.shop_id"),
    ("delivery_category", usual!("properties.delivery_category"), "properties.delivery_category"),
    ("num_items", usual!("properties.num_items"), "properties.num_items"),
    ("predicted_ltv", usual!("properties.predicted_ltv"), "properties.predicted_ltv"),
];

fn properties<'a>(
    connection: &'a Connection,
    event: &'a Deliverable,
    all: &'a [Product<'a>],
    name: &Name<'_>,
    notes: &mut Vec<Note>,
) -> Result<Fields<'a>, Refusal> {
    let mut map = Fields::with_capacity(6);
    if let Some(id) = order_id_to_send(connection, event, "properties.order_id", notes) {
        map.insert("order_id", id);
    }
    let currency = Currency::of(connection, event);
    let value = if name.is_purchase {
        let value = connection.worth.of_purchase(event, all)?;
        currency.required()?;
        Some(value)
    } else {
        connection.worth.of_other(event, all)
    };
    match (value, currency.code()) {
        (Some(value), Some(code)) => {
            map.insert("currency", code);
            map.insert("value", number(value));
        }
        (Some(_), None) => notes.push(Note::rejected("properties.value", Rule::ValueWithoutCurrency)),
        (None, _) => {}
    }
    let is_list = event.folded_name() == "product list viewed";
    let kind = if is_list { "product_group" } else { "product" };
    let contents: Vec<Fields<'_>> = all.iter().filter_map(|product| content(product, kind)).collect();
    if contents.len() < all.len() {
        notes.push(Note::rejected("properties.contents", Rule::ProductWithoutId));
    }
    if !contents.is_empty() {
        map.insert("content_type", kind);
        map.insert("contents", Member::from_iter(contents));
    }
    if name.text == "Search"
        && let Some(query) =
            connection.text(event, "query", usuals!["properties.query", "properties.search_string"])
    {
        map.insert("query", query);
    }
    for (key, place, target) in STATED {
        let Some(stated) = event.at(place) else { continue };
        if looks_personal(stated) {
            notes.push(Note::rejected(target, Rule::LooksPersonal));
            continue;
        }
        match custom_value(key, stated.to_value()) {
            // TikTok's list has it among the strings.
            Some(value) if key == "num_items" => map.insert_some(key, text_of(&value).map(Cow::into_owned)),
            Some(value) => map.insert(key, value),
            None => notes.push(Note::rejected(target, Rule::NotTaken)),
        }
    }
    if name.is_custom {
        let properties = harmless_properties(event, &TAKEN).into_iter();
        map.insert_new(
            properties.filter_map(|(key, value)| custom_value(&key, value).map(|value| (key, value))),
        );
        // Money goes out as a pair or not at all.
        if !map.contains("value") || currency.code().is_none() {
            map.remove("value");
            map.remove("currency");
        }
    }
    connection.owned_custom_fields(event, "properties.").for_each(|key| map.remove(key));
    for (key, value) in connection.custom_fields(event, "properties.", notes) {
        match custom_value(&key, value) {
            Some(value) => {
                map.insert(key, value);
            }
            None => notes.push(Note::rejected(format!("properties.{key}"), Rule::NotTaken)),
        }
    }
    // A custom field may be one half of the pair.
    if map.contains("value") != map.contains("currency") {
        map.remove("value");
        map.remove("currency");
        notes.push(Note::rejected("properties.value", Rule::HalfOfValueAndCurrency));
    }
    Ok(map)
}

fn content<'a>(product: &'a Product<'a>, kind: &'static str) -> Option<Fields<'a>> {
    let mut content = Fields::with_capacity(7);
    content.push("content_id", product.id.as_deref()?);
    content.push("content_type", kind);
    content.push_some("content_name", product.name.as_deref());
    content.push_some("content_category", product.category.as_deref());
    content.push_some("brand", product.brand.as_deref());
    content.push_some("price", product.price.map(number));
    content.push("quantity", product.quantity);
    Some(content)
}
