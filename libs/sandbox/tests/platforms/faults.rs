use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracklayer_sandbox::options::{META_DATASET, META_TOKEN};
use tracklayer_sandbox::{Fault, How, Platform, SandboxClient};

use crate::rig::{NOW, Rig, read, rig, send};

fn event(id: &str) -> Value {
    json!({
        "event_name": "Lead", "event_time": NOW, "event_id": id, "action_source": "other",
        "user_data": { "em": ["a".repeat(64)] },
    })
}

async fn attempt(rig: &Rig, id: &str) -> Result<reqwest::Response, reqwest::Error> {
    rig.meta(&json!([event(id)])).send().await
}

fn put(rig: &Rig, fault: Fault) {
    rig.sandbox.inject(Platform::Meta, fault, How::Times(1));
}

#[tokio::test]
async fn a_status_comes_with_its_body_and_nothing_is_counted() {
    let rig = rig().await;
    put(&rig, Fault::Status { code: 500, body: None });
    let (status, body) = read(attempt(&rig, "a").await.unwrap()).await;
    assert_eq!((status, body), (500, json!("")));
    put(&rig, Fault::HtmlBody);
    let response = attempt(&rig, "a").await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(response.status(), 502);
    put(&rig, Fault::TooManyRequests { retry_after: Some(7) });
    let response = attempt(&rig, "a").await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    put(&rig, Fault::TooManyRequests { retry_after: None });
    assert_eq!(attempt(&rig, "a").await.unwrap().headers().get("retry-after"), None);
    put(&rig, Fault::TransientInBody);
    let (_, body) = read(attempt(&rig, "a").await.unwrap()).await;
    assert_eq!(body["error"]["is_transient"], true);
    assert_eq!(rig.counted(Platform::Meta), []);
    assert_eq!(attempt(&rig, "a").await.unwrap().status(), 200);
    assert_eq!(
        rig.totals(Platform::Meta).by_status,
        [(200, 1), (429, 2), (500, 1), (502, 1), (503, 1)].into()
    );
}

#[tokio::test]
async fn a_hang_up_before_reading_counts_nothing_and_one_after_accepting_everything() {
    let rig = rig().await;
    put(&rig, Fault::HangUpBeforeReading);
    assert!(attempt(&rig, "a").await.is_err());
    assert_eq!(rig.counted(Platform::Meta), []);
    put(&rig, Fault::HangUpAfterAccepting);
    assert!(attempt(&rig, "a").await.is_err());
    assert_eq!(rig.counted(Platform::Meta).len(), 1);
    assert_eq!(attempt(&rig, "a").await.unwrap().status(), 200);
    let counted = rig.counted(Platform::Meta);
    assert_eq!((counted.len(), counted[0].duplicates), (1, 1));
    assert_eq!(rig.totals(Platform::Meta).hung_up, 2);
}

#[tokio::test]
async fn a_truncated_answer_has_a_good_status_and_no_end() {
    let rig = rig().await;
    put(&rig, Fault::TruncatedAnswer);
    let response = attempt(&rig, "a").await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    assert_eq!(rig.counted(Platform::Meta).len(), 1);
}

#[tokio::test]
async fn an_error_may_come_after_accepting() {
    let rig = rig().await;
    put(&rig, Fault::ErrorAfterAccepting);
    assert_eq!(attempt(&rig, "a").await.unwrap().status(), 500);
    assert_eq!(rig.counted(Platform::Meta).len(), 1);
}

