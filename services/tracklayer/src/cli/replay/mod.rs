//! `tracklayer replay`: what would be sent again, sending it, and how far that is.

mod plan;
mod progress;
mod show;

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;
use tracklayer_proto::delivery::v1 as pb;

pub use self::show::{once, once_document};
use super::names::Names;
use super::{Access, Output};
use plan::Plan;

/// Sending events again.
#[derive(Debug, Subcommand)]
pub enum Replay {
    /// Say what a replay would do; nothing is sent or taken.
    Plan(Which),
    /// Send them: shows the plan, asks, and follows the replay to its end.
    Start {
        #[command(flatten)]
        which: Which,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Only show the plan.
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
        /// Do not wait for the end; `replay show` tells of it.
        #[arg(long)]
        detach: bool,
    },
    /// How far a replay is, what it has found, and what became of what it has sent.
    #[command(visible_alias = "status")]
    Show {
        /// Its number.
        replay: i64,
        /// Wait for its end.
        #[arg(long)]
        follow: bool,
    },
    /// Replays, newest first.
    List {
        /// Of one connection only, by its name or number.
        #[arg(long)]
        connection: Option<String>,
        /// 1 to 100.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// End a replay: nothing more is taken. What was taken before, some hundred events of each lane, goes its way.
    Cancel {
        /// Its number.
        replay: i64,
    },
}

/// Which events of which connection.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("origin").required(true).args(["dead_letters", "journal"]))]
pub struct Which {
    /// The connection, by name or number.
    connection: String,
    /// Its dead letters.
    #[arg(long)]
    dead_letters: bool,
    /// What the journal still has, whatever became of it.
    #[arg(long)]
    journal: bool,
    /// Only dead letters of this code, `rejected_by_platform` for one; repeat it for more.
    #[arg(long = "code", value_name = "CODE", conflicts_with = "journal")]
    codes: Vec<String>,
    /// Only events of this name, exactly as it was sent; repeat it for more.
    #[arg(long = "event", value_name = "NAME")]
    event_names: Vec<String>,
    /// Only this event; repeat it for more, up to 1,000.
    #[arg(long = "message-id", value_name = "ID")]
    message_ids: Vec<String>,
    /// Only what was received at or after, as in 2026-11-28T05:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<jiff::Timestamp>,
    /// Only what was received before.
    #[arg(long, value_name = "TIME")]
    to: Option<jiff::Timestamp>,
    /// Also what is delivered already: inside the window in which the platform recognises a repetition that does no harm.
    #[arg(long, conflicts_with = "dead_letters")]
    force: bool,
    /// Also where the platform has the event, or may have it (outcome_unknown), and does not recognise a repetition any more: it is
    /// counted twice then.
    #[arg(long)]
    force_past_dedup_window: bool,
    /// Also what was accepted before the connection began. The connection answers for those events from then on.
    #[arg(long, conflicts_with = "dead_letters")]
    before_start: bool,
}

impl Which {
    fn selection(&self) -> pb::ReplaySelection {
        let origin = if self.journal { pb::ReplayOrigin::Journal } else { pb::ReplayOrigin::DeadLetters };
        let time = |at: Option<jiff::Timestamp>| {
            at.map(|at| prost_types::Timestamp {
                seconds: at.as_second(),
                nanos: at.subsec_nanosecond().max(0),
            })
        };
        pb::ReplaySelection {
            origin: origin.into(),
            codes: self.codes.clone(),
            event_names: self.event_names.clone(),
            message_ids: self.message_ids.clone(),
            received_from: time(self.from),
            received_to: time(self.to),
            delivered_too: self.force,
            past_dedup_window: self.force_past_dedup_window,
            before_start: self.before_start,
        }
    }
}

/// Runs it. `stop` ends a view, not the replay.
///
/// # Errors
/// What the services answered; a replay that is refused, or some of whose events died again.
pub async fn run(access: &Access, command: Replay, stop: CancellationToken) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    let called = |name: &str| {
        names.connection_called(name).with_context(|| {
            format!(
                "there is no connection `{name}`: `tracklayer connections list` names those that there are"
            )
        })
    };
    let view = View { access, names: &names, workspace_id, stop };
    match command {
        Replay::Plan(which) => {
            let plan = view.plan(called(&which.connection)?, &which).await?;
            view.show_plan(&plan);
            Ok(())
        }
        Replay::Start { which, yes, dry_run, detach } => {
            let connection_id = called(&which.connection)?;
            let plan = view.plan(connection_id, &which).await?;
            if access.output == Output::Table || dry_run {
                view.show_plan(&plan);
            }
            if dry_run {
                return Ok(());
            }
            plan.refuse_if_all_is_past_the_window()?;
            if plan.eligible() == 0 {
                if access.output == Output::Json {
                    view.show_plan(&plan);
                }
                eprintln!("nothing to send again: no replay was started");
                return Ok(());
            }
            let connection = names.connection(connection_id);
            if !yes && !confirmed(plan.eligible(), &connection, &view.stop).await? {
                bail!("no replay was started");
            }
            let selection = Some(which.selection());
            let request = pb::StartReplayRequest { workspace_id, connection_id, selection };
            let started = access.delivery()?.start_replay(request).await?.into_inner().replay;
            let replay = started.context("delivery told nothing of the replay that it started")?;
            if detach {
                view.show_replay(&replay);
                return Ok(());
            }
            view.follow(replay.replay_id).await
        }
        Replay::Show { replay, follow: true } => view.follow(replay).await,
        Replay::Show { replay, follow: false } => {
            view.show_replay(&view.get(replay).await?);
            Ok(())
        }
        Replay::List { connection, limit } => {
            let connection_id = connection.as_deref().map(called).transpose()?.unwrap_or(0);
            let request = pb::ListReplaysRequest { workspace_id, connection_id, limit };
            view.show_replays(&access.delivery()?.list_replays(request).await?.into_inner().replays);
            Ok(())
        }
        Replay::Cancel { replay } => {
            let request = pb::CancelReplayRequest { workspace_id, replay_id: replay };
            let cancelled = access.delivery()?.cancel_replay(request).await?.into_inner().replay;
            let replay = cancelled.context("delivery told nothing of the replay")?;
            view.show_replay(&replay);
            if replay.open > 0 {
                eprintln!("{} events were taken before, and go their way", replay.open);
            }
            Ok(())
        }
    }
}

