//! Claims that nobody can ever make good.
//!
//! A claim names a position before that position is committed. If the log then loses its history, its generation ends where
//! the cursor stands, and a claim beyond that end stands for an event that is nowhere. In PostgreSQL the event stands there before
//! it is claimed, and is nowhere after a failover that lost it, when its partition ends before it. Whoever finds such a claim takes
//! it over, or the event would be the duplicate of nothing.

use redis::Script;
use tracklayer_ids::{Position, WorkspaceId};
use tracklayer_journal::claim::Claim;

use super::{Claimed, Dedup, DedupError, Ends, Memory, Reuse, Wanted};
use crate::resolve::message_hash;

/// Puts a claim in the place of another, if that is still there; else answers what is. Two partitions that find the same void
/// claim do not both win.
const TAKE_OVER: &str = "local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[1] then return found end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return ARGV[2]";

/// How often a claim that was found instead may be void itself, before the batch is tried again.
const TRIES: usize = 4;

/// One event of a batch and the claim that stands in its way.
pub(super) struct InTheWay<'a> {
    /// Its place in the batch.
    pub(super) index: usize,
    /// What it wants.
    pub(super) want: &'a Wanted<'a>,
    /// The key that it was refused.
    pub(super) key: &'a [u8],
    /// Who has it.
    pub(super) holder: Claim,
}

impl Dedup {
    /// Takes over the void ones among the claims that stand in the way, in the batch's order; the answers that this changes, with the
    /// claims that stand there now.
    pub(super) async fn take_void_claims_over(
        &self,
        workspace: WorkspaceId,
        in_the_way: Vec<InTheWay<'_>>,
    ) -> Result<Vec<(usize, Claimed, Claim)>, DedupError> {
        let mut changed = Vec::new();
        let asked: Vec<_> = in_the_way.iter().map(|it| holder_of(it.want, &it.holder)).collect();
        let void = self.void(workspace, &asked).await?;
        for (mut it, _) in in_the_way.into_iter().zip(void).filter(|(_, void)| *void) {
            let mut settled = false;
            for _ in 0..TRIES {
                let (found, reuse) = self.take_over(workspace, &it).await?;
                if found.position == it.want.claim.position {
                    metrics::counter!("tracklayer_dedup_void_claims_total").increment(1);
                    changed.push((it.index, Claimed::won(reuse), found));
                    settled = true;
                    break;
                }
                if self.void(workspace, &[holder_of(it.want, &found)]).await? == [false] {
                    changed.push((it.index, Claimed::DuplicateOf(found.position), found));
                    settled = true;
                    break;
                }
                it.holder = found;
            }
            if !settled {
                return Err(DedupError::HistoryChanged);
            }
        }
        Ok(changed)
    }

    /// Which of these (message_id's hash, position) stand for an event that is nowhere.
    async fn void(
        &self,
        workspace: WorkspaceId,
        claimed: &[(i64, Position)],
    ) -> Result<Vec<bool>, DedupError> {
        match &self.ends {
            Ends::Untold => Ok(vec![false; claimed.len()]),
            Ends::Cursors => Ok(self.resolved.void(workspace, claimed).await?),
            Ends::Journal(journal) => {
                let positions: Vec<Position> = claimed.iter().map(|(_, at)| *at).collect();
                let held = journal.holds(workspace, &positions).await?;
                Ok(held.into_iter().map(|held| !held).collect())
            }
        }
    }

    async fn take_over(
        &self,
        workspace: WorkspaceId,
        it: &InTheWay<'_>,
    ) -> Result<(Claim, Option<Reuse>), DedupError> {
        if let Some(second) = it.want.claim.commerce {
            let found = self.claim_both_past(workspace, it.want, second, &it.holder).await?;
            return Ok((found.holder.unwrap_or(it.want.claim), found.reuse));
        }
        let mut redis = self.redis.clone();
        let found: Vec<u8> = Script::new(TAKE_OVER)
            .key(it.key)
            .arg(it.holder.encode().as_slice())
            .arg(it.want.claim.encode().as_slice())
            .arg(it.want.ttl.max(Memory::SHORTEST).as_secs())
            .invoke_async(&mut redis)
            .await?;
        let found = Claim::decode(&found).ok_or(DedupError::Answer("a claim of an unknown format"))?;
        Ok((found, None))
    }
}

/// By what a holder stands in the index, if it is resolved: found by a second key, it has another message_id.
fn holder_of(want: &Wanted<'_>, holder: &Claim) -> (i64, Position) {
    let hash =
        holder.commerce.map_or_else(|| message_hash(want.message_id), |second| second.message.cast_signed());
    (hash, holder.position)
}
