//! Replays as they are printed.

use serde_json::{Value, json};
use tracklayer_proto::delivery::v1 as pb;

use super::View;
use crate::cli::Output;
use crate::cli::output::{print_rows, table, time};

/// What a replay has done with one event, in a line.
#[must_use]
pub fn once(connection: &str, once: &pb::ReplayedOnce) -> String {
    let before = format!("{} {}", once.state_before, once.reason_before);
    let ended = match once.state.as_str() {
        "" => "has no end yet".to_owned(),
        state => format!("ended as {state} {}", once.reason),
    };
    format!(
        "{connection}: replay {} took it at {} ({}) and {}",
        once.replay_id,
        time(once.taken_at.as_ref()),
        before.trim(),
        ended.trim()
    )
}

/// The same for programs.
#[must_use]
pub fn once_document(once: &pb::ReplayedOnce) -> Value {
    json!({
        "replay_id": once.replay_id, "state_before": once.state_before, "reason_before": once.reason_before,
        "taken_at": time(once.taken_at.as_ref()), "state": once.state, "reason": once.reason,
        "ended_at": time(once.ended_at.as_ref()),
    })
}

fn origin(replay: &pb::Replay) -> &'static str {
    match replay.selection.as_ref().map(pb::ReplaySelection::origin) {
        Some(pb::ReplayOrigin::DeadLetters) => "dead_letters",
        Some(pb::ReplayOrigin::Journal) => "journal",
        Some(pb::ReplayOrigin::Unspecified) | None => "",
    }
}

fn total(replay: &pb::Replay, state: &str) -> u64 {
    replay.ended.iter().filter(|ended| ended.state == state).map(|ended| ended.count).sum()
}

fn taken(replay: &pb::Replay) -> u64 {
    replay.counts.iter().filter(|count| count.what == "eligible").map(|count| count.events).sum()
}

impl View<'_> {
    pub(super) fn show_replays(&self, replays: &[pb::Replay]) {
        let document = replays.iter().map(|replay| self.document(replay)).collect();
        let rows: Vec<Vec<String>> = replays
            .iter()
            .map(|replay| {
                vec![
                    replay.replay_id.to_string(),
                    self.names.connection(replay.connection_id),
                    origin(replay).to_owned(),
                    replay.state.clone(),
                    taken(replay).to_string(),
                    total(replay, "delivered").to_string(),
                    total(replay, "dead").to_string(),
                    time(replay.asked_at.as_ref()),
                    replay.asked_by.clone(),
                ]
            })
            .collect();
        let head = ["replay", "connection", "from", "state", "taken", "delivered", "dead", "asked at", "by"];
        print_rows(self.access.output, &document, &head, &rows);
    }

    pub(super) fn show_replay(&self, replay: &pb::Replay) {
        if self.access.output == Output::Json {
            println!("{:#}", self.document(replay));
            return;
        }
        println!(
            "replay {} of {} from {}: {}, {} of {} looked at; asked for by {} at {}",
            replay.replay_id,
            self.names.connection(replay.connection_id),
            origin(replay),
            replay.state,
            replay.walked,
            replay.positions,
            replay.asked_by,
            time(replay.asked_at.as_ref()),
        );
        if !replay.cancelled_by.is_empty() {
            println!("cancelled by {} at {}", replay.cancelled_by, time(replay.cancelled_at.as_ref()));
        }
        if !replay.waits_for.is_empty() {
            println!("it waits: {}", replay.waits_for);
        }
        let found = replay
            .counts
            .iter()
            .map(|count| vec![count.what.clone(), count.reason.clone(), count.events.to_string()]);
        let found: Vec<Vec<String>> = found.collect();
        if !found.is_empty() {
            print!("\n{}", table(&["found", "reason", "events"], &found));
        }
        let ended = replay
            .ended
            .iter()
            .map(|ended| vec![ended.state.clone(), ended.reason.clone(), ended.count.to_string()]);
        let open = (replay.open > 0)
            .then(|| vec!["held".to_owned(), "no end yet".to_owned(), replay.open.to_string()]);
        let ended: Vec<Vec<String>> = ended.chain(open).collect();
        if !ended.is_empty() {
            print!("\n{}", table(&["became", "reason", "events"], &ended));
        }
    }

    fn document(&self, replay: &pb::Replay) -> Value {
        let selection = replay.selection.clone().unwrap_or_default();
        let counts: Vec<Value> = replay
            .counts
            .iter()
            .map(|count| json!({ "what": count.what, "reason": count.reason, "events": count.events }))
            .collect();
        let ended: Vec<Value> = replay
            .ended
            .iter()
            .map(|ended| json!({ "state": ended.state, "reason": ended.reason, "events": ended.count }))
            .collect();
        json!({
            "replay_id": replay.replay_id, "connection_id": replay.connection_id,
            "connection": self.names.connection(replay.connection_id), "state": replay.state,
            "selection": {
                "origin": origin(replay), "codes": selection.codes, "event_names": selection.event_names,
                "message_ids": selection.message_ids, "received_from": time(selection.received_from.as_ref()),
                "received_to": time(selection.received_to.as_ref()), "delivered_too": selection.delivered_too,
                "past_dedup_window": selection.past_dedup_window, "before_start": selection.before_start,
            },
            "asked_by": replay.asked_by, "asked_at": time(replay.asked_at.as_ref()),
            "cancelled_by": replay.cancelled_by, "cancelled_at": time(replay.cancelled_at.as_ref()),
            "ended_at": time(replay.ended_at.as_ref()), "found": counts, "ended": ended, "open": replay.open,
            "walked": replay.walked, "positions": replay.positions, "waits_for": replay.waits_for,
        })
    }
}
