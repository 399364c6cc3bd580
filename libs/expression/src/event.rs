//! What an expression reads of an event. The event belongs to somebody else: these traits are all that is known of it here.

use jiff::Timestamp;
use rust_decimal::Decimal;

use crate::vocabulary::{Identity, Root, Word};

/// An event.
pub trait Event {
    /// A view of one of its JSON values.
    type View<'a>: View<'a>
    where
        Self: 'a;

    /// The object under a root name.
    fn root(&self, root: Root) -> Self::View<'_>;
    /// A text of the event itself; empty: there is none.
    fn word(&self, word: Word) -> &str;
    /// Whether the event names its person in this way.
    fn has(&self, identity: Identity) -> bool;
    /// When it happened.
    fn time(&self) -> Timestamp;
    /// Whether a text is one that expressions without [`crate::Rules::reads_persons`] must not get to see, wherever it stands.
    fn is_withheld(&self, text: &str) -> bool;
}

/// A view of a JSON value. Copied like a reference.
pub trait View<'a>: Copy + 'a {
    /// What the value is.
    fn shape(self) -> Shape<'a>;
    /// A number as it is written; none if it has more digits than a decimal holds, or is no number.
    fn number(self) -> Option<Decimal>;
    /// A member of an object.
    fn member(self, key: &str) -> Option<Self>;
    /// An item of a list, from 0.
    fn item(self, index: usize) -> Option<Self>;
    /// The items of a list, in order; nothing if it is none.
    fn items(self) -> impl Iterator<Item = Self> + 'a;
    /// How many values a look into this one walks over at most.
    fn weight(self) -> usize;
}

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape<'a> {
    /// Null.
    Null,
    /// True or false.
    Bool(bool),
    /// A number: see [`View::number`].
    Number,
    /// A text.
    Text(&'a str),
    /// A list.
    List,
    /// An object.
    Object,
}
