//! Counts and times each call. Above the shedding, so that shed calls are counted, too.
//!
//! The outcome of a call stands in its trailers, after the body: the count is made when the body ends or is dropped.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tower::{Layer, Service};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observe;

impl<S> Layer<S> for Observe {
    type Service = ObserveService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        ObserveService { inner }
    }
}

/// See [`Observe`].
#[derive(Debug, Clone)]
pub(crate) struct ObserveService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for ObserveService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut call = Call::begin(request.uri().path());
        let future = self.inner.call(request);
        Box::pin(async move {
            let response = future.await?;
            call.note(response.headers());
            let (parts, body) = response.into_parts();
            let body = body.map_frame(move |frame| {
                if let Some(trailers) = frame.trailers_ref() {
                    call.note(trailers);
                }
                frame
            });
            Ok(Response::from_parts(parts, Body::new(body)))
        })
    }
}

/// One call, counted when it is dropped.
struct Call {
    rpc: &'static str,
    started: Instant,
    code: Option<tonic::Code>,
}

impl Call {
    fn begin(path: &str) -> Self {
        let rpc = name_of(path);
        metrics::gauge!("tracklayer_rpc_in_flight", "rpc" => rpc).increment(1.0);
        Self { rpc, started: Instant::now(), code: None }
    }

    fn note(&mut self, headers: &HeaderMap) {
        if let Some(value) = headers.get("grpc-status") {
            self.code = Some(tonic::Code::from_bytes(value.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // No trailers: the caller went away before the end.
        let code = self.code.map_or("cancelled", label);
        metrics::gauge!("tracklayer_rpc_in_flight", "rpc" => self.rpc).decrement(1.0);
        metrics::counter!("tracklayer_rpc_requests_total", "rpc" => self.rpc, "code" => code).increment(1);
        metrics::histogram!("tracklayer_rpc_duration_seconds", "rpc" => self.rpc)
            .record(self.started.elapsed().as_secs_f64());
    }
}

fn label(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "ok",
        tonic::Code::Cancelled => "cancelled",
        tonic::Code::Unknown => "unknown",
        tonic::Code::InvalidArgument => "invalid_argument",
        tonic::Code::DeadlineExceeded => "deadline_exceeded",
        tonic::Code::NotFound => "not_found",
        tonic::Code::AlreadyExists => "already_exists",
        tonic::Code::PermissionDenied => "permission_denied",
        tonic::Code::ResourceExhausted => "resource_exhausted",
        tonic::Code::FailedPrecondition => "failed_precondition",
        tonic::Code::Aborted => "aborted",
        tonic::Code::OutOfRange => "out_of_range",
        tonic::Code::Unimplemented => "unimplemented",
        tonic::Code::Internal => "internal",
        tonic::Code::Unavailable => "unavailable",
        tonic::Code::DataLoss => "data_loss",
        tonic::Code::Unauthenticated => "unauthenticated",
    }
}

/// Paths of our own RPCs ("/tracklayer.ingest.v1.IngestService/Publish") and their labels ("ingest.Publish"). A path is the
/// caller's to choose: only these become labels, so that nobody can flood the metrics.
static NAMES: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(tracklayer_proto::DESCRIPTORS).unwrap_or_default();
    let mut names = HashMap::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let area = file.package().split('.').nth(1).unwrap_or("other");
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                // As many as there are RPCs in the protos, once per process.
                let label: &'static str = Box::leak(format!("{area}.{}", method.name()).into_boxed_str());
                names.insert(path, label);
            }
        }
    }
    names.insert("/grpc.health.v1.Health/Check".to_owned(), "health.Check");
    names.insert("/grpc.health.v1.Health/Watch".to_owned(), "health.Watch");
    names
});

fn name_of(path: &str) -> &'static str {
    NAMES.get(path).copied().unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rpcs_of_the_protos_become_labels() {
        assert_eq!(name_of("/tracklayer.ingest.v1.IngestService/Publish"), "ingest.Publish");
        assert_eq!(name_of("/tracklayer.control.v1.ControlService/WatchConfig"), "control.WatchConfig");
        assert_eq!(name_of("/tracklayer.ingest.v1.IngestService/Publish2"), "other");
        assert_eq!(name_of("/"), "other");
    }
}
