//! Which events a connection takes, and what they are called at the platform.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracklayer_proto::event::v1::{Event, EventType};

use crate::deliverable::{Deliverable, text_of};
use crate::document::{Kind, MapTarget};
use crate::json::Json;
use crate::outcome::{Skip, SkipReason};
use crate::overlay::Overlay;
use crate::usual::usuals;

/// Which events a connection takes at all. Every part that is given must agree.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventFilter {
    /// Only these event names (`page`, `screen`, `identify` stand for the calls).
    pub include: Option<Vec<String>>,
    /// Not these.
    pub exclude: Vec<String>,
    /// Only events that meet all of these conditions.
    #[serde(rename = "where")]
    pub conditions: Vec<Condition>,
    /// Send test orders (`properties.test` true) as well.
    pub test_orders: bool,
}

/// A condition on one value of the event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Where the value is: "properties.channel", "context.app.name".
    pub path: String,
    /// It must be one of these (as text), or just be there if none are given.
    #[serde(default)]
    pub one_of: Option<Vec<Value>>,
    /// The other way round.
    #[serde(default)]
    pub not: bool,
}

impl Condition {
    fn holds(&self, event: &Deliverable) -> bool {
        let value = event.get(&self.path);
        let met = match (&self.one_of, &value) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(allowed), Some(value)) => allowed
                .iter()
                .any(|a| *a == value.to_value() || (text_of(a).is_some() && text_of(a) == text_of(*value))),
        };
        met != self.not
    }
}

/// The name that maps and filters know an event by: the track name, or the call's word.
#[must_use]
pub fn map_name(event: &Event) -> &str {
    match event.r#type() {
        EventType::Track => &event.name,
        EventType::Page => "page",
        EventType::Screen => "screen",
        EventType::Identify => "identify",
        EventType::Group => "group",
        EventType::Alias => "alias",
        EventType::Unspecified => "",
    }
}

/// A name as it is compared: lower case, spaces folded and trimmed.
#[must_use]
pub fn folded(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// An event map with folded names, ready for lookups.
#[derive(Debug, Clone, Default)]
pub struct EventMap(BTreeMap<String, MapTarget>);

impl EventMap {
    /// Folds the names.
    #[must_use]
    pub fn new(map: &BTreeMap<String, MapTarget>) -> Self {
        Self(map.iter().map(|(name, target)| (folded(name), target.clone())).collect())
    }

    /// What the map says about an event; first, what an expression of `names` has chosen for it.
    #[must_use]
    pub fn target<'a>(&'a self, event: &'a Deliverable) -> Option<&'a MapTarget> {
        event.overlay().and_then(Overlay::target).or_else(|| self.0.get(event.folded_name()))
    }

    /// What the map says about a folded name.
    #[must_use]
    pub fn get(&self, folded_name: &str) -> Option<&MapTarget> {
        self.0.get(folded_name)
    }

    /// Whether the map has nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The part of `wants` that is the same for every kind.
///
/// # Errors
/// The connection does not want the event.
pub fn wants(kind: Kind, filter: &EventFilter, map: &EventMap, event: &Deliverable) -> Result<(), Skip> {
    let skip = |reason, detail: String| Err(Skip { reason, detail });
    let name = event.folded_name();
    if name == "segment consent preference updated" || name == "segment consent preference" {
        return skip(SkipReason::ConsentEvent, "consent events feed the signal store only".to_owned());
    }
    if switched_off(kind, event.integrations()) {
        return skip(SkipReason::Integrations, format!("the event's integrations leave {kind} out"));
    }
    let named = |list: &[String]| list.iter().any(|n| folded(n) == name);
    if filter.include.as_deref().is_some_and(|list| !named(list)) {
        return skip(SkipReason::Filter, "not in event_filter.include".to_owned());
    }
    if named(&filter.exclude) {
        return skip(SkipReason::Filter, "in event_filter.exclude".to_owned());
    }
    if let Some(condition) = filter.conditions.iter().find(|c| !c.holds(event)) {
        return skip(SkipReason::Filter, format!("event_filter.where on {} is not met", condition.path));
    }
    if !filter.test_orders && is_test_order(event) {
        return skip(SkipReason::TestOrder, "a test order (properties.test)".to_owned());
    }
    if matches!(map.target(event), Some(MapTarget::Off(()))) {
        return skip(SkipReason::Unmapped, "event_map maps it to null".to_owned());
    }
    Ok(())
}

fn is_test_order(event: &Deliverable) -> bool {
    usuals!["properties.test", "properties.is_test", "properties.test_order"]
        .iter()
        .any(|place| event.at(*place).is_some_and(is_true))
}

/// True, "true" and 1: where a flag restricts, it is read generously.
#[must_use]
pub fn is_true<'a>(value: impl Into<Json<'a>>) -> bool {
    truth_of(value) == Some(true)
}

/// Yes or no, of a boolean, `true` or `false`, 1 or 0; none of anything else.
#[must_use]
pub fn truth_of<'a>(value: impl Into<Json<'a>>) -> Option<bool> {
    match value.into() {
        Json::Bool(b) => Some(b),
        Json::Text(s) => match s.trim() {
            "1" => Some(true),
            "0" => Some(false),
            word if word.eq_ignore_ascii_case("true") => Some(true),
            word if word.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        },
        Json::Number(n) => match n.as_i64() {
            Some(1) => Some(true),
            Some(0) => Some(false),
            _ => None,
        },
        Json::Null | Json::List(_) | Json::Object(_) => None,
    }
}

/// Segment's `integrations`: `All: false` leaves out what is not named; a name with false leaves that one out. Names are
/// case-sensitive, unknown ones say nothing. Source: Segment, "Filtering with the Integrations object"; 2026-11.
fn switched_off(kind: Kind, integrations: Json<'_>) -> bool {
    let Some(map) = integrations.as_object() else { return false };
    let own = kind.integration_names();
    let mut named_on = false;
    let mut named_off = false;
    for (name, value) in map.iter() {
        if own.contains(&name) {
            match value {
                Json::Bool(false) => named_off = true,
                Json::Null => {}
                _ => named_on = true,
            }
        }
    }
    let all_off = matches!(map.get("All"), Some(Json::Bool(false)));
    named_off || (all_off && !named_on)
}
