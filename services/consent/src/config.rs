//! Settings of consent.

use std::path::PathBuf;

use serde::Deserialize;
use tracklayer_ids::{MasterKey, Secret};

/// Everything that consent can be told at start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PostgreSQL, `postgres://user:password@host/database`. The primary: a replica would miss withdrawals.
    pub database_url: Secret<String>,
    /// The installation's master key; filled in from its file.
    #[serde(skip, default = "no_key")]
    pub master_key: MasterKey,
    /// Connections to PostgreSQL, 2 to 200.
    #[serde(default = "default_connections")]
    pub database_connections: u32,
    /// A policy document (TOML or JSON) in place of the one that is compiled in. A changed document needs a new version.
    #[serde(default)]
    pub policy_file: Option<PathBuf>,
    /// How long receipts are kept, in days, 90 to 3,650. California asks for 24 months (11 CCR 7101).
    #[serde(default = "default_retention")]
    pub receipt_retention_days: u32,
}

fn no_key() -> MasterKey {
    MasterKey::new([0; 32])
}

const fn default_connections() -> u32 {
    16
}

const fn default_retention() -> u32 {
    731
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
        if !(90..=3_650).contains(&self.receipt_retention_days) {
            problems.push(format!(
                "receipt_retention_days is {}, allowed are 90 to 3650; laws ask for 24 months",
                self.receipt_retention_days
            ));
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
    fn every_problem_is_told_at_once() {
        let config = Config {
            database_url: Secret::new("postgres://localhost/tracklayer".to_owned()),
            master_key: no_key(),
            database_connections: 0,
            policy_file: None,
            receipt_retention_days: 1,
        };
        let problems = config.problems().join("\n");
        for word in ["database_connections is 0", "receipt_retention_days is 1", "master key is missing"] {
            assert!(problems.contains(word), "{problems}");
        }
    }
}
