//! Our requests against those of Segment's own mapping code, for the same events and what each side does unless it is told
//! otherwise. Every place of every request is the same, or a rule of `rules` says why it is not; an event that one side alone
//! sends has its reason, too. A rule is a predicate on the event and on both values, and one that explains nothing any more fails
//! the test as well.

mod compare;
mod events;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use compare::{Difference, Leaves, compare, leaves, place};
use jiff::Timestamp;
use rules::{EventRule, Platform, Rule, Seen, Who};
use serde::Deserialize;
use serde_json::{Value, json};
use tracklayer_destination::WorkspaceDefaults;
use tracklayer_destination::preview::{ConsentChoice, preview};
use tracklayer_tests::clients;

use crate::table;

/// What Segment's code did with one event.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Theirs {
    message_id: String,
    action: String,
    requests: Vec<Request>,
    error: Option<String>,
}

/// One request of either side.
#[derive(Debug, Clone, Deserialize)]
struct Request {
    url: String,
    body: Value,
}

impl Request {
    fn leaves(&self) -> Leaves {
        let mut leaves = leaves(&self.body);
        leaves.insert("(url)".to_owned(), json!(self.url));
        leaves
    }
}

/// What came of one place of one platform's requests.
#[derive(Debug, Default)]
struct Counts {
    equal: usize,
    explained: BTreeMap<(Who, &'static str), usize>,
}

#[derive(Debug, Default)]
struct Told {
    places: BTreeMap<String, Counts>,
    events: BTreeMap<(String, String), usize>,
    used: BTreeSet<&'static str>,
    unexplained: Vec<String>,
}

#[tokio::test]
async fn our_requests_are_segments_or_differ_by_a_rule() {
    let Some(client) = clients::segment_mappings().await else { return };
    let events = events::all();
    let platforms = rules::platforms();
    let subscriptions: BTreeMap<&str, &Value> =
        platforms.iter().map(|p| (p.name, &p.subscriptions)).collect();
    let input = json!({ "events": events, "subscriptions": subscriptions });
    let theirs: BTreeMap<String, Vec<Theirs>> =
        client.run(&[], &input).await.expect("Segment's code answers");

    let mut unexplained = Vec::new();
    for platform in &platforms {
        let mut told = Told::default();
        for event in &events {
            told.add_event(platform, event, &theirs[platform.name]);
        }
        told.print(platform);
        unexplained.extend(told.unexplained.iter().map(|line| format!("{}: {line}", platform.name)));
        unexplained.extend(
            platform
                .reasons()
                .filter(|why| !told.used.contains(why))
                .map(|why| format!("{}: explains nothing any more: {why}", platform.name)),
        );
    }
    let number = unexplained.len();
    assert!(unexplained.is_empty(), "{number} differences have no reason:\n{}", unexplained.join("\n"));
}

impl Told {
    fn add_event(&mut self, platform: &Platform, event: &Value, theirs: &[Theirs]) {
        let (ours, why_not) = our_requests(platform, event);
        let id = event["messageId"].as_str().unwrap();
        let of_event: Vec<&Theirs> = theirs.iter().filter(|theirs| theirs.message_id == id).collect();
        let requests: Vec<(&str, &Request)> = of_event
            .iter()
            .flat_map(|theirs| theirs.requests.iter().map(move |request| (theirs.action.as_str(), request)))
            .collect();
        let error = of_event.iter().find_map(|theirs| theirs.error.as_deref());
        match (ours.as_slice(), requests.as_slice()) {
            ([], []) => self.count_event("neither sends", &why_not.unwrap_or_default()),
            ([ours], [(action, theirs)]) => self.add_request(platform, event, action, ours, theirs),
            (ours, requests) if ours.len() + requests.len() == 1 => {
                let who = if requests.is_empty() { Who::Ours } else { Who::Theirs };
                let why = error.or(why_not.as_deref()).unwrap_or_default();
                match platform.event_rules.iter().find(|rule| rule.who == who && (rule.holds)(event, why)) {
                    Some(EventRule { reason, .. }) => {
                        let side = if who == Who::Ours { "we alone send" } else { "Segment alone sends" };
                        self.used.insert(reason);
                        self.count_event(side, reason);
                    }
                    None => self.unexplained.push(format!("{id}: {who:?} alone sends ({why})")),
                }
            }
            (ours, theirs) => {
                self.unexplained.push(format!("{id}: {} and {} requests", ours.len(), theirs.len()))
            }
        }
    }

