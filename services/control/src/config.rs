//! Settings of control.

use serde::Deserialize;
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_journal::Kind;

/// Everything that control can be told at start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PostgreSQL, `postgres://user:password@host/database`. The primary.
    pub database_url: Secret<String>,
    /// Which journal the installation uses, as its other services have it: over Kafka partitions stay as many as they were.
    #[serde(default)]
    pub journal: Kind,
    /// Where delivery answers, `http://host:port`: the console's counts and stories come from there. It may be away.
    pub delivery_address: String,
    /// The installation's master key; filled in from its file. Connection secrets are sealed under it, and the console's
    /// session cookies are signed with a key derived from it: all replicas need the same.
    #[serde(skip, default = "no_key")]
    pub master_key: MasterKey,
    /// Connections to PostgreSQL, 3 to 100; one of them listens for changes.
    #[serde(default = "default_connections")]
    pub database_connections: u32,
    /// Whether session cookies are only for HTTPS. On wherever a proxy terminates TLS in front of the console; off only where
    /// people reach it over plain HTTP (a laptop, a port-forward).
    #[serde(default)]
    pub console_cookies_https_only: bool,
}

fn no_key() -> MasterKey {
    MasterKey::new([0; 32])
}

const fn default_connections() -> u32 {
    10
}

impl Config {
    /// What is wrong with the settings, each with what to do.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(3..=100).contains(&self.database_connections) {
            problems
                .push(format!("database_connections is {}, allowed are 3 to 100", self.database_connections));
        }
        if !self.delivery_address.starts_with("http://") && !self.delivery_address.starts_with("https://") {
            problems.push(format!(
                "delivery_address is `{}`, expected is an address such as `http://delivery:7401`",
                self.delivery_address
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
            journal: Kind::Postgres,
            delivery_address: "delivery:7401".to_owned(),
            master_key: no_key(),
            database_connections: 1,
            console_cookies_https_only: false,
        };
        let problems = config.problems().join("\n");
        for word in
            ["database_connections is 1", "delivery_address is `delivery:7401`", "master key is missing"]
        {
            assert!(problems.contains(word), "{problems}");
        }
    }
}
