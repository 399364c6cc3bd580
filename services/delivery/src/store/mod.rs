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
pub mod refused_requests;
pub mod replaced;
pub mod replay_events;
pub mod replays;
pub mod resolved;
pub mod retention;
pub mod retries;
pub mod skips;
pub mod stats;
mod sums;
pub mod twins;

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
    /// Another process holds the lease by now, or the database has another history: nothing was committed, and nothing more may
    /// be done under this epoch.
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
    /// A resolved block that a lane or a rebuild of the claims has to read, and that is not what was written.
    #[error(
        "the resolved block in which {at} is cannot be read: bring its bytes back, or see what is lost without them: \
         `tracklayer journal skip {at} --resolved`"
    )]
    Unreadable {
        /// An event of it.
        at: tracklayer_ids::Position,
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

/// The select of [`fence`], with the numbers under which a statement has the lease's epoch and history; $1 to $3 are what it is for.
///
/// Where all of a commit is one statement, it is a part of that. The row may change between that statement's snapshot and the lock, so
/// that it is the taker's `for update`, too, by which it is found out: what a taker leaves behind is locked as if its key had changed, and
/// a select that comes upon it with this lock waits for its end and then looks at the newest row. Of an update alone it would take no
/// notice. The history changes under no statement: none that writes outlives a promotion.
macro_rules! held_lease {
    ($epoch:literal, $history:literal) => {
        concat!(
            "select 1 from delivery.lease l
             join journal.history h on h.id = ",
            $history,
            " and h.timeline = journal.timeline()
             where l.workspace_id = $1 and l.connection_id = $2 and l.partition = $3 and l.epoch = ",
            $epoch,
            " for key share of l"
        )
    };
}
pub(crate) use held_lease;

/// Locks the lease's row against a new holder until the transaction ends, or fails if there is one already. The weakest
/// lock that a taker's `for update` conflicts with: a renewal, which changes no key, does not wait for it.
///
/// Fails, too, in another history of the database than the lease was taken in, where epochs and cursors may have gone back: also
/// before anybody has begun it, and no transaction that writes outlives a promotion.
pub(crate) async fn fence(
    transaction: &mut sqlx::PgConnection,
    lease: &crate::lease::Lease,
) -> Result<(), StoreError> {
    let held = sqlx::query(held_lease!("$4", "$5"))
        .bind(lease.duty.workspace.0)
        .bind(lease.duty.connection.0)
        .bind(lease.duty.partition.0.cast_signed())
        .bind(lease.epoch)
        .bind(lease.history)
        .fetch_optional(transaction)
        .await
        .map_err(attempting("fence the commit"))?;
    held.map(|_| ()).ok_or(StoreError::Fenced)
}
