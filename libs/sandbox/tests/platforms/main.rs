//! The sandbox from outside, over HTTP: bad requests and the exact answers, deduplication, faults, and the
//! reference vectors' payloads, all of which must pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod data_manager;
mod faults;
mod ga4;
mod google_ads;
mod hostile;
mod many;
mod meta;
mod network;
mod oauth;
mod rig;
mod tiktok;
mod vectors;
mod webhook;
