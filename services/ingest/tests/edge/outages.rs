//! What is away or too much is told so that every SDK comes back, and nothing is refused that could be delivered later.

use std::sync::atomic::Ordering;

use axum::body::Body;
use futures::FutureExt as _;
use http::Request;
use serde_json::json;

use tracklayer_ids::{Position, SourceId, WorkspaceId};
use tracklayer_ingest::admission::Holder;
use tracklayer_journal::{Journal as _, PostgresJournal};
use tracklayer_testkit::eventually_seen;

use crate::support::{
    Bench, Choices, SERVER_KEY, WORKSPACE, batch_of, configuration, get, gzip, post, track, unread,
};

#[tokio::test]
async fn without_configuration_it_is_503_and_never_401() {
    let bench = Bench::with(Choices { configured: false, ..Choices::default() }).await;
    let wrong_key = post("/v1/batch", "{}").without("authorization").with("authorization", "Basic bm9wZTo=");
    for request in [post("/v1/batch", batch_of(&[track("m")])), post("/v1/t", "{}"), wrong_key] {
        let answer = bench.send(request.body_is_done()).await;
        assert_eq!(answer.refusal(), (503, "no_configuration".to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(bench.send(get("/v1/projects/wk_test/settings")).await.status, 503);
    bench.config.send(configuration());
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("m")])).await.rejected(), []);
}

#[tokio::test]
async fn too_many_bytes_in_flight_are_429_with_retry_after() {
    let bench = Bench::with(Choices { in_flight_bytes: 2_000_000, ..Choices::default() }).await;
    // Two of unknown length reserve what a whole batch takes each; the first never ends.
    let (sender, stuck) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let stuck = axum::body::Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(stuck));
    let edge = bench.edge.clone();
    let first = tokio::spawn(tower::ServiceExt::oneshot(edge, post("/v1/batch", stuck).body_is_done()));
    sender.send(Ok(bytes::Bytes::from_static(b"{"))).await.unwrap();
    // Room for the second message means that the first was taken: the request is being read.
    let rest = sender.reserve().await.unwrap();

    let refused = bench.post("/v1/batch", batch_of(&[track("m")])).await;
    assert_eq!(refused.refusal(), (429, "overloaded".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");

    rest.send(Ok(bytes::Bytes::from(batch_of(&[track("first")]).split_off(1))));
    drop(sender);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("m")])).await.rejected(), []);
}

#[tokio::test]
async fn a_journal_over_its_budget_is_429_with_retry_after_until_days_of_it_are_dropped() {
    let journal_budget = 2_000_000;
    let bench = Bench::with(Choices { journal_budget, ..Choices::default() }).await;
    let journal = PostgresJournal::new(bench.database.pool.clone());
    tokio::spawn(bench.ingest.budget.clone().watch(journal.clone().into(), bench.stop.clone()));
    let old = "create table journal.received_20200101 partition of journal.received
                   for values from ('2020-01-01') to ('2020-01-02');
               insert into journal.received
               values (1, 0, 1, 0, 1, '2020-01-01', default, '', convert_to(repeat('x', 2500000), 'utf8'))";
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("m-1")])).await.rejected(), []);
    // Nothing of it is unread: it is kept for longer than it should be.
    let read =
        "insert into journal.read_place select workspace_id, partition, generation, 1000 from journal.head";
    sqlx::raw_sql(read).execute(&bench.database.pool).await.unwrap();
    sqlx::raw_sql(old).execute(&bench.database.pool).await.unwrap();
    eventually_seen("the journal to be found full", async || {
        let answer = bench.post("/v1/batch", batch_of(&[track("m-2")])).await;
        if answer.status == 429 { Ok(answer) } else { Err(answer.status) }
    })
    .await;
    let refused = bench.post("/v1/batch", batch_of(&[track("m-3")])).await;
    assert_eq!(refused.refusal(), (429, "journal_full".to_owned()));
    assert_eq!(refused.header("retry-after"), "15");
    sqlx::raw_sql("drop table journal.received_20200101").execute(&bench.database.pool).await.unwrap();
    eventually_seen("events to be accepted again", async || {
        let answer = bench.post("/v1/batch", batch_of(&[track("m-4")])).await;
        if answer.status == 200 { Ok(answer) } else { Err(answer.status) }
    })
    .await;
    let ids = bench.stored_ids().await;
    assert!(!ids.contains(&"m-3".to_owned()) && ids.contains(&"m-4".to_owned()), "{ids:?}");
}

