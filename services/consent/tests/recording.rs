//! Recording against the real PostgreSQL: what binds whom, what is numbered, and what it costs.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

mod support;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use sqlx::Row as _;
use support::{
    DEVICE, OTHER_DEVICE, PERSON, WORKSPACE, ago, ask, categories, database, firewall, gpc, item, now, shown,
    to,
};
use tracklayer_consent::{
    error::ConsentError,
    firewall::{Firewall, Item, SubjectRef},
    kind::Kind,
    policy::{Policy, PolicyDocument},
    purpose::Purposes,
    reason::Outcome,
    record::Cause,
    signal::ExplicitChoice,
    statement::Captured,
    store::{Activation, Store},
};
use tracklayer_ids::SubjectKey;
use tracklayer_rpc::{Code, RpcError as _};

async fn log(firewall: &Firewall, after: i64) -> Vec<(i64, String, Vec<SubjectKey>)> {
    let (entries, newest) = firewall.read_narrowing(WORKSPACE, after, 10_000).await.unwrap();
    assert_eq!(
        entries.last().map_or(after, |entry| entry.seq),
        newest.max(after),
        "the newest number is the last entry's"
    );
    entries.into_iter().map(|entry| (entry.seq, entry.cause, entry.subjects)).collect()
}

#[tokio::test]
async fn gpc_on_a_device_with_a_known_person_binds_a_server_event_from_elsewhere() {
    let database = database().await;
    let firewall = firewall(&database);
    let server_event = || item(&[PERSON], now(), "US-CA", Captured::default());
    assert_eq!(shown(&ask(&firewall, server_event(), Kind::MetaCapi, false).await), (Outcome::Allow, None));
    firewall.record(WORKSPACE, &[item(&[DEVICE, PERSON], ago(1), "US-CA", gpc())]).await.unwrap();
    // Another process, with nothing in its caches.
    let elsewhere = support::firewall(&database);
    for kind in [Kind::MetaCapi, Kind::TiktokEvents, Kind::GoogleAds, Kind::GoogleDataManager, Kind::Webhook]
    {
        assert_eq!(shown(&ask(&elsewhere, server_event(), kind, true).await), (Outcome::Deny, Some("gpc")));
    }
    let warehouse = ask(&elsewhere, server_event(), Kind::Warehouse, true).await;
    assert_eq!(shown(&warehouse), (Outcome::Allow, None));
    assert_eq!(warehouse.denied, Purposes::SALE_AND_TARGETING);
}

#[tokio::test]
async fn a_decision_records_as_record_does_and_a_repeat_numbers_nothing() {
    let database = database().await;
    let firewall = firewall(&database);
    let event = |minutes| item(&[DEVICE, PERSON], ago(minutes), "US-CA", gpc());
    let decided = firewall.decide(WORKSPACE, now(), &[event(9)], &to(&[Kind::MetaCapi]), true).await.unwrap();
    assert_eq!(decided.narrowing_seq, 1);
    assert_eq!(log(&firewall, 0).await, [(1, "gpc".to_owned(), vec![DEVICE.key, PERSON.key])]);
    for minutes in [9, 8, 2] {
        let recorded = firewall.record(WORKSPACE, &[event(minutes)]).await.unwrap();
        assert_eq!((recorded.narrowing_seq, recorded.narrowed), (1, 0));
    }
    let again = firewall.decide(WORKSPACE, now(), &[event(1)], &to(&[Kind::MetaCapi]), true).await.unwrap();
    assert_eq!(again.narrowing_seq, 1);
    // Without `record` nothing is stored, and the event's own signal counts all the same.
    let stranger = || item(&[OTHER_DEVICE], ago(1), "US-CA", gpc());
    assert_eq!(shown(&ask(&firewall, stranger(), Kind::MetaCapi, false).await), (Outcome::Deny, Some("gpc")));
    let later = item(&[OTHER_DEVICE], ago(0), "US-CA", Captured::default());
    assert_eq!(shown(&ask(&firewall, later, Kind::MetaCapi, false).await), (Outcome::Allow, None));
}

