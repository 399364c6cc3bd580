//! Any HTTP receiver, one event a request, signed by Standard Webhooks (github.com/standard-webhooks, spec v1; 2026-11).
//! The receiver knows a repeat by `webhook-id`.

pub mod settings;
mod verify;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;
use sha2::Sha256;
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::EventType;

use crate::body::ItemBody;
use crate::connection::Connection;
use crate::deliverable::{Deliverable, instant};
use crate::destination::{ConsentQuery, Destination, Limits};
use crate::document::{Document, Kind, Mode, SettingsError, SettingsErrors, WorkspaceDefaults};
use crate::google::time::rfc3339;
use crate::json::Json;
use crate::outcome::{Answer, HoldKind, Item, ItemOutcome, Refusal, Skip};
use crate::request::{HeaderText, HttpRequest};
use crate::verify::{Check, NoTest, Sample, TestAnswer, of_outcomes};
use settings::Settings;

/// Limits of a receiver that we know nothing about.
pub const LIMITS: Limits = Limits {
    max_events: 1,
    // An accepted event has at most 32 KiB.
    max_body_bytes: 65_536,
    // Standard Webhooks asks receivers to remember ids; a day is what they can be expected to.
    dedup_window: Some(Duration::from_secs(24 * 3600)),
    requests_per_minute: None,
    requests_per_day: None,
    whose: None,
    max_concurrent: 16,
    // Source: Standard Webhooks, "Operational considerations": 15 to 30 seconds.
    timeout: Duration::from_secs(20),
};

/// Attempts at a receiver that answers 5xx, until the event and not the receiver is suspected.
const ATTEMPTS: u32 = 20;

/// An opened `webhook` connection.
#[derive(Debug)]
pub struct Webhook {
    connection: Connection,
    settings: Settings,
    key: Secret<Vec<u8>>,
}

impl Webhook {
    /// Opens a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Self, SettingsErrors> {
        let document: Document<Settings> = crate::document::read(Kind::Webhook, document)?;
        let mut errors = Vec::new();
        let connection = Connection::new(&document, workspace, None, &mut errors);
        let settings = document.settings;
        if !url::Url::parse(&settings.url)
            .is_ok_and(|url| url.host_str().is_some() && url.username().is_empty())
        {
            errors.push(SettingsError::new(
                "settings.url",
                "must be an http or https address without a user name",
            ));
        }
        let secret = settings.secret.expose();
        let key = match secret.strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).unwrap_or_else(|_| {
                errors.push(SettingsError::new("settings.secret", "must be base64 after whsec_"));
                Vec::new()
            }),
            None => secret.clone().into_bytes(),
        };
        // Anybody could sign with the key of no length.
        if key.is_empty() && errors.is_empty() {
            errors.push(SettingsError::new("settings.secret", "must have a key after whsec_"));
        }
        if errors.is_empty() {
            Ok(Self { connection, settings, key: Secret::new(key) })
        } else {
            Err(SettingsErrors(errors))
        }
    }

    /// `v1,<base64 of HMAC-SHA256(id.timestamp.body)>`.
    fn signature(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        // Every length is a valid key of HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.expose()) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl Destination for Webhook {
    fn kind(&self) -> Kind {
        Kind::Webhook
    }

    fn mode(&self) -> Mode {
        self.connection.mode
    }

    fn limits(&self) -> &Limits {
        &LIMITS
    }

    fn max_event_age(&self, _: &Deliverable) -> Option<Duration> {
        None
    }

    fn consent_query(&self) -> ConsentQuery {
        self.connection.consent_query()
    }

    fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        self.connection.wants(event)
    }

    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
        self.connection.check_unrestricted(event, "an unknown receiver cannot be told to restrict itself")?;
        let name = self.connection.mapped_name(event).unwrap_or(&event.event.name);
        Ok(Item {
            body: ItemBody::of(&EventText { event, name }),
            notes: Vec::new(),
            group: String::new(),
            exclusive: None,
            event_id: self.connection.event_id(event).into_owned(),
            repeatable: true,
            name: name.to_owned(),
            order: None,
            remark: None,
            keys: None,
            built_at: now,
        })
    }

    fn assemble(&self, items: &[&Item], _: Option<&Secret<String>>) -> HttpRequest {
        let (body, id, timestamp) = items.first().map_or((None, "", 0), |item| {
            (Some(&item.body), item.event_id.as_str(), item.built_at.as_second())
        });
        let mut request = HttpRequest::post_json(self.settings.url.clone(), &body);
        // What is signed is what stands in the header: the receiver has nothing else to verify.
        let id = header_safe(id);
        let signature = self.signature(&id, timestamp, &request.body);
        request = request.header("webhook-id", id).header("webhook-timestamp", timestamp.to_string());
        request.headers.push((
            "webhook-signature".to_owned(),
            HeaderText::Secret { prefix: "", value: Secret::new(signature) },
        ));
        if let Some(authorization) = &self.settings.authorization {
            request = request.secret_header("authorization", "", authorization);
        }
        request
    }

    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
        vec![read(answer); sent.len()]
    }

    fn checks(&self, sample: &Sample) -> Vec<Check> {
        verify::checks(self, sample)
    }

    /// A message of its own kind, signed as all are: see [`verify`].
    fn test_request(
        &self,
        items: &[&Item],
        access_token: Option<&Secret<String>>,
        _: Option<&str>,
    ) -> Result<HttpRequest, NoTest> {
        let test: Vec<Item> = items.iter().map(|item| verify::as_test(item)).collect();
        Ok(self.assemble(&test.iter().collect::<Vec<_>>(), access_token))
    }

    fn read_test(&self, answer: &Answer, sent: &[&Item]) -> TestAnswer {
        of_outcomes(self.classify(answer, sent))
    }
}

