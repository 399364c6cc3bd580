//! The exact requests that a connection would send for given events: what `tracklayer preview` prints and
//! `delivery.v1.Preview` answers. Pure; the same functions as a lane uses, so it cannot lie.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracklayer_event::commerce::commerce_key;
use tracklayer_event::{ParseContext, RejectCode, Rejection, parse_event};
use tracklayer_proto::event::v1::{ClickIds, Event};

use crate::commerce::decimal_of;
use crate::deliverable::{Consent, Deliverable, OrderState, text_of};
use crate::destination::Destination;
use crate::document::{Kind, SettingsErrors, WorkspaceDefaults};
use crate::note::Note;
use crate::outcome::Item;
use crate::registry::{open, secret_paths};
use crate::request::MASK;

/// What consent is taken to have decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConsentChoice {
    /// Allow.
    #[default]
    Allow,
    /// Restricted, in the event's own place, else the USA.
    Restricted,
    /// Deny.
    Deny,
    /// As stated.
    Stated(Consent),
}

/// A consent choice that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("consent must be allow, restricted, deny or a JSON object: {0}")]
pub struct ConsentChoiceError(String);

impl ConsentChoice {
    /// Reads `allow`, `restricted`, `deny`, or an object: Google's words (`{"ad_user_data":"granted",
    /// "ad_personalization":"denied"}`, empty: nothing is known) or a decision (`{"outcome":"allow_restricted",
    /// "place":"US-CA","denied_purposes":["ad_targeting"]}`). Empty text is allow.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self, ConsentChoiceError> {
        match text.trim() {
            "" | "allow" => return Ok(Self::Allow),
            "restricted" | "allow_restricted" => return Ok(Self::Restricted),
            "deny" => return Ok(Self::Deny),
            _ => {}
        }
        let value: Value = serde_json::from_str(text).map_err(|e| ConsentChoiceError(e.to_string()))?;
        let Some(object) = value.as_object() else {
            return Err(ConsentChoiceError("not an object".to_owned()));
        };
        Ok(Self::Stated(stated(object)))
    }

    fn of(&self, place: &str) -> Consent {
        match self {
            Self::Allow => Consent::Allow,
            Self::Restricted => Consent::Restricted {
                place: if place.is_empty() { "US".to_owned() } else { place.to_owned() },
                denied_purposes: vec!["ad_targeting".to_owned()],
            },
            Self::Deny => Consent::Deny { reason: "policy_denied".to_owned() },
            Self::Stated(consent) => consent.clone(),
        }
    }
}

fn stated(object: &Map<String, Value>) -> Consent {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_lowercase();
    let list = object.get("denied_purposes").and_then(Value::as_array);
    let mut denied: Vec<String> = list.into_iter().flatten().filter_map(text_of).collect();
    let states = ["ad_user_data", "ad_personalization"].map(|key| (key, text(key)));
    let says_something = states.iter().any(|(_, state)| !state.is_empty());
    if says_something {
        // What is not said to be granted, beside something that is said, is denied.
        denied
            .extend(states.iter().filter(|(_, state)| state != "granted").map(|(key, _)| (*key).to_owned()));
    }
    let place =
        object.get("place").or_else(|| object.get("jurisdiction")).and_then(text_of).unwrap_or_default();
    match text("outcome").as_str() {
        "deny" => Consent::Deny { reason: object.get("reason").and_then(text_of).unwrap_or_default() },
        "restricted" | "allow_restricted" => Consent::Restricted { place, denied_purposes: denied },
        _ if !denied.is_empty() => Consent::Restricted { place, denied_purposes: denied },
        "allow" => Consent::Allow,
        _ if says_something => Consent::Allow,
        _ => Consent::AllowUnstated,
    }
}

/// Answers each line: one Segment-spec event (`order_state`, `known_click_ids` and `dedup_by_order_id`, true where its source is
/// so configured, may stand beside its own keys), or an array of events that go out together. An answer is one line of JSON:
/// `{"status","requests":[{"method","url","headers","body"}],"refused":[{"index","code","field","reason"}],
/// "notes":[{"index","kind","field","about","code","reason"}]}`, with `status` one of built, partly_refused, refused, filtered,
/// blocked, invalid. Notes tell what was left out of events, also of refused ones. Secrets are `***`; missing ones are taken as
/// given.
///
/// # Errors
/// The document is not valid.
pub fn preview<'l>(
    document: &Value,
    workspace: &WorkspaceDefaults,
    lines: impl IntoIterator<Item = &'l str>,
    now: Timestamp,
    consent: &ConsentChoice,
) -> Result<Vec<String>, SettingsErrors> {
    let destination = open(&with_masked_secrets(document), workspace)?;
    Ok(lines.into_iter().map(|line| answer(&*destination, line, now, consent).to_string()).collect())
}

