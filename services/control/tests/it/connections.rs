//! Connections: documents are checked, secrets are sealed, masked and kept.

use serde_json::{Value, json};
use tonic::Code;
use tracklayer_control::{Config, MIGRATOR};
use tracklayer_ids::MasterKey;
use tracklayer_proto::control::v1::{ListConnectionsRequest, WatchConfigRequest};

use crate::harness::{Replica, config, master_key, nowhere, put, refusal, start, webhook};

const SECRET: &str = "whsec_c2VjcmV0LW9mLW5vcnRobGluZQ==";
const AUTHORIZATION: &str = "Bearer northline-receiver-token";

#[tokio::test]
async fn secrets_stand_in_no_answer_and_in_no_table() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let mut admin = control.admin();
    let document = webhook(SECRET, AUTHORIZATION);
    let saved = admin.put_connection(put(workspace, "hook", &document)).await.unwrap().into_inner();
    let listed = admin
        .list_connections(ListConnectionsRequest { workspace_id: workspace })
        .await
        .unwrap()
        .into_inner();
    let shown: Value = serde_json::from_str(&listed.connections[0].document_json).unwrap();
    assert_eq!(shown["settings"]["secret"], "***");
    assert_eq!(shown["settings"]["authorization"], "***");
    assert_eq!(shown["settings"]["url"], "https://hooks.example.com/in");

    let mut follower = control.replica.client(&master_key().service_token());
    let mut stream = follower.watch_config(WatchConfigRequest {}).await.unwrap().into_inner();
    let config = tracklayer_testkit::eventually("the connection in the snapshot", async || {
        stream.message().await.unwrap().filter(|s| s.workspaces.iter().any(|w| !w.connections.is_empty()))
    })
    .await;
    let rows: Vec<String> = sqlx::query_scalar("select connection::text from control.connection")
        .fetch_all(&control.database.pool)
        .await
        .unwrap();
    // In the table's dump and in what other services get, the secret is sealed; what people get does not even have that.
    let everything = format!("{saved:?} {listed:?} {config:?} {rows:?}");
    for secret in [SECRET, AUTHORIZATION, "northline-receiver-token"] {
        assert!(!everything.contains(secret), "{secret} leaked");
    }
    assert!(!format!("{saved:?} {listed:?}").contains("enc:v1:"));
    assert_eq!(rows[0].matches("enc:v1:").count(), 2, "{rows:?}");

    let mut sealed: Value = serde_json::from_str(&config.workspaces[0].connections[0].document_json).unwrap();
    let paths = tracklayer_destination::secret_paths(tracklayer_destination::Kind::Webhook);
    tracklayer_secrets::open_document(&master_key().secrets(), &mut sealed, paths).unwrap();
    assert_eq!(sealed, document, "what delivery opens is what was saved");
}

#[tokio::test]
async fn a_change_counts_a_revision_and_the_same_document_does_not() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let mut admin = control.admin();
    let mut revision = async |document: &Value| {
        let saved = admin.put_connection(put(workspace, "hook", document)).await.unwrap().into_inner();
        let connection = saved.connection.unwrap();
        (connection.connection_id, connection.revision, connection.mode)
    };
    let mut document = webhook(SECRET, AUTHORIZATION);
    let (id, first, _) = revision(&document).await;
    assert_eq!(first, 1);
    assert_eq!(revision(&document).await.1, 1, "said the same again");
    document["settings"]["secret"] = json!("***");
    assert_eq!(revision(&document).await.1, 1, "a mask keeps what is saved");
    document["mode"] = json!("shadow");
    assert_eq!(revision(&document).await, (id, 2, "shadow".to_owned()));
    document.as_object_mut().unwrap().remove("mode");
    assert_eq!(revision(&document).await, (id, 3, "off".to_owned()), "a connection without a mode is off");
}

