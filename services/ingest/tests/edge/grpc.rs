//! `ingest.v1` through a real connection.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::FuturesUnordered;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use tower::{Service as _, ServiceExt as _};
use tracklayer_ingest::admission::Holder;
use tracklayer_ingest::grpc::{GrpcSettings, IngestGrpc};
use tracklayer_proto::event::v1::EventType;
use tracklayer_proto::ingest::v1::event_result::Outcome;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_proto::ingest::v1::publish_stream_response::Result as StreamResult;
use tracklayer_proto::ingest::v1::{
    EventResult, GetStatusRequest, ListRejectedRequest, PublishEvent, PublishRequest, PublishStreamRequest,
};
use tracklayer_testkit::eventually;

use crate::support::{
    ADMIN_KEY, BROWSER_KEY, Bench, Choices, SERVER_KEY, WORKSPACE, batch_of, configuration, master_key, post,
    track, unread,
};

async fn channel(bench: &Bench, shutdown: &CancellationToken) -> Channel {
    let listener = tracklayer_testkit::listener().await;
    let address = format!("http://{}", listener.local_addr().unwrap());
    let settings = GrpcSettings { stream_window: 4, body_timeout: Duration::from_secs(60) };
    let service = IngestGrpc::service(Arc::clone(&bench.ingest), settings, &master_key(), shutdown.clone());
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Endpoint::new(address).unwrap().connect().await.unwrap()
}

async fn client(bench: &Bench, shutdown: &CancellationToken) -> IngestServiceClient<Channel> {
    IngestServiceClient::new(channel(bench, shutdown).await)
}

/// The status of a call whose message has so many bytes, of which ten are sent and then no more.
async fn status_of_an_unfinished_call(channel: &mut Channel, key: &str, length: u32) -> Status {
    let begun = [&[0], length.to_be_bytes().as_slice(), &[0; 10]].concat();
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(begun)]);
    let request = http::Request::post("/tracklayer.ingest.v1.IngestService/Publish")
        .header("content-type", "application/grpc")
        .header("x-write-key", key)
        .body(tonic::body::Body::new(axum::body::Body::from_stream(begun.chain(futures::stream::pending()))))
        .unwrap();
    channel.ready().await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), channel.call(request)).await;
    let answer = answer.expect("nobody waits for the rest").unwrap();
    Status::from_header_map(answer.headers()).unwrap()
}

fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {key}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn event(message_id: &str) -> PublishEvent {
    PublishEvent {
        message_id: message_id.to_owned(),
        r#type: EventType::Track.into(),
        name: "Order Completed".to_owned(),
        user_id: "u".to_owned(),
        properties_json: r#"{"revenue":45.10}"#.to_owned(),
        ..PublishEvent::default()
    }
}

fn batch(events: Vec<PublishEvent>) -> PublishRequest {
    PublishRequest { events, sent_at: None }
}

fn codes(results: &[EventResult]) -> Vec<String> {
    let code = |result: &EventResult| match result.outcome.as_ref().unwrap() {
        Outcome::Accepted(_) => "accepted".to_owned(),
        Outcome::Duplicate(_) => "duplicate".to_owned(),
        Outcome::Rejected(rejected) => format!("{}:{}", rejected.code, rejected.field),
    };
    results.iter().map(code).collect()
}

