//! Calls spread over all replicas of a service.
//!
//! A name may resolve to many addresses (a headless Service of Kubernetes: one for each pod that is ready). Each has a
//! connection of its own; a call goes to the one with the fewest calls under way. The name is looked up again all the
//! time, so that replicas that come get their share and those that go get no new calls. The one trick: only replicas that
//! are connected are chosen, never one that would first have to be reached; a dead one costs no call.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Once, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{
    HeaderValue, Request, Response, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tonic::{Status, body::Body};
use tower::{BoxError, Service};

use crate::{
    layer::deadline,
    replica::{Replica, Sender},
};

/// Pause between two looks at the name and at replicas that are not connected.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Least pause between two, however many callers find nobody.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
/// Longest look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections on which a request is tried that none of them has written. Each try takes another connection.
const MAX_TRIES: usize = 5;
/// What servers see of who calls.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tracklayer/", env!("CARGO_PKG_VERSION")));

/// Says at which addresses a service answers now.
pub(crate) type LookUp = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// See the module. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Balanced {
    inner: Arc<Inner>,
}

struct Inner {
    authority: Authority,
    look_up: LookUp,
    known: watch::Sender<Known>,
    look_now: Notify,
    /// Where the search among equals begins, so that they take turns.
    turn: AtomicUsize,
    deadline: Duration,
    started: Once,
}

/// What is known of the replicas.
#[derive(Clone, Default)]
struct Known {
    /// How often the name was looked up.
    looks: u64,
    replicas: Arc<[Arc<Replica>]>,
    /// Why the last look found nobody.
    problem: Option<Arc<str>>,
}

impl Balanced {
    /// Nothing happens before the first call. `deadline`: longest call until its answer begins, unless the caller says less.
    pub(crate) fn new(authority: Authority, look_up: LookUp, deadline: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                authority,
                look_up,
                known: watch::Sender::new(Known::default()),
                look_now: Notify::new(),
                turn: AtomicUsize::new(0),
                deadline,
                started: Once::new(),
            }),
        }
    }
}

impl std::fmt::Debug for Balanced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Balanced").field("authority", &self.inner.authority).finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Balanced {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        // The task holds no strong reference: it ends soon after the last clone.
        inner.started.call_once(|| drop(tokio::spawn(keep_looking(Arc::downgrade(&inner)))));
        let limit =
            deadline::callers(request.headers()).map_or(inner.deadline, |theirs| theirs.min(inner.deadline));
        Box::pin(async move {
            match tokio::time::timeout(limit, inner.send(request)).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(status)) => Err(status.into()),
                Err(_) => Err(Status::deadline_exceeded(
                    "no answer in time; whether the request took effect is unknown",
                )
                .into()),
            }
        })
    }
}

