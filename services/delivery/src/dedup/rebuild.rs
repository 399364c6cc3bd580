//! Rebuilds the claims of a store that was emptied, replaced or that evicts.
//!
//! Nothing is resolved meanwhile: the generation says that it is not rebuilt, and each commit looks at that. A mark that is
//! set before the first page has to stand at the end, so that a store which is emptied in mid-rebuild is noticed.
//!
//! Winners come first. Where a duplicate of theirs had claimed a second key, what it taught is claimed for its winner after them,
//! in another pass: that this message_id and this order are that position.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use prost::Message as _;
use redis::Value;
use tracklayer_event::commerce::name_of_key;
use tracklayer_ids::{Offset, Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::claim::{Claim, CommerceClaim, claim_key, claim_key_per_source, fingerprint};
use tracklayer_proto::event::v1::{Event, EventType, ResolvedEvent};

use super::{Dedup, DedupError, Memory, SENTINEL_KEY, StoreIdentity, ask_identity};
use crate::store::StoreError;
use crate::store::dedup_generation::DedupGeneration;
use crate::store::resolved::{DatedBlock, ResolvedStore};

/// Stands from before the first page of a rebuild, with a value of this one rebuild.
const MARK_KEY: &[u8] = b"tl:rebuild";
/// Where resolve stands in each partition: nothing from there on is anybody's winner.
type Committed = HashMap<(WorkspaceId, Partition), Position>;
/// Blocks that are read at a time, as they are stored.
const READ_BLOCKS: i64 = 16;
/// Most bytes of events that are looked at together, unless one block has more: many small blocks need few round trips, and
/// large ones no more room than one.
const PAGE_BYTES: u64 = 16 << 20;

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
        let (mut any_taught, mut winners) = (false, 0);
        let mut pages = Pages::of(memory, &self.resolved).await?;
        while let Some(page) = pages.next(&self.resolved).await? {
            let mut pipe = redis::pipe();
            for resolved in &page {
                any_taught |= resolved.event.duplicate.is_some() && !resolved.event.commerce_key.is_empty();
                let Some(winner) = winner_of(resolved) else { continue };
                let by_two_keys = winner.claim.commerce.is_some();
                let Some(seconds) = resolved.seconds_left(memory, by_two_keys) else { continue };
                winners += 1;
                for key in winner.keys {
                    pipe.cmd("SET").arg(key).arg(winner.claim.encode()).arg("EX").arg(seconds).ignore();
                }
            }
            self.send(&pipe).await?;
        }
        if !any_taught {
            return Ok(winners);
        }
        let committed = self.resolved.committed().await?;
        // Twice: that a message_id is an order's helps only where the order's winner is known.
        for _ in 0..2 {
            self.teach(memory, &committed).await?;
        }
        Ok(winners)
    }

    /// Gives winners the keys that their duplicates left to them. Over what a lost round trip may have left there, and never over
    /// what is another winner's; a winner that is known by none of the keys has run out.
    async fn teach(&self, memory: &Memory, committed: &Committed) -> Result<(), DedupError> {
        let mut pages = Pages::of(memory, &self.resolved).await?;
        while let Some(page) = pages.next(&self.resolved).await? {
            let lessons: Vec<(WorkspaceId, Claims, u64)> = page
                .iter()
                .filter_map(|resolved| {
                    Some((resolved.workspace, taught_by(resolved)?, resolved.seconds_left(memory, true)?))
                })
                .collect();
            let mut keys: Vec<&[u8]> =
                lessons.iter().flat_map(|(_, lesson, _)| &lesson.keys).map(Vec::as_slice).collect();
            keys.sort_unstable();
            keys.dedup();
            if keys.is_empty() {
                continue;
            }
            let mut redis = self.redis.clone();
            let found: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(&keys).query_async(&mut redis).await?;
            let mut held: HashMap<&[u8], Claim> = keys
                .into_iter()
                .zip(found)
                .filter_map(|(key, found)| Some((key, Claim::decode(&found?)?)))
                .collect();
            let mut pipe = redis::pipe();
            for (workspace, lesson, seconds) in &lessons {
                let holder = |key: &Vec<u8>| {
                    held.get(key.as_slice())
                        .filter(|claim| is_committed(committed, *workspace, claim.position))
                };
                let holders: Vec<Option<Claim>> =
                    lesson.keys.iter().map(|key| holder(key).copied()).collect();
                let is_winner = |claim: &&Claim| claim.position == lesson.claim.position;
                let Some(known) = holders.iter().flatten().find(is_winner) else { continue };
                let known = Claim { commerce: known.commerce.or(lesson.claim.commerce), ..*known };
                for (key, holder) in lesson.keys.iter().zip(holders) {
                    match holder {
                        None => pipe.cmd("SET").arg(key).arg(known.encode()).arg("EX").arg(seconds).ignore(),
                        Some(holder) if holder.position == known.position => {
                            pipe.cmd("SET").arg(key).arg(known.encode()).arg("KEEPTTL").ignore()
                        }
                        Some(_) => continue,
                    };
                    held.insert(key, known);
                }
            }
            self.send(&pipe).await?;
        }
        Ok(())
    }

    /// A page may have nothing for the store: duplicates alone, or what has run out. Nothing is no request.
    async fn send(&self, pipe: &redis::Pipeline) -> Result<(), DedupError> {
        if pipe.is_empty() {
            return Ok(());
        }
        let mut redis = self.redis.clone();
        let _: () = pipe.query_async(&mut redis).await?;
        Ok(())
    }
}

