//! Identity over a real PostgreSQL server.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

mod answers;
mod concurrency;
mod cost;
mod growth;
mod memory;
mod narrowing;
mod oracle;
mod world;
