//! Dead letters end: a replay takes them, an operator closes them, an erasure takes those of its person along, and what nobody wants for
//! some weeks goes by itself. Each holds the whole event, its request and the answer: personal data. What the ledger says of an event
//! stays, whatever becomes of its letter.

use jiff::{SignedDuration, Timestamp};

use crate::follower::KeptOfPeople;
use crate::store::StoreError;
use crate::store::dead_letters::DeadLetterStore;
use crate::store::filed::Filed;

/// Dead letters, for as long as they are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    /// Own tables.
    pub store: DeadLetterStore,
    /// Days for which they are kept.
    pub kept_days: u32,
}

impl KeptOfPeople for DeadLetters {
    const WHAT: &'static str = "dead letters";

    fn table(&self) -> Filed {
        self.store.filed()
    }

    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        let kept = SignedDuration::from_hours(24 * i64::from(self.kept_days));
        let died_before = now.checked_sub(kept).unwrap_or(Timestamp::UNIX_EPOCH);
        while self.store.forget(died_before).await? {}
        // Before narrowings are applied, which find nobody in what is not filed.
        while self.store.file_some().await? {}
        Ok(())
    }
}
