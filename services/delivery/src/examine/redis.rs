//! The dedup store: whether it keeps its claims, and what they cost in memory.

use std::time::Duration;

use redis::RedisError;
use redis::aio::ConnectionManager;
use tracklayer_journal::claim::is_claim_key;

use super::Finding;

/// Keys that are drawn at random to be measured.
const SAMPLE: usize = 200;
/// What a claim takes beside what MEMORY USAGE says: its entry in the table of keys that expire, and its places in both tables.
/// Measured with Redis 7.0.15 over 200,000 claims: 181 bytes of `used_memory` each, of which MEMORY USAGE says 120; 2026-11.
const OF_TABLES: f64 = 61.0;
/// From this share of its memory on Redis is nearly full.
const NEARLY_FULL: f64 = 0.8;

/// How claims come to take less: what was claimed before keeps its time.
const REMEMBER_LESS: &str = "remember sources for less long (`tracklayer sources set-dedup NAME --dedup-ttl-seconds N`; memory is freed as \
     what was claimed before runs out)";

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// `maxmemory-policy`.
    pub policy: String,
    /// Keys that were evicted since it started.
    pub evicted_keys: u64,
    /// Whether it appends to a file what it was told.
    pub append_only: bool,
    /// Whether a snapshot is written after some changes; none: it does not say.
    pub snapshots: Option<bool>,
    /// Whether the last write of either failed.
    pub persistence_failed: bool,
    /// What it takes, bytes.
    pub used_bytes: u64,
    /// What it may take, bytes: `maxmemory`, else the machine's; 0: unknown.
    pub most_bytes: u64,
    /// Whether that is `maxmemory`.
    pub is_limited: bool,
    /// Keys.
    pub keys: u64,
    /// What a claim takes, bytes; none: there is none yet.
    pub claim_bytes: Option<f64>,
}

/// What the sources' memory comes to at the present rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// Events a second, of all sources.
    pub events_per_second: f64,
    /// Claims that are remembered at the same time, once that rate has lasted for as long as each source is remembered.
    pub claims: f64,
    /// The longest that a source is remembered.
    pub longest: Duration,
}

/// Asks Redis.
///
/// # Errors
/// It is away or refuses. What a managed one hides (CONFIG) is left open.
pub async fn look(mut redis: ConnectionManager) -> Result<Facts, RedisError> {
    let info: String = redis::cmd("INFO").query_async(&mut redis).await?;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await?;
    let save: Result<(String, String), RedisError> =
        redis::cmd("CONFIG").arg("GET").arg("save").query_async(&mut redis).await;
    let claim_bytes = measure(&mut redis).await?;
    let text = |name: &str| field(&info, name);
    let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
    let limit = number("maxmemory");
    Ok(Facts {
        policy: text("maxmemory_policy").to_owned(),
        evicted_keys: number("evicted_keys"),
        append_only: text("aof_enabled") == "1",
        snapshots: save.ok().map(|(_, save)| !save.trim().is_empty()),
        persistence_failed: ["rdb_last_bgsave_status", "aof_last_write_status"]
            .iter()
            .any(|name| text(name) == "err"),
        used_bytes: number("used_memory"),
        most_bytes: if limit > 0 { limit } else { number("total_system_memory") },
        is_limited: limit > 0,
        keys,
        claim_bytes,
    })
}

/// The mean of what claims take that are drawn at random.
async fn measure(redis: &mut ConnectionManager) -> Result<Option<f64>, RedisError> {
    let mut draw = redis::pipe();
    (0..SAMPLE).for_each(|_| {
        draw.cmd("RANDOMKEY");
    });
    let mut drawn: Vec<Vec<u8>> =
        draw.query_async::<Vec<Option<Vec<u8>>>>(redis).await?.into_iter().flatten().collect();
    drawn.retain(|key| is_claim_key(key));
    let mut ask = redis::pipe();
    for key in &drawn {
        ask.cmd("MEMORY").arg("USAGE").arg(key.as_slice());
    }
    if drawn.is_empty() {
        return Ok(None);
    }
    // One that has expired meanwhile takes nothing, and says nothing.
    let taken: Vec<u64> = ask.query_async::<Vec<Option<u64>>>(redis).await?.into_iter().flatten().collect();
    let mean = taken.iter().sum::<u64>() as f64 / taken.len().max(1) as f64;
    Ok((!taken.is_empty()).then_some(mean + OF_TABLES))
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).unwrap_or_default().trim()
}

/// What follows.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    vec![eviction(facts), persistence(facts), room(facts)]
}

fn eviction(facts: &Facts) -> Finding {
    const CHECK: &str = "redis-eviction";
    if facts.policy != "noeviction" {
        return Finding::problem(
            CHECK,
            format!("maxmemory-policy is `{}`, {} keys were evicted", facts.policy, facts.evicted_keys),
            "set maxmemory-policy noeviction: an evicted claim makes resolve wait while all claims are rebuilt",
        );
    }
    if facts.evicted_keys > 0 {
        return Finding::warning(
            CHECK,
            format!("maxmemory-policy is noeviction, yet {} keys were evicted before", facts.evicted_keys),
            "claims were rebuilt then; nothing to do if the policy was mended since",
        );
    }
    Finding::ok(CHECK, "maxmemory-policy is noeviction, no key was evicted")
}

fn persistence(facts: &Facts) -> Finding {
    const CHECK: &str = "redis-persistence";
    let advice = "resolve waits after a restart of Redis while the claims are rebuilt from PostgreSQL: set appendonly yes";
    if facts.persistence_failed {
        return Finding::problem(CHECK, "the last write to its disk failed", "see Redis' log, and its disk");
    }
    match (facts.append_only, facts.snapshots) {
        (true, _) => Finding::ok(CHECK, "appends to a file"),
        (false, Some(true)) => {
            Finding::warning(CHECK, "snapshots only: a restart loses the newest claims", advice)
        }
        (false, Some(false)) => Finding::warning(CHECK, "none: a restart loses all claims", advice),
        (false, None) => Finding::warning(CHECK, "does not append to a file, and does not say more", advice),
    }
}

