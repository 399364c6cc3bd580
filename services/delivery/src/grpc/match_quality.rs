//! Match quality, of `delivery.v1`.

use std::collections::BTreeSet;

use tracklayer_destination::{Destination, EventQuality, Key};
use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;

use super::window::{minutes, on_the_wire};
use super::{ApiError, DeliveryGrpc};
use crate::store::match_quality::{Reading, ReportedEvent};
use crate::subjects::proto_time;

impl DeliveryGrpc {
    pub(super) async fn quality(
        &self,
        workspace: WorkspaceId,
        request: &pb::GetMatchQualityRequest,
    ) -> Result<pb::GetMatchQualityResponse, ApiError> {
        let asked = minutes(request.since.as_ref(), request.until.as_ref())?;
        let connection = Some(request.connection_id).filter(|id| *id != 0).map(ConnectionId);
        let (events, truncated) = self.quality.report(workspace, connection, asked.start, asked.end).await?;
        let readings = self.quality.readings(workspace).await?;
        let opened = self.connections.of(workspace);
        let destination = |id: ConnectionId| {
            let found = opened.iter().find(|opened| opened.id == id);
            found.and_then(|opened| opened.destination.as_deref().ok())
        };
        let is_asked_for = |reading: &Reading| connection.is_none_or(|id| id == reading.connection);
        Ok(pb::GetMatchQualityResponse {
            events: events
                .into_iter()
                .map(|event| proto_event(&event, destination(event.connection)))
                .collect(),
            readings: readings.into_iter().filter(is_asked_for).map(proto_reading).collect(),
            since: Some(on_the_wire(asked.start)),
            until: Some(on_the_wire(asked.end)),
            truncated,
        })
    }
}

/// With the keys that the platform takes, and those that were counted when the connection was another.
fn proto_event(event: &ReportedEvent, destination: Option<&dyn Destination>) -> pb::EventMatchQuality {
    let mut keys: BTreeSet<Key> =
        destination.map(|destination| destination.match_keys().iter().collect()).unwrap_or_default();
    keys.extend(Key::ALL.into_iter().filter(|key| event.counts.sent[key.number()] > 0));
    keys.extend(event.left_out.keys().map(|(key, _)| *key));
    pb::EventMatchQuality {
        connection_id: event.connection.0,
        event_name: event.event_name.clone(),
        events: event.counts.events,
        keys: keys.into_iter().map(|key| proto_key(event, key)).collect(),
        estimate: destination.and_then(|destination| destination.estimated_quality(&event.counts)),
    }
}

fn proto_key(event: &ReportedEvent, key: Key) -> pb::KeyQuality {
    let of_key = event.left_out.iter().filter(|((left, _), _)| *left == key);
    let mut left_out: Vec<pb::KeyLeftOut> = of_key
        .map(|((_, reason), events)| pb::KeyLeftOut { reason: reason.clone(), events: *events })
        .collect();
    left_out.sort_by(|one, other| other.events.cmp(&one.events).then_with(|| one.reason.cmp(&other.reason)));
    pb::KeyQuality {
        key: key.as_str().to_owned(),
        sent: event.counts.sent[key.number()],
        of_no_use: left_out.iter().map(|left| left.events).sum(),
        left_out,
    }
}

fn proto_reading(reading: Reading) -> pb::PlatformReading {
    pb::PlatformReading {
        connection_id: reading.connection.0,
        asked_at: Some(proto_time(reading.asked_at)),
        read_at: reading.read_at.map(proto_time),
        problem: reading.problem,
        figures: reading.events.into_iter().map(proto_figure).collect(),
    }
}

fn proto_figure(event: EventQuality) -> pb::PlatformFigure {
    let coverage = event.coverage.into_iter().map(|(key, percent)| pb::PlatformCoverage { key, percent });
    pb::PlatformFigure { event_name: event.event_name, score: event.score, coverage: coverage.collect() }
}
