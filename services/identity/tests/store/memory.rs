//! What a process remembers of profiles is never taken for what is stored by now.

use tracklayer_identity::click_ids::{ClickKind, Clicks};
use tracklayer_identity::policy::Policy;
use tracklayer_identity::resolve::{Answer, Item, Resolution};

use crate::world::{Values, World, at, item, item_of, random_event, raw, resolver};

fn clicked(identifiers: &[(&str, &str)], value: &str, minute: i64) -> Item {
    let mut clicks = Clicks::default();
    clicks.see(ClickKind::Gclid, value, at(minute));
    Item { clicks, ..item(identifiers) }
}

#[tokio::test]
async fn a_process_with_memories_answers_like_one_without_whatever_others_record() {
    let world = World::new(Policy::default()).await;
    let mut random = fastrand::Rng::with_seed(11);
    let values = Values { people: 6, contacts: 8, devices: 14 };
    let mut seen = [false; Resolution::ALL.len()];
    for round in 0..60 {
        // The one that remembers has seen them all; others record what it does not see.
        let other = resolver(world.database.pool.clone(), &world.policy);
        let mut with_click = || {
            let mut clicks = Clicks::default();
            let kind = if random.bool() { ClickKind::Gclid } else { ClickKind::Fbp };
            clicks.see(kind, &format!("c-{}", random.u8(..4)), at(random.i64(0..900)));
            Item { clicks, ..item_of(random_event(&mut random, values)) }
        };
        let theirs: Vec<Item> = (0..3).map(|_| with_click()).collect();
        other.resolve(world.workspace, &theirs).await.unwrap();
        if round % 3 == 0 {
            world.resolve(&[with_click()]).await;
        }
        let asked: Vec<Item> =
            (0..6).map(|_| item_of(vec![random_event(&mut random, values).remove(0)])).collect();
        let remembering = world.resolve(&asked).await;
        let fresh = resolver(world.database.pool.clone(), &world.policy);
        let afresh = fresh.resolve(world.workspace, &asked).await.unwrap().answers;
        for (mut one, mut two) in remembering.into_iter().zip(afresh) {
            seen[one.resolution as usize] = true;
            one.subject_keys.sort_unstable();
            two.subject_keys.sort_unstable();
            assert_eq!(one, two, "round {round}");
        }
    }
    assert!(seen[Resolution::Known as usize] && seen[Resolution::Contested as usize], "{seen:?}");
}

#[tokio::test]
async fn a_click_that_another_process_saw_is_known_here_at_once() {
    let world = World::new(Policy::default()).await;
    let person = [("user_id", "u-1"), ("anonymous_id", "a-1")];
    world.resolve(&[clicked(&person, "first", 0)]).await;
    world.resolve_until_remembered(&[item(&person)]).await;
    let other = resolver(world.database.pool.clone(), &world.policy);
    other.resolve(world.workspace, &[clicked(&person, "second", 5)]).await.unwrap();
    let answer = world.resolve_one(&[("user_id", "u-1")]).await;
    assert_eq!(answer.clicks.get(ClickKind::Gclid).map(|seen| seen.value.as_str()), Some("second"));
    world.resolve_until_remembered(&[item(&person)]).await;
    let again = world.resolve(&[clicked(&person, "third", 9)]).await.remove(0);
    assert_eq!(again.clicks.get(ClickKind::Gclid).map(|seen| seen.value.as_str()), Some("third"));
    let answer = resolver(world.database.pool.clone(), &world.policy)
        .resolve(world.workspace, &[item(&[("anonymous_id", "a-1")])])
        .await
        .unwrap();
    let known = answer.answers[0].clicks.get(ClickKind::Gclid);
    assert_eq!(known.map(|seen| seen.value.as_str()), Some("third"), "what is remembered is still written");
}

