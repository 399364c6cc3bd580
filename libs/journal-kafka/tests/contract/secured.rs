//! Brokers that want to know who asks, and clients that want to know whom they ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracklayer_ids::Partition;
use tracklayer_journal::{AppendError, Journal, LayoutStore};
use tracklayer_journal_kafka::{Access, KafkaJournal, KafkaSettings, SaslMechanism, SecurityProtocol};
use tracklayer_testkit::{TestDatabase, TestKafka};

use crate::stage::{WORKSPACE, append, beginning, block, events, migrated, read};

/// A request has 5 seconds and an append 8; the rest is for a machine that does other things.
const BOUND: Duration = Duration::from_secs(30);

fn journal(database: &TestDatabase, brokers: String, access: Access) -> Arc<dyn Journal> {
    let prefix = format!("t-{}", uuid::Uuid::new_v4().simple());
    let settings = KafkaSettings { prefix, replication: 1, access, ..KafkaSettings::new(brokers) };
    assert_eq!(settings.problems(), Vec::<String>::new());
    Arc::new(KafkaJournal::new(settings, LayoutStore::new(database.pool.clone())).unwrap())
}

/// What the broker's user shows, without TLS.
fn user(mechanism: SaslMechanism) -> Access {
    Access {
        protocol: SecurityProtocol::SaslPlaintext,
        mechanism,
        user: "tracklayer".to_owned(),
        password: "right".to_owned().into(),
        ..Access::default()
    }
}

/// The same inside of TLS, by an authority's word.
fn inside_tls(access: Access, ca: String) -> Access {
    Access { protocol: SecurityProtocol::SaslSsl, ca, ..access }
}

fn certified(broker: &TestKafka) -> Access {
    Access {
        protocol: SecurityProtocol::Ssl,
        ca: broker.pem("ca.pem"),
        certificate: broker.pem("client.pem"),
        certificate_key: broker.pem("client.key").into(),
        ..Access::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_who_it_is_appends_and_reads() {
    let Some(broker) = tracklayer_testkit::secured_kafka().await else { return };
    let database = migrated().await;
    let ca = || broker.pem("ca.pem");
    let (plain, scram_256, scram_512) =
        (SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512);
    for (brokers, access) in [
        (broker.sasl_brokers(), user(plain)),
        (broker.sasl_brokers(), user(scram_256)),
        (broker.sasl_brokers(), user(scram_512)),
        (broker.sasl_ssl_brokers(), inside_tls(user(plain), ca())),
        (broker.sasl_ssl_brokers(), inside_tls(user(scram_512), ca())),
        (broker.ssl_brokers(), certified(&broker)),
    ] {
        let journal = journal(&database, brokers, access);
        append(&journal, 0, "a", 3).await;
        let (blocks, _) = read(&journal, beginning(0), 3).await;
        assert_eq!(events(&blocks)[2], (2, "a-2".to_owned()));
        journal.weaknesses().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_hears_soon_which_setting_to_look_at() {
    let Some(broker) = tracklayer_testkit::secured_kafka().await else { return };
    let database = migrated().await;
    let wrong = |mechanism| Access { password: "not-it-at-all".to_owned().into(), ..user(mechanism) };
    let stranger = inside_tls(user(SaslMechanism::Plain), broker.pem("stranger.pem"));
    let nobody =
        Access { certificate: String::new(), certificate_key: String::new().into(), ..certified(&broker) };
    let cases = [
        (broker.sasl_brokers(), wrong(SaslMechanism::Plain), Some("kafka_password")),
        (broker.sasl_brokers(), wrong(SaslMechanism::ScramSha512), Some("kafka_password")),
        (broker.sasl_ssl_brokers(), stranger, Some("kafka_ca")),
        (broker.sasl_brokers(), Access::default(), Some("kafka_security_protocol")),
        // What becomes of a handshake without a certificate is told by TLS 1.3 only when it is over.
        (broker.ssl_brokers(), nobody, None),
    ];
    for (brokers, access, setting) in cases {
        let began = Instant::now();
        let journal = journal(&database, brokers, access);
        let refused =
            tracklayer_testkit::append(journal.as_ref(), WORKSPACE, Partition(0), &block(["event"])).await;
        let why = match refused {
            Err(AppendError::Unavailable { why }) => why,
            other => panic!("{other:?}, not {setting:?}"),
        };
        assert!(began.elapsed() < BOUND, "{:?} until {why}", began.elapsed());
        assert!(setting.is_none_or(|setting| why.contains(setting)), "{setting:?} is not in: {why}");
        assert!(!why.contains("not-it-at-all"), "{why}");
    }
}
