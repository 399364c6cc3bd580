//! A workspace with one partition, one source and one connection of each kind, and what can be asked of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_proto::control::v1::control_service_client::ControlServiceClient;
use tracklayer_proto::control::v1::{
    CreateSourceRequest, CreateWorkspaceRequest, PauseConnectionRequest, PutConnectionRequest,
    ResumeConnectionRequest, SetReleasePaceRequest,
};
use tracklayer_proto::delivery::v1::delivery_service_client::DeliveryServiceClient;
use tracklayer_proto::delivery::v1::{ConnectionStats, DeliveryStory, GetStatsRequest, ShowEventRequest};
use tracklayer_rpc::Channel;
use tracklayer_sandbox::{Platform as AdPlatform, SandboxClient, options};
use tracklayer_tests::{Running, eventually, eventually_within};

/// Every kind of connection to a platform, with the platform.
pub const KINDS: [Kind; 6] =
    [Kind::Meta, Kind::TikTok, Kind::GoogleAds, Kind::DataManager, Kind::Ga4, Kind::Webhook];

/// Events in one call of ingest.
const BATCH: usize = 250;
/// How long a fault may take to be over.
const REST: Duration = Duration::from_secs(240);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Meta,
    TikTok,
    GoogleAds,
    DataManager,
    Ga4,
    Webhook,
}

impl Kind {
    pub const fn platform(self) -> AdPlatform {
        match self {
            Self::Meta => AdPlatform::Meta,
            Self::TikTok => AdPlatform::TikTok,
            Self::GoogleAds => AdPlatform::GoogleAds,
            Self::DataManager => AdPlatform::DataManager,
            Self::Ga4 => AdPlatform::Ga4,
            Self::Webhook => AdPlatform::Webhook,
        }
    }

    /// As the table calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Meta => "Meta",
            Self::TikTok => "TikTok",
            Self::GoogleAds => "Google Ads API",
            Self::DataManager => "Data Manager",
            Self::Ga4 => "GA4",
            Self::Webhook => "webhook",
        }
    }

    /// Whether a request holds many events; else each event is a request.
    pub const fn batches(self) -> bool {
        !matches!(self, Self::Ga4 | Self::Webhook)
    }

    fn name(self) -> String {
        self.platform().to_string().replace('_', "-")
    }

    /// The connection's document, its platform behind that address.
    pub fn document(self, sandbox: &str, at: &str) -> Value {
        let base_url = match self {
            Self::Webhook => format!("{at}/webhook/faults"),
            _ => format!("{at}/{}", self.name()),
        };
        let oauth = json!({
            "client_id": options::GOOGLE_CLIENT_ID, "client_secret": options::GOOGLE_CLIENT_SECRET,
            "refresh_token": options::GOOGLE_REFRESH_TOKEN, "token_url": format!("{sandbox}/google-oauth/token"),
        });
        let (kind, settings) = match self {
            Self::Meta => (
                "meta_capi",
                json!({
                    "dataset_id": options::META_DATASET, "access_token": options::META_TOKEN, "base_url": base_url,
                }),
            ),
            Self::TikTok => (
                "tiktok_events",
                json!({
                    "event_source_id": options::TIKTOK_PIXEL, "access_token": options::TIKTOK_TOKEN,
                    "base_url": base_url,
                }),
            ),
            Self::GoogleAds => (
                "google_ads",
                json!({
                    "customer_id": options::GOOGLE_CUSTOMER, "login_customer_id": options::GOOGLE_LOGIN_CUSTOMER,
                    "conversion_action_id": options::GOOGLE_CONVERSION_ACTION, "oauth": oauth, "base_url": base_url,
                }),
            ),
            Self::DataManager => (
                "google_data_manager",
                json!({
                    "operating_account": { "account_id": options::GOOGLE_CUSTOMER },
                    "login_account": { "account_id": options::GOOGLE_LOGIN_CUSTOMER },
                    "conversion_action_id": options::GOOGLE_CONVERSION_ACTION, "oauth": oauth, "base_url": base_url,
                }),
            ),
            Self::Ga4 => (
                "ga4_mp",
                json!({
                    "measurement_id": options::GA4_MEASUREMENT_ID, "api_secret": options::GA4_API_SECRET,
                    "base_url": base_url,
                }),
            ),
            Self::Webhook => ("webhook", json!({ "url": base_url, "secret": options::WEBHOOK_SECRET })),
        };
        json!({ "kind": kind, "mode": "live", "settings": settings })
    }
}

