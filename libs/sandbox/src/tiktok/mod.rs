//! TikTok's Events API 2.0: `POST /open_api/v1.3/event/track/`. The HTTP status is 200 whatever it decides:
//! `code` in the body says. One invalid item rejects all.
//!
//! Source: TikTok, "Events API 2.0" and its Help Center pages "Event deduplication", "Custom events"; as
//! integrations in public code read them; 2026-11.

mod item;

use std::borrow::Cow;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::fault::Fault;
use crate::json::{Body, Items, Json};
use crate::platform::Platform;
use crate::store::{Arrival, Key};

const PATH: &str = "/open_api/v1.3/event/track/";
/// Source: TikTok, Events API 2.0, "Event payload"; 2026-11.
const MAX_EVENTS: usize = 1_000;
/// Same source, event and id from servers within this time: dropped. Source: TikTok, "Event deduplication";
/// 2026-11.
const DEDUP_WINDOW: Duration = Duration::from_secs(48 * 3600);
const SOURCES: [&str; 4] = ["web", "app", "offline", "crm"];

/// The members of a body.
const MEMBERS: [&str; 4] = ["event_source", "event_source_id", "data", "test_event_code"];

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    event_source: Option<Json<'a>>,
    #[serde(borrow, default)]
    event_source_id: Option<Json<'a>>,
    #[serde(borrow, default)]
    data: Option<Items<'a>>,
    #[serde(borrow, default)]
    test_event_code: Option<Json<'a>>,
}

impl<'a> Envelope<'a> {
    fn read(body: &'a [u8]) -> serde_json::Result<Self> {
        match Body::read(body) {
            Some(mut body) if !body.repeats(&MEMBERS) => Ok(Self {
                event_source: body.take("event_source"),
                event_source_id: body.take("event_source_id"),
                data: body.take_items("data"),
                test_event_code: body.take("test_event_code"),
            }),
            _ => serde_json::from_slice(body),
        }
    }
}

/// A refusal: the code and its text.
struct Refusal(i64, Cow<'static, str>);

impl Refusal {
    fn params(text: impl Into<Cow<'static, str>>) -> Self {
        Self(40002, text.into())
    }
}

/// Answers a request.
pub(crate) fn answer(world: &World, inbound: &Inbound<'_>) -> Answer {
    if inbound.path != PATH {
        return Answer::text(404, "Not Found");
    }
    if *inbound.method != Method::POST {
        return Answer::text(405, "Method Not Allowed");
    }
    if inbound.body.len() > world.options.tiktok.max_body {
        return Answer::empty(413);
    }
    accept(world, inbound).unwrap_or_else(|Refusal(code, message)| refuse(code, &message, inbound.now))
}

/// An answer other than OK.
pub(crate) fn refuse(code: i64, message: &str, now: Timestamp) -> Answer {
    wire(code, message, json!({}), now).refused()
}

fn wire(code: i64, message: &str, data: Value, now: Timestamp) -> Answer {
    let request_id = format!("{}{:018}", now.strftime("%Y%m%d%H%M%S"), fastrand::u64(..10_u64.pow(18)));
    Answer::json(200, &json!({ "code": code, "message": message, "request_id": request_id, "data": data }))
}

fn accept(world: &World, inbound: &Inbound<'_>) -> Result<Answer, Refusal> {
    let options = &world.options.tiktok;
    let token = inbound.header("access-token").unwrap_or("");
    if token.is_empty() {
        return Err(Refusal(40104, "Access token is empty.".into()));
    }
    let known = options.tokens.get(token);
    let known = known.ok_or(Refusal(40105, "Access token is incorrect or has been revoked.".into()))?;

    let envelope = Envelope::read(inbound.body).map_err(|_| Refusal::params("Invalid JSON body."))?;
    let source = envelope.event_source.as_ref().and_then(Json::text).unwrap_or("");
    if !SOURCES.contains(&source) {
        let shown = envelope.event_source.as_ref().map_or_else(|| "null".to_owned(), Json::shown);
        return Err(Refusal::params(format!(
            "Invalid value for event_source: {shown} is not one of {SOURCES:?}."
        )));
    }
    let Some(source_id) = envelope.event_source_id.as_ref().and_then(Json::text).filter(|id| !id.is_empty())
    else {
        return Err(Refusal::params("Invalid value for event_source_id: not a valid string."));
    };
    if !known.iter().any(|(kind, id)| kind == source && id == source_id) {
        let text = format!(
            "No permission to operate pixel code: {source_id}. You must be an admin or operator of this advertiser account."
        );
        return Err(Refusal(40001, text.into()));
    }
    let items = match &envelope.data {
        Some(Items::List(items)) if (1..=MAX_EVENTS).contains(&items.len()) => items,
        Some(Items::Other) => return Err(Refusal::params("Invalid value for data: not a valid list.")),
        Some(Items::List(_)) | None => return Err(Refusal(40061, "Invalid batch size.".into())),
    };
    let mut arrivals = Vec::with_capacity(items.len());
    let mut failed = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let checked = item::check(index, item, source, inbound.now, options)?;
        match inbound.is_bad(item.text) {
            Some(true) => {
                let text =
                    format!("Invalid value for data.{index}.properties.content_ids: not a valid list.");
                return Err(Refusal::params(text));
            }
            Some(false) => return Err(Refusal::params("Invalid value for content_ids: not a valid list.")),
            None => {}
        }
        if inbound.failing(index) {
            failed.push(index);
            continue;
        }
        let key = (!checked.id.is_empty()).then(|| Key::of(&[source_id, checked.name, checked.id]));
        arrivals.push(Arrival {
            key,
            identity: source_id,
            name: checked.name.into(),
            id: checked.id.into(),
            time: checked.time,
            value: checked.value,
            currency: checked.currency.map(Cow::Borrowed),
            body: item.text,
        });
    }
    let book = world.book(Platform::TikTok);
    if envelope.test_event_code.as_ref().and_then(Json::text).is_some_and(|code| !code.is_empty()) {
        // Shown in Events Manager and not processed. Source: TikTok, "Test events"; 2026-11.
        book.open().totals.test_events += arrivals.len() as u64;
    } else {
        book.accept(&arrivals, inbound.now, DEDUP_WINDOW);
    }
    if failed.is_empty() {
        return Ok(wire(0, "OK", json!({}), inbound.now));
    }
    book.open().totals.refused_events += failed.len() as u64;
    let code = match inbound.fault {
        Some(Fault::PartialFailure { code: Some(code), .. }) => code.parse().unwrap_or(40000),
        _ => 50000,
    };
    let code_of = |index| if inbound.failing_for_good(index) { 40002 } else { code };
    let errors: Vec<Value> =
        failed.iter().map(|index| json!({ "index": index, "code": code_of(*index) })).collect();
    Ok(wire(20001, "Partial success", json!({ "failed_events": errors }), inbound.now))
}
