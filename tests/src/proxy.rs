//! A TCP proxy between a process and what it talks to, for what networks do: cut, refuse, stall, delay.
//!
//! It knows no protocol. Bytes that are under way while a connection stalls arrive late, or, if it is then cut, never: both
//! happen to a process whose machine loses its network.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They go through.
    Fair,
    /// Each piece (at most 64 KiB) waits that long, in both directions.
    Delay(Duration),
    /// Nothing moves, in either direction; connections stay open and new ones are taken.
    Stall,
    /// New connections are closed at once.
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct State {
    weather: Weather,
    /// Rises with each cut: connections of an older number end.
    cuts: u64,
}

/// A proxy on a port of 127.0.0.1. Dropping it cuts every connection.
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Listens on a free port and forwards to `target`, which need not be there yet.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port for a proxy")?;
        let address = listener.local_addr()?;
        let (state, seen) = watch::channel(State { weather: Weather::Fair, cuts: 0 });
        let accepting = tokio::spawn(accept(listener, target, seen)).abort_handle();
        Ok(Self { address, state, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.state.send_modify(|state| state.weather = weather);
    }

    /// Ends every connection at once; what is under way is lost.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, state: watch::Receiver<State>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else { continue };
        if state.borrow().weather == Weather::Refuse {
            continue;
        }
        connections.spawn(forward(client, target, state.clone()));
    }
}

async fn forward(client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let cuts = state.borrow_and_update().cuts;
    let Ok(server) = TcpStream::connect(target).await else { return };
    // A cut says so at once (RST), as a firewall's would; and small messages are not held back.
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_zero_linger();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = state.clone();
    tokio::select! {
        _ = cut.wait_for(|state| state.cuts != cuts) => {}
        () = both(
            pump(from_client, to_server, state.clone()),
            pump(from_server, to_client, state),
        ) => {}
    }
}

/// One side that ends is passed on as an end; the connection is over when both have.
async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::join!(one, other);
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut piece).await.unwrap_or(0);
        if state.wait_for(|state| state.weather != Weather::Stall).await.is_err() {
            return;
        }
        let weather = state.borrow().weather;
        if let Weather::Delay(by) = weather {
            tokio::time::sleep(by).await;
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A server that answers every byte with the same, and a proxy before it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Proxy::start(address).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_u8(7).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn bytes_go_through_and_a_cut_ends_the_connection_but_not_the_next() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream).await.unwrap(), 7);
        proxy.cut();
        assert!(ask(&mut stream).await.is_err());
        let mut next = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut next).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_stalls_arrives_when_the_weather_is_fair_again() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream).await.unwrap(), 7);
        proxy.set(Weather::Stall);
        stream.write_u8(8).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
        assert!(early.is_err(), "nothing moves");
        proxy.set(Weather::Fair);
        assert_eq!(stream.read_u8().await.unwrap(), 8);
    }

    #[tokio::test]
    async fn a_delay_is_felt_in_both_directions_and_a_refusal_at_once() {
        let proxy = echo().await;
        proxy.set(Weather::Delay(Duration::from_millis(60)));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let begun = Instant::now();
        assert_eq!(ask(&mut stream).await.unwrap(), 7);
        assert!(begun.elapsed() >= Duration::from_millis(120), "{:?}", begun.elapsed());
        proxy.set(Weather::Refuse);
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(ask(&mut refused).await.is_err());
    }
}
