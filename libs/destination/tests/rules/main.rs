//! Rules that hold for every destination, and those of single platforms that the vectors do not cover.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

mod answers;
mod consent;
mod documents;
mod expressions;
mod ga4;
mod google;
mod ids;
mod limits;
mod match_quality;
mod meta_answers;
mod meta_payload;
mod orders;
mod plain_places;
mod preview;
mod preview_runs;
mod random;
mod shared;
mod tiktok_payload;
mod updates;
mod warehouse;
mod webhook;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_destination::{
    Consent, Deliverable, Destination, Item, OrderState, Refusal, WorkspaceDefaults, open,
};
use tracklayer_proto::event::v1::ClickIds;

/// A working document of each kind that can be opened.
pub fn document(kind: &str) -> Value {
    let oauth =
        json!({ "client_id": "client", "client_secret": "s3cret-client", "refresh_token": "s3cret-refresh" });
    let settings = match kind {
        "meta_capi" => json!({ "dataset_id": "1234567890123456", "access_token": "s3cret-token" }),
        "tiktok_events" => json!({
            "event_source_id": "C4TESTPIXEL0000000000", "access_token": "s3cret-token",
            "default_page_url": "https://shop.example/"
        }),
        "google_data_manager" => json!({
            "operating_account": { "account_id": "123-456-7890" }, "conversion_action_id": "987654321", "oauth": oauth
        }),
        "google_ads" => json!({
            "customer_id": "123-456-7890", "conversion_action_id": "987654321", "oauth": oauth
        }),
        "ga4_mp" => json!({ "measurement_id": "G-ABC123DEF4", "api_secret": "s3cret-api" }),
        "webhook" => json!({ "url": "https://hooks.example/in", "secret": "s3cret-signing" }),
        "warehouse" => json!({
            "url": "s3://lake/events", "access_key_id": "AKIA", "secret_access_key": "s3cret-key"
        }),
        other => panic!("no document for {other}"),
    };
    json!({ "kind": kind, "mode": "live", "settings": settings })
}

/// Kinds that can be opened.
pub const KINDS: [&str; 7] =
    ["meta_capi", "tiktok_events", "google_data_manager", "google_ads", "ga4_mp", "webhook", "warehouse"];

/// The document with a change at a path.
pub fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[key] = value;
    document
}

/// The clock of these tests.
pub fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// A purchase that every platform takes.
pub fn purchase() -> Value {
    json!({
        "type": "track", "event": "Order Completed", "messageId": "m-1", "userId": "u_1", "anonymousId": "a_1",
        "timestamp": "2026-11-23T11:59:30.000Z",
        "properties": {
            "order_id": "o-1001", "total": 63.8, "revenue": 54.4, "shipping": 5.4, "tax": 4, "currency": "EUR",
            "gclid": "Cj0abc",
            "products": [
                { "product_id": "p_1", "name": "Mug", "price": 22.5, "quantity": 2, "category": "Kitchen" },
                { "product_id": "p_2", "name": "Tea", "price": 9.4, "quantity": 1 }
            ]
        },
        "context": {
            "ip": "203.0.113.7", "userAgent": "Mozilla/5.0", "locale": "en-US",
            "page": { "url": "https://shop.example/thanks", "referrer": "https://shop.example/checkout" },
            "traits": { "email": "john_smith@example.com", "phone": "+1 650 555 1212" }
        },
        "integrations": { "Google Analytics 4": { "clientId": "1234567890.1700000000", "sessionId": "1795180000" } }
    })
}

/// The event ready to be built.
pub fn deliverable(event: Value, decision: Consent, order_state: Option<OrderState>) -> Deliverable {
    let event = tracklayer_destination::preview::parse(event, now()).unwrap();
    Deliverable::new(event, ClickIds::default(), "0123456789abcdef", decision, order_state)
}

/// Opens a document.
pub fn opened(document: &Value) -> Box<dyn Destination> {
    open(document, &WorkspaceDefaults::default()).unwrap()
}

/// Builds the event.
pub fn build(document: &Value, event: Value, decision: Consent) -> Result<Item, Refusal> {
    opened(document).build(&deliverable(event, decision, None), now())
}
