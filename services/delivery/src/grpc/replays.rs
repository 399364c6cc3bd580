//! Replays on the wire.

use jiff::Timestamp;
use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;

use super::{ApiError, DeliveryGrpc, required};
use crate::ledger::State;
use crate::replay::judge::Judged;
use crate::replay::{Origin, Selection};
use crate::store::replays::{Findings, StoredReplay};
use crate::story::proto_position;
use crate::subjects::proto_time;

/// Most codes, and most names, of a selection.
pub(super) const MAX_WORDS: usize = 100;
/// Most ids of a selection.
pub(super) const MAX_IDS: usize = 1_000;
/// Most replays of a list: each is counted.
const MAX_LISTED: i64 = 100;
/// Most bytes of a word of a selection.
const MAX_WORD_BYTES: usize = 1_024;

impl DeliveryGrpc {
    pub(super) async fn plan(
        &self,
        workspace: WorkspaceId,
        request: pb::PlanReplayRequest,
    ) -> Result<pb::PlanReplayResponse, ApiError> {
        let selection = selection_of(request.selection)?;
        let from = request.from.map(|from| required(Some(from))).transpose()?;
        let connection = ConnectionId(request.connection_id);
        let page = self.planner.page(workspace, connection, &selection, from, Timestamp::now()).await?;
        let counts = page.counts.into_iter().map(|((what, reason), events)| pb::ReplayCount {
            what: what.as_str().to_owned(),
            reason,
            events,
        });
        Ok(pb::PlanReplayResponse {
            counts: counts.collect(),
            left_out: page.left_out.into_iter().map(left_out).collect(),
            next: page.next.map(proto_position),
            walked: page.walked,
            positions: page.positions,
            dedup_window_seconds: page.dedup_window.map_or(0, |window| window.as_secs()),
            older_than_window: page.older_than_window,
            before_start: page.before_start,
        })
    }

    pub(super) async fn start(
        &self,
        workspace: WorkspaceId,
        request: pb::StartReplayRequest,
        asked_by: &str,
    ) -> Result<pb::Replay, ApiError> {
        let selection = selection_of(request.selection)?;
        let connection = ConnectionId(request.connection_id);
        let replay = self.planner.start(workspace, connection, &selection, asked_by).await?;
        self.told(workspace, replay, Findings::default()).await
    }

    pub(super) async fn replay(&self, workspace: WorkspaceId, id: i64) -> Result<pb::Replay, ApiError> {
        let replay = self.planner.store.get(workspace, id).await?.ok_or(ApiError::NoReplay(id))?;
        let findings = self.planner.store.findings(workspace, id).await?;
        self.told(workspace, replay, findings).await
    }

    pub(super) async fn replays(
        &self,
        workspace: WorkspaceId,
        request: &pb::ListReplaysRequest,
    ) -> Result<Vec<pb::Replay>, ApiError> {
        let limit = i64::from(if request.limit == 0 { 20 } else { request.limit });
        if limit > MAX_LISTED {
            return Err(invalid("limit", &format!("is {limit}, allowed are 1 to {MAX_LISTED}")));
        }
        let connection = ConnectionId(request.connection_id);
        let mut replays = Vec::new();
        for replay in self.planner.store.list(workspace, connection, limit).await? {
            let findings = self.planner.store.findings(workspace, replay.id).await?;
            replays.push(self.told(workspace, replay, findings).await?);
        }
        Ok(replays)
    }

    pub(super) async fn cancel(
        &self,
        workspace: WorkspaceId,
        id: i64,
        by: &str,
    ) -> Result<pb::Replay, ApiError> {
        self.planner.store.cancel(workspace, id, by).await?;
        tracing::info!(workspace = workspace.0, replay = id, by, "a replay was cancelled");
        self.replay(workspace, id).await
    }

    async fn told(
        &self,
        workspace: WorkspaceId,
        replay: StoredReplay,
        findings: Findings,
    ) -> Result<pb::Replay, ApiError> {
        let state = state_of(&replay, &findings);
        let is_over = matches!(state, "done" | "cancelled") && findings.open == 0;
        let last = replay.lanes_done_at.max(findings.last_ended_at);
        let last = last.max(replay.cancelled.as_ref().map(|(_, at)| *at));
        let waits_for = match state {
            "done" => String::new(),
            "cancelled" if findings.open == 0 => String::new(),
            _ => {
                let keeps = self.what_keeps(workspace, replay.connection).await?;
                let failure = replay
                    .failure
                    .map(|why| format!("a page could not be read or judged, and is tried again: {why}"));
                if keeps.is_empty() { failure.unwrap_or_default() } else { keeps }
            }
        };
        let counts = findings.counts.into_iter();
        let ended = findings.ended.into_iter().map(|((state, reason), count)| pb::StateCount {
            state: State::from_number(state).map_or("", State::as_str).to_owned(),
            reason,
            count,
        });
        Ok(pb::Replay {
            replay_id: replay.id,
            connection_id: replay.connection.0,
            selection: Some(proto_selection(replay.selection)),
            state: state.to_owned(),
            asked_by: replay.asked_by,
            asked_at: Some(proto_time(replay.asked_at)),
            cancelled_by: replay.cancelled.as_ref().map(|(by, _)| by.clone()).unwrap_or_default(),
            cancelled_at: replay.cancelled.as_ref().map(|(_, at)| proto_time(*at)),
            ended_at: is_over.then(|| proto_time(last.unwrap_or(replay.asked_at))),
            counts: counts.map(|((what, reason), events)| pb::ReplayCount { what, reason, events }).collect(),
            ended: ended.collect(),
            open: findings.open,
            walked: replay.walked.0,
            positions: replay.walked.1.max(replay.walked.0),
            waits_for,
        })
    }

