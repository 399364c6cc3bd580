//! Golden events: frozen with the requests that they gave, so that a release, a changed connection or a changed rule that yields
//! another request for the same input says so before it goes live.
//!
//! A request is a pure function of the event, the connection and a clock; the clock is frozen with the event, an event without an id
//! gets one, and of orders counts what stands beside the event alone: time by itself never is drift. Credentials are masked, so that new
//! ones are none either.
//!
//! Input and request are personal data: sealed at rest, filed under whom they are of, and gone with an erasure, which stands in consent's
//! narrowing log as every narrowing does. An event of nobody is not frozen: it could not be found again for whoever wants to be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracklayer_destination::Destination;
use tracklayer_destination::preview::line::{Given, Subject};
use tracklayer_destination::preview::{ConsentChoice, Run, Terms, within_steps};
use tracklayer_ids::{ConnectionId, MasterKey, SubjectKey, WorkspaceId};
use tracklayer_proto::event::v1::Event;
use tracklayer_rpc::follow::ConfigWatch;

use crate::clients::Clients;
use crate::difference::{Difference, differences};
use crate::follower::{FollowError, Follower, KeptOfPeople};
use crate::narrowing::{NarrowingTail, TailUnreadable};
use crate::preview::MOST_STEPS;
use crate::sealer::Sealer;
use crate::store::StoreError;
use crate::store::filed::{Filed, MOST_SUBJECTS};
use crate::store::golden::{GoldenRow, GoldenStore};
use crate::subjects::{self, Asked, ServiceUnavailable};

/// Most golden events of a connection.
pub const MOST_EVENTS: usize = 50;
/// Most lines of a call, of which a sample may be taken.
pub const MOST_LINES: usize = 1_000;
/// Most bytes of a line: an event is at most half as large as it comes, and more as the journal shows it.
pub const MOST_LINE_BYTES: usize = 128 * 1024;
/// Events of a sample.
const SAMPLE_EVENTS: usize = 20;
/// Of them with one name.
const SAMPLE_OF_A_NAME: usize = 3;
/// Why an event is refused that is nobody's.
const NOBODYS: &str = "has no identifier by which it could be found again for whoever wants to be forgotten: give it an anonymousId or a userId";
/// This release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why golden events were not frozen or compared.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// What was asked.
    #[error("{0}")]
    Invalid(String),
    /// The expressions of the connection take too much work.
    #[error(
        "the connection's expressions take more than {MOST_STEPS} steps over these events: freeze fewer of them"
    )]
    TooMuchWork,
    /// Too much happens to those whose events these are.
    #[error("whose events these are changes faster than it can be asked: try again")]
    Restless,
    /// They could not be sealed.
    #[error("the operating system gives no random numbers")]
    NotSealed,
    /// No configuration yet.
    #[error("there is no configuration yet")]
    NoConfiguration,
    /// Own tables.
    #[error("could not keep or read golden events")]
    Store(#[from] StoreError),
    /// The log.
    #[error("could not apply erasures to golden events")]
    Follow(#[from] FollowError),
    /// The log.
    #[error("could not read whom narrowings name")]
    Narrowing(#[from] TailUnreadable),
    /// Identity.
    #[error("could not ask whose golden events are")]
    Identity(#[from] ServiceUnavailable),
}

/// What is kept of an event, sealed. Personal data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// The line that it came as.
    line: String,
    /// What consent is taken to have decided.
    consent: String,
    /// Its id.
    message_id: String,
    /// Its name at its source.
    name: String,
    /// What a preview says of it: status, requests, refusal, notes.
    answer: String,
}

/// What to freeze.
#[derive(Debug)]
pub struct Asking {
    /// One event each, as `preview` takes them.
    pub lines: Vec<String>,
    /// The clock that their requests are built by.
    pub now: Timestamp,
    /// What consent is taken to have decided: `allow`, `restricted`, `deny` or a JSON object.
    pub consent: String,
    /// Take a sample of those that give a request, rather than all.
    pub is_sample: bool,
}

/// What was frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenEvents {
    /// Events.
    pub frozen: usize,
    /// By name.
    pub names: BTreeMap<String, usize>,
}

/// A golden event beside what it gives now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// From 1.
    pub number: u32,
    /// Its name at its source.
    pub name: String,
    /// Its id.
    pub message_id: String,
    /// When it was frozen.
    pub frozen_at: Timestamp,
    /// With which release.
    pub version: String,
    /// With which change of the connection.
    pub revision: u64,
    /// What is different; nothing: no drift.
    pub differences: Vec<Difference>,
    /// Whether there are more differences than are told.
    pub truncated: bool,
    /// It cannot be opened: it was sealed under another master key.
    pub is_unreadable: bool,
}

