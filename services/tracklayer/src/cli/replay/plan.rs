//! A plan: all pages of what a replay would do.

use std::collections::BTreeMap;

use anyhow::bail;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracklayer_proto::delivery::v1 as pb;

use super::View;
use super::progress::Progress;
use crate::cli::names::Names;
use crate::cli::output::{table, time};
use crate::cli::{Access, Output};

/// Most events that are named on a terminal.
const NAMED: usize = 50;
/// Most events that are kept to be named.
const KEPT: usize = 10_000;
/// The reason of a change of an order that was not sent.
const ORDER_UNKNOWN: &str = "order_unknown";
/// What that means.
const WAITS: &str = "waits for its order, which was not sent yet, for 24 hours";
/// What a replay does with an event, and what that means.
const MEANINGS: [(&str, &str); 11] = [
    ("eligible", "will be sent"),
    ("already_delivered", "the platform has it"),
    ("in_progress", "is on its way anyhow"),
    ("expired", "too old for the platform"),
    ("consent_withdrawn", "consent denies it by now"),
    ("erased", "was erased, or whose it is"),
    ("past_dedup_window", "would be counted twice"),
    ("filtered", "not for this connection, or a duplicate"),
    ("unreadable", "its bytes cannot be read"),
    ("not_retained", "the journal has given it back (at most so many)"),
    ("refused", "still cannot be sent"),
];

/// What all pages say together.
#[derive(Debug, Default)]
pub(super) struct Plan {
    connection_id: i64,
    counts: BTreeMap<(String, String), u64>,
    left_out: Vec<pb::ReplayLeftOut>,
    dedup_window_seconds: u64,
    older_than_window: u64,
    before_start: u64,
}

impl Plan {
    pub(super) async fn read(
        access: &Access,
        workspace_id: i64,
        connection_id: i64,
        selection: pb::ReplaySelection,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut delivery = access.delivery()?;
        let mut plan = Self { connection_id, ..Self::default() };
        let mut progress: Option<Progress> = None;
        let (mut from, mut walked) = (None, 0);
        loop {
            let selection = Some(selection.clone());
            let request = pb::PlanReplayRequest { workspace_id, connection_id, selection, from };
            let page = tokio::select! {
                page = delivery.plan_replay(request) => page?.into_inner(),
                () = stop.cancelled() => bail!("interrupted: nothing was started"),
            };
            walked += page.walked;
            let bar = progress.get_or_insert_with(|| Progress::new("planning", page.positions));
            bar.at(walked, "");
            for count in page.counts {
                *plan.counts.entry((count.what, count.reason)).or_default() += count.events;
            }
            plan.left_out.extend(page.left_out);
            plan.left_out.truncate(KEPT);
            plan.dedup_window_seconds = page.dedup_window_seconds;
            plan.older_than_window += page.older_than_window;
            plan.before_start += page.before_start;
            from = page.next;
            if from.is_none() {
                bar.ends();
                return Ok(plan);
            }
        }
    }

    fn all(&self, what: &str) -> u64 {
        self.counts.iter().filter(|((of, _), _)| of == what).map(|(_, events)| events).sum()
    }

    /// Events that will be sent.
    pub(super) fn eligible(&self) -> u64 {
        self.all("eligible")
    }

    /// Past its window a platform counts again what it has.
    pub(super) fn refuse_if_all_is_past_the_window(&self) -> anyhow::Result<()> {
        let past = self.all("past_dedup_window");
        if past == 0 || self.eligible() > 0 {
            return Ok(());
        }
        bail!(
            "refused: the platform has these {past} events, or may have them, and {}; --force-past-dedup-window sends them all the same",
            self.window()
        )
    }

    fn window(&self) -> String {
        match self.dedup_window_seconds {
            0 => "recognises no repetition: it would count them twice".to_owned(),
            seconds => format!(
                "recognises a repetition for {} hours only: it would count them twice",
                seconds / 3_600
            ),
        }
    }

    pub(super) fn document(&self, names: &Names) -> Value {
        let all: serde_json::Map<String, Value> =
            MEANINGS.iter().map(|(what, _)| ((*what).to_owned(), json!(self.all(what)))).collect();
        let reasons: Vec<Value> = self
            .counts
            .iter()
            .map(|((what, reason), events)| json!({ "what": what, "reason": reason, "events": events }))
            .collect();
        let left_out: Vec<Value> = self
            .left_out
            .iter()
            .map(|event| {
                json!({
                    "message_id": event.message_id, "name": event.name, "what": event.what, "reason": event.reason,
                    "event_time": time(event.event_time.as_ref()),
                })
            })
            .collect();
        json!({
            "connection": names.connection(self.connection_id), "connection_id": self.connection_id,
            "counts": all, "reasons": reasons, "left_out": left_out,
            "dedup_window_seconds": self.dedup_window_seconds, "older_than_window": self.older_than_window,
            "before_start": self.before_start,
        })
    }

