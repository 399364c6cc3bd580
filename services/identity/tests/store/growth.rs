//! Somebody known who brings new identifiers: what it costs, and that it is what a process without memory makes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tracklayer_identity::click_ids::{ClickKind, Clicks};
use tracklayer_identity::decision::{Act, Decision, pair};
use tracklayer_identity::evidence::{CollisionKind, Evidence};
use tracklayer_identity::identifier::RawIdentifier;
use tracklayer_identity::policy::Policy;
use tracklayer_identity::resolve::{Answer, Item, Resolution, Resolver};

use crate::world::{World, at, item, item_of, raw, resolver};

fn clicked(identifiers: Vec<RawIdentifier>, value: &str, minute: i64) -> Item {
    let mut clicks = Clicks::default();
    clicks.see(ClickKind::Fbp, value, at(minute));
    Item { clicks, seen_at: at(minute), ..item_of(identifiers) }
}

/// Index probes and rows that were read so far, by a connection that tells of them at once.
async fn work_of(pool: &PgPool) -> (i64, i64) {
    sqlx::query("select pg_stat_force_next_flush()").execute(pool).await.unwrap();
    sqlx::query_as(
        "select sum(idx_scan)::bigint, sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::bigint
         from pg_stat_user_tables where schemaname = 'identity'",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// A visit of a person in a new browser that has a browser id, with or without the address.
fn visit(person: &str, browser: usize, with_address: bool) -> Item {
    let mut identifiers = vec![raw("user_id", person), raw("anonymous_id", &format!("{person}-{browser}"))];
    if with_address {
        identifiers.push(raw("email", &format!("{person}@example.org")));
    }
    clicked(identifiers, &format!("fb.1.2.{browser}"), i64::try_from(browser).unwrap())
}

/// Probes and rows of the usual one of several visits, one by one. Not of all: the first ones find nothing remembered.
async fn usual_work(
    world: &World,
    (resolver, pool): (&Resolver, &PgPool),
    visits: Vec<Item>,
    check: impl Fn(Answer),
) -> (i64, i64) {
    let (mut probes, mut rows) = (Vec::new(), Vec::new());
    let mut before = work_of(pool).await;
    for visit in visits {
        check(resolver.resolve(world.workspace, &[visit]).await.unwrap().answers.remove(0));
        let after = work_of(pool).await;
        probes.push(after.0 - before.0);
        rows.push(after.1 - before.1);
        before = after;
    }
    let median = |mut of: Vec<i64>| {
        of.sort_unstable();
        of[of.len() / 2]
    };
    (median(probes), median(rows))
}

#[tokio::test]
async fn a_person_of_two_hundred_browsers_gets_a_hundred_more_for_what_the_first_ones_cost() {
    let world = World::alone(Policy::default()).await;
    let options: PgConnectOptions = world.database.url.parse().unwrap();
    let options = options.options([("enable_seqscan", "off")]);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let resolver = resolver(pool.clone(), &world.policy);
    let by = (&resolver, &pool);
    for (few, many, with_address) in [("few", "many", false), ("few-2", "many-2", true)] {
        let visits = |person: &str, browsers: std::ops::Range<usize>| -> Vec<Item> {
            browsers.map(|browser| visit(person, browser, with_address)).collect()
        };
        let is_recorded = |person: &str| {
            let key = Some(world.key("user_id", person));
            move |answer: Answer| {
                assert_eq!((answer.resolution, answer.canonical_key), (Resolution::Recorded, key));
            }
        };
        usual_work(&world, by, visits(few, 0..3), is_recorded(few)).await;
        resolver.resolve(world.workspace, &visits(many, 0..200)).await.unwrap();
        // As autovacuum does soon: while nothing is known of the tables, any index of a workspace looks as good as the right one.
        sqlx::query("analyze").execute(&pool).await.unwrap();
        let of_few = usual_work(&world, by, visits(few, 3..23), is_recorded(few)).await;
        // With the address: in these it becomes a hub, which takes a look at the whole.
        usual_work(&world, by, visits(many, 200..210), is_recorded(many)).await;
        let of_many = usual_work(&world, by, visits(many, 210..310), is_recorded(many)).await;
        let told = format!("{of_many:?} probes and rows a visit, {of_few:?} of somebody with few browsers");
        assert!(of_many.0 <= of_few.0 + 8 && of_many.0 < 80, "{told}");
        assert!(of_many.1 <= of_few.1 + 8 && of_many.1 < 80, "{told}");

        // Who is back in a browser of long ago costs no more.
        let back = |browser: usize| item_of(vec![raw("anonymous_id", &format!("{many}-{browser}"))]);
        let key = Some(world.key("user_id", many));
        let is_known = |answer: Answer| {
            assert_eq!((answer.resolution, answer.canonical_key), (Resolution::Known, key));
            assert_eq!(fbp_of(&answer), Some("fb.1.2.309"));
            assert_eq!(answer.subject_keys.len(), if with_address { 312 } else { 311 });
        };
        let of_back = usual_work(&world, by, (100..200).map(back).collect(), is_known).await;
        assert!(of_back.0 < 20 && of_back.1 < 20, "{of_back:?} probes and rows for somebody who is back");
    }
}

#[tokio::test]
async fn click_ids_of_a_few_cost_no_look_at_everybody() {
    let world = World::alone(Policy::default()).await;
    let options: PgConnectOptions = world.database.url.parse().unwrap();
    let options = options.options([("enable_seqscan", "off")]);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let resolver = resolver(pool.clone(), &world.policy);
    let visits = |from: usize, count: usize| -> Vec<Item> {
        (from..from + count).map(|n| visit(&format!("p-{n}"), n, true)).collect()
    };
    // What was planned for large batches in a small workspace, and stays.
    resolver.resolve(world.workspace, &visits(0, 300)).await.unwrap();
    sqlx::query("analyze").execute(&pool).await.unwrap();
    resolver.resolve(world.workspace, &visits(300, 600)).await.unwrap();
    resolver.resolve(world.workspace, &visits(1_000, 1_000)).await.unwrap();

    let clicks = |value: &str, minute: i64| {
        let known = (0..10).map(|n| vec![raw("anonymous_id", &format!("p-{n}-{n}"))]);
        known.map(|identifiers| clicked(identifiers, value, minute)).collect::<Vec<_>>()
    };
    for (what, batch) in [("new", visits(3_000, 10)), ("known", clicks("fb.1.2.9999", 9_999))] {
        let before = work_of(&pool).await;
        resolver.resolve(world.workspace, &batch).await.unwrap();
        let (probes, rows) = work_of(&pool).await;
        let told = format!("{} probes and {} rows of {what} visitors", probes - before.0, rows - before.1);
        assert!(probes - before.0 < 800 && rows - before.1 < 800, "{told}, of 6,000 identifiers");
        println!("{told}");
    }
}

/// What two answers must agree in; the order of the others' keys is no part of it.
fn comparable(mut answer: Answer) -> Answer {
    answer.subject_keys.sort_unstable();
    answer
}

/// A visit of one of few people, who have many browsers and share some things.
fn random_visit(random: &mut fastrand::Rng, minute: i64) -> Item {
    let person = random.u8(..4);
    // Later on, now and then somebody else's.
    let other = if minute > 8_000 && random.u8(..12) == 0 { random.u8(..4) } else { person };
    let browser = raw("anonymous_id", &format!("a-{other}-{}", random.u8(..70)));
    let mut identifiers = vec![browser];
    match random.u8(..10) {
        0..4 => identifiers.push(raw("user_id", &format!("u-{person}"))),
        4..6 => identifiers.push(raw("email", &format!("p{person}@example.org"))),
        6 => {
            identifiers.push(raw("user_id", &format!("u-{person}")));
            identifiers.push(raw("email", &format!("p{person}@example.org")));
        }
        7 => {
            identifiers.push(raw("user_id", &format!("u-{person}")));
            identifiers.push(raw("device_id", &format!("d-{person}-{}", random.u8(..9))));
        }
        8 => identifiers.push(raw("phone", &format!("+49301234{:02}", person * 3 + random.u8(..3)))),
        _ => {}
    }
    // Several have the same in the end, a later one always another.
    if random.bool() {
        clicked(identifiers, &format!("c-{}", minute / 300), minute)
    } else {
        item_of(identifiers)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_memory_without_and_by_two_processes_in_turn_the_same_becomes_of_the_same() {
    let tight = r#"{"types": {
        "user_id": {"priority": 1, "exclusive": true},
        "email": {"priority": 3, "fanout": {"user_id": 3, "anonymous_id": 12}},
        "phone": {"priority": 4, "fanout": {"user_id": 3, "email": 3}},
        "device_id": {"priority": 5, "fanout": {"user_id": 3}},
        "anonymous_id": {"priority": 6, "fanout": {"user_id": 3}}},
        "blocked_exact_ci": [], "max_cluster": 45}"#;
    let tight = Policy::new(serde_json::from_str(tight).unwrap()).unwrap();
    let mut seen = [false; Resolution::ALL.len()];
    let mut largest = 0;
    for (seed, policy) in [(1, Policy::default()), (2, Policy::default()), (3, tight.clone()), (4, tight)] {
        let (one, none, two) =
            (World::new(policy.clone()).await, World::new(policy.clone()).await, World::new(policy).await);
        let in_turn = [0, 1].map(|_| resolver(two.database.pool.clone(), &two.policy));
        let mut random = fastrand::Rng::with_seed(seed);
        let mut events = Vec::new();
        for round in 0..120_i64 {
            if round == 60 {
                for world in [&one, &none, &two] {
                    let mac = world.hasher().identifier(&raw("anonymous_id", "a-0-69")).unwrap().mac;
                    sqlx::query("insert into identity.suppressed values ($1, $2)")
                        .bind(world.workspace.0)
                        .bind(mac.0)
                        .execute(&world.database.pool)
                        .await
                        .unwrap();
                }
            }
            let batch: Vec<Item> =
                (0..random.i64(1..6)).map(|n| random_visit(&mut random, round * 100 + n)).collect();
            let remembering = one.resolve(&batch).await;
            let fresh = resolver(none.database.pool.clone(), &none.policy);
            let forgetful = fresh.resolve(none.workspace, &batch).await.unwrap().answers;
            let turn = &in_turn[usize::from(round % 2 == 1)];
            let alternating = turn.resolve(two.workspace, &batch).await.unwrap().answers;
            for ((remembering, forgetful), alternating) in
                remembering.into_iter().zip(forgetful).zip(alternating)
            {
                seen[remembering.resolution as usize] = true;
                largest = largest.max(remembering.subject_keys.len());
                let expected = comparable(forgetful);
                assert_eq!(comparable(remembering), expected, "seed {seed} round {round}, one process");
                assert_eq!(comparable(alternating), expected, "seed {seed} round {round}, two in turn");
            }
            if round < 60 {
                events.extend(batch.into_iter().map(|item| item.identifiers));
            }
            if round == 59 {
                for world in [&one, &none, &two] {
                    world.assert_agrees(&events, Evidence::default(), &format!("seed {seed}")).await;
                }
            }
        }
        let stored = none.stored().await;
        assert_eq!(one.stored().await, stored, "seed {seed}");
        assert_eq!(two.stored().await, stored, "seed {seed}");
        let mut named = Vec::new();
        for world in [&one, &none, &two] {
            let keys: Vec<uuid::Uuid> =
                sqlx::query_scalar("select distinct unnest(subject_keys) from identity.narrowing order by 1")
                    .fetch_all(&world.database.pool)
                    .await
                    .unwrap();
            named.push(keys);
        }
        assert!(named.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: whom consent is told of");
    }
    let [_, _, known, recorded, contested] = seen;
    assert!(known && recorded && contested, "{seen:?}");
    assert!(largest > 35, "nobody had more than {largest} identifiers");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_add_to_one_person_at_a_time_lose_nobody() {
    let world = World::new(Policy::default()).await;
    let both = [0, 1].map(|_| resolver(world.database.pool.clone(), &world.policy));
    let mut events = vec![vec![raw("user_id", "u-1"), raw("anonymous_id", "a")]];
    world.resolve(&[item_of(events[0].clone())]).await;
    for round in 0..40 {
        let visits: Vec<Vec<RawIdentifier>> = (0..both.len())
            .map(|n| vec![raw("user_id", "u-1"), raw("anonymous_id", &format!("a-{n}-{round}"))])
            .collect();
        let items: Vec<Item> = visits.iter().cloned().map(item_of).collect();
        let adding =
            both.iter().zip(&items).map(|(by, item)| by.resolve(world.workspace, std::slice::from_ref(item)));
        for (n, answer) in futures::future::join_all(adding).await.into_iter().enumerate() {
            let answer = answer.unwrap().answers.remove(0);
            assert_eq!(answer.canonical_key, Some(world.key("user_id", "u-1")), "round {round}");
            let keys = answer.subject_keys;
            assert!(keys.contains(&world.key("anonymous_id", &format!("a-{n}-{round}"))));
            assert!(keys.len() >= 3 + 2 * round, "round {round}: {} keys", keys.len());
        }
        events.extend(visits);
        for by in &both {
            let answer =
                by.resolve(world.workspace, &[item(&[("user_id", "u-1")])]).await.unwrap().answers.remove(0);
            let keys: BTreeSet<_> = answer.subject_keys.into_iter().collect();
            assert_eq!(keys.len(), 2 + 2 * (round + 1), "round {round}");
        }
    }
    world.assert_agrees(&events, Evidence::default(), "two processes").await;
}

#[tokio::test]
async fn what_was_rolled_back_is_not_remembered() {
    let world = World::new(Policy::default()).await;
    let known = [("user_id", "u-1"), ("anonymous_id", "a-1")];
    let joining = [("user_id", "u-1"), ("anonymous_id", "a-2")];
    let raws = known.iter().map(|(type_name, value)| raw(type_name, value)).collect();
    world.resolve(&[clicked(raws, "first", 0)]).await;
    world.resolve_until_remembered(&[item(&known)]).await;
    // At the last moment: as the transaction is committed.
    let refuse = "create function identity.refuse() returns trigger language plpgsql as
             $$ begin raise exception 'refused'; end $$;
         create constraint trigger refuse after insert on identity.link deferrable initially deferred
             for each row execute function identity.refuse()";
    sqlx::raw_sql(refuse).execute(&world.database.pool).await.unwrap();
    assert!(world.resolver.resolve(world.workspace, &[item(&joining)]).await.is_err());
    // Who was known before is remembered as he was: nothing is read anew.
    let behind_their_back = "set session_replication_role = replica; delete from identity.click_id;
         set session_replication_role = origin";
    sqlx::raw_sql(behind_their_back).execute(&world.database.pool).await.unwrap();
    let left = [world.key("user_id", "u-1"), world.key("anonymous_id", "a-1")];
    let answer = world.resolve_one(&[("user_id", "u-1")]).await;
    assert_eq!(answer.subject_keys, left);
    assert_eq!(fbp_of(&answer), Some("first"));
    let alone = world.resolve_one(&[("anonymous_id", "a-2")]).await;
    assert_eq!((alone.resolution, alone.subject_keys.len()), (Resolution::Computed, 1));

    sqlx::raw_sql("drop trigger refuse on identity.link").execute(&world.database.pool).await.unwrap();
    let joined = world.resolve_one(&joining).await;
    assert_eq!((joined.resolution, joined.subject_keys.len()), (Resolution::Recorded, 3));
    assert_eq!(world.resolve_one(&[("user_id", "u-1")]).await.subject_keys.len(), 3);
}

fn fbp_of(answer: &Answer) -> Option<&str> {
    answer.clicks.get(ClickKind::Fbp).map(|seen| seen.value.as_str())
}

#[tokio::test]
async fn a_click_whose_writer_did_not_see_that_its_identifier_joined_is_not_missed() {
    let world = World::new(Policy::default()).await;
    let person = [("user_id", "u-1"), ("anonymous_id", "a-1")];
    world.resolve_until_remembered(&[item(&person)]).await;
    let mac = world.hasher().identifier(&raw("anonymous_id", "a-2")).unwrap().mac;
    let mut writer = world.database.pool.begin().await.unwrap();
    let insert = "insert into identity.click_id (workspace_id, value_mac, kind, value, first_seen, last_seen)
         values ($1, $2, $3, 'late', now(), now())";
    sqlx::query(insert)
        .bind(world.workspace.0)
        .bind(mac.0)
        .bind(ClickKind::Fbp as i16)
        .execute(&mut *writer)
        .await
        .unwrap();
    // It joins while the writer is under way, who counts no version of what he cannot see, and is read again and again.
    let joined = world.resolve_one(&[("user_id", "u-1"), ("anonymous_id", "a-2")]).await;
    assert_eq!((joined.resolution, fbp_of(&joined)), (Resolution::Recorded, None));
    for _ in 0..4 {
        assert_eq!(fbp_of(&world.resolve_one(&[("user_id", "u-1")]).await), None);
    }
    writer.commit().await.unwrap();
    for _ in 0..3 {
        assert_eq!(fbp_of(&world.resolve_one(&[("user_id", "u-1")]).await), Some("late"));
        assert_eq!(fbp_of(&world.resolve_one(&[("anonymous_id", "a-2")]).await), Some("late"));
    }
}

#[tokio::test]
async fn who_is_seen_with_a_new_click_is_still_remembered() {
    let world = World::new(Policy::default()).await;
    let person = || vec![raw("user_id", "u-1"), raw("anonymous_id", "a-1")];
    world.resolve(&[clicked(person(), "first", 0)]).await;
    world.resolve_until_remembered(&[item_of(person())]).await;
    world.resolve(&[clicked(person(), "second", 10)]).await;
    let behind_their_back = "set session_replication_role = replica; delete from identity.click_id;
         set session_replication_role = origin";
    sqlx::raw_sql(behind_their_back).execute(&world.database.pool).await.unwrap();
    assert_eq!(
        fbp_of(&world.resolve_one(&[("user_id", "u-1")]).await),
        Some("second"),
        "nothing was read anew"
    );
    // Nor is it written again.
    world.resolve(&[clicked(person(), "second", 20)]).await;
    let rows: i64 = sqlx::query_scalar("select count(*) from identity.click_id")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_click_id_of_several_of_a_large_profile_is_known_since_its_first_sight() {
    let world = World::new(Policy::default()).await;
    let browser = |n: i64| {
        clicked(vec![raw("user_id", "u-1"), raw("anonymous_id", &format!("a-{n}"))], "fb.1.2.3", n * 100)
    };
    world.resolve(&(0..40).map(browser).collect::<Vec<_>>()).await;
    let fresh = resolver(world.database.pool.clone(), &world.policy);
    for by in [&fresh, &world.resolver] {
        let answers = by.resolve(world.workspace, &[item(&[("user_id", "u-1")])]).await.unwrap().answers;
        let seen = answers[0].clicks.get(ClickKind::Fbp).unwrap();
        assert_eq!((seen.first_seen, seen.last_seen), (at(0), at(3_900)));
    }
}

/// Waits until so many wait for a lock in this database.
async fn until_waiting(pool: &PgPool, many: i64) {
    const WAITING: &str = "select count(*) from pg_stat_activity
         where datname = current_database() and backend_type = 'client backend' and wait_event_type = 'Lock'";
    tracklayer_testkit::eventually("somebody to wait for a lock", async || {
        let waiting: i64 = sqlx::query_scalar(WAITING).fetch_one(pool).await.unwrap();
        (waiting >= many).then_some(())
    })
    .await;
}

const LOCK_COMPONENTS: &str = "select 1 from identity.component where workspace_id = $1 for update";

#[tokio::test]
async fn nobody_joins_against_a_decision_made_before_or_while_he_was_on_his_way() {
    let mut world = World::new(Policy::default()).await;
    for meanwhile in [false, true] {
        world = world.next();
        let events = [
            vec![raw("user_id", "u-1"), raw("email", "p1@example.org")],
            vec![raw("user_id", "u-1"), raw("anonymous_id", "a-1")],
        ];
        world.resolve(&[item_of(events[0].clone())]).await;
        let mac_of = |identifier: &RawIdentifier| world.hasher().identifier(identifier).unwrap().mac;
        let (a, b) = pair(mac_of(&events[1][0]), mac_of(&events[1][1]));
        let mut deciding = world.database.pool.begin().await.unwrap();
        sqlx::query(LOCK_COMPONENTS).bind(world.workspace.0).execute(&mut *deciding).await.unwrap();
        let decide = async {
            if meanwhile {
                until_waiting(&world.database.pool, 1).await;
            }
            // Whoever decides sees nothing of the new one yet, and so has nothing to recompute.
            sqlx::query(
                "insert into identity.decision (workspace_id, act, a_mac, b_mac, decided_by, reason, decided_at)
                 values ($1, 'separate', $2, $3, 'owner', 'test', now())",
            )
            .bind(world.workspace.0)
            .bind(a.0)
            .bind(b.0)
            .execute(&mut *deciding)
            .await
            .unwrap();
            deciding.commit().await.unwrap();
        };
        let joining = [item_of(events[1].clone())];
        if meanwhile {
            tokio::join!(world.resolve(&joining), decide);
        } else {
            decide.await;
            world.resolve(&joining).await;
        }
        let mut evidence = Evidence::default();
        evidence.decisions.push(Decision { at: at(0), id: 1, act: Act::Separate(a, b) });
        world.assert_agrees(&events, evidence, &format!("meanwhile: {meanwhile}")).await;
    }
}

#[tokio::test]
async fn nobody_joins_where_somebody_else_has_come_between_since_the_lookup() {
    let world = World::new(Policy::default()).await;
    let other = resolver(world.database.pool.clone(), &world.policy);
    let pool = &world.database.pool;
    let address = || raw("email", "p1@example.org");
    let events = [
        vec![raw("user_id", "u-1"), address()],
        vec![raw("user_id", "u-2"), address()],
        vec![address(), raw("anonymous_id", "a-1")],
    ];
    world.resolve(&[item_of(events[0].clone())]).await;
    let (contesting, joining) = ([item_of(events[1].clone())], [item_of(events[2].clone())]);
    let mut holding = pool.begin().await.unwrap();
    sqlx::query(LOCK_COMPONENTS).bind(world.workspace.0).execute(&mut *holding).await.unwrap();
    // Both have looked up by the time that the first of them gets the lock.
    let contest = other.resolve(world.workspace, &contesting);
    let join = async {
        until_waiting(pool, 1).await;
        world.resolve(&joining).await
    };
    let release = async {
        until_waiting(pool, 2).await;
        holding.commit().await.unwrap();
    };
    let (contested, _, ()) = tokio::join!(contest, join, release);
    contested.unwrap();
    assert!(!world.stored().await.contested.is_empty());
    world.assert_agrees(&events, Evidence::default(), "contested meanwhile").await;
}

#[tokio::test]
async fn who_is_blocked_or_erased_on_his_way_joins_nobody() {
    let mut world = World::new(Policy::default()).await;
    for mark in
        ["insert into identity.blocked values ($1, $2)", "insert into identity.suppressed values ($1, $2)"]
    {
        world = world.next();
        world.resolve_one(&[("user_id", "u-1"), ("email", "p1@example.org")]).await;
        let before = world.stored().await;
        let mac = world.hasher().identifier(&raw("anonymous_id", "a-1")).unwrap().mac;
        let mut marking = world.database.pool.begin().await.unwrap();
        // The lookup reads, and whoever inserts waits.
        sqlx::raw_sql("lock table identity.identifier in share mode").execute(&mut *marking).await.unwrap();
        let meanwhile = async {
            until_waiting(&world.database.pool, 1).await;
            sqlx::query(mark).bind(world.workspace.0).bind(mac.0).execute(&mut *marking).await.unwrap();
            marking.commit().await.unwrap();
        };
        let joining = [item(&[("user_id", "u-1"), ("anonymous_id", "a-1")])];
        tokio::join!(world.resolve(&joining), meanwhile);
        assert_eq!(world.stored().await, before, "{mark}");
        let links: i64 = sqlx::query_scalar("select count(*) from identity.link where workspace_id = $1")
            .bind(world.workspace.0)
            .fetch_one(&world.database.pool)
            .await
            .unwrap();
        assert_eq!(links, 1, "{mark}");
    }
}

#[tokio::test]
async fn who_has_links_from_before_he_was_blocked_joins_nobody_unseen() {
    let world = World::new(Policy::default()).await;
    let events = [
        vec![raw("user_id", "u-2"), raw("device_id", "d-1")],
        vec![raw("user_id", "u-1"), raw("anonymous_id", "a-1")],
        vec![raw("user_id", "u-1"), raw("device_id", "d-1"), raw("anonymous_id", "a-2")],
    ];
    for event in &events[..2] {
        world.resolve(&[item_of(event.clone())]).await;
    }
    // As a block does that is lifted later: the device goes, and its links stay.
    let mac = world.hasher().identifier(&raw("device_id", "d-1")).unwrap().mac;
    sqlx::query("delete from identity.identifier where value_mac = $1")
        .bind(mac.0)
        .execute(&world.database.pool)
        .await
        .unwrap();
    world.resolve(&[item_of(events[2].clone())]).await;
    assert!(world.stored().await.contested.contains(&mac), "two people claim it");
    world.assert_agrees(&events, Evidence::default(), "back after a block").await;
}

/// Few types without fan-out limits, and this cap.
fn capped(max_cluster: usize) -> Policy {
    let document = format!(
        r#"{{"types": {{
            "user_id": {{"priority": 1, "exclusive": true}},
            "email": {{"priority": 3}},
            "device_id": {{"priority": 5}},
            "anonymous_id": {{"priority": 6}}}},
            "blocked_exact_ci": [], "max_cluster": {max_cluster}}}"#
    );
    Policy::new(serde_json::from_str(&document).unwrap()).unwrap()
}

#[tokio::test]
async fn two_who_join_one_component_at_a_time_are_counted_together() {
    let world = World::new(capped(4)).await;
    let email = || raw("email", "p1@example.org");
    let events = [
        vec![raw("user_id", "u-1"), email(), raw("anonymous_id", "a-1")],
        vec![raw("user_id", "u-1"), raw("device_id", "d-1")],
        vec![email(), raw("device_id", "d-2")],
    ];
    world.resolve(&[item_of(events[0].clone())]).await;
    world.resolve(&events[1..].iter().cloned().map(item_of).collect::<Vec<_>>()).await;
    world.assert_agrees(&events, Evidence::default(), "one too many of five").await;
    let collisions = world.stored().await.collisions;
    assert!(collisions.iter().any(|collision| collision.kind == CollisionKind::Oversize));
}

#[tokio::test]
async fn who_stopped_linking_for_the_size_is_looked_at_anew_once_more_is_allowed() {
    let world = World::new(capped(3)).await;
    let mut events = vec![
        vec![raw("user_id", "u-1"), raw("email", "p1@example.org")],
        vec![raw("email", "p1@example.org"), raw("anonymous_id", "a-1")],
        vec![raw("anonymous_id", "a-1"), raw("device_id", "d-1")],
    ];
    for event in &events {
        world.resolve(&[item_of(event.clone())]).await;
    }
    world.assert_agrees(&events, Evidence::default(), "four where three may be").await;
    assert_eq!(world.stored().await.profiles.len(), 2, "the device is alone");

    let raised = capped(1_000);
    let later = World {
        database: Arc::clone(&world.database),
        workspace: world.workspace,
        resolver: resolver(world.database.pool.clone(), &raised),
        policy: raised,
    };
    // Known to be of the device alone, and weaker: it would join.
    events.push(vec![raw("device_id", "d-1"), raw("anonymous_id", "a-2")]);
    later.resolve(&[item_of(events[3].clone())]).await;
    later.assert_agrees(&events, Evidence::default(), "all may link").await;
    assert_eq!(later.stored().await.profiles.len(), 1);
}
