//! An item's part of a request: JSON text, written once when the item is built. Its length is known without writing it again,
//! and requests copy it as it is.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// JSON text of one item.
#[derive(Debug, Clone)]
pub struct ItemBody(Box<RawValue>);

impl ItemBody {
    /// Writes a value down.
    #[must_use]
    pub fn of(value: &impl Serialize) -> Self {
        // Fails only for maps whose keys are no texts, which no payload has.
        Self(to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Bytes of the text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.as_str().len()
    }

    /// The text, parsed: for a look at a finished item. Null if it is none of ours.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::from_str(self.as_str()).unwrap_or(Value::Null)
    }
}

impl PartialEq for ItemBody {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ItemBody {}

impl Serialize for ItemBody {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl std::fmt::Display for ItemBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
