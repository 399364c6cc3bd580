//! Spans as a collector receives them, over a real OTLP connection.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tonic::{Request, Response, Status, transport::Server};
use tracing::Instrument as _;
use tracklayer_telemetry::{
    LogFormat, TelemetryConfig, TraceParent, context, event_span, first_event_span, init, new_traceparent,
    render_metrics,
};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// One test: the subscriber and the recorder are the process's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_spans_request_and_journal() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let collector = Collector::default();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));

    // Before anything is started there is nothing to record to.
    let now = SystemTime::now();
    assert_eq!(event_span("early", &new_traceparent(1.0), now, now, &[]), None);
    assert_eq!(context::current_traceparent(), None);

    let config = TelemetryConfig {
        service: "test".to_owned(),
        log_format: LogFormat::Json,
        log_filter: "error".to_owned(),
        otlp_endpoint: format!("http://{address}"),
        sample_ratio: 0.0,
    };
    let guard = init(&config).unwrap();
    let again = init(&config).unwrap();
    drop(again);

    let begun = new_traceparent(1.0);
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let end = start + Duration::from_millis(5);
    let accepted = first_event_span("accept", &begun, start, end, &[("source", "7".to_owned())]).unwrap();
    assert_eq!(accepted, begun);
    // The end lies before the start: clocks of two machines.
    let resolved = event_span("resolve", &accepted, end, start, &[]).unwrap();
    assert_eq!(event_span("unsampled", &new_traceparent(0.0), start, end, &[]), None);
    assert_eq!(event_span("malformed", "nonsense", start, end, &[]), None);

    // A caller's request, and what we tell the next service.
    let span = tracing::info_span!(target: "tracklayer_rpc", "rpc");
    context::set_parent(&span, &resolved);
    let onward = async { context::current_traceparent() }.instrument(span).await.unwrap();
    // A root of our own is not sampled at ratio 0.
    tracing::info_span!(target: "tracklayer_rpc", "root").in_scope(|| ());

    metrics::counter!("tracklayer_samples_total").increment(2);
    metrics::histogram!("tracklayer_sample_duration_seconds").record(0.02);
    guard.shutdown().await;

    let spans = collector.0.lock().unwrap().clone();
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "resolve", "rpc"]);
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (accept, resolve, rpc) = (named("accept"), named("resolve"), named("rpc"));
    let begun = TraceParent::parse(&begun).unwrap();
    assert_eq!(hex(&accept.trace_id), format!("{:032x}", begun.trace_id));
    assert_eq!(hex(&accept.span_id), format!("{:016x}", begun.span_id));
    assert!(accept.parent_span_id.is_empty());
    assert_eq!(accept.start_time_unix_nano, 1_000_000_000_000);
    assert_eq!(accept.end_time_unix_nano, 1_000_005_000_000);
    assert_eq!(accept.attributes[0].key, "source");
    assert_eq!(resolve.parent_span_id, accept.span_id);
    assert_eq!(resolve.start_time_unix_nano, resolve.end_time_unix_nano);
    assert_eq!(rpc.parent_span_id, resolve.span_id);
    let onward = TraceParent::parse(&onward).unwrap();
    assert_eq!(hex(&rpc.span_id), format!("{:016x}", onward.span_id));
    assert!(spans.iter().all(|span| span.trace_id == accept.trace_id));

    let text = render_metrics();
    assert!(text.contains("tracklayer_samples_total 2"), "{text}");
    assert!(text.contains("tracklayer_sample_duration_seconds_bucket{le=\"0.025\"} 1"), "{text}");
}
