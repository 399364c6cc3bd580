//! One newtype per kind of id, so that no signature takes three look-alike integers.

use serde::{Deserialize, Serialize};

/// An id that cannot be what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, or longer than the field allows.
    #[error("`{field}` must have 1 to {max} characters, got {got}")]
    Length { field: &'static str, max: usize, got: usize },
    /// Control characters never occur in an honest id.
    #[error("`{field}` contains a control character")]
    ControlCharacter { field: &'static str },
}

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<i64> for $name {
            fn from(value: i64) -> Self {
                Self(value)
            }
        }
    };
}

numeric_id!(
    /// A workspace: the wall between two customers.
    WorkspaceId
);
numeric_id!(
    /// A source: one write key.
    SourceId
);
numeric_id!(
    /// A connection: one destination with its settings.
    ConnectionId
);

/// Idempotency key of an event within its workspace: 1 to 99 characters, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MessageId(String);

impl MessageId {
    /// Most characters that a message_id may have. Source: Segment, HTTP API, "messageId"; 2025-11.
    pub const MAX_CHARS: usize = 99;

    /// Parses a caller's id.
    ///
    /// # Errors
    /// Too long, empty, or with a control character.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let got = text.chars().count();
        if got == 0 || got > Self::MAX_CHARS {
            return Err(IdError::Length { field: "messageId", max: Self::MAX_CHARS, got });
        }
        if text.chars().any(char::is_control) {
            return Err(IdError::ControlCharacter { field: "messageId" });
        }
        Ok(Self(text.to_owned()))
    }

    /// Makes a time-ordered id for an event that came without one.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_of_100_characters_is_refused() {
        assert!(MessageId::parse(&"x".repeat(99)).is_ok());
        assert!(matches!(MessageId::parse(&"x".repeat(100)), Err(IdError::Length { got: 100, .. })));
        assert!(matches!(MessageId::parse(""), Err(IdError::Length { got: 0, .. })));
        assert!(matches!(MessageId::parse("a\u{0}b"), Err(IdError::ControlCharacter { .. })));
    }
}