/// What stands in ledger and sandbox about a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that the platform got.
    pub requests: u64,
    /// Events that it counted.
    pub counted: u64,
    /// Events in the ledger, by state and reason.
    pub states: BTreeMap<(String, String), u64>,
}

impl Count {
    pub fn since(&self, before: &Self) -> Self {
        let states = self
            .states
            .iter()
            .map(|(state, count)| {
                (state.clone(), count.saturating_sub(before.states.get(state).copied().unwrap_or(0)))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        Self { requests: self.requests - before.requests, counted: self.counted - before.counted, states }
    }
}

/// The workspace.
pub struct Bench {
    pub platform: Running,
    workspace_id: i64,
    write_key: String,
    connections: BTreeMap<Kind, i64>,
    service_token: String,
}

impl Bench {
    /// Makes it in a running platform, with so many partitions and a connection of each kind.
    pub async fn create(platform: Running, partitions: u32) -> anyhow::Result<Self> {
        let mut bench = Self::without_connections(platform, partitions).await?;
        let sandbox = bench.platform.addresses().sandbox.clone();
        for kind in KINDS {
            let id = bench.put(kind, &sandbox).await?;
            bench.connections.insert(kind, id);
            bench.at_full_pace(id).await?;
        }
        bench.is_known(partitions, KINDS.len()).await?;
        Ok(bench)
    }

    /// The same without any connection.
    pub async fn without_connections(platform: Running, partitions: u32) -> anyhow::Result<Self> {
        let service_token = MasterKey::read(&platform.data_dir().join("master.key"))?.service_token();
        let mut bench = Self {
            platform,
            workspace_id: 0,
            write_key: String::new(),
            connections: BTreeMap::new(),
            service_token,
        };
        let mut control = bench.control();
        let request = CreateWorkspaceRequest {
            name: "faults".to_owned(),
            partitions,
            ..CreateWorkspaceRequest::default()
        };
        let made = control.create_workspace(request).await?.into_inner().workspace;
        bench.workspace_id = made.context("no workspace in the answer")?.workspace_id;
        let request = CreateSourceRequest {
            workspace_id: bench.workspace_id,
            name: "shop".to_owned(),
            channel: "server".to_owned(),
            default_place: "US-CA".to_owned(),
            ..CreateSourceRequest::default()
        };
        bench.write_key = control.create_source(request).await?.into_inner().write_key;
        Ok(bench)
    }

    /// What waits at a connection is sent as fast as it can be.
    pub async fn at_full_pace(&self, connection_id: i64) -> anyhow::Result<()> {
        let request = SetReleasePaceRequest {
            workspace_id: self.workspace_id,
            connection_id,
            release_events_per_second: Some(0),
        };
        self.control().set_release_pace(request).await?;
        Ok(())
    }

    /// Says where a connection's platform is; answers the connection's number.
    pub async fn put(&self, kind: Kind, at: &str) -> anyhow::Result<i64> {
        let sandbox = &self.platform.addresses().sandbox;
        self.put_document(&kind.name(), &kind.document(sandbox, at)).await
    }

    /// Saves a connection's document; answers the connection's number.
    pub async fn put_document(&self, name: &str, document: &Value) -> anyhow::Result<i64> {
        let request = PutConnectionRequest {
            workspace_id: self.workspace_id,
            name: name.to_owned(),
            document_json: document.to_string(),
        };
        let made = self.control().put_connection(request).await?.into_inner().connection;
        Ok(made.context("no connection in the answer")?.connection_id)
    }

    /// Waits until the edge takes events and so many connections have a lane for each partition.
    pub async fn is_known(&self, partitions: u32, connections: usize) -> anyhow::Result<()> {
        let url =
            format!("{}/v1/projects/{}/settings", self.platform.addresses().ingest_http, self.write_key);
        eventually("the edge to know the source", async || {
            let status = reqwest::get(&url).await?.status();
            if status.is_success() { Ok(()) } else { Err(anyhow::anyhow!("{status}")) }
        })
        .await;
        let pool = sqlx::PgPool::connect(&self.platform.addresses().database_url).await?;
        let wanted = i64::from(partitions) * connections as i64;
        eventually("the lanes to begin", async || {
            let (lanes,): (i64,) =
                sqlx::query_as("select count(*) from delivery.lane_cursor where workspace_id = $1")
                    .bind(self.workspace_id)
                    .fetch_one(&pool)
                    .await?;
            if lanes == wanted { Ok(()) } else { Err(anyhow::anyhow!("{lanes} of {wanted} lanes")) }
        })
        .await;
        pool.close().await;
        Ok(())
    }

    pub fn sandbox(&self) -> SandboxClient {
        self.platform.sandbox()
    }

    fn control(&self) -> ControlServiceClient<Channel> {
        let addresses = self.platform.addresses();
        ControlServiceClient::new(channel(&addresses.control, &addresses.admin_key))
    }

    fn delivery(&self) -> DeliveryServiceClient<Channel> {
        let channel = channel(&self.platform.addresses().delivery, &self.service_token);
        DeliveryServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024)
    }

    /// Pauses every connection; returns when no lane sends any more.
    pub async fn pause(&self) -> anyhow::Result<()> {
        try_join_all(self.connections.values().map(|id| {
            let mut control = self.control();
            let request = PauseConnectionRequest {
                workspace_id: self.workspace_id,
                connection_id: *id,
                reason: "a fault is put up".to_owned(),
            };
            async move { control.pause_connection(request).await }
        }))
        .await?;
        eventually("every connection to be paused", async || {
            let stats = self.stats().await?;
            let paused = stats.values().all(|stats| stats.health.starts_with("paused"));
            if paused { Ok(()) } else { Err(anyhow::anyhow!("{stats:?}")) }
        })
        .await;
        Ok(())
    }

    /// Resumes them.
    pub async fn resume(&self) -> anyhow::Result<()> {
        try_join_all(self.connections.values().map(|id| {
            let mut control = self.control();
            let request = ResumeConnectionRequest { workspace_id: self.workspace_id, connection_id: *id };
            async move { control.resume_connection(request).await }
        }))
        .await?;
        Ok(())
    }

    /// What the ledger says of one connection, whatever its kind; none while nothing is known of it.
    pub async fn stats_of(&self, connection_id: i64) -> anyhow::Result<Option<ConnectionStats>> {
        let all = self.all_stats().await?;
        Ok(all.into_iter().find(|stats| stats.connection_id == connection_id))
    }

    async fn all_stats(&self) -> anyhow::Result<Vec<ConnectionStats>> {
        let request = GetStatsRequest { workspace_id: self.workspace_id };
        Ok(self.delivery().get_stats(request).await?.into_inner().connections)
    }

    async fn stats(&self) -> anyhow::Result<BTreeMap<Kind, ConnectionStats>> {
        let stats = self.all_stats().await?;
        let kind_of = |id| self.connections.iter().find(|(_, known)| **known == id).map(|(kind, _)| *kind);
        Ok(stats.into_iter().filter_map(|stats| Some((kind_of(stats.connection_id)?, stats))).collect())
    }

    /// How each connection is, in one word and the reason.
    pub async fn health(&self) -> anyhow::Result<BTreeMap<Kind, String>> {
        Ok(self.stats().await?.into_iter().map(|(kind, stats)| (kind, stats.health)).collect())
    }

    /// What stands in ledger and sandbox.
    pub async fn counts(&self) -> anyhow::Result<BTreeMap<Kind, Count>> {
        let totals = self.sandbox().totals().await?;
        let stats = self.stats().await?;
        let mut counts = BTreeMap::new();
        for kind in KINDS {
            let count = Count {
                requests: totals.get(&kind.platform()).map_or(0, |totals| totals.requests),
                counted: self.sandbox().counted(kind.platform()).await?.len() as u64,
                states: states_of(stats.get(&kind)),
            };
            counts.insert(kind, count);
        }
        Ok(counts)
    }

    /// Publishes these events; returns when all are resolved.
    pub async fn publish(&self, events: &[Value]) -> anyhow::Result<()> {
        let http = reqwest::Client::new();
        for batch in events.chunks(BATCH) {
            let answer = http
                .post(format!("{}/v1/batch", self.platform.addresses().ingest_http))
                .basic_auth(&self.write_key, Some(""))
                .json(&json!({ "batch": batch }))
                .send()
                .await?;
            let answer: Value = answer.json().await?;
            ensure!(answer == json!({ "success": true }), "{answer}");
        }
        // A partition is resolved in order: with one, the last is the last.
        let last = events.last().and_then(|event| event["messageId"].as_str()).context("no messageId")?;
        eventually("the events to be resolved", async || match self.story(last).await {
            Ok(Some(_)) => Ok(()),
            other => Err(anyhow::anyhow!("{other:?}")),
        })
        .await;
        Ok(())
    }

    /// What became of an event at each connection; none while it is not resolved.
    pub async fn story(&self, message_id: &str) -> anyhow::Result<Option<BTreeMap<Kind, DeliveryStory>>> {
        let Some(deliveries) = self.deliveries(message_id).await? else { return Ok(None) };
        let kind_of = |id| self.connections.iter().find(|(_, known)| **known == id).map(|(kind, _)| *kind);
        let deliveries = deliveries.into_iter();
        Ok(Some(
            deliveries.filter_map(|delivery| Some((kind_of(delivery.connection_id)?, delivery))).collect(),
        ))
    }

    /// The same for connections of any kind.
    pub async fn deliveries(&self, message_id: &str) -> anyhow::Result<Option<Vec<DeliveryStory>>> {
        let request = ShowEventRequest { workspace_id: self.workspace_id, message_id: message_id.to_owned() };
        let shown = self.delivery().show_event(request).await?.into_inner();
        let story = shown.occurrences.into_iter().next().filter(|story| story.resolved);
        Ok(story.map(|story| story.deliveries))
    }

    /// Waits until so many events more than `before` have come to an end at every connection.
    pub async fn rest(&self, before: &BTreeMap<Kind, Count>, events: u64) -> BTreeMap<Kind, Count> {
        eventually_within(REST, "everything to come to an end", async || {
            let counts = self.counts().await?;
            let ended = |kind: &Kind| {
                let states = &counts[kind].since(&before[kind]).states;
                states.iter().filter(|((state, _), _)| state != "held").map(|(_, count)| count).sum::<u64>()
            };
            match KINDS.iter().find(|kind| ended(kind) != events) {
                None => Ok(counts),
                Some(kind) => {
                    Err(anyhow::anyhow!("{kind:?}: {:#?} {:?}", counts[kind], self.health().await?))
                }
            }
        })
        .await
    }
}

/// Events in the ledger, by state and reason.
pub fn states_of(stats: Option<&ConnectionStats>) -> BTreeMap<(String, String), u64> {
    let mut states = BTreeMap::new();
    for row in stats.into_iter().flat_map(|stats| &stats.counts) {
        *states.entry((row.state.clone(), row.reason.clone())).or_default() += row.count;
    }
    states
}

fn channel(address: &str, key: &str) -> Channel {
    tracklayer_rpc::connect_lazy(address, Secret::new(key.to_owned())).expect("an address")
}
