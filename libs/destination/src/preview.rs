//! The exact requests that a connection would send for given events: what `tracklayer preview` prints and
//! `delivery.v1.Preview` answers. Pure; the same functions as a lane uses ([`crate::plan`]), so it cannot lie.
//!
//! [`line`] reads a line of input, [`run`] takes one line after the other in bounded memory, [`answer`] is what is printed,
//! [`resolved`] an event of the journal as a line.

pub mod answer;
pub mod line;
pub mod resolved;
pub mod run;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracklayer_event::{ParseContext, RejectCode, Rejection, parse_event_text};
use tracklayer_proto::event::v1::{ClickIds, Event};

use crate::commerce::decimal_of;
use crate::deliverable::{Consent, OrderState, text_of};
use crate::destination::Destination;
use crate::document::{Kind, SettingsErrors, WorkspaceDefaults};
use crate::mapping::is_true;
use crate::outcome::Item;
use crate::plan::{Open, requests};
use crate::registry::{open, secret_paths};
use crate::request::MASK;
pub use answer::{Answer, NotSent};
pub use line::{Line, OfConnection};
pub use run::{Orders, Run, Summary, Terms};
pub use tracklayer_expression::within as within_steps;

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
    let mut denied: Vec<String> =
        list.into_iter().flatten().filter_map(text_of).map(Cow::into_owned).collect();
    let states = ["ad_user_data", "ad_personalization"].map(|key| (key, text(key)));
    let says_something = states.iter().any(|(_, state)| !state.is_empty());
    if says_something {
        // What is not said to be granted, beside something that is said, is denied.
        denied
            .extend(states.iter().filter(|(_, state)| state != "granted").map(|(key, _)| (*key).to_owned()));
    }
    let place =
        object.get("place").or_else(|| object.get("jurisdiction")).and_then(text_of).unwrap_or_default();
    let place = place.into_owned();
    match text("outcome").as_str() {
        "deny" => {
            Consent::Deny { reason: object.get("reason").and_then(text_of).unwrap_or_default().into_owned() }
        }
        "restricted" | "allow_restricted" => Consent::Restricted { place, denied_purposes: denied },
        "allow" if denied.is_empty() => Consent::Allow,
        // As a lane takes that answer of the firewall.
        "allow" => Consent::AllowInPart { denied_purposes: denied },
        _ if !denied.is_empty() => Consent::Restricted { place, denied_purposes: denied },
        _ if says_something => Consent::Allow,
        _ => Consent::AllowUnstated,
    }
}

/// Answers each line, alone: see [`line`] for what it may be, and [`answer`] for what an answer is. Changes of orders are built
/// from the `order_state` beside them.
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
    let destination = open_without_credentials(document, workspace)?;
    let mut run = Run::new(&*destination, Terms::at(now, consent.clone()));
    let answers = lines.into_iter().zip(1..).flat_map(|(text, number)| {
        let line = run.read(number, text);
        run.take(line)
    });
    Ok(answers.map(|answer| answer.to_json()).collect())
}

/// Opens a document that may lack its credentials, or have their mask.
///
/// # Errors
/// Everything else that is wrong with it.
pub fn open_without_credentials(
    document: &Value,
    workspace: &WorkspaceDefaults,
) -> Result<Box<dyn Destination>, SettingsErrors> {
    open(&with_masked_secrets(document), workspace)
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
        // A folder needs none.
        Kind::Warehouse
            if document["settings"]["url"].as_str().is_some_and(|url| url.starts_with("s3://")) =>
        {
            &["settings.access_key_id", "settings.secret_access_key"]
        }
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

/// Parses an event as ingest would, except that one without userId and anonymousId passes: what it would look like at the
/// platform is a fair question, and connections refuse it where they must (`no_match_key`, `no_client_id`).
///
/// # Errors
/// Ingest would not take it for another reason.
pub fn parse(event: Value, now: Timestamp) -> Result<Event, Rejection> {
    parse_text(&event.to_string(), now)
}

/// The same of its text, which is kept as it came.
///
/// # Errors
/// Ingest would not take it.
pub fn parse_text(text: &str, now: Timestamp) -> Result<Event, Rejection> {
    const NOBODY: &str = "nobody";
    let context = ParseContext::preview(now);
    match parse_event_text(text, &context) {
        Err(rejection) if rejection.code == RejectCode::MissingIds => {
            let Ok(Value::Object(mut event)) = serde_json::from_str(text) else { return Err(rejection) };
            event.insert("anonymousId".to_owned(), json!(NOBODY));
            let mut event = parse_event_text(&Value::Object(event).to_string(), &context)?;
            event.anonymous_id = String::new();
            Ok(event)
        }
        outcome => outcome,
    }
}

/// Items that may share a request, in order, each of another person's: as [`crate::plan::requests`] puts them.
#[must_use]
pub fn batches<'i>(destination: &dyn Destination, items: &'i [Item]) -> Vec<Vec<&'i Item>> {
    let open = items.iter().zip(0..).map(|(item, index)| Open { index, item, order_key: index as u64 });
    let requests = requests(destination.limits(), open);
    requests.into_iter().map(|members| members.into_iter().map(|index| &items[index]).collect()).collect()
}

/// `{"value","total","currency","at","refunded","all_back","restated","adjusted_at","changed_at","restated_at",
/// "match_key":{"gclid"}}`; `original_value` and `original_timestamp` are understood as well. An empty one is of an order that was not sent.
fn order_state_of(state: &Value) -> Option<OrderState> {
    let of = |keys: &[&str]| keys.iter().find_map(|key| state.get(*key));
    state.is_object().then(|| OrderState {
        value: of(&["value", "original_value"]).and_then(decimal_of),
        total: of(&["total", "original_total"]).and_then(decimal_of),
        currency: of(&["currency"]).and_then(text_of).map(Cow::into_owned),
        at: of(&["at", "timestamp", "original_timestamp"])
            .and_then(text_of)
            .and_then(|text| text.parse().ok()),
        refunded: of(&["refunded"]).and_then(decimal_of).unwrap_or_default(),
        all_back: of(&["all_back"]).is_some_and(is_true),
        restated: of(&["restated"]).is_some_and(is_true),
        adjusted_at: of(&["adjusted_at"]).and_then(text_of).and_then(|text| text.parse().ok()),
        changed_at: of(&["changed_at", "adjusted_at"]).and_then(text_of).and_then(|text| text.parse().ok()),
        restated_at: of(&["restated_at"]).and_then(text_of).and_then(|text| text.parse().ok()),
        match_key: of(&["match_key"]).and_then(|key| serde_json::from_value(key.clone()).ok()),
    })
}

fn click_ids_of(ids: &Value) -> ClickIds {
    let text = |key: &str| ids.get(key).and_then(text_of).unwrap_or_default().into_owned();
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
        first_seen: ids
            .get("first_seen")
            .and_then(text_of)
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map(|at| prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }),
    }
}
