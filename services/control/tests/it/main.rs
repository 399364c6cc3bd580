//! Control from the outside: its gRPC service and its console over real sockets, on a real PostgreSQL.
#![allow(clippy::unwrap_used)]

mod admin;
mod connections;
mod console;
mod harness;
mod holds;
mod isolation;
mod pages;
mod seed;
mod watch;