/// The pages of `resolved` that may still be repeated, one partition after the other.
struct Pages {
    now: jiff::Timestamp,
    since: jiff::Timestamp,
    /// Not begun yet, or not at the end.
    partitions: VecDeque<(WorkspaceId, Partition)>,
    /// In the first of these.
    after: Option<Position>,
    /// Read, and not handed out yet.
    blocks: VecDeque<DatedBlock>,
}

impl Pages {
    async fn of(memory: &Memory, resolved: &ResolvedStore) -> Result<Self, DedupError> {
        let now = jiff::Timestamp::now();
        let mut partitions: Vec<_> = resolved.committed().await?.into_keys().collect();
        partitions.sort_unstable();
        let since = now - memory.longest();
        Ok(Self { now, since, partitions: partitions.into(), after: None, blocks: VecDeque::new() })
    }

    /// The next page; none: that was all.
    async fn next(&mut self, resolved: &ResolvedStore) -> Result<Option<Vec<Resolved>>, DedupError> {
        while self.blocks.is_empty() {
            let Some((workspace, partition)) = self.partitions.front().copied() else { return Ok(None) };
            let read =
                resolved.blocks_since(workspace, partition, self.since, self.after, READ_BLOCKS).await?;
            self.after = read.last().map(|last| last.block.first);
            if read.is_empty() {
                self.partitions.pop_front();
            }
            self.blocks.extend(read);
        }
        let mut positions = Vec::new();
        for dated in page_of(&mut self.blocks) {
            let age = Duration::try_from(self.now.duration_since(dated.resolved_at)).unwrap_or_default();
            let first = dated.block.first;
            let events = dated.block.events().map_err(|_| StoreError::Unreadable { at: first })?;
            for (step, bytes) in (0u64..).zip(events) {
                let Ok(event) = ResolvedEvent::decode(bytes) else { continue };
                let position = Position { offset: Offset(first.offset.0 + step), ..first };
                positions.push(Resolved { workspace: dated.workspace, position, age, event });
            }
        }
        Ok(Some(positions))
    }
}

/// As many of the first blocks as are looked at together: their events hold on to all that each inflates to.
fn page_of(blocks: &mut VecDeque<DatedBlock>) -> Vec<DatedBlock> {
    let mut bytes = 0u64;
    let fitting = blocks.iter().take_while(|dated| {
        bytes = bytes.saturating_add(dated.block.header.inflated_bytes);
        bytes <= PAGE_BYTES
    });
    let fitting = fitting.count().max(1).min(blocks.len());
    blocks.drain(..fitting).collect()
}

/// Whether a claim's event can have won: what stands behind the cursor has not.
fn is_committed(committed: &Committed, workspace: WorkspaceId, position: Position) -> bool {
    let end = committed.get(&(workspace, position.partition));
    end.is_some_and(|end| (position.generation, position.offset) < (end.generation, end.offset))
}

