//! What networks and gateways do, and events that a platform never takes.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tracklayer_sandbox::options::{META_DATASET, META_TOKEN};
use tracklayer_sandbox::{Fault, How, Platform};

use crate::rig::{NOW, Rig, read, rig, send};

fn event(id: &str) -> Value {
    json!({
        "event_name": "Lead", "event_time": NOW, "event_id": id, "action_source": "other",
        "user_data": { "em": ["a".repeat(64)] },
    })
}

fn put(rig: &Rig, platform: Platform, fault: Fault) {
    rig.sandbox.inject(platform, fault, How::Times(1));
}

/// How a connection ends that asks for an event.
async fn end_of_connection(rig: &Rig, id: &str) -> std::io::Result<usize> {
    let body = json!({ "data": [event(id)] }).to_string();
    let mut stream = TcpStream::connect(rig.sandbox.address()).await.unwrap();
    let request = format!(
        "POST /v26.0/{META_DATASET}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {META_TOKEN}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read(&mut [0; 64]).await
}

#[tokio::test]
async fn a_reset_is_a_reset_and_a_hang_up_is_none() {
    let rig = rig().await;
    for (fault, counted) in [(Fault::ResetBeforeReading, 0), (Fault::ResetAfterAccepting, 1)] {
        put(&rig, Platform::Meta, fault.clone());
        let end = end_of_connection(&rig, "a").await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "{fault:?}");
        assert_eq!(rig.counted(Platform::Meta).len(), counted, "{fault:?}");
    }
    put(&rig, Platform::Meta, Fault::HangUpAfterAccepting);
    assert_eq!(end_of_connection(&rig, "b").await.unwrap(), 0, "an end in order");
}

#[tokio::test]
async fn a_platform_that_stalls_has_processed_nothing() {
    let rig = rig().await;
    put(&rig, Platform::Meta, Fault::Stall);
    let gave_up = rig.meta(&json!([event("a")])).timeout(Duration::from_millis(300)).send().await;
    assert!(gave_up.unwrap_err().is_timeout());
    assert_eq!(rig.counted(Platform::Meta), []);
    assert_eq!(send(rig.meta(&json!([event("a")]))).await.0, 200);
}

#[tokio::test]
async fn a_page_is_no_answer_and_an_answer_may_say_that_it_is_a_page() {
    let rig = rig().await;
    put(&rig, Platform::Meta, Fault::Page);
    let (status, body) = send(rig.meta(&json!([event("a")]))).await;
    assert_eq!((status, body.as_str().unwrap().starts_with("<html>")), (200, true));
    assert_eq!(rig.counted(Platform::Meta), []);
    put(&rig, Platform::Meta, Fault::WrongContentType);
    let response = rig.meta(&json!([event("a")])).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(read(response).await.1["events_received"], 1);
}

#[tokio::test]
async fn one_bad_event_refuses_its_request_and_is_named_if_so_told() {
    let rig = rig().await;
    let both = json!([event("good"), event("bad")]);
    let bad = |named| Fault::BadEvent { containing: "\"bad\"".to_owned(), named };
    put(&rig, Platform::Meta, bad(false));
    let (status, body) = send(rig.meta(&both)).await;
    assert_eq!((status, &body["error"]["error_subcode"]), (400, &json!(2_804_050)));
    put(&rig, Platform::Meta, bad(true));
    let (_, body) = send(rig.meta(&both)).await;
    assert!(body["error"]["error_user_msg"].as_str().unwrap().contains("$['data'][1]"), "{body}");
    assert_eq!(rig.counted(Platform::Meta), []);
    put(&rig, Platform::Meta, bad(true));
    assert_eq!(send(rig.meta(&json!([event("good")]))).await.0, 200, "it is not among them");
}

#[tokio::test]
async fn an_answer_may_say_how_much_of_the_limit_is_used() {
    let rig = rig().await;
    put(&rig, Platform::Meta, Fault::NearLimit { percent: 83 });
    let response = rig.meta(&json!([event("a")])).send().await.unwrap();
    let usage: Value =
        serde_json::from_slice(response.headers()["x-business-use-case-usage"].as_bytes()).unwrap();
    assert_eq!(usage[META_DATASET][0]["call_count"], 83);
    assert_eq!(rig.counted(Platform::Meta).len(), 1);
}

#[tokio::test]
async fn of_a_mixed_failure_each_row_has_its_own_code() {
    let rig = rig().await;
    put(&rig, Platform::TikTok, Fault::MixedFailure { transient: vec![0], permanent: vec![2] });
    let item = |id: &str| {
        json!({
            "event": "Lead", "event_time": NOW, "event_id": id, "user": { "email": "a".repeat(64) },
            "page": { "url": "https://shop.example.com/" },
        })
    };
    let (_, body) = send(rig.tiktok(&json!([item("a"), item("b"), item("c")]))).await;
    let rows = &body["data"]["failed_events"];
    assert_eq!(
        (&body["code"], rows),
        (&json!(20001), &json!([{ "index": 0, "code": 50000 }, { "index": 2, "code": 40002 }]))
    );
    assert_eq!(rig.counted(Platform::TikTok).len(), 1);
}
