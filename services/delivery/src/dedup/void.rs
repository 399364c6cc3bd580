//! Claims that nobody can ever make good.
//!
//! A claim names a position before that position is committed. If the log then loses its history, its generation ends where
//! the cursor stands, and a claim beyond that end stands for an event that is nowhere. Whoever finds one takes it over, or the
//! event would be the duplicate of nothing. Only a journal whose history can change has such claims.

use redis::Script;
use tracklayer_ids::WorkspaceId;
use tracklayer_journal::claim::Claim;

use super::{Claimed, Dedup, DedupError, Memory, Wanted};
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
    /// Takes over the void ones among the claims that stand in the way, in the batch's order; the answers that this changes.
    pub(super) async fn take_void_claims_over(
        &self,
        workspace: WorkspaceId,
        in_the_way: Vec<InTheWay<'_>>,
    ) -> Result<Vec<(usize, Claimed)>, DedupError> {
        let mut changed = Vec::new();
        let asked: Vec<_> =
            in_the_way.iter().map(|it| (message_hash(it.want.message_id), it.holder.position)).collect();
        let void = self.resolved.void(workspace, &asked).await?;
        for (mut it, _) in in_the_way.into_iter().zip(void).filter(|(_, void)| *void) {
            let hash = message_hash(it.want.message_id);
            let mut settled = false;
            for _ in 0..TRIES {
                let found = self.take_over(&it).await?;
                if found.position == it.want.claim.position {
                    metrics::counter!("tracklayer_dedup_void_claims_total").increment(1);
                    changed.push((it.index, Claimed::Winner));
                    settled = true;
                    break;
                }
                if self.resolved.void(workspace, &[(hash, found.position)]).await? == [false] {
                    changed.push((it.index, Claimed::DuplicateOf(found.position)));
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

    async fn take_over(&self, it: &InTheWay<'_>) -> Result<Claim, DedupError> {
        let mut redis = self.redis.clone();
        let found: Vec<u8> = Script::new(TAKE_OVER)
            .key(it.key)
            .arg(it.holder.encode().as_slice())
            .arg(it.want.claim.encode().as_slice())
            .arg(it.want.ttl.max(Memory::SHORTEST).as_secs())
            .invoke_async(&mut redis)
            .await?;
        Claim::decode(&found).ok_or(DedupError::Answer("a claim of an unknown format"))
    }
}
