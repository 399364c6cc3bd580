//! What an operator may set about logs and traces.

use serde::{Deserialize, Serialize};

/// Logs, traces and metrics of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Name of the process in Jaeger and in the logs ("ingest", "dev").
    pub service: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are, as in `info,tracklayer_delivery=debug`.
    pub log_filter: String,
    /// OTLP/gRPC address of a collector ("http://jaeger:4317"); empty for none. `OTEL_EXPORTER_OTLP_ENDPOINT` is the same.
    pub otlp_endpoint: String,
    /// Share of new traces that are recorded, 0 to 1. A caller's own decision stands.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service: "tracklayer".to_owned(),
            log_format: LogFormat::Json,
            log_filter: "info".to_owned(),
            otlp_endpoint: String::new(),
            sample_ratio: 0.01,
        }
    }
}

/// How log lines look. They go to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// Text for people, coloured on a terminal unless `NO_COLOR` is set.
    Pretty,
}
