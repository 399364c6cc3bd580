//! Shopify's webhooks as Shopify sends them: signed, repeated, out of order, and by somebody else. The bodies are those of
//! `libs/shopify` (Admin API 2026-10).

use std::sync::atomic::Ordering;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Method, Request};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracklayer_event::commerce::commerce_key;
use tracklayer_ids::MasterKey;
use tracklayer_journal::claim::{Claim, claim_key};
use tracklayer_proto::control::v1::{SourceConfig, WatchConfigResponse};

use crate::support::{Answer, Bench, Choices, SERVER_KEY, WORKSPACE, configuration, get, master_key, post};

const ORDER: &str = include_str!("../../../../libs/shopify/tests/fixtures/order.json");
const REFUND: &str = include_str!("../../../../libs/shopify/tests/fixtures/refund.json");
const SECRET: &str = "shpss_test_secret";
const KEY: &str = "wk_shopify";
const PATH: &str = "/v1/webhooks/shopify/wk_shopify";

/// The configuration with a source of kind shopify: source 4.
fn configured(more: &Value, key: &MasterKey) -> WatchConfigResponse {
    let mut document =
        json!({"kind": "shopify", "webhook_secret": SECRET, "shop_domain": "northline.myshopify.com"});
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    tracklayer_secrets::seal_document(&key.secrets(), &mut document, tracklayer_shopify::SECRET_PATHS)
        .unwrap();
    let mut configuration = configuration();
    configuration.version += 1;
    configuration.workspaces[0].sources.push(SourceConfig {
        source_id: 4,
        name: "shopify".to_owned(),
        write_key_sha256: Sha256::digest(KEY).to_vec(),
        channel: "server".to_owned(),
        enabled: true,
        user_id_type: "shopify_customer_id".to_owned(),
        dedup_by_order_id: true,
        webhook_json: document.to_string(),
        ..SourceConfig::default()
    });
    configuration
}

async fn bench(more: &Value) -> Bench {
    bench_with(Choices::default(), more).await
}

async fn bench_with(choices: Choices, more: &Value) -> Bench {
    let bench = Bench::with(choices).await;
    bench.config.send(configured(more, &master_key()));
    bench
}