/// A block of a thousand events and so many bytes comes to partition 0; answers where it ends.
async fn receive_a_thousand(bench: &Bench, bytes: i32) -> u64 {
    let behind: i64 = sqlx::query_scalar(
        "with head as (
             update journal.head set next_offset = next_offset + 1000 where workspace_id = $1 and partition = 0
             returning generation, next_offset
         ),
         block as (
             insert into journal.received
                 (workspace_id, partition, generation, base_offset, event_count, header, payload)
             select $1, 0, generation, next_offset - 1000, 1000, ''::bytea,
                    convert_to(repeat('x', $2), 'utf8')
             from head
         )
         select next_offset from head",
    )
    .bind(WORKSPACE.0)
    .bind(bytes)
    .fetch_one(&bench.database.pool)
    .await
    .unwrap();
    u64::try_from(behind).unwrap()
}

#[tokio::test]
async fn a_backlog_of_today_is_429_with_retry_after_until_enough_of_it_is_read() {
    let bench = Bench::with(Choices { journal_budget: 2_000_000, ..Choices::default() }).await;
    let journal = PostgresJournal::new(bench.database.pool.clone());
    let send = async || {
        assert!(bench.ingest.budget.look(&journal).await.unwrap());
        bench.post("/v1/batch", batch_of(&[track("m")])).await
    };
    let read = async |offset| {
        journal.tell_read(&[(WORKSPACE, Position::new(1, 0, offset).into())]).await.unwrap();
    };
    assert_eq!(send().await.status, 200);
    let half = receive_a_thousand(&bench, 1_200_000).await;
    assert_eq!(send().await.status, 200);
    let all = receive_a_thousand(&bench, 1_200_000).await;
    let refused = send().await;
    assert_eq!(refused.refusal(), (429, "journal_full".to_owned()), "nobody has read anything");
    assert_eq!(refused.header("retry-after"), "15");
    read(0).await;
    assert_eq!(send().await.status, 429, "and whoever has begun to says so");
    read(half).await;
    assert_eq!(send().await.status, 200, "half of it is read, and today stays on the disk");
    read(all).await;
    let more = receive_a_thousand(&bench, 1_200_000).await;
    assert_eq!(send().await.status, 200);
    receive_a_thousand(&bench, 1_200_000).await;
    assert_eq!(send().await.status, 429, "whoever read tells nothing any more: what comes is unread");
    read(more).await;
    assert_eq!(send().await.status, 200);
}

#[tokio::test]
async fn what_is_kept_on_purpose_makes_nobody_come_back() {
    let bench = Bench::with(Choices { journal_budget: 2_000_000, ..Choices::default() }).await;
    let journal = PostgresJournal::new(bench.database.pool.clone());
    // Today's day is kept until it is over, and what is resolved as long as its claims.
    let kept = "create schema delivery;
                create table delivery.resolved (payload bytea, day date default now()) partition by range (day);
                create table delivery.resolved_default partition of delivery.resolved default;
                alter table delivery.resolved_default alter column payload set storage external;
                insert into delivery.resolved (payload) values (convert_to(repeat('x', 2500000), 'utf8'));
                insert into journal.received
                values (1, 0, 1, 0, 1, default, default, '', convert_to(repeat('x', 2500000), 'utf8'));
                insert into journal.head values (1, 0, 1, 1);
                insert into journal.read_place values (1, 0, 1, 1)";
    sqlx::raw_sql(kept).execute(&bench.database.pool).await.unwrap();
    assert!(bench.ingest.budget.look(&journal).await.unwrap());
    bench.ingest.budget.admit().unwrap();
    // A late day of less than the budget: what is resolved does not count towards it.
    let late = "delete from journal.received;
                create table journal.received_20200101 partition of journal.received
                    for values from ('2020-01-01') to ('2020-01-02');
                vacuum full journal.received";
    for statement in late.split(';') {
        sqlx::query(statement).execute(&bench.database.pool).await.unwrap();
    }
    assert!(bench.ingest.budget.look(&journal).await.unwrap());
    bench.ingest.budget.admit().unwrap();
}

#[tokio::test]
async fn an_opt_out_is_recorded_though_the_journal_is_full() {
    let bench = Bench::with(Choices { journal_budget: 1_000, ..Choices::default() }).await;
    bench.ingest.budget.measured(&unread(1_001));
    let narrowing = post("/v1/t", track("narrowing").to_string()).with("sec-gpc", "1");
    let refused = bench.send(narrowing.body_is_done()).await;
    assert_eq!(refused.refusal(), (429, "journal_full".to_owned()));
    assert_eq!(bench.recorded().len(), 1);
    assert!(bench.stored_ids().await.is_empty());
}

