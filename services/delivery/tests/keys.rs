//! Who may ask `delivery.v1`.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::sync::Arc;

use redis::aio::ConnectionManager;
use tonic::{Code, Request};
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::examine::Examiner;
use tracklayer_delivery::grpc::DeliveryGrpc;
use tracklayer_delivery::holds::Holds;
use tracklayer_delivery::inspection::Inspection;
use tracklayer_delivery::store::examine::ExamineStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::retention::RetentionStore;
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_journal::{Journal, Kind, PostgresJournal};
use tracklayer_proto::control::v1::WatchConfigResponse;
use tracklayer_proto::delivery::v1::PreviewRequest;
use tracklayer_proto::delivery::v1::delivery_service_server::DeliveryService as _;
use tracklayer_rpc::follow::ConfigWatch;

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_asks_whose_the_key_is() {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
    let key = MasterKey::new([7; 32]);
    let watch = ConfigWatch::fixed(WatchConfigResponse::default());
    let connections = Connections::new(watch.clone(), key.clone());
    // Nobody answers there: whose a key is cannot be known.
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
    let delivery = DeliveryGrpc::new(Index::new(pool), journal, examiner, connections, watch, control, &key);
    let preview = async |bearer: Option<&str>| {
        let mut request =
            Request::new(PreviewRequest { connection_json: "{".to_owned(), ..PreviewRequest::default() });
        if let Some(bearer) = bearer {
            request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
        }
        delivery.preview(request).await.unwrap_err().code()
    };
    assert_eq!(preview(None).await, Code::Unauthenticated);
    assert_eq!(preview(Some("anything")).await, Code::Unavailable);
    assert_eq!(preview(Some(&key.service_token())).await, Code::InvalidArgument, "answered: no JSON");
}
