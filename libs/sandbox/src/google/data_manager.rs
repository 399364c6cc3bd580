//! The Data Manager API: `POST /v1/events:ingest` and `GET /v1/requestStatus:retrieve`. One bad event and
//! nothing is processed; a 200 means accepted and no more.
//!
//! Source: Google, Data Manager API, "Send events", "Understand errors", "Limits"; 2026-11.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::data_manager_shape::REQUEST;
use super::events::{Violation, check_event, count};
use super::verdict::DestinationVerdict;
use super::{authorise, error};
use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::json::{Json, Object};
use crate::options::{ActionKind, ConversionAction, Customer, DATAMANAGER_SCOPE};
use crate::platform::Platform;

/// Source: Google, Data Manager API, "Limits"; 2026-11.
const MAX_EVENTS: usize = 2_000;
const MAX_DESTINATIONS: usize = 10;
/// Violations listed in one answer.
const MAX_VIOLATIONS: usize = 20;

/// A destination that is there.
pub(super) struct Target<'a> {
    pub(super) reference: &'a str,
    pub(super) customer: &'a Customer,
    pub(super) action: &'a ConversionAction,
    pub(super) shown: Value,
}

/// Answers a request.
pub(crate) fn answer(world: &World, inbound: &Inbound<'_>) -> Answer {
    let answered = match (inbound.method, inbound.path) {
        (&Method::POST, "/v1/events:ingest") => ingest(world, inbound),
        (&Method::GET, "/v1/requestStatus:retrieve") => status(world, inbound),
        _ => return Answer::html(404, "Error 404 (Not Found)!!1"),
    };
    answered.unwrap_or_else(|refusal| refusal)
}

fn status(world: &World, inbound: &Inbound<'_>) -> Result<Answer, Answer> {
    authorise(world, inbound, DATAMANAGER_SCOPE)?;
    let request =
        inbound.parameter("requestId").or_else(|| inbound.parameter("request_id")).unwrap_or_default();
    let after = world.options.google.verdict_after;
    match world.google.verdicts.about(&request, inbound.now, after) {
        Some(body) => Ok(Answer::json(200, &body)),
        None => {
            Err(refused(&[Violation::new("request_id", "Request ID is not valid.", "INVALID_REQUEST_ID")]))
        }
    }
}

fn ingest(world: &World, inbound: &Inbound<'_>) -> Result<Answer, Answer> {
    authorise(world, inbound, DATAMANAGER_SCOPE)?;
    let limit = world.options.google.requests_per_minute;
    world.google.quota.take(limit, inbound.now).map_err(over_quota)?;
    let read = error::read(inbound.body, &REQUEST)?;
    let object = &read.object;
    let events: Vec<&Object<'_>> = objects(object.proto_list("events"));
    let texts = read.proto_texts("events", events.len());
    let targets = find_targets(world, object)?;
    check_sizes(&events)?;
    let encoding = encoding_of(object);
    let mut violations = Vec::new();
    for (index, event) in events.iter().enumerate() {
        check_event(index, event, encoding, &targets, &mut violations);
        if inbound.is_bad(texts[index]).is_some() {
            let field = format!("events.events[{index}].event_timestamp");
            let text = "Event time is not valid.".to_owned();
            violations.push(Violation { field, text, reason: "EVENT_TIME_INVALID" });
        }
        if violations.len() >= MAX_VIOLATIONS {
            break;
        }
    }
    if !violations.is_empty() {
        return Err(refused(&violations));
    }
    let request = uuid::Uuid::new_v4().to_string();
    let mut body = json!({ "requestId": request });
    let warnings = warnings(&events);
    if !warnings.is_empty() {
        body["fieldWarnings"] = json!(warnings);
    }
    if object.proto("validateOnly") == Some(&Json::Flag(true)) {
        return Ok(Answer::json(200, &body));
    }
    let mut pages = world.book(Platform::DataManager).open();
    pages.totals.events_received += events.len() as u64;
    let verdicts: Vec<DestinationVerdict> = targets
        .iter()
        .map(|target| {
            let mut verdict =
                DestinationVerdict { destination: target.shown.clone(), records: 0, errors: BTreeMap::new() };
            for (index, event) in events.iter().enumerate() {
                if !meant_for(event, target.reference) {
                    continue;
                }
                verdict.records += 1;
                let failing = inbound.failing(index);
                if let Err(reason) = count(&mut pages, target, event, texts[index], inbound.now, failing) {
                    *verdict.errors.entry(reason).or_default() += 1;
                    pages.totals.refused_events += u64::from(!reason.starts_with("DUPLICATE"));
                }
            }
            verdict
        })
        .collect();
    drop(pages);
    world.google.verdicts.remember(&request, inbound.now, verdicts);
    Ok(Answer::json(200, &body))
}

fn objects<'a>(list: &'a [Json<'a>]) -> Vec<&'a Object<'a>> {
    list.iter()
        .filter_map(|item| match item {
            Json::Object(object) => Some(object),
            _ => None,
        })
        .collect()
}

fn meant_for(event: &Object<'_>, reference: &str) -> bool {
    let references = event.proto_list("destinationReferences");
    references.is_empty() || references.iter().any(|wanted| wanted.text() == Some(reference))
}

