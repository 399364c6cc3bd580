//! What a caller is told.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use sqlx::Row;
use tracklayer_identity::click_ids::{ClickKind, Clicks};
use tracklayer_identity::error::IdentityError;
use tracklayer_identity::policy::Policy;
use tracklayer_identity::resolve::{Item, Resolution};
use tracklayer_ids::SourceId;

use crate::world::{World, at, item, raw};

fn with_click(identifiers: &[(&str, &str)], kind: ClickKind, value: &str, minute: i64) -> Item {
    let mut clicks = Clicks::default();
    clicks.see(kind, value, at(minute));
    Item { clicks, seen_at: at(minute), ..item(identifiers) }
}

async fn count(world: &World, table: &'static str) -> i64 {
    let statement = match table {
        "identifier" => "select count(*) from identity.identifier where workspace_id = $1",
        "link" => "select count(*) from identity.link where workspace_id = $1",
        "click_id" => "select count(*) from identity.click_id where workspace_id = $1",
        _ => "select count(*) from identity.merge_log where workspace_id = $1",
    };
    sqlx::query_scalar(statement).bind(world.workspace.0).fetch_one(&world.database.pool).await.unwrap()
}

#[tokio::test]
async fn a_visitor_who_was_never_linked_is_computed_and_not_stored() {
    let world = World::new(Policy::default()).await;
    let answer = world.resolve_one(&[("anonymous_id", "a-1")]).await;
    assert_eq!(answer.canonical_key, Some(world.key("anonymous_id", "a-1")));
    assert_eq!(answer.subject_keys, [world.key("anonymous_id", "a-1")]);
    assert_eq!((answer.resolution, answer.person_known), (Resolution::Computed, false));
    assert_eq!(count(&world, "identifier").await, 0);
    let known = world.resolve_one(&[("user_id", "u-1")]).await;
    assert_eq!((known.resolution, known.person_known), (Resolution::Computed, true));
}

#[tokio::test]
async fn a_login_makes_the_browser_the_persons() {
    let world = World::new(Policy::default()).await;
    let (a, u) = (world.key("anonymous_id", "a-1"), world.key("user_id", "u-1"));
    let login = world.resolve_one(&[("anonymous_id", "a-1"), ("user_id", "u-1")]).await;
    assert_eq!((login.resolution, login.canonical_key), (Resolution::Recorded, Some(u)));
    // What consent filed under the browser is found for an event that names only the person.
    let server = world.resolve_one(&[("user_id", "u-1")]).await;
    assert_eq!((server.resolution, server.subject_keys.as_slice()), (Resolution::Known, [u, a].as_slice()));
    let browser = world.resolve_one(&[("anonymous_id", "a-1")]).await;
    assert_eq!((browser.canonical_key, browser.person_known), (Some(u), true));
    assert_eq!(browser.subject_keys, [a, u]);
}

#[tokio::test]
async fn what_one_event_of_a_batch_links_is_known_to_all_of_it() {
    let world = World::new(Policy::default()).await;
    let batch = [
        item(&[("anonymous_id", "a-1")]),
        item(&[("anonymous_id", "a-1"), ("user_id", "u-1")]),
        item(&[("user_id", "u-1")]),
    ];
    let answers = world.resolve(&batch).await;
    let key = Some(world.key("user_id", "u-1"));
    assert!(answers.iter().all(|answer| answer.canonical_key == key && answer.subject_keys.len() == 2));
}

#[tokio::test]
async fn only_nonsense_is_nobody() {
    let world = World::new(Policy::default()).await;
    let answer = world.resolve_one(&[("user_id", "undefined"), ("email", "not an address")]).await;
    assert_eq!((answer.resolution, answer.canonical_key), (Resolution::None, None));
    assert_eq!(answer.subject_keys, []);
}

