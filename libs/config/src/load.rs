//! All problems, not the first.
//!
//! The one trick: serde stops at the first fault, so the fault is noted, the value replaced by its default (or by a stand-in),
//! and the whole read again, until nothing is wrong any more. What was read with a stand-in is never given out.

use std::{collections::BTreeMap, path::Path};

use serde::de::DeserializeOwned;

use crate::{
    LoadRequest,
    layers::{self, COMMON, Layers},
    problem::{ConfigErrors, Problem},
    read::{self, CANDIDATES, Fault, Kind, Step},
    show::{is_secret, shown},
    tree::{Entry, Node, Origin},
};

/// No configuration has this many problems; if one does, the rest can wait.
const MAX_ROUNDS: usize = 200;

/// A configuration that may be used, and what is risky about it.
#[derive(Debug)]
pub struct Loaded<T> {
    /// It.
    pub config: T,
    /// Good values that are bad together.
    pub warnings: Vec<Problem>,
}

/// Reads a section.
///
/// # Errors
/// Everything that is wrong: unknown, missing and unusable values, unreadable files.
pub fn load<T: DeserializeOwned>(request: LoadRequest<'_>) -> Result<T, ConfigErrors> {
    load_checked(request, |_: &T| Vec::<Problem>::new()).map(|loaded| loaded.config)
}

/// Reads a section and lets `validate` judge it. `validate` may give [`Problem`]s or sentences.
///
/// # Errors
/// As [`load`]; and what `validate` says, but for warnings. `validate` is asked only where everything could be read.
pub fn load_checked<T: DeserializeOwned, P: Into<Problem>>(
    request: LoadRequest<'_>,
    validate: impl FnOnce(&T) -> Vec<P>,
) -> Result<Loaded<T>, ConfigErrors> {
    let failed = |problems| ConfigErrors { section: request.section.to_owned(), problems };
    let layers = layers::read(&request).map_err(failed)?;
    let (config, tree) = settle::<T>(layers).map_err(failed)?;
    let judged = validate(&config).into_iter().map(|problem| locate(problem.into(), &tree));
    let (warnings, problems): (Vec<_>, Vec<_>) = judged.partition(|problem| problem.warning);
    if problems.is_empty() { Ok(Loaded { config, warnings }) } else { Err(failed(problems)) }
}

/// Looks for sections that nobody reads: a slip in a table's or a variable's name would otherwise be silent.
///
/// # Errors
/// One problem for each.
pub fn unknown_sections(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    known: &[&str],
) -> Result<(), ConfigErrors> {
    let is_known = |section: &str| section == COMMON || known.contains(&section);
    let mut problems = Vec::new();
    if let Some(path) = file {
        match layers::read_file(path) {
            Ok(Entry { node: Node::Table(table), .. }) => {
                for (section, entry) in table.iter().filter(|(section, _)| !is_known(section)) {
                    problems.push(unknown(section, "section", known, &entry.origin));
                }
            }
            Ok(_) => {}
            Err(problem) => problems.push(*problem),
        }
    }
    for (section, name) in layers::sections_of(environment) {
        if !is_known(&section) {
            let origin = Origin::Environment { name, common: false };
            problems.push(unknown(&section, "section", known, &origin));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigErrors { section: String::new(), problems }) }
}

/// Reads until nothing is wrong; gives the value and the tree that it was read from, or every problem.
pub(crate) fn settle<T: DeserializeOwned>(layers: Layers) -> Result<(T, Entry), Vec<Problem>> {
    let Layers { defaults, merged: mut tree } = layers;
    let mut problems = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let fault = match read::read::<T>(&tree) {
            Ok(config) if problems.is_empty() => return Ok((config, tree)),
            Ok(_) => return Err(problems),
            Err(fault) => fault,
        };
        let mended = mend(&mut tree, &defaults, &fault, &mut problems);
        if !mended {
            break;
        }
    }
    Err(problems)
}

