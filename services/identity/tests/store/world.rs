//! A workspace of a test: its database, its resolver, and the evidence that the store must agree with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sqlx::{PgPool, Row};
use tracklayer_identity::click_ids::Clicks;
use tracklayer_identity::evidence::{CollisionKey, CollisionKind, Evidence};
use tracklayer_identity::identifier::{Hasher, RawIdentifier, ValueMac};
use tracklayer_identity::policy::{Policy, Types};
use tracklayer_identity::resolve::{Answer, Item, Resolver};
use tracklayer_identity::store::Store;
use tracklayer_ids::{MasterKey, SourceId, SubjectKey, WorkspaceId};
use tracklayer_testkit::TestDatabase;

const MASTER_KEY: [u8; 32] = [3; 32];

/// A workspace in a database.
pub struct World {
    pub database: Arc<TestDatabase>,
    pub workspace: WorkspaceId,
    pub resolver: Resolver,
    pub policy: Policy,
}

const SCHEMAS: &[(&str, &sqlx::migrate::Migrator)] = &[("identity", &tracklayer_identity::MIGRATOR)];

/// Profiles, contested identifiers, hubs and collisions.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    /// Members of each profile, and its key.
    pub profiles: BTreeSet<(BTreeSet<ValueMac>, SubjectKey)>,
    pub contested: BTreeSet<ValueMac>,
    pub hubs: BTreeSet<ValueMac>,
    pub collisions: BTreeSet<CollisionKey>,
}

impl World {
    pub async fn new(policy: Policy) -> Self {
        Self::over(tracklayer_testkit::database(SCHEMAS).await, policy)
    }

    /// Where nobody else is under way: while somebody is, nothing that was read is remembered.
    pub async fn alone(policy: Policy) -> Self {
        Self::over(tracklayer_testkit::database_alone(SCHEMAS).await, policy)
    }

    fn over(database: TestDatabase, policy: Policy) -> Self {
        let resolver = resolver(database.pool.clone(), &policy);
        Self { database: Arc::new(database), workspace: WorkspaceId(1), resolver, policy }
    }

    /// The next workspace of the same database.
    pub fn next(&self) -> Self {
        Self {
            database: Arc::clone(&self.database),
            workspace: WorkspaceId(self.workspace.0 + 1),
            resolver: self.resolver.clone(),
            policy: self.policy.clone(),
        }
    }

    /// The key of a normalised value.
    pub fn key(&self, type_name: &str, normalised: &str) -> SubjectKey {
        MasterKey::new(MASTER_KEY).workspace(self.workspace).subject(type_name, normalised)
    }