/// An id in a header's letters: what cannot stand there is percent-encoded, and so is the percent sign, so that two ids never
/// become one. A space is encoded too: at the ends it would not survive the way.
fn header_safe(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&hex::encode_upper([byte]));
        }
    }
    text
}

/// The event in Segment's words, with the profile's key.
struct EventText<'e> {
    event: &'e Deliverable,
    name: &'e str,
}

impl Serialize for EventText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (event, source) = (self.event, &self.event.event);
        let (call, name_key) = match source.r#type() {
            EventType::Track => ("track", "event"),
            EventType::Page => ("page", "name"),
            EventType::Screen => ("screen", "name"),
            EventType::Identify => ("identify", ""),
            EventType::Group => ("group", ""),
            EventType::Alias => ("alias", ""),
            EventType::Unspecified => ("", ""),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", call)?;
        let texts = [
            (name_key, self.name),
            ("messageId", &source.message_id),
            ("userId", &source.user_id),
            ("anonymousId", &source.anonymous_id),
            ("groupId", &source.group_id),
            ("previousId", &source.previous_id),
            ("profileKey", &*event.canonical_key_hex),
        ];
        for (key, text) in texts {
            if !key.is_empty() && !text.is_empty() {
                map.serialize_entry(key, text)?;
            }
        }
        map.serialize_entry("timestamp", &rfc3339(event.time()))?;
        if let Some(received) = source.received_at.as_ref().and_then(instant) {
            map.serialize_entry("receivedAt", &rfc3339(received))?;
        }
        let objects = [
            ("properties", event.properties()),
            ("traits", event.traits()),
            ("context", event.context_object()),
        ];
        for (key, value) in objects {
            if !matches!(value, Json::Null) {
                map.serialize_entry(key, &value)?;
            }
        }
        map.end()
    }
}

fn read(answer: &Answer) -> ItemOutcome {
    let code = format!("HTTP_{}", answer.status);
    let hold = |kind, attempts, detail: &str| ItemOutcome::HoldLane {
        after: answer.retry_after(),
        attempts,
        kind,
        code: code.clone(),
        detail: detail.to_owned(),
    };
    match answer.status {
        200..=299 => ItemOutcome::DELIVERED,
        300..=399 => hold(HoldKind::Configuration, None, "redirects are not followed"),
        401 | 403 | 407 => hold(HoldKind::Auth, None, "the receiver wants another authorisation"),
        404 | 405 => hold(HoldKind::Configuration, None, "the receiver knows no such address or method"),
        410 => hold(HoldKind::Configuration, None, "the receiver is gone for good"),
        408 | 425 => hold(HoldKind::Transient, None, "the receiver asks to try again"),
        429 => hold(HoldKind::Throttled, None, "too many requests"),
        400..=499 => ItemOutcome::Dead { code, detail: "the receiver refuses this event".to_owned() },
        _ => hold(HoldKind::Transient, Some(ATTEMPTS), "the receiver is in trouble"),
    }
}
