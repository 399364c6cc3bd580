//! Nobody reads or changes another workspace: every RPC and every page, tried with another workspace's key. The lists of what is
//! tried are compared with the protos and with the console's own: what is added and not tried here fails.

use std::collections::BTreeSet;

use prost::Message as _;
use tonic::{Code, Status};
use tracklayer_control::console::{Audience, audiences};
use tracklayer_proto::control::v1::{
    AddFreezeRequest, CreateAdminKeyRequest, CreateWorkspaceRequest, FreezeWindow, ListConnectionsRequest,
    ListFreezesRequest, ListPausesRequest, ListSourcesRequest, ListWorkspacesRequest, PauseConnectionRequest,
    RemoveFreezeRequest, ResumeConnectionRequest, SetPartitionsRequest, SetReleasePaceRequest,
    SetSourceDedupRequest, SetSourceRateRequest, SetSourceWebhookRequest, WatchConfigRequest,
};

use crate::console::{Browser, location};
use crate::harness::{Client, master_key, put, refusal, source, start, webhook};

/// What another workspace's key must get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// OTHER_WORKSPACE: the request names the workspace.
    BeRefused,
    /// INSTALLATION_KEY_NEEDED: it belongs to no workspace.
    NeedTheInstallation,
    /// An answer about its own workspace alone.
    SeeItsOwnOnly,
    /// UNAUTHENTICATED: no admin key is enough.
    BeAService,
}