fn signature(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// A webhook as Shopify sends it; headers may be changed.
fn webhook(topic: &str, body: &str, changes: &[(&'static str, &str)]) -> Request<Body> {
    let signature = signature(SECRET, body);
    let mut headers = vec![
        ("content-type", "application/json"),
        ("user-agent", "Shopify-Captain-Hook"),
        ("x-shopify-topic", topic),
        ("x-shopify-hmac-sha256", signature.as_str()),
        ("x-shopify-shop-domain", "northline.myshopify.com"),
        ("x-shopify-api-version", "2026-10"),
        ("x-shopify-webhook-id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
        ("x-shopify-event-id", "98880550-7158-44d4-b7cd-2c97c8a091b5"),
        ("x-shopify-triggered-at", "2026-11-20T14:15:05.123456789Z"),
    ];
    for (name, value) in changes {
        headers.retain(|(known, _)| known != name);
        if !value.is_empty() {
            headers.push((*name, *value));
        }
    }
    let mut request = Request::builder().method(Method::POST).uri(PATH);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

async fn send(bench: &Bench, topic: &str, body: &str) -> Answer {
    bench.send(webhook(topic, body, &[])).await
}

/// Rows that a request may leave anywhere.
async fn traces(bench: &Bench) -> (usize, usize, i64, usize) {
    let orders: i64 = sqlx::query_scalar("select count(*) from ingest.shopify_order")
        .fetch_one(&bench.database.pool)
        .await
        .unwrap();
    (bench.journal().await.len(), bench.rejected_codes().await.len(), orders, bench.recorded().len())
}

fn properties(event: &tracklayer_proto::event::v1::Event) -> Value {
    serde_json::from_slice(&event.properties_json).unwrap()
}

#[tokio::test]
async fn a_signed_order_over_a_socket_is_durable_when_it_is_answered() {
    let bench = bench(&json!({})).await;
    let listener = tracklayer_testkit::listener().await;
    let address = listener.local_addr().unwrap();
    let stop = bench.stop.clone();
    tokio::spawn(tracklayer_rpc::serve_http(listener, bench.edge.clone(), stop));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nX-SHOPIFY-TOPIC: orders/create\r\nX-Shopify-Hmac-SHA256: {}\r\n\
         X-Shopify-Shop-Domain: northline.myshopify.com\r\ncontent-length: {}\r\n\r\n",
        signature(SECRET, ORDER),
        ORDER.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(ORDER.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"success":true}"#), "{answer}");
    let stored = bench.journal().await;
    assert_eq!((stored.len(), stored[0].source_id, stored[0].name.as_str()), (1, 4, "Order Completed"));
    // Whoever carries the webhook is nobody's address or browser.
    assert_eq!(stored[0].ip, "203.0.113.9");
    assert!(stored[0].user_agent.starts_with("Mozilla/5.0 (Macintosh"));
}

#[tokio::test]
async fn a_wrong_or_missing_signature_is_401_and_leaves_nothing() {
    let bench = bench(&json!({})).await;
    let other = signature("another_secret", ORDER);
    let of_another_body = signature(SECRET, REFUND);
    for (changes, code) in [
        (vec![("x-shopify-hmac-sha256", other.as_str())], "invalid_signature"),
        (vec![("x-shopify-hmac-sha256", of_another_body.as_str())], "invalid_signature"),
        (vec![("x-shopify-hmac-sha256", "%%%")], "invalid_signature"),
        (vec![("x-shopify-hmac-sha256", "")], "missing_signature"),
        (vec![("x-shopify-shop-domain", "other.myshopify.com")], "wrong_shop"),
        (vec![("x-shopify-shop-domain", "")], "wrong_shop"),
    ] {
        for topic in ["orders/create", "fulfillments/create", "customers/redact"] {
            let answer = bench.send(webhook(topic, ORDER, &changes)).await;
            assert_eq!(answer.refusal(), (401, code.to_owned()), "{changes:?}");
        }
    }
    let tampered = ORDER.replacen("396.80", "3.96", 1);
    let answer = bench
        .send(webhook("orders/create", &tampered, &[("x-shopify-hmac-sha256", &signature(SECRET, ORDER))]))
        .await;
    assert_eq!(answer.refusal(), (401, "invalid_signature".to_owned()));
    assert_eq!(traces(&bench).await, (0, 0, 0, 0));
}

#[tokio::test]
async fn while_a_secret_is_replaced_both_are_believed_and_then_one() {
    let bench = bench(&json!({"webhook_secret": "the_new_secret", "previous_webhook_secret": SECRET})).await;
    let new = signature("the_new_secret", ORDER);
    let with_new = || webhook("orders/create", ORDER, &[("x-shopify-hmac-sha256", &new)]);
    assert_eq!(send(&bench, "orders/create", ORDER).await.status, 200);
    assert_eq!(bench.send(with_new()).await.status, 200);
    let mut later = configured(&json!({"webhook_secret": "the_new_secret"}), &master_key());
    later.version += 1;
    bench.config.send(later);
    assert_eq!(send(&bench, "orders/create", ORDER).await.refusal(), (401, "invalid_signature".to_owned()));
    assert_eq!(bench.send(with_new()).await.status, 200);
}

#[tokio::test]
async fn a_delivery_that_comes_again_is_the_same_event_and_is_not_stored_twice() {
    let bench = bench_with(Choices { redis: true, ..Choices::default() }, &json!({})).await;
    assert_eq!(send(&bench, "orders/create", ORDER).await.rejected(), []);
    // Before it is resolved, the repeat is stored under the same id, and the claim finds it.
    assert_eq!(send(&bench, "orders/create", ORDER).await.rejected(), []);
    let stored = bench.journal().await;
    assert_eq!((stored.len(), &stored[0].message_id), (2, &stored[1].message_id));
    // As delivery does when it has resolved the first.
    let client = redis::Client::open(bench.redis.as_ref().unwrap().url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let claim = Claim::of(&stored[0], bench.first_position().await).encode();
    let key = claim_key(WORKSPACE, &stored[0].message_id);
    redis::cmd("SET").arg(key).arg(claim).exec_async(&mut connection).await.unwrap();
    assert_eq!(send(&bench, "orders/create", ORDER).await.rejected(), []);
    assert_eq!(bench.journal().await.len(), 2, "it is known");
}

#[tokio::test]
async fn an_order_and_a_servers_call_of_it_have_one_key_under_any_name_of_the_order() {
    for (from, order_id) in [("id", "820982911946154508"), ("name", "#1001"), ("order_number", "1001")] {
        let bench = bench(&json!({"order_id_from": from})).await;
        assert_eq!(send(&bench, "orders/create", ORDER).await.rejected(), []);
        let call = json!({
            "writeKey": SERVER_KEY, "messageId": "srv-1", "userId": "u-1", "event": "Order Completed",
            "properties": {"order_id": order_id, "revenue": 360, "currency": "USD"},
        });
        let call = post("/v1/track", call.to_string()).without("authorization").body_is_done();
        assert_eq!(bench.send(call).await.rejected(), []);
        let keys: Vec<Option<String>> = bench.journal().await.iter().map(commerce_key).collect();
        assert_eq!(keys, vec![Some(format!("order_completed:{order_id}")); 2]);
    }
}

#[tokio::test]
async fn a_refund_finds_who_its_order_was_of_and_by_which_name_it_goes() {
    let bench = bench(&json!({"order_id_from": "name"})).await;
    let early =
        send(&bench, "refunds/create", &REFUND.replace("890088186047892319", "890088186047892318")).await;
    assert_eq!(early.json()["warnings"][0]["code"], "shopify_order_unknown");
    assert_eq!(send(&bench, "orders/create", ORDER).await.rejected(), []);
    let answer = send(&bench, "refunds/create", REFUND).await;
    assert_eq!(answer.json(), json!({"success": true}));

    let stored = bench.journal().await;
    let find = |id: &str| stored.iter().find(|event| event.message_id == id).unwrap();
    let order = find("shopify.order_completed.820982911946154508");
    let refund = find("shopify.order_refunded.890088186047892319");
    let unknown = find("shopify.order_refunded.890088186047892318");
    assert_eq!((&refund.user_id, &refund.anonymous_id), (&order.user_id, &order.anonymous_id));
    assert_eq!(refund.consent.as_ref().unwrap().place, "US-CA");
    let told = properties(refund);
    assert_eq!(
        (&told["order_id"], &told["total"], &told["currency"]),
        (&json!("#1001"), &json!(52.6), &json!("USD"))
    );
    let told = properties(unknown);
    assert_eq!((told.get("order_id"), &told["currency"]), (None, &json!("CAD")));
    assert_eq!((unknown.user_id.as_str(), unknown.consent.is_none()), ("", true));

    // What is kept holds no name, address or e-mail, and is forgotten in the end.
    let kept: String = sqlx::query_scalar("select known from ingest.shopify_order")
        .fetch_one(&bench.database.pool)
        .await
        .unwrap();
    for private in ["ada", "Lovelace", "Analytical", "5555550123", "203.0.113"] {
        assert!(!kept.contains(private), "{kept}");
    }
    assert_eq!(bench.ingest.orders.forget_older_than(180).await.unwrap(), 0);
    sqlx::query("update ingest.shopify_order set seen_at = now() - interval '181 days'")
        .execute(&bench.database.pool)
        .await
        .unwrap();
    assert_eq!(bench.ingest.orders.forget_older_than(180).await.unwrap(), 1);
}

#[tokio::test]
async fn what_the_shops_page_said_of_consent_is_in_the_log_before_the_answer_and_nothing_is_invented() {
    let bench = bench(&json!({})).await;
    let with = |attributes: Value| {
        let mut order: Value = serde_json::from_str(ORDER).unwrap();
        order["note_attributes"] = attributes;
        order.to_string()
    };
    // The customer takes the newsletter: that is no consent, and no refusal.
    assert_eq!(send(&bench, "orders/create", &with(json!([]))).await.status, 200);
    assert_eq!(bench.recorded().len(), 0);
    let signals = bench.journal().await[0].consent.clone().unwrap();
    assert!(!signals.has_categories && !signals.gpc && !signals.unreadable && signals.place == "US-CA");

    let refused = with(json!([{"name": "_tl_gpc", "value": "1"}]));
    bench.consent.away.store(true, Ordering::SeqCst);
    let answer = send(&bench, "orders/create", &refused).await;
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned()));
    assert_eq!(bench.journal().await.len(), 1);
    bench.consent.away.store(false, Ordering::SeqCst);
    assert_eq!(send(&bench, "orders/create", &refused).await.status, 200);
    assert!(bench.recorded()[0].signals.as_ref().unwrap().gpc);
    let unreadable = with(json!([{"name": "_tl_consent", "value": "granted"}]));
    assert_eq!(send(&bench, "orders/create", &unreadable).await.status, 200);
    assert!(bench.recorded()[1].signals.as_ref().unwrap().unreadable);
}

#[tokio::test]
async fn a_topic_that_becomes_no_event_is_answered_with_success_and_its_reason() {
    let bench = bench(&json!({"ignored_source_names": ["pos"]})).await;
    let test = ORDER.replace(r#""test": false"#, r#""test": true"#);
    let pos = ORDER.replace(r#""source_name": "web""#, r#""source_name": "pos""#);
    for (topic, body, reason) in [
        ("fulfillments/create", "{}", "unknown_topic"),
        ("", "{}", "unknown_topic"),
        ("app/uninstalled", "no json at all", "unknown_topic"),
        ("customers/data_request", "{}", "privacy_request"),
        ("customers/redact", "{}", "privacy_request"),
        ("shop/redact", "{}", "privacy_request"),
        ("orders/paid", ORDER, "not_the_purchase"),
        ("orders/create", test.as_str(), "test_order"),
        ("orders/create", pos.as_str(), "source_name"),
    ] {
        let answer = send(&bench, topic, body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["ignored"]), (200, &json!(reason)), "{topic}");
        assert!(answer.json()["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(traces(&bench).await, (0, 0, 0, 0));
}

#[tokio::test]
async fn a_signed_body_of_which_nothing_can_be_made_is_kept_for_people_and_not_sent_for_again() {
    let bench = bench(&json!({})).await;
    for (body, code, field) in
        [("no json", "invalid_json", ""), ("[]", "not_an_object", ""), ("{}", "invalid_field", "id")]
    {
        let answer = send(&bench, "orders/create", body).await;
        assert_eq!(answer.rejected(), [(0, code.to_owned(), field.to_owned())]);
    }
    assert_eq!(bench.rejected_codes().await, ["invalid_field", "not_an_object", "invalid_json"]);
    assert_eq!(bench.journal().await.len(), 0);
}

#[tokio::test]
async fn too_much_and_too_large_are_failures_so_that_shopify_comes_again() {
    let bench = bench_with(Choices { events_per_second: 1, ..Choices::default() }, &json!({})).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(send(&bench, "orders/create", ORDER).await);
    }
    let limited = statuses.iter().find(|answer| answer.status != 200).expect("the rate is one a second");
    assert_eq!(limited.refusal(), (503, "rate_limited".to_owned()));
    assert!(!limited.header("retry-after").is_empty());

    let large = format!(r#"{{"id":1,"note":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    assert_eq!(send(&bench, "orders/create", &large).await.refusal(), (413, "webhook_too_large".to_owned()));

    let small = bench_with(Choices { in_flight_bytes: 20_000, ..Choices::default() }, &json!({})).await;
    assert_eq!(send(&small, "orders/create", ORDER).await.refusal(), (503, "overloaded".to_owned()));
    assert_eq!(traces(&small).await, (0, 0, 0, 0));
}

#[tokio::test]
async fn only_a_source_that_takes_webhooks_takes_them_and_a_wrong_master_key_is_an_outage() {
    let bench = bench(&json!({})).await;
    let to = |key: &str| {
        let mut request = webhook("orders/create", ORDER, &[]);
        *request.uri_mut() = format!("/v1/webhooks/shopify/{key}").parse().unwrap();
        request
    };
    assert_eq!(bench.send(to("wk_nobody")).await.refusal(), (401, "unknown_write_key".to_owned()));
    assert_eq!(bench.send(to("wk_disabled")).await.refusal(), (401, "unknown_write_key".to_owned()));
    assert_eq!(bench.send(to(SERVER_KEY)).await.refusal(), (404, "no_webhooks".to_owned()));
    assert_eq!(bench.send(get(PATH)).await.refusal(), (405, "method_not_allowed".to_owned()));
    let unconfigured = Bench::with(Choices { configured: false, ..Choices::default() }).await;
    assert_eq!(unconfigured.send(to(KEY)).await.refusal(), (503, "no_configuration".to_owned()));
    bench.config.send(configured(&json!({}), &MasterKey::new([8; 32])));
    assert_eq!(bench.send(to(KEY)).await.refusal(), (503, "webhook_settings".to_owned()));
    assert_eq!(traces(&bench).await, (0, 0, 0, 0));
}

#[tokio::test]
async fn a_webhooks_address_lets_nobody_send_events_without_a_signature() {
    let bench = bench(&json!({})).await;
    let event =
        json!({"writeKey": KEY, "userId": "u", "event": "Order Completed", "properties": {"order_id": "1"}});
    let refused = (403, "signed_webhooks_only".to_owned());
    let in_body =
        |path: &str, body: &Value| post(path, body.to_string()).without("authorization").body_is_done();
    assert_eq!(bench.send(in_body("/v1/track", &event)).await.refusal(), refused);
    assert_eq!(
        bench.send(in_body("/v1/batch", &json!({"writeKey": KEY, "batch": [event]}))).await.refusal(),
        refused
    );
    let bare = json!({"userId": "u", "event": "Order Completed"}).to_string();
    let basic = format!("Basic {}", STANDARD.encode(format!("{KEY}:")));
    let in_header = post("/v1/track", bare.clone()).without("authorization").with("authorization", &basic);
    assert_eq!(bench.send(in_header.body_is_done()).await.refusal(), refused);
    let in_query = post(&format!("/v1/track?writeKey={KEY}"), bare).without("authorization").body_is_done();
    assert_eq!(bench.send(in_query).await.refusal(), refused);
    let pixel = format!("/v1/pixel/track?writeKey={KEY}&userId=u&event=Order+Completed");
    assert_eq!(bench.send(get(&pixel)).await.status, 200, "a pixel is answered whatever happens");
    assert_eq!(traces(&bench).await, (0, 0, 0, 0));
    // The pixel's path is right: with another key it stores.
    assert_eq!(bench.send(get(&pixel.replace(KEY, SERVER_KEY))).await.status, 200);
    assert_eq!(bench.journal().await.len(), 1);
}

#[tokio::test]
async fn a_late_update_is_ignored_and_what_is_kept_loses_no_id() {
    let bench = bench(&json!({})).await;
    assert_eq!(send(&bench, "orders/create", ORDER).await.rejected(), []);
    let mut order: Value = serde_json::from_str(ORDER).unwrap();
    order["updated_at"] = json!("2025-11-20T09:15:03-05:00");
    let late = send(&bench, "orders/updated", &order.to_string()).await;
    assert_eq!((late.status.as_u16(), &late.json()["ignored"]), (200, &json!("outdated")));
    // The customer was deleted, and the buyer's attributes with it.
    order["updated_at"] = json!("2025-11-21T09:15:03-05:00");
    order["customer"] = json!(null);
    order["note_attributes"] = json!([]);
    assert_eq!(send(&bench, "orders/updated", &order.to_string()).await.rejected(), []);
    assert_eq!(send(&bench, "refunds/create", REFUND).await.rejected(), []);
    // From the second before the refund, and later than all that is kept of the order itself.
    order["updated_at"] = json!("2025-11-24T16:02:10-05:00");
    let late = send(&bench, "orders/updated", &order.to_string()).await;
    assert_eq!(late.json()["ignored"], "outdated", "it would undo the refund");
    // The order's state with the refund, which says no amount.
    let mut refunded = order.clone();
    refunded["updated_at"] = json!("2025-11-24T16:02:11-05:00");
    refunded["refunds"] = json!([serde_json::from_str::<Value>(REFUND).unwrap()]);
    assert_eq!(send(&bench, "orders/updated", &refunded.to_string()).await.rejected(), []);
    let late = send(&bench, "orders/updated", &order.to_string()).await;
    assert_eq!(late.json()["ignored"], "outdated", "it is worth what it was");
    // An edit is told of by nothing else, and one of the refund's second is from before it.
    for (total, updated_at) in
        [("420.00", "2025-11-24T16:02:10-05:00"), ("430.00", "2025-11-24T16:02:11-05:00")]
    {
        order["current_total_price"] = json!(total);
        order["updated_at"] = json!(updated_at);
        let edited = send(&bench, "orders/updated", &order.to_string()).await;
        assert_eq!(edited.json().get("ignored"), None, "{}", edited.json());
    }
    let stored = bench.journal().await;
    assert_eq!(stored.len(), 6);
    let time = |total: f64| {
        let told = |event: &&tracklayer_proto::event::v1::Event| properties(event)["total"] == json!(total);
        let time = stored.iter().find(told).unwrap().timestamp.as_ref().unwrap();
        (time.seconds, time.nanos)
    };
    let refunded_at = "2025-11-24T21:02:11Z".parse::<jiff::Timestamp>().unwrap().as_second();
    assert_eq!(time(420.0), (refunded_at - 1, 0));
    assert_eq!(time(430.0), (refunded_at - 1, 999_000_000));
    let refund = stored.iter().find(|event| event.name == "Order Refunded").unwrap();
    assert_eq!(
        (refund.user_id.as_str(), refund.anonymous_id.as_str()),
        ("115310627314723954", "3708315a-c695-4a0c-9145-81d841e72fda")
    );
}

#[tokio::test]
async fn an_order_that_comes_again_as_it_was_is_seen_once_a_day() {
    let bench = bench(&json!({})).await;
    assert_eq!(send(&bench, "orders/create", ORDER).await.rejected(), []);
    let seen_after = async |age: &str| {
        let set = format!("update ingest.shopify_order set seen_at = now() - interval '{age}'");
        sqlx::query(sqlx::AssertSqlSafe(set)).execute(&bench.database.pool).await.unwrap();
        assert_eq!(send(&bench, "orders/create", ORDER).await.rejected(), []);
        let fresh = "select seen_at > now() - interval '1 minute' from ingest.shopify_order";
        sqlx::query_scalar::<_, bool>(fresh).fetch_one(&bench.database.pool).await.unwrap()
    };
    assert!(!seen_after("23 hours").await, "not written again each time");
    assert!(seen_after("25 hours").await);
}

#[tokio::test]
async fn a_webhook_above_the_rate_asks_the_database_nothing() {
    let bench = bench_with(Choices { events_per_second: 1, ..Choices::default() }, &json!({})).await;
    assert_eq!(send(&bench, "orders/create", ORDER).await.status, 200);
    let mut limited = 0;
    for id in 1..20 {
        let other = ORDER.replace("820982911946154508", &format!("82098291194615{id:04}"));
        limited += usize::from(send(&bench, "orders/create", &other).await.status == 503);
    }
    let (events, _, orders, _) = traces(&bench).await;
    assert!(limited > 0);
    assert_eq!((events, orders), (20 - limited, i64::try_from(20 - limited).unwrap()));
}
