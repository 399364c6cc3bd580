//! `control.v1`: parse, call the administration, answer. No rules in here.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use prost_types::Timestamp;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracklayer_ids::{ConnectionId, MasterKey, Secret, SourceId, WorkspaceId};
use tracklayer_proto::control::v1::control_service_server::ControlService;
use tracklayer_proto::control::v1::{
    self as pb, AddFreezeRequest, AddFreezeResponse, CreateAdminKeyRequest, CreateAdminKeyResponse,
    CreateSourceRequest, CreateSourceResponse, CreateWorkspaceRequest, CreateWorkspaceResponse,
    ListConnectionsRequest, ListConnectionsResponse, ListFreezesRequest, ListFreezesResponse,
    ListPausesRequest, ListPausesResponse, ListSourcesRequest, ListSourcesResponse, ListWorkspacesRequest,
    ListWorkspacesResponse, PauseConnectionRequest, PauseConnectionResponse, PutConnectionRequest,
    PutConnectionResponse, RemoveFreezeRequest, RemoveFreezeResponse, ResumeConnectionRequest,
    ResumeConnectionResponse, SetPartitionsRequest, SetPartitionsResponse, SetReleasePaceRequest,
    SetReleasePaceResponse, SetSourceDedupRequest, SetSourceDedupResponse, SetSourceRateRequest,
    SetSourceRateResponse, SetSourceWebhookRequest, SetSourceWebhookResponse, WatchConfigRequest,
    WatchConfigResponse,
};
use tracklayer_rpc::{ServiceToken, require_service_token};

use crate::admin::Admin;
use crate::configuration::{Configuration, Feed, WorkspaceConfiguration};
use crate::connection::{Connection, parse_document};
use crate::error::ControlError;
use crate::hold::{Freeze, NewFreeze, Pause, Reason, Said, parse_pace};
use crate::metrics::Follower;
use crate::name::{Label, Name};
use crate::scope::{KnownKey, Scope};
use crate::source::{
    Channel, DedupChange, NewSource, Source, parse_dedup_ttl, parse_place, parse_rate, parse_user_id_type,
    parse_write_key,
};
use crate::webhook::{WebhookDocument, check_channel, masked};
use crate::workspace::{NewWorkspace, Workspace, parse_partitions};

/// The service.
#[derive(Debug, Clone)]
pub struct ControlGrpc {
    admin: Admin,
    feed: Feed,
    service_token: ServiceToken,
    shutdown: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;

impl ControlGrpc {
    /// Answers from the administration and the feed. Streams end at `shutdown`, which a server waits for.
    #[must_use]
    pub fn new(admin: Admin, feed: Feed, master_key: &MasterKey, shutdown: CancellationToken) -> Self {
        Self { admin, feed, service_token: require_service_token(&master_key.service_token()), shutdown }
    }

    async fn scope<T>(&self, request: &Request<T>) -> Result<Scope, Status> {
        Ok(self.key(request).await?.scope)
    }

    async fn key<T>(&self, request: &Request<T>) -> Result<KnownKey, Status> {
        let presented = tracklayer_rpc::bearer(request.metadata()).map(Secret::new);
        self.admin.authenticate(presented.as_ref()).await.map_err(status)
    }
}

#[tonic::async_trait]
impl ControlService for ControlGrpc {
    type WatchConfigStream = Pin<Box<dyn Stream<Item = Result<WatchConfigResponse, Status>> + Send>>;

    async fn watch_config(&self, request: Request<WatchConfigRequest>) -> Answer<Self::WatchConfigStream> {
        self.service_token.check(request.metadata())?;
        let follower = Follower::arrives();
        let configurations = WatchStream::new(self.feed.clone())
            .filter_map(std::future::ready)
            .map(move |configuration| {
                let _counted = &follower;
                Ok(snapshot_message(&configuration))
            })
            .take_until(self.shutdown.clone().cancelled_owned());
        Ok(Response::new(Box::pin(configurations)))
    }

    async fn create_workspace(
        &self,
        request: Request<CreateWorkspaceRequest>,
    ) -> Answer<CreateWorkspaceResponse> {
        let scope = self.scope(&request).await?;
        let new = NewWorkspace::try_from(request.into_inner()).map_err(status)?;
        let workspace = self.admin.create_workspace(scope, &new).await.map_err(status)?;
        Ok(Response::new(CreateWorkspaceResponse { workspace: Some(workspace_message(workspace)) }))
    }

