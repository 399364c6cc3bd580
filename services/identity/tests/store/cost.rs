//! What a batch costs in statements.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tracing::Subscriber;
use tracing::instrument::WithSubscriber as _;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracklayer_identity::policy::Policy;
use tracklayer_identity::resolve::{Item, Resolver};
use tracklayer_ids::WorkspaceId;

use crate::world::{World, item, resolver};

/// Counts what the database driver logs for every statement.
#[derive(Clone, Default)]
struct Statements(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const WORKSPACE: WorkspaceId = WorkspaceId(1);

async fn statements_of(resolver: &Resolver, items: &[Item]) -> usize {
    let counter = Statements::default();
    let subscriber = tracing_subscriber::registry().with(counter.clone());
    resolver.resolve(WORKSPACE, items).with_subscriber(subscriber).await.unwrap();
    counter.0.load(Ordering::Relaxed)
}

/// Visitors, each with a browser, a login and an address; `from` makes them distinct.
fn visitors(from: usize, count: usize) -> Vec<Item> {
    let visitor = |n: usize| {
        let (anonymous, user, email) = (format!("a-{n}"), format!("u-{n}"), format!("p{n}@example.org"));
        item(&[("anonymous_id", &anonymous), ("user_id", &user), ("email", &email)])
    };
    (from..from + count).map(visitor).collect()
}

#[tokio::test]
async fn statements_do_not_grow_with_the_batch() {
    let world = World::new(Policy::default()).await;
    let options: PgConnectOptions = world.database.url.parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let resolver = resolver(pool, &world.policy);
    // The first batch of a process also fetches a block of numbers.
    resolver.resolve(WORKSPACE, &visitors(0, 1)).await.unwrap();

    let one = statements_of(&resolver, &visitors(1_000, 1)).await;
    let many = statements_of(&resolver, &visitors(2_000, 500)).await;
    assert_eq!(one, many);
    assert!((5..=8).contains(&one), "{one} statements for something wholly new, which is not read again");
    // As few where somebody known brings what changes nothing but his company.
    let joining =
        |n: usize| item(&[("email", &format!("p{n}@example.org")), ("device_id", &format!("d-{n}"))]);
    for batch in [vec![joining(1_000)], (2_000..2_400).map(joining).collect()] {
        let statements = statements_of(&resolver, &batch).await;
        assert!(
            (5..=one + 1).contains(&statements),
            "{statements} statements, {one} for something wholly new"
        );
    }
    // More where there is something to lock and to read, in the same batch with new visitors or not.
    let leading = |n: usize| item(&[("anonymous_id", &format!("a-{n}")), ("device_id", &format!("l-{n}"))]);
    let mixed = visitors(3_000, 20).into_iter().chain([leading(2_000)]).collect();
    for joined in [vec![leading(1_000)], mixed] {
        let statements = statements_of(&resolver, &joined).await;
        assert!(
            (one + 3..=16).contains(&statements),
            "{statements} statements, {one} for something wholly new"
        );
    }

    let known = statements_of(&resolver, &visitors(2_000, 500)).await;
    assert_eq!(known, 1, "what is known costs one round trip");
}

#[tokio::test]
async fn a_lookup_reads_nothing_anew_for_each_row_of_another_part() {
    const LOOK_UP: &str = include_str!("../../src/store/lookup.sql");
    let world = World::new(Policy::default()).await;
    // What the planner knows is how small the tables were.
    world.resolve(&visitors(0, 5)).await;
    sqlx::raw_sql("analyze").execute(&world.database.pool).await.unwrap();
    world.resolve(&visitors(1_000, 500)).await;

    let mut connection = world.database.pool.acquire().await.unwrap();
    let prepare = format!(
        "set plan_cache_mode = force_generic_plan;
         set enable_seqscan = off; -- as the service's connections have it
         prepare look_up (bigint, bytea[], bytea[], bytea[], bigint[], bigint, bigint, bigint[], bytea[], bytea[]) as {LOOK_UP}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
    let macs: String = sqlx::query_scalar("select array_agg(value_mac)::text from identity.identifier")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    let components: String =
        sqlx::query_scalar("select array_agg(component_id)::text from identity.component")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    let explain = format!(
        "explain (analyze, costs off, timing off)
         execute look_up (1, '{macs}', '{{}}', '{{}}', '{{}}', 1000, 32, '{components}', '{macs}', '{macs}')"
    );
    let plan: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    assert!(plan.iter().any(|line| line.contains("rows=505")), "{}", plan.join("\n"));
    for line in &plan {
        let runs_once = line.contains("loops=1)") || line.contains("never executed");
        let reads_all = line.contains("CTE Scan") || line.contains("Seq Scan");
        assert!((runs_once || !reads_all) && !line.contains("Join Filter"), "{}", plan.join("\n"));
    }
}
