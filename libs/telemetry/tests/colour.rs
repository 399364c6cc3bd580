//! Log lines of a process whose standard error is no terminal.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use tracklayer_telemetry::{LogFormat, TelemetryConfig, init};

/// Set for the process that logs.
const LOGS: &str = "TRACKLAYER_TEST_LOGS";

// One test: the subscriber is the process's, and the process that logs is this test again.
#[tokio::test]
async fn pretty_lines_that_go_to_a_file_hold_no_colour_codes() {
    if std::env::var_os(LOGS).is_some() {
        let config = TelemetryConfig { log_format: LogFormat::Pretty, ..TelemetryConfig::default() };
        let guard = init(&config).unwrap();
        tracing::warn!(answer = 42, "a line for people");
        return guard.shutdown().await;
    }
    let logged = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pretty_lines_that_go_to_a_file_hold_no_colour_codes", "--nocapture"])
        .env(LOGS, "1")
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    let lines = String::from_utf8(logged.stderr).unwrap();
    assert!(lines.contains("a line for people") && lines.contains("answer=42"), "{lines:?}");
    assert!(!lines.contains('\u{1b}'), "{lines:?}");
}
