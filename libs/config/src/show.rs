//! The settings that are in force, each with where it came from; secrets as `***`.

use std::fmt::Write as _;

use serde::de::DeserializeOwned;

use crate::{
    ConfigErrors, LoadRequest,
    layers::{self, Layers},
    load::settle,
    tree::{Entry, Node},
};

/// The section as TOML with a comment per line. Secrets are `***`: by the key's name, and passwords inside of addresses.
///
/// # Errors
/// As [`crate::load`]: what cannot be read cannot be in force.
pub fn show<T: DeserializeOwned>(request: LoadRequest<'_>) -> Result<String, ConfigErrors> {
    let failed = |problems| ConfigErrors { section: request.section.to_owned(), problems };
    let Layers { defaults, merged } = layers::read(&request).map_err(failed)?;
    let (_, tree) = settle::<T>(Layers { defaults, merged }).map_err(failed)?;
    let mut text = format!("[{}]\n", request.section);
    write_table(&mut text, "", &tree);
    Ok(text)
}

fn write_table(text: &mut String, prefix: &str, entry: &Entry) {
    let Node::Table(table) = &entry.node else { return };
    for (key, entry) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Node::Table(_) = entry.node {
            write_table(text, &name, entry);
        } else {
            let _ = writeln!(text, "{name} = {}  # {}", shown(&name, entry), entry.origin);
        }
    }
}

/// Whether a key holds something that must not be printed. Paths of files that hold it may be.
pub(crate) fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let words: Vec<&str> = last.split(['_', '[']).collect();
    let named =
        words.iter().any(|word| matches!(*word, "secret" | "password" | "token" | "key" | "credentials"));
    named && !last.ends_with("_file")
}

/// A value as TOML, masked if it has to be.
pub(crate) fn shown(key: &str, entry: &Entry) -> String {
    if is_secret(key) {
        return "\"***\"".to_owned();
    }
    match &entry.node {
        Node::Text(text) | Node::Raw(text) => format!("{:?}", without_password(text)),
        Node::Integer(number) => number.to_string(),
        Node::Float(number) => number.to_string(),
        Node::Boolean(value) => value.to_string(),
        Node::List(list) => {
            let items: Vec<String> = list.iter().map(|item| shown(key, item)).collect();
            format!("[{}]", items.join(", "))
        }
        Node::Table(table) => {
            let items: Vec<String> =
                table.iter().map(|(inner, entry)| format!("{inner} = {}", shown(inner, entry))).collect();
            format!("{{ {} }}", items.join(", "))
        }
        Node::StandIn(_) => "(not set)".to_owned(),
    }
}

/// `scheme://user:password@host` with the password masked. The last `@` before the path counts: passwords may hold one.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = rest[..authority_end].rfind('@').or_else(|| rest.rfind('@'));
    let Some(at) = at else { return text.to_owned() };
    let (userinfo, host) = rest.split_at(at);
    match userinfo.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{host}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_inside_of_addresses_are_masked() {
        for (address, masked) in [
            ("postgres://u:p@h/d", "postgres://u:***@h/d"),
            ("postgres://u:p@ss@h/d", "postgres://u:***@h/d"),
            ("postgres://u:p/ss@h/d", "postgres://u:***@h/d"),
            ("redis://:p@h:1", "redis://:***@h:1"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("http://h:1", "http://h:1"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_password(address), masked);
        }
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for key in ["master_key", "a.password", "token", "client_secret", "keys.api_key"] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["master_key_file", "listen", "keyspace", "token_bucket_file", "monkey"] {
            assert!(!is_secret(key), "{key}");
        }
    }
}