#[tokio::test]
async fn requests_of_an_unknown_source_leave_room_for_a_known_one() {
    let bench = Bench::with(Choices { in_flight_requests: 10, ..Choices::default() }).await;
    let mut never_ending = Vec::new();
    for _ in 0..8 {
        let (sender, body) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
        let body = axum::body::Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
        let request = post("/v1/batch", body).without("authorization").body_is_done();
        tokio::spawn(tower::ServiceExt::oneshot(bench.edge.clone(), request));
        sender.send(Ok(bytes::Bytes::from_static(b"{"))).await.unwrap();
        // Room for the second message means that the first was taken: the request is being read.
        drop(sender.reserve().await.unwrap());
        never_ending.push(sender);
    }
    let without_key = post("/v1/batch", batch_of(&[track("m")])).without("authorization").body_is_done();
    assert_eq!(bench.send(without_key).await.refusal(), (429, "overloaded".to_owned()));
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("m")])).await.rejected(), []);
}

#[tokio::test]
async fn a_source_that_floods_is_429_and_another_of_its_workspace_gets_in() {
    let bench = Bench::start().await;
    let browser = Holder::Source(WORKSPACE, SourceId(1));
    let flood: Vec<_> = std::iter::from_fn(|| bench.ingest.admission.admit(browser, 1).ok()).collect();
    let refused = bench.post("/v1/batch", batch_of(&[track("m-1")])).await;
    assert_eq!(refused.refusal(), (429, "overloaded".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    let purchase = json!({"writeKey": SERVER_KEY, "batch": [track("m-2")]}).to_string();
    let taken = bench.send(post("/v1/batch", purchase).without("authorization").body_is_done()).await;
    assert_eq!(taken.rejected(), []);
    drop(flood);
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("m-3")])).await.rejected(), []);
    // Without another source that is enabled it may have all that its workspace may have.
    let mut alone = configuration();
    alone.version += 1;
    alone.workspaces[0].sources[1].enabled = false;
    bench.config.send(alone);
    let flood: Vec<_> = std::iter::from_fn(|| bench.ingest.admission.admit(browser, 1).ok()).collect();
    assert_eq!(bench.post("/v1/batch", batch_of(&[track("m-4")])).await.rejected(), []);
    drop(flood);
}

#[tokio::test]
async fn what_becomes_large_only_here_is_counted_as_large() {
    let bench = Bench::with(Choices { in_flight_bytes: 2_000_000, ..Choices::default() }).await;
    // No header says that it is packed, and it unpacks to a whole batch.
    let packed = gzip(batch_of(&[track("packed")]).as_bytes());
    let packed =
        |length: usize| post("/v1/batch", packed.clone()).with("content-length", &length.to_string());
    let held = bench.ingest.admission.admit(Holder::Unknown, 1_600_000).unwrap();
    let refused = bench.send(packed(300).body_is_done()).await;
    assert_eq!(refused.refusal(), (429, "overloaded".to_owned()));
    drop(held);
    assert_eq!(bench.send(packed(300).body_is_done()).await.rejected(), []);
    // The batch's context goes into each of its events.
    let page = |n: usize| json!({"type": "page", "userId": "u", "messageId": format!("m{n}")});
    let batch = |events: usize, bytes: usize| {
        let events: Vec<_> = (0..events).map(page).collect();
        json!({"batch": events, "context": {"x": "x".repeat(bytes)}}).to_string()
    };
    assert_eq!(bench.post("/v1/batch", batch(1_000, 3_000)).await.refusal(), (429, "overloaded".to_owned()));
    assert_eq!(
        bench.post("/v1/batch", batch(1_000, 30_000)).await.refusal(),
        (400, "batch_too_large".to_owned())
    );
    assert_eq!(bench.post("/v1/batch", batch(10, 3_000)).await.rejected(), []);
}

