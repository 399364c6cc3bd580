//! Pauses and the calendar: what is saved, told to services, refused, and kept for who asks later.

use std::time::Duration;

use tonic::Code;
use tracklayer_proto::control::v1::{
    AddFreezeRequest, Connection, Freeze, FreezeWindow, ListConnectionsRequest, ListFreezesRequest,
    ListPausesRequest, PauseConnectionRequest, RemoveFreezeRequest, ResumeConnectionRequest,
    SetReleasePaceRequest, WatchConfigRequest, WatchConfigResponse, WorkspaceConfig,
};

use crate::harness::{Client, Control, master_key, put, refusal, start, webhook};

struct Setup {
    control: Control,
    /// The workspace's own administrator.
    ann: Client,
    workspace: i64,
    connection: i64,
}

async fn setup() -> Setup {
    let control = start().await;
    let (workspace, key) = control.workspace("northline").await;
    let mut ann = control.replica.client(&key);
    let made = ann.put_connection(put(workspace, "hook", &webhook("s", "a"))).await.unwrap().into_inner();
    Setup { ann, workspace, connection: made.connection.unwrap().connection_id, control }
}

impl Setup {
    async fn pause(&mut self, reason: &str) -> Connection {
        let request = PauseConnectionRequest {
            workspace_id: self.workspace,
            connection_id: self.connection,
            reason: reason.to_owned(),
        };
        self.ann.pause_connection(request).await.unwrap().into_inner().connection.unwrap()
    }

    fn resumption(&self) -> ResumeConnectionRequest {
        ResumeConnectionRequest { workspace_id: self.workspace, connection_id: self.connection }
    }

    async fn add(&mut self, window: FreezeWindow) -> Result<Freeze, tonic::Status> {
        let request = AddFreezeRequest { workspace_id: self.workspace, window: Some(window) };
        self.ann.add_freeze(request).await.map(|answer| answer.into_inner().freeze.unwrap())
    }

    /// The workspace as services see it, once it is as wanted.
    async fn told(&self, wanted: impl Fn(&WorkspaceConfig) -> bool) -> WorkspaceConfig {
        let mut follower = self.control.replica.client(&master_key().service_token());
        let mut stream = follower.watch_config(WatchConfigRequest {}).await.unwrap().into_inner();
        tracklayer_testkit::eventually("the configuration", async || {
            // A stream in which nothing comes is a failure, too.
            let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
            let WatchConfigResponse { workspaces, .. } = message.expect("nothing is told").unwrap().unwrap();
            workspaces.into_iter().find(|workspace| !workspace.connections.is_empty() && wanted(workspace))
        })
        .await
    }
}

fn once(from: &str, to: &str) -> FreezeWindow {
    FreezeWindow {
        time_zone: "Europe/Berlin".to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        reason: "peak season".to_owned(),
        ..FreezeWindow::default()
    }
}

#[tokio::test]
async fn a_pause_is_told_to_services_and_kept_with_who_and_why() {
    let mut setup = setup().await;
    let paused = setup.pause("wrong currency").await;
    let (before, revision) = (paused.pause.clone().unwrap(), paused.revision);
    assert_eq!((before.paused_by.as_str(), before.reason.as_str()), ("northline's key", "wrong currency"));
    let again = setup.pause("another reason").await;
    assert_eq!(again.pause, Some(before.clone()), "the first pause holds");
    let told = setup.told(|workspace| workspace.connections[0].pause.is_some()).await;
    let told = &told.connections[0];
    assert_eq!((told.pause.as_ref(), told.resumed_at), (Some(&before), None));
    assert_eq!(told.revision, revision, "nothing of it is planned anew");

    let request = setup.resumption();
    let resumed = setup.ann.resume_connection(request).await.unwrap().into_inner();
    assert_eq!(resumed.connection.unwrap().pause, None);
    let ended = resumed.ended.unwrap();
    assert_eq!((ended.paused_at, ended.resumed_by.as_str()), (before.paused_at, "northline's key"));
    let told = setup.told(|workspace| workspace.connections[0].resumed_at.is_some()).await;
    assert_eq!((told.connections[0].resumed_at, &told.connections[0].pause), (ended.resumed_at, &None));
    let request = setup.resumption();
    let twice = setup.ann.resume_connection(request).await.unwrap().into_inner();
    assert_eq!(twice.ended, None, "it was not paused");

    setup.pause("once more").await;
    let request = ListPausesRequest { workspace_id: setup.workspace, connection_id: setup.connection };
    let pauses = setup.ann.list_pauses(request).await.unwrap().into_inner().pauses;
    assert_eq!(pauses.iter().map(|p| p.reason.as_str()).collect::<Vec<_>>(), ["once more", "wrong currency"]);
    assert_eq!(pauses[1], ended);

    // A changed document ends no pause.
    let mut document = webhook("s", "a");
    document["mode"] = serde_json::json!("shadow");
    let changed =
        setup.ann.put_connection(put(setup.workspace, "hook", &document)).await.unwrap().into_inner();
    assert_eq!(changed.connection.unwrap().pause.unwrap().reason, "once more");
}

#[tokio::test]
async fn how_fast_a_release_goes_is_said_and_bounded() {
    let mut setup = setup().await;
    let request = |pace| SetReleasePaceRequest {
        workspace_id: setup.workspace,
        connection_id: setup.connection,
        release_events_per_second: pace,
    };
    let requests = [Some(250), Some(0), None].map(request);
    let too_fast = request(Some(1_000_001));
    for request in requests {
        let paced = setup.ann.set_release_pace(request).await.unwrap().into_inner().connection.unwrap();
        assert_eq!(paced.release_events_per_second, request.release_events_per_second);
        let said = request.release_events_per_second;
        setup.told(|workspace| workspace.connections[0].release_events_per_second == said).await;
    }
    let refused = refusal(&setup.ann.set_release_pace(too_fast).await.unwrap_err());
    assert_eq!((refused.0, refused.2.as_str()), (Code::InvalidArgument, "release_events_per_second"));
}

