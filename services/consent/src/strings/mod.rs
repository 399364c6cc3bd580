//! Decoders of consent strings: pure, total, without recursion.
//!
//! Every decoder takes any text and answers with a reading or a [`DecodeError`]; none panics, none expands a range, and
//! work is linear in the length, which is at most [`MAX_STRING_BYTES`]. They know nothing of policies: what a reading
//! *means* is in `decide`.
//!
//! In reading order: [`bits`] (the bit reader), [`ranges`] (sets of vendor ids kept as ranges), [`tcf`], [`us`] (the US
//! sections of GPP, driven by a table), [`gpp`], [`usp`], [`gcd`].

pub mod bits;
pub mod gcd;
pub mod gpp;
pub mod ranges;
pub mod tcf;
pub mod us;
pub mod usp;

/// Longest string that is looked at. Longer ones are refused unread, so that work and memory stay bounded.
pub const MAX_STRING_BYTES: usize = 16 * 1024;

/// Why a consent string cannot be read. Such a string counts as unreadable, never as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("the string is empty")]
    Empty,
    /// Longer than [`MAX_STRING_BYTES`].
    #[error("the string is longer than 16 KiB")]
    TooLong,
    /// A character outside base64url.
    #[error("the string has a character that is not base64url")]
    BadCharacter,
    /// The bits end inside a field.
    #[error("the string ends inside a field")]
    Truncated,
    /// Another kind of string.
    #[error("the string is of another type")]
    WrongType,
    /// A version whose layout is not known.
    #[error("the string has a version that is not known")]
    UnknownVersion,
    /// A range that ends before it starts.
    #[error("the string has a range that ends before it starts")]
    BackwardRange,
    /// A number that does not fit.
    #[error("the string has a number that is out of bounds")]
    OutOfBounds,
    /// More than 32 sections.
    #[error("the string has more than 32 sections")]
    TooManySections,
    /// Header and sections disagree.
    #[error("the string's header names another number of sections than follow")]
    SectionCount,
    /// The same segment twice.
    #[error("the string has the same segment twice")]
    DuplicateSegment,
    /// A two-bit field with the value 3, which no specification defines.
    #[error("the string has a field with an undefined value")]
    UndefinedValue,
}
