//! Bad input over the wire: each kind has its own answer, its neighbours are accepted, and what was refused is kept and listed.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::io::Write as _;

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tracklayer_proto::event::v1::EventType;
use tracklayer_proto::ingest::v1::event_result::Outcome;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_proto::ingest::v1::{EventResult, PublishEvent, PublishRequest};
use tracklayer_tests::{Options, Order, Platform, Processes, Role, Running};

/// One platform for all tests of this file; each has ids of its own. Five processes, so that ingest's memory is its own.
async fn processes() -> &'static Processes {
    static SHARED: OnceCell<Processes> = OnceCell::const_new();
    SHARED
        .get_or_init(async || Platform::processes(Options::default()).await.expect("the platform starts"))
        .await
}

async fn platform() -> &'static Running {
    processes().await.platform()
}

/// The answer to a batch sent under the key of `shop-server`.
struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    /// Status and code of a refusal.
    fn refusal(&self) -> (u16, &str) {
        assert_eq!(self.body["success"], false, "{:#}", self.body);
        assert!(self.body["message"].as_str().is_some_and(|text| !text.is_empty()), "{:#}", self.body);
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }

    /// Index, code and field of what was rejected of a batch that was read; each has a reason for people.
    fn rejected(&self) -> Vec<(u64, &str, &str)> {
        assert_eq!((self.status, &self.body["success"]), (200, &json!(true)), "{:#}", self.body);
        let list = self.body["rejected"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |row: &'static str, of: &'static str| panic!("no {row}: {of}");
        list.iter()
            .map(|row| {
                let word =
                    |key: &'static str| row[key].as_str().unwrap_or_else(|| text(key, "in a rejection"));
                assert!(!word("reason").is_empty(), "{row:#}");
                (row["index"].as_u64().unwrap(), word("code"), word("field"))
            })
            .collect()
    }
}

async fn post(body: impl Into<reqwest::Body>) -> Answer {
    let platform = platform().await;
    post_with_key(body, platform.write_key("shop-server")).await
}

async fn post_with_key(body: impl Into<reqwest::Body>, write_key: &str) -> Answer {
    let response = reqwest::Client::new()
        .post(format!("{}/v1/batch", platform().await.addresses().ingest_http))
        .basic_auth(write_key, Some(""))
        .body(body)
        .send()
        .await
        .unwrap();
    Answer { status: response.status().as_u16(), body: response.json().await.unwrap() }
}

/// What `tracklayer events rejected` lists, as (code, field, raw).
async fn listed() -> Vec<(String, String, String)> {
    let list = platform().await.cli_json(&["events", "rejected", "--limit", "1000"]).await.unwrap();
    let rows = list.as_array().unwrap();
    let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.iter().map(|row| (word(row, "code"), word(row, "field"), word(row, "raw"))).collect()
}