/// A preview needs no credentials: where a required one is missing, the mask stands in.
fn with_masked_secrets(document: &Value) -> Value {
    let mut document = document.clone();
    let kind = document.get("kind").and_then(Value::as_str).and_then(Kind::parse);
    let Some(kind) = kind else { return document };
    let required: &[&str] = match kind {
        Kind::GoogleDataManager | Kind::GoogleAds => {
            &["settings.oauth.client_id", "settings.oauth.client_secret", "settings.oauth.refresh_token"]
        }
        Kind::MetaCapi | Kind::TiktokEvents | Kind::Ga4Mp | Kind::Webhook => &secret_paths(kind)[..1],
        Kind::Warehouse => &[],
    };
    for path in required {
        let mut at = &mut document;
        for step in path.split('.') {
            let Value::Object(map) = at else { break };
            let is_last = path.ends_with(&format!(".{step}"));
            at = map.entry(step).or_insert_with(|| if is_last { json!(MASK) } else { json!({}) });
        }
    }
    document
}

#[derive(Default)]
struct Told {
    refused: Vec<Value>,
    notes: Vec<Value>,
    refusals: usize,
    filtered: usize,
    blocked: usize,
    invalid: usize,
}

impl Told {
    fn add(&mut self, index: usize, code: &str, field: Option<&str>, reason: &str) {
        self.refused.push(json!({ "index": index, "code": code, "field": field, "reason": reason }));
    }

    fn note(&mut self, index: usize, notes: &[Note]) {
        self.notes.extend(notes.iter().map(|note| {
            json!({
                "index": index,
                "kind": note.kind.as_str(),
                "field": note.field,
                "about": note.about,
                "code": note.reason.code(),
                "reason": note.reason.text(),
            })
        }));
    }
}

fn answer(destination: &dyn Destination, line: &str, now: Timestamp, consent: &ConsentChoice) -> Value {
    let events = match serde_json::from_str::<Value>(line) {
        Ok(Value::Array(events)) => events,
        Ok(event) => vec![event],
        Err(error) => {
            let why = format!("not JSON: {error}");
            let refused = json!([{ "index": 0, "code": "invalid_json", "field": null, "reason": why }]);
            return json!({ "status": "invalid", "requests": [], "refused": refused, "notes": [] });
        }
    };
    let mut told = Told::default();
    let mut built: Vec<Item> = Vec::new();
    for (index, event) in events.into_iter().enumerate() {
        if let Some(item) = one(destination, index, event, now, consent, &mut told) {
            built.push(item);
        }
    }
    let requests: Vec<Value> = batches(destination, &built)
        .iter()
        .map(|items| destination.assemble(items, Some(&mask())).masked())
        .collect();
    let failed = told.refusals + told.filtered + told.blocked + told.invalid;
    let status = match (built.len(), failed) {
        (_, 0) => "built",
        (1.., _) => "partly_refused",
        (0, _) if told.refusals > 0 => "refused",
        (0, _) if told.invalid > 0 => "invalid",
        (0, _) if told.blocked > 0 => "blocked",
        (0, _) => "filtered",
    };
    json!({ "status": status, "requests": requests, "refused": told.refused, "notes": told.notes })
}

fn mask() -> tracklayer_ids::Secret<String> {
    tracklayer_ids::Secret::new(MASK.to_owned())
}

