//! Ingest: where events come in. Validates, stamps and appends them, and acknowledges when they are durable.
//!
//! Modules in reading order: [`config`]; [`http`] and [`grpc`] (the wires); [`credentials`] and [`source`] (who sends);
//! [`ingest`] (what happens to events of any wire, in the order that the promises need) with its parts [`admission`],
//! [`budget`], [`rate`], [`refusals`], [`narrowing`] (and its [`vocabulary`]), [`look`], [`rejected`], [`trace`], [`orders`] (of shops, for their refunds); [`outcome`], [`error`],
//! [`metrics`]; [`store`] (all SQL).
//!
//! It never calls downstream: what an event becomes is delivery's matter.

pub mod admission;
pub mod budget;
pub mod config;
pub mod credentials;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ingest;
pub mod look;
pub mod metrics;
pub mod narrowing;
pub mod orders;
pub mod outcome;
pub mod rate;
pub mod refusals;
pub mod rejected;
mod run;
pub mod source;
mod store;
pub mod trace;
pub mod vocabulary;

pub use config::Config;
pub use run::{RunError, run};

/// Migrations of schema `ingest`. The journal's tables are its own crate's.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
