//! What a marketer and whoever releases see of their events: by what the platforms could find the people, and whether a request would be
//! another one. The real binary, PostgreSQL, Redis and the platforms' stand-ins.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tracklayer_tests::batches::{in_state, send_batch};
use tracklayer_tests::{Options, Order, Platform, Running, eventually_within};

fn row<'v>(quality: &'v Value, connection: &str, key: &str) -> &'v Value {
    let events = quality["events"].as_array().unwrap();
    let event = events.iter().find(|event| event["connection"] == connection).unwrap_or_else(|| {
        panic!("nothing of {connection} in {quality:#}");
    });
    event["keys"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap()
}

/// What the ledger has of a connection as delivered.
async fn delivered(platform: &Running, connection: &str) -> u64 {
    let stats = platform.cli_json(&["stats"]).await.unwrap();
    in_state(&stats["connections"][connection], "delivered")
}

#[tokio::test]
async fn match_quality_and_drift_are_told_by_the_command_line() {
    let platform = Platform::start(Options::default()).await.expect("the platform starts");
    let orders = [Order::new("one"), Order::new("two"), Order::new("three"), Order::new("four")];
    let mut events: Vec<Value> = orders.iter().map(Order::event).collect();
    events[0]["context"]["traits"]["phone"] = json!("+1 650 555 1212");
    events[1]["context"]["traits"]["phone"] = json!("call me");
    events[2]["properties"]["ttclid"] = json!("E.C.P.abcdefgh");
    let (ingest, key) = (&platform.addresses().ingest_http, platform.write_key("shop-server"));
    send_batch(&reqwest::Client::new(), ingest, key, &events).await.unwrap();
    platform.settled().await;

    let quality = platform.cli_json(&["quality", "--since", "2h"]).await.unwrap();
    for connection in ["meta", "google", "tiktok"] {
        let of_connection = quality["events"].as_array().unwrap().iter();
        let counted: u64 = of_connection
            .filter(|event| event["connection"] == connection)
            .map(|event| event["events"].as_u64().unwrap())
            .sum();
        assert_eq!((counted, delivered(&platform, connection).await), (4, 4), "{connection}");
        let percent = |key: &str, of: &str| row(&quality, connection, key)[of].as_f64().unwrap();
        assert_eq!(percent("email", "valid_percent"), 100.0, "{connection}");
        assert_eq!((percent("phone", "present_percent"), percent("phone", "valid_percent")), (50.0, 25.0));
        assert_eq!(row(&quality, connection, "phone")["reasons"], json!({ "no_digits": 1 }), "{connection}");
    }
    assert_eq!(row(&quality, "tiktok", "ttclid")["sent"], 1);
    let of_meta = quality["events"].as_array().unwrap().iter().find(|e| e["connection"] == "meta").unwrap();
    assert!(of_meta["estimate"].as_f64().unwrap() > 0.0 && of_meta["event"] == "Purchase", "{of_meta:#}");
    let shown = platform.cli(&["quality", "--connection", "meta"]).await.unwrap();
    assert!(shown.contains("our estimate") && shown.contains("Meta does not publish"), "{shown}");

    let meta = json!({
        "kind": "meta_capi", "mode": "live", "event_map": { "Order Completed": "Subscribe" },
        "settings": {
            "dataset_id": "1234567890123456", "access_token": "sandbox-meta-token",
            "base_url": format!("{}/meta", platform.addresses().sandbox),
        },
    });
    let frozen = platform.cli_json(&["drift", "freeze", "meta"]).await.unwrap();
    assert_eq!(frozen["frozen"], 3, "three of a name: {frozen:#}");
    let report = platform.cli_json(&["drift", "report", "meta"]).await.unwrap();
    assert_eq!(report["drifted"], 0, "{report:#}");
    let file = platform.data_dir().join("meta.json");
    std::fs::write(&file, meta.to_string()).unwrap();
    platform.cli(&["connections", "put", "meta", &file.display().to_string()]).await.unwrap();
    // Delivery learns of the change a moment later; the command fails then.
    let told = eventually_within(Duration::from_secs(30), "drift to be told", async || {
        let told = platform.cli(&["drift", "report", "meta"]).await;
        let told = told.err().map(|failed| failed.to_string()).unwrap_or_default();
        ensure!(told.contains("3 of 3 golden events have drifted"), "{told}");
        Ok(told)
    })
    .await;
    assert!(told.contains("requests[0].body.data[0].event_name") && told.contains("revision"), "{told}");
    assert!(told.contains("exit status: 1"), "{told}");
    platform.cli(&["drift", "accept", "meta"]).await.unwrap();
    platform.cli(&["drift", "report", "meta"]).await.unwrap();
    assert_eq!(platform.cli_json(&["drift", "forget", "meta"]).await.unwrap()["forgotten"], 3);
    let nothing = platform.cli(&["drift", "report", "meta"]).await.unwrap_err().to_string();
    assert!(nothing.contains("no event is frozen for `meta`"), "{nothing}");
}
