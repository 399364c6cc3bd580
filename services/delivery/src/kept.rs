//! What the journal in PostgreSQL keeps of a workspace and for whom, and giving up, over either journal, what a lane has not read.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tracklayer_ids::{ConnectionId, Position, WorkspaceId};
use tracklayer_journal::inspect::Day;
use tracklayer_rpc::follow::Snapshot;

use crate::give_ups::is_before;
use crate::inspection::{Inspection, InspectionError, Lag};
use crate::lease::Duty;
use crate::retention::connections_of;
use crate::store::StoreError;
use crate::store::give_ups::{GiveUpStore, Unread};
use crate::store::retention::{DayEnd, RetentionStore};

/// Why nothing was given up.
#[derive(Debug, thiserror::Error)]
pub enum GiveUpError {
    /// A day that is not over may not be given back yet, and what is still to come is not for anybody to give up.
    #[error("is {0}, which is still to come: only days that are over can be given up")]
    ToCome(Date),
    /// No such connection.
    #[error("names connection {0}, which the workspace does not have")]
    NoConnection(ConnectionId),
    /// Another journal, or it cannot be read.
    #[error(transparent)]
    Inspection(#[from] InspectionError),
    /// Own tables.
    #[error("could not give up what is not read")]
    Store(#[from] StoreError),
}

/// What is kept.
#[derive(Debug)]
pub struct Kept {
    /// Days in which the workspace has something, oldest first.
    pub days: Vec<KeptDay>,
    /// What the days of all workspaces take of PostgreSQL's disk.
    pub stored_bytes: u64,
    /// What lanes of the workspace are still to pass, each with what it is to handle next.
    pub asked: Vec<(Duty, Position)>,
}

/// A day, and why it is kept.
#[derive(Debug)]
pub struct KeptDay {
    /// What of the workspace stands in it.
    pub day: Day,
    /// For whom.
    pub keeper: Keeper,
}

/// For whom a day is kept.
#[derive(Debug, Clone, Copy)]
pub enum Keeper {
    /// Of those of the workspace that have not read it, the one that is furthest behind.
    Cursor(Lag),
    /// Only for other workspaces.
    OtherWorkspace,
    /// Everybody has read it; it is not over.
    NotOver,
    /// Everybody has read it: it goes within a minute or two.
    Nobody,
}

/// Answers and asks.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// The journal and the cursors.
    pub inspection: Inspection,
    /// Days.
    pub days: RetentionStore,
    /// What is asked for.
    pub give_ups: GiveUpStore,
}

impl Keeping {
    /// What is kept of a workspace. Looks through its blocks' rows.
    ///
    /// # Errors
    /// See [`GiveUpError`].
    pub async fn kept(&self, workspace: WorkspaceId, snapshot: &Snapshot) -> Result<Kept, GiveUpError> {
        let stored_bytes = self.inspection.stored_bytes().await?;
        let connections = connections_of(snapshot);
        // Nobody waits for the lane of a connection that was removed.
        let is_waited_for =
            |duty: Duty| duty.is_resolve() || connections.contains(&(duty.workspace, duty.connection));
        let mut cursors = self.inspection.lags(workspace).await?;
        cursors.retain(|lag| is_waited_for(lag.duty));
        let ends = self.days.day_ends(workspace).await?;
        let mut days = Vec::new();
        for day in self.inspection.holdings(workspace).await?.days {
            let ends: Vec<&DayEnd> = ends.iter().filter(|end| end.day == day.day).collect();
            let keeper = match furthest_behind(&cursors, &ends) {
                Some(cursor) => Keeper::Cursor(cursor),
                None if ends.iter().any(|end| !end.over) => Keeper::NotOver,
                None => match self.days.holder(day.day.clone(), &connections).await? {
                    Some(holder) if holder.workspace != workspace => Keeper::OtherWorkspace,
                    _ => Keeper::Nobody,
                },
            };
            days.push(KeptDay { day, keeper });
        }
        let mut asked = self.give_ups.asked().await?;
        asked.retain(|(duty, _)| duty.workspace == workspace && is_waited_for(*duty));
        Ok(Kept { days, stored_bytes, asked })
    }

    /// What these connections' lanes have not passed of what was received before a day (over a journal that is not in PostgreSQL:
    /// of what was resolved before it); of all connections if none is named. If it is meant, their holders are asked to pass it.
    ///
    /// # Errors
    /// See [`GiveUpError`].
    pub async fn give_up(
        &self,
        workspace: WorkspaceId,
        snapshot: &Snapshot,
        before: Date,
        named: &[ConnectionId],
        is_meant: bool,
    ) -> Result<Vec<Unread>, GiveUpError> {
        if before > Timestamp::now().to_zoned(TimeZone::UTC).date() {
            return Err(GiveUpError::ToCome(before));
        }
        let ours = connections_of(snapshot).into_iter().filter(|(of, _)| *of == workspace);
        let ours: Vec<ConnectionId> = ours.map(|(_, connection)| connection).collect();
        if let Some(stranger) = named.iter().find(|connection| !ours.contains(connection)) {
            return Err(GiveUpError::NoConnection(*stranger));
        }
        let connections = if named.is_empty() { &ours } else { named };
        let day = before.to_string();
        let unread = if self.inspection.is_in_postgres() {
            self.give_ups.unread_before(workspace, connections, &day).await?
        } else {
            self.give_ups.unread_resolved_before(workspace, connections, &day).await?
        };
        if is_meant {
            self.give_ups.ask(&unread).await?;
        }
        Ok(unread)
    }
}

/// Of the cursors that have not read a day to its end, the one whose next event is the oldest.
fn furthest_behind(cursors: &[Lag], ends: &[&DayEnd]) -> Option<Lag> {
    let has_not_read = |lag: &&Lag| {
        let end = ends.iter().find(|end| end.end.partition == lag.next.partition);
        end.is_some_and(|end| is_before(lag.next, end.end))
    };
    // The first of several, by partition, resolve before its lanes.
    cursors.iter().rev().filter(has_not_read).max_by_key(|lag| lag.behind.seconds).copied()
}
