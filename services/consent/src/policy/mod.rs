//! The policy: law and vocabulary as an immutable, versioned document.
//!
//! [`PolicyDocument`] is what people write (TOML or JSON); [`Policy`] is the same compiled into tables, so that a decision
//! looks nothing up by name but its places. It has no I/O beyond parsing text.

mod compile;
mod document;

pub use compile::{Lens, PlaceRef, PlaceRules, Policy, UNKNOWN, Vendor};
pub use document::{
    GpcEffect, GpcOverride, Jurisdiction, KindPolicy, PolicyDocument, PolicyError, Regime, VendorPolicy,
};
