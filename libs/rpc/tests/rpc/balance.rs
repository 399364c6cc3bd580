//! Calls over several replicas, of which some go and some come.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use tokio::net::TcpListener;
use tonic::Code;
use tracklayer_ids::Secret;
use tracklayer_proto::identity::v1::{
    Identifier, LookUpRequest, identity_service_client::IdentityServiceClient,
};
use tracklayer_rpc::{Channel, StackLimits, connect_each, connect_lazy};
use tracklayer_testkit::{eventually, eventually_seen, listener};

use crate::fake::{Identity, Running, TOKEN};

type Client = IdentityServiceClient<Channel>;

fn wish(value: &str) -> LookUpRequest {
    let identifier = Identifier { r#type: "user_id".to_owned(), value: value.to_owned() };
    LookUpRequest { workspace_id: 1, identifier: Some(identifier) }
}

/// A name server that the test writes. `None`: it is away.
#[derive(Clone)]
struct Names(Arc<Mutex<Option<Vec<SocketAddr>>>>);

impl Names {
    fn new(addresses: &[SocketAddr]) -> Self {
        Self(Arc::new(Mutex::new(Some(addresses.to_vec()))))
    }

    fn say(&self, addresses: Option<&[SocketAddr]>) {
        *self.0.lock().unwrap() = addresses.map(<[_]>::to_vec);
    }

    fn client(&self) -> Client {
        let names = self.clone();
        let look_up = move || {
            let answer = names.0.lock().unwrap().clone().ok_or_else(|| io::Error::other("no name server"));
            std::future::ready(answer).boxed()
        };
        let token = Secret::new(TOKEN.to_owned());
        IdentityServiceClient::new(connect_each("http://identity:7000", token, look_up).unwrap())
    }
}

/// A server, what it does, and where it is.
struct Replica {
    identity: Identity,
    running: Running,
    address: SocketAddr,
}

impl Replica {
    async fn start() -> Self {
        Self::start_on(listener().await, Identity::new()).await
    }

    async fn start_on(listener: TcpListener, identity: Identity) -> Self {
        let address = listener.local_addr().unwrap();
        let limits = StackLimits { drain: Duration::from_millis(200), ..StackLimits::default() };
        let running = Running::start(identity.clone(), listener, limits).await;
        Self { identity, running, address }
    }

    /// Stops it; it can be started again there with what it has counted.
    async fn stop(self) -> (SocketAddr, Identity) {
        self.running.stop().await;
        (self.address, self.identity)
    }
}

async fn start_again((address, identity): (SocketAddr, Identity)) -> Replica {
    let bind = async || TcpListener::bind(address).await.ok();
    Replica::start_on(eventually("the port", bind).await, identity).await
}

/// Calls until this server has answered one more. No call may fail.
async fn until_it_answers(client: &mut Client, replica: &Replica) {
    let before = replica.identity.calls();
    eventually("a call at this replica", async || {
        client.look_up(wish("ok")).await.unwrap();
        (replica.identity.calls() > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_goes_to_the_replica_with_the_fewest_under_way() {
    let (one, two) = (Replica::start().await, Replica::start().await);
    let mut client = Names::new(&[one.address, two.address]).client();
    until_it_answers(&mut client, &one).await;
    until_it_answers(&mut client, &two).await;
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.look_up(wish("wait")).await })
        })
        .collect();
    one.identity.until_waiting(3).await;
    two.identity.until_waiting(3).await;
    // With three under way here and none there, all new ones go there.
    one.identity.released.cancel();
    let seen = one.identity.calls();
    eventually_seen("the three to end", async || {
        let ended = calls.iter().filter(|call| call.is_finished()).count();
        if ended == 3 { Ok(()) } else { Err(format!("{ended} ended")) }
    })
    .await;
    for _ in 0..5 {
        client.look_up(wish("ok")).await.unwrap();
    }
    assert_eq!(one.identity.calls(), seen + 5);
    two.identity.released.cancel();
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test]
async fn no_call_fails_while_a_replica_goes_away_and_comes_back() {
    let (one, two) = (Replica::start().await, Replica::start().await);
    let mut client = Names::new(&[one.address, two.address]).client();
    until_it_answers(&mut client, &one).await;
    until_it_answers(&mut client, &two).await;

    let mut busy = client.clone();
    let stopped = tokio_util::sync::CancellationToken::new();
    let until = stopped.clone();
    let calls = tokio::spawn(async move {
        let mut calls = 0;
        while !until.is_cancelled() {
            busy.look_up(wish("ok")).await.unwrap();
            calls += 1;
        }
        calls
    });
    let gone = two.stop().await;
    let seen = gone.1.calls();
    until_it_answers(&mut client, &one).await;
    assert_eq!(gone.1.calls(), seen);
    let two = start_again(gone).await;
    until_it_answers(&mut client, &two).await;
    stopped.cancel();
    assert!(calls.await.unwrap() > 0);
    drop(client);
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test]
async fn a_call_that_was_sent_when_its_replica_died_is_not_sent_again() {
    let (one, two) = (Replica::start().await, Replica::start().await);
    let names = Names::new(&[one.address]);
    let mut client = names.client();
    until_it_answers(&mut client, &one).await;
    let mut sent = client.clone();
    let call = tokio::spawn(async move { sent.look_up(wish("wait")).await });
    one.identity.until_waiting(1).await;
    names.say(Some(&[one.address, two.address]));
    until_it_answers(&mut client, &two).await;
    let seen = two.identity.calls();
    one.stop().await;
    let failed = call.await.unwrap().unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "{failed:?}");
    assert_eq!(two.identity.calls(), seen, "who called decides whether it may happen twice");
    two.stop().await;
}

