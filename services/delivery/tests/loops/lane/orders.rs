//! Orders whose purchase and refunds come close together.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::orders::OrderStore;
use tracklayer_proto::consent::v1::NarrowRequest;
use tracklayer_proto::control::v1::Pause;
use tracklayer_proto::identity::v1::{Identifier, ResolveItem, ResolveRequest};
use tracklayer_sandbox::{Fault, How, OrderWorth, Platform};

use super::consent::opts_out;
use super::rig::{Rig, order, refund};
use crate::services::WORKSPACE;

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
        // Of another order: changes of one are looked at one after the other.
        cancelled["properties"]["order_id"] = json!("o-none");
        rig.resolved(&[refund("r-1", "ann", "o-never", 30), whole, cancelled]).await;
        rig.start().await;
        for offset in 0..3 {
            assert_eq!(rig.ends_as(offset, State::Held).await.reason, "order_unknown", "{kind}");
        }
        // A look counts the pause before it: of a quarter of an hour by then.
        rig.services.run("update delivery.retry set next_at = now(), waited_ms = 84600000").await;
        rig.crash().await;
        rig.start().await;
        rig.reaches("select count(*) from delivery.retry where next_at > now() + interval '1 minute'", 3)
            .await;
        rig.services.run("update delivery.retry set next_at = now()").await;
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

/// A sale of a visitor whom the platform knows by an e-mail address alone.
fn mailed_sale(message_id: &str, visitor: &str) -> Value {
    let mut sale = order(message_id, visitor);
    sale["context"] = json!({ "traits": { "email": format!("{visitor}@example.com") } });
    sale
}

/// A refund that a shop's server reports, which knows the order alone.
fn servers_refund(message_id: &str, order_id: &str, amount: u32) -> Value {
    let mut back = refund(message_id, "server", order_id, amount);
    back["context"] = json!({});
    back
}

