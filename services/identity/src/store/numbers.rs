//! Numbers of components and profiles, taken from the database in large blocks, so that a recompute needs no round trip
//! for them. Numbers that are not used are lost, which nobody minds.

use std::ops::Range;

use sqlx::PgConnection;
use tokio::sync::Mutex;

/// Numbers in one block of the sequence: more than any recompute needs, and few enough for 8 billion blocks.
const BLOCK: i64 = 1 << 30;

/// The current block of this process.
#[derive(Debug)]
pub(super) struct Numbers {
    left: Mutex<Range<i64>>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { left: Mutex::new(0..0) }
    }
}

impl Numbers {
    /// `count` numbers that were never used.
    pub(super) async fn take(
        &self,
        connection: &mut PgConnection,
        count: usize,
    ) -> Result<Range<i64>, sqlx::Error> {
        let count = i64::try_from(count).unwrap_or(BLOCK).min(BLOCK);
        let mut left = self.left.lock().await;
        if left.end - left.start < count {
            let block: i64 = sqlx::query_scalar("select nextval('identity.block_of_numbers')")
                .fetch_one(connection)
                .await?;
            *left = block * BLOCK..(block + 1) * BLOCK;
        }
        let taken = left.start..left.start + count;
        left.start = taken.end;
        Ok(taken)
    }
}
