//! Segment's e-commerce events, spec v2, each by several people: what both sides are given.

use serde_json::{Value, json};

/// When all of it happens: after the events' own time.
pub const NOW: &str = "2026-11-23T12:00:00Z";

/// The events of all people. A message_id is the event's name and the person's.
pub fn all() -> Vec<Value> {
    let mut events = Vec::new();
    for (who, person) in people() {
        for (kind, name, properties) in happenings() {
            let mut event = person.clone();
            event["type"] = json!(kind);
            event[if kind == "page" { "name" } else { "event" }] = json!(name);
            event["messageId"] = json!(format!("{name}/{who}"));
            for (key, value) in properties.as_object().into_iter().flatten() {
                event["properties"][key] = value.clone();
            }
            events.push(event);
        }
    }
    events
}

/// People as sources tell of them: one in order, one in Germany who is not logged in and writes numbers as at home, one whose
/// data were hashed before, one of whom a server tells without a browser.
fn people() -> Vec<(&'static str, Value)> {
    let page = json!({
        "url": "https://shop.example.com/cart?utm_source=news", "referrer": "https://shop.example.com/", "path": "/cart", "title": "Cart",
    });
    let orderly = json!({
        "userId": "User-1001", "anonymousId": "5b2c9f", "timestamp": "2026-11-23T10:00:00.500Z",
        "properties": {
            "fbp": "fb.1.1795000000000.1098115397", "fbc": "fb.1.1795000000000.IwAR2F4-dbP0l7Mn1IawQQGCINEz7PYXQvwjNwB_qa2ofrHyiLjcbCRxTDMgk",
            "gclid": "Cj0KCQiA", "ttclid": "E.C.P.Cs0B", "ttp": "2hXk8Yb",
        },
        "context": {
            "ip": "203.0.113.9", "userAgent": "Mozilla/5.0 (Windows NT 10.0)", "locale": "en-US", "page": page,
            "traits": {
                "email": "Jane.Doe@Example.com", "phone": "+1 (650) 555-1212", "firstName": "Jane", "lastName": "Doe", "birthday": "1990-02-16",
                "gender": "female",
                "address": { "street": "1 Main St", "city": "New York", "state": "NY", "postalCode": "10001-1234", "country": "US" },
            },
        },
    });
    let mut at_home = json!({
        "anonymousId": "9e7d01", "timestamp": "2026-11-23T11:00:00.250+01:00", "properties": {},
        "context": {
            "ip": "2001:DB8::0:17", "userAgent": "Mozilla/5.0 (Macintosh)", "locale": "de-DE",
            "page": { "url": "https://shop.example.com/de?fbclid=IwAR0xyz&gclid=Cj0xyz&ttclid=E.C.P.xyz", "referrer": "" },
            "traits": {
                "email": " Max.Muster+shop@GMail.com ", "phone": "0171 2345678", "first_name": "Hans-Jürgen", "last_name": "O\u{2019}Müller",
                "firstName": "Hans-Jürgen", "lastName": "O\u{2019}Müller", "birthday": "16.02.1990",
                "address": {
                    "street": "Hauptstraße 5", "city": "Köln am Rhein", "state": "Nordrhein-Westfalen", "postal_code": "D-50667", "postalCode": "D-50667",
                    "country": "de",
                },
            },
        },
    });
    let mut hashed = orderly.clone();
    hashed["properties"] = json!({});
    hashed["context"]["traits"] = json!({
        "email": "5AC3CBB303BE9CA0F0CA5BDD9DDE9F2D74309D33022CF5FA9BC90BBDBE9EA428",
        "phone": "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176", "firstName": "", "address": { "city": "  " },
    });
    let mut server = orderly.clone();
    server["context"] = json!({ "traits": { "email": "jane.doe@example.com" }, "ip": "10.0.0.5" });
    server["properties"] = json!({});
    for person in [&mut at_home, &mut hashed, &mut server] {
        person["context"]["library"] = json!({ "name": "analytics-node", "version": "3.1.0" });
    }
    vec![("orderly", orderly), ("at home", at_home), ("hashed", hashed), ("server", server)]
}