/// An event of a few bytes with the mark in its raw text, so that it is found again in the list.
fn small(mark: &str, rest: &str) -> String {
    format!(r#"{{"context":{{"mark":"{mark}"}},{rest}}}"#)
}

#[tokio::test]
async fn each_bad_event_has_its_own_code_and_its_neighbours_are_delivered() {
    let (before, after) = (Order::new("before"), Order::new("after"));
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bad = [
        (small("no-type", r#""event":"E","userId":"u""#), "missing_type", "type"),
        (small("odd-type", r#""type":"purchase","userId":"u""#), "unknown_type", "type"),
        (small("no-ids", r#""type":"track","event":"E""#), "missing_ids", "userId"),
        (small("no-name", r#""type":"track","userId":"u""#), "missing_event_name", "event"),
        (small("nul", r#""type":"page","userId":"a\u0000b""#), "contains_nul", ""),
        (
            small("deep", &format!(r#""type":"page","userId":"u","properties":{{"x":{nested}}}"#)),
            "too_deep",
            "",
        ),
        (
            small(
                "large",
                &format!(r#""type":"page","userId":"u","properties":{{"x":"{}"}}"#, "x".repeat(33 * 1_024)),
            ),
            "event_too_large",
            "",
        ),
        (r#"["list"]"#.to_owned(), "not_an_object", ""),
    ];
    let texts: Vec<String> = [before.event().to_string()]
        .into_iter()
        .chain(bad.iter().map(|(text, _, _)| text.clone()))
        .chain([after.event().to_string()])
        .collect();
    let answer = post(format!(r#"{{"batch":[{}]}}"#, texts.join(","))).await;
    let expected: Vec<_> =
        bad.iter().zip(1..).map(|((_, code, field), index)| (index, *code, *field)).collect();
    assert_eq!(answer.rejected(), expected);

    let listed = listed().await;
    for (text, code, field) in &bad {
        let beginning: String = text.chars().take(40).collect();
        let found = listed.iter().any(|(c, f, raw)| c == code && f == field && raw.starts_with(&beginning));
        assert!(found, "{code} of {beginning} is not listed: {listed:#?}");
    }
    before.assert_delivered_once(platform().await).await;
    after.assert_delivered_once(platform().await).await;
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_as_a_whole() {
    let filler = json!({ "type": "page", "userId": "u", "properties": { "x": "x".repeat(30_000) } });
    let large = json!({ "batch": vec![filler; 18] }).to_string();
    assert!(large.len() > 501 * 1_024);
    let cases: [(Vec<u8>, u16, &str); 9] = [
        (b"whole-not-json".to_vec(), 400, "invalid_json"),
        (br#"{"batch":[{"type":"page","userId":"whole-cut""#.to_vec(), 400, "invalid_json"),
        (
            b"{\"batch\":[{\"type\":\"page\",\"userId\":\"whole-utf8 \xff\xfe\"}]}".to_vec(),
            400,
            "invalid_utf8",
        ),
        (b"{\"batch\":[{\"type\":\"page\",\"userId\":\"whole-nul \0\"}]}".to_vec(), 400, "contains_nul"),
        (br#"["whole-list"]"#.to_vec(), 400, "not_an_object"),
        (br#"{"whole":"no-batch"}"#.to_vec(), 400, "missing_batch"),
        (br#"{"batch":[]}"#.to_vec(), 400, "batch_empty"),
        (json!({ "batch": vec![json!({}); 2_501] }).to_string().into_bytes(), 400, "batch_too_large"),
        (large.into_bytes(), 413, "batch_too_large"),
    ];
    for (body, status, code) in cases {
        let beginning = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(post(body).await.refusal(), (status, code), "{beginning}");
    }
    let listed = listed().await;
    for mark in ["whole-not-json", "whole-cut", "whole-utf8", "whole-nul", "whole-list"] {
        assert!(listed.iter().any(|(_, _, raw)| raw.contains(mark)), "{mark} is not listed: {listed:#?}");
    }
}

#[tokio::test]
async fn an_event_of_1970_is_refused_per_connection_and_one_of_2070_is_clamped() {
    let (old, future) = (Order::new("y1970"), Order::new("y2070"));
    let at = |order: &Order, time: &str| {
        let mut event = order.event();
        event["timestamp"] = json!(time);
        event
    };
    let batch = json!({ "batch": [at(&old, "1970-01-01T00:00:00Z"), at(&future, "2070-01-01T00:00:00Z")] });
    let answer = post(batch.to_string()).await;
    assert_eq!(answer.rejected(), []);
    assert_eq!(answer.body["warnings"], json!([{ "index": 1, "code": "timestamp_clamped" }]));

    let platform = platform().await;
    let story = platform.settled_story(&old.message_id).await;
    for connection in ["meta", "google", "tiktok"] {
        let delivery = story.first().at(connection);
        assert_eq!(
            (delivery.state.as_str(), delivery.reason.as_str()),
            ("dead", "event_too_old"),
            "{story:#?}"
        );
    }
    let story = future.assert_delivered_once(platform).await;
    let event = &story.first().event;
    assert_eq!(event["timestamp"], event["received_at"], "clamped to receipt");
    assert_eq!(event["warnings"], json!(["timestamp_clamped"]));
}

#[tokio::test]
async fn a_key_that_stands_twice_counts_as_its_last_and_is_warned_of() {
    let order = Order::new("twice");
    let event = order.event().to_string();
    let twice = event.replacen('{', r#"{"userId":"somebody-else","#, 1);
    let answer = post(format!(r#"{{"batch":[{twice}]}}"#)).await;
    assert_eq!(answer.rejected(), []);
    assert_eq!(answer.body["warnings"], json!([{ "index": 0, "code": "duplicate_key" }]));
    let platform = platform().await;
    order.assert_delivered_once(platform).await;
    let counted = platform.sandbox().counted(tracklayer_sandbox::Platform::Webhook).await.unwrap();
    let sent = counted.iter().find(|event| event.event_id == order.message_id).unwrap();
    assert_eq!(sent.body["userId"], json!(order.user_id), "{:#}", sent.body);
}

/// A batch of spaces that is small on the wire and 400 MiB inflated.
fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 16 * 1_024 * 1_024]).unwrap();
    let member = encoder.finish().unwrap();
    let bomb = member.repeat(25);
    assert!(bomb.len() < 500_000, "the bomb itself passes the door: {}", bomb.len());
    bomb
}

/// The most memory that a process has had, and has now, bytes; Linux only.
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    };
    (of("VmHWM:"), of("VmRSS:"))
}

#[tokio::test]
async fn gzip_bombs_cost_no_more_than_large_requests() {
    const BOMBS: usize = 24;
    let pid = processes().await.pid(Role::Ingest).unwrap();
    let bomb = bomb();
    let (most_before, before) = memory(pid);
    let answers = futures::future::join_all((0..BOMBS).map(|_| post(bomb.clone()))).await;
    for answer in &answers {
        assert_eq!(answer.refusal(), (413, "batch_too_large"));
    }
    let (most, after) = memory(pid);
    let mib = |bytes: u64| bytes / 1_024 / 1_024;
    println!(
        "{BOMBS} bombs of 400 MiB: ingest had {} MiB before (most {}), {} after (most {})",
        mib(before),
        mib(most_before),
        mib(after),
        mib(most)
    );
    // Each may hold its body and 512,000 bytes of what comes out of it; the other tests of this file run beside.
    assert!(
        most.saturating_sub(most_before) < 96 * 1_024 * 1_024,
        "the peak rose by {} MiB",
        mib(most - most_before)
    );
}

async fn publish(write_key: &str, events: Vec<PublishEvent>) -> Result<Vec<EventResult>, tonic::Status> {
    let address = platform().await.addresses().ingest.clone();
    let mut client = IngestServiceClient::connect(address).await.unwrap();
    let mut request = tonic::Request::new(PublishRequest { events, sent_at: None });
    request.metadata_mut().insert("authorization", format!("Bearer {write_key}").parse().unwrap());
    Ok(client.publish(request).await?.into_inner().results)
}

#[tokio::test]
async fn a_wrong_write_key_is_told_so_and_nothing_is_kept() {
    let order = Order::new("wrong-key");
    let body = json!({ "batch": [order.event()] }).to_string();
    assert_eq!(post_with_key(body.clone(), "no-such-key").await.refusal(), (401, "unknown_write_key"));
    assert_eq!(post_with_key(body, "").await.refusal(), (401, "missing_write_key"));
    let event = PublishEvent { message_id: order.message_id.clone(), user_id: "u".into(), ..page() };
    for key in ["no-such-key", ""] {
        let status = publish(key, vec![event.clone()]).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status:?}");
    }
    let story = platform().await.story(&order.message_id).await;
    assert!(format!("{:?}", story.unwrap_err()).contains("no event with this message_id was accepted"));
}

fn page() -> PublishEvent {
    PublishEvent { r#type: EventType::Page.into(), ..PublishEvent::default() }
}

#[tokio::test]
async fn over_grpc_each_bad_event_has_the_same_code_and_its_neighbours_are_accepted() {
    let good = |id: &str| PublishEvent { message_id: format!("grpc-{id}"), user_id: "u".into(), ..page() };
    let nested = format!(r#"{{"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let bad = [
        (PublishEvent { r#type: 0, ..good("no-type") }, "missing_type"),
        (PublishEvent { r#type: 99, ..good("odd-type") }, "unknown_type"),
        (PublishEvent { user_id: String::new(), ..good("no-ids") }, "missing_ids"),
        (PublishEvent { r#type: EventType::Track.into(), ..good("no-name") }, "missing_event_name"),
        (PublishEvent { user_id: "a\0b".into(), ..good("nul") }, "contains_nul"),
        (PublishEvent { properties_json: "{".into(), ..good("not-json") }, "invalid_json"),
        (PublishEvent { properties_json: "[]".into(), ..good("list") }, "invalid_field"),
        (PublishEvent { properties_json: nested, ..good("deep") }, "too_deep"),
        (
            PublishEvent {
                properties_json: format!(r#"{{"x":"{}"}}"#, "x".repeat(33 * 1_024)),
                ..good("large")
            },
            "event_too_large",
        ),
    ];
    let mut events = vec![good("before")];
    events.extend(bad.iter().map(|(event, _)| event.clone()));
    events.push(good("after"));
    let results = publish(platform().await.write_key("wholesale"), events).await.unwrap();
    let codes: Vec<&str> = results
        .iter()
        .map(|result| match result.outcome.as_ref().unwrap() {
            Outcome::Accepted(_) => "accepted",
            Outcome::Duplicate(_) => "duplicate",
            Outcome::Rejected(rejected) => rejected.code.as_str(),
        })
        .collect();
    let expected: Vec<&str> =
        ["accepted"].into_iter().chain(bad.iter().map(|(_, code)| *code)).chain(["accepted"]).collect();
    assert_eq!(codes, expected);
    platform().await.settled_story("grpc-after").await;
}

#[tokio::test]
async fn an_empty_batch_over_grpc_is_an_invalid_argument() {
    let status = publish(platform().await.write_key("wholesale"), Vec::new()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
}
