//! Workspaces, sources, admin keys.

use tonic::Code;
use tracklayer_control::{Config, ensure_first_admin_key, recover_admin_key};
use tracklayer_journal::Kind;
use tracklayer_proto::control::v1::{
    CreateAdminKeyRequest, CreateSourceRequest, CreateWorkspaceRequest, ListSourcesRequest,
    ListWorkspacesRequest, SetPartitionsRequest, SetSourceDedupRequest, SetSourceRateRequest,
    SetSourceWebhookRequest,
};

use crate::harness::{Replica, config, migrated, nowhere, refusal, source, start};

#[tokio::test]
async fn a_workspace_is_made_with_defaults_and_listed() {
    let control = start().await;
    let request =
        CreateWorkspaceRequest { name: "northline".to_owned(), ..CreateWorkspaceRequest::default() };
    let made =
        control.admin().create_workspace(request.clone()).await.unwrap().into_inner().workspace.unwrap();
    assert_eq!((made.partitions, made.value_fallback.as_str()), (4, ""));
    assert_eq!(made.value_from, ["revenue", "total", "value"]);
    assert!(made.created_at.is_some());

    let listed =
        control.admin().list_workspaces(ListWorkspacesRequest {}).await.unwrap().into_inner().workspaces;
    assert_eq!(listed, [made]);

    let refused = control.admin().create_workspace(request).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::AlreadyExists, "NAME_TAKEN".into(), "name".into()));
}

#[tokio::test]
async fn a_bad_field_of_a_source_is_named() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let good = source(workspace, "web");
    let cases = [
        (CreateSourceRequest { workspace_id: 0, ..good.clone() }, "workspace_id"),
        (CreateSourceRequest { name: "Web Shop".into(), ..good.clone() }, "name"),
        (CreateSourceRequest { channel: "carrier-pigeon".into(), ..good.clone() }, "channel"),
        (CreateSourceRequest { default_place: "California".into(), ..good.clone() }, "default_place"),
        (CreateSourceRequest { user_id_type: "User Id".into(), ..good.clone() }, "user_id_type"),
        (CreateSourceRequest { dedup_ttl_seconds: 59, ..good.clone() }, "dedup_ttl_seconds"),
        (CreateSourceRequest { dedup_ttl_seconds: 7_776_001, ..good.clone() }, "dedup_ttl_seconds"),
        (CreateSourceRequest { write_key: "abc".into(), ..good.clone() }, "write_key"),
    ];
    for (request, field) in cases {
        let refused = control.admin().create_source(request).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::InvalidArgument, "INVALID_FIELD".into(), field.into()));
    }
    let unknown = control.admin().create_source(source(workspace + 1, "web")).await.unwrap_err();
    assert_eq!(refusal(&unknown).0, Code::NotFound);
}

#[tokio::test]
async fn a_source_says_how_its_events_are_deduplicated() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let shop =
        CreateSourceRequest { dedup_ttl_seconds: 60, dedup_by_order_id: true, ..source(workspace, "shop") };
    for request in [source(workspace, "web"), shop] {
        control.admin().create_source(request).await.unwrap();
    }
    let request = ListSourcesRequest { workspace_id: workspace };
    let listed = control.admin().list_sources(request).await.unwrap().into_inner().sources;
    let told: Vec<_> =
        listed.iter().map(|s| (s.name.as_str(), s.dedup_ttl_seconds, s.dedup_by_order_id)).collect();
    assert_eq!(told, [("web", 604_800, false), ("shop", 60, true)]);
}

