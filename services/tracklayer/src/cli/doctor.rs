//! `tracklayer doctor`: what an operator should mend, in one table.
//!
//! Delivery examines what it sees; what only a caller from outside sees is added here: whether control, ingest and delivery answer,
//! which configuration ingest goes by, and what its budget is.

use anyhow::bail;
use serde_json::{Value, json};
use tracklayer_proto::delivery::v1 as pb;
use tracklayer_proto::delivery::v1::{ExamineRequest, FindingLevel, GetJournalRetentionRequest};
use tracklayer_proto::ingest::v1::{GetStatusRequest, GetStatusResponse};
use tracklayer_rpc::{Channel, VERSION};

use super::output::{print_rows, size, told};
use super::{Access, Output};

/// From this share of its budget on the journal is nearly full.
const NEARLY_FULL: f64 = 0.8;

/// Runs it.
///
/// # Errors
/// There is a problem, or control answers and does not say which workspace is meant.
pub async fn run(access: &Access) -> anyhow::Result<()> {
    let mut findings = vec![answers("control", access.control_channel()).await];
    let workspace = match access.workspace().await {
        Ok(workspace) => workspace,
        Err(error) if is_unavailable(&error) && findings[0].level() == FindingLevel::Ok => {
            findings.push(answers("ingest", access.ingest_channel()).await);
            findings.push(answers("delivery", access.delivery_channel()).await);
            findings.push(finding(
                "postgresql",
                FindingLevel::Problem,
                "control answers, but cannot read its tables",
                "see whether PostgreSQL runs, and control's log for the reason; nothing else can be looked at until then",
            ));
            return show(access.output, &findings);
        }
        Err(error) if findings[0].level() == FindingLevel::Ok => return Err(error),
        Err(error) => {
            let found = format!("not asked for whom the key is: {}", told(&error));
            findings.push(finding(
                "workspace",
                FindingLevel::Problem,
                found,
                "nothing else can be looked at",
            ));
            return show(access.output, &findings);
        }
    };
    let workspace_id = workspace.workspace_id;
    findings.push(answers("ingest", access.ingest_channel()).await);
    let status = async {
        anyhow::Ok(access.ingest()?.get_status(GetStatusRequest { workspace_id }).await?.into_inner())
    };
    let status = status.await.ok();
    let delivery = answers("delivery", access.delivery_channel()).await;
    let delivery_answers = delivery.level() != FindingLevel::Problem;
    findings.push(delivery);
    if delivery_answers {
        match access.delivery()?.examine(ExamineRequest { workspace_id }).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                findings.extend(
                    status.as_ref().map(|status| configuration(status, answer.configuration_version)),
                );
                findings.extend(answer.findings);
            }
            Err(status) => findings.push(finding(
                "delivery",
                FindingLevel::Problem,
                format!("could not examine: {} ({:?})", status.message(), status.code()),
                "see its log",
            )),
        }
        // Over Kafka there is no budget.
        let kept =
            access.delivery()?.get_journal_retention(GetJournalRetentionRequest { workspace_id }).await;
        if let (Some(status), Ok(kept)) = (status, kept) {
            findings.push(budget(&status, kept.into_inner().stored_bytes));
        }
    }
    show(access.output, &findings)
}

fn finding(check: &str, level: FindingLevel, found: impl Into<String>, advice: &str) -> pb::Finding {
    pb::Finding {
        check: check.to_owned(),
        level: level.into(),
        workspace_id: 0,
        found: found.into(),
        advice: advice.to_owned(),
    }
}

async fn answers(who: &str, channel: anyhow::Result<Channel>) -> pb::Finding {
    let asked = async { anyhow::Ok(tracklayer_rpc::probe(channel?).await?) };
    match asked.await {
        Ok(version) if version == VERSION => {
            finding(who, FindingLevel::Ok, format!("answers, version {version}"), "")
        }
        Ok(version) => finding(
            who,
            FindingLevel::Warning,
            format!("answers, version `{version}`; this command is {VERSION}"),
            "use the command of the installation's version, or end its upgrade",
        ),
        Err(error) => finding(
            who,
            FindingLevel::Problem,
            told(&error),
            "look whether it runs and can be reached from here",
        ),
    }
}

/// Whether the service answered that something which it needs is away.
fn is_unavailable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<tonic::Status>().is_some_and(|status| status.code() == tonic::Code::Unavailable)
}

fn configuration(status: &GetStatusResponse, of_delivery: u64) -> pb::Finding {
    let (ingest, check) = (status.configuration_version, "configuration");
    if ingest == of_delivery {
        return finding(
            check,
            FindingLevel::Ok,
            format!("ingest goes by version {ingest}, as delivery does"),
            "",
        );
    }
    finding(
        check,
        FindingLevel::Warning,
        format!("ingest goes by version {ingest}, delivery by {of_delivery}"),
        "changes take seconds: look again, then see the log of the one behind",
    )
}

