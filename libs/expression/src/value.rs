//! Values that expressions compute with, what comes out in the end, and the reasons why nothing does.

use std::borrow::Cow;

use jiff::Timestamp;
use rust_decimal::Decimal;

/// A value on the way.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a, V> {
    /// Nothing there.
    Null,
    Bool(bool),
    Number(Decimal),
    Text(Cow<'a, str>),
    Time(Timestamp),
    List(Vec<Value<'a, V>>),
    /// A list or an object of the event, where it lies.
    View(V),
}

/// What an expression gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Decimal),
    /// A text, never blank.
    Text(Cow<'a, str>),
}

/// Why an expression gives nothing for an event: a closed list, without anything of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// It computes with something that the event does not have.
    Absent,
    /// A value of another type than the operation takes.
    Type,
    /// A number that a decimal does not hold.
    OutOfRange,
    /// A division by zero.
    DivisionByZero,
    /// More than [`crate::MAX_STEPS`] steps.
    TooMuchWork,
    /// A text of more than [`crate::MAX_TEXT`] bytes.
    TooLong,
    /// A text that looks like something about a person where none may be read.
    Personal,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 7] = [
        Self::Absent,
        Self::Type,
        Self::OutOfRange,
        Self::DivisionByZero,
        Self::TooMuchWork,
        Self::TooLong,
        Self::Personal,
    ];

    /// The fault as it stands in ledger, preview and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Absent => "expression_absent",
            Self::Type => "expression_type",
            Self::OutOfRange => "expression_out_of_range",
            Self::DivisionByZero => "expression_division_by_zero",
            Self::TooMuchWork => "expression_too_much_work",
            Self::TooLong => "expression_too_long",
            Self::Personal => "expression_personal",
        }
    }

    /// The fault for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Absent => "its expression computes with something that the event does not have",
            Self::Type => "a value has another type than its expression needs",
            Self::OutOfRange => "a number of its expression has more digits than can be kept",
            Self::DivisionByZero => "its expression divides by zero",
            Self::TooMuchWork => "its expression takes more steps over this event than are allowed",
            Self::TooLong => "a text of its expression is longer than 4,096 bytes",
            Self::Personal => "its expression read what looks like an e-mail address or a phone number",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Fault {}
