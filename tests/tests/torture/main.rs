//! The torture harness: real processes, real servers, clients that remember what was acknowledged, and everything that may go
//! wrong at once, by a seed. Afterwards every acknowledged event is at every platform exactly once, in order, and the ledger
//! balances.
//!
//! `make torture SEEDS=200` runs seeds 1 to 200; `FROM=120` goes on from there; results of one commit add up in
//! `target/torture`. Without `TORTURE_SEEDS` it is a short run. A seed always makes the same plan and the same load; how they
//! meet is the machine's. `TORTURE_SHOW=1` prints each seed's plan; `TORTURE_PREVIOUS=/path/to/tracklayer` runs the second
//! process of ingest and of delivery from that binary (`make torture PREVIOUS=REV` builds it); `TORTURE_JOURNAL=kafka` keeps
//! events in Kafka, whose broker then fails, too.
//!
//! Modules in reading order: [`plan`] (what a seed says), [`stage`] (the installation), [`workspace`], [`load`] and [`wire`]
//! (the clients), [`faults`] (does what the plan says), [`stop`] (of days), [`reading`], [`check`] (what has to hold), [`results`].

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod check;
mod faults;
mod load;
mod plan;
mod reading;
mod results;
mod stage;
mod stop;
mod wire;
mod workspace;

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::FutureExt as _;
use tracklayer_tests::Member;

use self::faults::Scene;
use self::reading::Reading;
use self::results::{Results, SeedResult};
use self::stage::Stage;
use self::workspace::Workspace;

/// Seeds of the short run.
const FEW: u64 = 2;
/// Seeds that share servers and processes: what older workspaces leave behind must not slow the newer ones down.
const SHARED_BY: u64 = 8;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())
        .map_or(default, |text| text.parse().expect("a number"))
}

/// Runs a seed; what it came to.
async fn run(stage: &Arc<Stage>, seed: u64, commit: &str) -> anyhow::Result<SeedResult> {
    let begun = Instant::now();
    let mut faults = plan::faults_of(seed);
    if stage.broker.is_some() {
        faults.extend(plan::broker_faults_of(seed));
    } else if std::env::var_os("TORTURE_PREVIOUS").is_none() {
        // The release before does not know of layouts, and a log cannot change them.
        faults.extend(plan::layouts_of(seed));
    }
    if std::env::var_os("TORTURE_SHOW").is_some() {
        for planned in &faults {
            println!("  {:5} ms {:?}", planned.at.as_millis(), planned.fault);
        }
    }
    stage.fleet.ready().await;
    let ended_before = ended(stage);
    let logged_before: Vec<u64> = stage.fleet.members().iter().map(|member| size(member.log())).collect();
    let workspace = Workspace::create(stage, seed).await?;
    let reading = Reading::new(Arc::clone(&stage.journal), workspace.id).into();
    let scene = Arc::new(Scene { stage: Arc::clone(stage), workspace, memory: Arc::default(), reading });
    let Scene { workspace, memory, .. } = &*scene;
    let start = tokio::time::Instant::now();
    let load = load::run(stage, workspace, seed, start + plan::LOAD, Arc::clone(memory));
    let injecting = faults::inject(&scene, faults, start).inspect(|_| memory.faults_are_over());
    let (loaded, injected) = tokio::join!(load, injecting);
    let injected = injected?;
    let findings = check::check(&scene, seed).await?;
    let mut found = findings.faults;
    found.extend(loaded.err().map(|error| format!("{error:#}")));
    for (member, from) in stage.fleet.members().iter().zip(logged_before) {
        found.extend(panics(member, from)?);
    }
    Ok(SeedResult {
        seed,
        commit: commit.to_owned(),
        passed: found.is_empty(),
        faults: found,
        seconds: begun.elapsed().as_secs_f64(),
        settled_after: findings.settled_after.as_secs_f64(),
        acknowledged: findings.acknowledged,
        received: findings.received,
        delivered: findings.delivered,
        duplicates: findings.duplicates,
        lost: findings.lost,
        doubled: findings.doubled,
        out_of_order: findings.out_of_order,
        leaked: findings.leaked,
        blocked: findings.blocked,
        unknown: findings.unknown,
        expired: findings.expired,
        anew: findings.anew,
        repeated_requests: memory.repeated.load(Ordering::Relaxed),
        twins: memory.twins_sent.load(Ordering::Relaxed),
        late_repeats: memory.late_repeats.load(Ordering::Relaxed),
        injected: injected.done,
        skipped: injected.skipped,
        copies: findings.copies,
        ended_by_themselves: ended(stage) - ended_before,
    })
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text")
}

