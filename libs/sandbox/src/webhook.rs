//! A receiver of webhooks signed by the Standard Webhooks specification: `POST /webhook/{name}` with
//! `webhook-id`, `webhook-timestamp` and `webhook-signature`. It checks the signature over the bytes as they
//! came, and the time against replays, and counts what is inside once: by the event's own message id where it
//! has one, else by `webhook-id`.
//!
//! Source: Standard Webhooks, "Signature scheme", "Verifying webhook authenticity"; 2026-11.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::Sha256;

use crate::SandboxError;
use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::json::{Item, Items, Json, Object};
use crate::options::WebhookOptions;
use crate::platform::Platform;
use crate::store::{Arrival, Key};

/// Members that hold the events of a batch.
const LISTS: [&str; 4] = ["events", "batch", "data", "items"];
/// Members that hold an event's own id.
const IDS: [&str; 4] = ["messageId", "message_id", "event_id", "id"];
/// Members that hold its name, and its type where it has none.
const NAMES: [&str; 4] = ["event", "name", "event_name", "type"];
/// Members that hold its time.
const TIMES: [&str; 3] = ["timestamp", "originalTimestamp", "event_time"];

/// The name of a message by which somebody tries the receiver: it is checked like any other, and not counted.
const TEST: &str = "test";

/// What is wrong with a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It does not start with `whsec_`.
    #[error("the secret does not start with whsec_")]
    Prefix,
    /// What follows is no base64.
    #[error("the secret is not base64 after whsec_")]
    Base64(#[source] base64::DecodeError),
}

/// The receivers' keys.
pub(crate) struct Secrets {
    named: BTreeMap<String, Vec<Vec<u8>>>,
    default: Option<Vec<u8>>,
    tolerance: Duration,
}

impl Secrets {
    /// Reads the secrets of the options.
    pub(crate) fn new(options: &WebhookOptions) -> Result<Self, SandboxError> {
        let read = |name: &str, secret: &String| {
            key_of(secret).map_err(|source| SandboxError::WebhookSecret { name: name.to_owned(), source })
        };
        let mut named = BTreeMap::new();
        for (name, secrets) in &options.secrets {
            let keys = secrets.iter().map(|secret| read(name, secret)).collect::<Result<_, _>>()?;
            named.insert(name.clone(), keys);
        }
        let default = options.default_secret.as_ref().map(|secret| read("", secret)).transpose()?;
        Ok(Self { named, default, tolerance: options.tolerance })
    }

    fn of(&self, name: &str) -> Option<&[Vec<u8>]> {
        self.named.get(name).map(Vec::as_slice).or_else(|| self.default.as_ref().map(std::slice::from_ref))
    }
}

fn key_of(secret: &str) -> Result<Vec<u8>, SecretError> {
    let encoded = secret.strip_prefix("whsec_").ok_or(SecretError::Prefix)?;
    STANDARD.decode(encoded).map_err(SecretError::Base64)
}

