//! The topics: their names, and that they are there with the settings that durability needs before the first record goes out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::types::RDKafkaErrorCode;
use tracklayer_ids::{Partition, WorkspaceId};

use crate::client::{PATIENCE, Quiet, config};
use crate::door::Door;
use crate::settings::KafkaSettings;
use crate::{KafkaFailure, MAX_RECORD_BYTES};

/// Partitions of a new topic, if not more are needed. A workspace has as many unless it was made with another number.
const FIRST_PARTITIONS: usize = 4;
/// How often it is looked whether a topic that was just made is known everywhere, and the pause between two looks.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Which of a workspace's two topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// What ingest has accepted.
    Received,
    /// What resolve has made of it.
    Resolved,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Resolved => "resolved",
        }
    }
}

/// The name of a workspace's topic.
#[must_use]
pub fn topic(prefix: &str, workspace: WorkspaceId, stage: Stage) -> String {
    format!("{prefix}.{}.{}", workspace.0, stage.as_str())
}

/// The settings with which a topic is made, and which [`crate::KafkaJournal`]'s look at its durability expects.
/// Source: Apache Kafka 4, "Topic Configs"; 2026-11.
pub(crate) fn topic_settings(settings: &KafkaSettings) -> [(&'static str, String); 8] {
    [
        ("cleanup.policy", "delete".to_owned()),
        // Nothing is deleted by time or size: only `trim` knows what every cursor has behind it.
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("min.insync.replicas", settings.min_in_sync().to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
        ("max.message.bytes", (MAX_RECORD_BYTES + 1024).to_string()),
        // Blocks are compressed already.
        ("compression.type", "producer".to_owned()),
        // Room is given back by whole segments.
        ("segment.bytes", (256 * 1024 * 1024).to_string()),
    ]
}

/// Makes topics and says what is there. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Topics {
    settings: KafkaSettings,
    admin: Arc<AdminClient<Quiet>>,
    door: Door,
    /// How many partitions each topic is known to have.
    known: Arc<Mutex<HashMap<String, usize>>>,
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").field("settings", &self.settings).finish_non_exhaustive()
    }
}

pub(crate) fn patient() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

impl Topics {
    pub(crate) fn new(settings: &KafkaSettings, door: &Door) -> Result<Self, KafkaFailure> {
        let admin = AdminClient::from_config_and_context(&config(settings), Quiet::before(door))?;
        Ok(Self {
            settings: settings.clone(),
            admin: Arc::new(admin),
            door: door.clone(),
            known: Arc::default(),
            one_at_a_time: Arc::default(),
        })
    }

    pub(crate) fn name(&self, workspace: WorkspaceId, stage: Stage) -> String {
        topic(&self.settings.prefix, workspace, stage)
    }

    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    pub(crate) fn admin(&self) -> &AdminClient<Quiet> {
        &self.admin
    }

