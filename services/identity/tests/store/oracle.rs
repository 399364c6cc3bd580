//! The store, brought up to date region by region, equals the whole-set function.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;
use tracklayer_identity::decision::{Act, Decision, pair};
use tracklayer_identity::evidence::{CollisionKind, Evidence};
use tracklayer_identity::identifier::RawIdentifier;
use tracklayer_identity::policy::{Policy, PolicyDocument};

use crate::world::{State, Values, World, item_of, random_event, raw};

type Value = (String, String);

#[derive(Deserialize)]
struct Vectors {
    policy: PolicyDocument,
    scenarios: Vec<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    id: String,
    observations: Vec<Vec<Value>>,
    decisions: Vec<DecisionVector>,
    erased: Vec<Value>,
}

#[derive(Deserialize)]
struct DecisionVector {
    at: Timestamp,
    #[serde(rename = "do")]
    act: String,
    a: Option<Value>,
    b: Option<Value>,
    id: Option<Value>,
}

/// Decisions and erasures of a scenario, told to the store before anything is seen.
async fn tell(world: &World, scenario: &Scenario) -> Evidence {
    let mut hasher = world.hasher();
    let mut mac = |(type_name, value): &Value| hasher.identifier(&raw(type_name, value)).unwrap().mac;
    let mut evidence = Evidence::default();
    let pool = &world.database.pool;
    for (id, decision) in (1..).zip(&scenario.decisions) {
        let mut side = |value: &Option<Value>| mac(value.as_ref().unwrap());
        let act = match decision.act.as_str() {
            "merge" => Act::Merge(side(&decision.a), side(&decision.b)),
            "separate" => Act::Separate(side(&decision.a), side(&decision.b)),
            _ => Act::Block(side(&decision.id)),
        };
        evidence.decisions.push(Decision { at: decision.at, id, act });
        match act {
            Act::Merge(a, b) | Act::Separate(a, b) => {
                let (a, b) = pair(a, b);
                sqlx::query(
                    "with latest as (
                         insert into identity.decision (workspace_id, act, a_mac, b_mac, decided_by, reason, decided_at)
                         values ($1, $2, $3, $4, 'owner', 'test', now()) returning decision_id)
                     update identity.decision set superseded_by = (select decision_id from latest)
                     where workspace_id = $1 and a_mac = $3 and b_mac = $4 and superseded_by is null",
                )
                .bind(world.workspace.0)
                .bind(&decision.act)
                .bind(a.0)
                .bind(b.0)
                .execute(pool)
                .await
                .unwrap();
            }
            Act::Block(blocked) => {
                sqlx::query("insert into identity.blocked values ($1, $2)")
                    .bind(world.workspace.0)
                    .bind(blocked.0)
                    .execute(pool)
                    .await
                    .unwrap();
            }
        }
    }
    for erased in &scenario.erased {
        let erased = mac(erased);
        evidence.erased.insert(erased);
        sqlx::query("insert into identity.suppressed values ($1, $2)")
            .bind(world.workspace.0)
            .bind(erased.0)
            .execute(pool)
            .await
            .unwrap();
    }
    evidence
}

fn raw_events(scenario: &Scenario) -> Vec<Vec<RawIdentifier>> {
    scenario.observations.iter().map(|event| event.iter().map(|(t, v)| raw(t, v)).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_is_stored_as_the_whole_set_says_in_any_batching() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../../../tests/vectors/identity-scenarios.json")).unwrap();
    let mut world = World::new(Policy::new(vectors.policy).unwrap()).await;
    for scenario in &vectors.scenarios {
        for (backwards, size) in [(false, 1), (true, 1), (false, 500)] {
            world = world.next();
            let evidence = tell(&world, scenario).await;
            let mut events = raw_events(scenario);
            if backwards {
                events.reverse();
            }
            for batch in events.chunks(size) {
                world.resolve(&batch.iter().cloned().map(item_of).collect::<Vec<_>>()).await;
            }
            world.assert_agrees(&events, evidence, &scenario.id).await;
        }
    }
}

/// Batches of random events, each checked; answers with the last state.
async fn random_history(world: &World, seed: u64, values: Values, events: usize) -> State {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = Vec::new();
    while seen.len() < events {
        let batch: Vec<_> = (0..random.usize(1..=6)).map(|_| random_event(&mut random, values)).collect();
        world.resolve(&batch.iter().cloned().map(item_of).collect::<Vec<_>>()).await;
        seen.extend(batch);
        let after = format!("seed {seed} after {} events", seen.len());
        world.assert_agrees(&seen, Evidence::default(), &after).await;
    }
    // Seen again in another order, nothing changes.
    let before = world.stored().await;
    random.shuffle(&mut seen);
    world.resolve(&seen.iter().cloned().map(item_of).collect::<Vec<_>>()).await;
    assert_eq!(world.stored().await, before, "seed {seed}");
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_are_stored_as_the_whole_set_says_after_every_batch() {
    let mut world = World::new(Policy::default()).await;
    let (mut contested, mut hubs) = (0, 0);
    for seed in 0..12 {
        for (people, contacts, devices) in [(4, 4, 4), (9, 9, 9), (12, 5, 3)] {
            world = world.next();
            let values = Values { people, contacts, devices };
            let state = random_history(&world, seed, values, 40).await;
            contested += state.contested.len();
            hubs += state.hubs.len();
        }
    }
    assert!(contested > 0 && hubs > 0, "{contested} contested, {hubs} hubs");
}

#[tokio::test(flavor = "multi_thread")]
async fn components_above_the_cap_are_stored_as_the_whole_set_says() {
    let capped = r#"{"types": {
        "user_id": {"priority": 1, "exclusive": true},
        "email": {"priority": 3, "fanout": {"user_id": 3, "anonymous_id": 6}},
        "phone": {"priority": 4, "fanout": {"user_id": 3, "email": 3}},
        "device_id": {"priority": 5, "fanout": {"user_id": 3}},
        "anonymous_id": {"priority": 6, "fanout": {"user_id": 3}}},
        "blocked_exact_ci": [], "max_cluster": 7}"#;
    let mut world = World::new(Policy::new(serde_json::from_str(capped).unwrap()).unwrap()).await;
    let mut oversize = 0;
    for seed in 200..212 {
        world = world.next();
        let state = random_history(&world, seed, Values { people: 7, contacts: 7, devices: 7 }, 40).await;
        oversize += state.collisions.iter().filter(|c| c.kind == CollisionKind::Oversize).count();
    }
    assert!(oversize > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_batches_end_in_the_same_state_whatever_their_order() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut events: Vec<_> =
        (0..60).map(|_| random_event(&mut random, Values { people: 8, contacts: 6, devices: 4 })).collect();
    let mut states = Vec::new();
    // Keys differ between workspaces, so each order gets a database of its own.
    for _ in 0..4 {
        let world = World::new(Policy::default()).await;
        random.shuffle(&mut events);
        for batch in events.chunks(random.usize(1..20)) {
            world.resolve(&batch.iter().cloned().map(item_of).collect::<Vec<_>>()).await;
        }
        states.push(world.stored().await);
    }
    assert!(states.windows(2).all(|w| w[0] == w[1]));
    let sizes: BTreeSet<usize> = states[0].profiles.iter().map(|(members, _)| members.len()).collect();
    assert!(sizes.len() > 1, "a history without any profile of several identifiers shows nothing");
}
