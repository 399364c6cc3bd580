//! `tracklayer dev`: all five services in one process, with private PostgreSQL and Redis servers, the sample workspace and
//! the ad platforms' sandbox.
//!
//! [`start`] puts it together and writes `dev.json` for the command line; [`connections`] are the sample workspace's. The
//! services speak gRPC to each other as in a cluster: a service cannot tell the difference.

pub mod connections;
pub mod start;

pub use start::{DevOptions, Running};
