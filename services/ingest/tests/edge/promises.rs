//! What an answer promises: durable, narrowing recorded first, and a repeat told only where nothing new came.

use serde_json::json;
use tracklayer_ids::{Offset, Position};
use tracklayer_journal::claim::{Claim, claim_key};
use tracklayer_proto::event::v1::Event;
use tracklayer_testkit::eventually;

use crate::support::{Bench, Choices, WORKSPACE, batch_of, master_key, post, track};

#[tokio::test]
async fn narrowing_signals_are_in_the_log_under_the_persons_keys() {
    let bench = Bench::start().await;
    let refusal = json!({"consent": {"categoryPreferences": {"Advertising": false}}, "traits": {"email": " A@Example.com "}});
    let event =
        json!({"type": "page", "userId": "u", "anonymousId": "a", "messageId": "m", "context": refusal});
    assert_eq!(bench.post("/v1/batch", batch_of(&[event])).await.rejected(), []);
    let recorded = bench.recorded();
    assert_eq!(recorded.len(), 1);
    let key = master_key().workspace(WORKSPACE);
    let keys: Vec<Vec<u8>> = [("user_id", "u"), ("anonymous_id", "a"), ("email", "a@example.com")]
        .iter()
        .map(|(kind, value)| key.subject(kind, value).0.to_vec())
        .collect();
    assert_eq!(recorded[0].subjects.iter().map(|s| s.key.clone()).collect::<Vec<_>>(), keys);
    assert_eq!(
        (recorded[0].places[0].code.as_str(), recorded[0].places[0].provenance.as_str()),
        ("US-CA", "source_default")
    );
    assert_eq!(recorded[0].message_id, "m");
}

#[tokio::test]
async fn a_repeated_statement_is_recorded_once_and_a_changed_mind_every_time() {
    let bench = Bench::start().await;
    let say = |n: u32, allowed: bool| {
        let context = json!({"consent": {"categoryPreferences": {"Advertising": allowed}}});
        json!({"type": "page", "anonymousId": "a", "messageId": format!("m{n}"), "context": context})
            .to_string()
    };
    for (n, allowed, expected) in [(1, false, 1), (2, false, 1), (3, true, 2), (4, false, 3), (5, false, 3)] {
        bench.post("/v1/p", say(n, allowed)).await;
        assert_eq!(bench.recorded().len(), expected, "after event {n}");
    }
    // Another device says the same: it is somebody else's statement.
    let other = say(6, false).replace("\"a\"", "\"b\"");
    bench.post("/v1/p", other).await;
    assert_eq!(bench.recorded().len(), 4);
    assert_eq!(bench.journal().await.len(), 6);
}

#[tokio::test]
async fn a_change_of_mind_within_one_batch_is_recorded() {
    let bench = Bench::start().await;
    let say = |n: u32, allowed: bool| {
        let context = json!({"consent": {"categoryPreferences": {"Advertising": allowed}}});
        json!({"type": "page", "anonymousId": "a", "messageId": format!("m{n}"), "context": context})
    };
    bench.post("/v1/batch", batch_of(&[say(1, false), say(2, false), say(3, true), say(4, false)])).await;
    let recorded: Vec<String> = bench.recorded().into_iter().map(|item| item.message_id).collect();
    assert_eq!(recorded, ["m1", "m3", "m4"]);
    bench.post("/v1/batch", batch_of(&[say(5, true)])).await;
    bench.post("/v1/batch", batch_of(&[say(6, false)])).await;
    assert_eq!(bench.recorded().len(), 5);
}

