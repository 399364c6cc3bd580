//! The resolve loop of a partition: every event once, and in order.

mod backlog;
mod generations;
mod kafka;
mod layouts;
mod merges;
mod orders;
mod rig;
mod twins;
mod unreadable;