#[tokio::test]
async fn a_body_that_is_slow_or_breaks_off_is_503_and_nothing_that_an_sdk_drops() {
    let bench =
        Bench::with(Choices { body_timeout: std::time::Duration::from_millis(50), ..Choices::default() })
            .await;
    let (_never, slow) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let slow = axum::body::Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(slow));
    let broken = [Ok(bytes::Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))];
    let broken = axum::body::Body::from_stream(tokio_stream::iter(broken));
    for (body, code) in [(slow, "body_timeout"), (broken, "incomplete_body")] {
        let answer = bench.post("/v1/batch", body).await;
        assert_eq!(answer.refusal(), (503, code.to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
    }
}

#[tokio::test]
async fn a_source_over_its_rate_is_429_and_another_is_not() {
    let bench = Bench::with(Choices { events_per_second: 2, ..Choices::default() }).await;
    let events = batch_of(&[track("1"), track("2")]);
    assert_eq!(bench.post("/v1/batch", events.clone()).await.rejected(), []);
    let refused = bench.post("/v1/batch", events).await;
    assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    let other = json!({"writeKey": SERVER_KEY, "batch": [track("3")]}).to_string();
    let other = bench.send(post("/v1/batch", other).without("authorization").body_is_done()).await;
    assert_eq!(other.rejected(), []);
}

#[tokio::test]
async fn a_refusal_counts_for_the_workspace_that_the_body_names() {
    let bench = Bench::with(Choices { events_per_second: 2, ..Choices::default() }).await;
    let batch = json!({"writeKey": SERVER_KEY, "batch": [track("1"), track("2")]}).to_string();
    let mut single = track("3");
    single["writeKey"] = json!(SERVER_KEY);
    let mut refused = 0;
    for _ in 0..25 {
        for (path, body) in [("/v1/batch", batch.clone()), ("/v1/track", single.to_string())] {
            let answer = bench.send(post(path, body).without("authorization").body_is_done()).await;
            refused += usize::from(answer.status == 429);
        }
    }
    assert!(refused >= 25, "{refused}");
    // Those whose workspace nobody knows are told at once, as if nothing had been refused.
    let told = || bench.ingest.refusals.pace(Holder::Unknown).now_or_never().is_some();
    assert!((0..=50).all(|_| told()));
}

/// Sends one after the other, and answers whether their workspace is to give way to one that is there and does next to nothing.
async fn gives_way_after(requests: usize, request: impl Fn() -> Request<Body>) -> bool {
    let bench = Bench::with(Choices { rejected_per_hour: 0, ..Choices::default() }).await;
    for _ in 0..requests {
        bench.send(request()).await;
    }
    bench.ingest.headroom.did(WorkspaceId(WORKSPACE.0 + 1), 1, 0);
    bench.ingest.headroom.gives_way(|workspace| workspace == WORKSPACE)
}

#[tokio::test]
async fn many_small_requests_are_much_whatever_they_bring() {
    // Of 700 bytes each, and without the name that an event has to have: what is rejected has cost as much.
    let nameless = json!({"userId": "u", "properties": {"x": "x".repeat(660)}}).to_string();
    let single = || post("/v1/track", nameless.clone()).body_is_done();
    assert!((690..710).contains(&nameless.len()));
    assert!(gives_way_after(1_000, single).await);
    assert!(gives_way_after(1_000, || get("/v1/pixel/track?userId=u&writeKey=wk_test")).await);
    // Of some 120,000 bytes together, which let expect 120 events.
    let tiny = vec![json!({"type": "track", "userId": "u", "a": "aaaaaaaaaa"}); 2_500];
    assert!(gives_way_after(1, || post("/v1/batch", batch_of(&tiny)).body_is_done()).await);
    assert!(!gives_way_after(1, single).await);
}

#[tokio::test]
async fn a_large_request_of_nobody_knows_whom_gives_way_only_beside_somebody_else() {
    let bench = Bench::start().await;
    let thread = async || {
        let work = async { std::thread::current().name().map(str::to_owned) };
        bench.ingest.work_on(None, 100_000, work).await
    };
    let here = std::thread::current().name().map(str::to_owned);
    bench.ingest.tell_of(WORKSPACE, 1_000_000);
    assert_eq!(thread().await, here, "the workspace that is there may be its own");
    bench.ingest.tell_of(WorkspaceId(WORKSPACE.0 + 1), 1_000);
    assert_eq!(thread().await.as_deref(), Some("large-work"));
}

#[tokio::test]
async fn a_database_that_is_away_is_503_with_retry_after() {
    let bench = Bench::start().await;
    bench.database.pool.close().await;
    let answer = bench.post("/v1/batch", batch_of(&[track("m")])).await;
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned()));
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn with_the_consent_log_away_only_requests_that_narrow_are_refused() {
    let bench = Bench::start().await;
    bench.consent.away.store(true, Ordering::SeqCst);
    let narrowing = post("/v1/t", track("narrowing").to_string()).with("sec-gpc", "1");
    let refused = bench.send(narrowing.body_is_done()).await;
    assert_eq!(refused.refusal(), (503, "unavailable".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(bench.post("/v1/t", track("silent").to_string()).await.status, 200);
    assert_eq!(bench.stored_ids().await, ["silent"]);
    // The log is back: the same event is taken and recorded.
    bench.consent.away.store(false, Ordering::SeqCst);
    let again = post("/v1/t", track("narrowing").to_string()).with("sec-gpc", "1");
    assert_eq!(bench.send(again.body_is_done()).await.status, 200);
    assert_eq!(bench.recorded().len(), 1);
    assert_eq!(bench.stored_ids().await, ["narrowing", "silent"]);
}
