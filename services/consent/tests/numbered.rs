//! What recording must hold for anything that is said in any order: whoever is decided about more narrowly than before has
//! been named in the narrowing log, and what is kept in the store decides as everything that was ever said would.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

mod situations;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use situations::{lax, now, purposes, strings_of};
use tracklayer_consent::{
    decide::{Case, Evaluation, Query, Subject},
    kind::Kind,
    policy::Policy,
    purpose::{Purpose, Purposes},
    reason::Outcome,
    record::{Changes, Known, Said, Stored},
    signal::{ExplicitChoice, Signal},
    statement::{Captured, Channel, ContentHash, Decoder},
};
use tracklayer_ids::SubjectKey;

const DEVICE: SubjectKey = SubjectKey([1; 16]);
const PERSON: SubjectKey = SubjectKey([2; 16]);
const PLACES: [&str; 6] = ["US-CA", "US-CO", "US", "DE", "JP", "unknown"];

static DECODERS: LazyLock<[Decoder; 2]> = LazyLock::new(|| {
    [Policy::compiled_in().unwrap(), lax(|_| {})].map(|policy| Decoder::new(Arc::new(policy), 1 << 24))
});

fn categories() -> impl Strategy<Value = Captured> {
    let names = ["Advertising", "Analytics", "DataSharing", "Functional", "marketingAllowed", "C0005"];
    let map = prop::collection::vec((prop::sample::select(names.to_vec()), any::<bool>()), 0..4);
    (map, prop::bool::weighted(0.8)).prop_map(|(map, interaction)| Captured {
        categories: Some(map.into_iter().map(|(name, allowed)| (name.to_owned(), allowed)).collect()),
        interaction,
        ..Captured::default()
    })
}

fn gcd() -> impl Strategy<Value = String> {
    let letter = || prop::sample::select(b"lpqtrmnuv".to_vec()).prop_map(char::from);
    prop_oneof![
        4 => (letter(), letter(), letter(), letter()).prop_map(|(a, b, c, d)| format!("13{a}3{b}3{c}3{d}5")),
        1 => Just("x".to_owned()),
        1 => Just("13?3".to_owned()),
    ]
}

fn captured() -> impl Strategy<Value = Captured> {
    // An old US privacy string with and without a section that takes its place, readable or not.
    let more = ["DBABTA~1YYN", "DBACLMA~1YYN~CVQqAAAAAACA.QA", "DBABLA~CVQ", "x", "y"];
    let gpp: Vec<String> = strings_of("gpp").into_iter().chain(more.map(str::to_owned)).collect();
    let tcf: Vec<String> = strings_of("tcf").into_iter().chain(["C".to_owned(), "D".to_owned()]).collect();
    let sids = prop::sample::select(vec![vec![], vec![7], vec![8], vec![-1], vec![70]]);
    prop_oneof![
        1 => Just(Captured { gpc: Some("js".to_owned()), ..Captured::default() }),
        4 => categories(),
        1 => Just(Captured { unreadable: true, ..Captured::default() }),
        3 => prop::sample::select(tcf).prop_map(|tc_string| Captured { tc_string, ..Captured::default() }),
        3 => (prop::sample::select(gpp), sids)
            .prop_map(|(gpp_string, gpp_sid)| Captured { gpp_string, gpp_sid, ..Captured::default() }),
        1 => prop::sample::select(vec!["1YNN", "1YYN", "1---", "2", "3"])
            .prop_map(|text| Captured { us_privacy: text.to_owned(), ..Captured::default() }),
        3 => gcd().prop_map(|gcd| Captured { gcd, ..Captured::default() }),
        3 => (purposes(), purposes(), any::<bool>(), any::<bool>()).prop_map(|(granted, denied, two_step, told)| {
            let denied = if two_step { Purposes::NONE } else { denied };
            let choice = ExplicitChoice { granted, denied, two_step, conflict_acknowledged: told };
            Captured { explicit: Some((choice, "privacy_center".to_owned())), ..Captured::default() }
        }),
    ]
}

/// Something said by the device or the person.
#[derive(Debug, Clone)]
struct Statement {
    captured: Captured,
    person: bool,
    /// Whole hours, so that equal times occur and nothing is a mere repeat.
    hours_ago: i64,
    /// Whether ingest records it, before identity is asked, and not resolve alone.
    twice: bool,
}

fn statement() -> impl Strategy<Value = Statement> {
    (captured(), any::<bool>(), 0i64..12, any::<bool>())
        .prop_map(|(captured, person, hours_ago, twice)| Statement { captured, person, hours_ago, twice })
}

