//! Click and browser ids: from properties, from context, from the page's query, in this order.

use serde_json::value::RawValue;
use tracklayer_proto::event::v1::ClickIds;

use crate::json;

/// Longest id that is taken; the longest seen in the wild are under 600 bytes.
const MAX_BYTES: usize = 2_048;

/// Takes a member of properties or of context, if it is one of the ids and the id is not known yet.
pub fn take_member(ids: &mut ClickIds, key: &str, value: &RawValue) {
    let slot = match key {
        "fbclid" => &mut ids.fbclid,
        "fbc" | "_fbc" => &mut ids.fbc,
        "fbp" | "_fbp" => &mut ids.fbp,
        "gclid" => &mut ids.gclid,
        "gbraid" => &mut ids.gbraid,
        "wbraid" => &mut ids.wbraid,
        "ttclid" => &mut ids.ttclid,
        "ttp" | "_ttp" => &mut ids.ttp,
        "ga_client_id" | "gaClientId" | "_ga" => &mut ids.ga_client_id,
        _ => return,
    };
    if !slot.is_empty() {
        return;
    }
    if let Some(id) = json::text(value).filter(|id| usable(id)) {
        *slot = if key == "_ga" { ga_cookie_client_id(&id) } else { id.trim().to_owned() };
    }
}

/// Takes the ids of a page's query that are not known yet. `url` may be an address or a query alone ("?a=b").
pub fn take_query(ids: &mut ClickIds, url: &str) {
    let Some((_, query)) = url.split_once('?') else { return };
    let query = query.split('#').next().unwrap_or_default();
    if !query.contains("clid=") && !query.contains("braid=") {
        return;
    }
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let slot = match key.as_ref() {
            "fbclid" => &mut ids.fbclid,
            "gclid" => &mut ids.gclid,
            "gbraid" => &mut ids.gbraid,
            "wbraid" => &mut ids.wbraid,
            "ttclid" => &mut ids.ttclid,
            _ => continue,
        };
        if slot.is_empty() && usable(&value) {
            *slot = value.trim().to_owned();
        }
    }
}

/// Takes the GA4 client id that Segment users pass in `integrations["Google Analytics 4"].clientId`.
pub fn take_integrations(ids: &mut ClickIds, integrations: &str) {
    if !ids.ga_client_id.is_empty() || !integrations.contains("clientId") {
        return;
    }
    // The text was parsed before: only an object arrives here.
    let _ = json::for_each_member(integrations, |name, options| {
        let ga4 =
            matches!(name, "Google Analytics 4" | "Google Analytics 4 (GA4)" | "Actions Google Analytics 4");
        if ga4 && json::is_object(options) {
            let _ = json::for_each_member(options.get(), |key, value| {
                if key == "clientId"
                    && let Some(id) = json::text(value).filter(|id| usable(id))
                {
                    ids.ga_client_id = id.into_owned();
                }
            });
        }
    });
}

/// Whether any id is there that a time of first sight belongs to.
#[must_use]
pub fn has_click(ids: &ClickIds) -> bool {
    [&ids.fbclid, &ids.fbc, &ids.gclid, &ids.gbraid, &ids.wbraid, &ids.ttclid].iter().any(|id| !id.is_empty())
}

/// An id that could be one: not empty, not too long, no control characters, and no template that nobody filled in.
fn usable(id: &str) -> bool {
    let id = id.trim();
    !id.is_empty() && id.len() <= MAX_BYTES && !id.chars().any(char::is_control) && id != "__CLICKID__"
}

/// "GA1.2.1234567890.1700000000" without its version and depth.
fn ga_cookie_client_id(cookie: &str) -> String {
    let client_id = cookie.strip_prefix("GA1.").and_then(|rest| rest.split_once('.')).map(|(_, id)| id);
    client_id.unwrap_or(cookie).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_decoded_once_and_keeps_its_case() {
        let mut ids = ClickIds::default();
        take_query(
            &mut ids,
            "https://shop.example/?fbclid=IwAR0%2Dabc_x&gclid=&ttclid=__CLICKID__&wbraid=W#fbclid=no",
        );
        assert_eq!((ids.fbclid.as_str(), ids.gclid.as_str(), ids.ttclid.as_str()), ("IwAR0-abc_x", "", ""));
        assert_eq!(ids.wbraid, "W");
        let mut none = ClickIds::default();
        take_query(&mut none, "https://shop.example/#?x=1&fbclid=AbC");
        take_query(&mut none, "https://shop.example/#fbclid=AbC");
        assert_eq!(none.gclid, "");
    }

    #[test]
    fn the_first_place_that_names_an_id_wins() {
        let mut ids = ClickIds::default();
        let value = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        take_member(&mut ids, "gclid", &value("\"from-properties\""));
        take_query(&mut ids, "?gclid=from-query&gbraid=B");
        assert_eq!((ids.gclid.as_str(), ids.gbraid.as_str()), ("from-properties", "B"));
        take_member(&mut ids, "_ga", &value("\"GA1.2.1234567890.1700000000\""));
        assert_eq!(ids.ga_client_id, "1234567890.1700000000");
        let mut other = ClickIds::default();
        take_integrations(&mut other, r#"{"All":true,"Google Analytics 4":{"clientId":"1.2"}}"#);
        assert_eq!(other.ga_client_id, "1.2");
    }
}
