//! Settings of delivery.

use serde::Deserialize;
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_journal::Kind;
use tracklayer_journal_kafka::{Access, KafkaSettings, SaslMechanism, SecurityProtocol};

use crate::file_memory;

/// Everything that delivery can be told at start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PostgreSQL, `postgres://user:password@host/database`. The primary.
    pub database_url: Secret<String>,
    /// Where events are kept until they are delivered, `postgres` or `kafka`; the same for ingest and delivery.
    pub journal: Kind,
    /// Brokers to begin with, `host:port,host:port`. Only for `kafka`.
    pub kafka_brokers: String,
    /// What the names of this installation's topics begin with. Only for `kafka`.
    pub kafka_prefix: String,
    /// Replicas of each topic that is made, 1 to 9. Only for `kafka`.
    pub kafka_replication: u32,
    /// How connections to Kafka are made: `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub kafka_security_protocol: SecurityProtocol,
    /// Certificates of the authorities by which the brokers' are judged, PEM; empty: those that the system trusts. Only with TLS.
    pub kafka_ca: String,
    /// This installation's certificate for brokers that ask for one, with what stands between it and its authority, PEM. Only with
    /// TLS.
    pub kafka_certificate: String,
    /// The key of `kafka_certificate`, PEM, without a passphrase.
    pub kafka_certificate_key: Secret<String>,
    /// How user name and password are shown: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`. Only with SASL.
    pub kafka_sasl_mechanism: SaslMechanism,
    /// The user's name. Only with SASL.
    pub kafka_user: String,
    /// The user's password. Only with SASL.
    pub kafka_password: Secret<String>,
    /// Redis, `redis://host:port`. Holds the claims; must run with `maxmemory-policy noeviction`.
    pub redis_url: Secret<String>,
    /// Where control answers, `http://host:port`.
    pub control_address: String,
    /// Where identity answers.
    pub identity_address: String,
    /// Where consent answers.
    pub consent_address: String,
    /// The installation's master key; filled in from its file.
    #[serde(skip, default = "no_key")]
    pub master_key: MasterKey,
    /// How long a lease holds without a renewal, milliseconds, 500 to 60,000. A process that is gone is replaced after this.
    pub lease_ms: u64,
    /// How often heads and cursors are looked at, milliseconds, 1 to 1,000.
    pub poll_ms: u64,
    /// Memory for decoded events that lanes share, bytes.
    pub entry_cache_bytes: u64,
    /// Connections to PostgreSQL, 4 to 200.
    pub database_connections: u32,
    /// Whether connections may go to private addresses: an operator's word for the whole installation.
    pub allow_private_addresses: bool,
    /// Folder below which warehouse connections may write files, the same on every machine that runs delivery; empty: nowhere.
    pub warehouse_root: String,
    /// Memory for what lanes write into files, bytes, over all warehouse connections of a process. 64,000,000 to 1,000,000,000,000.
    pub file_memory_bytes: u64,
    /// Days for which it is counted by the minute what events could be matched by, 2 to 400.
    pub match_quality_days: u32,
    /// Days for which it is counted by the minute which sources send twins of each other's events, 2 to 400.
    pub twin_days: u32,
    /// Days for which dead letters are kept, 1 to 400.
    pub dead_letter_days: u32,
}

fn no_key() -> MasterKey {
    MasterKey::new([0; 32])
}

impl Config {
    /// Where the Kafka cluster is, if there is one.
    #[must_use]
    pub fn kafka(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.kafka_brokers.clone(),
            prefix: self.kafka_prefix.clone(),
            replication: self.kafka_replication,
            access: Access {
                protocol: self.kafka_security_protocol,
                ca: self.kafka_ca.clone(),
                certificate: self.kafka_certificate.clone(),
                certificate_key: self.kafka_certificate_key.clone(),
                mechanism: self.kafka_sasl_mechanism,
                user: self.kafka_user.clone(),
                password: self.kafka_password.clone(),
            },
        }
    }

    /// Where warehouse connections may write.
    #[must_use]
    pub fn file_rules(&self) -> tracklayer_lake::Rules {
        let root = Some(&self.warehouse_root).filter(|root| !root.is_empty()).map(std::path::PathBuf::from);
        tracklayer_lake::Rules { root, allow_private: self.allow_private_addresses }
    }

    /// What is wrong with the settings, each with what to do.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = match self.journal {
            Kind::Postgres => Vec::new(),
            Kind::Kafka => self.kafka().problems(),
        };
        if !(500..=60_000).contains(&self.lease_ms) {
            problems.push(format!("lease_ms is {}, allowed are 500 to 60000 milliseconds", self.lease_ms));
        }
        if !(1..=1_000).contains(&self.poll_ms) {
            problems.push(format!("poll_ms is {}, allowed are 1 to 1000 milliseconds", self.poll_ms));
        }
        if !(4..=200).contains(&self.database_connections) {
            problems
                .push(format!("database_connections is {}, allowed are 4 to 200", self.database_connections));
        }
        if !self.warehouse_root.is_empty() && !std::path::Path::new(&self.warehouse_root).is_absolute() {
            problems.push(
                "warehouse_root must begin with /, or be empty where no files may be written".to_owned(),
            );
        }
        let allowed = file_memory::LEAST_BYTES..=file_memory::MOST_BYTES;
        if !allowed.contains(&self.file_memory_bytes) {
            problems.push(format!(
                "file_memory_bytes is {}, allowed are {} to {} bytes",
                self.file_memory_bytes,
                allowed.start(),
                allowed.end()
            ));
        }
        if !(2..=400).contains(&self.match_quality_days) {
            problems.push(format!("match_quality_days is {}, allowed are 2 to 400", self.match_quality_days));
        }
        if !(2..=400).contains(&self.twin_days) {
            problems.push(format!("twin_days is {}, allowed are 2 to 400", self.twin_days));
        }
        if !(1..=400).contains(&self.dead_letter_days) {
            problems.push(format!("dead_letter_days is {}, allowed are 1 to 400", self.dead_letter_days));
        }
        problems
    }
}
