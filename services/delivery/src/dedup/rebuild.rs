//! Rebuilds the claims of a store that was emptied, replaced or that evicts.
//!
//! Nothing is resolved meanwhile: the generation says that it is not rebuilt, and each commit looks at that. A mark that is
//! set before the first page has to stand at the end, so that a store which is emptied in mid-rebuild is noticed.

use prost::Message as _;
use redis::Value;
use tracklayer_ids::{Offset, Position, SourceId, WorkspaceId};
use tracklayer_journal::claim::{Claim, claim_key, claim_key_per_source};
use tracklayer_proto::event::v1::{Event, ResolvedEvent};

use super::{Dedup, DedupError, Memory, SENTINEL_KEY, StoreIdentity, ask_identity};
use crate::store::StoreError;
use crate::store::dedup_generation::DedupGeneration;

/// Stands from before the first page of a rebuild, with a value of this one rebuild.
const MARK_KEY: &[u8] = b"tl:rebuild";
/// Blocks of one page.
const PAGE_BLOCKS: i64 = 64;

impl Dedup {
    /// Opens the next generation if the store is not that of `seen`, and rebuilds the claims of every winner that may still
    /// be repeated. One process does so; the others, and the other partitions of this one, wait for it.
    pub(super) async fn mend(
        &self,
        seen: Option<DedupGeneration>,
        memory: &Memory,
    ) -> Result<(), DedupError> {
        let _one_at_a_time = self.mending.lock().await;
        let Some(_one_process) = self.generations.lock_rebuild().await? else {
            return Err(DedupError::RebuiltElsewhere);
        };
        let current = self.generations.current().await?;
        if current != seen {
            // Whoever held the locks before has mended it.
            return Ok(());
        }
        let store = self.look(MARK_KEY).await?;
        let generation = match current {
            Some(current) if !current.rebuilt && store.is_same_store(&current) => current,
            other => self.next_generation(other.as_ref(), &store).await?,
        };
        let mark = uuid::Uuid::new_v4().to_string();
        let mut redis = self.redis.clone();
        let _: () = redis::cmd("SET").arg(MARK_KEY).arg(&mark).query_async(&mut redis).await?;
        let claims = self.claim_winners(memory).await?;

        let store = self.look_and_set_sentinel(&generation).await?;
        if !store.is_same_store(&generation) || store.mark.as_deref() != Some(mark.as_str()) {
            tracing::warn!(
                generation = generation.number,
                "the dedup store lost its data while it was rebuilt"
            );
            self.next_generation(Some(&generation), &store).await?;
            return Err(DedupError::HistoryChanged);
        }
        if !self.generations.rebuilt(generation.number).await? {
            return Err(DedupError::HistoryChanged);
        }
        metrics::counter!("tracklayer_dedup_rebuilds_total").increment(1);
        tracing::info!(generation = generation.number, claims, "claims rebuilt from the resolved journal");
        Ok(())
    }

    async fn next_generation(
        &self,
        seen: Option<&DedupGeneration>,
        store: &StoreIdentity,
    ) -> Result<DedupGeneration, DedupError> {
        let next = DedupGeneration {
            number: seen.map_or(0, |g| g.number) + 1,
            run_id: store.run_id.clone(),
            evicted_keys: store.evicted_keys,
            sentinel: uuid::Uuid::new_v4().to_string(),
            rebuilt: false,
        };
        if self.generations.bump(seen.map(|g| g.number), &next).await? {
            Ok(next)
        } else {
            Err(DedupError::HistoryChanged)
        }
    }

    async fn look(&self, mark: &[u8]) -> Result<StoreIdentity, DedupError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        ask_identity(&mut pipe, mark);
        let mut redis = self.redis.clone();
        let answer: Vec<Value> = pipe.query_async(&mut redis).await?;
        StoreIdentity::read(&mut answer.into_iter())
    }

    /// The sentinel counts only once the generation is marked as rebuilt, so it may be set in the same MULTI that looks.
    async fn look_and_set_sentinel(&self, generation: &DedupGeneration) -> Result<StoreIdentity, DedupError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        ask_identity(&mut pipe, MARK_KEY);
        pipe.cmd("SET").arg(SENTINEL_KEY).arg(&generation.sentinel);
        let mut redis = self.redis.clone();
        let answer: Vec<Value> = pipe.query_async(&mut redis).await?;
        StoreIdentity::read(&mut answer.into_iter())
    }

    /// Claims again for the winners in `resolved`, never for the duplicates: `received` would hand a key to the twin of an
    /// event that was already sent. Overwrites: what a lost round trip may have left under a key is not the winner. Each
    /// claim gets what is left of its source's time; one that had run out is not claimed again, because a later winner may
    /// have the key by now.
    async fn claim_winners(&self, memory: &Memory) -> Result<usize, DedupError> {
        let now = jiff::Timestamp::now();
        let since = now - memory.longest();
        let mut after: Option<(i64, Position)> = None;
        let mut count = 0;
        loop {
            let page = self.resolved.page_since(since, after, PAGE_BLOCKS).await?;
            let Some(last) = page.last() else { return Ok(count) };
            after = Some((last.workspace.0, last.block.first));
            let mut pipe = redis::pipe();
            for resolved in &page {
                let age = std::time::Duration::try_from(now.duration_since(resolved.resolved_at))
                    .unwrap_or_default();
                let events =
                    resolved.block.events().map_err(|_| StoreError::Corrupt { what: "a resolved block" })?;
                for (step, bytes) in events.iter().enumerate() {
                    let offset = Offset(resolved.block.first.offset.0 + step as u64);
                    let position = Position { offset, ..resolved.block.first };
                    let Some(winner) = winner_of(resolved.workspace, position, bytes) else { continue };
                    let left = memory.of(resolved.workspace, winner.source).saturating_sub(age);
                    if left.as_secs() == 0 {
                        continue;
                    }
                    count += 1;
                    pipe.cmd("SET")
                        .arg(winner.key)
                        .arg(winner.claim.encode())
                        .arg("EX")
                        .arg(left.as_secs())
                        .ignore();
                }
            }
            let mut redis = self.redis.clone();
            let _: () = pipe.query_async(&mut redis).await?;
        }
    }
}

struct Winner {
    source: SourceId,
    key: Vec<u8>,
    claim: Claim,
}

/// The claim that a resolved winner held; none for duplicates.
fn winner_of(workspace: WorkspaceId, position: Position, bytes: &bytes::Bytes) -> Option<Winner> {
    let resolved = ResolvedEvent::decode(bytes.clone()).ok()?;
    if resolved.duplicate.is_some() || !resolved.poisoned.is_empty() {
        return None;
    }
    let event = Event::decode(resolved.event).ok()?;
    let claim = Claim::of(&event, position);
    let key = if resolved.reused_id {
        claim_key_per_source(workspace, claim.source, claim.fingerprint, &event.message_id)
    } else {
        claim_key(workspace, &event.message_id)
    };
    Some(Winner { source: claim.source, key, claim })
}
