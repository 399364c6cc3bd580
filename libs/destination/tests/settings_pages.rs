//! `docs/connections`: a page for each kind of connection with every setting, and one for what all documents have, made from the JSON
//! Schema that documents are checked with. The page is what the schema says, and nothing else.
//!
//! `UPDATE_DOCS=1 cargo test -p tracklayer-destination --test settings_pages` writes the pages anew; read the difference before it is
//! committed. What stands in them is mended in the comments of `src/*/settings.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its files must fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tracklayer_destination::{Kind, schema};

const UPDATE: &str = "UPDATE_DOCS=1 cargo test -p tracklayer-destination --test settings_pages";
const HEAD: &str = "| name | type | default | what it does |\n| --- | --- | --- | --- |\n";
/// What all documents have, of whatever kind.
const DOCUMENT: &str = "document.md";
/// The one page that is written by hand.
const INDEX: &str = "README.md";

/// What a schema says of one value.
#[derive(Default)]
struct Said {
    /// What it may be.
    types: Vec<String>,
    /// What is to be said beside its own description.
    notes: Vec<String>,
    /// Objects whose members have lines of their own.
    objects: Vec<Value>,
}

impl Said {
    fn of(schema: &Value, root: &Value) -> Self {
        let mut said = Self::default();
        said.read(schema, root);
        said
    }

    fn read(&mut self, schema: &Value, root: &Value) {
        if let Some(name) = schema["$ref"].as_str() {
            let target = root.pointer(name.trim_start_matches('#')).unwrap();
            self.read(target, root);
            // What the type is says what the setting says; where its rule comes from stands only there.
            let about = text_of(target);
            self.notes.extend(about.find("Source: ").map(|at| about[at..].to_owned()));
        } else if let Some(ways) = schema["anyOf"].as_array() {
            for way in ways.iter().filter(|way| way["type"] != "null") {
                self.notes.extend(way["description"].as_str().map(str::to_owned));
                self.read(way, root);
            }
        } else if let Some(words) = schema["oneOf"].as_array() {
            let all: Vec<String> = words.iter().map(|word| code(&word["const"])).collect();
            self.types.push(all.join(" or "));
            self.notes
                .extend(words.iter().map(|word| format!("{}: {}", code(&word["const"]), text_of(word))));
        } else {
            self.read_plain(schema, root);
        }
    }

    fn read_plain(&mut self, schema: &Value, root: &Value) {
        let name = match &schema["type"] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
            name => name.as_str(),
        };
        match name {
            Some("string") => self.types.push(text_type(schema)),
            Some("integer") => {
                self.types.push(format!("whole number{}", range(schema, "minimum", "maximum", "")));
            }
            Some("boolean") => self.types.push("`true` or `false`".to_owned()),
            Some("array") => self.read_inner("list of", &schema["items"], root),
            Some("object") if schema["additionalProperties"].is_object() => {
                self.read_inner("object of", &schema["additionalProperties"], root);
            }
            Some("object") => {
                self.types.push("object".to_owned());
                self.objects.extend(schema.get("properties").map(|_| schema.clone()));
            }
            _ => self.types.push("any value".to_owned()),
        }
    }

    fn read_inner(&mut self, what: &str, schema: &Value, root: &Value) {
        let inner = Self::of(schema, root);
        self.types.push(format!("{what}: {}", inner.types.join(" or ")));
        self.notes.extend(inner.notes);
        self.objects.extend(inner.objects);
    }
}

