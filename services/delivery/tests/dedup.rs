//! Claims against a real Redis and PostgreSQL: replays, twins, reused ids, and a Redis that forgets.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use redis::aio::ConnectionManager;
use tracklayer_delivery::dedup::{Claimed, Dedup, DedupError, Memory, Reuse, Wanted};
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::store::StoreError;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::dedup_generation::DedupGenerationStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore};
use tracklayer_delivery::store::twins::TwinRows;
use tracklayer_ids::{Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::BlockBuilder;
use tracklayer_journal::claim::Claim;
use tracklayer_proto::event::v1::{Event, EventType, ResolvedEvent};
use tracklayer_testkit::{TestDatabase, TestRedis, eventually};

const WORKSPACE: WorkspaceId = WorkspaceId(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Source 1 is remembered for an hour, source 2 for five.
fn memory() -> Memory {
    Memory::default().with(WORKSPACE, SourceId(1), HOUR).with(WORKSPACE, SourceId(2), 5 * HOUR)
}

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
    let resolved = ResolvedStore::new(Index::new(database.pool.clone()));
    let dedup = dedup_of(&database, &connection);
    Bench { database, redis, connection, dedup, resolved }
}

/// As another process would have it.
fn dedup_of(database: &TestDatabase, redis: &ConnectionManager) -> Dedup {
    let generations = DedupGenerationStore::new(database.pool.clone());
    Dedup::new(redis.clone(), generations, ResolvedStore::new(Index::new(database.pool.clone())))
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

async fn claim_with(dedup: &Dedup, claims: &[(&Event, Position)]) -> (i64, Vec<Claimed>) {
    let memory = memory();
    let wanted: Vec<Wanted<'_>> = claims
        .iter()
        .map(|(event, position)| Wanted {
            message_id: &event.message_id,
            claim: Claim::of(event, *position),
            ttl: memory.of(WORKSPACE, SourceId(event.source_id)),
        })
        .collect();
    loop {
        match dedup.claim(WORKSPACE, &wanted, &memory).await {
            Ok(answers) => return (answers.generation, answers.claimed),
            Err(DedupError::HistoryChanged | DedupError::RebuiltElsewhere) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    }
}

impl Bench {
    async fn claim(&self, claims: &[(&Event, Position)]) -> (i64, Vec<Claimed>) {
        claim_with(&self.dedup, claims).await
    }

    async fn redis<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut redis = self.connection.clone();
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut redis).await.unwrap()
    }

    /// Claims and commits events as winners from offset 0 of partition 0; answers the dedup generation.
    async fn win(&self, events: &[&Event]) -> i64 {
        let claims: Vec<(&Event, Position)> =
            (0..).map(|n| Position::new(1, 0, n)).zip(events).map(|(at, e)| (*e, at)).collect();
        let (generation, _) = self.claim(&claims).await;
        let lease = self.lease().await;
        CursorStore::new(self.database.pool.clone()).resolve(WORKSPACE, Partition(0)).await.unwrap();
        let winners: Vec<(&Event, bool)> = events.iter().map(|event| (*event, true)).collect();
        self.commit(&lease, generation, &winners, 0).await.unwrap();
        generation
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
            reused: Vec::new(),
            twins: TwinRows::new(),
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
    assert_eq!(reused, vec![Claimed::WinnerOfReusedId(Reuse::OtherEvent)]);
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
async fn a_lost_store_is_rebuilt_where_a_partition_has_nothing_but_duplicates() {
    let bench = bench().await;
    let (winner, twin) = (event("m-1", "Order Completed", 1), event("m-1", "Order Completed", 2));
    // The winner stands in another partition, which is not resolved as far.
    let claimed = [(&winner, Position::new(1, 1, 0)), (&twin, Position::new(1, 0, 0))];
    let (generation, answers) = bench.claim(&claimed).await;
    assert_eq!(answers, vec![Claimed::Winner, Claimed::DuplicateOf(Position::new(1, 1, 0))]);
    let lease = bench.lease().await;
    CursorStore::new(bench.database.pool.clone()).resolve(WORKSPACE, Partition(0)).await.unwrap();
    bench.commit(&lease, generation, &[(&twin, false)], 0).await.unwrap();

    let _: () = bench.redis(&["FLUSHALL"]).await;
    let (next, answers) = bench.claim(&[(&winner, Position::new(1, 1, 0))]).await;
    assert_eq!((next, answers), (generation + 1, vec![Claimed::Winner]), "it finds nobody before it");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_gives_each_claim_what_is_left_of_its_own_sources_time() {
    let bench = bench().await;
    let (short, long) = (event("m-1", "Order Completed", 1), event("m-2", "Order Completed", 2));
    bench.win(&[&short, &long]).await;
    sqlx::query("update delivery.resolved set resolved_at = now() - interval '2 hours'")
        .execute(&bench.database.pool)
        .await
        .unwrap();
    let _: () = bench.redis(&["FLUSHALL"]).await;

    let later = [(&short, Position::new(1, 1, 0)), (&long, Position::new(1, 1, 1))];
    let answers = bench.claim(&later).await.1;
    assert_eq!(answers, vec![Claimed::Winner, Claimed::DuplicateOf(Position::new(1, 0, 1))]);
    let key = tracklayer_journal::claim::claim_key(WORKSPACE, "m-2");
    let mut redis = bench.connection.clone();
    let left: u64 = redis::cmd("TTL").arg(key).query_async(&mut redis).await.unwrap();
    assert!((10_000..=10_800).contains(&left), "three of five hours are left, not {left} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_emptied_in_mid_rebuild_gets_another_generation() {
    let bench = bench().await;
    let winner = event("m-1", "Order Completed", 1);
    let generation = bench.win(&[&winner]).await;
    let _: () = bench.redis(&["FLUSHALL"]).await;

    // The rebuild waits for its first page.
    let mut lock = bench.database.pool.begin().await.unwrap();
    sqlx::query("lock table delivery.resolved in access exclusive mode").execute(&mut *lock).await.unwrap();
    let (dedup, twin) = (bench.dedup.clone(), event("m-1", "Order Completed", 2));
    let claiming = tokio::spawn(async move { claim_with(&dedup, &[(&twin, Position::new(1, 1, 0))]).await });
    eventually("the rebuild to wait", async || {
        let (waiting,): (i64,) = sqlx::query_as(
            "select count(*) from pg_stat_activity
             where wait_event_type = 'Lock' and query like 'select workspace_id%' and datname = current_database()",
        )
        .fetch_one(&bench.database.pool)
        .await
        .unwrap();
        (waiting == 1).then_some(())
    })
    .await;
    let _: () = bench.redis(&["FLUSHALL"]).await;
    lock.rollback().await.unwrap();

    let (now, answers) = claiming.await.unwrap();
    assert_eq!(now, generation + 2, "what was claimed before the second loss does not count");
    assert_eq!(answers, vec![Claimed::DuplicateOf(Position::new(1, 0, 0))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_of_two_processes_rebuild_a_lost_store_once() {
    let bench = bench().await;
    let generation = bench.win(&[&event("m-1", "Order Completed", 1)]).await;
    let _: () = bench.redis(&["FLUSHALL"]).await;
    let other = dedup_of(&bench.database, &bench.connection);
    let mut partitions = tokio::task::JoinSet::new();
    for partition in 1..=8 {
        let dedup = if partition % 2 == 0 { bench.dedup.clone() } else { other.clone() };
        partitions.spawn(async move {
            let twin = event("m-1", "Order Completed", 2);
            claim_with(&dedup, &[(&twin, Position::new(1, partition, 0))]).await
        });
    }
    let answers = partitions.join_all().await;
    let expected = (generation + 1, vec![Claimed::DuplicateOf(Position::new(1, 0, 0))]);
    assert!(answers.iter().all(|answer| *answer == expected), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_evicted_keys_counts_as_lost() {
    let bench = bench().await;
    let generation = bench.win(&[&event("m-1", "Order Completed", 1)]).await;
    assert!(bench.dedup.keeps_all_keys().await.unwrap());
    let sentinel: String = bench.redis(&["GET", "tl:sentinel"]).await;

    let _: () = bench.redis(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).await;
    assert!(!bench.dedup.keeps_all_keys().await.unwrap());
    let _: () = bench.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    eventually("the store to evict", async || (bench.redis::<u64>(&["DBSIZE"]).await == 0).then_some(()))
        .await;
    let _: () = bench.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let _: () = bench.redis(&["SET", "tl:sentinel", &sentinel]).await;

    let (next, answers) = bench.claim(&[(&event("m-1", "Order Completed", 2), Position::new(1, 2, 9))]).await;
    assert_eq!(next, generation + 1, "only the count of evicted keys tells");
    assert_eq!(answers, vec![Claimed::DuplicateOf(Position::new(1, 0, 0))]);
}
