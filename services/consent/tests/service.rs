//! The service as its callers see it: gRPC over a socket, against the real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

mod support;

use std::collections::BTreeSet;

use jiff::Timestamp;
use support::database;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt as _;
use tracklayer_consent::{Config, RunError};
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_proto::{
    consent::v1::{
        DecideItem, DecideRequest, DestinationQuery, ExplainRequest, ExplicitChoice, NarrowRequest, Outcome,
        Place, ReadNarrowingRequest, RecordItem, RecordRequest, Subject, SubjectLevel,
        consent_service_client::ConsentServiceClient,
    },
    event::v1::{CategoryPreference, ConsentSignals},
};
use tracklayer_rpc::{Channel, Listeners};
use tracklayer_testkit::TestDatabase;

struct Service {
    client: ConsentServiceClient<Channel>,
    address: String,
    ops: String,
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), RunError>>,
    _database: TestDatabase,
}

fn master_key() -> MasterKey {
    MasterKey::new([7; 32])
}

fn config(database: &TestDatabase) -> Config {
    Config {
        database_url: database.secret_url(),
        master_key: master_key(),
        database_connections: 8,
        policy_file: None,
        receipt_retention_days: 731,
    }
}

async fn start() -> Service {
    let database = database().await;
    let listeners = Listeners {
        grpc: tracklayer_testkit::listener().await,
        http: None,
        ops: tracklayer_testkit::listener().await,
    };
    let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
    let ops = format!("{}", listeners.ops.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let ended = tokio::spawn(tracklayer_consent::run(config(&database), listeners, shutdown.clone()));
    let token = Secret::new(master_key().service_token());
    let client = ConsentServiceClient::new(tracklayer_rpc::connect_lazy(&address, token).unwrap());
    Service { client, address, ops, shutdown, ended, _database: database }
}

fn at(timestamp: Timestamp) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: timestamp.as_second(), nanos: timestamp.subsec_nanosecond() })
}

fn subject(key: u8, level: SubjectLevel) -> Subject {
    Subject { key: vec![key; 16], level: level.into(), linked: false }
}

fn place(code: &str) -> Place {
    Place { code: code.to_owned(), provenance: "event".to_owned() }
}

fn item(signals: ConsentSignals) -> DecideItem {
    DecideItem {
        subjects: vec![subject(1, SubjectLevel::Device), subject(2, SubjectLevel::Person)],
        signals: Some(signals),
        captured_at: at(Timestamp::now()),
        received_at: at(Timestamp::now()),
        places: vec![place("US-CA")],
        message_id: "m-1".to_owned(),
        person_known: true,
        ..DecideItem::default()
    }
}

fn gpc() -> ConsentSignals {
    ConsentSignals { gpc: true, gpc_provenance: "sec_gpc_header".to_owned(), ..ConsentSignals::default() }
}

fn to(kinds: &[&str]) -> Vec<DestinationQuery> {
    let asking = kinds.iter().zip(10..);
    asking
        .map(|(kind, id)| DestinationQuery {
            connection_id: id,
            kind: (*kind).to_owned(),
            ..DestinationQuery::default()
        })
        .collect()
}

fn decide(items: Vec<DecideItem>, kinds: &[&str]) -> DecideRequest {
    DecideRequest { workspace_id: 1, items, destinations: to(kinds), record: true }
}

