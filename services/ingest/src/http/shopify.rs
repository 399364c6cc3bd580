//! Shopify's webhooks: `POST /v1/webhooks/shopify/<write key>`.
//!
//! The write key names the source and proves nothing; the signature does. Nothing is looked at in a body, and nothing of it kept,
//! before that is found right. Success is answered when the event is durable, in less than the five seconds that Shopify waits; where
//! that cannot be, the answer is a failure, and Shopify comes again. What no event can be made of is answered with success and
//! counted: Shopify would send it again eight times to no use, and then remove the subscription.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tracklayer_event::{RejectCode, Rejection};
use tracklayer_ids::MasterKey;
use tracklayer_shopify::{Headers, Ignored, Reading, SECRET_PATHS, Settings, Topic, Unusable, is_signed};

use super::Edge;
use super::answer::{self, Refusal};
use super::body::{self, MAX_WEBHOOK_BYTES, reservation};
use super::events::{parse_context, parse_one};
use super::person::Person;
use crate::error::IngestError;
use crate::ingest::Arrival;
use crate::metrics::{self, Wire};
use crate::outcome::{Incoming, Outcome};
use crate::source::Source;

/// Longest until an answer. Shopify waits for five seconds. Source: shopify.dev, "Troubleshooting webhooks"; 2026-11.
const ANSWER_WITHIN: Duration = Duration::from_millis(4_500);
/// How many times its bytes a body may take while it is read.
const PARSED_SHARE: usize = 6;
/// Counted with a refund of an order that is not known.
const ORDER_UNKNOWN: &str = "shopify_order_unknown";

/// Takes a webhook, or says why not.
pub(super) async fn webhook(edge: &Edge, head: &Parts, body: Body, write_key: &str) -> Response {
    match tokio::time::timeout(ANSWER_WITHIN, take(edge, head, body, write_key)).await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => answer::refused_on(Wire::Webhook, &refusal),
        // It may be durable all the same: the same delivery has the same id when it comes again.
        Err(_) => {
            answer::refused_on(Wire::Webhook, &unavailable("too_slow", "the event was not durable in time"))
        }
    }
}

async fn take(edge: &Edge, head: &Parts, body: Body, write_key: &str) -> Result<Response, Refusal> {
    let admitted = admit(edge, &head.headers, write_key);
    let (source, settings, mut room) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            body::discard(body).await;
            return Err(refusal);
        }
    };
    let patience = edge.settings.body_timeout.min(ANSWER_WITHIN);
    let body = body::read_as_sent(&head.headers, body, MAX_WEBHOOK_BYTES, patience).await?;
    let (received_at, started) = (Timestamp::now(), Instant::now());
    let headers = headers_of(&head.headers);
    check_sender(&settings, &headers, &body, header(&head.headers, "x-shopify-hmac-sha256"))?;
    room.grow_to(body.len().saturating_mul(PARSED_SHARE)).map_err(overload)?;
    metrics::received(Wire::Webhook, 1, body.len());

    let reading = tracklayer_shopify::read(&headers, &body, &settings);
    if let Ok(Reading::Ignored(ignored)) = reading {
        return Ok(ignore(&source, headers.topic, ignored));
    }
    // Before the database is asked anything.
    edge.ingest.take_rate(&source, 1, started).map_err(overload)?;
    edge.ingest.tell_of(source.workspace, body.len());
    let incoming = match event(edge, &source, &settings, &headers, reading, &body, received_at).await? {
        Made::Ignored(ignored) => return Ok(ignore(&source, headers.topic, ignored)),
        Made::Incoming(incoming) => incoming,
    };
    let arrival = Arrival { wire: Wire::Webhook, received_at, started, traceparent: "" };
    let outcomes =
        edge.ingest.accept_within_rate(&source, &arrival, vec![incoming]).await.map_err(overload)?;
    metrics::webhook(topic_label(headers.topic), outcomes.first().map_or("rejected", Outcome::as_str));
    Ok(answer::batch(&outcomes))
}

type Admitted = (Source, Settings, crate::admission::Admitted);

/// The source that the write key names, what it is told about webhooks, and room for the body.
fn admit(edge: &Edge, headers: &HeaderMap, write_key: &str) -> Result<Admitted, Refusal> {
    let snapshot = edge.ingest.snapshot()?;
    let (source, sealed) = Source::of_webhook(&snapshot, write_key)?;
    if sealed.is_empty() {
        let message = "this source takes no webhooks: tracklayer sources set-webhook";
        return Err(Refusal::new(StatusCode::NOT_FOUND, "no_webhooks", message));
    }
    let settings = open(sealed, &edge.settings.master_key).map_err(|why| {
        tracing::error!(source = source.id.0, why, "the settings of a source's webhooks cannot be used");
        unavailable("webhook_settings", "the settings of this source's webhooks cannot be used")
    })?;
    let reserved = reservation(headers, MAX_WEBHOOK_BYTES);
    let room = edge.ingest.admission.admit(source.holder(), reserved).map_err(overload)?;
    Ok((source, settings, room))
}