#[tokio::test]
async fn a_slow_platform_has_processed_what_the_client_gave_up_on() {
    let rig = rig().await;
    rig.sandbox.inject(Platform::Meta, Fault::Slow(Duration::from_secs(600)), How::Times(1));
    let gave_up = rig.meta(&json!([event("a")])).timeout(Duration::from_millis(300)).send().await;
    assert!(gave_up.unwrap_err().is_timeout());
    assert_eq!(rig.counted(Platform::Meta).len(), 1);
    assert_eq!(rig.counted(Platform::TikTok), [], "another platform's request is not touched");
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_leaves_nothing_behind() {
    let rig = rig().await;
    let mut stream = TcpStream::connect(rig.sandbox.address()).await.unwrap();
    let head = format!(
        "POST /v26.0/{META_DATASET}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {META_TOKEN}\r\n\
         content-length: 1000\r\n\r\n{{\"data\":["
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    // The next request is served, and the half one was noticed as such.
    assert_eq!(attempt(&rig, "a").await.unwrap().status(), 200);
    assert_eq!(rig.counted(Platform::Meta).len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_after_its_request_was_processed_anyhow() {
    let rig = rig().await;
    let body = json!({ "data": [event("a")] }).to_string();
    let mut stream = TcpStream::connect(rig.sandbox.address()).await.unwrap();
    let request = format!(
        "POST /v26.0/{META_DATASET}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {META_TOKEN}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    // The answer's first byte says that it is done; the rest is not waited for.
    let _ = stream.read_u8().await;
    drop(stream);
    assert_eq!(rig.counted(Platform::Meta).len(), 1);
}

#[tokio::test]
async fn everything_can_be_done_from_another_process() {
    let rig = rig().await;
    let client = SandboxClient::new(&rig.sandbox.base_url());
    client.inject(Platform::Meta, Fault::HtmlBody, How::Always).await.unwrap();
    assert_eq!(attempt(&rig, "a").await.unwrap().status(), 502);
    client.clear(Platform::Meta).await.unwrap();
    client.inject(Platform::Meta, Fault::HtmlBody, How::Times(1)).await.unwrap();
    assert_eq!(attempt(&rig, "a").await.unwrap().status(), 502);
    assert_eq!(attempt(&rig, "a").await.unwrap().status(), 200);
    assert_eq!(client.totals().await.unwrap(), rig.sandbox.totals());
    assert_eq!(client.counted(Platform::Meta).await.unwrap(), rig.counted(Platform::Meta));
    let seen = client.requests(1).await.unwrap();
    assert_eq!(seen[0].headers["authorization"], "***");
    assert_eq!((seen[0].status, seen[0].platform, seen[0].order), (Some(200), Platform::Meta, 3));
    assert!(seen[0].body.contains("\"event_id\":\"a\""));
    assert_eq!(rig.sandbox.requests(2)[0].fault.as_deref(), Some("html_body"));
}

#[tokio::test]
async fn the_pages_go_on_where_they_ended_and_find_one_event() {
    let rig = rig().await;
    let events: Vec<Value> = ["a", "b", "c"].iter().map(|id| event(id)).collect();
    send(rig.meta(&json!(events))).await;
    let base = rig.sandbox.base_url();
    let page = |query: &str| send(rig.http.get(format!("{base}/_sandbox/events?platform=meta&{query}")));
    let (_, first) = page("limit=2").await;
    assert_eq!((first["events"].as_array().unwrap().len(), &first["next"]), (2, &json!(2)));
    let (_, second) = page("limit=2&after=2").await;
    assert_eq!((&second["events"][0]["event_id"], &second["next"]), (&json!("c"), &Value::Null));
    let (_, one) = page("event_id=b").await;
    assert_eq!((one["events"].as_array().unwrap().len(), &one["events"][0]["order"]), (1, &json!(2)));
    assert_eq!(page("limit=x").await.0, 400);
    let bad =
        rig.post(&format!("{base}/_sandbox/faults")).json(&json!({ "platform": "meta", "fault": "no_such" }));
    assert_eq!(send(bad).await.0, 400);
    let for_a_while =
        json!({ "platform": "meta_capi", "fault": { "status": { "code": 500 } }, "seconds": 60 });
    assert_eq!(send(rig.post(&format!("{base}/_sandbox/faults")).json(&for_a_while)).await.0, 204);
    assert_eq!(attempt(&rig, "d").await.unwrap().status(), 500);
    assert_eq!(send(rig.http.delete(format!("{base}/_sandbox/faults"))).await.0, 204);
    assert_eq!(attempt(&rig, "d").await.unwrap().status(), 200);
}

#[tokio::test]
async fn after_the_stop_the_port_is_free_again() {
    let stop = tokio_util::sync::CancellationToken::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let first = tracklayer_sandbox::Sandbox::start(any, tracklayer_sandbox::Options::default(), stop.clone())
        .await
        .unwrap();
    let taken = tracklayer_sandbox::Sandbox::start(
        first.address(),
        tracklayer_sandbox::Options::default(),
        stop.clone(),
    )
    .await;
    assert!(taken.is_err());
    stop.cancel();
    first.stopped().await;
    let again = tokio_util::sync::CancellationToken::new();
    let options = tracklayer_sandbox::Options::default();
    assert!(tracklayer_sandbox::Sandbox::start(first.address(), options, again).await.is_ok());
}
