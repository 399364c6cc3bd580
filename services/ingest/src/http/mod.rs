//! The Segment-compatible edge: what unmodified SDKs send, answered as they expect.
//!
//! Modules in reading order: [`endpoint`] (paths), [`body`] (bounded reading and inflating), [`events`] (batches and single
//! calls), [`pixel`], [`shopify`] (its webhooks), [`settings`] (what analytics.js asks for at start), [`cors`], [`answer`] (every body that goes out),
//! [`person`] (address and headers of who connects).
//!
//! One handler looks at path and method itself, since SDKs disagree about slashes, and no answer may be a redirect: a
//! redirect counts as success for two of them.

mod answer;
mod body;
mod cors;
mod endpoint;
mod events;
mod person;
mod pixel;
mod settings;
mod shopify;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::Method;
use tracklayer_ids::MasterKey;

use crate::ingest::Ingest;
use answer::Refusal;
use endpoint::Endpoint;

/// What the edge is told about its surroundings.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// Longest time to read one request's body.
    pub body_timeout: Duration,
    /// Proxies in front that append to `X-Forwarded-For`.
    pub trusted_proxies: u32,
    /// `http` or `https` where it is not to be found out.
    pub public_protocol: Option<String>,
    /// Under which webhooks' secrets are sealed.
    pub master_key: MasterKey,
}

#[derive(Debug, Clone)]
struct Edge {
    ingest: Arc<Ingest>,
    settings: Arc<EdgeSettings>,
}

/// The edge as a service.
pub fn router(ingest: Arc<Ingest>, settings: EdgeSettings) -> Router {
    Router::new().fallback(handle).with_state(Edge { ingest, settings: Arc::new(settings) })
}

async fn handle(State(edge): State<Edge>, request: Request) -> Response {
    let origin = request.headers().get(http::header::ORIGIN).cloned();
    let mut response = dispatch(&edge, request).await;
    cors::mark(&mut response, origin);
    response
}

async fn dispatch(edge: &Edge, request: Request) -> Response {
    let Some(endpoint) = Endpoint::of(request.uri().path()) else {
        return answer::refused(&Refusal::not_found());
    };
    if request.method() == Method::OPTIONS {
        return cors::preflight(request.headers());
    }
    if request.method() != endpoint.method()
        && !(request.method() == Method::HEAD && endpoint.method() == Method::GET)
    {
        return answer::refused(&Refusal::wrong_method(endpoint.method()));
    }
    let (head, body) = request.into_parts();
    match endpoint {
        Endpoint::Batch => events::batch(edge, &head, body).await,
        Endpoint::Single(event_type) => events::single(edge, &head, body, event_type).await,
        Endpoint::Metrics => {
            // What the SDK measures about itself.
            body::discard(body).await;
            answer::success()
        }
        Endpoint::Pixel(event_type) => pixel::pixel(edge, &head, event_type).await,
        Endpoint::Settings(write_key) => settings::settings(edge, &head, &write_key),
        Endpoint::Shopify(write_key) => shopify::webhook(edge, &head, body, &write_key).await,
        Endpoint::GpcSupport => answer::gpc_support(),
    }
}