#[tokio::test]
async fn what_is_said_later_of_a_sources_dedup_changes_that_alone() {
    let control = start().await;
    let (workspace, key) = control.workspace("northline").await;
    let mut ids = Vec::new();
    for request in [source(workspace, "web"), source(workspace, "shop")] {
        ids.push(
            control.admin().create_source(request).await.unwrap().into_inner().source.unwrap().source_id,
        );
    }
    let told = async || {
        let request = ListSourcesRequest { workspace_id: workspace };
        let listed = control.admin().list_sources(request).await.unwrap().into_inner().sources;
        listed.into_iter().map(|s| (s.dedup_ttl_seconds, s.dedup_by_order_id)).collect::<Vec<_>>()
    };
    let set = async |workspace_id, source_id, dedup_ttl_seconds, dedup_by_order_id| {
        let request = SetSourceDedupRequest { workspace_id, source_id, dedup_ttl_seconds, dedup_by_order_id };
        let answer = control.replica.client(&key).set_source_dedup(request).await;
        answer.map(|answer| answer.into_inner().source.unwrap())
    };
    let made = set(workspace, ids[1], None, Some(true)).await.unwrap();
    assert_eq!((made.dedup_ttl_seconds, made.dedup_by_order_id), (604_800, true));
    assert_eq!(told().await, [(604_800, false), (604_800, true)]);
    set(workspace, ids[1], Some(60), None).await.unwrap();
    assert_eq!(told().await, [(604_800, false), (60, true)]);
    set(workspace, ids[1], Some(7_776_000), Some(false)).await.unwrap();
    assert_eq!(told().await, [(604_800, false), (7_776_000, false)]);
    set(workspace, ids[1], None, None).await.unwrap();
    assert_eq!(told().await[1], (7_776_000, false), "nothing was said");
    set(workspace, ids[1], Some(0), None).await.unwrap();
    assert_eq!(told().await[1], (604_800, false), "as when it is made");

    for wrong in [59, 7_776_001] {
        let refused = set(workspace, ids[0], Some(wrong), Some(true)).await.unwrap_err();
        assert_eq!(
            refusal(&refused),
            (Code::InvalidArgument, "INVALID_FIELD".into(), "dedup_ttl_seconds".into())
        );
    }
    assert_eq!(told().await[0], (604_800, false), "of what is refused nothing is done");
    let unknown = set(workspace, ids[1] + 1, Some(60), None).await.unwrap_err();
    assert_eq!(refusal(&unknown).1, "NO_SUCH_SOURCE");
    let (other, _) = control.workspace("other").await;
    assert_eq!(refusal(&set(other, ids[0], Some(60), None).await.unwrap_err()).1, "OTHER_WORKSPACE");
    assert_eq!(told().await[0], (604_800, false));
}

#[tokio::test]
async fn a_workspace_has_the_partitions_that_it_was_given_last() {
    let control = start().await;
    let (workspace, key) = control.workspace("northline").await;
    let set = async |workspace_id, partitions| {
        let request = SetPartitionsRequest { workspace_id, partitions };
        control.admin().set_partitions(request).await
    };
    let by_itself = SetPartitionsRequest { workspace_id: workspace, partitions: 8 };
    let by_itself = control.replica.client(&key).set_partitions(by_itself).await.unwrap_err();
    assert_eq!(refusal(&by_itself).1, "INSTALLATION_KEY_NEEDED");
    assert_eq!(set(workspace, 8).await.unwrap().into_inner().workspace.unwrap().partitions, 8);
    let listed = control.admin().list_workspaces(ListWorkspacesRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.workspaces.iter().map(|w| w.partitions).collect::<Vec<_>>(), [8]);
    for wrong in [0, 65] {
        assert_eq!(refusal(&set(workspace, wrong).await.unwrap_err()).2, "partitions");
    }
    assert_eq!(refusal(&set(workspace + 1, 8).await.unwrap_err()).1, "NO_SUCH_WORKSPACE");
}

#[tokio::test]
async fn over_kafka_nobody_is_told_of_partitions_that_there_will_not_be() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let over_kafka = Config { journal: Kind::Kafka, ..config(&control.database, &nowhere().await) };
    let replica = Replica::start(over_kafka).await;
    let request = SetPartitionsRequest { workspace_id: workspace, partitions: 8 };
    let refused = replica.client(&control.key).set_partitions(request).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "PARTITIONS_STAY");
    let listed = control.admin().list_workspaces(ListWorkspacesRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.workspaces[0].partitions, 4);
}