#[tokio::test]
async fn who_was_erased_meanwhile_is_suppressed_although_remembered() {
    let world = World::new(Policy::default()).await;
    let person = [("user_id", "u-1"), ("anonymous_id", "a-1")];
    world.resolve_until_remembered(&[item(&person)]).await;
    assert!(!world.resolve_one(&person).await.suppressed);
    let mac = world.hasher().identifier(&raw("user_id", "u-1")).unwrap().mac;
    sqlx::query("insert into identity.suppressed (workspace_id, value_mac) values ($1, $2)")
        .bind(world.workspace.0)
        .bind(mac.0)
        .execute(&world.database.pool)
        .await
        .unwrap();
    assert!(world.resolve_one(&person).await.suppressed);
}

#[tokio::test]
async fn a_change_within_a_component_that_keeps_its_size_is_seen() {
    let world = World::new(Policy::default()).await;
    for (a, b) in [("u-1", "a-1"), ("u-2", "a-1"), ("u-2", "a-2")] {
        world.resolve_one(&[("user_id", a), ("anonymous_id", b)]).await;
    }
    let remembered = world.resolve_until_remembered(&[item(&[("anonymous_id", "a-2")])]).await.remove(0);
    assert_eq!(remembered.resolution, Resolution::Known);
    assert_eq!(remembered.canonical_key, Some(world.key("user_id", "u-2")));
    let other = resolver(world.database.pool.clone(), &world.policy);
    other.resolve(world.workspace, &[item(&[("user_id", "u-1"), ("anonymous_id", "a-2")])]).await.unwrap();
    let answer = world.resolve_one(&[("anonymous_id", "a-2")]).await;
    assert_eq!(answer.resolution, Resolution::Contested, "two people use that browser by now");
    assert_eq!(answer.canonical_key, Some(world.key("anonymous_id", "a-2")));
}

#[tokio::test]
async fn a_profile_that_moved_to_another_component_of_the_same_version_is_not_taken_for_what_it_was() {
    for _ in 0..8 {
        let world = World::new(Policy::default()).await;
        for browser in ["a-1", "a-2", "a-3"] {
            world.resolve_one(&[("user_id", "u-1"), ("anonymous_id", browser)]).await;
        }
        let many = ["b-1", "b-2", "b-3", "b-4"].map(|browser| ("anonymous_id", browser));
        world.resolve_one(&[&[("user_id", "u-2")], many.as_slice()].concat()).await;
        // Remembered, where it is: with u-1.
        world.resolve_until_remembered(&[item(&[("anonymous_id", "a-3")])]).await;
        let other = resolver(world.database.pool.clone(), &world.policy);
        other
            .resolve(world.workspace, &[item(&[("user_id", "u-2"), ("anonymous_id", "a-3")])])
            .await
            .unwrap();
        world.resolve_one(&[("user_id", "u-1"), ("anonymous_id", "a-1")]).await;
        let both = [item(&[("user_id", "u-1")]), item(&[("anonymous_id", "a-3")])];
        let answer = world.resolve(&both).await.remove(1);
        assert_eq!(answer.resolution, Resolution::Contested, "two people use that browser by now");
        assert_eq!(answer.canonical_key, Some(world.key("anonymous_id", "a-3")));
    }
}

fn click_of(answer: &Answer) -> Option<&str> {
    answer.clicks.get(ClickKind::Gclid).map(|seen| seen.value.as_str())
}

const INSERT: &str =
    "insert into identity.click_id (workspace_id, value_mac, kind, value, first_seen, last_seen)
     values ($1, $2, 4, $3, now(), now())
     on conflict (workspace_id, value_mac, kind) do update set value = excluded.value, last_seen = now()";

#[tokio::test]
async fn who_is_remembered_costs_no_reading_of_click_ids() {
    let world = World::new(Policy::default()).await;
    let person = [("user_id", "u-1"), ("anonymous_id", "a-1")];
    world.resolve(&[clicked(&person, "first", 0)]).await;
    world.resolve_until_remembered(&[item(&person)]).await;
    let behind_their_back = "set session_replication_role = replica; delete from identity.click_id;
         set session_replication_role = origin";
    sqlx::raw_sql(behind_their_back).execute(&world.database.pool).await.unwrap();
    let remembered = world.resolve_one(&person).await;
    assert_eq!(click_of(&remembered), Some("first"));
}

