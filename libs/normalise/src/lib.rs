//! What a person's or a click's data look like when they leave: the canonical form of each field at each platform,
//! and its SHA-256 where the platform takes a digest. Pure functions: no I/O, no clock, no configuration.
//!
//! Each platform publishes its own form, and one byte of difference is another digest that matches nobody, so a form
//! is chosen by (platform, field) and nothing else. What cannot be used is left out and counted, never guessed: a
//! wrong digest may be some other person's.
//!
//! Reading order: [`Platform`] and [`Field`] (what is asked for), [`Outcome`] (what comes out), [`Reason`] (why nothing does), [`normalise`] (the
//! one entry point, in `rule.rs`), then one file per kind of field: `email`, `phone`, `name`, [`place`], `date`,
//! `gender`, `ids`, [`address`]. Beside them stand [`fbc`] and [`click`] (click ids), [`google_time`], [`money`], and [`line`] for
//! the command `tracklayer normalize`.

pub mod address;
pub mod click;
mod date;
mod digest;
mod email;
pub mod fbc;
mod field;
mod gender;
pub mod google_time;
mod ids;
pub mod line;
pub mod money;
mod name;
mod outcome;
mod phone;
pub mod place;
mod platform;
mod reason;
mod rule;
mod text;

pub use digest::{Sha256Hex, sha256_hex};
pub use field::{Field, UnknownField};
pub use outcome::{Outcome, Wire};
pub use phone::Numbers;
pub use platform::{Platform, UnknownPlatform};
pub use reason::Reason;
pub use rule::{Hints, is_same_form, normalise};