#[tokio::test]
async fn each_kind_of_narrowing_has_its_cause_and_names_all_keys() {
    let database = database().await;
    let firewall = firewall(&database);
    let linked = SubjectRef { key: SubjectKey([5; 16]), person: true, linked: true };
    let withdrawal = ExplicitChoice { denied: Purposes::ADS, ..ExplicitChoice::default() };
    let steps: [(Captured, Option<&str>); 8] = [
        (categories(&[("Advertising", true), ("Analytics", true), ("Functional", true)]), None),
        (categories(&[("Advertising", false), ("Analytics", true)]), Some("categories")),
        (Captured { unreadable: true, ..Captured::default() }, Some("unreadable")),
        (Captured { gpp_string: "DBABRg~BVUAACA".to_owned(), ..Captured::default() }, Some("string")),
        (Captured { gpp_string: "DBABLA~~".to_owned(), ..Captured::default() }, Some("unreadable")),
        (Captured { us_privacy: "1YNN".to_owned(), ..Captured::default() }, None),
        (Captured { us_privacy: "1YYN".to_owned(), ..Captured::default() }, Some("string")),
        (
            Captured { explicit: Some((withdrawal, "support".to_owned())), ..Captured::default() },
            Some("withdrawal"),
        ),
    ];
    let mut expected = Vec::new();
    for (minutes, (captured, cause)) in (0..).zip(steps) {
        let mut event = item(&[DEVICE, linked], ago(60 - minutes), "US-CA", captured);
        event.person_known = true;
        firewall.record(WORKSPACE, &[event]).await.unwrap();
        if let Some(cause) = cause {
            let seq = expected.len() as i64 + 1;
            expected.push((seq, cause.to_owned(), vec![DEVICE.key, linked.key]));
        }
    }
    assert_eq!(log(&firewall, 0).await, expected);
    assert_eq!(log(&firewall, 4).await, expected[4..]);
    // Nothing is filed under a key that is only linked.
    let filed: Vec<uuid::Uuid> = sqlx::query_scalar("select distinct subject_key from consent.signal")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert_eq!(filed, [DEVICE.key.uuid()]);
    let seq =
        firewall.name(WORKSPACE, vec![PERSON.key], Cause::Erasure, "request 5".to_owned()).await.unwrap();
    assert_eq!(log(&firewall, seq - 1).await, [(seq, "erasure".to_owned(), vec![PERSON.key])]);
}

#[tokio::test]
async fn an_event_whose_consent_object_cannot_be_parsed_goes_to_no_ad_platform() {
    let database = database().await;
    let firewall = firewall(&database);
    for place in ["US-CA", "DE", "unknown"] {
        for kind in [Kind::MetaCapi, Kind::TiktokEvents, Kind::GoogleAds, Kind::GoogleDataManager] {
            let captured = Captured { unreadable: true, ..Captured::default() };
            let answer = ask(&firewall, item(&[DEVICE], ago(1), place, captured), kind, true).await;
            assert_eq!(shown(&answer), (Outcome::Deny, Some("signal_unreadable")), "{place}");
        }
    }
    // Also where nobody is named.
    let captured = Captured { unreadable: true, ..Captured::default() };
    let answer = ask(&firewall, item(&[], ago(1), "US-CA", captured), Kind::MetaCapi, true).await;
    assert_eq!(answer.outcome, Outcome::Deny);
}

#[tokio::test]
async fn a_stored_string_that_this_release_cannot_read_denies() {
    let database = database().await;
    let firewall = firewall(&database);
    let captured = Captured { gpp_string: "DBABLA~CVQqAAAAAACA.QA".to_owned(), ..Captured::default() };
    let later = || item(&[DEVICE], now(), "US-CA", Captured::default());
    firewall.record(WORKSPACE, &[item(&[DEVICE], ago(9), "US-CA", captured)]).await.unwrap();
    assert_eq!(ask(&firewall, later(), Kind::MetaCapi, false).await.outcome, Outcome::Allow);
    sqlx::query("update consent.signal set content = ';DBABLA~CVQ', content_hash = gen_random_uuid()")
        .execute(&database.pool)
        .await
        .unwrap();
    let answer = ask(&firewall, later(), Kind::MetaCapi, false).await;
    assert_eq!(shown(&answer), (Outcome::Deny, Some("signal_unreadable")));
}

/// All orders of a list.
fn permutations<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    if list.is_empty() {
        return vec![Vec::new()];
    }
    (0..list.len())
        .flat_map(|first| {
            let mut rest = list.to_vec();
            let chosen = rest.remove(first);
            permutations(&rest).into_iter().map(move |mut tail| {
                tail.insert(0, chosen.clone());
                tail
            })
        })
        .collect()
}

