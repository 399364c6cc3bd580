//! `control.v1`: parse, call the administration, answer. No rules in here.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use prost_types::Timestamp;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracklayer_ids::{MasterKey, Secret, SourceId, WorkspaceId};
use tracklayer_proto::control::v1::control_service_server::ControlService;
use tracklayer_proto::control::v1::{
    self as pb, CreateAdminKeyRequest, CreateAdminKeyResponse, CreateSourceRequest, CreateSourceResponse,
    CreateWorkspaceRequest, CreateWorkspaceResponse, ListConnectionsRequest, ListConnectionsResponse,
    ListSourcesRequest, ListSourcesResponse, ListWorkspacesRequest, ListWorkspacesResponse,
    PutConnectionRequest, PutConnectionResponse, SetPartitionsRequest, SetPartitionsResponse,
    SetSourceRateRequest, SetSourceRateResponse, SetSourceWebhookRequest, SetSourceWebhookResponse,
    WatchConfigRequest, WatchConfigResponse,
};
use tracklayer_rpc::{ServiceToken, require_service_token};

use crate::admin::Admin;
use crate::configuration::{Configuration, Feed, WorkspaceConfiguration};
use crate::connection::{Connection, parse_document};
use crate::error::ControlError;
use crate::metrics::Follower;
use crate::name::{Label, Name};
use crate::scope::Scope;
use crate::source::{
    Channel, NewSource, Source, parse_dedup_ttl, parse_place, parse_rate, parse_user_id_type, parse_write_key,
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
        let presented = tracklayer_rpc::bearer(request.metadata()).map(Secret::new);
        Ok(self.admin.authenticate(presented.as_ref()).await.map_err(status)?.scope)
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
        let scope = self.scope(&request).await?;
        let workspaces = self.admin.list_workspaces(scope).await.map_err(status)?;
        Ok(Response::new(ListWorkspacesResponse {
            workspaces: workspaces.into_iter().map(workspace_message).collect(),
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
        created_at: Some(Timestamp {
            seconds: workspace.created_at.as_second(),
            nanos: workspace.created_at.subsec_nanosecond(),
        }),
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
    })
}

fn snapshot_message(configuration: &Configuration) -> WatchConfigResponse {
    WatchConfigResponse {
        version: configuration.version,
        workspaces: configuration.workspaces.iter().map(workspace_config).collect(),
    }
}

fn workspace_config(of: &WorkspaceConfiguration) -> pb::WorkspaceConfig {
    pb::WorkspaceConfig {
        workspace_id: of.workspace.id.0,
        name: of.workspace.name.clone(),
        partitions: of.workspace.partitions,
        sources: of.sources.iter().map(source_config).collect(),
        connections: of.connections.iter().map(connection_config).collect(),
        value_from: of.workspace.value_from.clone(),
        value_fallback: of.workspace.value_fallback.as_str().to_owned(),
        admin_key_sha256: of.admin_keys.iter().map(|hash| hash.0.to_vec()).collect(),
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
    }
}
