//! A day at Northline, reproducible by its seed, sent through the public APIs as real clients would send it.
//!
//! [`people`] decides who comes and what they do (pure), [`catalogue`] what they buy, [`send`] brings it to ingest.
//!
//! The outcome of a day does not depend on timing: what one visitor does is sent in order, a server's copy of an event
//! carries the same ids as the browser's, and opt-outs are sent only when what came before them has been delivered.

pub mod catalogue;
pub mod people;
pub mod send;