#[tokio::test]
async fn click_ids_that_anybody_writes_changes_or_deletes_are_seen_at_once() {
    let world = World::new(Policy::default()).await;
    let person = [("user_id", "u-1"), ("anonymous_id", "a-1")];
    world.resolve_one(&person).await;
    let mac = world.hasher().identifier(&raw("anonymous_id", "a-1")).unwrap().mac;
    const DELETE: &str =
        "delete from identity.click_id where workspace_id = $1 and value_mac = $2 and $3 is not null";
    // As the release before does, which knows of no version.
    for (statement, value, expected) in
        [(INSERT, "one", Some("one")), (INSERT, "two", Some("two")), (DELETE, "", None)]
    {
        world.resolve_until_remembered(&[item(&person)]).await;
        sqlx::query(statement)
            .bind(world.workspace.0)
            .bind(mac.0)
            .bind(value)
            .execute(&world.database.pool)
            .await
            .unwrap();
        assert_eq!(click_of(&world.resolve_one(&person).await), expected);
    }
}

#[tokio::test]
async fn a_click_whose_writer_did_not_see_its_identifier_stored_is_not_missed() {
    let world = World::new(Policy::default()).await;
    let person = [("user_id", "u-1"), ("anonymous_id", "a-1")];
    let mac = world.hasher().identifier(&raw("anonymous_id", "a-1")).unwrap().mac;
    let mut writer = world.database.pool.begin().await.unwrap();
    sqlx::query(INSERT).bind(world.workspace.0).bind(mac.0).bind("late").execute(&mut *writer).await.unwrap();
    // Stored while the writer is under way, who counts no version of what he cannot see, and read again and again.
    for _ in 0..4 {
        assert_eq!(click_of(&world.resolve_one(&person).await), None);
    }
    writer.commit().await.unwrap();
    assert_eq!(click_of(&world.resolve_one(&person).await), Some("late"));
}

#[tokio::test]
async fn who_is_new_is_remembered_as_stored_and_not_read_again() {
    let world = World::new(Policy::default()).await;
    let person = [("user_id", "u-1"), ("anonymous_id", "a-1"), ("email", "ann@example.org")];
    let stored = world.resolve(&[clicked(&person, "first", 0)]).await.remove(0);
    assert_eq!((stored.resolution, click_of(&stored)), (Resolution::Recorded, Some("first")));
    let other = resolver(world.database.pool.clone(), &world.policy);
    let read = other.resolve(world.workspace, &[item(&person)]).await.unwrap().answers.remove(0);
    assert_eq!(read, Answer { resolution: Resolution::Known, ..stored });
    let behind_their_back = "set session_replication_role = replica; delete from identity.profile;
         set session_replication_role = origin";
    sqlx::raw_sql(behind_their_back).execute(&world.database.pool).await.unwrap();
    for _ in 0..3 {
        assert_eq!(world.resolve_one(&person).await, read);
    }
}

#[tokio::test]
async fn what_was_seen_on_a_browser_before_it_was_stored_is_told_of_all_who_are_stored_with_it() {
    let world = World::new(Policy::default()).await;
    let alone = world.resolve(&[clicked(&[("anonymous_id", "a-1")], "first", 0)]).await.remove(0);
    assert_eq!(alone.resolution, Resolution::Computed);
    let (browser, user) = (("anonymous_id", "a-1"), ("user_id", "u-1"));
    let batch = [item(&[browser, user]), item(&[user, ("email", "ann@example.org")])];
    for answer in world.resolve(&batch).await {
        assert_eq!((answer.resolution, click_of(&answer)), (Resolution::Recorded, Some("first")));
    }
}

async fn version(executor: impl sqlx::PgExecutor<'_>) -> i64 {
    sqlx::query_scalar("select version from identity.component").fetch_one(executor).await.unwrap()
}

