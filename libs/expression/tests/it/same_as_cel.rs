//! Where both have an answer, it is the same as that of the `cel` crate's own interpreter. Numbers are multiples of a quarter, which
//! are exact as doubles and as decimals; what the event does not have, and whole-number division, differ by intent and are
//! tested in `language.rs`.

use cel::{Context, Program as Cel, Value as CelValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use tracklayer_expression::Outcome;

use crate::sample::{Sample, compiled};

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(
            &["properties.a", "properties.b", "properties.numbers[1]", "properties.items[0].price"][..]
        )
        .prop_map(str::to_owned),
        (-40..40_i32).prop_map(|quarters| format!("({:?})", f64::from(quarters) / 4.0)),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        (inner.clone(), prop::sample::select(&["+", "-", "*"][..]), inner)
            .prop_map(|(a, op, b)| format!("({a} {op} {b})"))
    })
}

fn text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(&["properties.s", "properties.t", "event", "properties.words[0]"][..])
            .prop_map(str::to_owned),
        "[a-c]{1,3}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| (inner.clone(), inner).prop_map(|(a, b)| format!("({a} + {b})")))
}

fn truth() -> impl Strategy<Value = String> {
    let order = || prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let search = prop::sample::select(&["contains", "startsWith", "endsWith"][..]);
    let over = || prop::sample::select(&["exists", "all", "exists_one"][..]);
    let leaf = prop_oneof![
        (number(), order(), number()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text(), order(), text()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text(), search, text()).prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
        (text(), prop::sample::select(&["^a", "b+$", "a|bc", "[^c]{2}"][..]))
            .prop_map(|(a, pattern)| format!("{a}.matches(\"{pattern}\")")),
        (over(), order(), number()).prop_map(|(f, op, b)| format!("properties.numbers.{f}(n, n {op} {b})")),
        (over(), order(), number())
            .prop_map(|(f, op, b)| format!("properties.items.{f}(i, i.price {op} {b})")),
        (number(), order(), number()).prop_map(|(a, op, b)| format!(
            "properties.numbers.filter(n, n {op} {a}).map(n, n * 2.0).exists(n, n == {b})"
        )),
        (number(), order())
            .prop_map(|(a, op)| format!("size(properties.items.filter(i, i.price {op} {a})) == 1")),
        (text(), text()).prop_map(|(a, b)| format!("{a} in properties.words || {b} in [\"a\", {a}]")),
        text().prop_map(|a| format!("size({a}) > 2")),
        prop::sample::select(
            &["properties.yes", "has(properties.s)", "has(properties.none)", "type == \"track\""][..]
        )
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(&["&&", "||", "==", "!="][..]), inner.clone())
                .prop_map(|(a, op, b)| format!("(({a}) {op} ({b}))")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(({a}) ? ({b}) : ({c}))")),
        ]
    })
}

fn event() -> impl Strategy<Value = Value> {
    let quarter = || (-40..40_i32).prop_map(|quarters| f64::from(quarters) / 4.0);
    let word = || "[a-c]{1,4}";
    (quarter(), quarter(), prop::array::uniform3(quarter()), word(), word(), prop::array::uniform2(word()), any::<bool>())
        .prop_map(|(a, b, numbers, s, t, words, yes)| {
            let items: Vec<Value> = numbers.iter().map(|price| json!({ "price": price })).collect();
            json!({
                "type": "track", "event": "abc",
                "properties": {
                    "a": a, "b": b, "numbers": numbers, "items": items, "s": s, "t": t, "words": words, "yes": yes,
                },
            })
        })
}

/// What the crate's interpreter gives, in our values; none where it fails.
fn by_cel(text: &str, event: &Value) -> Option<Outcome<'static>> {
    let mut context = Context::default();
    for key in ["type", "event", "properties"] {
        context.add_variable(key, event[key].clone()).unwrap();
    }
    Some(match Cel::compile(text).unwrap().execute(&context).ok()? {
        CelValue::Bool(value) => Outcome::Bool(value),
        CelValue::Float(number) => Outcome::Number(number.to_string().parse().unwrap()),
        CelValue::String(text) => Outcome::Text(text.to_string().into()),
        other => panic!("{text} gives {other:?}"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_say_the_same(text in prop_oneof![3 => truth(), 1 => number(), 1 => text()], event in event()) {
        let wanted = by_cel(&text, &event);
        let event = Sample(event);
        let program = compiled(&text).unwrap();
        prop_assert_eq!(program.evaluate(&event).ok(), wanted, "{}", text);
    }
}
