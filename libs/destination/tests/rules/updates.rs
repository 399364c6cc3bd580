//! New values of orders: which are told at Google, and what becomes of the others.

use serde_json::{Value, json};
use tracklayer_destination::{Consent, Fate, Item, OrderEffect, OrderState, Refusal, RefusalCode};

use crate::orders::{REFUNDING, change, refund, sending, state};
use crate::{deliverable, document, now, opened, with};

/// An update of the order at that time.
fn updated(properties: Value, at: &str) -> Value {
    with(with(refund(properties), "/event", json!("Order Updated")), "/timestamp", json!(at))
}

fn code_of(built: Result<Item, Refusal>) -> RefusalCode {
    built.unwrap_err().code
}

#[test]
fn a_new_value_from_before_a_refund_does_not_undo_it() {
    for kind in &REFUNDING[..2] {
        let sold = state("54.4", None, "0");
        let back = with(refund(json!({ "total": 10 })), "/timestamp", json!("2026-11-23T11:05:00.4Z"));
        let back = change(kind, back, Some(sold.clone())).unwrap();
        let after = sold.after(back.order.as_ref().unwrap());
        let told = |at: &str| change(kind, updated(json!({ "revenue": 60 }), at), Some(after.clone()));
        let unlike = told("2026-11-23T11:00:00Z").unwrap_err();
        assert_eq!(
            unlike.code,
            RefusalCode::ValueWithoutRefunds,
            "{kind}: 10 are off 54.40 there, not off 60"
        );
        let says = "what it is worth now as Order Updated, and not this again";
        assert!(unlike.reason.contains(says), "{kind}: {}", unlike.reason);
        assert_eq!(unlike.code.fate(), Fate::Dead);
        for same in [json!({ "revenue": 54.4 }), json!({ "revenue": 54.4, "total": "54.40" })] {
            let same = change(kind, updated(same, "2026-11-23T11:00:00Z"), Some(after.clone()));
            assert_eq!(code_of(same), RefusalCode::OrderChangedSince, "{kind}: it was sold for that");
        }
        let total = updated(json!({ "revenue": 54.4, "total": 70 }), "2026-11-23T11:00:00Z");
        assert_eq!(
            code_of(change(kind, total, Some(after.clone()))),
            RefusalCode::ValueWithoutRefunds,
            "{kind}"
        );
        let whole = OrderState { all_back: true, ..after.clone() };
        let gone = change(kind, updated(json!({ "revenue": 60 }), "2026-11-23T11:00:00Z"), Some(whole));
        assert_eq!(code_of(gone), RefusalCode::OrderChangedSince, "{kind}: all of it came back");
        assert!(told("2026-11-23T11:05:00.4Z").is_ok(), "{kind}: of the same moment");
        let anew = told("2026-11-23T11:06:00Z").unwrap();
        let after = after.after(anew.order.as_ref().unwrap());
        assert_eq!((after.value, after.refunded), ("60".parse().ok(), "0".parse().unwrap()), "{kind}");
        let older = |state: OrderState| {
            change(kind, updated(json!({ "revenue": 70 }), "2026-11-23T11:05:59Z"), Some(state))
        };
        assert_eq!(code_of(older(after.clone())), RefusalCode::OrderChangedSince, "{kind}: than a new value");
        // Of a new value that a process of the version before told no time is kept.
        let untimed = OrderState { restated_at: None, ..after.clone() };
        assert_eq!(code_of(older(untimed)), RefusalCode::OrderChangedSince, "{kind}");
        let back = change(kind, refund(json!({ "total": 10 })), Some(after.clone())).unwrap();
        let after = after.after(back.order.as_ref().unwrap());
        assert_eq!(code_of(older(after)), RefusalCode::OrderChangedSince, "{kind}: whatever came back since");
    }
}

