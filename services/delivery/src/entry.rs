//! A position of the resolved journal as lanes see it, decoded once per process and shared by all lanes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use prost::Message as _;
use tracklayer_destination::Deliverable;
use tracklayer_ids::{
    ConnectionId, Generation, Offset, Partition, PartitionKey, Position, SourceId, SubjectKey, WorkspaceId,
};
use tracklayer_journal::ReceivedBlock;
use tracklayer_proto::event::v1::{ConnectionDecision, Event, ResolvedEvent};
use uuid::Uuid;

use crate::lease::Lease;
use crate::resolve::ERASED;
use crate::store::StoreError;
use crate::store::resolved::ResolvedStore;

/// One position.
#[derive(Debug)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// Its id.
    pub message_id: String,
    /// Its source.
    pub source: SourceId,
    /// Receipt, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// The first occurrence, if this is not it.
    pub duplicate_of: Option<Position>,
    /// Why the event cannot be handled at all.
    pub poisoned: Option<String>,
    /// Whether that is because its block was lost.
    pub is_lost: bool,
    /// Whom a narrowing entry may name.
    pub subject_keys: Arc<[SubjectKey]>,
    /// Newest narrowing that the decisions saw.
    pub narrowing_seq: i64,
    /// Consent's decisions at resolve.
    pub decisions: Vec<ConnectionDecision>,
    /// The event, its JSON parsed; none for duplicates and poisoned events.
    pub deliverable: Option<Deliverable>,
    /// Events with one order key keep their order.
    pub order_key: u64,
    /// The stored bytes, for retries and dead letters.
    pub raw: Bytes,
}

impl Entry {
    /// Decodes a stored position. Bytes that are no `ResolvedEvent` are a poisoned entry, so that one event never stops a lane.
    #[must_use]
    pub fn decode(position: Position, raw: Bytes) -> Self {
        if raw.is_empty() {
            return Self::poisoned(position, raw, ERASED);
        }
        let Ok(resolved) = ResolvedEvent::decode(raw.clone()) else {
            return Self::poisoned(position, raw, "the resolved event cannot be decoded");
        };
        let is_winner = resolved.duplicate.is_none() && resolved.poisoned.is_empty();
        let event = if is_winner { Event::decode(resolved.event.clone()).ok() } else { None };
        Self::of(position, resolved, event, raw)
    }

    /// A position whose parts are there already, as resolve has them: `event` is what `resolved` holds the bytes of, `raw` the
    /// bytes of `resolved`.
    #[must_use]
    pub fn of(position: Position, resolved: ResolvedEvent, event: Option<Event>, raw: Bytes) -> Self {
        let received_ms = resolved.received_at.as_ref().map_or(0, millis_of);
        let mut entry = Self {
            position,
            message_id: resolved.message_id,
            source: SourceId(resolved.source_id),
            received_ms,
            duplicate_of: resolved.duplicate.map(|d| Position::new(d.generation, d.partition, d.offset)),
            poisoned: (!resolved.poisoned.is_empty()).then_some(resolved.poisoned),
            is_lost: resolved.lost,
            subject_keys: resolved.subject_keys.iter().filter_map(|k| SubjectKey::from_slice(k)).collect(),
            narrowing_seq: resolved.narrowing_seq,
            decisions: resolved.decisions,
            deliverable: None,
            order_key: 0,
            raw,
        };
        if entry.duplicate_of.is_some() || entry.poisoned.is_some() {
            return entry;
        }
        let Some(event) = event else {
            entry.poisoned = Some("the event cannot be decoded".to_owned());
            return entry;
        };
        entry.order_key = PartitionKey::of(&event.anonymous_id, &event.user_id).0;
        entry.deliverable = Some(Deliverable::of_resolved(
            event,
            resolved.known_click_ids,
            &resolved.canonical_key,
            &resolved.commerce_key,
        ));
        entry
    }

    fn poisoned(position: Position, raw: Bytes, why: &str) -> Self {
        Self {
            position,
            message_id: String::new(),
            source: SourceId(0),
            received_ms: 0,
            duplicate_of: None,
            poisoned: Some(why.to_owned()),
            is_lost: false,
            subject_keys: Arc::default(),
            narrowing_seq: 0,
            decisions: Vec::new(),
            deliverable: None,
            order_key: 0,
            raw,
        }
    }

    /// What consent said for a connection at resolve; none if the connection was not known then.
    #[must_use]
    pub fn decision(&self, connection: ConnectionId) -> Option<&ConnectionDecision> {
        self.decisions.iter().find(|d| d.connection_id == connection.0)
    }

    /// The event's trace.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        self.deliverable.as_ref().map_or("", |d| d.event.traceparent.as_str())
    }
}

fn millis_of(time: &prost_types::Timestamp) -> i64 {
    time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
}

/// A resolved block, decoded.
#[derive(Debug)]
pub struct EntryBlock {
    /// Position of the first.
    pub first: Position,
    /// All of them, in order.
    pub entries: Vec<Arc<Entry>>,
}

impl EntryBlock {
    /// Decodes a stored block.
    ///
    /// # Errors
    /// The block's bytes are not what was written.
    pub fn decode(block: &ReceivedBlock) -> Result<Self, StoreError> {
        let events = block.events().map_err(|_| StoreError::Corrupt { what: "a resolved block" })?;
        // The block's allocation is shared by its events: a copy lets it go when only a few are kept.
        let events = events.iter().map(|raw| Bytes::copy_from_slice(raw));
        Ok(Self { first: block.first, entries: placed(block.first, events, Entry::decode) })
    }