#[tokio::test]
async fn a_batch_is_decided_in_the_order_of_the_request() {
    let mut service = start().await;
    let refused = ConsentSignals {
        has_categories: true,
        interaction: true,
        categories: vec![CategoryPreference { category: "Analytics".to_owned(), allowed: false }],
        ..ConsentSignals::default()
    };
    let stranger =
        |key, signals| DecideItem { subjects: vec![subject(key, SubjectLevel::Device)], ..item(signals) };
    let request = decide(
        vec![stranger(20, gpc()), stranger(21, ConsentSignals::default()), stranger(22, refused)],
        &["meta_capi", "warehouse", "sms"],
    );
    let response = service.client.decide(request).await.unwrap().into_inner();
    let seen: Vec<Vec<(i64, u32, &str)>> = response
        .decisions
        .iter()
        .map(|d| d.destinations.iter().map(|c| (c.connection_id, c.outcome, c.reason.as_str())).collect())
        .collect();
    let unknown_kind = (12, 3, "policy_denied");
    assert_eq!(
        seen,
        [
            vec![(10, 3, "gpc"), (11, 1, ""), unknown_kind],
            vec![(10, 1, ""), (11, 1, ""), unknown_kind],
            vec![(10, 3, "opted_out"), (11, 3, "opted_out"), unknown_kind],
        ]
    );
    let first = &response.decisions[0].destinations[1];
    assert_eq!((first.place.as_str(), first.policy_version.as_str()), ("US-CA", "2026-11-23.1"));
    assert_eq!(first.denied_purposes, ["ad_targeting", "sale_share"]);
    // The device with GPC and the one that refused.
    assert_eq!(response.narrowing_seq, 2);
}

#[tokio::test]
async fn a_withdrawal_that_was_answered_is_in_the_log_and_in_every_later_decision() {
    let mut service = start().await;
    let ask = || decide(vec![item(ConsentSignals::default())], &["meta_capi"]);
    let before = service.client.decide(ask()).await.unwrap().into_inner();
    assert_eq!((before.decisions[0].destinations[0].outcome, before.narrowing_seq), (1, 0));
    let withdrawal = RecordItem {
        subjects: vec![subject(2, SubjectLevel::Person)],
        captured_at: at(Timestamp::now()),
        received_at: at(Timestamp::now()),
        message_id: "case-5".to_owned(),
        explicit: Some(ExplicitChoice {
            denied: vec!["ad_measurement".to_owned(), "ad_targeting".to_owned(), "sale_share".to_owned()],
            provenance: "privacy_center".to_owned(),
            ..ExplicitChoice::default()
        }),
        ..RecordItem::default()
    };
    let request = RecordRequest { workspace_id: 1, items: vec![withdrawal] };
    let recorded = service.client.record(request.clone()).await.unwrap().into_inner();
    assert_eq!((recorded.narrowing_seq, recorded.narrowed), (1, 1));
    let repeated = service.client.record(request).await.unwrap().into_inner();
    assert_eq!((repeated.narrowing_seq, repeated.narrowed), (1, 0));
    let tail = ReadNarrowingRequest { workspace_id: 1, after_seq: before.narrowing_seq, limit: 0 };
    let tail = service.client.read_narrowing(tail).await.unwrap().into_inner();
    assert_eq!((tail.newest_seq, tail.entries.len()), (1, 1));
    assert_eq!(
        (tail.entries[0].cause.as_str(), &tail.entries[0].subject_keys),
        ("withdrawal", &vec![vec![2; 16]])
    );
    assert!(tail.entries[0].recorded_at.is_some());
    let after = service.client.decide(ask()).await.unwrap().into_inner();
    let decision = &after.decisions[0].destinations[0];
    assert_eq!((decision.outcome, decision.reason.as_str(), after.narrowing_seq), (3, "withdrawn", 1));
}

#[tokio::test]
async fn a_signal_from_a_clock_ahead_of_ours_counts_at_once() {
    let mut service = start().await;
    let ahead = at(Timestamp::now() + jiff::SignedDuration::from_mins(10));
    let event = DecideItem { captured_at: ahead, received_at: ahead, ..item(gpc()) };
    let response = service.client.decide(decide(vec![event], &["meta_capi"])).await.unwrap().into_inner();
    assert_eq!(response.decisions[0].destinations[0].reason, "gpc");
    let later =
        service.client.decide(decide(vec![item(ConsentSignals::default())], &["meta_capi"])).await.unwrap();
    assert_eq!(later.into_inner().decisions[0].destinations[0].reason, "gpc");
}

#[tokio::test]
async fn a_connection_can_only_narrow() {
    let mut service = start().await;
    let mut request = decide(vec![item(ConsentSignals::default())], &["meta_capi"; 4]);
    request.destinations[1].mode_cap = Outcome::Deny.into();
    request.destinations[2].mode_cap = 77;
    request.destinations[3].extra_purposes = vec!["mind_reading".to_owned()];
    let response = service.client.decide(request).await.unwrap().into_inner();
    let outcomes: Vec<u32> = response.decisions[0].destinations.iter().map(|d| d.outcome).collect();
    assert_eq!(outcomes, [1, 3, 3, 3]);
    assert_eq!(response.decisions[0].destinations[3].reason, "connection_narrowed");
}

