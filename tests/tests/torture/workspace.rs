//! A seed's own workspace: three sources, four connections, all fresh.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tracklayer_ids::WorkspaceId;
use tracklayer_proto::control::v1::{
    CreateSourceRequest, CreateWorkspaceRequest, PutConnectionRequest, SetPartitionsRequest,
};
use tracklayer_sandbox::{Platform as AdPlatform, options};

use crate::plan::PLATFORMS;
use crate::stage::Stage;

/// Partitions of its journal at first.
pub const PARTITIONS: u32 = 4;

/// How long control may be away, and the pause between two tries.
const CONTROL_LIMIT: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(50);

/// It.
pub struct Workspace {
    pub id: WorkspaceId,
    /// Write keys of its sources.
    pub write_keys: [String; 3],
    /// Its connections, with the platform that each sends to.
    pub connections: Vec<(i64, AdPlatform)>,
}

impl Workspace {
    /// Makes it, and returns when every edge knows its sources and every lane has begun.
    pub async fn create(stage: &Stage, seed: u64) -> anyhow::Result<Self> {
        let mut control = stage.control();
        let request = CreateWorkspaceRequest {
            name: format!("torture-{seed}"),
            partitions: PARTITIONS,
            ..CreateWorkspaceRequest::default()
        };
        let made = control.create_workspace(request).await?.into_inner().workspace;
        let workspace_id = made.context("no workspace in the answer")?.workspace_id;
        let mut write_keys = Vec::new();
        for (name, channel) in [("shop-server", "server"), ("portal", "server"), ("web", "browser")] {
            let request = CreateSourceRequest {
                workspace_id,
                name: name.to_owned(),
                channel: channel.to_owned(),
                default_place: "US-CA".to_owned(),
                ..CreateSourceRequest::default()
            };
            write_keys.push(control.create_source(request).await?.into_inner().write_key);
        }
        let mut connections = Vec::new();
        for platform in PLATFORMS {
            let request = PutConnectionRequest {
                workspace_id,
                name: platform.to_string().replace('_', "-"),
                document_json: document(platform, &stage.sandbox_url()).to_string(),
            };
            let made = control.put_connection(request).await?.into_inner().connection;
            connections.push((made.context("no connection in the answer")?.connection_id, platform));
        }
        let write_keys = write_keys.try_into().expect("three keys");
        let workspace = Self { id: WorkspaceId(workspace_id), write_keys, connections };
        workspace.is_known(stage).await;
        Ok(workspace)
    }

    /// Says over how many partitions its events are spread from now on. Control may be away.
    ///
    /// # Errors
    /// Control's answer, when it has not changed them for a while.
    pub async fn set_partitions(&self, stage: &Stage, partitions: u32) -> anyhow::Result<()> {
        let request = SetPartitionsRequest { workspace_id: self.id.0, partitions };
        let until = Instant::now() + CONTROL_LIMIT;
        loop {
            match stage.control().set_partitions(request).await {
                Ok(_) => return Ok(()),
                Err(status) if Instant::now() > until => return Err(status.into()),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn is_known(&self, stage: &Stage) {
        for ingest in ["ingest-1", "ingest-2"] {
            let edge = stage.fleet.member(ingest).replica().http_url();
            for key in &self.write_keys {
                tracklayer_tests::eventually("the edges to know the sources", async || {
                    let status = reqwest::get(format!("{edge}/v1/projects/{key}/settings")).await?.status();
                    if status.is_success() { Ok(()) } else { Err(anyhow::anyhow!("{status}")) }
                })
                .await;
            }
        }
        // A connection answers for what is accepted from the beginning of its lanes on.
        let wanted = i64::from(PARTITIONS) * self.connections.len() as i64;
        tracklayer_tests::eventually("the lanes to begin", async || {
            let (lanes,): (i64,) =
                sqlx::query_as("select count(*) from delivery.lane_cursor where workspace_id = $1")
                    .bind(self.id.0)
                    .fetch_one(&stage.pool)
                    .await?;
            if lanes == wanted { Ok(()) } else { Err(anyhow::anyhow!("{lanes} of {wanted} lanes")) }
        })
        .await;
    }
}

fn document(platform: AdPlatform, sandbox: &str) -> Value {
    let base_url = format!("{sandbox}/{}", platform.to_string().replace('_', "-"));
    let (kind, settings) = match platform {
        AdPlatform::Meta => (
            "meta_capi",
            json!({
                "dataset_id": options::META_DATASET, "access_token": options::META_TOKEN, "base_url": base_url,
            }),
        ),
        AdPlatform::DataManager => (
            "google_data_manager",
            json!({
                "operating_account": { "account_id": options::GOOGLE_CUSTOMER },
                "login_account": { "account_id": options::GOOGLE_LOGIN_CUSTOMER },
                "conversion_action_id": options::GOOGLE_CONVERSION_ACTION,
                "oauth": {
                    "client_id": options::GOOGLE_CLIENT_ID, "client_secret": options::GOOGLE_CLIENT_SECRET,
                    "refresh_token": options::GOOGLE_REFRESH_TOKEN,
                    "token_url": format!("{sandbox}/google-oauth/token"),
                },
                "base_url": base_url,
            }),
        ),
        AdPlatform::TikTok => (
            "tiktok_events",
            json!({
                "event_source_id": options::TIKTOK_PIXEL, "access_token": options::TIKTOK_TOKEN,
                "base_url": base_url,
            }),
        ),
        AdPlatform::Webhook => (
            "webhook",
            json!({ "url": format!("{sandbox}/webhook/torture"), "secret": options::WEBHOOK_SECRET }),
        ),
        other => panic!("no connection for {other}"),
    };
    json!({ "kind": kind, "mode": "live", "settings": settings })
}