fn said(decoder: &Decoder, one: &Statement) -> Said {
    let at = now() - SignedDuration::from_hours(one.hours_ago);
    Said {
        own: vec![if one.person { PERSON } else { DEVICE }],
        named: vec![DEVICE, PERSON],
        persons: if one.person { vec![PERSON] } else { Vec::new() },
        at,
        received_at: at,
        statements: decoder.statements(&one.captured, at),
        message_id: String::new(),
    }
}

/// The table, as the statement of the store changes it.
#[derive(Default)]
struct Table(BTreeMap<(SubjectKey, Channel, ContentHash), (Stored, bool)>);

impl Table {
    fn known(&self) -> Known {
        let mut known = Known::default();
        for ((subject, ..), (stored, _)) in self.0.iter().filter(|(_, (_, current))| *current) {
            known.insert(*subject, stored.clone());
        }
        known
    }

    fn apply(&mut self, changes: &Changes) {
        for replaced in &changes.replaced {
            self.0.get_mut(&(replaced.subject, replaced.channel, replaced.hash)).unwrap().1 = false;
        }
        for row in &changes.rows {
            let key = (row.subject, row.statement.channel, row.statement.hash);
            let new = Stored {
                channel: row.statement.channel,
                hash: row.statement.hash,
                person: row.person,
                first_at: row.first_at,
                last_at: row.last_at,
                content: row.statement.content.clone(),
            };
            let (stored, current) = self.0.entry(key).or_insert((new.clone(), row.current));
            stored.first_at = stored.first_at.min(new.first_at);
            stored.last_at = stored.last_at.max(new.last_at);
            stored.person |= new.person;
            *current = row.current;
        }
    }

    fn signals(&self) -> Vec<Signal> {
        let known = self.known();
        known.signals(DEVICE, now()).chain(known.signals(PERSON, now())).collect()
    }
}

/// Every kind of destination with and without further purposes, in every place.
fn answers(policy: &Policy, now: Timestamp, signals: &[Signal]) -> Vec<(Outcome, Purposes)> {
    let extra = Purposes::of(&[Purpose::Functional, Purpose::Analytics]);
    let mut answers = Vec::new();
    for code in PLACES {
        let places = policy.places(&[code]);
        let subject = Subject { person_known: true, ..Subject::default() };
        let mut evaluation = Evaluation::new(policy, Case { now, places: &places, subject, signals });
        for kind in Kind::ALL {
            for extra in [Purposes::NONE, extra] {
                let decision = evaluation.decide(&Query { extra, ..Query::of(kind) });
                answers.push((decision.outcome, decision.denied));
            }
        }
    }
    answers
}

proptest! {
    #![proptest_config(situations::config())]

    #[test]
    fn what_narrows_a_decision_is_numbered(all in prop::collection::vec(statement(), 1..7)) {
        for decoder in &*DECODERS {
            let mut table = Table::default();
            for one in &all {
                let before = answers(decoder.policy(), now(), &table.signals());
                let said = said(decoder, one);
                let mut numbered = false;
                for named in [&said.own, &said.named].into_iter().skip(usize::from(!one.twice)) {
                    let changes = table.known().record(decoder.policy(), &[Said { named: named.clone(), ..said.clone() }]);
                    numbered |= !changes.narrowings.is_empty();
                    table.apply(&changes);
                }
                let after = answers(decoder.policy(), now(), &table.signals());
                let narrower = |(before, after): (&(Outcome, Purposes), &(Outcome, Purposes))| {
                    after.0 > before.0 || !after.1.is_subset(before.1)
                };
                if !numbered {
                    prop_assert!(!before.iter().zip(&after).any(narrower), "{:?} was not numbered", one);
                }
            }
        }
    }

    #[test]
    fn what_is_kept_decides_as_everything_that_was_said(all in prop::collection::vec(statement(), 1..7), batch in 1usize..4) {
        for decoder in &*DECODERS {
            let mut table = Table::default();
            for some in all.chunks(batch) {
                let batch: Vec<Said> = some.iter().map(|one| said(decoder, one)).collect();
                table.apply(&table.known().record(decoder.policy(), &batch));
            }
            let mut everything = Vec::new();
            for one in &all {
                let said = said(decoder, one);
                for statement in said.statements {
                    let content = statement.content;
                    let person = !said.persons.is_empty();
                    everything.push(Signal { subject: said.own[0], person, at: said.at, own: false, content });
                }
            }
            prop_assert_eq!(
                answers(decoder.policy(), now(), &table.signals()),
                answers(decoder.policy(), now(), &everything)
            );
        }
    }
}