    /// Makes the topic with that partition, unless it is there.
    pub(crate) async fn ensure(&self, topic: &str, partition: Partition) -> Result<(), KafkaFailure> {
        let needed = partition.0 as usize + 1;
        if self.partitions_known(topic) >= needed {
            return Ok(());
        }
        let _one = self.one_at_a_time.lock().await;
        if self.partitions_known(topic) >= needed {
            return Ok(());
        }
        self.make(topic, needed.max(FIRST_PARTITIONS)).await?;
        let mut there = self.partitions(topic, 1).await?;
        if there < needed {
            self.grow(topic, needed).await?;
            // A broker may tell of the topic as it was for a moment longer.
            there = self.partitions(topic, needed).await?;
        }
        if there < needed {
            return Err(KafkaFailure::NoTopic(format!("{topic} with {needed} partitions")));
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), there);
        Ok(())
    }

    /// The topic may have been deleted: looks again before the next record.
    pub(crate) fn forget(&self, topic: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    fn partitions_known(&self, topic: &str) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied().unwrap_or(0)
    }

    async fn make(&self, topic: &str, partitions: usize) -> Result<(), KafkaFailure> {
        let replication = TopicReplication::Fixed(self.settings.replication.cast_signed());
        let with = topic_settings(&self.settings);
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        let mut new = NewTopic::new(topic, partitions, replication);
        for (key, value) in &with {
            new = new.set(key, value);
        }
        let made = self.admin.create_topics([&new], &patient()).await;
        for made in made.map_err(|error| self.door.explain(error.into()))? {
            match made {
                Ok(_) => tracing::info!(topic, partitions, "made a topic"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    if code == RDKafkaErrorCode::InvalidReplicationFactor {
                        tracing::error!(
                            topic,
                            replicas = self.settings.replication,
                            "the cluster has too few brokers for the replicas of a topic; see kafka_replication"
                        );
                    }
                    return Err(self.door.explain(code.into()));
                }
            }
        }
        self.door.opened();
        Ok(())
    }

    async fn grow(&self, topic: &str, partitions: usize) -> Result<(), KafkaFailure> {
        for grown in
            self.admin.create_partitions([&NewPartitions::new(topic, partitions)], &patient()).await?
        {
            match grown {
                // Another process was first.
                Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
                Err((_, code)) => return Err(code.into()),
            }
        }
        Ok(())
    }

    /// How many partitions a topic that was made before has, as soon as there are at least so many and each of them has a leader.
    async fn partitions(&self, topic: &str, at_least: usize) -> Result<usize, KafkaFailure> {
        let mut seen = 0;
        for _ in 0..LOOKS {
            let (there, all_led) = self.layout(topic).await?;
            seen = there;
            if there >= at_least && all_led {
                return Ok(there);
            }
            tokio::time::sleep(PAUSE).await;
        }
        if seen == 0 { Err(KafkaFailure::NoTopic(topic.to_owned())) } else { Ok(seen) }
    }

    async fn layout(&self, topic: &str) -> Result<(usize, bool), KafkaFailure> {
        let name = topic.to_owned();
        let metadata = self.ask(move |client| client.fetch_metadata(Some(&name), PATIENCE)).await?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.map_or((0, false), |found| {
            let partitions = found.partitions();
            (partitions.len(), partitions.iter().all(|p| p.leader() >= 0 && p.error().is_none()))
        }))
    }

    /// Where the log of a partition begins and ends: its first record, and the number of the next one.
    pub(crate) async fn bounds(&self, topic: &str, partition: i32) -> Result<(u64, u64), KafkaFailure> {
        let topic = topic.to_owned();
        let asked = self.ask(move |client| client.fetch_watermarks(&topic, partition, PATIENCE));
        let (low, high) = asked.await?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    /// Asks the client library something that waits for an answer.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client<Quiet>) -> rdkafka::error::KafkaResult<T> + Send + 'static,
    ) -> Result<T, KafkaFailure> {
        let admin = Arc::clone(&self.admin);
        let asked = tokio::task::spawn_blocking(move || question(admin.inner()));
        // It does not panic; at the end of the process it may not run any more.
        let answer = asked.await.map_err(|_| KafkaFailure::Silent(PATIENCE))?;
        let answer = answer.map_err(|error| self.door.explain(error.into()))?;
        self.door.opened();
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_belongs_to_one_workspace_and_nothing_in_it_is_deleted_by_time() {
        assert_eq!(topic("tracklayer", WorkspaceId(7), Stage::Received), "tracklayer.7.received");
        let settings: HashMap<_, _> = topic_settings(&KafkaSettings::new("a:1")).into_iter().collect();
        assert_eq!(settings["retention.ms"], "-1");
        assert_eq!(settings["retention.bytes"], "-1");
        assert_eq!(settings["cleanup.policy"], "delete");
        assert_eq!(settings["min.insync.replicas"], "2");
        assert_eq!(settings["unclean.leader.election.enable"], "false");
    }
}
