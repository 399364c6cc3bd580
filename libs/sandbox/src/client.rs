//! The sandbox as seen from another process, over its admin pages.

use std::collections::BTreeMap;

use crate::admin::{EventsPage, NewFault};
use crate::fault::{Fault, How};
use crate::orders::OrderWorth;
use crate::platform::Platform;
use crate::store::{Counted, SeenRequest, Totals};

/// A client of a running sandbox.
#[derive(Debug, Clone)]
pub struct SandboxClient {
    base_url: String,
    http: reqwest::Client,
}

/// A call of the sandbox failed.
#[derive(Debug, thiserror::Error)]
#[error("could not ask the sandbox for {what}")]
pub struct ClientError {
    what: &'static str,
    #[source]
    source: reqwest::Error,
}

const PAGE: usize = 10_000;

impl SandboxClient {
    /// A client of the sandbox at `http://host:port`.
    pub fn new(base_url: &str) -> Self {
        Self { base_url: base_url.trim_end_matches('/').to_owned(), http: reqwest::Client::new() }
    }

    /// What each platform was asked and what it made of it.
    ///
    /// # Errors
    /// The sandbox is away.
    pub async fn totals(&self) -> Result<BTreeMap<Platform, Totals>, ClientError> {
        self.read("totals", &format!("{}/_sandbox/totals", self.base_url)).await
    }

    /// Everything that a platform counted, in the order of arrival, page by page.
    ///
    /// # Errors
    /// The sandbox is away.
    pub async fn counted(&self, platform: Platform) -> Result<Vec<Counted>, ClientError> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let url =
                format!("{}/_sandbox/events?platform={platform}&after={after}&limit={PAGE}", self.base_url);
            let page: EventsPage = self.read("events", &url).await?;
            all.extend(page.events);
            match page.next {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// What each order is worth at a platform by now, see [`crate::orders`].
    ///
    /// # Errors
    /// The sandbox is away.
    pub async fn orders(&self, platform: Platform) -> Result<Vec<OrderWorth>, ClientError> {
        self.read("orders", &format!("{}/_sandbox/orders?platform={platform}", self.base_url)).await
    }

    /// The newest requests, at most `last`.
    ///
    /// # Errors
    /// The sandbox is away.
    pub async fn requests(&self, last: usize) -> Result<Vec<SeenRequest>, ClientError> {
        self.read("requests", &format!("{}/_sandbox/requests?last={last}", self.base_url)).await
    }

    /// Puts a fault on a platform.
    ///
    /// # Errors
    /// The sandbox is away.
    pub async fn inject(&self, platform: Platform, fault: Fault, how: How) -> Result<(), ClientError> {
        let (times, seconds) = match how {
            How::Times(times) => (Some(times), None),
            How::For(time) => (None, Some(time.as_secs_f64())),
            How::Always => (None, None),
        };
        let request = self.http.post(format!("{}/_sandbox/faults", self.base_url));
        self.send("a fault", request.json(&NewFault { platform, fault, times, seconds })).await.map(drop)
    }

    /// Removes a platform's faults.
    ///
    /// # Errors
    /// The sandbox is away.
    pub async fn clear(&self, platform: Platform) -> Result<(), ClientError> {
        let request = self.http.delete(format!("{}/_sandbox/faults?platform={platform}", self.base_url));
        self.send("no faults", request).await.map(drop)
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        url: &str,
    ) -> Result<T, ClientError> {
        let response = self.send(what, self.http.get(url)).await?;
        response.json().await.map_err(|source| ClientError { what, source })
    }

    async fn send(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ClientError> {
        let sent = request.send().await.and_then(reqwest::Response::error_for_status);
        sent.map_err(|source| ClientError { what, source })
    }
}
