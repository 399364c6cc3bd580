//! What is different between two JSON documents, field by field, for people.

use std::collections::BTreeSet;

use serde_json::Value;

/// Most differences that are told of one event.
const MOST: usize = 100;
/// Most characters of a value.
const MAX_CHARS: usize = 300;

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: `requests[0].body.data[0].custom_data.value`.
    pub path: String,
    /// What stood there; none: nothing.
    pub was: Option<String>,
    /// What stands there now; none: nothing.
    pub is: Option<String>,
}

/// The differences, and whether there are more than are told. Members count by their names, elements by their places.
#[must_use]
pub fn differences(was: &Value, is: &Value) -> (Vec<Difference>, bool) {
    let mut found = Vec::new();
    compare(String::new(), Some(was), Some(is), &mut found);
    let truncated = found.len() > MOST;
    found.truncate(MOST);
    (found, truncated)
}

fn compare(path: String, was: Option<&Value>, is: Option<&Value>, found: &mut Vec<Difference>) {
    // One more than are told says that there are more.
    if was == is || found.len() > MOST {
        return;
    }
    match (was, is) {
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for name in names {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(inner, was.get(name), is.get(name), found);
            }
        }
        (Some(Value::Array(was)), Some(Value::Array(is))) => {
            for place in 0..was.len().max(is.len()) {
                compare(format!("{path}[{place}]"), was.get(place), is.get(place), found);
            }
        }
        _ => found.push(Difference { path, was: was.map(told), is: is.map(told) }),
    }
}

fn told(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_is_told_where_it_stands() {
        let was = json!({ "a": { "x": 1, "gone": true }, "list": [1, { "y": "s" }, 3], "same": [1] });
        let is = json!({ "a": { "x": 2, "new": null }, "list": [1, { "y": "t" }], "same": [1] });
        let (found, truncated) = differences(&was, &is);
        let told: Vec<_> =
            found.iter().map(|d| (d.path.as_str(), d.was.as_deref(), d.is.as_deref())).collect();
        let expected = [
            ("a.gone", Some("true"), None),
            ("a.new", None, Some("null")),
            ("a.x", Some("1"), Some("2")),
            ("list[1].y", Some("\"s\""), Some("\"t\"")),
            ("list[2]", Some("3"), None),
        ];
        assert_eq!((told.as_slice(), truncated), (expected.as_slice(), false));
        assert_eq!(differences(&was, &was), (vec![], false));
    }

    #[test]
    fn what_is_told_is_bounded() {
        let many = |n: usize| json!((0..200).map(|i| json!(i + n)).collect::<Vec<_>>());
        let (found, truncated) = differences(&many(0), &many(1));
        assert_eq!((found.len(), truncated), (MOST, true));
        let long = |c: &str| json!(c.repeat(10_000));
        let (found, _) = differences(&long("ä"), &long("b"));
        assert_eq!(found[0].was.as_ref().unwrap().chars().count(), MAX_CHARS + 1);
    }
}
