//! Two requests as their leaves, place by place.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Every value of a request by its place: `data[0].user_data.em`. A list of plain values is one leaf, an empty object too.
pub type Leaves = BTreeMap<String, Value>;

/// One place at which the two sides are not the same.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The place.
    pub path: String,
    /// What we send there.
    pub ours: Option<Value>,
    /// What they send there.
    pub theirs: Option<Value>,
}

/// The leaves of a body.
pub fn leaves(body: &Value) -> Leaves {
    let mut found = Leaves::new();
    collect(String::new(), body, &mut found);
    found
}

fn collect(path: String, value: &Value, found: &mut Leaves) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                collect(format!("{path}{dot}{key}"), value, found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (index, value) in list.iter().enumerate() {
                collect(format!("{path}[{index}]"), value, found);
            }
        }
        leaf => drop(found.insert(path, leaf.clone())),
    }
}

/// The places that are the same, and those that are not.
pub fn compare(ours: &Leaves, theirs: &Leaves) -> (Vec<String>, Vec<Difference>) {
    let mut same = Vec::new();
    let mut different = Vec::new();
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for path in paths {
        let (of_us, of_them) = (ours.get(path), theirs.get(path));
        if of_us.zip(of_them).is_some_and(|(ours, theirs)| is_same(ours, theirs)) {
            same.push(path.clone());
        } else {
            different.push(Difference { path: path.clone(), ours: of_us.cloned(), theirs: of_them.cloned() });
        }
    }
    (same, different)
}

/// The same JSON; numbers by their value, for 3 and 3.0 are one.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The place without its indexes, which rules and tables name.
pub fn place(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        out.push(c);
    }
    out
}