/// The worked case of a shared tablet.
#[tokio::test]
async fn a_shared_tablet_belongs_to_nobody_and_each_user_keeps_their_events() {
    let world = World::new(Policy::default()).await;
    let key = |user: &str| Some(world.key("user_id", user));
    let tablet = Some(world.key("device_id", "d"));
    let ask = |user: &'static str| {
        let identifiers = [("device_id", "d"), ("user_id", user)];
        let world = &world;
        async move { world.resolve_one(&identifiers).await }
    };
    assert_eq!(world.resolve_one(&[("device_id", "d")]).await.canonical_key, tablet);
    assert_eq!(ask("u1").await.canonical_key, key("u1"));
    assert_eq!(world.resolve_one(&[("device_id", "d")]).await.canonical_key, key("u1"));
    let second = ask("u2").await;
    assert_eq!((second.canonical_key, second.resolution), (key("u2"), Resolution::Contested));
    let alone = world.resolve_one(&[("device_id", "d")]).await;
    assert_eq!((alone.canonical_key, alone.resolution), (tablet, Resolution::Contested));
    assert_eq!(alone.subject_keys, [world.key("device_id", "d")]);
    // A fourth user: the tablet is a hub now, and the queue says that instead.
    ask("u3").await;
    assert_eq!(ask("u4").await.canonical_key, key("u4"));
    let kinds: Vec<(String, String)> =
        sqlx::query_as("select kind, state from identity.collision order by state, kind")
            .fetch_all(&world.database.pool)
            .await
            .unwrap();
    let open: Vec<_> = kinds.iter().filter(|(_, state)| state == "open").map(|(k, _)| k.as_str()).collect();
    assert_eq!(open, ["hub"]);
    assert!(kinds.iter().any(|(kind, state)| kind == "exclusive" && state == "obsolete"));
}

#[tokio::test]
async fn a_purchase_by_a_server_carries_the_browsers_newest_click() {
    let world = World::new(Policy::default()).await;
    let browser = [("anonymous_id", "a-1")];
    world.resolve(&[with_click(&browser, ClickKind::Fbclid, "first", 10)]).await;
    world.resolve(&[with_click(&browser, ClickKind::Fbclid, "second", 20)]).await;
    world.resolve(&[with_click(&browser, ClickKind::Fbclid, "late arrival", 15)]).await;
    world.resolve(&[with_click(&browser, ClickKind::Fbp, "fb.1.2.3", 20)]).await;
    world.resolve_one(&[("anonymous_id", "a-1"), ("user_id", "u-1")]).await;
    let purchase = world.resolve_one(&[("user_id", "u-1")]).await;
    let click = purchase.clicks.get(ClickKind::Fbclid).unwrap();
    assert_eq!((click.value.as_str(), click.first_seen), ("second", at(20)));
    assert_eq!(purchase.clicks.first_seen(), Some(at(20)));
    assert_eq!(purchase.clicks.get(ClickKind::Fbp).unwrap().value, "fb.1.2.3");
    assert_eq!(purchase.clicks.get(ClickKind::Gclid), None);
    // Another person has none of it.
    assert!(world.resolve_one(&[("user_id", "u-2")]).await.clicks.is_empty());
}

#[tokio::test]
async fn a_repeated_click_id_costs_no_write_within_the_hour() {
    let world = World::new(Policy::default()).await;
    let browser = [("anonymous_id", "a-1")];
    for minute in [0, 1, 30] {
        world.resolve(&[with_click(&browser, ClickKind::Fbp, "fb.1.2.3", minute)]).await;
    }
    let versions: i64 = sqlx::query_scalar("select count(distinct xmin::text) from identity.click_id")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    let last: jiff_sqlx::Timestamp = sqlx::query_scalar("select last_seen from identity.click_id")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!((versions, last.to_jiff()), (1, at(0)));
    world.resolve(&[with_click(&browser, ClickKind::Fbp, "fb.1.2.3", 90)]).await;
    let last: jiff_sqlx::Timestamp = sqlx::query_scalar("select last_seen from identity.click_id")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(last.to_jiff(), at(90));
}

#[tokio::test]
async fn a_hubs_clicks_are_nobodys() {
    let world = World::new(Policy::default()).await;
    for user in ["u-1", "u-2", "u-3", "u-4"] {
        world.resolve_one(&[("device_id", "kiosk"), ("user_id", user)]).await;
    }
    world
        .resolve(&[with_click(&[("device_id", "kiosk"), ("user_id", "u-1")], ClickKind::Gclid, "g", 1)])
        .await;
    let first = world.resolve_one(&[("device_id", "kiosk"), ("user_id", "u-1")]).await;
    assert_eq!(first.clicks.get(ClickKind::Gclid).map(|seen| seen.value.as_str()), Some("g"));
    let other = world.resolve_one(&[("device_id", "kiosk"), ("user_id", "u-2")]).await;
    assert!(other.clicks.is_empty());
}

