//! Nobody reads another workspace's events: every RPC of `delivery.v1`, tried with another workspace's key. What is tried is
//! compared with the protos: an RPC that is added and not tried here fails.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use redis::aio::ConnectionManager;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Status};
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
use tracklayer_proto::control::v1::control_service_client::ControlServiceClient;
use tracklayer_proto::control::v1::{
    CreateAdminKeyRequest, CreateSourceRequest, CreateWorkspaceRequest, WatchConfigResponse, WorkspaceConfig,
};
use tracklayer_proto::delivery::v1 as pb;
use tracklayer_proto::delivery::v1::delivery_service_server::DeliveryService as _;
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_rpc::{Channel, Listeners};
use tracklayer_testkit::{TestDatabase, TestRedis, listener};

/// Delivery before the real control, which says whose a key is.
struct Installation {
    database: TestDatabase,
    redis: TestRedis,
    master_key: MasterKey,
    control: String,
    admin: ControlServiceClient<Channel>,
    /// Opens every workspace.
    key: String,
    _ends_with_the_test: DropGuard,
}

impl Installation {
    async fn start() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
            ("control", &tracklayer_control::MIGRATOR),
        ])
        .await;
        let master_key = MasterKey::new([7; 32]);
        let key = tracklayer_control::ensure_first_admin_key(&database.pool).await.unwrap().unwrap();
        let config = tracklayer_control::Config {
            database_url: database.secret_url(),
            journal: tracklayer_journal::Kind::Postgres,
            delivery_address: "http://127.0.0.1:1".to_owned(),
            master_key: master_key.clone(),
            database_connections: 4,
            console_cookies_https_only: false,
        };
        let grpc = listener().await;
        let control = format!("http://{}", grpc.local_addr().unwrap());
        let listeners = Listeners { grpc, http: Some(listener().await), ops: listener().await };
        let shutdown = CancellationToken::new();
        tokio::spawn(tracklayer_control::run(config, listeners, shutdown.clone()));
        let channel = tracklayer_rpc::connect_lazy(&control, Secret::new(key.clone())).unwrap();
        let admin = ControlServiceClient::new(channel);
        let redis = tracklayer_testkit::redis().await;
        Self { database, redis, master_key, control, admin, key, _ends_with_the_test: shutdown.drop_guard() }
    }

    /// A new workspace, an admin key and a write key of it.
    async fn workspace(&mut self, name: &str) -> (i64, String, String) {
        let request = CreateWorkspaceRequest { name: name.to_owned(), ..CreateWorkspaceRequest::default() };
        let made = self.admin.create_workspace(request).await.unwrap().into_inner();
        let workspace_id = made.workspace.unwrap().workspace_id;
        let request = CreateAdminKeyRequest { workspace_id, label: format!("{name}'s key") };
        let admin_key = self.admin.create_admin_key(request).await.unwrap().into_inner().admin_key;
        let request = CreateSourceRequest {
            workspace_id,
            name: "shop".to_owned(),
            channel: "server".to_owned(),
            default_place: "US-CA".to_owned(),
            ..CreateSourceRequest::default()
        };
        let write_key = self.admin.create_source(request).await.unwrap().into_inner().write_key;
        (workspace_id, admin_key, write_key)
    }

    /// A replica that has not seen any key yet.
    async fn delivery(&self, workspaces: &[i64]) -> DeliveryGrpc {
        let of =
            |id: &i64| WorkspaceConfig { workspace_id: *id, partitions: 2, ..WorkspaceConfig::default() };
        let workspaces = workspaces.iter().map(of).collect();
        let watch = ConfigWatch::fixed(WatchConfigResponse { workspaces, ..WatchConfigResponse::default() });
        let pool = self.database.pool.clone();
        let journal: Arc<dyn Journal> = PostgresJournal::new(pool.clone()).into();
        let connections = Connections::new(watch.clone(), self.master_key.clone());
        // Only control is there: that the others are not is what an examination tells.
        let channel = |address: &str| {
            let token = Secret::new(self.master_key.service_token());
            tracklayer_rpc::connect_lazy(address, token).unwrap()
        };
        let redis = redis::Client::open(self.redis.url.as_str()).unwrap();
        let examiner = Examiner {
            journal: Arc::clone(&journal),
            store: ExamineStore::new(pool.clone()),
            inspection: Inspection::new(pool.clone(), Kind::Postgres),
            days: RetentionStore::new(pool.clone()),
            redis: ConnectionManager::new(redis).await.unwrap(),
            control: channel(&self.control),
            identity: channel("http://127.0.0.1:1"),
            consent: channel("http://127.0.0.1:1"),
            config: watch.clone(),
            holds: Holds::new(watch.clone()),
        };
        let control = self.control.clone();
        let sender = Sender::new(false).unwrap();
        let tokens = Tokens::new(sender.clone());
        let verifier =
            Verifier::new(connections, sender, tokens, Quota::default(), tracklayer_lake::Rules::default());
        DeliveryGrpc::new(Index::new(pool), journal, examiner, verifier, watch, control, &self.master_key)
    }
}

