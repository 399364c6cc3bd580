//! Services with one RPC each, served under the names of real ones: what they do is written in the request.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, body::Body, server::NamedService};
use tracklayer_ids::Secret;
use tracklayer_proto::{
    control::v1::{WatchConfigRequest, WatchConfigResponse},
    identity::v1::{LookUpRequest, LookUpResponse},
};
use tracklayer_rpc::{
    Channel, GrpcServer, ServeError, StackLimits, connect_lazy, remaining, require_service_token,
};

pub const TOKEN: &str = "service-token";

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// Identity with LookUp only. The identifier's value says what to do: `panic`, `wait` (until released), `deadline`
/// (answers with what is left of it), `ok`.
#[derive(Clone)]
pub struct Identity {
    pub released: CancellationToken,
    pub waiting: Arc<watch::Sender<usize>>,
    calls: Arc<AtomicUsize>,
}

impl Identity {
    pub fn new() -> Self {
        Self {
            released: CancellationToken::new(),
            waiting: Arc::new(watch::Sender::new(0)),
            calls: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Calls that reached the handler so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Until so many calls wait inside the handler.
    pub async fn until_waiting(&self, calls: usize) {
        self.waiting.subscribe().wait_for(|waiting| *waiting >= calls).await.unwrap();
    }

    async fn look_up(self, request: LookUpRequest) -> Result<Response<LookUpResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let wish = request.identifier.unwrap_or_default().value;
        let mut answer = LookUpResponse::default();
        match wish.as_str() {
            "panic" => panic!("as wished"),
            "wait" => {
                self.waiting.send_modify(|waiting| *waiting += 1);
                self.released.cancelled().await;
            }
            "deadline" => answer.collisions.push(remaining().unwrap().as_millis().to_string()),
            _ => {}
        }
        Ok(Response::new(answer))
    }
}

impl NamedService for Identity {
    const NAME: &'static str = "tracklayer.identity.v1.IdentityService";
}

impl tower::Service<http::Request<Body>> for Identity {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let this = self.clone();
        Box::pin(async move {
            let method = tower::service_fn(move |request: Request<LookUpRequest>| {
                this.clone().look_up(request.into_inner())
            });
            let codec = tonic_prost::ProstCodec::<LookUpResponse, LookUpRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(method, request).await)
        })
    }
}

/// Control with WatchConfig only.
#[derive(Clone)]
pub struct Control {
    pub configs: Arc<watch::Sender<WatchConfigResponse>>,
    /// Streams that were opened.
    pub streams: Arc<AtomicUsize>,
}

impl Control {
    pub fn new(config: WatchConfigResponse) -> Self {
        Self { configs: Arc::new(watch::Sender::new(config)), streams: Arc::new(AtomicUsize::new(0)) }
    }
}

impl NamedService for Control {
    const NAME: &'static str = "tracklayer.control.v1.ControlService";
}

impl tower::Service<http::Request<Body>> for Control {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        use futures::StreamExt as _;
        self.streams.fetch_add(1, Ordering::SeqCst);
        let configs = self.configs.subscribe();
        Box::pin(async move {
            let method = tower::service_fn(move |_: Request<WatchConfigRequest>| {
                let stream = WatchStream::new(configs.clone()).map(Ok::<_, Status>);
                async move { Ok(Response::new(stream)) }
            });
            let codec = tonic_prost::ProstCodec::<WatchConfigResponse, WatchConfigRequest>::default();
            Ok(tonic::server::Grpc::new(codec).server_streaming(method, request).await)
        })
    }
}

/// A server that runs until it is told.
pub struct Running {
    pub address: String,
    pub shutdown: CancellationToken,
    pub ended: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub async fn start<S>(service: S, listener: TcpListener, limits: StackLimits) -> Self
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let guarded =
            tonic::service::interceptor::InterceptedService::new(service, require_service_token(TOKEN));
        let server = GrpcServer::new("fake").limits(limits).add(guarded);
        let ended = tokio::spawn(server.serve(listener, shutdown.clone()));
        Self { address, shutdown, ended }
    }

    pub fn channel(&self, token: &str) -> Channel {
        connect_lazy(&self.address, Secret::new(token.to_owned())).unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.ended.await.unwrap().unwrap();
    }
}