#[tokio::test]
async fn an_erased_identifier_creates_nothing_and_is_said_to_be_suppressed() {
    let world = World::new(Policy::default()).await;
    let email = [("email", "ann@example.org"), ("anonymous_id", "a-1")];
    let mac = world.hasher().identifier(&raw("email", "ann@example.org")).unwrap().mac;
    sqlx::query("insert into identity.suppressed values ($1, $2)")
        .bind(world.workspace.0)
        .bind(mac.0)
        .execute(&world.database.pool)
        .await
        .unwrap();
    let answers = world.resolve(&[with_click(&email, ClickKind::Gclid, "g", 1)]).await;
    assert!(answers[0].suppressed);
    assert!(answers[0].subject_keys.contains(&world.key("email", "ann@example.org")));
    assert_eq!(answers[0].canonical_key, Some(world.key("anonymous_id", "a-1")));
    assert_eq!((count(&world, "identifier").await, count(&world, "click_id").await), (0, 0));
    // Another workspace knows nothing of it.
    assert!(!world.next().resolve_one(&email).await.suppressed);
}

#[tokio::test]
async fn every_source_of_a_link_and_its_first_and_last_sight_are_kept() {
    let world = World::new(Policy::default()).await;
    let pair = [("anonymous_id", "a-1"), ("user_id", "u-1")];
    let seen = |source: i64, minute: i64, message_id: &str| Item {
        source: SourceId(source),
        seen_at: at(minute),
        message_id: message_id.to_owned(),
        ..item(&pair)
    };
    world.resolve(&[seen(1, 10, "m-10")]).await;
    world.resolve(&[seen(1, 20, "m-20")]).await;
    world.resolve(&[seen(1, 5, "m-5"), seen(1, 200, "m-200")]).await;
    world.resolve(&[seen(2, 30, "m-30")]).await;
    let rows = sqlx::query(
        "select source_id, first_seen, last_seen, first_message_id from identity.link order by source_id",
    )
    .fetch_all(&world.database.pool)
    .await
    .unwrap();
    let read: Vec<(i64, SignedDuration, SignedDuration, String)> = rows
        .iter()
        .map(|row| {
            let time =
                |column: &str| row.get::<jiff_sqlx::Timestamp, _>(column).to_jiff().duration_since(at(0));
            (row.get("source_id"), time("first_seen"), time("last_seen"), row.get("first_message_id"))
        })
        .collect();
    let minutes = SignedDuration::from_mins;
    assert_eq!(
        read,
        [(1, minutes(5), minutes(200), "m-5".to_owned()), (2, minutes(30), minutes(30), "m-30".to_owned())]
    );
}

#[tokio::test]
async fn a_merge_of_two_profiles_is_logged_by_key_with_its_cause() {
    let world = World::new(Policy::default()).await;
    world.resolve_one(&[("anonymous_id", "a-1"), ("device_id", "d-1")]).await;
    world.resolve_one(&[("anonymous_id", "a-2"), ("email", "ann@example.org")]).await;
    assert_eq!(count(&world, "merge_log").await, 0);
    let bridge = Item {
        message_id: "m-bridge".to_owned(),
        ..item(&[("anonymous_id", "a-1"), ("email", "ann@example.org")])
    };
    world.resolve(&[bridge]).await;
    let row = sqlx::query("select kind, before_keys, after_keys, cause from identity.merge_log")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    let email = world.key("email", "ann@example.org").uuid();
    assert_eq!((row.get("kind"), row.get("cause")), ("merge", "m-bridge"));
    assert_eq!(row.get::<Vec<uuid::Uuid>, _>("after_keys"), [email]);
    let before: BTreeSet<uuid::Uuid> = row.get::<Vec<uuid::Uuid>, _>("before_keys").into_iter().collect();
    assert_eq!(before, BTreeSet::from([email, world.key("device_id", "d-1").uuid()]));
}