#[tokio::test]
async fn the_place_is_the_given_one_else_the_events_own_else_unknown() {
    let mut service = start().await;
    let with = |key, places: Vec<Place>, of_event: &str| DecideItem {
        subjects: vec![subject(key, SubjectLevel::Device)],
        places,
        signals: Some(ConsentSignals { place: of_event.to_owned(), ..ConsentSignals::default() }),
        ..item(ConsentSignals::default())
    };
    let guess = Place { code: "US-CA".to_owned(), provenance: "ip".to_owned() };
    let items = vec![
        with(31, vec![place("US-CA")], "DE"),
        with(32, vec![], "DE"),
        with(33, vec![], ""),
        with(34, vec![place("US-CA"), place("DE")], ""),
        with(35, vec![guess], ""),
        with(36, vec![place("us-ca; drop")], ""),
        with(37, vec![Place { code: "US-CA".to_owned(), provenance: "tea_leaves".to_owned() }], ""),
    ];
    let response = service.client.decide(decide(items, &["meta_capi"])).await.unwrap().into_inner();
    let seen: Vec<(u32, &str)> = response
        .decisions
        .iter()
        .map(|d| (d.destinations[0].outcome, d.destinations[0].place.as_str()))
        .collect();
    assert_eq!(
        seen,
        [(1, "US-CA"), (3, "DE"), (3, "unknown"), (3, "DE"), (3, "unknown"), (3, "unknown"), (3, "unknown")]
    );
}

#[tokio::test]
async fn a_bad_request_is_refused_with_the_path_of_its_field() {
    let mut service = start().await;
    let refused = async |client: &mut ConsentServiceClient<Channel>, request: DecideRequest| {
        let status = client.decide(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_error_details();
        details.bad_request().unwrap().field_violations[0].field.clone()
    };
    let good = || decide(vec![item(gpc())], &["meta_capi"]);
    let mut request = good();
    request.workspace_id = 0;
    assert_eq!(refused(&mut service.client, request).await, "workspace_id");
    assert_eq!(refused(&mut service.client, decide(vec![], &["meta_capi"])).await, "items");
    let many = vec![DecideItem::default(); 2_501];
    assert_eq!(refused(&mut service.client, decide(many, &[])).await, "items");
    let mut request = good();
    request.items[0].subjects[1].key = vec![1; 15];
    assert_eq!(refused(&mut service.client, request).await, "items[0].subjects[1].key");
    let mut request = good();
    request.items[0].message_id = "m\0".to_owned();
    assert_eq!(refused(&mut service.client, request).await, "items[0].message_id");
    let mut request = good();
    request.items[0].subjects = vec![subject(1, SubjectLevel::Device); 1_101];
    assert_eq!(refused(&mut service.client, request).await, "items[0].subjects");
    let narrow = NarrowRequest {
        workspace_id: 1,
        subject_keys: vec![vec![1; 16]],
        cause: "whim".to_owned(),
        ..NarrowRequest::default()
    };
    assert_eq!(service.client.narrow(narrow.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    let narrow = NarrowRequest { cause: "split".to_owned(), ..narrow };
    assert_eq!(service.client.narrow(narrow).await.unwrap().into_inner().narrowing_seq, 1);
}

#[tokio::test]
async fn strange_content_is_stored_and_denied_and_never_fails_the_batch() {
    let mut service = start().await;
    let strange = [
        ConsentSignals { tc_string: "C\0\u{1f600}".to_owned(), ..ConsentSignals::default() },
        ConsentSignals {
            gpp_string: "D".repeat(40_000),
            gpp_sid: vec![7; 5_000],
            ..ConsentSignals::default()
        },
        ConsentSignals {
            us_privacy: "\u{202e}1YYN".to_owned(),
            gpp_sid: vec![-1, i32::MAX],
            ..ConsentSignals::default()
        },
        ConsentSignals {
            has_categories: true,
            categories: vec![CategoryPreference { category: "\0\"\\".to_owned(), allowed: true }],
            ..ConsentSignals::default()
        },
        ConsentSignals {
            has_categories: true,
            categories: vec![CategoryPreference::default(); 1_000],
            ..ConsentSignals::default()
        },
    ];
    let items: Vec<DecideItem> = (40..)
        .zip(strange)
        .map(|(key, signals)| DecideItem {
            subjects: vec![subject(key, SubjectLevel::Device)],
            captured_at: Some(prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 }),
            received_at: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }),
            ..item(signals)
        })
        .collect();
    // Twice: from the request, then from what was stored.
    for _ in 0..2 {
        let response =
            service.client.decide(decide(items.clone(), &["meta_capi"])).await.unwrap().into_inner();
        let outcomes: BTreeSet<u32> = response.decisions.iter().map(|d| d.destinations[0].outcome).collect();
        assert_eq!(outcomes, BTreeSet::from([3]));
        assert_eq!(response.narrowing_seq, 5);
    }
}