#[tokio::test]
async fn the_order_of_arrival_does_not_matter() {
    let database = database().await;
    let firewall = firewall(&database);
    let said: [(i64, Captured); 5] = [
        (50, categories(&[("Advertising", true), ("Analytics", true)])),
        (40, categories(&[("Advertising", false), ("Analytics", true)])),
        (30, categories(&[("Advertising", true), ("Analytics", true)])),
        (30, categories(&[("Advertising", true), ("Analytics", false)])),
        (20, Captured { us_privacy: "1YNN".to_owned(), ..Captured::default() }),
    ];
    let mut answers = BTreeSet::new();
    for (number, order) in permutations(&said).into_iter().enumerate() {
        let mut key = [3; 16];
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let subject = SubjectRef { key: SubjectKey(key), person: false, linked: false };
        for (minutes, captured) in order {
            firewall.record(WORKSPACE, &[item(&[subject], ago(minutes), "US-CA", captured)]).await.unwrap();
        }
        let event = item(&[subject], now(), "US-CA", Captured::default());
        let meta = ask(&firewall, event.clone(), Kind::MetaCapi, false).await;
        let warehouse = ask(&firewall, event, Kind::Warehouse, false).await;
        answers.insert((meta.outcome, warehouse.outcome, warehouse.denied.names()));
    }
    let expected = (Outcome::Allow, Outcome::Deny, vec!["functional".to_owned(), "analytics".to_owned()]);
    assert_eq!(answers, BTreeSet::from([expected]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn recorders_in_parallel_give_numbers_without_gaps_and_never_deadlock() {
    let database = database().await;
    let mut recorders = tokio::task::JoinSet::new();
    for recorder in 0u8..8 {
        let firewall = firewall(&database);
        recorders.spawn(async move {
            for round in 0u8..10 {
                // The same people for all, in another order for each.
                let mut keys: Vec<u8> = (0..12).map(|i| i * 20 + round).collect();
                keys.rotate_left(usize::from(recorder));
                let items: Vec<Item> = keys
                    .iter()
                    .map(|key| {
                        let subject =
                            SubjectRef { key: SubjectKey([*key; 16]), person: false, linked: false };
                        item(&[subject], ago(30), "US-CA", gpc())
                    })
                    .collect();
                firewall.record(WORKSPACE, &items).await.unwrap();
            }
        });
    }
    while let Some(done) = recorders.join_next().await {
        done.unwrap();
    }
    let entries = log(&firewall(&database), 0).await;
    let numbers: Vec<i64> = entries.iter().map(|entry| entry.0).collect();
    assert_eq!(numbers, (1..=120).collect::<Vec<_>>());
    let named: HashSet<&SubjectKey> = entries.iter().flat_map(|entry| &entry.2).collect();
    assert_eq!(named.len(), 120, "each subject is named once");
}

#[tokio::test]
async fn a_number_is_visible_exactly_when_what_it_stands_for_is() {
    let database = database().await;
    let firewall = firewall(&database);
    firewall.record(WORKSPACE, &[item(&[PERSON], ago(9), "US-CA", gpc())]).await.unwrap();
    let store = Store::new(database.pool.clone());
    let mut writing = store.write(WORKSPACE).await.unwrap();
    let narrowing = tracklayer_consent::record::Narrowing {
        subjects: vec![DEVICE.key],
        cause: Cause::Merge,
        message_id: String::new(),
    };
    writing.number(&[narrowing]).await.unwrap();
    // Not committed: readers do not wait, and see the state before.
    assert_eq!(firewall.read_narrowing(WORKSPACE, 0, 10).await.unwrap().1, 1);
    let event = item(&[DEVICE], now(), "US-CA", Captured::default());
    let during = firewall.decide(WORKSPACE, now(), &[event], &to(&[Kind::MetaCapi]), false).await.unwrap();
    assert_eq!(during.narrowing_seq, 1);
    assert_eq!(writing.commit().await.unwrap(), 2);
    assert_eq!(firewall.read_narrowing(WORKSPACE, 1, 10).await.unwrap().1, 2);
}

#[tokio::test]
async fn receipts_say_who_got_which_answer_and_go_after_their_time() {
    let database = database().await;
    let firewall = firewall(&database);
    let items: Vec<Item> = (0u8..20)
        .map(|i| {
            let subject = SubjectRef { key: SubjectKey([i; 16]), person: false, linked: false };
            let captured = if i % 4 == 1 { gpc() } else { Captured::default() };
            Item { message_id: format!("m-{i}"), ..item(&[subject], ago(1), "US-CA", captured) }
        })
        .collect();
    let destinations = to(&[Kind::MetaCapi, Kind::Warehouse]);
    firewall.decide(WORKSPACE, now(), &items, &destinations, true).await.unwrap();
    let rows = sqlx::query(
        "select r.connection_id, r.kind, r.outcome, r.reason, r.place, r.members, b.message_ids, b.narrowing_seq,
                b.policy_version
         from consent.receipt as r join consent.decision_batch as b using (workspace_id, batch_id)
         order by r.part",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let mut seen = Vec::new();
    for row in &rows {
        let (members, ids): (Vec<u8>, Vec<String>) = (row.get("members"), row.get("message_ids"));
        let named: Vec<&str> =
            (0..ids.len()).filter(|i| members[i / 8] >> (i % 8) & 1 == 1).map(|i| ids[i].as_str()).collect();
        let head: (i64, &str, i16, &str, &str) = (
            row.get("connection_id"),
            row.get("kind"),
            row.get("outcome"),
            row.get("reason"),
            row.get("place"),
        );
        seen.push((head, named.len(), named.contains(&"m-5")));
        assert_eq!((row.get::<i64, _>("narrowing_seq"), row.get("policy_version")), (5, "2026-11-23.1"));
    }
    assert_eq!(
        seen,
        [
            ((1, "meta_capi", 1, "", "US-CA"), 15, false),
            ((1, "meta_capi", 3, "gpc", "US-CA"), 5, true),
            ((2, "warehouse", 1, "", "US-CA"), 15, false),
            ((2, "warehouse", 1, "", "US-CA"), 5, true),
        ]
    );
    let store = Store::new(database.pool.clone());
    assert_eq!(store.delete_receipts(now()).await.unwrap(), 0);
    assert_eq!(store.delete_receipts(now() + jiff::SignedDuration::from_secs(1)).await.unwrap(), 1);
    let left: i64 =
        sqlx::query_scalar("select count(*) from consent.receipt").fetch_one(&database.pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn another_policy_names_everybody_and_a_version_is_never_used_twice() {
    let database = database().await;
    let firewall = firewall(&database);
    let store = Store::new(database.pool.clone());
    let first = Policy::compiled_in().unwrap();
    assert_eq!(store.activate_policy(&first).await.unwrap(), Activation::Unchanged);
    firewall.record(WORKSPACE, &[item(&[DEVICE], ago(9), "US-CA", gpc())]).await.unwrap();
    assert_eq!(store.activate_policy(&first).await.unwrap(), Activation::Unchanged);
    let same_version = Policy::parse(&PolicyDocument::DEFAULT.replace("395", "300")).unwrap();
    assert_eq!(store.activate_policy(&same_version).await.unwrap(), Activation::VersionTaken);
    let second = Policy::parse(&PolicyDocument::DEFAULT.replace("2026-11-23.1", "2026-11-24.1")).unwrap();
    assert_eq!(store.activate_policy(&second).await.unwrap(), Activation::Replaced { workspaces: 1 });
    assert_eq!(log(&firewall, 1).await, [(2, "policy".to_owned(), vec![])]);
    // A replica that still has the policy of before neither decides nor records: its answer would carry the new number.
    let event = item(&[OTHER_DEVICE], ago(1), "US-CA", gpc());
    for record in [true, false] {
        let items = std::slice::from_ref(&event);
        let refused =
            firewall.decide(WORKSPACE, now(), items, &to(&[Kind::MetaCapi]), record).await.unwrap_err();
        assert!(
            matches!(&refused, ConsentError::PolicyReplaced { in_force, .. } if in_force == "2026-11-24.1")
        );
        assert_eq!(refused.describe().0, Code::Unavailable);
    }
    assert!(matches!(firewall.record(WORKSPACE, &[event]).await, Err(ConsentError::PolicyReplaced { .. })));
    assert_eq!(log(&firewall, 2).await, []);
}

#[tokio::test]
async fn on_a_standby_nothing_is_decided_and_no_tail_is_read() {
    let database = database().await;
    let name: String =
        sqlx::query_scalar("select current_database()").fetch_one(&database.pool).await.unwrap();
    // As PostgreSQL answers there: sessions of this database find this function before its own.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "create schema aside;
         create function aside.pg_is_in_recovery() returns boolean language sql as 'select true';
         alter database \"{name}\" set search_path = aside, pg_catalog;"
    )))
    .execute(&database.pool)
    .await
    .unwrap();
    let pool = tracklayer_postgres::connect(&database.secret_url(), 2).await.unwrap();
    let standby = Firewall::new(Store::new(pool), Arc::new(Policy::compiled_in().unwrap()));
    let event = item(&[DEVICE], now(), "US-CA", Captured::default());
    let refused =
        standby.decide(WORKSPACE, now(), &[event], &to(&[Kind::MetaCapi]), false).await.unwrap_err();
    assert_eq!(refused.describe().0, Code::Unavailable);
    let refused = standby.read_narrowing(WORKSPACE, 0, 10).await.unwrap_err();
    assert_eq!(refused.describe().0, Code::Unavailable);
}

#[tokio::test]
async fn what_cannot_be_read_does_not_take_a_refusal_away() {
    let database = database().await;
    let firewall = firewall(&database);
    let later = || item(&[DEVICE], now(), "US-CA", Captured::default());
    let gcd = |text: &str| Captured { gcd: text.to_owned(), ..Captured::default() };
    firewall.record(WORKSPACE, &[item(&[DEVICE], ago(30), "US-CA", gcd("13q3q3q3q5"))]).await.unwrap();
    assert_eq!(
        shown(&ask(&firewall, later(), Kind::MetaCapi, false).await),
        (Outcome::Deny, Some("opted_out"))
    );
    // Consent mode that cannot be read is about Google alone; the visitor's refusal was about everybody.
    firewall.record(WORKSPACE, &[item(&[DEVICE], ago(20), "US-CA", gcd("broken"))]).await.unwrap();
    assert_eq!(
        shown(&ask(&firewall, later(), Kind::MetaCapi, false).await),
        (Outcome::Deny, Some("opted_out"))
    );
    // The next one that can be read takes the place of both.
    firewall.record(WORKSPACE, &[item(&[DEVICE], ago(10), "US-CA", gcd("13r3r3r3r5"))]).await.unwrap();
    assert_eq!(shown(&ask(&firewall, later(), Kind::MetaCapi, false).await), (Outcome::Allow, None));
    let current: i64 = sqlx::query_scalar("select count(*) from consent.signal where current")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(current, 1);
}

#[tokio::test]
async fn an_erased_subject_is_denied_and_nothing_new_is_filed_about_it() {
    let database = database().await;
    let firewall = firewall(&database);
    let event = Item { suppressed: true, ..item(&[PERSON], ago(1), "US-CA", gpc()) };
    assert_eq!(shown(&ask(&firewall, event, Kind::Warehouse, true).await), (Outcome::Deny, Some("erased")));
    let rows: i64 =
        sqlx::query_scalar("select count(*) from consent.signal").fetch_one(&database.pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn workspaces_do_not_see_each_others_signals() {
    let database = database().await;
    let firewall = firewall(&database);
    let other = tracklayer_ids::WorkspaceId(8);
    firewall.record(other, &[item(&[DEVICE], ago(9), "US-CA", gpc())]).await.unwrap();
    let event = item(&[DEVICE], now(), "US-CA", Captured::default());
    assert_eq!(ask(&firewall, event, Kind::MetaCapi, false).await.outcome, Outcome::Allow);
    assert_eq!(log(&firewall, 0).await, []);
}

#[tokio::test]
async fn gpc_of_a_device_binds_a_person_who_is_later_known_on_it() {
    let database = database().await;
    let firewall = firewall(&database);
    firewall.record(WORKSPACE, &[item(&[DEVICE], ago(30), "US-CA", gpc())]).await.unwrap();
    let login = item(&[DEVICE, PERSON], ago(20), "US-CA", Captured::default());
    firewall.record(WORKSPACE, &[login]).await.unwrap();
    assert_eq!(log(&firewall, 1).await, [(2, "gpc".to_owned(), vec![DEVICE.key, PERSON.key])]);
    let purchase = item(&[PERSON], ago(1), "US-CA", Captured::default());
    let answer = ask(&firewall, purchase, Kind::MetaCapi, false).await;
    assert_eq!(shown(&answer), (Outcome::Deny, Some("gpc")));
}
