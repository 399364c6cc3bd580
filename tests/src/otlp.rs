//! A collector of traces inside the test: an OTLP/gRPC receiver, as Jaeger is one.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A finished span as it arrived. Ids are lower-case hexadecimal digits, as in a traceparent.
#[derive(Debug, Clone)]
pub struct Span {
    /// `ingest`, `resolve`, `deliver` …
    pub name: String,
    /// The process that made it (`service.name`).
    pub service: String,
    /// Of which trace.
    pub trace_id: String,
    /// Its own.
    pub span_id: String,
    /// Empty for a root.
    pub parent_id: String,
    /// As text, whatever their type.
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since the Unix epoch.
    pub started_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub ended_ns: u64,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// A running collector; ends when it is dropped.
pub struct Collector {
    endpoint: String,
    spans: Spans,
    server: JoinHandle<()>,
}

impl Collector {
    /// Listens on a free port.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("could not listen")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let spans = Spans::default();
        let service = TraceServiceServer::new(Receiver(Arc::clone(&spans)));
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("the collector ended: {error}");
            }
        });
        Ok(Self { endpoint, spans, server })
    }

    /// What `--otlp-endpoint` takes.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What has arrived of a trace so far.
    #[must_use]
    pub fn trace(&self, trace_id: &str) -> Trace {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        Trace { spans: spans.iter().filter(|span| span.trace_id == trace_id).cloned().collect() }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Receiver(Spans);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = Vec::new();
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| texts(resource.attributes)).unwrap_or_default();
            let service = attributes.get("service.name").cloned().unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received.extend(spans.map(|span| read(span, &service)));
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(received);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(span: OtlpSpan, service: &str) -> Span {
    Span {
        name: span.name,
        service: service.to_owned(),
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        attributes: texts(span.attributes),
        started_ns: span.start_time_unix_nano,
        ended_ns: span.end_time_unix_nano,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

/// The spans of one trace.
#[derive(Debug, Clone)]
pub struct Trace {
    /// In the order of arrival.
    pub spans: Vec<Span>,
}

impl Trace {
    /// The spans of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.name == name).collect()
    }

    /// Spans from which no chain of parents leads to the span `origin`.
    #[must_use]
    pub fn strays(&self, origin: &str) -> Vec<&Span> {
        let parents: HashMap<&str, &str> =
            self.spans.iter().map(|span| (span.span_id.as_str(), span.parent_id.as_str())).collect();
        let leads_there = |span: &&Span| {
            let mut at = span.parent_id.as_str();
            // A chain is no longer than there are spans; a circle ends here, too.
            for _ in 0..=self.spans.len() {
                if at == origin {
                    return true;
                }
                match parents.get(at) {
                    Some(parent) => at = parent,
                    None => return false,
                }
            }
            false
        };
        self.spans.iter().filter(|span| !leads_there(span)).collect()
    }
}
