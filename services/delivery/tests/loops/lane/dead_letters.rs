//! Dead letters end: with their person, and with time. Over the real PostgreSQL and consent.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tracklayer_delivery::dead_letters::DeadLetters;
use tracklayer_delivery::follower::Follower;
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::narrowing::NarrowingTail;
use tracklayer_delivery::store::dead_letters::DeadLetterStore;

use super::golden::names;
use super::rig::{Rig, order};

const LETTERS: &str = "select count(*) from delivery.dead_letter";

/// An order that no platform takes.
fn worthless(message_id: &str, visitor: &str) -> Value {
    let mut event = order(message_id, visitor);
    event["properties"] = json!({ "order_id": format!("order-{message_id}"), "currency": "USD" });
    event
}

/// A lane with a dead letter of each visitor.
async fn of_visitors(visitors: &[&str]) -> Rig {
    let mut rig = Rig::new("meta_capi").await;
    let events: Vec<Value> =
        visitors.iter().map(|visitor| worthless(&format!("m-{visitor}"), visitor)).collect();
    rig.resolved(&events).await;
    rig.start().await;
    rig.reaches(LETTERS, i64::try_from(visitors.len()).unwrap()).await;
    rig
}

fn follower(rig: &Rig) -> Follower<DeadLetters> {
    let store = DeadLetterStore::new(rig.services.database.pool.clone());
    let narrowing = NarrowingTail::new(rig.services.clients.consent.clone());
    Follower::new(DeadLetters { store, kept_days: 30 }, narrowing)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_takes_the_dead_letters_of_its_person_and_the_ledger_keeps_its_word() {
    let rig = of_visitors(&["ann", "bob", "cat"]).await;
    names(&rig, "erasure", &["ann"]).await;
    // Cat's profile is known by another name by the time that she is erased.
    names(&rig, "merge", &["cat", "cats-profile"]).await;
    names(&rig, "erasure", &["cats-profile"]).await;
    follower(&rig).round(Timestamp::now()).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar("select message_id from delivery.dead_letter")
        .fetch_all(&rig.services.database.pool)
        .await
        .unwrap();
    assert_eq!(left, ["m-bob"]);
    for offset in 0..3 {
        assert_eq!(rig.ends_as(offset, State::Dead).await.reason, "missing_value");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_an_older_process_goes_with_its_person_as_well() {
    let rig = of_visitors(&["ann", "bob"]).await;
    // Nothing was filed yet, nor anything applied.
    rig.services.run("update delivery.dead_letter set subject_keys = null").await;
    rig.services.run("delete from delivery.dead_letter_narrowing").await;
    names(&rig, "erasure", &["ann"]).await;
    follower(&rig).round(Timestamp::now()).await.unwrap();
    assert_eq!(rig.number(LETTERS).await, 1);
    assert_eq!(rig.number("select count(*) from delivery.dead_letter where message_id = 'm-bob'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_kept_for_as_long_as_the_setting_says() {
    let rig = of_visitors(&["ann", "bob"]).await;
    let days_on = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
    follower(&rig).round(days_on(29)).await.unwrap();
    assert_eq!(rig.number(LETTERS).await, 2);
    rig.services
        .run("update delivery.dead_letter set died_at = now() + interval '2 days' where message_id = 'm-bob'")
        .await;
    follower(&rig).round(days_on(31)).await.unwrap();
    assert_eq!(rig.number("select count(*) from delivery.dead_letter where message_id = 'm-bob'").await, 1);
    assert_eq!(rig.number(LETTERS).await, 1);
}
