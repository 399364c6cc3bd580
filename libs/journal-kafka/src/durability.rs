//! Whether what is acknowledged outlives the loss of a broker.

use std::collections::BTreeMap;

use rdkafka::admin::ResourceSpecifier;

use crate::KafkaFailure;
use crate::client::PATIENCE;
use crate::journal::KafkaJournal;
use crate::topics::{patient, topic_settings};

/// Topics that are asked about with one request.
const AT_ONCE: usize = 100;

impl KafkaJournal {
    /// What a topic that is made would lack, and what those that are there lack, in words.
    pub(crate) async fn durability_weaknesses(&self) -> Result<Vec<String>, KafkaFailure> {
        let mut weaknesses = Vec::new();
        if self.settings.replication < 2 {
            weaknesses.push(
                "kafka_replication is 1: the loss of a broker's disk loses acknowledged events (3 is good)"
                    .to_owned(),
            );
        } else if self.settings.min_in_sync() < 2 {
            weaknesses.push(
                "kafka_replication is 2: while one broker is away, the loss of the other loses acknowledged events \
                 (3 is good)"
                    .to_owned(),
            );
        }
        let metadata = self.topics.ask(|client| client.fetch_metadata(None, PATIENCE)).await?;
        let ours = format!("{}.", self.settings.prefix);
        let mut topics = Vec::new();
        for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with(&ours)) {
            let fewest =
                topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
            if fewest < self.settings.replication as usize {
                weaknesses.push(format!("topic {} has partitions with {fewest} replicas only", topic.name()));
            }
            topics.push(topic.name().to_owned());
        }
        for some in topics.chunks(AT_ONCE) {
            let asked: Vec<_> = some.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
            for (topic, answer) in
                some.iter().zip(self.topics.admin().describe_configs(&asked, &patient()).await?)
            {
                let answer = answer?;
                let found: BTreeMap<&str, &str> = answer
                    .entries
                    .iter()
                    .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
                    .collect();
                weaknesses.extend(self.faults_of(topic, &found));
            }
        }
        Ok(weaknesses)
    }

    fn faults_of(&self, topic: &str, found: &BTreeMap<&str, &str>) -> Vec<String> {
        let wanted: BTreeMap<_, _> = topic_settings(&self.settings).into_iter().collect();
        let mut faults = Vec::new();
        for (key, danger) in [
            ("min.insync.replicas", "acknowledged events are on too few brokers"),
            (
                "unclean.leader.election.enable",
                "a replica that lacks acknowledged events may become the leader",
            ),
            ("retention.ms", "events are deleted by time, read or not"),
            ("retention.bytes", "events are deleted by size, read or not"),
            ("cleanup.policy", "events are deleted by key"),
        ] {
            let (Some(wanted), Some(found)) = (wanted.get(key), found.get(key)) else { continue };
            let enough = match key {
                "min.insync.replicas" => found.parse::<u32>().ok() >= wanted.parse().ok(),
                _ => found == wanted,
            };
            if !enough {
                faults.push(format!("topic {topic} has {key}={found} instead of {wanted}: {danger}"));
            }
        }
        faults
    }
}