    async fn set_partitions(&self, request: Request<SetPartitionsRequest>) -> Answer<SetPartitionsResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let partitions = parse_partitions(request.partitions).map_err(status)?;
        let workspace = self.admin.set_partitions(scope, workspace, partitions).await.map_err(status)?;
        Ok(Response::new(SetPartitionsResponse { workspace: Some(workspace_message(workspace)) }))
    }

    async fn list_workspaces(
        &self,
        request: Request<ListWorkspacesRequest>,
    ) -> Answer<ListWorkspacesResponse> {
        let key = self.key(&request).await?;
        let workspaces = self.admin.list_workspaces(key.scope).await.map_err(status)?;
        Ok(Response::new(ListWorkspacesResponse {
            workspaces: workspaces.into_iter().map(workspace_message).collect(),
            key_label: self.admin.label_of(key).await.map_err(status)?,
        }))
    }

    async fn create_source(&self, request: Request<CreateSourceRequest>) -> Answer<CreateSourceResponse> {
        let scope = self.scope(&request).await?;
        let new = NewSource::try_from(request.into_inner()).map_err(status)?;
        let (source, write_key) = self.admin.create_source(scope, &new).await.map_err(status)?;
        Ok(Response::new(CreateSourceResponse {
            source: Some(source_message(source).map_err(status)?),
            write_key: write_key.into_inner(),
        }))
    }

