//! The connections of the configuration, opened: secrets decrypted, settings parsed, ready to build with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tracklayer_destination::{Destination, Kind, SettingsErrors, WorkspaceDefaults};
use tracklayer_ids::{ConnectionId, MasterKey, WorkspaceId};
use tracklayer_proto::consent::v1::{DestinationQuery, Outcome};
use tracklayer_proto::control::v1::{ConnectionConfig, WorkspaceConfig};
use tracklayer_rpc::follow::ConfigWatch;

/// Until a connection is opened again that could not be for a reason that may pass.
const PAUSE: Duration = Duration::from_secs(1);

/// One connection.
pub struct OpenConnection {
    /// Its id.
    pub id: ConnectionId,
    /// Its name.
    pub name: String,
    /// Which change of it this is.
    pub revision: u64,
    /// How it builds and reads; or why it cannot.
    pub destination: Result<Box<dyn Destination>, String>,
    /// Whether it may be opened at another try.
    may_pass: bool,
}

impl OpenConnection {
    /// What consent is asked for it; none if it cannot be opened (its lane holds and asks later).
    #[must_use]
    pub fn consent_query(&self) -> Option<DestinationQuery> {
        let query = self.destination.as_ref().ok()?.consent_query();
        let mode_cap = match query.cap {
            None => Outcome::Unspecified,
            Some(tracklayer_destination::ConsentCap::Restricted) => Outcome::AllowRestricted,
            Some(tracklayer_destination::ConsentCap::Deny) => Outcome::Deny,
        };
        Some(DestinationQuery {
            connection_id: self.id.0,
            kind: query.kind.to_owned(),
            extra_purposes: query.extra_purposes,
            mode_cap: mode_cap.into(),
        })
    }
}

/// What a workspace says about money.
#[must_use]
pub fn defaults_of(workspace: &WorkspaceConfig) -> WorkspaceDefaults {
    WorkspaceDefaults {
        value_from: workspace.value_from.clone(),
        value_fallback: Some(workspace.value_fallback.clone()).filter(|f| !f.is_empty()),
    }
}

type Opened = BTreeMap<WorkspaceId, Vec<Arc<OpenConnection>>>;

/// Opens a document.
type Open = fn(&Value, &WorkspaceDefaults) -> Result<Box<dyn Destination>, SettingsErrors>;

/// What was opened.
struct Held {
    /// Of which snapshot.
    version: u64,
    /// Not before, some are opened again.
    again_at: Option<Instant>,
    opened: Arc<Opened>,
}

/// Opens each revision once. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    config: ConfigWatch,
    master_key: MasterKey,
    open: Open,
    held: Arc<Mutex<Held>>,
}

impl Connections {
    /// Follows the configuration.
    #[must_use]
    pub fn new(config: ConfigWatch, master_key: MasterKey) -> Self {
        Self::opening(config, master_key, tracklayer_destination::open)
    }

    fn opening(config: ConfigWatch, master_key: MasterKey, open: Open) -> Self {
        let held = Held { version: 0, again_at: None, opened: Arc::new(Opened::new()) };
        Self { config, master_key, open, held: Arc::new(Mutex::new(held)) }
    }

    /// All of them, as of the newest snapshot; none before the first.
    #[must_use]
    pub fn all(&self) -> Option<Arc<Opened>> {
        let snapshot = self.config.snapshot()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.version != snapshot.version || held.again_at.is_some_and(|at| at <= Instant::now()) {
            let before = Arc::clone(&held.opened);
            let now: Opened = snapshot
                .workspaces
                .iter()
                .map(|(id, workspace)| {
                    (*id, self.open_workspace(workspace, before.get(id).map_or(&[][..], Vec::as_slice)))
                })
                .collect();
            let again = now.values().flatten().any(|connection| connection.may_pass);
            let again_at = again.then(|| Instant::now() + PAUSE);
            *held = Held { version: snapshot.version, again_at, opened: Arc::new(now) };
        }
        Some(Arc::clone(&held.opened))
    }

    /// A workspace's.
    #[must_use]
    pub fn of(&self, workspace: WorkspaceId) -> Vec<Arc<OpenConnection>> {
        self.all().and_then(|all| all.get(&workspace).cloned()).unwrap_or_default()
    }

    /// One of them.
    #[must_use]
    pub fn one(&self, workspace: WorkspaceId, connection: ConnectionId) -> Option<Arc<OpenConnection>> {
        self.of(workspace).into_iter().find(|c| c.id == connection)
    }

