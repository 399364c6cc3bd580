//! Does to the installation what the plan says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep, sleep_until};
use tracklayer_sandbox::How;
use tracklayer_tests::Weather;

use crate::load::Memory;
use crate::plan::{Fault, Planned};
use crate::reading::Reading;
use crate::stage::Stage;
use crate::stop;
use crate::workspace::Workspace;

/// How often each kind of fault was injected, and which could not be.
#[derive(Debug, Clone, Default)]
pub struct Injected {
    pub done: BTreeMap<String, u64>,
    pub skipped: BTreeMap<String, u64>,
}

/// What faults are done to.
pub struct Scene {
    pub stage: Arc<Stage>,
    pub workspace: Workspace,
    pub memory: Arc<Memory>,
    /// The journal as it was read so far.
    pub reading: tokio::sync::Mutex<Reading>,
}

/// Injects the faults, each at its time, and returns when all are over. Two that need the same process or server come one
/// after the other, all others overlap.
///
/// # Errors
/// Something could not be done, or not be undone.
pub async fn inject(scene: &Arc<Scene>, faults: Vec<Planned>, begin: Instant) -> anyhow::Result<Injected> {
    let injected = Arc::new(Mutex::new(Injected::default()));
    let mut running = JoinSet::new();
    for Planned { at, fault } in faults {
        let (scene, injected) = (Arc::clone(scene), Arc::clone(&injected));
        running.spawn(async move {
            sleep_until(begin + at).await;
            let done = carry_out(&scene, &fault).await.with_context(|| format!("{fault:?}"))?;
            let mut injected = injected.lock().unwrap_or_else(PoisonError::into_inner);
            let counts = if done { &mut injected.done } else { &mut injected.skipped };
            *counts.entry(fault.kind()).or_default() += 1;
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let injected = injected.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(injected)
}

/// Whether it could be done.
async fn carry_out(scene: &Scene, fault: &Fault) -> anyhow::Result<bool> {
    let stage = &scene.stage;
    match fault {
        Fault::Kill { member, away } => {
            let mut held = stage.fleet.member(member).hold().await;
            held.kill()?;
            sleep(*away).await;
            held.start()?;
        }
        Fault::Terminate { member, away } => {
            let mut held = stage.fleet.member(member).hold().await;
            held.terminate()?;
            sleep(*away).await;
            held.start()?;
        }
        Fault::Pause { member, time } => {
            let held = stage.fleet.member(member).hold().await;
            let runs = held.pause()?;
            sleep(*time).await;
            held.resume()?;
            return Ok(runs);
        }
        Fault::KillPostgres { away } => {
            let mut postgres = stage.postgres.lock().await;
            postgres.kill().await?;
            sleep(*away).await;
            postgres.start_again().await?;
        }
        Fault::KillRedis { away } => {
            let mut redis = stage.redis.lock().await;
            redis.kill().await?;
            sleep(*away).await;
            redis.start_again(false).await?;
        }
        Fault::EmptyRedis { away } => {
            let mut redis = stage.redis.lock().await;
            redis.kill().await?;
            sleep(*away).await;
            redis.start_again(true).await?;
        }
        Fault::StaleRedis { age, away } => {
            stage.redis.lock().await.keep_copy()?;
            sleep(*age).await;
            let mut redis = stage.redis.lock().await;
            redis.kill().await?;
            sleep(*away).await;
            redis.start_on_copy().await?;
        }
        Fault::FlushRedis => stage.redis.lock().await.flush()?,
        Fault::Stop { hours } => return stop::stop(scene, *hours).await,
        Fault::DiskFull { time } => {
            if stage.no_disk.is_some() {
                return Ok(false);
            }
            let mut postgres = stage.postgres.lock().await;
            postgres.fill_disk()?;
            sleep(*time).await;
            postgres.free_disk()?;
            // It ends where it wanted to recover and had no room.
            postgres.start_again().await?;
        }
        Fault::Cut { link } => stage.proxy(*link).cut(),
        Fault::Stall { link, time, lost } => {
            let proxy = stage.proxy(*link);
            proxy.set(Weather::Stall);
            sleep(*time).await;
            if *lost {
                proxy.cut();
            }
            proxy.set(Weather::Fair);
        }
        Fault::Delay { link, by, time } => {
            let proxy = stage.proxy(*link);
            proxy.set(Weather::Delay(*by));
            sleep(*time).await;
            proxy.set(Weather::Fair);
        }
        Fault::Refuse { link, time } => {
            let proxy = stage.proxy(*link);
            proxy.set(Weather::Refuse);
            proxy.cut();
            sleep(*time).await;
            proxy.set(Weather::Fair);
        }
        Fault::KillBroker { away } => {
            let Some(broker) = &stage.broker else { return Ok(false) };
            let mut broker = broker.lock().await;
            block_in_place(|| broker.kill());
            sleep(*away).await;
            block_in_place(|| Handle::current().block_on(broker.start_again()));
            // It has been away longer than the load lasts: who waited for it goes on over the one that is back.
            scene.memory.go_on_until(Instant::now() + stop::LOAD_AFTERWARDS);
        }
        Fault::PauseBroker { time } => {
            let Some(broker) = &stage.broker else { return Ok(false) };
            let broker = broker.lock().await;
            broker.pause();
            sleep(*time).await;
            broker.resume();
        }
        Fault::Partitions { partitions } => scene.workspace.set_partitions(stage, *partitions).await?,
        Fault::Trouble { platform, trouble, time } => {
            let sandbox = stage.sandbox();
            sandbox.inject(*platform, trouble.clone(), How::For(*time)).await?;
            sleep(*time).await;
            sandbox.clear(*platform).await?;
        }
    }
    Ok(true)
}
