//! `tracklayer connections verify`: does a connection work at its platform?

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tracklayer_proto::control::v1::{Connection, ListConnectionsRequest};
use tracklayer_proto::delivery::v1::{
    CheckResult, ConnectionCheck, VerifyConnectionRequest, VerifyConnectionResponse,
};

use super::Access;
use super::output::print_rows;

/// How long delivery may take to hear of a connection that was just saved.
const HEARS_WITHIN: Duration = Duration::from_secs(10);
/// Between two questions whether it has.
const PAUSE: Duration = Duration::from_millis(200);

/// Tries a connection at its platform: credentials, currencies, event age, hashing, at Meta also the pixel. Test events are sent that count as no conversion.
/// Ends with 1 unless every check that can be made has passed.
#[derive(Debug, Args)]
pub struct Verify {
    /// The connection, by name or number. It may be off, in shadow mode, paused or frozen.
    pub connection: String,
    /// The platform's code for test events (Meta, TikTok: Events Manager shows it), unless it stands in the settings.
    #[arg(long)]
    pub test_code: Option<String>,
    /// What the test events are called, where the connection maps no Order Completed.
    #[arg(long)]
    pub event: Option<String>,
}

/// Runs it.
///
/// # Errors
/// A check has not passed, or what a service answered.
pub async fn run(access: &Access, command: &Verify) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let listed = access.control()?.list_connections(ListConnectionsRequest { workspace_id }).await?;
    let is_meant = |connection: &Connection| {
        connection.name == command.connection || connection.connection_id.to_string() == command.connection
    };
    let connection = listed.into_inner().connections.into_iter().find(is_meant);
    let connection =
        connection.with_context(|| format!("there is no connection `{}`", command.connection))?;
    let request = VerifyConnectionRequest {
        workspace_id,
        connection_id: connection.connection_id,
        test_code: command.test_code.clone().unwrap_or_default(),
        event_name: command.event.clone().unwrap_or_default(),
        revision: connection.revision,
    };
    let verified = verified(access, request).await?;
    show(access, &connection, &verified);
    let open = verified.checks.iter().filter(|check| !is_good(check)).count();
    if open > 0 {
        bail!("{open} of {} checks have not passed", verified.checks.len());
    }
    Ok(())
}

/// Asks delivery, which may not have heard yet of what control has saved.
async fn verified(
    access: &Access,
    request: VerifyConnectionRequest,
) -> anyhow::Result<VerifyConnectionResponse> {
    let mut delivery = access.delivery()?;
    let until = Instant::now() + HEARS_WITHIN;
    loop {
        match delivery.verify_connection(request.clone()).await {
            Ok(verified) => return Ok(verified.into_inner()),
            Err(status) if has_not_heard(&status) && Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(status.into()),
        }
    }
}

/// Nothing was sent yet where it is so: to ask again is harmless.
fn has_not_heard(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::NotFound | tonic::Code::FailedPrecondition)
        && ["NO_SUCH_CONNECTION", "OLDER_REVISION"].into_iter().any(|reason| reason_of(status) == reason)
}

fn reason_of(status: &tonic::Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn is_good(check: &ConnectionCheck) -> bool {
    matches!(check.result(), CheckResult::Passed | CheckResult::Untold)
}

const fn word(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Passed => "passed",
        CheckResult::Failed => "failed",
        CheckResult::Untold => "untold",
        CheckResult::NotMade => "not made",
        CheckResult::Unspecified => "unknown",
    }
}

fn show(access: &Access, connection: &Connection, verified: &VerifyConnectionResponse) {
    let as_json = |check: &ConnectionCheck| {
        json!({
            "check": check.check, "aspect": check.aspect, "result": word(check.result()).replace(' ', "_"),
            "looked_at": check.looked_at, "said": check.said, "advice": check.advice,
        })
    };
    let document: Value = json!({
        "connection_id": connection.connection_id, "name": connection.name, "kind": connection.kind,
        "revision": verified.revision, "passed": verified.checks.iter().all(is_good),
        "checks": verified.checks.iter().map(as_json).collect::<Vec<_>>(),
    });
    let row = |check: &ConnectionCheck| {
        let result = word(check.result()).to_owned();
        vec![check.check.clone(), result, check.looked_at.clone(), check.said.clone(), check.advice.clone()]
    };
    let rows: Vec<Vec<String>> = verified.checks.iter().map(row).collect();
    let head = ["check", "result", "what was looked at", "what was said", "what to do"];
    print_rows(access.output, &document, &head, &rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passed_or_nobody_can_tell_is_good() {
        let check =
            |result: CheckResult| ConnectionCheck { result: result.into(), ..ConnectionCheck::default() };
        for (result, expected) in [
            (CheckResult::Passed, true),
            (CheckResult::Untold, true),
            (CheckResult::Failed, false),
            (CheckResult::NotMade, false),
            (CheckResult::Unspecified, false),
        ] {
            assert_eq!(is_good(&check(result)), expected, "{result:?}");
        }
    }
}