#[tokio::test]
async fn each_event_has_its_own_result_in_order_and_ids_are_made() {
    let bench = Bench::start().await;
    let mut client = client(&bench, &bench.stop).await;
    let bad = |change: fn(&mut PublishEvent)| {
        let mut bad = event("bad");
        change(&mut bad);
        bad
    };
    let events = vec![
        event("good"),
        bad(|e| e.r#type = 0),
        bad(|e| e.r#type = 99),
        bad(|e| e.user_id.clear()),
        bad(|e| e.name.clear()),
        bad(|e| e.message_id = "m".repeat(100)),
        bad(|e| e.properties_json = "{".to_owned()),
        bad(|e| e.properties_json = "[]".to_owned()),
        bad(|e| e.context_json = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000))),
        bad(|e| e.traits_json = r#"{"a":"\u0000"}"#.to_owned()),
        bad(|e| e.user_id = "a\0b".to_owned()),
        bad(|e| e.properties_json = format!("{{\"x\":\"{}\"}}", "x".repeat(33 * 1_024))),
        event(""),
    ];
    let answer = client.publish(with_key(batch(events), SERVER_KEY)).await.unwrap().into_inner();
    let expected = [
        "accepted",
        "missing_type:type",
        "unknown_type:type",
        "missing_ids:user_id",
        "missing_event_name:name",
        "message_id_too_long:message_id",
        "invalid_json:properties_json",
        "invalid_field:properties_json",
        "too_deep:context_json",
        "contains_nul:traits_json",
        "contains_nul:user_id",
        "event_too_large:",
        "accepted",
    ];
    assert_eq!(codes(&answer.results), expected);
    assert_eq!(answer.results[12].message_id.len(), 36);
    let stored = bench.journal().await;
    assert_eq!(stored.len(), 2);
    assert_eq!(
        (stored[0].source_id, stored[0].properties_json.as_ref()),
        (2, br#"{"revenue":45.10}"#.as_slice())
    );
    assert_eq!(bench.rejected_codes().await.len(), 11);
}

#[tokio::test]
async fn a_time_in_the_future_is_clamped_with_a_warning() {
    let bench = Bench::start().await;
    let mut client = client(&bench, &bench.stop).await;
    let in_2070 = prost_types::Timestamp { seconds: 3_155_760_000, nanos: 0 };
    let event = PublishEvent { timestamp: Some(in_2070), ..event("m") };
    let answer = client.publish(with_key(batch(vec![event]), SERVER_KEY)).await.unwrap().into_inner();
    let Some(Outcome::Accepted(accepted)) = &answer.results[0].outcome else { panic!("{answer:?}") };
    assert_eq!(accepted.warnings, ["timestamp_clamped"]);
    let stored = bench.journal().await.remove(0);
    assert_eq!((stored.timestamp, stored.original_timestamp), (stored.received_at, Some(in_2070)));
}

#[tokio::test]
async fn a_request_as_a_whole_is_refused_with_reason_and_field() {
    let bench = Bench::start().await;
    let mut client = client(&bench, &bench.stop).await;
    let large = PublishEvent { properties_json: "x".repeat(30_000), ..event("m") };
    for (request, code, reason) in [
        (with_key(batch(vec![]), SERVER_KEY), Code::InvalidArgument, "BATCH_EMPTY"),
        (with_key(batch(vec![event("m"); 2_501]), SERVER_KEY), Code::InvalidArgument, "BATCH_TOO_LARGE"),
        (with_key(batch(vec![large; 18]), SERVER_KEY), Code::InvalidArgument, "BATCH_TOO_LARGE"),
        (with_key(batch(vec![event("m")]), "wrong"), Code::Unauthenticated, "UNKNOWN_WRITE_KEY"),
        (Request::new(batch(vec![event("m")])), Code::Unauthenticated, "MISSING_WRITE_KEY"),
    ] {
        let status = client.publish(request).await.unwrap_err();
        let details = status.get_error_details();
        assert_eq!((status.code(), details.error_info().unwrap().reason.as_str()), (code, reason));
        assert_eq!(details.bad_request().is_some(), code == Code::InvalidArgument);
    }
    let mut plain = Request::new(batch(vec![event("plain")]));
    plain.metadata_mut().insert("x-write-key", SERVER_KEY.parse().unwrap());
    assert_eq!(codes(&client.publish(plain).await.unwrap().into_inner().results), ["accepted"]);
}

#[tokio::test]
async fn overload_is_resource_exhausted_with_retry_info_and_no_configuration_is_unavailable() {
    let choices = Choices { events_per_second: 1, configured: false, ..Choices::default() };
    let bench = Bench::with(choices).await;
    let mut client = client(&bench, &bench.stop).await;
    let status = client.publish(with_key(batch(vec![event("m")]), SERVER_KEY)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    bench.config.send(configuration());
    client.publish(with_key(batch(vec![event("m")]), SERVER_KEY)).await.unwrap();
    let status = client.publish(with_key(batch(vec![event("m")]), SERVER_KEY)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
}

#[tokio::test]
async fn a_source_with_a_rate_of_its_own_is_told_when_to_come_back_and_others_are_not() {
    let bench = Bench::start().await;
    let mut limited = configuration();
    limited.workspaces[0].sources[1].max_events_per_second = Some(2);
    bench.config.send(limited.clone());
    let mut client = client(&bench, &bench.stop).await;
    let three = || batch(["a", "b", "c"].map(event).to_vec());
    client.publish(with_key(three(), SERVER_KEY)).await.unwrap();
    let status = client.publish(with_key(three(), SERVER_KEY)).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(
        (status.code(), details.error_info().unwrap().reason.as_str()),
        (Code::ResourceExhausted, "RATE_LIMITED")
    );
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    let over_http = bench
        .send(
            post("/v1/batch", batch_of(&[track("d")]))
                .without("authorization")
                .with("authorization", "Basic d2tfc2VydmVyOg==")
                .body_is_done(),
        )
        .await;
    assert_eq!(over_http.refusal(), (429, "rate_limited".to_owned()), "one source, whatever the wire");
    assert!(over_http.header("retry-after").parse::<u64>().unwrap() >= 1);
    client.publish(with_key(three(), BROWSER_KEY)).await.unwrap();
    limited.workspaces[0].sources[1].max_events_per_second = Some(0);
    bench.config.send(limited);
    client.publish(with_key(three(), SERVER_KEY)).await.unwrap();
}

#[tokio::test]
async fn a_full_journal_is_resource_exhausted_with_retry_info_until_there_is_room() {
    let bench = Bench::with(Choices { journal_budget: 1_000, ..Choices::default() }).await;
    let mut client = client(&bench, &bench.stop).await;
    bench.ingest.budget.measured(&unread(1_001));
    let status = client.publish(with_key(batch(vec![event("m")]), SERVER_KEY)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    bench.ingest.budget.measured(&unread(900));
    client.publish(with_key(batch(vec![event("m")]), SERVER_KEY)).await.unwrap();
}

#[tokio::test]
async fn how_ingest_stands_is_told_for_keys_of_the_workspace_only() {
    let bench = Bench::with(Choices { journal_budget: 1_000, ..Choices::default() }).await;
    let mut client = client(&bench, &bench.stop).await;
    let of = |workspace_id| GetStatusRequest { workspace_id };
    let told = client.get_status(with_key(of(1), ADMIN_KEY)).await.unwrap().into_inner();
    assert_eq!((told.journal_budget_bytes, told.journal_full), (1_000, false));
    assert_eq!((told.journal_limit_bytes, told.journal_unread_bytes), (0, None), "nobody has looked yet");
    assert_eq!(told.configuration_version, bench.ingest.snapshot().unwrap().version);
    bench.ingest.budget.measured(&unread(1_001));
    let told = client.get_status(with_key(of(1), ADMIN_KEY)).await.unwrap().into_inner();
    assert_eq!((told.journal_full, told.journal_unread_bytes), (true, Some(1_001)));
    for request in [with_key(of(2), ADMIN_KEY), with_key(of(1), SERVER_KEY), Request::new(of(1))] {
        assert_eq!(client.get_status(request).await.unwrap_err().code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn a_stream_is_acknowledged_batch_by_batch_and_a_bad_batch_alone_is_refused() {
    let bench = Bench::start().await;
    let mut client = client(&bench, &bench.stop).await;
    let requests = (0..50).map(|sequence| {
        let events = if sequence == 7 {
            vec![]
        } else {
            vec![event(&format!("m{sequence}")), event(&format!("n{sequence}"))]
        };
        PublishStreamRequest { sequence, batch: Some(batch(events)) }
    });
    let requests: Vec<_> = requests.collect();
    let answers = client.publish_stream(with_key(tokio_stream::iter(requests), SERVER_KEY)).await.unwrap();
    let mut answers = answers.into_inner();
    let mut acknowledged = std::collections::BTreeSet::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        match answer.result.unwrap() {
            StreamResult::Response(response) => {
                assert_eq!(codes(&response.results), ["accepted", "accepted"])
            }
            StreamResult::Refused(refused) => {
                assert_eq!(
                    (answer.sequence, refused.code.as_str(), refused.retry_after_ms),
                    (7, "batch_empty", 0)
                );
            }
        }
        assert!(acknowledged.insert(answer.sequence));
    }
    assert_eq!(acknowledged.len(), 50);
    assert_eq!(bench.journal().await.len(), 98);
}

#[tokio::test]
async fn a_call_is_refused_before_its_message_is_read() {
    let bench = Bench::with(Choices { in_flight_bytes: 1_000_000, ..Choices::default() }).await;
    let mut channel = channel(&bench, &bench.stop).await;
    let status = status_of_an_unfinished_call(&mut channel, "wrong", 400_000).await;
    assert_eq!(status.code(), Code::Unauthenticated, "who sends is asked first");
    let status = status_of_an_unfinished_call(&mut channel, SERVER_KEY, 512_001).await;
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "BATCH_TOO_LARGE");
    let others = bench.ingest.admission.admit(Holder::Workspace(WORKSPACE), 700_000).unwrap();
    let status = status_of_an_unfinished_call(&mut channel, SERVER_KEY, 400_000).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "there is no room for it");
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    drop(others);
    let mut client = IngestServiceClient::new(channel);
    assert!(client.publish(with_key(batch(vec![event("m")]), SERVER_KEY)).await.is_ok());
    assert!(bench.ingest.admission.admit(Holder::Unknown, 800_000).is_ok(), "nothing holds room any more");
}

#[tokio::test]
async fn many_large_messages_at_once_stay_within_the_room() {
    let bench = Bench::with(Choices { in_flight_bytes: 6_000_000, ..Choices::default() }).await;
    let client = client(&bench, &bench.stop).await;
    let large = |call: usize| {
        let filled = move |n| PublishEvent {
            properties_json: format!("{{\"x\":\"{}\"}}", "x".repeat(30_000)),
            ..event(&format!("{call}-{n}"))
        };
        let mut client = client.clone();
        async move { client.publish(with_key(batch((0..15).map(filled).collect()), SERVER_KEY)).await }
    };
    // The journal stands still: who has room keeps it.
    let mut journal_stands = bench.database.pool.begin().await.unwrap();
    sqlx::query("lock table journal.head in exclusive mode").execute(&mut *journal_stands).await.unwrap();
    let mut calls: FuturesUnordered<_> = (0..30).map(|call| large(call).boxed()).collect();
    for _ in 0..26 {
        let refused = calls.next().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.get_error_details().retry_info().unwrap().retry_delay.is_some());
    }
    journal_stands.rollback().await.unwrap();
    while let Some(answer) = calls.next().await {
        assert_eq!(codes(&answer.unwrap().into_inner().results), ["accepted"; 15]);
    }
    assert_eq!(bench.journal().await.len(), 60, "there is room for three times four of 450,000 bytes");
}

#[tokio::test]
async fn events_hold_room_for_what_they_become_however_small_they_came() {
    let bench = Bench::with(Choices { in_flight_bytes: 1_000_000, ..Choices::default() }).await;
    let mut client = client(&bench, &bench.stop).await;
    let empty = |count| batch(vec![PublishEvent::default(); count]);
    let refused = client.publish(with_key(empty(1_000), SERVER_KEY)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let answer = client.publish(with_key(empty(700), SERVER_KEY)).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), 700);
}

#[tokio::test]
async fn a_batch_of_a_stream_that_finds_no_room_is_read_over_and_the_next_is_taken() {
    let bench = Bench::with(Choices { in_flight_bytes: 2_000_000, ..Choices::default() }).await;
    let mut client = client(&bench, &bench.stop).await;
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = client.publish_stream(with_key(requests, SERVER_KEY)).await.unwrap().into_inner();
    let send = async |sequence: u64, bytes: usize| {
        let filled = PublishEvent { context_json: "x".repeat(bytes), ..event("m") };
        let batch = Some(batch(vec![filled, event(&format!("m{sequence}"))]));
        sender.send(PublishStreamRequest { sequence, batch }).await.unwrap();
    };
    let others = bench.ingest.admission.admit(Holder::Workspace(WORKSPACE), 1_700_000).unwrap();
    for (sequence, bytes, code) in [(900, 400_000, "overloaded"), (901, 600_000, "batch_too_large")] {
        send(sequence, bytes).await;
        let answer = answers.next().await.unwrap().unwrap();
        let Some(StreamResult::Refused(refused)) = answer.result else { panic!("{answer:?}") };
        assert_eq!((answer.sequence, refused.code.as_str()), (sequence, code));
        assert_eq!(refused.retry_after_ms > 0, code == "overloaded");
    }
    drop(others);
    send(902, 400_000).await;
    let answer = answers.next().await.unwrap().unwrap();
    let Some(StreamResult::Response(response)) = answer.result else { panic!("{answer:?}") };
    assert_eq!((answer.sequence, codes(&response.results)[1].as_str()), (902, "accepted"));
    send(903, 1_100_000).await;
    let ended = answers.next().await.unwrap().unwrap_err();
    assert_eq!(ended.get_error_details().error_info().unwrap().reason, "BATCH_TOO_LARGE");
}

#[tokio::test]
async fn a_client_that_reads_no_ack_keeps_no_room_from_others() {
    let bench = Bench::with(Choices { in_flight_bytes: 6_000_000, ..Choices::default() }).await;
    let mut client = client(&bench, &bench.stop).await;
    // Their acks are far above HTTP/2's window: the second one cannot be sent before the first was read.
    let large = |sequence: u64| {
        let events = (0..1_500).map(|n| event(&format!("{sequence}-{n}-{}", "m".repeat(80)))).collect();
        PublishStreamRequest { sequence, batch: Some(batch(events)) }
    };
    let requests: Vec<_> = (0..3).map(large).collect();
    // The journal stands still until all three hold their room.
    let mut journal_stands = bench.database.pool.begin().await.unwrap();
    sqlx::query("lock table journal.head in exclusive mode").execute(&mut *journal_stands).await.unwrap();
    let answers = client.publish_stream(with_key(tokio_stream::iter(requests), SERVER_KEY)).await.unwrap();
    let mut answers = answers.into_inner();
    let room_for_another = || bench.ingest.admission.admit(Holder::Unknown, 2_000_000).ok().map(drop);
    eventually("all three are being worked on", async || room_for_another().is_none().then_some(())).await;
    journal_stands.rollback().await.unwrap();
    eventually("what is stored holds no room, read or unread", async || room_for_another()).await;
    for _ in 0..3 {
        let answer = answers.next().await.unwrap().unwrap();
        assert!(matches!(answer.result, Some(StreamResult::Response(_))), "{}", answer.sequence);
    }
    assert!(answers.next().await.is_none());
    assert_eq!(bench.journal().await.len(), 4_500);
}

#[tokio::test]
async fn a_blank_id_is_none() {
    let bench = Bench::start().await;
    let mut client = client(&bench, &bench.stop).await;
    let answer = client.publish(with_key(batch(vec![event(" "), event("\t")]), SERVER_KEY)).await.unwrap();
    let ids: Vec<String> = answer.into_inner().results.into_iter().map(|result| result.message_id).collect();
    assert!(ids.iter().all(|id| id.len() == 36) && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn a_source_that_is_disabled_meanwhile_ends_its_stream() {
    let bench = Bench::start().await;
    let mut client = client(&bench, &bench.stop).await;
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = client.publish_stream(with_key(requests, SERVER_KEY)).await.unwrap().into_inner();
    let request = |sequence| PublishStreamRequest {
        sequence,
        batch: Some(batch(vec![event(&format!("m{sequence}"))])),
    };
    sender.send(request(1)).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().sequence, 1);
    let mut disabled = configuration();
    disabled.workspaces[0].sources[1].enabled = false;
    bench.config.send(disabled);
    sender.send(request(2)).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(bench.stored_ids().await, ["m1"]);
}

#[tokio::test]
async fn at_shutdown_what_was_read_is_acknowledged_and_the_stream_ends() {
    let bench = Bench::start().await;
    let shutdown = CancellationToken::new();
    let mut client = client(&bench, &shutdown).await;
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = client.publish_stream(with_key(requests, SERVER_KEY)).await.unwrap().into_inner();
    sender.send(PublishStreamRequest { sequence: 1, batch: Some(batch(vec![event("m")])) }).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().sequence, 1);
    shutdown.cancel();
    assert!(answers.next().await.is_none(), "the stream ends in good order");
}

#[tokio::test]
async fn rejected_events_are_listed_for_keys_of_the_workspace_only() {
    let bench = Bench::start().await;
    let mut client = client(&bench, &bench.stop).await;
    for id in ["one", "two"] {
        let bad = PublishEvent { user_id: String::new(), ..event(id) };
        client.publish(with_key(batch(vec![bad]), SERVER_KEY)).await.unwrap();
    }
    let list = |workspace_id, limit| ListRejectedRequest { workspace_id, limit };
    for key in [ADMIN_KEY.to_owned(), master_key().service_token()] {
        let listed = client.list_rejected(with_key(list(1, 0), &key)).await.unwrap().into_inner().events;
        let ids: Vec<&str> = listed.iter().map(|event| event.message_id.as_str()).collect();
        assert_eq!(ids, ["two", "one"]);
        assert_eq!(listed[0].rejected.as_ref().unwrap().code, "missing_ids");
        assert!(!listed[0].raw.is_empty() && listed[0].source_id == 2);
    }
    let one = client.list_rejected(with_key(list(1, 1), ADMIN_KEY)).await.unwrap().into_inner().events;
    assert_eq!(one.len(), 1);
    for (request, what) in [
        (with_key(list(2, 0), ADMIN_KEY), "another workspace"),
        (with_key(list(1, 0), SERVER_KEY), "a write key"),
        (Request::new(list(1, 0)), "no key"),
    ] {
        assert_eq!(client.list_rejected(request).await.unwrap_err().code(), Code::PermissionDenied, "{what}");
    }
}

#[tokio::test]
async fn the_key_in_a_webhooks_address_sends_nothing() {
    let bench = Bench::start().await;
    let mut with_webhooks = configuration();
    with_webhooks.version += 1;
    with_webhooks.workspaces[0].sources[1].webhook_json = r#"{"kind":"shopify"}"#.to_owned();
    bench.config.send(with_webhooks);
    let mut client = client(&bench, &bench.stop).await;
    let status = client.publish(with_key(batch(vec![event("m")]), SERVER_KEY)).await.unwrap_err();
    let details = status.get_error_details();
    let reason = details.error_info().unwrap().reason.clone();
    assert_eq!((status.code(), reason.as_str()), (Code::PermissionDenied, "SIGNED_WEBHOOKS_ONLY"));
    let message = PublishStreamRequest { sequence: 1, batch: Some(batch(vec![event("m")])) };
    let stream = with_key(tokio_stream::iter([message]), SERVER_KEY);
    let status = match client.publish_stream(stream).await {
        Ok(answers) => answers.into_inner().next().await.unwrap().unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(bench.journal().await.len(), 0);
}
