//! Commands for people, over the same gRPC that the console uses. Each prints a table, or JSON with `--output json`.

pub mod connect;
pub mod connections;
pub mod dead_letters;
pub mod doctor;
pub mod drift;
pub mod events;
pub mod freezes;
pub mod held;
pub mod journal;
pub mod ledger;
pub mod lines;
pub mod names;
pub mod output;
pub mod preview;
pub mod pure;
pub mod quality;
pub mod replay;
pub mod retention;
pub mod send;
pub mod since;
pub mod skip;
pub mod sources;
pub mod stats;
pub mod tries;
pub mod twins;
pub mod verdicts;
pub mod verify;
pub mod workspaces;

pub use connect::{Access, AccessOptions};
pub use output::Output;
