//! What each seed came to, kept in a file of the commit, so that many seeds may be run in several goes and summed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One seed's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SeedResult {
    pub seed: u64,
    pub commit: String,
    pub passed: bool,
    /// What does not hold.
    pub faults: Vec<String>,
    pub seconds: f64,
    /// From the last fault to rest.
    pub settled_after: f64,
    pub acknowledged: u64,
    pub received: u64,
    pub delivered: u64,
    pub duplicates: u64,
    pub lost: u64,
    pub doubled: u64,
    pub out_of_order: u64,
    /// Events of people who had opted out that a platform got.
    #[serde(default)]
    pub leaked: u64,
    /// Events of people who opted out that were kept back, over all connections.
    #[serde(default)]
    pub blocked: u64,
    /// Events that were sent without an answer when their person opted out, over all connections: dead, for somebody to look.
    #[serde(default)]
    pub unknown: u64,
    /// Events that were too old for their platform after a stop, over all connections.
    #[serde(default)]
    pub expired: u64,
    /// Repeats that came after the life of their claim.
    #[serde(default)]
    pub anew: u64,
    /// Requests that clients sent again.
    pub repeated_requests: u64,
    /// Copies that clients sent on another way on purpose.
    pub twins: u64,
    /// Copies that clients sent again after days.
    #[serde(default)]
    pub late_repeats: u64,
    pub injected: BTreeMap<String, u64>,
    pub skipped: BTreeMap<String, u64>,
    /// Copies that each platform dropped: events that were sent to it more than once.
    pub copies: BTreeMap<String, u64>,
    /// Processes that ended by themselves and were started again.
    pub ended_by_themselves: u64,
}

/// The results of one commit.
pub struct Results {
    file: PathBuf,
    pub commit: String,
}

impl Results {
    /// Of the commit that is checked out; a tree with changes in it has a file of its own.
    pub fn of_this_commit() -> anyhow::Result<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let git = |arguments: &[&str]| {
            let output = Command::new("git").args(arguments).current_dir(&root).output();
            output.ok().filter(|output| output.status.success()).map(|output| output.stdout)
        };
        let head = git(&["rev-parse", "--short=12", "HEAD"]);
        let head = head.map(|head| String::from_utf8_lossy(&head).trim().to_owned());
        let changed =
            git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| !text.is_empty());
        let commit = match head {
            Some(head) if changed => format!("{head}-changed"),
            Some(head) => head,
            None => "no-commit".to_owned(),
        };
        // Processes of another release, or another journal, are another thing that was tested.
        let beside = std::env::var_os("TORTURE_PREVIOUS").map_or("", |_| "-beside-previous");
        let over = std::env::var("TORTURE_JOURNAL").ok().filter(|journal| !journal.is_empty());
        let over = over.map_or_else(String::new, |journal| format!("-over-{journal}"));
        let commit = format!("{commit}{beside}{over}");
        let folder = tracklayer_tests::target_dir()?.join("torture");
        std::fs::create_dir_all(&folder).context("could not make the folder of results")?;
        Ok(Self { file: folder.join(format!("{commit}.jsonl")), commit })
    }

    /// Where what a failed seed leaves is kept.
    pub fn failed(&self, seed: u64) -> PathBuf {
        self.file.with_file_name(format!("failed-{}-{seed}", self.commit))
    }

    /// Adds one.
    pub fn append(&self, result: &SeedResult) -> anyhow::Result<()> {
        let mut file = std::fs::File::options().create(true).append(true).open(&self.file)?;
        writeln!(file, "{}", serde_json::to_string(result)?).context("could not keep the result")
    }

    /// The newest of each seed.
    fn all(&self) -> anyhow::Result<BTreeMap<u64, SeedResult>> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let results = text.lines().map(serde_json::from_str::<SeedResult>);
        Ok(results.map(|result| result.map(|result| (result.seed, result))).collect::<Result<_, _>>()?)
    }

    /// The sum over all seeds of the commit so far.
    pub fn sum(&self) -> anyhow::Result<String> {
        let all = self.all()?;
        let sum = |of: fn(&SeedResult) -> u64| all.values().map(of).sum::<u64>();
        let failed: Vec<u64> =
            all.values().filter(|result| !result.passed).map(|result| result.seed).collect();
        let mut text = format!(
            "commit {}: {} seeds, {} passed, failed: {failed:?}\n",
            self.commit,
            all.len(),
            all.len() - failed.len()
        );
        text += &format!(
            "lost {}, doubled {}, out of order {}, leaked {}\n",
            sum(|r| r.lost),
            sum(|r| r.doubled),
            sum(|r| r.out_of_order),
            sum(|r| r.leaked)
        );
        text += &format!(
            "acknowledged {}, received {} ({} duplicates); delivered {}, blocked {}, unknown {}, expired {} over all connections\n",
            sum(|r| r.acknowledged),
            sum(|r| r.received),
            sum(|r| r.duplicates),
            sum(|r| r.delivered),
            sum(|r| r.blocked),
            sum(|r| r.unknown),
            sum(|r| r.expired)
        );
        text += &format!(
            "requests that clients repeated {}, twins {}, repeats after days {} ({} after their claim's life), processes that ended by themselves {}\n",
            sum(|r| r.repeated_requests),
            sum(|r| r.twins),
            sum(|r| r.late_repeats),
            sum(|r| r.anew),
            sum(|r| r.ended_by_themselves)
        );
        let by = |of: fn(&SeedResult) -> &BTreeMap<String, u64>| {
            let mut counts: BTreeMap<&String, u64> = BTreeMap::new();
            for (name, count) in all.values().flat_map(of) {
                *counts.entry(name).or_default() += count;
            }
            let lines: Vec<String> =
                counts.iter().map(|(name, count)| format!("  {count:5} {name}")).collect();
            if lines.is_empty() { "  none".to_owned() } else { lines.join("\n") }
        };
        text += &format!("copies that platforms dropped:\n{}\n", by(|r| &r.copies));
        text += &format!("faults injected:\n{}\n", by(|r| &r.injected));
        text += &format!("faults SKIPPED (not injected, and not counted above):\n{}\n", by(|r| &r.skipped));
        let slowest = all.values().map(|result| result.seconds).fold(0.0, f64::max);
        let settled = all.values().map(|result| result.settled_after).fold(0.0, f64::max);
        text += &format!("slowest seed {slowest:.1} s, longest from the last fault to rest {settled:.1} s");
        Ok(text)
    }
}
