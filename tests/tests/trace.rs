//! One trace for one event, from the caller's span through the journal to every platform, as a collector sees it.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tracklayer_proto::event::v1::EventType;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_proto::ingest::v1::{PublishEvent, PublishRequest};
use tracklayer_tests::otlp::{Collector, Trace};
use tracklayer_tests::{Options, Platform, Running, eventually};

/// The connections of the sample workspace.
const CONNECTIONS: usize = 4;
/// The span of the client that sends.
const CALLER: &str = "00f067aa0ba902b7";

/// Nothing is traced but what the sender says.
fn options(collector: &Collector) -> Options {
    let otlp_endpoint = Some(collector.endpoint().to_owned());
    Options { otlp_endpoint, trace_sample_ratio: Some(0.0), ..Options::default() }
}

fn properties() -> Value {
    json!({ "order_id": "T-1", "revenue": 12.5, "currency": "USD" })
}

/// Each event is of a person of its own: two that turn out to be one are decided about again, which leaves spans of its own.
fn context(message_id: &str) -> Value {
    json!({
        "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
        "ip": "203.0.113.9", "page": { "url": "https://shop.northline.example/thank-you?ttclid=E.C.P.t1" },
        "traits": { "email": format!("{message_id}@example.com") },
    })
}

async fn over_http(platform: &Running, message_id: &str, traceparent: &str) {
    let event = json!({
        "type": "track", "event": "Order Completed", "messageId": message_id, "anonymousId": message_id,
        "properties": properties(), "context": context(message_id),
    });
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/batch", platform.addresses().ingest_http))
        .basic_auth(platform.write_key("web-us"), Some(""))
        .header("traceparent", traceparent)
        .json(&json!({ "batch": [event] }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "success": true }));
}

async fn over_grpc(platform: &Running, message_id: &str, traceparent: &str) {
    let event = PublishEvent {
        message_id: message_id.to_owned(),
        r#type: EventType::Track.into(),
        name: "Order Completed".to_owned(),
        anonymous_id: message_id.to_owned(),
        properties_json: properties().to_string(),
        context_json: context(message_id).to_string(),
        traceparent: traceparent.to_owned(),
        ..PublishEvent::default()
    };
    let mut client = IngestServiceClient::connect(platform.addresses().ingest.clone()).await.unwrap();
    let mut request = tonic::Request::new(PublishRequest { events: vec![event], sent_at: None });
    let bearer = format!("Bearer {}", platform.write_key("shop-server"));
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    let results = client.publish(request).await.unwrap().into_inner().results;
    assert!(format!("{results:?}").contains("Accepted"), "{results:?}");
}

/// How many spans of each stage one event leaves.
const STAGES: [(&str, usize); 6] = [
    ("ingest", 1),
    ("ingest.append", 1),
    ("resolve", 1),
    ("identity.resolve", 1),
    ("consent.decide", 1),
    ("deliver", CONNECTIONS),
];

/// Waits until the trace has every stage (each process sends its spans when it likes), and checks that it is whole.
async fn whole_trace(collector: &Collector, trace_id: &str) -> Trace {
    let trace = eventually("every stage in the trace", async || {
        let trace = collector.trace(trace_id);
        let all_there = STAGES.iter().all(|(stage, count)| trace.named(stage).len() >= *count);
        if all_there { Ok(trace) } else { Err(format!("{trace:#?}")) }
    })
    .await;
    for (stage, count) in STAGES {
        assert_eq!(trace.named(stage).len(), count, "{stage}: {trace:#?}");
    }
    let delivered: BTreeSet<&str> = trace
        .named("deliver")
        .iter()
        .filter(|span| span.attributes["state"] == "delivered")
        .map(|span| span.attributes["connection_id"].as_str())
        .collect();
    assert_eq!(delivered.len(), CONNECTIONS, "delivered to each connection: {trace:#?}");
    assert!(trace.strays(CALLER).is_empty(), "not under the caller's span: {:#?}", trace.strays(CALLER));
    let began = trace.named("ingest")[0].started_ns;
    assert!(trace.spans.iter().all(|span| span.started_ns >= began && span.ended_ns >= span.started_ns));
    trace
}

#[tokio::test]
async fn one_trace_leads_from_the_callers_span_to_every_platform() {
    let collector = Collector::start().await.unwrap();
    let platform = Platform::start(options(&collector)).await.unwrap();
    let (sampled, unsampled) = ("4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6a3ce929d0e0e4737");
    over_http(&platform, "unsampled-1", &format!("00-{unsampled}-{CALLER}-00")).await;
    over_http(&platform, "sampled-1", &format!("00-{sampled}-{CALLER}-01")).await;
    whole_trace(&collector, sampled).await;
    // The other was sent before, and is at rest: what of it was traced would have been sent with the rest.
    platform.settled_story("unsampled-1").await;
    assert_eq!(collector.trace(unsampled).spans.len(), 0, "the caller did not want a trace");
}

#[tokio::test]
async fn one_trace_joins_the_spans_of_five_processes() {
    let collector = Collector::start().await.unwrap();
    let processes = Platform::processes(options(&collector)).await.unwrap();
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    over_grpc(processes.platform(), "grpc-1", &format!("00-{trace_id}-{CALLER}-01")).await;
    let trace = whole_trace(&collector, trace_id).await;
    for (span, service) in [
        ("ingest", "ingest"),
        ("resolve", "delivery"),
        ("identity.resolve", "identity"),
        ("consent.decide", "consent"),
        ("deliver", "delivery"),
    ] {
        assert!(trace.named(span).iter().all(|span| span.service == service), "{span}: {trace:#?}");
    }
}
