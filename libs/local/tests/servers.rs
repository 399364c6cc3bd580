//! Private servers: durable, restartable, never in each other's way.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, process::Command};

use sqlx::{Connection as _, PgConnection};
use tracklayer_local::{LocalError, LocalPostgres, LocalRedis, PgOptions, RedisOptions};

/// A folder that user `postgres` can enter, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tracklayer-{name}-{}", std::process::id())))
    }

    fn postgres(&self, port: Option<u16>) -> PgOptions {
        PgOptions {
            data_dir: self.0.clone(),
            port,
            persistent: true,
            settings: Vec::new(),
            environment: Vec::new(),
        }
    }

    fn redis(&self, port: Option<u16>) -> RedisOptions {
        RedisOptions {
            dir: self.0.clone(),
            port,
            appendonly: true,
            persistent: true,
            environment: Vec::new(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn data_survive_a_restart_and_a_crash() {
    let folder = Folder::new("pg-crash");
    let server = LocalPostgres::start(folder.postgres(None)).await.unwrap();
    let mut connection = PgConnection::connect(server.url()).await.unwrap();
    sqlx::query("create table kept (id int)").execute(&mut connection).await.unwrap();
    for setting in ["fsync", "synchronous_commit", "full_page_writes", "data_checksums"] {
        let value: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(value, "on", "{setting}");
    }
    let port = server.port();
    server.stop().await.unwrap();

    let server = LocalPostgres::start(folder.postgres(Some(port))).await.unwrap();
    let mut connection = PgConnection::connect(server.url()).await.unwrap();
    sqlx::query("insert into kept values (1)").execute(&mut connection).await.unwrap();
    kill(server.pid());
    while server.is_running() {
        tokio::task::yield_now().await;
    }
    drop(server);

    // The crashed server's process file is still there, and as in a container its number belongs to another process by now.
    let pid_file = folder.0.join("data/postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();
    let server = LocalPostgres::start(folder.postgres(Some(port))).await.unwrap();
    let mut connection = PgConnection::connect(server.tcp_url()).await.unwrap();
    let rows: i64 = sqlx::query_scalar("select count(*) from kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(rows, 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn over_tcp_a_password_is_asked() {
    let folder = Folder::new("pg-password");
    let server = LocalPostgres::start(folder.postgres(None)).await.unwrap();
    let without = format!("postgres://tracklayer:wrong@127.0.0.1:{}/tracklayer", server.port());
    assert!(PgConnection::connect(&without).await.is_err());
    assert!(PgConnection::connect(server.tcp_url()).await.is_ok());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_belongs_to_one_process_at_a_time() {
    let folder = Folder::new("pg-twice");
    let first = LocalPostgres::start(folder.postgres(None)).await.unwrap();
    let second = LocalPostgres::start(folder.postgres(None)).await;
    assert!(matches!(second, Err(LocalError::InUse { .. })), "{second:?}");
    let thrown_away = PgOptions { persistent: false, ..folder.postgres(None) };
    let third = LocalPostgres::start(thrown_away).await;
    assert!(matches!(third, Err(LocalError::NotEmpty { .. })), "{third:?}");
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = Folder::new("pg-port");
    let refused = LocalPostgres::start(folder.postgres(Some(port))).await;
    assert!(matches!(refused, Err(LocalError::PortTaken { port: told }) if told == port), "{refused:?}");
    let folder = Folder::new("redis-port");
    let refused = LocalRedis::start(folder.redis(Some(port))).await;
    assert!(matches!(refused, Err(LocalError::PortTaken { port: told }) if told == port), "{refused:?}");
}

#[tokio::test]
async fn a_setting_that_does_not_exist_is_told_with_the_log() {
    let folder = Folder::new("pg-setting");
    let options =
        PgOptions { settings: vec![("no_such".to_owned(), "1".to_owned())], ..folder.postgres(None) };
    let refused = LocalPostgres::start(options).await.unwrap_err();
    assert!(refused.to_string().contains("no_such"), "{refused}");
}

#[tokio::test]
async fn redis_keeps_its_keys_over_a_restart() {
    let folder = Folder::new("redis-keep");
    let server = LocalRedis::start(folder.redis(None)).await.unwrap();
    let port = server.port();
    let connect = async |url: String| {
        redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
    };
    let mut connection = connect(server.url()).await;
    let () = redis::cmd("SET").arg("claim").arg("0/1/2").query_async(&mut connection).await.unwrap();
    server.stop().await.unwrap();

    let server = LocalRedis::start(folder.redis(Some(port))).await.unwrap();
    let mut connection = connect(server.url()).await;
    let kept: Option<String> = redis::cmd("GET").arg("claim").query_async(&mut connection).await.unwrap();
    assert_eq!(kept.as_deref(), Some("0/1/2"));
    kill(server.pid());
    while server.is_running() {
        tokio::task::yield_now().await;
    }
    drop(server);
    let server = LocalRedis::start(folder.redis(Some(port))).await.unwrap();
    server.stop().await.unwrap();
}