/// An event and its answer.
struct Built {
    event: Arc<Event>,
    name: String,
    answer: String,
    gives_request: bool,
}

/// Golden events. Cheap to clone.
#[derive(Clone)]
pub struct Golden {
    /// Own tables.
    pub store: GoldenStore,
    /// Whose events are.
    pub clients: Clients,
    /// The narrowing log.
    pub narrowing: NarrowingTail,
    /// Sources.
    pub config: ConfigWatch,
    /// What is sealed is so under a key of the workspace.
    pub master_key: MasterKey,
}

impl Golden {
    /// Over the service's tables.
    #[must_use]
    pub fn new(store: GoldenStore, clients: Clients, config: ConfigWatch, master_key: MasterKey) -> Self {
        let narrowing = NarrowingTail::new(clients.consent.clone());
        Self { store, clients, narrowing, config, master_key }
    }

    /// Takes away those of somebody who was erased.
    #[must_use]
    pub fn follower(&self) -> Follower<GoldenStore> {
        Follower::new(self.store.clone(), self.narrowing.clone())
    }

    /// Freezes events in the place of all that a connection had.
    ///
    /// # Errors
    /// A line is no event, or of nobody, or there are too many; nothing is frozen then. See [`GoldenError`].
    pub async fn freeze(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        revision: u64,
        destination: &dyn Destination,
        asking: Asking,
    ) -> Result<FrozenEvents, GoldenError> {
        let chosen = chosen(destination, &asking).await?;
        let (reached, owners) = self.owners(workspace, &chosen).await?;
        let sealer = Sealer::of_golden_events(&self.master_key, workspace);
        let mut rows = Vec::new();
        let mut names = BTreeMap::new();
        for ((line, built), owner) in chosen.into_iter().zip(owners) {
            let why = match owner {
                Owner::Known(subject_keys) => Ok(subject_keys),
                Owner::Nobody => Err(NOBODYS),
                Owner::Erased => Err("is of somebody who was erased: nothing of them is kept"),
            };
            let subject_keys = match why {
                Ok(subject_keys) => subject_keys,
                Err(_) if asking.is_sample => continue,
                Err(why) => {
                    let id = &built.event.message_id;
                    return Err(GoldenError::Invalid(format!("event `{id}` {why}")));
                }
            };
            let kept = Kept {
                line,
                consent: asking.consent.clone(),
                message_id: built.event.message_id.clone(),
                name: built.name,
                answer: built.answer,
            };
            *names.entry(kept.name.clone()).or_default() += 1;
            rows.push(GoldenRow {
                number: u32::try_from(rows.len() + 1).unwrap_or(u32::MAX),
                clock: asking.now,
                frozen_at: asking.now,
                version: VERSION.to_owned(),
                revision,
                sealed: sealed(&sealer, &kept)?,
                subject_keys,
            });
        }
        if rows.is_empty() {
            let why = "none of these events gives a request and is of somebody who could be found again: freeze events of a file, or wait \
                       until the connection has sent some";
            return Err(GoldenError::Invalid(why.to_owned()));
        }
        if !self.store.replace(workspace, connection, reached, &rows).await? {
            return Err(GoldenError::Restless);
        }
        Ok(FrozenEvents { frozen: rows.len(), names })
    }