#[tokio::test]
async fn equal_values_of_two_workspaces_never_meet() {
    let world = World::new(Policy::default()).await;
    let other = world.next();
    world.resolve_one(&[("anonymous_id", "a-1"), ("user_id", "u-1")]).await;
    let there = other.resolve_one(&[("anonymous_id", "a-1")]).await;
    assert_eq!((there.resolution, there.subject_keys.len()), (Resolution::Computed, 1));
    let refused = other.resolver.look_up(other.workspace, &raw("user_id", "u-1")).await;
    assert!(matches!(refused, Err(IdentityError::NotFound)));
}

#[tokio::test]
async fn a_profile_is_shown_by_any_of_its_identifiers() {
    let world = World::new(Policy::default()).await;
    world.resolve_one(&[("anonymous_id", "a-1"), ("user_id", "u-1"), ("email", "Ann@Example.org")]).await;
    let shown = world.resolver.look_up(world.workspace, &raw("email", " ann@example.org ")).await.unwrap();
    assert_eq!(shown.key, world.key("user_id", "u-1"));
    let types: BTreeSet<&str> = shown.members.iter().map(|member| member.type_name.as_str()).collect();
    assert_eq!(types, BTreeSet::from(["anonymous_id", "email", "user_id"]));
    assert!(shown.members.iter().all(|member| member.first_seen == Some(at(0))));
    assert_eq!(shown.collisions, Vec::<String>::new());
    world.resolve_one(&[("user_id", "u-2"), ("email", "ann@example.org")]).await;
    let shown = world.resolver.look_up(world.workspace, &raw("user_id", "u-1")).await.unwrap();
    assert_eq!(shown.collisions.len(), 1);
}

#[tokio::test]
async fn no_clear_value_is_stored_anywhere() {
    let world = World::new(Policy::default()).await;
    world.resolve_one(&[("email", "secret.ann@example.org"), ("phone", "+4915112345678")]).await;
    world.resolve_one(&[("email", "secret.ann@example.org"), ("user_id", "customer-4711")]).await;
    world.resolve_one(&[("email", "secret.ann@example.org"), ("user_id", "customer-4712")]).await;
    let dump: Vec<String> = sqlx::query_scalar(
        "select x::text from identity.identifier x union all select x::text from identity.link x
         union all select x::text from identity.profile x union all select x::text from identity.collision x
         union all select x::text from identity.merge_log x union all select x::text from identity.component x",
    )
    .fetch_all(&world.database.pool)
    .await
    .unwrap();
    assert!(dump.len() > 8);
    for value in ["secret.ann", "15112345678", "customer-471"] {
        let hex: String = value.bytes().map(|b| format!("{b:02x}")).collect();
        assert!(dump.iter().all(|row| !row.contains(value) && !row.contains(&hex)), "{value}");
    }
}

#[tokio::test]
async fn an_identifier_that_is_unblocked_is_linked_again_by_the_next_event() {
    let world = World::new(Policy::default()).await;
    let pair = [("anonymous_id", "a-1"), ("email", "ann@example.org")];
    world.resolve_one(&pair).await;
    world.resolve_one(&[("anonymous_id", "a-1"), ("device_id", "d-1")]).await;
    // As a decision to block does: the identifier goes, its evidence stays. Then the decision is withdrawn.
    let mac = world.hasher().identifier(&raw("email", "ann@example.org")).unwrap().mac;
    sqlx::query("delete from identity.identifier where workspace_id = $1 and value_mac = $2")
        .bind(world.workspace.0)
        .bind(mac.0)
        .execute(&world.database.pool)
        .await
        .unwrap();
    // Seen with somebody else first: its earlier evidence counts, too.
    let answer = world.resolve_one(&[("email", "ann@example.org"), ("phone", "+4915112345678")]).await;
    assert_eq!(answer.canonical_key, Some(world.key("email", "ann@example.org")));
    assert_eq!((answer.resolution, answer.subject_keys.len()), (Resolution::Recorded, 4));
    assert_eq!(world.resolve_one(&pair).await.resolution, Resolution::Known);
}