/// The `webhook-signature` of a message: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`.
///
/// # Errors
/// The secret is not `whsec_` and base64.
pub fn sign(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Result<String, SecretError> {
    let mac = mac_of(&key_of(secret)?, id, &timestamp.to_string(), body);
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

fn mac_of(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

/// Answers a request.
pub(crate) fn answer(world: &World, inbound: &Inbound<'_>) -> Answer {
    let refuse = |status: u16, why: &str| Answer::json(status, &json!({ "error": why }));
    let name = inbound.path.strip_prefix("/webhook/").unwrap_or("");
    let Some(keys) = world.webhook_secrets.of(name).filter(|_| !name.is_empty() && !name.contains('/'))
    else {
        return refuse(404, "no such webhook");
    };
    if *inbound.method != Method::POST {
        return refuse(405, "a webhook is posted");
    }
    let (Some(id), Some(timestamp), Some(signatures)) = (
        inbound.header("webhook-id").filter(|id| !id.is_empty()),
        inbound.header("webhook-timestamp"),
        inbound.header("webhook-signature"),
    ) else {
        return refuse(400, "missing required headers");
    };
    let Ok(seconds) = timestamp.parse::<i64>() else {
        return refuse(400, "invalid webhook-timestamp");
    };
    let tolerance = i64::try_from(world.webhook_secrets.tolerance.as_secs()).unwrap_or(i64::MAX);
    let away = inbound.now.as_second().saturating_sub(seconds);
    if away > tolerance {
        return refuse(400, "message timestamp too old");
    }
    if away < -tolerance {
        return refuse(400, "message timestamp too new");
    }
    let good = signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,")).any(|signature| {
        STANDARD.decode(signature).is_ok_and(|signature| {
            keys.iter().any(|key| mac_of(key, id, timestamp, inbound.body).verify_slice(&signature).is_ok())
        })
    });
    if !good {
        return refuse(401, "no matching signature found");
    }
    let Some(arrivals) = arrivals(name, id, seconds, inbound.body) else {
        return refuse(400, "the body is no JSON object or list");
    };
    if std::str::from_utf8(inbound.body).is_ok_and(|body| inbound.is_bad(body).is_some()) {
        return refuse(400, "this event is not known here");
    }
    let (tests, arrivals): (Vec<_>, Vec<_>) =
        arrivals.into_iter().partition(|arrival| arrival.name.as_ref() == TEST);
    let book = world.book(Platform::Webhook);
    book.accept(&arrivals, inbound.now, Duration::MAX);
    book.open().totals.test_events += tests.len() as u64;
    Answer::empty(204)
}

/// The events in a body: a list, the list in a known member, or the body itself.
fn arrivals<'a>(webhook: &'a str, id: &str, sent: i64, body: &'a [u8]) -> Option<Vec<Arrival<'a>>> {
    let whole: &RawValue = serde_json::from_slice(body).ok()?;
    if let Ok(Items::List(items)) = serde_json::from_slice(body) {
        return items
            .iter()
            .enumerate()
            .map(|(place, item)| arrival(webhook, id, Some(place), sent, item))
            .collect();
    }
    let members: BTreeMap<&str, &RawValue> = serde_json::from_slice(body).ok()?;
    for list in LISTS {
        let items = members.get(list).and_then(|list| serde_json::from_str::<Items<'_>>(list.get()).ok());
        if let Some(Items::List(items)) = items {
            return items
                .iter()
                .enumerate()
                .map(|(place, item)| arrival(webhook, id, Some(place), sent, item))
                .collect();
        }
    }
    // `{"type", "timestamp", "data": {…}}`, the envelope that the specification proposes: the event is
    // inside.
    if let Some(data) = members.get("data").filter(|data| data.get().starts_with('{')) {
        let mut inner = arrival(webhook, id, None, sent, &Item::of(data.get()))?;
        inner.body = whole.get();
        if inner.name.is_empty() {
            inner.name = arrival(webhook, id, None, sent, &Item::of(whole.get()))?.name;
        }
        return Some(vec![inner]);
    }
    arrival(webhook, id, None, sent, &Item::of(whole.get())).map(|arrival| vec![arrival])
}

fn arrival<'a>(
    webhook: &'a str,
    id: &str,
    place: Option<usize>,
    sent: i64,
    item: &Item<'a>,
) -> Option<Arrival<'a>> {
    let event = item.object()?;
    let first =
        |names: &[&str]| names.iter().find_map(|name| event.text(name).filter(|text| !text.is_empty()));
    let own = first(&IDS);
    let event_id = match (own, place) {
        (Some(own), _) => own.to_owned(),
        (None, Some(place)) => format!("{id}#{place}"),
        (None, None) => id.to_owned(),
    };
    let time = TIMES.iter().find_map(|name| time_of(event, name)).unwrap_or(sent);
    Some(Arrival {
        key: Some(Key::of(&[webhook, &event_id])),
        identity: webhook,
        name: first(&NAMES).unwrap_or("").to_owned().into(),
        id: event_id.into(),
        time,
        value: None,
        currency: None,
        body: item.text,
    })
}

fn time_of(event: &Object<'_>, name: &str) -> Option<i64> {
    match event.get(name)? {
        Json::Int(seconds) => Some(*seconds),
        Json::Text(text) => text.parse::<Timestamp>().ok().map(Timestamp::as_second),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_batch_is_counted_event_by_event_and_a_single_one_by_its_own_id() {
        let ids = |body: &str| {
            let found = arrivals("crm", "w1", 5, body.as_bytes());
            found.map(|found| {
                found
                    .into_iter()
                    .map(|a| (a.id.into_owned(), a.name.into_owned(), a.time))
                    .collect::<Vec<_>>()
            })
        };
        let one = |id: &str, name: &str, time| Some(vec![(id.to_owned(), name.to_owned(), time)]);
        assert_eq!(ids(r#"{"messageId":"m","event":"E","type":"track"}"#), one("m", "E", 5));
        assert_eq!(ids(r#"{"type":"order.paid","data":{"x":1}}"#), one("w1", "order.paid", 5));
        assert_eq!(ids(r#"{"events":[{"type":"page"}]}"#), one("w1#0", "page", 5));
        assert_eq!(ids(r#"[{"id":"a","timestamp":"1970-01-01T00:00:07Z"}]"#), one("a", "", 7));
        assert_eq!(ids("7"), None);
        assert_eq!(ids("{"), None);
    }
}
