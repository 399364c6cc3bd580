//! The kit against the real servers that it starts.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use tracklayer_testkit::{database, eventually, redis};

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("tests/migrations");

#[tokio::test]
async fn each_test_has_a_migrated_database_of_its_own() {
    let one = database(&[("sample", &MIGRATOR)]).await;
    let two = database(&[("sample", &MIGRATOR)]).await;
    sqlx::query("insert into sample.note values (1, 'a')").execute(&one.pool).await.unwrap();
    let count = "select count(*) from sample.note";
    let in_one: i64 = sqlx::query_scalar(count).fetch_one(&one.pool).await.unwrap();
    let in_two: i64 = sqlx::query_scalar(count).fetch_one(&two.pool).await.unwrap();
    assert_eq!((in_one, in_two), (1, 0));
}

#[tokio::test]
async fn a_database_goes_with_its_test() {
    let gone = database(&[]).await;
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&gone.pool).await.unwrap();
    drop(gone);
    let other = database(&[]).await;
    eventually("the database to be dropped", async || {
        let there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&other.pool)
            .await
            .unwrap();
        (!there).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redis_evicts_nothing_and_is_private() {
    let (one, two) = (redis().await, redis().await);
    let client = |url: &str| ::redis::Client::open(url.to_owned()).unwrap();
    let mut first = client(&one.url).get_multiplexed_async_connection().await.unwrap();
    let mut second = client(&two.url).get_multiplexed_async_connection().await.unwrap();
    let () = ::redis::cmd("SET").arg("key").arg(1).query_async(&mut first).await.unwrap();
    let seen: Option<i64> = ::redis::cmd("GET").arg("key").query_async(&mut second).await.unwrap();
    assert_eq!(seen, None);
    let policy: Vec<String> =
        ::redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(&mut first).await.unwrap();
    assert_eq!(policy[1], "noeviction");
}

/// Not a test of its own: the child of the next one. It starts both servers, says where they are, and waits to be killed.
#[test]
fn child_that_is_killed() {
    if std::env::var_os("TRACKLAYER_TESTKIT_CHILD").is_none() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let database = database(&[]).await;
        let redis = redis().await;
        let data: String = sqlx::query_scalar("select current_setting('data_directory')")
            .fetch_one(&database.pool)
            .await
            .unwrap();
        println!("child {data} {}", redis.server.pid());
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn servers_and_folders_go_with_a_process_that_is_killed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env("TRACKLAYER_TESTKIT_CHILD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| line.unwrap().split("child ").nth(1).map(str::to_owned)).unwrap();
    let (data, redis) = line.split_once(' ').unwrap();
    let postgres = std::fs::read_to_string(format!("{data}/postmaster.pid")).unwrap();
    let postgres = postgres.lines().next().unwrap().to_owned();
    assert!(is_running(&postgres) && is_running(redis));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("both servers to end", async || (!is_running(&postgres) && !is_running(redis)).then_some(()))
        .await;
    let folder = std::path::Path::new(data).parent().unwrap();
    eventually("the folder to be removed", async || (!folder.exists()).then_some(())).await;
}

fn is_running(pid: &str) -> bool {
    Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status().unwrap().success()
}
