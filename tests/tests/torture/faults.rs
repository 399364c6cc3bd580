//! Does to the installation what the plan says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracklayer_sandbox::How;
use tracklayer_tests::Weather;

use crate::plan::{Fault, Planned};
use crate::stage::Stage;

/// How often each kind of fault was injected, and which could not be.
#[derive(Debug, Clone, Default)]
pub struct Injected {
    pub done: BTreeMap<String, u64>,
    pub skipped: BTreeMap<String, u64>,
}

/// Injects the faults, each at its time, and returns when all are over. Two that need the same process or server come one
/// after the other, all others overlap.
///
/// # Errors
/// Something could not be done, or not be undone.
pub async fn inject(stage: &Arc<Stage>, faults: Vec<Planned>, begin: Instant) -> anyhow::Result<Injected> {
    let injected = Arc::new(Mutex::new(Injected::default()));
    let mut running = JoinSet::new();
    for Planned { at, fault } in faults {
        let (stage, injected) = (Arc::clone(stage), Arc::clone(&injected));
        running.spawn(async move {
            sleep_until(begin + at).await;
            let done = carry_out(&stage, &fault).await.with_context(|| format!("{fault:?}"))?;
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
async fn carry_out(stage: &Stage, fault: &Fault) -> anyhow::Result<bool> {
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
        Fault::Trouble { platform, trouble, time } => {
            let sandbox = stage.sandbox();
            sandbox.inject(*platform, trouble.clone(), How::For(*time)).await?;
            sleep(*time).await;
            sandbox.clear(*platform).await?;
        }
    }
    Ok(true)
}
