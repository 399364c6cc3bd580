//! Requests of four SDKs as they were recorded on the wire, replayed to the running platform.

use std::collections::BTreeSet;
use std::io::Write as _;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracklayer_tests::Running;

use crate::platform;

/// The write key that was recorded.
const WRITE_KEY: &str = "wk_test";
/// The origin of a page; browsers add it to what the recorder saw.
const ORIGIN: &str = "https://shop.example";

fn recorded() -> Vec<Value> {
    let vectors: Value = serde_json::from_str(include_str!("../../vectors/segment-requests.json")).unwrap();
    vectors["requests"].as_array().unwrap().clone()
}

/// The body as it was on the wire. The recorder kept it parsed: JavaScript writes JSON without spaces, Python
/// with. Compressed bodies are compressed anew.
fn body(recorded: &Value) -> Vec<u8> {
    let headers = &recorded["headers"];
    let text = match &recorded["body"] {
        Value::Null => return Vec::new(),
        body if recorded["sdk"] == "segment-analytics-python" => spaced(body),
        body => {
            let compact = body.to_string();
            let as_recorded = headers["content-length"].as_str() == Some(compact.len().to_string().as_str());
            assert!(as_recorded || headers["content-encoding"] == "gzip", "{}", recorded["case"]);
            compact
        }
    };
    if headers["content-encoding"] != "gzip" {
        return text.into_bytes();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// JSON as Python's `json.dumps` writes it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(key, v)| format!("{}: {}", json!(key), spaced(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

struct Answer {
    status: u16,
    /// Lower-case names.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Writes exactly these bytes to the edge, and a host and an end of the connection.
async fn send(platform: &Running, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let host = platform.addresses().ingest_http.trim_start_matches("http://");
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer with headers");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answer { status, headers: lines.filter_map(header).collect(), body: answer[end + 4..].to_vec() }
}

/// The request as recorded; a browser's with the origin that the browser adds.
async fn replay(platform: &Running, recorded: &Value) -> Answer {
    let body = body(recorded);
    let length = body.len().to_string();
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in recorded["headers"].as_object().unwrap() {
        let value =
            if name == "content-length" { length.clone() } else { value.as_str().unwrap().to_owned() };
        headers.push((name.clone(), value));
    }
    if recorded["sdk"] == "@segment/analytics-next" {
        headers.push(("origin".to_owned(), ORIGIN.to_owned()));
    }
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let path = recorded["path"].as_str().unwrap().to_owned();
    send(platform, recorded["method"].as_str().unwrap(), &path, &headers, &body).await
}

#[tokio::test]
async fn every_recorded_request_is_answered_so_that_its_sdk_counts_it_as_delivered() {
    let platform = platform().await;
    platform.create_source("recorded", "server", "US-CA", WRITE_KEY).await.unwrap();
    let mut message_ids = BTreeSet::new();
    let mut preflighted = BTreeSet::new();
    for recorded in recorded() {
        let case = format!("{} {} {}", recorded["sdk"], recorded["case"], recorded["path"]);
        let browser = recorded["sdk"] == "@segment/analytics-next";
        let path = recorded["path"].as_str().unwrap();
        if browser && recorded["method"] == "POST" && preflighted.insert(path.to_owned()) {
            preflight_is_passed(platform, path).await;
        }
        let answer = replay(platform, &recorded).await;
        assert_eq!(answer.status, 200, "{case}: {}", answer.json());
        if browser {
            assert_eq!(answer.header("access-control-allow-origin"), ORIGIN, "{case}");
            assert_eq!(
                answer.header("access-control-expose-headers").to_lowercase(),
                "retry-after",
                "{case}"
            );
        }
        if recorded["method"] == "GET" {
            settings_send_events_here(platform, &answer);
        } else {
            assert_eq!(answer.json(), json!({ "success": true }), "{case}");
        }
        let alone = std::slice::from_ref(&recorded["body"]);
        let events = recorded["body"]["batch"].as_array().map_or(alone, Vec::as_slice);
        message_ids.extend(events.iter().filter_map(|event| event["messageId"].as_str()).map(str::to_owned));
    }
    assert!(message_ids.len() > 30, "{message_ids:?}");
    assert!(preflighted.len() >= 8, "{preflighted:?}");
    for message_id in message_ids {
        // Each SDK's retry came under the same id: one occurrence counts, the others are its duplicates.
        let story = platform.settled_story(&message_id).await;
        assert_eq!(story.first().source, "recorded", "{story:#?}");
    }
    let rejected = platform.cli_json(&["events", "rejected"]).await.unwrap();
    let ours =
        rejected.as_array().unwrap().iter().filter(|event| event["raw"].to_string().contains(WRITE_KEY));
    assert_eq!(ours.count(), 0, "{rejected:#}");
}

/// Segment's browser library adds Authorization and X-Retry-Count, so the browser asks first.
async fn preflight_is_passed(platform: &Running, path: &str) {
    let asked = [
        ("origin", ORIGIN),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-retry-count"),
    ];
    let answer = send(platform, "OPTIONS", path, &asked, b"").await;
    assert_eq!(answer.status, 204, "{path}");
    assert_eq!(answer.header("access-control-allow-origin"), ORIGIN, "{path}");
    assert!(answer.header("access-control-allow-methods").contains("POST"), "{path}: {:?}", answer.headers);
    let allowed = answer.header("access-control-allow-headers").to_lowercase();
    let allowed: BTreeSet<&str> = allowed.split(',').map(str::trim).collect();
    for header in ["authorization", "content-type", "x-retry-count"] {
        assert!(allowed.contains(header), "{path}: {allowed:?}");
    }
}

/// Settings without `Segment.io` in them make the browser library send the shop's events to Segment.
fn settings_send_events_here(platform: &Running, answer: &Answer) {
    let settings = answer.json();
    let host = platform.addresses().ingest_http.trim_start_matches("http://");
    let integrations = settings["integrations"].as_object().expect("integrations are an object");
    assert_eq!(
        integrations.keys().collect::<Vec<_>>(),
        ["Segment.io"],
        "a second key loads more code: {settings:#}"
    );
    assert_eq!(integrations["Segment.io"]["apiKey"], WRITE_KEY, "{settings:#}");
    assert_eq!(integrations["Segment.io"]["apiHost"], format!("{host}/v1"), "{settings:#}");
    assert_eq!(settings["metrics"]["sampleRate"], 0, "{settings:#}");
    assert!(answer.header("cache-control").contains("max-age"), "{:?}", answer.headers);
}

#[tokio::test]
async fn an_unknown_write_key_is_refused_aloud() {
    let platform = platform().await;
    let settings = send(platform, "GET", "/v1/projects/wk_nobody/settings", &[], b"").await;
    assert_eq!(settings.status, 404, "never 200 with empty integrations: {}", settings.json());
    let event = br#"{"type":"page","anonymousId":"a","writeKey":"wk_nobody"}"#;
    let length = event.len().to_string();
    let headers = [("content-type", "text/plain"), ("content-length", length.as_str()), ("origin", ORIGIN)];
    let page = send(platform, "POST", "/v1/p", &headers, event).await;
    let seen = (page.status, page.header("access-control-allow-origin"), page.json()["success"].clone());
    assert_eq!(seen, (401, ORIGIN, json!(false)));
}