    fn open_workspace(
        &self,
        workspace: &WorkspaceConfig,
        before: &[Arc<OpenConnection>],
    ) -> Vec<Arc<OpenConnection>> {
        let defaults = defaults_of(workspace);
        workspace
            .connections
            .iter()
            .map(|config| {
                let is_known = |c: &&Arc<OpenConnection>| {
                    c.id.0 == config.connection_id && c.revision == config.revision && !c.may_pass
                };
                let known = before.iter().find(is_known);
                known.cloned().unwrap_or_else(|| Arc::new(self.open(config, &defaults)))
            })
            .collect()
    }

    fn open(&self, config: &ConnectionConfig, defaults: &WorkspaceDefaults) -> OpenConnection {
        let destination = self.open_document(config, defaults);
        if let Err(NotOpened { why, .. }) = &destination {
            tracing::error!(connection = config.connection_id, why = %why, "connection cannot be opened");
        }
        OpenConnection {
            id: ConnectionId(config.connection_id),
            name: config.name.clone(),
            revision: config.revision,
            may_pass: destination.as_ref().is_err_and(|not| not.may_pass),
            destination: destination.map_err(|not| not.why),
        }
    }

    fn open_document(
        &self,
        config: &ConnectionConfig,
        defaults: &WorkspaceDefaults,
    ) -> Result<Box<dyn Destination>, NotOpened> {
        let wrong = |why: String| NotOpened { why, may_pass: false };
        let mut document: Value = serde_json::from_str(&config.document_json)
            .map_err(|e| wrong(format!("its document is no JSON: {e}")))?;
        let kind =
            Kind::parse(&config.kind).ok_or_else(|| wrong(format!("unknown kind `{}`", config.kind)))?;
        tracklayer_secrets::open_document(
            &self.master_key.secrets(),
            &mut document,
            tracklayer_destination::secret_paths(kind),
        )
        .map_err(|e| wrong(e.to_string()))?;
        (self.open)(&document, defaults)
            .map_err(|errors| NotOpened { why: errors.to_string(), may_pass: errors.may_pass() })
    }
}

/// Why a connection was not opened.
struct NotOpened {
    why: String,
    may_pass: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracklayer_destination::SettingsError;
    use tracklayer_proto::control::v1::WatchConfigResponse;

    use super::*;

    static TRIES: AtomicUsize = AtomicUsize::new(0);

    /// As where there is no thread to read expressions on, twice.
    fn third_time(
        document: &Value,
        defaults: &WorkspaceDefaults,
    ) -> Result<Box<dyn Destination>, SettingsErrors> {
        if TRIES.fetch_add(1, Ordering::Relaxed) < 2 {
            let error = SettingsError::new("", "there is no thread to read it on");
            return Err(SettingsErrors(vec![SettingsError { may_pass: true, ..error }]));
        }
        tracklayer_destination::open(document, defaults)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_opened_again_without_a_change_of_the_configuration() {
        let connection = |id: i64, document: String| ConnectionConfig {
            connection_id: id,
            kind: "warehouse".to_owned(),
            document_json: document,
            revision: 1,
            ..ConnectionConfig::default()
        };
        let good = serde_json::json!({
            "kind": "warehouse", "mode": "live", "settings": { "url": "file:///exports" },
        });
        let connections = vec![connection(7, good.to_string()), connection(8, "{".to_owned())];
        let workspace = WorkspaceConfig { workspace_id: 1, connections, ..WorkspaceConfig::default() };
        let (config, control) = ConfigWatch::manual();
        control.send(WatchConfigResponse { version: 1, workspaces: vec![workspace] });
        let connections = Connections::opening(config, MasterKey::new([7; 32]), third_time);
        let opened = |id: i64| connections.one(WorkspaceId(1), ConnectionId(id)).unwrap();
        let wrong = opened(8);
        let mut came = Vec::new();
        for _ in 0..4 {
            for _ in 0..3 {
                came.push((opened(7).destination.is_ok(), TRIES.load(Ordering::Relaxed)));
            }
            tokio::time::advance(PAUSE).await;
        }
        came.dedup();
        assert_eq!(came, [(false, 1), (false, 2), (true, 3)], "once a pause, until it is open");
        assert!(wrong.destination.is_err() && Arc::ptr_eq(&wrong, &opened(8)), "what is wrong stays so");
    }
}
