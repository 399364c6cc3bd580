//! The language as its users see it: text in, a value or a reason out.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

mod bounds;
mod language;
mod refused;
mod same_as_cel;
mod sample;