/// The settings in clear. What is wrong is told without a value.
fn open(sealed: &str, master_key: &MasterKey) -> Result<Settings, String> {
    let mut document = serde_json::from_str(sealed).map_err(|error| error.to_string())?;
    tracklayer_secrets::open_document(&master_key.secrets(), &mut document, SECRET_PATHS)
        .map_err(|error| error.to_string())?;
    Settings::parse(&document).map_err(|error| error.to_string())
}

/// Signed with the source's secret, and of its shop: the shop's name is not covered by the signature.
fn check_sender(
    settings: &Settings,
    headers: &Headers<'_>,
    body: &[u8],
    signature: &str,
) -> Result<(), Refusal> {
    if signature.is_empty() {
        let message = "X-Shopify-Hmac-Sha256 is missing";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "missing_signature", message));
    }
    if !is_signed(settings, body, signature) {
        let message = "X-Shopify-Hmac-Sha256 does not fit the body and the source's webhook_secret";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "invalid_signature", message));
    }
    if !settings.is_of_shop(headers.shop_domain) {
        let message = "X-Shopify-Shop-Domain is not the source's shop_domain";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "wrong_shop", message));
    }
    Ok(())
}

/// What a webhook came to.
enum Made {
    Ignored(Ignored),
    Incoming(Incoming),
}

async fn event(
    edge: &Edge,
    source: &Source,
    settings: &Settings,
    headers: &Headers<'_>,
    reading: Result<Reading, Unusable>,
    body: &[u8],
    received_at: Timestamp,
) -> Result<Made, Refusal> {
    let unusable = |why: &Unusable| Made::Incoming(Incoming::rejected(rejection(why), body));
    let webhook = match reading {
        Ok(Reading::Ignored(ignored)) => return Ok(Made::Ignored(ignored)),
        Ok(Reading::Webhook(webhook)) => webhook,
        Err(why) => return Ok(unusable(&why)),
    };
    let known = match webhook.wants_order() {
        Some(order) => edge.ingest.orders.find(source, order).await?,
        None => None,
    };
    if known.as_ref().is_some_and(|known| webhook.is_outdated(known)) {
        return Ok(Made::Ignored(Ignored::Outdated));
    }
    let translation = match webhook.event(headers, settings, known.as_ref()) {
        Ok(translation) => translation,
        Err(why) => return Ok(unusable(&why)),
    };
    // Address, user agent and Sec-GPC of the request are Shopify's, not the buyer's.
    let nobody = Person::default();
    let mut incoming = parse_one(&translation.json, &parse_context(source, &nobody, received_at));
    if let Incoming::Event(event) = &mut incoming {
        if let Some(order) = &translation.order {
            // Before its event is acknowledged: from then on a refund may come.
            edge.ingest.orders.remember(source, order).await?;
        }
        if translation.order_unknown {
            event.warnings.push(ORDER_UNKNOWN.to_owned());
        }
        event.warnings.extend(translation.warnings.iter().map(|code| (*code).to_owned()));
    }
    Ok(Made::Incoming(incoming))
}

fn rejection(why: &Unusable) -> Rejection {
    let (code, field) = match why {
        Unusable::NotJson { .. } => (RejectCode::InvalidJson, ""),
        Unusable::NotAnObject => (RejectCode::NotAnObject, ""),
        Unusable::Field { field, .. } => (RejectCode::InvalidField, *field),
    };
    Rejection::new(code, field, why.to_string())
}

fn ignore(source: &Source, topic: &str, ignored: Ignored) -> Response {
    metrics::webhook(topic_label(topic), ignored.as_str());
    if ignored == Ignored::PrivacyRequest {
        // The law gives a shop's apps 30 days for it, and nobody but a person can do it.
        tracing::warn!(
            source = source.id.0,
            "a request about a customer's data came, and nothing was done or kept"
        );
    }
    answer::ignored(ignored.as_str(), ignored.explanation())
}

fn topic_label(topic: &str) -> &'static str {
    Topic::parse(topic).map_or("other", Topic::as_str)
}

fn headers_of(headers: &HeaderMap) -> Headers<'_> {
    Headers {
        topic: header(headers, "x-shopify-topic"),
        shop_domain: header(headers, "x-shopify-shop-domain"),
        webhook_id: header(headers, "x-shopify-webhook-id"),
        event_id: header(headers, "x-shopify-event-id"),
        triggered_at: header(headers, "x-shopify-triggered-at"),
        api_version: header(headers, "x-shopify-api-version"),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).unwrap_or_default()
}

/// Too much comes, or the journal is full: an SDK obeys 429, Shopify knows failures alone.
fn overload(error: IngestError) -> Refusal {
    let refusal = Refusal::from(error);
    match refusal.status {
        StatusCode::TOO_MANY_REQUESTS => Refusal { status: StatusCode::SERVICE_UNAVAILABLE, ..refusal },
        _ => refusal,
    }
}

fn unavailable(code: &'static str, message: &'static str) -> Refusal {
    let retry_after = Some(Duration::from_secs(1));
    Refusal { retry_after, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
}