#[tokio::test]
async fn a_source_has_the_rate_that_it_was_given_last() {
    let control = start().await;
    let (workspace, key) = control.workspace("northline").await;
    let limited = CreateSourceRequest { max_events_per_second: Some(500), ..source(workspace, "shop") };
    let by_itself = control.replica.client(&key).create_source(limited.clone()).await.unwrap_err();
    assert_eq!(refusal(&by_itself).1, "INSTALLATION_KEY_NEEDED", "the limit protects from the workspace");
    let mut ids = Vec::new();
    for request in [source(workspace, "web"), limited.clone()] {
        ids.push(
            control.admin().create_source(request).await.unwrap().into_inner().source.unwrap().source_id,
        );
    }
    let rates = async || {
        let request = ListSourcesRequest { workspace_id: workspace };
        let listed = control.admin().list_sources(request).await.unwrap().into_inner().sources;
        listed.into_iter().map(|s| s.max_events_per_second).collect::<Vec<_>>()
    };
    assert_eq!(rates().await, [None, Some(500)]);
    let set = async |workspace_id, source_id, max_events_per_second| {
        let request = SetSourceRateRequest { workspace_id, source_id, max_events_per_second };
        control.admin().set_source_rate(request).await
    };
    set(workspace, ids[0], Some(0)).await.unwrap();
    set(workspace, ids[1], None).await.unwrap();
    assert_eq!(rates().await, [Some(0), None]);

    let (other, _) = control.workspace("other").await;
    assert_eq!(refusal(&set(other, ids[0], None).await.unwrap_err()).1, "NO_SUCH_SOURCE");
    let too_much = set(workspace, ids[0], Some(10_000_001)).await.unwrap_err();
    assert_eq!(refusal(&too_much).2, "max_events_per_second");
    let too_much = CreateSourceRequest { max_events_per_second: Some(u32::MAX), ..source(workspace, "app") };
    assert_eq!(
        refusal(&control.admin().create_source(too_much).await.unwrap_err()).2,
        "max_events_per_second"
    );
}

#[tokio::test]
async fn a_sources_webhook_secret_is_kept_sealed_shown_to_nobody_and_replaced_beside_the_old_one() {
    let control = start().await;
    let (workspace, key) = control.workspace("northline").await;
    let document = |secret: &str| {
        format!(r#"{{"kind":"shopify","webhook_secret":"{secret}","shop_domain":"northline.myshopify.com"}}"#)
    };
    let request =
        CreateSourceRequest { webhook_json: document("first-secret"), ..source(workspace, "shopify") };
    let browser = CreateSourceRequest { channel: "browser".into(), ..request.clone() };
    assert_eq!(refusal(&control.admin().create_source(browser).await.unwrap_err()).2, "channel");
    let short = CreateSourceRequest { webhook_json: document("short"), ..request.clone() };
    assert_eq!(refusal(&control.admin().create_source(short).await.unwrap_err()).2, "webhook_secret");

    let mut admin = control.replica.client(&key);
    let made = admin.create_source(request).await.unwrap().into_inner().source.unwrap();
    assert!(made.webhook_json.contains(r#""webhook_secret":"***""#), "{}", made.webhook_json);
    let set = SetSourceWebhookRequest {
        workspace_id: workspace,
        source_id: made.source_id,
        webhook_json: document("second-secret"),
        keep_previous_secret: true,
    };
    admin.set_source_webhook(set.clone()).await.unwrap();
    let listed = admin.list_sources(ListSourcesRequest { workspace_id: workspace }).await.unwrap();
    let listed = listed.into_inner().sources[0].webhook_json.clone();
    assert!(listed.contains(r#""previous_webhook_secret":"***""#), "{listed}");
    let row: String = sqlx::query_scalar("select webhook::text from control.source")
        .fetch_one(&control.database.pool)
        .await
        .unwrap();
    assert!(row.contains("enc:v1:") && !row.contains("-secret\""), "{row}");

    let none = SetSourceWebhookRequest { webhook_json: String::new(), ..set.clone() };
    let source = admin.set_source_webhook(none).await.unwrap().into_inner().source.unwrap();
    assert_eq!(source.webhook_json, "");
    let unknown = SetSourceWebhookRequest { source_id: made.source_id + 1, ..set };
    assert_eq!(refusal(&admin.set_source_webhook(unknown).await.unwrap_err()).1, "NO_SUCH_SOURCE");
}

#[tokio::test]
async fn a_write_key_is_shown_once_and_kept_only_as_a_hash() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let made = control.admin().create_source(source(workspace, "web")).await.unwrap().into_inner();
    let hint = made.source.clone().unwrap().write_key_hint;
    assert!(made.write_key.starts_with("wk_") && made.write_key.len() > 60);
    assert!(made.write_key.starts_with(&hint) && hint.len() <= made.write_key.len() / 2);

    let listed = control.admin().list_sources(ListSourcesRequest { workspace_id: workspace }).await.unwrap();
    assert!(!format!("{listed:?}").contains(&made.write_key));
    let rows: Vec<String> = sqlx::query_scalar("select source::text from control.source")
        .fetch_all(&control.database.pool)
        .await
        .unwrap();
    assert!(rows.len() == 1 && !rows[0].contains(&made.write_key), "{rows:?}");
}

#[tokio::test]
async fn a_write_key_can_be_brought_along_but_only_once() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let (other, _) = control.workspace("other").await;
    let moved = CreateSourceRequest { write_key: "segment-write-key".into(), ..source(workspace, "web") };
    assert_eq!(
        control.admin().create_source(moved.clone()).await.unwrap().into_inner().write_key,
        "segment-write-key"
    );

    let again = control.admin().create_source(moved.clone()).await.unwrap_err();
    assert_eq!(refusal(&again), (Code::AlreadyExists, "NAME_TAKEN".into(), "name".into()));
    for request in [
        CreateSourceRequest { name: "web-2".into(), ..moved.clone() },
        CreateSourceRequest { workspace_id: other, ..moved },
    ] {
        let refused = control.admin().create_source(request).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::AlreadyExists, "WRITE_KEY_TAKEN".into(), "write_key".into()));
    }
}

#[tokio::test]
async fn the_first_admin_key_is_made_once_even_by_replicas_that_start_together() {
    let database = migrated().await;
    let (one, two) =
        tokio::join!(ensure_first_admin_key(&database.pool), ensure_first_admin_key(&database.pool));
    let made: Vec<String> = [one.unwrap(), two.unwrap()].into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    assert_eq!(ensure_first_admin_key(&database.pool).await.unwrap(), None);

    let kept: Vec<String> = sqlx::query_scalar("select admin_key::text from control.admin_key")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert!(kept.len() == 1 && !kept[0].contains(&made[0]), "{kept:?}");
}

#[tokio::test]
async fn a_lost_admin_key_is_replaced_by_who_holds_the_database() {
    let control = start().await;
    let key = recover_admin_key(&control.database.pool, "after the fire").await.unwrap();
    let seen = control.replica.client(key.expose()).list_workspaces(ListWorkspacesRequest {}).await;
    assert!(seen.is_ok());
}

#[tokio::test]
async fn a_label_that_is_no_label_is_refused() {
    let control = start().await;
    let request = CreateAdminKeyRequest { workspace_id: 0, label: "\n".into() };
    let refused = control.admin().create_admin_key(request).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "INVALID_FIELD".into(), "label".into()));
}

