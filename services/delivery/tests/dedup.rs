//! Claims against a real Redis and PostgreSQL: replays, twins, reused ids, and a Redis that forgets.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use redis::aio::ConnectionManager;
use tracklayer_delivery::dedup::{Claimed, Dedup, DedupError, Wanted};
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::store::StoreError;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::dedup_generation::DedupGenerationStore;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore};
use tracklayer_ids::{Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::BlockBuilder;
use tracklayer_journal::claim::Claim;
use tracklayer_proto::event::v1::{Event, EventType, ResolvedEvent};
use tracklayer_testkit::{TestDatabase, TestRedis};

const WORKSPACE: WorkspaceId = WorkspaceId(1);
const TTL: Duration = Duration::from_secs(3_600);

struct Bench {
    database: TestDatabase,
    redis: TestRedis,
    connection: ConnectionManager,
    dedup: Dedup,
    resolved: ResolvedStore,
}

async fn bench() -> Bench {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
    let redis = tracklayer_testkit::redis().await;
    let client = redis::Client::open(redis.url.as_str()).unwrap();
    let connection = ConnectionManager::new(client).await.unwrap();
    let resolved = ResolvedStore::new(database.pool.clone());
    let generations = DedupGenerationStore::new(database.pool.clone());
    let dedup = Dedup::new(connection.clone(), generations, resolved.clone());
    Bench { database, redis, connection, dedup, resolved }
}

fn event(message_id: &str, name: &str, source: i64) -> Event {
    Event {
        message_id: message_id.to_owned(),
        r#type: EventType::Track.into(),
        name: name.to_owned(),
        source_id: source,
        anonymous_id: "a-1".to_owned(),
        ..Event::default()
    }
}

impl Bench {
    async fn claim(&self, claims: &[(&Event, Position)]) -> (i64, Vec<Claimed>) {
        let wanted: Vec<Wanted<'_>> = claims
            .iter()
            .map(|(event, position)| Wanted {
                message_id: &event.message_id,
                claim: Claim::of(event, *position),
                ttl: TTL,
            })
            .collect();
        loop {
            match self.dedup.claim(WORKSPACE, &wanted, TTL).await {
                Ok(answer) => return answer,
                Err(DedupError::HistoryChanged) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    async fn lease(&self) -> Lease {
        let duty = Duty::resolve(WORKSPACE, Partition(0));
        let mut keeper =
            LeaseKeeper::new(LeaseStore::new(self.database.pool.clone()), Duration::from_secs(30));
        keeper.round(&[duty].into()).await.unwrap().taken.remove(0)
    }

    async fn commit(
        &self,
        lease: &Lease,
        generation: i64,
        events: &[(&Event, bool)],
        base: u64,
    ) -> Result<(), StoreError> {
        let mut builder = BlockBuilder::default();
        for (event, winner) in events {
            let resolved = ResolvedEvent {
                event: Bytes::from(event.encode_to_vec()),
                message_id: event.message_id.clone(),
                source_id: event.source_id,
                duplicate: (!winner).then(tracklayer_proto::event::v1::Duplicate::default),
                ..ResolvedEvent::default()
            };
            builder.push(SourceId(event.source_id), 1, &resolved.encode_to_vec());
        }
        let block = builder.finish().unwrap();
        let commit = ResolvedCommit {
            first: Position::new(1, 0, base),
            block: &block,
            message_hashes: events.iter().map(|_| 1).collect(),
            dedup_generation: generation,
        };
        self.resolved.commit(lease, &commit).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_handles_an_event_again_finds_its_own_claim() {
    let bench = bench().await;
    let order = event("m-1", "Order Completed", 1);
    let first = bench.claim(&[(&order, Position::new(1, 0, 5))]).await;
    let again = bench.claim(&[(&order, Position::new(1, 0, 5))]).await;
    assert_eq!(first.1, vec![Claimed::Winner]);
    assert_eq!(again, first, "a crash between claim and commit must not turn into a loss");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_is_a_duplicate_of_the_first_position_also_within_one_batch() {
    let bench = bench().await;
    let (browser, server) = (event("m-1", "Order Completed", 1), event("m-1", "order completed", 2));
    let first = Position::new(1, 0, 5);
    let answers = bench.claim(&[(&browser, first), (&server, Position::new(1, 3, 0))]).await.1;
    assert_eq!(answers, vec![Claimed::Winner, Claimed::DuplicateOf(first)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_under_another_name_is_no_duplicate_but_its_own_repeat_is() {
    let bench = bench().await;
    let (shop, portal) = (event("1", "Order Completed", 1), event("1", "Quote Requested", 2));
    bench.claim(&[(&shop, Position::new(1, 0, 0))]).await;
    let reused = bench.claim(&[(&portal, Position::new(1, 1, 7))]).await.1;
    assert_eq!(reused, vec![Claimed::WinnerOfReusedId]);
    let repeat = bench.claim(&[(&portal, Position::new(1, 1, 8))]).await.1;
    assert_eq!(repeat, vec![Claimed::DuplicateOf(Position::new(1, 1, 7))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_gets_its_winners_back_and_never_the_twin() {
    let bench = bench().await;
    let (winner, twin) = (event("m-1", "Order Completed", 1), event("m-1", "Order Completed", 2));
    let first = Position::new(1, 0, 0);
    let (generation, _) = bench.claim(&[(&winner, first), (&twin, Position::new(1, 0, 1))]).await;
    let lease = bench.lease().await;
    CursorStore::new(bench.database.pool.clone()).resolve(WORKSPACE, Partition(0)).await.unwrap();
    bench.commit(&lease, generation, &[(&winner, true), (&twin, false)], 0).await.unwrap();

    let mut redis = bench.connection.clone();
    let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();

    let (next, answers) = bench.claim(&[(&twin, Position::new(1, 2, 9))]).await;
    assert!(next > generation, "the loss opens a new generation");
    assert_eq!(answers, vec![Claimed::DuplicateOf(first)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_whose_claims_belong_to_a_lost_store_cannot_be_committed() {
    let bench = bench().await;
    let order = event("m-1", "Order Completed", 1);
    let (generation, _) = bench.claim(&[(&order, Position::new(1, 0, 0))]).await;
    let lease = bench.lease().await;
    CursorStore::new(bench.database.pool.clone()).resolve(WORKSPACE, Partition(0)).await.unwrap();

    let mut redis = bench.connection.clone();
    let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
    bench.claim(&[(&event("m-2", "x", 1), Position::new(1, 1, 0))]).await;

    let refused = bench.commit(&lease, generation, &[(&order, true)], 0).await;
    assert!(matches!(refused, Err(StoreError::DedupGenerationBumped)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_owner_cannot_commit() {
    let bench = bench().await;
    let order = event("m-1", "Order Completed", 1);
    let (generation, _) = bench.claim(&[(&order, Position::new(1, 0, 0))]).await;
    let paused = bench.lease().await;
    CursorStore::new(bench.database.pool.clone()).resolve(WORKSPACE, Partition(0)).await.unwrap();
    sqlx::query("update delivery.lease set expires_at = now() - interval '1 second'")
        .execute(&bench.database.pool)
        .await
        .unwrap();
    sqlx::query("delete from delivery.member").execute(&bench.database.pool).await.unwrap();
    let successor = bench.lease().await;
    assert_eq!(successor.epoch, paused.epoch + 1);

    let fenced = bench.commit(&paused, generation, &[(&order, true)], 0).await;
    assert!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");
    bench.commit(&successor, generation, &[(&order, true)], 0).await.unwrap();
    let twice = bench.commit(&successor, generation, &[(&order, true)], 0).await;
    assert!(matches!(twice, Err(StoreError::CursorMoved)), "{twice:?}");
    drop(bench.redis);
}