/// How many processes have ended by themselves so far.
fn ended(stage: &Stage) -> u64 {
    stage.fleet.members().iter().map(|member| member.exits().len() as u64).sum()
}

fn size(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |log| log.len())
}

/// What the log says of panics from there on: no fault is an excuse for one.
fn panics(member: &Member, from: u64) -> anyhow::Result<Vec<String>> {
    let mut log = File::open(member.log())?;
    log.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    log.read_to_end(&mut text)?;
    let name = &member.replica().name;
    let lines = String::from_utf8_lossy(&text);
    Ok(lines
        .lines()
        .filter(|line| line.contains("panicked at"))
        .map(|line| format!("{name}: {line}"))
        .collect())
}

/// Keeps the logs of a seed that failed.
fn keep_logs(stage: &Stage, results: &Results, seed: u64) {
    let folder = results.failed(seed);
    let _ = std::fs::create_dir_all(&folder);
    for log in stage.logs() {
        if let Some(name) = log.file_name() {
            let _ = std::fs::copy(log, folder.join(name));
        }
    }
    println!("  logs: {}", folder.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_is_delivered_once_and_in_order_whatever_fails() {
    let (seeds, from) = (number("TORTURE_SEEDS", FEW), number("TORTURE_FROM", 1));
    let results = Results::of_this_commit().unwrap();
    let mut failed = Vec::new();
    let mut stage: Option<Arc<Stage>> = None;
    for (place, seed) in (from..from + seeds).enumerate() {
        if (place as u64).is_multiple_of(SHARED_BY) {
            stage = None;
        }
        let stage_of_seed = match &stage {
            Some(stage) => Arc::clone(stage),
            None => {
                let new = Arc::new(Stage::start().await.unwrap());
                if let Some(why) = &new.no_disk {
                    println!("SKIPPED the faults of a full disk: {why}");
                }
                if let Err(why) = &new.clock {
                    println!("SKIPPED the stops of days: {why}");
                }
                Arc::clone(stage.insert(new))
            }
        };
        println!("seed {seed} (again: make torture SEEDS=1 FROM={seed})");
        // A panic (something was waited for in vain) is a failure of this seed alone.
        let played = AssertUnwindSafe(run(&stage_of_seed, seed, &results.commit)).catch_unwind().await;
        let result = match played.map_err(|panic| anyhow::anyhow!("{}", text_of(&*panic))).flatten() {
            Ok(result) => result,
            Err(error) => SeedResult {
                seed,
                commit: results.commit.clone(),
                faults: vec![format!("the seed did not come to its end: {error:#}")],
                ..SeedResult::default()
            },
        };
        results.append(&result).unwrap();
        println!(
            "  {} in {:.1} s ({:.1} s to rest): {} acknowledged, {} received, {} delivered, {} blocked, {} unknown, {} expired; lost {}, doubled {}, \
             out of order {}, leaked {}; \
             {} requests repeated, {} after days, copies dropped {:?}, {} faults, {} skipped, {} processes ended by themselves",
            if result.passed { "passed" } else { "FAILED" },
            result.seconds,
            result.settled_after,
            result.acknowledged,
            result.received,
            result.delivered,
            result.blocked,
            result.unknown,
            result.expired,
            result.lost,
            result.doubled,
            result.out_of_order,
            result.leaked,
            result.repeated_requests,
            result.late_repeats,
            result.copies,
            result.injected.values().sum::<u64>(),
            result.skipped.values().sum::<u64>(),
            result.ended_by_themselves,
        );
        if !result.passed {
            for fault in &result.faults {
                println!("  {fault}");
            }
            keep_logs(&stage_of_seed, &results, seed);
            failed.push(seed);
            // What is broken by now must not fail the next one.
            drop(stage_of_seed);
            stage = None;
        }
    }
    drop(stage);
    println!("{}", results.sum().unwrap());
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}
