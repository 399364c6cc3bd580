//! Refunds, cancellations and new values.

use serde_json::{Value, json};
use tracklayer_destination::{Consent, Item, OrderEffect, OrderState, Refusal, RefusalCode};

use crate::{build, deliverable, document, now, opened, purchase, with};

fn refund(properties: Value) -> Value {
    let mut properties = properties;
    properties["order_id"] = json!("o-1001");
    properties["currency"] = json!("EUR");
    properties["gclid"] = json!("Cj0abc");
    json!({
        "type": "track", "event": "Order Refunded", "messageId": "m-2", "userId": "u_1",
        "timestamp": "2026-11-23T11:59:59Z", "properties": properties
    })
}

fn state(value: &str, total: Option<&str>, refunded: &str) -> OrderState {
    OrderState {
        value: Some(value.parse().unwrap()),
        total: total.map(|t| t.parse().unwrap()),
        currency: Some("EUR".to_owned()),
        at: Some("2026-11-20T14:03:21Z".parse().unwrap()),
        refunded: refunded.parse().unwrap(),
    }
}

fn change(kind: &str, event: Value, state: Option<OrderState>) -> Result<Item, Refusal> {
    opened(&document(kind)).build(&deliverable(event, Consent::Allow, state), now())
}

#[test]
fn refunds_add_up_until_nothing_is_left() {
    let partial =
        change("google_ads", refund(json!({ "total": 10 })), Some(state("54.4", None, "20"))).unwrap();
    assert_eq!(partial.body.to_value()["adjustmentType"], "RESTATEMENT");
    assert_eq!(
        partial.body.to_value()["restatementValue"],
        json!({ "adjustedValue": 24.4, "currencyCode": "EUR" })
    );
    let last =
        change("google_ads", refund(json!({ "total": 24.4 })), Some(state("54.4", None, "30"))).unwrap();
    assert_eq!(last.body.to_value()["adjustmentType"], "RETRACTION");
    assert!(last.body.to_value().get("restatementValue").is_none());
    let whole = change("google_ads", refund(json!({})), Some(state("54.4", None, "0"))).unwrap();
    assert_eq!(whole.body.to_value()["adjustmentType"], "RETRACTION");
}

#[test]
fn what_is_left_is_scaled_where_the_value_sent_was_not_the_total() {
    // 54.40 of 63.80 went out; 31.90 of 63.80 come back: half of 54.40 is left.
    let half =
        change("google_ads", refund(json!({ "total": -31.9 })), Some(state("54.4", Some("63.8"), "0")));
    assert_eq!(half.unwrap().body.to_value()["restatementValue"]["adjustedValue"], 27.2);
    let yen = OrderState { currency: Some("JPY".to_owned()), ..state("1000", Some("1100"), "0") };
    let mut event = refund(json!({ "total": 333 }));
    event["properties"]["currency"] = json!("JPY");
    assert_eq!(
        change("google_ads", event, Some(yen)).unwrap().body.to_value()["restatementValue"]["adjustedValue"],
        697
    );
}

#[test]
fn a_partial_refund_may_list_its_products() {
    let event = refund(json!({ "products": [{ "product_id": "p_2", "price": 9.4, "quantity": 1 }] }));
    let item = change("google_ads", event, Some(state("54.4", None, "0"))).unwrap();
    assert_eq!(item.body.to_value()["restatementValue"]["adjustedValue"], 45);
}

#[test]
fn products_without_prices_are_no_refund_of_everything() {
    for products in [
        json!([{ "product_id": "p_2", "quantity": 1 }]),
        json!([{ "product_id": "p_2", "price": 9.4 }, { "product_id": "p_1" }]),
    ] {
        for kind in ["google_ads", "google_data_manager"] {
            let event = refund(json!({ "products": products }));
            let refusal = change(kind, event, Some(state("54.4", None, "0"))).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::MissingValue, "{kind}");
            let stated = refund(json!({ "products": products, "total": 9.4 }));
            assert!(change(kind, stated, Some(state("54.4", None, "0"))).is_ok(), "{kind}");
        }
    }
}

#[test]
fn a_refund_in_another_currency_is_not_subtracted() {
    let sold = OrderState { currency: Some("USD".to_owned()), ..state("54.4", None, "0") };
    for kind in ["google_ads", "google_data_manager"] {
        for total in [10, 1000] {
            let refusal = change(kind, refund(json!({ "total": total })), Some(sold.clone())).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::InvalidPayload, "{kind} {total}");
            assert_eq!(refusal.field.as_deref(), Some("properties.currency"));
        }
        assert!(
            change(kind, refund(json!({})), Some(sold.clone())).is_ok(),
            "{kind}: everything is everything"
        );
    }
}

