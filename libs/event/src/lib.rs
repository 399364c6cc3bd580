//! The canonical event as a domain type: from what senders write to what is stored, and what is read out of it.
//!
//! Modules in reading order: [`segment`] (one event of the Segment spec), [`publish`] (one event on gRPC), [`batch`]
//! (request bodies), `canonical` (the rules that all wires share), [`time`], [`context`], [`consent`], [`click_ids`],
//! [`place`], then what is derived from a stored event: [`identifiers`], [`commerce`]; [`money`]; and below them [`scan`]
//! and [`json`] (text without trees), [`rejection`] (the closed lists of refusals and warnings).
//!
//! Pure: no clock, no I/O, no configuration beyond the arguments. No input makes it panic.

pub mod batch;
mod canonical;
pub mod click_ids;
pub mod commerce;
pub mod consent;
pub mod context;
pub mod identifiers;
pub mod json;
pub mod money;
pub mod place;
pub mod publish;
pub mod rejection;
pub mod scan;
pub mod segment;
pub mod time;

pub use canonical::{MAX_ID_BYTES, MAX_NAME_BYTES, MAX_PAGE_URL_BYTES};
pub use identifiers::{EventIdentifier, Level, identifiers_of};
pub use publish::publish_event;
pub use rejection::{RejectCode, Rejection, Warning};
pub use segment::{Clock, MAX_EVENT_BYTES, ParseContext, parse_event, parse_event_text};
