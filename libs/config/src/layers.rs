//! How defaults, file and environment are put together.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use crate::{
    LoadRequest,
    problem::Problem,
    tree::{Entry, Node, Origin},
};

/// The table, and the prefix of variables, that every section sees.
pub(crate) const COMMON: &str = "common";
/// What all variables begin with.
const PREFIX: &str = "TRACKLAYER_";
/// Variables with names of their own: of OpenTelemetry ("OpenTelemetry Protocol Exporter", 2025-11), and our short ones.
const ALIASES: [(&str, &str, &str); 4] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry", "otlp_endpoint"),
    ("TRACKLAYER_OTLP_ENDPOINT", "telemetry", "otlp_endpoint"),
    ("TRACKLAYER_LOG", "telemetry", "log_filter"),
    ("TRACKLAYER_LOG_FORMAT", "telemetry", "log_format"),
];

/// Defaults and everything over them.
pub(crate) struct Layers {
    pub defaults: Entry,
    pub merged: Entry,
}

/// Reads all layers of a section.
pub(crate) fn read(request: &LoadRequest<'_>) -> Result<Layers, Vec<Problem>> {
    let mut problems = Vec::new();
    let defaults = match parse(request.defaults, &|_| Origin::Defaults) {
        Ok(tree) => tree,
        Err(why) => {
            problems.push(Problem::about_text(format!("the compiled-in defaults are not TOML: {why}")));
            Entry::table(Origin::Defaults)
        }
    };
    let mut merged = defaults.clone();
    if let Some(path) = request.file {
        match read_file(path) {
            Ok(mut tree) => {
                for section in [COMMON, request.section] {
                    if let Some(mut table) = tree.remove(&[section.to_owned()]) {
                        if section == COMMON {
                            mark_common(&mut table);
                        }
                        merged.overlay(table);
                    }
                }
            }
            Err(problem) => problems.push(*problem),
        }
    }
    merged.overlay(from_environment(request.environment, request.section));
    if problems.is_empty() { Ok(Layers { defaults, merged }) } else { Err(problems) }
}

/// The whole file as a tree.
pub(crate) fn read_file(path: &Path) -> Result<Entry, Box<Problem>> {
    let problem = |what: String| Box::new(Problem::about_text(what));
    let text = std::fs::read_to_string(path)
        .map_err(|error| problem(format!("the file {} cannot be read: {error}", path.display())))?;
    let starts: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let origin = |at: usize| Origin::File {
        path: PathBuf::from(path),
        line: starts.partition_point(|start| *start <= at),
        common: false,
    };
    parse(&text, &origin).map_err(|why| problem(format!("the file {} is not TOML: {why}", path.display())))
}

/// Sections that variables name, with the variable.
pub(crate) fn sections_of(environment: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let names = environment.keys().filter(|name| !ALIASES.iter().any(|(alias, _, _)| alias == name));
    names
        .filter_map(|name| {
            let (section, _) = name.strip_prefix(PREFIX)?.split_once("__")?;
            Some((section.to_lowercase(), name.clone()))
        })
        .collect()
}

fn from_environment(environment: &BTreeMap<String, String>, section: &str) -> Entry {
    let mut tree = Entry::table(Origin::Nowhere);
    let mut set = |name: &str, path: &[String], value: &str, common: bool| {
        let origin = Origin::Environment { name: name.to_owned(), common };
        tree.set(path, Entry { node: Node::Raw(value.to_owned()), origin });
    };
    for layer in [COMMON, section] {
        let prefix = format!("{PREFIX}{}__", layer.to_uppercase().replace('-', "_"));
        for (name, value) in environment {
            if let Some(path) = name.strip_prefix(&prefix).filter(|path| !path.is_empty()) {
                let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
                set(name, &path, value, layer == COMMON);
            }
        }
    }
    for (alias, of_section, key) in ALIASES {
        if of_section == section
            && let Some(value) = environment.get(alias)
        {
            set(alias, &[key.to_owned()], value, false);
        }
    }
    tree
}

fn mark_common(entry: &mut Entry) {
    if let Origin::File { common, .. } = &mut entry.origin {
        *common = true;
    }
    match &mut entry.node {
        Node::Table(table) => table.values_mut().for_each(mark_common),
        Node::List(list) => list.iter_mut().for_each(mark_common),
        _ => {}
    }
}

fn parse(text: &str, origin: &dyn Fn(usize) -> Origin) -> Result<Entry, String> {
    // The parser's own text shows the line, and the line may hold a password.
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        format!("line {line}: {}", error.message())
    })?;
    let at = table.span().start;
    Ok(Entry { node: table_node(table.get_ref(), origin)?, origin: origin(at) })
}

fn table_node(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Result<Node, String> {
    let entries = table.iter().map(|(key, value)| {
        let node = node(value.get_ref(), origin)?;
        Ok((key.get_ref().to_string(), Entry { node, origin: origin(key.span().start) }))
    });
    Ok(Node::Table(entries.collect::<Result<_, String>>()?))
}

fn node(value: &DeValue<'_>, origin: &dyn Fn(usize) -> Origin) -> Result<Node, String> {
    Ok(match value {
        DeValue::String(text) => Node::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            let parsed = i64::from_str_radix(&digits, number.radix());
            Node::Integer(parsed.map_err(|_| format!("the number {digits} is too large"))?)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().replace('_', "").parse();
            Node::Float(parsed.map_err(|_| format!("{} is not a number", number.as_str()))?)
        }
        DeValue::Boolean(value) => Node::Boolean(*value),
        DeValue::Datetime(moment) => Node::Text(moment.to_string()),
        DeValue::Array(list) => {
            let entries = list.iter().map(|item| {
                Ok(Entry { node: node(item.get_ref(), origin)?, origin: origin(item.span().start) })
            });
            Node::List(entries.collect::<Result<_, String>>()?)
        }
        DeValue::Table(table) => table_node(table, origin)?,
    })
}
