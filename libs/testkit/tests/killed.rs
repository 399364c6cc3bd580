//! Servers and folders go with a process that is killed.
//!
//! A program of its own, without the usual harness: it starts itself again as the process that starts servers and is killed.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use tracklayer_testkit::{database, eventually, redis};

const CHILD: &str = "child-that-is-killed";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some(CHILD) {
        start_servers_and_wait().await;
    } else {
        kill_the_child_and_look().await;
        println!("servers and folders go with a process that is killed: ok");
    }
}

async fn start_servers_and_wait() {
    let database = database(&[]).await;
    let redis = redis().await;
    let data: String = sqlx::query_scalar("select current_setting('data_directory')")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    println!("{data} {}", redis.server.pid());
    std::future::pending::<()>().await;
}

async fn kill_the_child_and_look() {
    let mut child =
        Command::new(std::env::current_exe().unwrap()).arg(CHILD).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (data, redis) = line.trim().split_once(' ').unwrap();
    let pid_file = std::fs::read_to_string(format!("{data}/postmaster.pid")).unwrap();
    let postgres = pid_file.lines().next().unwrap();
    assert!(is_running(postgres) && is_running(redis));

    child.kill().unwrap();
    child.wait().unwrap();
    let ended = async || (!is_running(postgres) && !is_running(redis)).then_some(());
    eventually("both servers to end", ended).await;
    let folder = std::path::Path::new(data).parent().unwrap();
    eventually("the folder to be removed", async || (!folder.exists()).then_some(())).await;
}

fn is_running(pid: &str) -> bool {
    Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status().unwrap().success()
}
