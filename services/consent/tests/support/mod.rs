//! What the tests against the real database share.
#![allow(dead_code)]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tracklayer_consent::{
    MIGRATOR,
    decide::Query,
    firewall::{Answer, Destination, Firewall, Item, SubjectRef},
    kind::Kind,
    policy::Policy,
    reason::{Outcome, Reason},
    statement::Captured,
    store::Store,
};
use tracklayer_ids::{ConnectionId, SubjectKey, WorkspaceId};
use tracklayer_testkit::TestDatabase;

pub const WORKSPACE: WorkspaceId = WorkspaceId(7);
pub const DEVICE: SubjectRef = SubjectRef { key: SubjectKey([1; 16]), person: false, linked: false };
pub const OTHER_DEVICE: SubjectRef = SubjectRef { key: SubjectKey([2; 16]), person: false, linked: false };
pub const PERSON: SubjectRef = SubjectRef { key: SubjectKey([9; 16]), person: true, linked: false };

pub async fn database() -> TestDatabase {
    tracklayer_testkit::database(&[("consent", &MIGRATOR)]).await
}

pub fn firewall(database: &TestDatabase) -> Firewall {
    Firewall::new(Store::new(database.pool.clone()), Arc::new(Policy::compiled_in().unwrap()))
}

pub fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

pub fn ago(minutes: i64) -> Timestamp {
    now() - SignedDuration::from_mins(minutes)
}

pub fn item(subjects: &[SubjectRef], at: Timestamp, place: &str, captured: Captured) -> Item {
    Item {
        subjects: subjects.to_vec(),
        captured,
        at,
        received_at: at,
        places: vec![place.to_owned()],
        message_id: format!("m-{}", at.as_second()),
        person_known: subjects.iter().any(|subject| subject.person),
        suppressed: false,
    }
}

pub fn gpc() -> Captured {
    Captured { gpc: Some("sec_gpc_header".to_owned()), ..Captured::default() }
}

pub fn categories(map: &[(&str, bool)]) -> Captured {
    let categories = map.iter().map(|(name, allowed)| ((*name).to_owned(), *allowed)).collect();
    Captured { categories: Some(categories), interaction: true, ..Captured::default() }
}

pub fn to(kinds: &[Kind]) -> Vec<Destination> {
    let asking = kinds.iter().zip(1..);
    asking.map(|(kind, id)| Destination { connection: ConnectionId(id), query: Query::of(*kind) }).collect()
}

pub async fn ask(firewall: &Firewall, item: Item, kind: Kind, record: bool) -> Answer {
    let decided = firewall.decide(WORKSPACE, now(), &[item], &to(&[kind]), record).await.unwrap();
    decided.answers[0][0].clone()
}

pub fn shown(answer: &Answer) -> (Outcome, Option<&'static str>) {
    (answer.outcome, answer.reason.map(Reason::name))
}
