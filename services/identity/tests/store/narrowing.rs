//! Whose decisions are out of date: everybody whose company is another one, found by a key that the old decision names.

use std::collections::BTreeSet;

use tracklayer_identity::identifier::RawIdentifier;
use tracklayer_identity::policy::Policy;
use tracklayer_ids::SubjectKey;

use crate::world::{Values, World, item, item_of, random_event};

/// What consent was asked with, and the newest narrowing at that time.
struct Decision {
    event: Vec<RawIdentifier>,
    company: BTreeSet<SubjectKey>,
    seq: i64,
}

async fn narrowings(world: &World) -> Vec<(i64, BTreeSet<SubjectKey>)> {
    let rows: Vec<(i64, Vec<uuid::Uuid>)> = sqlx::query_as(
        "select narrowing_id, subject_keys from identity.narrowing where workspace_id = $1 order by narrowing_id",
    )
    .bind(world.workspace.0)
    .fetch_all(&world.database.pool)
    .await
    .unwrap();
    let keys = |keys: Vec<uuid::Uuid>| keys.into_iter().map(|key| SubjectKey(key.into_bytes())).collect();
    rows.into_iter().map(|(seq, named)| (seq, keys(named))).collect()
}

async fn decide(world: &World, event: Vec<RawIdentifier>) -> Decision {
    let answer = world.resolve(&[item_of(event.clone())]).await.remove(0);
    let seq = narrowings(world).await.last().map_or(0, |(seq, _)| *seq);
    Decision { event, company: answer.subject_keys.into_iter().collect(), seq }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_whose_company_changed_is_named_and_made_again_is_up_to_date() {
    let mut world = World::new(Policy::default()).await;
    let (mut changed, mut kept) = (0, 0);
    for seed in 0..6 {
        world = world.next();
        let mut random = fastrand::Rng::with_seed(seed);
        let values = Values { people: 8, contacts: 6, devices: 4 };
        let mut decisions: Vec<Decision> = Vec::new();
        for _ in 0..25 {
            let event = random_event(&mut random, values);
            decisions.push(decide(&world, event).await);
            let log = narrowings(&world).await;
            for decision in &mut decisions {
                let now = decide(&world, decision.event.clone()).await;
                let named = log
                    .iter()
                    .any(|(seq, named)| *seq > decision.seq && !named.is_disjoint(&decision.company));
                if now.company == decision.company {
                    kept += usize::from(!named);
                } else {
                    assert!(named, "seed {seed}: {:?} became {:?}", decision.company, now.company);
                    changed += 1;
                }
                if named {
                    *decision = now;
                }
            }
            assert_eq!(narrowings(&world).await, log, "seen again, nothing changes");
        }
    }
    assert!(changed > 100 && kept > 1_000, "{changed} changed, {kept} kept");
}

#[tokio::test]
async fn a_known_batch_names_nobody_and_one_batch_costs_one_entry_for_each_cause() {
    let world = World::new(Policy::default()).await;
    let batch: Vec<_> = (0..50)
        .map(|n| item(&[("anonymous_id", &format!("a-{n}")), ("user_id", &format!("u-{n}"))]))
        .collect();
    world.resolve(&batch).await;
    let log = narrowings(&world).await;
    assert_eq!(log.iter().map(|(_, named)| named.len()).collect::<Vec<_>>(), [100]);
    world.resolve(&batch).await;
    assert_eq!(narrowings(&world).await, log);
}

#[tokio::test]
async fn who_only_joins_is_named_with_the_key_of_the_profile_and_nobody_else() {
    let world = World::new(Policy::default()).await;
    let email = |n: usize| format!("p{n}@example.org");
    for n in 0..2 {
        world.resolve_one(&[("user_id", &format!("u-{n}")), ("email", &email(n))]).await;
    }
    // Seen with the address, which leads nobody; two people in one batch.
    let joining: Vec<_> =
        (0..2).map(|n| item(&[("email", &email(n)), ("anonymous_id", &format!("a-{n}"))])).collect();
    let before = narrowings(&world).await.len();
    world.resolve(&joining).await;
    let mut expected = BTreeSet::new();
    for n in 0..2 {
        expected.insert(world.key("user_id", &format!("u-{n}")));
        expected.insert(world.key("anonymous_id", &format!("a-{n}")));
    }
    let log = narrowings(&world).await;
    let named: Vec<_> = log[before..].iter().map(|(_, named)| named).collect();
    assert_eq!(named, [&expected]);
    let causes: Vec<(String, String)> =
        sqlx::query_as("select cause, evidence from identity.narrowing order by narrowing_id desc limit 1")
            .fetch_all(&world.database.pool)
            .await
            .unwrap();
    assert_eq!(causes, [("merge".to_owned(), "m-1".to_owned())]);
}
