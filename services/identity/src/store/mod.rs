//! All SQL of identity. Batches travel as arrays, so the number of statements does not depend on their size.
//!
//! Modules in reading order: [`lookup`] (what is known about a batch: one round trip), [`record`] (new evidence: locks,
//! recompute, write), [`grow`] (new evidence that needs no recompute), [`region`] (what a recompute reads), [`write`] (what it writes), [`outbox`] (what consent has yet to be
//! told), [`touch`] (times and click ids), [`profile`] (one profile for people), `numbers` (numbers of components and
//! profiles).

pub mod grow;
pub mod lookup;
mod numbers;
pub mod outbox;
pub mod profile;
pub mod record;
mod region;
pub mod touch;
mod write;

use std::sync::Arc;

use sqlx::PgPool;
use tracklayer_ids::SubjectKey;

use crate::identifier::ValueMac;
use numbers::Numbers;

/// Identity's tables. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    numbers: Arc<Numbers>,
}

impl Store {
    /// Over a pool whose database has the `identity` schema.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, numbers: Arc::default() }
    }
}

/// Hashes as an array parameter.
fn bytes<'a>(macs: impl IntoIterator<Item = &'a ValueMac>) -> Vec<[u8; 32]> {
    macs.into_iter().map(|mac| mac.0).collect()
}

/// Keys as an array parameter.
fn uuids(keys: impl IntoIterator<Item = SubjectKey>) -> Vec<uuid::Uuid> {
    keys.into_iter().map(SubjectKey::uuid).collect()
}

/// A key as stored.
fn key_of(uuid: uuid::Uuid) -> SubjectKey {
    SubjectKey(uuid.into_bytes())
}
