//! `delivery.v1`: parse, ask the domain, answer. Beside it what takes more words: `preview`, `journal`, `forecast`, `replays`, `verify`,
//! `ingest_requests`, `match_quality`, `twins`, `golden` and `dead_letters`; `window` reads of which minutes something is asked.

mod dead_letters;
mod forecast;
mod golden;
mod ingest_requests;
mod journal;
mod match_quality;
mod preview;
mod replays;
mod twins;
mod verify;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use tracklayer_ids::{ConnectionId, MasterKey, Position, Secret, WorkspaceId};
use tracklayer_journal::{Journal, JournalError};
use tracklayer_proto::control::v1::ListWorkspacesRequest;
use tracklayer_proto::control::v1::control_service_client::ControlServiceClient;
use tracklayer_proto::delivery::v1 as pb;
use tracklayer_proto::delivery::v1::delivery_service_server::DeliveryService;
use tracklayer_rpc::follow::{ConfigWatch, Snapshot};
use tracklayer_rpc::{Code, RpcError};

use crate::books::{Books, BooksError, Counts};
use crate::clients::Clients;
use crate::connections::Connections;
use crate::examine::{Examiner, Finding, Level};
use crate::forecast::{ForecastError, Forecaster, PAGE_EVENTS};
use crate::golden::{Golden, GoldenError};
use crate::holds::Holds;
use crate::inspection::{Inspection, InspectionError};
use crate::kept::{GiveUpError, Keeping};
use crate::ledger::{State, bucket_ceiling_ms};
use crate::match_keys;
use crate::preview::{any_duty, proto_state};
use crate::replay::judge::{Judge, JudgeError};
use crate::replay::planner::{Planner, ReplayError};
use crate::replay::walk::Walker;
use crate::skips::{SkipError, Skipping};
use crate::store::StoreError;
use crate::store::cursors::CursorStore;
use crate::store::dead_letters::DeadLetterStore;
use crate::store::give_ups::GiveUpStore;
use crate::store::golden::GoldenStore;
use crate::store::index::Index;
use crate::store::ingest_requests::IngestRequestStore;
use crate::store::lanes::LaneStore;
use crate::store::ledger::LedgerStore;
use crate::store::match_quality::MatchQualityStore;
use crate::store::orders::OrderStore;
use crate::store::replays::ReplayStore;
use crate::store::resolved::ResolvedStore;
use crate::store::retention::RetentionStore;
use crate::store::retries::RetryStore;
use crate::store::skips::SkipStore;
use crate::store::stats::StatsStore;
use crate::store::twins::TwinStore;
use crate::story::{Stories, StoryError, proto_position};
use crate::subjects::proto_time;
use crate::verify::{Verifier, VerifyError};

/// The service.
pub struct DeliveryGrpc {
    stats: StatsStore,
    books: Books,
    retries: RetryStore,
    letters: DeadLetterStore,
    lanes: LaneStore,
    stories: Stories,
    inspection: Inspection,
    keeping: Keeping,
    skipping: Skipping,
    examiner: Examiner,
    forecaster: Forecaster,
    planner: Planner,
    connections: Connections,
    verifier: Verifier,
    ingest_requests: IngestRequestStore,
    orders: OrderStore,
    quality: MatchQualityStore,
    twins: TwinStore,
    golden: Golden,
    holds: Holds,
    config: ConfigWatch,
    control_address: String,
    service_token: String,
    master_key: MasterKey,
    known_keys: moka::sync::Cache<[u8; 32], Arc<KnownKey>>,
}

/// What a key opens.
enum Opens {
    /// Every workspace: another service of the installation.
    Everything,
    /// What it says.
    Only(Arc<KnownKey>),
}

/// An admin key, as control knows it.
struct KnownKey {
    workspaces: BTreeSet<i64>,
    label: String,
}

impl Opens {
    /// Whose key it is, for what is written down.
    fn label(&self) -> &str {
        match self {
            Self::Everything => "service",
            Self::Only(key) => &key.label,
        }
    }
}

