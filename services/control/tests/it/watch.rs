//! The configuration as the other services follow it.

use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Secret, SourceId, WorkspaceId};
use tracklayer_proto::control::v1::{CreateSourceRequest, WatchConfigRequest};
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_testkit::eventually;

use crate::harness::{Control, Replica, config, master_key, nowhere, put, source, start, webhook};

fn watch(replica: &Replica, shutdown: &CancellationToken) -> ConfigWatch {
    let token = Secret::new(master_key().service_token());
    ConfigWatch::start(tracklayer_rpc::connect_lazy(&replica.grpc, token).unwrap(), shutdown.clone())
}

async fn second_replica(control: &Control) -> Replica {
    Replica::start(config(&control.database, &nowhere().await)).await
}

#[tokio::test]
async fn a_snapshot_comes_at_once_and_again_after_each_change() {
    let control = start().await;
    let mut follower = control.replica.client(&master_key().service_token());
    let mut stream = follower.watch_config(WatchConfigRequest {}).await.unwrap().into_inner();
    let empty = stream.message().await.unwrap().unwrap();
    assert!(empty.workspaces.is_empty());

    let (workspace, _) = control.workspace("northline").await;
    let moved = CreateSourceRequest {
        write_key: "segment-write-key".into(),
        dedup_by_order_id: true,
        max_events_per_second: Some(0),
        ..source(workspace, "web")
    };
    let source = control.admin().create_source(moved).await.unwrap().into_inner().source.unwrap();
    control.admin().put_connection(put(workspace, "hook", &webhook("s", "a"))).await.unwrap();
    let mut version = empty.version;
    let full = eventually("everything in a snapshot", async || {
        let snapshot = stream.message().await.unwrap().unwrap();
        assert!(snapshot.version > version, "versions rise");
        version = snapshot.version;
        Some(snapshot).filter(|s| s.workspaces.iter().any(|w| !w.connections.is_empty()))
    })
    .await;
    let northline = &full.workspaces[0];
    assert_eq!((northline.workspace_id, northline.partitions), (workspace, 4));
    assert_eq!(northline.value_from, ["revenue", "total", "value"]);
    assert_eq!(northline.admin_key_sha256.len(), 2, "the workspace's key and the installation's");
    let sent = &northline.sources[0];
    assert_eq!((sent.source_id, sent.dedup_ttl_seconds, sent.enabled), (source.source_id, 604_800, true));
    assert!(sent.dedup_by_order_id && !sent.banner_writes_defaults);
    assert_eq!(sent.max_events_per_second, Some(0));
    assert_eq!(northline.connections[0].kind, "webhook");
}

#[tokio::test]
async fn a_service_that_follows_one_replica_sees_what_another_changes() {
    let control = start().await;
    let second = second_replica(&control).await;
    let shutdown = CancellationToken::new();
    let followed = watch(&second, &shutdown);
    let (workspace, _) = control.workspace("northline").await;
    let moved = CreateSourceRequest { write_key: "segment-write-key".into(), ..source(workspace, "web") };
    let made = control.admin().create_source(moved).await.unwrap().into_inner().source.unwrap();
    eventually("the write key at the other replica", async || {
        let snapshot = followed.snapshot()?;
        let (owner, source) = snapshot.source_by_write_key("segment-write-key")?;
        (owner.workspace_id == workspace && source.source_id == made.source_id).then_some(())
    })
    .await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_change_by_hand_is_told_as_well() {
    let control = start().await;
    let (workspace, _) = control.workspace("northline").await;
    let made =
        control.admin().create_source(source(workspace, "web")).await.unwrap().into_inner().source.unwrap();
    let shutdown = CancellationToken::new();
    let followed = watch(&control.replica, &shutdown);
    let enabled = async || {
        let snapshot = followed.snapshot()?;
        Some(snapshot.source(WorkspaceId(workspace), SourceId(made.source_id))?.enabled)
    };
    eventually("the source", async || enabled().await.filter(|enabled| *enabled)).await;
    sqlx::query("update control.source set enabled = false where workspace_id = $1")
        .bind(workspace)
        .execute(&control.database.pool)
        .await
        .unwrap();
    eventually("the source disabled", async || enabled().await.filter(|enabled| !*enabled)).await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_lost_notification_is_made_good_by_looking() {
    let control = start().await;
    let shutdown = CancellationToken::new();
    let followed = watch(&control.replica, &shutdown);
    eventually("the first snapshot", async || followed.snapshot()).await;
    // A database in which nobody is notified any more, as behind a pooler that knows no LISTEN.
    sqlx::query(
        "create or replace function control.config_changed() returns trigger language plpgsql as $$
         begin update control.config_version set version = version + 1; return null; end $$",
    )
    .execute(&control.database.pool)
    .await
    .unwrap();
    let (workspace, _) = control.workspace("quiet").await;
    eventually("the workspace without a notification", async || {
        followed.snapshot()?.workspaces.contains_key(&WorkspaceId(workspace)).then_some(())
    })
    .await;
    shutdown.cancel();
}
