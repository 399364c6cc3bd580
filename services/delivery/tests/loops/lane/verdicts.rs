//! Requests that Google's Data Manager takes at once and judges half an hour later.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::http::Sender;
use tracklayer_delivery::ingest_requests::{Away, UNKNOWN, VerdictPoller};
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::oauth::Tokens;
use tracklayer_delivery::quota::Quota;
use tracklayer_delivery::store::ingest_requests::{IngestRequestStore, ListedRequest, ToldStatus};
use tracklayer_ids::ConnectionId;
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

    /// How often Google was asked, for whatever.
    fn questions(&self) -> u64 {
        self.rig.sandbox.totals()[&Platform::DataManager].requests
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
        away: Away::default(),
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
    for wait in [30, 30, 60] {
        world.later((wait + 1) * MINUTE);
        let before = world.questions();
        assert!(world.asked().await > 0);
        assert_eq!(world.questions() - before, 1, "who gives no answer is asked once, whatever is due");
        assert_eq!(world.asked().await, 0, "and is left alone then");
        for request in world.requests().await {
            assert_eq!((request.looks, request.told.status.as_str()), (0, ""), "{request:?}");
            assert!(request.told.detail.contains("503"), "{request:?}");
        }
    }
    world.later(31 * MINUTE);
    assert_eq!(world.asked().await, 0, "for longer each time");
    world.later(8 * 24 * 60 * MINUTE);
    world.asked().await;
    for request in world.requests().await {
        assert_eq!(request.told.status, UNKNOWN, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_renewed_in_place_and_one_that_is_refused_again_is_left_alone() {
    let world = World::start().await;
    world.deliver().await;
    let number = world.requests().await.len() as u64;
    world.rig.sandbox.inject(Platform::DataManager, Fault::ExpiredToken, How::Always);
    world.later(31 * MINUTE);
    let before = world.questions();
    assert_eq!(
        (world.asked().await, world.questions() - before),
        (number, 2),
        "with the token, and with a new one"
    );
    for request in world.requests().await {
        assert_eq!((request.looks, request.told.status.as_str()), (0, ""), "{request:?}");
        assert!(request.told.detail.contains("refused"), "{request:?}");
    }
    world.later(2 * MINUTE);
    assert_eq!(world.asked().await, 0, "nobody asks again a minute later");

    world.rig.sandbox.clear(Platform::DataManager);
    world.rig.sandbox.inject(Platform::DataManager, Fault::ExpiredToken, How::Times(1));
    world.later(31 * MINUTE);
    let before = world.questions();
    assert_eq!((world.asked().await, world.questions() - before), (number, number + 1));
    for request in world.requests().await {
        assert_eq!((request.looks, request.told.status.as_str()), (1, "SUCCESS"), "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_which_nothing_can_be_written_keeps_no_other_from_its_verdict() {
    let world = World::start().await;
    world.deliver().await;
    let number = world.requests().await.len();
    // Due before the others, and unknown to Google.
    world
        .rig
        .services
        .run(
            "insert into delivery.ingest_request
                 (workspace_id, connection_id, partition, request_id, events, sent_at, next_look_at)
             select workspace_id, connection_id, partition, 'poison', 1, sent_at, sent_at
             from delivery.ingest_request limit 1;
             create function delivery.poisoned() returns trigger language plpgsql as
                 $$ begin raise exception 'it cannot be written'; end $$;
             create trigger poisoned before update of detail on delivery.ingest_request
                 for each row when (old.request_id = 'poison') execute function delivery.poisoned();",
        )
        .await;
    world.later(31 * MINUTE);
    world.asked().await;
    let requests = world.requests().await;
    let told = requests.iter().filter(|request| request.told.status == "SUCCESS").count();
    assert_eq!((told, requests.len()), (number, number + 1), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_takes_the_turn_of_another() {
    let world = World::start().await;
    world
        .rig
        .services
        .run(
            "insert into delivery.ingest_request
                 (workspace_id, connection_id, partition, request_id, events, sent_at, next_look_at)
             select 1, case when n <= 30 then 71 else 72 end, 0, 'r-' || n, 1, now(), now() + n * interval '1 second'
             from generate_series(1, 32) n;
             insert into delivery.ingest_request
                 (workspace_id, connection_id, partition, request_id, events, sent_at, next_look_at)
             values (2, 73, 0, 'r-1', 1, now(), now() + interval '40 seconds')",
        )
        .await;
    world.later(31 * MINUTE);
    let now = world.rig.clock.now();
    let claim = async |most: i64, but: &[ConnectionId]| {
        let until = now + SignedDuration::from_mins(10);
        let mut claimed: BTreeMap<i64, usize> = BTreeMap::new();
        for request in world.poller.store.claim(now, until, 5, most, but).await.unwrap() {
            *claimed.entry(request.connection.0).or_default() += 1;
        }
        claimed
    };
    assert_eq!(claim(40, &[ConnectionId(73)]).await, BTreeMap::from([(71, 5), (72, 2)]));
    assert_eq!(claim(3, &[]).await, BTreeMap::from([(71, 3)]), "the longest waiting first");
    assert_eq!(claim(40, &[]).await, BTreeMap::from([(71, 5), (73, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_do_not_ask_about_one_request_and_the_late_one_writes_nothing() {
    let world = World::start().await;
    world.rig.resolved(&[order("m-1", "ann")]).await;
    world.rig.ends_as(0, State::Delivered).await;
    world.later(31 * MINUTE);
    let now = world.rig.clock.now();
    let store = &world.poller.store;
    let claim = async |now: Timestamp| {
        store.claim(now, now + SignedDuration::from_mins(10), 20, 20, &[]).await.unwrap()
    };
    let first = claim(now).await.remove(0);
    assert_eq!(claim(now).await, [], "somebody asks already");
    let second = claim(now + SignedDuration::from_mins(11)).await.remove(0);
    assert_eq!((first.claim, second.claim), (1, 2));
    assert_eq!((first.looks, second.looks), (1, 1), "neither has an answer yet");
    let told = |status: &str| ToldStatus { status: status.to_owned(), ..ToldStatus::default() };
    assert!(!store.tell(&first, &told("FAILED"), now).await.unwrap(), "it was away for too long");
    store.put_off(&first, 0, now, "late").await.unwrap();
    // The other could not ask, which is no look: who was away before it is away still.
    store.put_off(&second, 0, now, "no\0answer").await.unwrap();
    assert_eq!(world.only().await.told.detail, "noanswer");
    assert!(!store.tell(&first, &told("FAILED"), now).await.unwrap(), "nobody else has it, nor has it");
    let third = claim(now).await.remove(0);
    assert_eq!((third.claim, third.looks), (3, 1));
    assert!(!store.tell(&first, &told("FAILED"), now).await.unwrap());
    assert!(!store.tell(&second, &told("FAILED"), now).await.unwrap());
    let last = ToldStatus { detail: "a\0b".to_owned(), ..told("SUCCESS") };
    assert!(store.tell(&third, &last, now).await.unwrap());
    assert_eq!(world.only().await.told, ToldStatus { detail: "ab".to_owned(), ..told("SUCCESS") });
}
