//! How a shop that is there already comes to count its orders once, and is told that its message_ids do not tell them apart: by the command
//! line, with the real binary.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use anyhow::ensure;
use serde_json::{Value, json};
use tracklayer_tests::batches::send_batch;
use tracklayer_tests::{Options, Order, Platform, Running, eventually};

/// What `doctor` says. It fails where it finds a problem, and prints all the same.
async fn doctor(platform: &Running) -> String {
    platform.cli(&["doctor"]).await.unwrap_or_else(|failed| failed.to_string())
}

/// Sends two orders under one message_id, one after the other, and gives what `events show` has of it in the end.
async fn two_orders_of_one_id(platform: &Running, label: &str) -> Vec<Value> {
    let first = Order::new(label);
    let second = Order { message_id: first.message_id.clone(), ..first.again() };
    let (ingest, key) = (&platform.addresses().ingest_http, platform.write_key("shop-server"));
    for order in [&first, &second] {
        send_batch(&reqwest::Client::new(), ingest, key, &[order.event()]).await.unwrap();
        platform.settled_story(&first.message_id).await;
    }
    let story = platform.cli_json(&["events", "show", &first.message_id]).await.unwrap();
    story["occurrences"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_source_is_told_later_to_count_by_orders_and_ids_of_two_orders_are_found() {
    let platform = Platform::start(Options::default()).await.expect("the platform starts");
    let before = two_orders_of_one_id(&platform, "before").await;
    let counting = |story: &[Value]| story.iter().filter(|told| told["duplicate_of"].is_null()).count();
    assert_eq!(counting(&before), 1, "by the message_id they are one: {before:#?}");
    let told = doctor(&platform).await;
    assert!(told.contains("none was used for two events within a day"), "{told}");

    let set = ["sources", "set-dedup", "shop-server", "--dedup-by-order-id", "--dedup-ttl-seconds", "3600"];
    let set = platform.cli_json(&set).await.unwrap();
    assert_eq!((&set["dedup_by_order_id"], &set["dedup_ttl_seconds"]), (&json!(true), &json!(3600)));
    let listed = platform.cli_json(&["sources", "list"]).await.unwrap();
    let by_orders = listed.as_array().unwrap().iter().filter(|source| source["dedup_by_order_id"] == true);
    assert_eq!(by_orders.map(|source| &source["name"]).collect::<Vec<_>>(), ["shop-server"]);
    eventually("delivery to go by the change", async || {
        let told = doctor(&platform).await;
        let newest =
            told.lines().any(|line| line.contains("delivery goes by version") && line.contains("the newest"));
        ensure!(newest, "{told}");
        Ok(())
    })
    .await;

    let since = two_orders_of_one_id(&platform, "since").await;
    assert_eq!(counting(&since), 2, "{since:#?}");
    let reused: Vec<&Value> = since.iter().map(|told| &told["id_reused"]).collect();
    assert_eq!(reused, [&json!(false), &json!(true)], "{since:#?}");
    let told = doctor(&platform).await;
    assert!(
        told.contains("shop-server: 1 events within a day had a message_id that was used before"),
        "{told}"
    );
    assert!(told.contains("1 for another order") && told.contains("exit status: 1"), "{told}");
}
