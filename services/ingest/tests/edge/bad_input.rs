//! Bad input: each kind with its own answer, and its neighbours accepted.

use serde_json::{Value, json};

use crate::support::{Bench, Choices, DISABLED_KEY, batch_of, get, gzip, post, track};

#[tokio::test]
async fn each_bad_event_of_a_batch_has_its_own_code_and_its_neighbours_are_accepted() {
    let bench = Bench::start().await;
    let deep = format!(
        r#"{{"type":"track","event":"E","userId":"u","messageId":"deep","properties":{{"x":{}{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let large = format!(
        r#"{{"type":"track","event":"E","userId":"u","properties":{{"x":"{}"}}}}"#,
        "x".repeat(33 * 1_024)
    );
    let events = [
        track("good-1").to_string(),
        r#"{"event":"E","userId":"u"}"#.to_owned(),
        r#"{"type":"purchase","userId":"u"}"#.to_owned(),
        r#"{"type":"track","event":"E"}"#.to_owned(),
        r#"{"type":"track","userId":"u"}"#.to_owned(),
        large,
        deep,
        r#"{"type":"track","event":"E","userId":"nul\u0000"}"#.to_owned(),
        format!(r#"{{"type":"page","userId":"u","messageId":"{}"}}"#, "m".repeat(100)),
        "[]".to_owned(),
        r#"{"type":"page","userId":"first","userId":"last","messageId":"twice"}"#.to_owned(),
        r#"{"type":"page","userId":"u","messageId":"y1970","timestamp":"1970-01-01T00:00:00Z"}"#.to_owned(),
        r#"{"type":"page","userId":"u","messageId":"y2070","timestamp":"2070-01-01T00:00:00Z"}"#.to_owned(),
        track("good-2").to_string(),
    ];
    let answer = bench.post("/v1/batch", format!(r#"{{"batch":[{}]}}"#, events.join(","))).await;
    let expected = [
        (1, "missing_type", "type"),
        (2, "unknown_type", "type"),
        (3, "missing_ids", "userId"),
        (4, "missing_event_name", "event"),
        (5, "event_too_large", ""),
        (6, "too_deep", ""),
        (7, "contains_nul", ""),
        (8, "message_id_too_long", "messageId"),
        (9, "not_an_object", ""),
    ];
    let expected: Vec<_> = expected.iter().map(|(i, c, f)| (*i, (*c).to_owned(), (*f).to_owned())).collect();
    assert_eq!(answer.rejected(), expected);
    let warnings =
        json!([{"index": 10, "code": "duplicate_key"}, {"index": 12, "code": "timestamp_clamped"}]);
    assert_eq!(answer.json()["warnings"], warnings);
    assert_eq!(bench.stored_ids().await, ["good-1", "good-2", "twice", "y1970", "y2070"]);
    // Newest first, and the id is kept where it could be read.
    let kept = bench.ingest.rejected.newest(crate::support::WORKSPACE, 100).await.unwrap();
    assert_eq!(kept.len(), 9);
    assert!(kept.iter().any(|row| row.code == "too_deep" && row.raw.len() <= 32_768));
    assert!(kept.iter().all(|row| row.source == crate::support::BROWSER && !row.raw.is_empty()));
}

#[tokio::test]
async fn a_bad_single_call_is_refused_with_its_code_and_field() {
    let bench = Bench::start().await;
    let large = format!(r#"{{"event":"E","userId":"u","properties":{{"x":"{}"}}}}"#, "x".repeat(33 * 1_024));
    for (path, body, status, code) in [
        ("/v1/track", r#"{"userId":"u"}"#.to_owned(), 400, "missing_event_name"),
        ("/v1/track", r#"{"event":"E"}"#.to_owned(), 400, "missing_ids"),
        ("/v1/track", large, 413, "event_too_large"),
        ("/v1/track", "x".repeat(70_000), 413, "event_too_large"),
        ("/v1/track", "nonsense".to_owned(), 400, "invalid_json"),
        ("/v1/track", "[]".to_owned(), 400, "not_an_object"),
        ("/v1/track", String::new(), 400, "invalid_json"),
    ] {
        let answer = bench.post(path, body).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()));
    }
    let missing = bench.post("/v1/track", r#"{"event":"E"}"#).await;
    assert_eq!(missing.json()["field"], "userId");
    assert_eq!(bench.stored_ids().await, Vec::<String>::new());
    let codes = bench.rejected_codes().await;
    assert_eq!(codes.len(), 7, "what was read at all is kept: {codes:?}");
}

#[tokio::test]
async fn a_bad_body_is_refused_as_a_whole() {
    let bench = Bench::start().await;
    let many = batch_of(&vec![json!({}); 2_501]);
    let large =
        batch_of(&[json!({"type": "page", "userId": "u", "properties": {"x": "x".repeat(501 * 1_024)}})]);
    assert!(large.len() > 512_000);
    for (body, status, code) in [
        (b"not json".to_vec(), 400, "invalid_json"),
        (b"".to_vec(), 400, "invalid_json"),
        (br#"{"batch":[}"#.to_vec(), 400, "invalid_json"),
        (br#"{"batch":[{"type":"page","userId":"u"}]"#.to_vec(), 400, "invalid_json"),
        (b"{\"batch\":[{\"type\":\"page\",\"userId\":\"\xff\xfe\"}]}".to_vec(), 400, "invalid_utf8"),
        (b"{\"batch\":[{\"type\":\"page\",\"userId\":\"a\0b\"}]}".to_vec(), 400, "contains_nul"),
        (b"[]".to_vec(), 400, "not_an_object"),
        (b"{}".to_vec(), 400, "missing_batch"),
        (br#"{"batch":{}}"#.to_vec(), 400, "missing_batch"),
        (br#"{"batch":[]}"#.to_vec(), 400, "batch_empty"),
        (many.into_bytes(), 400, "batch_too_large"),
        (large.into_bytes(), 413, "batch_too_large"),
        (vec![0x1f, 0x8b, 1, 2, 3], 400, "invalid_json"),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(bench.post("/v1/batch", body).await.refusal(), (status, code.to_owned()), "{shown}");
    }
    assert_eq!(bench.stored_ids().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_batch_of_2500_events_and_one_just_under_512_000_bytes_are_taken() {
    let bench = Bench::start().await;
    let events: Vec<Value> =
        (0..2_500).map(|n| json!({"type": "page", "userId": "u", "messageId": format!("m{n}")})).collect();
    assert_eq!(bench.post("/v1/batch", batch_of(&events)).await.rejected(), []);
    let filler = |n: usize| json!({"type": "page", "userId": "u", "properties": {"x": "x".repeat(n)}});
    let mut events = vec![filler(31_000); 16];
    let size = batch_of(&events).len();
    events.push(filler(512_000 - size - batch_of(&[filler(0)]).len() + batch_of(&[]).len() - 1));
    let body = batch_of(&events);
    assert_eq!(body.len(), 512_000);
    assert_eq!(bench.post("/v1/batch", body).await.rejected(), []);
    assert_eq!(bench.journal().await.len(), 2_517);
}

#[tokio::test]
async fn a_gzip_bomb_is_refused_and_gzip_is_taken_whatever_the_headers_say() {
    let bench = Bench::start().await;
    let bomb = gzip(&vec![b' '; 100 * 1_024 * 1_024]);
    let request = post("/v1/batch", bomb).with("content-encoding", "gzip").body_is_done();
    assert_eq!(bench.send(request).await.refusal(), (413, "batch_too_large".to_owned()));
    let body = gzip(batch_of(&[track("zipped")]).as_bytes());
    let request = post("/v1/batch", body).with("content-encoding", "gzip").body_is_done();
    assert_eq!(bench.send(request).await.rejected(), []);
    assert_eq!(bench.post("/v1/batch", gzip(batch_of(&[track("unsaid")]).as_bytes())).await.rejected(), []);
    let request =
        post("/v1/batch", batch_of(&[track("inflated")])).with("content-encoding", "gzip").body_is_done();
    assert_eq!(bench.send(request).await.rejected(), []);
    let request = post("/v1/batch", "x").with("content-encoding", "br").body_is_done();
    assert_eq!(bench.send(request).await.refusal(), (415, "unsupported_encoding".to_owned()));
    assert_eq!(bench.stored_ids().await, ["inflated", "unsaid", "zipped"]);
}

#[tokio::test]
async fn a_wrong_key_is_401_and_none_is_401() {
    let bench = Bench::start().await;
    let body = batch_of(&[track("m")]);
    let unknown =
        post("/v1/batch", body.clone()).without("authorization").with("authorization", "Basic bm9wZTo=");
    assert_eq!(bench.send(unknown.body_is_done()).await.refusal(), (401, "unknown_write_key".to_owned()));
    let disabled = json!({"writeKey": DISABLED_KEY, "batch": [track("m")]}).to_string();
    let disabled = post("/v1/batch", disabled).without("authorization").body_is_done();
    assert_eq!(bench.send(disabled).await.refusal(), (401, "unknown_write_key".to_owned()));
    let none = post("/v1/batch", body).without("authorization").body_is_done();
    assert_eq!(bench.send(none).await.refusal(), (401, "missing_write_key".to_owned()));
    assert_eq!(bench.stored_ids().await, Vec::<String>::new());
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_apart_and_never_redirected() {
    let bench = Bench::start().await;
    assert_eq!(bench.send(get("/v1/nothing")).await.refusal(), (404, "not_found".to_owned()));
    let wrong = bench.send(get("/v1/batch")).await;
    assert_eq!(
        (wrong.refusal(), wrong.header("allow")),
        ((405, "method_not_allowed".to_owned()), "POST, OPTIONS")
    );
    let slash = bench.post("/v1/batch/", batch_of(&[track("slash")])).await;
    assert_eq!(slash.rejected(), []);
}

#[tokio::test]
async fn rejected_events_are_bounded_per_hour_and_answered_all_the_same() {
    let bench = Bench::with(Choices { rejected_per_hour: 3, ..Choices::default() }).await;
    for _ in 0..2 {
        let answer = bench.post("/v1/batch", batch_of(&[json!({}), json!({})])).await;
        assert_eq!(answer.rejected().len(), 2);
    }
    assert_eq!(bench.rejected_codes().await.len(), 3);
    assert_eq!(bench.ingest.rejected.forget_older_than(1).await.unwrap(), 0);
    sqlx::query("update ingest.rejected set received_at = received_at - interval '2 hours'")
        .execute(&bench.database.pool)
        .await
        .unwrap();
    assert_eq!(bench.ingest.rejected.forget_older_than(1).await.unwrap(), 3);
}
