//! Position claims in Redis, and what happens when Redis forgets.
//!
//! A claim is `SET key value NX GET`: an event is a duplicate if and only if the key holds *another* position. Every round
//! trip is one MULTI that also returns Redis's run id and a random sentinel key; together they are the *dedup
//! generation*. If either changed, the claims of that round trip count for nothing: the generation is bumped, the claims are
//! rebuilt from the winners in `resolved`, and resolve goes on. The commit of a resolved range names the generation and
//! fails if it was bumped in between.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{FromRedisValue, Value};
use tracklayer_ids::{Position, WorkspaceId};
use tracklayer_journal::claim::{Claim, claim_key, claim_key_per_source};
use tracklayer_proto::event::v1::ResolvedEvent;

use crate::store::StoreError;
use crate::store::dedup_generation::{DedupGeneration, DedupGenerationStore};
use crate::store::resolved::ResolvedStore;

const SENTINEL_KEY: &[u8] = b"tl:sentinel";

/// Why claims could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DedupError {
    /// Redis is away: resolve waits.
    #[error("could not claim in Redis")]
    Redis(#[from] redis::RedisError),
    /// The generation could not be read or written.
    #[error("could not keep the dedup generation")]
    Store(#[from] StoreError),
    /// The store's history changed; it was mended, claim again.
    #[error("the dedup store changed its history; claims have to be made again")]
    HistoryChanged,
    /// Redis answered something else than it was asked.
    #[error("Redis answered in an unexpected form: {0}")]
    Answer(&'static str),
}

/// A claim to make.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Id within the workspace.
    pub message_id: &'a str,
    /// What is claimed.
    pub claim: Claim,
    /// How long it is remembered.
    pub ttl: Duration,
}

/// The answer to one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// This position is the first occurrence.
    Winner,
    /// Another position is.
    DuplicateOf(Position),
    /// The id is used for another event too; claimed per source, and this position is the first of it.
    WinnerOfReusedId,
}

/// Makes claims. Cheap to clone.
#[derive(Clone)]
pub struct Dedup {
    redis: ConnectionManager,
    generations: DedupGenerationStore,
    resolved: ResolvedStore,
}

impl Dedup {
    /// Over a Redis connection that reconnects by itself.
    #[must_use]
    pub fn new(redis: ConnectionManager, generations: DedupGenerationStore, resolved: ResolvedStore) -> Self {
        Self { redis, generations, resolved }
    }

    /// Claims a batch; answers in order, with the generation that the claims belong to. `longest_ttl` is the longest that any
    /// source remembers: how far back a rebuild has to read.
    ///
    /// # Errors
    /// Redis or the database away; [`DedupError::HistoryChanged`] after a mend (call again).
    pub async fn claim(
        &self,
        workspace: WorkspaceId,
        wanted: &[Wanted<'_>],
        longest_ttl: Duration,
    ) -> Result<(i64, Vec<Claimed>), DedupError> {
        let generation = match self.generations.current().await? {
            Some(generation) if generation.rebuilt => generation,
            found => {
                self.mend(found, longest_ttl).await?;
                return Err(DedupError::HistoryChanged);
            }
        };
        let keys: Vec<Vec<u8>> = wanted.iter().map(|w| claim_key(workspace, w.message_id)).collect();
        let found = self.set_all(&generation, longest_ttl, wanted.iter().zip(&keys)).await?;

        // Two events of one batch may carry one id: the first in order claims, Redis answers the second with the first.
        let mut answers: Vec<Claimed> = Vec::with_capacity(wanted.len());
        let mut reused: Vec<usize> = Vec::new();
        for (index, (want, found)) in wanted.iter().zip(found).enumerate() {
            let answer = match found {
                None => Claimed::Winner,
                Some(first) if first.position == want.claim.position => Claimed::Winner,
                Some(first) if first.fingerprint != want.claim.fingerprint => {
                    reused.push(index);
                    Claimed::WinnerOfReusedId
                }
                Some(first) => Claimed::DuplicateOf(first.position),
            };
            answers.push(answer);
        }
        if !reused.is_empty() {
            metrics::counter!("tracklayer_dedup_id_reused_total").increment(reused.len() as u64);
            let again: Vec<&Wanted<'_>> = reused.iter().map(|i| &wanted[*i]).collect();
            let keys: Vec<Vec<u8>> = again
                .iter()
                .map(|w| claim_key_per_source(workspace, w.claim.source, w.claim.fingerprint, w.message_id))
                .collect();
            let found = self.set_all(&generation, longest_ttl, again.iter().copied().zip(&keys)).await?;
            for ((index, want), found) in reused.into_iter().zip(again).zip(found) {
                if let Some(first) = found.filter(|first| first.position != want.claim.position) {
                    answers[index] = Claimed::DuplicateOf(first.position);
                }
            }
        }
        Ok((generation.number, answers))
    }

    async fn set_all<'a>(
        &self,
        generation: &DedupGeneration,
        longest_ttl: Duration,
        claims: impl Iterator<Item = (&'a Wanted<'a>, &'a Vec<u8>)>,
    ) -> Result<Vec<Option<Claim>>, DedupError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("INFO").arg("server");
        pipe.cmd("GET").arg(SENTINEL_KEY);
        for (want, key) in claims {
            pipe.cmd("SET")
                .arg(key.as_slice())
                .arg(want.claim.encode())
                .arg("EX")
                .arg(want.ttl.as_secs().max(60))
                .arg("NX")
                .arg("GET");
        }
        let mut redis = self.redis.clone();
        let answer: Vec<Value> = pipe.query_async(&mut redis).await?;
        let mut values = answer.into_iter();
        let info = values.next().ok_or(DedupError::Answer("no INFO"))?;
        let sentinel = values.next().ok_or(DedupError::Answer("no sentinel"))?;
        let run_id =
            run_id_of(&String::from_redis_value(info).map_err(|_| DedupError::Answer("INFO is no text"))?);
        let sentinel: Option<String> = FromRedisValue::from_redis_value(sentinel)
            .map_err(|_| DedupError::Answer("sentinel is no text"))?;
        if run_id != generation.run_id || sentinel.as_deref() != Some(generation.sentinel.as_str()) {
            tracing::warn!(generation = generation.number, "the dedup store has lost or changed its data");
            self.mend(Some(generation.clone()), longest_ttl).await?;
            return Err(DedupError::HistoryChanged);
        }
        values
            .map(|value| {
                let bytes: Option<Vec<u8>> = FromRedisValue::from_redis_value(value)
                    .map_err(|_| DedupError::Answer("a claim is no bytes"))?;
                bytes
                    .map(|bytes| {
                        Claim::decode(&bytes).ok_or(DedupError::Answer("a claim of an unknown format"))
                    })
                    .transpose()
            })
            .collect()
    }

