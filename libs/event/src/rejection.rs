//! Why an event cannot be accepted, and what was mended on the way: two closed lists.

/// Why one event was rejected. The text form is what clients, the console and metrics see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectCode {
    /// No `type`, and the path does not say one either.
    MissingType,
    /// A `type` that is none of the six calls.
    UnknownType,
    /// Neither `userId` nor `anonymousId`; for alias and group an id that the call needs.
    MissingIds,
    /// A track call without `event`.
    MissingEventName,
    /// `messageId` has 100 characters or more.
    MessageIdTooLong,
    /// More than 32,768 bytes.
    EventTooLarge,
    /// Not JSON.
    InvalidJson,
    /// JSON, but not an object.
    NotAnObject,
    /// Objects and arrays nested more than 64 deep.
    TooDeep,
    /// A NUL character, which stores and platforms cannot keep.
    ContainsNul,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// A field of another type or length than the Segment spec gives it.
    InvalidField,
}

impl RejectCode {
    /// Every code, for metrics and documentation.
    pub const ALL: [Self; 12] = [
        Self::MissingType,
        Self::UnknownType,
        Self::MissingIds,
        Self::MissingEventName,
        Self::MessageIdTooLong,
        Self::EventTooLarge,
        Self::InvalidJson,
        Self::NotAnObject,
        Self::TooDeep,
        Self::ContainsNul,
        Self::InvalidUtf8,
        Self::InvalidField,
    ];

    /// The code as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingType => "missing_type",
            Self::UnknownType => "unknown_type",
            Self::MissingIds => "missing_ids",
            Self::MissingEventName => "missing_event_name",
            Self::MessageIdTooLong => "message_id_too_long",
            Self::EventTooLarge => "event_too_large",
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::TooDeep => "too_deep",
            Self::ContainsNul => "contains_nul",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidField => "invalid_field",
        }
    }
}

impl std::fmt::Display for RejectCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One event that cannot be accepted. Holds no value of the event, so that it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event rejected as {code}: {reason}")]
pub struct Rejection {
    /// From the closed list.
    pub code: RejectCode,
    /// Path of the field as the caller wrote it ("userId"); empty if the event as a whole.
    pub field: String,
    /// A sentence for people, without values.
    pub reason: String,
    /// The event's id, if it could be read.
    pub message_id: String,
}

impl Rejection {
    /// A rejection of a field.
    #[must_use]
    pub fn new(code: RejectCode, field: &str, reason: impl Into<String>) -> Self {
        Self { code, field: field.to_owned(), reason: reason.into(), message_id: String::new() }
    }

    /// The same, with the event's id.
    #[must_use]
    pub fn of_message(mut self, message_id: &str) -> Self {
        message_id.clone_into(&mut self.message_id);
        self
    }
}

/// Something that was mended, and the event accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Warning {
    /// The event's time was after its receipt: it now is its receipt.
    TimestampClamped,
    /// The event's time could not be read: receipt stands for it.
    TimestampUnparsable,
    /// `sentAt` could not be read: the clock was not corrected.
    SentAtUnparsable,
    /// `type` and path disagree: the path counts.
    TypeFromPath,
    /// A key stood twice in the event: the last one counts.
    DuplicateKey,
    /// Half a surrogate pair (text cut in the middle of a character) was replaced by U+FFFD.
    LoneSurrogateReplaced,
}

impl Warning {
    /// The warning as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimestampClamped => "timestamp_clamped",
            Self::TimestampUnparsable => "timestamp_unparsable",
            Self::SentAtUnparsable => "sent_at_unparsable",
            Self::TypeFromPath => "type_from_path",
            Self::DuplicateKey => "duplicate_key",
            Self::LoneSurrogateReplaced => "lone_surrogate_replaced",
        }
    }
}
