use super::circuit::LONGEST;
use super::*;

const CONNECTION: ConnectionId = ConnectionId(7);
const REVISION: u64 = 3;

fn trouble(kind: HoldKind, after: Option<u64>) -> Trouble {
    Trouble { kind, detail: "HTTP_500: down".to_owned(), after: after.map(Duration::from_secs) }
}

fn down() -> Trouble {
    trouble(HoldKind::Transient, None)
}

struct Lane {
    clock: Clock,
    breakers: Breakers,
    joined: Joined,
}

impl Lane {
    fn new() -> Self {
        let clock = Clock::default();
        let breakers = Breakers::new(clock.clone());
        Self { joined: breakers.join(CONNECTION, Partition(0)), breakers, clock }
    }

    /// Another lane of the same connection.
    fn beside(&self, partition: u32) -> Self {
        let joined = self.breakers.join(CONNECTION, Partition(partition));
        Self { clock: self.clock.clone(), breakers: self.breakers.clone(), joined }
    }

    fn fails(&self, times: u32) {
        for _ in 0..times {
            self.joined.failed(REVISION, &Leave::Free, &down());
        }
    }

    fn ask(&self) -> Result<Leave, Blocked> {
        self.joined.ask(REVISION)
    }

    fn left(&self) -> Option<Duration> {
        self.joined.blocked().map(|blocked| self.clock.left(&blocked.due))
    }