#[tokio::test]
async fn what_is_wrong_with_a_document_is_named_by_its_path() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let changed = |path: &[&str], value: Value| {
        let mut document = webhook(SECRET, AUTHORIZATION);
        let at = path.iter().fold(&mut document, |value, step| &mut value[*step]);
        *at = value;
        document
    };
    let cases = [
        (json!({"kind": "webhook", "mode": "live"}), ""),
        (changed(&["kind"], json!("carrier_pigeon")), "kind"),
        (changed(&["mode"], json!("loud")), "mode"),
        (changed(&["settings", "url"], json!("ftp://example.com")), "settings.url"),
        (changed(&["settings", "secret"], json!("***")), "settings.secret"),
        (changed(&["settings", "secret"], json!(7)), "settings.secret"),
        (changed(&["settings", "secret"], json!("")), "settings.secret"),
        (changed(&["filter"], json!("propertes.channel == \"web\"")), "filter"),
        (changed(&["names"], json!({ "Order Completed": "event" })), "names.Order Completed"),
        (changed(&["fields"], json!({ "value": "1" })), "fields.value"),
        (json!([]), "document_json"),
    ];
    for (document, field) in cases {
        let refused = control.admin().put_connection(put(workspace, "hook", &document)).await.unwrap_err();
        let (code, _, named) = refusal(&refused);
        assert_eq!((code, named.as_str()), (Code::InvalidArgument, field), "{document} {refused:?}");
        assert!(!format!("{refused:?}").contains(AUTHORIZATION), "{refused:?}");
    }
    let refused =
        control.admin().put_connection(put(workspace, "My Hook", &webhook("s", "a"))).await.unwrap_err();
    assert_eq!(refusal(&refused).2, "name");
}

#[tokio::test]
async fn a_connection_keeps_its_kind_and_a_kept_secret_its_address() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let mut admin = control.admin();
    admin.put_connection(put(workspace, "hook", &webhook(SECRET, AUTHORIZATION))).await.unwrap();

    let meta = json!({"kind": "meta_capi", "settings": {"dataset_id": "1", "access_token": "t"}});
    let refused = admin.put_connection(put(workspace, "hook", &meta)).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "INVALID_FIELD".into(), "kind".into()));

    let mut elsewhere = webhook("***", "***");
    elsewhere["settings"]["url"] = json!("https://attacker.example/in");
    let refused = admin.put_connection(put(workspace, "hook", &elsewhere)).await.unwrap_err();
    assert_eq!(refusal(&refused).2, "settings.secret");
    elsewhere["settings"]["secret"] = json!("new");
    elsewhere["settings"]["authorization"] = json!("new");
    assert!(admin.put_connection(put(workspace, "hook", &elsewhere)).await.is_ok());
}

#[tokio::test]
async fn another_master_key_is_a_clear_error_until_the_secrets_are_given_anew() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    control.admin().put_connection(put(workspace, "hook", &webhook(SECRET, AUTHORIZATION))).await.unwrap();

    let config =
        Config { master_key: MasterKey::new([8; 32]), ..config(&control.database, &nowhere().await) };
    let replica = Replica::start(config).await;
    let mut admin = replica.client(&control.key);
    let refused = admin.put_connection(put(workspace, "hook", &webhook("***", "***"))).await.unwrap_err();
    assert_eq!(
        refusal(&refused),
        (Code::FailedPrecondition, "SECRET_NOT_READABLE".into(), "settings.secret".into())
    );
    assert!(refused.message().contains("another master key"), "{}", refused.message());
    assert!(admin.put_connection(put(workspace, "hook", &webhook("new", "new"))).await.is_ok());
}

#[tokio::test]
async fn two_who_change_one_connection_at_once_both_count() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let (mut one, mut two) = (control.admin(), control.admin());
    let (a, b) = (webhook("one", "one"), webhook("two", "two"));
    let (a, b) = tokio::join!(
        one.put_connection(put(workspace, "hook", &a)),
        two.put_connection(put(workspace, "hook", &b))
    );
    let revisions = [a, b].map(|saved| saved.unwrap().into_inner().connection.unwrap().revision);
    assert!(revisions == [1, 2] || revisions == [2, 1], "{revisions:?}");
}

#[tokio::test]
async fn migrations_can_be_applied_again() {
    let control = start().await;
    tracklayer_postgres::migrate(&control.database.pool, "control", &MIGRATOR).await.unwrap();
}