#[test]
fn a_change_that_was_told_a_second_later_happened_when_it_did() {
    let back = |at: &str| with(refund(json!({ "total": 10 })), "/timestamp", json!(at));
    let mut after = state("54.4", None, "0");
    for at in ["2026-11-23T11:05:00.1Z", "2026-11-23T11:05:00.2Z"] {
        let item = change("google_ads", back(at), Some(after.clone())).unwrap();
        after = after.after(item.order.as_ref().unwrap());
    }
    let at = |text: &str| Some(text.parse().unwrap());
    assert_eq!(after.adjusted_at, at("2026-11-23T11:05:01Z"));
    assert_eq!(after.changed_at, at("2026-11-23T11:05:00.2Z"));
    let between = updated(json!({ "revenue": 30 }), "2026-11-23T11:05:00.7Z");
    let item = change("google_ads", between, Some(after.clone())).unwrap();
    assert_eq!(item.body.to_value()["adjustmentDateTime"], "2026-11-23 11:05:02+00:00");
    let after = after.after(item.order.as_ref().unwrap());
    let times = (after.adjusted_at, after.changed_at, after.restated_at);
    let happened = at("2026-11-23T11:05:00.7Z");
    assert_eq!(times, (at("2026-11-23T11:05:02Z"), happened, happened));
}

#[test]
fn a_new_value_that_is_the_one_that_was_told_is_not_told_again() {
    let noon = "2026-11-23T11:59:59Z";
    let part_back = state("54.4", Some("63.8"), "31.9");
    for kind in &REFUNDING[..2] {
        let told = |properties: Value, state: &OrderState| {
            change(kind, updated(properties, noon), Some(state.clone()))
        };
        let sold = state("54.4", Some("63.8"), "0");
        for same in [json!({ "revenue": 54.4 }), json!({ "revenue": "54.40", "total": 63.8 })] {
            assert_eq!(code_of(told(same.clone(), &sold)), RefusalCode::OrderUnchanged, "{kind}: {same}");
            let asked_for = with(same, "/restate", json!(true));
            assert!(told(asked_for, &sold).is_ok(), "{kind}: somebody knows better");
        }
        assert_eq!(
            code_of(told(json!({ "revenue": 27.2 }), &part_back)),
            RefusalCode::OrderUnchanged,
            "{kind}"
        );
        for gross in [json!({ "revenue": 54.4 }), json!({ "revenue": 54.4, "total": 63.8 })] {
            for back in [&part_back, &OrderState { all_back: true, ..sold.clone() }] {
                let repeated = told(gross.clone(), back).unwrap_err();
                assert_eq!(repeated.code, RefusalCode::OrderChangedSince, "{kind}: {gross}");
                assert_eq!(repeated.code.fate(), Fate::Filtered);
                let advises = repeated.reason.contains("restate: true");
                assert_eq!(advises, !back.all_back, "{kind}: {}", repeated.reason);
                let asked_for = told(with(gross.clone(), "/restate", json!(true)), back);
                if *kind == "google_ads" && back.all_back {
                    assert_eq!(code_of(asked_for), RefusalCode::NothingToUpdate, "a retraction is final");
                } else {
                    assert!(asked_for.is_ok(), "{kind}: the refund is taken back: {asked_for:?}");
                }
            }
        }
        assert!(told(json!({ "revenue": 54.4, "total": 70 }), &part_back).is_ok(), "{kind}: another total");
        assert!(told(json!({ "revenue": 50 }), &part_back).is_ok(), "{kind}: another value");
        let total = told(json!({ "revenue": 54.4, "total": 70 }), &sold).unwrap();
        let after = sold.clone().after(total.order.as_ref().unwrap());
        assert_eq!(after.total, "70".parse().ok(), "{kind}: refunds are measured against it");
        let dollars = OrderState { currency: Some("USD".to_owned()), ..sold.clone() };
        assert!(told(json!({ "revenue": 54.4 }), &dollars).is_ok(), "{kind}: in another currency");
        let gone = OrderState { all_back: true, ..sold };
        assert_eq!(code_of(told(json!({ "revenue": 0 }), &gone)), RefusalCode::OrderUnchanged, "{kind}");
    }
    // What a tag has reported was not told from here; a new value of it was.
    let enhancing = with(document("google_ads"), "/settings/mode", json!("enhancement"));
    let of_tag = |state: OrderState| {
        let event = deliverable(updated(json!({ "revenue": 54.4 }), noon), Consent::Allow, Some(state));
        opened(&enhancing).build(&event, now())
    };
    let sold = state("54.4", None, "0");
    let first = of_tag(sold.clone()).unwrap();
    let after = sold.after(first.order.as_ref().unwrap());
    assert_eq!(code_of(of_tag(after)), RefusalCode::OrderUnchanged);
}

