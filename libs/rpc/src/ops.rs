//! The operators' port of each service: `/metrics`, `/healthz` (alive), `/readyz` (send me traffic).

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use std::sync::Arc;
use tokio::sync::watch;

/// Whether a service wants traffic, and why not. Cheap to clone; starts as not ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: Arc<watch::Sender<(bool, String)>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Not ready: starting.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new((false, "starting".to_owned()))) }
    }

    /// Says it anew; a change is logged.
    pub fn set(&self, ready: bool, why: impl Into<String>) {
        let why = why.into();
        let changed = self.state.send_if_modified(|state| {
            let changed = state.0 != ready || state.1 != why;
            *state = (ready, why.clone());
            changed
        });
        if changed {
            tracing::info!(ready, why, "readiness changed");
        }
    }

    /// Whether it is ready, and why.
    #[must_use]
    pub fn get(&self) -> (bool, String) {
        self.state.borrow().clone()
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.state.subscribe().wait_for(|state| state.0).await;
    }
}

/// `/metrics` in Prometheus' text format, `/healthz` 200 while the process runs, `/readyz` 200 or 503 with the reason.
pub fn ops_router(ready: Readiness) -> Router {
    tracklayer_telemetry::install_recorder();
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(ready)
}

async fn metrics() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        tracklayer_telemetry::render_metrics(),
    )
}

async fn readyz(State(ready): State<Readiness>) -> impl IntoResponse {
    let (ready, why) = ready.get();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{why}\n"))
}
