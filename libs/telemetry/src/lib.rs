//! Logs, traces and metrics of a process: one call at the start, one guard to the end.
//!
//! Modules in reading order: [`config`] (what an operator may set), `start` (the subscriber and its guard), [`recorder`]
//! (metrics), [`traceparent`] (the W3C header as a type), [`context`] (spans of a running request), [`event`] (spans of an
//! event, made after the fact across the journal). It knows no metric and no span by name.

pub mod config;
pub mod context;
pub mod event;
mod ids;
pub mod recorder;
mod start;
pub mod traceparent;

pub use config::{LogFormat, TelemetryConfig};
pub use event::{event_span, first_event_span, is_sampled};
pub use recorder::{install_recorder, render_metrics};
pub use start::{Guard, TelemetryError, init};
pub use traceparent::{TraceParent, new_traceparent};
