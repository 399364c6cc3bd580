//! Position claims in Redis, and what happens when Redis forgets.
//!
//! A claim is `SET key value NX GET`: an event is a duplicate if and only if the key holds *another* position. Every round
//! trip is one MULTI that also returns Redis's run id, its count of evicted keys and a random sentinel key; together they
//! are the *dedup generation*. If one of them changed, the claims of that round trip count for nothing: the generation is
//! bumped, the claims are rebuilt from the winners in `resolved` ([`rebuild`]), and resolve goes on. The commit of a
//! resolved range names the generation and fails if it was bumped in between. A claim of an event that the log has lost is
//! taken over ([`void`]). Where a source is so configured, its commerce events claim a second key in the same round trip
//! ([`commerce`]). Whose twin a duplicate is, and whether it is the first of its source, is told for the audit ([`twins`]).

mod commerce;
mod rebuild;
mod twins;
mod void;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{FromRedisValue, Value};
use tokio::sync::Mutex;
use tracklayer_event::commerce::commerce_key;
use tracklayer_ids::{Position, SourceId, WorkspaceId};
use tracklayer_journal::claim::{Claim, CommerceClaim, claim_key, claim_key_per_source};
use tracklayer_journal::{Journal, JournalError, Kind};
use tracklayer_proto::event::v1::Event;
use tracklayer_rpc::follow::Snapshot;

pub use self::twins::{CopyKind, CopyOf, SameBy};
use self::void::InTheWay;
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
    /// It could not be seen whether a claim is void.
    #[error("could not look whether the event of a claim is there")]
    Journal(#[from] JournalError),
    /// The store's history changed; it was mended, claim again.
    #[error("the dedup store changed its history; claims have to be made again")]
    HistoryChanged,
    /// Another process rebuilds the claims: resolve waits for it.
    #[error("another process rebuilds the claims")]
    RebuiltElsewhere,
    /// Redis answered something else than it was asked.
    #[error("Redis answered in an unexpected form: {0}")]
    Answer(&'static str),
}

/// A claim to make.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Id within the workspace.
    pub message_id: &'a str,
    /// What is claimed; whether it is claimed by a second key, too.
    pub claim: Claim,
    /// How long it is remembered.
    pub ttl: Duration,
}

impl<'a> Wanted<'a> {
    /// What an event at a position claims, as its source is configured, and its commerce key; empty: it claims none.
    #[must_use]
    pub fn by(
        memory: &Memory,
        workspace: WorkspaceId,
        event: &'a Event,
        position: Position,
    ) -> (Self, String) {
        let source = SourceId(event.source_id);
        let key = memory.claims_orders(workspace, source).then(|| commerce_key(event)).flatten();
        let commerce = key.as_deref().map(|key| CommerceClaim::of(workspace, key, &event.message_id));
        let claim = Claim { commerce, ..Claim::of(event, position) };
        let ttl = memory.of_claim(workspace, source, commerce.is_some());
        (Self { message_id: &event.message_id, claim, ttl }, key.unwrap_or_default())
    }
}

/// The answer to one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// This position is the first occurrence.
    Winner,
    /// Another position is.
    DuplicateOf(Position),
    /// The id is used for something else too; claimed per source, and this position is the first of it.
    WinnerOfReusedId(Reuse),
}

impl Claimed {
    const fn won(reuse: Option<Reuse>) -> Self {
        match reuse {
            None => Self::Winner,
            Some(reuse) => Self::WinnerOfReusedId(reuse),
        }
    }

    /// For what else the id is used, if this position is the first of its own.
    #[must_use]
    pub const fn reuse(self) -> Option<Reuse> {
        match self {
            Self::WinnerOfReusedId(reuse) => Some(reuse),
            Self::Winner | Self::DuplicateOf(_) => None,
        }
    }
}

/// The answers to a batch of claims, in its order.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The dedup generation that the claims belong to.
    pub generation: i64,
    /// What became of each.
    pub claimed: Vec<Claimed>,
    /// The claim that stood there before; of a duplicate it is its winner's.
    holders: Vec<Option<Claim>>,
}

/// What was found where a claim was to be made.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// The claim that stands there; none: it was free.
    holder: Option<Claim>,
    /// Told by [`commerce`] alone, which has looked under the key per source by then.
    reuse: Option<Reuse>,
}

/// For what else a message_id was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reuse {
    /// An event of another type or name.
    OtherEvent,
    /// One that is about another order. Only where both claim by two keys.
    OtherOrder,
}