    /// Has them looked up until the process remembers their profiles: read twice, and whoever was under way at the first
    /// reading is done at the second.
    pub async fn resolve_until_remembered(&self, items: &[Item]) -> Vec<Answer> {
        let number = |what: &'static str| async move {
            sqlx::query_scalar::<_, i64>(what).fetch_one(&self.database.pool).await.unwrap()
        };
        self.resolve(items).await;
        let under_way = number("select pg_current_xact_id()::text::bigint").await;
        let over = || number("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint");
        tracklayer_testkit::eventually("the others are done", async || {
            (over().await > under_way).then_some(())
        })
        .await;
        self.resolve(items).await
    }

    pub async fn resolve(&self, items: &[Item]) -> Vec<Answer> {
        self.resolver.resolve(self.workspace, items).await.expect("the database is there").answers
    }

    pub async fn resolve_one(&self, identifiers: &[(&str, &str)]) -> Answer {
        self.resolve(&[item(identifiers)]).await.remove(0)
    }

    pub fn hasher(&self) -> Hasher {
        let key = MasterKey::new(MASTER_KEY).workspace(self.workspace);
        Hasher::new(key, Arc::new(self.policy.clone()))
    }

    /// What the store holds. Every number and reference between its tables is checked on the way.
    pub async fn stored(&self) -> State {
        let pool = &self.database.pool;
        let rows = sqlx::query(
            "select i.value_mac, i.profile_id, i.component_id, i.hub, i.contested, p.key,
                    p.component_id as profile_component
             from identity.identifier i
             left join identity.profile p on p.workspace_id = i.workspace_id and p.profile_id = i.profile_id
             where i.workspace_id = $1",
        )
        .bind(self.workspace.0)
        .fetch_all(pool)
        .await
        .unwrap();
        let mut profiles: BTreeMap<i64, (BTreeSet<ValueMac>, SubjectKey)> = BTreeMap::new();
        let mut sizes: BTreeMap<i64, i32> = BTreeMap::new();
        let (mut contested, mut hubs) = (BTreeSet::new(), BTreeSet::new());
        for row in rows {
            let mac = ValueMac(row.get("value_mac"));
            let key: Option<uuid::Uuid> = row.get("key");
            let key = SubjectKey(key.expect("every identifier has a profile").into_bytes());
            assert_eq!(row.get::<i64, _>("component_id"), row.get::<i64, _>("profile_component"));
            profiles.entry(row.get("profile_id")).or_insert((BTreeSet::new(), key)).0.insert(mac);
            *sizes.entry(row.get("component_id")).or_default() += 1;
            if row.get("contested") {
                contested.insert(mac);
            }
            if row.get("hub") {
                hubs.insert(mac);
            }
        }
        let counted: Vec<(i64, i32)> = sqlx::query_as(
            "select component_id, size from identity.component where workspace_id = $1 order by component_id",
        )
        .bind(self.workspace.0)
        .fetch_all(pool)
        .await
        .unwrap();
        assert_eq!(counted, sizes.into_iter().collect::<Vec<_>>());
        let count: i64 = sqlx::query_scalar("select count(*) from identity.profile where workspace_id = $1")
            .bind(self.workspace.0)
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(usize::try_from(count).unwrap(), profiles.len());
        let collisions = self.open_collisions().await;
        State { profiles: profiles.into_values().collect(), contested, hubs, collisions }
    }

    async fn open_collisions(&self) -> BTreeSet<CollisionKey> {
        let rows = sqlx::query(
            "select kind, between_macs, through_macs from identity.collision
             where workspace_id = $1 and state = 'open'",
        )
        .bind(self.workspace.0)
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        let macs = |values: Vec<[u8; 32]>| values.into_iter().map(ValueMac).collect();
        rows.iter()
            .map(|row| {
                let kind = match row.get::<&str, _>("kind") {
                    "exclusive" => CollisionKind::Exclusive,
                    "hub" => CollisionKind::Hub,
                    _ => CollisionKind::Oversize,
                };
                let (between, through) = (macs(row.get("between_macs")), macs(row.get("through_macs")));
                CollisionKey { kind, between, through }
            })
            .collect()
    }

    /// What follows from the evidence as a whole, without identifiers that were never seen with another: these are not
    /// stored, and each must be a profile of its own.
    pub fn expected(&self, events: &[Vec<RawIdentifier>], evidence: Evidence, stored: &State) -> State {
        let mut evidence = evidence;
        let mut hasher = self.hasher();
        let mut keys: BTreeMap<ValueMac, SubjectKey> = BTreeMap::new();
        for event in events {
            let together = hasher.observe(event);
            keys.extend(together.iter().map(|identifier| (identifier.mac, identifier.key)));
            evidence.observe(&together.iter().map(|i| (i.type_index, i.mac)).collect::<Vec<_>>());
        }
        let types: Types = hasher.into_types();
        let whole = evidence.profiles(&types);
        let known: BTreeSet<ValueMac> = stored.profiles.iter().flat_map(|(m, _)| m.iter().copied()).collect();
        let mut profiles = BTreeSet::new();
        for (members, leader) in whole.members(&types) {
            if members.len() > 1 || members.is_subset(&known) {
                profiles.insert((members, keys[&leader]));
            }
        }
        let hubs = whole.nodes.iter().zip(&whole.verdict.hub).filter(|(_, hub)| **hub);
        State {
            profiles,
            contested: whole.contested(),
            hubs: hubs.map(|(node, _)| node.mac).collect(),
            collisions: whole.collisions(),
        }
    }

    pub async fn assert_agrees(&self, events: &[Vec<RawIdentifier>], evidence: Evidence, what: &str) {
        let stored = self.stored().await;
        assert_eq!(stored, self.expected(events, evidence, &stored), "{what}");
    }
}

pub fn resolver(pool: PgPool, policy: &Policy) -> Resolver {
    Resolver::new(Store::new(pool), MasterKey::new(MASTER_KEY), policy.clone())
}

pub fn raw(type_name: &str, value: &str) -> RawIdentifier {
    RawIdentifier { type_name: type_name.to_owned(), value: value.to_owned().into() }
}

pub fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(29_000_000 + minute)
}

pub fn item(identifiers: &[(&str, &str)]) -> Item {
    item_of(identifiers.iter().map(|(type_name, value)| raw(type_name, value)).collect())
}

pub fn item_of(identifiers: Vec<RawIdentifier>) -> Item {
    Item {
        identifiers,
        clicks: Clicks::default(),
        seen_at: at(0),
        source: SourceId(1),
        message_id: "m-1".to_owned(),
    }
}

/// How many values there are of each kind of type: few people clash, few devices become hubs.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    pub people: u8,
    pub contacts: u8,
    pub devices: u8,
}

/// Up to three identifiers of six types.
pub fn random_event(random: &mut fastrand::Rng, values: Values) -> Vec<RawIdentifier> {
    const TYPES: [&str; 6] = ["user_id", "app_user_id", "email", "phone", "device_id", "anonymous_id"];
    (0..random.usize(1..=3))
        .map(|_| match TYPES[random.usize(..TYPES.len())] {
            "email" => raw("email", &format!("p{}@example.org", random.u8(..values.contacts))),
            "phone" => raw("phone", &format!("+49301234{:02}", random.u8(..values.contacts))),
            device @ ("device_id" | "anonymous_id") => {
                raw(device, &format!("d-{}", random.u8(..values.devices)))
            }
            person => raw(person, &format!("u-{}", random.u8(..values.people))),
        })
        .collect()
}
