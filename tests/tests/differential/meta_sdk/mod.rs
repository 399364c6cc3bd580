//! Our normalisation for Meta against Meta's own Business SDK for Python, on random inputs.
//!
//! Equal is equal byte for byte on the wire. Where the two differ, one of the reasons of `class` must say why, and must give our
//! form when it is applied to the input by other means than our library (`explain`); what no reason explains fails the test.
//! Reasons are of two kinds: a page of Meta's that the SDK does not follow, or silence of the pages and a rule of our own.

mod case;
mod class;
mod explain;
mod inputs;

use std::collections::{BTreeMap, BTreeSet};

use case::{Case, Key, Theirs};
use class::{Basis, Class};
use explain::{Finding, find};
use serde_json::{Value, json};
use tracklayer_normalise::Outcome;
use tracklayer_tests::clients;

use crate::table::{self, number_from};

/// Inputs of one run over all keys.
const CASES: usize = 10_000;
/// The seed of a run that names none.
const SEED: u64 = 20_261_129;
/// Most failing cases that are printed.
const SHOWN: usize = 20;

/// What came of one key.
#[derive(Debug, Default)]
struct Counts {
    compared: usize,
    equal: usize,
    neither: usize,
    explained: usize,
    unexplained: usize,
    reasons: BTreeMap<Class, usize>,
}

#[tokio::test]
async fn our_forms_for_meta_are_its_sdks_or_differ_by_a_rule() {
    let Some(sdk) = clients::python("meta_sdk.py").await else { return };
    let (seed, number) = (number_from("DIFFERENTIAL_SEED", SEED), number_from("DIFFERENTIAL_CASES", CASES));
    let cases = inputs::cases(seed, number);
    let theirs: Vec<Theirs> = sdk.run(&[], &json!(cases)).await.expect("the SDK answers");
    assert_eq!(theirs.len(), cases.len());

    let mut counts: BTreeMap<Key, Counts> = BTreeMap::new();
    let mut failing = Vec::new();
    for (case, theirs) in cases.iter().zip(&theirs) {
        let ours = case.ours();
        let finding = find(case, &ours, theirs);
        if finding == Finding::Unexplained {
            failing.push(told(case, &ours, theirs));
        }
        counts.entry(case.key).or_default().add(finding);
    }
    print(seed, &counts);
    assert!(
        failing.is_empty(),
        "{} of {number} inputs differ and no rule says why (seed {seed}), such as:\n{}",
        failing.len(),
        failing.iter().take(SHOWN).map(Value::to_string).collect::<Vec<_>>().join("\n")
    );
    if (seed, number) == (SEED, CASES) {
        let seen: BTreeSet<Class> =
            counts.values().flat_map(|counts| counts.reasons.keys().copied()).collect();
        let unseen: Vec<&str> =
            class::ALL.iter().filter(|class| !seen.contains(class)).map(|class| class.name).collect();
        assert!(unseen.is_empty(), "reasons that explain nothing any more: {unseen:#?}");
    }
}

impl Counts {
    fn add(&mut self, finding: Finding) {
        self.compared += 1;
        match finding {
            Finding::Equal => self.equal += 1,
            Finding::NeitherSends => self.neither += 1,
            Finding::Unexplained => self.unexplained += 1,
            Finding::Explained(reasons) => {
                self.explained += 1;
                for reason in reasons {
                    *self.reasons.entry(reason).or_default() += 1;
                }
            }
        }
    }
}

/// One failing case, whole.
fn told(case: &Case, ours: &Outcome, theirs: &Theirs) -> Value {
    json!({
        "key": case.key, "input": case.input.chars().take(200).collect::<String>(), "country": case.country,
        "truth": format!("{:?}", case.truth), "ours": format!("{ours:?}"), "theirs": format!("{theirs:?}"),
    })
}

fn print(seed: u64, counts: &BTreeMap<Key, Counts>) {
    let name = |key: &Key| json!(key).as_str().unwrap_or_default().to_owned();
    let mut rows = Vec::new();
    let mut reasons = Vec::new();
    for (key, of_key) in counts {
        let numbers = [of_key.compared, of_key.equal, of_key.neither, of_key.explained, of_key.unexplained];
        rows.push(std::iter::once(name(key)).chain(numbers.map(|number| number.to_string())).collect());
        for (class, number) in &of_key.reasons {
            let (kind, why) = match class.basis {
                Basis::Published { rule, page } => ("published", format!("{rule} ({page})")),
                Basis::Silent(why) => ("ours", why.to_owned()),
            };
            reasons.push(vec![name(key), number.to_string(), class.name.to_owned(), kind.to_owned(), why]);
        }
    }
    let sum = |of: fn(&Counts) -> usize| counts.values().map(of).sum::<usize>().to_string();
    rows.push(vec![
        "all".to_owned(),
        sum(|c| c.compared),
        sum(|c| c.equal),
        sum(|c| c.neither),
        sum(|c| c.explained),
        sum(|c| c.unexplained),
    ]);
    table::print(
        &format!("Meta's SDK for Python (facebook_business), seed {seed}"),
        &["key", "compared", "equal", "neither sends", "explained", "unexplained"],
        &rows,
    );
    table::print(
        "Differences (one input may have several reasons)",
        &["key", "inputs", "reason", "rule", "why"],
        &reasons,
    );
}
