//! What a seed says: which faults, when, for how long. Pure: the same seed gives the same plan.

use std::time::Duration;

use fastrand::Rng;
use tracklayer_sandbox::{Fault as Trouble, Platform as AdPlatform};

/// How long clients go on sending.
pub const LOAD: Duration = Duration::from_millis(4_500);
/// Faults begin within this part of it.
const FAULTS_WITHIN: (u64, u64) = (150, 4_000);
/// Fewest and most faults of a seed.
const FAULTS: (usize, usize) = (6, 10);
/// The lease of the processes under test.
pub const LEASE: Duration = Duration::from_secs(1);

/// A link that a proxy stands in.
pub type Link = &'static str;

/// Members that are killed, and how often in relation to each other. Ingest and delivery hold work in their hands.
const KILLED: [&str; 7] =
    ["delivery-1", "delivery-2", "ingest-1", "ingest-2", "identity-1", "consent-1", "control-1"];
/// Members that are paused for longer than the lease.
const PAUSED: [&str; 4] = ["delivery-1", "delivery-2", "ingest-1", "ingest-2"];
/// Links, as `process server`.
pub const LINKS: [(&str, &str); 17] = [
    ("delivery-1", "postgres"),
    ("delivery-2", "postgres"),
    ("ingest-1", "postgres"),
    ("ingest-2", "postgres"),
    ("identity-1", "postgres"),
    ("consent-1", "postgres"),
    ("delivery-1", "redis"),
    ("delivery-2", "redis"),
    ("ingest-1", "redis"),
    ("ingest-2", "redis"),
    ("delivery-1", "identity"),
    ("delivery-2", "identity"),
    ("delivery-1", "consent"),
    ("delivery-2", "consent"),
    ("ingest-1", "consent"),
    ("ingest-2", "consent"),
    ("delivery", "sandbox"),
];

/// The platforms that a workspace sends to.
pub const PLATFORMS: [AdPlatform; 4] =
    [AdPlatform::Meta, AdPlatform::DataManager, AdPlatform::TikTok, AdPlatform::Webhook];

/// What is done to the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a new process after a while.
    Kill { member: &'static str, away: Duration },
    /// SIGTERM, and a new process after a while: a rolling update.
    Terminate { member: &'static str, away: Duration },
    /// SIGSTOP, SIGCONT: longer than the lease, so that whoever wakes up is a zombie.
    Pause { member: &'static str, time: Duration },
    /// Every process of PostgreSQL is killed.
    KillPostgres { away: Duration },
    /// Redis is killed; it finds its append-only file again.
    KillRedis { away: Duration },
    /// Redis is killed and comes back with nothing.
    EmptyRedis { away: Duration },
    /// Redis is killed and comes back with its data of a while ago: a stale replica was promoted.
    StaleRedis { age: Duration, away: Duration },
    /// FLUSHALL.
    FlushRedis,
    /// Everything is killed, servers too, and started again when so many hours have passed on every clock, the platforms' as well.
    Stop { hours: u64 },
    /// PostgreSQL's disk is full.
    DiskFull { time: Duration },
    /// Every connection of a link is cut.
    Cut { link: (Link, Link) },
    /// Nothing moves on a link; then what is under way arrives late, or is lost.
    Stall { link: (Link, Link), time: Duration, lost: bool },
    /// A link is slow.
    Delay { link: (Link, Link), by: Duration, time: Duration },
    /// A link takes no connection, and those that were there are cut.
    Refuse { link: (Link, Link), time: Duration },
    /// Kafka's broker is killed.
    KillBroker { away: Duration },
    /// Kafka's broker stands still.
    PauseBroker { time: Duration },
    /// The workspace gets another number of partitions.
    Partitions { partitions: u32 },
    /// A platform goes wrong.
    Trouble { platform: AdPlatform, trouble: Trouble, time: Duration },
}

/// A fault and when it begins, counted from the first event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
}

impl Fault {
    /// What it is counted as.
    pub fn kind(&self) -> String {
        match self {
            Self::Kill { member, .. } => format!("kill -9 {}", role(member)),
            Self::Terminate { member, .. } => format!("terminate {}", role(member)),
            Self::Pause { member, .. } => format!("pause {}", role(member)),
            Self::KillPostgres { .. } => "kill -9 postgres".to_owned(),
            Self::KillRedis { .. } => "kill -9 redis".to_owned(),
            Self::EmptyRedis { .. } => "redis back empty".to_owned(),
            Self::StaleRedis { .. } => "redis back stale".to_owned(),
            Self::FlushRedis => "flushall".to_owned(),
            Self::Stop { hours } if *hours > CLAIM_HOURS => "stop of more than a claim's life".to_owned(),
            Self::Stop { .. } => "stop of more than 48 hours".to_owned(),
            Self::DiskFull { .. } => "disk full".to_owned(),
            Self::Cut { link } => format!("cut {}", link.1),
            Self::Stall { link, lost: true, .. } => format!("stall and lose {}", link.1),
            Self::Stall { link, lost: false, .. } => format!("stall {}", link.1),
            Self::Delay { link, .. } => format!("delay {}", link.1),
            Self::Refuse { link, .. } => format!("refuse {}", link.1),
            Self::KillBroker { .. } => "kill -9 kafka".to_owned(),
            Self::PauseBroker { .. } => "pause kafka".to_owned(),
            Self::Partitions { .. } => "partitions changed".to_owned(),
            Self::Trouble { trouble, .. } => format!("platform {}", trouble_name(trouble)),
        }
    }
}

fn role(member: &str) -> &str {
    member.split('-').next().unwrap_or(member)
}

fn trouble_name(trouble: &Trouble) -> &'static str {
    match trouble {
        Trouble::Status { .. } => "500",
        Trouble::TooManyRequests { .. } => "429",
        Trouble::Slow(_) => "slow",
        Trouble::HangUpBeforeReading => "hangs up before reading",
        Trouble::HangUpAfterAccepting => "hangs up after accepting",
        Trouble::TruncatedAnswer => "answer truncated",
        Trouble::ErrorAfterAccepting => "error after accepting",
        _ => "other",
    }
}

