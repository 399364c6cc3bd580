//! Merges that come while a range is resolved.

use prost::Message as _;
use tracklayer_ids::Position;
use tracklayer_proto::consent::v1::ReadNarrowingRequest;
use tracklayer_proto::identity::v1::{Identifier, ResolveItem, ResolveRequest};
use tracklayer_testkit::eventually_seen;

use super::rig::{PARTITION, Rig, event};
use crate::services::WORKSPACE;

/// Consent's newest number of what happened to people, and the cause of each entry.
async fn log(rig: &Rig) -> (i64, Vec<String>) {
    let request = ReadNarrowingRequest { workspace_id: WORKSPACE.0, after_seq: 0, limit: 0 };
    let mut consent = rig.services.clients.consent.clone();
    let answer = consent.read_narrowing(request).await.unwrap().into_inner();
    (answer.newest_seq, answer.entries.into_iter().map(|entry| entry.cause).collect())
}

/// Somebody is seen with both identifiers, elsewhere.
async fn link(rig: &Rig, identifiers: &[(&str, &str)]) {
    let identifiers = identifiers
        .iter()
        .map(|(name, value)| Identifier { r#type: (*name).to_owned(), value: (*value).to_owned() })
        .collect();
    let item =
        ResolveItem { identifiers, source_id: 1, message_id: "link".to_owned(), ..ResolveItem::default() };
    let request = ResolveRequest { workspace_id: WORKSPACE.0, items: vec![item] };
    rig.services.clients.identity.clone().resolve(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_between_identitys_answer_and_consents_makes_the_decision_count_as_older() {
    let rig = Rig::new().await;
    // Both are known, so that there is a number before; the range itself merges nothing but the third.
    link(&rig, &[("anonymous_id", "visitor-1"), ("email", "ann@example.org")]).await;
    link(&rig, &[("anonymous_id", "visitor-2"), ("email", "bob@example.org")]).await;
    let (before, causes) = log(&rig).await;
    assert_eq!(causes, ["merge", "merge"]);
    // The first claim finds a new Redis, and its range is resolved twice.
    rig.append_bytes(PARTITION, &[event("m-0").encode_to_vec().into()]).await;
    let _running = rig.start(PARTITION).await;
    rig.wait_until_resolved(Position::new(1, 0, 1)).await;

    let mut newcomer = event("m-3");
    newcomer.user_id = "u-3".to_owned();
    let events = [event("m-1"), event("m-2"), newcomer].map(|event| event.encode_to_vec().into());
    // Consent cannot read what is stored, and so does not decide.
    let mut held = rig.services.database.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table consent.signal in access exclusive mode").execute(&mut *held).await.unwrap();
    rig.append_bytes(PARTITION, &events).await;
    eventually_seen("consent to be asked, after identity", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_locks where relation = 'consent.signal'::regclass and not granted",
        )
        .fetch_one(&rig.services.database.pool)
        .await
        .unwrap();
        if waiting > 0 { Ok(()) } else { Err("nobody waits") }
    })
    .await;
    link(&rig, &[("email", "ann@example.org"), ("user_id", "u-1")]).await;
    held.commit().await.unwrap();

    rig.wait_until_resolved(Position::new(1, 0, 4)).await;
    let (newest, causes) = log(&rig).await;
    assert_eq!(causes.len(), 4, "{causes:?}");
    let decided_at: Vec<i64> =
        rig.resolved_from(Position::new(1, 0, 1)).await.iter().map(|event| event.narrowing_seq).collect();
    assert_eq!(decided_at, [before, newest, newest], "a lane asks again about the first, and no other");
}
