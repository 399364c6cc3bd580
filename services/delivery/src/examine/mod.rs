//! What an operator should know of an installation, as far as delivery sees it: each check says what was found and what to do.
//!
//! Modules: `redis` (the dedup store and what its memory costs), `lanes` (leases, who is behind, who holds, silent sources),
//! `senders` (sources that use one message_id for several events). What is looked at and the rule over it are apart: rules are functions on
//! values.

pub mod lanes;
pub mod redis;
pub mod senders;

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::ConnectionManager;
use jiff::{SignedDuration, Timestamp};
use tracklayer_ids::WorkspaceId;
use tracklayer_journal::{Damage, Journal, Kind};
use tracklayer_proto::control::v1::WatchConfigRequest;
use tracklayer_proto::control::v1::control_service_client::ControlServiceClient;
use tracklayer_rpc::follow::{ConfigWatch, Snapshot};
use tracklayer_rpc::{Channel, VERSION};

use crate::dedup::Memory;
use crate::holds::Holds;
use crate::inspection::{Inspection, InspectionError};
use crate::lease::OUR_LEVEL;
use crate::resolve::error_chain;
use crate::retention::connections_of;
use crate::store::StoreError;
use crate::store::examine::{ExamineStore, SourceEvents};
use crate::store::retention::RetentionStore;

/// How far the clocks of PostgreSQL and of a process may be apart.
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(1);
/// From here on ages are wrong by as much as a decision may be old.
const HARMFUL_SKEW: SignedDuration = SignedDuration::from_secs(10);
/// Over how many minutes the present rate is taken.
const RATE_MINUTES: i64 = 60;
/// How long control may take to say which configuration it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Nothing is lost or late yet, or only a little.
    Warning,
    /// Somebody has to act.
    Problem,
}

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which check; one word for each, which does not change.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// Of which workspace; none: of the installation.
    pub workspace: Option<WorkspaceId>,
    /// What was found.
    pub found: String,
    /// What to do; empty: nothing.
    pub advice: String,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, workspace: None, found: found.into(), advice: String::new() }
    }

    /// Something to look at.
    #[must_use]
    pub fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: advice.into(), ..Self::ok(check, found) }
    }

    /// Something to mend.
    #[must_use]
    pub fn problem(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::warning(check, found, advice) }
    }

    /// Of a workspace.
    #[must_use]
    pub fn of(self, workspace: WorkspaceId) -> Self {
        Self { workspace: Some(workspace), ..self }
    }

    fn unseen(check: &'static str, error: &dyn std::error::Error) -> Self {
        Self::problem(
            check,
            format!("could not be seen: {}", error_chain(error)),
            "mend that, and look again",
        )
    }
}

/// Examines.
pub struct Examiner {
    /// Events.
    pub journal: Arc<dyn Journal>,
    /// Tables.
    pub store: ExamineStore,
    /// Who is behind.
    pub inspection: Inspection,
    /// Whom a late day waits for.
    pub days: RetentionStore,
    /// Claims.
    pub redis: ConnectionManager,
    /// Control.
    pub control: Channel,
    /// Identity.
    pub identity: Channel,
    /// Consent.
    pub consent: Channel,
    /// Sources and connections.
    pub config: ConfigWatch,
    /// What holds connections by an operator's will.
    pub holds: Holds,
}

impl Examiner {
    /// Examines the installation, and the lanes and sources of a workspace. What cannot be seen is a finding, too.
    pub async fn examine(&self, workspace: WorkspaceId) -> Vec<Finding> {
        let snapshot = self.config.snapshot();
        let (identity, consent, configuration) = tokio::join!(
            answers("identity", self.identity.clone()),
            answers("consent", self.consent.clone()),
            self.configuration(snapshot.as_deref()),
        );
        let mut findings = vec![identity, consent, configuration];
        findings.push(self.processes().await);
        findings.extend(self.durability().await);
        findings.push(self.clock().await);
        let Some(snapshot) = snapshot else { return findings };
        findings.extend(self.dedup_store(&snapshot).await);
        findings.extend(self.late_day(workspace, &snapshot).await);
        findings.extend(self.blocks(workspace).await);
        findings.extend(self.lanes(workspace, &snapshot).await);
        findings.extend(self.senders(workspace, &snapshot).await);
        findings
    }

    async fn configuration(&self, snapshot: Option<&Snapshot>) -> Finding {
        const CHECK: &str = "configuration";
        let Some(ours) = snapshot.map(|snapshot| snapshot.version) else {
            return Finding::problem(CHECK, "delivery has none yet", "look whether control can be reached");
        };
        let mut control = ControlServiceClient::new(self.control.clone())
            .max_decoding_message_size(8 * tracklayer_rpc::MAX_MESSAGE_BYTES);
        let newest = async {
            let mut stream = control.watch_config(WatchConfigRequest {}).await?.into_inner();
            stream.message().await
        };
        match tokio::time::timeout(PATIENCE, newest).await {
            Ok(Ok(Some(newest))) => configuration(ours, newest.version),
            _ => Finding::warning(
                CHECK,
                format!(
                    "delivery goes on with version {ours}; control does not say whether it is the newest"
                ),
                "look whether control can be reached: changes have no effect until it can",
            ),
        }
    }

