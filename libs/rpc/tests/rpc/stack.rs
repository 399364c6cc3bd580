//! What every call passes through, over real sockets.

use std::time::{Duration, Instant};

use crate::fake::{Identity, Running, TOKEN};
use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;
use tracklayer_proto::identity::v1::{
    Identifier, LookUpRequest, identity_service_client::IdentityServiceClient,
};
use tracklayer_rpc::{Channel, StackLimits};
use tracklayer_testkit::{eventually, listener};

fn wish(value: &str) -> LookUpRequest {
    let identifier = Identifier { r#type: "user_id".to_owned(), value: value.to_owned() };
    LookUpRequest { workspace_id: 1, identifier: Some(identifier) }
}

async fn start(limits: StackLimits) -> (Identity, Running, IdentityServiceClient<Channel>) {
    let identity = Identity::new();
    let running = Running::start(identity.clone(), listener().await, limits).await;
    let client = IdentityServiceClient::new(running.channel(TOKEN));
    (identity, running, client)
}

async fn plain(running: &Running) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(running.address.clone()).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn a_call_needs_the_service_token() {
    let (_, running, mut client) = start(StackLimits::default()).await;
    assert!(client.look_up(wish("ok")).await.is_ok());
    let mut stranger = IdentityServiceClient::new(running.channel("another"));
    let refused = stranger.look_up(wish("ok")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(refused.get_details_error_info().unwrap().reason, "TOKEN_UNKNOWN");
    let mut nobody = IdentityServiceClient::new(plain(&running).await);
    let refused = nobody.look_up(wish("ok")).await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().reason, "TOKEN_MISSING");
    running.stop().await;
}

#[tokio::test]
async fn a_panic_is_one_callers_internal_error() {
    let (_, running, mut client) = start(StackLimits::default()).await;
    let failed = client.look_up(wish("panic")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Internal);
    assert_eq!(failed.get_details_error_info().unwrap().reason, "PANIC");
    assert!(!failed.message().contains("as wished"), "{failed}");
    assert!(client.look_up(wish("ok")).await.is_ok());
    running.stop().await;
}

#[tokio::test]
async fn a_connection_above_the_limit_waits_until_another_ends() {
    let limits = StackLimits { connections: 1, ..StackLimits::default() };
    let (_, running, mut first) = start(limits).await;
    assert!(first.look_up(wish("ok")).await.is_ok());
    let mut second = IdentityServiceClient::new(running.channel(TOKEN));
    let waiting = tokio::spawn(async move { second.look_up(wish("ok")).await });
    for _ in 0..20 {
        assert!(first.look_up(wish("ok")).await.is_ok());
    }
    assert!(!waiting.is_finished(), "there is no place for it yet");
    drop(first);
    assert!(waiting.await.unwrap().is_ok());
    running.stop().await;
}

#[tokio::test]
async fn overload_is_refused_with_a_time_to_wait_and_probes_pass() {
    let limits = StackLimits { in_flight: 2, ..StackLimits::default() };
    let (identity, running, mut client) = start(limits).await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.look_up(wish("wait")).await })
        })
        .collect();
    identity.until_waiting(2).await;
    let refused = client.look_up(wish("ok")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let wait = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(wait >= Duration::from_millis(500) && wait < Duration::from_millis(1500), "{wait:?}");
    let mut health = HealthClient::new(plain(&running).await);
    assert!(health.check(HealthCheckRequest { service: String::new() }).await.is_ok());

    identity.released.cancel();
    for call in waiting {
        assert!(call.await.unwrap().is_ok());
    }
    // Places are free again once the answers have been read.
    eventually("a free place", async || client.look_up(wish("ok")).await.ok()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_call_ends_at_the_shorter_deadline() {
    let limits = StackLimits { deadline: Duration::from_millis(50), ..StackLimits::default() };
    let (_, running, mut client) = start(limits).await;
    let cut = client.look_up(wish("wait")).await.unwrap_err();
    assert_eq!(cut.code(), Code::DeadlineExceeded);
    running.stop().await;

    let (_, running, mut client) = start(StackLimits::default()).await;
    let mut request = Request::new(wish("deadline"));
    request.set_timeout(Duration::from_secs(3));
    let left: u64 = client.look_up(request).await.unwrap().into_inner().collisions[0].parse().unwrap();
    assert!(left <= 3000 && left > 1000, "{left}");
    running.stop().await;
}

#[tokio::test]
async fn a_shutdown_says_so_and_lets_calls_in_flight_end() {
    let (identity, running, mut client) = start(StackLimits::default()).await;
    let mut health = HealthClient::new(plain(&running).await);
    let service = "tracklayer.identity.v1.IdentityService".to_owned();
    let mut states = health.watch(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let call = tokio::spawn(async move { client.look_up(wish("wait")).await });
    identity.until_waiting(1).await;

    running.shutdown.cancel();
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((states, health));
    identity.released.cancel();
    assert!(call.await.unwrap().is_ok());
    running.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_after_the_drain_time() {
    let limits = StackLimits { drain: Duration::from_millis(50), ..StackLimits::default() };
    let (identity, running, mut client) = start(limits).await;
    let call = tokio::spawn(async move { client.look_up(wish("wait")).await });
    identity.until_waiting(1).await;
    let started = Instant::now();
    running.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    call.abort();
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let (_, running, _) = start(StackLimits::default()).await;
    let mut client = ServerReflectionClient::new(plain(&running).await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == "tracklayer.identity.v1.IdentityService"), "{names:?}");
    assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
    drop((answers, client));
    running.stop().await;
}

#[tokio::test]
async fn each_call_is_counted_with_its_outcome() {
    let (_, running, mut client) = start(StackLimits::default()).await;
    let _ = client.look_up(wish("ok")).await;
    let _ = client.look_up(wish("panic")).await;
    running.stop().await;
    let text = tracklayer_telemetry::render_metrics();
    for code in ["ok", "internal"] {
        let line = text.lines().find(|line| {
            line.starts_with("tracklayer_rpc_requests_total")
                && line.contains("rpc=\"identity.LookUp\"")
                && line.contains(&format!("code=\"{code}\""))
        });
        assert!(line.is_some(), "{code}\n{text}");
    }
    assert!(text.contains("tracklayer_rpc_duration_seconds_bucket"), "{text}");
}

#[tokio::test]
async fn an_address_must_be_plain_http() {
    let token = || tracklayer_ids::Secret::new(TOKEN.to_owned());
    for wrong in ["control:7401", "https://control:7401", "http://", "http://a b"] {
        assert!(tracklayer_rpc::connect_lazy(wrong, token()).is_err(), "{wrong}");
    }
}
