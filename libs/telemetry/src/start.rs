//! The subscriber of the process and the guard that flushes it.

use std::{
    ffi::OsStr,
    io::IsTerminal as _,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, SdkTracerProvider,
        ShouldSample,
    },
};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{LogFormat, TelemetryConfig, ids::Ids, recorder};

/// How long spans may take to reach the collector at the end.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
/// Spans that wait for the collector; more are dropped, never waited for.
const MAX_QUEUED_SPANS: usize = 16_384;
/// Attribute of a root span whose recording is decided already.
pub(crate) const RECORDED: &str = "tracklayer.recorded";

static STARTED: AtomicBool = AtomicBool::new(false);

/// Why logs or traces could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not understood.
    #[error(
        "log filter `{filter}` is not understood; expected something like `info,tracklayer_delivery=debug`"
    )]
    Filter {
        /// As given.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The collector's address is not usable.
    #[error("OTLP address `{endpoint}` is not usable; expected something like `http://jaeger:4317`")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// Why.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// Something else in this process has taken the place.
    #[error("another logger is installed in this process")]
    Taken(#[source] tracing_subscriber::util::TryInitError),
}

/// Flushes spans at the end. Call [`Guard::shutdown`]; dropping it does the same with less patience.
#[derive(Debug)]
#[must_use = "dropping it ends the traces"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

/// Starts logs, and traces if a collector is configured, and installs the metrics. Call it inside the Tokio runtime (the
/// exporter lives in it). A second call in the same process changes nothing.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(config: &TelemetryConfig) -> Result<Guard, TelemetryError> {
    let filter = EnvFilter::try_new(&config.log_filter)
        .map_err(|source| TelemetryError::Filter { filter: config.log_filter.clone(), source })?;
    if STARTED.swap(true, Ordering::SeqCst) {
        return Ok(Guard { provider: None });
    }
    recorder::install_recorder();
    let provider = provider(config)?;
    // Only our own spans: those of libraries are not what a person looks for, and the exporter's own would feed itself.
    let ours = Targets::new().with_target("tracklayer", tracing::Level::INFO);
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("tracklayer"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours)
    });
    let colour = coloured(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let lines = match config.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Pretty => lines.with_target(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(traces)
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(TelemetryError::Taken)?;
    if let Some(provider) = &provider {
        opentelemetry::global::set_tracer_provider(provider.clone());
    }
    Ok(Guard { provider })
}

/// Whether log lines may hold colour codes: for a terminal only, and not for whoever sets `NO_COLOR` to anything but an empty
/// text. Source: no-color.org; 2026-11.
fn coloured(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

fn provider(config: &TelemetryConfig) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let endpoint = config.otlp_endpoint.trim();
    if endpoint.is_empty() {
        return Ok(None);
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(FLUSH_PATIENCE)
        .build()
        .map_err(|source| TelemetryError::Endpoint { endpoint: endpoint.to_owned(), source })?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUED_SPANS)
        .with_scheduled_delay(Duration::from_secs(1))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_sampler(CallerFirst { root: Sampler::TraceIdRatioBased(config.sample_ratio) })
        .with_id_generator(Ids::default())
        .with_resource(
            Resource::builder()
                .with_service_name(config.service.clone())
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                .build(),
        )
        .build();
    Ok(Some(provider))
}

/// The caller's decision stands; a root whose recording is decided already is recorded; other roots by ratio.
#[derive(Debug, Clone)]
struct CallerFirst {
    root: Sampler,
}

impl ShouldSample for CallerFirst {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let caller = parent.filter(|context| context.has_active_span());
        let recorded = match caller {
            Some(context) => context.span().span_context().is_sampled(),
            None if attributes.iter().any(|attribute| attribute.key.as_str() == RECORDED) => true,
            None => return self.root.should_sample(parent, trace_id, name, kind, attributes, links),
        };
        SamplingResult {
            decision: if recorded { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop },
            attributes: Vec::new(),
            trace_state: caller.map_or_else(TraceState::default, |context| {
                context.span().span_context().trace_state().clone()
            }),
        }
    }
}

impl Guard {
    /// Sends what is left to the collector, for at most five seconds. The last thing before the process ends.
    pub async fn shutdown(mut self) {
        let Some(provider) = self.provider.take() else { return };
        // The exporter blocks its caller while the runtime does the sending: never on a thread of the runtime itself.
        let flushed =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_PATIENCE)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "some spans did not reach the collector"),
            Err(error) => tracing::warn!(error = %error, "flushing spans broke off"),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(provider) = self.provider.take() else { return };
        let (done, wait) = mpsc::channel();
        let flush = move || {
            let _ = done.send(provider.shutdown_with_timeout(FLUSH_PATIENCE));
        };
        if std::thread::Builder::new().name("flush-spans".to_owned()).spawn(flush).is_ok() {
            let _ = wait.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_coloured_on_a_terminal_of_whoever_does_not_mind() {
        assert!(coloured(true, None));
        assert!(coloured(true, Some(OsStr::new(""))));
        assert!(!coloured(true, Some(OsStr::new("1"))));
        assert!(!coloured(false, None));
    }
}
