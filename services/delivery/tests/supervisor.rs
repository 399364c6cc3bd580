//! Tasks and their leases over a real PostgreSQL: crashes, hand-overs, and a shutdown that waits for the last request.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::supervisor::{Supervisor, Tasks};
use tracklayer_ids::{Partition, WorkspaceId};
use tracklayer_rpc::Readiness;
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_testkit::{TestDatabase, eventually};

const TTL: Duration = Duration::from_millis(900);

async fn database() -> TestDatabase {
    tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await
}

fn the_duty() -> Duty {
    Duty::resolve(WorkspaceId(1), Partition(0))
}

/// One duty, whose task tells that it began, crashes under its first epoch if it should, and else ends only when it is
/// let go, like a lane with a request on the wire.
struct Stubborn {
    crash_first: bool,
    begun: mpsc::UnboundedSender<Lease>,
    let_go: Arc<Semaphore>,
}

impl Tasks for Stubborn {
    fn wanted(&self) -> Option<BTreeSet<Duty>> {
        Some([the_duty()].into())
    }

    fn task(&self, lease: Lease, _shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let (begun, let_go) = (self.begun.clone(), Arc::clone(&self.let_go));
        let crash = self.crash_first && lease.epoch == 1;
        async move {
            begun.send(lease).unwrap();
            assert!(!crash, "this task crashes");
            let_go.acquire().await.unwrap().forget();
        }
    }

    fn shared_among(&self, processes: usize) {
        assert_eq!(processes, 1);
    }
}

struct Rig {
    database: TestDatabase,
    begun: mpsc::UnboundedReceiver<Lease>,
    let_go: Arc<Semaphore>,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

async fn rig(crash_first: bool) -> Rig {
    let database = database().await;
    let (sender, begun) = mpsc::unbounded_channel();
    let let_go = Arc::new(Semaphore::new(0));
    let work = Stubborn { crash_first, begun: sender, let_go: Arc::clone(&let_go) };
    let (watch, _) = ConfigWatch::manual();
    let supervisor = Supervisor::new(
        LeaseKeeper::new(LeaseStore::new(database.pool.clone()), TTL),
        TTL,
        CursorStore::new(database.pool.clone()),
        watch,
        Readiness::default(),
        work,
    );
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(supervisor.run(shutdown.clone()));
    Rig { database, begun, let_go, shutdown, running }
}

impl Rig {
    /// Whether somebody holds the lease, by PostgreSQL's clock.
    async fn is_held(&self) -> bool {
        let (held,): (bool,) =
            sqlx::query_as("select holder is not null and expires_at >= now() from delivery.lease")
                .fetch_one(&self.database.pool)
                .await
                .unwrap();
        held
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_tasks_lease_is_free_again() {
    let mut rig = rig(true).await;
    assert_eq!(rig.begun.recv().await.unwrap().epoch, 1);
    let again = tokio::time::timeout(Duration::from_secs(10), rig.begun.recv()).await;
    assert_eq!(again.expect("the duty is never taken again").unwrap().epoch, 2);
    rig.let_go.add_permits(1);
    rig.shutdown.cancel();
    rig.running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_tells_tasks_to_begin_nothing_new_while_their_leases_hold() {
    let mut rig = rig(false).await;
    let lease = rig.begun.recv().await.unwrap();
    assert!(lease.surely_held_for(Duration::ZERO));
    rig.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), lease.lost().cancelled()).await.expect("nobody tells it");
    assert!(!lease.surely_held_for(Duration::ZERO), "no request may begin");
    assert!(rig.is_held().await && !lease.has_run_out(), "one that is under way may end");
    rig.let_go.add_permits(1);
    (&mut rig.running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_keeps_the_lease_until_the_last_request_has_ended() {
    let mut rig = rig(false).await;
    rig.begun.recv().await.unwrap();
    rig.shutdown.cancel();
    // Longer than the lease: only renewals keep it.
    let (expiry,): (i64,) =
        sqlx::query_as("select (extract(epoch from expires_at) * 1000)::bigint from delivery.lease")
            .fetch_one(&rig.database.pool)
            .await
            .unwrap();
    eventually("a time after the lease without renewals", async || {
        assert!(rig.is_held().await, "the lease ran out under a task that still sends");
        let (past,): (bool,) =
            sqlx::query_as("select extract(epoch from clock_timestamp()) * 1000 > $1 + 200")
                .bind(expiry)
                .fetch_one(&rig.database.pool)
                .await
                .unwrap();
        past.then_some(())
    })
    .await;
    rig.let_go.add_permits(1);
    (&mut rig.running).await.unwrap();
    assert!(!rig.is_held().await, "given back, not waited out");
}