    /// A block of what resolve has just made, none of it decoded again.
    #[must_use]
    pub fn of(
        first: Position,
        events: impl IntoIterator<Item = (ResolvedEvent, Option<Event>, Bytes)>,
    ) -> Self {
        let entries = placed(first, events, |position, (resolved, event, raw)| {
            Entry::of(position, resolved, event, raw)
        });
        Self { first, entries }
    }

    /// The offset after the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.offset.0 + self.entries.len() as u64
    }
}

/// Says of which block it is that it cannot be read.
fn telling(at: Position) -> impl Fn(StoreError) -> StoreError {
    move |error| match error {
        StoreError::Corrupt { .. } => StoreError::Unreadable { at },
        other => other,
    }
}

fn placed<T>(
    first: Position,
    events: impl IntoIterator<Item = T>,
    entry: impl Fn(Position, T) -> Entry,
) -> Vec<Arc<Entry>> {
    let at = |step| Position { offset: Offset(first.offset.0 + step), ..first };
    (0..).zip(events).map(|(step, event)| Arc::new(entry(at(step), event))).collect()
}

/// Begins with the history of the database: in another one something else may have been resolved at the same position.
type CacheKey = (Uuid, WorkspaceId, Position);
/// Where the cached blocks of a partition begin and end: a lane may stand in the middle of one.
type Extents = HashMap<(Uuid, WorkspaceId, Partition, Generation), BTreeMap<u64, u64>>;

/// Most blocks of a partition whose extents are remembered; older ones are found in the database again.
const MAX_EXTENTS: usize = 256;

/// Decoded blocks, bounded by bytes: the lanes of all connections read the same block within a moment of each other, so it
/// is inflated and parsed once.
#[derive(Clone)]
pub struct EntryReader {
    store: ResolvedStore,
    cache: moka::sync::Cache<CacheKey, Arc<EntryBlock>>,
    extents: Arc<Mutex<Extents>>,
}

impl EntryReader {
    /// Reads through a cache of about that many bytes.
    #[must_use]
    pub fn new(store: ResolvedStore, cache_bytes: u64) -> Self {
        let weigh = |_: &CacheKey, block: &Arc<EntryBlock>| {
            // Parsed JSON takes about four times its text.
            let bytes: usize = block.entries.iter().map(|e| 512 + e.raw.len() * 5).sum();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let cache = moka::sync::Cache::builder()
            .max_capacity(cache_bytes)
            .weigher(weigh)
            // A log is read onwards: what came last is read next, and nothing is read more often than the rest.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(std::time::Duration::from_secs(60))
            .build();
        Self { store, cache, extents: Arc::default() }
    }

    /// What it reads from, for whoever reads far behind the lanes and would only push out of the cache what they need.
    #[must_use]
    pub fn store(&self) -> &ResolvedStore {
        &self.store
    }

    /// Puts a block into the cache, right after its commit under that lease.
    pub fn remember(&self, lease: &Lease, block: EntryBlock) {
        self.keep(lease, Arc::new(block));
    }

    fn keep(&self, lease: &Lease, block: Arc<EntryBlock>) {
        let (history, workspace, first) = (lease.history, lease.duty.workspace, block.first);
        let mut extents = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (history, workspace, first.partition, first.generation);
        if !extents.contains_key(&key) {
            // Nobody asks for another history's any more.
            extents.retain(|(of, ..), _| *of == history);
        }
        let mine = extents.entry(key).or_default();
        mine.insert(first.offset.0, block.end());
        while mine.len() > MAX_EXTENTS {
            mine.pop_first();
        }
        drop(extents);
        self.cache.insert((history, workspace, first), block);
    }

    /// The cached block that holds a position.
    fn cached(&self, lease: &Lease, at: Position) -> Option<Arc<EntryBlock>> {
        let (history, workspace) = (lease.history, lease.duty.workspace);
        let extents = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = extents.get(&(history, workspace, at.partition, at.generation))?;
        let (first, end) = mine.range(..=at.offset.0).next_back()?;
        if at.offset.0 >= *end {
            return None;
        }
        let key = (history, workspace, Position { offset: Offset(*first), ..at });
        drop(extents);
        self.cache.get(&key)
    }

    /// The entries from a position on, for the holder of a lease: at most `limit`, at least one block's rest if there is any. Behind
    /// `end` more is looked for only where there was nothing before it.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn from(
        &self,
        lease: &Lease,
        from: Position,
        limit: usize,
        end: Option<Position>,
    ) -> Result<Vec<Arc<Entry>>, StoreError> {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let mut next = from;
        while entries.len() < limit {
            let block = match self.cached(lease, next) {
                Some(block) => block,
                None if end == Some(next) && !entries.is_empty() => break,
                None => {
                    match self.store.read(lease.duty.workspace, next, 1).await.map_err(telling(next))?.first()
                    {
                        None => break,
                        Some(read) => {
                            metrics::counter!("tracklayer_delivery_entry_cache_misses_total").increment(1);
                            let block = Arc::new(EntryBlock::decode(read).map_err(telling(next))?);
                            self.keep(lease, Arc::clone(&block));
                            block
                        }
                    }
                }
            };
            let skip = usize::try_from(next.offset.0 - block.first.offset.0).unwrap_or(usize::MAX);
            entries.extend(block.entries.iter().skip(skip).take(limit - entries.len()).cloned());
            next.offset = Offset(block.end());
        }
        Ok(entries)
    }
}
