//! The connections of the configuration, opened: secrets decrypted, settings parsed, ready to build with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracklayer_destination::{Destination, Kind, WorkspaceDefaults};
use tracklayer_ids::{ConnectionId, MasterKey, WorkspaceId};
use tracklayer_proto::consent::v1::{DestinationQuery, Outcome};
use tracklayer_proto::control::v1::{ConnectionConfig, WorkspaceConfig};
use tracklayer_rpc::follow::ConfigWatch;

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

/// Opens each revision once. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    config: ConfigWatch,
    master_key: MasterKey,
    opened: Arc<Mutex<(u64, Arc<Opened>)>>,
}

impl Connections {
    /// Follows the configuration.
    #[must_use]
    pub fn new(config: ConfigWatch, master_key: MasterKey) -> Self {
        Self { config, master_key, opened: Arc::new(Mutex::new((0, Arc::new(Opened::new())))) }
    }

    /// All of them, as of the newest snapshot; none before the first.
    #[must_use]
    pub fn all(&self) -> Option<Arc<Opened>> {
        let snapshot = self.config.snapshot()?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.0 != snapshot.version {
            let before = Arc::clone(&opened.1);
            let now: Opened = snapshot
                .workspaces
                .iter()
                .map(|(id, workspace)| {
                    (*id, self.open_workspace(workspace, before.get(id).map_or(&[][..], Vec::as_slice)))
                })
                .collect();
            *opened = (snapshot.version, Arc::new(now));
        }
        Some(Arc::clone(&opened.1))
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
                let known =
                    before.iter().find(|c| c.id.0 == config.connection_id && c.revision == config.revision);
                known.cloned().unwrap_or_else(|| Arc::new(self.open(config, &defaults)))
            })
            .collect()
    }

    fn open(&self, config: &ConnectionConfig, defaults: &WorkspaceDefaults) -> OpenConnection {
        let destination = self.open_document(config, defaults);
        if let Err(why) = &destination {
            tracing::error!(connection = config.connection_id, why = %why, "connection cannot be opened");
        }
        OpenConnection {
            id: ConnectionId(config.connection_id),
            name: config.name.clone(),
            revision: config.revision,
            destination,
        }
    }

    fn open_document(
        &self,
        config: &ConnectionConfig,
        defaults: &WorkspaceDefaults,
    ) -> Result<Box<dyn Destination>, String> {
        let mut document: serde_json::Value = serde_json::from_str(&config.document_json)
            .map_err(|e| format!("its document is no JSON: {e}"))?;
        let kind = Kind::parse(&config.kind).ok_or_else(|| format!("unknown kind `{}`", config.kind))?;
        tracklayer_secrets::open_document(
            &self.master_key.secrets(),
            &mut document,
            tracklayer_destination::secret_paths(kind),
        )
        .map_err(|e| e.to_string())?;
        tracklayer_destination::open(&document, defaults).map_err(|e| e.to_string())
    }
}
