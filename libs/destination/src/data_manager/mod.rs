//! Google Data Manager API: the way to Google Ads for everybody who starts now. An adjustment is the same transaction once
//! more; a repeat is harmless.

mod answer;
mod payload;
pub mod settings;
mod verdict;
mod verify;

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::EventType;

pub use answer::{is_refused_later, refused_later, request_id};
pub use verdict::{Conclusion, FIRST_STATUS, Fate, MOST_LOOKS, Verdict, fate_of, next_look, read_status};

use crate::body::ItemBody;
use crate::commerce::order_id;
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::destination::{ConsentQuery, Destination, Limits, OAuthSettings, OrderNeed, Pauses};
use crate::document::{Document, Kind, MapTarget, Mode, SettingsErrors, WorkspaceDefaults};
use crate::google::oauth::DATA_MANAGER;
use crate::google::order::Act;
use crate::google::{MAX_ADJUSTMENT_AGE, MAX_CONVERSION_AGE, PAUSES, action, error};
use crate::outcome::{Answer, Item, ItemOutcome, Refusal, Skip, SkipReason};
use crate::quality::KeySet;
use crate::request::HttpRequest;
use crate::trial::Trial;
use crate::verify::{Check, Sample};
use settings::{Account, Settings};

/// How far in the future an event may be; up to that it goes out as now.
pub const MAX_SKEW: Duration = Duration::from_secs(60);

/// Requests a minute and a day of a Cloud project, unless Google has granted it others: `requests_per_minute` and `requests_per_day` of
/// the settings. Source: developers.google.com/data-manager/api/limits; 2026-11.
pub const REQUESTS_PER_MINUTE: u32 = 300;
/// See [`REQUESTS_PER_MINUTE`].
pub const REQUESTS_PER_DAY: u32 = 100_000;

/// Google's limits; the number of events is a setting below this one, and the project that they are counted for comes with the settings.
pub const LIMITS: Limits = Limits {
    // Source: developers.google.com/data-manager/api/limits: 2,000 events; 2026-11.
    max_events: 2_000,
    max_body_bytes: 4_000_000,
    // The same transaction once more overwrites, for as long as the conversion can be adjusted. Source:
    // D/events/google-ads/conversion-adjustments; 2026-11.
    dedup_window: Some(Duration::from_secs(54 * 24 * 3600)),
    requests_per_minute: Some(REQUESTS_PER_MINUTE),
    requests_per_day: Some(REQUESTS_PER_DAY),
    whose: None,
    max_concurrent: 2,
    timeout: Duration::from_secs(60),
};

/// An opened `google_data_manager` connection.
#[derive(Debug)]
pub struct DataManager {
    connection: Connection,
    settings: Settings,
    oauth: OAuthSettings,
    limits: Limits,
}

impl DataManager {
    /// Opens a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Self, SettingsErrors> {
        let document: Document<Settings> = crate::document::read(Kind::GoogleDataManager, document)?;
        let mut errors = Vec::new();
        let connection =
            Connection::new(&document, workspace, Kind::GoogleDataManager.custom_prefix(), &mut errors);
        action::check(&document.event_map, document.settings.conversion_action_id.as_deref(), &mut errors);
        let settings = document.settings;
        let oauth = settings.oauth.settings(DATA_MANAGER);
        let limits = Limits {
            max_events: usize::from(settings.batch_size),
            requests_per_minute: Some(settings.requests_per_minute),
            requests_per_day: Some(settings.requests_per_day),
            whose: Some(settings.oauth.quota_key("datamanager", &settings.base_url)),
            ..LIMITS
        };
        if errors.is_empty() {
            Ok(Self { connection, settings, oauth, limits })
        } else {
            Err(SettingsErrors(errors))
        }
    }

    /// The request for items of one action. `validate_only`: Google says what it thinks of them and processes nothing.
    fn ingest(
        &self,
        items: &[&Item],
        access_token: Option<&Secret<String>>,
        validate_only: bool,
    ) -> HttpRequest {
        let settings = &self.settings;
        let mut destination = Map::new();
        destination.insert("operatingAccount".to_owned(), account(&settings.operating_account));
        if let Some(login) = &settings.login_account {
            destination.insert("loginAccount".to_owned(), account(login));
        }
        if let Some(linked) = &settings.linked_account {
            destination.insert("linkedAccount".to_owned(), account(linked));
        }
        if let Some(item) = items.first() {
            destination.insert("productDestinationId".to_owned(), json!(item.group));
        }
        // An encoding without user data does no harm, user data without one is refused.
        let body = Body {
            destinations: [destination],
            encoding: "HEX",
            validate_only,
            events: items.iter().map(|item| &item.body).collect(),
        };
        let url = format!("{}/v1/events:ingest", settings.base_url.trim_end_matches('/'));
        let no_token = Secret::new(String::new());
        HttpRequest::post_json(url, &body).secret_header(
            "authorization",
            "Bearer ",
            access_token.unwrap_or(&no_token),
        )
    }
}