#[tokio::test]
async fn calls_follow_the_name() {
    let (one, two) = (Replica::start().await, Replica::start().await);
    let names = Names::new(&[one.address]);
    let mut client = names.client();
    for _ in 0..3 {
        client.look_up(wish("ok")).await.unwrap();
    }
    assert_eq!((one.identity.calls(), two.identity.calls()), (3, 0));

    names.say(Some(&[two.address]));
    eventually("no call at the old replica any more", async || {
        let before = (one.identity.calls(), two.identity.calls());
        client.look_up(wish("ok")).await.unwrap();
        (one.identity.calls() == before.0 && two.identity.calls() > before.1).then_some(())
    })
    .await;
    // A name server that is away, or has nothing to say, takes nobody away.
    let before = two.identity.calls();
    for answer in [None, Some(&[][..])] {
        names.say(answer);
        let looked = Instant::now();
        eventually("another look", async || {
            client.look_up(wish("ok")).await.unwrap();
            (looked.elapsed() > Duration::from_millis(2_500)).then_some(())
        })
        .await;
    }
    assert!(two.identity.calls() > before);
    drop(client);
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test]
async fn where_nobody_is_a_call_fails_at_once_and_says_where() {
    let nobody = listener().await.local_addr().unwrap();
    let names = Names::new(&[nobody]);
    let mut client = names.client();
    let started = Instant::now();
    let failed = client.look_up(wish("ok")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(
        failed.message().contains("identity:7000") && failed.message().contains(&nobody.to_string()),
        "{failed}"
    );

    for (answer, word) in [(None, "no name server"), (Some(&[][..]), "no address")] {
        names.say(answer);
        let failed = names.client().look_up(wish("ok")).await.unwrap_err();
        assert_eq!(failed.code(), Code::Unavailable);
        assert!(failed.message().contains(word), "{failed}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    // And the next call after somebody came succeeds, without a pause for those who failed before.
    let came = start_again((nobody, Identity::new())).await;
    client.look_up(wish("ok")).await.unwrap();
    came.stop().await;
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let replica = Replica::start().await;
    let address = format!("http://localhost:{}", replica.address.port());
    let channel = connect_lazy(&address, Secret::new(TOKEN.to_owned())).unwrap();
    IdentityServiceClient::new(channel).look_up(wish("ok")).await.unwrap();
    let nowhere = connect_lazy("http://no-such-host.invalid:7000", Secret::new(TOKEN.to_owned())).unwrap();
    let failed = IdentityServiceClient::new(nowhere).look_up(wish("ok")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    replica.stop().await;
}
