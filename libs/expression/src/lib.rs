//! Expressions in the connections' documents: CEL (github.com/google/cel-spec), read by the parser of the `cel` crate, checked by
//! a typed pass over its syntax tree against a closed vocabulary, and evaluated over one event at a time. Pure: no I/O, no clock.
//!
//! The evaluation is not that crate's, for three reasons. It has no bound on what an evaluation may cost, and the events come from
//! outside. Its fractions are doubles, and money here is decimal. And it wants every event copied into values of its own, where
//! this one reads the event where it lies. That both mean the same is tested (`tests/it/same_as_cel.rs`).
//!
//! Where the language differs from CEL, it is more forgiving, and says so in `docs/mapping.md`: there is one kind of number,
//! decimal, so that `7 / 2` is 3.5; and what an event does not have is `null`, where CEL fails: `properties.channel == "web"` is
//! false for an event without a channel. Computing with what is not there fails here as well, as [`Fault::Absent`].
//!
//! Modules in reading order: [`event`] (what is read of an event), [`value`] (values and faults), [`vocabulary`] (the words),
//! [`compile`] (text → program), `check` (the typed pass), [`program`] (a checked expression), `evaluate`.
//!
//! An expression that was compiled cannot panic, and visits at most [`MAX_STEPS`] places of an event; those of one [`Budget`]
//! together at most [`MAX_STEPS_OF_EVENT`]. Whoever asks for many of them bounds them all by [`within`].

mod calls;
mod check;
pub mod compile;
mod evaluate;
pub mod event;
mod functions;
pub mod program;
pub mod value;
pub mod vocabulary;

pub use compile::{CompileError, Rules, compile, together};
pub use evaluate::{Budget, within};
pub use event::{Event, Shape, View};
pub use program::{Program, Type};
pub use value::{Fault, Outcome};
pub use vocabulary::{Identity, Root, Word};

/// Longest text of an expression, in bytes.
pub const MAX_LENGTH: usize = 2_048;
/// Deepest nesting of an expression, operators in a row included.
pub const MAX_DEPTH: usize = 32;
/// How many list macros may stand inside each other.
pub const MAX_NESTED_MACROS: usize = 2;
/// Steps that one evaluation may take: a node of the expression is one, so are sixteen values that a look walks over, and 32 bytes
/// of a text that is searched or copied; a regular expression pays for every byte, the more the larger it is.
pub const MAX_STEPS: u32 = 50_000;
/// Steps that all expressions may take together that are evaluated over one event within one [`Budget`].
pub const MAX_STEPS_OF_EVENT: u32 = 100_000;
/// Longest text that an expression may make, in bytes.
pub const MAX_TEXT: usize = 4_096;
