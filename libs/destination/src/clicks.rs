//! Click and browser ids: from the event itself, from its page's query, else those known for the person or device.

use tracklayer_normalise::click;
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
    let value = value.trim();
    let broken = value.chars().any(|c| c.is_whitespace() || c.is_control());
    (!value.is_empty() && !broken && value.len() <= MAX_BYTES && !click::is_macro(value))
        .then(|| value.to_owned())
}

fn usable_of(value: Json<'_>) -> Option<String> {
    match value {
        Json::Text(text) => usable(text),
        other => usable(&text_of(other)?),
    }
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
