//! Click and browser ids: from the event itself, from its page's query, else those known for the person or device.

use std::borrow::Cow;

use tracklayer_normalise::{Reason, click};
use tracklayer_proto::event::v1::ClickIds;

use crate::connection::Connection;
use crate::deliverable::{Deliverable, text_of};
use crate::usual::{Usual, usual};

/// Longer than any click id seen; more is an attack or a mistake.
const MAX_BYTES: usize = 2_048;

/// A click or browser id, and where an event has it.
#[derive(Debug, Clone, Copy)]
pub struct ClickId {
    /// The name of field and query parameter.
    pub name: &'static str,
    property: Usual,
    context: Usual,
    seen: fn(&ClickIds) -> &str,
}

/// Meta's click, as the cookie has it.
pub const FBC: ClickId = ClickId {
    name: "fbc",
    property: usual!("properties.fbc"),
    context: usual!("context.fbc"),
    seen: |ids| &ids.fbc,
};
/// Meta's click, as the page's address has it.
pub const FBCLID: ClickId = ClickId {
    name: "fbclid",
    property: usual!("properties.fbclid"),
    context: usual!("context.fbclid"),
    seen: |ids| &ids.fbclid,
};
/// Meta's browser.
pub const FBP: ClickId = ClickId {
    name: "fbp",
    property: usual!("properties.fbp"),
    context: usual!("context.fbp"),
    seen: |ids| &ids.fbp,
};
/// Google's click.
pub const GCLID: ClickId = ClickId {
    name: "gclid",
    property: usual!("properties.gclid"),
    context: usual!("context.gclid"),
    seen: |ids| &ids.gclid,
};
/// Google's click, aggregated, of an app.
pub const GBRAID: ClickId = ClickId {
    name: "gbraid",
    property: usual!("properties.gbraid"),
    context: usual!("context.gbraid"),
    seen: |ids| &ids.gbraid,
};
/// Google's click, aggregated, of a page.
pub const WBRAID: ClickId = ClickId {
    name: "wbraid",
    property: usual!("properties.wbraid"),
    context: usual!("context.wbraid"),
    seen: |ids| &ids.wbraid,
};
/// TikTok's click.
pub const TTCLID: ClickId = ClickId {
    name: "ttclid",
    property: usual!("properties.ttclid"),
    context: usual!("context.ttclid"),
    seen: |ids| &ids.ttclid,
};
/// TikTok's browser.
pub const TTP: ClickId = ClickId {
    name: "ttp",
    property: usual!("properties.ttp"),
    context: usual!("context.ttp"),
    seen: |ids| &ids.ttp,
};
/// Google Analytics' browser.
pub const CLIENT_ID: ClickId = ClickId {
    name: "client_id",
    property: usual!("properties.client_id"),
    context: usual!("context.client_id"),
    seen: |ids| &ids.ga_client_id,
};

/// A query parameter of an address, percent-decoded once, case kept.
#[must_use]
pub fn from_query<'a>(address: &'a str, name: &str) -> Option<Cow<'a, str>> {
    usable_text(click::from_url(address, name)?)
}

/// A click id as it may be sent: trimmed, not empty, in one piece, no template that nobody filled in.
#[must_use]
pub fn usable(value: &str) -> Option<&str> {
    checked(value).ok()
}

/// The same of a text that may be borrowed.
#[must_use]
pub fn usable_text(value: Cow<'_, str>) -> Option<Cow<'_, str>> {
    match value {
        Cow::Borrowed(text) => usable(text).map(Cow::Borrowed),
        Cow::Owned(text) => usable(&text).map(|usable| Cow::Owned(usable.to_owned())),
    }
}

/// The same as [`usable`], or why it may not be sent.
///
/// # Errors
/// It may not.
pub fn checked(value: &str) -> Result<&str, Reason> {
    let value = value.trim();
    if value.is_empty() {
        return Err(Reason::Empty);
    }
    let is_plain = value.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain && value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Reason::WhiteSpace);
    }
    if value.len() > MAX_BYTES {
        return Err(Reason::TooLong);
    }
    if click::is_macro(value) { Err(Reason::UnreplacedMacro) } else { Ok(value) }
}

/// Why the event's own id is left out, where it names one that may not be sent.
#[must_use]
pub fn unusable(
    connection: &Connection,
    event: &Deliverable,
    id: ClickId,
    page: Option<&str>,
) -> Option<Reason> {
    let why = |value: Cow<'_, str>| checked(&value).err();
    connection
        .find_or(event, id.name, || event.at(id.property))
        .and_then(text_of)
        .and_then(why)
        .or_else(|| page.and_then(|url| click::from_url(url, id.name)).and_then(why))
        .or_else(|| event.at(id.context).and_then(text_of).and_then(why))
}

/// Finds one id: the document's own path, properties, the page's query, context, what ingest saw, what identity knows.
#[must_use]
pub fn find<'a>(
    connection: &'a Connection,
    event: &'a Deliverable,
    id: ClickId,
    page: Option<&'a str>,
) -> Option<Cow<'a, str>> {
    of_event(connection, event, id, page)
        .or_else(|| usable((id.seen)(&event.known_click_ids)).map(Cow::Borrowed))
}

/// The same from the event alone.
#[must_use]
pub fn of_event<'a>(
    connection: &'a Connection,
    event: &'a Deliverable,
    id: ClickId,
    page: Option<&'a str>,
) -> Option<Cow<'a, str>> {
    let usable_of = |value| usable_text(text_of(value)?);
    connection
        .find_or(event, id.name, || event.at(id.property))
        .and_then(usable_of)
        .or_else(|| page.and_then(|url| from_query(url, id.name)))
        .or_else(|| connection.find_or(event, id.name, || event.at(id.context)).and_then(usable_of))
        .or_else(|| event.event.click_ids.as_ref().and_then(|ids| usable((id.seen)(ids))).map(Cow::Borrowed))
}