#[test]
fn an_update_without_an_amount_says_nothing_of_an_order_known_or_not() {
    let noon = "2026-11-23T11:59:59Z";
    let sold = state("54.4", None, "10");
    for kind in &REFUNDING[..2] {
        for state in [None, Some(OrderState::default()), Some(sold.clone())] {
            let built = change(kind, updated(json!({ "shipping": 5 }), noon), state.clone());
            assert_eq!(code_of(built), RefusalCode::NoNewValue, "{kind}: {state:?}");
            for unreadable in [json!({ "total": "$70.00" }), json!({ "revenue": { "amount": 70 } })] {
                let built = change(kind, updated(unreadable.clone(), noon), Some(sold.clone()));
                assert_eq!(code_of(built), RefusalCode::MissingValue, "{kind}: {unreadable}");
            }
            let unpriced = json!({ "products": [{ "product_id": "mug", "quantity": 2, "price": null }] });
            let built = change(kind, updated(unpriced, noon), state.clone());
            assert_eq!(code_of(built), RefusalCode::NoNewValue, "{kind}: products are no amount");
            for price in [json!(9.4), json!("$9.40")] {
                let priced =
                    json!({ "products": [{ "product_id": "mug" }, { "product_id": "tea", "price": price }] });
                let built = change(kind, updated(priced, noon), Some(sold.clone()));
                assert_eq!(code_of(built), RefusalCode::MissingValue, "{kind}: {price}");
            }
            let years_ago = updated(json!({}), "2024-11-23T11:59:59Z");
            assert_eq!(code_of(change(kind, years_ago, state)), RefusalCode::NoNewValue, "{kind}");
        }
        // It has an amount that nobody reads: value_from can be mended.
        let reading = with(document(kind), "/value_from", json!(["margin"]));
        let event = deliverable(updated(json!({ "total": 5 }), noon), Consent::Allow, Some(sold.clone()));
        assert_eq!(code_of(opened(&reading).build(&event, now())), RefusalCode::MissingValue, "{kind}");
        let event = updated(json!({ "margin": "$7.00" }), noon);
        let event = deliverable(event, Consent::Allow, Some(sold.clone()));
        assert_eq!(code_of(opened(&reading).build(&event, now())), RefusalCode::MissingValue, "{kind}");
    }
}

#[test]
fn an_update_of_an_order_that_cannot_be_changed_any_more_is_nobodys_work() {
    let noon = "2026-11-23T11:59:59Z";
    let of = |sold_at: &str| updated(json!({ "revenue": 40, "original_timestamp": sold_at }), noon);
    let unknown = || Some(OrderState::default());
    for kind in &REFUNDING[..2] {
        let last_week = change(kind, of("2026-11-16T12:00:00Z"), unknown());
        assert_eq!(code_of(last_week), RefusalCode::NothingToUpdate, "{kind}: its sale comes no more");
        let this_morning = change(kind, of("2026-11-23T08:00:00Z"), unknown());
        assert_eq!(code_of(this_morning), RefusalCode::OrderNotSent, "{kind}: its sale may come");
        for (at, code) in [
            ("2026-11-23T00:00:00Z", RefusalCode::NothingToUpdate),
            ("2026-11-22T23:59:59Z", RefusalCode::OrderNotSent),
        ] {
            let behind = with(of("2026-11-16T12:00:00Z"), "/timestamp", json!(at));
            let behind = change(kind, behind, unknown());
            assert_eq!(code_of(behind), code, "{kind}: its sale may be behind as well after 12 hours");
        }
        let event = deliverable(of("2026-11-16T12:00:00Z"), Consent::Allow, unknown());
        assert!(opened(&sending(kind)).build(&event, now()).is_ok(), "{kind}: another system reported it");
        let old =
            OrderState { at: Some("2026-09-20T12:00:00Z".parse().unwrap()), ..state("54.4", None, "0") };
        let told = change(kind, updated(json!({ "revenue": 40 }), noon), Some(old.clone()));
        assert_eq!(code_of(told), RefusalCode::NothingToUpdate, "{kind}: older than 54 days");
        let changed_at = Some("2026-10-10T12:00:00Z".parse().unwrap());
        let part_back = OrderState { refunded: "10".parse().unwrap(), changed_at, ..old.clone() };
        for (revenue, at) in [(54.4, noon), (60.0, "2026-10-02T12:00:00Z")] {
            let built = change(kind, updated(json!({ "revenue": revenue }), at), Some(part_back.clone()));
            assert_eq!(code_of(built), RefusalCode::NothingToUpdate, "{kind}: {revenue}, whatever came back");
        }
        let back = change(kind, refund(json!({ "total": 10 })), Some(old));
        assert_eq!(code_of(back), RefusalCode::EventTooOld, "{kind}: a refund is told of");
    }
}

