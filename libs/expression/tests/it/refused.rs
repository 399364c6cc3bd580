//! What is refused when an expression is compiled, and in which words.

use tracklayer_expression::{MAX_DEPTH, MAX_LENGTH, Type};

use crate::sample::{compiled, compiled_for};

fn refusal(text: &str) -> String {
    compiled(text).expect_err(text).to_string()
}

/// That each is refused with words that begin like this.
fn check(cases: &[(&str, &str)]) {
    for (text, wanted) in cases {
        let told = refusal(text);
        assert!(told.starts_with(wanted), "{text}\n  said   {told}\n  wanted {wanted}");
    }
}

#[test]
fn a_word_that_is_not_known_is_told_with_those_that_are() {
    check(&[
        (
            "propertes.revenue * 2",
            "line 1, column 1: unknown field `propertes`; did you mean `properties`? There are: type, event, messageId, \
             timestamp, properties, context, traits, has_user_id, has_anonymous_id",
        ),
        ("true &&\n  userId == \"x\"", "line 2, column 3: unknown field `userId`"),
        ("\"ä\" == propertis.a", "line 1, column 8: unknown field `propertis`; did you mean `properties`?"),
        ("properties.a.lower()", "line 1, column 19: unknown function `lower`. There are: size, contains"),
        (
            "properties.a.endswith(\"x\")",
            "line 1, column 22: unknown function `endswith`; did you mean `endsWith`?",
        ),
        ("sizee(properties.a)", "line 1, column 6: unknown function `sizee`; did you mean `size`?"),
        ("exists(properties.a)", "line 1, column 7: `exists` stands behind a value, as in `value.exists(…)`"),
        ("type(properties.a)", "line 1, column 5: unknown function `type`"),
        ("properties.a.map(p, q)", "line 1, column 21: unknown field `q`"),
        ("@result", "line 1, column 1: is no expression of CEL"),
    ]);
}

#[test]
fn what_cannot_be_read_is_told_where() {
    check(&[
        ("properties.revenue +", "line 1, column 21: is no expression of CEL"),
        ("(1", "line 1, column 3: is no expression of CEL"),
        ("1 = 2", "line 1, column 3: is no expression of CEL"),
        ("\"open", "line 1, column 1: is no expression of CEL"),
        ("properties.?a", "line 1, column 11: is no expression of CEL"),
        (" ", "line 1, column 1: an expression is needed here"),
    ]);
}

#[test]
fn types_are_checked_where_they_are_known() {
    check(&[
        (
            "1 + \"x\"",
            "line 1, column 3: `+` has a number on one side and a string on the other; string() and double()",
        ),
        ("event > 1", "line 1, column 7: `>` has a string on one side and a number on the other"),
        ("event == 1", "line 1, column 7: `==` has a string on one side and a number on the other"),
        ("event * 2", "line 1, column 1: `*` takes number, not string"),
        ("!event", "line 1, column 2: `!` takes bool, not string"),
        ("event && true", "line 1, column 1: `&&` takes bool, not string"),
        ("event ? 1 : 2", "line 1, column 1: `?` takes bool, not string"),
        ("size(1)", "line 1, column 6: `size` takes string or list, not number"),
        ("event in event", "line 1, column 10: `in` takes list, not string"),
        ("[1] == [2]", "line 1, column 1: `==` takes bool or number"),
        ("null + 1", "line 1, column 1: `+` takes number or string, not null"),
        ("event.exists(x, true)", "line 1, column 1: `exists` takes list, not string"),
        ("properties.a.exists(x, 1)", "line 1, column 24: `exists` takes bool, not number"),
        ("size(event, event)", "line 1, column 5: `size` takes 1 value(s)"),
        ("event.contains()", "line 1, column 15: `contains` takes 2 value(s)"),
        ("[1, 2]", "line 1, column 1: gives a list, but bool or number or string is wanted here"),
        ("timestamp", "line 1, column 1: gives a timestamp"),
        ("b\"x\"", "line 1, column 1: bytes are not known here"),
        ("{\"a\": 1}", "line 1, column 1: objects cannot be made here"),
        ("timestamp(event)", "line 1, column 10: timestamp() takes a time that is written out"),
        ("timestamp(\"soon\")", "line 1, column 10: timestamp() takes a time that is written out"),
    ]);
    let bool_only = |text: &str| compiled_for(&[Type::Bool], text).map(|_| ()).map_err(|e| e.why);
    assert_eq!(bool_only("properties.is_new"), Ok(()));
    assert_eq!(bool_only("1 + 1"), Err("gives a number, but bool is wanted here".to_owned()));
    assert_eq!(bool_only("null"), Err("gives a null, but bool is wanted here".to_owned()));
    let number_only = |text: &str| compiled_for(&[Type::Number], text).map(|_| ()).map_err(|e| e.why);
    assert_eq!(number_only("properties.a ? null : 2"), Ok(()));
    assert_eq!(number_only("event"), Err("gives a string, but number is wanted here".to_owned()));
}

