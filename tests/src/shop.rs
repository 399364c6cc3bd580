//! The sample shop: one page on a port of its own, so that its SDK talks to the edge across origins, as in life. The SDK is
//! the npm package's own bundle.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::{Running, clients};

const PAGE: &str = include_str!("../fixtures/shop/index.html");

/// A running shop; closes when it is dropped.
pub struct Shop {
    address: std::net::SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Shop {
    /// Opens on a free port.
    ///
    /// # Errors
    /// The SDK is not installed, no port is free.
    pub async fn open() -> anyhow::Result<Self> {
        let bundle = clients::npm_package("@segment/analytics-next")?.join("dist/umd");
        anyhow::ensure!(bundle.join("index.js").is_file(), "no SDK in {}", bundle.display());
        let pages = Router::new()
            .route("/", get(async || Html(PAGE)))
            .route("/sdk/{file}", get(sdk))
            .with_state(Arc::new(bundle));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("no free port")?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, pages).await;
        });
        Ok(Self { address, server })
    }

    /// The shop's page, set up for a source of the platform.
    #[must_use]
    pub fn page(&self, platform: &Running, source: &str) -> String {
        let edge = platform.addresses().ingest_http.trim_start_matches("http://");
        let key = platform.write_key(source);
        // `localhost`, so that page and edge differ in host as well as in port.
        format!("http://localhost:{}/?edge={edge}&key={key}", self.address.port())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn sdk(State(bundle): State<Arc<PathBuf>>, Path(file): Path<String>) -> Response {
    let plain = file.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    match plain.then(|| std::fs::read(bundle.join(&file))) {
        Some(Ok(script)) => {
            ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], script).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
