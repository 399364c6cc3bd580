//! What the expressions of a connection have made of one event: it stands before the event's own values wherever connectors look
//! for a field, so that normalisation, hashing and consent come after it as ever.

use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::Value;

use crate::document::MapTarget;
use crate::outcome::Note;

/// The results for one event.
#[derive(Debug, Default)]
pub struct Overlay {
    fields: Vec<(Arc<str>, Option<Value>)>,
    value: Option<Option<Decimal>>,
    target: Option<MapTarget>,
}

/// What a connection's expressions have made of an event.
#[derive(Debug)]
pub(crate) struct Filled {
    /// The connection that it is of.
    pub of: u64,
    /// What they gave.
    pub overlay: Arc<Overlay>,
    /// What they could not.
    pub notes: Vec<Note>,
}

impl Overlay {
    /// Sets a field; none: it has no value, wherever else there may be one.
    pub(crate) fn set(&mut self, field: &Arc<str>, value: Option<Value>) {
        self.fields.push((Arc::clone(field), value));
    }

    /// Sets what the event is worth.
    pub(crate) fn set_value(&mut self, value: Option<Decimal>) {
        self.value = Some(value);
    }

    /// Sets the event's name at the platform.
    pub(crate) fn set_target(&mut self, target: MapTarget) {
        self.target = Some(target);
    }

    /// What stands for a field; none: no expression is for it.
    #[must_use]
    pub fn field(&self, field: &str) -> Option<Option<&Value>> {
        self.fields.iter().find(|(name, _)| **name == *field).map(|(_, value)| value.as_ref())
    }

    /// All fields.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Option<&Value>)> {
        self.fields.iter().map(|(name, value)| (&**name, value.as_ref()))
    }

    /// What the event is worth; none: no expression is for it.
    #[must_use]
    pub const fn value(&self) -> Option<Option<Decimal>> {
        self.value
    }

    /// The name that was chosen for the event.
    #[must_use]
    pub const fn target(&self) -> Option<&MapTarget> {
        self.target.as_ref()
    }
}
