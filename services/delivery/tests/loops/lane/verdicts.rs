//! Requests that Google's Data Manager takes at once and judges half an hour later.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::http::Sender;
use tracklayer_delivery::ingest_requests::{UNKNOWN, VerdictPoller};
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::oauth::Tokens;
use tracklayer_delivery::quota::Quota;
use tracklayer_delivery::store::ingest_requests::{IngestRequestStore, ListedRequest, ToldStatus};
use tracklayer_sandbox::{Clock, Fault, How, Options, Platform};

use super::rig::{CONNECTION, Rig, order};
use crate::services::WORKSPACE;

const MINUTE: Duration = Duration::from_secs(60);

/// A lane to Data Manager, whose clock stands until it is moved, and who asks it for verdicts.
struct World {
    rig: Rig,
    google: Clock,
    poller: VerdictPoller,
}

impl World {
    async fn start() -> Self {
        let google = Clock::manual(Timestamp::now());
        let options = Options { clock: google.clone(), ..Options::default() };
        let mut rig = Rig::with("google_data_manager", Duration::from_secs(600), options).await;
        rig.start().await;
        let poller = poller(&rig);
        Self { rig, google, poller }
    }

    /// Two orders are delivered.
    async fn deliver(&self) {
        self.rig.resolved(&[order("m-1", "ann"), order("m-2", "bob")]).await;
        for place in [0, 1] {
            let verdict = self.rig.ends_as(place, State::Delivered).await;
            assert!(verdict.detail.starts_with("unconfirmed: request "), "{}", verdict.detail);
        }
    }

    /// So much later, here and at Google.
    fn later(&self, by: Duration) {
        self.rig.clock.advance(by);
        self.google.advance(by);
    }

    async fn asked(&self) -> u64 {
        self.poller.round(&self.rig.clock).await.unwrap()
    }

    async fn requests(&self) -> Vec<ListedRequest> {
        self.poller.store.list(WORKSPACE, CONNECTION.0, false, 100).await.unwrap()
    }

    async fn only(&self) -> ListedRequest {
        let mut requests = self.requests().await;
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }
}

fn poller(rig: &Rig) -> VerdictPoller {
    let sender = Sender::new(true).unwrap();
    VerdictPoller {
        store: IngestRequestStore::new(rig.services.database.pool.clone()),
        connections: Connections::new(rig.config().clone(), rig.services.master_key.clone()),
        tokens: Tokens::new(sender.clone()),
        sender,
        quota: Quota::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_asked_about_after_half_an_hour_until_it_is_told() {
    let world = World::start().await;
    world.deliver().await;
    let requests = world.requests().await;
    assert_eq!(requests.iter().map(|request| request.events).sum::<u64>(), 2, "{requests:?}");
    let number = requests.len() as u64;

    world.later(29 * MINUTE);
    assert_eq!(world.asked().await, 0, "before half an hour Google says nothing");
    // Google takes longer than that.
    world.rig.clock.advance(2 * MINUTE);
    world.google.advance(Duration::from_secs(30));
    assert_eq!(world.asked().await, number);
    for request in world.requests().await {
        assert_eq!((request.looks, request.told.status.as_str()), (1, ""), "{request:?}");
        assert_eq!(request.told.detail, "the platform is at it");
    }
    assert_eq!(world.asked().await, 0, "not at once again");

    world.later(31 * MINUTE);
    assert_eq!(world.asked().await, number);
    for request in world.requests().await {
        assert_eq!((request.looks, request.told.status.as_str(), request.told.failed), (2, "SUCCESS", 0));
        assert!(request.told_at.is_some() && request.next_look_at.is_none(), "{request:?}");
    }
    world.later(48 * 60 * MINUTE);
    assert_eq!(world.asked().await, 0, "what is told is told");
    let counts = world.poller.store.counts(WORKSPACE, CONNECTION.0).await.unwrap();
    let told: Vec<(&str, u64)> = counts.iter().map(|count| (count.status.as_str(), count.events)).collect();
    assert_eq!(told, [("SUCCESS", 2)]);
    // A month later nobody needs it.
    world.later(31 * 24 * 60 * MINUTE);
    world.asked().await;
    assert_eq!(world.requests().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_failure_is_told_by_reason_and_blames_no_event() {
    let world = World::start().await;
    let failing = Fault::PartialFailure { indexes: vec![0], code: None };
    world.rig.sandbox.inject(Platform::DataManager, failing, How::Times(1));
    world.deliver().await;
    world.later(31 * MINUTE);
    world.asked().await;
    let troubled = world.poller.store.list(WORKSPACE, CONNECTION.0, true, 100).await.unwrap();
    let [request] = troubled.as_slice() else { panic!("{troubled:?}") };
    let reasons = BTreeMap::from([("PROCESSING_ERROR_REASON_INTERNAL_ERROR".to_owned(), 1)]);
    assert_eq!((request.told.failed, &request.told.reasons), (1, &reasons));
    let expected = if request.events == 2 { "PARTIAL_SUCCESS" } else { "FAILED" };
    assert_eq!(request.told.status, expected);
    for place in [0, 1] {
        world.rig.ends_as(place, State::Delivered).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_on_the_way_is_no_look_and_is_not_asked_about_for_ever() {
    let world = World::start().await;
    world.deliver().await;
    world.rig.sandbox.inject(Platform::DataManager, Fault::TransientInBody, How::Always);
    for _ in 0..3 {
        world.later(31 * MINUTE);
        assert!(world.asked().await > 0);
        for request in world.requests().await {
            assert_eq!((request.looks, request.told.status.as_str()), (0, ""), "{request:?}");
            assert!(request.told.detail.contains("503"), "{request:?}");
        }
    }
    world.later(8 * 24 * 60 * MINUTE);
    world.asked().await;
    for request in world.requests().await {
        assert_eq!(request.told.status, UNKNOWN, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_do_not_ask_about_one_request_and_the_late_one_writes_nothing() {
    let world = World::start().await;
    world.rig.resolved(&[order("m-1", "ann")]).await;
    world.rig.ends_as(0, State::Delivered).await;
    world.later(31 * MINUTE);
    let now = world.rig.clock.now();
    let store = &world.poller.store;
    let claim =
        async |now: Timestamp| store.claim(now, now + SignedDuration::from_mins(10), 20).await.unwrap();
    let first = claim(now).await.remove(0);
    assert_eq!(claim(now).await, [], "somebody asks already");
    let second = claim(now + SignedDuration::from_mins(11)).await.remove(0);
    assert_eq!((first.looks, second.looks), (1, 2));
    let told = |status: &str| ToldStatus { status: status.to_owned(), ..ToldStatus::default() };
    assert!(!store.tell(&first, &told("FAILED"), now).await.unwrap(), "it was away for too long");
    store.put_off(&first, 0, now, "late").await.unwrap();
    assert!(store.tell(&second, &told("SUCCESS"), now).await.unwrap());
    assert_eq!(world.only().await.told, told("SUCCESS"));
}