/// How digests are written; needed only where there are any.
fn encoding_of(object: &Object<'_>) -> Option<&'static str> {
    match object.proto("encoding") {
        Some(Json::Text(text)) if text == "HEX" => Some("HEX"),
        Some(Json::Text(text)) if text == "BASE64" => Some("BASE64"),
        Some(Json::Int(1)) => Some("HEX"),
        Some(Json::Int(2)) => Some("BASE64"),
        _ => None,
    }
}

fn over_quota(seconds: u64) -> Answer {
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com",
    });
    let retry =
        json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{seconds}s") });
    error::status(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", &[info, retry])
}

/// 400 with these violations.
fn refused(violations: &[Violation]) -> Answer {
    let request = format!("t-{}", uuid::Uuid::new_v4());
    let violations: Vec<Value> = violations.iter().map(Violation::wire).collect();
    let details = [
        json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "INVALID_ARGUMENT",
            "domain": "datamanager.googleapis.com",
            "metadata": { "requestId": request },
        }),
        json!({ "@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": request }),
        json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations }),
    ];
    error::status(400, "INVALID_ARGUMENT", "There was a problem with the request.", &details)
}

fn permission_denied() -> Answer {
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "PERMISSION_DENIED",
        "domain": "datamanager.googleapis.com",
    });
    error::status(403, "PERMISSION_DENIED", "The caller does not have permission", &[info])
}

fn check_sizes(events: &[&Object<'_>]) -> Result<(), Answer> {
    match events.len() {
        0 => {
            Err(refused(&[Violation::new("events", "Required field is missing.", "REQUIRED_FIELD_MISSING")]))
        }
        1..=MAX_EVENTS => Ok(()),
        _ => Err(refused(&[Violation::new(
            "events",
            "There are too many events in the request. Maximum is 2000.",
            "TOO_MANY_EVENTS",
        )])),
    }
}

fn find_targets<'w>(world: &'w World, object: &'w Object<'w>) -> Result<Vec<Target<'w>>, Answer> {
    let list = object.proto_list("destinations");
    let destinations = objects(list);
    if destinations.is_empty() {
        let violation =
            Violation::new("destinations", "Required field is missing.", "REQUIRED_FIELD_MISSING");
        return Err(refused(&[violation]));
    }
    if destinations.len() > MAX_DESTINATIONS {
        let violation = Violation::new(
            "destinations",
            "There are too many destinations in the request. Maximum is 10.",
            "TOO_MANY_DESTINATIONS",
        );
        return Err(refused(&[violation]));
    }
    destinations
        .into_iter()
        .enumerate()
        .map(|(index, destination)| find_target(world, index, destination))
        .collect()
}

/// The customer and its action. The operating account is the one that owns the action.
fn find_target<'w>(
    world: &'w World,
    index: usize,
    destination: &'w Object<'w>,
) -> Result<Target<'w>, Answer> {
    let bad = |field: &str, text: &str, reason: &'static str| {
        let field = format!("destinations.destinations[{index}].{field}");
        Err(refused(&[Violation { field, text: text.to_owned(), reason }]))
    };
    let Some(account) = destination.proto_object("operatingAccount") else {
        return bad("operating_account", "Required field is missing.", "REQUIRED_FIELD_MISSING");
    };
    let kind = account.proto("accountType").or_else(|| account.proto("product"));
    let is_ads = match kind {
        Some(Json::Text(kind)) => kind == "GOOGLE_ADS",
        Some(Json::Int(kind)) => *kind == 1,
        _ => {
            return bad(
                "operating_account.account_type",
                "Required field is missing.",
                "REQUIRED_FIELD_MISSING",
            );
        }
    };
    if !is_ads {
        return bad(
            "operating_account",
            "Only Google Ads accounts are known here.",
            "MISMATCHED_ACCOUNT_TYPE",
        );
    }
    let id = account.proto_text("accountId").unwrap_or("");
    let found = world.options.google.customers.iter().find(|customer| customer.id == id);
    let login = destination.proto_object("loginAccount").and_then(|login| login.proto_text("accountId"));
    let customer = found
        .filter(|found| match login {
            None => found.direct,
            Some(login) => (found.direct && login == found.id) || found.managers.iter().any(|id| id == login),
        })
        .ok_or_else(permission_denied)?;
    let action = destination.proto_text("productDestinationId").unwrap_or("");
    let Some(action) = customer.actions.iter().find(|known| known.id == action) else {
        return bad(
            "product_destination_id",
            "Conversion action ID is not valid.",
            "INVALID_CONVERSION_ACTION_ID",
        );
    };
    let reference = destination.proto_text("reference").unwrap_or("");
    let shown = json!({
        "reference": reference,
        "operatingAccount": { "accountType": "GOOGLE_ADS", "accountId": id },
        "productDestinationId": action.id,
    });
    Ok(Target { reference, customer, action, shown })
}

/// Cart data beside a braid is left out with a warning.
fn warnings(events: &[&Object<'_>]) -> Vec<Value> {
    let braid = |event: &Object<'_>| {
        event
            .proto_object("adIdentifiers")
            .is_some_and(|ids| ids.proto("gbraid").is_some() || ids.proto("wbraid").is_some())
    };
    events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.proto("cartData").is_some() && braid(event))
        .map(|(index, _)| {
            json!({
                "field": format!("events.events[{index}].cart_data"),
                "description": "Cart data is not supported with gbraid or wbraid.",
                "reason": "PROCESSING_WARNING_REASON_UNSPECIFIED",
            })
        })
        .collect()
}

/// Whether events of this action need a transaction id: those that a tag counts, too.
pub(super) fn needs_transaction(targets: &[Target<'_>]) -> bool {
    targets.iter().any(|target| target.action.kind == ActionKind::Webpage)
}