/// Source: Segment, "E-commerce events spec" (v2) and the calls that ad platforms also have an event for; 2026-11.
fn happenings() -> Vec<(&'static str, &'static str, Value)> {
    let product = json!({
        "product_id": "p-1", "sku": "S-1", "category": "Games", "name": "Monopoly: 3rd Edition", "brand": "Hasbro", "variant": "200 pieces",
        "price": 18.99, "quantity": 2, "coupon": "MAYDEALS", "position": 3, "url": "https://shop.example.com/p-1",
    });
    let second = json!({ "product_id": "p-2", "sku": "S-2", "category": "Games", "name": "Uno", "price": 3, "quantity": 1 });
    let products = json!([product, second]);
    let mut single = product;
    single["currency"] = json!("USD");
    let mut priced = single.clone();
    priced["value"] = json!(37.98);
    let order = json!({
        "order_id": "50314b8e", "affiliation": "Web shop", "total": 47.48, "revenue": 40.98, "value": 40.98, "shipping": 3, "tax": 3.5,
        "discount": 2.5, "coupon": "hasbros", "currency": "USD", "products": products,
    });
    let step =
        json!({ "checkout_id": "c-9", "step": 2, "shipping_method": "Fedex", "payment_method": "Visa" });
    let banner = json!({ "promotion_id": "promo_1", "creative": "top_banner_2", "name": "Sale", "position": "home_banner_top" });
    let coupon = json!({ "order_id": "50314b8e", "cart_id": "cart-1", "coupon_id": "may_deals_2016", "discount": 23.32 });
    let list = json!({ "list_id": "hot_deals_1", "category": "Deals", "products": products });
    let review = json!({ "product_id": "p-1", "review_id": "r-1", "review_body": "good", "rating": "5" });
    // One of its products was taken out of it: of what has not changed nothing is told.
    let mut updated = order.clone();
    for (name, amount) in [("total", 44.48), ("revenue", 37.98), ("value", 37.98)] {
        updated[name] = json!(amount);
    }
    updated["products"] = json!([products[0]]);
    let mut started = order.clone();
    started["affiliation"] = json!("Web shop");
    let track = |name: &'static str, properties: &Value| ("track", name, properties.clone());
    vec![
        track("Products Searched", &json!({ "query": "blue hotpants" })),
        track("Product List Viewed", &list),
        track("Product List Filtered", &list),
        track("Promotion Viewed", &banner),
        track("Promotion Clicked", &banner),
        track("Product Clicked", &single),
        track("Product Viewed", &single),
        track("Product Added", &priced),
        track("Product Removed", &single),
        track("Cart Viewed", &json!({ "cart_id": "cart-1", "products": products })),
        track("Checkout Started", &started),
        track("Checkout Step Viewed", &step),
        track("Checkout Step Completed", &step),
        track(
            "Payment Info Entered",
            &json!({ "checkout_id": "c-9", "order_id": "50314b8e", "payment_method": "Visa" }),
        ),
        track("Order Updated", &updated),
        track("Order Completed", &order),
        track(
            "Order Refunded",
            &json!({ "order_id": "50314b8e", "total": 47.48, "currency": "USD", "products": products }),
        ),
        track("Order Cancelled", &order),
        track("Coupon Entered", &coupon),
        track("Coupon Applied", &coupon),
        track("Coupon Denied", &coupon),
        track("Coupon Removed", &coupon),
        track("Product Added to Wishlist", &single),
        track("Product Removed from Wishlist", &single),
        track("Wishlist Product Added to Cart", &single),
        track(
            "Product Shared",
            &json!({ "share_via": "email", "product_id": "p-1", "sku": "S-1", "name": "Uno", "category": "Games" }),
        ),
        track(
            "Cart Shared",
            &json!({ "share_via": "email", "cart_id": "cart-1", "products": [{ "product_id": "p-1" }] }),
        ),
        track("Product Reviewed", &review),
        track("Order Placed", &order),
        track("Signed Up", &json!({ "type": "organic" })),
        track("Subscription Created", &json!({ "plan": "gold" })),
        track("Form Submitted", &json!({ "form_id": "contact" })),
        track("Callback Started", &json!({})),
        track("Download Link Clicked", &json!({ "file": "catalogue.pdf" })),
        ("page", "Home", json!({ "title": "Welcome" })),
    ]
}