#[tokio::test]
async fn a_pair_whose_end_was_blocked_while_it_was_recorded_is_not_taken_for_stored() {
    let world = World::new(Policy::default()).await;
    let pair = [("anonymous_id", "a-1"), ("email", "ann@example.org")];
    // Alone in the workspace: whoever records waits, after it has looked up.
    let mut alone = world.database.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock($1, $2)")
        .bind(0x6964_7479)
        .bind(i32::try_from(world.workspace.0).unwrap())
        .execute(&mut *alone)
        .await
        .unwrap();
    let block = async {
        let waits = || async {
            let waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted and database =
                (select oid from pg_database where datname = current_database()))";
            sqlx::query_scalar::<_, bool>(waits).fetch_one(&world.database.pool).await.unwrap().then_some(())
        };
        tracklayer_testkit::eventually("recording waits", waits).await;
        let mac = world.hasher().identifier(&raw("email", "ann@example.org")).unwrap().mac;
        let block = sqlx::query("insert into identity.blocked values ($1, $2)");
        block.bind(world.workspace.0).bind(mac.0).execute(&world.database.pool).await.unwrap();
        alone.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(world.resolve_one(&pair), block);
    assert_eq!(answer.subject_keys.len(), 1);

    sqlx::query("delete from identity.blocked").execute(&world.database.pool).await.unwrap();
    // Others' company has both ends stored, so that the link alone is missing.
    world.resolve_one(&[("email", "ann@example.org"), ("phone", "+4915112345678")]).await;
    let answer = world.resolve_one(&pair).await;
    assert_eq!((answer.resolution, answer.subject_keys.len()), (Resolution::Recorded, 3));
}

#[tokio::test]
async fn nothing_joins_a_component_that_is_too_large_to_be_weighed_and_events_still_find_their_person() {
    let tiny = r#"{"types": {"user_id": {"priority": 1, "exclusive": true}, "anonymous_id": {"priority": 6}},
        "blocked_exact_ci": [], "max_cluster": 2}"#;
    let world = World::new(Policy::new(serde_json::from_str(tiny).unwrap()).unwrap()).await;
    let user = Some(world.key("user_id", "bot"));
    for n in 0..40 {
        let anonymous = format!("a-{n}");
        let event = [("user_id", "bot"), ("anonymous_id", anonymous.as_str())];
        assert_eq!(world.resolve_one(&event).await.canonical_key, user, "event {n}");
        assert_eq!(world.resolve_one(&event).await.resolution, Resolution::Known);
    }
    let largest: i32 = sqlx::query_scalar("select max(size) from identity.component")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(largest, 20, "ten times the cap");
    // One that was left out still links to others.
    let late = [("anonymous_id", "a-39"), ("anonymous_id", "other")];
    assert_eq!(world.resolve_one(&late).await.subject_keys.len(), 2);
}

#[tokio::test]
async fn the_key_that_a_narrowing_names_is_in_every_answer_of_a_profile_with_more_members_than_fit() {
    let policy = r#"{"types": {"user_id": {"priority": 1, "exclusive": true}, "anonymous_id": {"priority": 6}},
        "blocked_exact_ci": [], "max_cluster": 1000}"#;
    let world = World::new(Policy::new(serde_json::from_str(policy).unwrap()).unwrap()).await;
    let browsers: Vec<String> = (0..1_100).map(|n| format!("a-{n}")).collect();
    let mac = |type_name: &str, value: &str| world.hasher().identifier(&raw(type_name, value)).unwrap().mac;
    let last = browsers.iter().map(|browser| mac("anonymous_id", browser)).max().unwrap();
    // A person who is stored behind all their browsers.
    let user = (0..).map(|n| format!("bot-{n}")).find(|user| mac("user_id", user) > last).unwrap();
    let events: Vec<Item> =
        browsers.iter().map(|browser| item(&[("user_id", &user), ("anonymous_id", browser)])).collect();
    world.resolve(&events).await;
    let answer = world.resolve_one(&[("anonymous_id", "a-7")]).await;
    assert_eq!((answer.subject_keys.len(), answer.canonical_key), (1_000, Some(world.key("user_id", &user))));
    let distinct: BTreeSet<_> = answer.subject_keys.iter().collect();
    assert_eq!(distinct.len(), 1_000);
    assert!(answer.subject_keys.contains(&world.key("user_id", &user)));
}
