//! The configuration that control publishes, as every other service follows it.
//!
//! A background task holds the stream, keeps the last snapshot when control is away, and connects again. Readers take the
//! snapshot without waiting. Before the first one there is none: answer UNAVAILABLE then, never "unknown key". A replica of
//! control that has not heard of the newest change yet, or cannot, does not take a follower back behind it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{SourceId, WorkspaceId};
use tracklayer_proto::control::v1::{
    ConnectionConfig, SourceConfig, WatchConfigRequest, WatchConfigResponse, WorkspaceConfig,
    control_service_client::ControlServiceClient,
};

use crate::{Channel, MAX_MESSAGE_BYTES};

/// First pause after a stream ended; doubles up to [`LONGEST_PAUSE`], with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a configuration older than the one that is known is refused while another replica of control is asked: each looks at
/// its table every two seconds. Older for longer is the truth: the database was restored.
const OLDER_PATIENCE: Duration = Duration::from_secs(5);

/// One state of the whole configuration.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Rises with each change.
    pub version: u64,
    /// All workspaces.
    pub workspaces: BTreeMap<WorkspaceId, WorkspaceConfig>,
    /// Hash of a write key → its workspace, and the source's place in it.
    write_keys: HashMap<[u8; 32], (WorkspaceId, usize)>,
}

impl Snapshot {
    /// Indexes an answer of control.
    #[must_use]
    pub fn new(response: WatchConfigResponse) -> Self {
        let mut write_keys = HashMap::new();
        let mut workspaces = BTreeMap::new();
        for workspace in response.workspaces {
            let id = WorkspaceId(workspace.workspace_id);
            for (place, source) in workspace.sources.iter().enumerate() {
                if let Ok(hash) = source.write_key_sha256.as_slice().try_into() {
                    write_keys.insert(hash, (id, place));
                }
            }
            workspaces.insert(id, workspace);
        }
        Self { version: response.version, workspaces, write_keys }
    }

    /// The enabled source of a write key, with its workspace. A disabled source is as unknown as a wrong key.
    #[must_use]
    pub fn source_by_write_key(&self, write_key: &str) -> Option<(&WorkspaceConfig, &SourceConfig)> {
        let hash: [u8; 32] = Sha256::digest(write_key).into();
        let (workspace, place) = self.write_keys.get(&hash)?;
        let workspace = self.workspaces.get(workspace)?;
        let source = workspace.sources.get(*place)?;
        source.enabled.then_some((workspace, source))
    }

    /// A source, enabled or not.
    #[must_use]
    pub fn source(&self, workspace: WorkspaceId, source: SourceId) -> Option<&SourceConfig> {
        self.workspaces.get(&workspace)?.sources.iter().find(|candidate| candidate.source_id == source.0)
    }

    /// A workspace's connections; none for an unknown workspace.
    #[must_use]
    pub fn connections(&self, workspace: WorkspaceId) -> &[ConnectionConfig] {
        self.workspaces.get(&workspace).map_or(&[], |workspace| &workspace.connections)
    }
}

/// The newest snapshot. Cheap to clone; all clones see the same.
#[derive(Debug, Clone)]
pub struct ConfigWatch {
    newest: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Keeps the channel open in [`ConfigWatch::fixed`], where no task does.
    _fixed: Option<Arc<watch::Sender<Option<Arc<Snapshot>>>>>,
}

impl ConfigWatch {
    /// Follows control until the shutdown.
    #[must_use]
    pub fn start(control: Channel, shutdown: CancellationToken) -> Self {
        let (sender, newest) = watch::channel(None);
        tokio::spawn(follow(control, sender, shutdown));
        Self { newest, _fixed: None }
    }

    /// A configuration that never changes, for tests.
    #[must_use]
    pub fn fixed(response: WatchConfigResponse) -> Self {
        let (sender, newest) = watch::channel(Some(Arc::new(Snapshot::new(response))));
        Self { newest, _fixed: Some(Arc::new(sender)) }
    }

    /// A configuration that the caller changes, for tests and for control itself.
    #[must_use]
    pub fn manual() -> (Self, ConfigSender) {
        let (sender, newest) = watch::channel(None);
        (Self { newest, _fixed: None }, ConfigSender(sender))
    }

    /// The newest snapshot; `None` until control has answered for the first time.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.newest.borrow().clone()
    }

    /// Waits for the next change. Never returns once nothing can change any more.
    pub async fn changed(&mut self) {
        if self.newest.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the first snapshot, or gives the newest.
    pub async fn first(&mut self) -> Arc<Snapshot> {
        loop {
            let snapshot = self.newest.borrow_and_update().clone();
            match snapshot {
                Some(snapshot) => return snapshot,
                None => self.changed().await,
            }
        }
    }
}

/// Publishes snapshots to the [`ConfigWatch`] that it was made with.
#[derive(Debug)]
pub struct ConfigSender(watch::Sender<Option<Arc<Snapshot>>>);

impl ConfigSender {
    /// Publishes.
    pub fn send(&self, response: WatchConfigResponse) {
        self.0.send_replace(Some(Arc::new(Snapshot::new(response))));
    }
}

async fn follow(control: Channel, newest: watch::Sender<Option<Arc<Snapshot>>>, shutdown: CancellationToken) {
    let mut client = ControlServiceClient::new(control).max_decoding_message_size(8 * MAX_MESSAGE_BYTES);
    let mut pause = FIRST_PAUSE;
    let mut away = false;
    let mut older_since = None;
    loop {
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = read_stream(&mut client, &newest, &mut pause, &mut away, &mut older_since) => ended,
        };
        metrics::gauge!("tracklayer_config_connected").set(0.0);
        if !std::mem::replace(&mut away, true) {
            let have = newest.borrow().is_some();
            tracing::warn!(error = %ended, have_snapshot = have, "control is away; going on with the last configuration");
        }
        // Full jitter, so that services that lost control together do not come back together.
        let wait = pause.mul_f64(fastrand::f64());
        pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Reads one stream to its end, and says how it ended.
async fn read_stream(
    client: &mut ControlServiceClient<Channel>,
    newest: &watch::Sender<Option<Arc<Snapshot>>>,
    pause: &mut Duration,
    away: &mut bool,
    older_since: &mut Option<Instant>,
) -> tonic::Status {
    let mut stream = match client.watch_config(WatchConfigRequest {}).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match stream.message().await {
            Ok(Some(response)) => {
                let is_older = newest.borrow().as_ref().is_some_and(|known| response.version < known.version);
                if is_older && older_since.get_or_insert_with(Instant::now).elapsed() < OLDER_PATIENCE {
                    return tonic::Status::unavailable("this replica of control has an older configuration");
                }
                if is_older {
                    tracing::warn!(version = response.version, "control goes on with an older configuration");
                }
                *older_since = None;
                if std::mem::replace(away, false) {
                    tracing::info!(version = response.version, "control is back");
                }
                *pause = FIRST_PAUSE;
                metrics::gauge!("tracklayer_config_connected").set(1.0);
                // As a label-free number: versions stay far below 2^53.
                metrics::gauge!("tracklayer_config_version").set(response.version as f64);
                let snapshot = Arc::new(Snapshot::new(response));
                newest.send_replace(Some(snapshot));
            }
            Ok(None) => return tonic::Status::unavailable("the stream ended"),
            Err(status) => return status,
        }
    }
}