/// One seed of so many has a stop, whatever else it has; others have one now and then.
const STOP_EVERY: u64 = 6;
/// How long a claim lives by default.
pub const CLAIM_HOURS: u64 = 7 * 24;
/// A stop in hours: past every platform's window of deduplication but one, and then past what platforms take, and claims.
const STOPS: [(u64, u64); 3] = [(49, 71), (72, CLAIM_HOURS - 2), (CLAIM_HOURS + 2, 200)];
/// When it comes: after events, and before others.
const STOP_WITHIN: (u64, u64) = (1_200, 3_200);

/// The faults of a seed, by time.
pub fn faults_of(seed: u64) -> Vec<Planned> {
    let mut random = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let count = random.usize(FAULTS.0..=FAULTS.1);
    // One of each family before a second of any, so that no seed is all of one kind.
    let mut families: Vec<u32> = Vec::new();
    let mut planned: Vec<Planned> = (0..count)
        .map(|_| {
            if families.is_empty() {
                families = (0..FAMILIES).collect();
                random.shuffle(&mut families);
            }
            let family = families.pop().unwrap_or_default();
            Planned { at: millis(&mut random, FAULTS_WITHIN), fault: fault(family, &mut random) }
        })
        .collect();
    if seed.is_multiple_of(STOP_EVERY) || random.u32(0..24) == 0 {
        // Each length in turn where it is sure to come.
        let (least, most) = STOPS[(seed / STOP_EVERY) as usize % STOPS.len()];
        let fault = Fault::Stop { hours: random.u64(least..=most) };
        planned.push(Planned { at: millis(&mut random, STOP_WITHIN), fault });
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// What befalls Kafka's broker in a seed, beside the rest: one fault or two.
pub fn broker_faults_of(seed: u64) -> Vec<Planned> {
    let mut random = Rng::with_seed(seed.wrapping_mul(0xD1B5_4A32_D192_ED03));
    let planned = (0..random.u32(1..=2)).map(|_| {
        let at = millis(&mut random, FAULTS_WITHIN);
        let fault = match random.bool() {
            true => Fault::KillBroker { away: millis(&mut random, (0, 800)) },
            false => Fault::PauseBroker { time: millis(&mut random, (200, 2_500)) },
        };
        Planned { at, fault }
    });
    planned.collect()
}

/// How the number of partitions changes in a seed, in every second one: once, twice or three times.
pub fn layouts_of(seed: u64) -> Vec<Planned> {
    if !seed.is_multiple_of(2) {
        return Vec::new();
    }
    let mut random = Rng::with_seed(seed.wrapping_mul(0xA076_1D64_78BD_642F));
    let planned = (0..random.u32(1..=3)).map(|_| Planned {
        at: millis(&mut random, FAULTS_WITHIN),
        fault: Fault::Partitions { partitions: random.u32(1..=8) },
    });
    planned.collect()
}

const FAMILIES: u32 = 14;

fn fault(family: u32, random: &mut Rng) -> Fault {
    match family {
        // Whoever holds work is killed most.
        0 | 1 => Fault::Kill { member: pick(random, &KILLED[..4]), away: away(random) },
        2 => Fault::Kill { member: pick(random, &KILLED[4..]), away: away(random) },
        3 => Fault::Terminate { member: pick(random, &KILLED), away: away(random) },
        4 => Fault::Pause { member: pick(random, &PAUSED[..2]), time: pause(random) },
        5 => Fault::Pause { member: pick(random, &PAUSED), time: pause(random) },
        6 => Fault::KillPostgres { away: millis(random, (0, 800)) },
        7 => match random.u32(0..3) {
            0 => Fault::KillRedis { away: away(random) },
            1 => Fault::EmptyRedis { away: away(random) },
            _ => Fault::StaleRedis { age: millis(random, (300, 2_000)), away: millis(random, (0, 300)) },
        },
        8 => Fault::FlushRedis,
        9 => Fault::DiskFull { time: millis(random, (300, 1_200)) },
        10 | 11 => link_fault(random),
        _ => trouble(random),
    }
}

fn link_fault(random: &mut Rng) -> Fault {
    let link = LINKS[random.usize(..LINKS.len())];
    match random.u32(0..6) {
        0 | 1 => Fault::Cut { link },
        2 => Fault::Stall { link, time: millis(random, (200, 2_200)), lost: false },
        3 => Fault::Stall { link, time: millis(random, (200, 2_200)), lost: true },
        4 => Fault::Delay { link, by: millis(random, (5, 80)), time: millis(random, (500, 2_000)) },
        _ => Fault::Refuse { link, time: millis(random, (100, 1_500)) },
    }
}

fn trouble(random: &mut Rng) -> Fault {
    let platform = PLATFORMS[random.usize(..PLATFORMS.len())];
    let trouble = match random.u32(0..8) {
        0 | 1 => Trouble::HangUpAfterAccepting,
        2 => Trouble::Status { code: 500, body: None },
        3 => Trouble::TooManyRequests { retry_after: random.bool().then_some(1) },
        4 => Trouble::Slow(millis(random, (50, 1_500))),
        5 => Trouble::TruncatedAnswer,
        6 => Trouble::ErrorAfterAccepting,
        _ => Trouble::HangUpBeforeReading,
    };
    Fault::Trouble { platform, trouble, time: millis(random, (200, 1_500)) }
}

fn pick(random: &mut Rng, names: &[&'static str]) -> &'static str {
    names[random.usize(..names.len())]
}

fn millis(random: &mut Rng, (least, most): (u64, u64)) -> Duration {
    Duration::from_millis(random.u64(least..=most))
}

fn away(random: &mut Rng) -> Duration {
    millis(random, (0, 1_500))
}

/// So much longer than the lease that another process has taken it over.
fn pause(random: &mut Rng) -> Duration {
    LEASE + millis(random, (400, 2_000))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_one_another() {
        assert_eq!(faults_of(7), faults_of(7));
        assert_ne!(faults_of(7), faults_of(8));
    }

    #[test]
    fn every_seed_over_kafka_does_something_to_the_broker_and_many_kill_it() {
        let killed =
            |seed| broker_faults_of(seed).iter().any(|p| matches!(p.fault, Fault::KillBroker { .. }));
        assert!((1..=50).all(|seed| !broker_faults_of(seed).is_empty()));
        assert!((1..=50).filter(|seed| killed(*seed)).count() > 20);
        assert!((1..=50).filter(|seed| !killed(*seed)).count() > 5, "and some only pause it");
    }

    #[test]
    fn of_two_hundred_seeds_a_sixth_has_a_stop_of_more_than_two_days_and_none_has_two() {
        let stops = |seed| {
            let hours = faults_of(seed).into_iter().filter_map(|planned| match planned.fault {
                Fault::Stop { hours } => Some(hours),
                _ => None,
            });
            hours.collect::<Vec<u64>>()
        };
        let all: Vec<Vec<u64>> = (1..=200).map(stops).filter(|stops| !stops.is_empty()).collect();
        assert!(all.len() > 200 / 6, "{all:?}");
        assert!(all.iter().all(|stops| stops.len() == 1 && (49..=200).contains(&stops[0])), "{all:?}");
        // On which side of its claim's life a repeat comes has to be beyond doubt.
        assert!(all.iter().flatten().all(|hours| hours.abs_diff(CLAIM_HOURS) > 1), "{all:?}");
    }

    #[test]
    fn half_the_seeds_change_the_number_of_partitions_up_and_down() {
        let widths: Vec<u32> = (1..=200)
            .flat_map(layouts_of)
            .map(|planned| match planned.fault {
                Fault::Partitions { partitions } => partitions,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!((1..=200).filter(|seed| !layouts_of(*seed).is_empty()).count() == 100);
        assert!(widths.iter().all(|width| (1..=8).contains(width)));
        assert!(widths.iter().any(|width| *width < 4) && widths.iter().any(|width| *width > 4), "{widths:?}");
    }

    #[test]
    fn two_hundred_seeds_meet_every_kind_of_fault() {
        let kinds: BTreeSet<String> =
            (1..=200).flat_map(faults_of).map(|planned| planned.fault.kind()).collect();
        for kind in [
            "kill -9 ingest",
            "kill -9 delivery",
            "kill -9 identity",
            "kill -9 consent",
            "kill -9 control",
            "terminate ingest",
            "terminate delivery",
            "kill -9 postgres",
            "kill -9 redis",
            "redis back empty",
            "redis back stale",
            "flushall",
            "stop of more than 48 hours",
            "stop of more than a claim's life",
            "disk full",
            "pause ingest",
            "pause delivery",
            "cut postgres",
            "cut redis",
            "cut sandbox",
            "stall and lose postgres",
            "stall postgres",
            "delay postgres",
            "refuse postgres",
            "platform hangs up after accepting",
            "platform hangs up before reading",
            "platform answer truncated",
            "platform error after accepting",
            "platform 500",
            "platform 429",
            "platform slow",
        ] {
            assert!(kinds.contains(kind), "{kind} is not in {kinds:?}");
        }
    }
}
