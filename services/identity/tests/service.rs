//! The service as others call it.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tracklayer_identity::Config;
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_proto::event::v1::ClickIds;
use tracklayer_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tracklayer_proto::identity::v1::{Identifier, LookUpRequest, Resolution, ResolveItem, ResolveRequest};
use tracklayer_rpc::{Channel, Listeners};
use tracklayer_testkit::{TestDatabase, eventually, listener};

struct Service {
    address: String,
    ops: String,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), tracklayer_identity::RunError>>,
    database: TestDatabase,
}

const KEY: [u8; 32] = [9; 32];

async fn start() -> Service {
    start_on(tracklayer_testkit::database(&[("identity", &tracklayer_identity::MIGRATOR)]).await).await
}

async fn start_on(database: TestDatabase) -> Service {
    let listeners = Listeners { grpc: listener().await, http: None, ops: listener().await };
    let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
    let ops = listeners.ops.local_addr().unwrap().to_string();
    let config = Config {
        database_url: database.secret_url(),
        master_key: MasterKey::new(KEY),
        // Nobody is there: what merges is told later, and resolving goes on.
        consent_address: "http://127.0.0.1:9".to_owned(),
        database_connections: 4,
        policy_file: None,
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(tracklayer_identity::run(config, listeners, stop.clone()));
    Service { address, ops, stop, task, database }
}

fn client(service: &Service, token: String) -> IdentityServiceClient<Channel> {
    IdentityServiceClient::new(tracklayer_rpc::connect_lazy(&service.address, Secret::new(token)).unwrap())
}

fn identifier(type_name: &str, value: &str) -> Identifier {
    Identifier { r#type: type_name.to_owned(), value: value.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_resolved_looked_up_and_refused_without_the_token() {
    let service = start().await;
    let mut client_of_ours = client(&service, MasterKey::new(KEY).service_token());
    let item = |identifiers: Vec<Identifier>| ResolveItem {
        identifiers,
        click_ids: Some(ClickIds { gclid: "g-1".to_owned(), ..ClickIds::default() }),
        seen_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        source_id: 1,
        message_id: "m-1".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    };
    let request = ResolveRequest {
        workspace_id: 1,
        items: vec![
            item(vec![identifier("anonymous_id", "a-1"), identifier("email", "Ann@Example.org")]),
            item(vec![identifier("user_id", "null")]),
        ],
    };
    let results = client_of_ours.resolve(request.clone()).await.unwrap().into_inner().results;
    let email = MasterKey::new(KEY).workspace(1.into()).subject("email", "ann@example.org");
    assert_eq!(results[0].canonical_key, email.0);
    assert_eq!(results[0].subject_keys.len(), 2);
    assert_eq!(results[0].resolution(), Resolution::Recorded);
    let clicks = results[0].click_ids.clone().unwrap();
    assert_eq!((clicks.gclid.as_str(), clicks.first_seen.unwrap().seconds), ("g-1", 1_700_000_000));
    assert_eq!((results[1].resolution(), results[1].canonical_key.len()), (Resolution::None, 0));

    let look_up =
        |value: &str| LookUpRequest { workspace_id: 1, identifier: Some(identifier("email", value)) };
    let shown = client_of_ours.look_up(look_up("ann@example.org")).await.unwrap().into_inner();
    assert_eq!((shown.members.len(), shown.canonical_key), (2, email.0.to_vec()));
    assert_eq!(client_of_ours.look_up(look_up("bob@example.org")).await.unwrap_err().code(), Code::NotFound);

    let mut nobody = request.clone();
    nobody.workspace_id = 0;
    assert_eq!(client_of_ours.resolve(nobody).await.unwrap_err().code(), Code::InvalidArgument);
    let empty = ResolveRequest { workspace_id: 1, items: Vec::new() };
    assert_eq!(client_of_ours.resolve(empty).await.unwrap_err().code(), Code::InvalidArgument);

    let mut stranger = client(&service, "not the token".to_owned());
    assert_eq!(stranger.resolve(Request::new(request)).await.unwrap_err().code(), Code::Unauthenticated);

    let metrics = http_get(&service.ops, "/metrics").await;
    assert!(
        metrics.contains("tracklayer_identity_resolved_events_total{resolution=\"recorded\"} 1"),
        "{metrics}"
    );
    eventually("readiness", async || is_ready(&service).await.then_some(())).await;
    service.stop.cancel();
    service.task.await.unwrap().unwrap();
}

async fn is_ready(service: &Service) -> bool {
    http_get(&service.ops, "/readyz").await.starts_with("HTTP/1.1 200")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_its_tables_wants_no_traffic_until_they_are_there() {
    let service = start_on(tracklayer_testkit::database(&[]).await).await;
    let mut client = client(&service, MasterKey::new(KEY).service_token());
    let item = ResolveItem { identifiers: vec![identifier("user_id", "u-1")], ..ResolveItem::default() };
    let request = ResolveRequest { workspace_id: 1, items: vec![item] };
    assert!(client.resolve(request.clone()).await.is_err(), "it answers, and has no tables");
    assert!(!is_ready(&service).await);
    tracklayer_postgres::migrate(&service.database.pool, "identity", &tracklayer_identity::MIGRATOR)
        .await
        .unwrap();
    eventually("readiness", async || is_ready(&service).await.then_some(())).await;
    assert_eq!(client.resolve(request).await.unwrap().into_inner().results.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_table_can_hold_does_not_fail_its_neighbours() {
    let service = start().await;
    let mut client = client(&service, MasterKey::new(KEY).service_token());
    let strange = |seconds: i64| ResolveItem {
        identifiers: vec![identifier("anonymous_id", "a-1"), identifier("user_id", "u-1")],
        click_ids: Some(ClickIds { gclid: "g\0".to_owned(), fbclid: "f".to_owned(), ..ClickIds::default() }),
        // PostgreSQL's calendar begins in 4713 BC.
        seen_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        source_id: 1,
        message_id: "m\0".to_owned(),
        ..ResolveItem::default()
    };
    let other = ResolveItem {
        identifiers: vec![identifier("anonymous_id", "a-2"), identifier("user_id", "u-2\0")],
        ..ResolveItem::default()
    };
    let items = vec![strange(-300_000_000_000), strange(i64::MAX), other];
    let results =
        client.resolve(ResolveRequest { workspace_id: 1, items }).await.unwrap().into_inner().results;
    let clicks = results[0].click_ids.clone().unwrap();
    assert_eq!((clicks.gclid.as_str(), clicks.fbclid.as_str()), ("", "f"));
    let linked: Vec<usize> = results.iter().map(|result| result.subject_keys.len()).collect();
    assert_eq!(linked, [2, 2, 1]);
}

async fn http_get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