    async fn processes(&self) -> Finding {
        match self.store.feature_levels().await {
            Ok(levels) => processes(&levels),
            Err(error) => Finding::unseen("delivery", &error),
        }
    }

    async fn durability(&self) -> Vec<Finding> {
        const CHECK: &str = "durability";
        let weaknesses = match self.journal.weaknesses().await {
            Ok(weaknesses) => weaknesses,
            Err(error) => return vec![Finding::unseen(CHECK, &error)],
        };
        if weaknesses.is_empty() {
            return vec![Finding::ok(CHECK, "an acknowledged event outlives the loss of a machine")];
        }
        let advice = match self.journal.kind() {
            Kind::Postgres => "mend PostgreSQL's settings, or live with what a failover may lose",
            Kind::Kafka => "mend the topics' settings, or live with what a failover may lose",
        };
        weaknesses.into_iter().map(|weakness| Finding::warning(CHECK, weakness, advice)).collect()
    }

    async fn clock(&self) -> Finding {
        let before = Timestamp::now();
        match self.store.clock().await {
            Ok(theirs) => clock(before, theirs, Timestamp::now()),
            Err(error) => Finding::unseen("clock", &error),
        }
    }

    /// Events of each source in the last hour.
    async fn rates(&self) -> Result<Vec<SourceEvents>, StoreError> {
        let minute = Timestamp::now().as_second().div_euclid(60);
        self.store.events_of_sources(minute - RATE_MINUTES, minute).await
    }

    async fn dedup_store(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let facts = match redis::look(self.redis.clone()).await {
            Ok(facts) => facts,
            Err(error) => return vec![Finding::unseen("redis", &error)],
        };
        let mut findings = redis::findings(&facts);
        let rates = match self.rates().await {
            Ok(rates) => rates,
            Err(error) => {
                findings.push(Finding::unseen("dedup-memory", &error));
                return findings;
            }
        };
        let memory = Memory::of_config(snapshot);
        let seconds = (RATE_MINUTES * 60) as f64;
        let per_second = |of: &SourceEvents| of.events as f64 / seconds;
        let remembered =
            |of: &SourceEvents| memory.of(of.workspace, of.source).as_secs_f64() * per_second(of);
        let expected = redis::Expected {
            // The sum of no floats is -0.0.
            events_per_second: rates.iter().map(per_second).sum::<f64>() + 0.0,
            claims: rates.iter().map(remembered).sum::<f64>() + 0.0,
            longest: memory.longest(),
        };
        findings.push(redis::memory(&facts, &expected));
        findings
    }

    /// Whether resolve stands at a block that it cannot read.
    async fn blocks(&self, workspace: WorkspaceId) -> Option<Finding> {
        const CHECK: &str = "blocks";
        match self.inspection.stopped_at(workspace).await {
            // Its readers are resolve's: they say so in its log and its metric.
            Err(InspectionError::OtherJournal) => None,
            Err(error) => Some(Finding::unseen(CHECK, &error)),
            Ok(stopped) => Some(unreadable(CHECK, &stopped, workspace)),
        }
    }

    async fn late_day(&self, workspace: WorkspaceId, snapshot: &Snapshot) -> Option<Finding> {
        const CHECK: &str = "retention";
        let day = match self.journal.late_day().await {
            Ok(Some(day)) => day,
            Ok(None) if self.journal.kind() == Kind::Postgres => {
                return Some(Finding::ok(CHECK, "no day is kept that readers should be done with"));
            }
            Ok(None) => return None,
            Err(error) => return Some(Finding::unseen(CHECK, &error)),
        };
        let holder = match self.days.holder(day.clone(), &connections_of(snapshot)).await {
            Ok(holder) => holder,
            Err(error) => return Some(Finding::unseen(CHECK, &error)),
        };
        Some(match holder {
            // A key of one workspace is told nothing of another's lanes.
            Some(holder) if holder.workspace != workspace => Finding::problem(
                CHECK,
                format!("{day} and all later days are kept for another workspace"),
                "look at the others; delivery's log and `tracklayer_delivery_journal_held` name the lane",
            ),
            Some(holder) => {
                let who = holder
                    .connection
                    .map_or("resolve".to_owned(), |id| format!("the lane of connection {id}"));
                let partition = holder.partition.0;
                Finding::problem(
                    CHECK,
                    format!("{day} and all later days are kept for {who}, partition {partition}"),
                    "mend what it waits for, or give up what it has not read: `tracklayer journal retention --help`",
                )
                .of(workspace)
            }
            None => Finding::warning(
                CHECK,
                format!("{day} is kept, though everybody has read it"),
                "it goes within minutes; if it does not, see delivery's log for why the journal was not trimmed",
            ),
        })
    }
}

