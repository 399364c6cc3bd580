//! Updated orders: what they tell, and which of them come too late.

use super::*;

/// What is kept after a webhook.
fn after(topic: &str, body: &Value, known: KnownOrder) -> KnownOrder {
    translate(topic, body, &settings(json!({})), Some(&known)).order.unwrap().after(known)
}

/// The order as it is at a time, worth so much by then, before anything came back.
fn edit(total: &str, updated_at: &str) -> Value {
    let mut order = json_of(ORDER);
    order["updated_at"] = json!(updated_at);
    order["current_total_price"] = json!(total);
    order
}

/// The same with the refund, which was made on 2025-11-24 at 21:02:11 UTC.
fn with_refund(total: &str, updated_at: &str) -> Value {
    let mut order = edit(total, updated_at);
    order["refunds"] = json!([json_of(REFUND)]);
    order
}

fn is_outdated(order: &Value, known: &KnownOrder) -> bool {
    let body = order.to_string();
    match read(&headers("orders/updated"), body.as_bytes(), &settings(json!({}))).unwrap() {
        Reading::Webhook(webhook) => webhook.is_outdated(known),
        Reading::Ignored(ignored) => panic!("{ignored:?}"),
    }
}

#[test]
fn an_updated_order_tells_what_it_is_now_and_a_cancelled_one_what_was_bought() {
    let settings = settings(json!({}));
    let updated = parsed(&translate("orders/updated", &json_of(ORDER), &settings, None));
    let told = properties(&updated);
    assert_eq!(updated.name, "Order Updated");
    assert_eq!(
        (&told["total"], &told["revenue"], &told["tax"]),
        (&json!(351.68), &json!(318.0), &json!(25.68))
    );
    assert_eq!(told["products"][1]["quantity"], 1);
    let mut cancelled = json_of(ORDER);
    cancelled["cancelled_at"] = json!("2025-11-21T10:00:00-05:00");
    cancelled["cancel_reason"] = json!("customer");
    let event = parsed(&translate("orders/cancelled", &cancelled, &settings, None));
    assert_eq!(event.message_id, "shopify.order_cancelled.820982911946154508");
    assert_eq!((event.name.as_str(), &properties(&event)["total"]), ("Order Cancelled", &json!(396.8)));
    assert_eq!(properties(&event)["cancel_reason"], "customer");
    assert_eq!(
        event.timestamp.as_ref().unwrap().seconds,
        "2025-11-21T15:00:00Z".parse::<Timestamp>().unwrap().as_second()
    );
}

#[test]
fn an_updated_order_leaves_its_amounts_to_its_refunds() {
    let settings = settings(json!({}));
    let mut order = json_of(ORDER);
    assert_eq!(translate("orders/updated", &order, &settings, None).warnings, [""; 0]);
    order["refunds"] = json!([json_of(REFUND)]);
    let updated = translate("orders/updated", &order, &settings, None);
    assert_eq!(updated.warnings, ["shopify_amounts_left_to_refunds"]);
    let told = properties(&parsed(&updated));
    for net in [
        "total",
        "revenue",
        "subtotal",
        "tax",
        "shipping",
        "discount",
        "products",
        "presentment_total",
        "shop_total",
    ] {
        assert_eq!(told.get(net), None, "{net} would be subtracted once more");
    }
    assert_eq!((&told["order_id"], &told["currency"]), (&json!("820982911946154508"), &json!("USD")));
    // What was bought is that whatever came back since.
    let completed = translate("orders/create", &order, &settings, None);
    assert_eq!(properties(&parsed(&completed))["total"], json!(396.8));
    assert!(completed.warnings.is_empty());
}

#[test]
fn an_update_from_before_what_is_known_is_outdated() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let at = |topic: &'static str, updated_at: &str| {
        let mut order = json_of(ORDER);
        order["updated_at"] = json!(updated_at);
        match read(&headers(topic), order.to_string().as_bytes(), &settings).unwrap() {
            Reading::Webhook(webhook) => {
                assert_eq!(webhook.wants_order().is_some(), topic == "orders/updated");
                webhook.is_outdated(&known)
            }
            Reading::Ignored(ignored) => panic!("{ignored:?}"),
        }
    };
    // Kept: 2025-11-20T09:15:04-05:00. Texts of other zones compare as instants.
    assert!(at("orders/updated", "2025-11-20T14:15:03Z"));
    assert!(!at("orders/updated", "2025-11-20T14:15:04Z"), "a repeat is not outdated");
    assert!(!at("orders/updated", "2025-11-20T09:15:05-05:00"));
    assert!(!at("orders/updated", "some day"));
    assert!(!at("orders/create", "2025-11-20T14:15:03Z"), "a purchase that comes late is one");
}