#[tokio::test]
async fn a_category_that_is_left_out_is_recorded_and_a_map_of_all_only_while_the_banner_is_learned() {
    let bench = Bench::start().await;
    let say = |who: &str, n: u32, categories: serde_json::Value| {
        let context = json!({"consent": {"categoryPreferences": categories}});
        json!({"type": "page", "anonymousId": who, "messageId": format!("{who}{n}"), "context": context})
    };
    let all = json!({"C0001": true, "C0004": true});
    // Advertising was allowed, and now is not even named.
    let turned_off = [say("a", 1, all.clone()), say("a", 2, json!({"C0001": true}))];
    bench.post("/v1/batch", batch_of(&turned_off)).await;
    let recorded: Vec<usize> =
        bench.recorded().iter().map(|item| item.signals.as_ref().unwrap().categories.len()).collect();
    assert_eq!(recorded, [2, 1]);

    let learned: Vec<_> = (0..1_000).map(|n| say("b", n, all.clone())).collect();
    bench.post("/v1/batch", batch_of(&learned)).await;
    let so_far = bench.recorded().len();
    assert_eq!(so_far, 3, "the repeats of one visitor are one statement");
    for (n, categories, expected) in [
        (1, all.clone(), 0),
        (2, json!({"C0001": true}), 1),
        (3, all.clone(), 1),
        (4, json!({"C0001": true}), 2),
        (5, json!({"C0001": true}), 2),
    ] {
        bench.post("/v1/p", say("c", n, categories).to_string()).await;
        assert_eq!(bench.recorded().len(), so_far + expected, "after event {n}");
    }
    // A map that nobody chose takes a grant away.
    let mut unchosen = say("d", 1, all);
    unchosen["context"]["consent"]["interaction"] = json!(false);
    bench.post("/v1/p", unchosen.to_string()).await;
    assert_eq!(bench.recorded().len(), so_far + 3);
}

#[tokio::test]
async fn a_change_of_mind_beside_a_slow_log_is_not_taken_for_a_repeat() {
    let bench = Bench::start().await;
    let say = |who: &str, n: u32, allowed: bool| {
        let context = json!({"consent": {"categoryPreferences": {"Advertising": allowed}}});
        json!({"type": "page", "anonymousId": who, "messageId": format!("{who}{n}"), "context": context})
    };
    let learned: Vec<_> = (0..1_000).map(|n| say("b", n, true)).collect();
    bench.post("/v1/batch", batch_of(&learned)).await;
    assert_eq!(bench.recorded().len(), 1);
    let slow = bench.consent.slow.write().await;
    let refusal = post("/v1/p", say("a", 1, false).to_string()).body_is_done();
    let refusal = tokio::spawn(tower::ServiceExt::oneshot(bench.edge.clone(), refusal));
    eventually("the log has the refusal", async || (bench.recorded().len() == 2).then_some(())).await;
    // While that waits for its answer, the visitor allows it, which needs no log.
    assert_eq!(bench.post("/v1/p", say("a", 2, true).to_string()).await.status, 200);
    drop(slow);
    assert_eq!(refusal.await.unwrap().unwrap().status(), 200);
    bench.post("/v1/p", say("a", 3, false).to_string()).await;
    assert_eq!(bench.recorded().len(), 3, "the second refusal is news");
}

#[tokio::test]
async fn unreadable_consent_narrows_and_is_stored_as_unreadable() {
    let bench = Bench::start().await;
    let event =
        json!({"type": "page", "anonymousId": "a", "messageId": "m", "context": {"consent": "everything"}});
    assert_eq!(bench.post("/v1/batch", batch_of(&[event])).await.rejected(), []);
    assert!(bench.recorded()[0].signals.as_ref().unwrap().unreadable);
    assert!(bench.journal().await[0].consent.as_ref().unwrap().unreadable);
}

/// Puts the claim of the first stored event into Redis, as delivery does when it resolves it.
async fn claim(bench: &Bench, event: &Event) {
    claim_at(bench, event, bench.first_position().await).await;
}

