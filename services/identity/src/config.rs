//! Settings of identity.

use std::path::PathBuf;

use serde::Deserialize;
use tracklayer_ids::{MasterKey, Secret};

/// Everything that identity can be told at start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PostgreSQL, `postgres://user:password@host/database`. The primary.
    pub database_url: Secret<String>,
    /// The installation's master key; filled in from its file. Identifiers are hashed under it: with another one, nobody is
    /// recognised any more.
    #[serde(skip, default = "no_key")]
    pub master_key: MasterKey,
    /// Where consent answers, `http://host:port`: it is told of merges and splits.
    pub consent_address: String,
    /// Connections to PostgreSQL, 2 to 200.
    #[serde(default = "default_database_connections")]
    pub database_connections: u32,
    /// A JSON file with identifier types, their limits and blocked values; absent: the built-in policy. What it changes reaches a
    /// stored profile the next time that this is recomputed, which a new device or browser that only joins it does not cause.
    #[serde(default)]
    pub policy_file: Option<PathBuf>,
}

fn no_key() -> MasterKey {
    MasterKey::new([0; 32])
}

const fn default_database_connections() -> u32 {
    20
}

impl Config {
    /// What is wrong with the settings, each with what to do.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(2..=200).contains(&self.database_connections) {
            problems
                .push(format!("database_connections is {}, allowed are 2 to 200", self.database_connections));
        }
        if self.master_key.secrets() == no_key().secrets() {
            problems
                .push("the master key is missing; make one with `tracklayer master-key > FILE`".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_a_key_or_with_too_few_connections_are_refused() {
        let read = |text: &str| serde_json::from_str::<Config>(text).unwrap();
        let mut config = read(
            r#"{"database_url": "postgres://localhost/t", "consent_address": "http://c", "database_connections": 1}"#,
        );
        assert_eq!(config.problems().len(), 2);
        config.master_key = MasterKey::new([1; 32]);
        config.database_connections = 20;
        assert_eq!(config.problems(), Vec::<String>::new());
    }
}
