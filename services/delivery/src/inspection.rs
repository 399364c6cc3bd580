//! What operators ask about the journal: what it holds, whether it can be read, who is behind, and the events themselves. Who is
//! behind is known over either journal, the rest only where it is in PostgreSQL; a Kafka cluster has tools of its own for that.

use std::sync::Arc;

use prost::Message as _;
use sqlx::PgPool;
use tracklayer_ids::{Offset, Partition, Position, WorkspaceId};
use tracklayer_journal::inspect::{Behind, Checked, Day};
use tracklayer_journal::{Condition, Damage, Journal, JournalError, Kind, Most, Place, PostgresJournal};
use tracklayer_proto::event::v1::Event;

use crate::lease::Duty;
use crate::store::StoreError;
use crate::store::cursors::{Ahead, CursorStore};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InspectionError {
    /// Another journal.
    #[error("the journal is not in PostgreSQL: ask the Kafka cluster")]
    OtherJournal,
    /// Own tables.
    #[error("could not read the cursors")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("could not read the journal")]
    Journal(#[from] JournalError),
}

/// Answers operators.
#[derive(Debug, Clone)]
pub struct Inspection {
    journal: Option<PostgresJournal>,
    /// A journal of records, whose cursors say only of resolve in which record they stand.
    records: Option<Arc<dyn Journal>>,
    cursors: CursorStore,
}

/// What the journal holds of a workspace.
#[derive(Debug)]
pub struct Holdings {
    /// Head and resolve's place of each partition.
    pub partitions: Vec<(Position, Position)>,
    /// Days, oldest first.
    pub days: Vec<Day>,
    /// Events of days that were dropped.
    pub dropped_events: u64,
}

/// How far a cursor is behind the head of its partition.
#[derive(Debug, Clone, Copy)]
pub struct Lag {
    /// Whose: a lane's, or resolve's.
    pub duty: Duty,
    /// What it handles next.
    pub next: Position,
    /// What is from there to the head.
    pub behind: Behind,
}

impl Inspection {
    /// Of the journal of that kind, over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool, kind: Kind) -> Self {
        let journal = match kind {
            Kind::Postgres => Some(PostgresJournal::new(pool.clone())),
            Kind::Kafka => None,
        };
        Self { journal, records: None, cursors: CursorStore::beside(pool, kind) }
    }

    /// The service's own journal, to ask it who is behind where it is not in PostgreSQL.
    #[must_use]
    pub fn beside(mut self, journal: Arc<dyn Journal>) -> Self {
        self.records = match journal.kind() {
            Kind::Postgres => None,
            Kind::Kafka => Some(journal),
        };
        self
    }

    /// Whether the journal is in PostgreSQL, where it can be looked into.
    #[must_use]
    pub fn is_in_postgres(&self) -> bool {
        self.journal.is_some()
    }

    fn journal(&self) -> Result<&PostgresJournal, InspectionError> {
        self.journal.as_ref().ok_or(InspectionError::OtherJournal)
    }

    /// What it holds.
    ///
    /// # Errors
    /// See [`InspectionError`].
    pub async fn holdings(&self, workspace: WorkspaceId) -> Result<Holdings, InspectionError> {
        let journal = self.journal()?;
        let resolved = self.cursors.places(workspace).await?;
        let mut partitions: Vec<(Position, Position)> = journal
            .heads()
            .await?
            .into_iter()
            .filter(|head| head.workspace == workspace)
            .map(|head| {
                let Partition(partition) = head.partition;
                let resolved = resolved.iter().find(|place| place.at.partition == head.partition);
                let at = resolved.map_or(Position::new(1, partition, 0), |place| place.at);
                (Position::new(head.generation.0, partition, head.next.0), at)
            })
            .collect();
        partitions.sort_by_key(|(head, _)| head.partition);
        let days = journal.days(workspace).await?;
        Ok(Holdings { partitions, days, dropped_events: journal.dropped_events(workspace).await? })
    }

    /// Bytes that the days of `received`, of all workspaces, take of PostgreSQL's disk.
    ///
    /// # Errors
    /// See [`InspectionError`].
    pub async fn stored_bytes(&self) -> Result<u64, InspectionError> {
        Ok(self.journal()?.bytes_on_disk().await?)
    }

    /// A page of a check; see [`PostgresJournal::check`].
    ///
    /// # Errors
    /// See [`InspectionError`].
    pub async fn check(&self, workspace: WorkspaceId, from: Position) -> Result<Checked, InspectionError> {
        Ok(self.journal()?.check(workspace, from).await?)
    }

    /// The blocks at which resolve stands and that cannot be read, by partition. Reads one block of each partition.
    ///
    /// # Errors
    /// See [`InspectionError`].
    pub async fn stopped_at(&self, workspace: WorkspaceId) -> Result<Vec<Damage>, InspectionError> {
        let journal = self.journal()?;
        let mut stopped = Vec::new();
        for place in self.cursors.places(workspace).await? {
            if let Condition::Damaged(damage) = journal.look_at(workspace, place).await? {
                stopped.push(damage);
            }
        }
        Ok(stopped)
    }

    /// How far every cursor of a workspace is behind, by partition: resolve first.
    ///
    /// # Errors
    /// See [`InspectionError`].
    pub async fn lags(&self, workspace: WorkspaceId) -> Result<Vec<Lag>, InspectionError> {
        let resolve = self.cursors.places(workspace).await?.into_iter();
        let resolve = resolve.map(|place| (Duty::resolve(workspace, place.at.partition), place.at));
        let lanes = self.cursors.lanes_of(workspace).await?;
        let lanes = lanes.into_iter().map(|lane| (lane.duty, lane.next));
        let mut cursors: Vec<(Duty, Position)> = resolve.chain(lanes).collect();
        cursors.sort_by_key(|(duty, _)| (duty.partition, duty.connection));
        self.behind(cursors).await
    }

    /// How far the cursors of these are behind; one that has not begun is left out. Two statements, and a few rows for each of
    /// them however much waits; over a journal of records, a few questions for each partition to its cluster as well.
    ///
    /// # Errors
    /// See [`InspectionError`].
    pub async fn lags_of(&self, duties: &[Duty]) -> Result<Vec<Lag>, InspectionError> {
        self.behind(self.cursors.of(duties).await?).await
    }

    async fn behind(&self, cursors: Vec<(Duty, Position)>) -> Result<Vec<Lag>, InspectionError> {
        let behind = match &self.records {
            Some(records) => self.behind_in(records.as_ref(), &cursors).await?,
            None => {
                let at = |(duty, next): &(Duty, Position)| (duty.workspace, Place::from(*next));
                let places: Vec<_> = cursors.iter().map(at).collect();
                self.journal()?.behind(&places).await?
            }
        };
        let lag = |((duty, next), behind)| Lag { duty, next, behind };
        Ok(cursors.into_iter().zip(behind).map(lag).collect())
    }

    /// Over a journal of records: what is between a cursor and resolve is known by the index, what is behind resolve by the log.
    async fn behind_in(
        &self,
        records: &dyn Journal,
        cursors: &[(Duty, Position)],
    ) -> Result<Vec<Behind>, InspectionError> {
        let ahead = self.cursors.ahead(cursors).await?;
        let resolve = |((duty, _), ahead): (&(Duty, Position), &Ahead)| (duty.workspace, ahead.resolve);
        let places: Vec<_> = cursors.iter().zip(&ahead).map(resolve).collect();
        let unresolved = records.behind(&places).await?;
        let sum = |(ahead, unresolved): (&Ahead, Behind)| Behind {
            events: ahead.events + unresolved.events,
            // What is resolved is gone from the log of what was received: of its age only the index knows.
            seconds: ahead.resolved_ago.unwrap_or(unresolved.seconds),
        };
        Ok(ahead.iter().zip(unresolved).map(sum).collect())
    }

    /// Events from a position on, at most so many; what cannot be read is none.
    ///
    /// # Errors
    /// See [`InspectionError`].
    pub async fn events(
        &self,
        workspace: WorkspaceId,
        from: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Option<Event>)>, InspectionError> {
        let most = Most::events(i64::try_from(limit).unwrap_or(i64::MAX));
        let journal = self.journal()?;
        let mut events = Vec::new();
        let mut next = from;
        while events.len() < limit {
            let blocks = Journal::read(journal, workspace, next.into(), most).await?;
            let Some(last) = blocks.last() else { break };
            let end = last.end();
            for block in &blocks {
                for (step, bytes) in block.events()?.into_iter().enumerate() {
                    let offset = Offset(block.first.offset.0 + step as u64);
                    if offset >= from.offset && events.len() < limit {
                        events.push((Position { offset, ..from }, Event::decode(bytes).ok()));
                    }
                }
            }
            next.offset = end;
        }
        Ok(events)
    }
}
