//! Which conversion action an event belongs to: `event_map` names it, else the connection's own.

use std::collections::BTreeMap;

use serde_json::Value;
use tracklayer_event::commerce::{ORDER_CANCELLED, ORDER_COMPLETED, ORDER_REFUNDED};

use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::document::{MapTarget, SettingsError};
use crate::google::order::{Act, ORDER_UPDATED};
use crate::mapping::EventMap;
use crate::outcome::{Refusal, RefusalCode};

/// Checks that every target of the map is an action's id, and that there is an action at all.
pub fn check(map: &BTreeMap<String, MapTarget>, own: Option<&str>, errors: &mut Vec<SettingsError>) {
    let mut any = own.is_some();
    for (name, target) in map {
        match target {
            MapTarget::Off(()) => continue,
            MapTarget::Name(_) | MapTarget::Detail(_) => {}
        }
        match id_of(target) {
            Some(id) if is_id(id) => any = true,
            Some(_) | None => errors.push(SettingsError::new(
                format!("event_map.{name}"),
                "must be the id of a conversion action (digits), {\"conversion_action_id\": …} or null",
            )),
        }
    }
    if !any {
        errors.push(SettingsError::new(
            "settings.conversion_action_id",
            "is required, unless event_map names an action for each event",
        ));
    }
}

/// Whether a text is an action's id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn id_of(target: &MapTarget) -> Option<&str> {
    match target {
        MapTarget::Name(id) => Some(id.trim()),
        MapTarget::Detail(detail) => {
            detail.get("conversion_action_id").and_then(Value::as_str).map(str::trim)
        }
        MapTarget::Off(()) => None,
    }
}

/// The action of an event. Changes of an order go to the action of the order, unless mapped apart; other events only go
/// where the map says.
///
/// # Errors
/// There is none.
pub fn of(
    connection: &Connection,
    own: Option<&str>,
    event: &Deliverable,
    act: Act,
) -> Result<String, Refusal> {
    let mapped = connection.map.target(event).and_then(id_of).map(str::to_owned);
    let of_orders = || order_action(&connection.map).or(own).map(str::to_owned);
    let action = match act {
        Act::Purchase => mapped.or_else(|| own.map(str::to_owned)),
        Act::Refund | Act::Cancel | Act::Update => mapped.or_else(of_orders),
        Act::Conversion => mapped,
    };
    action.ok_or_else(|| {
        Refusal::new(RefusalCode::EventNotMapped, "no conversion action for this event; event_map names one")
            .at("event")
    })
}

/// Whether an event sells its order: a purchase does, and so does whatever the map sends to an action that changes
/// of orders go to.
#[must_use]
pub fn sells(connection: &Connection, own: Option<&str>, event: &Deliverable, act: Act) -> bool {
    match act {
        Act::Purchase => true,
        Act::Conversion => {
            let mapped = connection.map.target(event).and_then(id_of);
            mapped.is_some_and(|action| takes_changes(connection, own, action))
        }
        Act::Refund | Act::Cancel | Act::Update => false,
    }
}

/// Whether changes of orders go to an action: what goes there with an order's id is the sale that they change, whatever a source
/// calls it.
#[must_use]
pub fn takes_changes(connection: &Connection, own: Option<&str>, action: &str) -> bool {
    let map = &connection.map;
    [ORDER_REFUNDED, ORDER_CANCELLED, ORDER_UPDATED]
        .into_iter()
        .filter_map(|change| map.get(change).and_then(id_of).or_else(|| order_action(map)).or(own))
        .any(|takes| takes == action)
}

fn order_action(map: &EventMap) -> Option<&str> {
    map.get(ORDER_COMPLETED).and_then(id_of)
}
