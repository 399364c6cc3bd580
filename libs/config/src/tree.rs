//! Values and where each came from.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Compiled in.
    Defaults,
    /// A line of the operator's file. `common`: from the table for all.
    File { path: PathBuf, line: usize, common: bool },
    /// A variable.
    Environment { name: String, common: bool },
    /// A file that another key named.
    Named { path: PathBuf, by: String },
    /// Nobody set it: stands in so that reading can go on and find further problems.
    Nowhere,
}

impl Origin {
    /// For whoever knows the key; others pass it over.
    pub(crate) fn is_common(&self) -> bool {
        match self {
            Self::File { common, .. } | Self::Environment { common, .. } => *common,
            Self::Defaults | Self::Named { .. } | Self::Nowhere => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("the compiled-in defaults"),
            Self::File { path, line, .. } => write!(f, "{} line {line}", path.display()),
            Self::Environment { name, .. } => write!(f, "environment {name}"),
            Self::Named { path, by } => write!(f, "{} (named by `{by}`)", path.display()),
            Self::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Table(BTreeMap<String, Entry>),
    List(Vec<Entry>),
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// From the environment: text that is read as whatever is wanted.
    Raw(String),
    /// Stands in for what is missing or wrong; the number says which of the candidates is tried.
    StandIn(usize),
}

/// A value with its origin.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub node: Node,
    pub origin: Origin,
}

impl Entry {
    pub(crate) fn table(origin: Origin) -> Self {
        Self { node: Node::Table(BTreeMap::new()), origin }
    }

    /// The value under a path of keys.
    pub(crate) fn get(&self, path: &[String]) -> Option<&Self> {
        let Some((key, rest)) = path.split_first() else { return Some(self) };
        match &self.node {
            Node::Table(table) => table.get(key)?.get(rest),
            _ => None,
        }
    }

    /// Puts a value under a path, making tables on the way.
    pub(crate) fn set(&mut self, path: &[String], entry: Self) {
        let Some((key, rest)) = path.split_first() else {
            *self = entry;
            return;
        };
        if !matches!(self.node, Node::Table(_)) {
            self.node = Node::Table(BTreeMap::new());
        }
        if let Node::Table(table) = &mut self.node {
            table.entry(key.clone()).or_insert_with(|| Self::table(entry.origin.clone())).set(rest, entry);
        }
    }

    /// Takes a value away.
    pub(crate) fn remove(&mut self, path: &[String]) -> Option<Self> {
        let (key, rest) = path.split_first()?;
        let Node::Table(table) = &mut self.node else { return None };
        if rest.is_empty() { table.remove(key) } else { table.get_mut(key)?.remove(rest) }
    }

    /// Lays another over this one: tables key by key, everything else as a whole.
    pub(crate) fn overlay(&mut self, over: Self) {
        match (&mut self.node, over.node) {
            (Node::Table(below), Node::Table(above)) => {
                for (key, entry) in above {
                    match below.get_mut(&key) {
                        Some(known) => known.overlay(entry),
                        None => {
                            below.insert(key, entry);
                        }
                    }
                }
            }
            (_, node) => *self = Self { node, origin: over.origin },
        }
    }
}