    /// Opens the next generation and rebuilds the claims of every winner that may still be repeated. Several processes may
    /// do so at the same time: the claims are the same, and only one bump takes effect.
    async fn mend(&self, seen: Option<DedupGeneration>, longest_ttl: Duration) -> Result<(), DedupError> {
        let mut redis = self.redis.clone();
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut redis).await?;
        let run_id = run_id_of(&info);
        let current = match seen {
            Some(current) if !current.rebuilt && current.run_id == run_id => current,
            other => {
                let sentinel = uuid::Uuid::new_v4().to_string();
                self.generations.bump(other.map(|g| g.number), &run_id, &sentinel).await?;
                self.generations.current().await?.ok_or(DedupError::Answer("no generation after a bump"))?
            }
        };
        if current.rebuilt {
            return Ok(());
        }
        let rebuilt = self.rebuild(longest_ttl).await?;
        let _: () =
            redis::cmd("SET").arg(SENTINEL_KEY).arg(&current.sentinel).query_async(&mut redis).await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut redis).await?;
        if run_id_of(&info) != current.run_id {
            return Err(DedupError::HistoryChanged);
        }
        self.generations.rebuilt(current.number).await?;
        metrics::counter!("tracklayer_dedup_rebuilds_total").increment(1);
        tracing::info!(
            generation = current.number,
            claims = rebuilt,
            "claims rebuilt from the resolved journal"
        );
        Ok(())
    }

    /// Claims again for the winners in `resolved`, never for the duplicates: `received` would hand a key to the twin of an
    /// event that was already sent. Overwrites: what a lost round trip may have left under a key is not the winner.
    async fn rebuild(&self, longest_ttl: Duration) -> Result<usize, DedupError> {
        let since = jiff::Timestamp::now() - longest_ttl;
        let mut after: Option<(i64, Position)> = None;
        let mut count = 0;
        loop {
            let page = self.resolved.page_since(since, after, 64).await?;
            let Some((workspace, last)) = page.last() else { return Ok(count) };
            after = Some((workspace.0, last.first));
            let mut pipe = redis::pipe();
            for (workspace, block) in &page {
                let events = block.events().map_err(|_| StoreError::Corrupt { what: "a resolved block" })?;
                for (step, bytes) in events.iter().enumerate() {
                    let Some((key, claim)) = claim_of_resolved(*workspace, block.first, step as u64, bytes)
                    else {
                        continue;
                    };
                    count += 1;
                    pipe.cmd("SET")
                        .arg(key)
                        .arg(claim.encode())
                        .arg("EX")
                        .arg(longest_ttl.as_secs().max(60))
                        .ignore();
                }
            }
            let mut redis = self.redis.clone();
            let _: () = pipe.query_async(&mut redis).await?;
        }
    }
}

/// The claim that a resolved winner held; none for duplicates.
fn claim_of_resolved(
    workspace: WorkspaceId,
    first: Position,
    step: u64,
    bytes: &bytes::Bytes,
) -> Option<(Vec<u8>, Claim)> {
    let resolved: ResolvedEvent = prost::Message::decode(bytes.clone()).ok()?;
    if resolved.duplicate.is_some() || !resolved.poisoned.is_empty() {
        return None;
    }
    let event: tracklayer_proto::event::v1::Event = prost::Message::decode(resolved.event).ok()?;
    let position = Position { offset: tracklayer_ids::Offset(first.offset.0 + step), ..first };
    let claim = Claim::of(&event, position);
    let key = if resolved.reused_id {
        claim_key_per_source(workspace, claim.source, claim.fingerprint, &event.message_id)
    } else {
        claim_key(workspace, &event.message_id)
    };
    Some((key, claim))
}

fn run_id_of(info: &str) -> String {
    info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim().to_owned()
}

/// How many of each answer, for metrics.
#[must_use]
pub fn tally(answers: &[Claimed]) -> HashMap<&'static str, u64> {
    let mut counts = HashMap::new();
    for answer in answers {
        let name = match answer {
            Claimed::Winner => "winner",
            Claimed::DuplicateOf(_) => "duplicate",
            Claimed::WinnerOfReusedId => "id_reused",
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}
