//! What is away or too much is told so that every SDK comes back, and nothing is refused that could be delivered later.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::support::{Bench, Choices, batch_of, configuration, get, post, track};

#[tokio::test]
async fn without_configuration_it_is_503_and_never_401() {
    let bench = Bench::with(Choices { configured: false, ..Choices::default() }).await;
    let wrong_key = post("/v1/batch", "{}").without("authorization").with("authorization", "Basic bm9wZTo=");
    for request in [post("/v1/batch", batch_of(&[track("m")])), post("/v1/t", "{}"), wrong_key] {
        let answer = bench.send(request.body_is_done()).await;
        assert_eq!(answer.refusal(), (503, "no_configuration".to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(bench.send(get("/v1/projects/wk_test/settings")).await.status, 503);
    bench.config.send(configuration());
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("m")])).await.rejected(), []);
}

#[tokio::test]
async fn too_many_bytes_in_flight_are_429_with_retry_after() {
    let bench = Bench::with(Choices { in_flight_bytes: 600_000, ..Choices::default() }).await;
    // Two of unknown length reserve a whole batch each; the first never ends.
    let (sender, stuck) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let stuck = axum::body::Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(stuck));
    let edge = bench.edge.clone();
    let first = tokio::spawn(tower::ServiceExt::oneshot(edge, post("/v1/batch", stuck).body_is_done()));
    sender.send(Ok(bytes::Bytes::from_static(b"{"))).await.unwrap();
    // Room for the second message means that the first was taken: the request is being read.
    let rest = sender.reserve().await.unwrap();

    let refused = bench.post("/v1/batch", batch_of(&[track("m")])).await;
    assert_eq!(refused.refusal(), (429, "overloaded".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");

    rest.send(Ok(bytes::Bytes::from(batch_of(&[track("first")]).split_off(1))));
    drop(sender);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("m")])).await.rejected(), []);
}

#[tokio::test]
async fn a_source_over_its_rate_is_429_and_another_is_not() {
    let bench = Bench::with(Choices { events_per_second: 2, ..Choices::default() }).await;
    let events = batch_of(&[track("1"), track("2")]);
    assert_eq!(bench.post("/v1/batch", events.clone()).await.rejected(), []);
    let refused = bench.post("/v1/batch", events).await;
    assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    let other = json!({"writeKey": crate::support::SERVER_KEY, "batch": [track("3")]}).to_string();
    let other = bench.send(post("/v1/batch", other).without("authorization").body_is_done()).await;
    assert_eq!(other.rejected(), []);
}

#[tokio::test]
async fn a_database_that_is_away_is_503_with_retry_after() {
    let bench = Bench::start().await;
    bench.database.pool.close().await;
    let answer = bench.post("/v1/batch", batch_of(&[track("m")])).await;
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned()));
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn with_the_consent_log_away_only_requests_that_narrow_are_refused() {
    let bench = Bench::start().await;
    bench.consent.away.store(true, Ordering::SeqCst);
    let narrowing = post("/v1/t", track("narrowing").to_string()).with("sec-gpc", "1");
    let refused = bench.send(narrowing.body_is_done()).await;
    assert_eq!(refused.refusal(), (503, "unavailable".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(bench.post("/v1/t", track("silent").to_string()).await.status, 200);
    assert_eq!(bench.stored_ids().await, ["silent"]);
    // The log is back: the same event is taken and recorded.
    bench.consent.away.store(false, Ordering::SeqCst);
    let again = post("/v1/t", track("narrowing").to_string()).with("sec-gpc", "1");
    assert_eq!(bench.send(again.body_is_done()).await.status, 200);
    assert_eq!(bench.recorded().len(), 1);
    assert_eq!(bench.stored_ids().await, ["narrowing", "silent"]);
}
