//! Identity: who a person is, as a deterministic graph of identifiers in PostgreSQL.
//!
//! Modules in reading order. Pure: [`policy`] (types, limits, blocked values), [`identifier`] (values become keyed
//! hashes), [`graph`] (sets of pairs become profiles, hubs and collisions), [`leader`] (whose key is the profile's),
//! [`decision`] (what the owner decided), [`evidence`] (the whole, as sets: what the store must equal), [`click_ids`]
//! (the newest of each kind), [`difference`] (what a new answer changes in what is stored), [`growth`] (news
//! that need no new answer), [`narrowing`] (whose earlier
//! decisions are out of date then). Then [`resolve`] (a batch of events; [`recent`] and [`familiar`] spare questions,
//! [`memory`] bounds what they hold) over [`store`] (all SQL), [`consent`] (tells consent's log of merges and splits), and
//! around it [`grpc`], [`config`], [`error`] and [`metrics`].

pub mod click_ids;
pub mod config;
pub mod consent;
pub mod decision;
pub mod difference;
pub mod error;
pub mod evidence;
pub mod familiar;
pub mod graph;
pub mod growth;
pub mod grpc;
pub mod identifier;
pub mod leader;
pub mod memory;
pub mod metrics;
pub mod narrowing;
pub mod policy;
pub mod recent;
pub mod resolve;
mod run;
pub mod store;
mod union_find;

pub use config::Config;
pub use run::{RunError, run};

/// The tables of schema `identity`.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