    fn add_request(
        &mut self,
        platform: &Platform,
        event: &Value,
        action: &str,
        ours: &Request,
        theirs: &Request,
    ) {
        self.count_event("both send", "compared below");
        let (ours, theirs) = (ours.leaves(), theirs.leaves());
        let (same, different) = compare(&ours, &theirs);
        for path in same {
            self.places.entry(place(&path)).or_default().equal += 1;
        }
        for difference in different {
            let Difference { path, ours: of_us, theirs: of_them } = &difference;
            let place = place(path);
            let seen = Seen {
                event,
                action,
                path,
                ours: of_us.as_ref(),
                theirs: of_them.as_ref(),
                all_ours: &ours,
                all_theirs: &theirs,
            };
            match platform
                .rules
                .iter()
                .find(|rule| rule.places.contains(&place.as_str()) && (rule.holds)(&seen))
            {
                Some(Rule { reason, .. }) => {
                    self.used.insert(reason);
                    let counts = self.places.entry(place).or_default();
                    *counts.explained.entry((seen.who(), reason)).or_default() += 1;
                }
                None => {
                    let id = event["messageId"].as_str().unwrap_or_default();
                    let told =
                        |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
                    self.unexplained.push(format!(
                        "{id}: {path}: ours {}, Segment's {}",
                        told(of_us),
                        told(of_them)
                    ));
                }
            }
        }
    }

    fn count_event(&mut self, side: &str, reason: &str) {
        *self.events.entry((side.to_owned(), reason.to_owned())).or_default() += 1;
    }

    fn print(&self, platform: &Platform) {
        let mut rows = Vec::new();
        for ((side, reason), number) in &self.events {
            rows.push(vec![side.clone(), number.to_string(), reason.clone()]);
        }
        table::print(&format!("{}: events", platform.name), &["", "events", "reason"], &rows);
        let mut rows = Vec::new();
        for (place, counts) in &self.places {
            if counts.equal > 0 {
                rows.push(vec![place.clone(), "equal".to_owned(), counts.equal.to_string(), String::new()]);
            }
            for ((who, reason), number) in &counts.explained {
                rows.push(vec![
                    place.clone(),
                    who.as_str().to_owned(),
                    number.to_string(),
                    (*reason).to_owned(),
                ]);
            }
        }
        table::print(
            &format!("{}: places of the requests", platform.name),
            &["place", "", "requests", "reason"],
            &rows,
        );
    }
}

/// What we would send for an event: the very requests of a lane. Else why we would not.
fn our_requests(platform: &Platform, event: &Value) -> (Vec<Request>, Option<String>) {
    let now: Timestamp = events::NOW.parse().unwrap();
    let mut event = event.clone();
    if let Some(state) = (platform.order_state)(&event) {
        event["order_state"] = state;
    }
    let line = event.to_string();
    let defaults = WorkspaceDefaults::default();
    let told = preview(&platform.document, &defaults, [line.as_str()], now, &ConsentChoice::Allow);
    let answer: Value = serde_json::from_str(&told.unwrap()[0]).unwrap();
    let requests = serde_json::from_value(answer["requests"].clone()).unwrap();
    let why = answer["refused"]
        .get(0)
        .map(|refused| format!("{}: {}", refused["code"].as_str().unwrap_or_default(), refused["reason"]));
    (requests, why)
}
