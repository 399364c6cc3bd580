//! Every scenario of the identity vectors, in every order and with every observation twice.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracklayer_event::identifiers;
use tracklayer_identity::decision::{Act, Decision};
use tracklayer_identity::evidence::{CollisionKind, Evidence};
use tracklayer_identity::identifier::ValueMac;
use tracklayer_identity::policy::{Policy, PolicyDocument, TypeIndex, Types};

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
    expected: Expected,
}

#[derive(Deserialize)]
struct DecisionVector {
    at: jiff::Timestamp,
    #[serde(rename = "do")]
    act: String,
    a: Option<Value>,
    b: Option<Value>,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct Expected {
    profiles: Vec<Vec<Value>>,
    contested: Vec<Vec<Value>>,
    collisions: Vec<CollisionVector>,
    leaders: Vec<Value>,
}

#[derive(Deserialize)]
struct CollisionVector {
    kind: String,
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    between: Vec<Value>,
    #[serde(default)]
    through: Vec<Value>,
    id: Option<Value>,
}

/// Names and hashes of one scenario. The vectors compare leaders by an unkeyed hash.
struct Names {
    policy: Arc<Policy>,
    types: Types,
    values: BTreeMap<ValueMac, Value>,
}

impl Names {
    fn identifier(&mut self, value: &Value) -> Option<(TypeIndex, ValueMac)> {
        let (type_name, raw) = value;
        let normalised = match type_name.as_str() {
            "email" => identifiers::email(raw),
            "phone" => identifiers::phone(raw),
            _ => identifiers::id(raw),
        }?;
        if self.policy.is_blocked(type_name, &normalised) {
            return None;
        }
        let mac = ValueMac(Sha256::digest(format!("{type_name}\x1f{normalised}")).into());
        self.values.insert(mac, (type_name.clone(), normalised));
        Some((self.types.intern(type_name), mac))
    }

    fn mac(&mut self, value: &Value) -> ValueMac {
        self.identifier(value).expect("the vectors decide about usable identifiers").1
    }

    fn values<'a>(&self, macs: impl IntoIterator<Item = &'a ValueMac>) -> BTreeSet<Value> {
        macs.into_iter().map(|mac| self.values[mac].clone()).collect()
    }
}

/// Kind, types, between, through.
type SeenCollision = (String, BTreeSet<String>, BTreeSet<Value>, BTreeSet<Value>);

/// What an outsider sees of the answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    profiles: BTreeSet<BTreeSet<Value>>,
    contested: BTreeSet<Value>,
    collisions: BTreeSet<SeenCollision>,
    leaders: BTreeSet<Value>,
}

impl Expected {
    fn answer(&self) -> Answer {
        let set = |values: &[Value]| values.iter().cloned().collect::<BTreeSet<_>>();
        let collisions = self.collisions.iter().map(|c| {
            let between = c.id.as_ref().map_or_else(|| set(&c.between), |id| set(std::slice::from_ref(id)));
            (c.kind.clone(), c.types.iter().cloned().collect(), between, set(&c.through))
        });
        Answer {
            profiles: self.profiles.iter().map(|p| set(p)).collect(),
            contested: self.contested.iter().flatten().cloned().collect(),
            collisions: collisions.collect(),
            leaders: set(&self.leaders),
        }
    }
}

fn answer(policy: &Arc<Policy>, scenario: &Scenario, order: &[usize]) -> Answer {
    let mut names =
        Names { policy: Arc::clone(policy), types: Types::new(Arc::clone(policy)), values: BTreeMap::new() };
    let mut evidence = Evidence::default();
    for &n in order {
        let together: Vec<_> = scenario.observations[n].iter().filter_map(|v| names.identifier(v)).collect();
        evidence.observe(&together);
    }
    for (id, decision) in (1..).zip(&scenario.decisions) {
        let mut mac = |value: &Option<Value>| names.mac(value.as_ref().expect("the vectors name both sides"));
        let act = match decision.act.as_str() {
            "merge" => Act::Merge(mac(&decision.a), mac(&decision.b)),
            "separate" => Act::Separate(mac(&decision.a), mac(&decision.b)),
            "block" => Act::Block(mac(&decision.id)),
            other => panic!("unknown decision {other}"),
        };
        evidence.decisions.push(Decision { at: decision.at, id, act });
    }
    evidence.erased = scenario.erased.iter().map(|value| names.mac(value)).collect();

    let profiles = evidence.profiles(&names.types);
    let members = profiles.members(&names.types);
    let collisions = profiles.collisions().into_iter().map(|c| {
        let types = match c.kind {
            CollisionKind::Exclusive => c.between.iter().map(|mac| names.values[mac].0.clone()).collect(),
            CollisionKind::Hub | CollisionKind::Oversize => BTreeSet::new(),
        };
        (c.kind.as_str().to_owned(), types, names.values(&c.between), names.values(&c.through))
    });
    Answer {
        collisions: collisions.collect(),
        profiles: members.iter().map(|(macs, _)| names.values(macs)).collect(),
        leaders: names.values(members.iter().map(|(_, leader)| leader)),
        contested: names.values(&profiles.contested()),
    }
}

fn vectors() -> (Arc<Policy>, Vec<Scenario>) {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../../tests/vectors/identity-scenarios.json")).unwrap();
    (Arc::new(Policy::new(vectors.policy).unwrap()), vectors.scenarios)
}

/// All orders of up to 6 observations; of more, 200 shuffles.
fn orders(n: usize) -> Vec<Vec<usize>> {
    let identity: Vec<usize> = (0..n).collect();
    if n > 6 {
        let mut random = fastrand::Rng::with_seed(7);
        return (0..200)
            .map(|_| {
                let mut order = identity.clone();
                random.shuffle(&mut order);
                order
            })
            .collect();
    }
    let mut all = vec![Vec::new()];
    for next in identity {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, next);
                    longer
                })
            })
            .collect();
    }
    all
}

#[test]
fn every_scenario_gives_its_profiles_collisions_and_leaders() {
    let (policy, scenarios) = vectors();
    assert_eq!(scenarios.len(), 31);
    for scenario in &scenarios {
        let in_order: Vec<usize> = (0..scenario.observations.len()).collect();
        assert_eq!(answer(&policy, scenario, &in_order), scenario.expected.answer(), "{}", scenario.id);
    }
}

#[test]
fn order_and_repetition_change_nothing() {
    let (policy, scenarios) = vectors();
    for scenario in &scenarios {
        let expected = scenario.expected.answer();
        for order in orders(scenario.observations.len()) {
            let twice: Vec<usize> = order.iter().chain(order.iter().rev()).copied().collect();
            assert_eq!(answer(&policy, scenario, &twice), expected, "{} in order {order:?}", scenario.id);
        }
    }
}

#[test]
fn the_default_policy_links_as_the_vectors_do() {
    let (vectors_policy, scenarios) = vectors();
    let default = Arc::new(Policy::default());
    for scenario in &scenarios {
        // The desk address is a workspace's own, no default.
        if scenario.id != "b2b-desk-email" {
            let order: Vec<usize> = (0..scenario.observations.len()).collect();
            let (one, other) =
                (answer(&vectors_policy, scenario, &order), answer(&default, scenario, &order));
            assert_eq!(one, other, "{}", scenario.id);
        }
    }
}
