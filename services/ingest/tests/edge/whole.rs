//! The service as it runs: three sockets, control followed, stopped in good order.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tracklayer_ids::Secret;
use tracklayer_ingest::Config;
use tracklayer_proto::control::v1 as control;
use tracklayer_proto::control::v1::control_service_server::{ControlService, ControlServiceServer};
use tracklayer_rpc::Listeners;
use tracklayer_testkit::eventually;

use crate::support::{ConsentLog, batch_of, configuration, master_key, serve_consent, track};

/// Control, as far as ingest knows it.
struct Control;

type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

fn never<T>() -> Answer<T> {
    Err(tonic::Status::unimplemented("ingest only follows the configuration"))
}

#[tonic::async_trait]
impl ControlService for Control {
    type WatchConfigStream = ReceiverStream<Result<control::WatchConfigResponse, tonic::Status>>;
    async fn watch_config(
        &self,
        request: tonic::Request<control::WatchConfigRequest>,
    ) -> Answer<Self::WatchConfigStream> {
        assert_eq!(tracklayer_rpc::bearer(request.metadata()), Some(master_key().service_token()));
        let (sender, stream) = tokio::sync::mpsc::channel(1);
        sender.send(Ok(configuration())).await.unwrap();
        // The sender lives as long as the test: the stream stays open.
        tokio::spawn(async move { sender.closed().await });
        Ok(tonic::Response::new(ReceiverStream::new(stream)))
    }
    async fn create_workspace(
        &self,
        _: tonic::Request<control::CreateWorkspaceRequest>,
    ) -> Answer<control::CreateWorkspaceResponse> {
        never()
    }
    async fn set_partitions(
        &self,
        _: tonic::Request<control::SetPartitionsRequest>,
    ) -> Answer<control::SetPartitionsResponse> {
        never()
    }
    async fn list_workspaces(
        &self,
        _: tonic::Request<control::ListWorkspacesRequest>,
    ) -> Answer<control::ListWorkspacesResponse> {
        never()
    }
    async fn create_source(
        &self,
        _: tonic::Request<control::CreateSourceRequest>,
    ) -> Answer<control::CreateSourceResponse> {
        never()
    }
    async fn set_source_rate(
        &self,
        _: tonic::Request<control::SetSourceRateRequest>,
    ) -> Answer<control::SetSourceRateResponse> {
        never()
    }
    async fn set_source_webhook(
        &self,
        _: tonic::Request<control::SetSourceWebhookRequest>,
    ) -> Answer<control::SetSourceWebhookResponse> {
        never()
    }
    async fn set_source_dedup(
        &self,
        _: tonic::Request<control::SetSourceDedupRequest>,
    ) -> Answer<control::SetSourceDedupResponse> {
        never()
    }
    async fn list_sources(
        &self,
        _: tonic::Request<control::ListSourcesRequest>,
    ) -> Answer<control::ListSourcesResponse> {
        never()
    }
    async fn put_connection(
        &self,
        _: tonic::Request<control::PutConnectionRequest>,
    ) -> Answer<control::PutConnectionResponse> {
        never()
    }
    async fn list_connections(
        &self,
        _: tonic::Request<control::ListConnectionsRequest>,
    ) -> Answer<control::ListConnectionsResponse> {
        never()
    }
    async fn pause_connection(
        &self,
        _: tonic::Request<control::PauseConnectionRequest>,
    ) -> Answer<control::PauseConnectionResponse> {
        never()
    }
    async fn resume_connection(
        &self,
        _: tonic::Request<control::ResumeConnectionRequest>,
    ) -> Answer<control::ResumeConnectionResponse> {
        never()
    }
    async fn list_pauses(
        &self,
        _: tonic::Request<control::ListPausesRequest>,
    ) -> Answer<control::ListPausesResponse> {
        never()
    }
    async fn set_release_pace(
        &self,
        _: tonic::Request<control::SetReleasePaceRequest>,
    ) -> Answer<control::SetReleasePaceResponse> {
        never()
    }
    async fn add_freeze(
        &self,
        _: tonic::Request<control::AddFreezeRequest>,
    ) -> Answer<control::AddFreezeResponse> {
        never()
    }
    async fn list_freezes(
        &self,
        _: tonic::Request<control::ListFreezesRequest>,
    ) -> Answer<control::ListFreezesResponse> {
        never()
    }
    async fn remove_freeze(
        &self,
        _: tonic::Request<control::RemoveFreezeRequest>,
    ) -> Answer<control::RemoveFreezeResponse> {
        never()
    }
    async fn create_admin_key(
        &self,
        _: tonic::Request<control::CreateAdminKeyRequest>,
    ) -> Answer<control::CreateAdminKeyResponse> {
        never()
    }
}

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn it_becomes_ready_with_the_configuration_takes_events_and_stops() {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("ingest", &tracklayer_ingest::MIGRATOR),
    ])
    .await;
    let listener = tracklayer_testkit::listener().await;
    let control = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(ControlServiceServer::new(Control));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let consent = serve_consent(Arc::new(ConsentLog::default())).await;

    let config = Config::new(Secret::new(database.url.clone()), control, consent, master_key());
    let listeners = Listeners {
        grpc: tracklayer_testkit::listener().await,
        http: Some(tracklayer_testkit::listener().await),
        ops: tracklayer_testkit::listener().await,
    };
    let http = listeners.http.as_ref().unwrap().local_addr().unwrap();
    let ops = listeners.ops.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(tracklayer_ingest::run(config, listeners, shutdown.clone()));

    eventually("ingest is ready", async || {
        let answer = ask(ops, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    let body = batch_of(&[track("whole")]);
    let request = format!(
        "POST /v1/batch HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Basic d2tfdGVzdDo=\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = ask(http, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"success":true}"#), "{answer}");
    let metrics = ask(ops, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let accepted = metrics
        .lines()
        .find_map(|l| l.strip_prefix(r#"tracklayer_ingest_accepted_events_total{wire="http"} "#));
    assert!(accepted.is_some_and(|n| n.parse::<u64>().unwrap() >= 1), "{metrics}");

    // A refused request's body is read to its end: else the client would see a broken connection, and send it again.
    let body = "x".repeat(3_000_000);
    for key in ["bm9wZTo=", "d2tfdGVzdDo="] {
        let request = format!(
            "POST /v1/batch HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Basic {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = ask(http, &request).await;
        let status = if key == "bm9wZTo=" { "HTTP/1.1 401" } else { "HTTP/1.1 413" };
        assert!(answer.starts_with(status), "{answer}");
    }

    shutdown.cancel();
    running.await.unwrap().unwrap();
    let stored: i64 = sqlx::query_scalar("select sum(event_count)::bigint from journal.received")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(stored, 1);
}

#[tokio::test]
async fn wrong_settings_are_named_before_anything_starts() {
    let mut config =
        Config::new(Secret::new("postgres://x".into()), "http://c".into(), "http://d".into(), master_key());
    config.stream_window = 0;
    let listeners = Listeners {
        grpc: tracklayer_testkit::listener().await,
        http: None,
        ops: tracklayer_testkit::listener().await,
    };
    let error = tracklayer_ingest::run(config, listeners, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "settings of ingest: stream_window is 0, allowed are 1 to 1024");
}