fn text_of(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn text_type(schema: &Value) -> String {
    if schema["writeOnly"] == true {
        return "secret text, one line".to_owned();
    }
    let pattern = schema["pattern"].as_str().map(|pattern| format!(", matches `{pattern}`"));
    let length = match (schema["minLength"].as_u64(), schema["maxLength"].as_u64()) {
        (Some(1), None) => ", not empty".to_owned(),
        _ => range(schema, "minLength", "maxLength", " characters"),
    };
    format!("text{length}{}", pattern.unwrap_or_default())
}

fn range(schema: &Value, least: &str, most: &str, unit: &str) -> String {
    match (schema[least].as_u64(), schema[most].as_u64()) {
        (Some(least), Some(most)) => format!(", {least} to {most}{unit}"),
        (Some(least), None) => format!(", from {least}{unit} on"),
        (None, Some(most)) => format!(", up to {most}{unit}"),
        (None, None) => String::new(),
    }
}

/// A value as code: a text without its quotes, unless nothing were left.
fn code(value: &Value) -> String {
    match value.as_str().filter(|text| !text.is_empty()) {
        Some(text) => format!("`{text}`"),
        None => format!("`{value}`"),
    }
}

fn line(cells: [&str; 4]) -> String {
    let cells = cells.map(|cell| cell.replace('\n', " ").replace('|', "\\|"));
    format!("| {} |\n", cells.join(" | "))
}

/// A line for each member of an object, and for the members of those that are objects themselves.
fn lines(object: &Value, path: &str, leave_out: &[&str], root: &Value, page: &mut String) {
    let required: Vec<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let members = object["properties"].as_object().unwrap();
    for (name, member) in members.iter().filter(|(name, _)| !leave_out.contains(&name.as_str())) {
        let said = Said::of(member, root);
        let default = match &member["default"] {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => "none".to_owned(),
            value => code(value),
        };
        let mut text = text_of(member).to_owned();
        for note in &said.notes {
            text.push(' ');
            text.push_str(note);
        }
        page.push_str(&line([&format!("`{path}{name}`"), &said.types.join(" or "), &default, &text]));
        for inner in &said.objects {
            lines(inner, &format!("{path}{name}."), &[], root, page);
        }
    }
}

fn page_of(kind: Kind) -> String {
    let root = schema(kind);
    let kinds = root["$defs"]["Kind"]["oneOf"].as_array().unwrap();
    let about = text_of(kinds.iter().find(|known| known["const"] == kind.as_str()).unwrap());
    let mut page = format!(
        "# Settings of `{kind}`\n\n{about} What stands here goes into `settings`; the rest of a document is the same for every kind: \
         [{DOCUMENT}]({DOCUMENT}).\n\nThis page is made from the schema that documents are checked with, which `tracklayer connections \
         schema {kind}` prints.\n\n{HEAD}"
    );
    lines(&root["$defs"]["Settings"], "", &[], &root, &mut page);
    page
}

fn page_of_documents() -> String {
    // They are the same for every kind.
    let root = schema(Kind::Webhook);
    let mut page = format!(
        "# What every connection's document has\n\nBeside `kind` and the kind's own `settings` ([by kind]({INDEX})). Expressions and maps: \
         [mapping.md](../mapping.md).\n\nThis page is made from the schema that documents are checked with, which `tracklayer connections \
         schema KIND` prints.\n\n{HEAD}"
    );
    lines(&root, "", &["kind", "settings"], &root, &mut page);
    page
}

fn pages() -> BTreeMap<String, String> {
    let mut pages: BTreeMap<String, String> =
        Kind::ALL.into_iter().map(|kind| (format!("{kind}.md"), page_of(kind))).collect();
    pages.insert(DOCUMENT.to_owned(), page_of_documents());
    pages
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/connections")
}

#[test]
fn every_page_of_settings_says_what_the_schema_says() {
    let update = std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1");
    let pages = pages();
    let mut different = Vec::new();
    for (name, page) in &pages {
        let file = folder().join(name);
        if update {
            fs::write(&file, page).unwrap();
        } else if fs::read_to_string(&file).ok().as_deref() != Some(page.as_str()) {
            different.push(format!("{name}:\n{page}"));
        }
    }
    let names = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let stale: Vec<String> = names.filter(|name| name != INDEX && !pages.contains_key(name)).collect();
    assert!(stale.is_empty(), "no kind has these pages any more: {stale:?}");
    assert!(
        different.is_empty(),
        "{} pages of docs/connections differ from the schema. Run\n{UPDATE}\nand read what `git diff` says. Now they are:\n{}",
        different.len(),
        different.join("\n")
    );
}

#[test]
fn every_page_is_found_from_the_index() {
    let index = fs::read_to_string(folder().join(INDEX)).unwrap();
    let missing: Vec<String> =
        pages().into_keys().filter(|name| !index.contains(&format!("({name})"))).collect();
    assert!(missing.is_empty(), "docs/connections/{INDEX} does not lead to {missing:?}");
}
