//! A lane over the real PostgreSQL, identity, consent and the platforms' stand-ins: what is sent once is not sent again, and
//! what became of each event is in the ledger.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod answers;
mod commits;
mod consent;
mod holds;
mod orders;
mod proxy;
mod rig;
mod unknown;
