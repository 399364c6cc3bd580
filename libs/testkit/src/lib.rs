//! What tests of every crate share: real servers, databases of their own, patience with a limit.
//!
//! Modules in reading order: `database` (a database per test, copied from a migrated template), `store` (a private Redis),
//! `kafka` (a private broker, where the machine has Java), `journal` ([`append()`]), `patience` ([`eventually`]). Only ever a
//! dev-dependency. The servers end with the test process, also by kill -9.

mod database;
mod journal;
mod kafka;
mod patience;
mod store;

pub use database::{TestDatabase, database, database_alone};
pub use journal::append;
pub use kafka::{TestKafka, kafka, own_kafka, secured_kafka};
pub use patience::{eventually, eventually_seen};
pub use store::{TestRedis, redis};

/// Binds a free port of 127.0.0.1.
///
/// # Panics
/// If there is none.
pub async fn listener() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port on 127.0.0.1")
}

/// A new folder under the system's temporary folder that any user of the machine can enter, as PostgreSQL needs it.
fn new_folder(what: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("tracklayer-{what}-{}", uuid::Uuid::new_v4().simple()))
}
