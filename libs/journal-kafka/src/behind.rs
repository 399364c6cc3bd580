//! How far readers are behind the ends of their partitions, without reading a record.
//!
//! A cluster says where a partition ends, but not when a record was written: only which is the first record from a time on. So
//! the age of the record that a reader comes to next is closed in on, for all partitions at once. Times are those that ingest gave the
//! records; where the clocks of two of its replicas differ, so does the age.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset as LogOffset, TopicPartitionList};
use tracklayer_ids::WorkspaceId;
use tracklayer_journal::Place;
use tracklayer_journal::inspect::Behind;

use crate::KafkaFailure;
use crate::client::{PATIENCE, Quiet, config};
use crate::journal::KafkaJournal;
use crate::topics::Stage;

/// The first age that is asked for, milliseconds: most readers are younger.
const FIRST_MS: i64 = 4_000;
/// Nothing is told to be older, milliseconds: 400 days.
const LONGEST_MS: i64 = 400 * 86_400_000;
/// How exact an age is: so many milliseconds, or a sixteenth of itself.
const EXACT_MS: i64 = 1_000;
const EXACT_PART: i64 = 16;

/// A record that somebody comes to next: topic, partition, number.
type Next = (String, i32, u64);

impl KafkaJournal {
    /// How far these places are behind, in their order.
    pub(crate) async fn behind_ends(
        &self,
        places: &[(WorkspaceId, Place)],
    ) -> Result<Vec<Behind>, KafkaFailure> {
        let mut ends: BTreeMap<(String, i32), (u64, u64)> = BTreeMap::new();
        let mut found: Vec<(Next, u64)> = Vec::with_capacity(places.len());
        for (workspace, place) in places {
            let topic = self.topics.name(*workspace, Stage::Received);
            let partition = place.at.partition;
            let number = partition.0.cast_signed();
            let key = (topic.clone(), number);
            let (low, high) = match ends.get(&key).copied() {
                Some(known) => known,
                None => {
                    self.topics.ensure(&topic, partition).await?;
                    let bounds = self.topics.bounds(&topic, number).await?;
                    ends.insert(key, bounds);
                    bounds
                }
            };
            // What was trimmed does not wait.
            let next = place.record.map_or(0, |record| record.offset).max(low);
            found.push(((topic, number, next), high.saturating_sub(next)));
        }
        let mut waiting: Vec<Next> =
            found.iter().filter(|(_, records)| *records > 0).map(|(next, _)| next.clone()).collect();
        waiting.sort();
        waiting.dedup();
        let ages = self.ages(waiting).await?;
        let behind = places.iter().zip(found).map(|((_, place), (next, records))| Behind {
            events: events_of(*place, records),
            seconds: ages.get(&next).map_or(0, |age_ms| age_ms.unsigned_abs() / 1_000),
        });
        Ok(behind.collect())
    }

    /// How old these records are, milliseconds.
    async fn ages(&self, records: Vec<Next>) -> Result<BTreeMap<Next, i64>, KafkaFailure> {
        if records.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (settings, door) = (self.settings.clone(), self.topics.door().clone());
        let asked = tokio::task::spawn_blocking(move || -> Result<BTreeMap<Next, i64>, KafkaFailure> {
            let mut config = config(&settings);
            // Only to ask: no group is joined, and nothing is read or committed.
            config.set("group.id", format!("{}.readers", settings.prefix)).set("enable.auto.commit", "false");
            let consumer: BaseConsumer<Quiet> =
                BaseConsumer::from_config_and_context(&config, Quiet::before(&door))?;
            let mut searches: Vec<Search> = records.into_iter().map(Search::new).collect();
            while ask(&consumer, &mut searches)? {}
            Ok(searches.into_iter().map(|search| (search.record, search.at_least_ms)).collect())
        });
        let answer = asked.await.map_err(|_| KafkaFailure::Silent(PATIENCE))?;
        answer.map_err(|failure| self.topics.door().explain(failure))
    }
}

