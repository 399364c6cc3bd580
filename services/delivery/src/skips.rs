//! Giving up a block of received events that cannot be read, and that holds up everything behind it in its partition.
//!
//! It is asked for in a table, and only of a block that was looked at here and is bad. Resolve asks that table where it comes upon a
//! block that it cannot read, so that whoever holds the lease passes it, whenever that is: by a commit as any other, which puts a lost
//! event at each of its positions.
//!
//! A bad block that resolve has made is replaced by one of lost events where it stands, since its readers are many.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracklayer_ids::{Position, SourceId, WorkspaceId};
use tracklayer_journal::{BlockError, Condition, Damage, Journal, JournalError, Kind, Place};

use crate::give_ups::is_before;
use crate::resolve::lost::block_in_place_of;
use crate::store::StoreError;
use crate::store::cursors::CursorStore;
use crate::store::resolved::ResolvedStore;
use crate::store::skips::{GivenUp, SkipStore};

/// Why a block is not given up.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// No such block.
    #[error("no event of the workspace is kept at {0}")]
    Absent(Position),
    /// A good one.
    #[error("the block at {0} can be read: there is nothing to skip")]
    Readable(Position),
    /// One of a newer version.
    #[error("the block at {first} is none to skip: a newer version wrote it, and reads it ({why})")]
    Newer {
        /// Its first event.
        first: Position,
        /// Which level it needs.
        why: BlockError,
    },
    /// Resolve has read it when it could be read.
    #[error(
        "what was received at {at} is resolved, up to {next}, and nothing waits for it; a bad block of what was resolved is skipped \
         with --resolved"
    )]
    Resolved {
        /// What was named.
        at: Position,
        /// Where resolve stands.
        next: Position,
    },
    /// Over a log of records only resolve's place is known in both numbers.
    #[error("over Kafka only the block at which resolve stands can be looked at, which is at {next}")]
    NotNext {
        /// Where resolve stands.
        next: Position,
    },
    /// The journal.
    #[error("could not look at the journal")]
    Journal(#[from] JournalError),
    /// Own tables.
    #[error("could not give the block up")]
    Store(#[from] StoreError),
}

/// How far a block's loss has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It was only looked at.
    Shown,
    /// It is given up; resolve has not come by yet.
    Asked,
    /// Resolve is behind it: its events are lost, and told as such.
    Passed,
}

/// A block that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// Its first event.
    pub first: Position,
    /// How many events are lost.
    pub events: u32,
    /// Whether that is how many were written: if not, nobody knows, and one stands for them.
    pub is_counted: bool,
    /// How many of which source, where its header still says it and it is not passed yet.
    pub sources: Vec<(SourceId, u64)>,
    /// Why it cannot be read.
    pub why: String,
    /// How far it has come.
    pub stage: Stage,
}

/// Looks at blocks and gives them up.
#[derive(Debug, Clone)]
pub struct Skipping {
    /// Where they stand.
    pub journal: Arc<dyn Journal>,
    /// Where resolve stands.
    pub cursors: CursorStore,
    /// What was given up.
    pub store: SkipStore,
    /// What resolve has made of them.
    pub resolved: ResolvedStore,
}