impl Reuse {
    /// As logs have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherEvent => "another event",
            Self::OtherOrder => "another order",
        }
    }

    /// As `delivery.reused_id` has it.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::OtherEvent => 1,
            Self::OtherOrder => 2,
        }
    }

    /// What [`Reuse::number`] made a number of.
    #[must_use]
    pub fn of_number(number: i16) -> Option<Self> {
        [Self::OtherEvent, Self::OtherOrder].into_iter().find(|reuse| reuse.number() == number)
    }
}

/// How the sources of all workspaces are remembered.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    by_source: HashMap<(WorkspaceId, SourceId), Duration>,
    /// Sources whose commerce events claim a second key.
    claim_orders: HashSet<(WorkspaceId, SourceId)>,
    /// The longest memory of these.
    of_orders: HashMap<WorkspaceId, Duration>,
}

impl Memory {
    /// Of a source that says nothing.
    pub const DEFAULT: Duration = Duration::from_secs(7 * 24 * 3_600);
    /// The shortest: Redis counts in seconds, and a claim has to outlive its round.
    pub const SHORTEST: Duration = Duration::from_secs(60);

    /// As the sources are configured.
    #[must_use]
    pub fn of_config(snapshot: &Snapshot) -> Self {
        let sources = snapshot.workspaces.iter().flat_map(|(id, w)| w.sources.iter().map(|s| (*id, s)));
        let said = sources.clone().filter(|(_, source)| source.dedup_ttl_seconds > 0);
        let memory = said.fold(Self::default(), |memory, (workspace, source)| {
            let ttl = Duration::from_secs(u64::from(source.dedup_ttl_seconds));
            memory.with(workspace, SourceId(source.source_id), ttl)
        });
        let claiming = sources.filter(|(_, source)| source.dedup_by_order_id);
        claiming.fold(memory, |memory, (workspace, source)| {
            memory.with_orders(workspace, SourceId(source.source_id))
        })
    }

    /// With this source remembered for so long.
    #[must_use]
    pub fn with(mut self, workspace: WorkspaceId, source: SourceId, ttl: Duration) -> Self {
        self.by_source.insert((workspace, source), ttl);
        self
    }

    /// With this source's commerce events claiming a second key, for as long as the source is remembered by now.
    #[must_use]
    pub fn with_orders(mut self, workspace: WorkspaceId, source: SourceId) -> Self {
        let ttl = self.of(workspace, source);
        self.claim_orders.insert((workspace, source));
        let longest = self.of_orders.entry(workspace).or_default();
        *longest = ttl.max(*longest);
        self
    }

    /// With no event claiming a second key any more; what has claimed one is remembered as before.
    #[must_use]
    pub fn without_orders(mut self) -> Self {
        self.claim_orders.clear();
        self
    }

    /// Whether commerce events of a source claim a second key.
    #[must_use]
    pub fn claims_orders(&self, workspace: WorkspaceId, source: SourceId) -> bool {
        self.claim_orders.contains(&(workspace, source))
    }

    /// Of a claim by one key or by two: a twin of the latter may come by any source that claims so.
    #[must_use]
    pub fn of_claim(&self, workspace: WorkspaceId, source: SourceId, by_two_keys: bool) -> Duration {
        let of_orders = self.of_orders.get(&workspace).filter(|_| by_two_keys).copied().unwrap_or_default();
        self.of(workspace, source).max(of_orders)
    }

    /// Of one source.
    #[must_use]
    pub fn of(&self, workspace: WorkspaceId, source: SourceId) -> Duration {
        self.by_source.get(&(workspace, source)).copied().unwrap_or(Self::DEFAULT).max(Self::SHORTEST)
    }

    /// The longest of all: how far back a rebuild has to read.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.by_source.values().copied().max().unwrap_or_default().max(Self::DEFAULT)
    }
}

/// Who knows which claims are void.
#[derive(Clone)]
enum Ends {
    /// Nobody is asked: none is.
    Untold,
    /// The cursors of readers, which end a generation where a log of records has lost its history.
    Cursors,
    /// The journal, which gives positions out by itself.
    Journal(Arc<dyn Journal>),
}

/// Makes claims. Cheap to clone.
#[derive(Clone)]
pub struct Dedup {
    redis: ConnectionManager,
    generations: DedupGenerationStore,
    resolved: ResolvedStore,
    ends: Ends,
    /// One rebuild at a time in this process; who waited looks at the generation again.
    mending: Arc<Mutex<()>>,
}

impl Dedup {
    /// Over a Redis connection that reconnects by itself.
    #[must_use]
    pub fn new(redis: ConnectionManager, generations: DedupGenerationStore, resolved: ResolvedStore) -> Self {
        Self { redis, generations, resolved, ends: Ends::Untold, mending: Arc::default() }
    }

