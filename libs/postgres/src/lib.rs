//! PostgreSQL for all services: a pool with sane limits, the migration runner, and what an error means.
//!
//! Modules in reading order: `pool` (connections and their limits), `transaction` (begun whole or not at all), `migrations` (each service's own history inside its
//! own schema), `failure` (unavailable or not, which constraint). It knows no table of any service.

mod failure;
mod migrations;
mod pool;
mod transaction;

pub use failure::{OnConstraint, constraint, is_unavailable};
pub use migrations::{is_migrated, migrate};
pub use pool::{Limits, connect, connect_with};
pub use transaction::{Held, begin, hold};

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The address is not one that PostgreSQL understands.
    #[error("the database address is not usable; expected `postgres://user:password@host:port/database`")]
    BadAddress(#[source] sqlx::Error),
    /// Nobody answered, or the answer was a refusal.
    #[error("could not connect to the database")]
    Connect(#[source] sqlx::Error),
    /// Nobody answers there.
    #[error("no database answers at {address}")]
    Away {
        /// Host and port, or the folder of the socket.
        address: String,
        /// Why not.
        #[source]
        cause: sqlx::Error,
    },
    /// A schema or its history could not be brought up to date.
    #[error("could not migrate schema `{schema}`")]
    Migrate {
        /// The schema.
        schema: &'static str,
        /// Why.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// Somebody else migrated for longer than anybody should wait.
    #[error(
        "another process has been migrating schema `{schema}` for {waited:?}; look for its session in pg_stat_activity"
    )]
    MigrationLocked {
        /// The schema.
        schema: &'static str,
        /// How long.
        waited: std::time::Duration,
    },
    /// A schema name that would need quoting.
    #[error("`{0}` is not a plain schema name (a to z, 0 to 9, underscore)")]
    BadSchema(&'static str),
    /// A statement failed.
    #[error("a statement on the database failed")]
    Statement(#[from] sqlx::Error),
}