type Tried = Vec<(&'static str, Must, Result<String, Status>)>;

/// Every RPC, by name, as one client sees it; the answer as text.
async fn every_rpc(client: &mut Client, workspace: i64) -> Tried {
    use Must::{BeAService, BeRefused, NeedTheInstallation, SeeItsOwnOnly};
    let text = |answer: &dyn std::fmt::Debug| format!("{answer:?}");
    let third = CreateWorkspaceRequest { name: "third".into(), ..CreateWorkspaceRequest::default() };
    let key = |workspace_id| CreateAdminKeyRequest { workspace_id, label: "intruder".into() };
    let freeze = AddFreezeRequest {
        workspace_id: workspace,
        window: Some(FreezeWindow {
            time_zone: "UTC".into(),
            from: "2199-01-01T00:00".into(),
            to: "2199-01-02T00:00".into(),
            ..FreezeWindow::default()
        }),
    };
    // The first connection of the whole installation is the one that these make of their own.
    let connection = 1;
    vec![
        (
            "CreateSource",
            BeRefused,
            client.create_source(source(workspace, "intruder")).await.map(|a| text(&a.into_inner())),
        ),
        (
            "SetPartitions",
            NeedTheInstallation,
            client
                .set_partitions(SetPartitionsRequest { workspace_id: workspace, partitions: 1 })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "SetSourceRate",
            NeedTheInstallation,
            client
                .set_source_rate(SetSourceRateRequest {
                    workspace_id: workspace,
                    source_id: 1,
                    max_events_per_second: Some(1),
                })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "SetSourceWebhook",
            BeRefused,
            client
                .set_source_webhook(SetSourceWebhookRequest {
                    workspace_id: workspace,
                    source_id: 1,
                    ..SetSourceWebhookRequest::default()
                })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "SetSourceDedup",
            BeRefused,
            client
                .set_source_dedup(SetSourceDedupRequest {
                    workspace_id: workspace,
                    source_id: 1,
                    dedup_ttl_seconds: Some(60),
                    dedup_by_order_id: Some(true),
                })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "ListSources",
            BeRefused,
            client
                .list_sources(ListSourcesRequest { workspace_id: workspace })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "PutConnection",
            BeRefused,
            client
                .put_connection(put(workspace, "intruder", &webhook("s", "a")))
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "ListConnections",
            BeRefused,
            client
                .list_connections(ListConnectionsRequest { workspace_id: workspace })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "PauseConnection",
            BeRefused,
            client
                .pause_connection(PauseConnectionRequest {
                    workspace_id: workspace,
                    connection_id: connection,
                    reason: "x".into(),
                })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "ResumeConnection",
            BeRefused,
            client
                .resume_connection(ResumeConnectionRequest {
                    workspace_id: workspace,
                    connection_id: connection,
                })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "ListPauses",
            BeRefused,
            client
                .list_pauses(ListPausesRequest { workspace_id: workspace, connection_id: connection })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "SetReleasePace",
            BeRefused,
            client
                .set_release_pace(SetReleasePaceRequest {
                    workspace_id: workspace,
                    connection_id: connection,
                    release_events_per_second: Some(1),
                })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        ("AddFreeze", BeRefused, client.add_freeze(freeze.clone()).await.map(|a| text(&a.into_inner()))),
        (
            "ListFreezes",
            BeRefused,
            client
                .list_freezes(ListFreezesRequest { workspace_id: workspace, all: true })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "RemoveFreeze",
            BeRefused,
            client
                .remove_freeze(RemoveFreezeRequest { workspace_id: workspace, freeze_id: 1 })
                .await
                .map(|a| text(&a.into_inner())),
        ),
        (
            "CreateAdminKey",
            BeRefused,
            client.create_admin_key(key(workspace)).await.map(|a| text(&a.into_inner())),
        ),
        (
            "CreateAdminKey",
            NeedTheInstallation,
            client.create_admin_key(key(0)).await.map(|a| text(&a.into_inner())),
        ),
        (
            "CreateWorkspace",
            NeedTheInstallation,
            client.create_workspace(third).await.map(|a| text(&a.into_inner())),
        ),
        (
            "ListWorkspaces",
            SeeItsOwnOnly,
            client.list_workspaces(ListWorkspacesRequest {}).await.map(|a| text(&a.into_inner())),
        ),
        (
            "WatchConfig",
            BeAService,
            client.watch_config(WatchConfigRequest {}).await.map(|_| "a stream".to_owned()),
        ),
    ]
}

/// The RPCs of control, as the protos have them.
fn rpcs_of_the_protos() -> BTreeSet<String> {
    let protos = prost_types::FileDescriptorSet::decode(tracklayer_proto::DESCRIPTORS).unwrap();
    let of_control = protos.file.iter().filter(|file| file.package() == "tracklayer.control.v1");
    let services = of_control.flat_map(|file| &file.service);
    services.flat_map(|service| &service.method).map(|method| method.name().to_owned()).collect()
}

#[tokio::test]
async fn another_workspaces_key_is_refused_by_every_rpc() {
    let control = start().await;
    let (ours, _) = control.workspace("ours").await;
    let (theirs, their_key) = control.workspace("theirs").await;
    let mut them = control.replica.client(&their_key);

    // The same calls pass on their own workspace: the refusals below are about whose it is, and nothing else.
    let on_their_own = every_rpc(&mut them, theirs).await;
    let tried: BTreeSet<String> = on_their_own.iter().map(|(rpc, _, _)| (*rpc).to_owned()).collect();
    assert_eq!(tried, rpcs_of_the_protos(), "every RPC must be tried here");
    for (rpc, must, outcome) in on_their_own {
        assert_eq!(
            outcome.is_ok(),
            matches!(must, Must::BeRefused | Must::SeeItsOwnOnly),
            "{rpc}: {outcome:?}"
        );
    }
    // Ours exists, 9999 does not: the answer is the same and tells neither.
    for workspace in [ours, 9_999] {
        for (rpc, must, outcome) in every_rpc(&mut them, workspace).await {
            let refused = |outcome: Result<String, Status>| {
                let (code, reason, _) = refusal(&outcome.expect_err(rpc));
                (code, reason)
            };
            match must {
                Must::BeRefused => {
                    assert_eq!(
                        refused(outcome),
                        (Code::PermissionDenied, "OTHER_WORKSPACE".to_owned()),
                        "{rpc}"
                    );
                }
                Must::NeedTheInstallation => {
                    let expected = (Code::PermissionDenied, "INSTALLATION_KEY_NEEDED".to_owned());
                    assert_eq!(refused(outcome), expected, "{rpc}");
                }
                Must::BeAService => assert_eq!(refused(outcome).0, Code::Unauthenticated, "{rpc}"),
                Must::SeeItsOwnOnly => {
                    let answer = outcome.expect(rpc);
                    assert!(answer.contains("theirs") && !answer.contains("ours"), "{rpc}: {answer}");
                }
            }
        }
    }
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
async fn another_workspaces_key_sees_nothing_on_any_page() {
    let control = start().await;
    let (ours, _) = control.workspace("ours").await;
    let (_, their_key) = control.workspace("theirs").await;
    control.admin().create_source(source(ours, "our-source")).await.unwrap();
    let mut them = Browser::new(&control.replica.http);
    them.sign_in(&their_key, "").await;
    let mut nobody = Browser::new(&control.replica.http);

    let of = |wanted| {
        let pages = audiences().into_iter().filter(move |(_, audience)| *audience == wanted);
        pages.map(|(path, _)| path).collect::<Vec<_>>()
    };
    // Whoever adds a page for everybody says so here, too.
    assert_eq!(of(Audience::Everybody), ["/login", "/logout", "/assets/{version}/{file}"]);
    assert!(!of(Audience::Workspace).is_empty());
    for path in of(Audience::SignedIn) {
        assert!(location(&nobody.get(path).await).starts_with("/login"), "{path}");
        let answer = them.get(path).await;
        let shown = format!("{} {}", location(&answer).to_owned(), answer.text().await.unwrap());
        assert!(!shown.contains("ours") && !shown.contains("our-source"), "{path}: {shown}");
    }
    for path in of(Audience::Workspace) {
        assert!(path.contains("{workspace}"), "{path} does not say whose it is");
        let at = |workspace: &str| path.replace("{workspace}", workspace);
        assert!([303, 401].contains(&nobody.get(&at("ours")).await.status().as_u16()), "{path}");
        // The page is there, and theirs: what is refused below is about whose it is, and nothing else.
        let own = them.get(&at("theirs")).await;
        let status = own.status();
        assert!(status.is_success() && !own.text().await.unwrap().contains("our-source"), "{path}: {status}");
        let (there, nowhere) = (them.get(&at("ours")).await, them.get(&at("no-such-workspace")).await);
        assert_eq!((there.status().as_u16(), nowhere.status().as_u16()), (404, 404), "{path}");
        assert_eq!(there.text().await.unwrap(), nowhere.text().await.unwrap(), "{path}");
        let posted = them.post(&at("ours"), &[]).await.status();
        assert!([404, 405].contains(&posted.as_u16()), "{path}: {posted}");
    }
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
        let is_a_service = key == master_key().service_token();
        for (rpc, must, outcome) in every_rpc(&mut nobody, ours).await {
            match must {
                Must::BeAService => assert_eq!(outcome.is_ok(), is_a_service, "{rpc}"),
                Must::BeRefused | Must::NeedTheInstallation | Must::SeeItsOwnOnly => {
                    assert_eq!(refusal(&outcome.expect_err(rpc)).1, "UNKNOWN_ADMIN_KEY", "{rpc}");
                }
            }
        }
    }
    let mut admin_key_instead_of_token = control.admin();
    let refused = admin_key_instead_of_token.watch_config(WatchConfigRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