#[tokio::test]
async fn a_broken_database_is_not_called_an_unknown_key() {
    let control = start().await;
    let mut admin = control.admin();
    admin.list_workspaces(ListWorkspacesRequest {}).await.unwrap();
    sqlx::query("alter table control.admin_key rename to gone")
        .execute(&control.database.pool)
        .await
        .unwrap();
    let refused = admin.list_workspaces(ListWorkspacesRequest {}).await.unwrap_err();
    assert_eq!(refusal(&refused).0, Code::Internal, "a broken schema is a defect, not a wrong key");
    assert!(!refused.message().contains("admin_key"), "{}", refused.message());
}

#[tokio::test]
async fn bad_settings_stop_the_start_with_all_of_them_named() {
    let database = migrated().await;
    let mut config = config(&database, &nowhere().await);
    config.database_connections = 0;
    config.delivery_address = "delivery".to_owned();
    let error = Replica::start(config).await.stop().await.unwrap_err().to_string();
    assert!(error.contains("database_connections is 0") && error.contains("`delivery`"), "{error}");
}

#[tokio::test]
async fn it_is_ready_with_a_configuration_and_stops_cleanly_with_a_follower_on_the_line() {
    let control = start().await;
    let ready = format!("{}/readyz", control.replica.ops);
    tracklayer_testkit::eventually("readiness", async || {
        reqwest::get(&ready).await.ok().filter(|answer| answer.status() == 200)
    })
    .await;
    let mut follower = control.replica.client(&crate::harness::master_key().service_token());
    let mut stream = follower
        .watch_config(tracklayer_proto::control::v1::WatchConfigRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let metrics =
        reqwest::get(format!("{}/metrics", control.replica.ops)).await.unwrap().text().await.unwrap();
    for expected in ["# HELP tracklayer_control_config_followers Open", "tracklayer_control_config_version "]
    {
        assert!(metrics.contains(expected), "no `{expected}` in {metrics}");
    }
    control.replica.stop().await.unwrap();
    assert!(matches!(stream.message().await, Ok(None)), "it was cut instead of ending");
}