    /// Beside a log of records that can lose its history.
    #[must_use]
    pub fn beside_a_log_that_may_change(self) -> Self {
        Self { ends: Ends::Cursors, ..self }
    }

    /// Beside this journal, which can lose its history.
    #[must_use]
    pub fn beside(self, journal: Arc<dyn Journal>) -> Self {
        match journal.kind() {
            Kind::Postgres => Self { ends: Ends::Journal(journal), ..self },
            Kind::Kafka => self.beside_a_log_that_may_change(),
        }
    }

    /// Claims a batch. `memory`: what a rebuild has to claim again, should it be needed.
    ///
    /// # Errors
    /// Redis or the database away; [`DedupError::HistoryChanged`] after a mend (call again).
    pub async fn claim(
        &self,
        workspace: WorkspaceId,
        wanted: &[Wanted<'_>],
        memory: &Memory,
    ) -> Result<Answers, DedupError> {
        let generation = match self.generations.current().await? {
            Some(generation) if generation.rebuilt => generation,
            found => {
                self.mend(found, memory).await?;
                return Err(DedupError::HistoryChanged);
            }
        };
        let mut keys: Vec<Vec<u8>> = wanted.iter().map(|w| claim_key(workspace, w.message_id)).collect();
        let found = self.set_all(workspace, &generation, memory, wanted.iter().zip(&keys)).await?;

        // Two events of one batch may carry one id: the first in order claims, Redis answers the second with the first.
        let mut answers: Vec<Claimed> = Vec::with_capacity(wanted.len());
        let mut reused: Vec<usize> = Vec::new();
        let mut holders: Vec<Option<Claim>> = found.iter().map(|found| found.holder).collect();
        for (index, (want, found)) in wanted.iter().zip(&found).enumerate() {
            let by_two_keys = want.claim.commerce.is_some();
            let answer = match found.holder {
                None => Claimed::Winner,
                Some(first) if first.position == want.claim.position => Claimed::won(found.reuse),
                Some(first) if !by_two_keys && first.fingerprint != want.claim.fingerprint => {
                    reused.push(index);
                    Claimed::WinnerOfReusedId(Reuse::OtherEvent)
                }
                Some(first) => Claimed::DuplicateOf(first.position),
            };
            answers.push(answer);
        }
        if !reused.is_empty() {
            let again: Vec<&Wanted<'_>> = reused.iter().map(|i| &wanted[*i]).collect();
            let per_source: Vec<Vec<u8>> = again
                .iter()
                .map(|w| claim_key_per_source(workspace, w.claim.source, w.claim.fingerprint, w.message_id))
                .collect();
            let claims = again.iter().copied().zip(&per_source);
            let found = self.set_all(workspace, &generation, memory, claims).await?;
            for (((index, want), key), found) in reused.iter().zip(again).zip(per_source).zip(found) {
                if let Some(first) = found.holder.filter(|first| first.position != want.claim.position) {
                    answers[*index] = Claimed::DuplicateOf(first.position);
                    holders[*index] = Some(first);
                    keys[*index] = key;
                }
            }
        }
        if !matches!(self.ends, Ends::Untold) {
            let duplicates = answers.iter().enumerate().filter(|(_, a)| matches!(a, Claimed::DuplicateOf(_)));
            let in_the_way: Vec<InTheWay<'_>> = duplicates
                .filter_map(|(index, _)| {
                    let holder = holders[index]?;
                    Some(InTheWay { index, want: &wanted[index], key: &keys[index], holder })
                })
                .collect();
            if !in_the_way.is_empty() {
                for (index, answer, holder) in self.take_void_claims_over(workspace, in_the_way).await? {
                    let reused = reused.contains(&index) && answer == Claimed::Winner;
                    answers[index] =
                        if reused { Claimed::WinnerOfReusedId(Reuse::OtherEvent) } else { answer };
                    holders[index] = Some(holder);
                }
            }
        }
        Ok(Answers { generation: generation.number, claimed: answers, holders })
    }

    async fn set_all<'a>(
        &self,
        workspace: WorkspaceId,
        generation: &DedupGeneration,
        memory: &Memory,
        claims: impl Iterator<Item = (&'a Wanted<'a>, &'a Vec<u8>)> + Clone,
    ) -> Result<Vec<Found>, DedupError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        ask_identity(&mut pipe, SENTINEL_KEY);
        if claims.clone().any(|(want, _)| want.claim.commerce.is_some()) {
            commerce::load(&mut pipe);
        }
        for (want, key) in claims.clone() {
            if let Some(second) = want.claim.commerce {
                commerce::push(&mut pipe, workspace, want, second);
                continue;
            }
            pipe.cmd("SET")
                .arg(key.as_slice())
                .arg(want.claim.encode())
                .arg("EX")
                .arg(want.ttl.max(Memory::SHORTEST).as_secs())
                .arg("NX")
                .arg("GET");
        }
        let mut redis = self.redis.clone();
        let answer: Vec<Value> = pipe.query_async(&mut redis).await?;
        let mut values = answer.into_iter();
        let store = StoreIdentity::read(&mut values)?;
        if !store.is_of(generation) {
            tracing::warn!(
                generation = generation.number,
                evicted_keys = store.evicted_keys,
                "the dedup store has lost or changed its data"
            );
            self.mend(Some(generation.clone()), memory).await?;
            return Err(DedupError::HistoryChanged);
        }
        values
            .zip(claims)
            .map(|(value, (want, _))| {
                if want.claim.commerce.is_some() {
                    return commerce::found(value);
                }
                let bytes: Option<Vec<u8>> = FromRedisValue::from_redis_value(value)
                    .map_err(|_| DedupError::Answer("a claim is no bytes"))?;
                let holder = bytes
                    .map(|bytes| {
                        Claim::decode(&bytes).ok_or(DedupError::Answer("a claim of an unknown format"))
                    })
                    .transpose()?;
                Ok(Found { holder, reuse: None })
            })
            .collect()
    }

