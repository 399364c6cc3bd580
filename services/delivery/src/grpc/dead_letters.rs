//! Closing dead letters, of `delivery.v1`.

use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;

use super::replays::{MAX_IDS, MAX_WORDS, check_words, time_of};
use super::{ApiError, DeliveryGrpc};
use crate::store::dead_letters::Selected;
use crate::subjects::proto_time;

impl DeliveryGrpc {
    pub(super) async fn close_letters(
        &self,
        workspace: WorkspaceId,
        request: pb::CloseDeadLettersRequest,
        asked_by: &str,
    ) -> Result<pb::CloseDeadLettersResponse, ApiError> {
        let confirmed = request.confirmed;
        check_words("codes", &request.codes, MAX_WORDS)?;
        check_words("message_ids", &request.message_ids, MAX_IDS)?;
        let died_before = time_of("died_before", request.died_before)?;
        let connection = ConnectionId(request.connection_id);
        let selected = Selected { connection, codes: request.codes, message_ids: request.message_ids };
        let (mut letters, died_before) = self.letters.count(workspace, &selected, died_before).await?;
        if confirmed {
            letters = self.letters.close(workspace, &selected, died_before, asked_by).await?;
            tracing::info!(
                workspace = workspace.0,
                connection = connection.0,
                letters,
                asked_by,
                "dead letters were closed"
            );
        }
        Ok(pb::CloseDeadLettersResponse { letters, died_before: Some(proto_time(died_before)) })
    }
}
