//! Merges and splits in consent's narrowing log: both services over sockets, against the real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use tracklayer_identity::click_ids::Clicks;
use tracklayer_identity::identifier::RawIdentifier;
use tracklayer_identity::policy::Policy;
use tracklayer_identity::resolve::{Item, Resolver};
use tracklayer_identity::store::Store;
use tracklayer_ids::{MasterKey, Secret, SourceId, WorkspaceId};
use tracklayer_proto::consent::v1::consent_service_client::ConsentServiceClient;
use tracklayer_proto::consent::v1::{
    DecideItem, DecideRequest, DestinationQuery, ExplicitChoice, Outcome, Place, ReadNarrowingRequest,
    RecordItem, RecordRequest, Subject, SubjectLevel,
};
use tracklayer_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tracklayer_proto::identity::v1::{
    Identifier, ResolveItem, ResolveRequest, ResolveResponse, ResolvedIdentity,
};
use tracklayer_rpc::{Channel, Listeners};
use tracklayer_testkit::{TestDatabase, eventually, eventually_seen, listener};

const KEY: [u8; 32] = [5; 32];
const WORKSPACE: WorkspaceId = WorkspaceId(4);

/// A database with the tables of both, and what runs on it.
struct Rig {
    database: TestDatabase,
    stop: CancellationToken,
}

/// An entry of the log: its number, its cause and whom it names.
type Entry = (i64, String, BTreeSet<Vec<u8>>);

impl Rig {
    async fn new() -> Self {
        let migrations =
            [("identity", &tracklayer_identity::MIGRATOR), ("consent", &tracklayer_consent::MIGRATOR)];
        Self { database: tracklayer_testkit::database(&migrations).await, stop: CancellationToken::new() }
    }

    fn channel(address: &str) -> Channel {
        let token = Secret::new(MasterKey::new(KEY).service_token());
        tracklayer_rpc::connect_lazy(address, token).unwrap()
    }

    async fn consent(&self, listeners: Listeners) -> ConsentServiceClient<Channel> {
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let config = tracklayer_consent::Config {
            database_url: self.database.secret_url(),
            master_key: MasterKey::new(KEY),
            database_connections: 4,
            policy_file: None,
            receipt_retention_days: 731,
        };
        tokio::spawn(tracklayer_consent::run(config, listeners, self.stop.clone()));
        let client = ConsentServiceClient::new(Self::channel(&address));
        eventually("consent", async || log(&client, i64::MAX).await.ok()).await;
        client
    }

    async fn identity(&self, consent_address: String) -> IdentityServiceClient<Channel> {
        let listeners = listeners().await;
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let config = tracklayer_identity::Config {
            database_url: self.database.secret_url(),
            master_key: MasterKey::new(KEY),
            consent_address,
            database_connections: 4,
            policy_file: None,
        };
        tokio::spawn(tracklayer_identity::run(config, listeners, self.stop.clone()));
        let client = IdentityServiceClient::new(Self::channel(&address));
        eventually("identity", async || resolve(&client, &[&[]]).await.ok()).await;
        client
    }

