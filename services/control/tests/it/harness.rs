//! Starts control as the binary does, and talks to it.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tracklayer_control::{Config, MIGRATOR, RunError, ensure_first_admin_key, run};
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_journal::Kind;
use tracklayer_proto::control::v1::control_service_client::ControlServiceClient;
use tracklayer_proto::control::v1::{
    CreateAdminKeyRequest, CreateSourceRequest, CreateWorkspaceRequest, PutConnectionRequest,
};
use tracklayer_rpc::{Channel, Listeners};
use tracklayer_testkit::{TestDatabase, database, listener};

pub type Client = ControlServiceClient<Channel>;

/// A running control service.
pub struct Replica {
    pub grpc: String,
    pub http: String,
    pub ops: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

/// A running control service with a database of its own.
pub struct Control {
    pub database: TestDatabase,
    pub replica: Replica,
    /// The installation's first admin key.
    pub key: String,
}

pub fn master_key() -> MasterKey {
    MasterKey::new([7; 32])
}

pub fn config(database: &TestDatabase, delivery_address: &str) -> Config {
    Config {
        database_url: database.secret_url(),
        journal: Kind::Postgres,
        delivery_address: delivery_address.to_owned(),
        master_key: master_key(),
        database_connections: 4,
        console_cookies_https_only: false,
    }
}

/// A port on which nobody listens.
pub async fn nowhere() -> String {
    format!("http://{}", listener().await.local_addr().unwrap())
}

pub async fn migrated() -> TestDatabase {
    database(&[("control", &MIGRATOR)]).await
}

pub async fn start() -> Control {
    start_with(&nowhere().await).await
}

pub async fn start_with(delivery_address: &str) -> Control {
    let database = migrated().await;
    let key = ensure_first_admin_key(&database.pool).await.unwrap().expect("a new installation has no key");
    let replica = Replica::start(config(&database, delivery_address)).await;
    Control { database, replica, key }
}

impl Replica {
    pub async fn start(config: Config) -> Self {
        let (grpc, http, ops) = (listener().await, listener().await, listener().await);
        let address =
            |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let addresses = (address(&grpc), address(&http), address(&ops));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(config, Listeners { grpc, http: Some(http), ops }, shutdown.clone()));
        Self { grpc: addresses.0, http: addresses.1, ops: addresses.2, shutdown, task }
    }

    pub fn client(&self, key: &str) -> Client {
        let channel = tracklayer_rpc::connect_lazy(&self.grpc, Secret::new(key.to_owned())).unwrap();
        ControlServiceClient::new(channel)
    }

    pub async fn stop(self) -> Result<(), RunError> {
        self.shutdown.cancel();
        self.task.await.unwrap()
    }
}

impl Control {
    pub fn admin(&self) -> Client {
        self.replica.client(&self.key)
    }

    /// A new workspace and an admin key of it.
    pub async fn workspace(&self, name: &str) -> (i64, String) {
        let request = CreateWorkspaceRequest { name: name.to_owned(), ..CreateWorkspaceRequest::default() };
        let made = self.admin().create_workspace(request).await.unwrap().into_inner();
        let id = made.workspace.unwrap().workspace_id;
        let request = CreateAdminKeyRequest { workspace_id: id, label: format!("{name}'s key") };
        let key = self.admin().create_admin_key(request).await.unwrap().into_inner().admin_key;
        (id, key)
    }
}

pub fn source(workspace_id: i64, name: &str) -> CreateSourceRequest {
    CreateSourceRequest {
        workspace_id,
        name: name.to_owned(),
        channel: "server".to_owned(),
        default_place: "US-CA".to_owned(),
        ..CreateSourceRequest::default()
    }
}

/// A webhook whose secrets are these.
pub fn webhook(secret: &str, authorization: &str) -> serde_json::Value {
    serde_json::json!({
        "kind": "webhook",
        "mode": "live",
        "settings": {"url": "https://hooks.example.com/in", "secret": secret, "authorization": authorization},
    })
}

pub fn put(workspace_id: i64, name: &str, document: &serde_json::Value) -> PutConnectionRequest {
    PutConnectionRequest { workspace_id, name: name.to_owned(), document_json: document.to_string() }
}

/// The status's code, reason and the path of the field to blame.
pub fn refusal(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let field = details
        .bad_request()
        .and_then(|bad| bad.field_violations.first())
        .map(|violation| violation.field.clone())
        .unwrap_or_default();
    (status.code(), reason, field)
}
