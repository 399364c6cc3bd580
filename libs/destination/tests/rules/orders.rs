//! Refunds, cancellations and new values.

use serde_json::{Value, json};
use tracklayer_destination::{
    Consent, Item, MatchKey, OrderEffect, OrderNeed, OrderState, Refusal, RefusalCode, Remark,
};

use crate::{build, deliverable, document, now, opened, purchase, with};

pub fn refund(properties: Value) -> Value {
    let mut properties = properties;
    properties["order_id"] = json!("o-1001");
    properties["currency"] = json!("EUR");
    properties["gclid"] = json!("Cj0abc");
    json!({
        "type": "track", "event": "Order Refunded", "messageId": "m-2", "userId": "u_1",
        "timestamp": "2026-11-23T11:59:59Z", "properties": properties
    })
}

pub fn state(value: &str, total: Option<&str>, refunded: &str) -> OrderState {
    OrderState {
        value: Some(value.parse().unwrap()),
        total: total.map(|t| t.parse().unwrap()),
        currency: Some("EUR".to_owned()),
        at: Some("2026-11-20T14:03:21Z".parse().unwrap()),
        refunded: refunded.parse().unwrap(),
        ..OrderState::default()
    }
}

pub fn change(kind: &str, event: Value, state: Option<OrderState>) -> Result<Item, Refusal> {
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

fn of_kinds(kinds: &[&str], event: &Value, state: &OrderState) -> Vec<Result<Item, Refusal>> {
    let built = |kind: &&str| {
        let mut event = event.clone();
        event["integrations"] = purchase()["integrations"].clone();
        let event = deliverable(event, Consent::Allow, Some(state.clone()));
        opened(&taking_changes(kind)).build(&event, now())
    };
    kinds.iter().map(built).collect()
}

/// A connection that takes something off an order for refunds and cancellations alike: at GA4 it has to say so.
fn taking_changes(kind: &str) -> Value {
    if kind == "ga4_mp" {
        return with(document(kind), "/event_map", json!({ "Order Cancelled": "refund" }));
    }
    document(kind)
}

pub fn sending(kind: &str) -> Value {
    with(taking_changes(kind), "/settings/unsent_orders", json!("send"))
}

/// A refund with the client id that GA4 asks for.
fn refund_of_a_visitor(properties: Value) -> Value {
    with(refund(properties), "/integrations", purchase()["integrations"].clone())
}

pub const REFUNDING: [&str; 3] = ["google_ads", "google_data_manager", "ga4_mp"];

#[test]
fn a_change_of_an_order_that_was_not_sent_is_refused_and_says_what_to_do() {
    let unknown = OrderState::default();
    // Refunds may be known of an order that was not sent.
    let refunded =
        OrderState { refunded: "10".parse().unwrap(), adjusted_at: Some(now()), ..unknown.clone() };
    let cancelled = with(refund(json!({})), "/event", json!("Order Cancelled"));
    for state in [unknown, refunded] {
        for event in [refund(json!({})), refund(json!({ "total": 10 })), cancelled.clone()] {
            for built in of_kinds(&REFUNDING, &event, &state) {
                let refusal = built.unwrap_err();
                assert_eq!(refusal.code, RefusalCode::OrderNotSent, "{event}");
                assert!(refusal.reason.contains("unsent_orders"), "{}", refusal.reason);
            }
        }
        let updated = with(refund(json!({ "revenue": 40 })), "/event", json!("Order Updated"));
        for built in of_kinds(&REFUNDING[..2], &updated, &state) {
            assert_eq!(built.unwrap_err().code, RefusalCode::OrderNotSent);
        }
    }
}

#[test]
fn what_a_change_says_of_the_original_is_no_reason_not_to_wait_for_it() {
    let event = refund_of_a_visitor(
        json!({ "total": 10, "original_value": 54.4, "original_timestamp": "2026-11-20T14:03:21Z" }),
    );
    for built in of_kinds(&REFUNDING, &event, &OrderState::default()) {
        assert_eq!(built.unwrap_err().code, RefusalCode::OrderNotSent);
    }
    let sent = |kind: &&str| {
        let event = deliverable(event.clone(), Consent::Allow, Some(OrderState::default()));
        opened(&sending(kind)).build(&event, now()).unwrap()
    };
    let items: Vec<Item> = REFUNDING.iter().map(sent).collect();
    let bodies: Vec<Value> = items.iter().map(|item| item.body.to_value()).collect();
    assert_eq!(bodies[0]["restatementValue"]["adjustedValue"], 44.4);
    assert_eq!(bodies[1]["conversionValue"], 44.4);
    assert_eq!(bodies[2]["events"][0]["params"]["value"], 10);
    assert!(items.iter().all(|item| item.remark == Some(Remark::OrderNotSent)), "the ledger says so");
}

#[test]
fn where_a_tag_reports_the_orders_their_changes_may_be_sent() {
    for kind in REFUNDING {
        let whole = with(refund_of_a_visitor(json!({})), "/event", json!("Order Cancelled"));
        let of = |state: &OrderState| {
            let event = deliverable(whole.clone(), Consent::Allow, Some(state.clone()));
            opened(&sending(kind)).build(&event, now())
        };
        let unknown = OrderState::default();
        let first = of(&unknown).unwrap();
        // Whatever it was worth: all of it is back, and is not taken off a second time.
        let after = unknown.after(first.order.as_ref().unwrap());
        assert!(after.is_all_back() && !after.is_sold(), "{kind}: {after:?}");
        assert_eq!(of(&after).unwrap_err().code, RefusalCode::NothingLeft, "{kind}");
    }
    // Of a part it has to be known what it is a part of.
    let sending = sending("google_ads");
    let part = deliverable(refund(json!({ "total": 10 })), Consent::Allow, Some(OrderState::default()));
    assert_eq!(opened(&sending).build(&part, now()).unwrap_err().code, RefusalCode::OrderNotSent);
}

#[test]
fn at_ga4_the_rest_of_an_order_that_a_tag_reported_is_not_all_of_it() {
    let of = |properties: Value| {
        let part_back = OrderState { refunded: "30".parse().unwrap(), ..OrderState::default() };
        let event = deliverable(refund_of_a_visitor(properties), Consent::Allow, Some(part_back));
        opened(&sending("ga4_mp")).build(&event, now())
    };
    let unknown = of(json!({})).unwrap_err();
    assert_eq!(unknown.code, RefusalCode::MissingValue, "GA4 would take off all that the tag said");
    let value =
        |built: Result<Item, Refusal>| built.unwrap().body.to_value()["events"][0]["params"]["value"].clone();
    assert_eq!(value(of(json!({ "original_value": 100 }))), 70);
    assert_eq!(value(of(json!({ "total": 5 }))), 5, "another part says how much");
}

#[test]
fn at_ga4_a_cancellation_takes_something_off_only_where_the_connection_says_so() {
    let cancelled = with(refund_of_a_visitor(json!({ "total": 63.8 })), "/event", json!("Order Cancelled"));
    let plain = opened(&document("ga4_mp"));
    for state in [None, Some(OrderState::default()), Some(state("54.4", Some("63.8"), "0"))] {
        let event = deliverable(cancelled.clone(), Consent::Allow, state);
        assert_eq!(plain.order_key(&event), None, "it waits for no order");
        let item = plain.build(&event, now()).unwrap();
        assert_eq!((item.name.as_str(), &item.order), ("Order_Cancelled", &None));
    }
    let event = deliverable(cancelled, Consent::Allow, Some(state("54.4", Some("63.8"), "31.9")));
    let mapped = opened(&taking_changes("ga4_mp"));
    assert_eq!(mapped.order_key(&event).as_deref(), Some("o-1001"));
    let item = mapped.build(&event, now()).unwrap();
    assert_eq!(
        (item.name.as_str(), item.body.to_value()["events"][0]["params"]["value"].clone()),
        ("refund", json!(27.2))
    );
    assert!(matches!(item.order, Some(OrderEffect::Refunded { amount: None, .. })));
}

#[test]
fn at_ga4_sales_and_refunds_are_so_by_their_names_there() {
    let map = json!({ "Kauf": "purchase", "Gutschrift": "refund" });
    let names = json!({ "Kauf": "\"purchase\"", "Gutschrift": "\"refund\"" });
    for named in [with(document("ga4_mp"), "/event_map", map), with(document("ga4_mp"), "/names", names)] {
        let destination = opened(&named);
        let sale = deliverable(with(purchase(), "/event", json!("Kauf")), Consent::Allow, None);
        let sold = destination.build(&sale, now()).unwrap();
        let Some(effect @ OrderEffect::Sold { .. }) = &sold.order else { panic!("{named}: {sold:?}") };
        let after = OrderState::default().after(effect);
        let back = with(refund_of_a_visitor(json!({ "total": 31.9 })), "/event", json!("Gutschrift"));
        let back = deliverable(back, Consent::Allow, Some(after));
        assert_eq!(destination.order_key(&back).as_deref(), Some("o-1001"), "{named}");
        let item = destination.build(&back, now()).unwrap();
        assert_eq!(item.body.to_value()["events"][0]["params"]["value"], 27.2, "{named}");
        assert!(matches!(item.order, Some(OrderEffect::Refunded { .. })), "{named}");
    }
}

#[test]
fn at_google_a_sale_is_what_goes_to_the_action_of_its_changes_whatever_it_is_called() {
    let sale = with(purchase(), "/event", json!("Kauf"));
    let sold = |document: &Value| build(document, sale.clone(), Consent::Allow).unwrap().order;
    for kind in ["google_ads", "google_data_manager"] {
        let plain = document(kind);
        for (member, own, other) in [
            ("/event_map", json!({ "Kauf": "987654321" }), json!({ "Kauf": "555" })),
            ("/names", json!({ "Kauf": "\"987654321\"" }), json!({ "Kauf": "\"555\"" })),
        ] {
            assert!(
                matches!(
                    sold(&with(plain.clone(), member, own)),
                    Some(OrderEffect::Sold { value: Some(_), .. })
                ),
                "{kind} {member}"
            );
            assert_eq!(sold(&with(plain.clone(), member, other)), None, "{kind} {member}: of another action");
        }
        let apart = json!({ "Kauf": "555", "Order Refunded": "555" });
        assert!(sold(&with(plain, "/event_map", apart)).is_some(), "{kind}: its refunds go there");
    }
}

#[test]
fn an_order_that_was_sent_without_a_value_is_not_waited_for() {
    let sold = OrderState { value: None, ..state("1", None, "0") };
    for built in of_kinds(&REFUNDING[..2], &refund(json!({ "total": 10 })), &sold) {
        assert_eq!(built.unwrap_err().code, RefusalCode::MissingValue);
    }
    for built in of_kinds(&REFUNDING[..2], &refund(json!({})), &sold) {
        assert!(built.is_ok(), "{built:?}");
    }
}

#[test]
fn what_came_back_before_is_not_taken_off_again() {
    let cancelled = with(refund(json!({})), "/event", json!("Order Cancelled"));
    for refunded in ["54.4", "70"] {
        for event in [refund(json!({ "total": 10 })), refund(json!({})), cancelled.clone()] {
            for built in of_kinds(&REFUNDING, &event, &state("54.4", None, refunded)) {
                assert_eq!(built.unwrap_err().code, RefusalCode::NothingLeft, "{refunded}: {event}");
            }
        }
    }
    // What was free is worth nothing, and yet it was sold: it can be cancelled.
    for built in of_kinds(&REFUNDING, &cancelled, &state("0", None, "0")) {
        assert!(built.is_ok(), "{built:?}");
    }
}

#[test]
fn a_change_is_later_than_the_one_before_it_to_the_second_in_which_google_counts() {
    let at = |adjusted_at: &str, timestamp: &str| {
        let state =
            OrderState { adjusted_at: Some(adjusted_at.parse().unwrap()), ..state("54.4", None, "10") };
        let event = with(refund(json!({ "total": 10 })), "/timestamp", json!(timestamp));
        let item = change("google_ads", event, Some(state)).unwrap();
        let Some(OrderEffect::Refunded { at, .. }) = item.order else { panic!("{item:?}") };
        (item.body.to_value()["adjustmentDateTime"].as_str().unwrap().to_owned(), at.to_string())
    };
    let second = at("2026-11-23T11:00:00.1Z", "2026-11-23T11:00:00.9Z");
    assert_eq!(second, ("2026-11-23 11:00:01+00:00".to_owned(), "2026-11-23T11:00:01Z".to_owned()));
    assert_eq!(
        at("2026-11-23T11:00:00Z", "2026-11-23T10:00:00Z").0,
        "2026-11-23 11:00:01+00:00",
        "it came late"
    );
    assert_eq!(at("2026-11-23T11:00:00Z", "2026-11-23T11:30:00Z").0, "2026-11-23 11:30:00+00:00", "its own");
}

#[test]
fn a_tags_order_is_worth_what_the_tag_should_have_said_unless_the_refund_says_better() {
    let enhancing = with(document("google_ads"), "/settings/mode", json!("enhancement"));
    let sold = build(&enhancing, purchase(), Consent::Allow).unwrap();
    assert_eq!(sold.body.to_value()["adjustmentType"], "ENHANCEMENT");
    let Some(OrderEffect::Sold { value, total, currency, .. }) = sold.order else { panic!("{sold:?}") };
    assert_eq!((value, total, currency.as_deref()), ("54.4".parse().ok(), "63.8".parse().ok(), Some("EUR")));
    let restated = |properties: Value, state: OrderState| {
        let event = deliverable(refund(properties), Consent::Allow, Some(state));
        opened(&enhancing).build(&event, now()).map(|item| item.body.to_value())
    };
    let part = restated(json!({ "total": 10 }), state("54.4", None, "0")).unwrap();
    assert_eq!(part["restatementValue"]["adjustedValue"], 44.4);
    let better = restated(json!({ "total": 10, "original_value": 60 }), state("54.4", None, "0")).unwrap();
    assert_eq!(better["restatementValue"]["adjustedValue"], 50);
    // What was told since is what stands there, whatever the tag had said.
    let told = OrderState { restated: true, ..state("40", None, "0") };
    let newer = restated(json!({ "total": 10, "original_value": 60 }), told).unwrap();
    assert_eq!(newer["restatementValue"]["adjustedValue"], 30);
    // The enhancement was not sent, for want of an e-mail: the tag's conversion is there all the same.
    let whole = restated(json!({}), OrderState::default()).unwrap();
    assert_eq!(whole["adjustmentType"], "RETRACTION");
    let unknown = restated(json!({ "total": 10 }), OrderState::default()).unwrap_err();
    assert_eq!(unknown.code, RefusalCode::OrderNotSent);
}

#[test]
fn a_refund_that_knows_nobody_says_what_its_order_was_matched_by() {
    let sold = build(&document("google_data_manager"), purchase(), Consent::Allow).unwrap();
    let Some(OrderEffect::Sold { match_key: Some(key), .. }) = sold.order else { panic!("{sold:?}") };
    let known = OrderState { match_key: Some(key.clone()), ..state("54.4", None, "0") };
    let mut event = refund(json!({ "total": 10 }));
    event["properties"].as_object_mut().unwrap().remove("gclid");
    let body = |consent: Consent, state: OrderState| {
        let event = deliverable(event.clone(), consent, Some(state));
        opened(&document("google_data_manager")).build(&event, now()).map(|item| item.body.to_value())
    };
    let borrows = |event: &Value, consent: Consent| {
        let event = deliverable(event.clone(), consent, Some(state("54.4", None, "0")));
        opened(&document("google_data_manager")).borrows_from(&event)
    };
    assert_eq!(borrows(&event, Consent::Allow).as_deref(), Some("o-1001"));
    let mailed = with(event.clone(), "/context", json!({ "traits": { "email": "ann@example.com" } }));
    assert_eq!(borrows(&mailed, Consent::Allow), None, "it says itself whom it is about");
    assert_eq!(borrows(&refund(json!({})), Consent::Allow), None, "it has a click");
    assert_eq!(borrows(&purchase(), Consent::Allow), None, "it changes nothing");
    let own = body(Consent::Allow, known.clone()).unwrap();
    let told =
        own.get("adIdentifiers").or(own.get("userData").and_then(|user| user["userIdentifiers"].get(0)));
    assert_eq!(told, Some(&serde_json::to_value(&key).unwrap()), "{own}");
    assert_eq!(body(Consent::Allow, state("54.4", None, "0")).unwrap_err().code, RefusalCode::NoMatchKey);

    let denied =
        || Consent::Restricted { place: "DE".to_owned(), denied_purposes: vec!["ad_user_data".to_owned()] };
    assert_eq!(borrows(&mailed, denied()).as_deref(), Some("o-1001"), "its own may not be said");
    let of_person = MatchKey::EmailAddress("ab".repeat(32));
    let personal = OrderState { match_key: Some(of_person), ..known.clone() };
    assert_eq!(body(denied(), personal).unwrap_err().code, RefusalCode::NoMatchKey, "a person's");
    let click = OrderState { match_key: Some(MatchKey::Gclid("Cj0xyz".to_owned())), ..known };
    assert_eq!(body(denied(), click).unwrap()["adIdentifiers"], json!({ "gclid": "Cj0xyz" }));
}

#[test]
fn what_is_left_is_told_in_the_orders_currency() {
    let mut whole = refund(json!({}));
    whole["properties"]["currency"] = json!("USD");
    let built = of_kinds(&["google_data_manager", "ga4_mp"], &whole, &state("54.4", Some("63.8"), "0"));
    let bodies: Vec<Value> = built.into_iter().map(|built| built.unwrap().body.to_value()).collect();
    assert_eq!((&bodies[0]["conversionValue"], &bodies[0]["currency"]), (&json!(0), &json!("EUR")));
    let params = &bodies[1]["events"][0]["params"];
    assert_eq!((&params["value"], &params["currency"]), (&json!(54.4), &json!("EUR")));
    // An amount of another currency is told as it is at GA4, and takes nothing off what we know.
    let other = with(refund(json!({ "total": 10 })), "/properties/currency", json!("USD"));
    let item = of_kinds(&["ga4_mp"], &other, &state("54.4", Some("63.8"), "0")).remove(0).unwrap();
    assert_eq!((item.body.to_value()["events"][0]["params"]["value"].clone(), item.order), (json!(10), None));
    assert_eq!(item.remark, Some(Remark::OtherCurrency), "the ledger says so");
    let open = refund(json!({ "products": [{ "product_id": "p_1", "quantity": 1 }] }));
    let item = of_kinds(&["ga4_mp"], &open, &state("54.4", Some("63.8"), "0")).remove(0).unwrap();
    assert_eq!((item.order, item.remark), (None, Some(Remark::AmountOpen)));
    let known = of_kinds(&["ga4_mp"], &refund(json!({ "total": 10 })), &state("54.4", Some("63.8"), "0"));
    assert!(known.into_iter().all(|built| built.unwrap().remark.is_none()));
}

#[test]
fn a_new_value_brings_its_currency_which_refunds_have_to_be_in_from_then_on() {
    for kind in ["google_ads", "google_data_manager"] {
        let sold = state("100", None, "0");
        let mut updated = with(refund(json!({ "revenue": 108 })), "/event", json!("Order Updated"));
        updated["properties"]["currency"] = json!("USD");
        let item = change(kind, updated, Some(sold.clone())).unwrap();
        let after = sold.after(item.order.as_ref().unwrap());
        assert_eq!((after.value, after.currency.as_deref()), ("108".parse().ok(), Some("USD")), "{kind}");
        let mut part = refund(json!({ "total": 20 }));
        let other = change(kind, part.clone(), Some(after.clone())).unwrap_err();
        assert_eq!(other.code, RefusalCode::InvalidPayload, "{kind}: 20 EUR are no 20 USD");
        part["properties"]["currency"] = json!("USD");
        let body = change(kind, part, Some(after)).unwrap().body.to_value();
        let told = match kind {
            "google_ads" => body["restatementValue"].clone(),
            _ => json!({ "adjustedValue": body["conversionValue"], "currencyCode": body["currency"] }),
        };
        assert_eq!(told, json!({ "adjustedValue": 88, "currencyCode": "USD" }), "{kind}");
    }
    // One that says no currency of its own is in the order's.
    let mut silent = with(refund(json!({ "revenue": 40 })), "/event", json!("Order Updated"));
    silent["properties"].as_object_mut().unwrap().remove("currency");
    let item = change("google_data_manager", silent, Some(state("100", None, "0"))).unwrap();
    let after = state("100", None, "0").after(item.order.as_ref().unwrap());
    assert_eq!(after.currency.as_deref(), Some("EUR"));
}

/// The purchase at Data Manager, of an order that is known so.
fn sold_again(state: Option<OrderState>) -> Result<Item, Refusal> {
    change("google_data_manager", purchase(), state)
}

#[test]
fn where_a_sale_overwrites_its_order_it_undoes_no_change_of_it() {
    let sold = || state("54.4", Some("63.8"), "0");
    for unchanged in [None, Some(OrderState::default()), Some(sold())] {
        let item = sold_again(unchanged).unwrap();
        assert_eq!(item.body.to_value()["conversionValue"], 54.4, "again as it is");
    }
    for changed in [
        OrderState { refunded: "30".parse().unwrap(), ..sold() },
        OrderState { all_back: true, ..sold() },
        OrderState { restated: true, ..sold() },
        // Of an order that a tag reported: nothing of it is left, whatever it was worth.
        OrderState { all_back: true, ..OrderState::default() },
    ] {
        let refusal = sold_again(Some(changed.clone())).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::OrderAdjusted, "{changed:?}");
        assert!(refusal.reason.contains("Order Updated"), "{}", refusal.reason);
    }
    // A part of a tag's order came back before it is sold from here: 31.90 of 63.80, so half of 54.40 is left.
    let part = OrderState { refunded: "31.9".parse().unwrap(), ..OrderState::default() };
    let item = sold_again(Some(part.clone())).unwrap();
    assert_eq!(item.body.to_value()["conversionValue"], 27.2);
    let after = part.after(item.order.as_ref().unwrap());
    assert_eq!(after.value, "54.4".parse().ok(), "refunds are taken off what it was sold for");
    assert_eq!(after.refunded, "31.9".parse().unwrap());
}

#[test]
fn only_where_a_sale_overwrites_its_order_it_needs_to_know_of_it() {
    let need = |document: &Value, event: Value| {
        opened(document).order_need(&deliverable(event, Consent::Allow, None))
    };
    let (sale, back) = (purchase(), refund(json!({ "total": 10 })));
    let order = || "o-1001".to_owned();
    for kind in REFUNDING {
        let overwrites = (kind == "google_data_manager").then(|| OrderNeed::Overwrites(order()));
        assert_eq!(need(&document(kind), sale.clone()), overwrites, "{kind}");
        assert_eq!(need(&document(kind), back.clone()), Some(OrderNeed::Changes(order())), "{kind}");
    }
    let own = document("google_data_manager");
    let viewed = with(purchase(), "/event", json!("Product Viewed"));
    assert_eq!(need(&own, viewed), None);
    let named = with(purchase(), "/event", json!("Kauf"));
    let to = |action: &str| with(own.clone(), "/names", json!({ "Kauf": format!("\"{action}\"") }));
    assert_eq!(need(&to("987654321"), named.clone()), Some(OrderNeed::Overwrites(order())), "a sale");
    assert_eq!(need(&to("555"), named), None, "of another action");
}
