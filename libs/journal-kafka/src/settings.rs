//! What an installation says about its cluster.

use crate::access::Access;

/// Where the cluster is, and how topics are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Brokers to begin with, `host:port,host:port`.
    pub brokers: String,
    /// What the names of this installation's topics begin with.
    pub prefix: String,
    /// Replicas of each topic that is made, 1 to 9. `min.insync.replicas` is one less, so that one broker may be away.
    pub replication: u32,
    /// How connections are made, and who this is.
    pub access: Access,
}

impl KafkaSettings {
    /// Three replicas, topics `tracklayer.…`, connections that are neither encrypted nor authenticated.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: "tracklayer".to_owned(),
            replication: 3,
            access: Access::default(),
        }
    }

    /// Replicas that must have a record before it is acknowledged.
    #[must_use]
    pub fn min_in_sync(&self) -> u32 {
        self.replication.saturating_sub(1).max(1)
    }

    /// What is wrong, each with what is allowed.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let is_address = |broker: &str| {
            broker
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !self.brokers.split(',').all(|broker| is_address(broker.trim())) {
            problems.push(format!("kafka_brokers is `{}`, allowed is host:port,host:port,…", self.brokers));
        }
        // Source: Apache Kafka 4, org.apache.kafka.common.internals.Topic; 2026-11.
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.prefix.is_empty() || self.prefix.len() > 200 || !self.prefix.chars().all(legal) {
            problems.push(format!(
                "kafka_prefix is `{}`, allowed are 1 to 200 letters, digits, dots, hyphens and underscores",
                self.prefix
            ));
        }
        if !(1..=9).contains(&self.replication) {
            problems.push(format!("kafka_replication is {}, allowed are 1 to 9", self.replication));
        }
        problems.extend(self.access.problems());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::SecurityProtocol;

    #[test]
    fn good_settings_pass_and_each_bad_one_is_named() {
        assert_eq!(KafkaSettings::new("a:9092, b:9092").problems(), Vec::<String>::new());
        let bad = KafkaSettings {
            brokers: "a".into(),
            prefix: "ä".into(),
            replication: 0,
            access: Access { protocol: SecurityProtocol::Ssl, user: "u".to_owned(), ..Access::default() },
        };
        assert_eq!(bad.problems().len(), 4, "{:?}", bad.problems());
    }

    #[test]
    fn one_broker_may_be_away_wherever_there_are_more_than_one() {
        let needed = |replication| KafkaSettings { replication, ..KafkaSettings::new("a:1") }.min_in_sync();
        assert_eq!([1, 2, 3].map(needed), [1, 1, 2]);
    }
}
