//! Each fault of a platform or a network against each connector: what the lane did, how many requests, what the ledger says. An outage
//! of ten minutes, in which nobody storms. One event that is too old beside many that are not. The same for a warehouse, whose requests
//! are files: in a table of its own.
//!
//! Waits go by a clock that is moved, so that minutes pass in seconds; a request that is not answered takes as long as it takes.
//! The tables are printed, and written to `target/faults.md`.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod bench;
mod bucket;
mod cells;
mod folder;
mod outage;
mod table;
mod warehouse;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tracklayer_tests::{Clock, target_dir};

/// How much faster time goes by where it is hurried.
const FASTER: u32 = 10;
/// In such steps.
const STEP: Duration = Duration::from_millis(100);

/// The tables so far, by their place in the file: tests run beside each other.
static TABLES: Mutex<BTreeMap<u8, String>> = Mutex::new(BTreeMap::new());

/// Prints a table, and writes it into the file beside the others.
fn keep_table(place: u8, table: &str) {
    println!("{table}");
    let mut tables = TABLES.lock().unwrap();
    tables.insert(place, table.to_owned());
    let all: Vec<&str> = tables.values().map(String::as_str).collect();
    std::fs::write(target_dir().unwrap().join("faults.md"), all.join("\n")).unwrap();
}

/// An order that every platform takes.
fn order(message_id: &str, age: SignedDuration) -> Value {
    json!({
        "type": "track", "event": "Order Completed", "messageId": message_id,
        "anonymousId": format!("visitor-{message_id}"), "userId": format!("customer-{message_id}"),
        "timestamp": (Timestamp::now() - age).to_string(),
        "properties": { "order_id": format!("order-{message_id}"), "revenue": 20, "currency": "USD" },
        "integrations": { "Google Analytics 4": { "clientId": "1234567890.1700000000" } },
        "context": {
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
            "ip": "203.0.113.7",
            "page": { "url": format!("https://shop.example.com/thank-you?gclid=Cj0{message_id}") },
            "traits": { "email": format!("{message_id}@example.com") },
        },
    })
}

/// Time that goes by faster, until this is dropped.
struct Hurry(AbortHandle);

impl Hurry {
    fn up(clock: std::sync::Arc<Clock>) -> Self {
        let hurried = tokio::spawn(async move {
            let mut steps = tokio::time::interval(STEP);
            loop {
                steps.tick().await;
                clock.advance(STEP * (FASTER - 1)).unwrap();
            }
        });
        Self(hurried.abort_handle())
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.abort();
    }
}
