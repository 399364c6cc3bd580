//! How far something is: a bar on a terminal, else a line now and then. Both go to standard error.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use tracklayer_proto::delivery::v1 as pb;

use super::View;

/// Between two looks at a replay: each counts its events.
const LOOK: Duration = Duration::from_secs(2);
/// Between two lines.
const LINE: Duration = Duration::from_secs(5);
/// Cells of a bar.
const CELLS: u64 = 30;
/// Begins the terminal's line anew.
const ANEW: &str = "\r\x1b[2K";

/// How far something is.
pub(super) enum Progress {
    /// On a terminal: always the same line.
    Bar { what: &'static str, of: u64 },
    /// Elsewhere.
    Lines { what: &'static str, of: u64, next: Instant },
}

impl Progress {
    pub(super) fn new(what: &'static str, of: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { what, of, next: Instant::now() + LINE };
        }
        Self::Bar { what, of }
    }

    /// It is that far. The end is an estimate, which what was done may pass.
    pub(super) fn at(&mut self, done: u64, more: &str) {
        match self {
            Self::Bar { what, of } => {
                *of = (*of).max(done);
                // Without wrapping: a narrow terminal shows the beginning.
                eprint!("{ANEW}\x1b[?7l{}\x1b[?7h", bar(what, done, *of, more));
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
        if let Self::Bar { .. } = self {
            eprint!("{ANEW}");
        }
    }
}

fn bar(what: &str, done: u64, of: u64, more: &str) -> String {
    let filled = (u128::from(done) * u128::from(CELLS) / u128::from(of.max(1))).min(u128::from(CELLS));
    let filled = usize::try_from(filled).unwrap_or(0);
    let empty = CELLS as usize - filled;
    format!("{what} [{}{}] {done}/{of} {more}", "#".repeat(filled), ".".repeat(empty))
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
                    Progress::Bar { .. } => eprintln!("{ANEW}{told}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_is_done_of_all() {
        let cells = |done, of| bar("planning", done, of, "").matches('#').count();
        assert_eq!((cells(0, 100), cells(50, 100), cells(100, 100)), (0, 15, 30));
        assert_eq!(cells(0, 0), 0, "of nothing nothing is done");
        assert_eq!(cells(u64::MAX, u64::MAX), 30);
        assert_eq!(
            bar("planning", 1, 3, "taken"),
            format!("planning [{}{}] 1/3 taken", "#".repeat(10), ".".repeat(20))
        );
    }

    #[test]
    fn an_end_that_was_estimated_too_early_moves() {
        let mut progress = Progress::Bar { what: "planning", of: 10 };
        progress.at(12, "");
        assert!(matches!(progress, Progress::Bar { of: 12, .. }));
    }
}