#[test]
fn a_refund_from_before_a_new_value_is_part_of_it() {
    let back = |properties: Value, at: &str| with(refund(properties), "/timestamp", json!(at));
    for kind in &REFUNDING[..2] {
        let sold = state("100", None, "0");
        let anew =
            change(kind, updated(json!({ "revenue": 70 }), "2026-11-23T11:05:00Z"), Some(sold.clone()));
        let after = sold.after(anew.unwrap().order.as_ref().unwrap());
        let told = |event: Value| change(kind, event, Some(after.clone()));
        for properties in [json!({ "total": 30 }), json!({})] {
            let late = told(back(properties, "2026-11-23T11:04:59Z"));
            assert_eq!(code_of(late), RefusalCode::OrderChangedSince, "{kind}: it would be off twice");
        }
        let next = told(back(json!({ "total": 30 }), "2026-11-23T11:05:00Z")).unwrap();
        assert_eq!(
            after.clone().after(next.order.as_ref().unwrap()).refunded,
            "30".parse().unwrap(),
            "{kind}"
        );
        let cancelled = with(back(json!({}), "2026-11-23T11:04:59Z"), "/event", json!("Order Cancelled"));
        assert!(told(cancelled).is_ok(), "{kind}: nothing is left of a cancelled order");
        // A sale has no refunds in it.
        let again = after.clone().after(&OrderEffect::Sold {
            order_id: "o-1001".to_owned(),
            value: "100".parse().ok(),
            total: None,
            currency: Some("EUR".to_owned()),
            at: "2026-11-20T14:03:21Z".parse().unwrap(),
            match_key: None,
        });
        let late = change(kind, back(json!({ "total": 30 }), "2026-11-23T11:04:59Z"), Some(again));
        assert!(late.is_ok(), "{kind}: {late:?}");
    }
}

#[test]
fn a_new_value_to_the_second_has_a_refund_of_that_second_in_it_whichever_is_told_first() {
    let back = |at: &str| with(refund(json!({ "total": 30 })), "/timestamp", json!(at));
    let valued = |revenue: u32, at: &str| updated(json!({ "revenue": revenue }), at);
    let whole = "2026-11-23T11:05:00Z";
    for kind in &REFUNDING[..2] {
        let sold = state("100", None, "0");
        let after_value = |at: &str| {
            let item = change(kind, valued(70, at), Some(sold.clone())).unwrap();
            sold.clone().after(item.order.as_ref().unwrap())
        };
        let told = |refunded_at: &str, valued_at: &str| {
            change(kind, back(refunded_at), Some(after_value(valued_at)))
        };
        for at in ["2026-11-23T11:05:00.4Z", "2026-11-23T11:05:00.999999Z"] {
            assert_eq!(code_of(told(at, whole)), RefusalCode::OrderChangedSince, "{kind}: {at} is off twice");
        }
        for (refunded_at, valued_at) in [
            (whole, whole),
            ("2026-11-23T11:05:01.4Z", whole),
            ("2026-11-23T11:05:00.4Z", "2026-11-23T11:05:00.1Z"),
            ("2026-11-23T11:05:01Z", whole),
        ] {
            let built = told(refunded_at, valued_at);
            assert!(built.is_ok(), "{kind}: {refunded_at} after {valued_at}: {built:?}");
        }
        let item = change(kind, back("2026-11-23T11:05:00.4Z"), Some(sold.clone())).unwrap();
        let after_refund = sold.clone().after(item.order.as_ref().unwrap());
        for at in [whole, "2026-11-23T11:04:00Z"] {
            let net = change(kind, valued(70, at), Some(after_refund.clone()));
            assert_eq!(code_of(net), RefusalCode::OrderChangedSince, "{kind}: {at}: 70 are left there");
            let other = change(kind, valued(75, at), Some(after_refund.clone()));
            assert_eq!(code_of(other), RefusalCode::ValueWithoutRefunds, "{kind}: {at}");
        }
    }
}