/// What a caller of `delivery.v1` can get wrong, or we.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("no or a wrong key: send `authorization: Bearer <admin key>`")]
    Unauthenticated,
    #[error("the key does not open workspace {0}")]
    OtherWorkspace(i64),
    #[error("workspace {0} does not exist")]
    NoWorkspace(i64),
    #[error("no event with this message_id was accepted in the workspace")]
    NoEvent,
    #[error("control could not say whose the key is")]
    ControlAway(#[source] Box<Status>),
    #[error("the books could not be read")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error("the story could not be told")]
    Story(#[from] StoryError),
    #[error(transparent)]
    Inspection(#[from] InspectionError),
    #[error(transparent)]
    Forecast(#[from] ForecastError),
    #[error(transparent)]
    Skip(#[from] SkipError),
    #[error("the workspace has no connection {0}")]
    NoConnection(i64),
    #[error("the connection cannot be opened: {0}")]
    Broken(String),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("the workspace has no replay {0}: `tracklayer replay list` names those that there are")]
    NoReplay(i64),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("delivery has revision {has} of the connection yet, and not {wanted}: try again")]
    OlderRevision { has: u64, wanted: u64 },
    #[error("golden events cannot be frozen or compared now")]
    Golden(#[source] Box<GoldenError>),
    #[error("there is no configuration yet")]
    NoConfiguration,
    #[error("`{field}` {why}")]
    Invalid { field: &'static str, why: String },
}

impl RpcError for ApiError {
    fn describe(&self) -> (Code, &'static str) {
        match self {
            Self::Unauthenticated => (Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::OtherWorkspace(_) => (Code::PermissionDenied, "OTHER_WORKSPACE"),
            Self::NoWorkspace(_) => (Code::NotFound, "NO_WORKSPACE"),
            Self::NoEvent => (Code::NotFound, "NO_EVENT"),
            Self::ControlAway(_) => (Code::Unavailable, "CONTROL_AWAY"),
            Self::NoConnection(_) => (Code::NotFound, "NO_SUCH_CONNECTION"),
            Self::Broken(_) => (Code::FailedPrecondition, "BROKEN_CONNECTION"),
            Self::Store(StoreError::Trimmed) => (Code::NotFound, "NOT_KEPT"),
            Self::Store(_) | Self::Books(_) | Self::Story(_) => (Code::Unavailable, "STORE_UNAVAILABLE"),
            Self::Inspection(InspectionError::OtherJournal) => (Code::FailedPrecondition, "OTHER_JOURNAL"),
            Self::Inspection(InspectionError::Journal(JournalError::Trimmed { .. })) => {
                (Code::NotFound, "NOT_KEPT")
            }
            Self::Inspection(InspectionError::Journal(JournalError::Block { .. })) => {
                (Code::FailedPrecondition, "UNREADABLE_BLOCK")
            }
            Self::Inspection(_) => (Code::Unavailable, "STORE_UNAVAILABLE"),
            Self::Skip(SkipError::Absent(_)) => (Code::NotFound, "NO_BLOCK"),
            Self::Skip(SkipError::Readable(_)) => (Code::FailedPrecondition, "READABLE_BLOCK"),
            Self::Skip(SkipError::Newer { .. }) => (Code::FailedPrecondition, "NEWER_BLOCK"),
            Self::Skip(SkipError::Resolved { .. }) => (Code::FailedPrecondition, "ALREADY_RESOLVED"),
            Self::Skip(SkipError::NotNext { .. }) => (Code::FailedPrecondition, "NOT_NEXT"),
            Self::Skip(SkipError::Journal(_) | SkipError::Store(_)) => {
                (Code::Unavailable, "STORE_UNAVAILABLE")
            }
            Self::Forecast(ForecastError::NoConnection(_)) => (Code::NotFound, "NO_SUCH_CONNECTION"),
            Self::Forecast(ForecastError::Broken(_)) => (Code::FailedPrecondition, "BROKEN_CONNECTION"),
            Self::Forecast(ForecastError::Store(_)) => (Code::Unavailable, "STORE_UNAVAILABLE"),
            Self::Replay(ReplayError::NoConnection(_)) => (Code::NotFound, "NO_SUCH_CONNECTION"),
            Self::Replay(ReplayError::Broken(_)) => (Code::FailedPrecondition, "BROKEN_CONNECTION"),
            Self::Replay(ReplayError::NotLive(_)) => (Code::FailedPrecondition, "NOT_LIVE"),
            Self::Replay(ReplayError::WritesFiles) => (Code::FailedPrecondition, "WRITES_FILES"),
            Self::Replay(ReplayError::Upgrading) => (Code::FailedPrecondition, "UPGRADING"),
            Self::Replay(ReplayError::TooMany { .. }) => (Code::FailedPrecondition, "TOO_MANY_REPLAYS"),
            Self::Replay(ReplayError::Store(_)) => (Code::Unavailable, "STORE_UNAVAILABLE"),
            Self::Replay(ReplayError::Judge(JudgeError::Store(_))) => {
                (Code::Unavailable, "STORE_UNAVAILABLE")
            }
            Self::Replay(ReplayError::Judge(JudgeError::Service(_))) => (Code::Unavailable, "SERVICE_AWAY"),
            Self::Replay(ReplayError::Judge(JudgeError::NoConfiguration)) => {
                (Code::Unavailable, "NO_CONFIGURATION")
            }
            Self::NoReplay(_) => (Code::NotFound, "NO_SUCH_REPLAY"),
            Self::Verify(VerifyError::AlreadyVerifying) => (Code::ResourceExhausted, "ALREADY_VERIFYING"),
            Self::Verify(VerifyError::TooMany) => (Code::ResourceExhausted, "TOO_MANY_VERIFICATIONS"),
            Self::OlderRevision { .. } => (Code::FailedPrecondition, "OLDER_REVISION"),
            Self::Golden(_) => (Code::Unavailable, "GOLDEN_UNAVAILABLE"),
            Self::NoConfiguration => (Code::Unavailable, "NO_CONFIGURATION"),
            Self::Invalid { .. } => (Code::InvalidArgument, "INVALID"),
        }
    }

    fn field(&self) -> Option<(String, String)> {
        match self {
            Self::Invalid { field, why } => Some(((*field).to_owned(), why.clone())),
            _ => None,
        }
    }
}

impl From<GiveUpError> for ApiError {
    fn from(error: GiveUpError) -> Self {
        match error {
            GiveUpError::Inspection(error) => Self::Inspection(error),
            GiveUpError::Store(error) => Self::Store(error),
            GiveUpError::ToCome(_) => Self::Invalid { field: "before_day", why: error.to_string() },
            GiveUpError::NoConnection(_) => Self::Invalid { field: "connection_ids", why: error.to_string() },
        }
    }
}

fn refuse(error: &ApiError) -> Status {
    tracklayer_rpc::status(error)
}

impl DeliveryGrpc {
    /// Over the index' pool.
    #[must_use]
    pub fn new(
        index: Index,
        journal: Arc<dyn Journal>,
        examiner: Examiner,
        verifier: Verifier,
        config: ConfigWatch,
        control_address: String,
        master_key: &MasterKey,
    ) -> Self {
        let pool = index.pool().clone();
        let connections = verifier.connections().clone();
        let quality_pool = pool.clone();
        let twins = TwinStore::new(pool.clone());
        let golden = Golden::new(
            GoldenStore::new(pool.clone()),
            Clients::new(examiner.identity.clone(), examiner.consent.clone()),
            config.clone(),
            master_key.clone(),
        );
        let holds = examiner.holds.clone();
        let replays = ReplayStore::new(pool.clone());
        let planner = Planner {
            connections: connections.clone(),
            cursors: CursorStore::beside(pool.clone(), journal.kind()),
            walker: Walker {
                resolved: ResolvedStore::over(index.clone(), journal.resolved()),
                ledger: LedgerStore::new(index.clone()),
                replays: replays.clone(),
            },
            judge: Judge {
                clients: Clients::new(examiner.identity.clone(), examiner.consent.clone()),
                config: config.clone(),
                orders: OrderStore::new(index.clone()),
                master_key: master_key.clone(),
            },
            store: replays.clone(),
            fleet: index.fleet().clone(),
        };
        let inspection = Inspection::new(pool.clone(), journal.kind()).beside(Arc::clone(&journal));
        Self {
            stats: StatsStore::new(pool.clone()),
            books: Books::new(StatsStore::new(pool.clone()), Arc::clone(&journal)),
            retries: RetryStore::new(pool.clone()),
            letters: DeadLetterStore::new(pool.clone()),
            lanes: LaneStore::new(pool.clone()),
            keeping: Keeping {
                inspection: inspection.clone(),
                days: RetentionStore::new(pool.clone()),
                give_ups: GiveUpStore::new(pool.clone()),
            },
            inspection,
            skipping: Skipping {
                journal: Arc::clone(&journal),
                cursors: CursorStore::beside(pool.clone(), journal.kind()),
                store: SkipStore::new(pool.clone()),
                resolved: ResolvedStore::over(index.clone(), journal.resolved()),
            },
            examiner,
            forecaster: Forecaster {
                connections: connections.clone(),
                holds: holds.clone(),
                cursors: CursorStore::beside(pool.clone(), journal.kind()),
                resolved: ResolvedStore::over(index.clone(), journal.resolved()),
                retries: RetryStore::new(pool.clone()),
                lanes: LaneStore::new(pool.clone()),
                page_events: PAGE_EVENTS,
            },
            planner,
            ingest_requests: IngestRequestStore::new(pool.clone()),
            stories: Stories {
                replays,
                requests: IngestRequestStore::new(pool.clone()),
                holds: holds.clone(),
                resolved: ResolvedStore::over(index.clone(), journal.resolved()),
                cursors: CursorStore::beside(pool, journal.kind()),
                journal,
                ledger: LedgerStore::new(index.clone()),
            },
            orders: OrderStore::new(index),
            quality: MatchQualityStore::new(quality_pool),
            twins,
            golden,
            connections,
            verifier,
            holds,
            config,
            control_address,
            service_token: master_key.service_token(),
            master_key: master_key.clone(),
            known_keys: moka::sync::Cache::builder()
                .max_capacity(10_000)
                .time_to_live(Duration::from_secs(10))
                .build(),
        }
    }

    /// The service token opens every workspace; an admin key opens what control says.
    async fn authorise<T>(&self, request: &Request<T>, workspace: i64) -> Result<WorkspaceId, ApiError> {
        self.authorise_whom(request, workspace).await.map(|(workspace, _)| workspace)
    }

    /// As [`Self::authorise`], and whose key it is.
    async fn authorise_whom<T>(
        &self,
        request: &Request<T>,
        workspace: i64,
    ) -> Result<(WorkspaceId, String), ApiError> {
        let opens = self.opens(request).await?;
        let is_open = match &opens {
            Opens::Everything => true,
            Opens::Only(key) => key.workspaces.contains(&workspace),
        };
        match is_open {
            true => Ok((WorkspaceId(workspace), opens.label().to_owned())),
            false => Err(ApiError::OtherWorkspace(workspace)),
        }
    }

    /// What the request's key opens; an error if it is no key at all.
    async fn opens<T>(&self, request: &Request<T>) -> Result<Opens, ApiError> {
        use sha2::Digest as _;
        let token = tracklayer_rpc::bearer(request.metadata()).ok_or(ApiError::Unauthenticated)?;
        let given: [u8; 32] = sha2::Sha256::digest(token.as_bytes()).into();
        let ours: [u8; 32] = sha2::Sha256::digest(self.service_token.as_bytes()).into();
        // Hashes of secrets are compared, so that the time tells nothing about the secret.
        if given == ours {
            return Ok(Opens::Everything);
        }
        if let Some(known) = self.known_keys.get(&given) {
            return Ok(Opens::Only(known));
        }
        let channel = tracklayer_rpc::connect_lazy(&self.control_address, Secret::new(token))
            .map_err(|e| ApiError::ControlAway(Box::new(Status::unavailable(e.to_string()))))?;
        let seen = ControlServiceClient::new(channel)
            .list_workspaces(ListWorkspacesRequest {})
            .await
            .map_err(|status| match status.code() {
                tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => ApiError::Unauthenticated,
                _ => ApiError::ControlAway(Box::new(status)),
            })?
            .into_inner();
        let workspaces = seen.workspaces.iter().map(|w| w.workspace_id).collect();
        let key = Arc::new(KnownKey { workspaces, label: seen.key_label });
        self.known_keys.insert(given, Arc::clone(&key));
        Ok(Opens::Only(key))
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, ApiError> {
        self.config.snapshot().ok_or(ApiError::NoConfiguration)
    }

    fn partitions(&self, workspace: WorkspaceId) -> Result<u32, ApiError> {
        let snapshot = self.config.snapshot();
        let found = snapshot.as_ref().and_then(|s| s.workspaces.get(&workspace));
        found.map(|w| w.partitions.max(1)).ok_or(ApiError::NoWorkspace(workspace.0))
    }

    async fn stats(&self, workspace: WorkspaceId) -> Result<pb::GetStatsResponse, ApiError> {
        let Counts { accepted, waiting } = self.books.counts(workspace).await?;
        let states = self.stats.states(workspace).await?;
        let latencies = self.stats.latencies(workspace).await?;
        let requests = self.stats.requests(workspace).await?;
        let holds: BTreeMap<i64, String> = self.lanes.holds(workspace).await?.into_iter().collect();
        let now = jiff::Timestamp::now();
        // An operator's hold is told before any lane has: the configuration says it.
        let health = |connection: i64| match self.holds.of(workspace, ConnectionId(connection)).at(now) {
            Some(hold) => format!("{}: {}", hold.kind(), hold.detail()),
            None => holds.get(&connection).cloned().unwrap_or_else(|| "open".to_owned()),
        };
        let connections = waiting
            .into_iter()
            .map(|(connection, waiting)| {
                let counts = states.iter().filter(|row| row.0 == connection);
                let buckets: Vec<(i32, i64)> =
                    latencies.iter().filter(|row| row.0 == connection).map(|row| (row.1, row.2)).collect();
                pb::ConnectionStats {
                    connection_id: connection,
                    counts: counts
                        .map(|(_, source, state, reason, events)| pb::SourceStateCount {
                            source_id: *source,
                            state: State::from_number(*state).map_or("", State::as_str).to_owned(),
                            reason: reason.clone(),
                            count: events.cast_unsigned(),
                        })
                        .collect(),
                    p50_ms: percentile(&buckets, 0.50),
                    p95_ms: percentile(&buckets, 0.95),
                    p99_ms: percentile(&buckets, 0.99),
                    requests: requests.get(&connection).copied().unwrap_or(0),
                    waiting,
                    health: health(connection),
                }
            })
            .collect();
        let sources = accepted
            .into_iter()
            .map(|(source_id, accepted)| pb::SourceCount { source_id, accepted })
            .collect();
        Ok(pb::GetStatsResponse { sources, connections })
    }
}

fn proto_finding(finding: Finding) -> pb::Finding {
    let level = match finding.level {
        Level::Ok => pb::FindingLevel::Ok,
        Level::Warning => pb::FindingLevel::Warning,
        Level::Problem => pb::FindingLevel::Problem,
    };
    pb::Finding {
        check: finding.check.to_owned(),
        level: level.into(),
        workspace_id: finding.workspace.map_or(0, |workspace| workspace.0),
        found: finding.found,
        advice: finding.advice,
    }
}

/// How many a request asks for.
fn limit_of(limit: u32, default: usize) -> Result<usize, ApiError> {
    match limit {
        0 => Ok(default),
        1..=1_000 => Ok(limit as usize),
        _ => {
            let why = format!("is {limit}, allowed are 1 to 1000");
            Err(ApiError::Invalid { field: "limit", why })
        }
    }
}

/// Where a request has to say that a page begins.
fn required(position: Option<pb::Position>) -> Result<Position, ApiError> {
    required_as("from", position)
}

/// A position that a request has to name.
fn required_as(field: &'static str, position: Option<pb::Position>) -> Result<Position, ApiError> {
    let position = position.ok_or_else(|| ApiError::Invalid { field, why: "is missing".to_owned() })?;
    let in_range = i64::try_from(position.offset).is_ok()
        && i32::try_from(position.generation).is_ok()
        && i32::try_from(position.partition).is_ok();
    if !in_range {
        return Err(ApiError::Invalid { field, why: "is out of range".to_owned() });
    }
    Ok(Position::new(position.generation, position.partition, position.offset))
}

/// A percentile from buckets in ascending order: the ceiling of the bucket that holds it.
fn percentile(buckets: &[(i32, i64)], share: f64) -> u32 {
    let total: i64 = buckets.iter().map(|b| b.1).sum();
    let rank = (total as f64 * share).ceil() as i64;
    let mut seen = 0;
    for (bucket, events) in buckets {
        seen += events;
        if seen >= rank {
            return bucket_ceiling_ms(*bucket);
        }
    }
    0
}

#[tonic::async_trait]
impl DeliveryService for DeliveryGrpc {
    async fn preview(
        &self,
        request: Request<pb::PreviewRequest>,
    ) -> Result<Response<pb::PreviewResponse>, Status> {
        // Without a workspace none is touched: whoever has any valid key may preview.
        if request.get_ref().workspace_id == 0 {
            self.opens(&request).await.map_err(|e| refuse(&e))?;
        } else {
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        }
        let answers = self.previewed(request.into_inner()).await.map_err(|e| refuse(&e))?;
        Ok(Response::new(pb::PreviewResponse { answers }))
    }

    async fn show_event(
        &self,
        request: Request<pb::ShowEventRequest>,
    ) -> Result<Response<pb::ShowEventResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let partitions = self.partitions(workspace).map_err(|e| refuse(&e))?;
        let message_id = request.into_inner().message_id;
        let occurrences =
            self.stories.of(workspace, &message_id, partitions).await.map_err(|e| refuse(&e.into()))?;
        if occurrences.is_empty() {
            return Err(refuse(&ApiError::NoEvent));
        }
        Ok(Response::new(pb::ShowEventResponse { occurrences }))
    }

    async fn balance_ledger(
        &self,
        request: Request<pb::BalanceLedgerRequest>,
    ) -> Result<Response<pb::BalanceLedgerResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let balances = self.books.balances(workspace).await.map_err(|e| refuse(&e.into()))?;
        let received = balances.received;
        let now = jiff::Timestamp::now();
        let names = self.connections.of(workspace);
        let connections: Vec<pb::ConnectionBalance> = balances
            .finish()
            .into_iter()
            .map(|(connection_id, balance)| pb::ConnectionBalance {
                connection_id,
                name: names
                    .iter()
                    .find(|c| c.id.0 == connection_id)
                    .map(|c| c.name.clone())
                    .unwrap_or_default(),
                accepted: balance.accepted,
                difference: balance.difference(),
                states: balance
                    .states
                    .into_iter()
                    .map(|((state, reason), count)| {
                        let hold = self.holds.of(workspace, ConnectionId(connection_id)).at(now);
                        let (state, reason) = match hold.filter(|_| state == State::Waiting) {
                            Some(hold) => (State::Held, hold.kind().to_owned()),
                            None => (state, reason),
                        };
                        pb::StateCount { state: state.as_str().to_owned(), reason, count }
                    })
                    .collect(),
                faults: balance.faults,
            })
            .collect();
        let clean = connections.iter().all(|c| c.difference == 0 && c.faults.is_empty());
        Ok(Response::new(pb::BalanceLedgerResponse { connections, clean, received }))
    }

    async fn get_stats(
        &self,
        request: Request<pb::GetStatsRequest>,
    ) -> Result<Response<pb::GetStatsResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.stats(workspace).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let request = request.into_inner();
        let limit = limit_of(request.limit, 100).map_err(|e| refuse(&e))?;
        let letters = self
            .retries
            .dead_letters(workspace, request.connection_id, i64::try_from(limit).unwrap_or(i64::MAX))
            .await
            .map_err(|e| refuse(&e.into()))?
            .into_iter()
            .map(|listed| pb::DeadLetter {
                connection_id: listed.connection,
                position: Some(proto_position(listed.letter.position)),
                message_id: listed.letter.message_id,
                code: listed.letter.code,
                field: listed.letter.field,
                detail: listed.letter.detail,
                at: Some(proto_time(listed.died_at)),
                request: listed.letter.request,
                answer: listed.letter.answer,
            })
            .collect();
        Ok(Response::new(pb::ListDeadLettersResponse { letters }))
    }

    async fn close_dead_letters(
        &self,
        request: Request<pb::CloseDeadLettersRequest>,
    ) -> Result<Response<pb::CloseDeadLettersResponse>, Status> {
        let (workspace, asked_by) =
            self.authorise_whom(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let closed = self.close_letters(workspace, request.into_inner(), &asked_by).await;
        closed.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn inspect_journal(
        &self,
        request: Request<pb::InspectJournalRequest>,
    ) -> Result<Response<pb::InspectJournalResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.holdings(workspace).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn verify_journal(
        &self,
        request: Request<pb::VerifyJournalRequest>,
    ) -> Result<Response<pb::VerifyJournalResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.verified(workspace, request.into_inner()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn get_journal_lag(
        &self,
        request: Request<pb::GetJournalLagRequest>,
    ) -> Result<Response<pb::GetJournalLagResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.lags(workspace).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn read_journal(
        &self,
        request: Request<pb::ReadJournalRequest>,
    ) -> Result<Response<pb::ReadJournalResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.read(workspace, request.into_inner()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn get_order_states(
        &self,
        request: Request<pb::GetOrderStatesRequest>,
    ) -> Result<Response<pb::GetOrderStatesResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let request = request.into_inner();
        if !(1..=1_000).contains(&request.order_ids.len()) {
            let why = format!("has {}, allowed are 1 to 1000", request.order_ids.len());
            return Err(refuse(&ApiError::Invalid { field: "order_ids", why }));
        }
        let duty = any_duty(workspace, request.connection_id);
        let states = match_keys::shown(&self.orders, &self.master_key, duty, &request.order_ids, None);
        let states = states.await.map_err(|e| refuse(&e.into()))?;
        let states = states.into_iter().map(|(order_id, state)| proto_state(order_id, state));
        Ok(Response::new(pb::GetOrderStatesResponse { states: states.collect() }))
    }

    async fn get_journal_retention(
        &self,
        request: Request<pb::GetJournalRetentionRequest>,
    ) -> Result<Response<pb::GetJournalRetentionResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.kept(workspace).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn give_up_unread(
        &self,
        request: Request<pb::GiveUpUnreadRequest>,
    ) -> Result<Response<pb::GiveUpUnreadResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.give_up(workspace, request.get_ref()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn skip_block(
        &self,
        request: Request<pb::SkipBlockRequest>,
    ) -> Result<Response<pb::SkipBlockResponse>, Status> {
        let named = request.get_ref().workspace_id;
        let (workspace, whose) = self.authorise_whom(&request, named).await.map_err(|e| refuse(&e))?;
        self.skip(workspace, &whose, request.get_ref()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn forecast_release(
        &self,
        request: Request<pb::ForecastReleaseRequest>,
    ) -> Result<Response<pb::ForecastReleaseResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.forecast(workspace, request.get_ref()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn plan_replay(
        &self,
        request: Request<pb::PlanReplayRequest>,
    ) -> Result<Response<pb::PlanReplayResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.plan(workspace, request.into_inner()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn start_replay(
        &self,
        request: Request<pb::StartReplayRequest>,
    ) -> Result<Response<pb::StartReplayResponse>, Status> {
        let (workspace, asked_by) =
            self.authorise_whom(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let replay = self.start(workspace, request.into_inner(), &asked_by).await.map_err(|e| refuse(&e))?;
        Ok(Response::new(pb::StartReplayResponse { replay: Some(replay) }))
    }

    async fn get_replay(
        &self,
        request: Request<pb::GetReplayRequest>,
    ) -> Result<Response<pb::GetReplayResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let replay = self.replay(workspace, request.get_ref().replay_id).await.map_err(|e| refuse(&e))?;
        Ok(Response::new(pb::GetReplayResponse { replay: Some(replay) }))
    }

    async fn list_replays(
        &self,
        request: Request<pb::ListReplaysRequest>,
    ) -> Result<Response<pb::ListReplaysResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let replays = self.replays(workspace, request.get_ref()).await.map_err(|e| refuse(&e))?;
        Ok(Response::new(pb::ListReplaysResponse { replays }))
    }

    async fn cancel_replay(
        &self,
        request: Request<pb::CancelReplayRequest>,
    ) -> Result<Response<pb::CancelReplayResponse>, Status> {
        let (workspace, by) =
            self.authorise_whom(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let replay =
            self.cancel(workspace, request.get_ref().replay_id, &by).await.map_err(|e| refuse(&e))?;
        Ok(Response::new(pb::CancelReplayResponse { replay: Some(replay) }))
    }

    async fn list_ingest_requests(
        &self,
        request: Request<pb::ListIngestRequestsRequest>,
    ) -> Result<Response<pb::ListIngestRequestsResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let listed = self.listed_requests(workspace, request.get_ref()).await;
        listed.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn verify_connection(
        &self,
        request: Request<pb::VerifyConnectionRequest>,
    ) -> Result<Response<pb::VerifyConnectionResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let verified = self.verified_connection(workspace, request.into_inner()).await;
        verified.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn freeze_golden(
        &self,
        request: Request<pb::FreezeGoldenRequest>,
    ) -> Result<Response<pb::FreezeGoldenResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.freeze(workspace, request.into_inner()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn report_drift(
        &self,
        request: Request<pb::ReportDriftRequest>,
    ) -> Result<Response<pb::ReportDriftResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let connection_id = request.get_ref().connection_id;
        self.drift(workspace, connection_id).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn accept_drift(
        &self,
        request: Request<pb::AcceptDriftRequest>,
    ) -> Result<Response<pb::AcceptDriftResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let connection_id = request.get_ref().connection_id;
        self.accept(workspace, connection_id).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn forget_golden(
        &self,
        request: Request<pb::ForgetGoldenRequest>,
    ) -> Result<Response<pb::ForgetGoldenResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let connection_id = request.get_ref().connection_id;
        self.forget_golden_of(workspace, connection_id).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn get_match_quality(
        &self,
        request: Request<pb::GetMatchQualityRequest>,
    ) -> Result<Response<pb::GetMatchQualityResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.quality(workspace, request.get_ref()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn get_twins(
        &self,
        request: Request<pb::GetTwinsRequest>,
    ) -> Result<Response<pb::GetTwinsResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        self.twins_of(workspace, request.get_ref()).await.map(Response::new).map_err(|e| refuse(&e))
    }

    async fn examine(
        &self,
        request: Request<pb::ExamineRequest>,
    ) -> Result<Response<pb::ExamineResponse>, Status> {
        let workspace =
            self.authorise(&request, request.get_ref().workspace_id).await.map_err(|e| refuse(&e))?;
        let configuration_version = self.config.snapshot().map_or(0, |snapshot| snapshot.version);
        let findings = self.examiner.examine(workspace).await.into_iter().map(proto_finding).collect();
        Ok(Response::new(pb::ExamineResponse { findings, configuration_version }))
    }
}
