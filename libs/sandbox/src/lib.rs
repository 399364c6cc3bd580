//! The ad platforms' stand-ins: Meta's Conversions API, Google's OAuth, Ads, Data Manager and GA4 Measurement
//! Protocol, TikTok's Events API, and a receiver of Standard Webhooks, behind one port. They answer like the
//! platforms as far as these publish it, refuse what they refuse, in their words and order of checks,
//! remember what they counted after their own documented deduplication, and go wrong on command. Where a
//! platform is silent, the stricter reading is taken.
//!
//! Connectors talk to it through the same HTTP client as to the real address; only the base URL differs.
//!
//! Modules in reading order: [`options`] (credentials and switches), [`platform`] (whose path is whose),
//! [`fault`], `serve` (connections), `exchange` (one request from headers to answer), `store` (what was
//! counted), [`orders`] (what an order is worth after its adjustments), `json` and `shape` (requests as trees, and tables of what may be in them), `meta`, `tiktok`,
//! `google`, `ga4`, `webhook`, [`in_process`] (without a port), `admin` (the same views over HTTP) and [`client`] (for another
//! process).

mod admin;
mod answer;
pub mod client;
pub mod clock;
mod exchange;
pub mod fault;
mod ga4;
mod google;
pub mod in_process;
mod json;
mod meta;
pub mod options;
pub mod orders;
pub mod platform;
mod serve;
mod shape;
mod store;
mod tiktok;
mod webhook;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use client::SandboxClient;
pub use clock::Clock;
pub use fault::{Fault, How};
pub use in_process::Platforms;
pub use options::Options;
pub use orders::OrderWorth;
pub use platform::Platform;
pub use store::{Counted, SeenRequest, Totals};
pub use webhook::{SecretError, sign as sign_webhook};

use exchange::World;

/// A running sandbox. Clones are handles to the same one.
#[derive(Clone)]
pub struct Sandbox {
    world: Arc<World>,
    address: SocketAddr,
    server: TaskTracker,
}

/// Why a sandbox could not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address is taken or not ours.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A webhook secret cannot be used.
    #[error("the secret of webhook `{name}` is not usable")]
    WebhookSecret {
        /// The webhook; empty for the default secret.
        name: String,
        /// What is wrong with it.
        #[source]
        source: SecretError,
    },
}

impl Sandbox {
    /// Listens on `address` (port 0: any free one) and serves until `shutdown`.
    ///
    /// # Errors
    /// The address cannot be had, or a webhook secret is not `whsec_` and base64.
    pub async fn start(
        address: SocketAddr,
        options: Options,
        shutdown: CancellationToken,
    ) -> Result<Self, SandboxError> {
        let world = Arc::new(World::new(options)?);
        let listen = |source| SandboxError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let server = TaskTracker::new();
        server.spawn(serve::serve(listener, exchange::router(Arc::clone(&world)), shutdown));
        server.close();
        Ok(Self { world, address: bound, server })
    }

    /// Resolves when the port is free again after the stop.
    pub async fn stopped(&self) {
        self.server.wait().await;
    }

    /// The address that it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://host:port`, without a path; every platform's own paths work below it.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn url_of(&self, platform: Platform) -> String {
        format!("{}{}", self.base_url(), platform.prefix())
    }

    /// Instead of `https://graph.facebook.com`.
    pub fn meta_url(&self) -> String {
        self.url_of(Platform::Meta)
    }

    /// Instead of `https://googleads.googleapis.com`.
    pub fn google_ads_url(&self) -> String {
        self.url_of(Platform::GoogleAds)
    }

    /// Instead of `https://datamanager.googleapis.com`.
    pub fn data_manager_url(&self) -> String {
        self.url_of(Platform::DataManager)
    }

    /// Instead of `https://oauth2.googleapis.com/token`: the whole address of the token endpoint.
    pub fn google_token_url(&self) -> String {
        format!("{}/token", self.url_of(Platform::GoogleToken))
    }

    /// Instead of `https://business-api.tiktok.com`.
    pub fn tiktok_url(&self) -> String {
        self.url_of(Platform::TikTok)
    }

    /// Instead of `https://www.google-analytics.com`.
    pub fn ga4_url(&self) -> String {
        self.url_of(Platform::Ga4)
    }

    /// The whole address of a webhook.
    pub fn webhook_url(&self, name: &str) -> String {
        format!("{}/webhook/{name}", self.base_url())
    }

    /// Everything that a platform counted, in the order of arrival.
    pub fn counted(&self, platform: Platform) -> Vec<Counted> {
        self.world.book(platform).open().counted(0, usize::MAX)
    }

    /// What each order is worth at a platform by now, see [`orders`].
    pub fn orders(&self, platform: Platform) -> Vec<OrderWorth> {
        orders::worth(platform, &self.counted(platform))
    }

    /// What each platform was asked and what it made of it.
    pub fn totals(&self) -> BTreeMap<Platform, Totals> {
        self.world.totals()
    }

    /// The newest requests, at most `last`, oldest of them first.
    pub fn requests(&self, last: usize) -> Vec<SeenRequest> {
        self.world.requests.last(last)
    }

    /// Puts a fault on a platform, behind those that are there.
    pub fn inject(&self, platform: Platform, fault: Fault, how: How) {
        self.world.faults.inject(platform, fault, how, Instant::now());
    }

    /// Removes a platform's faults.
    pub fn clear(&self, platform: Platform) {
        self.world.faults.clear(platform);
    }
}
