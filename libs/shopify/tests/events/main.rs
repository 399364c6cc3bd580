//! Webhooks as Shopify sends them, to the events that are stored: the bodies are written after the REST resources of the Admin API
//! 2026-10 (Order, Refund, Abandoned checkout; shopify.dev/docs/api/webhooks), and what comes out goes through the same parser as
//! every other event.
#![allow(clippy::unwrap_used)] // helpers outside of a test function: a test may stop here

use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_event::commerce::commerce_key;
use tracklayer_event::{ParseContext, identifiers_of, parse_event_text};
use tracklayer_proto::event::v1::Event;
use tracklayer_shopify::{Headers, Ignored, KnownOrder, Reading, Settings, Translation, Unusable, read};

mod updates;

const ORDER: &str = include_str!("../fixtures/order.json");
const REFUND: &str = include_str!("../fixtures/refund.json");
const CHECKOUT: &str = include_str!("../fixtures/checkout.json");

fn settings(more: Value) -> Settings {
    let mut document = json!({"kind": "shopify", "webhook_secret": "shpss_test_secret"});
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    Settings::parse(&document).unwrap()
}

fn headers(topic: &str) -> Headers<'_> {
    Headers {
        topic,
        shop_domain: "northline.myshopify.com",
        webhook_id: "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        event_id: "98880550-7158-44d4-b7cd-2c97c8a091b5",
        triggered_at: "2025-11-20T14:15:05.123456789Z",
        api_version: "2026-10",
    }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn translate(topic: &str, body: &Value, settings: &Settings, known: Option<&KnownOrder>) -> Translation {
    let headers = headers(topic);
    match read(&headers, body.to_string().as_bytes(), settings).unwrap() {
        Reading::Webhook(webhook) => webhook.event(&headers, settings, known).unwrap(),
        Reading::Ignored(ignored) => panic!("ignored: {}", ignored.as_str()),
    }
}

fn ignored(topic: &str, body: &Value, settings: &Settings) -> Option<Ignored> {
    match read(&headers(topic), body.to_string().as_bytes(), settings).unwrap() {
        Reading::Webhook(_) => None,
        Reading::Ignored(ignored) => Some(ignored),
    }
}

fn parsed(translation: &Translation) -> Event {
    let received_at: Timestamp = "2025-11-29T12:00:00Z".parse().unwrap();
    parse_event_text(&translation.json, &ParseContext::at(received_at)).unwrap()
}

fn properties(event: &Event) -> Value {
    serde_json::from_slice(&event.properties_json).unwrap()
}

/// The order's event, and what is kept of it.
fn order(settings: &Settings) -> (Event, KnownOrder) {
    let translation = translate("orders/create", &json_of(ORDER), settings, None);
    (parsed(&translation), translation.order.unwrap())
}

