//! The forecast of a release, of `delivery.v1`.

use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;

use super::{ApiError, DeliveryGrpc, required};
use crate::forecast;
use crate::holds::Hold;
use crate::story::proto_position;
use crate::subjects::proto_time;

impl DeliveryGrpc {
    pub(super) async fn forecast(
        &self,
        workspace: WorkspaceId,
        request: &pb::ForecastReleaseRequest,
    ) -> Result<pb::ForecastReleaseResponse, ApiError> {
        let connection = ConnectionId(request.connection_id);
        let release_at = request.release_at.as_ref().map(|at| {
            let why = || ApiError::Invalid { field: "release_at", why: "is out of range".to_owned() };
            jiff::Timestamp::new(at.seconds, at.nanos).map_err(|_| why())
        });
        let from = request.from.as_ref().map(|from| {
            let place =
                |position| forecast::Place { position, ahead: from.ahead, retries_first: from.retries_first };
            required(from.position).map(place)
        });
        let (release_at, from) = (release_at.transpose()?, from.transpose()?);
        let now = jiff::Timestamp::now();
        let page = self.forecaster.page(workspace, connection, release_at, from, now).await?;
        let waiting = match from {
            None => self.books.counts(workspace).await?.waiting.get(&connection.0).copied().unwrap_or(0),
            Some(_) => 0,
        };
        Ok(proto_forecast(page, waiting))
    }
}

fn proto_forecast(page: forecast::Page, waiting: u64) -> pb::ForecastReleaseResponse {
    let outlook = page.outlook;
    let expiring = |event: forecast::Expiring| pb::ExpiringEvent {
        position: Some(proto_position(event.position)),
        message_id: event.message_id,
        name: event.name,
        event_time: Some(proto_time(event.event_time)),
        code: event.code.to_owned(),
        expires_at: Some(proto_time(event.expires_at)),
        sent_at: Some(proto_time(event.sent_at)),
    };
    pb::ForecastReleaseResponse {
        hold: outlook.hold.as_ref().map(|hold| hold.kind().to_owned()).unwrap_or_default(),
        detail: outlook.hold.as_ref().map(Hold::detail).unwrap_or_default(),
        freeze_begins: outlook.freeze.0.map(proto_time),
        freeze_ends: outlook.freeze.1.map(proto_time),
        release_at: Some(proto_time(outlook.release_at)),
        events_per_second: outlook.pace.unwrap_or(0),
        waiting,
        retrying: page.retrying,
        examined: page.examined,
        expiring: page.expiring,
        events: page.named.into_iter().map(expiring).collect(),
        unexamined: page.unexamined,
        looked_at: page.looked_at,
        last_at: page.last_at.map(proto_time),
        shortest_age_limit_seconds: page
            .shortest_age_limit
            .map_or(0, |limit| limit.as_secs().max(0).cast_unsigned()),
        next: page.next.map(|place| pb::ForecastPlace {
            position: Some(proto_position(place.position)),
            ahead: place.ahead,
            retries_first: place.retries_first,
        }),
    }
}
