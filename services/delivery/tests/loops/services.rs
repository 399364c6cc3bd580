//! What resolve and lanes talk to: a database with every schema, and identity and consent over gRPC.

use tokio_util::sync::{CancellationToken, DropGuard};
use tracklayer_delivery::clients::Clients;
use tracklayer_ids::{MasterKey, Secret, WorkspaceId};
use tracklayer_proto::control::v1::{ConnectionConfig, SourceConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_rpc::Listeners;
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_testkit::{TestDatabase, listener};

pub const WORKSPACE: WorkspaceId = WorkspaceId(1);

pub struct Services {
    pub database: TestDatabase,
    pub clients: Clients,
    pub master_key: MasterKey,
    /// Ends everything; cancelled at the latest when this is dropped.
    pub shutdown: CancellationToken,
    _ends_with_the_test: DropGuard,
}

impl Services {
    pub async fn start() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("identity", &tracklayer_identity::MIGRATOR),
            ("consent", &tracklayer_consent::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let shutdown = CancellationToken::new();
        let master_key = MasterKey::new([7; 32]);
        let (identity_listeners, identity_address) = listeners().await;
        let (consent_listeners, consent_address) = listeners().await;
        let identity = tracklayer_identity::Config {
            database_url: database.secret_url(),
            master_key: master_key.clone(),
            consent_address: consent_address.clone(),
            database_connections: 4,
            policy_file: None,
        };
        let consent = tracklayer_consent::Config {
            database_url: database.secret_url(),
            master_key: master_key.clone(),
            database_connections: 4,
            policy_file: None,
            receipt_retention_days: 731,
        };
        tokio::spawn(tracklayer_identity::run(identity, identity_listeners, shutdown.clone()));
        tokio::spawn(tracklayer_consent::run(consent, consent_listeners, shutdown.clone()));
        let connect = |address: &str| {
            tracklayer_rpc::connect_lazy(address, Secret::new(master_key.service_token())).unwrap()
        };
        let clients = Clients::new(connect(&identity_address), connect(&consent_address));
        Self { database, clients, master_key, _ends_with_the_test: shutdown.clone().drop_guard(), shutdown }
    }

    /// Runs statements.
    pub async fn run(&self, statements: &'static str) {
        sqlx::raw_sql(statements).execute(&self.database.pool).await.unwrap();
    }
}

async fn listeners() -> (Listeners, String) {
    let grpc = listener().await;
    let address = format!("http://{}", grpc.local_addr().unwrap());
    (Listeners { grpc, http: None, ops: listener().await }, address)
}

/// A workspace with one source, so many partitions, and these connections.
pub fn configuration(partitions: u32, connections: Vec<ConnectionConfig>) -> ConfigWatch {
    let workspace = workspace(partitions, connections);
    ConfigWatch::fixed(WatchConfigResponse { version: 1, workspaces: vec![workspace] })
}

/// The same, as control tells of it.
pub fn workspace(partitions: u32, connections: Vec<ConnectionConfig>) -> WorkspaceConfig {
    let source = SourceConfig { source_id: 1, enabled: true, ..SourceConfig::default() };
    WorkspaceConfig {
        workspace_id: WORKSPACE.0,
        partitions,
        value_from: ["revenue", "total", "value"].map(str::to_owned).to_vec(),
        sources: vec![source],
        connections,
        ..WorkspaceConfig::default()
    }
}
