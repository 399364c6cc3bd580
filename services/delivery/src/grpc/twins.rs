//! The twin audit, of `delivery.v1`.

use tracklayer_ids::WorkspaceId;
use tracklayer_proto::delivery::v1 as pb;

use super::window::{minutes, on_the_wire};
use super::{ApiError, DeliveryGrpc};
use crate::twins::{OfPair, OfSource, TwinAudit};

impl DeliveryGrpc {
    pub(super) async fn twins_of(
        &self,
        workspace: WorkspaceId,
        request: &pb::GetTwinsRequest,
    ) -> Result<pb::GetTwinsResponse, ApiError> {
        let asked = minutes(request.since.as_ref(), request.until.as_ref())?;
        let window = self.twins.window(workspace, asked).await?;
        let audit = TwinAudit::of(&window);
        Ok(pb::GetTwinsResponse {
            sources: audit.sources.iter().map(proto_source).collect(),
            pairs: audit.pairs.iter().map(proto_pair).collect(),
            since: Some(on_the_wire(window.minutes.start)),
            until: Some(on_the_wire(window.minutes.end)),
        })
    }
}

const fn proto_source(source: &OfSource) -> pb::SourceTwins {
    pb::SourceTwins {
        source_id: source.source.0,
        events: source.events,
        first: source.first,
        second: source.second,
        alone: source.alone,
        repeats: source.repeats,
        further: source.further,
    }
}

const fn proto_pair(pair: &OfPair) -> pb::TwinPair {
    pb::TwinPair {
        first_source_id: pair.first.0,
        second_source_id: pair.second.0,
        by_message_id: pair.by_message_id,
        by_order: pair.by_order,
    }
}
