//! All SQL of the service. One file per thing that is kept.

pub mod cursors;
pub mod dead_letters;
pub mod dedup_generation;
pub mod examine;
pub mod filed;
pub mod give_ups;
pub mod golden;
pub mod index;
pub mod ingest_requests;
pub mod lanes;
pub mod leases;
pub mod ledger;
pub mod match_keys;
pub mod match_quality;
pub mod orders;
pub mod replay_events;
pub mod replays;
pub mod resolved;
pub mod retention;
pub mod retries;
pub mod stats;

/// A statement that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("could not {what}")]
    Database {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Another process holds the lease by now: nothing was committed, and nothing more may be done under this epoch.
    #[error("the lease was lost: nothing was committed")]
    Fenced,
    /// The dedup store changed its history since the claims were made: they must be made again.
    #[error("the dedup generation was bumped: nothing was committed")]
    DedupGenerationBumped,
    /// The cursor stands elsewhere than this process believed.
    #[error("the cursor has moved: nothing was committed")]
    CursorMoved,
    /// The log beside the database.
    #[error("could not {what}")]
    Log {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The block was given back: every cursor is past it.
    #[error("the block was trimmed")]
    Trimmed,
    /// The rows are those of another journal than this process has.
    #[error("this was written over another journal than the one that is configured")]
    OtherJournal,
    /// What was about to be read was merged meanwhile, again and again.
    #[error("the index is merged faster than it can be read")]
    IndexMoved,
    /// A newer version wrote it.
    #[error("the block needs feature level {needed}, this process has {supported}")]
    Newer {
        /// What the block asks for.
        needed: u32,
        /// What this code reads.
        supported: u32,
    },
    /// Stored bytes that are not what was written.
    #[error("stored bytes of {what} cannot be read")]
    Corrupt {
        /// Of what.
        what: &'static str,
    },
}

/// Names what was attempted.
pub(crate) fn attempting(what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { what, source }
}

/// Locks the lease's row against a new holder until the transaction ends, or fails if there is one already. The weakest
/// lock that a taker's `for update` conflicts with: a renewal, which changes no key, does not wait for it.
pub(crate) async fn fence(
    transaction: &mut sqlx::PgConnection,
    lease: &crate::lease::Lease,
) -> Result<(), StoreError> {
    let held = sqlx::query(
        "select 1 from delivery.lease
         where workspace_id = $1 and connection_id = $2 and partition = $3 and epoch = $4 for key share",
    )
    .bind(lease.duty.workspace.0)
    .bind(lease.duty.connection.0)
    .bind(lease.duty.partition.0.cast_signed())
    .bind(lease.epoch)
    .fetch_optional(transaction)
    .await
    .map_err(attempting("fence the commit"))?;
    held.map(|_| ()).ok_or(StoreError::Fenced)
}
