//! What is left of an order by delivery's own rows.

use std::collections::HashMap;

use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tracklayer_tests::{Running, eventually};

/// An order's row at a connection.
#[derive(Debug, Clone)]
pub struct Row {
    value: Decimal,
    total: Decimal,
    refunded: Decimal,
    currency: String,
}

impl Row {
    /// What is left in the terms in which the value was sent: the same share of it as of the total.
    pub fn left(&self) -> Decimal {
        let digits = match self.currency.as_str() {
            "JPY" => 0,
            "KWD" => 3,
            _ => 2,
        };
        let kept = (self.total - self.refunded).max(Decimal::ZERO);
        (self.value * kept / self.total).round_dp(digits).normalize()
    }
}

/// The rows of orders that were changed, by connection and order. What nothing was taken off has none.
pub struct Books(HashMap<(i64, i64), Row>);

impl Books {
    pub async fn read(platform: &Running) -> Self {
        let mut database = PgConnection::connect(&platform.addresses().database_url).await.unwrap();
        let rows: Vec<(i64, i64, String, String, String, String)> = sqlx::query_as(
            "select connection_id, order_hash, value::text, total::text, refunded::text, currency
             from delivery.order_sent where workspace_id = $1 and value is not null",
        )
        .bind(platform.addresses().workspace_id)
        .fetch_all(&mut database)
        .await
        .unwrap();
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        let rows = rows.into_iter().map(|(connection, order, value, total, refunded, currency)| {
            let row = Row {
                value: decimal(&value),
                total: decimal(&total),
                refunded: decimal(&refunded),
                currency,
            };
            ((connection, order), row)
        });
        Self(rows.collect())
    }

    pub fn row(&self, connection: i64, order_id: &str) -> Option<&Row> {
        let hash = xxhash_rust::xxh3::xxh3_64(order_id.as_bytes()).cast_signed();
        self.0.get(&(connection, hash))
    }
}

/// Lets what waits for its order have waited nearly as long as it does: a look counts a quarter of an hour at most, and a test would
/// have to wait for a hundred of them.
pub async fn wait_almost_a_day(platform: &Running) {
    let mut database = PgConnection::connect(&platform.addresses().database_url).await.unwrap();
    let waits = "update delivery.retry set waited_ms = 86399000 where reason = 'order_unknown'";
    sqlx::query(waits).execute(&mut database).await.unwrap();
}

/// Keeps at it until nothing waits any more: a look that was under way writes down what it knew of the wait before.
pub async fn wait_out_the_day(platform: &Running) {
    eventually("no change to wait for its order", async || {
        wait_almost_a_day(platform).await;
        let mut database = PgConnection::connect(&platform.addresses().database_url).await.unwrap();
        let left = "select count(*) from delivery.retry where reason = 'order_unknown'";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&mut database).await.unwrap();
        if left == 0 { Ok(()) } else { Err(format!("{left} wait")) }
    })
    .await;
}

/// Numbers of the workspace's connections, by name.
pub async fn connections(platform: &Running) -> HashMap<String, i64> {
    let listed = platform.cli_json(&["connections", "list"]).await.unwrap();
    let number = |connection: &Value| {
        let name = connection["name"].as_str().unwrap().to_owned();
        (name, connection["connection_id"].as_i64().unwrap_or_else(|| panic!("{connection:#}")))
    };
    listed.as_array().unwrap().iter().map(number).collect()
}

/// The order's state before a change, as `preview` takes it.
pub fn order_state(
    value: &str,
    total: &str,
    currency: &str,
    at: jiff::Timestamp,
    before: Option<(&str, jiff::Timestamp)>,
) -> Value {
    let mut state = json!({ "value": value, "total": total, "currency": currency, "at": at.to_string() });
    if let Some((refunded, adjusted_at)) = before {
        state["refunded"] = json!(refunded);
        state["adjusted_at"] = json!(adjusted_at.to_string());
    }
    state
}
