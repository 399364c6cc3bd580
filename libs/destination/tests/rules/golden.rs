//! Golden payloads: Segment's e-commerce events at each platform. A changed snapshot is a changed promise.

use serde_json::{Value, json};
use tracklayer_destination::Consent;

use crate::{KINDS, build, document, purchase, with};

/// Segment, e-commerce spec v2, with the properties of its examples; 2026-11.
fn events() -> Vec<Value> {
    let product = json!({
        "product_id": "507f1f77bcf86cd799439011", "sku": "G-32", "category": "Games", "name": "Monopoly: 3rd Edition",
        "brand": "Hasbro", "variant": "200 pieces", "price": 18.99, "quantity": 1, "coupon": "MAYDEALS", "currency": "USD",
        "position": 3, "value": 18.99
    });
    let list = json!({ "list_id": "hot_deals_1", "category": "Deals", "products": [product, { "product_id": "p-2", "price": 3 }] });
    let named = [
        ("Products Searched", json!({ "query": "blue hotpants" })),
        ("Product List Viewed", list),
        ("Product Clicked", product.clone()),
        ("Product Viewed", product.clone()),
        ("Product Added", product.clone()),
        ("Product Removed", product.clone()),
        ("Cart Viewed", json!({ "cart_id": "c-1", "currency": "USD", "products": [product] })),
        (
            "Checkout Started",
            json!({
                "order_id": "50314b8e", "value": 30, "revenue": 25, "currency": "USD", "products": [product]
            }),
        ),
        (
            "Checkout Step Completed",
            json!({ "checkout_id": "50314b8e", "step": 2, "shipping_method": "Fedex" }),
        ),
        ("Payment Info Entered", json!({ "checkout_id": "50314b8e", "order_id": "50314b8e" })),
        (
            "Order Updated",
            json!({ "order_id": "50314b8e", "total": 27.5, "revenue": 25, "currency": "USD", "products": [product] }),
        ),
        (
            "Order Completed",
            json!({
                "order_id": "50314b8e", "affiliation": "Google Store", "total": 27.5, "revenue": 25, "shipping": 3, "tax": 2,
                "discount": 2.5, "coupon": "hasbros", "currency": "USD", "products": [product]
            }),
        ),
        ("Order Refunded", json!({ "order_id": "50314b8e", "currency": "USD" })),
        ("Order Cancelled", json!({ "order_id": "50314b8e", "currency": "USD", "total": 27.5 })),
        ("Product Added to Wishlist", product.clone()),
        ("Product Shared", json!({ "share_via": "email", "product_id": "p-2" })),
        ("Coupon Entered", json!({ "coupon_id": "may_deals_2016" })),
        ("Signed Up", json!({ "type": "organic" })),
        ("Lead Generated", json!({ "category": "Contact" })),
    ];
    let mut events: Vec<Value> = named
        .into_iter()
        .map(|(name, properties)| with(with(purchase(), "/event", json!(name)), "/properties", properties))
        .collect();
    let mut page = purchase();
    page["type"] = json!("page");
    page["name"] = json!("Home");
    page["properties"] = json!({ "title": "Welcome", "url": "https://shop.example/" });
    events.push(page);
    events
}

#[test]
fn segments_ecommerce_events_at_every_platform() {
    for kind in KINDS {
        let told: serde_json::Map<String, Value> = events()
            .into_iter()
            .map(|event| {
                let name = event.get("event").filter(|_| event["type"] == "track").unwrap_or(&event["type"]);
                let name = name.as_str().unwrap().to_owned();
                let mut told = match build(&document(kind), event, Consent::Allow) {
                    Ok(item) => item.body.to_value(),
                    Err(refusal) => json!({ "refused": refusal.code.as_str(), "field": refusal.field }),
                };
                // Receipt is the clock of the test.
                if let Some(map) = told.as_object_mut() {
                    map.remove("receivedAt");
                }
                (name, told)
            })
            .collect();
        insta::assert_json_snapshot!(format!("ecommerce_{kind}"), told);
    }
}
