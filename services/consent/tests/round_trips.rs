//! A batch costs the same number of round trips whatever its size, counted on the wire.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use support::{WORKSPACE, ago, database, gpc, item, now, to};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
};
use tracklayer_consent::{
    firewall::{Firewall, Item, SubjectRef},
    kind::Kind,
    policy::Policy,
    statement::Captured,
    store::Store,
};
use tracklayer_ids::{Secret, SubjectKey};

/// Forwards to PostgreSQL and counts statements: each `Execute` and each simple `Query`, one round trip each. The pool's own
/// pings before and after a connection is lent are not counted.
struct CountingProxy {
    url: String,
    waits: Arc<AtomicUsize>,
}

impl CountingProxy {
    async fn before(url: &str) -> Self {
        let target = url::Url::parse(url).unwrap();
        // The test kit's server is reached through a socket in a folder, whose path is the host.
        let folder = target.host_str().unwrap().replace("%2F", "/");
        let address = format!("{folder}/.s.PGSQL.{}", target.port().unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut through = target;
        through.set_host(Some("127.0.0.1")).unwrap();
        through.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        through.query_pairs_mut().append_pair("sslmode", "disable");
        let waits = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&waits);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&address).await.unwrap();
                let counter = Arc::clone(&counter);
                tokio::spawn(forward(client, server, counter));
            }
        });
        Self { url: through.to_string(), waits }
    }

    fn take(&self) -> usize {
        self.waits.swap(0, Ordering::SeqCst)
    }
}

async fn forward(client: TcpStream, server: UnixStream, waits: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    // The first message has a length and no type.
    let mut has_type = false;
    loop {
        let kind = if has_type { from_client.read_u8().await.ok() } else { Some(0) };
        let (Some(kind), Ok(length)) = (kind, from_client.read_u32().await) else { break };
        let mut body = vec![0; length as usize - 4];
        if from_client.read_exact(&mut body).await.is_err() {
            break;
        }
        if kind == b'E' || kind == b'Q' {
            waits.fetch_add(1, Ordering::SeqCst);
        }
        let mut message = Vec::with_capacity(body.len() + 5);
        if has_type {
            message.push(kind);
        }
        message.extend(length.to_be_bytes());
        message.extend(body);
        has_type = true;
        if to_server.write_all(&message).await.is_err() {
            break;
        }
    }
    answers.abort();
}

fn batch(first: u16, size: u16, captured: &Captured) -> Vec<Item> {
    (first..first + size)
        .map(|i| {
            let mut key = [4; 16];
            key[..2].copy_from_slice(&i.to_be_bytes());
            let subjects = [
                SubjectRef { key: SubjectKey(key), person: false, linked: false },
                SubjectRef {
                    key: SubjectKey({
                        key[15] = 9;
                        key
                    }),
                    person: true,
                    linked: false,
                },
            ];
            item(&subjects, ago(3), "US-CA", captured.clone())
        })
        .collect()
}

#[tokio::test]
async fn a_batch_of_500_costs_as_many_round_trips_as_a_batch_of_one() {
    let database = database().await;
    let proxy = CountingProxy::before(&database.url).await;
    let pool = tracklayer_postgres::connect(&Secret::new(proxy.url.clone()), 1).await.unwrap();
    let firewall = Firewall::new(Store::new(pool), Arc::new(Policy::compiled_in().unwrap()));
    let destinations = to(&Kind::ALL);
    let decide = async |items: &[Item], record| {
        firewall.decide(WORKSPACE, now(), items, &destinations, record).await.unwrap();
        proxy.take()
    };
    // Statements are prepared once per connection.
    decide(&batch(60_000, 2, &gpc()), true).await;
    decide(&batch(60_000, 2, &gpc()), true).await;

    let (one, many) = (decide(&batch(0, 1, &gpc()), true).await, decide(&batch(1, 500, &gpc()), true).await);
    assert_eq!(one, many, "with something to write");
    assert_eq!(many, 8, "read; begin, lock, read, write, number, commit; receipts");
    let repeated = decide(&batch(1, 500, &gpc()), true).await;
    assert_eq!(repeated, 2, "a read and the receipts");
    assert_eq!(decide(&batch(1, 500, &Captured::default()), false).await, 2, "a read and the receipts");

    firewall.record(WORKSPACE, &batch(1_000, 500, &gpc())).await.unwrap();
    assert_eq!(proxy.take(), 7, "as a decision, without receipts");
    firewall.record(WORKSPACE, &batch(1_000, 500, &gpc())).await.unwrap();
    assert_eq!(proxy.take(), 1, "a repeat is one read");
}