#[test]
fn an_update_from_before_a_refund_that_came_is_outdated() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let is_outdated_with = |known: &KnownOrder, updated_at: &str, refunds: Value| {
        let mut order = json_of(ORDER);
        order["updated_at"] = json!(updated_at);
        order["refunds"] = refunds;
        match read(&headers("orders/updated"), order.to_string().as_bytes(), &settings).unwrap() {
            Reading::Webhook(webhook) => webhook.is_outdated(known),
            Reading::Ignored(ignored) => panic!("{ignored:?}"),
        }
    };
    let is_outdated =
        |known: &KnownOrder, updated_at: &str| is_outdated_with(known, updated_at, json!([json_of(REFUND)]));
    // In the order's currency, and in its other one: of that more has to be known.
    for currency in ["USD", "CAD"] {
        let mut refund = json_of(REFUND);
        refund["transactions"][0]["currency"] = json!(currency);
        let after = |refund: &Value, known: KnownOrder| {
            translate("refunds/create", refund, &settings, Some(&known)).order.unwrap().after(known)
        };
        let refunded = after(&refund, known.clone());
        assert!(is_outdated(&refunded, "2025-11-24T21:02:10Z"), "{currency}: it was made at 21:02:11");
        assert!(
            !is_outdated(&refunded, "2025-11-24T21:02:11Z"),
            "{currency}: the update that it makes itself"
        );
        let none = || json!([]);
        assert!(is_outdated_with(&refunded, "2025-11-24T21:02:11Z", none()), "{currency}: it has no refund");
        assert!(!is_outdated_with(&refunded, "2025-11-24T21:02:11Z", json!(null)), "{currency}: nor says so");
        assert!(!is_outdated_with(&known, "2025-11-24T21:02:11Z", none()), "{currency}: none came");
        assert_eq!(refunded.updated_at, known.updated_at, "{currency}: its state is that of before");
        // Neither an older refund that comes late nor the order's own next state takes that back.
        let mut older = refund.clone();
        older["id"] = json!(890_088_186_047_892_300_u64);
        older["created_at"] = json!("2025-11-22T12:00:00Z");
        let twice = after(&older, refunded);
        assert!(is_outdated(&twice, "2025-11-24T21:02:10Z"), "{currency}");
        let mut next = json_of(ORDER);
        next["updated_at"] = json!("2025-11-23T12:00:00Z");
        let next = translate("orders/updated", &next, &settings, Some(&twice)).order.unwrap().after(twice);
        assert_eq!(next.updated_at.as_deref(), Some("2025-11-23T12:00:00Z"), "{currency}");
        assert!(is_outdated(&next, "2025-11-24T21:02:10Z"), "{currency}");
    }
}

#[test]
fn an_edit_from_before_a_refund_is_told_unless_it_is_known() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let refunded = after("refunds/create", &json_of(REFUND), known);
    let edited = edit("420.00", "2025-11-24T21:01:11Z");
    assert!(!is_outdated(&edited, &refunded), "nothing else tells of it");
    assert!(is_outdated(&edit("351.680", "2025-11-24T21:01:11Z"), &refunded), "it is worth what is known");
    assert!(is_outdated(&with_refund("420.00", "2025-11-24T21:01:11Z"), &refunded), "it says no amount");
    // It comes again after it was kept, because it could not be stored, and then a label on it.
    let kept = after("orders/updated", &edited, refunded);
    assert!(!is_outdated(&edited, &kept));
    assert!(is_outdated(&edit("420.00", "2025-11-24T21:01:12Z"), &kept), "it is worth what is known");
    // What has no refund is from before one, be it of the same second.
    assert!(is_outdated(&edit("420.00", "2025-11-24T21:02:11Z"), &kept), "it is worth what is known");
    assert!(!is_outdated(&edit("396.80", "2025-11-24T21:02:11Z"), &kept), "it was edited back");
}