    /// Says whether the store may evict keys, which it must not: an evicted claim lets a duplicate through. Not fatal,
    /// because a risen `evicted_keys` counts as a lost store; but then nothing is resolved while the claims are rebuilt.
    ///
    /// # Errors
    /// Redis.
    pub async fn keeps_all_keys(&self) -> Result<bool, DedupError> {
        let mut redis = self.redis.clone();
        let info: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await?;
        let policy = info_field(&info, "maxmemory_policy:");
        let keeps = policy == "noeviction";
        metrics::gauge!("tracklayer_dedup_store_may_evict").set(if keeps { 0.0 } else { 1.0 });
        if !keeps {
            tracing::error!(
                policy,
                "Redis may evict claims: set maxmemory-policy noeviction, or duplicates hold resolve up for a rebuild each time"
            );
        }
        Ok(keeps)
    }
}

/// What tells one history of the store from another, as of one MULTI.
struct StoreIdentity {
    run_id: String,
    evicted_keys: i64,
    mark: Option<String>,
}

/// Asks for what [`StoreIdentity::read`] reads.
fn ask_identity(pipe: &mut redis::Pipeline, mark: &[u8]) {
    pipe.cmd("INFO").arg("server");
    pipe.cmd("INFO").arg("stats");
    pipe.cmd("GET").arg(mark);
}

impl StoreIdentity {
    fn read(values: &mut impl Iterator<Item = Value>) -> Result<Self, DedupError> {
        let mut text = || -> Result<Option<String>, DedupError> {
            let value = values.next().ok_or(DedupError::Answer("it is too short"))?;
            FromRedisValue::from_redis_value(value)
                .map_err(|_| DedupError::Answer("INFO or a mark is no text"))
        };
        let server = text()?.unwrap_or_default();
        let stats = text()?.unwrap_or_default();
        let run_id = info_field(&server, "run_id:").to_owned();
        let evicted_keys = info_field(&stats, "evicted_keys:")
            .parse()
            .map_err(|_| DedupError::Answer("INFO does not say how many keys were evicted"))?;
        Ok(Self { run_id, evicted_keys, mark: text()? })
    }

    /// Any other count of evicted keys is another history: `config resetstat` costs a rebuild, and hides nothing.
    fn is_same_store(&self, generation: &DedupGeneration) -> bool {
        self.run_id == generation.run_id && self.evicted_keys == generation.evicted_keys
    }

    fn is_of(&self, generation: &DedupGeneration) -> bool {
        self.is_same_store(generation) && self.mark.as_deref() == Some(generation.sentinel.as_str())
    }
}

fn info_field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// How many of each answer, for metrics.
#[must_use]
pub fn tally(answers: &[Claimed]) -> HashMap<&'static str, u64> {
    let mut counts = HashMap::new();
    for answer in answers {
        let name = match answer {
            Claimed::Winner => "winner",
            Claimed::DuplicateOf(_) => "duplicate",
            Claimed::WinnerOfReusedId(_) => "id_reused",
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}