#[test]
fn an_order_is_a_purchase_with_everything_that_its_visitor_left() {
    let (event, _) = order(&settings(json!({})));
    assert_eq!(
        (event.name.as_str(), event.message_id.as_str()),
        ("Order Completed", "shopify.order_completed.820982911946154508")
    );
    assert_eq!(
        (event.user_id.as_str(), event.anonymous_id.as_str()),
        ("115310627314723954", "3708315a-c695-4a0c-9145-81d841e72fda")
    );
    assert_eq!(
        event.timestamp.as_ref().unwrap().seconds,
        "2025-11-20T14:15:01Z".parse::<Timestamp>().unwrap().as_second()
    );
    assert_eq!(event.utc_offset_seconds, -5 * 3_600);
    assert_eq!(event.ip, "203.0.113.9");
    assert!(event.user_agent.starts_with("Mozilla/5.0"));
    assert_eq!(event.library, "shopify-webhook 2026-10");
    let ids = event.click_ids.clone().unwrap();
    assert_eq!(
        (ids.fbp.as_str(), ids.fbc.as_str(), ids.gclid.as_str()),
        ("fb.1.1763600000000.1098115397", "fb.1.1763600000000.IwAR0abcDEF", "Cj0KCQjw_Ab-C")
    );
    assert!(
        event.page_url.starts_with("https://shop.northline.example/products/shell-jacket?utm_source=google")
    );
    let identifiers: Vec<(String, String)> =
        identifiers_of(&event, "shopify_customer_id").into_iter().map(|i| (i.r#type, i.value)).collect();
    let expected = [
        ("shopify_customer_id", "115310627314723954"),
        ("anonymous_id", "3708315a-c695-4a0c-9145-81d841e72fda"),
        ("email", "ada@northline.example"),
        ("phone", "+15555550123"),
    ];
    assert_eq!(identifiers, expected.map(|(t, v)| (t.to_owned(), v.to_owned())));
    assert_eq!(
        properties(&event),
        json!({
            "order_id": "820982911946154508", "shopify_order_id": "820982911946154508", "order_name": "#1001",
            "checkout_id": "bd5a8aa1ecd019dd3520ff791ee3a24c", "cart_id": "68778783ad298f1c80c3bafcddeea02f",
            "affiliation": "northline.myshopify.com", "currency": "USD", "total": 396.8, "revenue": 360.0, "subtotal": 360.0,
            "shipping": 8.0, "tax": 28.8, "discount": 40.0, "coupon": "AUTUMN10", "shop_currency": "USD",
            "presentment_currency": "CAD", "presentment_total": 555.52, "source_name": "web", "financial_status": "paid",
            "payment_method": "shopify_payments",
            "products": [
                {"product_id": "7513594", "variant_id": "4264112", "sku": "NL-SHELL-M", "name": "Shell jacket", "brand": "Northline",
                 "variant": "M", "price": 300.0, "quantity": 1, "discount": 30.0, "position": 1},
                {"name": "Gift wrapping", "price": 50.0, "quantity": 2, "discount": 10.0, "position": 2},
            ],
        })
    );
    let text = String::from_utf8(event.properties_json.to_vec()).unwrap();
    assert!(text.contains(r#""total":396.80,"#), "amounts keep their digits: {text}");
    let context = String::from_utf8(event.context_json.to_vec()).unwrap();
    for hidden in ["authenticate?key", "Gift message", "ring twice", "marketing"] {
        assert!(!context.contains(hidden) && !text.contains(hidden), "{hidden}");
    }
}

#[test]
fn consent_is_what_the_shops_page_wrote_and_nothing_else() {
    let (event, _) = order(&settings(json!({})));
    let signals = event.consent.unwrap();
    let categories: Vec<(&str, bool)> =
        signals.categories.iter().map(|c| (c.category.as_str(), c.allowed)).collect();
    assert_eq!(categories, [("Analytics", true), ("Advertising", true)]);
    assert_eq!((signals.gpc, signals.unreadable, signals.place.as_str()), (false, false, "US-CA"));

    let mut silent = json_of(ORDER);
    silent["note_attributes"] = json!([]);
    let event = parsed(&translate("orders/create", &silent, &settings(json!({})), None));
    let signals = event.consent.unwrap();
    assert!(!signals.has_categories && !signals.unreadable, "a newsletter is no consent");
    assert_eq!(signals.place, "US-CA");

    let mut opted_out = json_of(ORDER);
    opted_out["note_attributes"] =
        json!([{"name": "_tl_gpc", "value": "1"}, {"name": "_tl_consent", "value": "granted"}]);
    let signals =
        parsed(&translate("orders/create", &opted_out, &settings(json!({})), None)).consent.unwrap();
    assert!(signals.gpc && signals.unreadable);
}

#[test]
fn amounts_are_the_buyers_where_the_source_says_so() {
    let (event, _) = order(&settings(json!({"amounts": "presentment"})));
    let told = properties(&event);
    let expected = [
        ("currency", json!("CAD")),
        ("total", json!(555.52)),
        ("revenue", json!(504.0)),
        ("tax", json!(40.32)),
        ("shipping", json!(11.2)),
        ("discount", json!(56.0)),
        ("shop_total", json!(396.8)),
    ];
    for (name, value) in expected {
        assert_eq!(told[name], value, "{name}");
    }
    assert_eq!(
        (&told["products"][0]["price"], &told["products"][1]["discount"]),
        (&json!(420.0), &json!(14.0))
    );
}

#[test]
fn revenue_is_without_the_tax_that_prices_include() {
    let mut order = json_of(ORDER);
    order["taxes_included"] = json!(true);
    // 28.80 of tax inside the lines, and some of the shipping's in the order's total tax.
    order["total_tax"] = json!("30.00");
    order["total_tax_set"] = json!(null);
    let told = properties(&parsed(&translate("orders/create", &order, &settings(json!({})), None)));
    assert_eq!(
        (&told["revenue"], &told["subtotal"], &told["tax"]),
        (&json!(331.2), &json!(360.0), &json!(30.0))
    );
    for line in order["line_items"].as_array_mut().unwrap() {
        line["tax_lines"] = json!([]);
    }
    order["shipping_lines"][0]["tax_lines"] = json!([{"price": "1.20"}]);
    let told = properties(&parsed(&translate("orders/create", &order, &settings(json!({})), None)));
    assert_eq!(told["revenue"], json!(331.2), "the order's tax without the shipping's");
}

#[test]
fn the_order_id_is_the_name_that_the_source_chooses_and_the_same_as_a_servers_call() {
    for (from, expected) in [("id", "820982911946154508"), ("name", "#1001"), ("order_number", "1001")] {
        let settings = settings(json!({"order_id_from": from}));
        let (event, known) = order(&settings);
        let server = json!({
            "type": "track", "event": "Order Completed", "messageId": "srv-1", "userId": "u", "properties": {"order_id": expected},
        });
        let server = parse_event_text(&server.to_string(), &ParseContext::at(Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(commerce_key(&event), commerce_key(&server), "{from}");
        assert!(commerce_key(&event).is_some());
        let refund = translate("refunds/create", &json_of(REFUND), &settings, Some(&known));
        assert_eq!(
            properties(&parsed(&refund))["order_id"],
            expected,
            "a refund names the order as the order did"
        );
        // Nothing is known of the order: Shopify's id is right, another name would be guessed.
        let alone = translate("refunds/create", &json_of(REFUND), &settings, None);
        let told = properties(&parsed(&alone));
        assert_eq!(told.get("order_id").is_some(), from == "id");
        assert_eq!(told["shopify_order_id"], "820982911946154508");
        assert!(alone.order_unknown && !refund.order_unknown);
    }
    let mut unnamed = json_of(ORDER);
    unnamed["name"] = json!(null);
    let settings = settings(json!({"order_id_from": "name"}));
    let Reading::Webhook(webhook) =
        read(&headers("orders/create"), unnamed.to_string().as_bytes(), &settings).unwrap()
    else {
        panic!("an order is no event")
    };
    let error = webhook.event(&headers("orders/create"), &settings, None).unwrap_err();
    assert_eq!(
        error,
        Unusable::Field { field: "name", why: "is absent, and the source takes it for the order's id" }
    );
}

#[test]
fn a_refund_is_what_was_paid_back_told_as_its_order_was() {
    let settings = settings(json!({}));
    let (order, known) = order(&settings);
    let refund = parsed(&translate("refunds/create", &json_of(REFUND), &settings, Some(&known)));
    let told = properties(&refund);
    assert_eq!(
        (refund.name.as_str(), refund.message_id.as_str()),
        ("Order Refunded", "shopify.order_refunded.890088186047892319")
    );
    // 73.64 CAD of 555.52 CAD, of an order of 396.80 USD. The payment that failed paid nothing back.
    assert_eq!((&told["total"], &told["currency"]), (&json!(52.6), &json!("USD")));
    assert_eq!((&told["paid_back"], &told["paid_back_currency"]), (&json!(73.64), &json!("CAD")));
    assert_eq!(
        (&told["refund_id"], &told["order_id"]),
        (&json!("890088186047892319"), &json!("820982911946154508"))
    );
    assert_eq!(
        told["products"],
        json!([{"sku": "NL-WRAP", "name": "Gift wrapping", "price": 50.0, "quantity": 1, "position": 1}])
    );
    assert_eq!(commerce_key(&refund).as_deref(), Some("order_refunded:890088186047892319"));
    // The same person at the same place: the same partition, and what was decided for the order holds for it.
    assert_eq!((&refund.user_id, &refund.anonymous_id), (&order.user_id, &order.anonymous_id));
    assert_eq!(refund.consent.unwrap().place, "US-CA");

    let mut full = json_of(REFUND);
    full["transactions"][0]["amount"] = json!("555.52");
    let told = properties(&parsed(&translate("refunds/create", &full, &settings, Some(&known))));
    assert_eq!(told["total"], json!(396.8), "a full refund is the order to the cent");
}

#[test]
fn a_refund_in_another_currency_of_an_unknown_order_is_told_as_it_was_paid() {
    let settings = settings(json!({}));
    let unknown = properties(&parsed(&translate("refunds/create", &json_of(REFUND), &settings, None)));
    assert_eq!((&unknown["total"], &unknown["currency"]), (&json!(73.64), &json!("CAD")));
    assert_eq!(unknown["products"][0]["price"], json!(70.0), "one side for all of it");
    let (_, mut known) = order(&settings);
    let mut in_yen = json_of(REFUND);
    in_yen["transactions"][0]["currency"] = json!("JPY");
    let third = properties(&parsed(&translate("refunds/create", &in_yen, &settings, Some(&known))));
    assert_eq!((&third["total"], &third["currency"]), (&json!(73.64), &json!("JPY")));
    known.presentment.as_mut().unwrap().amount = "0".parse().unwrap();
    let no_rate =
        properties(&parsed(&translate("refunds/create", &json_of(REFUND), &settings, Some(&known))));
    assert_eq!((&no_rate["total"], &no_rate["currency"]), (&json!(73.64), &json!("CAD")));

    let mut mixed = json_of(REFUND);
    mixed["transactions"][1]["status"] = json!("success");
    mixed["transactions"][1]["currency"] = json!("USD");
    let headers = headers("refunds/create");
    let Reading::Webhook(webhook) = read(&headers, mixed.to_string().as_bytes(), &settings).unwrap() else {
        panic!("a refund is no event")
    };
    let error = webhook.event(&headers, &settings, None).unwrap_err();
    assert_eq!(error, Unusable::Field { field: "transactions", why: "pay back in more than one currency" });
}

#[test]
fn the_parts_of_a_refund_add_up_to_the_whole_in_the_orders_currency() {
    let settings = settings(json!({}));
    let (_, mut known) = order(&settings);
    // A rate at which no part is a whole number of cents: three parts of 33.33, 33.33 and 33.34 of 100.00 CAD, sold for 70.01 USD.
    known.shop.as_mut().unwrap().amount = "70.01".parse().unwrap();
    known.presentment.as_mut().unwrap().amount = "100.00".parse().unwrap();
    let part = |number: usize, amount: &str| {
        let mut refund = json_of(REFUND);
        refund["id"] = json!(890_000_000_000_000_000_u64 + number as u64);
        refund["transactions"] =
            json!([{"kind": "refund", "status": "success", "amount": amount, "currency": "CAD"}]);
        refund
    };
    let total = |translation: &tracklayer_shopify::Translation| {
        let told = properties(&parsed(translation))["total"].to_string();
        told.parse::<rust_decimal::Decimal>().unwrap()
    };
    let mut sum = rust_decimal::Decimal::ZERO;
    let mut first_told = None;
    for (number, amount) in ["33.33", "33.33", "33.34"].into_iter().enumerate() {
        let translation = translate("refunds/create", &part(number, amount), &settings, Some(&known));
        sum += total(&translation);
        first_told = first_told.or(Some(total(&translation)));
        known = translation.order.unwrap().after(known);
    }
    assert_eq!(
        sum.to_string(),
        "70.01",
        "33.33 of 100 is 23.33, and so twice, and 33.34 is 23.34: 70.00 each for itself"
    );
    // Shopify comes again with the first one: it is told as it was, and nothing new is known.
    let again = translate("refunds/create", &part(0, "33.33"), &settings, Some(&known));
    assert_eq!(Some(total(&again)), first_told);
    assert_eq!(again.order.unwrap().after(known.clone()).refunds, known.refunds);
}

#[test]
fn a_refund_in_both_currencies_of_its_order_is_told_in_one() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let mut both = json_of(REFUND);
    // 73.64 CAD are 52.60 USD at the order's rate.
    both["transactions"] = json!([
        {"kind": "refund", "status": "success", "amount": "73.64", "currency": "CAD"},
        {"kind": "refund", "status": "pending", "amount": "10.00", "currency": "USD"},
    ]);
    let translation = translate("refunds/create", &both, &settings, Some(&known));
    assert_eq!(translation.warnings, ["shopify_refund_pending"]);
    let told = properties(&parsed(&translation));
    assert_eq!((&told["total"], &told["currency"]), (&json!(62.6), &json!("USD")));
    assert_eq!(told.get("paid_back"), None, "no single amount was paid back");

    both["transactions"][1]["currency"] = json!("JPY");
    let headers = headers("refunds/create");
    let Reading::Webhook(webhook) = read(&headers, both.to_string().as_bytes(), &settings).unwrap() else {
        panic!("a refund is no event")
    };
    let error = webhook.event(&headers, &settings, Some(&known)).unwrap_err();
    assert_eq!(error, Unusable::Field { field: "transactions", why: "pay back in more than one currency" });
}

#[test]
fn a_cancelled_order_with_refunds_leaves_its_amounts_to_them() {
    let settings = settings(json!({}));
    let mut cancelled = json_of(ORDER);
    cancelled["cancelled_at"] = json!("2025-11-21T10:00:00-05:00");
    cancelled["refunds"] = json!([json_of(REFUND)]);
    let translation = translate("orders/cancelled", &cancelled, &settings, None);
    assert_eq!(translation.warnings, ["shopify_amounts_left_to_refunds"]);
    let told = properties(&parsed(&translation));
    for key in ["total", "revenue", "subtotal", "products", "presentment_total"] {
        assert_eq!(told.get(key), None, "{key}: its refund says what came back");
    }
    assert_eq!(told["order_id"], json!("820982911946154508"));
}

#[test]
fn a_refund_that_paid_nothing_back_is_none() {
    let mut refund = json_of(REFUND);
    for (status, kind) in [("error", "refund"), ("failure", "refund"), ("success", "void")] {
        refund["transactions"] =
            json!([{"kind": kind, "status": status, "amount": "10.00", "currency": "USD"}]);
        assert_eq!(ignored("refunds/create", &refund, &settings(json!({}))), Some(Ignored::NothingPaidBack));
    }
    refund["transactions"] =
        json!([{"kind": "refund", "status": "success", "amount": "1.00", "currency": "USD", "test": true}]);
    assert_eq!(ignored("refunds/create", &refund, &settings(json!({}))), Some(Ignored::TestOrder));
    refund["transactions"] = json!([]);
    assert_eq!(ignored("refunds/create", &refund, &settings(json!({}))), Some(Ignored::NothingPaidBack));
}

#[test]
fn what_is_kept_of_an_order_loses_no_id_and_is_its_later_state() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let mut guest = json_of(ORDER);
    guest["customer"] = json!(null);
    guest["note_attributes"] = json!([]);
    guest["updated_at"] = json!("2025-11-21T09:00:00-05:00");
    guest["total_price_set"] = json!(null);
    guest["total_price"] = json!("300.00");
    let later = translate("orders/updated", &guest, &settings, None).order.unwrap();
    assert!(later.anonymous_id_is_made && later.user_id.is_empty());
    for merged in [later.clone().after(known.clone()), known.clone().after(later.clone())] {
        assert_eq!((&merged.user_id, &merged.anonymous_id), (&known.user_id, &known.anonymous_id));
        assert!(!merged.anonymous_id_is_made);
        assert_eq!((merged.updated_at, merged.shop), (later.updated_at.clone(), later.shop.clone()));
    }
    let alone = later.clone().after(later.clone());
    assert_eq!(alone, later);
}

#[test]
fn a_refund_that_is_under_way_is_told_with_a_warning() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let mut refund = json_of(REFUND);
    assert!(translate("refunds/create", &refund, &settings, Some(&known)).warnings.is_empty());
    refund["transactions"][0]["status"] = json!("pending");
    let pending = translate("refunds/create", &refund, &settings, Some(&known));
    assert_eq!(pending.warnings, ["shopify_refund_pending"]);
    assert_eq!(properties(&parsed(&pending))["total"], json!(52.6));
}

#[test]
fn an_order_that_was_not_cancelled_is_no_cancellation() {
    let settings = settings(json!({}));
    assert_eq!(ignored("orders/cancelled", &json_of(ORDER), &settings), Some(Ignored::NotCancelled));
}

#[test]
fn a_paid_order_is_of_the_time_at_which_it_was_paid() {
    let mut order = json_of(ORDER);
    order["updated_at"] = json!("2025-11-25T10:00:00-05:00");
    let seconds = |topic, settings: &Settings, order: &Value| {
        parsed(&translate(topic, order, settings, None)).timestamp.unwrap().seconds
    };
    let second = |text: &str| text.parse::<Timestamp>().unwrap().as_second();
    let on_paid = settings(json!({"completed_on": "paid"}));
    assert_eq!(seconds("orders/paid", &on_paid, &order), second("2025-11-25T15:00:00Z"));
    assert_eq!(seconds("orders/create", &settings(json!({})), &order), second("2025-11-20T14:15:01Z"));
    order["updated_at"] = json!(null);
    assert_eq!(seconds("orders/paid", &on_paid, &order), second("2025-11-20T14:15:01Z"));
}

#[test]
fn a_recipient_is_not_taken_for_the_buyer() {
    let mut order = json_of(ORDER);
    order["phone"] = json!(null);
    order["customer"]["phone"] = json!(null);
    order["customer"]["first_name"] = json!(null);
    order["customer"]["last_name"] = json!("Byron");
    order["billing_address"] = json!({"first_name": "Anne", "last_name": "Milbanke", "country_code": "US"});
    order["shipping_address"]["phone"] = json!("+15555559999");
    order["shipping_address"]["first_name"] = json!("Recipient");
    let traits = |order: &Value| -> Value {
        let event = parsed(&translate("orders/create", order, &settings(json!({})), None));
        let context: Value = serde_json::from_slice(&event.context_json).unwrap();
        context["traits"].clone()
    };
    let told = traits(&order);
    assert_eq!((told.get("phone"), told.get("firstName"), &told["lastName"]), (None, None, &json!("Byron")));
    order["customer"] = json!(null);
    order["billing_address"]["phone"] = json!("+15555550188");
    let told = traits(&order);
    assert_eq!(
        (&told["phone"], &told["firstName"], &told["lastName"]),
        (&json!("+15555550188"), &json!("Anne"), &json!("Milbanke"))
    );
    order["billing_address"] = json!(null);
    let told = traits(&order);
    assert_eq!((told.get("phone"), told.get("firstName"), told.get("lastName")), (None, None, None));
}

#[test]
fn an_order_of_which_nothing_is_left_is_worth_nothing() {
    let mut order = json_of(ORDER);
    order["taxes_included"] = json!(true);
    order["shipping_lines"][0]["tax_lines"] = json!([{"price": "1.20"}]);
    for key in ["current_total_price", "current_subtotal_price", "current_total_tax"] {
        order[key] = json!("0.00");
        order[format!("{key}_set")] = json!(null);
    }
    let told = properties(&parsed(&translate("orders/updated", &order, &settings(json!({})), None)));
    assert_eq!((&told["revenue"], &told["subtotal"], &told["tax"]), (&json!(0), &json!(0.0), &json!(0.0)));
}

#[test]
fn a_checkout_and_its_order_are_of_one_visitor_where_nobody_is_known() {
    let settings = settings(json!({}));
    let started = parsed(&translate("checkouts/create", &json_of(CHECKOUT), &settings, None));
    let told = properties(&started);
    assert_eq!(started.name, "Checkout Started");
    assert_eq!(
        (&told["value"], &told["currency"], &told["checkout_id"]),
        (&json!(105.91), &json!("EUR"), &json!("bd5a8aa1ecd019dd3520ff791ee3a24c"))
    );
    assert_eq!(
        told["products"][0],
        json!({"product_id": "632910392", "variant_id": "39072856", "sku": "NL-BEANIE", "name": "Beanie", "brand": "Northline", "variant": "Grün", "price": 44.5, "quantity": 2, "position": 1})
    );
    let ids = started.click_ids.clone().unwrap();
    assert_eq!((ids.ttclid.as_str(), ids.ttp.as_str()), ("E.C.P.abcDEF", "2L0sVdQ1f2Y"));
    assert_eq!(started.consent.unwrap().place, "DE");
    let mut guest = json_of(ORDER);
    guest["customer"] = json!(null);
    guest["note_attributes"] = json!(null);
    let order = parsed(&translate("orders/create", &guest, &settings, None));
    assert_eq!(order.anonymous_id, started.anonymous_id);
    assert_eq!(order.user_id, "");
    let updated = parsed(&translate("checkouts/update", &json_of(CHECKOUT), &settings, None));
    assert_eq!(updated.name, "Checkout Updated");
    assert_ne!(updated.message_id, started.message_id);
}

#[test]
fn a_body_that_comes_again_has_the_same_id_and_another_body_another() {
    let settings = settings(json!({}));
    let id = |headers: &Headers<'_>, body: &str| match read(headers, body.as_bytes(), &settings).unwrap() {
        Reading::Webhook(webhook) => parsed(&webhook.event(headers, &settings, None).unwrap()).message_id,
        Reading::Ignored(ignored) => panic!("{ignored:?}"),
    };
    let first = headers("orders/updated");
    let retry = Headers { triggered_at: "2025-11-20T16:00:00Z", ..first };
    assert_eq!(id(&first, ORDER), id(&retry, ORDER));
    // No header is covered by the signature: whoever replays a body under another name makes no other event of it.
    for replayed in [
        Headers { webhook_id: "another", ..first },
        Headers { shop_domain: "other.myshopify.com", ..first },
        Headers { webhook_id: "", event_id: "", ..first },
    ] {
        assert_eq!(id(&replayed, ORDER), id(&first, ORDER));
    }
    assert_ne!(id(&first, &ORDER.replace("396.80", "396.81")), id(&first, ORDER));
    let checkout = headers("checkouts/update");
    assert_eq!(id(&checkout, CHECKOUT), id(&Headers { webhook_id: "another", ..checkout }, CHECKOUT));
    // The purchase is one, however many subscriptions tell of it.
    assert_eq!(
        id(&headers("orders/create"), ORDER),
        id(&Headers { webhook_id: "another", ..headers("orders/create") }, ORDER)
    );
}

#[test]
fn what_a_source_does_not_take_has_its_reason() {
    let order = json_of(ORDER);
    let by_default = settings(json!({}));
    assert_eq!(ignored("orders/paid", &order, &by_default), Some(Ignored::NotThePurchase));
    let paid = settings(json!({"completed_on": "paid"}));
    assert_eq!(ignored("orders/create", &order, &paid), Some(Ignored::NotThePurchase));
    assert_eq!(parsed(&translate("orders/paid", &order, &paid, None)).name, "Order Completed");
    assert_eq!(ignored("fulfillments/create", &order, &by_default), Some(Ignored::UnknownTopic));
    assert_eq!(ignored("customers/redact", &order, &by_default), Some(Ignored::PrivacyRequest));
    let mut test = order.clone();
    test["test"] = json!(true);
    assert_eq!(ignored("orders/create", &test, &by_default), Some(Ignored::TestOrder));
    assert_eq!(ignored("orders/create", &test, &settings(json!({"test_orders": true}))), None);
    let online_only = settings(json!({"ignored_source_names": ["POS", "web"]}));
    assert_eq!(ignored("orders/create", &order, &online_only), Some(Ignored::SourceName));
}

#[test]
fn a_body_of_which_nothing_can_be_made_says_why() {
    let settings = settings(json!({}));
    let why = |topic: &str, body: &str| read(&headers(topic), body.as_bytes(), &settings).unwrap_err();
    assert_eq!(why("orders/create", "{"), Unusable::NotJson { line: 1, column: 1 });
    assert_eq!(why("orders/create", "[]"), Unusable::NotAnObject);
    assert_eq!(why("orders/create", "{}"), Unusable::Field { field: "id", why: "is no order's id" });
    assert_eq!(why("checkouts/create", "{}"), Unusable::Field { field: "token", why: "is absent" });
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(why("orders/create", &deep), Unusable::NotJson { .. }));
}

#[test]
fn an_order_of_two_thousand_lines_is_told_with_all_its_worth() {
    let mut order = json_of(ORDER);
    let line = order["line_items"][0].clone();
    order["line_items"] = json!(vec![line; 2_000]);
    let translation = translate("orders/create", &order, &settings(json!({})), None);
    let told = properties(&parsed(&translation));
    assert_eq!(told["total"], json!(396.8));
    let kept = told["products"].as_array().unwrap().len();
    assert!(kept > 50, "{kept}");
    assert_eq!(told["products_omitted"], 2_000 - kept);
}
