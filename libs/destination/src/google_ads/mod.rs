//! Google Ads API: click conversions and their adjustments, for accounts that may still upload them (closed to newcomers
//! since June 2026; everybody else takes `google_data_manager`).

mod answer;
mod payload;
pub mod settings;
mod verify;

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::EventType;

use crate::body::ItemBody;
use crate::commerce::order_id;
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::destination::{ConsentQuery, Destination, Limits, OAuthSettings, Pauses};
use crate::document::{Document, Kind, MapTarget, Mode, SettingsError, SettingsErrors, WorkspaceDefaults};
use crate::google::oauth::ADWORDS;
use crate::google::order::Act;
use crate::google::{MAX_ADJUSTMENT_AGE, MAX_CONVERSION_AGE, PAUSES, action, error};
use crate::outcome::{Answer, Item, ItemOutcome, Refusal, Skip, SkipReason};
use crate::quality::KeySet;
use crate::request::HttpRequest;
use crate::trial::Trial;
use crate::verify::{Check, Sample, TestAnswer};
use settings::{Settings, UploadMode};

/// Group of items for `uploadClickConversions`.
pub const CONVERSIONS: &str = "conversions";
/// Group of items for `uploadConversionAdjustments`.
pub const ADJUSTMENTS: &str = "conversionAdjustments";

/// Oldest conversion that can be enhanced. Source: "enhanced conversions for web", 24 hours; 2026-11.
pub const MAX_ENHANCEMENT_AGE: Duration = Duration::from_secs(24 * 3600);
/// How far in the future an event may be; up to that it goes out as now.
pub const MAX_SKEW: Duration = Duration::from_secs(60);

/// Google's limits; those of a day are those of the access level.
pub const LIMITS: Limits = Limits {
    // Source: googleads v26 `TOO_MANY_CONVERSIONS_IN_REQUEST`: 2,000; 2026-11.
    max_events: 2_000,
    max_body_bytes: 4_000_000,
    // An order id is taken once per action for as long as the conversion lives; click and time likewise.
    dedup_window: Some(Duration::from_secs(54 * 24 * 3600)),
    requests_per_minute: None,
    requests_per_day: None,
    whose: None,
    max_concurrent: 1,
    timeout: Duration::from_secs(60),
};

/// An opened `google_ads` connection.
#[derive(Debug)]
pub struct GoogleAds {
    connection: Connection,
    settings: Settings,
    oauth: OAuthSettings,
    limits: Limits,
}

impl GoogleAds {
    /// Opens a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Self, SettingsErrors> {
        let document: Document<Settings> = crate::document::read(Kind::GoogleAds, document)?;
        let mut errors = Vec::new();
        let connection = Connection::new(&document, workspace, Kind::GoogleAds.custom_prefix(), &mut errors);
        action::check(&document.event_map, document.settings.conversion_action_id.as_deref(), &mut errors);
        let keys = document.field_map.keys().map(|key| ("field_map", key));
        for (map, key) in keys.chain(document.constants.keys().map(|key| ("constants", key))) {
            let id = key.strip_prefix("custom_variables.");
            if id.is_some_and(|id| !id.bytes().all(|byte| byte.is_ascii_digit())) {
                let why = "must name the custom variable by its id (digits)";
                errors.push(SettingsError::new(format!("{map}.{key}"), why));
            }
        }
        let settings = document.settings;
        let oauth = settings.oauth.settings(ADWORDS);
        let limits = Limits {
            requests_per_day: settings.access_level.requests_per_day(),
            whose: Some(settings.oauth.quota_key("googleads", &settings.base_url)),
            ..LIMITS
        };
        if errors.is_empty() {
            Ok(Self { connection, settings, oauth, limits })
        } else {
            Err(SettingsErrors(errors))
        }
    }

    /// The upload of items of one group. `validate_only`: Google says what it thinks of them and counts nothing.
    fn upload(
        &self,
        items: &[&Item],
        access_token: Option<&Secret<String>>,
        validate_only: bool,
    ) -> HttpRequest {
        let settings = &self.settings;
        let group = items.first().map_or(CONVERSIONS, |item| item.group.as_str());
        let method =
            if group == ADJUSTMENTS { "uploadConversionAdjustments" } else { "uploadClickConversions" };
        let bodies: Vec<&ItemBody> = items.iter().map(|item| &item.body).collect();
        let (conversions, conversion_adjustments) =
            if group == ADJUSTMENTS { (None, Some(bodies)) } else { (Some(bodies), None) };
        // Without partialFailure one bad item fails them all, and Google insists on it.
        let body = Body { conversions, conversion_adjustments, partial_failure: true, validate_only };
        let base = settings.base_url.trim_end_matches('/');
        let url =
            format!("{base}/{}/customers/{}:{method}", settings.api_version, digits(&settings.customer_id));
        let no_token = Secret::new(String::new());
        let mut request = HttpRequest::post_json(url, &body).secret_header(
            "authorization",
            "Bearer ",
            access_token.unwrap_or(&no_token),
        );
        if let Some(id) = &settings.login_customer_id {
            request = request.header("login-customer-id", digits(id));
        }
        if let Some(id) = &settings.linked_customer_id {
            request = request.header("linked-customer-id", digits(id));
        }
        if let Some(token) = &settings.developer_token {
            request = request.secret_header("developer-token", "", token);
        }
        request
    }
}

