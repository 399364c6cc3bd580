//! The resolve loop of a partition: received → dedup → identity → consent → resolved.
//!
//! A duplicate is dropped from delivery only: its consent signals and identifiers are recorded like everybody's, because the
//! browser's twin may carry the GPC signal and the link that the server's lacks. The range exists in `resolved` only by the
//! fenced commit that moves the cursor over it.

pub(crate) mod lost;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Generation, MasterKey, Offset, Position, SourceId, WorkspaceId};
use tracklayer_journal::{
    Block, BlockBuilder, BlockError, COMMERCE_LEVEL, Headroom, Journal, JournalError, Kind, Most, Place,
    ReceivedBlock, Record, not_aside,
};
use tracklayer_proto::event::v1::{Channel, Duplicate, Event, ResolvedEvent};
use tracklayer_proto::identity::v1::ResolvedIdentity;
use tracklayer_rpc::follow::{ConfigWatch, Snapshot};

use crate::clients::Clients;
use crate::connections::Connections;
use crate::dedup::{Claimed, CopyOf, Dedup, DedupError, Memory, Reuse, Wanted, tally};
use crate::entry::{EntryBlock, EntryReader};
use crate::lease::{FleetLevel, Lease};
use crate::narrowing::{NarrowingTail, TailUnreadable};
use crate::progress::Progress;
use crate::retention::{self, Trim};
use crate::reused_ids::{self, Alarms};
use crate::store::StoreError;
use crate::store::cursors::CursorStore;
use crate::store::resolved::{ResolvedCommit, ResolvedStore, Span};
use crate::store::skips::SkipStore;
use crate::subjects::{self, Asked, ServiceUnavailable};
use crate::suspects::{Care, Suspects};
use crate::twins;

/// Events that one round takes, if that many wait; a block is never cut.
const ROUND_EVENTS: i64 = 2_000;
/// Places by which a log that was changed is known again: the newest that were committed.
const KNOWN_RECORDS: i64 = 64;
/// Pause between two looks whether the other partitions have come to where the layout was changed.
pub(crate) const OTHERS_PAUSE: Duration = Duration::from_millis(100);
/// Where a log of records begins.
const FIRST_RECORD: Record = Record { offset: 0, step: 0, mark: None };
/// What is said of a position whose event was erased.
pub(crate) const ERASED: &str = "the event was erased";