async fn answers(who: &'static str, channel: Channel) -> Finding {
    match tracklayer_rpc::probe(channel).await {
        Ok(version) if version == VERSION => Finding::ok(who, format!("answers delivery, version {version}")),
        Ok(version) => Finding::warning(
            who,
            format!("is version `{version}`, delivery is {VERSION}"),
            "end the upgrade: all services are meant to be of one version",
        ),
        Err(status) => Finding::problem(
            who,
            format!("does not answer delivery: {}", status.message()),
            "events are accepted, and not resolved or sent until it does: see its log and its probes",
        ),
    }
}

/// What follows from blocks at which resolve stands and that cannot be read.
fn unreadable(check: &'static str, stopped: &[Damage], workspace: WorkspaceId) -> Finding {
    let Some(first) = stopped.first() else {
        return Finding::ok(check, "resolve stands at no block that it cannot read");
    };
    let found: Vec<String> = stopped.iter().map(|block| format!("{} ({})", block.first, block.why)).collect();
    let advice = if first.is_newer() {
        "a newer version wrote it: end the upgrade".to_owned()
    } else {
        let first = first.first;
        format!("bring its bytes back, or see what is lost without them: `tracklayer journal skip {first}`")
    };
    let found = format!("nothing is resolved behind blocks that cannot be read: {}", found.join(", "));
    Finding::problem(check, found, advice).of(workspace)
}

/// What follows from the version that delivery goes by and the newest.
#[must_use]
pub fn configuration(ours: u64, newest: u64) -> Finding {
    if ours == newest {
        return Finding::ok("configuration", format!("delivery goes by version {ours}, the newest"));
    }
    Finding::warning(
        "configuration",
        format!("delivery goes by version {ours}, control has {newest}"),
        "changes take seconds: look again, then see delivery's log",
    )
}

/// What follows from what the processes of delivery can read.
#[must_use]
pub fn processes(levels: &[u32]) -> Finding {
    const CHECK: &str = "delivery";
    let (Some(least), Some(most)) = (levels.iter().min(), levels.iter().max()) else {
        return Finding::problem(
            CHECK,
            "no process takes part",
            "nobody resolves or sends: see delivery's log",
        );
    };
    let count = levels.len();
    if least == most {
        return Finding::ok(CHECK, format!("version {VERSION}, {count} processes, feature level {least}"));
    }
    Finding::warning(
        CHECK,
        format!("{count} processes, of feature levels {least} to {most}; this one has {OUR_LEVEL}"),
        "end the upgrade: nothing is written that the oldest of them cannot read",
    )
}

/// What follows from the clock of PostgreSQL as it was between two looks at our own.
#[must_use]
pub fn clock(before: Timestamp, theirs: Timestamp, after: Timestamp) -> Finding {
    const CHECK: &str = "clock";
    // How far it is outside of what the time of the question explains.
    let behind = before.duration_since(theirs).max(SignedDuration::ZERO);
    let ahead = theirs.duration_since(after).max(SignedDuration::ZERO);
    let skew = behind.max(ahead);
    let found = format!("PostgreSQL's clock and delivery's are {} ms apart", skew.as_millis());
    let advice = "let NTP keep the clocks of all machines: ages of events and decisions depend on them";
    match skew {
        skew if skew <= MAX_SKEW => Finding::ok(CHECK, found),
        skew if skew < HARMFUL_SKEW => Finding::warning(CHECK, found, advice),
        _ => Finding::problem(CHECK, found, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + ms).unwrap()
    }

    #[test]
    fn a_clock_is_only_wrong_by_what_the_questions_time_does_not_explain() {
        let level = |theirs| clock(at(0), at(theirs), at(3_000)).level;
        let levels = [-1_001, -1_000, 0, 3_000, 4_000, 4_001, 12_999, 13_000, -10_000].map(level);
        use Level::{Ok, Problem, Warning};
        assert_eq!(levels, [Warning, Ok, Ok, Ok, Ok, Warning, Warning, Problem, Problem]);
    }

    #[test]
    fn processes_of_two_levels_are_an_upgrade_that_has_not_ended() {
        assert_eq!(processes(&[]).level, Level::Problem);
        assert_eq!(processes(&[2, 2]).level, Level::Ok);
        let mixed = processes(&[1, 2, 2]);
        assert!(
            mixed.level == Level::Warning && mixed.found.contains("3 processes, of feature levels 1 to 2")
        );
    }

    #[test]
    fn an_older_configuration_than_controls_is_told() {
        assert_eq!(configuration(7, 7).level, Level::Ok);
        assert_eq!(configuration(6, 7).level, Level::Warning);
    }
}
