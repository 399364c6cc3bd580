//! Golden events, of `delivery.v1`.

use std::sync::Arc;

use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;

use super::{ApiError, DeliveryGrpc};
use crate::connections::OpenConnection;
use crate::golden::{Asking, Compared, GoldenError, VERSION};
use crate::subjects::proto_time;

impl DeliveryGrpc {
    fn connection_called(&self, workspace: WorkspaceId, id: i64) -> Result<Arc<OpenConnection>, ApiError> {
        self.connections.one(workspace, ConnectionId(id)).ok_or(ApiError::NoConnection(id))
    }

    pub(super) async fn freeze(
        &self,
        workspace: WorkspaceId,
        request: pb::FreezeGoldenRequest,
    ) -> Result<pb::FreezeGoldenResponse, ApiError> {
        let connection = self.connection_called(workspace, request.connection_id)?;
        let destination = connection.destination.as_deref().map_err(|why| ApiError::Broken(why.clone()))?;
        let now = request.now.map(|at| {
            let why = || ApiError::Invalid { field: "now", why: "is out of range".to_owned() };
            jiff::Timestamp::new(at.seconds, at.nanos).map_err(|_| why())
        });
        let asking = Asking {
            lines: request.lines,
            // To the microsecond, as it is kept.
            now: to_microseconds(now.transpose()?.unwrap_or_else(jiff::Timestamp::now)),
            consent: request.consent,
            is_sample: request.sample,
        };
        let (id, revision) = (connection.id, connection.revision);
        let frozen = self.golden.freeze(workspace, id, revision, destination, asking).await?;
        let count = |events: usize| u32::try_from(events).unwrap_or(u32::MAX);
        let name = |(name, events)| pb::GoldenName { name, events: count(events) };
        Ok(pb::FreezeGoldenResponse {
            frozen: count(frozen.frozen),
            names: frozen.names.into_iter().map(name).collect(),
        })
    }

    pub(super) async fn drift(
        &self,
        workspace: WorkspaceId,
        connection_id: i64,
    ) -> Result<pb::ReportDriftResponse, ApiError> {
        let connection = self.connection_called(workspace, connection_id)?;
        let destination = connection.destination.as_deref().map_err(|why| ApiError::Broken(why.clone()))?;
        let compared = self.golden.compare(workspace, connection.id, destination).await?;
        let has_drift = |event: &&Compared| event.is_unreadable || !event.differences.is_empty();
        let drifted = u32::try_from(compared.iter().filter(has_drift).count()).unwrap_or(u32::MAX);
        Ok(pb::ReportDriftResponse {
            events: compared.into_iter().map(proto_event).collect(),
            drifted,
            version: VERSION.to_owned(),
            revision: connection.revision,
        })
    }

    pub(super) async fn accept(
        &self,
        workspace: WorkspaceId,
        connection_id: i64,
    ) -> Result<pb::AcceptDriftResponse, ApiError> {
        let connection = self.connection_called(workspace, connection_id)?;
        let destination = connection.destination.as_deref().map_err(|why| ApiError::Broken(why.clone()))?;
        let (id, revision) = (connection.id, connection.revision);
        let accepted = self.golden.accept(workspace, id, revision, destination).await?;
        Ok(pb::AcceptDriftResponse { accepted })
    }

    pub(super) async fn forget_golden_of(
        &self,
        workspace: WorkspaceId,
        connection_id: i64,
    ) -> Result<pb::ForgetGoldenResponse, ApiError> {
        let forgotten = self.golden.store.forget(workspace, ConnectionId(connection_id)).await?;
        Ok(pb::ForgetGoldenResponse { forgotten })
    }
}

fn to_microseconds(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

impl From<GoldenError> for ApiError {
    fn from(error: GoldenError) -> Self {
        match error {
            GoldenError::Invalid(why) => Self::Invalid { field: "lines", why },
            GoldenError::TooMuchWork => Self::Invalid { field: "lines", why: error.to_string() },
            GoldenError::Store(error) => Self::Store(error),
            GoldenError::NoConfiguration => Self::NoConfiguration,
            GoldenError::Restless
            | GoldenError::NotSealed
            | GoldenError::Follow(_)
            | GoldenError::Narrowing(_)
            | GoldenError::Identity(_) => Self::Golden(Box::new(error)),
        }
    }
}

fn proto_event(compared: Compared) -> pb::GoldenEvent {
    let differences = compared.differences.into_iter().map(|difference| pb::DriftedField {
        path: difference.path,
        was: difference.was,
        is: difference.is,
    });
    pb::GoldenEvent {
        number: compared.number,
        name: compared.name,
        message_id: compared.message_id,
        frozen_at: Some(proto_time(compared.frozen_at)),
        version: compared.version,
        revision: compared.revision,
        differences: differences.collect(),
        truncated: compared.truncated,
        unreadable: compared.is_unreadable,
    }
}
