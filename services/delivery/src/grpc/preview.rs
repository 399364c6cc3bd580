//! The previews of `delivery.v1`.

use tracklayer_destination::WorkspaceDefaults;
use tracklayer_destination::preview::ConsentChoice;
use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;

use super::{ApiError, DeliveryGrpc};
use crate::connections::defaults_of;
use crate::preview::{self, PreviewError};

impl DeliveryGrpc {
    pub(super) async fn previewed(&self, request: pb::PreviewRequest) -> Result<Vec<String>, ApiError> {
        let now = request.now.and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok());
        let consent = Some(request.consent.trim()).filter(|consent| !consent.is_empty());
        let consent = consent.map(ConsentChoice::parse).transpose();
        let asked = preview::Asked {
            lines: request.lines,
            now: now.unwrap_or_else(jiff::Timestamp::now),
            consent: consent
                .map_err(|error| ApiError::Invalid { field: "consent", why: error.to_string() })?,
            batched: request.batched,
        };
        let workspace = WorkspaceId(request.workspace_id);
        if request.connection_id != 0 {
            let connection = self.connections.one(workspace, ConnectionId(request.connection_id));
            let connection = connection.ok_or(ApiError::NoConnection(request.connection_id))?;
            let destination =
                connection.destination.as_deref().map_err(|why| ApiError::Broken(why.clone()))?;
            let known = (&self.orders, &self.master_key);
            let answers = preview::of_connection(workspace, &connection, destination, known, &asked).await;
            return answers.map_err(not_previewed);
        }
        let defaults = match workspace.0 {
            0 => WorkspaceDefaults::default(),
            id => {
                let snapshot = self.snapshot()?;
                defaults_of(snapshot.workspaces.get(&workspace).ok_or(ApiError::NoWorkspace(id))?)
            }
        };
        preview::of_document(&request.connection_json, &defaults, &asked).await.map_err(not_previewed)
    }
}

fn not_previewed(error: PreviewError) -> ApiError {
    match error {
        PreviewError::Document(why) => ApiError::Invalid { field: "connection_json", why },
        PreviewError::TooManyEvents | PreviewError::TooMuchWork => {
            ApiError::Invalid { field: "lines", why: error.to_string() }
        }
        PreviewError::Store(error) => error.into(),
    }
}