    async fn waiting(&self) -> i64 {
        sqlx::query_scalar("select count(*) from identity.narrowing")
            .fetch_one(&self.database.pool)
            .await
            .unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn listeners() -> Listeners {
    Listeners { grpc: listener().await, http: None, ops: listener().await }
}

fn address(listeners: &Listeners) -> String {
    format!("http://{}", listeners.grpc.local_addr().unwrap())
}

async fn log(client: &ConsentServiceClient<Channel>, after_seq: i64) -> Result<Vec<Entry>, tonic::Status> {
    let request = ReadNarrowingRequest { workspace_id: WORKSPACE.0, after_seq, limit: 0 };
    let answer = client.clone().read_narrowing(request).await?.into_inner();
    let entries = answer.entries.into_iter();
    Ok(entries.map(|entry| (entry.seq, entry.cause, entry.subject_keys.into_iter().collect())).collect())
}

async fn resolve(
    client: &IdentityServiceClient<Channel>,
    events: &[&[(&str, &str)]],
) -> Result<Vec<ResolvedIdentity>, tonic::Status> {
    Ok(resolve_and_name(client, events).await?.results)
}

async fn resolve_and_name(
    client: &IdentityServiceClient<Channel>,
    events: &[&[(&str, &str)]],
) -> Result<ResolveResponse, tonic::Status> {
    let item = |identifiers: &&[(&str, &str)]| ResolveItem {
        identifiers: identifiers
            .iter()
            .map(|(t, value)| Identifier { r#type: (*t).to_owned(), value: (*value).to_owned() })
            .collect(),
        source_id: 1,
        message_id: "m-1".to_owned(),
        ..ResolveItem::default()
    };
    let request = ResolveRequest { workspace_id: WORKSPACE.0, items: events.iter().map(item).collect() };
    Ok(client.clone().resolve(request).await?.into_inner())
}

fn key(type_name: &str, value: &str) -> Vec<u8> {
    MasterKey::new(KEY).workspace(WORKSPACE).subject(type_name, value).0.to_vec()
}

fn keys(of: &[(&str, &str)]) -> BTreeSet<Vec<u8>> {
    of.iter().map(|(type_name, value)| key(type_name, value)).collect()
}

/// What consent says now about an event with these keys; and the newest narrowing that it saw.
async fn decide(client: &ConsentServiceClient<Channel>, subject_keys: &[Vec<u8>]) -> (Outcome, i64) {
    let subjects =
        subject_keys.iter().map(|key| Subject { key: key.clone(), level: 0, linked: true }).collect();
    let request = DecideRequest {
        workspace_id: WORKSPACE.0,
        items: vec![DecideItem {
            subjects,
            places: vec![Place { code: "US-CA".to_owned(), provenance: "event".to_owned() }],
            person_known: true,
            ..DecideItem::default()
        }],
        destinations: vec![DestinationQuery {
            connection_id: 1,
            kind: "meta_capi".to_owned(),
            ..DestinationQuery::default()
        }],
        record: false,
    };
    let answer = client.clone().decide(request).await.unwrap().into_inner();
    let outcome = answer.decisions[0].destinations[0].outcome;
    (Outcome::try_from(i32::try_from(outcome).unwrap()).unwrap(), answer.narrowing_seq)
}

/// The person withdraws, on a page where only the login is known.
async fn withdraw(client: &ConsentServiceClient<Channel>, type_name: &str, value: &str) {
    let item = RecordItem {
        subjects: vec![Subject {
            key: key(type_name, value),
            level: SubjectLevel::Person.into(),
            linked: false,
        }],
        explicit: Some(ExplicitChoice {
            denied: vec!["ad_targeting".to_owned(), "sale_share".to_owned(), "ad_measurement".to_owned()],
            provenance: "privacy_center".to_owned(),
            ..ExplicitChoice::default()
        }),
        message_id: "w-1".to_owned(),
        ..RecordItem::default()
    };
    client.clone().record(RecordRequest { workspace_id: WORKSPACE.0, items: vec![item] }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_waits_is_named_by_a_merge_before_resolve_answers() {
    let rig = Rig::new().await;
    let at_consent = listeners().await;
    let identity = rig.identity(address(&at_consent)).await;
    let consent = rig.consent(at_consent).await;
    let visitor = [("anonymous_id", "a-1")];
    // A visitor's event is decided and waits in a lane; the customer withdraws elsewhere.
    let before = resolve(&identity, &[&visitor]).await.unwrap().remove(0);
    let (outcome, decided_at) = decide(&consent, &before.subject_keys).await;
    assert_eq!(outcome, Outcome::Allow);
    withdraw(&consent, "user_id", "u-1").await;
    let untouched = log(&consent, decided_at).await.unwrap();
    assert_eq!(untouched.len(), 1);
    assert!(untouched[0].2.is_disjoint(&keys(&visitor)), "the withdrawal cannot name the visitor");

    // The visitor logs in.
    let login =
        resolve(&identity, &[&[("anonymous_id", "a-1"), ("user_id", "u-1")]]).await.unwrap().remove(0);
    let entries = log(&consent, untouched[0].0).await.unwrap();
    let named = keys(&[("anonymous_id", "a-1"), ("user_id", "u-1")]);
    assert_eq!(entries, [(untouched[0].0 + 1, "merge".to_owned(), named)]);
    assert_eq!(rig.waiting().await, 0);
    // A decision after the answer has the number already, and made again the old one is another.
    let (outcome, seq) = decide(&consent, &login.subject_keys).await;
    assert_eq!((outcome, seq), (Outcome::Deny, entries[0].0));
    let again = resolve(&identity, &[&visitor]).await.unwrap().remove(0);
    assert_eq!(decide(&consent, &again.subject_keys).await.0, Outcome::Deny);
    assert_eq!(log(&consent, seq).await.unwrap(), [], "what is known merges nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_leaves_its_user_is_a_split_and_a_bridge_names_both_sides() {
    let rig = Rig::new().await;
    let at_consent = listeners().await;
    let identity = rig.identity(address(&at_consent)).await;
    let consent = rig.consent(at_consent).await;
    let tablet = ("device_id", "d");
    resolve(&identity, &[&[tablet, ("user_id", "u1")]]).await.unwrap();
    let first = log(&consent, 0).await.unwrap();
    assert_eq!(first, [(1, "merge".to_owned(), keys(&[tablet, ("user_id", "u1")]))]);
    // Two users on one tablet: it belongs to neither, so what was decided for it with the first one's company is out of date.
    resolve(&identity, &[&[tablet, ("user_id", "u2")]]).await.unwrap();
    assert_eq!(log(&consent, 1).await.unwrap(), [(2, "split".to_owned(), keys(&[("user_id", "u1")]))]);
    // One event brings two stored profiles together.
    resolve(&identity, &[&[("email", "ann@example.org"), ("anonymous_id", "a-1")]]).await.unwrap();
    resolve(&identity, &[&[("phone", "+4915112345678"), ("anonymous_id", "a-2")]]).await.unwrap();
    let sides = [("email", "ann@example.org"), ("phone", "+4915112345678")];
    let bridge = resolve_and_name(&identity, &[&sides]).await.unwrap();
    assert_eq!(log(&consent, 4).await.unwrap(), [(5, "merge".to_owned(), keys(&sides))]);
    assert_eq!(bridge.narrowing_seqs, [5], "the answer knows of its own");
    assert!(resolve_and_name(&identity, &[&sides]).await.unwrap().narrowing_seqs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_while_consent_is_away_is_answered_and_told_when_consent_is_back() {
    let rig = Rig::new().await;
    let at_consent = listeners().await;
    let (grpc, address) = (at_consent.grpc.local_addr().unwrap(), address(&at_consent));
    drop(at_consent.grpc);
    let identity = rig.identity(address).await;
    let pair = [("anonymous_id", "a-1"), ("user_id", "u-1")];
    let answer = resolve_and_name(&identity, &[&pair]).await.unwrap();
    assert_eq!(answer.results[0].subject_keys.len(), 2);
    assert!(answer.narrowing_seqs.is_empty(), "it has no number yet");
    assert_eq!(rig.waiting().await, 1);
    let back = Listeners {
        grpc: tokio::net::TcpListener::bind(grpc).await.unwrap(),
        http: None,
        ops: at_consent.ops,
    };
    let consent = rig.consent(back).await;
    let told = async || match rig.waiting().await {
        0 => Ok(()),
        left => Err(format!("{left} waiting")),
    };
    eventually_seen("the merge to be told", told).await;
    assert_eq!(log(&consent, 0).await.unwrap(), [(1, "merge".to_owned(), keys(&pair))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_that_died_after_its_commit_did_not_tell_another_tells_in_order() {
    let rig = Rig::new().await;
    // Commits, and never tells: as a process that is killed in between.
    let died = Resolver::new(Store::new(rig.database.pool.clone()), MasterKey::new(KEY), Policy::default());
    for user in ["u-1", "u-2", "u-3"] {
        let raw = |type_name: &str, value: &str| RawIdentifier {
            type_name: type_name.to_owned(),
            value: value.to_owned().into(),
        };
        let item = Item {
            identifiers: vec![raw("user_id", user), raw("email", &format!("{user}@example.org"))],
            clicks: Clicks::default(),
            seen_at: jiff::Timestamp::UNIX_EPOCH,
            source: SourceId(1),
            message_id: "m-1".to_owned(),
        };
        died.resolve(WORKSPACE, &[item]).await.unwrap();
    }
    assert_eq!(rig.waiting().await, 3);
    let at_consent = listeners().await;
    let address = address(&at_consent);
    let consent = rig.consent(at_consent).await;
    rig.identity(address).await;
    eventually("everything to be told", async || (rig.waiting().await == 0).then_some(())).await;
    let expected: Vec<Entry> = (1..)
        .zip(["u-1", "u-2", "u-3"])
        .map(|(seq, user)| {
            let email = format!("{user}@example.org");
            (seq, "merge".to_owned(), keys(&[("user_id", user), ("email", &email)]))
        })
        .collect();
    assert_eq!(log(&consent, 0).await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joined_before_the_rest_of_the_batch_failed_is_told_at_once() {
    let rig = Rig::new().await;
    let at_consent = listeners().await;
    let identity = rig.identity(address(&at_consent)).await;
    let consent = rig.consent(at_consent).await;
    let (user, browser) = (("user_id", "u-1"), ("anonymous_id", "a-2"));
    resolve(&identity, &[&[user, ("email", "ann@example.org")]]).await.unwrap();
    let known = log(&consent, 0).await.unwrap();
    assert_eq!(known.len(), 1);
    let seq = known[0].0;
    // Who joins a profile makes none; who is wholly new does.
    let refuse = "create function identity.refuse() returns trigger language plpgsql as
             $$ begin raise exception 'refused'; end $$;
         create trigger refuse before insert on identity.profile
             for each row execute function identity.refuse()";
    sqlx::raw_sql(refuse).execute(&rig.database.pool).await.unwrap();
    let stranger = [("user_id", "u-3"), ("anonymous_id", "a-9")];
    let events: [&[(&str, &str)]; 2] = [&[user, browser], &stranger];
    assert!(resolve(&identity, &events).await.is_err());
    let joined = (seq + 1, "merge".to_owned(), keys(&[user, browser]));
    assert_eq!(log(&consent, seq).await.unwrap(), [joined], "told, though the batch has no answer");
    assert_eq!(rig.waiting().await, 0);

    sqlx::raw_sql("drop trigger refuse on identity.profile").execute(&rig.database.pool).await.unwrap();
    let answers = resolve(&identity, &events).await.unwrap();
    assert_eq!(answers[0].subject_keys.len(), 3);
    let recorded = (seq + 2, "merge".to_owned(), keys(&stranger));
    assert_eq!(log(&consent, seq + 1).await.unwrap(), [recorded], "only of what is new");
}
