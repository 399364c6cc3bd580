//! The rows of a warehouse in a folder of the machine: what is wrong there lasts until somebody mends it, so that a row says what the
//! lane makes of it and that everything is written once afterwards, and not how often it was tried.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tracklayer_tests::small_disk::SmallDisk;
use tracklayer_tests::{eventually, eventually_within};

use crate::bench::{Bench, Count, states_of};
use crate::bucket::message_ids;
use crate::table::ledger;
use crate::warehouse::{FEW, NAMES, REST, event};

/// Beside the folders that readers look at: where files are until they are whole.
const INCOMPLETE: &str = "_incomplete";
/// Bytes of the disk that is filled.
const DISK: u64 = 8 * 1024 * 1024;

/// What is wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Delivery may not write there.
    NoRights,
    /// A file stands where a folder has to be.
    InTheWay,
    /// The disk is full.
    Full,
}

struct Row {
    title: &'static str,
    fault: Fault,
    /// What the connection's health says while it lasts.
    says: [&'static str; 2],
    /// What the lane does.
    does: &'static str,
}

static ROWS: [Row; 3] = [
    Row {
        title: "a folder without rights, until they are given",
        fault: Fault::NoRights,
        says: ["PermissionDenied", "delivery may not write into the folder"],
        does: "the lane holds, says what to do, and finds out by itself",
    },
    Row {
        title: "a file where the folder has to be, until it is gone",
        fault: Fault::InTheWay,
        says: ["NotADirectory", "the folder is not there"],
        does: "the lane holds, says what to do, and finds out by itself",
    },
    Row {
        title: "a full disk, until there is room",
        fault: Fault::Full,
        says: ["StorageFull: the folder's disk is full", "the circuit is open"],
        does: "after three failures the circuit opens: one file is tried, then the other",
    },
];

/// A connection of the workspace that writes into a folder.
struct Folder<'b> {
    bench: &'b Bench,
    path: PathBuf,
    /// None: nothing can be mounted here.
    disk: Option<SmallDisk>,
    id: i64,
}

impl<'b> Folder<'b> {
    /// `others` are the connections that the workspace has by now. One partition.
    async fn create(bench: &'b Bench, others: usize) -> Self {
        let path = bench.platform.data_dir().join("warehouse/faults");
        let mounted = SmallDisk::mount(&path, DISK);
        let disk = mounted.inspect_err(|error| skipped(&format!("a full disk: {error:#}"))).ok();
        let settings = json!({ "url": format!("file://{}", path.display()), "seconds_per_file": 2 });
        let document = json!({ "kind": "warehouse", "mode": "live", "settings": settings });
        let id = bench.put_document("disk", &document).await.unwrap();
        bench.at_full_pace(id).await.unwrap();
        bench.is_known(1, others + 1).await.unwrap();
        Self { bench, path, disk, id }
    }

    async fn count(&self) -> anyhow::Result<Count> {
        let stats = self.bench.stats_of(self.id).await?;
        Ok(Count {
            requests: stats.as_ref().map_or(0, |stats| stats.requests),
            counted: rows_below(&self.path) as u64,
            states: states_of(stats.as_ref()),
        })
    }

    async fn health(&self) -> anyhow::Result<String> {
        Ok(self.bench.stats_of(self.id).await?.map(|stats| stats.health).unwrap_or_default())
    }

    fn allow(&self, mode: u32) {
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Answers whether there is such a fault here.
    fn put_up(&self, fault: Fault) -> bool {
        let incomplete = self.path.join(INCOMPLETE);
        match fault {
            Fault::NoRights => {
                self.allow(0o555);
                let probe = self.path.join("probe");
                // Who may do everything is not kept out.
                let is_kept_out = std::fs::write(&probe, "").is_err();
                if !is_kept_out {
                    std::fs::remove_file(&probe).unwrap();
                    self.allow(0o755);
                    skipped("a folder without rights: this user may write everywhere");
                }
                is_kept_out
            }
            Fault::InTheWay => {
                if incomplete.is_dir() {
                    std::fs::remove_dir_all(&incomplete).unwrap();
                }
                std::fs::write(&incomplete, "").unwrap();
                true
            }
            Fault::Full => {
                let Some(disk) = &self.disk else { return false };
                disk.fill().unwrap();
                true
            }
        }
    }

    fn mend(&self, fault: Fault) {
        match fault {
            Fault::NoRights => self.allow(0o755),
            Fault::InTheWay => std::fs::remove_file(self.path.join(INCOMPLETE)).unwrap(),
            Fault::Full => self.disk.iter().for_each(|disk| disk.free().unwrap()),
        }
    }

    /// The row's line; none: there is no such fault here.
    async fn meet(&self, place: usize, row: &Row) -> Option<String> {
        let before = self.count().await.unwrap();
        if !self.put_up(row.fault) {
            return None;
        }
        let events: Vec<Value> =
            (0..FEW).map(|number| event(&format!("folder-{place}-{number:03}"), number)).collect();
        self.bench.publish(&events).await.unwrap();
        eventually("the connection to say what is wrong", async || {
            let health = self.health().await?;
            let is_told = row.says.iter().all(|says| health.contains(says));
            if is_told { Ok(()) } else { Err(anyhow::anyhow!("{}: {health}", row.title)) }
        })
        .await;
        let during = self.count().await.unwrap().since(&before);
        assert_eq!((during.counted, during.states.len()), (0, 0), "{}: {during:?}", row.title);
        self.mend(row.fault);
        let count = eventually_within(REST, "every event to be written", async || {
            let count = self.count().await?.since(&before);
            let delivered = count.states.get(&("delivered".to_owned(), String::new())).copied();
            if delivered == Some(FEW) && count.states.len() == 1 {
                Ok(count)
            } else {
                Err(anyhow::anyhow!("{}: {count:?} {}", row.title, self.health().await?))
            }
        })
        .await;
        assert_eq!(count.counted, FEW, "{}: each event is in one file", row.title);
        let files = NAMES.len() as u64;
        assert!(count.requests > files, "{}: {} tries of {files} files", row.title, count.requests);
        Some(format!(
            "| warehouse, folder | {} | {} | {} | {} | {} |",
            row.title,
            row.does,
            count.requests,
            ledger(&count),
            count.counted,
        ))
    }
}

/// The lines of the rows whose fault there can be here. `others` are the connections that the workspace has by now.
pub async fn lines(bench: &Bench, others: usize, only: &str) -> Vec<String> {
    let rows: Vec<(usize, &Row)> =
        ROWS.iter().enumerate().filter(|(_, row)| row.title.contains(only)).collect();
    let mut lines = Vec::new();
    if rows.is_empty() {
        return lines;
    }
    let folder = Folder::create(bench, others).await;
    for (place, row) in rows {
        lines.extend(folder.meet(place, row).await);
    }
    lines
}

/// Rows of all files that a reader finds.
fn rows_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let whole = entries.filter(|path| !path.ends_with(INCOMPLETE));
    whole
        .map(|path| match path.extension() {
            Some(end) if end == "parquet" => message_ids(std::fs::read(&path).unwrap().into()).len(),
            _ if path.is_dir() => rows_below(&path),
            _ => 0,
        })
        .sum()
}

/// Straight to the stream: the test runner captures what passes through `eprintln!`.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
}