    async fn set_source_rate(&self, request: Request<SetSourceRateRequest>) -> Answer<SetSourceRateResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let rate = parse_rate(request.max_events_per_second).map_err(status)?;
        let source = SourceId(request.source_id);
        let source = self.admin.set_source_rate(scope, workspace, source, rate).await.map_err(status)?;
        let source = source_message(source).map_err(status)?;
        Ok(Response::new(SetSourceRateResponse { source: Some(source) }))
    }

    async fn set_source_webhook(
        &self,
        request: Request<SetSourceWebhookRequest>,
    ) -> Answer<SetSourceWebhookResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let document = WebhookDocument::parse(&request.webhook_json).map_err(status)?;
        let source = SourceId(request.source_id);
        let keep_previous = request.keep_previous_secret;
        let source = self
            .admin
            .set_source_webhook(scope, workspace, source, document, keep_previous)
            .await
            .map_err(status)?;
        let source = source_message(source).map_err(status)?;
        Ok(Response::new(SetSourceWebhookResponse { source: Some(source) }))
    }

    async fn set_source_dedup(
        &self,
        request: Request<SetSourceDedupRequest>,
    ) -> Answer<SetSourceDedupResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let change = DedupChange {
            ttl_seconds: request.dedup_ttl_seconds.map(parse_dedup_ttl).transpose().map_err(status)?,
            by_order_id: request.dedup_by_order_id,
        };
        let source = SourceId(request.source_id);
        let source = self.admin.set_source_dedup(scope, workspace, source, change).await.map_err(status)?;
        let source = source_message(source).map_err(status)?;
        Ok(Response::new(SetSourceDedupResponse { source: Some(source) }))
    }

    async fn list_sources(&self, request: Request<ListSourcesRequest>) -> Answer<ListSourcesResponse> {
        let scope = self.scope(&request).await?;
        let workspace = workspace_id(request.into_inner().workspace_id).map_err(status)?;
        let sources = self.admin.list_sources(scope, workspace).await.map_err(status)?;
        let sources = sources.into_iter().map(source_message).collect::<Result<_, _>>().map_err(status)?;
        Ok(Response::new(ListSourcesResponse { sources }))
    }

    async fn put_connection(&self, request: Request<PutConnectionRequest>) -> Answer<PutConnectionResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let name = Name::parse("name", &request.name).map_err(status)?;
        let document = parse_document(&request.document_json).map_err(status)?;
        let connection =
            self.admin.put_connection(scope, workspace, &name, document).await.map_err(status)?;
        Ok(Response::new(PutConnectionResponse {
            connection: Some(connection_message(connection).map_err(status)?),
        }))
    }

    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Answer<ListConnectionsResponse> {
        let scope = self.scope(&request).await?;
        let workspace = workspace_id(request.into_inner().workspace_id).map_err(status)?;
        let connections = self.admin.list_connections(scope, workspace).await.map_err(status)?;
        let connections =
            connections.into_iter().map(connection_message).collect::<Result<_, _>>().map_err(status)?;
        Ok(Response::new(ListConnectionsResponse { connections }))
    }

    async fn pause_connection(
        &self,
        request: Request<PauseConnectionRequest>,
    ) -> Answer<PauseConnectionResponse> {
        let key = self.key(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let connection = connection_id(request.connection_id).map_err(status)?;
        let reason = Reason::parse("reason", &request.reason).map_err(status)?;
        let paused =
            self.admin.pause_connection(&key, workspace, connection, &reason).await.map_err(status)?;
        Ok(Response::new(PauseConnectionResponse {
            connection: Some(connection_message(paused).map_err(status)?),
        }))
    }

    async fn resume_connection(
        &self,
        request: Request<ResumeConnectionRequest>,
    ) -> Answer<ResumeConnectionResponse> {
        let key = self.key(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let connection = connection_id(request.connection_id).map_err(status)?;
        let (resumed, ended) =
            self.admin.resume_connection(&key, workspace, connection).await.map_err(status)?;
        Ok(Response::new(ResumeConnectionResponse {
            connection: Some(connection_message(resumed).map_err(status)?),
            ended: ended.as_ref().map(pause_message),
        }))
    }

    async fn list_pauses(&self, request: Request<ListPausesRequest>) -> Answer<ListPausesResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let connection = connection_id(request.connection_id).map_err(status)?;
        let pauses = self.admin.list_pauses(scope, workspace, connection).await.map_err(status)?;
        Ok(Response::new(ListPausesResponse { pauses: pauses.iter().map(pause_message).collect() }))
    }

    async fn set_release_pace(
        &self,
        request: Request<SetReleasePaceRequest>,
    ) -> Answer<SetReleasePaceResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let connection = connection_id(request.connection_id).map_err(status)?;
        let pace = parse_pace(request.release_events_per_second).map_err(status)?;
        let paced = self.admin.set_release_pace(scope, workspace, connection, pace).await.map_err(status)?;
        Ok(Response::new(SetReleasePaceResponse {
            connection: Some(connection_message(paced).map_err(status)?),
        }))
    }

    async fn add_freeze(&self, request: Request<AddFreezeRequest>) -> Answer<AddFreezeResponse> {
        let key = self.key(&request).await?;
        let new = NewFreeze::try_from(request.into_inner()).map_err(status)?;
        let freeze = self.admin.add_freeze(&key, &new).await.map_err(status)?;
        Ok(Response::new(AddFreezeResponse { freeze: Some(freeze_message(&freeze, jiff::Timestamp::now())) }))
    }

    async fn list_freezes(&self, request: Request<ListFreezesRequest>) -> Answer<ListFreezesResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let now = jiff::Timestamp::now();
        let mut freezes = self.admin.list_freezes(scope, workspace).await.map_err(status)?;
        freezes.retain(|freeze| request.all || !freeze.is_over(now));
        Ok(Response::new(ListFreezesResponse {
            freezes: freezes.iter().map(|freeze| freeze_message(freeze, now)).collect(),
        }))
    }

    async fn remove_freeze(&self, request: Request<RemoveFreezeRequest>) -> Answer<RemoveFreezeResponse> {
        let key = self.key(&request).await?;
        let request = request.into_inner();
        let workspace = workspace_id(request.workspace_id).map_err(status)?;
        let removed = self.admin.remove_freeze(&key, workspace, request.freeze_id).await.map_err(status)?;
        let freeze = freeze_message(&removed, jiff::Timestamp::now());
        Ok(Response::new(RemoveFreezeResponse { freeze: Some(freeze) }))
    }

    async fn create_admin_key(
        &self,
        request: Request<CreateAdminKeyRequest>,
    ) -> Answer<CreateAdminKeyResponse> {
        let scope = self.scope(&request).await?;
        let request = request.into_inner();
        let of = match request.workspace_id {
            0 => Scope::Installation,
            id => Scope::Workspace(workspace_id(id).map_err(status)?),
        };
        let label = Label::parse(&request.label).map_err(status)?;
        let key = self.admin.create_admin_key(scope, of, &label).await.map_err(status)?;
        Ok(Response::new(CreateAdminKeyResponse { admin_key: key.into_inner() }))
    }
}

