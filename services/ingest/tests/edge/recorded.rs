//! The recorded requests of four SDKs, sent as they came, answered so that each SDK counts them as delivered.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::Value;

use crate::support::{Bench, gzip};

fn recorded() -> Vec<Value> {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../../tests/vectors/segment-requests.json")).unwrap();
    vectors["requests"].as_array().unwrap().clone()
}

/// The request as on the wire: same method, path and headers; the body again gzipped where it was.
fn request_of(recorded: &Value) -> Request<Body> {
    let mut request = Request::builder()
        .method(recorded["method"].as_str().unwrap().parse::<Method>().unwrap())
        .uri(recorded["path"].as_str().unwrap())
        .header("host", "edge.example.com");
    for (name, value) in recorded["headers"].as_object().unwrap() {
        // The recorder wrote the numbers anew: the length is another.
        if name != "content-length" {
            request = request.header(name, value.as_str().unwrap());
        }
    }
    let gzipped = recorded["headers"]["content-encoding"] == "gzip";
    let body = match &recorded["body"] {
        Value::Null => Vec::new(),
        body if gzipped => gzip(body.to_string().as_bytes()),
        body => body.to_string().into_bytes(),
    };
    request.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn every_recorded_request_is_answered_with_success_and_every_event_is_stored() {
    let bench = Bench::start().await;
    let mut expected = std::collections::BTreeSet::new();
    for recorded in recorded() {
        let case = format!("{} {}", recorded["sdk"], recorded["case"]);
        let answer = bench.send(request_of(&recorded)).await;
        assert_eq!(answer.status, StatusCode::OK, "{case}: {}", String::from_utf8_lossy(&answer.body));
        if recorded["method"] == "POST" {
            assert_eq!(answer.json(), serde_json::json!({ "success": true }), "{case}");
        }
        let body = &recorded["body"];
        let events = body["batch"].as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
        expected.extend(events.iter().filter_map(|e| e["messageId"].as_str()).map(str::to_owned));
    }
    let stored: std::collections::BTreeSet<String> = bench.stored_ids().await.into_iter().collect();
    assert!(stored.len() > 30, "{}", stored.len());
    assert_eq!(stored, expected);
    assert_eq!(bench.rejected_codes().await, Vec::<String>::new());
}

#[tokio::test]
async fn retries_say_which_attempt_they_are() {
    let bench = Bench::start().await;
    for recorded in recorded().iter().filter(|r| r["case"] == "browser retry 500" && r["path"] == "/v1/t") {
        bench.send(request_of(recorded)).await;
    }
    let attempts: Vec<u32> = bench.journal().await.iter().map(|event| event.client_retry).collect();
    assert_eq!(attempts, [0, 1]);
}

#[tokio::test]
async fn all_write_key_places_lead_to_the_same_source() {
    let bench = Bench::start().await;
    let event = r#"{"type":"page","userId":"u","messageId":"m"}"#;
    let with_key = r#"{"type":"page","userId":"u","messageId":"m","writeKey":"wk_test"}"#;
    let no_header = |path: &str, body: String| {
        Request::builder().method("POST").uri(path).body(Body::from(body)).unwrap()
    };
    let header = |value: &str, body: String| {
        Request::builder()
            .method("POST")
            .uri("/v1/batch")
            .header("authorization", value)
            .body(Body::from(body))
            .unwrap()
    };
    let bare = format!(r#"{{"batch":[{event}]}}"#);
    for request in [
        header("Basic d2tfdGVzdDo=", bare.clone()),
        header("basic d2tfdGVzdA", bare.clone()),
        header("Bearer some-oauth-token", format!(r#"{{"writeKey":"wk_test","batch":[{event}]}}"#)),
        header("Bearer wk_test", bare.clone()),
        header("Basic d2tfdGVzdDo=", format!(r#"{{"writeKey":"other","batch":[{event}]}}"#)),
        no_header("/v1/batch", format!(r#"{{"writeKey":"wk_test","batch":[{event}]}}"#)),
        no_header("/v1/batch", format!(r#"{{"batch":[{with_key}]}}"#)),
        no_header("/v1/batch?writeKey=wk_test", bare.clone()),
        no_header("/beacon/v1/batch?writeKey=wk_test", bare),
        no_header("/v1/page/", with_key.to_owned()),
        no_header("/v1/p?writeKey=wk_test", event.to_owned()),
    ] {
        let line = format!("{} {:?}", request.uri(), request.headers());
        let answer = bench.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{line} {}", String::from_utf8_lossy(&answer.body));
    }
    let stored = bench.journal().await;
    assert_eq!(stored.len(), 11);
    assert!(stored.iter().all(|event| event.source_id == 1));
}