#[test]
fn what_is_told_of_an_order_that_came_back_does_not_undo_that() {
    let noon = "2026-11-23T11:59:59Z";
    for kind in &REFUNDING[..2] {
        let sold = state("54.4", Some("63.8"), "0");
        for name in ["Order Cancelled", "Order Refunded"] {
            let gone = with(
                with(refund(json!({})), "/event", json!(name)),
                "/timestamp",
                json!("2026-11-23T11:00:00Z"),
            );
            let gone = change(kind, gone, Some(sold.clone())).unwrap();
            let gone = sold.clone().after(gone.order.as_ref().unwrap());
            let told = |properties: Value| change(kind, updated(properties, noon), Some(gone.clone()));
            let archived = told(json!({ "revenue": 54.4, "total": 63.8 }));
            assert_eq!(code_of(archived), RefusalCode::OrderChangedSince, "{kind}: {name}");
            let anew = told(json!({ "revenue": 20 }));
            if *kind == "google_ads" {
                let refusal = anew.unwrap_err();
                assert_eq!(
                    (refusal.code, refusal.platform_code),
                    (RefusalCode::NothingToUpdate, Some("CONVERSION_ALREADY_RETRACTED")),
                    "{name}"
                );
                assert!(refusal.reason.contains("a retraction is final"), "{}", refusal.reason);
            } else {
                assert_eq!(anew.unwrap().body.to_value()["conversionValue"], 20, "{kind}: {name}");
            }
        }
    }
}

#[test]
fn a_repeat_of_an_order_that_another_system_told_of_is_known_by_what_it_says_of_the_original() {
    let noon = "2026-11-23T11:59:59Z";
    let part_back = OrderState { refunded: "10".parse().unwrap(), ..OrderState::default() };
    for kind in &REFUNDING[..2] {
        let told = |properties: Value| {
            let event = deliverable(updated(properties, noon), Consent::Allow, Some(part_back.clone()));
            opened(&sending(kind)).build(&event, now())
        };
        for gross in [
            json!({ "revenue": 54.4, "original_value": 54.4 }),
            json!({ "revenue": 54.4, "original_value": "54.40", "total": 63.8 }),
        ] {
            assert_eq!(code_of(told(gross.clone())), RefusalCode::OrderChangedSince, "{kind}: {gross}");
            let asked_for = told(with(gross, "/restate", json!(true)));
            assert!(asked_for.is_ok(), "{kind}: {asked_for:?}");
        }
        let left = told(json!({ "revenue": 44.4, "original_value": 54.4 }));
        assert!(left.is_ok(), "{kind}: {left:?}");
    }
}

#[test]
fn a_new_value_from_before_the_sale_that_it_waited_for_is_none() {
    let before = || updated(json!({ "revenue": 40 }), "2026-11-20T14:03:20Z");
    for kind in &REFUNDING[..2] {
        let built = change(kind, before(), Some(state("54.4", None, "0")));
        assert_eq!(code_of(built), RefusalCode::OrderChangedSince, "{kind}");
        let same = updated(json!({ "revenue": 40 }), "2026-11-20T14:03:21Z");
        assert!(change(kind, same, Some(state("54.4", None, "0"))).is_ok(), "{kind}: of the same second");
    }
    // When the tag told of the sale we do not know.
    let enhancing = with(document("google_ads"), "/settings/mode", json!("enhancement"));
    let event = deliverable(before(), Consent::Allow, Some(state("54.4", None, "0")));
    assert!(opened(&enhancing).build(&event, now()).is_ok());
}

#[test]
fn a_new_value_in_no_currency_is_refused_and_not_taken_for_the_orders() {
    for kind in &REFUNDING[..2] {
        for revenue in [40.0, 54.4] {
            let mut event = updated(json!({ "revenue": revenue }), "2026-11-23T11:59:59Z");
            event["properties"]["currency"] = json!("Euro");
            let built = change(kind, event, Some(state("54.4", None, "0")));
            assert_eq!(code_of(built), RefusalCode::MissingCurrency, "{kind}: {revenue}");
        }
    }
}
