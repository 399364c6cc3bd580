//! Following control through its absence.

use std::sync::{Arc, atomic::Ordering};

use crate::fake::{Control, Running, TOKEN};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Secret, SourceId, WorkspaceId};
use tracklayer_proto::control::v1::{ConnectionConfig, SourceConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_rpc::{StackLimits, connect_lazy, follow::ConfigWatch};
use tracklayer_testkit::{eventually, listener};

fn config(version: u64, write_key: &str, enabled: bool) -> WatchConfigResponse {
    use sha2::Digest as _;
    let source = SourceConfig {
        source_id: 7,
        write_key_sha256: sha2::Sha256::digest(write_key).to_vec(),
        enabled,
        ..SourceConfig::default()
    };
    let connection = ConnectionConfig { connection_id: 3, ..ConnectionConfig::default() };
    let workspace = WorkspaceConfig {
        workspace_id: 1,
        sources: vec![source],
        connections: vec![connection],
        ..WorkspaceConfig::default()
    };
    WatchConfigResponse { version, workspaces: vec![workspace] }
}

fn limits() -> StackLimits {
    StackLimits { drain: std::time::Duration::from_millis(20), ..StackLimits::default() }
}

#[tokio::test]
async fn the_last_configuration_stays_while_control_is_away() {
    let socket = listener().await;
    let address = socket.local_addr().unwrap();
    drop(socket);
    let shutdown = CancellationToken::new();
    let channel = connect_lazy(&format!("http://{address}"), Secret::new(TOKEN.to_owned())).unwrap();
    let mut following = ConfigWatch::start(channel, shutdown.clone());
    assert!(following.snapshot().is_none());

    // Control comes up, later than its followers.
    let control = Control::new(config(1, "key-1", true));
    let configs = Arc::clone(&control.configs);
    let bind = async || eventually("the port", async || TcpListener::bind(address).await.ok()).await;
    let control = Running::start(control, bind().await, limits()).await;
    let first = following.first().await;
    assert_eq!(first.version, 1);
    assert_eq!(first.source_by_write_key("key-1").unwrap().1.source_id, 7);

    configs.send_replace(config(2, "key-2", true));
    following.changed().await;
    let second = following.snapshot().unwrap();
    assert!(second.source_by_write_key("key-1").is_none());
    assert!(second.source_by_write_key("key-2").is_some());

    control.stop().await;
    assert_eq!(following.snapshot().unwrap().version, 2);

    let control = Control::new(config(3, "key-3", true));
    let control = Running::start(control, bind().await, limits()).await;
    following.changed().await;
    assert_eq!(following.snapshot().unwrap().version, 3);
    shutdown.cancel();
    control.stop().await;
}

#[tokio::test]
async fn a_replica_of_control_that_is_behind_takes_nobody_back_and_a_restored_database_does() {
    let control = Control::new(config(5, "key-5", true));
    let running = Running::start(control.clone(), listener().await, limits()).await;
    let shutdown = CancellationToken::new();
    let mut following = ConfigWatch::start(running.channel(TOKEN), shutdown.clone());
    assert_eq!(following.first().await.version, 5);
    let mut followed = following.clone();
    let seen = tokio::spawn(async move {
        let mut versions = Vec::new();
        while versions.len() < 2 {
            followed.changed().await;
            versions.extend(followed.snapshot().map(|snapshot| snapshot.version));
        }
        versions
    });

    // Older than what is known: refused, and asked again.
    let streams = control.streams.load(Ordering::SeqCst);
    control.configs.send_replace(config(3, "key-3", true));
    eventually("two more streams", async || {
        (control.streams.load(Ordering::SeqCst) >= streams + 2).then_some(())
    })
    .await;
    assert_eq!(following.snapshot().unwrap().version, 5);
    control.configs.send_replace(config(6, "key-6", true));
    eventually("the newer one", async || following.snapshot().filter(|snapshot| snapshot.version == 6)).await;

    // Older for good.
    control.configs.send_replace(config(4, "key-4", true));
    assert_eq!(seen.await.unwrap(), [6, 4]);
    shutdown.cancel();
    running.stop().await;
}

#[tokio::test]
async fn a_disabled_source_is_as_unknown_as_a_wrong_key() {
    let following = ConfigWatch::fixed(config(1, "key", false));
    let snapshot = following.snapshot().unwrap();
    assert!(snapshot.source_by_write_key("key").is_none());
    assert!(snapshot.source_by_write_key("").is_none());
    assert!(snapshot.source(WorkspaceId(1), SourceId(7)).is_some());
    assert!(snapshot.source(WorkspaceId(2), SourceId(7)).is_none());
    assert_eq!(snapshot.connections(WorkspaceId(1)).len(), 1);
    assert!(snapshot.connections(WorkspaceId(2)).is_empty());
}
