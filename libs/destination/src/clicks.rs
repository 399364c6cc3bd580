//! Click and browser ids: from the event itself, from its page's query, else those known for the person or device.

use tracklayer_normalise::{Reason, click};
use tracklayer_proto::event::v1::ClickIds;

use crate::connection::Connection;
use crate::deliverable::{Deliverable, text_of};
use crate::json::Json;

/// Longer than any click id seen; more is an attack or a mistake.
const MAX_BYTES: usize = 2_048;

/// A query parameter of an address, percent-decoded once, case kept.
#[must_use]
pub fn from_query(address: &str, name: &str) -> Option<String> {
    usable(&click::from_url(address, name)?)
}

/// A click id as it may be sent: trimmed, not empty, in one piece, no template that nobody filled in.
#[must_use]
pub fn usable(value: &str) -> Option<String> {
    checked(value).ok().map(str::to_owned)
}

/// The same, or why it may not be sent.
///
/// # Errors
/// It may not.
pub fn checked(value: &str) -> Result<&str, Reason> {
    let value = value.trim();
    if value.is_empty() {
        return Err(Reason::Empty);
    }
    if value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Reason::WhiteSpace);
    }
    if value.len() > MAX_BYTES {
        return Err(Reason::TooLong);
    }
    if click::is_macro(value) { Err(Reason::UnreplacedMacro) } else { Ok(value) }
}

fn usable_of(value: Json<'_>) -> Option<String> {
    match value {
        Json::Text(text) => usable(text),
        other => usable(&text_of(other)?),
    }
}

/// Why the event's own id is left out, where it names one that may not be sent.
#[must_use]
pub fn unusable(
    connection: &Connection,
    event: &Deliverable,
    name: &str,
    page: Option<&str>,
) -> Option<Reason> {
    let why = |value: &str| checked(value).err();
    connection
        .find_or(event, name, || event.property(name))
        .and_then(text_of)
        .and_then(|text| why(&text))
        .or_else(|| page.and_then(|url| click::from_url(url, name)).and_then(|text| why(&text)))
        .or_else(|| event.context(name).and_then(text_of).and_then(|text| why(&text)))
}

/// Finds one id: the document's own path, properties, the page's query, context, what ingest saw, what identity knows.
#[must_use]
pub fn find(
    connection: &Connection,
    event: &Deliverable,
    name: &str,
    page: Option<&str>,
    of: fn(&ClickIds) -> &str,
) -> Option<String> {
    of_event(connection, event, name, page, of).or_else(|| usable(of(&event.known_click_ids)))
}

/// The same from the event alone.
#[must_use]
pub fn of_event(
    connection: &Connection,
    event: &Deliverable,
    name: &str,
    page: Option<&str>,
    of: fn(&ClickIds) -> &str,
) -> Option<String> {
    connection
        .find_or(event, name, || event.property(name))
        .and_then(usable_of)
        .or_else(|| page.and_then(|url| from_query(url, name)))
        .or_else(|| connection.find_or(event, name, || event.context(name)).and_then(usable_of))
        .or_else(|| event.event.click_ids.as_ref().and_then(|ids| usable(of(ids))))
}