    /// Compares each golden event of a connection with what it gives now.
    ///
    /// # Errors
    /// See [`GoldenError`].
    pub async fn compare(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        destination: &dyn Destination,
    ) -> Result<Vec<Compared>, GoldenError> {
        let compared = self.answered(workspace, connection, destination).await?.into_iter().map(|answered| {
            let Answered { row, kept_and_now } = answered;
            let (name, message_id, found) = match &kept_and_now {
                Some((kept, now)) => (kept.name.clone(), kept.message_id.clone(), drift(&kept.answer, now)),
                None => Default::default(),
            };
            Compared {
                number: row.number,
                name,
                message_id,
                frozen_at: row.frozen_at,
                version: row.version,
                revision: row.revision,
                differences: found.0,
                truncated: found.1,
                is_unreadable: kept_and_now.is_none(),
            }
        });
        Ok(compared.collect())
    }

    /// Takes what the golden events of a connection give now for what they shall give. Answers how many gave something else before. One
    /// that was erased or frozen anew meanwhile is left as it is.
    ///
    /// # Errors
    /// See [`GoldenError`].
    pub async fn accept(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        revision: u64,
        destination: &dyn Destination,
    ) -> Result<u64, GoldenError> {
        let sealer = Sealer::of_golden_events(&self.master_key, workspace);
        let (mut was, mut rows, mut drifted) = (Vec::new(), Vec::new(), 0);
        for Answered { row, kept_and_now } in self.answered(workspace, connection, destination).await? {
            let Some((kept, now)) = kept_and_now else { continue };
            drifted += u64::from(!drift(&kept.answer, &now).0.is_empty());
            let kept = Kept { answer: now, ..kept };
            was.push(row.sealed.clone());
            let sealed = sealed(&sealer, &kept)?;
            rows.push(GoldenRow { sealed, version: VERSION.to_owned(), revision, ..row });
        }
        self.store.freeze_anew(workspace, connection, &was, &rows).await?;
        Ok(drifted)
    }

    /// The golden events of a connection, erasures applied, with what they give now.
    async fn answered(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        destination: &dyn Destination,
    ) -> Result<Vec<Answered>, GoldenError> {
        self.follower().follow(workspace, Timestamp::now()).await?;
        let sealer = Sealer::of_golden_events(&self.master_key, workspace);
        let mut steps = MOST_STEPS;
        let mut answered = Vec::new();
        for row in self.store.of_connection(workspace, connection).await? {
            let kept =
                sealer.open_text(&row.sealed).and_then(|text| serde_json::from_str::<Kept>(&text).ok());
            let kept_and_now = match kept {
                None => None,
                Some(kept) => {
                    let consent = choice(&kept.consent)?;
                    let answer = answer_of(destination, &kept.line, row.clock, &consent, &mut steps)?.1;
                    Some((kept, answer))
                }
            };
            answered.push(Answered { row, kept_and_now });
            // Lanes run beside it.
            tokio::task::yield_now().await;
        }
        Ok(answered)
    }