impl Inner {
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let arrived = Instant::now();
        *request.uri_mut() = self.with_origin(request.uri())?;
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        let mut tries = 0;
        loop {
            tries += 1;
            let (replica, mut sender) = self.choose(arrived).await?;
            let place = replica.enter();
            let mut error = match sender.try_send_request(request).await {
                Ok(response) if response.body().is_end_stream() => return Ok(response.map(Body::new)),
                Ok(response) => {
                    return Ok(response.map(|body| {
                        Body::new(body.map_frame(move |frame| {
                            let _until_the_end = &place;
                            frame
                        }))
                    }));
                }
                Err(error) => error,
            };
            match error.take_message() {
                // Not a byte of it was written: the connection had ended.
                Some(unsent) if tries < MAX_TRIES => {
                    replica.forget_connection();
                    request = unsent;
                }
                _ => return Err(broken(error.into_error())),
            }
        }
    }

    fn with_origin(&self, uri: &Uri) -> Result<Uri, Status> {
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| Status::internal(format!("the request has no usable path: {error}")))
    }

    /// The connected replica with the fewest calls under way; where none is connected, the first that can be reached.
    async fn choose(&self, arrived: Instant) -> Result<(Arc<Replica>, Sender), Status> {
        let replicas = self.replicas().await?;
        if let Some(chosen) = least_busy(&replicas, self.turn.fetch_add(1, Ordering::Relaxed)) {
            return Ok(chosen);
        }
        let mut attempts: FuturesUnordered<_> = replicas
            .iter()
            .map(|replica| {
                replica.connect(arrived).map(|outcome| outcome.map(|sender| (Arc::clone(replica), sender)))
            })
            .collect();
        let mut why: Arc<str> = "nobody is there".into();
        while let Some(outcome) = attempts.next().await {
            match outcome {
                Ok(chosen) => return Ok(chosen),
                Err(failed) => why = failed,
            }
        }
        // All that are known are gone: there may be others by now.
        self.look_now.notify_one();
        Err(Status::unavailable(format!("could not connect to {}: {why}", self.authority)))
    }

    /// Those that the name stood for when it was last looked up; waits for a look where there are none.
    async fn replicas(&self) -> Result<Arc<[Arc<Replica>]>, Status> {
        let mut known = self.known.subscribe();
        let looks = {
            let known = known.borrow_and_update();
            if !known.replicas.is_empty() {
                return Ok(Arc::clone(&known.replicas));
            }
            known.looks
        };
        self.look_now.notify_one();
        let seen = known.wait_for(|known| known.looks > looks).await;
        let seen = seen.map_err(|_| Status::unavailable("the channel is being closed"))?;
        if seen.replicas.is_empty() {
            let why = seen.problem.as_deref().unwrap_or("it has no address");
            return Err(Status::unavailable(format!("could not look up {}: {why}", self.authority)));
        }
        Ok(Arc::clone(&seen.replicas))
    }

    /// Looks the name up, and connects to those that are not connected.
    async fn look(&self) {
        let found = match tokio::time::timeout(LOOK_TIMEOUT, (self.look_up)()).await {
            Ok(found) => found,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        self.known.send_modify(|known| {
            known.looks += 1;
            match found {
                Ok(addresses) if !addresses.is_empty() => {
                    known.problem = None;
                    if let Some(replicas) = changed(&known.replicas, addresses) {
                        tracing::debug!(authority = %self.authority, replicas = replicas.len(), "other replicas than before");
                        known.replicas = replicas;
                    }
                }
                // Those that were there are still the best guess: a name server that is away takes nothing down.
                Ok(_) => known.problem = Some("it has no address".into()),
                Err(error) => known.problem = Some(error.to_string().into()),
            }
        });
        let replicas = Arc::clone(&self.known.borrow().replicas);
        let arrived = Instant::now();
        futures::future::join_all(replicas.iter().map(|replica| replica.connect(arrived))).await;
    }
}

/// Looks again and again while anybody holds the channel.
async fn keep_looking(inner: Weak<Inner>) {
    loop {
        let Some(held) = inner.upgrade() else { return };
        held.look().await;
        drop(held);
        tokio::time::sleep(LEAST_PAUSE).await;
        let Some(held) = inner.upgrade() else { return };
        // Holds the channel for no longer than the pause.
        let _ = tokio::time::timeout(LOOK_AGAIN - LEAST_PAUSE, held.look_now.notified()).await;
    }
}

/// The connected one with the fewest calls under way; equals take turns.
fn least_busy(replicas: &[Arc<Replica>], turn: usize) -> Option<(Arc<Replica>, Sender)> {
    let first = turn % replicas.len().max(1);
    let (before, from) = replicas.split_at(first);
    let mut by_load: Vec<&Arc<Replica>> = from.iter().chain(before).collect();
    by_load.sort_by_key(|replica| replica.in_flight());
    by_load.into_iter().find_map(|replica| Some((Arc::clone(replica), replica.connected()?)))
}

/// The replicas at these addresses: those that were there before keep their connections. `None` if nothing changed.
fn changed(known: &[Arc<Replica>], mut addresses: Vec<SocketAddr>) -> Option<Arc<[Arc<Replica>]>> {
    addresses.sort_unstable();
    addresses.dedup();
    if known.iter().map(|replica| replica.address()).eq(addresses.iter().copied()) {
        return None;
    }
    let of = |address: SocketAddr| {
        let there = known.iter().find(|replica| replica.address() == address);
        there.map_or_else(|| Arc::new(Replica::new(address)), Arc::clone)
    };
    Some(addresses.into_iter().map(of).collect())
}

/// The connection broke after the request was written: it may have taken effect.
fn broken(error: hyper::Error) -> Status {
    let status = Status::from_error(Box::new(error));
    match status.code() {
        // What the library cannot tell, and what it takes for the caller's wish.
        tonic::Code::Unknown | tonic::Code::Cancelled => Status::unavailable(
            "the connection broke before the answer; whether the request took effect is unknown",
        ),
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[test]
    fn who_was_there_before_keeps_its_connection() {
        let before = changed(&[], at(&[2, 1, 2])).unwrap();
        assert_eq!(before.iter().map(|replica| replica.address()).collect::<Vec<_>>(), at(&[1, 2]));
        assert!(changed(&before, at(&[2, 1])).is_none(), "a name server may answer in any order");
        let after = changed(&before, at(&[3, 2])).unwrap();
        assert_eq!(after.iter().map(|replica| replica.address()).collect::<Vec<_>>(), at(&[2, 3]));
        assert!(Arc::ptr_eq(&after[0], &before[1]));
    }
}
