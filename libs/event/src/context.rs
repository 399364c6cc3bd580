//! The parts of `context` that the platform itself uses, read in one pass; the rest stays text.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tracklayer_proto::event::v1::{Channel, ClickIds, ConsentSignals};

use crate::{click_ids, consent, json, place};

/// What one pass over `context` gives.
#[derive(Debug, Default)]
pub struct ContextFields<'a> {
    /// `context.ip`.
    pub ip: Cow<'a, str>,
    /// `context.userAgent`.
    pub user_agent: Cow<'a, str>,
    /// `context.page.url`.
    pub page_url: Cow<'a, str>,
    /// `context.page.search`.
    pub page_search: Cow<'a, str>,
    /// `context.library.name` and `.version`.
    pub library: String,
    /// `context.channel`.
    pub channel: Option<Channel>,
    /// `context.direct`: the address is the connection's.
    pub direct: bool,
    /// Place of `context.traits.address`, else of `context.location`.
    pub place: String,
}

/// Reads the members that count.
///
/// # Errors
/// The text is not one JSON object.
pub fn read_context<'a>(
    context: &'a str,
    js_or_server: &'static str,
    ids: &mut ClickIds,
    signals: &mut ConsentSignals,
) -> Result<ContextFields<'a>, serde_json::Error> {
    let mut fields = ContextFields::default();
    let mut location = None;
    let mut consent_seen = false;
    json::for_each_member(context, |key, value| match key {
        "ip" => fields.ip = json::text(value).unwrap_or_default(),
        "userAgent" => fields.user_agent = json::text(value).unwrap_or_default(),
        "page" => read_page(&mut fields, value),
        "library" => fields.library = library(value),
        "channel" => fields.channel = json::text(value).and_then(|text| channel_of(&text)),
        "direct" => fields.direct = value.get() == "true",
        "traits" => fields.place = place_of_traits(value.get()),
        "location" => location = Some(value),
        "consent" => {
            // A second object could undo the first: together they are unreadable, refusals of both stay.
            signals.unreadable |= consent_seen;
            consent_seen = true;
            consent::take_consent_object(signals, value, js_or_server);
        }
        "consentManagement" => consent::take_consent_management(signals, value),
        "gpc" | "globalPrivacyControl" => consent::take_gpc(signals, value, js_or_server),
        _ => click_ids::take_member(ids, key, value),
    })?;
    if fields.place.is_empty()
        && let Some(location) = location
    {
        fields.place = place::of_address(location);
    }
    Ok(fields)
}

/// A channel as SDKs and configuration name it.
#[must_use]
pub fn channel_of(text: &str) -> Option<Channel> {
    match text.trim().to_ascii_lowercase().as_str() {
        "browser" | "web" | "client" => Some(Channel::Browser),
        "server" | "sources" | "cloud" => Some(Channel::Server),
        "mobile" => Some(Channel::Mobile),
        _ => None,
    }
}

/// The place of a traits object: its `address`, else `country` beside the other traits.
#[must_use]
pub fn place_of_traits(traits: &str) -> String {
    let mut address = None;
    let mut country = None;
    let mut region = None;
    // The text was checked before; what is not an object has no place.
    let _ = json::for_each_member(traits, |key, value| match key {
        "address" => address = Some(value),
        "country" => country = json::text(value),
        "state" | "region" => region = json::text(value),
        _ => {}
    });
    let of_address = address.map(place::of_address).unwrap_or_default();
    match country {
        Some(country) if of_address.is_empty() => place::of(&country, region.as_deref().unwrap_or_default()),
        _ => of_address,
    }
}

fn read_page<'a>(fields: &mut ContextFields<'a>, page: &'a RawValue) {
    if !json::is_object(page) {
        return;
    }
    let _ = json::for_each_member(page.get(), |key, value| match key {
        "url" => fields.page_url = json::text(value).unwrap_or_default(),
        "search" => fields.page_search = json::text(value).unwrap_or_default(),
        _ => {}
    });
}

fn library(library: &RawValue) -> String {
    if !json::is_object(library) {
        return json::text(library).map(Cow::into_owned).unwrap_or_default();
    }
    let mut name = Cow::default();
    let mut version = Cow::default();
    let _ = json::for_each_member(library.get(), |key, value| match key {
        "name" => name = json::text(value).unwrap_or_default(),
        "version" => version = json::text(value).unwrap_or_default(),
        _ => {}
    });
    let both = format!("{name} {version}");
    both.trim().to_owned()
}