    /// What keeps a connection from sending: what the configuration says, else what the first of its lanes has met.
    async fn what_keeps(&self, workspace: WorkspaceId, connection: ConnectionId) -> Result<String, ApiError> {
        use tracklayer_destination::Mode;
        let Some(open) = self.connections.one(workspace, connection) else {
            return Ok("the connection is gone: cancel the replay".to_owned());
        };
        let mut lanes = self.lanes.holds(workspace).await?.into_iter();
        let of_a_lane = lanes.find(|(held, _)| *held == connection.0).map(|(_, why)| why);
        let hold = self.holds.of(workspace, connection).at(Timestamp::now());
        Ok(match (&open.destination, hold) {
            (Err(why), _) => format!("the connection cannot be opened: {why}"),
            (Ok(destination), _) if destination.mode() != Mode::Live => {
                "the connection is not live: make it live, or cancel the replay".to_owned()
            }
            (Ok(_), Some(hold)) => format!("{}: {}", hold.kind(), hold.detail()),
            (Ok(_), None) => of_a_lane.unwrap_or_default(),
        })
    }
}

fn state_of(replay: &StoredReplay, findings: &Findings) -> &'static str {
    match (&replay.cancelled, replay.open_lanes, findings.open) {
        (Some(_), _, _) => "cancelled",
        (None, 0, 0) => "done",
        (None, 0, _) => "finishing",
        (None, _, _) => "running",
    }
}

fn left_out(judged: Judged) -> pb::ReplayLeftOut {
    let entry = &judged.found.entry;
    let event = entry.deliverable.as_ref();
    pb::ReplayLeftOut {
        position: Some(proto_position(entry.position)),
        message_id: entry.message_id.clone(),
        name: event.map(|event| event.event.name.clone()).unwrap_or_default(),
        event_time: event.map(|event| proto_time(event.time())),
        what: judged.what.as_str().to_owned(),
        reason: judged.reason,
    }
}

fn invalid(field: &'static str, why: &str) -> ApiError {
    ApiError::Invalid { field, why: why.to_owned() }
}

fn selection_of(selection: Option<pb::ReplaySelection>) -> Result<Selection, ApiError> {
    let selection = selection.ok_or_else(|| invalid("selection", "is missing"))?;
    let origin = match selection.origin() {
        pb::ReplayOrigin::Unspecified => {
            return Err(invalid("selection.origin", "is missing: dead letters, or the journal"));
        }
        pb::ReplayOrigin::DeadLetters => Origin::DeadLetters,
        pb::ReplayOrigin::Journal => Origin::Journal,
    };
    let lists = [
        ("selection.codes", &selection.codes, MAX_WORDS),
        ("selection.event_names", &selection.event_names, MAX_WORDS),
        ("selection.message_ids", &selection.message_ids, MAX_IDS),
    ];
    for (field, words, most) in lists {
        check_words(field, words, most)?;
    }
    if origin == Origin::Journal && !selection.codes.is_empty() {
        return Err(invalid("selection.codes", "are of dead letters: the journal has none"));
    }
    if origin == Origin::DeadLetters && selection.before_start {
        return Err(invalid("selection.before_start", "is about the journal: no dead letter is that old"));
    }
    let received_from = time_of("selection.received_from", selection.received_from)?;
    let received_to = time_of("selection.received_to", selection.received_to)?;
    if received_from.zip(received_to).is_some_and(|(from, to)| from >= to) {
        return Err(invalid("selection.received_to", "is not after `received_from`"));
    }
    Ok(Selection {
        origin,
        codes: selection.codes,
        event_names: selection.event_names,
        message_ids: selection.message_ids,
        received_from,
        received_to,
        delivered_too: selection.delivered_too,
        past_dedup_window: selection.past_dedup_window,
        before_start: selection.before_start,
    })
}

/// Words of a selection, as a statement can take them.
pub(super) fn check_words(field: &'static str, words: &[String], most: usize) -> Result<(), ApiError> {
    if words.len() > most {
        return Err(invalid(field, &format!("has {} entries, allowed are {most}", words.len())));
    }
    let is_usable = |word: &String| !word.is_empty() && word.len() <= MAX_WORD_BYTES && !word.contains('\0');
    if !words.iter().all(is_usable) {
        return Err(invalid(field, "has an entry that is empty, too long or holds a NUL"));
    }
    Ok(())
}

pub(super) fn time_of(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, ApiError> {
    time.map(|at| Timestamp::new(at.seconds, at.nanos).map_err(|_| invalid(field, "is out of range")))
        .transpose()
}

fn proto_selection(selection: Selection) -> pb::ReplaySelection {
    let origin = match selection.origin {
        Origin::DeadLetters => pb::ReplayOrigin::DeadLetters,
        Origin::Journal => pb::ReplayOrigin::Journal,
    };
    pb::ReplaySelection {
        origin: origin.into(),
        codes: selection.codes,
        event_names: selection.event_names,
        message_ids: selection.message_ids,
        received_from: selection.received_from.map(proto_time),
        received_to: selection.received_to.map(proto_time),
        delivered_too: selection.delivered_too,
        past_dedup_window: selection.past_dedup_window,
        before_start: selection.before_start,
    }
}
