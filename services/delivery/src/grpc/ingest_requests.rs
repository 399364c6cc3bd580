//! Requests that a platform judges later, of `delivery.v1`.

use tracklayer_ids::WorkspaceId;
use tracklayer_proto::delivery::v1 as pb;

use super::{ApiError, DeliveryGrpc, limit_of};
use crate::store::ingest_requests::{ListedRequest, Reasons, StatusCount};
use crate::subjects::proto_time;

impl DeliveryGrpc {
    pub(super) async fn listed_requests(
        &self,
        workspace: WorkspaceId,
        request: &pb::ListIngestRequestsRequest,
    ) -> Result<pb::ListIngestRequestsResponse, ApiError> {
        let most = i64::try_from(limit_of(request.limit, 100)?).unwrap_or(i64::MAX);
        let connection = request.connection_id;
        let counts = self.ingest_requests.counts(workspace, connection).await?;
        let listed = self.ingest_requests.list(workspace, connection, request.troubled, most).await?;
        Ok(pb::ListIngestRequestsResponse {
            counts: counts.into_iter().map(proto_count).collect(),
            requests: listed.into_iter().map(proto_request).collect(),
        })
    }
}

fn proto_count(count: StatusCount) -> pb::IngestStatusCount {
    pb::IngestStatusCount {
        status: count.status,
        requests: count.requests,
        events: count.events,
        failed: count.failed,
    }
}

fn proto_request(listed: ListedRequest) -> pb::IngestRequest {
    pb::IngestRequest {
        request_id: listed.id,
        events: listed.events,
        sent_at: Some(proto_time(listed.sent_at)),
        looks: listed.looks,
        next_look_at: listed.next_look_at.map(proto_time),
        status: listed.told.status,
        failed: listed.told.failed,
        reasons: proto_reasons(listed.told.reasons),
        warnings: proto_reasons(listed.told.warnings),
        detail: listed.told.detail,
        told_at: listed.told_at.map(proto_time),
    }
}

fn proto_reasons(reasons: Reasons) -> Vec<pb::ReasonCount> {
    reasons.into_iter().map(|(reason, events)| pb::ReasonCount { reason, events }).collect()
}