#[tokio::test]
async fn a_window_is_told_as_it_was_said_and_stays_for_who_asks_later() {
    let mut setup = setup().await;
    let added = setup.add(once("2190-07-01T00:00", "2190-07-02T00:00")).await.unwrap();
    let window = added.window.clone().unwrap();
    assert_eq!(window.created_by, "northline's key");
    // Berlin is two hours ahead in July.
    let begins: jiff::Timestamp = "2190-06-30T22:00:00Z".parse().unwrap();
    assert_eq!(added.begins.unwrap().seconds, begins.as_second());
    let over = refusal(&setup.add(once("2001-07-01T00:00", "2001-07-02T00:00")).await.unwrap_err());
    assert_eq!((over.0, over.2.as_str()), (Code::InvalidArgument, "window.to"), "it is over");
    let nights = FreezeWindow {
        connection_id: setup.connection,
        days: vec!["sat".to_owned(), "fri".to_owned()],
        ..once("22:00", "06:00")
    };
    let nights = setup.add(nights).await.unwrap();
    assert_eq!(nights.window.as_ref().unwrap().days, ["fri", "sat"]);
    let told = setup.told(|workspace| workspace.freezes.len() == 2).await;
    assert_eq!(told.freezes, [window.clone(), nights.window.unwrap()]);

    let request = RemoveFreezeRequest { workspace_id: setup.workspace, freeze_id: window.freeze_id };
    let removed = setup.ann.remove_freeze(request).await.unwrap().into_inner().freeze.unwrap();
    assert_eq!(
        (removed.begins, removed.window.as_ref().unwrap().removed_by.as_str()),
        (None, "northline's key")
    );
    let again = setup.ann.remove_freeze(request).await.unwrap().into_inner().freeze.unwrap();
    assert_eq!(again, removed, "who repeats it changes nothing");
    setup.told(|workspace| workspace.freezes.len() == 1).await;
    for (all, listed) in [(false, 1), (true, 2)] {
        let request = ListFreezesRequest { workspace_id: setup.workspace, all };
        assert_eq!(
            setup.ann.list_freezes(request).await.unwrap().into_inner().freezes.len(),
            listed,
            "all: {all}"
        );
    }
}

#[tokio::test]
async fn what_is_no_window_or_has_no_end_is_refused_with_its_field() {
    let mut setup = setup().await;
    let week = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].map(str::to_owned).to_vec();
    let cases = [
        (
            FreezeWindow { time_zone: "Berlin".into(), ..once("2190-07-01T00:00", "2190-07-02T00:00") },
            "window.time_zone",
        ),
        (once("2190-07-01T00:00Z", "2190-07-02T00:00"), "window.from"),
        (once("2190-07-01T00:00", "2190-07-01T00:00"), "window.to"),
        (FreezeWindow { days: vec!["Friday".into()], ..once("22:00", "06:00") }, "window.days"),
        (
            FreezeWindow { connection_id: -1, ..once("2190-07-01T00:00", "2190-07-02T00:00") },
            "window.connection_id",
        ),
        (
            FreezeWindow { reason: "x".repeat(201), ..once("2190-07-01T00:00", "2190-07-02T00:00") },
            "window.reason",
        ),
    ];
    for (window, field) in cases {
        let refused = refusal(&setup.add(window).await.unwrap_err());
        assert_eq!((refused.0, refused.2.as_str()), (Code::InvalidArgument, field));
    }
    let unknown = FreezeWindow { connection_id: 999, ..once("2190-07-01T00:00", "2190-07-02T00:00") };
    assert_eq!(refusal(&setup.add(unknown).await.unwrap_err()).1, "NO_SUCH_CONNECTION");
    let days = FreezeWindow { connection_id: setup.connection, days: week.clone(), ..once("06:00", "22:00") };
    setup.add(days).await.unwrap();
    let nights = FreezeWindow { days: week, ..once("22:00", "06:00") };
    let refused = refusal(&setup.add(nights).await.unwrap_err());
    assert_eq!((refused.0, refused.1.as_str()), (Code::FailedPrecondition, "NEVER_RELEASED"));
    let unknown =
        PauseConnectionRequest { workspace_id: setup.workspace, connection_id: 999, reason: String::new() };
    let refused = refusal(&setup.ann.pause_connection(unknown).await.unwrap_err());
    assert_eq!((refused.0, refused.1.as_str()), (Code::NotFound, "NO_SUCH_CONNECTION"));
}

#[tokio::test]
async fn a_window_that_this_release_cannot_read_is_told_all_the_same() {
    let setup = setup().await;
    sqlx::query(
        "insert into control.freeze_window (workspace_id, time_zone, days, window_from, window_to, reason, created_by)
         values ($1, 'Mars/Olympus', '{}', '2190-07-01T00:00', '2190-07-02T00:00', '', 'a newer release')",
    )
    .bind(setup.workspace)
    .execute(&setup.control.database.pool)
    .await
    .unwrap();
    let told = setup.told(|workspace| !workspace.freezes.is_empty()).await;
    assert_eq!(told.freezes[0].time_zone, "Mars/Olympus", "whoever cannot read it holds");
    let mut admin = setup.control.admin();
    let request = ListConnectionsRequest { workspace_id: setup.workspace };
    assert_eq!(admin.list_connections(request).await.unwrap().into_inner().connections.len(), 1);
}