#[test]
fn an_edit_is_told_though_the_orders_state_after_a_refund_came_before_it() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let refunded = after("refunds/create", &json_of(REFUND), known);
    // The refund's own update, of the same second, and a label an hour later: both say no amount.
    let updated = after("orders/updated", &with_refund("299.08", "2025-11-24T21:02:11Z"), refunded);
    let known = after("orders/updated", &with_refund("299.08", "2025-11-24T22:02:11Z"), updated);
    assert_eq!(known.updated_at.as_deref(), Some("2025-11-24T22:02:11Z"));
    assert_eq!(
        (known.current.as_ref().map(|total| total.amount.to_string()), known.current_at.as_deref()),
        (Some("351.68".to_owned()), Some("2025-11-20T09:15:04-05:00")),
        "what it was worth before stays known"
    );

    let edited = edit("420.00", "2025-11-24T21:01:11Z");
    assert!(!is_outdated(&edited, &known), "nothing else tells of it");
    assert!(is_outdated(&edit("351.68", "2025-11-24T21:01:11Z"), &known), "it is worth what is known");
    assert!(is_outdated(&with_refund("420.00", "2025-11-24T21:01:11Z"), &known), "it says no amount");
    assert!(is_outdated(&edit("420.00", "2025-11-20T14:15:03Z"), &known), "from before what it was worth");

    // The edit is kept, and the order's state stays the later one.
    let kept = after("orders/updated", &edited, known.clone());
    assert_eq!((&kept.updated_at, &kept.refunded_at), (&known.updated_at, &known.refunded_at));
    assert_eq!(kept.current_at.as_deref(), Some("2025-11-24T21:01:11Z"));
    assert!(!is_outdated(&edited, &kept), "it comes again because it could not be stored");
    assert!(is_outdated(&edit("420.00", "2025-11-24T21:01:12Z"), &kept), "it is worth what is known");
    assert!(
        is_outdated(&edit("430.00", "2025-11-24T21:01:10Z"), &kept),
        "from before the edit that is known"
    );
    assert!(!is_outdated(&edit("430.00", "2025-11-24T21:01:13Z"), &kept), "another edit");
}

#[test]
fn what_an_earlier_version_kept_of_an_order_is_of_its_state() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let mut document = serde_json::to_value(&known).unwrap();
    assert!(document.as_object_mut().unwrap().remove("current_at").is_some());
    let earlier: KnownOrder = serde_json::from_value(document).unwrap();
    assert!(is_outdated(&edit("420.00", "2025-11-20T14:15:03Z"), &earlier), "from before its state");
    assert!(!is_outdated(&edit("420.00", "2025-11-20T14:15:05Z"), &earlier));
    // It is still of that state when a later one comes.
    let known = after("orders/updated", &with_refund("299.08", "2025-11-24T21:02:11Z"), earlier);
    assert_eq!(known.current_at.as_deref(), Some("2025-11-20T09:15:04-05:00"));
    assert!(!is_outdated(&edit("420.00", "2025-11-24T21:01:11Z"), &known));
}

#[test]
fn a_state_without_a_refund_is_of_a_time_before_the_refund_that_is_known() {
    let settings = settings(json!({}));
    let (_, known) = order(&settings);
    let refunded = after("refunds/create", &json_of(REFUND), known.clone());
    let time = |order: &Value, known: &KnownOrder| {
        let event = parsed(&translate("orders/updated", order, &settings, Some(known)));
        let time = event.timestamp.unwrap();
        Timestamp::new(time.seconds, time.nanos).unwrap().to_string()
    };
    let same_second = edit("420.00", "2025-11-24T21:02:11Z");
    assert!(!is_outdated(&same_second, &refunded), "nothing else tells of it");
    assert_eq!(time(&same_second, &refunded), "2025-11-24T21:02:10.999Z");
    assert_eq!(time(&edit("420.00", "2025-11-24T21:02:19Z"), &refunded), "2025-11-24T21:02:10.999Z");
    assert_eq!(time(&edit("420.00", "2025-11-24T21:01:11Z"), &refunded), "2025-11-24T21:01:11Z");
    let mut untimed = edit("420.00", "2025-11-24T21:02:11Z");
    untimed["updated_at"] = json!(null);
    assert_eq!(time(&untimed, &refunded), "2025-11-24T21:02:10.999Z", "not that of the webhook");
    // Nothing came back, or the body has it, or does not say.
    assert_eq!(time(&same_second, &known), "2025-11-24T21:02:11Z");
    assert_eq!(time(&with_refund("420.00", "2025-11-24T21:02:11Z"), &refunded), "2025-11-24T21:02:11Z");
    let mut silent = edit("420.00", "2025-11-24T21:02:11Z");
    silent["refunds"] = json!(null);
    assert_eq!(time(&silent, &refunded), "2025-11-24T21:02:11Z");
}

#[test]
fn a_refund_is_of_the_time_at_which_it_was_made_however_it_is_dated() {
    let settings = settings(json!({}));
    let time = |refund: &Value| {
        let seconds =
            parsed(&translate("refunds/create", refund, &settings, None)).timestamp.unwrap().seconds;
        Timestamp::from_second(seconds).unwrap().to_string()
    };
    let mut refund = json_of(REFUND);
    refund["processed_at"] = json!("2025-11-22T09:00:00Z");
    assert_eq!(time(&refund), "2025-11-24T21:02:11Z");
    refund["created_at"] = json!(null);
    assert_eq!(time(&refund), "2025-11-22T09:00:00Z");
}