#[allow(clippy::needless_pass_by_value)] // the shape of `map_err`
fn status(error: ControlError) -> Status {
    tracklayer_rpc::status(&error)
}

fn workspace_id(id: i64) -> Result<WorkspaceId, ControlError> {
    if id > 0 { Ok(WorkspaceId(id)) } else { Err(ControlError::invalid("workspace_id", "is required")) }
}

fn connection_id(id: i64) -> Result<ConnectionId, ControlError> {
    if id > 0 { Ok(ConnectionId(id)) } else { Err(ControlError::invalid("connection_id", "is required")) }
}

impl TryFrom<AddFreezeRequest> for NewFreeze {
    type Error = ControlError;

    fn try_from(request: AddFreezeRequest) -> Result<Self, ControlError> {
        let workspace = workspace_id(request.workspace_id)?;
        let window = request.window.ok_or_else(|| ControlError::invalid("window", "is required"))?;
        let connection = match window.connection_id {
            0 => None,
            id if id > 0 => Some(ConnectionId(id)),
            _ => return Err(ControlError::invalid("window.connection_id", "is out of range")),
        };
        let reason = Reason::parse("window.reason", &window.reason)?;
        let said = Said { time_zone: window.time_zone, days: window.days, from: window.from, to: window.to };
        Ok(Self { workspace, connection, window: said.window()?, reason })
    }
}

impl TryFrom<CreateWorkspaceRequest> for NewWorkspace {
    type Error = ControlError;

    fn try_from(request: CreateWorkspaceRequest) -> Result<Self, ControlError> {
        Self::parse(&request.name, request.partitions, request.value_from, &request.value_fallback)
    }
}

impl TryFrom<CreateSourceRequest> for NewSource {
    type Error = ControlError;

    fn try_from(request: CreateSourceRequest) -> Result<Self, ControlError> {
        let channel = Channel::parse(&request.channel)
            .ok_or_else(|| ControlError::invalid("channel", "must be `browser`, `server` or `mobile`"))?;
        let webhook = WebhookDocument::parse(&request.webhook_json)?;
        if webhook.is_some() {
            check_channel(channel)?;
        }
        Ok(Self {
            workspace: workspace_id(request.workspace_id)?,
            name: Name::parse("name", &request.name)?,
            channel,
            webhook,
            default_place: parse_place(&request.default_place)?,
            user_id_type: parse_user_id_type(&request.user_id_type)?,
            dedup_ttl_seconds: parse_dedup_ttl(request.dedup_ttl_seconds)?,
            banner_writes_defaults: request.banner_writes_defaults,
            dedup_by_order_id: request.dedup_by_order_id,
            max_events_per_second: parse_rate(request.max_events_per_second)?,
            write_key: parse_write_key(&request.write_key)?,
        })
    }
}

fn workspace_message(workspace: Workspace) -> pb::Workspace {
    pb::Workspace {
        workspace_id: workspace.id.0,
        name: workspace.name,
        partitions: workspace.partitions,
        value_from: workspace.value_from,
        value_fallback: workspace.value_fallback.as_str().to_owned(),
        created_at: Some(stamp(workspace.created_at)),
    }
}

fn source_message(source: Source) -> Result<pb::Source, ControlError> {
    Ok(pb::Source {
        webhook_json: source.sealed_webhook.as_deref().map(masked).transpose()?.unwrap_or_default(),
        source_id: source.id.0,
        workspace_id: source.workspace.0,
        name: source.name,
        channel: source.channel.as_str().to_owned(),
        default_place: source.default_place,
        enabled: source.enabled,
        write_key_hint: source.write_key_hint,
        dedup_ttl_seconds: source.dedup_ttl_seconds,
        dedup_by_order_id: source.dedup_by_order_id,
        max_events_per_second: source.max_events_per_second,
    })
}

fn connection_message(connection: Connection) -> Result<pb::Connection, ControlError> {
    Ok(pb::Connection {
        document_json: connection.masked_document()?.to_string(),
        connection_id: connection.id.0,
        workspace_id: connection.workspace.0,
        name: connection.name,
        kind: connection.kind,
        mode: connection.mode,
        revision: connection.revision,
        pause: connection.pause.as_ref().map(pause_message),
        release_events_per_second: connection.release_events_per_second,
    })
}

