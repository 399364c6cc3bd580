//! How far something is: a bar on a terminal, else a line now and then. Both go to standard error.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tracklayer_proto::delivery::v1 as pb;

use super::View;

/// Between two looks at a replay.
const LOOK: Duration = Duration::from_millis(500);
/// Between two lines.
const LINE: Duration = Duration::from_secs(5);

/// How far something is.
pub(super) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere.
    Lines { what: &'static str, of: u64, next: Instant },
}

impl Progress {
    pub(super) fn new(what: &'static str, of: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { what, of, next: Instant::now() + LINE };
        }
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}");
        let bar = ProgressBar::new(of).with_prefix(what);
        Self::Bar(match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// It is that far. The end is an estimate, which what was done may pass.
    pub(super) fn at(&mut self, done: u64, more: &str) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(bar.length().unwrap_or(0).max(done));
                bar.set_position(done);
                bar.set_message(more.to_owned());
            }
            Self::Lines { what, of, next } => {
                if Instant::now() >= *next {
                    *next = Instant::now() + LINE;
                    eprintln!("{what} {done}/{} {more}", (*of).max(done));
                }
            }
        }
    }

    /// It is over.
    pub(super) fn ends(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Shows how far a replay is until it is over; none: the view was ended before.
pub(super) async fn until_end(view: &View<'_>, replay_id: i64) -> anyhow::Result<Option<pb::Replay>> {
    let mut replay = view.get(replay_id).await?;
    let mut progress = Progress::new("replaying", replay.positions);
    let mut waits_for = String::new();
    loop {
        let taken: u64 = replay.counts.iter().filter(|c| c.what == "eligible").map(|c| c.events).sum();
        let delivered: u64 = replay.ended.iter().filter(|e| e.state == "delivered").map(|e| e.count).sum();
        progress.at(replay.walked, &format!("looked at, {taken} taken, {delivered} delivered"));
        if replay.ended_at.is_some() {
            progress.ends();
            return Ok(Some(replay));
        }
        if replay.waits_for != waits_for {
            waits_for.clone_from(&replay.waits_for);
            if !waits_for.is_empty() {
                let told = format!("the replay waits: {waits_for}");
                match &progress {
                    Progress::Bar(bar) => bar.println(told),
                    Progress::Lines { .. } => eprintln!("{told}"),
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = view.stop.cancelled() => {
                progress.ends();
                return Ok(None);
            }
        }
        replay = view.get(replay_id).await?;
    }
}
