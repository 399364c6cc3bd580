//! What keeps delivery from starting.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use tokio_util::sync::CancellationToken;
use tracklayer_delivery::{Config, RunError};
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_journal::Kind;
use tracklayer_journal_kafka::{SaslMechanism, SecurityProtocol};
use tracklayer_rpc::Listeners;
use tracklayer_testkit::{database, listener};

#[tokio::test]
async fn a_kafka_that_never_answered_is_not_taken_for_the_journal() {
    let database =
        database(&[("journal", &tracklayer_journal::MIGRATOR), ("delivery", &tracklayer_delivery::MIGRATOR)])
            .await;
    let redis = tracklayer_testkit::redis().await;
    let nowhere = listener().await;
    let config = Config {
        database_url: database.secret_url(),
        journal: Kind::Kafka,
        kafka_brokers: nowhere.local_addr().unwrap().to_string(),
        kafka_prefix: "start".to_owned(),
        kafka_replication: 1,
        kafka_security_protocol: SecurityProtocol::default(),
        kafka_ca: String::new(),
        kafka_certificate: String::new(),
        kafka_certificate_key: Secret::default(),
        kafka_sasl_mechanism: SaslMechanism::default(),
        kafka_user: String::new(),
        kafka_password: Secret::default(),
        redis_url: redis.url.clone().into(),
        control_address: "http://127.0.0.1:1".to_owned(),
        identity_address: "http://127.0.0.1:1".to_owned(),
        consent_address: "http://127.0.0.1:1".to_owned(),
        master_key: MasterKey::new([7; 32]),
        lease_ms: 1_000,
        poll_ms: 50,
        entry_cache_bytes: 1_000_000,
        database_connections: 4,
        allow_private_addresses: true,
        warehouse_root: String::new(),
        file_memory_bytes: 64_000_000,
        match_quality_days: 30,
        twin_days: 90,
        dead_letter_days: 30,
    };
    drop(nowhere);
    let listeners = Listeners { grpc: listener().await, http: None, ops: listener().await };
    let ended = tracklayer_delivery::run(config, listeners, CancellationToken::new()).await;
    assert!(matches!(ended, Err(RunError::JournalAway(_))), "{ended:?}");
}
