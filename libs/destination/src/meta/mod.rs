//! Meta Conversions API: one list of events per dataset. One invalid event refuses the whole request, so everything that
//! Meta is known to refuse is told apart here, before batching.

mod answer;
mod custom_data;
mod ids;
mod payload;
mod pixel;
mod quality;
mod restriction;
pub mod settings;
mod usage;
mod verify;

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::Sha256;
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::EventType;

use crate::body::ItemBody;
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::destination::{ConsentQuery, Destination, Limits, Usage};
use crate::document::{Document, Kind, MapTarget, Mode, SettingsError, SettingsErrors, WorkspaceDefaults};
use crate::outcome::{Answer, Item, ItemOutcome, Refusal, Skip, SkipReason};
use crate::quality::{EventQuality, KeyCounts, KeySet};
use crate::request::HttpRequest;
use crate::verify::{Check, NoTest, PixelAnswer, Sample, TestAnswer};
use settings::{ActionSource, Refunds, Settings};

/// Oldest event that Meta takes, from `event_time` to our request; one older event fails its whole request (2804003).
/// Source: Meta, Conversions API, "Server Event Parameters", event_time; 2026-11.
pub const MAX_EVENT_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The same for `physical_store`. Source: Meta, Conversions API, "Offline Events"; 2026-11.
pub const MAX_STORE_EVENT_AGE: Duration = Duration::from_secs(62 * 24 * 3600);

/// How far in the future an event may be before it is refused; up to that it goes out as now. Meta publishes no margin
/// (2804004); one minute is what other senders found safe.
pub const MAX_SKEW: Duration = Duration::from_secs(60);

/// Meta's limits.
pub const LIMITS: Limits = Limits {
    // Source: Meta, Conversions API, "Using the API": up to 1,000 events; 2026-11.
    max_events: 1_000,
    // Unpublished; a full request of rich events stays below.
    max_body_bytes: 4_000_000,
    // Source: Meta, "Handling Duplicate Pixel and Conversions API Events": 48 hours; 2026-11.
    dedup_window: Some(Duration::from_secs(48 * 3600)),
    requests_per_minute: None,
    requests_per_day: None,
    whose: None,
    max_concurrent: 4,
    timeout: Duration::from_secs(10),
};

/// An opened `meta_capi` connection.
#[derive(Debug)]
pub struct Meta {
    connection: Connection,
    settings: Settings,
}

impl Meta {
    /// Opens a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Self, SettingsErrors> {
        let document: Document<Settings> = crate::document::read(Kind::MetaCapi, document)?;
        let mut errors = Vec::new();
        let connection = Connection::new(&document, workspace, Kind::MetaCapi.custom_prefix(), &mut errors);
        let own = document.settings.refund_event_name.trim();
        if document.settings.refunds == Refunds::CustomEvent && own.eq_ignore_ascii_case(payload::PURCHASE) {
            errors.push(SettingsError::new(
                "settings.refund_event_name",
                "must not be Purchase: each refund would count as one more sale",
            ));
        }
        if errors.is_empty() {
            Ok(Self { connection, settings: document.settings })
        } else {
            Err(SettingsErrors(errors))
        }
    }

    /// With the credentials.
    fn signed(&self, request: HttpRequest) -> HttpRequest {
        let settings = &self.settings;
        // In the header the token stays out of access logs.
        let mut request = request.secret_header("authorization", "Bearer ", &settings.access_token);
        if let Some(secret) = &settings.app_secret {
            request.secret_query.push(("appsecret_proof", proof(secret, &settings.access_token)));
        }
        request
    }

    /// A question to the Dataset Quality API.
    fn ask_for(&self, fields: &str) -> HttpRequest {
        let settings = &self.settings;
        let base = settings.base_url.trim_end_matches('/');
        let (version, dataset) = (&settings.api_version, &settings.dataset_id);
        let fields: String = url::form_urlencoded::byte_serialize(fields.as_bytes()).collect();
        let url = format!("{base}/{version}/dataset_quality?dataset_id={dataset}&fields={fields}");
        self.signed(HttpRequest::get(url))
    }

    fn source_of(&self, event: &Deliverable) -> ActionSource {
        payload::action_source(&self.connection, &self.settings, event)
    }

    fn request(&self, data: Vec<&ItemBody>, test_event_code: Option<&str>) -> HttpRequest {
        let settings = &self.settings;
        let body = Body { data, test_event_code, partner_agent: settings.partner_agent.as_deref() };
        let base = settings.base_url.trim_end_matches('/');
        let url = format!("{base}/{}/{}/events", settings.api_version, settings.dataset_id);
        self.signed(HttpRequest::post_json(url, &body))
    }
}

/// The request's body.
#[derive(Serialize)]
struct Body<'a> {
    data: Vec<&'a ItemBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_event_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_agent: Option<&'a str>,
}

impl Destination for Meta {
    fn kind(&self) -> Kind {
        Kind::MetaCapi
    }

    fn mode(&self) -> Mode {
        self.connection.mode
    }

    fn limits(&self) -> &Limits {
        &LIMITS
    }

    fn max_event_age(&self, event: &Deliverable) -> Option<Duration> {
        Some(match self.source_of(event) {
            ActionSource::PhysicalStore => MAX_STORE_EVENT_AGE,
            _ => MAX_EVENT_AGE,
        })
    }

    fn consent_query(&self) -> ConsentQuery {
        self.connection.consent_query()
    }

    fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        self.connection.wants(event)?;
        let mapped =
            matches!(self.connection.map.target(event), Some(MapTarget::Name(_) | MapTarget::Detail(_)));
        match event.event.r#type() {
            EventType::Track | EventType::Page => Ok(()),
            _ if mapped => Ok(()),
            _ => {
                Err(Skip { reason: SkipReason::EventType, detail: "Meta takes conversions only".to_owned() })
            }
        }
    }

    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
        self.connection.check_consent(event)?;
        payload::build(&self.connection, &self.settings, event, now)
    }

    fn assemble(&self, items: &[&Item], _: Option<&Secret<String>>) -> HttpRequest {
        let data = items.iter().map(|item| &item.body).collect();
        self.request(data, self.settings.test_event_code.as_deref())
    }

    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
        answer::classify(answer, sent)
    }

    fn usage(&self, answer: &Answer) -> Option<Usage> {
        usage::usage_of(answer)
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

    fn match_keys(&self) -> KeySet {
        quality::TAKEN
    }

    fn estimated_quality(&self, counts: &KeyCounts) -> Option<f64> {
        quality::estimate(counts)
    }

    fn quality_request(&self) -> Option<HttpRequest> {
        Some(self.ask_for(quality::FIELDS))
    }

    fn read_quality(&self, answer: &Answer) -> Result<Vec<EventQuality>, String> {
        quality::read(answer)
    }

    fn pixel_request(&self) -> Option<HttpRequest> {
        Some(self.ask_for(pixel::FIELDS))
    }

    fn read_pixel(&self, answer: &Answer) -> PixelAnswer {
        pixel::read(answer)
    }
}

/// `appsecret_proof`: HMAC-SHA256 of the token under the app secret, hex. Source: Meta, "Securing Graph API calls"; 2026-11.
fn proof(secret: &Secret<String>, token: &Secret<String>) -> Secret<String> {
    // Every length is a valid key of HMAC.
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes());
    Secret::new(mac.map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(token.expose().as_bytes());
            hex::encode(mac.finalize().into_bytes())
        },
    ))
}