fn room(facts: &Facts) -> Finding {
    const CHECK: &str = "redis-memory";
    let (used, most) = (size(facts.used_bytes as f64), size(facts.most_bytes as f64));
    let of = if facts.is_limited { "maxmemory" } else { "its machine's memory, no maxmemory is set" };
    let found = format!("takes {used} of {most} ({of})");
    let share = facts.used_bytes as f64 / facts.most_bytes.max(1) as f64;
    let advice = format!("give it more memory, or {REMEMBER_LESS}: resolve waits when it is full");
    if facts.most_bytes == 0 {
        Finding::warning(CHECK, format!("takes {used}, and does not say of how much"), "look at its machine")
    } else if share >= 0.95 {
        Finding::problem(CHECK, found, advice)
    } else if share >= NEARLY_FULL {
        Finding::warning(CHECK, found, advice)
    } else {
        Finding::ok(CHECK, found)
    }
}

/// What follows for the memory that claims take, and will take.
#[must_use]
pub fn memory(facts: &Facts, expected: &Expected) -> Finding {
    const CHECK: &str = "dedup-memory";
    let Some(claim_bytes) = facts.claim_bytes else {
        return Finding::ok(CHECK, "there is no claim yet to measure");
    };
    let needed = expected.claims * claim_bytes;
    let found = format!(
        "{} keys, {claim_bytes:.0} bytes for each claim; {} at {:.1} events/s (the last hour's rate) needs {} of {}",
        facts.keys,
        ttl(expected.longest),
        expected.events_per_second,
        size(needed),
        size(facts.most_bytes as f64)
    );
    let advice = format!("before it is there, give Redis more memory, or {REMEMBER_LESS}");
    let share = needed / facts.most_bytes.max(1) as f64;
    if facts.most_bytes > 0 && share >= 1.0 {
        Finding::problem(CHECK, found, advice)
    } else if facts.most_bytes > 0 && share >= NEARLY_FULL {
        Finding::warning(CHECK, found, advice)
    } else {
        Finding::ok(CHECK, found)
    }
}

fn ttl(longest: Duration) -> String {
    let hours = longest.as_secs().div_ceil(3_600);
    if hours.is_multiple_of(24) {
        format!("a TTL of {} days", hours / 24)
    } else {
        format!("a TTL of {hours} h")
    }
}

fn size(bytes: f64) -> String {
    let gib = bytes / f64::from(1u32 << 30);
    if gib >= 1.0 { format!("{gib:.1} GiB") } else { format!("{:.1} MiB", gib * 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn good() -> Facts {
        Facts {
            policy: "noeviction".to_owned(),
            append_only: true,
            snapshots: Some(true),
            used_bytes: GIB,
            most_bytes: 4 * GIB,
            is_limited: true,
            keys: 1_000_000,
            claim_bytes: Some(128.0),
            ..Facts::default()
        }
    }

    /// So many events a second, remembered for a week.
    fn expected(events_per_second: f64) -> Expected {
        let longest = Duration::from_secs(7 * 24 * 3_600);
        Expected { events_per_second, claims: events_per_second * longest.as_secs_f64(), longest }
    }

    fn levels(facts: &Facts, events_per_second: f64) -> Vec<(&'static str, Level)> {
        let mut findings = findings(facts);
        findings.push(memory(facts, &expected(events_per_second)));
        findings.iter().filter(|f| f.level != Level::Ok).map(|f| (f.check, f.level)).collect()
    }

    #[test]
    fn what_a_ttl_costs_is_told_in_memory() {
        let found = memory(&good(), &expected(35.0));
        assert_eq!(
            found.found,
            "1000000 keys, 128 bytes for each claim; a TTL of 7 days at 35.0 events/s (the last hour's rate) needs 2.5 GiB of \
             4.0 GiB"
        );
        assert_eq!(found.level, Level::Ok);
        assert_eq!(levels(&good(), 45.0), [("dedup-memory", Level::Warning)]);
        assert_eq!(levels(&good(), 60.0), [("dedup-memory", Level::Problem)]);
    }

    #[test]
    fn each_weakness_of_the_store_is_told_apart() {
        assert_eq!(levels(&good(), 0.0), []);
        let evicts = Facts { policy: "allkeys-lru".to_owned(), ..good() };
        assert_eq!(levels(&evicts, 0.0), [("redis-eviction", Level::Problem)]);
        let evicted = Facts { evicted_keys: 3, ..good() };
        assert_eq!(levels(&evicted, 0.0), [("redis-eviction", Level::Warning)]);
        let forgets = Facts { append_only: false, snapshots: Some(false), ..good() };
        assert_eq!(levels(&forgets, 0.0), [("redis-persistence", Level::Warning)]);
        let fails = Facts { persistence_failed: true, ..good() };
        assert_eq!(levels(&fails, 0.0), [("redis-persistence", Level::Problem)]);
        for (used, level) in [(82, Level::Warning), (96, Level::Problem)] {
            let full = Facts { used_bytes: 4 * GIB / 100 * used, ..good() };
            assert_eq!(levels(&full, 0.0), [("redis-memory", level)]);
        }
    }

    #[test]
    fn a_field_of_info_is_found_by_its_whole_name() {
        let info = "maxmemory:7\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!((field(info, "maxmemory"), field(info, "maxmemory_policy")), ("7", "noeviction"));
        assert_eq!(field(info, "max"), "");
    }
}