fn account(account: &Account) -> Value {
    let id: String = account.account_id.chars().filter(char::is_ascii_digit).collect();
    json!({ "accountType": account.account_type, "accountId": id })
}

/// The request's body.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    destinations: [Map<String, Value>; 1],
    encoding: &'static str,
    validate_only: bool,
    events: Vec<&'a ItemBody>,
}

impl Destination for DataManager {
    fn kind(&self) -> Kind {
        Kind::GoogleDataManager
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
        Some(if Act::of(event).is_adjustment() { MAX_ADJUSTMENT_AGE } else { MAX_CONVERSION_AGE })
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

    fn order_need(&self, event: &Deliverable) -> Option<OrderNeed> {
        if let Some(order) = self.order_key(event) {
            return Some(OrderNeed::Changes(order));
        }
        let own = self.settings.conversion_action_id.as_deref();
        let sells = action::sells(&self.connection, own, event, Act::of(event));
        sells
            .then(|| order_id(&self.connection, event))
            .flatten()
            .map(Cow::into_owned)
            .map(OrderNeed::Overwrites)
    }

    fn borrows_from(&self, event: &Deliverable) -> Option<String> {
        self.order_key(event).filter(|_| payload::knows_nobody(&self.connection, &self.settings, event))
    }

    fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        self.connection.wants(event)?;
        let mapped =
            matches!(self.connection.map.target(event), Some(MapTarget::Name(_) | MapTarget::Detail(_)));
        if mapped || event.event.r#type() == EventType::Track {
            return Ok(());
        }
        Err(Skip { reason: SkipReason::EventType, detail: "Google takes conversions only".to_owned() })
    }

    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
        self.connection.check_consent(event)?;
        payload::build(&self.connection, &self.settings, event, now)
    }

    fn assemble(&self, items: &[&Item], access_token: Option<&Secret<String>>) -> HttpRequest {
        self.ingest(items, access_token, false)
    }

    fn oauth(&self) -> Option<&OAuthSettings> {
        Some(&self.oauth)
    }

    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
        answer::classify(answer, sent)
    }

    fn trial(&self, items: &[&Item], access_token: Option<&Secret<String>>) -> Option<HttpRequest> {
        Some(self.ingest(items, access_token, true))
    }

    fn read_trial(&self, answer: &Answer) -> Trial {
        error::read_trial(answer, &["events"])
    }

    fn status_request(&self, request_id: &str, access_token: &Secret<String>) -> Option<HttpRequest> {
        let base = self.settings.base_url.trim_end_matches('/');
        let id: String = url::form_urlencoded::byte_serialize(request_id.as_bytes()).collect();
        let request = HttpRequest::get(format!("{base}/v1/requestStatus:retrieve?requestId={id}"));
        Some(request.secret_header("authorization", "Bearer ", access_token))
    }

    fn checks(&self, sample: &Sample) -> Vec<Check> {
        verify::checks(self, sample)
    }
}