#[tokio::test]
async fn a_click_that_is_not_worth_a_write_changes_no_version() {
    let world = World::new(Policy::default()).await;
    let person = [("user_id", "u-1"), ("anonymous_id", "a-1")];
    world.resolve(&[clicked(&person, "first", 0)]).await;
    let first = version(&world.database.pool).await;
    world.resolve(&[clicked(&person, "first", 30)]).await;
    assert_eq!(version(&world.database.pool).await, first);
    world.resolve(&[clicked(&person, "second", 40)]).await;
    assert_ne!(version(&world.database.pool).await, first);
}

#[tokio::test]
async fn two_states_that_were_never_both_there_have_different_versions() {
    let world = World::new(Policy::default()).await;
    world.resolve_one(&[("user_id", "u-1"), ("anonymous_id", "a-1")]).await;
    let change = "update identity.component set size = size";
    // As a failover does that loses the newest commits: somebody may have read the state.
    let mut lost = world.database.pool.begin().await.unwrap();
    sqlx::query(change).execute(&mut *lost).await.unwrap();
    let of_lost = version(&mut *lost).await;
    lost.rollback().await.unwrap();
    sqlx::query(change).execute(&world.database.pool).await.unwrap();
    assert_ne!(version(&world.database.pool).await, of_lost);
}

#[tokio::test]
async fn who_comes_back_after_a_block_is_seen_by_those_who_remember() {
    let world = World::new(Policy::default()).await;
    let (browser, device) = (("anonymous_id", "a-1"), ("device_id", "d-1"));
    let email = ("email", "ann@example.org");
    world.resolve_one(&[browser, device]).await;
    world.resolve_one(&[browser, email]).await;
    let mac = world.hasher().identifier(&raw(device.0, device.1)).unwrap().mac;
    sqlx::query("delete from identity.identifier where value_mac = $1")
        .bind(mac.0)
        .execute(&world.database.pool)
        .await
        .unwrap();
    let remembered = world.resolve_until_remembered(&[item(&[email])]).await.remove(0);
    assert!(!remembered.subject_keys.contains(&world.key(device.0, device.1)));
    let other = resolver(world.database.pool.clone(), &world.policy);
    other.resolve(world.workspace, &[item(&[browser, device])]).await.unwrap();
    let answer = world.resolve_one(&[email]).await;
    assert!(answer.subject_keys.contains(&world.key(device.0, device.1)), "signals of the device count");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_click_ids_of_the_same_people_do_not_wait_in_a_circle() {
    let world = World::new(Policy::default()).await;
    let people: Vec<Vec<(&str, String)>> =
        (0..400).map(|n| vec![("user_id", format!("u-{n}")), ("anonymous_id", format!("a-{n}"))]).collect();
    let batch = |kind: ClickKind, minute: i64, people: &[Vec<(&str, String)>]| {
        let of = |person: &Vec<(&str, String)>| {
            let identifiers: Vec<_> = person.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut clicks = Clicks::default();
            clicks.see(kind, &format!("c-{minute}"), at(minute));
            Item { clicks, ..item(&identifiers) }
        };
        people.iter().map(of).collect::<Vec<Item>>()
    };
    // Half of them have one kind, the other half another, so that each batch inserts and updates.
    let (first, second) = people.split_at(200);
    let deadlocks = async || -> i64 {
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&world.database.pool)
            .await
            .unwrap()
    };
    for minute in (100..1_300).step_by(100) {
        sqlx::query("delete from identity.click_id").execute(&world.database.pool).await.unwrap();
        world.resolve(&batch(ClickKind::Gclid, minute - 70, first)).await;
        world.resolve(&batch(ClickKind::Ttclid, minute - 70, second)).await;
        let batches = [ClickKind::Gclid, ClickKind::Ttclid].map(|kind| batch(kind, minute, &people));
        let others = [0, 1].map(|_| resolver(world.database.pool.clone(), &world.policy));
        let both = batches.iter().zip(&others).map(|(batch, other)| other.resolve(world.workspace, batch));
        for done in futures::future::join_all(both).await {
            done.unwrap();
        }
    }
    // Connections tell what they have seen within a second.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(deadlocks().await, 0);
}
