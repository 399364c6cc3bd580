//! TikTok Events API 2.0: one list of events per event source. The list is validated as a unit, so what TikTok is known to
//! refuse is told apart here, before batching.

mod answer;
mod names;
mod payload;
pub mod settings;
mod source;
mod verify;

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::EventType;

use crate::body::ItemBody;
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::destination::{ConsentQuery, Destination, Limits};
use crate::document::{Document, Kind, MapTarget, Mode, SettingsErrors, WorkspaceDefaults};
use crate::outcome::{Answer, Item, ItemOutcome, Refusal, Skip, SkipReason};
use crate::quality::KeySet;
use crate::request::HttpRequest;
use crate::verify::{Check, NoTest, Sample, TestAnswer};
use settings::Settings;

/// How far in the future an event may be. TikTok's own margin is not published; ten minutes keeps milliseconds out.
pub const MAX_SKEW: Duration = Duration::from_secs(600);

/// TikTok's limits.
pub const LIMITS: Limits = Limits {
    // Source: TikTok portal 1771100779668482: up to 1,000 events; 2026-11.
    max_events: 1_000,
    // Tealium's TikTok connector stays below 1 MB; TikTok publishes no figure.
    max_body_bytes: 1_000_000,
    // Source: TikTok help, "event deduplication": 48 hours; a repeat later counts again; 2026-11.
    dedup_window: Some(Duration::from_secs(48 * 3600)),
    // Source: TikTok portal 1771100779668482: 600,000 a minute on every plan; 2026-11.
    requests_per_minute: Some(600_000),
    requests_per_day: None,
    whose: None,
    max_concurrent: 4,
    timeout: Duration::from_secs(10),
};

/// Oldest event. Sources differ between 7 and 28 days, hence a setting.
fn max_age(settings: &Settings) -> Duration {
    Duration::from_secs(u64::from(settings.max_event_age_days) * 24 * 3600)
}

/// An opened `tiktok_events` connection.
#[derive(Debug)]
pub struct TikTok {
    connection: Connection,
    settings: Settings,
}

impl TikTok {
    /// Opens a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Self, SettingsErrors> {
        let document: Document<Settings> = crate::document::read(Kind::TiktokEvents, document)?;
        let mut errors = Vec::new();
        let connection =
            Connection::new(&document, workspace, Kind::TiktokEvents.custom_prefix(), &mut errors);
        if errors.is_empty() {
            Ok(Self { connection, settings: document.settings })
        } else {
            Err(SettingsErrors(errors))
        }
    }

    fn request(&self, items: &[&Item], test_event_code: Option<&str>) -> HttpRequest {
        let settings = &self.settings;
        let body = Body {
            event_source: settings.event_source.as_str(),
            event_source_id: &settings.event_source_id,
            data: items.iter().map(|item| &item.body).collect(),
            test_event_code,
        };
        // The trailing slash is part of the path.
        let url = format!("{}/open_api/v1.3/event/track/", settings.base_url.trim_end_matches('/'));
        HttpRequest::post_json(url, &body).secret_header("access-token", "", &settings.access_token)
    }
}

/// The request's body.
#[derive(Serialize)]
struct Body<'a> {
    event_source: &'a str,
    event_source_id: &'a str,
    data: Vec<&'a ItemBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_event_code: Option<&'a str>,
}

impl Destination for TikTok {
    fn kind(&self) -> Kind {
        Kind::TiktokEvents
    }

    fn mode(&self) -> Mode {
        self.connection.mode
    }

    fn limits(&self) -> &Limits {
        &LIMITS
    }

    fn max_event_age(&self, _: &Deliverable) -> Option<Duration> {
        Some(max_age(&self.settings))
    }

    fn consent_query(&self) -> ConsentQuery {
        self.connection.consent_query()
    }

    fn match_keys(&self) -> KeySet {
        payload::TAKEN_KEYS
    }

    fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        self.connection.wants(event)?;
        let mapped =
            matches!(self.connection.map.target(event), Some(MapTarget::Name(_) | MapTarget::Detail(_)));
        match event.event.r#type() {
            EventType::Track | EventType::Page => Ok(()),
            _ if mapped => Ok(()),
            _ => Err(Skip { reason: SkipReason::EventType, detail: "TikTok takes events only".to_owned() }),
        }
    }

    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
        self.connection.check_consent(event)?;
        payload::build(&self.connection, &self.settings, event, now)
    }

    fn assemble(&self, items: &[&Item], _: Option<&Secret<String>>) -> HttpRequest {
        self.request(items, self.settings.test_event_code.as_deref())
    }

    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
        answer::classify(answer, sent)
    }

    fn checks(&self, sample: &Sample) -> Vec<Check> {
        verify::checks(self, sample)
    }

    fn test_request(
        &self,
        items: &[&Item],
        _: Option<&Secret<String>>,
        test_code: Option<&str>,
    ) -> Result<HttpRequest, NoTest> {
        verify::request(self, items, test_code)
    }

    fn read_test(&self, answer: &Answer, sent: &[&Item]) -> TestAnswer {
        verify::read(answer, sent)
    }
}