fn pause_message(pause: &Pause) -> pb::Pause {
    let (resumed_at, resumed_by) = at_and_by(pause.resumed.as_ref());
    pb::Pause {
        paused_at: Some(stamp(pause.paused_at)),
        paused_by: pause.paused_by.clone(),
        reason: pause.reason.clone(),
        resumed_at,
        resumed_by,
    }
}

fn window_message(freeze: &Freeze) -> pb::FreezeWindow {
    let (removed_at, removed_by) = at_and_by(freeze.removed.as_ref());
    pb::FreezeWindow {
        freeze_id: freeze.id,
        connection_id: freeze.connection.map_or(0, |connection| connection.0),
        time_zone: freeze.said.time_zone.clone(),
        days: freeze.said.days.clone(),
        from: freeze.said.from.clone(),
        to: freeze.said.to.clone(),
        reason: freeze.reason.clone(),
        created_by: freeze.created_by.clone(),
        created_at: Some(stamp(freeze.created_at)),
        removed_at,
        removed_by,
    }
}

fn freeze_message(freeze: &Freeze, now: jiff::Timestamp) -> pb::Freeze {
    let window = freeze.window.as_ref().filter(|_| freeze.removed.is_none());
    let span =
        window.and_then(|window| window.span_at(now).or_else(|| window.span_at(window.next_from(now)?)));
    pb::Freeze {
        window: Some(window_message(freeze)),
        begins: span.map(|span| stamp(span.from)),
        ends: span.map(|span| stamp(span.to)),
    }
}

fn at_and_by(what: Option<&(jiff::Timestamp, String)>) -> (Option<Timestamp>, String) {
    what.map_or((None, String::new()), |(at, by)| (Some(stamp(*at)), by.clone()))
}

fn stamp(at: jiff::Timestamp) -> Timestamp {
    // Never negative: these are times since the installation was made.
    Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

fn snapshot_message(configuration: &Configuration) -> WatchConfigResponse {
    let now = jiff::Timestamp::now();
    WatchConfigResponse {
        version: configuration.version,
        workspaces: configuration.workspaces.iter().map(|of| workspace_config(of, now)).collect(),
    }
}

fn workspace_config(of: &WorkspaceConfiguration, now: jiff::Timestamp) -> pb::WorkspaceConfig {
    pb::WorkspaceConfig {
        workspace_id: of.workspace.id.0,
        name: of.workspace.name.clone(),
        partitions: of.workspace.partitions,
        sources: of.sources.iter().map(source_config).collect(),
        connections: of.connections.iter().map(connection_config).collect(),
        value_from: of.workspace.value_from.clone(),
        value_fallback: of.workspace.value_fallback.as_str().to_owned(),
        admin_key_sha256: of.admin_keys.iter().map(|hash| hash.0.to_vec()).collect(),
        freezes: of.freezes.iter().filter(|freeze| freeze.is_told(now)).map(window_message).collect(),
    }
}

fn source_config(source: &Source) -> pb::SourceConfig {
    pb::SourceConfig {
        source_id: source.id.0,
        name: source.name.clone(),
        write_key_sha256: source.write_key_sha256.0.to_vec(),
        channel: source.channel.as_str().to_owned(),
        default_place: source.default_place.clone(),
        user_id_type: source.user_id_type.clone(),
        enabled: source.enabled,
        dedup_ttl_seconds: source.dedup_ttl_seconds,
        banner_writes_defaults: source.banner_writes_defaults,
        dedup_by_order_id: source.dedup_by_order_id,
        max_events_per_second: source.max_events_per_second,
        webhook_json: source.sealed_webhook.clone().unwrap_or_default(),
    }
}

fn connection_config(connection: &Connection) -> pb::ConnectionConfig {
    pb::ConnectionConfig {
        connection_id: connection.id.0,
        name: connection.name.clone(),
        kind: connection.kind.clone(),
        mode: connection.mode.clone(),
        document_json: connection.sealed_document.clone(),
        revision: connection.revision,
        pause: connection.pause.as_ref().map(pause_message),
        resumed_at: connection.resumed_at.map(stamp),
        release_events_per_second: connection.release_events_per_second,
    }
}
