//! The journal's part of `delivery.v1`: what it holds, whether it is whole, for whom its days are kept, and giving up what nobody
//! shall read, or can.

use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_journal::inspect::Day;
use tracklayer_proto::delivery::v1 as pb;

use super::{ApiError, DeliveryGrpc, limit_of, required, required_as};
use crate::inspection::Lag;
use crate::kept::{Keeper, KeptDay};
use crate::resolved_events;
use crate::skips::Stage;
use crate::story::{proto_position, shown, shown_unmasked};

impl DeliveryGrpc {
    pub(super) async fn holdings(
        &self,
        workspace: WorkspaceId,
    ) -> Result<pb::InspectJournalResponse, ApiError> {
        let held = self.inspection.holdings(workspace).await?;
        let partitions = held
            .partitions
            .into_iter()
            .map(|(head, resolved)| pb::JournalPartition {
                head: Some(proto_position(head)),
                resolved: Some(proto_position(resolved)),
            })
            .collect();
        let days = held.days.into_iter().map(proto_day).collect();
        let dropped_events = held.dropped_events;
        Ok(pb::InspectJournalResponse { partitions, days, dropped_events })
    }

    pub(super) async fn verified(
        &self,
        workspace: WorkspaceId,
        request: pb::VerifyJournalRequest,
    ) -> Result<pb::VerifyJournalResponse, ApiError> {
        let from = required(request.from)?;
        let checked = self.inspection.check(workspace, from).await?;
        let faults = checked
            .faults
            .into_iter()
            .map(|(at, why)| pb::JournalFault { at: Some(proto_position(at)), why })
            .collect();
        Ok(pb::VerifyJournalResponse {
            blocks: checked.blocks,
            events: checked.events,
            faults,
            next: checked.next.map(proto_position),
        })
    }

    pub(super) async fn lags(&self, workspace: WorkspaceId) -> Result<pb::GetJournalLagResponse, ApiError> {
        let lags = self.inspection.lags(workspace).await?.into_iter().map(proto_lag).collect();
        Ok(pb::GetJournalLagResponse { lags })
    }

    pub(super) async fn read(
        &self,
        workspace: WorkspaceId,
        request: pb::ReadJournalRequest,
    ) -> Result<pb::ReadJournalResponse, ApiError> {
        let from = required(request.from)?;
        let limit = limit_of(request.limit, 20)?;
        if request.resolved {
            let page = resolved_events::page(&self.stories.resolved, workspace, from, limit).await?;
            let events = page
                .into_iter()
                .map(|(position, bytes)| resolved_events::on_the_wire(position, bytes, request.unmasked));
            return Ok(pb::ReadJournalResponse { events: events.collect() });
        }
        let show = if request.unmasked { shown_unmasked } else { shown };
        let events = self
            .inspection
            .events(workspace, from, limit)
            .await?
            .into_iter()
            .map(|(position, event)| pb::JournalEvent {
                position: Some(proto_position(position)),
                source_id: event.as_ref().map_or(0, |event| event.source_id),
                event_json: event.as_ref().map(show).unwrap_or_default().to_string(),
                ..pb::JournalEvent::default()
            })
            .collect();
        Ok(pb::ReadJournalResponse { events })
    }

    pub(super) async fn kept(
        &self,
        workspace: WorkspaceId,
    ) -> Result<pb::GetJournalRetentionResponse, ApiError> {
        let snapshot = self.snapshot()?;
        let kept = self.keeping.kept(workspace, &snapshot).await?;
        let day = |kept: KeptDay| {
            let (kept_for, cursor) = match kept.keeper {
                Keeper::Cursor(lag) => (pb::KeptFor::Cursor, Some(proto_lag(lag))),
                Keeper::OtherWorkspace => (pb::KeptFor::OtherWorkspace, None),
                Keeper::NotOver => (pb::KeptFor::Today, None),
                Keeper::Nobody => (pb::KeptFor::Nobody, None),
            };
            pb::KeptDay { day: Some(proto_day(kept.day)), kept_for: kept_for.into(), cursor }
        };
        let giving_up = kept.asked.into_iter().map(|(duty, until)| pb::LaneGiveUp {
            connection_id: duty.connection.0,
            until: Some(proto_position(until)),
        });
        Ok(pb::GetJournalRetentionResponse {
            days: kept.days.into_iter().map(day).collect(),
            stored_bytes: kept.stored_bytes,
            giving_up: giving_up.collect(),
        })
    }

    pub(super) async fn give_up(
        &self,
        workspace: WorkspaceId,
        request: &pb::GiveUpUnreadRequest,
    ) -> Result<pb::GiveUpUnreadResponse, ApiError> {
        let before = request.before_day.parse().map_err(|_| ApiError::Invalid {
            field: "before_day",
            why: format!("is `{}`, and not a day as in 2026-01-31", request.before_day),
        })?;
        let named: Vec<ConnectionId> = request.connection_ids.iter().map(|id| ConnectionId(*id)).collect();
        let snapshot = self.snapshot()?;
        let unread = self.keeping.give_up(workspace, &snapshot, before, &named, request.confirmed).await?;
        let lanes = unread.into_iter().map(|lane| pb::UnreadLane {
            connection_id: lane.duty.connection.0,
            next: Some(proto_position(lane.next)),
            until: Some(proto_position(lane.until)),
            events: lane.events,
            unresolved: lane.unresolved,
        });
        Ok(pb::GiveUpUnreadResponse { lanes: lanes.collect() })
    }
}

impl DeliveryGrpc {
    pub(super) async fn skip(
        &self,
        workspace: WorkspaceId,
        whose: &str,
        request: &pb::SkipBlockRequest,
    ) -> Result<pb::SkipBlockResponse, ApiError> {
        let at = required_as("at", request.at)?;
        let skip = match request.resolved {
            false => self.skipping.skip(workspace, at, whose, request.confirmed).await?,
            true => self.skipping.skip_resolved(workspace, at, whose, request.confirmed).await?,
        };
        let stage = match skip.stage {
            Stage::Shown => pb::SkipStage::Shown,
            Stage::Asked => pb::SkipStage::Asked,
            Stage::Passed => pb::SkipStage::Passed,
        };
        let sources = skip.sources.into_iter();
        let sources = sources.map(|(source, events)| pb::LostEvents { source_id: source.0, events });
        Ok(pb::SkipBlockResponse {
            first: Some(proto_position(skip.first)),
            events: u64::from(skip.events),
            uncounted: !skip.is_counted,
            sources: sources.collect(),
            why: skip.why,
            stage: stage.into(),
        })
    }
}

fn proto_day(day: Day) -> pb::JournalDay {
    pb::JournalDay { day: day.day, blocks: day.blocks, events: day.events, bytes: day.bytes }
}

fn proto_lag(lag: Lag) -> pb::JournalLag {
    pb::JournalLag {
        connection_id: lag.duty.connection.0,
        next: Some(proto_position(lag.next)),
        events: lag.behind.events,
        seconds: lag.behind.seconds,
    }
}