/// Why a round did not end in a commit.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No configuration yet.
    #[error("there is no configuration yet")]
    NoConfiguration,
    /// The journal.
    #[error("could not read what was received")]
    Journal(#[from] JournalError),
    /// Claims.
    #[error("could not claim")]
    Dedup(#[from] DedupError),
    /// Identity or consent.
    #[error("could not resolve")]
    Service(#[from] ServiceUnavailable),
    /// The narrowing log.
    #[error("could not make sure that nobody was merged meanwhile")]
    Narrowing(#[from] TailUnreadable),
    /// The commit.
    #[error("could not commit")]
    Store(#[from] StoreError),
}

/// What a resolve loop works with.
pub struct Resolver {
    /// Received events.
    pub journal: Arc<dyn Journal>,
    /// Resolved ones.
    pub resolved: ResolvedStore,
    /// Cursors.
    pub cursors: CursorStore,
    /// Blocks that operators have given up.
    pub skips: SkipStore,
    /// Claims.
    pub dedup: Dedup,
    /// What all processes can read.
    pub fleet: FleetLevel,
    /// Identity and consent.
    pub clients: Clients,
    /// Sources and workspaces.
    pub config: ConfigWatch,
    /// Who is asked about at consent.
    pub connections: Connections,
    /// Whom to wake.
    pub progress: Progress,
    /// Lanes read through it.
    pub entries: EntryReader,
    /// The narrowing log.
    pub narrowing: NarrowingTail,
    /// Subject keys.
    pub master_key: MasterKey,
    /// Reads an event's stored bytes: [`read_event`].
    pub read: ReadEvent,
    /// What crashed its reader.
    pub suspects: Suspects,
    /// What large rounds leave to small ones.
    pub headroom: Arc<Headroom>,
}

/// How an event's stored bytes are read; what cannot be read says why.
pub type ReadEvent = fn(&Bytes) -> Result<Event, String>;

/// Where the loop of a partition stands.
#[derive(Debug, Default)]
pub struct Stand {
    /// The next event to resolve; none: not read yet.
    pub at: Option<Place>,
    /// Blocks from there on that are read already.
    ahead: Vec<ReceivedBlock>,
    /// The layout was changed there, and another partition has not come as far.
    waits_for_others: bool,
    /// What was told of reused message_ids, so that it is told now and then.
    alarms: Alarms,
}

struct Received {
    position: Position,
    bytes: Bytes,
    event: Result<Event, String>,
}

impl Resolver {
    /// Runs until the lease is lost or `shutdown`.
    pub async fn run(self: Arc<Self>, lease: Lease, shutdown: CancellationToken) {
        let (headroom, workspace) = (Arc::clone(&self.headroom), lease.duty.workspace);
        headroom.wherever(workspace, self.rounds(lease, shutdown)).await;
    }

    async fn rounds(self: Arc<Self>, lease: Lease, shutdown: CancellationToken) {
        let (workspace, partition) = (lease.duty.workspace, lease.duty.partition);
        let progress = self.progress.partition(workspace, partition);
        let mut received = progress.received.subscribe();
        let mut stand = Stand::default();
        let mut failures = 0u32;
        let mut trim = Trim::default();
        while !shutdown.is_cancelled() && !lease.lost().is_cancelled() {
            if trim.is_due() {
                self.trim(&lease).await;
            }
            if let Some(place) = stand.at {
                let near = progress.lanes_near(place.at);
                let Some(()) =
                    shutdown.run_until_cancelled(lease.lost().run_until_cancelled(near)).await.flatten()
                else {
                    continue;
                };
            }
            let place = self.headroom.large(|own| own == workspace).await;
            let round = self.round(&lease, &mut stand).await;
            drop(place);
            let wait = match round {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => {
                    failures = 0;
                    // Nothing there: sleep until the head moves; the long stop is only for a missed wake-up.
                    if stand.waits_for_others { OTHERS_PAUSE } else { Duration::from_secs(5) }
                }
                Err(ResolveError::Store(StoreError::Fenced)) => {
                    lease.give_up();
                    return;
                }
                Err(error) => {
                    stand = Stand { alarms: std::mem::take(&mut stand.alarms), ..Stand::default() };
                    failures += 1;
                    metrics::counter!("tracklayer_resolve_failures_total").increment(1);
                    let mends = matches!(
                        error,
                        ResolveError::Dedup(DedupError::HistoryChanged | DedupError::RebuiltElsewhere)
                    );
                    if failures > 1 || !mends {
                        let error = error_chain(&error);
                        tracing::warn!(workspace = workspace.0, partition = partition.0, error = %error, "resolve waits");
                    }
                    if let ResolveError::Journal(JournalError::Block { position, source }) = &error {
                        tell_unreadable(workspace, *position, source);
                        // Another process may be able to read it; meanwhile nothing behind it moves.
                        lease.give_up_to_others();
                    }
                    crate::backoff::full_jitter(failures, Duration::from_millis(50), Duration::from_secs(2))
                }
            };
            let seen = *received.borrow_and_update();
            if failures == 0
                && !stand.waits_for_others
                && stand
                    .at
                    .is_some_and(|at| (seen.generation, seen.offset) > (at.at.generation, at.at.offset))
            {
                continue;
            }
            let arrival = async {
                match stand.at {
                    Some(at) => self.journal.arrival(workspace, at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = received.changed(), if failures == 0 => {}
                () = arrival, if failures == 0 => {}
                () = lease.lost().cancelled() => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Resolves one range, or passes a block that cannot be read and was given up; `false`: nothing was there.
    ///
    /// # Errors
    /// See [`ResolveError`]; nothing was committed then.
    pub async fn round(&self, lease: &Lease, stand: &mut Stand) -> Result<bool, ResolveError> {
        match self.resolve_next(lease, stand).await {
            Err(ResolveError::Journal(error @ JournalError::Block { .. })) => {
                if self.pass_lost(lease, stand).await? { Ok(true) } else { Err(error.into()) }
            }
            resolved => resolved,
        }
    }

    async fn resolve_next(&self, lease: &Lease, stand: &mut Stand) -> Result<bool, ResolveError> {
        let (workspace, partition) = (lease.duty.workspace, lease.duty.partition);
        let place = match stand.at {
            Some(place) => place,
            None => self.begin(lease).await?,
        };
        let at = place.at;
        stand.at = Some(place);
        let snapshot = self.config.snapshot().ok_or(ResolveError::NoConfiguration)?;
        let started = SystemTime::now();
        // Looked at before the read: a generation whose successor is known by then grows no more, so that nothing behind it
        // means that it is drained.
        let progress = self.progress.partition(workspace, partition);
        let head = *progress.received.borrow();
        let mut blocks = std::mem::take(&mut stand.ahead);
        if blocks.is_empty() {
            blocks = match self.journal.read(workspace, place, self.most(workspace)).await {
                Err(JournalError::Changed { why, .. }) => {
                    stand.at = Some(self.open_generation(lease, place, &why).await?);
                    return Ok(true);
                }
                read => read?,
            };
        }
        let Some(end) = blocks.last().map(ReceivedBlock::end) else {
            if head.generation <= at.generation {
                return Ok(false);
            }
            let next = Generation(at.generation.0 + 1);
            // Visitors of this partition may have been in another one before.
            stand.waits_for_others = !self.cursors.resolve_may_enter(workspace, next).await?;
            if !stand.waits_for_others {
                stand.at = Some(Position::new(next.0, partition.0, 0).into());
            }
            return Ok(!stand.waits_for_others);
        };
        let care = self.suspects.care(lease.duty, at);
        let there = usize::try_from(end.0 - at.offset.0).unwrap_or(usize::MAX);
        let _watch = self.suspects.watch(lease.duty, at, there.min(care.most()));
        let received = self.decode(&blocks, at, care)?;
        // Their headers say where what is committed ends in the journal; the payloads are in other hands by now.
        blocks.iter_mut().for_each(|block| block.payload = Vec::new());
        let next = place.after(&blocks, received.len() as u64);
        let Some(first) = received.first().map(|received| received.position) else { return Ok(false) };
        let end = Position { offset: Offset(first.offset.0 + received.len() as u64), ..first };
        let ahead = async {
            // Received blocks never change, so that the next round's may be read meanwhile, if they are surely there. What
            // cannot be read now is read again, and told, by that round.
            let more = match self.journal.kind() {
                Kind::Postgres => head.generation == end.generation && head.offset > end.offset,
                // A read takes what was fetched ahead, and asks nobody.
                Kind::Kafka => true,
            };
            if more {
                self.journal.read(workspace, next, self.most(workspace)).await.unwrap_or_default()
            } else {
                Vec::new()
            }
        };
        let (resolved, ahead) = tokio::join!(self.resolve(workspace, &snapshot, &received), ahead);
        let resolved = resolved?;

        let encoded: Vec<Bytes> =
            resolved.events.iter().map(|event| Bytes::from(event.encode_to_vec())).collect();
        let (block, taken) = self.fitting_block(&resolved.events, &encoded)?;
        let committed = &resolved.events[..taken];
        let commit = ResolvedCommit {
            first,
            block: &block,
            message_hashes: committed.iter().map(|resolved| message_hash(&resolved.message_id)).collect(),
            dedup_generation: resolved.dedup_generation,
            reused: reused_ids::count(committed, &resolved.reuses),
            twins: twins::counted(committed, &resolved.copies),
        };
        let all = taken == received.len();
        let (next, ahead) =
            if all { (next, ahead) } else { (place.after(&blocks, taken as u64), Vec::new()) };
        let span = next.record.map(|to| Span { from: place.record.unwrap_or(FIRST_RECORD), to });
        not_aside(self.resolved.commit_span(lease, &commit, span)).await?;
        *stand = Stand {
            at: Some(next),
            ahead,
            waits_for_others: false,
            alarms: std::mem::take(&mut stand.alarms),
        };
        stand.alarms.tell(workspace, first, committed, &resolved.reuses);
        self.headroom.did(workspace, taken, encoded[..taken].iter().map(Bytes::len).sum());

        trace_events(&received, &resolved.events[..taken], started);
        if progress.has_lanes() {
            // Lanes find the block decoded, without inflating and reading again what was just made.
            let events = received.into_iter().map(|received| received.event.ok());
            let made = resolved.events.into_iter().zip(events).zip(encoded).take(taken);
            let made = made.map(|((resolved, event), raw)| (resolved, event, raw));
            self.entries.remember(lease, EntryBlock::of(first, made));
        }
        progress.resolved_here(next.at);
        metrics::counter!("tracklayer_resolve_events_total").increment(taken as u64);
        metrics::histogram!("tracklayer_resolve_round_seconds")
            .record(started.elapsed().unwrap_or_default().as_secs_f64());
        Ok(true)
    }

    fn most(&self, workspace: WorkspaceId) -> Most {
        Most::events(self.headroom.piece(|own| own == workspace, ROUND_EVENTS))
    }

    /// Where the loop goes on: at the cursor. One that another journal has left behind ends its generation there.
    async fn begin(&self, lease: &Lease) -> Result<Place, ResolveError> {
        let (workspace, partition) = (lease.duty.workspace, lease.duty.partition);
        let place = self.cursors.resolve(workspace, partition).await?;
        let begun = place.record.is_some() || place.at == Position::new(1, partition.0, 0);
        if self.journal.kind() == Kind::Postgres || begun {
            return Ok(place);
        }
        Ok(self.cursors.open_generation(lease, place.at, FIRST_RECORD).await?)
    }

    /// The log is another one than before: what is left of it is read in a new generation. What of it was read already is
    /// found to be a duplicate, since its claim names another position.
    async fn open_generation(&self, lease: &Lease, ended: Place, why: &str) -> Result<Place, ResolveError> {
        let (workspace, partition) = (lease.duty.workspace, lease.duty.partition);
        let mut known: Vec<Record> = ended.record.into_iter().collect();
        known.extend(self.resolved.known_records(workspace, partition, KNOWN_RECORDS).await?);
        let begins = self.journal.surviving(workspace, partition, &known).await?.unwrap_or(FIRST_RECORD);
        let place = self.cursors.open_generation(lease, ended.at, begins).await?;
        metrics::counter!("tracklayer_journal_generations_opened_total").increment(1);
        tracing::error!(
            workspace = workspace.0,
            partition = partition.0,
            why,
            ended = %ended.at,
            record = begins.offset,
            "the journal has another history: acknowledged events may be lost; a new generation begins"
        );
        Ok(place)
    }

    /// A block of as many events as it may hold, and how many these are.
    fn fitting_block(
        &self,
        events: &[ResolvedEvent],
        encoded: &[Bytes],
    ) -> Result<(Block, usize), ResolveError> {
        let mut taken = encoded.len();
        loop {
            let mut builder = BlockBuilder::default();
            for (event, bytes) in events.iter().zip(encoded).take(taken) {
                let minute = event.received_at.as_ref().map_or(0, |t| t.seconds.div_euclid(60));
                builder.push(SourceId(event.source_id), minute, bytes);
                if !event.commerce_key.is_empty() {
                    builder.need_level(COMMERCE_LEVEL);
                }
            }
            let block =
                builder.finish().map_err(|_| StoreError::Corrupt { what: "a block to be written" })?;
            let fits = self.resolved.max_block_bytes().is_none_or(|most| block.stored_bytes() <= most);
            if fits || taken <= 1 {
                return Ok((block, taken));
            }
            taken = taken.div_ceil(2);
        }
    }

    async fn trim(&self, lease: &Lease) {
        let Some(snapshot) = self.config.snapshot() else { return };
        let connections: Vec<_> = self.connections.of(lease.duty.workspace).iter().map(|c| c.id).collect();
        let longest = Memory::of_config(&snapshot).longest();
        let trimmed = retention::trim(
            self.journal.as_ref(),
            &self.resolved,
            &self.cursors,
            lease.duty,
            &connections,
            longest,
        );
        if let Err(error) = trimmed.await {
            let (workspace, partition) = (lease.duty.workspace.0, lease.duty.partition.0);
            tracing::warn!(workspace, partition, error = %error_chain(&error), "the journal was not trimmed");
        }
    }

    /// The events of a range from a position on. What stands before a block that cannot be read is not held up by it.
    fn decode(
        &self,
        blocks: &[ReceivedBlock],
        at: Position,
        care: Care,
    ) -> Result<Vec<Received>, JournalError> {
        let mut received = Vec::new();
        for block in blocks {
            let room = care.most() - received.len();
            if room == 0 {
                break;
            }
            let events = match block.events() {
                Err(_) if !received.is_empty() => break,
                read => read?,
            };
            let skip = at.offset.0.saturating_sub(block.first.offset.0);
            let taken = (0u64..).zip(events).skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(room);
            for (step, bytes) in taken {
                let position = Position { offset: Offset(block.first.offset.0 + step), ..block.first };
                let event = if care == Care::FirstUnread {
                    Err("it crashes its reader".to_owned())
                } else {
                    (self.read)(&bytes)
                };
                received.push(Received { position, bytes, event });
            }
        }
        Ok(received)
    }

    async fn resolve(
        &self,
        workspace: WorkspaceId,
        snapshot: &Snapshot,
        received: &[Received],
    ) -> Result<Resolved, ResolveError> {
        let good: Vec<(usize, &Event, Position)> = received
            .iter()
            .enumerate()
            .filter_map(|(index, r)| Some((index, r.event.as_ref().ok()?, r.position)))
            .collect();
        let memory = Memory::of_config(snapshot);
        // An older resolver would stop at such a claim, and an older lane send the event under another id.
        let memory = if self.fleet.get() < COMMERCE_LEVEL { memory.without_orders() } else { memory };
        let (wanted, commerce_keys): (Vec<_>, Vec<_>) =
            good.iter().map(|(_, event, position)| Wanted::by(&memory, workspace, event, *position)).unzip();
        let asked: Vec<Asked<'_>> =
            good.iter().map(|(_, event, _)| Asked::about(event, workspace, snapshot)).collect();
        let before = self.narrowing.reached(workspace).await?;
        // Independent of each other: duplicates' identifiers are recorded too, and recording them again changes nothing.
        let claims = async {
            let answers = self.dedup.claim(workspace, &wanted, &memory).await?;
            let copies = self.dedup.copies(workspace, &wanted, &answers, &memory).await?;
            Ok((answers, copies))
        };
        let identities = async { Ok(subjects::resolve(&self.clients, workspace, &asked).await?) };
        let ((answers, copies), identities) =
            tokio::try_join!(claims, identities).map_err(|error: ResolveError| error)?;
        for (answer, count) in tally(&answers.claimed) {
            metrics::counter!("tracklayer_dedup_claims_total", "answer" => answer).increment(count);
        }

        let connections = self.connections.of(workspace);
        let destinations: Vec<_> = connections.iter().filter_map(|c| c.consent_query()).collect();
        let pairs: Vec<(&Asked<'_>, &ResolvedIdentity)> = asked.iter().zip(&identities.of_events).collect();
        let key = self.master_key.workspace(workspace);
        let decided =
            subjects::decide(&self.clients, workspace, &key, snapshot, &pairs, &destinations, true).await?;
        let (seen, own) = (decided.narrowing_seq, &identities.narrowings);
        let overtaken = self.narrowing.overtaken(workspace, before, seen, own).await?;

        let mut resolved: Vec<ResolvedEvent> = received.iter().map(poisoned).collect();
        let mut reuses = vec![None; received.len()];
        let mut copies_of_all: Vec<Option<CopyOf>> = vec![None; received.len()];
        let claimed = answers.claimed.into_iter().zip(copies).zip(commerce_keys);
        let parts = good.iter().zip(claimed).zip(identities.of_events).zip(decided.decisions);
        for ((((index, event, _), ((claimed, copy), commerce_key)), identity), mut decision) in parts {
            for decision in &mut decision.destinations {
                let asked = connections.iter().find(|c| c.id.0 == decision.connection_id);
                decision.connection_revision = asked.map_or(0, |c| c.revision);
            }
            let duplicate = match claimed {
                Claimed::DuplicateOf(first) => Some(Duplicate {
                    generation: first.generation.0,
                    partition: first.partition.0,
                    offset: first.offset.0,
                }),
                Claimed::Winner | Claimed::WinnerOfReusedId(_) => None,
            };
            copies_of_all[*index] = copy;
            let winner = duplicate.is_none();
            reuses[*index] = claimed.reuse();
            let narrowing_seq = overtaken.decided_at(identity.subject_keys.iter().map(Vec::as_slice));
            resolved[*index] = ResolvedEvent {
                event: if winner { received[*index].bytes.clone() } else { Bytes::new() },
                duplicate,
                canonical_key: Bytes::from(identity.canonical_key),
                subject_keys: identity.subject_keys.into_iter().map(Bytes::from).collect(),
                known_click_ids: identity.click_ids.filter(|_| winner),
                decisions: if winner { decision.destinations } else { Vec::new() },
                narrowing_seq,
                poisoned: String::new(),
                message_id: event.message_id.clone(),
                source_id: event.source_id,
                channel: event.channel,
                received_at: event.received_at,
                reused_id: claimed.reuse().is_some(),
                commerce_key,
                lost: false,
            };
        }
        Ok(Resolved { dedup_generation: answers.generation, events: resolved, reuses, copies: copies_of_all })
    }
}

struct Resolved {
    dedup_generation: i64,
    events: Vec<ResolvedEvent>,
    /// Of each event, for what else its message_id is used, if it counts all the same.
    reuses: Vec<Option<Reuse>>,
    /// Of each event: what the twin audit counts it as.
    copies: Vec<Option<CopyOf>>,
}

/// Says what resolve counts of blocks that it cannot read.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "tracklayer_resolve_unreadable_blocks_total",
        "how often resolve came upon a block that it cannot read, behind which nothing of its partition moves"
    );
    metrics::describe_counter!(
        "tracklayer_resolve_lost_events_total",
        "events of blocks that cannot be read and that an operator has skipped"
    );
}

/// A block that cannot be read waits for a person, who is told what to do.
fn tell_unreadable(workspace: WorkspaceId, first: Position, why: &BlockError) {
    metrics::counter!("tracklayer_resolve_unreadable_blocks_total").increment(1);
    let advice = match why {
        BlockError::FeatureLevel { .. } => "a newer version wrote it: end the upgrade".to_owned(),
        BlockError::Header
        | BlockError::Checksum { .. }
        | BlockError::Compression
        | BlockError::Count { .. } => {
            format!(
                "bring its bytes back, or see what is lost without them: `tracklayer journal skip {first}`"
            )
        }
    };
    tracing::error!(
        workspace = workspace.0,
        block = %first,
        why = %why,
        advice = %advice,
        "nothing behind a block that cannot be read is resolved in its partition"
    );
}

/// What stands at a position whose event cannot be read: its bytes as they came, dead for every connection.
fn poisoned(received: &Received) -> ResolvedEvent {
    ResolvedEvent {
        event: received.bytes.clone(),
        poisoned: received.event.as_ref().err().cloned().unwrap_or_default(),
        channel: Channel::Unspecified.into(),
        ..ResolvedEvent::default()
    }
}

/// Reads an event's stored bytes. An erased event has none, and is no event.
///
/// # Errors
/// Why it cannot be read.
pub fn read_event(bytes: &Bytes) -> Result<Event, String> {
    if bytes.is_empty() {
        return Err(ERASED.to_owned());
    }
    Event::decode(bytes.clone()).map_err(|error| format!("the event cannot be decoded: {error}"))
}

/// Hash under which a message_id is indexed.
#[must_use]
pub fn message_hash(message_id: &str) -> i64 {
    tracklayer_journal::claim::message_hash(message_id).cast_signed()
}

fn trace_events(received: &[Received], resolved: &[ResolvedEvent], started: SystemTime) {
    let ended = SystemTime::now();
    for (received, resolved) in received.iter().zip(resolved) {
        let Ok(event) = &received.event else { continue };
        if !tracklayer_telemetry::is_sampled(&event.traceparent) {
            continue;
        }
        let outcome = if resolved.duplicate.is_some() { "duplicate" } else { "winner" };
        let attributes = [("position", received.position.to_string()), ("dedup", outcome.to_owned())];
        let _ = tracklayer_telemetry::event_span("resolve", &event.traceparent, started, ended, &attributes);
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
