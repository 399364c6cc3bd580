//! Segment's browser library on a shop page in a real Chromium: delivered once, also beside its twin from the shop's server,
//! and not at all where the visitor's browser says Global Privacy Control.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tracklayer_sandbox::Platform as AdPlatform;
use tracklayer_tests::clients::{self, Client};
use tracklayer_tests::shop::Shop;
use tracklayer_tests::{Options, Order, Platform, Running};

async fn platform() -> &'static Running {
    static SHARED: OnceCell<Running> = OnceCell::const_new();
    SHARED.get_or_init(async || Platform::start(Options::default()).await.expect("the platform starts")).await
}

/// What the browser saw.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Visit {
    page_saw_gpc: String,
    message_id: String,
    requests: Vec<Request>,
}

#[derive(Debug, Deserialize)]
struct Request {
    method: String,
    url: String,
    status: u16,
    gpc: Option<String>,
}

impl Request {
    fn is_at(&self, platform: &Running) -> bool {
        let known = [platform.addresses().ingest_http.as_str(), "http://localhost:", "data:"];
        known.iter().any(|start| self.url.starts_with(start))
    }
}

impl Visit {
    /// What was posted to the edge.
    fn sent(&self, platform: &Running) -> Vec<&Request> {
        let edge = &platform.addresses().ingest_http;
        self.requests.iter().filter(|r| r.method == "POST" && r.url.starts_with(edge.as_str())).collect()
    }
}

/// Buys in the shop of source `web-us`.
async fn buy(shopper: &Client, order: &Order, gpc: bool) -> Visit {
    let platform = platform().await;
    let shop = Shop::open().await.expect("the shop opens");
    let visit = json!({
        "gpc": gpc, "anonymousId": order.anonymous_id, "userId": order.user_id, "email": order.email,
        "orderId": order.order_id, "messageId": order.message_id,
    });
    let visit: Visit =
        shopper.run(&[&shop.page(platform, "web-us")], &visit).await.expect("the visit ends well");
    assert_eq!(visit.message_id, order.message_id, "the library keeps the id that the page gives");
    let sent = visit.sent(platform);
    let kinds: Vec<&str> = sent.iter().filter_map(|r| r.url.rsplit('/').next()).collect();
    for kind in ["p", "t", "i"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert!(sent.iter().all(|r| r.status == 200), "{sent:#?}");
    let elsewhere: Vec<&Request> = visit.requests.iter().filter(|r| !r.is_at(platform)).collect();
    assert!(
        elsewhere.is_empty(),
        "the browser talks to the shop and to the edge, to nobody else: {elsewhere:#?}"
    );
    visit
}

/// The shop's server reports an order with Segment's SDK for Node.
async fn report(order: &Order, event: Value) {
    let server =
        clients::node("analytics-node.mjs").await.expect("Node is there: the browser is driven by it");
    let platform = platform().await;
    assert_eq!(event["messageId"], order.message_id);
    server.send(&platform.addresses().ingest_http, platform.write_key("shop-server"), &[event]).await;
}

#[tokio::test]
async fn an_order_in_the_browser_is_delivered_once() {
    let Some(shopper) = clients::shopper().await else { return };
    let (platform, order) = (platform().await, Order::new("browser"));
    let visit = buy(&shopper, &order, false).await;
    assert_eq!(visit.page_saw_gpc, "off");
    let story = order.assert_delivered_once(platform).await;
    assert_eq!(story.sources(), ["web-us"], "{story:#?}");
    assert_eq!(story.first().event["channel"], "browser");
    let library = story.first().event["library"].as_str().unwrap_or_default();
    assert!(library.starts_with("analytics.js"), "{library}");
}

#[tokio::test]
async fn a_browser_event_and_its_server_twin_are_delivered_once_and_both_are_named() {
    let Some(shopper) = clients::shopper().await else { return };
    let (platform, order) = (platform().await, Order::new("twins"));
    buy(&shopper, &order, false).await;
    report(&order, order.event()).await;
    let story = order.assert_delivered_once(platform).await;
    assert_eq!(story.sources(), ["web-us", "shop-server"], "{story:#?}");
    let twin = &story.occurrences[1];
    assert_eq!(twin.duplicate_of.as_ref(), Some(&story.first().position), "{story:#?}");
    assert!(twin.deliveries.iter().all(|delivery| delivery.state == "duplicate"), "{story:#?}");
    let told = platform.cli(&["events", "show", &order.message_id]).await.unwrap();
    for name in ["web-us", "shop-server"] {
        assert!(told.contains(name), "people see {name} too: {told}");
    }
}

#[tokio::test]
async fn a_server_that_is_first_is_the_one_that_is_delivered_and_the_browser_its_twin() {
    let Some(shopper) = clients::shopper().await else { return };
    let (platform, order) = (platform().await, Order::new("server-first"));
    report(&order, order.event()).await;
    order.assert_delivered_once(platform).await;
    buy(&shopper, &order, false).await;
    let story = order.assert_delivered_once(platform).await;
    assert_eq!(story.sources(), ["shop-server", "web-us"], "{story:#?}");
}

#[tokio::test]
async fn with_global_privacy_control_no_ad_platform_gets_the_visit_nor_the_purchase_that_the_server_reports()
{
    let Some(shopper) = clients::shopper().await else { return };
    let (platform, order) = (platform().await, Order::new("gpc"));
    let visit = buy(&shopper, &order, true).await;
    assert_eq!(visit.page_saw_gpc, "on");
    let sent = visit.sent(platform);
    assert!(sent.iter().all(|r| r.gpc.as_deref() == Some("1")), "{sent:#?}");

    // A moment later, from another source: once with the browser's id, once with the account alone.
    let (same_device, same_account) = (order.again(), order.again());
    report(&same_device, same_device.event()).await;
    let mut account_only = same_account.event();
    account_only.as_object_mut().unwrap().remove("anonymousId");
    report(&same_account, account_only).await;

    let story = order.assert_blocked(platform, "gpc").await;
    let consent = &story.first().event["consent"];
    assert_eq!(
        (&consent["gpc"], &consent["gpc_provenance"]),
        (&json!(true), &json!("sec_gpc_header")),
        "{story:#?}"
    );
    for purchase in [&same_device, &same_account] {
        let story = purchase.assert_blocked(platform, "gpc").await;
        assert_eq!(story.sources(), ["shop-server"], "{story:#?}");
        assert_eq!(story.first().event["consent"]["gpc"], false, "the server said nothing: {story:#?}");
    }
    nothing_of(platform, &order).await;
}

/// No ad platform counted anything that carries one of the visitor's ids, whatever the event.
async fn nothing_of(platform: &Running, order: &Order) {
    for book in [AdPlatform::Meta, AdPlatform::DataManager, AdPlatform::TikTok, AdPlatform::GoogleAds] {
        for event in platform.sandbox().counted(book).await.expect("the sandbox answers") {
            let text = event.body.to_string();
            let page = format!("visitor={}", order.anonymous_id);
            for id in [&order.anonymous_id, &order.user_id, &order.order_id, &order.message_id, &page] {
                assert!(!text.contains(id.as_str()), "{book} got {text}");
            }
        }
    }
}