/// "123-456-7890" → "1234567890".
fn digits(id: &str) -> String {
    id.chars().filter(char::is_ascii_digit).collect()
}

/// The request's body: one of the two lists.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    conversions: Option<Vec<&'a ItemBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversion_adjustments: Option<Vec<&'a ItemBody>>,
    partial_failure: bool,
    validate_only: bool,
}

impl Destination for GoogleAds {
    fn kind(&self) -> Kind {
        Kind::GoogleAds
    }

    fn mode(&self) -> Mode {
        self.connection.mode
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn pauses(&self) -> Pauses {
        PAUSES
    }

    fn max_event_age(&self, event: &Deliverable) -> Option<Duration> {
        Some(match self.settings.mode {
            // What it adjusts is older still; where the order is known, the builder looks at its own age.
            _ if Act::of(event).is_adjustment() => MAX_ADJUSTMENT_AGE,
            UploadMode::Enhancement => MAX_ENHANCEMENT_AGE,
            UploadMode::Conversion => MAX_CONVERSION_AGE,
        })
    }

    fn consent_query(&self) -> ConsentQuery {
        self.connection.consent_query()
    }

    fn match_keys(&self) -> KeySet {
        payload::TAKEN_KEYS
    }

    fn order_key(&self, event: &Deliverable) -> Option<String> {
        Act::of(event)
            .is_adjustment()
            .then(|| order_id(&self.connection, event))
            .flatten()
            .map(Cow::into_owned)
    }

    fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        self.connection.wants(event)?;
        let mapped =
            matches!(self.connection.map.target(event), Some(MapTarget::Name(_) | MapTarget::Detail(_)));
        if mapped || event.event.r#type() == EventType::Track {
            return Ok(());
        }
        Err(Skip { reason: SkipReason::EventType, detail: "Google Ads takes conversions only".to_owned() })
    }

    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
        self.connection.check_consent(event)?;
        payload::build(&self.connection, &self.settings, event, now)
    }

    fn assemble(&self, items: &[&Item], access_token: Option<&Secret<String>>) -> HttpRequest {
        self.upload(items, access_token, false)
    }

    fn oauth(&self) -> Option<&OAuthSettings> {
        Some(&self.oauth)
    }

    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
        answer::classify(answer, sent)
    }

    fn trial(&self, items: &[&Item], access_token: Option<&Secret<String>>) -> Option<HttpRequest> {
        Some(self.upload(items, access_token, true))
    }

    fn read_trial(&self, answer: &Answer) -> Trial {
        error::read_trial(answer, &["conversions", "conversion_adjustments", "conversionAdjustments"])
    }

    fn checks(&self, sample: &Sample) -> Vec<Check> {
        verify::checks(self, sample)
    }

    fn read_test(&self, answer: &Answer, _: &[&Item]) -> TestAnswer {
        verify::read(self.read_trial(answer), answer)
    }
}
