//! An HTTP proxy before the ad platforms' sandbox that keeps each request as it came: method, address, headers, body, byte for
//! byte. What it is asked goes on to the sandbox, and the sandbox's answer back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use tokio::task::AbortHandle;

/// Largest body that is taken.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its method.
    pub method: Method,
    /// `http://host:port/path?query`, as the client had it.
    pub url: String,
    /// All headers, those of the HTTP client included.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What the sandbox answered; none: the client did not get its answer.
    pub status: Option<StatusCode>,
}

struct Recording {
    address: SocketAddr,
    target: String,
    http: reqwest::Client,
    requests: Mutex<Vec<Recorded>>,
}

/// A recorder on a port of 127.0.0.1, until it is dropped.
pub struct Recorder {
    recording: Arc<Recording>,
    serving: AbortHandle,
}

impl Recorder {
    /// Records what goes to the server at `target`, `http://host:port`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: &str) -> anyhow::Result<Self> {
        let listener =
            tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("no free port for a recorder")?;
        let recording = Arc::new(Recording {
            address: listener.local_addr()?,
            target: target.trim_end_matches('/').to_owned(),
            http: reqwest::Client::new(),
            requests: Mutex::default(),
        });
        let router = Router::new().fallback(pass_on).with_state(Arc::clone(&recording));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { recording, serving: serving.abort_handle() })
    }

    /// `http://host:port` of the recorder.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.recording.address)
    }

    /// The requests so far, in the order in which they came.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.recording.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass_on(State(recording): State<Arc<Recording>>, request: Request) -> Response {
    let failed = |why: String| {
        let mut response = Response::new(Body::from(why));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    };
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let body = match axum::body::to_bytes(body, MOST_BYTES).await {
        Ok(body) => body,
        Err(error) => return failed(error.to_string()),
    };
    let place = {
        let mut requests = recording.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(Recorded {
            method: parts.method.clone(),
            url: format!("http://{}{path}", recording.address),
            headers: parts.headers.clone(),
            body: body.clone(),
            status: None,
        });
        requests.len() - 1
    };
    let mut headers = parts.headers;
    for of_this_hop in ["host", "content-length", "connection"] {
        headers.remove(of_this_hop);
    }
    let onward = recording.http.request(parts.method, format!("{}{path}", recording.target));
    let answer = match onward.headers(headers).body(body).send().await {
        Ok(answer) => answer,
        Err(error) => return failed(error.to_string()),
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    for of_this_hop in ["transfer-encoding", "content-length", "connection"] {
        headers.remove(of_this_hop);
    }
    let body = match answer.bytes().await {
        Ok(body) => body,
        Err(error) => return failed(error.to_string()),
    };
    recording.requests.lock().unwrap_or_else(PoisonError::into_inner)[place].status = Some(status);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