/// What a command of these works with.
struct View<'a> {
    access: &'a Access,
    names: &'a Names,
    workspace_id: i64,
    stop: CancellationToken,
}

impl View<'_> {
    async fn plan(&self, connection_id: i64, which: &Which) -> anyhow::Result<Plan> {
        Plan::read(self.access, self.workspace_id, connection_id, which.selection(), &self.stop).await
    }

    async fn get(&self, replay_id: i64) -> anyhow::Result<pb::Replay> {
        let request = pb::GetReplayRequest { workspace_id: self.workspace_id, replay_id };
        let replay = self.access.delivery()?.get_replay(request).await?.into_inner().replay;
        replay.context("delivery told nothing of the replay")
    }

    /// Shows how far a replay is until its end.
    async fn follow(&self, replay_id: i64) -> anyhow::Result<()> {
        let Some(replay) = progress::until_end(self, replay_id).await? else {
            eprintln!("replay {replay_id} goes on: `tracklayer replay show {replay_id}` tells of it");
            return Ok(());
        };
        self.show_replay(&replay);
        let died: u64 = replay.ended.iter().filter(|e| e.state == "dead").map(|e| e.count).sum();
        if died > 0 {
            let name = self.names.connection(replay.connection_id);
            bail!(
                "{died} events are dead after all: `tracklayer dead-letters list --connection {name}` says why"
            );
        }
        Ok(())
    }
}

async fn confirmed(events: u64, connection: &str, stop: &CancellationToken) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: add --yes to send {events} events to {connection} again");
    }
    eprint!("send {events} events to {connection} again? [y/N] ");
    std::io::stderr().flush()?;
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: a read of the terminal cannot be called off, and what is started on the runtime would be waited for.
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = tell.send(std::io::stdin().read_line(&mut answer).map(|_| answer));
    });
    let answer = tokio::select! {
        answer = told => answer.context("the answer was not read")??,
        () = stop.cancelled() => bail!("interrupted: no replay was started"),
    };
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