/// What an RPC answers to whom it is for. Nothing was ever accepted in these workspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The request names the workspace, and there is an answer.
    AWorkspaces,
    /// The request names the workspace, and the event that is asked for is not in it.
    AWorkspacesButNothingThere,
    /// It touches no workspace: any valid key will do.
    Nobodys,
}

/// Every RPC, by name, as one key sees it.
async fn every_rpc(
    delivery: &DeliveryGrpc,
    key: &str,
    workspace_id: i64,
) -> Vec<(&'static str, Whose, Result<(), Status>)> {
    use Whose::{AWorkspaces, AWorkspacesButNothingThere, Nobodys};
    let webhook = serde_json::json!({
        "kind": "webhook",
        "settings": {"url": "https://hooks.example.com/in", "secret": "s"},
    });
    let preview =
        pb::PreviewRequest { connection_json: webhook.to_string(), ..pb::PreviewRequest::default() };
    let event = pb::ShowEventRequest { workspace_id, message_id: "m-1".to_owned() };
    let letters = pb::ListDeadLettersRequest { workspace_id, ..pb::ListDeadLettersRequest::default() };
    let close = pb::CloseDeadLettersRequest {
        workspace_id,
        connection_id: 999,
        confirmed: true,
        ..pb::CloseDeadLettersRequest::default()
    };
    let from = Some(pb::Position { generation: 1, partition: 0, offset: 0 });
    let verify = pb::VerifyJournalRequest { workspace_id, from };
    let read = pb::ReadJournalRequest { workspace_id, from, ..pb::ReadJournalRequest::default() };
    let retention = pb::GetJournalRetentionRequest { workspace_id };
    let give_up = pb::GiveUpUnreadRequest {
        workspace_id,
        before_day: "2026-01-31".to_owned(),
        ..pb::GiveUpUnreadRequest::default()
    };
    let skip = pb::SkipBlockRequest { workspace_id, at: from, ..pb::SkipBlockRequest::default() };
    let forecast = pb::ForecastReleaseRequest {
        workspace_id,
        connection_id: 999,
        ..pb::ForecastReleaseRequest::default()
    };
    let of_workspace =
        pb::PreviewRequest { workspace_id, connection_id: 999, ..pb::PreviewRequest::default() };
    let of_workspace = delivery.preview(with(key, of_workspace)).await.map(|_| ());
    let resolved = pb::ReadJournalRequest { resolved: true, unmasked: true, ..read };
    let orders =
        pb::GetOrderStatesRequest { workspace_id, connection_id: 999, order_ids: vec!["o-1".to_owned()] };
    let selection = Some(pb::ReplaySelection {
        origin: pb::ReplayOrigin::DeadLetters.into(),
        ..pb::ReplaySelection::default()
    });
    let plan = pb::PlanReplayRequest {
        workspace_id,
        connection_id: 999,
        selection: selection.clone(),
        ..pb::PlanReplayRequest::default()
    };
    let start = pb::StartReplayRequest { workspace_id, connection_id: 999, selection };
    let try_out = pb::VerifyConnectionRequest {
        workspace_id,
        connection_id: 999,
        ..pb::VerifyConnectionRequest::default()
    };
    let later = pb::ListIngestRequestsRequest {
        workspace_id,
        connection_id: 999,
        ..pb::ListIngestRequestsRequest::default()
    };
    let quality = pb::GetMatchQualityRequest { workspace_id, ..pb::GetMatchQualityRequest::default() };
    let freeze =
        pb::FreezeGoldenRequest { workspace_id, connection_id: 999, ..pb::FreezeGoldenRequest::default() };
    let drift = pb::ReportDriftRequest { workspace_id, connection_id: 999 };
    let accept = pb::AcceptDriftRequest { workspace_id, connection_id: 999 };
    let forget = pb::ForgetGoldenRequest { workspace_id, connection_id: 999 };
    vec![
        (
            "ListIngestRequests",
            AWorkspaces,
            delivery.list_ingest_requests(with(key, later)).await.map(|_| ()),
        ),
        (
            "VerifyConnection",
            AWorkspacesButNothingThere,
            delivery.verify_connection(with(key, try_out)).await.map(|_| ()),
        ),
        (
            "FreezeGolden",
            AWorkspacesButNothingThere,
            delivery.freeze_golden(with(key, freeze)).await.map(|_| ()),
        ),
        (
            "ReportDrift",
            AWorkspacesButNothingThere,
            delivery.report_drift(with(key, drift)).await.map(|_| ()),
        ),
        (
            "AcceptDrift",
            AWorkspacesButNothingThere,
            delivery.accept_drift(with(key, accept)).await.map(|_| ()),
        ),
        ("ForgetGolden", AWorkspaces, delivery.forget_golden(with(key, forget)).await.map(|_| ())),
        ("Preview", Nobodys, delivery.preview(with(key, preview)).await.map(|_| ())),
        ("Preview", AWorkspacesButNothingThere, of_workspace),
        ("ReadJournal", AWorkspaces, delivery.read_journal(with(key, resolved)).await.map(|_| ())),
        ("GetOrderStates", AWorkspaces, delivery.get_order_states(with(key, orders)).await.map(|_| ())),
        ("ShowEvent", AWorkspacesButNothingThere, delivery.show_event(with(key, event)).await.map(|_| ())),
        (
            "BalanceLedger",
            AWorkspaces,
            delivery.balance_ledger(with(key, pb::BalanceLedgerRequest { workspace_id })).await.map(|_| ()),
        ),
        (
            "GetStats",
            AWorkspaces,
            delivery.get_stats(with(key, pb::GetStatsRequest { workspace_id })).await.map(|_| ()),
        ),
        ("ListDeadLetters", AWorkspaces, delivery.list_dead_letters(with(key, letters)).await.map(|_| ())),
        ("CloseDeadLetters", AWorkspaces, delivery.close_dead_letters(with(key, close)).await.map(|_| ())),
        (
            "InspectJournal",
            AWorkspaces,
            delivery.inspect_journal(with(key, pb::InspectJournalRequest { workspace_id })).await.map(|_| ()),
        ),
        ("VerifyJournal", AWorkspaces, delivery.verify_journal(with(key, verify)).await.map(|_| ())),
        (
            "GetJournalLag",
            AWorkspaces,
            delivery.get_journal_lag(with(key, pb::GetJournalLagRequest { workspace_id })).await.map(|_| ()),
        ),
        ("ReadJournal", AWorkspaces, delivery.read_journal(with(key, read)).await.map(|_| ())),
        (
            "GetJournalRetention",
            AWorkspaces,
            delivery.get_journal_retention(with(key, retention)).await.map(|_| ()),
        ),
        (
            "Examine",
            AWorkspaces,
            delivery.examine(with(key, pb::ExamineRequest { workspace_id })).await.map(|_| ()),
        ),
        (
            "ForecastRelease",
            AWorkspacesButNothingThere,
            delivery.forecast_release(with(key, forecast)).await.map(|_| ()),
        ),
        ("PlanReplay", AWorkspacesButNothingThere, delivery.plan_replay(with(key, plan)).await.map(|_| ())),
        (
            "StartReplay",
            AWorkspacesButNothingThere,
            delivery.start_replay(with(key, start)).await.map(|_| ()),
        ),
        (
            "GetReplay",
            AWorkspacesButNothingThere,
            delivery
                .get_replay(with(key, pb::GetReplayRequest { workspace_id, replay_id: 999 }))
                .await
                .map(|_| ()),
        ),
        (
            "ListReplays",
            AWorkspaces,
            delivery
                .list_replays(with(
                    key,
                    pb::ListReplaysRequest { workspace_id, ..pb::ListReplaysRequest::default() },
                ))
                .await
                .map(|_| ()),
        ),
        (
            "CancelReplay",
            AWorkspacesButNothingThere,
            delivery
                .cancel_replay(with(key, pb::CancelReplayRequest { workspace_id, replay_id: 999 }))
                .await
                .map(|_| ()),
        ),
        (
            "GetTwins",
            AWorkspaces,
            delivery
                .get_twins(with(key, pb::GetTwinsRequest { workspace_id, ..pb::GetTwinsRequest::default() }))
                .await
                .map(|_| ()),
        ),
        ("GetMatchQuality", AWorkspaces, delivery.get_match_quality(with(key, quality)).await.map(|_| ())),
        ("SkipBlock", AWorkspacesButNothingThere, delivery.skip_block(with(key, skip)).await.map(|_| ())),
        ("GiveUpUnread", AWorkspaces, delivery.give_up_unread(with(key, give_up)).await.map(|_| ())),
    ]
}

