//! What is foretold of a release, and what then becomes of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tracklayer_delivery::forecast::{Expiring, ForecastError, Page};
use tracklayer_delivery::ledger::State;
use tracklayer_ids::ConnectionId;
use tracklayer_sandbox::Platform;

use super::operators::{around_now, holds_as};
use super::rig::{CONNECTION, Rig, order};
use crate::services::WORKSPACE;

const HOUR: Duration = Duration::from_secs(3_600);

/// An order that happened so long ago.
fn aged(message_id: &str, visitor: &str, age: SignedDuration) -> Value {
    let mut event = order(message_id, visitor);
    event["timestamp"] = json!((Timestamp::now() - age).to_string());
    event
}

/// All pages together, of so many events each; how many there were.
async fn forecast(rig: &Rig, page_events: usize, release_at: Option<Timestamp>) -> (Page, usize) {
    let forecaster = rig.forecaster(page_events);
    let now = rig.clock.now();
    let page = async |from| forecaster.page(WORKSPACE, CONNECTION, release_at, from, now).await.unwrap();
    let (mut all, mut pages) = (page(None).await, 1);
    while let Some(next) = all.next {
        let more = page(Some(next)).await;
        pages += 1;
        all.named.extend(more.named);
        all.examined += more.examined;
        all.expiring += more.expiring;
        all.looked_at += more.looked_at;
        all.last_at = all.last_at.max(more.last_at);
        all.next = more.next;
    }
    (all, pages)
}

fn told(page: &Page) -> Vec<(&str, &str)> {
    page.named.iter().map(|Expiring { message_id, code, .. }| (message_id.as_str(), *code)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_freeze_makes_too_old_is_named_beforehand_and_nothing_else() {
    let mut rig = Rig::new("meta_capi").await;
    let (week, minutes) = (SignedDuration::from_hours(7 * 24), SignedDuration::from_mins);
    let mut unwanted = aged("not-wanted", "eve", week - minutes(30));
    unwanted["type"] = json!("identify");
    rig.resolved(&[
        aged("too-old-after-it", "ann", week - minutes(30)),
        order("fresh", "bob"),
        aged("just-young-enough", "cyd", week - minutes(70)),
        unwanted,
    ])
    .await;
    rig.resolved(&[aged("too-old-after-it-too", "ann", week - minutes(4)), order("fresh-too", "bob")]).await;
    let before = forecast(&rig, 1_000, None).await.0;
    assert_eq!(told(&before), [], "nothing holds it, and nothing is to come");

    // Before there is a freeze, by the time when it would end.
    let end = Timestamp::now() + SignedDuration::from_hours(1);
    let expected = [("too-old-after-it", "event_too_old"), ("too-old-after-it-too", "event_too_old")];
    assert_eq!(told(&forecast(&rig, 1_000, Some(end)).await.0), expected);

    rig.control_says(|_, freezes| freezes.push(around_now()));
    rig.start().await;
    holds_as(&rig, "frozen").await;
    for (page_events, pages) in [(1_000, 1), (1, 2)] {
        let (page, seen) = forecast(&rig, page_events, None).await;
        assert_eq!(told(&page), expected);
        assert_eq!((page.expiring, page.looked_at, seen), (2, 6, pages));
        assert_eq!(page.shortest_age_limit, Some(week));
        let first = &page.named[0];
        assert!(first.event_time < first.expires_at && first.expires_at < first.sent_at);
        assert_eq!(first.sent_at, page.outlook.release_at);
    }

    rig.clock.advance(HOUR + Duration::from_secs(2));
    rig.takes(Platform::Meta, 3).await;
    for (offset, dead) in [(0, true), (1, false), (2, false), (4, true), (5, false)] {
        let verdict = rig.ends_as(offset, if dead { State::Dead } else { State::Delivered }).await;
        assert_eq!(verdict.reason == "event_too_old", dead, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_others_at_the_pace_goes_out_so_much_later() {
    let week = SignedDuration::from_hours(7 * 24);
    // Twenty go out before the last one, in ten seconds; it can be sent for five more, and then for fifteen: what Meta takes it for
    // is two minutes longer, which are for its way.
    for (left, expires) in [(125, true), (135, false)] {
        let mut events: Vec<Value> = (0..20).map(|n| order(&format!("m-{left}-{n}"), "ann")).collect();
        events.push(aged(&format!("last-{left}"), "ann", week - SignedDuration::from_secs(left)));
        let mut rig = Rig::new("meta_capi").await;
        rig.control_says(|connection, _| connection.release_events_per_second = Some(2));
        rig.resolved(&events[..11]).await;
        rig.resolved(&events[11..]).await;
        let now = Timestamp::now();
        for page_events in [1_000, 1] {
            let page = forecast(&rig, page_events, Some(now)).await.0;
            assert_eq!(page.expiring, u64::from(expires), "{left} s left: {:?}", page.named);
            let goes_out = page.last_at.unwrap().duration_since(page.outlook.release_at);
            assert_eq!(goes_out, SignedDuration::from_secs(10));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_that_the_platform_forgets_meanwhile_is_foretold_too() {
    let rig = Rig::new("meta_capi").await;
    rig.due_again(&[order("again", "ann"), order("again-too", "bob")]).await;
    rig.resolved(&[order("intended", "cyd"), order("fresh", "dan")]).await;
    // Meta recognises an id for 48 hours, of which a tenth is kept back: 43 hours and 12 minutes.
    rig.services
        .run(
            "update delivery.retry set first_sent_at = now() - interval '43 hours' where event_offset = 0;
             insert into delivery.intent (workspace_id, connection_id, partition, intent_id, epoch, generation, event_offsets, started_at)
             values (1, 7, 0, gen_random_uuid(), 1, 1, '{2}', now() - interval '43 hours');",
        )
        .await;
    assert_eq!(told(&forecast(&rig, 1_000, None).await.0), []);
    let in_an_hour = Some(Timestamp::now() + SignedDuration::from_hours(1));
    let page = forecast(&rig, 1_000, in_an_hour).await.0;
    assert_eq!(told(&page), [("again", "outcome_unknown"), ("intended", "outcome_unknown")]);
    assert_eq!((page.retrying, page.examined), (2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_connection_that_is_not_there_nothing_is_foretold() {
    let rig = Rig::new("meta_capi").await;
    let asked = rig.forecaster(1).page(WORKSPACE, ConnectionId(8), None, None, Timestamp::now()).await;
    assert!(matches!(asked, Err(ForecastError::NoConnection(ConnectionId(8)))), "{asked:?}");
}
