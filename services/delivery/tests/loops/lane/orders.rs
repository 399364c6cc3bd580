//! Orders whose purchase and refunds come close together.

use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_delivery::ledger::State;
use tracklayer_sandbox::{Fault, How, OrderWorth, Platform};

use super::rig::{Rig, order, refund};

/// What an order is worth at a platform by now; the amount is in dollars.
fn worth(rig: &Rig, platform: Platform, order_id: &str) -> (String, OrderWorth) {
    let orders = rig.sandbox.orders(platform);
    let order = orders.into_iter().find(|order| order.order_id == order_id).unwrap();
    (order.amounts["USD"].clone(), order)
}

/// A refund at a time of its own.
fn refund_at(message_id: &str, order_id: &str, amount: u32, at: &str) -> Value {
    let mut event = refund(message_id, "server", order_id, amount);
    event["timestamp"] = json!(at);
    event
}

/// A second of an hour ago, with such a fraction.
fn an_hour_ago(fraction: &str) -> String {
    let second = jiff::Timestamp::now().as_second() - 3_600;
    let whole = jiff::Timestamp::from_second(second).unwrap().to_string();
    format!("{}.{fraction}Z", whole.trim_end_matches('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_in_the_same_range_as_their_purchase_are_taken_off_what_was_sent() {
    let mut rig = Rig::new("google_ads").await;
    rig.resolved(&[
        order("m-1", "ann"),
        refund("r-1", "server", "order-m-1", 30),
        order("m-2", "bob"),
        refund("r-2", "server", "order-m-1", 20),
    ])
    .await;
    rig.start().await;
    for offset in 0..4 {
        rig.ends_as(offset, State::Delivered).await;
    }
    let counted = rig.sandbox.counted(Platform::GoogleAds);
    let worth = |id: &str| {
        let conversion = counted.iter().find(|c| c.event_id == id && c.event_name == "CONVERSION").unwrap();
        conversion.value.clone().unwrap()
    };
    assert_eq!(worth("order-m-1").parse::<f64>().unwrap(), 50.0, "{counted:?}");
    assert_eq!(worth("order-m-2").parse::<f64>().unwrap(), 100.0);
    let refunded = "select sum(refunded)::bigint from delivery.order_sent";
    assert_eq!(rig.number(refunded).await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_come_back_within_one_second_have_times_of_their_own_at_google() {
    let mut rig = Rig::new("google_ads").await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let parts = [("100", 10), ("500", 20), ("900", 30)];
    let second = an_hour_ago("000");
    let at = |fraction: &str| second.replace(".000Z", &format!(".{fraction}Z"));
    let refunds = parts.map(|(fraction, amount)| refund_at(fraction, "order-m-1", amount, &at(fraction)));
    rig.resolved(&refunds).await;
    for offset in 1..4 {
        assert_eq!(
            rig.ends_as(offset, State::Delivered).await.reason,
            "",
            "not taken for one that was there"
        );
    }
    assert_eq!(worth(&rig, Platform::GoogleAds, "order-m-1").0, "40");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_sent_again_after_a_crash_is_the_same_change_there() {
    let mut rig = Rig::new("google_ads").await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    rig.sandbox.inject(Platform::GoogleAds, Fault::Slow(Duration::from_secs(600)), How::Times(1));
    let (first, second) = (an_hour_ago("100"), an_hour_ago("900"));
    rig.resolved(&[refund_at("r-1", "order-m-1", 30, &first), refund_at("r-2", "order-m-1", 20, &second)])
        .await;
    rig.takes(Platform::GoogleAds, 2).await;
    rig.crash().await;
    rig.sandbox.clear(Platform::GoogleAds);
    rig.start().await;
    assert_eq!(rig.ends_as(1, State::Delivered).await.reason, "delivered_before");
    rig.ends_as(2, State::Delivered).await;
    let (amount, order) = worth(&rig, Platform::GoogleAds, "order-m-1");
    assert_eq!((amount.as_str(), order.changes), ("50", 2), "the first was carried out once");
    assert_eq!(rig.number("select refunded::bigint from delivery.order_sent").await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_before_its_order_waits_aside_and_goes_out_after_it() {
    for (kind, platform) in [("google_ads", Platform::GoogleAds), ("ga4_mp", Platform::Ga4)] {
        let mut rig = Rig::new(kind).await;
        // Of one visitor: whoever waited behind the refund would wait for ever.
        rig.resolved(&[refund("r-1", "ann", "order-m-1", 30), refund("r-2", "ann", "order-m-1", 20)]).await;
        rig.start().await;
        for offset in 0..2 {
            let held = rig.ends_as(offset, State::Held).await;
            assert_eq!((held.reason.as_str(), held.attempts), ("order_unknown", 0), "{kind}");
        }
        rig.resolved(&[order("m-1", "ann")]).await;
        rig.ends_as(2, State::Delivered).await;
        for offset in 0..2 {
            rig.ends_as(offset, State::Delivered).await;
        }
        assert_eq!(worth(&rig, platform, "order-m-1").0, "50", "{kind}");
        assert_eq!(rig.number("select count(*) from delivery.retry").await, 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_order_is_never_sent_is_dead_after_a_day_and_says_what_to_do() {
    for (kind, platform) in [
        ("google_ads", Platform::GoogleAds),
        ("google_data_manager", Platform::DataManager),
        ("ga4_mp", Platform::Ga4),
    ] {
        let mut rig = Rig::new(kind).await;
        let mut whole = refund("r-2", "bob", "o-nobody", 0);
        whole["properties"] = json!({ "order_id": "o-nobody" });
        let mut cancelled = whole.clone();
        (cancelled["event"], cancelled["messageId"]) = (json!("Order Cancelled"), json!("c-1"));
        rig.resolved(&[refund("r-1", "ann", "o-never", 30), whole, cancelled]).await;
        rig.start().await;
        for offset in 0..3 {
            assert_eq!(rig.ends_as(offset, State::Held).await.reason, "order_unknown", "{kind}");
        }
        let almost = "update delivery.retry set next_at = now(), waiting_since = waiting_since - interval '23 hours 50 minutes'";
        rig.services.run(almost).await;
        rig.crash().await;
        rig.start().await;
        rig.reaches("select count(*) from delivery.retry where next_at > now() + interval '1 minute'", 3)
            .await;
        let over = "update delivery.retry set next_at = now(), waiting_since = waiting_since - interval '20 minutes'";
        rig.services.run(over).await;
        rig.crash().await;
        rig.start().await;
        for offset in 0..3 {
            let dead = rig.ends_as(offset, State::Dead).await;
            assert_eq!((dead.reason.as_str(), dead.attempts), ("order_not_sent", 0), "{kind}");
            assert!(dead.detail.contains("set unsent_orders to send"), "{}", dead.detail);
        }
        assert!(rig.sandbox.counted(platform).is_empty(), "{kind}: it has nothing of it");
        let letters = "select count(*) from delivery.dead_letter where field = 'properties.order_id'";
        assert_eq!(rig.number(letters).await, 3, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_knows_nobody_is_matched_by_what_its_order_was() {
    let mut rig = Rig::new("google_data_manager").await;
    let mut sale = order("m-1", "ann");
    sale["context"] = json!({ "traits": { "email": "ann@example.com" } });
    let mut back = refund("r-1", "server", "order-m-1", 30);
    back["context"] = json!({});
    rig.resolved(&[sale, back]).await;
    rig.start().await;
    for offset in 0..2 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(worth(&rig, Platform::DataManager, "order-m-1").0, "70");
    let requests = rig.sandbox.requests(10);
    let told: Vec<Value> = requests
        .iter()
        .filter(|seen| seen.platform == Platform::DataManager)
        .map(|seen| serde_json::from_str::<Value>(&seen.body).unwrap()["events"][0].clone())
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["userData"], told[1]["userData"], "the e-mail's hash");
    assert_eq!(
        rig.number("select count(*) from delivery.order_match_key where sealed like 'enc:v1:%'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_before_is_not_taken_off_again() {
    for (kind, platform) in [
        ("google_ads", Platform::GoogleAds),
        ("google_data_manager", Platform::DataManager),
        ("ga4_mp", Platform::Ga4),
    ] {
        let mut rig = Rig::new(kind).await;
        let mut cancelled = refund("c-1", "ann", "order-m-1", 100);
        cancelled["event"] = json!("Order Cancelled");
        rig.resolved(&[order("m-1", "ann"), cancelled, refund("r-1", "ann", "order-m-1", 100)]).await;
        rig.start().await;
        for offset in 0..2 {
            rig.ends_as(offset, State::Delivered).await;
        }
        assert_eq!(rig.ends_as(2, State::Filtered).await.reason, "nothing_left", "{kind}");
        let (amount, order) = worth(&rig, platform, "order-m-1");
        assert_eq!((amount.as_str(), order.changes), ("0", 1), "{kind}");
    }
}
