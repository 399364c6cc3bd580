//! GA4 Measurement Protocol. It answers 2xx whatever it is sent, so everything is validated here; and it knows no event ids,
//! so a request whose outcome is unknown must not be repeated.

mod debug;
mod names;
mod payload;
mod recommended;
pub mod settings;
mod verify;

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::EventType;

use crate::commerce::order_id;
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::destination::{ConsentQuery, Destination, Limits};
use crate::document::{Document, Kind, MapTarget, Mode, SettingsError, SettingsErrors, WorkspaceDefaults};
use crate::outcome::{Answer, HoldKind, Item, ItemOutcome, Refusal, Skip, SkipReason};
use crate::quality::KeySet;
use crate::request::HttpRequest;
use crate::trial::Trial;
use crate::verify::{Check, Sample};
use settings::Settings;

/// Oldest event: later ones are moved or dropped without a word. Source: GA4 Measurement Protocol, "timestamp_micros": 72
/// hours; 2026-11.
pub const MAX_EVENT_AGE: Duration = Duration::from_secs(72 * 3600);
/// How far in the future an event may be; up to that it goes out as now.
pub const MAX_SKEW: Duration = Duration::from_secs(60);

/// GA4's limits.
pub const LIMITS: Limits = Limits {
    // 25 events fit a request, but only of one client: one event a request is the rule that always holds.
    max_events: 1,
    // Source: GA4 Measurement Protocol, "Limitations": below 130 kB; 2026-11.
    max_body_bytes: 130_000,
    dedup_window: None,
    requests_per_minute: None,
    requests_per_day: None,
    whose: None,
    max_concurrent: 8,
    timeout: Duration::from_secs(10),
};

/// An opened `ga4_mp` connection.
#[derive(Debug)]
pub struct Ga4 {
    connection: Connection,
    settings: Settings,
}

impl Ga4 {
    /// Opens a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Self, SettingsErrors> {
        let document: Document<Settings> = crate::document::read(Kind::Ga4Mp, document)?;
        let mut errors = Vec::new();
        let connection = Connection::new(&document, workspace, Kind::Ga4Mp.custom_prefix(), &mut errors);
        let settings = document.settings;
        if settings.measurement_id.is_some() == settings.firebase_app_id.is_some() {
            let why = "give either measurement_id (web) or firebase_app_id (app)";
            errors.push(SettingsError::new("settings.measurement_id", why));
        }
        if errors.is_empty() { Ok(Self { connection, settings }) } else { Err(SettingsErrors(errors)) }
    }

    fn request(&self, path: &str, body: &impl Serialize) -> HttpRequest {
        let settings = &self.settings;
        let stream = match (&settings.measurement_id, &settings.firebase_app_id) {
            (Some(id), _) => ("measurement_id", id.as_str()),
            (None, Some(id)) => ("firebase_app_id", id.as_str()),
            (None, None) => ("measurement_id", ""),
        };
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair(stream.0, stream.1).finish();
        let base = settings.base_url.trim_end_matches('/');
        let mut request = HttpRequest::post_json(format!("{base}/{path}?{query}"), body);
        request.secret_query.push(("api_secret", settings.api_secret.clone()));
        request
    }
}

impl Destination for Ga4 {
    fn kind(&self) -> Kind {
        Kind::Ga4Mp
    }

    fn mode(&self) -> Mode {
        self.connection.mode
    }

    fn limits(&self) -> &Limits {
        &LIMITS
    }

    fn max_event_age(&self, _: &Deliverable) -> Option<Duration> {
        Some(MAX_EVENT_AGE)
    }

    fn consent_query(&self) -> ConsentQuery {
        self.connection.consent_query()
    }

    fn match_keys(&self) -> KeySet {
        payload::TAKEN_KEYS
    }

    fn order_key(&self, event: &Deliverable) -> Option<String> {
        names::is_refund(&self.connection, event)
            .then(|| order_id(&self.connection, event))
            .flatten()
            .map(Cow::into_owned)
    }

    fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        self.connection.wants(event)?;
        let mapped =
            matches!(self.connection.map.target(event), Some(MapTarget::Name(_) | MapTarget::Detail(_)));
        match event.event.r#type() {
            EventType::Track | EventType::Page => Ok(()),
            _ if mapped => Ok(()),
            _ => Err(Skip { reason: SkipReason::EventType, detail: "GA4 takes events only".to_owned() }),
        }
    }

    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
        self.connection.check_consent(event)?;
        payload::build(&self.connection, &self.settings, event, now)
    }

    fn assemble(&self, items: &[&Item], _: Option<&Secret<String>>) -> HttpRequest {
        self.request("mp/collect", &items.first().map(|item| &item.body))
    }

    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
        vec![read(answer); sent.len()]
    }

    fn trial(&self, items: &[&Item], _: Option<&Secret<String>>) -> Option<HttpRequest> {
        Some(debug::request(self, items.first()?))
    }

    fn read_trial(&self, answer: &Answer) -> Trial {
        debug::read(answer)
    }

    fn checks(&self, sample: &Sample) -> Vec<Check> {
        verify::checks(self, sample)
    }
}

/// Whether it is a page for people, as gateways and captive portals send it.
fn is_page(answer: &Answer) -> bool {
    let kind = answer.header("content-type").unwrap_or_default();
    !answer.body.is_empty() && kind.trim_start().to_ascii_lowercase().starts_with("text/html")
}

/// A success says only that the request arrived. What the address itself refuses was not counted and is kept; anything else
/// is trouble on the way, after which nobody knows: a lane does not repeat it, for a repeat would count again.
fn read(answer: &Answer) -> ItemOutcome {
    let code = format!("HTTP_{}", answer.status);
    let hold = |kind, after, detail: &str| ItemOutcome::hold(kind, after, &code, detail);
    match answer.status {
        // Something on the way answered instead. GA4's own answer is a 2xx without a body, as far as was ever seen.
        200..=299 if is_page(answer) => {
            hold(HoldKind::Transient, answer.retry_after(), "a page instead of GA4's answer")
        }
        200..=299 => ItemOutcome::DELIVERED,
        413 => ItemOutcome::Isolate { code, detail: "the request is too large".to_owned() },
        429 => hold(HoldKind::Throttled, answer.retry_after(), "too many requests"),
        401 | 403 | 407 => hold(HoldKind::Auth, None, "the way to GA4 wants an authorisation"),
        300..=399 | 404 | 405 => {
            hold(HoldKind::Configuration, None, "nothing is collected there: base_url is wrong")
        }
        _ => hold(HoldKind::Transient, answer.retry_after(), "GA4 answers 2xx to everything that arrives"),
    }
}