#[test]
fn a_partial_refund_of_an_unknown_order_is_not_guessed() {
    for kind in ["google_ads", "google_data_manager"] {
        let refusal = change(kind, refund(json!({ "total": 10 })), None).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::MissingValue, "{kind}");
    }
}

#[test]
fn data_manager_restates_the_same_transaction_at_its_own_time() {
    let item = change("google_data_manager", refund(json!({ "total": 10 })), Some(state("54.4", None, "0")))
        .unwrap();
    assert_eq!(item.body.to_value()["transactionId"], "o-1001");
    assert_eq!(item.body.to_value()["eventTimestamp"], "2026-11-20T14:03:21Z");
    assert_eq!(item.body.to_value()["conversionValue"], 44.4);
    let cancelled = with(refund(json!({})), "/event", json!("Order Cancelled"));
    let item = change("google_data_manager", cancelled, Some(state("54.4", None, "0"))).unwrap();
    assert_eq!(item.body.to_value()["conversionValue"], 0);
}

#[test]
fn an_updated_order_is_restated() {
    let event = with(refund(json!({ "revenue": 40 })), "/event", json!("Order Updated"));
    let item = change("google_ads", event, Some(state("54.4", None, "0"))).unwrap();
    assert_eq!(item.body.to_value()["adjustmentType"], "RESTATEMENT");
    assert_eq!(item.body.to_value()["restatementValue"]["adjustedValue"], 40);
    assert!(matches!(item.order, Some(OrderEffect::Restated { value: Some(_), .. })));
}

#[test]
fn the_lane_learns_what_was_sent_and_what_came_back() {
    let sold = build(&document("google_ads"), purchase(), Consent::Allow).unwrap();
    let Some(OrderEffect::Sold { order_id, value, total, currency, .. }) = sold.order else {
        panic!("{sold:?}")
    };
    assert_eq!((order_id.as_str(), currency.as_deref()), ("o-1001", Some("EUR")));
    assert_eq!((value, total), ("54.4".parse().ok(), "63.8".parse().ok()));

    let back = change("google_ads", refund(json!({ "total": 10 })), Some(state("54.4", None, "0"))).unwrap();
    assert!(
        matches!(back.order, Some(OrderEffect::Refunded { amount: Some(a), .. }) if a == "10".parse().unwrap())
    );
    let destination = opened(&document("google_ads"));
    let event = deliverable(refund(json!({ "total": 10 })), Consent::Allow, None);
    assert_eq!(destination.order_key(&event).as_deref(), Some("o-1001"));
    assert_eq!(destination.order_key(&deliverable(purchase(), Consent::Allow, None)), None);
}

#[test]
fn one_order_id_stands_once_in_a_request() {
    let first = build(&document("google_ads"), purchase(), Consent::Allow).unwrap();
    let again =
        build(&document("google_ads"), with(purchase(), "/messageId", json!("m-9")), Consent::Allow).unwrap();
    let back = change("google_ads", refund(json!({})), Some(state("54.4", None, "0"))).unwrap();
    assert_eq!(first.exclusive, again.exclusive);
    assert_ne!(first.group, back.group);
    let items = [first, again, back];
    let destination = opened(&document("google_ads"));
    let batches = tracklayer_destination::preview::batches(&*destination, &items);
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    let urls: Vec<String> = batches.iter().map(|b| destination.assemble(b, None).url).collect();
    assert!(urls[0].ends_with("/customers/1234567890:uploadClickConversions"), "{urls:?}");
    assert!(urls[2].ends_with("/customers/1234567890:uploadConversionAdjustments"), "{urls:?}");
}

#[test]
fn a_refund_is_never_one_more_purchase() {
    for kind in ["meta_capi", "tiktok_events"] {
        let plain = change(kind, refund(json!({ "total": 10 })), None).unwrap_err();
        assert_eq!(plain.code, RefusalCode::EventNotSupported, "{kind}");
        let mapped = with(document(kind), "/event_map", json!({ "Order Refunded": "Purchase" }));
        let refusal = build(&mapped, refund(json!({ "total": 10 })), Consent::Allow).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::EventNotSupported, "{kind}");
    }
    let mapped = with(document("ga4_mp"), "/event_map", json!({ "Order Refunded": "purchase" }));
    let mut event = refund(json!({ "total": 10 }));
    event["integrations"] = purchase()["integrations"].clone();
    let refusal = build(&mapped, event, Consent::Allow).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::EventNotSupported);
}