/// A position of `resolved`.
struct Resolved {
    workspace: WorkspaceId,
    position: Position,
    age: Duration,
    event: ResolvedEvent,
}

impl Resolved {
    /// What is left of its claim's time; none: nothing.
    fn seconds_left(&self, memory: &Memory, by_two_keys: bool) -> Option<u64> {
        let ttl = memory.of_claim(self.workspace, SourceId(self.event.source_id), by_two_keys);
        Some(ttl.saturating_sub(self.age).as_secs()).filter(|seconds| *seconds > 0)
    }
}

struct Claims {
    keys: Vec<Vec<u8>>,
    claim: Claim,
}

/// The claim that a resolved winner held; none for duplicates.
fn winner_of(resolved: &Resolved) -> Option<Claims> {
    let Resolved { workspace, position, event: found, .. } = resolved;
    if found.duplicate.is_some() || !found.poisoned.is_empty() {
        return None;
    }
    let event = Event::decode(found.event.clone()).ok()?;
    let id = &event.message_id;
    let second =
        (!found.commerce_key.is_empty()).then(|| CommerceClaim::of(*workspace, &found.commerce_key, id));
    let claim = Claim { commerce: second, ..Claim::of(&event, *position) };
    let Claim { source, fingerprint, .. } = claim;
    let first = match (found.reused_id, second) {
        (false, _) => claim_key(*workspace, id),
        (true, None) => claim_key_per_source(*workspace, source, fingerprint, id),
        (true, Some(second)) => second.key_per_source(*workspace, source, fingerprint, id),
    };
    Some(Claims {
        keys: [Some(first), second.map(|second| second.key())].into_iter().flatten().collect(),
        claim,
    })
}

/// The keys that a duplicate by two keys left to its winner, and a claim of that position with the second key: under that, under
/// its message_id, and, in case that is another event's, under its message_id and source.
fn taught_by(resolved: &Resolved) -> Option<Claims> {
    let Resolved { workspace, event: found, .. } = resolved;
    let first = found.duplicate.as_ref()?;
    // Who has a commerce key has the name that belongs to it.
    let fingerprint = fingerprint(EventType::Track.into(), name_of_key(&found.commerce_key)?);
    let (source, id) = (SourceId(found.source_id), &found.message_id);
    let second = CommerceClaim::of(*workspace, &found.commerce_key, id);
    let claim = Claim {
        position: Position::new(first.generation, first.partition, first.offset),
        source,
        channel: u8::try_from(found.channel).unwrap_or(0),
        fingerprint,
        signals: 0,
        commerce: Some(second),
    };
    let per_source = second.key_per_source(*workspace, source, fingerprint, id);
    Some(Claims { keys: vec![second.key(), claim_key(*workspace, id), per_source], claim })
}

#[cfg(test)]
mod tests {
    use tracklayer_journal::{BlockBuilder, ReceivedBlock};

    use super::*;

    #[test]
    fn small_blocks_share_a_page_and_large_ones_have_one_each() {
        let block = |offset, inflated_bytes| {
            let block = BlockBuilder::default().finish().unwrap();
            let header = tracklayer_journal::BlockHeader { inflated_bytes, ..block.header };
            let first = Position::new(1, 0, offset);
            let block = ReceivedBlock { first, header, payload: block.payload, record: None };
            DatedBlock { workspace: WorkspaceId(1), block, resolved_at: jiff::Timestamp::UNIX_EPOCH }
        };
        let sizes = [PAGE_BYTES / 2, PAGE_BYTES / 2, 1, PAGE_BYTES, PAGE_BYTES + 1, u64::MAX, 1];
        let mut blocks: VecDeque<_> = (0..).zip(sizes).map(|(offset, size)| block(offset, size)).collect();
        let mut pages = Vec::new();
        while !blocks.is_empty() {
            let page = page_of(&mut blocks);
            pages.push(page.iter().map(|dated| dated.block.first.offset.0).collect::<Vec<_>>());
        }
        assert_eq!(pages, [vec![0, 1], vec![2], vec![3], vec![4], vec![5], vec![6]]);
    }
}