    /// Whose each event is, and a number that the narrowing log had come to before that was asked.
    async fn owners(
        &self,
        workspace: WorkspaceId,
        chosen: &[(String, Built)],
    ) -> Result<(i64, Vec<Owner>), GoldenError> {
        let snapshot = self.config.snapshot().ok_or(GoldenError::NoConfiguration)?;
        let reached = self.narrowing.read(workspace).await?.newest;
        let asked: Vec<Asked<'_>> =
            chosen.iter().map(|(_, built)| Asked::about(&built.event, workspace, &snapshot)).collect();
        let identifiers: Vec<(&str, &str)> = asked
            .iter()
            .flat_map(|asked| &asked.identifiers)
            .map(|identifier| (identifier.r#type.as_str(), identifier.value.as_str()))
            .collect();
        // Each by itself: events of a file are nobody's evidence of who belongs together.
        let mut found = subjects::who_has(&self.clients, workspace, &identifiers).await?.into_iter();
        let mut owners = Vec::with_capacity(asked.len());
        for asked in &asked {
            let mut keys: BTreeSet<SubjectKey> = BTreeSet::new();
            let mut is_erased = false;
            for identity in found.by_ref().take(asked.identifiers.len()) {
                is_erased |= identity.suppressed;
                keys.extend(identity.subject_keys.iter().filter_map(|key| SubjectKey::from_slice(key)));
            }
            owners.push(match keys.len() {
                // An erasure of before stands in no later entry of the log: it would never be applied.
                _ if is_erased => Owner::Erased,
                // Of more than identity tells of it would not be known when one of them is erased.
                1..=MOST_SUBJECTS => Owner::Known(keys.into_iter().collect()),
                _ => Owner::Nobody,
            });
        }
        Ok((reached, owners))
    }
}

impl KeptOfPeople for GoldenStore {
    const WHAT: &'static str = "golden events";

    fn table(&self) -> Filed {
        self.filed()
    }

    async fn tidy(&self, _: Timestamp) -> Result<(), StoreError> {
        // They stay until they are forgotten by a command, or with their people.
        Ok(())
    }
}

/// Whose an event is.
enum Owner {
    /// Those who are known by these keys.
    Known(Vec<SubjectKey>),
    /// Nobody's, or of too many.
    Nobody,
    /// One of them was erased.
    Erased,
}

/// A golden event, what is kept of it, and what it gives now; none: it cannot be opened.
struct Answered {
    row: GoldenRow,
    kept_and_now: Option<(Kept, String)>,
}

fn sealed(sealer: &Sealer, kept: &Kept) -> Result<String, GoldenError> {
    let text = serde_json::to_string(kept).map_err(|_| GoldenError::NotSealed)?;
    sealer.seal_text(&text).ok_or(GoldenError::NotSealed)
}

fn choice(consent: &str) -> Result<ConsentChoice, GoldenError> {
    ConsentChoice::parse(consent).map_err(|error| GoldenError::Invalid(error.to_string()))
}

/// The lines that are frozen, each with what it gives.
async fn chosen(destination: &dyn Destination, asking: &Asking) -> Result<Vec<(String, Built)>, GoldenError> {
    let most = if asking.is_sample { MOST_LINES } else { MOST_EVENTS };
    if !(1..=most).contains(&asking.lines.len()) {
        let why = format!("there are {} events, allowed are 1 to {most}", asking.lines.len());
        return Err(GoldenError::Invalid(why));
    }
    let consent = choice(&asking.consent)?;
    let mut steps = MOST_STEPS;
    let mut chosen: Vec<(String, Built)> = Vec::new();
    let mut of_name: BTreeMap<String, usize> = BTreeMap::new();
    for (number, line) in (1..).zip(&asking.lines) {
        if chosen.len() >= SAMPLE_EVENTS && asking.is_sample {
            break;
        }
        let line_and_built = with_an_id(line, number).and_then(|line| {
            let built = built(destination, &line, asking.now, &consent, &mut steps)?;
            Ok((line, built))
        });
        tokio::task::yield_now().await;
        match line_and_built {
            Err(GoldenError::Invalid(why)) if !asking.is_sample => {
                return Err(GoldenError::Invalid(format!("line {number} {why}")));
            }
            Err(GoldenError::Invalid(_)) => {}
            Err(error) => return Err(error),
            Ok((line, built)) if asking.is_sample => {
                let of_name = of_name.entry(built.name.clone()).or_default();
                if built.gives_request && *of_name < SAMPLE_OF_A_NAME {
                    *of_name += 1;
                    chosen.push((line, built));
                }
            }
            Ok(line_and_built) => chosen.push(line_and_built),
        }
    }
    Ok(chosen)
}

/// The line with an id for the event if it has none: it would get another one each time. A list of events is none, also one of a single
/// event, which would have to get its id inside.
fn with_an_id(line: &str, number: usize) -> Result<String, GoldenError> {
    if line.len() > MOST_LINE_BYTES {
        return Ok(line.to_owned());
    }
    let mut event = match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(event)) => event,
        Ok(Value::Array(_)) => return Err(GoldenError::Invalid("must be one event".to_owned())),
        _ => return Ok(line.to_owned()),
    };
    let has = |key: &str| event.get(key).is_some_and(|value| !value.is_null());
    if !has("type") && !has("position") && has("events") {
        return Err(GoldenError::Invalid("must be one event".to_owned()));
    }
    // Of the journal's events the ids are the stored ones.
    let is_stored = has("position") && !has("type");
    let is_blank = event.get("messageId").and_then(Value::as_str).is_some_and(|id| id.trim().is_empty());
    if is_stored || (has("messageId") && !is_blank) {
        return Ok(line.to_owned());
    }
    event.insert("messageId".to_owned(), Value::String(format!("golden-{number}")));
    Ok(Value::Object(event).to_string())
}