/// The request with this key; with none at all if it is empty.
fn with<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !key.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

fn code(outcome: &Result<(), Status>) -> Code {
    outcome.as_ref().map_or_else(Status::code, |()| Code::Ok)
}

/// The RPCs of delivery, as the protos have them.
fn rpcs_of_the_protos() -> BTreeSet<String> {
    let protos = prost_types::FileDescriptorSet::decode(tracklayer_proto::DESCRIPTORS).unwrap();
    let of_delivery = protos.file.iter().filter(|file| file.package() == "tracklayer.delivery.v1");
    let services = of_delivery.flat_map(|file| &file.service);
    services.flat_map(|service| &service.method).map(|method| method.name().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_another_workspace_is_not_there() {
    let mut installation = Installation::start().await;
    let (ours, our_key, _) = installation.workspace("ours").await;
    let (theirs, their_key, _) = installation.workspace("theirs").await;
    let delivery = installation.delivery(&[ours, theirs]).await;
    let replay_id: i64 = sqlx::query_scalar(
        "insert into delivery.replay
             (workspace_id, connection_id, origin, codes, event_names, message_ids, delivered_too, past_dedup_window,
              before_start, asked_by)
         values ($1, 7, 'journal', '{}', '{}', '{}', false, false, false, 'ann') returning replay_id",
    )
    .bind(ours)
    .fetch_one(&installation.database.pool)
    .await
    .unwrap();
    sqlx::query(
        "insert into delivery.replay_lane
             (workspace_id, replay_id, connection_id, partition, generation, next_offset, end_generation, end_offset,
              positions)
         values ($1, $2, 7, 0, 1, 0, 1, 9, 9)",
    )
    .bind(ours)
    .bind(replay_id)
    .execute(&installation.database.pool)
    .await
    .unwrap();
    // By its right number, under the own workspace: for its owner it is there, for anybody else it is not.
    for (key, workspace_id, expected) in [(&their_key, theirs, Code::NotFound), (&our_key, ours, Code::Ok)] {
        let get = pb::GetReplayRequest { workspace_id, replay_id };
        let got = delivery.get_replay(with(key, get)).await.map(|_| ());
        assert_eq!(code(&got), expected, "{got:?}");
        let list = pb::ListReplaysRequest { workspace_id, ..pb::ListReplaysRequest::default() };
        let listed = delivery.list_replays(with(key, list)).await.unwrap().into_inner().replays;
        assert_eq!(listed.len(), usize::from(expected == Code::Ok));
        assert!(listed.iter().all(|replay| replay.state == "running"), "nobody else has cancelled it");
        let cancel = pb::CancelReplayRequest { workspace_id, replay_id };
        let cancelled = delivery.cancel_replay(with(key, cancel)).await.map(|_| ());
        assert_eq!(code(&cancelled), expected, "{cancelled:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_connection_is_told_to_its_workspace_alone() {
    let mut installation = Installation::start().await;
    let (ours, our_key, _) = installation.workspace("ours").await;
    let (theirs, their_key, _) = installation.workspace("theirs").await;
    let delivery = installation.delivery(&[ours, theirs]).await;
    for row in [
        "insert into delivery.match_quality
         values ($1, 999, 0, floor(extract(epoch from now()) / 60)::bigint, 'Purchase', 1, '{1}')",
        "insert into delivery.twin_count
         values ($1, 0, floor(extract(epoch from now()) / 60)::bigint, 1, 2, false, 1, 1, 1)",
        "insert into delivery.platform_quality_reading (workspace_id, connection_id, revision, asked_at)
         values ($1, 999, 1, now())",
        "insert into delivery.ingest_request (workspace_id, connection_id, request_id, partition, events, sent_at)
         values ($1, 999, 'r-1', 0, 1, now())",
        "insert into delivery.golden_event
             (workspace_id, connection_id, number, clock, version, revision, sealed, subject_keys)
         values ($1, 999, 1, now(), '1', 1, 'sealed', '{}')",
        "insert into delivery.dead_letter
             (workspace_id, connection_id, partition, generation, event_offset, message_id, code, died_at, resolved)
         values ($1, 999, 0, 1, 0, 'm-1', 'missing_value', now() - interval '1 day', '')",
    ] {
        sqlx::query(row).bind(ours).execute(&installation.database.pool).await.unwrap();
    }
    // Theirs is asked first, about the same number, and takes nothing away.
    for (key, workspace_id, kept) in [(&their_key, theirs, 0), (&our_key, ours, 1)] {
        let quality = pb::GetMatchQualityRequest { workspace_id, ..pb::GetMatchQualityRequest::default() };
        let quality = delivery.get_match_quality(with(key, quality)).await.unwrap().into_inner();
        assert_eq!((quality.events.len(), quality.readings.len()), (kept, kept));
        let twins = pb::GetTwinsRequest { workspace_id, ..pb::GetTwinsRequest::default() };
        let twins = delivery.get_twins(with(key, twins)).await.unwrap().into_inner();
        assert_eq!((twins.pairs.len(), twins.sources.len()), (kept, 2 * kept));
        let later = pb::ListIngestRequestsRequest {
            workspace_id,
            connection_id: 999,
            ..pb::ListIngestRequestsRequest::default()
        };
        let later = delivery.list_ingest_requests(with(key, later)).await.unwrap().into_inner();
        assert_eq!((later.requests.len(), later.counts.len()), (kept, kept));
        let forget = pb::ForgetGoldenRequest { workspace_id, connection_id: 999 };
        let gone = delivery.forget_golden(with(key, forget)).await.unwrap().into_inner();
        assert_eq!(gone.forgotten, kept as u64);
        let close = pb::CloseDeadLettersRequest {
            workspace_id,
            connection_id: 999,
            confirmed: true,
            ..pb::CloseDeadLettersRequest::default()
        };
        let closed = delivery.close_dead_letters(with(key, close)).await.unwrap().into_inner();
        assert_eq!(closed.letters, kept as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_workspaces_key_is_refused_by_every_rpc() {
    let mut installation = Installation::start().await;
    let (ours, _, our_write_key) = installation.workspace("ours").await;
    let (theirs, their_key, _) = installation.workspace("theirs").await;
    let delivery = installation.delivery(&[ours, theirs]).await;

    // The same calls pass for whom they are: the refusals below are about whose the workspace is, and nothing else.
    let service_token = installation.master_key.service_token();
    for (key, workspace) in [
        (their_key.as_str(), theirs),
        (installation.key.as_str(), ours),
        (installation.key.as_str(), theirs),
        (service_token.as_str(), ours),
    ] {
        let outcomes = every_rpc(&delivery, key, workspace).await;
        let tried: BTreeSet<String> = outcomes.iter().map(|(rpc, _, _)| (*rpc).to_owned()).collect();
        assert_eq!(tried, rpcs_of_the_protos(), "every RPC must be tried here");
        for (rpc, whose, outcome) in outcomes {
            let nothing_there = whose == Whose::AWorkspacesButNothingThere;
            let expected = if nothing_there { Code::NotFound } else { Code::Ok };
            assert_eq!(code(&outcome), expected, "{rpc}: {outcome:?}");
        }
    }
    // Ours exists, 9999 does not: the answer is the same and tells neither. So it is whether the replica knows the key or not.
    for delivery in [delivery, installation.delivery(&[ours, theirs]).await] {
        for workspace in [ours, 9_999] {
            for (rpc, whose, outcome) in every_rpc(&delivery, &their_key, workspace).await {
                let expected = if whose == Whose::Nobodys { Code::Ok } else { Code::PermissionDenied };
                assert_eq!(code(&outcome), expected, "{rpc}: {outcome:?}");
            }
        }
        // A write key is public, and no admin key.
        let other_end = if their_key.ends_with('0') { '1' } else { '0' };
        let almost = format!("{}{other_end}", &their_key[..their_key.len() - 1]);
        for key in ["", "wrong", almost.as_str(), our_write_key.as_str()] {
            for (rpc, _, outcome) in every_rpc(&delivery, key, ours).await {
                assert_eq!(code(&outcome), Code::Unauthenticated, "{rpc}: {outcome:?}");
            }
        }
    }
}