async fn claim_at(bench: &Bench, event: &Event, position: Position) {
    let claim = Claim::of(event, position);
    let client = redis::Client::open(bench.redis.as_ref().unwrap().url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let set: () = redis::cmd("SET")
        .arg(claim_key(WORKSPACE, &event.message_id))
        .arg(claim.encode())
        .query_async(&mut connection)
        .await
        .unwrap();
    set
}

#[tokio::test]
async fn a_repeat_is_answered_without_being_stored_and_news_are_stored() {
    let bench = Bench::with(Choices { redis: true, ..Choices::default() }).await;
    let body = batch_of(&[track("m")]);
    assert_eq!(bench.post("/v1/batch", body.clone()).await.rejected(), []);
    claim(&bench, &bench.journal().await[0].clone()).await;

    assert_eq!(bench.post("/v1/batch", body.clone()).await.rejected(), []);
    assert_eq!(bench.journal().await.len(), 1, "the very same again is not stored");

    let gpc = post("/v1/batch", body.clone()).with("sec-gpc", "1").body_is_done();
    assert_eq!(bench.send(gpc).await.rejected(), []);
    assert_eq!(bench.journal().await.len(), 2, "another signal is stored");
    assert_eq!(bench.recorded().len(), 1);

    let twin = json!({"writeKey": crate::support::SERVER_KEY, "batch": [track("m")]}).to_string();
    let twin = post("/v1/batch", twin).without("authorization").body_is_done();
    assert_eq!(bench.send(twin).await.rejected(), []);
    assert_eq!(bench.journal().await.len(), 3, "the server's twin is stored");
}

#[tokio::test]
async fn a_repeat_of_what_the_journal_has_lost_is_stored() {
    let bench = Bench::with(Choices { redis: true, ..Choices::default() }).await;
    let body = batch_of(&[track("m")]);
    assert_eq!(bench.post("/v1/batch", body.clone()).await.rejected(), []);
    let (stored, first) = (bench.journal().await[0].clone(), bench.first_position().await);
    // As after a failover that lost the tail: the claim stands, and the partition ends before it.
    claim_at(&bench, &stored, Position { offset: Offset(1), ..first }).await;
    assert_eq!(bench.post("/v1/batch", body.clone()).await.rejected(), []);
    assert_eq!(bench.journal().await.len(), 2, "nothing stood there when it was asked");

    // What stands before the end of a generation that has ended is there.
    sqlx::query("update journal.history set timeline = 'of the one before'")
        .execute(&bench.database.pool)
        .await
        .unwrap();
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("n")])).await.rejected(), []);
    assert_eq!(bench.journal().await.len(), 3);
    for (position, then) in [(first, 3), (Position { offset: Offset(2), ..first }, 4)] {
        claim_at(&bench, &stored, position).await;
        assert_eq!(bench.post("/v1/batch", body.clone()).await.rejected(), []);
        assert_eq!(bench.journal().await.len(), then, "claimed at {position}");
    }
}

#[tokio::test]
async fn with_the_dedup_store_away_repeats_are_stored() {
    let bench = Bench::with(Choices { redis: true, ..Choices::default() }).await;
    let body = batch_of(&[track("m")]);
    bench.post("/v1/batch", body.clone()).await;
    claim(&bench, &bench.journal().await[0].clone()).await;
    let Bench { redis, edge, database, .. } = bench;
    // Dropping it only asks the server to end: it must be gone before the look.
    redis.unwrap().server.stop().await.unwrap();
    let answer = tower::ServiceExt::oneshot(edge, post("/v1/batch", body).body_is_done()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let stored: i64 = sqlx::query_scalar("select sum(event_count)::bigint from journal.received")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(stored, 2);
}

#[tokio::test]
async fn one_visitors_events_are_in_one_partition_and_in_order() {
    let bench = Bench::start().await;
    for n in 0..20 {
        let event = json!({"type": "page", "anonymousId": "a", "userId": format!("u{n}"), "messageId": format!("m{n:02}")});
        bench.post("/v1/p", event.to_string()).await;
    }
    let ids: Vec<String> = bench.journal().await.into_iter().map(|event| event.message_id).collect();
    assert_eq!(ids, (0..20).map(|n| format!("m{n:02}")).collect::<Vec<_>>());
    let partitions: i64 = sqlx::query_scalar("select count(distinct partition) from journal.received")
        .fetch_one(&bench.database.pool)
        .await
        .unwrap();
    assert_eq!(partitions, 1);
}

#[tokio::test]
async fn a_senders_trace_is_stored_with_the_event_and_an_unsampled_one_is_not() {
    let bench = Bench::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
    let sampled = post("/v1/t", track("sampled").to_string()).with("traceparent", &format!("{trace}-01"));
    bench.send(sampled.body_is_done()).await;
    let unsampled = post("/v1/t", track("unsampled").to_string()).with("traceparent", &format!("{trace}-00"));
    bench.send(unsampled.body_is_done()).await;
    let stored = bench.journal().await;
    let of = |id: &str| stored.iter().find(|event| event.message_id == id).unwrap().traceparent.clone();
    assert!(of("sampled").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    assert_eq!(of("unsampled"), "");
}
