//! Metrics of the process, rendered for Prometheus.
//!
//! Installed once per process and again without effect: `tracklayer dev` and the tests run all services in one.

use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Upper bounds of `_seconds` histograms: from a cache hit to a lane that is an hour behind.
const SECONDS: [f64; 18] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
    3600.0,
];
/// Upper bounds of `_bytes` histograms.
const BYTES: [f64; 8] = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
/// Upper bounds of `_events` histograms: sizes of batches.
const EVENTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0];
/// How often histograms are folded; they grow until then, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder if this process has none yet. Metrics before the first call are lost: services call it early.
pub fn install_recorder() {
    let _ = handle();
}

/// All metrics in Prometheus' text format.
#[must_use]
pub fn render_metrics() -> String {
    handle().as_ref().map(PrometheusHandle::render).unwrap_or_default()
}

fn handle() -> &'static Option<PrometheusHandle> {
    HANDLE.get_or_init(|| match install() {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::error!(error = %error, "metrics are not recorded");
            None
        }
    })
}

fn install() -> Result<PrometheusHandle, BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &EVENTS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    let upkeep = handle.clone();
    let thread = std::thread::Builder::new().name("metrics-upkeep".to_owned());
    let spawned = thread.spawn(move || {
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(error = %error, "histograms are folded only when they are read");
    }
    Ok(handle)
}