    fn show(&self) {
        let mut rows = Vec::new();
        for (what, meaning) in MEANINGS {
            let of: Vec<_> = self.counts.iter().filter(|((of, _), _)| of == what).collect();
            if of.is_empty()
                && ["eligible", "already_delivered", "expired", "consent_withdrawn"].contains(&what)
            {
                rows.push(vec![what.to_owned(), String::new(), "0".to_owned(), meaning.to_owned()]);
            }
            rows.extend(of.iter().map(|((_, reason), events)| {
                let meaning = if reason == ORDER_UNKNOWN { WAITS } else { meaning };
                vec![what.to_owned(), reason.clone(), events.to_string(), meaning.to_owned()]
            }));
        }
        print!("{}", table(&["what", "reason", "events", ""], &rows));
        let past = self.all("past_dedup_window");
        if past > 0 {
            println!(
                "\n{past} events are left out: the platform has them, or may have them, and {}; --force-past-dedup-window sends \
                 them all the same",
                self.window()
            );
        }
        if self.older_than_window > 0 {
            println!(
                "\n{} of the events to be sent are older than the window in which the platform recognises an id: where a browser \
                 pixel has sent them, too, they are counted twice",
                self.older_than_window
            );
        }
        if self.before_start > 0 {
            println!(
                "\n{} events that are kept were accepted before the connection began: --before-start takes them in",
                self.before_start
            );
        }
        self.name_left_out();
    }

    fn name_left_out(&self) {
        let is_told =
            |event: &&pb::ReplayLeftOut| event.what != "filtered" && event.what != "already_delivered";
        let rows: Vec<Vec<String>> = self
            .left_out
            .iter()
            .filter(is_told)
            .take(NAMED)
            .map(|event| {
                let happened = time(event.event_time.as_ref());
                let (id, name) = (event.message_id.clone(), event.name.clone());
                vec![id, name, happened, event.what.clone(), event.reason.clone()]
            })
            .collect();
        if !rows.is_empty() {
            println!("\nleft out:");
            print!("{}", table(&["message_id", "event", "happened", "what", "reason"], &rows));
        }
    }
}

impl View<'_> {
    pub(super) fn show_plan(&self, plan: &Plan) {
        match self.access.output {
            Output::Json => println!("{:#}", plan.document(self.names)),
            Output::Table => plan.show(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(counts: &[(&str, u64)], dedup_window_seconds: u64) -> Plan {
        let counts = counts.iter().map(|(what, events)| (((*what).to_owned(), String::new()), *events));
        Plan { counts: counts.collect(), dedup_window_seconds, ..Plan::default() }
    }

    #[test]
    fn a_replay_past_the_window_is_refused_with_its_reason_unless_something_else_can_be_sent() {
        let told = |plan: &Plan| plan.refuse_if_all_is_past_the_window().unwrap_err().to_string();
        let meta = told(&plan(&[("past_dedup_window", 3)], 48 * 3_600));
        assert!(meta.contains("these 3 events") && meta.contains("for 48 hours only"), "{meta}");
        assert!(meta.contains("--force-past-dedup-window"), "{meta}");
        let ga4 = told(&plan(&[("past_dedup_window", 1)], 0));
        assert!(ga4.contains("recognises no repetition"), "{ga4}");
        let some = plan(&[("past_dedup_window", 1), ("eligible", 1)], 0);
        assert!(some.refuse_if_all_is_past_the_window().is_ok());
        assert!(plan(&[], 0).refuse_if_all_is_past_the_window().is_ok());
    }

    #[test]
    fn counts_of_one_kind_are_added_up_over_their_reasons() {
        let mut plan = plan(&[("eligible", 4)], 0);
        plan.counts.insert(("consent_withdrawn".to_owned(), "gpc".to_owned()), 1);
        plan.counts.insert(("consent_withdrawn".to_owned(), "withdrawn".to_owned()), 2);
        let document = plan.document(&Names::default());
        assert_eq!(document["counts"]["consent_withdrawn"], 3);
        assert_eq!((&document["counts"]["eligible"], &document["counts"]["expired"]), (&json!(4), &json!(0)));
        assert_eq!(document["reasons"].as_array().unwrap().len(), 3);
    }
}
