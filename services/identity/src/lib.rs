//! Identity: who a person is, as a deterministic graph of identifiers in PostgreSQL.
//!
//! Modules in reading order. Pure: [`policy`] (types, limits, blocked values), [`identifier`] (values become keyed
//! hashes), [`graph`] (sets of pairs become profiles, hubs and collisions), [`leader`] (whose key is the profile's),
//! [`decision`] (what the owner decided), [`evidence`] (the whole, as sets: what the store must equal).

pub mod decision;
pub mod evidence;
pub mod graph;
pub mod identifier;
pub mod leader;
pub mod policy;
mod union_find;
