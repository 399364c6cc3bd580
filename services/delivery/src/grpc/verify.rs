//! The verification of a connection, of `delivery.v1`.

use tracklayer_destination::verify::EVENT_NAME;
use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;

use super::{ApiError, DeliveryGrpc};
use crate::verify::{Asked, Found, Outcome};

/// Most characters of what somebody may say.
const MOST: usize = 100;

impl DeliveryGrpc {
    pub(super) async fn verified_connection(
        &self,
        workspace: WorkspaceId,
        request: pb::VerifyConnectionRequest,
    ) -> Result<pb::VerifyConnectionResponse, ApiError> {
        let said = |field: &'static str, text: String| match text.trim() {
            "" => Ok(None),
            text if text.chars().count() > MOST => {
                Err(ApiError::Invalid { field, why: format!("has more than {MOST} characters") })
            }
            text => Ok(Some(text.to_owned())),
        };
        let asked = Asked {
            test_code: said("test_code", request.test_code)?,
            event_name: said("event_name", request.event_name)?.unwrap_or_else(|| EVENT_NAME.to_owned()),
        };
        let connection = self.connections.one(workspace, ConnectionId(request.connection_id));
        let connection = connection.ok_or(ApiError::NoConnection(request.connection_id))?;
        if connection.revision < request.revision {
            let (has, wanted) = (connection.revision, request.revision);
            return Err(ApiError::OlderRevision { has, wanted });
        }
        let destination = connection.destination.as_deref().map_err(|why| ApiError::Broken(why.clone()))?;
        let found = self.verifier.verify(&connection, destination, &asked).await?;
        let checks = found.into_iter().map(proto_check).collect();
        Ok(pb::VerifyConnectionResponse { checks, revision: connection.revision })
    }
}

fn proto_check(found: Found) -> pb::ConnectionCheck {
    let result = match found.told.outcome {
        Outcome::Passed => pb::CheckResult::Passed,
        Outcome::Failed => pb::CheckResult::Failed,
        Outcome::Untold => pb::CheckResult::Untold,
        Outcome::NotMade => pb::CheckResult::NotMade,
    };
    pb::ConnectionCheck {
        check: found.check.to_owned(),
        aspect: found.aspect.as_str().to_owned(),
        result: result.into(),
        looked_at: found.looked_at,
        said: found.told.said,
        advice: found.told.advice,
    }
}