#[tokio::test]
async fn an_explanation_names_the_signals_the_rules_and_every_reason() {
    let mut service = start().await;
    service.client.decide(decide(vec![item(gpc())], &["meta_capi"])).await.unwrap();
    let no_notice =
        ConsentSignals { gpp_string: "DBABBg~BoAAAACA.QA".to_owned(), ..ConsentSignals::default() };
    let request = ExplainRequest {
        workspace_id: 1,
        item: Some(item(no_notice)),
        destination: to(&["meta_capi"]).into_iter().next(),
    };
    let explained = service.client.explain(request).await.unwrap().into_inner();
    let decision = explained.decision.unwrap();
    assert_eq!((decision.outcome, decision.reason.as_str()), (3, "gpc"));
    assert_eq!(explained.reasons, ["gpc", "gpp_no_notice"]);
    let text = explained.steps.join("\n");
    for part in [
        "policy 2026-11-23.1",
        "stored, person",
        "Global Privacy Control is on",
        "GPP string with sections 8",
        "US-CA sale_share: denied (gpc, gpp_no_notice)",
        "outcome deny by US-CA, reported as gpc",
    ] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    // Explaining stores nothing.
    let tail = ReadNarrowingRequest { workspace_id: 1, after_seq: 1, limit: 0 };
    assert_eq!(service.client.read_narrowing(tail).await.unwrap().into_inner().newest_seq, 1);
}

#[tokio::test]
async fn nobody_without_the_service_token_is_answered() {
    let service = start().await;
    for token in ["", "wrong"] {
        let channel = tracklayer_rpc::connect_lazy(&service.address, Secret::new(token.to_owned()));
        let Ok(channel) = channel else { continue };
        let status =
            ConsentServiceClient::new(channel).decide(decide(vec![item(gpc())], &[])).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_shutdown_ends_the_service_in_order() {
    let mut service = start().await;
    service.client.decide(decide(vec![item(gpc())], &["meta_capi"])).await.unwrap();
    let metrics = http_get(&service.ops, "/metrics").await;
    let counted = r#"tracklayer_consent_decisions_total{kind="meta_capi",outcome="deny",reason="gpc"}"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(http_get(&service.ops, "/readyz").await.starts_with("HTTP/1.1 200"));
    service.shutdown.cancel();
    service.ended.await.unwrap().unwrap();
}

async fn http_get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_told_at_start() {
    let database = database().await;
    let run = async |config: Config| {
        let listeners = Listeners {
            grpc: tracklayer_testkit::listener().await,
            http: None,
            ops: tracklayer_testkit::listener().await,
        };
        tracklayer_consent::run(config, listeners, CancellationToken::new()).await.unwrap_err()
    };
    let bad = Config { master_key: MasterKey::new([0; 32]), ..config(&database) };
    assert!(matches!(run(bad).await, RunError::Config(problems) if problems.len() == 1));
    let missing = Config { policy_file: Some("/nowhere/policy.toml".into()), ..config(&database) };
    assert!(matches!(run(missing).await, RunError::PolicyFile { .. }));
}