fn one(
    destination: &dyn Destination,
    index: usize,
    mut event: Value,
    now: Timestamp,
    consent: &ConsentChoice,
    told: &mut Told,
) -> Option<Item> {
    let mut beside = |key: &str| event.as_object_mut().and_then(|map| map.remove(key));
    let order_state = beside("order_state").and_then(|state| order_state_of(&state));
    let known = beside("known_click_ids").map(|ids| click_ids_of(&ids)).unwrap_or_default();
    let by_order = beside("dedup_by_order_id").is_some_and(|by_order| by_order == Value::Bool(true));
    let event = match parse(event, now) {
        Ok(event) => event,
        Err(rejection) => {
            told.invalid += 1;
            told.add(index, rejection.code.as_str(), Some(&rejection.field), &rejection.reason);
            return None;
        }
    };
    let place = event.consent.as_ref().map(|c| c.place.clone()).unwrap_or_default();
    let commerce_key = by_order.then(|| commerce_key(&event)).flatten().unwrap_or_default();
    let event =
        Deliverable::new(event, known, "", consent.of(&place), order_state).with_commerce_key(&commerce_key);
    if let Err(skip) = destination.wants(&event) {
        told.filtered += 1;
        told.add(index, skip.reason.as_str(), None, &skip.detail);
        return None;
    }
    if let Consent::Deny { reason } = &event.decision {
        told.blocked += 1;
        told.add(index, "consent_denied", None, reason);
        return None;
    }
    match destination.build(&event, now) {
        Ok(item) => {
            told.note(index, &item.notes);
            Some(item)
        }
        Err(refusal) => {
            told.refusals += 1;
            told.add(index, refusal.code.as_str(), refusal.field.as_deref(), &refusal.reason);
            told.note(index, &refusal.notes);
            None
        }
    }
}

/// Parses an event as ingest would, except that one without userId and anonymousId passes: what it would look like at the
/// platform is a fair question, and connections refuse it where they must (`no_match_key`, `no_client_id`).
///
/// # Errors
/// Ingest would not take it for another reason.
pub fn parse(mut event: Value, now: Timestamp) -> Result<Event, Rejection> {
    const NOBODY: &str = "nobody";
    let context = ParseContext::preview(now);
    match parse_event(event.to_string().as_bytes(), &context) {
        Err(rejection) if rejection.code == RejectCode::MissingIds && event.is_object() => {
            event["anonymousId"] = json!(NOBODY);
            let mut event = parse_event(event.to_string().as_bytes(), &context)?;
            event.anonymous_id = String::new();
            Ok(event)
        }
        outcome => outcome,
    }
}

/// Items that may share a request, in order: same group, no exclusive key twice, within the limits.
#[must_use]
pub fn batches<'i>(destination: &dyn Destination, items: &'i [Item]) -> Vec<Vec<&'i Item>> {
    let limits = destination.limits();
    // Room for the envelope around the items.
    let most_bytes = limits.max_body_bytes.saturating_sub(1_024);
    let mut batches: Vec<(usize, Vec<&Item>)> = Vec::new();
    for item in items {
        let bytes = item.body.bytes() + 1;
        let fits = |(size, batch): &(usize, Vec<&Item>)| {
            batch.len() < limits.max_events
                && size + bytes <= most_bytes
                && batch.iter().all(|other| {
                    other.group == item.group
                        && (item.exclusive.is_none() || other.exclusive != item.exclusive)
                })
        };
        match batches.last_mut().filter(|batch| fits(batch)) {
            Some((size, batch)) => {
                *size += bytes;
                batch.push(item);
            }
            None => batches.push((bytes, vec![item])),
        }
    }
    batches.into_iter().map(|(_, batch)| batch).collect()
}

/// `{"value","total","currency","at","refunded"}`; `original_value` and `original_timestamp` are understood as well.
fn order_state_of(state: &Value) -> Option<OrderState> {
    let of = |keys: &[&str]| keys.iter().find_map(|key| state.get(*key));
    state.is_object().then(|| OrderState {
        value: of(&["value", "original_value"]).and_then(decimal_of),
        total: of(&["total", "original_total"]).and_then(decimal_of),
        currency: of(&["currency"]).and_then(text_of),
        at: of(&["at", "timestamp", "original_timestamp"])
            .and_then(text_of)
            .and_then(|text| text.parse().ok()),
        refunded: of(&["refunded"]).and_then(decimal_of).unwrap_or_default(),
    })
}

fn click_ids_of(ids: &Value) -> ClickIds {
    let text = |key: &str| ids.get(key).and_then(text_of).unwrap_or_default();
    ClickIds {
        fbclid: text("fbclid"),
        fbc: text("fbc"),
        fbp: text("fbp"),
        gclid: text("gclid"),
        gbraid: text("gbraid"),
        wbraid: text("wbraid"),
        ttclid: text("ttclid"),
        ttp: text("ttp"),
        ga_client_id: text("ga_client_id"),
        ..ClickIds::default()
    }
}
