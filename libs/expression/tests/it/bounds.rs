//! Whatever the event and the expression: no panic, and an end within the bound.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use tracklayer_expression::{Budget, Fault, within};

use crate::sample::{Sample, compiled, told};

/// Far above what the allowed steps take, unoptimised and on a machine that does other things as well.
const LONGEST: Duration = Duration::from_secs(2);

#[test]
fn work_ends_at_the_bound() {
    let many: Vec<Value> = (0..8_000).map(|n| json!(n)).collect();
    let wide: serde_json::Map<String, Value> = (0..2_500).map(|n| (format!("k{n}"), json!(n))).collect();
    let event = Sample(json!({ "properties": { "many": many, "wide": wide, "text": "a".repeat(30_000) } }));
    for text in [
        "properties.many.exists(a, properties.many.exists(b, a == b + 9000))",
        "properties.many.map(a, properties.many.map(b, a)).size()",
        "properties.many.all(a, properties.wide.k2499 >= 0)",
        "properties.many.all(a, !properties.text.contains(\"aab\"))",
        "properties.many.all(a, !properties.text.matches(\"(a|aa)+b\"))",
        "properties.many.map(a, properties.text).join(\"\") == \"\"",
    ] {
        let program = compiled(text).unwrap();
        let begun = Instant::now();
        let result = told(&program, &event);
        assert!(begun.elapsed() < LONGEST, "{text} took {:?}", begun.elapsed());
        let ends = [Fault::TooMuchWork.code(), Fault::TooLong.code()];
        assert!(ends.contains(&result.as_str()), "{text} gave {result}");
    }
    // What a shop may ask of the longest list that fits into an event.
    let program = compiled("properties.many.all(a, a >= 0)").unwrap();
    assert_eq!(told(&program, &event), "true");
}

#[test]
fn expressions_of_one_event_share_their_work() {
    let many: Vec<Value> = (0..8_000).map(|n| json!(n)).collect();
    let event = Sample(json!({ "properties": { "many": many } }));
    let program = compiled("properties.many.all(a, a >= 0)").unwrap();
    let mut budget = Budget::default();
    let told: Vec<bool> =
        (0..5).map(|_| program.evaluate_within(&event, &mut budget) == Err(Fault::TooMuchWork)).collect();
    assert_eq!(told, [false, false, false, true, true]);
    assert_eq!(compiled("1").unwrap().evaluate_within(&event, &mut budget), Err(Fault::TooMuchWork));
}

#[test]
fn all_that_is_asked_for_together_has_a_bound_as_well() {
    let many: Vec<Value> = (0..8_000).map(|n| json!(n)).collect();
    let event = Sample(json!({ "properties": { "many": many } }));
    let program = compiled("properties.many.all(a, a >= 0)").unwrap();
    let mut left = u64::MAX;
    within(&mut left, || program.evaluate(&event).unwrap());
    let one = u64::MAX - left;
    assert!((8_000..50_000).contains(&one), "{one}");

    let mut left = one * 2 + one / 2;
    let ask = || program.evaluate(&event).map(|_| ());
    assert_eq!(within(&mut left, || [ask(), ask()]), [Ok(()), Ok(())]);
    assert_eq!(left, one / 2);
    let cheap = compiled("1").unwrap();
    let asked = within(&mut left, || (ask(), cheap.evaluate(&event).map(|_| ())));
    assert_eq!(asked, (Err(Fault::TooMuchWork), Err(Fault::TooMuchWork)));
    assert_eq!((left, ask()), (0, Ok(())), "and who asks elsewhere has a bound of its own alone");
}

#[test]
fn a_large_pattern_pays_more_for_each_byte() {
    let event = Sample(json!({ "properties": { "text": "a".repeat(14_000) } }));
    let told = |text: &str| told(&compiled(text).unwrap(), &event);
    assert_eq!(told("properties.text.matches(\"^a+$\")"), "true");
    assert_eq!(
        told("properties.text.matches(\"([a-z]{1,10}[0-9]{1,10}|[a-z0-9]{1,100}){1,3}!\")"),
        "expression_too_much_work"
    );
}

#[test]
fn texts_do_not_grow_beyond_their_bound() {
    let event = Sample(json!({ "properties": { "text": "a".repeat(3_000) } }));
    let program = compiled("properties.text + properties.text").unwrap();
    assert_eq!(told(&program, &event), "expression_too_long");
}

/// Pieces that expressions are made of, in any order: most make none, and those that do are often odd.
const PIECES: &[&str] = &[
    "properties",
    "context",
    "traits",
    "event",
    "timestamp",
    "has",
    "size",
    "string",
    "double",
    "int",
    "round",
    ".a",
    ".products",
    ".exists",
    ".all",
    ".map",
    ".filter",
    ".sum",
    ".join",
    ".matches",
    ".contains",
    ".trim",
    "[0]",
    "[\"a\"]",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "p",
    "p, ",
    "p.a",
    "\"x\"",
    "'ä'",
    "\"\"",
    "1",
    "0",
    "2.5",
    "1e99",
    "true",
    "null",
    "-",
    "!",
    "+",
    " * ",
    " / ",
    " % ",
    " == ",
    " != ",
    " < ",
    " && ",
    " || ",
    " ? ",
    " : ",
    " in ",
    ", ",
    "\n",
    " ",
    "@",
    "`",
    "\\",
    "u",
    "b'x'",
    "r\"\\d\"",
    "9223372036854775807",
    "-9223372036854775808",
];

fn pieces() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

/// Expressions that mostly compile, over places of any type.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(
            &["properties.a", "properties.b", "properties.list", "properties.list[1]", "context.c.d"][..]
        )
        .prop_map(str::to_owned),
        prop::sample::select(
            &["1", "0", "2.5", "-3", "\"x\"", "\"\"", "null", "true", "false", "event", "timestamp"][..]
        )
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop::sample::select(&["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"][..]),
                inner.clone()
            )
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (prop::sample::select(&["size", "string", "double", "int", "!", "-", "has"][..]), inner.clone())
                .prop_map(|(f, a)| format!("{f}({a})")),
            (inner.clone(), prop::sample::select(&["trim", "lowerAscii", "sum", "size"][..]))
                .prop_map(|(a, f)| format!("{a}.{f}()")),
            (
                inner.clone(),
                prop::sample::select(&["contains", "startsWith", "join", "endsWith"][..]),
                inner.clone()
            )
                .prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
            (
                inner.clone(),
                prop::sample::select(&["exists", "all", "map", "filter", "exists_one"][..]),
                inner.clone()
            )
                .prop_map(|(a, f, b)| format!("{a}.{f}(p, p == {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("round({a}, {b})")),
        ]
    })
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-100..100_i32).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("a@b.c")),
        Just(json!("12.50")),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn event() -> impl Strategy<Value = Value> {
    (json_value(), json_value(), prop::collection::vec(json_value(), 0..6), json_value()).prop_map(|(a, b, list, c)| {
        json!({ "type": "track", "event": "E", "properties": { "a": a, "b": b, "list": list, "products": list }, "context": { "c": c } })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_and_no_event_panics(text in prop_oneof![pieces(), expression()], event in event()) {
        let begun = Instant::now();
        // A panic of the parser's would be told as this; it has not been seen to.
        match compiled(&text) {
            Ok(program) => { told(&program, &Sample(event)); }
            Err(error) => prop_assert_ne!(error.why, "the expression cannot be read"),
        }
        prop_assert!(begun.elapsed() < LONGEST);
    }
}
