//! Delivery: resolves what was received, and brings it to each destination exactly as often as it should.
//!
//! Modules in reading order: [`config`]; [`lease`] (who reads what), [`supervisor`] (runs it) and [`progress`] (what there is to read); [`resolve`] with
//! [`dedup`], [`reused_ids`], [`twins`], [`subjects`], [`connections`] and [`suspects`] (received → resolved); [`entry`] (a resolved position as lanes see it);
//! [`retention`] (what nobody needs any more), [`give_ups`] (what nobody shall get any more) and [`skips`] (what nobody can read any more); [`lane`] (resolved → requests → ledger) with [`holds`], [`pace`], [`narrowing`],
//! [`quota`], [`breaker`], [`http`], [`oauth`], [`file_memory`], [`match_keys`], [`match_quality`] and [`sealer`]; [`replay`] (what is sent again); [`ingest_requests`] (what a platform says later); [`ledger`] (the states of the conservation law); [`balance`], [`books`] and [`story`] (what the ledger tells);
//! [`follower`] (what is kept of people goes with an erasure) and [`dead_letters`]; [`golden`] and [`difference`] (what gives another request by now); [`forecast`] (what will be too old when a hold ends); [`inspection`] (what the journal holds), [`kept`] (for whom) and [`backlog`] (who is behind, as metrics); [`examine`] (what
//! an operator should mend) and [`verify`] (whether a connection works at its platform); [`grpc`]; [`store`] (all SQL), with [`runs`] (what its
//! index is made of).
//!
//! Delivery writes schema `delivery` only. It reads the journal's `received`, and gives days of it back through `libs/journal`;
//! everything else it asks over gRPC.

pub mod backlog;
pub mod backoff;
pub mod balance;
pub mod books;
pub mod breaker;
pub mod clients;
pub mod clock;
pub mod config;
pub mod connections;
pub mod dead_letters;
pub mod dedup;
pub mod difference;
pub mod entry;
pub mod examine;
pub mod file_memory;
pub mod follower;
pub mod forecast;
pub mod give_ups;
pub mod golden;
pub mod grpc;
pub mod holds;
pub mod http;
pub mod ingest_requests;
pub mod inspection;
pub mod kept;
pub mod lane;
pub mod lease;
pub mod ledger;
pub mod match_keys;
pub mod match_quality;
pub mod narrowing;
pub mod oauth;
pub mod pace;
pub mod preview;
pub mod progress;
pub mod quota;
pub mod replay;
pub mod resolve;
pub mod resolved_events;
pub mod retention;
pub mod reused_ids;
mod run;
pub mod runs;
pub mod sealer;
pub mod skips;
pub mod store;
pub mod story;
pub mod subjects;
pub mod supervisor;
pub mod suspects;
pub mod twins;
pub mod verify;

pub use config::Config;
pub use run::{RunError, run};

/// Migrations of schema `delivery`.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
