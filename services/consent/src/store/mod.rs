//! All SQL of consent, schema `consent`, always on the primary.
//!
//! In reading order: [`signals`] (what was said), [`narrowing`] (the log and its head, whose lock is what every writer of
//! signals holds), [`receipts`], [`policies`].

mod narrowing;
mod policies;
mod receipts;
mod signals;

use sqlx::PgPool;

pub use narrowing::{Entry, Writing};
pub use policies::Activation;
pub use receipts::{Batch, Receipt};
pub use signals::Read;

/// The tables. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Over a pool whose database has the `consent` schema.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}
