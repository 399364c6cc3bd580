//! Single events over HTTP as fast as they are taken: `wrk`, which anyone can repeat by hand with the script that is left
//! beside the log.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::dev::Running;

/// Connections, each kept open.
pub const CONNECTIONS: usize = 64;

/// Every thread sends the texts of a file in turn, each under an id of its own.
const SCRIPT: &str = r#"
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

local before, after, sent = {}, {}, 0
local headers = {}
function init(args)
  headers["Content-Type"] = "application/json"
  headers["Authorization"] = "Basic " .. args[2]
  local mark = '"messageId":"'
  for line in io.lines(args[1]) do
    local from, to = string.find(line, mark, 1, true)
    before[#before + 1] = string.sub(line, 1, to) .. "w" .. number .. "-"
    after[#after + 1] = "-" .. string.sub(line, to + 1)
  end
end

function request()
  sent = sent + 1
  local at = sent % #before + 1
  return wrk.format("POST", "/v1/track", headers, before[at] .. sent .. after[at])
end
"#;

/// What wrk has counted.
pub struct Figures {
    /// Requests a second that were answered with success.
    pub per_second: f64,
    /// 99 of 100 answers came within, milliseconds; as fast as it goes, this is how long the queue is.
    pub p99_ms: f64,
}

/// Requests a second; none if wrk is not installed.
///
/// # Errors
/// wrk failed, or some answers were no success.
pub async fn single_events(
    running: &Running,
    events: &[String],
    folder: &Path,
    basic: &str,
    length: Duration,
) -> anyhow::Result<Option<Figures>> {
    let (script, texts) = (folder.join("wrk.lua"), folder.join("wrk.events"));
    std::fs::write(&script, SCRIPT)?;
    std::fs::write(&texts, events.join("\n"))?;
    let ran = Command::new("wrk")
        .args(["--threads", "2", "--latency", "--timeout", "10s"])
        .args(["--connections", &CONNECTIONS.to_string(), "--duration", &format!("{}s", length.as_secs())])
        .arg("--script")
        .arg(&script)
        .arg(&running.addresses.ingest_http)
        .arg("--")
        .args([texts.to_string_lossy().as_ref(), basic])
        .output()
        .await;
    let output = match ran {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("could not start wrk"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    if let Some(line) = text.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors")) {
        bail!("ingest did not take everything that wrk sent: {}", line.trim());
    }
    let per_second = value_of(&text, "Requests/sec:").context("wrk told no speed")?.parse()?;
    let p99_ms = milliseconds(value_of(&text, "99%").context("wrk told no latency")?)?;
    Ok(Some(Figures { per_second, p99_ms }))
}

fn value_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim)
}

/// wrk writes 870.00us, 12.34ms, 1.02s.
fn milliseconds(text: &str) -> anyhow::Result<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1_000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("`{text}` is no time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_unit_that_wrk_writes() {
        let read = |text| (milliseconds(text).unwrap() * 1_000.0).round();
        assert_eq!([read("870.00us"), read("12.34ms"), read("1.02s")], [870.0, 12_340.0, 1_020_000.0]);
        assert!(milliseconds("soon").is_err());
    }
}