const KEYS: &str = "select count(*) from delivery.order_match_key";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_borrowed_of_somebody_who_has_opted_out_since() {
    let mut rig = Rig::new("google_data_manager").await;
    rig.resolved(&[mailed_sale("m-1", "ann"), mailed_sale("m-2", "bob"), mailed_sale("m-3", "cat")]).await;
    rig.start().await;
    for offset in 0..3 {
        rig.ends_as(offset, State::Delivered).await;
    }
    assert_eq!(rig.number(KEYS).await, 3);
    // Ann herself; and a device of cat's that was linked to her after she bought.
    opts_out(&rig, "ann").await;
    opts_out(&rig, "cats-phone").await;
    for device in ["cat", "cats-phone"] {
        let identifier =
            |name: &str, value: &str| Identifier { r#type: name.to_owned(), value: value.to_owned() };
        let linked = ResolveItem {
            identifiers: vec![identifier("anonymous_id", device), identifier("user_id", "u-cat")],
            source_id: 1,
            message_id: format!("identify-{device}"),
            ..ResolveItem::default()
        };
        let request = ResolveRequest { workspace_id: WORKSPACE.0, items: vec![linked] };
        rig.services.clients.identity.clone().resolve(request).await.unwrap();
    }
    rig.resolved(&[
        servers_refund("r-1", "order-m-1", 30),
        servers_refund("r-2", "order-m-2", 30),
        servers_refund("r-3", "order-m-3", 30),
    ])
    .await;
    rig.ends_as(4, State::Delivered).await;
    for offset in [3, 5] {
        let blocked = rig.ends_as(offset, State::Blocked).await;
        assert_eq!((blocked.reason.as_str(), blocked.attempts), ("gpc", 0), "{offset}");
    }
    assert_eq!(worth(&rig, Platform::DataManager, "order-m-1").0, "100");
    assert_eq!(worth(&rig, Platform::DataManager, "order-m-2").0, "70");
}

/// Tells consent's log of a merge or an erasure of visitors.
async fn names(rig: &Rig, cause: &str, visitors: &[&str]) {
    let key = rig.services.master_key.workspace(WORKSPACE);
    let keys = visitors.iter().map(|visitor| key.subject("anonymous_id", visitor).0.to_vec());
    let request = NarrowRequest {
        workspace_id: WORKSPACE.0,
        subject_keys: keys.collect(),
        cause: cause.to_owned(),
        evidence: "asked for".to_owned(),
    };
    rig.services.clients.consent.clone().narrow(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_order_was_matched_by_goes_with_its_person() {
    let mut rig = Rig::new("google_data_manager").await;
    rig.resolved(&[mailed_sale("m-1", "ann"), mailed_sale("m-2", "bob"), mailed_sale("m-3", "cat")]).await;
    rig.start().await;
    for offset in 0..3 {
        rig.ends_as(offset, State::Delivered).await;
    }
    names(&rig, "erasure", &["ann"]).await;
    // Cat's profile is known by another name by the time that she is erased.
    names(&rig, "merge", &["cat", "cats-profile"]).await;
    names(&rig, "erasure", &["cats-profile"]).await;
    // Before anybody asks for it.
    rig.match_keys(rig.services.database.pool.clone()).follower.round(Timestamp::now()).await.unwrap();
    assert_eq!(rig.number(KEYS).await, 1);
    // A lane looks before it borrows.
    names(&rig, "erasure", &["bob"]).await;
    rig.resolved(&[servers_refund("r-2", "order-m-2", 30)]).await;
    let dead = rig.ends_as(3, State::Dead).await;
    assert_eq!((dead.reason.as_str(), dead.attempts), ("no_match_key", 0));
    assert!(dead.detail.contains("none of its order's"), "{}", dead.detail);
    assert_eq!(rig.number(KEYS).await, 0);
    assert_eq!(worth(&rig, Platform::DataManager, "order-m-2").0, "100");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_order_was_matched_by_is_forgotten_when_the_order_cannot_be_changed_any_more() {
    let mut rig = Rig::new("google_data_manager").await;
    rig.resolved(&[mailed_sale("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let keys = rig.match_keys(rig.services.database.pool.clone()).follower;
    let days_on = |days: i64| Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
    keys.round(days_on(54)).await.unwrap();
    assert_eq!(rig.number(KEYS).await, 1, "it can still be refunded");
    keys.round(days_on(56)).await.unwrap();
    assert_eq!(rig.number(KEYS).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_days_is_no_time_in_which_an_order_was_waited_for() {
    let mut rig = Rig::new("google_ads").await;
    rig.resolved(&[refund("r-1", "server", "order-m-1", 30)]).await;
    rig.start().await;
    assert_eq!(rig.ends_as(0, State::Held).await.reason, "order_unknown");
    rig.control_says(|connection, _| connection.pause = Some(Pause::default()));
    rig.reaches("select count(*) from delivery.lane_hold where kind = 'paused'", 1).await;
    rig.clock.advance(Duration::from_secs(72 * 3_600));
    rig.control_says(|connection, _| connection.pause = None);
    // It is looked at again, and waits on: by the clock of the tests its next look is days away.
    rig.reaches("select count(*) from delivery.retry where next_at > now() + interval '71 hours'", 1).await;
    assert_eq!(rig.ends_as(0, State::Held).await.reason, "order_unknown");
    assert!(rig.number("select max(waited_ms) from delivery.retry").await < 3_600_000);
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.ends_as(1, State::Delivered).await;
    rig.ends_as(0, State::Delivered).await;
    assert_eq!(worth(&rig, Platform::GoogleAds, "order-m-1").0, "70");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_behind_its_visitor_goes_behind_those_of_its_order_that_wait() {
    let mut rig = Rig::new("google_ads").await;
    // Asked to try again later: what comes of the visitor stands behind it.
    rig.due_again(&[order("m-9", "ann")]).await;
    rig.services.run("update delivery.retry set next_at = now() + interval '1 hour'").await;
    rig.resolved(&[refund("r-1", "server", "order-m-1", 20)]).await;
    rig.start().await;
    assert_eq!(rig.ends_as(1, State::Held).await.reason, "order_unknown");
    // The order comes while the first part is not looked at.
    rig.crash().await;
    rig.services
        .run("update delivery.retry set next_at = now() + interval '1 hour' where event_offset = 1")
        .await;
    rig.start().await;
    rig.resolved(&[order("m-1", "bob")]).await;
    rig.ends_as(2, State::Delivered).await;
    rig.resolved(&[refund("r-2", "ann", "order-m-1", 30)]).await;
    assert_eq!(rig.ends_as(3, State::Held).await.reason, "behind");
    // The visitor is free by now: the second part waits for the first.
    rig.crash().await;
    rig.services.run("update delivery.retry set next_at = now() where event_offset = 0").await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    rig.reaches("select 10 * count(*) + count(distinct order_key) from delivery.retry", 21).await;
    assert_eq!(rig.ends_as(3, State::Held).await.attempts, 0);
    rig.crash().await;
    rig.services.run("update delivery.retry set next_at = now()").await;
    rig.start().await;
    for offset in [1, 3] {
        rig.ends_as(offset, State::Delivered).await;
    }
    let requests = rig.sandbox.requests(100);
    let left = requests.iter().filter_map(|seen| {
        let body: Value = serde_json::from_str(&seen.body).ok()?;
        body["conversionAdjustments"][0]["restatementValue"]["adjustedValue"].as_i64()
    });
    assert_eq!(left.collect::<Vec<_>>(), [80, 50], "in their order");
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_restatement_at_google_is_not_taken_for_ours() {
    let mut rig = Rig::new("google_ads").await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let another = |code: &str| Fault::PartialFailure {
        indexes: vec![0],
        code: Some(format!("conversionAdjustmentUploadError.{code}")),
    };
    // A lane of another partition tells of another part at that second, and has not committed it yet.
    let at = an_hour_ago("000");
    let part = another("RESTATEMENT_ALREADY_EXISTS");
    rig.sandbox.inject(Platform::GoogleAds, part, How::Times(1));
    rig.resolved(&[refund_at("r-1", "order-m-1", 30, &at)]).await;
    let verdict = rig.ends_as(1, State::Delivered).await;
    assert_eq!((verdict.reason.as_str(), verdict.attempts), ("", 2), "told again, and taken");
    assert_eq!(worth(&rig, Platform::GoogleAds, "order-m-1").0, "70");
    let part = another("MORE_RECENT_RESTATEMENT_FOUND");
    rig.sandbox.inject(Platform::GoogleAds, part, How::Always);
    rig.resolved(&[refund_at("r-2", "order-m-1", 20, &at)]).await;
    let dead = rig.ends_as(2, State::Dead).await;
    assert_eq!((dead.reason.as_str(), dead.attempts), ("retries_exhausted", 5));
    assert!(dead.detail.contains("MORE_RECENT_RESTATEMENT_FOUND"), "{}", dead.detail);
    assert_eq!(rig.number("select refunded::bigint from delivery.order_sent").await, 30, "ours alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_in_another_currency_is_told_to_ga4_and_the_ledger_says_so() {
    let mut rig = Rig::new("ga4_mp").await;
    let mut other = refund("r-1", "ann", "order-m-1", 30);
    other["properties"]["currency"] = json!("EUR");
    rig.resolved(&[order("m-1", "ann"), other]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let verdict = rig.ends_as(1, State::Delivered).await;
    assert_eq!(verdict.reason, "other_currency");
    assert!(verdict.detail.contains("nothing is taken off"), "{}", verdict.detail);
    let orders = OrderStore::new(Index::new(rig.services.database.pool.clone()));
    let known = orders.states(Rig::duty(), &["order-m-1".to_owned()]).await.unwrap();
    assert_eq!(known["order-m-1"].refunded, 0.into());
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

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sale_of_an_order_puts_nothing_back_that_was_taken_off_it() {
    let mut rig = Rig::new("google_data_manager").await;
    let mut again = order("m-2", "bob");
    again["properties"]["order_id"] = json!("order-m-1");
    let back = |message_id: &str, amount: u32| refund(message_id, "ann", "order-m-1", amount);
    // In one range: each is built from what the one before it leaves of the order.
    rig.resolved(&[order("m-1", "ann"), back("r-1", 30), again, back("r-2", 20)]).await;
    rig.start().await;
    for offset in [0, 1, 3] {
        rig.ends_as(offset, State::Delivered).await;
    }
    let second = rig.ends_as(2, State::Filtered).await;
    assert_eq!((second.reason.as_str(), second.attempts), ("order_adjusted", 0));
    let (amount, order) = worth(&rig, Platform::DataManager, "order-m-1");
    assert_eq!((amount.as_str(), order.changes), ("50", 2));
    assert_eq!(rig.number("select refunded::bigint from delivery.order_sent").await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_platform_had_before_is_worth_what_it_was_sold_for_first() {
    let mut rig = Rig::new("google_ads").await;
    // The browser tells of it without its shipping, the shop's server with it; the first counts at Google.
    let mut browser = order("m-1", "ann");
    browser["properties"]["revenue"] = json!(80);
    let mut server = order("m-2", "server");
    server["properties"]["order_id"] = json!("order-m-1");
    rig.resolved(&[browser]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    rig.resolved(&[server]).await;
    assert_eq!(rig.ends_as(1, State::Delivered).await.reason, "delivered_before");
    rig.resolved(&[refund("r-1", "server", "order-m-1", 30)]).await;
    rig.ends_as(2, State::Delivered).await;
    assert_eq!(worth(&rig, Platform::GoogleAds, "order-m-1").0, "50");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_in_the_currency_that_an_order_had_before_its_new_value_is_refused() {
    for kind in ["google_ads", "google_data_manager"] {
        let mut rig = Rig::new(kind).await;
        let mut updated = refund("u-1", "ann", "order-m-1", 108);
        updated["event"] = json!("Order Updated");
        updated["properties"]["currency"] = json!("EUR");
        let mut euros = refund("r-2", "ann", "order-m-1", 20);
        euros["properties"]["currency"] = json!("EUR");
        rig.resolved(&[order("m-1", "ann"), updated, refund("r-1", "ann", "order-m-1", 20), euros]).await;
        rig.start().await;
        for offset in [0, 1, 3] {
            rig.ends_as(offset, State::Delivered).await;
        }
        assert_eq!(rig.ends_as(2, State::Dead).await.reason, "invalid_payload", "{kind}: dollars of euros");
        let orders = OrderStore::new(Index::new(rig.services.database.pool.clone()));
        let known = orders.states(Rig::duty(), &["order-m-1".to_owned()]).await.unwrap();
        let known = &known["order-m-1"];
        assert_eq!((known.value, known.refunded), (Some(108.into()), 20.into()), "{kind}");
        assert_eq!(known.currency.as_deref(), Some("EUR"), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_from_before_a_refund_that_was_told_leaves_the_order_as_it_is() {
    for kind in ["google_ads", "google_data_manager"] {
        let mut rig = Rig::new(kind).await;
        // What it was sold for says nothing new. Another value does, and leaves out the refund.
        let [same, edited] = [("u-1", 100), ("u-2", 140)].map(|(id, value)| {
            let mut late = refund(id, "ann", "order-m-1", value);
            late["event"] = json!("Order Updated");
            late["timestamp"] = json!((jiff::Timestamp::now() - Duration::from_secs(7 * 3_600)).to_string());
            late
        });
        rig.resolved(&[order("m-1", "ann"), refund("r-1", "ann", "order-m-1", 30), same, edited]).await;
        rig.start().await;
        for offset in [0, 1] {
            rig.ends_as(offset, State::Delivered).await;
        }
        assert_eq!(rig.ends_as(2, State::Filtered).await.reason, "order_changed_since", "{kind}");
        assert_eq!(rig.ends_as(3, State::Dead).await.reason, "value_without_refunds", "{kind}");
        let left = "select (value - refunded)::bigint from delivery.order_sent where not restated";
        assert_eq!(rig.number(left).await, 70, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shop_repeats_of_an_order_that_came_back_leaves_it_as_it_is() {
    for (kind, platform) in
        [("google_ads", Platform::GoogleAds), ("google_data_manager", Platform::DataManager)]
    {
        let mut rig = Rig::new(kind).await;
        let updated = |message_id: &str, value: u32| {
            let mut event = refund(message_id, "ann", "order-m-1", value);
            event["event"] = json!("Order Updated");
            event
        };
        let part = refund("r-1", "ann", "order-m-1", 30);
        let shipped = updated("u-1", 100);
        let mut cancelled = refund("c-1", "ann", "order-m-1", 0);
        cancelled["event"] = json!("Order Cancelled");
        let archived = updated("u-2", 100);
        rig.resolved(&[order("m-1", "ann"), part, shipped, cancelled, archived]).await;
        rig.start().await;
        for offset in [0, 1, 3] {
            rig.ends_as(offset, State::Delivered).await;
        }
        for offset in [2, 4] {
            assert_eq!(rig.ends_as(offset, State::Filtered).await.reason, "order_changed_since", "{kind}");
        }
        assert_eq!(worth(&rig, platform, "order-m-1").0, "0", "{kind}");
        // Somebody takes the cancellation back: Google Ads has no way to.
        let mut restated = updated("u-3", 70);
        restated["properties"]["restate"] = json!(true);
        rig.resolved(&[restated]).await;
        if kind == "google_ads" {
            assert_eq!(rig.ends_as(5, State::Filtered).await.reason, "nothing_to_update");
            assert_eq!(worth(&rig, platform, "order-m-1").0, "0");
            assert_eq!(rig.number("select count(*) from delivery.order_sent where all_back").await, 1);
        } else {
            assert_eq!(rig.ends_as(5, State::Delivered).await.reason, "");
            assert_eq!(worth(&rig, platform, "order-m-1").0, "70");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_from_before_a_new_value_that_was_told_is_not_taken_off_twice() {
    for (kind, platform) in
        [("google_ads", Platform::GoogleAds), ("google_data_manager", Platform::DataManager)]
    {
        let mut rig = Rig::new(kind).await;
        let early = refund("r-1", "ann", "order-m-1", 30);
        let mut updated = refund("u-1", "ann", "order-m-1", 70);
        updated["event"] = json!("Order Updated");
        let next = refund("r-2", "ann", "order-m-1", 20);
        rig.resolved(&[order("m-1", "ann"), updated, early, next]).await;
        rig.start().await;
        for offset in [0, 1, 3] {
            rig.ends_as(offset, State::Delivered).await;
        }
        assert_eq!(rig.ends_as(2, State::Filtered).await.reason, "order_changed_since", "{kind}");
        assert_eq!(worth(&rig, platform, "order-m-1").0, "50", "{kind}: 70, and 20 of it came back");
        let left = "select (value - refunded)::bigint from delivery.order_sent where restated_at is not null";
        assert_eq!(rig.number(left).await, 50, "{kind}");
    }
}
