//! What the library shows, over HTTP, for tests with separate processes and for people: `GET
//! /_sandbox/totals`, `GET /_sandbox/events?platform=&after=&limit=&event_id=`, `GET
//! /_sandbox/orders?platform=`, `GET /_sandbox/requests?last=`, `POST /_sandbox/faults`, `DELETE /_sandbox/faults?platform=`, `GET
//! /_sandbox/health`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::exchange::World;
use crate::fault::{Fault, How};
use crate::orders::OrderWorth;
use crate::platform::Platform;
use crate::store::{Counted, SeenRequest, Totals};

/// The largest page of events.
const MAX_PAGE: usize = 50_000;
const PAGE: usize = 1_000;

/// One page of counted events.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EventsPage {
    pub(crate) events: Vec<Counted>,
    /// The `after` of the next page; none at the end.
    pub(crate) next: Option<u64>,
}

/// A fault and how long it lasts: `times`, else `seconds`, else until it is cleared.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewFault {
    pub(crate) platform: Platform,
    pub(crate) fault: Fault,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) times: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    platform: Platform,
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
    event_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrdersQuery {
    platform: Platform,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestsQuery {
    last: Option<usize>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsQuery {
    platform: Option<Platform>,
}

/// What is wrong with a call of these pages.
enum Refused {
    Query(QueryRejection),
    Body(JsonRejection),
    Seconds,
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::Query(rejection)
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self::Body(rejection)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let why = match self {
            Self::Query(rejection) => rejection.body_text(),
            Self::Body(rejection) => rejection.body_text(),
            Self::Seconds => "seconds must be a number from 0 to 1000000".to_owned(),
        };
        (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "error": why }))).into_response()
    }
}

/// The routes of these pages.
pub(crate) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/_sandbox/health", get(async || StatusCode::NO_CONTENT))
        .route("/_sandbox/totals", get(totals))
        .route("/_sandbox/events", get(events))
        .route("/_sandbox/orders", get(orders))
        .route("/_sandbox/requests", get(requests))
        .route("/_sandbox/faults", post(inject).delete(clear))
}

async fn totals(State(world): State<Arc<World>>) -> Json<BTreeMap<Platform, Totals>> {
    Json(world.totals())
}

async fn events(
    State(world): State<Arc<World>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<EventsPage>, Refused> {
    let Query(query) = query?;
    let book = world.book(query.platform);
    if let Some(id) = query.event_id {
        return Ok(Json(EventsPage { events: book.open().with_id(&id), next: None }));
    }
    let limit = query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let events = book.open().counted(query.after, limit);
    let next = events.last().filter(|_| events.len() == limit).map(|last| last.order);
    Ok(Json(EventsPage { events, next }))
}

async fn orders(
    State(world): State<Arc<World>>,
    query: Result<Query<OrdersQuery>, QueryRejection>,
) -> Result<Json<Vec<OrderWorth>>, Refused> {
    let Query(query) = query?;
    let counted = world.book(query.platform).open().counted(0, usize::MAX);
    Ok(Json(crate::orders::worth(query.platform, &counted)))
}

async fn requests(
    State(world): State<Arc<World>>,
    query: Result<Query<RequestsQuery>, QueryRejection>,
) -> Result<Json<Vec<SeenRequest>>, Refused> {
    let Query(query) = query?;
    let mut seen = world.requests.last(usize::MAX);
    if let Some(platform) = query.platform {
        seen.retain(|request| request.platform == platform);
    }
    let older = seen.len().saturating_sub(query.last.unwrap_or(100));
    seen.drain(..older);
    Ok(Json(seen))
}

async fn inject(
    State(world): State<Arc<World>>,
    body: Result<Json<NewFault>, JsonRejection>,
) -> Result<StatusCode, Refused> {
    let Json(new) = body?;
    let how = match (new.times, new.seconds) {
        (Some(times), _) => How::Times(times),
        (None, Some(seconds)) if (0.0..=1e6).contains(&seconds) => How::For(Duration::from_secs_f64(seconds)),
        (None, Some(_)) => return Err(Refused::Seconds),
        (None, None) => How::Always,
    };
    world.faults.inject(new.platform, new.fault, how, Instant::now());
    Ok(StatusCode::NO_CONTENT)
}

async fn clear(
    State(world): State<Arc<World>>,
    query: Result<Query<FaultsQuery>, QueryRejection>,
) -> Result<StatusCode, Refused> {
    let Query(query) = query?;
    match query.platform {
        Some(platform) => world.faults.clear(platform),
        None => Platform::ALL.into_iter().for_each(|platform| world.faults.clear(platform)),
    }
    Ok(StatusCode::NO_CONTENT)
}
