//! All SQL of control. Every change happens in a transaction that the triggers of `0005_config_version.sql` give the next
//! version; a workspace's row is locked first by whoever changes what hangs on it.

mod admin_keys;
mod configuration;
mod connections;
mod freezes;
mod pauses;
mod sources;
mod workspaces;

use sqlx::PgPool;

use crate::error::ControlError;

/// The tables of control. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Over a pool whose database has the `control` schema.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The pool, for the listener of changes.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// A count of SQL as the domain has it. The table's checks keep it in range.
fn unsigned(what: &str, value: i32) -> Result<u32, ControlError> {
    u32::try_from(value).map_err(|_| ControlError::Corrupt { what: what.to_owned() })
}

/// A count of the domain as SQL has it. Parsing keeps it in range.
fn signed(field: &'static str, value: u32) -> Result<i32, ControlError> {
    i32::try_from(value).map_err(|_| ControlError::invalid(field, "is too large"))
}
