//! Control: workspaces, sources, connections and admin keys; the configuration that the other services follow; the web console.
//!
//! It owns the schema `control` and reads delivery over gRPC. Other services go on with the last configuration while it is away.
//!
//! Modules in reading order: [`config`] (settings), [`workspace`], [`source`] and its [`webhook`], [`connection`], [`hold`] (the things, parsed), [`scope`]
//! (who may), [`admin`] (what an administrator does), [`configuration`] (the feed), [`store`] (all SQL), [`grpc`], [`console`],
//! [`seed`].

pub mod admin;
pub mod config;
pub mod configuration;
pub mod connection;
pub mod console;
pub mod error;
pub mod grpc;
pub mod hold;
mod metrics;
pub mod name;
mod run;
pub mod scope;
pub mod seed;
pub mod source;
pub mod store;
pub mod webhook;
pub mod workspace;

pub use config::Config;
pub use error::ControlError;
pub use run::{RunError, run};
pub use seed::{
    SeedOptions, Seeded, SeededConnection, SeededSource, dev_write_key, ensure_first_admin_key,
    recover_admin_key, seed_northline,
};

/// The tables of control, schema `control`.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
