//! What people do in a shop: ten events each, in order, some of them such that a platform cannot take them.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Events of one person.
pub const EACH: u64 = 10;
/// Events in a request to ingest.
pub const BATCH: usize = 100;

const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36";

/// So many events, in the order in which they are sent. What one person says about consent never changes.
pub fn of_people(events: u64, now: Timestamp) -> Vec<Value> {
    (0..events).map(|number| event(number / EACH, number % EACH, now)).collect()
}

pub fn order_id(person: u64) -> String {
    format!("P-{person}")
}

fn event(person: u64, step: u64, now: Timestamp) -> Value {
    let mut event = match step {
        0 => json!({ "type": "page", "name": "Landing" }),
        1 => json!({ "type": "identify", "traits": traits(person) }),
        2 | 7 => named("Product Viewed", product(person)),
        3 => named("Product Added", product(person)),
        4 => named("Checkout Started", order(person)),
        5 => named("Order Completed", order(person)),
        // Shared with others, in words that need care on their way.
        6 => named(
            "Wishlist Shared",
            json!({ "tier": format!("gold \"{person}\" ünï\u{2028}cødé / <b>"), "count": 1e21 }),
        ),
        8 => named("Products Searched", json!({ "query": "wool & cotton", "currency": "EUR" })),
        _ => named("Product List Viewed", json!({ "list_id": "new", "category": "Cups" })),
    };
    let about_the_order = |name: &str, properties: Value| {
        let mut properties = properties;
        properties["order_id"] = json!(order_id(person));
        named(name, properties)
    };
    match (step, person % 10) {
        (7, 0 | 3) => event = about_the_order("Order Refunded", json!({ "total": 5.25, "currency": "EUR" })),
        (7, 5) => event = about_the_order("Order Cancelled", json!({ "total": 54.4, "currency": "EUR" })),
        (7, 6) => event = about_the_order("Order Refunded", json!({ "currency": "EUR" })),
        _ => {}
    }
    match (step, person % 9) {
        (5, 1) => drop(event["properties"].as_object_mut().map(|order| order.remove("currency"))),
        (5, 2) => event["properties"]["test"] = json!(true),
        // Californian by its own words: its data are used for nothing else.
        (2, 5) => {
            event["properties"]["limited_data_use"] = json!(true);
            event["properties"]["data_processing_options_country"] = json!(1);
            event["properties"]["data_processing_options_state"] = json!(1_000);
        }
        (5, 4) => event["properties"]["email"] = json!("not an address"),
        _ => {}
    }
    let age = match (step, person % 11) {
        (4, 7) => SignedDuration::from_hours(40 * 24),
        _ => SignedDuration::from_mins(30) - SignedDuration::from_secs(i64::try_from(step).unwrap_or(0)),
    };
    // One of a few is sent twice.
    let id = if step == 8 && person % 7 == 3 { 5 } else { step };
    event["messageId"] = json!(format!("preview-{person}-{id}"));
    event["anonymousId"] = json!(format!("preview-visitor-{person}"));
    if step > 0 {
        event["userId"] = json!(format!("preview-cust-{person}"));
    }
    event["timestamp"] = json!((now - age).to_string());
    event["context"] = context(person, step);
    event
}

fn named(name: &str, properties: Value) -> Value {
    json!({ "type": "track", "event": name, "properties": properties })
}

fn product(person: u64) -> Value {
    json!({
        "product_id": format!("p_{}", person % 13), "sku": "M-1", "name": "Enamel mug", "price": 22.5, "quantity": 2,
        "currency": "EUR", "value": 45.0, "category": "Cups", "brand": "Northline",
    })
}

fn order(person: u64) -> Value {
    json!({
        "order_id": order_id(person), "value": 54.4, "revenue": 45.00, "shipping": 5.4, "tax": 4, "total": 54.40,
        "currency": "EUR", "coupon": "SPRING", "email": format!("preview{person}@example.com"),
        "products": [
            { "product_id": "p_1", "sku": "M-1", "name": "Enamel mug", "price": 22.50, "quantity": 1 },
            { "product_id": "p_2", "sku": "M-2", "name": "Tea towel — \"blue\"", "price": 22.5, "quantity": 1 },
        ],
    })
}

fn place(person: u64) -> (&'static str, &'static str, &'static str, &'static str) {
    match person % 5 {
        0 | 4 => ("Austin", "TX", "78701", "US"),
        1 => ("San Francisco", "CA", "94103", "US"),
        _ => ("Köln", "NW", "50667", "DE"),
    }
}

fn traits(person: u64) -> Value {
    let (city, state, postal_code, country) = place(person);
    json!({
        "email": format!(" Preview{person}@Example.com "), "phone": format!("+1 650 555 {:04}", person % 10_000),
        "firstName": "Zoë", "lastName": "O'Neill-Müller", "birthday": "1987-04-03", "gender": "female",
        "address": { "city": city, "state": state, "postalCode": postal_code, "country": country },
    })
}

fn context(person: u64, step: u64) -> Value {
    // The click is known from the landing page alone.
    let url = if step == 0 {
        format!(
            "https://shop.northline.example/?fbclid=IwAR0_{person}-x&gclid=Cj0K_{person}&ttclid=E.C.P.{person}abc"
        )
    } else {
        "https://shop.northline.example/thank-you".to_owned()
    };
    let mut context = json!({
        "userAgent": USER_AGENT, "ip": format!("203.0.113.{}", person % 250), "locale": "de-DE",
        "page": { "url": url, "referrer": "https://search.example/?q=mugs&x=ü" },
        "ga": { "client_id": format!("{}.1763000000", 1_000_000_000 + person) },
        "traits": traits(person), "library": { "name": "analytics.js", "version": "next-1.84.3" },
    });
    let consent = match person % 5 {
        1 => Some(
            json!({ "categoryPreferences": { "advertising": true, "analytics": true, "DataSharing": false } }),
        ),
        2 => Some(json!({ "categoryPreferences": { "advertising": true, "analytics": true } })),
        3 => Some(json!({ "categoryPreferences": { "advertising": false, "analytics": true } })),
        4 => Some(json!({ "gpc": true })),
        _ => None,
    };
    if let Some(consent) = consent {
        context["consent"] = consent;
    }
    context
}

/// Another part of a person's order comes back.
pub fn second_refund(person: u64, now: Timestamp) -> Value {
    let mut event = event(person, 7, now);
    event["messageId"] = json!(format!("preview-{person}-again"));
    event["properties"]["total"] = json!(7.15);
    event
}