/// Asks the cluster once, of each partition about one record; answers whether something was asked.
fn ask(consumer: &BaseConsumer<Quiet>, searches: &mut [Search]) -> Result<bool, KafkaFailure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let now_ms = i64::try_from(now).unwrap_or(i64::MAX);
    let mut times = TopicPartitionList::new();
    // A partition stands in the list once.
    let mut asked: BTreeMap<(String, i32), (usize, i64)> = BTreeMap::new();
    for (index, search) in searches.iter().enumerate() {
        let (topic, partition, _) = &search.record;
        let key = (topic.clone(), *partition);
        let Some(age_ms) = search.next_ms().filter(|_| !asked.contains_key(&key)) else { continue };
        times.add_partition_offset(topic, *partition, LogOffset::Offset(now_ms - age_ms))?;
        asked.insert(key, (index, age_ms));
    }
    if asked.is_empty() {
        return Ok(false);
    }
    let answered = consumer.offsets_for_times(times, PATIENCE)?;
    for element in answered.elements() {
        element.error()?;
        let Some((index, age_ms)) = asked.get(&(element.topic().to_owned(), element.partition())) else {
            continue;
        };
        let Some(search) = searches.get_mut(*index) else { continue };
        let first = match element.offset() {
            LogOffset::Offset(first) => u64::try_from(first).ok(),
            // No record is that young.
            _ => None,
        };
        let is_younger = first.is_some_and(|first| first <= search.record.2);
        search.learn(*age_ms, is_younger);
    }
    Ok(true)
}

/// What is known of a record's age.
#[derive(Debug)]
struct Search {
    record: Next,
    at_least_ms: i64,
    at_most_ms: Option<i64>,
}

impl Search {
    fn new(record: Next) -> Self {
        Self { record, at_least_ms: 0, at_most_ms: None }
    }

    /// The age to ask about next; none: it is known well enough.
    fn next_ms(&self) -> Option<i64> {
        match self.at_most_ms {
            None if self.at_least_ms >= LONGEST_MS => None,
            None => Some((2 * self.at_least_ms).clamp(FIRST_MS, LONGEST_MS)),
            Some(at_most) => {
                let open = at_most - self.at_least_ms;
                (open > EXACT_MS && open > self.at_least_ms / EXACT_PART)
                    .then_some(self.at_least_ms + open / 2)
            }
        }
    }

    fn learn(&mut self, asked_ms: i64, is_younger: bool) {
        if is_younger { self.at_most_ms = Some(asked_ms) } else { self.at_least_ms = asked_ms }
    }
}

/// Events of so many records behind a place: as many in each as in those before it, of which only the first generation of a
/// partition says how many they are; at least one in each.
fn events_of(place: Place, records: u64) -> u64 {
    let Some(record) = place.record.filter(|record| record.offset > 0) else { return records };
    let step = u64::from(record.step);
    let before = u128::from(place.at.offset.0.saturating_sub(step));
    let reckoned = u128::from(records) * before / u128::from(record.offset);
    // Of the record that the place is in the middle of, a part is behind.
    u64::try_from(reckoned).unwrap_or(u64::MAX).max(records).saturating_sub(step).max(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracklayer_ids::Position;
    use tracklayer_journal::Record;

    #[test]
    fn an_age_is_found_within_a_second_or_a_sixteenth_by_few_questions() {
        for age_ms in [0, 10, 900, 3_999, 4_000, 4_001, 60_000, 3_600_000, 86_400_000, 30 * 86_400_000] {
            let mut search = Search::new(("t".to_owned(), 0, 7));
            let mut questions = 0;
            while let Some(asked_ms) = search.next_ms() {
                search.learn(asked_ms, age_ms <= asked_ms);
                questions += 1;
                assert!(questions < 40, "{age_ms}");
            }
            let found = search.at_least_ms;
            assert!(found <= age_ms, "{found} of {age_ms}");
            assert!(age_ms - found <= EXACT_MS.max(found / EXACT_PART), "{found} of {age_ms}");
        }
        let mut older = Search::new(("t".to_owned(), 0, 7));
        while let Some(asked_ms) = older.next_ms() {
            older.learn(asked_ms, false);
        }
        assert_eq!(older.at_least_ms, LONGEST_MS, "it ends");
    }

    #[test]
    fn records_are_taken_for_as_large_as_those_before() {
        let place = |events, offset, step| Place {
            at: Position::new(1, 0, events),
            record: Some(Record { offset, step, mark: None }),
        };
        assert_eq!(events_of(place(500, 5, 0), 3), 300);
        assert_eq!(events_of(place(530, 5, 30), 3), 270);
        assert_eq!(events_of(place(0, 5, 0), 3), 3, "a later generation has begun anew");
        assert_eq!(events_of(Position::new(1, 0, 0).into(), 3), 3);
    }
}
