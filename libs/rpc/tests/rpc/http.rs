//! The HTTP edge and the operators' port, spoken to byte by byte.

use std::net::SocketAddr;

use axum::{Router, extract::ConnectInfo, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tracklayer_rpc::{Readiness, ops_router, serve_http};
use tracklayer_testkit::listener;

async fn serve(app: Router) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = serve_http(listener, app, shutdown.clone());
    let ended = tokio::spawn(async move { serving.await.unwrap() });
    (address, shutdown, ended)
}

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_says_why() {
    let ready = Readiness::new();
    let (address, shutdown, ended) = serve(ops_router(ready.clone())).await;
    assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let answer = ask(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("starting\n"), "{answer}");
    ready.set(true, "serving");
    ready.ready().await;
    assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    ready.set(false, "stopping");
    assert!(ask(address, "/readyz").await.ends_with("stopping\n"));
    metrics::counter!("tracklayer_http_samples_total").increment(1);
    let answer = ask(address, "/metrics").await;
    assert!(
        answer.contains("text/plain; version=0.0.4") && answer.contains("tracklayer_http_samples_total 1")
    );
    shutdown.cancel();
    ended.await.unwrap();
}

#[tokio::test]
async fn handlers_see_the_clients_address_and_a_request_in_flight_ends_after_the_shutdown() {
    let release = CancellationToken::new();
    let entered = CancellationToken::new();
    let (released, inside) = (release.clone(), entered.clone());
    let handler = move |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        inside.cancel();
        released.cancelled().await;
        peer.ip().to_string()
    };
    let (address, shutdown, ended) = serve(Router::new().route("/", get(handler))).await;
    // An idle connection that is kept alive must not hold the shutdown up.
    let _idle = TcpStream::connect(address).await.unwrap();
    let asking = tokio::spawn(ask(address, "/"));
    entered.cancelled().await;
    shutdown.cancel();
    tokio::task::yield_now().await;
    release.cancel();
    let answer = asking.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
    ended.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
