//! Transactions that are begun whole or not at all.
//!
//! sqlx counts a transaction when its `BEGIN` was answered. Who drops the future before that gives back a connection that is in a
//! transaction nobody knows of, and what others do on it afterwards, one statement after the other, is not durable, though they
//! are told so. (Source: sqlx-postgres 0.9.0, `transaction.rs`: `start_rollback` does nothing at depth 0.) So whatever can be
//! dropped, such as the work for a call whose caller goes away, begins transactions here.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

/// Begins a transaction on a connection of a pool, as [`PgPool::begin`] does, but goes on doing so if its caller goes away: only so
/// is it rolled back then.
///
/// # Errors
/// As [`PgPool::begin`].
pub async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    match tokio::spawn(async move { pool.begin().await }).await {
        Ok(begun) => begun,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        // The runtime ends, and everything with it.
        Err(_) => Err(sqlx::Error::PoolClosed),
    }
}

/// Takes a connection of a pool for several transactions, one after the other.
///
/// # Errors
/// As [`PgPool::acquire`].
pub async fn hold(pool: &PgPool) -> Result<Held, sqlx::Error> {
    Ok(Held { connection: pool.acquire().await?, is_done: false })
}

/// A connection that is closed, and not given back, unless whoever has it says that nothing was broken off.
#[derive(Debug)]
pub struct Held {
    connection: PoolConnection<Postgres>,
    is_done: bool,
}

impl Held {
    /// Back to the pool: whatever was done on it came to its end, good or bad.
    pub fn give_back(mut self) {
        self.is_done = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_done {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Held {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