fn budget(status: &GetStatusResponse, stored_bytes: u64) -> pb::Finding {
    let (most, limit, check) = (status.journal_budget_bytes, status.journal_limit_bytes, "budget");
    let unread = status.journal_unread_bytes;
    let stored = match limit {
        0 => format!("`received` takes {}", size(stored_bytes)),
        limit => format!("`received` takes {} of {}", size(stored_bytes), size(limit)),
    };
    let used = match unread {
        Some(unread) if most > 0 => format!("{} of {} are unread, {stored}", size(unread), size(most)),
        Some(unread) => format!("{} are unread, {stored}", size(unread)),
        None => format!("{stored}, the budget is {}", size(most)),
    };
    if status.journal_full {
        return finding(
            check,
            FindingLevel::Problem,
            format!("ingest refuses events: {used}"),
            "see `retention` and `backlog`; turn off (`mode`) whose backlog it is, or raise journal_budget or journal_limit, whichever is reached",
        );
    }
    if most == 0 {
        let found = format!("ingest has none, {stored}");
        return finding(check, FindingLevel::Warning, found, "set journal_budget, below what the disk has");
    }
    let is_near = |bytes: u64, most: u64| most > 0 && bytes as f64 >= most as f64 * NEARLY_FULL;
    if is_near(unread.unwrap_or(stored_bytes), most) || is_near(stored_bytes, limit) {
        let advice =
            "ingest refuses events once one of these is full: see `retention` and `backlog`, or raise it";
        return finding(check, FindingLevel::Warning, used, advice);
    }
    finding(check, FindingLevel::Ok, used, "")
}

const fn word(level: FindingLevel) -> &'static str {
    match level {
        FindingLevel::Ok => "ok",
        FindingLevel::Warning => "warning",
        FindingLevel::Unspecified | FindingLevel::Problem => "problem",
    }
}

fn show(output: Output, findings: &[pb::Finding]) -> anyhow::Result<()> {
    let document: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let workspace = (finding.workspace_id != 0).then_some(finding.workspace_id);
            json!({
                "check": finding.check, "level": word(finding.level()), "workspace_id": workspace,
                "found": finding.found, "advice": finding.advice,
            })
        })
        .collect();
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let advice =
                if finding.advice.is_empty() { String::new() } else { format!(" -> {}", finding.advice) };
            let level = word(finding.level()).to_owned();
            vec![level, finding.check.clone(), format!("{}{advice}", finding.found)]
        })
        .collect();
    print_rows(output, &Value::Array(document), &["level", "check", "what was found -> what to do"], &rows);
    match findings.iter().filter(|finding| word(finding.level()) == "problem").count() {
        0 => Ok(()),
        1 => bail!("there is a problem"),
        problems => bail!("there are {problems} problems"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn status(journal_budget_bytes: u64, journal_full: bool) -> GetStatusResponse {
        GetStatusResponse {
            journal_budget_bytes,
            journal_full,
            configuration_version: 7,
            ..GetStatusResponse::default()
        }
    }

    #[test]
    fn a_budget_is_told_before_it_is_used_up() {
        let level = |status, stored| budget(&status, stored).level();
        // An ingest of an earlier release does not say what is unread.
        assert_eq!(level(status(10 * GIB, false), 7 * GIB), FindingLevel::Ok);
        assert_eq!(level(status(10 * GIB, false), 8 * GIB), FindingLevel::Warning);
        assert_eq!(level(status(0, false), GIB), FindingLevel::Warning);
        let unread = |gib: u64, journal_limit_bytes: u64| GetStatusResponse {
            journal_unread_bytes: Some(gib * GIB),
            journal_limit_bytes,
            ..status(10 * GIB, false)
        };
        assert_eq!(level(unread(7, 0), 100 * GIB), FindingLevel::Ok);
        assert_eq!(level(unread(8, 0), 100 * GIB), FindingLevel::Warning);
        assert_eq!(level(unread(0, 200 * GIB), 159 * GIB), FindingLevel::Ok);
        assert_eq!(level(unread(0, 200 * GIB), 160 * GIB), FindingLevel::Warning);
        let full = budget(&GetStatusResponse { journal_full: true, ..unread(11, 0) }, 12 * GIB);
        let told = "ingest refuses events: 11.0 GiB of 10.0 GiB are unread, `received` takes 12.0 GiB";
        assert_eq!((full.found.as_str(), full.level()), (told, FindingLevel::Problem));
    }

    #[test]
    fn two_configurations_are_told() {
        assert_eq!(configuration(&status(0, false), 7).level(), FindingLevel::Ok);
        assert_eq!(configuration(&status(0, false), 8).level(), FindingLevel::Warning);
    }
}
