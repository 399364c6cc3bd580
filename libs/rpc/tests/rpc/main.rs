//! The stacks over real sockets.
#![allow(clippy::unwrap_used)]

mod balance;
mod fake;
mod follow;
mod http;
mod stack;