    /// Leave to try, once the circuit's time has come.
    fn tries(&self) -> Leave {
        self.clock.advance(self.left().expect("the circuit is open") + Duration::from_millis(1));
        match self.ask() {
            Ok(leave @ Leave::Try(_)) => leave,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn three_failures_in_a_row_open_the_circuit_and_an_answer_in_between_does_not() {
    let lane = Lane::new();
    lane.fails(2);
    lane.joined.worked(REVISION, &Leave::Free);
    lane.fails(2);
    assert!(matches!(lane.ask(), Ok(Leave::Free)));
    lane.fails(1);
    let blocked = lane.ask().expect_err("three in a row");
    assert_eq!(
        (blocked.kind, blocked.detail.as_str(), blocked.is_tried),
        (HoldKind::Transient, "HTTP_500: down", false)
    );
    assert!(
        lane.breakers.join(ConnectionId(8), Partition(0)).ask(REVISION).is_ok(),
        "other connections have their own"
    );
}

#[test]
fn one_lane_at_a_time_tries_and_its_answer_decides() {
    let lane = Lane::new();
    lane.fails(3);
    let tried = lane.tries();
    assert!(lane.ask().expect_err("somebody tries").is_tried);
    lane.joined.worked(REVISION, &Leave::Free);
    assert!(lane.ask().is_err(), "what was under way before says nothing new");
    lane.joined.failed(REVISION, &tried, &down());
    drop(tried);
    assert!(!lane.ask().expect_err("in vain").is_tried);
    let tried = lane.tries();
    lane.joined.worked(REVISION, &tried);
    drop(tried);
    assert!(matches!(lane.ask(), Ok(Leave::Free)));
}

#[test]
fn a_try_that_came_to_nothing_is_somebody_elses() {
    let lane = Lane::new();
    lane.fails(3);
    drop(lane.tries());
    assert!(matches!(lane.ask(), Ok(Leave::Try(_))));
}

#[test]
fn it_is_open_for_longer_each_time_up_to_a_minute() {
    let lane = Lane::new();
    lane.fails(3);
    let mut waits = vec![lane.left().unwrap()];
    for _ in 0..9 {
        let tried = lane.tries();
        lane.joined.failed(REVISION, &tried, &down());
        waits.push(lane.left().unwrap());
    }
    for (step, wait) in waits.iter().enumerate() {
        let ceiling = Duration::from_secs(1 << step).min(LONGEST);
        assert!(*wait <= ceiling && *wait >= ceiling.mul_f64(0.49), "{step}: {wait:?}");
    }
}

#[test]
fn a_failure_right_after_it_closed_opens_it_again_for_longer() {
    let lane = Lane::new();
    lane.fails(3);
    let tried = lane.tries();
    lane.joined.worked(REVISION, &tried);
    lane.fails(1);
    assert!(lane.left().unwrap() > Duration::from_millis(900), "the second time");
    let tried = lane.tries();
    lane.joined.worked(REVISION, &tried);
    lane.joined.worked(REVISION, &Leave::Free);
    lane.fails(2);
    assert!(matches!(lane.ask(), Ok(Leave::Free)), "after an ordinary success it takes three again");
}

#[test]
fn a_wait_that_the_platform_asks_for_is_kept_to_the_second() {
    let lane = Lane::new();
    lane.joined.failed(REVISION, &Leave::Free, &trouble(HoldKind::Transient, Some(120)));
    let near = |wait: u64| {
        let left = lane.left().unwrap();
        assert!(
            (Duration::from_secs(wait - 1)..=Duration::from_secs(wait)).contains(&left),
            "{left:?} of {wait}"
        );
    };
    near(120);
    // Another request was under way, and was told more.
    lane.joined.failed(REVISION, &Leave::Free, &trouble(HoldKind::Throttled, Some(300)));
    near(300);
    lane.joined.failed(REVISION, &Leave::Free, &trouble(HoldKind::Throttled, Some(5)));
    near(300);
    let tried = lane.tries();
    lane.joined.failed(REVISION, &tried, &trouble(HoldKind::Throttled, Some(100_000)));
    near(86_400);
}

#[test]
fn where_no_time_is_named_the_platforms_pauses_count() {
    let google = Pauses { first: Duration::from_secs(5), longest: Duration::from_secs(900) };
    for pauses in [Pauses::USUAL, google] {
        let lane = Lane::new();
        lane.joined.pauses_as(pauses);
        lane.joined.failed(REVISION, &Leave::Free, &trouble(HoldKind::Throttled, None));
        let mut waits = vec![lane.left().unwrap()];
        for _ in 0..11 {
            let tried = lane.tries();
            lane.joined.failed(REVISION, &tried, &trouble(HoldKind::Throttled, None));
            waits.push(lane.left().unwrap());
        }
        for (step, wait) in waits.iter().enumerate() {
            let ceiling = (pauses.first * (1_u32 << step)).min(pauses.longest);
            assert!(*wait <= ceiling && *wait >= ceiling.mul_f64(0.49), "{pauses:?} {step}: {wait:?}");
        }
    }
}

#[test]
fn a_refused_credential_needs_no_second_opinion_and_a_new_one_no_wait() {
    let lane = Lane::new();
    lane.joined.failed(REVISION, &Leave::Free, &trouble(HoldKind::Auth, None));
    assert!(lane.ask().is_err());
    assert!(matches!(lane.joined.ask(REVISION + 1), Ok(Leave::Free)), "a new revision");
    assert!(
        matches!(lane.ask(), Ok(Leave::Free)),
        "a lane that has not seen it yet does not bring the old one back"
    );
}

#[tokio::test]
async fn who_waits_for_it_to_close_is_told() {
    let lane = Lane::new();
    lane.joined.closes().await;
    lane.fails(3);
    let other = lane.beside(1);
    let waiting = tokio::spawn(async move { other.joined.closes().await });
    tokio::task::yield_now().await;
    let tried = lane.tries();
    assert!(!waiting.is_finished());
    lane.joined.worked(REVISION, &tried);
    tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it closed").unwrap();
}

#[test]
fn a_lane_that_always_fails_does_not_close_the_way_to_the_others() {
    let poisoned = Lane::new();
    let other = poisoned.beside(1);
    poisoned.fails(20);
    assert!(matches!(other.ask(), Ok(Leave::Free)), "one lane alone is no platform that is down");
    other.fails(1);
    assert!(other.ask().is_err() && poisoned.ask().is_err(), "two are");
    let tried = poisoned.tries();
    poisoned.joined.failed(REVISION, &tried, &down());
    drop(tried);
    poisoned.clock.advance(other.left().unwrap() + Duration::from_millis(1));
    assert!(poisoned.ask().is_err(), "another one waits, and comes first");
    let tried = other.tries();
    other.joined.worked(REVISION, &tried);
    drop(tried);
    poisoned.fails(20);
    assert!(matches!(other.ask(), Ok(Leave::Free)), "its next failures are no news");
    other.fails(1);
    assert!(other.ask().is_err(), "those of another one are: it has only just closed");
}

#[test]
fn who_tried_in_vain_tries_again_where_nobody_else_does() {
    let lane = Lane::new();
    let _idle = lane.beside(1);
    let waits = lane.beside(2);
    lane.fails(2);
    waits.fails(1);
    let tried = lane.tries();
    lane.joined.failed(REVISION, &tried, &down());
    drop(tried);
    lane.clock.advance(waits.left().unwrap() + Duration::from_millis(1));
    assert!(lane.ask().is_err(), "another one waits");
    lane.clock.advance(lane.left().unwrap() + Duration::from_millis(1));
    assert!(matches!(lane.ask(), Ok(Leave::Try(_))), "it does not come");
    let tried = lane.tries();
    lane.joined.failed(REVISION, &tried, &down());
    let due = waits.left().unwrap();
    assert!(lane.left().unwrap() > due);
    drop(waits);
    assert!(lane.left().unwrap() <= due, "nobody waits any more");
}

#[test]
fn a_wait_that_is_asked_for_while_an_event_is_tried_is_kept() {
    let lane = Lane::new();
    let other = lane.beside(1);
    lane.fails(2);
    other.fails(1);
    let tried = lane.tries();
    other.joined.failed(REVISION, &Leave::Free, &trouble(HoldKind::Throttled, Some(600)));
    lane.joined.worked(REVISION, &tried);
    assert!(lane.left().expect("not before") > Duration::from_secs(598));
    drop(tried);
    let tried = lane.tries();
    lane.joined.worked(REVISION, &tried);
    assert!(matches!(lane.ask(), Ok(Leave::Free)), "the wait is over");
}

#[test]
fn an_answer_to_an_older_revision_says_nothing_of_a_newer_one() {
    let lane = Lane::new();
    assert!(lane.joined.ask(REVISION + 1).is_ok());
    lane.fails(5);
    lane.joined.failed(REVISION, &Leave::Free, &trouble(HoldKind::Auth, None));
    assert!(lane.left().is_none(), "another credential, another address");
    for _ in 0..3 {
        lane.joined.failed(REVISION + 1, &Leave::Free, &down());
        lane.joined.worked(REVISION, &Leave::Free);
    }
    assert!(lane.left().is_some(), "nor does one that was good");
    let lane = Lane::new();
    assert!(lane.joined.ask(REVISION + 1).is_ok());
    lane.joined.failed(REVISION, &Leave::Free, &trouble(HoldKind::Throttled, Some(60)));
    assert!(lane.left().is_some(), "the account is the same");
}

#[test]
fn a_lane_that_ends_leaves_its_try_to_the_others_and_the_last_one_takes_the_circuit_along() {
    let lane = Lane::new();
    let other = lane.beside(1);
    lane.fails(2);
    other.fails(1);
    let tried = other.tries();
    drop((other, tried));
    assert!(matches!(lane.ask(), Ok(Leave::Try(_))));
    let breakers = lane.breakers.clone();
    assert_eq!(breakers.circuits().len(), 1);
    drop(lane);
    assert!(breakers.circuits().is_empty(), "an open circuit of nobody would be counted for ever");
}