#[test]
fn an_object_is_no_value_and_only_the_event_has_fields() {
    check(&[
        ("properties", "line 1, column 1: `properties` is an object; name one of its fields"),
        ("size(properties)", "line 1, column 6: `properties` is an object"),
        ("event.length", "line 1, column 6: `length` is no field: only what stands in the event has fields"),
        ("(true ? properties.a : properties.b).c", "line 1, column 37: `c` is no field"),
        ("has(event)", "line 1, column 4: has() takes a field"),
        ("has(event.a)", "line 1, column 10: `a` is no field"),
        ("event[0]", "line 1, column 6: `[]` takes a list, not string"),
        ("properties.a[event]", "line 1, column 14: `[]` takes number, not string"),
    ]);
}

#[test]
fn what_may_not_be_read_is_not_read_in_any_way() {
    for text in [
        "traits.email",
        "context.traits.email",
        "context[\"traits\"].email",
        "size(traits.email)",
        "traits.emails.exists(e, e == \"x\")",
        "traits.emails.filter(e, true).join(\",\")",
        "traits.emails.map(e, e).join(\",\")",
        "traits.emails[0]",
        "traits.emails.filter(e, true)[0]",
        "traits.people.exists(p, p.email == \"x\")",
        "true ? traits.email : \"x\"",
        "properties.a == traits.email",
        "[traits.email].join(\"\")",
    ] {
        let told = refusal(text);
        assert!(told.ends_with("is about a person"), "{text}: {told}");
    }
}

#[test]
fn items_are_named_once_and_macros_are_not_nested_deep() {
    check(&[
        ("properties.a.exists(event, true)", "line 1, column 20: `event` means something else already"),
        (
            "properties.a.exists(x, x.b.exists(x, true))",
            "line 1, column 34: `x` means something else already",
        ),
        (
            "properties.a.exists(x, x.b.exists(y, y.c.exists(z, true)))",
            "line 1, column 48: at most 2 list macros",
        ),
        (
            "properties.a.exists(x.y, true)",
            "line 1, column 22: `exists` takes a plain name for the item first",
        ),
        (
            "properties.a.exists(true)",
            "line 1, column 20: `exists` takes a name for the item and what to do with it",
        ),
    ]);
}

#[test]
fn patterns_are_written_out_and_small() {
    check(&[
        ("event.matches(event)", "line 1, column 14: the pattern of matches() must be written out"),
        ("event.matches(\"(\")", "line 1, column 15: the pattern is none: unclosed group"),
        ("event.matches(\"(\\\\w{50}){50}\")", "line 1, column 15: the pattern becomes too large"),
        ("event.matches(\"a(?=b)\")", "line 1, column 15: the pattern is none: look-around"),
    ]);
    let long = format!("event.matches(\"{}\")", "a".repeat(257));
    assert!(
        refusal(&long).contains("the pattern has 257 bytes, at most 256 are allowed"),
        "{}",
        refusal(&long)
    );
}

#[test]
fn an_expression_is_neither_long_nor_deep() {
    let long = format!("\"{}\"", "a".repeat(MAX_LENGTH));
    assert_eq!(
        refusal(&long),
        format!(
            "line 1, column 1: the expression has {} bytes, at most {MAX_LENGTH} are allowed",
            MAX_LENGTH + 2
        )
    );
    for deep in [
        format!("{}1{}", "(".repeat(1000), ")".repeat(1000)),
        format!("{}1", "-".repeat(2000)),
        format!("{}true", "!".repeat(2000)),
        format!("{}1", "1+".repeat(1000)),
        format!("properties{}", ".a".repeat(1000)),
        format!("properties.a{}", "[0]".repeat(600)),
        format!("{}1{}", "[".repeat(1000), "]".repeat(1000)),
        format!("{}1", "true?1:".repeat(250)),
        format!("event{}", ".trim()".repeat(250)),
        format!("{}1", "size(".repeat(400)),
    ] {
        assert!(deep.len() <= MAX_LENGTH);
        let told = compiled(&deep).map(|_| ()).map_err(|e| e.to_string());
        // Signs in a row are folded by the parser: two of them are none.
        let is_fine = told.is_ok() && (deep.starts_with('-') || deep.starts_with('!'));
        assert!(is_fine || told.is_err(), "{}… of {}", &deep[..20], deep.len());
    }
    let flat = vec!["properties.a == 1"; MAX_DEPTH].join(" || ");
    assert!(compiled(&flat).is_ok(), "alternatives in a row nest no deeper than their logarithm");
}