#[test]
fn an_update_of_an_order_that_is_sold_when_it_is_paid_tells_no_amount_before_that() {
    let on_paid = settings(json!({"completed_on": "paid"}));
    let told = |settings: &Settings, status: Value| {
        let mut order = json_of(ORDER);
        order["financial_status"] = status;
        let update = translate("orders/updated", &order, settings, None);
        (update.warnings.clone(), properties(&parsed(&update)), update.order.unwrap())
    };
    for unpaid in ["pending", "authorized", "partially_paid", "expired", "voided"] {
        let (warnings, update, kept) = told(&on_paid, json!(unpaid));
        assert_eq!(warnings, ["shopify_amounts_left_to_payment"], "{unpaid}");
        for key in ["total", "revenue", "subtotal", "products", "presentment_total"] {
            assert_eq!(update.get(key), None, "{unpaid}: {key}");
        }
        assert_eq!(update["financial_status"], unpaid);
        assert_eq!((kept.current, kept.current_at), (None, None), "{unpaid}: nobody was told of it");
        let (warnings, update, _) = told(&settings(json!({})), json!(unpaid));
        assert_eq!((warnings, &update["total"]), (vec![], &json!(351.68)), "{unpaid}: it is sold already");
    }
    for paid in [json!("paid"), json!("partially_refunded"), json!("refunded"), json!(null)] {
        let (warnings, update, kept) = told(&on_paid, paid.clone());
        assert_eq!((warnings, &update["total"]), (vec![], &json!(351.68)), "{paid}");
        assert!(kept.current.is_some(), "{paid}");
    }
}

#[test]
fn an_order_that_is_sold_when_it_is_paid_is_sold_for_what_it_is_then() {
    let on_paid = settings(json!({"completed_on": "paid"}));
    let mut order = json_of(ORDER);
    order["current_total_price_set"] = json!({
        "shop_money": {"amount": "351.68", "currency_code": "USD"},
        "presentment_money": {"amount": "492.35", "currency_code": "CAD"},
    });
    let told = |order: &Value| properties(&parsed(&translate("orders/paid", order, &on_paid, None)));
    let edited = told(&order);
    assert_eq!(
        (&edited["total"], &edited["revenue"], &edited["tax"]),
        (&json!(351.68), &json!(318.0), &json!(25.68))
    );
    assert_eq!(edited["presentment_total"], json!(492.35));
    assert_eq!(edited["products"][1]["quantity"], 1);
    assert_eq!(edited.get("original_timestamp"), None);
    // Of one with refunds, each of which is told, it is what was bought.
    order["refunds"] = json!([json_of(REFUND)]);
    let refunded = told(&order);
    assert_eq!((&refunded["total"], &refunded["presentment_total"]), (&json!(396.8), &json!(555.52)));
    assert_eq!(refunded["products"][1]["quantity"], 2);
}

#[test]
fn an_update_of_a_cancelled_order_does_not_say_what_it_was_worth() {
    let settings = settings(json!({}));
    let mut order = json_of(ORDER);
    order["cancelled_at"] = json!("2025-11-21T10:00:00-05:00");
    let updated = translate("orders/updated", &order, &settings, None);
    assert_eq!(updated.warnings, ["shopify_amounts_left_to_refunds"]);
    let told = properties(&parsed(&updated));
    for key in ["total", "revenue", "products", "presentment_total"] {
        assert_eq!(told.get(key), None, "{key}");
    }
    // The cancellation itself says what was bought, and an update that nothing is left.
    let cancelled = translate("orders/cancelled", &order, &settings, None);
    assert_eq!(properties(&parsed(&cancelled))["total"], json!(396.8));
    order["current_total_price"] = json!("0.00");
    let updated = translate("orders/updated", &order, &settings, None);
    assert!(updated.warnings.is_empty());
    assert_eq!(properties(&parsed(&updated))["total"], json!(0.0));
}

#[test]
fn an_updated_order_says_when_it_was_placed_where_that_is_when_it_was_sold() {
    let placed = |topic: &str, more: Value| {
        let mut order = json_of(ORDER);
        order["cancelled_at"] = json!("2025-11-21T10:00:00-05:00");
        let told = properties(&parsed(&translate(topic, &order, &settings(more), None)));
        told.get("original_timestamp").cloned()
    };
    let at_first = Some(json!("2025-11-20T09:15:01-05:00"));
    assert_eq!(placed("orders/updated", json!({})), at_first);
    assert_eq!(placed("orders/updated", json!({"completed_on": "paid"})), None, "it may be paid weeks later");
    assert_eq!(placed("orders/create", json!({})), None);
    assert_eq!(placed("orders/cancelled", json!({})), None);
}
