//! What completes, cancels or refunds an order, in the names of Segment's e-commerce spec v2 (2026-11), and the key by which
//! two events are known to be about the same act though their message_ids differ.
//!
//! A completed or cancelled order happens once, so its id is the key. An order may be refunded in parts: only the refund's own
//! id tells a repeat from the next part, and a refund that has none has no key.

use tracklayer_proto::event::v1::{Event, EventType};

use crate::json::{for_each_member, text};

/// The purchase, as names are compared: lower case, single spaces.
pub const ORDER_COMPLETED: &str = "order completed";
/// All of the order is void.
pub const ORDER_CANCELLED: &str = "order cancelled";
/// All or a part of it is paid back.
pub const ORDER_REFUNDED: &str = "order refunded";

/// Longest id of an order or refund that makes a key.
pub const MAX_ORDER_ID_BYTES: usize = 256;

/// What shops write where there is no id: as a key it would make one act of all of them. As ids are compared, lower case.
const NO_IDS: [&str; 15] = [
    "null",
    "(null)",
    "undefined",
    "(not set)",
    "not set",
    "none",
    "nil",
    "nan",
    "n/a",
    "na",
    "unknown",
    "-",
    "false",
    "true",
    "[object object]",
];

struct Act {
    name: &'static str,
    /// First part of its keys.
    word: &'static str,
    /// Properties that hold the id, the first that says one wins.
    ids: [&'static str; 2],
}

const ACTS: [Act; 3] = [
    Act { name: ORDER_COMPLETED, word: "order_completed", ids: ["order_id", "orderId"] },
    Act { name: ORDER_CANCELLED, word: "order_cancelled", ids: ["order_id", "orderId"] },
    Act { name: ORDER_REFUNDED, word: "order_refunded", ids: ["refund_id", "refundId"] },
];

/// The key of a commerce event, "order_completed:A-1"; none for other events and where the id is absent, too long or a word for
/// none. Within a workspace, equal keys are one act.
#[must_use]
pub fn commerce_key(event: &Event) -> Option<String> {
    if event.r#type() != EventType::Track {
        return None;
    }
    let act = ACTS.iter().find(|act| is_named(&event.name, act.name))?;
    let properties = std::str::from_utf8(&event.properties_json).ok()?;
    let mut found = [None, None];
    for_each_member(properties, |name, value| {
        if let Some(place) = act.ids.iter().position(|id| *id == name) {
            found[place] = text(value);
        }
    })
    .ok()?;
    let id = found.iter().flatten().map(|id| id.trim()).find(|id| !is_no_id(id))?;
    (id.len() <= MAX_ORDER_ID_BYTES).then(|| format!("{}:{id}", act.word))
}

/// A word for none, or nothing but zeros, whatever stands between them: "0", "0000", the nil UUID.
fn is_no_id(id: &str) -> bool {
    let zeros = id.bytes().all(|b| matches!(b, b'0' | b'-' | b'#' | b'.' | b' '));
    zeros || NO_IDS.iter().any(|word| id.eq_ignore_ascii_case(word))
}

/// The name of the events that have such a key.
#[must_use]
pub fn name_of_key(commerce_key: &str) -> Option<&'static str> {
    let (word, _) = commerce_key.split_once(':')?;
    ACTS.iter().find(|act| act.word == word).map(|act| act.name)
}

/// The id in a key.
#[must_use]
pub fn id_of_key(commerce_key: &str) -> &str {
    commerce_key.split_once(':').map_or("", |(_, id)| id)
}

/// Case and all spaces folded, as dedup compares names.
fn is_named(name: &str, folded: &str) -> bool {
    let letters = |text: &'_ str| {
        text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect::<Vec<_>>()
    };
    // Most names are told apart by their first letter.
    name.trim_start().starts_with(['o', 'O']) && letters(name) == letters(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, properties: &str) -> Option<String> {
        commerce_key(&Event {
            r#type: EventType::Track.into(),
            name: name.to_owned(),
            properties_json: properties.to_owned().into(),
            ..Event::default()
        })
    }

    #[test]
    fn an_order_is_known_by_its_id_and_a_refund_by_its_own() {
        let order = r#"{"order_id":"A-1","refund_id":"R-1"}"#;
        assert_eq!(key("Order Completed", order).as_deref(), Some("order_completed:A-1"));
        assert_eq!(key(" order  CANCELLED", order).as_deref(), Some("order_cancelled:A-1"));
        assert_eq!(key("OrderRefunded", order).as_deref(), Some("order_refunded:R-1"));
        assert_eq!(key("Order Updated", order), None, "it may be updated again");
        assert_eq!(key("Order Refunded", r#"{"order_id":"A-1"}"#), None, "there may be another part");
    }

    #[test]
    fn a_number_and_a_text_are_the_same_id() {
        for properties in
            [r#"{"order_id":1001}"#, r#"{"orderId":" 1001 "}"#, r#"{"order_id":"","orderId":1001.0}"#]
        {
            assert_eq!(
                key("Order Completed", properties).as_deref(),
                Some("order_completed:1001"),
                "{properties}"
            );
        }
        let long = format!(r#"{{"order_id":"{}"}}"#, "x".repeat(MAX_ORDER_ID_BYTES + 1));
        for none in [r#"{"order_id":{}}"#, r#"{"order_id":null}"#, "{}", "", "nonsense", &long] {
            assert_eq!(key("Order Completed", none), None, "{none}");
        }
    }

    #[test]
    fn a_word_for_no_id_makes_no_key() {
        for id in
            ["undefined", "NULL", " n/a ", "None", "0", "0000", "#0", "00000000-0000-0000-0000-000000000000"]
        {
            for (name, property) in [("Order Completed", "order_id"), ("Order Refunded", "refundId")] {
                assert_eq!(key(name, &format!(r#"{{"{property}":"{id}"}}"#)), None, "{id}");
            }
        }
        assert_eq!(key("Order Completed", r#"{"order_id":0}"#), None);
        for id in ["10", "A-0", "N/A-1"] {
            assert!(key("Order Completed", &format!(r#"{{"order_id":"{id}"}}"#)).is_some(), "{id}");
        }
        let other = r#"{"order_id":"undefined","orderId":"A-1"}"#;
        assert_eq!(key("Order Completed", other).as_deref(), Some("order_completed:A-1"));
    }

    #[test]
    fn only_a_track_call_has_one() {
        let page = Event {
            r#type: EventType::Page.into(),
            name: "Order Completed".to_owned(),
            properties_json: r#"{"order_id":"A-1"}"#.into(),
            ..Event::default()
        };
        assert_eq!(commerce_key(&page), None);
    }

    #[test]
    fn a_key_names_its_event_and_its_id() {
        assert_eq!(name_of_key("order_refunded:R:1"), Some(ORDER_REFUNDED));
        assert_eq!(id_of_key("order_refunded:R:1"), "R:1");
        assert_eq!(name_of_key("m-1"), None);
    }
}
