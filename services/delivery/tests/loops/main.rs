//! The loops of delivery, resolve and lanes, over the real PostgreSQL, Redis, identity and consent and the platforms' stand-ins:
//! nothing is lost, what is sent once is not sent again, and what became of each event is in the ledger.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod lane;
mod resolve;
mod services;
mod wire;
