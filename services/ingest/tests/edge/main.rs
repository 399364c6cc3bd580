//! Ingest as its senders see it: real requests against the real pipeline, over a real PostgreSQL and Redis.
#![allow(clippy::unwrap_used)] // helpers outside of a test function: a test may stop here

mod bad_input;
mod browser;
mod grpc;
mod outages;
mod promises;
mod recorded;
mod shopify;
mod support;
mod whole;
