//! Nobody reads or changes another workspace: every RPC, tried with another workspace's key.

use tonic::{Code, Status};
use tracklayer_proto::control::v1::{
    CreateAdminKeyRequest, CreateWorkspaceRequest, ListConnectionsRequest, ListSourcesRequest,
    ListWorkspacesRequest, WatchConfigRequest,
};

use crate::harness::{Client, master_key, put, refusal, source, start, webhook};

/// Every RPC about a workspace, by name, as one client sees it.
async fn everything_about(client: &mut Client, workspace: i64) -> Vec<(&'static str, Result<(), Status>)> {
    vec![
        ("CreateSource", client.create_source(source(workspace, "intruder")).await.map(drop)),
        ("ListSources", client.list_sources(ListSourcesRequest { workspace_id: workspace }).await.map(drop)),
        (
            "PutConnection",
            client.put_connection(put(workspace, "intruder", &webhook("s", "a"))).await.map(drop),
        ),
        (
            "ListConnections",
            client.list_connections(ListConnectionsRequest { workspace_id: workspace }).await.map(drop),
        ),
        (
            "CreateAdminKey",
            client
                .create_admin_key(CreateAdminKeyRequest { workspace_id: workspace, label: "intruder".into() })
                .await
                .map(drop),
        ),
    ]
}

#[tokio::test]
async fn another_workspaces_key_is_refused_by_every_rpc() {
    let control = start().await;
    let (ours, _) = control.workspace("ours").await;
    let (theirs, their_key) = control.workspace("theirs").await;
    let mut them = control.replica.client(&their_key);

    // The same calls pass on their own workspace: the refusals below are about whose it is, and nothing else.
    for (rpc, outcome) in everything_about(&mut them, theirs).await {
        assert!(outcome.is_ok(), "{rpc}: {outcome:?}");
    }
    // Ours exists, 9999 does not: the answer is the same and tells neither.
    for workspace in [ours, 9_999] {
        for (rpc, outcome) in everything_about(&mut them, workspace).await {
            let (code, reason, _) = refusal(&outcome.expect_err(rpc));
            assert_eq!((code, reason.as_str()), (Code::PermissionDenied, "OTHER_WORKSPACE"), "{rpc}");
        }
    }
    let made = CreateWorkspaceRequest { name: "third".into(), ..CreateWorkspaceRequest::default() };
    let refused = them.create_workspace(made).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "INSTALLATION_KEY_NEEDED");
    let installation = CreateAdminKeyRequest { workspace_id: 0, label: "intruder".into() };
    let refused = them.create_admin_key(installation).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "INSTALLATION_KEY_NEEDED");
    let refused = them.watch_config(WatchConfigRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let seen = them.list_workspaces(ListWorkspacesRequest {}).await.unwrap().into_inner().workspaces;
    assert_eq!(seen.iter().map(|w| w.workspace_id).collect::<Vec<_>>(), [theirs]);
    // Nothing of it has happened to ours.
    let mut admin = control.admin();
    let sources =
        admin.list_sources(ListSourcesRequest { workspace_id: ours }).await.unwrap().into_inner().sources;
    let connections = admin
        .list_connections(ListConnectionsRequest { workspace_id: ours })
        .await
        .unwrap()
        .into_inner()
        .connections;
    assert!(sources.is_empty() && connections.is_empty());
}

#[tokio::test]
async fn a_wrong_key_a_write_key_and_the_service_token_open_nothing() {
    let control = start().await;
    let (ours, _) = control.workspace("ours").await;
    let write_key = control.admin().create_source(source(ours, "web")).await.unwrap().into_inner().write_key;
    let almost = format!("{}0", &control.key[..control.key.len() - 1]);
    for key in ["wrong", almost.as_str(), write_key.as_str(), master_key().service_token().as_str()] {
        if key == control.key {
            continue;
        }
        let mut nobody = control.replica.client(key);
        for (rpc, outcome) in everything_about(&mut nobody, ours).await {
            assert_eq!(refusal(&outcome.expect_err(rpc)).1, "UNKNOWN_ADMIN_KEY", "{rpc}");
        }
        let made = CreateWorkspaceRequest { name: "third".into(), ..CreateWorkspaceRequest::default() };
        assert_eq!(refusal(&nobody.create_workspace(made).await.unwrap_err()).1, "UNKNOWN_ADMIN_KEY");
        let listed = nobody.list_workspaces(ListWorkspacesRequest {}).await;
        assert_eq!(refusal(&listed.unwrap_err()).1, "UNKNOWN_ADMIN_KEY");
    }
    let mut admin_key_instead_of_token = control.admin();
    let refused = admin_key_instead_of_token.watch_config(WatchConfigRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