/// Notes the fault and mends the tree so that reading can go on. False where it cannot.
fn mend(tree: &mut Entry, defaults: &Entry, fault: &Fault, problems: &mut Vec<Problem>) -> bool {
    let keys = keys(&fault.path);
    let name = written(&fault.path);
    let there = tree.get(&keys).cloned();
    match &fault.kind {
        Kind::Unknown(known) => {
            let Some(entry) = tree.remove(&keys) else { return false };
            if let Some(base) = base_of_file_key(&keys, known) {
                match read_named(&entry, &name) {
                    Ok(value) => tree.set(&base, value),
                    Err(problem) => {
                        problems.push(*problem);
                        tree.set(&base, stand_in(0));
                    }
                }
            } else if !entry.origin.is_common() {
                problems.push(unknown(&name, "key", known, &entry.origin));
            }
            true
        }
        Kind::Missing => {
            problems.push(Problem {
                key: name,
                what: "is missing".to_owned(),
                advice: Some("set it in the file or in the environment".to_owned()),
                ..Problem::default()
            });
            tree.set(&keys, stand_in(0));
            true
        }
        Kind::Bad(why) => {
            let Some(entry) = there.filter(|_| !keys.is_empty()) else {
                problems.push(Problem::about_text(why.clone()));
                return false;
            };
            if let Node::StandIn(candidate) = entry.node {
                let more = candidate + 1 < CANDIDATES.len();
                tree.set(&keys, stand_in(candidate + 1));
                return more;
            }
            problems.push(Problem {
                value: Some(shown(&name, &item(&entry, &fault.path))),
                origin: Some(entry.origin.to_string()),
                // What serde says repeats the value.
                what: if is_secret(&name) { "is not usable".to_owned() } else { why.clone() },
                key: name,
                ..Problem::default()
            });
            let default = defaults.get(&keys).filter(|_| entry.origin != Origin::Defaults).cloned();
            tree.set(&keys, default.unwrap_or_else(|| stand_in(0)));
            true
        }
    }
}

fn stand_in(candidate: usize) -> Entry {
    Entry { node: Node::StandIn(candidate), origin: Origin::Nowhere }
}

/// `x_file` stands for `x` where the struct has an `x` and no `x_file`.
fn base_of_file_key(keys: &[String], known: &[&str]) -> Option<Vec<String>> {
    let (last, above) = keys.split_last()?;
    let base = last.strip_suffix("_file").filter(|base| known.contains(base))?;
    Some(above.iter().cloned().chain([base.to_owned()]).collect())
}

fn read_named(entry: &Entry, key: &str) -> Result<Entry, Box<Problem>> {
    let (Node::Text(path) | Node::Raw(path)) = &entry.node else {
        return Err(Box::new(Problem {
            origin: Some(entry.origin.to_string()),
            ..Problem::new(key, "is not text", "the path of a file", "name the file that holds the value")
        }));
    };
    let path = Path::new(path);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Entry {
            node: Node::Raw(text.trim().to_owned()),
            origin: Origin::Named { path: path.to_owned(), by: key.to_owned() },
        }),
        Err(error) => Err(Box::new(Problem {
            value: Some(format!("\"{}\"", path.display())),
            origin: Some(entry.origin.to_string()),
            ..Problem::new(
                key,
                format!("cannot be read: {error}"),
                "the path of a readable file",
                "check the path and who may read it",
            )
        })),
    }
}

fn unknown(name: &str, noun: &str, known: &[&str], origin: &Origin) -> Problem {
    let last = name.rsplit('.').next().unwrap_or(name);
    let near = known.iter().map(|key| (distance(last, key), *key)).min().filter(|(far, _)| *far <= 3);
    let advice = match near {
        Some((_, key)) => format!("did you mean `{key}`?"),
        None => "remove it".to_owned(),
    };
    Problem {
        origin: Some(origin.to_string()),
        ..Problem::new(name, format!("is no {noun} that anything reads"), known.join(", "), advice)
    }
}

/// Adds value and origin to what `validate` said.
fn locate(mut problem: Problem, tree: &Entry) -> Problem {
    let said = if problem.key.is_empty() {
        problem.what.split([' ', ':', '=']).next().unwrap_or_default().trim_matches('`').to_owned()
    } else {
        problem.key.clone()
    };
    let keys: Vec<String> = said.split('.').map(str::to_owned).collect();
    if let Some(entry) = tree.get(&keys) {
        problem.origin.get_or_insert_with(|| entry.origin.to_string());
        if !problem.key.is_empty() {
            problem.value.get_or_insert_with(|| shown(&said, entry));
        }
    }
    problem
}

/// Keys of the path down to the first list: a list is mended as a whole.
fn keys(path: &[Step]) -> Vec<String> {
    path.iter()
        .map_while(|step| match step {
            Step::Key(key) => Some(key.clone()),
            Step::Item(_) => None,
        })
        .collect()
}

/// The path as people write it: `kafka.brokers[2]`.
fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Item(at) => text.push_str(&format!("[{at}]")),
        }
    }
    text
}

/// The item of a list that the path names, or the whole value.
fn item(entry: &Entry, path: &[Step]) -> Entry {
    let at = path.iter().find_map(|step| match step {
        Step::Item(at) => Some(*at),
        Step::Key(_) => None,
    });
    match (&entry.node, at) {
        (Node::List(list), Some(at)) => list.get(at).unwrap_or(entry).clone(),
        _ => entry.clone(),
    }
}

/// How many letters one has to change to come from one word to the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let above = row[j + 1];
            let change = diagonal + usize::from(a != *b);
            row[j + 1] = change.min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[other.len()]
}