fn built(
    destination: &dyn Destination,
    line: &str,
    now: Timestamp,
    consent: &ConsentChoice,
    steps: &mut u64,
) -> Result<Built, GoldenError> {
    let (given, answer) = answer_of(destination, line, now, consent, steps)?;
    let event = match given.map(|given| given.subject) {
        Some(Subject::Ready(ready)) => Arc::clone(&ready.deliverable.event),
        Some(Subject::Settled { reason, .. }) => return Err(GoldenError::Invalid(reason)),
        None => return Err(GoldenError::Invalid("must be one event".to_owned())),
    };
    let name = if event.name.is_empty() {
        event.r#type().as_str_name().trim_start_matches("EVENT_TYPE_").to_lowercase()
    } else {
        event.name.clone()
    };
    let gives_request =
        serde_json::from_str::<Value>(&answer).is_ok_and(|answer| answer["status"] == "built");
    Ok(Built { event, name, answer, gives_request })
}

/// The event of a line, if it is exactly one, and what a preview says of it.
fn answer_of(
    destination: &dyn Destination,
    line: &str,
    now: Timestamp,
    consent: &ConsentChoice,
    steps: &mut u64,
) -> Result<(Option<Given>, String), GoldenError> {
    if line.len() > MOST_LINE_BYTES {
        let why = format!("has {} bytes, allowed are {MOST_LINE_BYTES}", line.len());
        return Err(GoldenError::Invalid(why));
    }
    let mut run = Run::new(destination, Terms::at(now, consent.clone()));
    let read = run.read(1, line);
    let given = match read.events.as_slice() {
        [given] => Some(given.clone()),
        _ => None,
    };
    let answers = within_steps(steps, || run.take(read));
    if *steps == 0 {
        return Err(GoldenError::TooMuchWork);
    }
    // A line alone is one answer.
    Ok((given, answers.first().map(tracklayer_destination::preview::Answer::to_json).unwrap_or_default()))
}

