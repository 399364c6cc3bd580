//! Who may ask `delivery.v1`, and what a preview over it goes by.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::sync::Arc;

use redis::aio::ConnectionManager;
use tonic::{Code, Request};
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::examine::Examiner;
use tracklayer_delivery::grpc::DeliveryGrpc;
use tracklayer_delivery::holds::Holds;
use tracklayer_delivery::http::Sender;
use tracklayer_delivery::inspection::Inspection;
use tracklayer_delivery::oauth::Tokens;
use tracklayer_delivery::quota::Quota;
use tracklayer_delivery::store::examine::ExamineStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::retention::RetentionStore;
use tracklayer_delivery::verify::Verifier;
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_journal::{Journal, Kind, PostgresJournal};
use tracklayer_proto::control::v1::{ConnectionConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_proto::delivery::v1::PreviewRequest;
use tracklayer_proto::delivery::v1::delivery_service_server::DeliveryService as _;
use tracklayer_rpc::follow::ConfigWatch;

/// The service with this configuration, and where control does not answer: whose a key is cannot be known but the service token's.
async fn delivery(config: WatchConfigResponse) -> (DeliveryGrpc, MasterKey, impl Sized) {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
    let key = MasterKey::new([7; 32]);
    let watch = ConfigWatch::fixed(config);
    let connections = Connections::new(watch.clone(), key.clone());
    let control = "http://127.0.0.1:1".to_owned();
    let pool = database.pool.clone();
    let journal: Arc<dyn Journal> = PostgresJournal::new(pool.clone()).into();
    let channel = tracklayer_rpc::connect_lazy(&control, Secret::new(key.service_token())).unwrap();
    let server = tracklayer_testkit::redis().await;
    let redis = redis::Client::open(server.url.as_str()).unwrap();
    let examiner = Examiner {
        journal: Arc::clone(&journal),
        store: ExamineStore::new(pool.clone()),
        inspection: Inspection::new(pool.clone(), Kind::Postgres),
        days: RetentionStore::new(pool.clone()),
        redis: ConnectionManager::new(redis).await.unwrap(),
        control: channel.clone(),
        identity: channel.clone(),
        consent: channel,
        config: watch.clone(),
        holds: Holds::new(watch.clone()),
    };
    let sender = Sender::new(false).unwrap();
    let tokens = Tokens::new(sender.clone());
    let verifier =
        Verifier::new(connections, sender, tokens, Quota::default(), tracklayer_lake::Rules::default());
    let delivery = DeliveryGrpc::new(Index::new(pool), journal, examiner, verifier, watch, control, &key);
    (delivery, key, (database, server))
}

fn asked(bearer: Option<&str>, preview: PreviewRequest) -> Request<PreviewRequest> {
    let mut request = Request::new(preview);
    if let Some(bearer) = bearer {
        request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_asks_whose_the_key_is() {
    let (delivery, key, _servers) = delivery(WatchConfigResponse::default()).await;
    let preview = async |bearer: Option<&str>| {
        let preview = PreviewRequest { connection_json: "{".to_owned(), ..PreviewRequest::default() };
        delivery.preview(asked(bearer, preview)).await.unwrap_err().code()
    };
    assert_eq!(preview(None).await, Code::Unauthenticated);
    assert_eq!(preview(Some("anything")).await, Code::Unavailable);
    assert_eq!(preview(Some(&key.service_token())).await, Code::InvalidArgument, "answered: no JSON");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_takes_the_workspaces_money_and_the_lanes_own_connection() {
    let document = serde_json::json!({
        "kind": "meta_capi", "mode": "live",
        "settings": { "dataset_id": "1234567890123456", "access_token": "t", "test_event_code": "TEST1" },
    });
    let mut sealed = document.clone();
    let secrets = MasterKey::new([7; 32]).secrets();
    tracklayer_secrets::seal_document(&secrets, &mut sealed, &["settings.access_token"]).unwrap();
    let connection = ConnectionConfig {
        connection_id: 7,
        kind: "meta_capi".to_owned(),
        mode: "live".to_owned(),
        document_json: sealed.to_string(),
        revision: 1,
        ..ConnectionConfig::default()
    };
    let workspace = WorkspaceConfig {
        workspace_id: 3,
        value_from: vec!["total".to_owned()],
        connections: vec![connection],
        ..WorkspaceConfig::default()
    };
    let config = WatchConfigResponse { version: 1, workspaces: vec![workspace] };
    let (delivery, key, _servers) = delivery(config).await;
    let order = serde_json::json!({
        "type": "track", "event": "Order Completed", "userId": "u", "messageId": "m-1",
        "properties": { "revenue": 5, "total": 7, "currency": "EUR" },
        "context": { "userAgent": "x", "page": { "url": "https://shop.example/" }, "traits": { "email": "a@example.com" } },
    });
    let token = key.service_token();
    let body = async |workspace_id: i64, connection_id: i64| {
        let connection_json = if connection_id == 0 { document.to_string() } else { String::new() };
        let lines = vec![order.to_string()];
        let preview =
            PreviewRequest { connection_json, lines, workspace_id, connection_id, ..Default::default() };
        let answers = delivery.preview(asked(Some(&token), preview)).await?.into_inner().answers;
        let answer: serde_json::Value = serde_json::from_str(&answers[0]).unwrap();
        Ok::<_, tonic::Status>(answer["requests"][0]["body"].clone())
    };
    let value = |body: &serde_json::Value| body["data"][0]["custom_data"]["value"].clone();
    assert_eq!(value(&body(0, 0).await.unwrap()), 5, "the defaults: revenue first");
    assert_eq!(value(&body(3, 0).await.unwrap()), 7, "the workspace's");
    let of_the_lane = body(3, 7).await.unwrap();
    assert_eq!((value(&of_the_lane), &of_the_lane["test_event_code"]), (7.into(), &"TEST1".into()));
    assert_eq!(body(3, 8).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(body(4, 0).await.unwrap_err().code(), Code::NotFound);
}
