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
use tracklayer_delivery::replay::{Origin, Selection, What};
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::ingest_requests::{
    IngestRequestStore, ListedRequest, RequestedAt, ToldStatus,
};
use tracklayer_delivery::store::refused_requests::RequestedEvent;
use tracklayer_delivery::store::resolved::ResolvedStore;
use tracklayer_ids::{ConnectionId, Position, SourceId};
use tracklayer_sandbox::{Clock, Fault, How, Options, Platform};

use super::replays::{balance, count, found, letters, over, plan, received, start};
use super::rig::{CONNECTION, Rig, order, refund};
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

    /// Google takes none of the events that are sent from now on, and says so later.
    fn refuses_later(&self) {
        let failing = Fault::PartialFailure { indexes: (0..10).collect(), code: None };
        self.rig.sandbox.inject(Platform::DataManager, failing, How::Always);
    }

    /// It takes them again.
    fn takes_again(&self) {
        self.rig.sandbox.clear(Platform::DataManager);
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
        resolved: ResolvedStore::new(Index::new(rig.services.database.pool.clone())),
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
    // One that went alone is its whole request.
    let (expected, dead) = if request.events == 2 { ("PARTIAL_SUCCESS", 0) } else { ("FAILED", 1) };
    assert_eq!(request.told.status, expected);
    assert_eq!(world.rig.number("select count(*) from delivery.dead_letter").await, dead);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_as_a_whole_is_dead_in_the_books_and_goes_again_as_any_dead_letter() {
    let world = World::start().await;
    received(&world.rig, 2).await;
    world.refuses_later();
    world.deliver().await;
    world.takes_again();
    let requests = world.requests().await;
    world.later(31 * MINUTE);
    assert_eq!(world.asked().await, requests.len() as u64);
    for place in [0, 1] {
        let dead = world.rig.ends_as(place, State::Dead).await;
        assert_eq!((dead.reason.as_str(), dead.attempts), ("rejected_by_platform", 1));
        let of = |request: &ListedRequest| {
            let code = "PROCESSING_ERROR_REASON_INTERNAL_ERROR";
            dead.detail == format!("refused later, with all of request {}: {code}", request.id)
        };
        assert!(requests.iter().any(of), "{dead:?} {requests:?}");
    }
    for request in world.requests().await {
        assert_eq!((request.told.status.as_str(), request.told.failed), ("FAILED", request.events));
    }
    let letters_told =
        "select count(*) from delivery.dead_letter where answer like '%FAILED (INTERNAL_ERROR%'
         and code = 'rejected_by_platform' and octet_length(resolved) > 0";
    assert_eq!(world.rig.number(letters_told).await, 2);
    let after = balance(&world.rig).await;
    assert_eq!((count(&after, State::Delivered), count(&after, State::Dead)), (0, 2));

    let replay = start(&world.rig, &letters()).await;
    assert_eq!(over(&world.rig, replay).await, found(&[(What::Eligible, 2)]));
    world.rig.takes(Platform::DataManager, 2).await;
    world.later(31 * MINUTE);
    assert!(world.asked().await > 0);
    for place in [0, 1] {
        world.rig.ends_as(place, State::Delivered).await;
    }
    let after = balance(&world.rig).await;
    assert_eq!((count(&after, State::Delivered), count(&after, State::Dead)), (2, 0));
    assert_eq!(world.rig.number("select count(*) from delivery.dead_letter").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_request_has_brought_since_stays_delivered() {
    let world = World::start().await;
    received(&world.rig, 2).await;
    world.refuses_later();
    world.deliver().await;
    world
        .rig
        .services
        .run(
            "insert into delivery.ledger_late
                 (workspace_id, connection_id, partition, generation, event_offset, source_id, state, reason,
                  detail, attempts, latency_ms)
             values (1, 7, 0, 1, 0, 1, 6, '', 'unconfirmed: request another', 2, 1)",
        )
        .await;
    world.later(31 * MINUTE);
    world.asked().await;
    world.rig.ends_as(1, State::Dead).await;
    let first = world.rig.ends_as(0, State::Delivered).await;
    assert_eq!(first.detail, "unconfirmed: request another");
    let after = balance(&world.rig).await;
    assert_eq!((count(&after, State::Delivered), count(&after, State::Dead)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forced_replay_sends_again_stays_delivered_whatever_is_said_of_it() {
    let world = World::start().await;
    received(&world.rig, 2).await;
    world.deliver().await;
    world.refuses_later();
    let again = Selection { delivered_too: true, ..Selection::of(Origin::Journal) };
    let replay = start(&world.rig, &again).await;
    assert_eq!(over(&world.rig, replay).await, found(&[(What::Eligible, 2)]));
    world.takes_again();
    world.later(31 * MINUTE);
    assert!(world.asked().await > 1, "about the first and about the repetition");
    let statuses: Vec<String> =
        world.requests().await.into_iter().map(|request| request.told.status).collect();
    assert!(statuses.contains(&"FAILED".to_owned()) && statuses.contains(&"SUCCESS".to_owned()));
    for place in [0, 1] {
        world.rig.ends_as(place, State::Delivered).await;
    }
    assert_eq!(count(&balance(&world.rig).await, State::Dead), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_too_long_moves_nothing_and_nothing_is_moved_twice() {
    let world = World::start().await;
    received(&world.rig, 1).await;
    world.refuses_later();
    world.rig.resolved(&[order("m-1", "ann")]).await;
    world.rig.ends_as(0, State::Delivered).await;
    world.later(31 * MINUTE);
    let now = world.rig.clock.now();
    let store = &world.poller.store;
    let claim = async |now: Timestamp| {
        store.claim(now, now + SignedDuration::from_mins(10), 20, 20, &[]).await.unwrap().remove(0)
    };
    let late = claim(now).await;
    let at = RequestedAt { position: Position::new(1, 0, 0), sent_before: false };
    assert_eq!(store.positions(&late).await.unwrap(), [at]);
    let second = claim(now + SignedDuration::from_mins(11)).await;
    assert_eq!(second.claim, 2);
    let told = ToldStatus { status: "FAILED".to_owned(), failed: 1, ..ToldStatus::default() };
    let event = RequestedEvent {
        at,
        source: SourceId(1),
        received_ms: 0,
        message_id: "m-1".to_owned(),
        resolved: vec![1],
    };
    assert_eq!(store.refuse(&late, &told, "X", vec![event.clone()], now).await.unwrap(), None);
    world.rig.ends_as(0, State::Delivered).await;

    // The second one has died with its process.
    world.later(22 * MINUTE);
    assert_eq!(world.asked().await, 1);
    world.rig.ends_as(0, State::Dead).await;
    for claimed in [&late, &second] {
        assert_eq!(store.refuse(claimed, &told, "X", vec![event.clone()], now).await.unwrap(), None);
    }
    assert_eq!(count(&balance(&world.rig).await, State::Dead), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_has_given_back_stays_as_it_is() {
    let world = World::start().await;
    received(&world.rig, 2).await;
    world.refuses_later();
    world.deliver().await;
    world.rig.services.run("delete from delivery.resolved").await;
    world.later(31 * MINUTE);
    world.asked().await;
    for request in world.requests().await {
        assert_eq!(request.told.status, "FAILED");
    }
    for place in [0, 1] {
        world.rig.ends_as(place, State::Delivered).await;
    }
    assert_eq!(count(&balance(&world.rig).await, State::Delivered), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_off_an_order_is_not_taken_off_twice_nor_is_it_put_back() {
    let world = World::start().await;
    let rig = &world.rig;
    received(rig, 4).await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.ends_as(0, State::Delivered).await;
    world.refuses_later();
    rig.resolved(&[refund("r-1", "ann", "order-m-1", 30), order("m-2", "bob")]).await;
    for place in [1, 2] {
        rig.ends_as(place, State::Delivered).await;
    }
    world.takes_again();
    rig.resolved(&[refund("r-2", "bob", "order-m-2", 30)]).await;
    rig.ends_as(3, State::Delivered).await;
    world.later(31 * MINUTE);
    world.asked().await;
    for (place, state) in [(0, State::Delivered), (1, State::Dead), (2, State::Dead), (3, State::Delivered)] {
        rig.ends_as(place, state).await;
    }
    balance(rig).await;
    let refunded = "select sum(refunded)::bigint from delivery.order_sent";
    assert_eq!(rig.number(refunded).await, 60);
    // Neither the refund, which is off its order here, nor the sale, of which Google was told what is left.
    assert_eq!(plan(rig, &letters()).await, BTreeMap::from([(What::Refused, 2)]));
    let replay = start(rig, &letters()).await;
    assert_eq!(over(rig, replay).await, found(&[(What::Refused, 2)]));
    assert_eq!(rig.number(refunded).await, 60);
    assert_eq!(rig.number("select count(*) from delivery.dead_letter").await, 2);
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