impl Skipping {
    /// What is lost if the block is given up in which a position is; if it is meant, it is. Safe to repeat.
    ///
    /// # Errors
    /// See [`SkipError`]; nothing is given up then.
    pub async fn skip(
        &self,
        workspace: WorkspaceId,
        at: Position,
        asked_by: &str,
        is_meant: bool,
    ) -> Result<Skip, SkipError> {
        let places = self.cursors.places(workspace).await?;
        let begins: Place = Position::new(1, at.partition.0, 0).into();
        let place = places.into_iter().find(|place| place.at.partition == at.partition).unwrap_or(begins);
        let given_up = self.store.find(workspace, at).await?;
        if let Some(passed) = given_up.as_ref().filter(|block| !is_before(place.at, block.end())) {
            return Ok(Skip::passed(passed));
        }
        // Resolve may stand in the middle of the block whose beginning is named.
        let is_behind = is_before(at, place.at);
        let looked_at = if is_behind || self.journal.kind() == Kind::Kafka { place } else { Place::from(at) };
        let is_in = |first: Position, events: u32| {
            let end = first.offset.0 + u64::from(events);
            at.generation == first.generation && (first.offset.0..end).contains(&at.offset.0)
        };
        match self.journal.look_at(workspace, looked_at).await? {
            Condition::Damaged(damage) if is_in(damage.first, damage.events) => {
                if damage.is_newer() {
                    return Err(SkipError::Newer { first: damage.first, why: damage.why });
                }
                if is_meant {
                    self.store.ask(workspace, &damage, asked_by).await?;
                    tracing::warn!(
                        workspace = workspace.0, first = %damage.first, events = damage.events, why = %damage.why,
                        "an operator has given up a block that cannot be read"
                    );
                }
                let stage = if is_meant || given_up.is_some() { Stage::Asked } else { Stage::Shown };
                Ok(Skip::of(&damage, stage))
            }
            Condition::Whole { first, events } if is_in(first, events) => Err(SkipError::Readable(first)),
            Condition::Damaged(_) | Condition::Whole { .. } | Condition::Absent if is_behind => {
                Err(SkipError::Resolved { at, next: place.at })
            }
            Condition::Absent => Err(SkipError::Absent(at)),
            Condition::Damaged(_) | Condition::Whole { .. } => Err(SkipError::NotNext { next: place.at }),
        }
    }

    /// As [`Skipping::skip`], of a block that resolve has made: if it is meant, lost events stand in its place at once, for whoever has
    /// not read it. What lanes have told of it before stays.
    ///
    /// # Errors
    /// See [`SkipError`]; nothing is changed then.
    pub async fn skip_resolved(
        &self,
        workspace: WorkspaceId,
        at: Position,
        asked_by: &str,
        is_meant: bool,
    ) -> Result<Skip, SkipError> {
        let looked = self.resolved.look_at(workspace, at).await?.ok_or(SkipError::Absent(at))?;
        let damage = match &looked.condition {
            Condition::Damaged(damage) => damage,
            Condition::Whole { first, .. } => return Err(SkipError::Readable(*first)),
            Condition::Absent => return Err(SkipError::Absent(at)),
        };
        if damage.is_newer() {
            return Err(SkipError::Newer { first: damage.first, why: damage.why.clone() });
        }
        if !is_meant {
            return Ok(Skip::of(damage, Stage::Shown));
        }
        let block = block_in_place_of(damage)?;
        if !self.resolved.replace(workspace, &looked, damage, &block, asked_by).await? {
            // Somebody else has brought it back or skipped it meanwhile.
            return Err(SkipError::Readable(damage.first));
        }
        tracing::error!(
            workspace = workspace.0, first = %damage.first, events = damage.events, why = %damage.why,
            "an operator has skipped a resolved block that cannot be read: its events are lost to whoever has not read it"
        );
        Ok(Skip::of(damage, Stage::Passed))
    }
}

impl Skip {
    fn of(damage: &Damage, stage: Stage) -> Self {
        let mut sources: BTreeMap<i64, u64> = BTreeMap::new();
        for count in &damage.counts {
            *sources.entry(count.source_id).or_default() += u64::from(count.count);
        }
        Self {
            first: damage.first,
            events: damage.events,
            is_counted: damage.is_counted,
            sources: sources.into_iter().map(|(source, events)| (SourceId(source), events)).collect(),
            why: damage.why.to_string(),
            stage,
        }
    }

    fn passed(block: &GivenUp) -> Self {
        Self {
            first: block.first,
            events: block.events,
            is_counted: block.is_counted,
            sources: Vec::new(),
            why: block.why.clone(),
            stage: Stage::Passed,
        }
    }
}
