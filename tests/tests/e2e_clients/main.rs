//! Real SDKs, unmodified, from their registries: what they send is delivered once to each ad platform.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tracklayer_tests::clients::{self, Client};
use tracklayer_tests::{Options, Order, Platform, Role, Running};

mod recorded;

/// One platform for all tests of this file; each has ids of its own.
async fn platform() -> &'static Running {
    static SHARED: OnceCell<Running> = OnceCell::const_new();
    SHARED.get_or_init(async || Platform::start(Options::default()).await.expect("the platform starts")).await
}

/// A handful of events: who it is, then orders of three visitors.
fn handful(label: &str) -> (Vec<Order>, Vec<Value>) {
    let orders: Vec<Order> = (0..3).map(|_| Order::new(label)).collect();
    let first = &orders[0];
    let mut events = vec![json!({
        "type": "identify", "messageId": format!("i-{}", first.message_id), "anonymousId": first.anonymous_id,
        "userId": first.user_id, "traits": { "email": first.email },
    })];
    events.extend(orders.iter().map(Order::event));
    (orders, events)
}

/// Sends a handful and checks that each order is at each platform once, and that nothing is unaccounted for.
async fn sends_and_is_delivered_once(client: &Client, address: &str, label: &str) {
    let platform = platform().await;
    let (orders, events) = handful(label);
    client.send(address, platform.write_key("shop-server"), &events).await;
    for order in &orders {
        let story = order.assert_delivered_once(platform).await;
        assert_eq!(story.sources(), ["shop-server"], "{story:#?}");
    }
    let identify = platform.settled_story(&format!("i-{}", orders[0].message_id)).await;
    let buyer = platform.settled_story(&orders[0].message_id).await;
    assert_eq!(identify.first().canonical_key, buyer.first().canonical_key, "one person");
}

#[tokio::test]
async fn segments_sdk_for_node_is_delivered_once() {
    let Some(client) = clients::node("analytics-node.mjs").await else { return };
    sends_and_is_delivered_once(&client, &platform().await.addresses().ingest_http, "node").await;
}

#[tokio::test]
async fn rudderstacks_sdk_for_node_is_delivered_once() {
    let Some(client) = clients::node("rudder-sdk-node.mjs").await else { return };
    sends_and_is_delivered_once(&client, &platform().await.addresses().ingest_http, "rudder").await;
}

#[tokio::test]
async fn segments_library_for_python_is_delivered_once() {
    let Some(client) = clients::python("analytics_python.py").await else { return };
    sends_and_is_delivered_once(&client, &platform().await.addresses().ingest_http, "python").await;
}

#[tokio::test]
async fn a_python_grpc_client_made_from_the_protos_is_delivered_once() {
    let Some(client) = clients::python_grpc().await else { return };
    let address = platform().await.addresses().ingest.trim_start_matches("http://");
    sends_and_is_delivered_once(&client, address, "grpc").await;
}

#[tokio::test]
async fn an_event_whose_consent_cannot_be_read_goes_to_no_ad_platform() {
    let Some(client) = clients::node("analytics-node.mjs").await else { return };
    let platform = platform().await;
    let (order, neighbour) = (Order::new("unreadable"), Order::new("readable"));
    let mut event = order.event();
    event["context"]["consent"] = json!("yes, everything");
    let key = platform.write_key("shop-server");
    client.send(&platform.addresses().ingest_http, key, &[event, neighbour.event()]).await;
    let story = order.assert_blocked(platform, "signal_unreadable").await;
    assert_eq!(story.first().event["consent"]["unreadable"], true, "{story:#?}");
    neighbour.assert_delivered_once(platform).await;
}

#[tokio::test]
async fn a_client_that_is_told_to_wait_waits_and_loses_nothing() {
    let Some(node) = clients::node("analytics-node.mjs").await else { return };
    let Some(rudder) = clients::node("rudder-sdk-node.mjs").await else { return };
    let Some(python) = clients::python("analytics_python.py").await else { return };
    let limit = ("TRACKLAYER_INGEST__MAX_EVENTS_PER_SECOND_PER_SOURCE".to_owned(), "8".to_owned());
    let options = Options { environment: vec![limit], ..Options::default() };
    let roles = Platform::processes(options).await.expect("the five roles start");
    let platform = roles.platform();
    let mut all = Vec::new();
    for (name, client) in [("node", node), ("rudder", rudder), ("python", python)] {
        let key = format!("wk_flash_sale_{name}");
        platform.create_source(name, "server", "US-CA", &key).await.expect("the source is made");
        // A batch above a second's worth is let through by a full bucket and leaves a debt. The SDKs for Node send more than
        // one batch each; Python's puts everything in one, so that its second run meets the debt of the first.
        let runs = if name == "python" { 2 } else { 1 };
        let (before, started) = (refused(platform).await, Instant::now());
        for _ in 0..runs {
            let orders: Vec<Order> = (0..30).map(|_| Order::new("flash-sale")).collect();
            let events: Vec<Value> = orders.iter().map(Order::event).collect();
            client.send(&platform.addresses().ingest_http, &key, &events).await;
            all.extend(orders);
        }
        let (refused, took) = (refused(platform).await - before, started.elapsed());
        assert!(refused >= 1.0, "{name}: nothing was refused, so nothing was waited for");
        assert!(took.as_secs_f64() > 1.0, "{name} did not wait: {took:?}");
    }
    platform.settled().await;
    platform.cli(&["ledger", "balance"]).await.expect("every event has exactly one state");
    for order in &all {
        let story = order.assert_delivered_once(platform).await;
        assert_eq!(story.occurrences.len(), 1, "{story:#?}");
    }
}

/// Requests that the edge has refused because a source was over its rate, each with Retry-After.
async fn refused(platform: &Running) -> f64 {
    metric(platform, Role::Ingest, "tracklayer_ingest_refused_requests_total", "rate_limited").await
}

/// The sum of a counter's series whose labels name `label`.
async fn metric(platform: &Running, role: Role, name: &str, label: &str) -> f64 {
    let url = format!("{}/metrics", platform.addresses().ops[role.as_str()]);
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, n| sum + n)
}
