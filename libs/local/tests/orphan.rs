//! A start in a folder whose last starter was killed, with and without the supervisor that would have cleaned up.
//!
//! A program of its own, without the usual harness: it starts itself again as the process that starts servers and is killed.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sqlx::{Connection as _, PgConnection};
use tracklayer_local::{LocalPostgres, LocalRedis, PgOptions, RedisOptions};

const CHILD: &str = "child-that-is-killed";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder] = arguments.as_slice()
        && first == CHILD
    {
        let (postgres, redis) = start(Path::new(folder)).await;
        println!("{} {}", postgres.pid(), redis.pid());
        std::future::pending::<()>().await;
    }
    for supervisor_too in [false, true] {
        let folder = std::env::temp_dir().join(format!("tracklayer-orphan-{}", std::process::id()));
        kill_and_start_again(&folder, supervisor_too).await;
        std::fs::remove_dir_all(&folder).unwrap();
        println!("a start after the starter was killed (supervisor too: {supervisor_too}): ok");
    }
}

async fn start(folder: &Path) -> (LocalPostgres, LocalRedis) {
    let data_dir: PathBuf = folder.join("postgres");
    let postgres =
        PgOptions { data_dir, port: None, persistent: true, settings: Vec::new(), environment: Vec::new() };
    let redis = RedisOptions {
        dir: folder.join("redis"),
        port: None,
        appendonly: true,
        persistent: true,
        environment: Vec::new(),
    };
    (LocalPostgres::start(postgres).await.unwrap(), LocalRedis::start(redis).await.unwrap())
}

async fn kill_and_start_again(folder: &Path, supervisor_too: bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(CHILD)
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids: Vec<&str> = line.split_whitespace().collect();
    if supervisor_too {
        for server in &pids {
            for process in supervisors_of(server, folder) {
                kill(&process);
            }
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let (postgres, redis) = start(folder).await;
    assert!(pids.iter().all(|pid| *pid != postgres.pid().to_string() && *pid != redis.pid().to_string()));
    let mut connection = PgConnection::connect(postgres.url()).await.unwrap();
    let one: i32 = sqlx::query_scalar("select 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(one, 1);
    for pid in pids {
        // One that nobody waited for (state Z) has ended, too.
        let state = ps(&["-o", "stat=", "-p", pid]);
        assert!(state.iter().all(|state| state.starts_with('Z')), "process {pid} is still there: {state:?}");
    }
    redis.stop().await.unwrap();
    postgres.stop().await.unwrap();
}

/// The shell above a server and the helper beside it that reads the pipe.
fn supervisors_of(server: &str, folder: &Path) -> Vec<String> {
    let parent = ps(&["-o", "ppid=", "-p", server]).remove(0);
    let command = ps(&["-o", "args=", "-p", &parent]).join(" ");
    assert!(command.contains(folder.to_str().unwrap()), "{command}");
    let mut found: Vec<String> =
        ps(&["-o", "pid=", "--ppid", &parent]).into_iter().filter(|pid| pid != server).collect();
    found.push(parent);
    found
}

fn ps(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("ps").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn kill(pid: &str) {
    assert!(Command::new("kill").args(["-s", "KILL", pid]).status().unwrap().success());
}