/// What is different between two answers, and whether there is more than is told. The same text is the same request to the byte.
fn drift(was: &str, is: &str) -> (Vec<Difference>, bool) {
    if was == is {
        return (Vec::new(), false);
    }
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    let (mut found, truncated) = differences(&parsed(was), &parsed(is));
    if found.is_empty() {
        // Another order of members, or another way to write a number: no other value, but other bytes.
        found.push(Difference { path: "bytes of the request".to_owned(), was: None, is: None });
    }
    (found, truncated)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meta(changes: Value) -> Box<dyn Destination> {
        let mut document = json!({
            "kind": "meta_capi", "mode": "live",
            "settings": { "dataset_id": "1234567890123456", "access_token": "t" },
        });
        document.as_object_mut().unwrap().extend(changes.as_object().cloned().unwrap());
        tracklayer_destination::open(&document, &Default::default()).unwrap()
    }

    fn order(n: usize) -> Value {
        json!({
            "type": "track", "event": "Order Completed", "anonymousId": format!("a-{n}"),
            "properties": { "order_id": "1", "revenue": 5, "currency": "EUR" },
            "context": { "traits": { "email": "a@example.com" } },
        })
    }

    fn asking(lines: Vec<Value>, is_sample: bool) -> Asking {
        Asking {
            lines: lines.iter().map(Value::to_string).collect(),
            now: "2026-11-23T12:00:00Z".parse().unwrap(),
            consent: "allow".to_owned(),
            is_sample,
        }
    }

    #[tokio::test]
    async fn time_alone_and_a_new_credential_are_no_drift() {
        let asking = asking(vec![order(1)], false);
        let frozen = chosen(&*meta(json!({})), &asking).await.unwrap();
        let (line, built) = &frozen[0];
        let answer: Value = serde_json::from_str(&built.answer).unwrap();
        assert_eq!(answer["status"], "built");
        assert_eq!(answer["requests"][0]["body"]["data"][0]["event_time"], 1_795_435_200, "the clock's");
        let again = |destination: Box<dyn Destination>| {
            let mut steps = MOST_STEPS;
            answer_of(&*destination, line, asking.now, &ConsentChoice::Allow, &mut steps).unwrap().1
        };
        assert_eq!(drift(&built.answer, &again(meta(json!({})))), (vec![], false));
        let settings = json!({ "dataset_id": "1234567890123456", "access_token": "another" });
        assert_eq!(drift(&built.answer, &again(meta(json!({ "settings": settings })))), (vec![], false));
        let (found, truncated) =
            drift(&built.answer, &again(meta(json!({ "fields": { "value": "properties.revenue * 2" } }))));
        assert!(!truncated);
        let [value] = &found[..] else { panic!("{found:?}") };
        assert_eq!(value.path, "requests[0].body.data[0].custom_data.value");
        assert_eq!((value.was.as_deref(), value.is.as_deref()), (Some("5"), Some("10")));
    }

    #[tokio::test]
    async fn a_sample_has_a_few_of_each_name_that_give_a_request() {
        let mut lines: Vec<Value> = (0..5).map(order).collect();
        let mut refused = order(6);
        refused["properties"]["currency"] = Value::Null;
        lines.insert(0, refused);
        let mut product = order(7);
        product["event"] = json!("Product Viewed");
        lines.push(product);
        lines.push(json!({ "type": "nothing" }));
        let sample = chosen(&*meta(json!({})), &asking(lines.clone(), true)).await.unwrap();
        let names: Vec<&str> = sample.iter().map(|(_, built)| built.name.as_str()).collect();
        assert_eq!(names, ["Order Completed", "Order Completed", "Order Completed", "Product Viewed"]);
        let whole = chosen(&*meta(json!({})), &asking(lines, false)).await;
        let Err(GoldenError::Invalid(why)) = whole else { panic!("the last line is no event") };
        assert!(why.starts_with("line 8 "), "{why}");
    }

    #[tokio::test]
    async fn what_is_frozen_is_bounded() {
        let lines = (0..=MOST_EVENTS).map(order).collect();
        let too_many = chosen(&*meta(json!({})), &asking(lines, false)).await;
        assert!(matches!(too_many, Err(GoldenError::Invalid(why)) if why.contains("allowed are 1 to 50")));
        let mut long = order(1);
        long["properties"]["note"] = json!("x".repeat(MOST_LINE_BYTES));
        let too_long = chosen(&*meta(json!({})), &asking(vec![long], false)).await;
        assert!(matches!(too_long, Err(GoldenError::Invalid(why)) if why.contains("line 1 has 131")));
        let list = json!([order(1), order(2)]);
        let several = chosen(&*meta(json!({})), &asking(vec![list], false)).await;
        assert!(matches!(several, Err(GoldenError::Invalid(why)) if why == "line 1 must be one event"));
    }

    #[tokio::test]
    async fn an_event_has_the_same_id_each_time_and_a_list_of_one_is_no_event() {
        let lists = [json!([order(1)]), json!({ "now": "2026-11-23T12:00:00Z", "events": [order(1)] })];
        for list in lists {
            let refused = chosen(&*meta(json!({})), &asking(vec![list], false)).await;
            assert!(matches!(refused, Err(GoldenError::Invalid(why)) if why == "line 1 must be one event"));
        }
        let id_of = |id: Option<Value>| {
            let mut event = order(1);
            if let Some(id) = id {
                event["messageId"] = id;
            }
            event["position"] = json!("top of the page");
            let line = with_an_id(&event.to_string(), 3).unwrap();
            serde_json::from_str::<Value>(&line).unwrap()["messageId"].clone()
        };
        for none in [None, Some(Value::Null), Some(json!("")), Some(json!("  "))] {
            assert_eq!(id_of(none.clone()), "golden-3", "{none:?}");
        }
        assert_eq!(id_of(Some(json!("own"))), "own");
    }

    #[test]
    fn the_same_values_in_other_bytes_are_drift() {
        let (found, truncated) = drift(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#);
        let paths: Vec<&str> = found.iter().map(|difference| difference.path.as_str()).collect();
        assert_eq!((paths, truncated), (vec!["bytes of the request"], false));
    }
}
