//! What an operator asks about the journal over PostgreSQL: what it holds, whether all of it can be read, and how far somebody
//! is behind. Reads only.

use sqlx::PgPool;
use tracklayer_ids::{Offset, Partition, Position, WorkspaceId};

use crate::block::BlockHeader;
use crate::error::JournalError;
use crate::postgres::PostgresJournal;

/// Blocks that one page of a check takes.
const PAGE_BLOCKS: i64 = 64;

/// What a workspace has in one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// `2026-01-31`, UTC.
    pub day: String,
    /// Blocks.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of their headers and payloads.
    pub bytes: u64,
}

/// What a page of a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blocks that were read.
    pub blocks: u64,
    /// Events in them, by their rows.
    pub events: u64,
    /// What is wrong, and where.
    pub faults: Vec<(Position, String)>,
    /// Where the next page begins; none: that was the last one.
    pub next: Option<Position>,
}

/// How far a place is behind the head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    /// Events.
    pub events: u64,
    /// Since the oldest of them was received.
    pub seconds: u64,
}

impl PostgresJournal {
    /// The days of a workspace, oldest first.
    ///
    /// # Errors
    /// The database.
    pub async fn days(&self, workspace: WorkspaceId) -> Result<Vec<Day>, JournalError> {
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "select appended_on::text, count(*), sum(event_count)::bigint,
                    sum(octet_length(header) + octet_length(payload))::bigint
             from journal.received where workspace_id = $1 group by appended_on order by appended_on",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "look at the journal's days", source })?;
        Ok(rows
            .into_iter()
            .map(|(day, blocks, events, bytes)| Day {
                day,
                blocks: blocks.cast_unsigned(),
                events: events.cast_unsigned(),
                bytes: bytes.cast_unsigned(),
            })
            .collect())
    }

    /// Events of a workspace in days that were dropped.
    ///
    /// # Errors
    /// The database.
    pub async fn dropped_events(&self, workspace: WorkspaceId) -> Result<u64, JournalError> {
        let events: i64 = sqlx::query_scalar(
            "select coalesce(sum(next_offset - first_offset), 0)::bigint from journal.dropped
             where workspace_id = $1",
        )
        .bind(workspace.0)
        .fetch_one(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "look at what was dropped", source })?;
        Ok(events.cast_unsigned())
    }

    /// Reads a page of blocks from a place on, to their bytes: whether each can be read, holds what its header says, and
    /// follows the one before. Begin with offset 0 of generation 1, go on where the answer says.
    ///
    /// # Errors
    /// The database.
    pub async fn check(&self, workspace: WorkspaceId, from: Position) -> Result<Checked, JournalError> {
        let failed = |source| JournalError::Database { what: "check the journal", source };
        // The head first: the rows that are read after it reach at least that far.
        let head: Option<(i32, i64)> = sqlx::query_as(
            "select generation, next_offset from journal.head where workspace_id = $1 and partition = $2",
        )
        .bind(workspace.0)
        .bind(from.partition.0.cast_signed())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        let dropped = dropped(&self.pool, workspace, from).await?;
        let rows: Vec<(i64, i32, Vec<u8>, Vec<u8>)> = sqlx::query_as(
            "select base_offset, event_count, header, payload from journal.received
             where workspace_id = $1 and partition = $2 and generation = $3 and base_offset >= $4
             order by base_offset limit $5",
        )
        .bind(workspace.0)
        .bind(from.partition.0.cast_signed())
        .bind(from.generation.0.cast_signed())
        .bind(from.offset.0.cast_signed())
        .bind(PAGE_BLOCKS)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;

        let mut checked = Checked::default();
        let at = |offset: u64| Position { offset: Offset(offset), ..from };
        let mut expected = from.offset.0;
        let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) == PAGE_BLOCKS;
        for (base, events, header, payload) in rows {
            let (base, events) = (base.cast_unsigned(), u64::from(events.cast_unsigned()));
            expected = after_dropped(&dropped, expected, base);
            if base != expected {
                let why = format!("expected {}: a hole or an overlap", at(expected));
                checked.faults.push((at(base), why));
            }
            if let Some(why) = fault_of(events, &header, &payload) {
                checked.faults.push((at(base), why));
            }
            checked.blocks += 1;
            checked.events += events;
            expected = base + events;
        }
        if full {
            checked.next = Some(at(expected));
            return Ok(checked);
        }
        expected = after_dropped(&dropped, expected, u64::MAX);
        let head =
            head.map_or((1, 0), |(generation, next)| (generation.cast_unsigned(), next.cast_unsigned()));
        if head.0 > from.generation.0 {
            checked.next = Some(Position::new(from.generation.0 + 1, from.partition.0, 0));
        } else if head.0 == from.generation.0 && head.1 > expected {
            checked
                .faults
                .push((at(expected), format!("the journal ends here, its head says {}", at(head.1))));
        }
        Ok(checked)
    }

    /// How far places are behind the heads of their partitions, in their order: looks at a few rows for each of them.
    pub(crate) async fn behind_heads(
        &self,
        places: &[(WorkspaceId, Position)],
    ) -> Result<Vec<Behind>, JournalError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "select (coalesce(here.events, 0) + coalesce(later.events, 0))::bigint,
                    greatest(coalesce(extract(epoch from now() - oldest.appended_at), 0), 0)::bigint
             from unnest($1::bigint[], $2::integer[], $3::integer[], $4::bigint[]) with ordinality as u (w, p, g, o, n)
             left join journal.head h on h.workspace_id = u.w and h.partition = u.p
             -- Of its own generation up to its end, which is the head's if that is the one being written.
             left join lateral (
                 select case when h.generation = u.g then h.next_offset else (
                     select r.base_offset + r.event_count from journal.received r
                     where r.workspace_id = u.w and r.partition = u.p and r.generation = u.g
                     order by r.base_offset desc limit 1) end - u.o as events
             ) here on true
             -- Each later one begins at 0, so that its end says how many there are.
             left join lateral (
                 select sum(case when later.g = h.generation then h.next_offset else (
                     select r.base_offset + r.event_count from journal.received r
                     where r.workspace_id = u.w and r.partition = u.p and r.generation = later.g
                     order by r.base_offset desc limit 1) end) as events
                 from generate_series(u.g + 1, h.generation) as later (g)
             ) later on true
             -- The block in which the place is, if it is in one, else the next.
             left join lateral (
                 select near.appended_at from (
                     (select r.generation, r.base_offset, r.event_count, r.appended_at from journal.received r
                      where r.workspace_id = u.w and r.partition = u.p and r.generation = u.g and r.base_offset <= u.o
                        and (h.generation, h.next_offset) > (u.g, u.o)
                      order by r.base_offset desc limit 1)
                     union all
                     (select r.generation, r.base_offset, r.event_count, r.appended_at from journal.received r
                      where r.workspace_id = u.w and r.partition = u.p and (r.generation, r.base_offset) > (u.g, u.o)
                        and (h.generation, h.next_offset) > (u.g, u.o)
                      order by r.generation, r.base_offset limit 1)
                 ) near
                 where near.generation > u.g or near.base_offset + near.event_count > u.o
                 order by near.generation, near.base_offset limit 1
             ) oldest on true
             order by u.n",
        )
        .bind(places.iter().map(|(workspace, _)| workspace.0).collect::<Vec<_>>())
        .bind(places.iter().map(|(_, place)| place.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(places.iter().map(|(_, place)| place.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(places.iter().map(|(_, place)| place.offset.0.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "see how far somebody is behind", source })?;
        Ok(rows
            .into_iter()
            .map(|(events, seconds)| Behind {
                events: u64::try_from(events).unwrap_or(0),
                seconds: seconds.cast_unsigned(),
            })
            .collect())
    }
}

/// Ranges of a partition's generation that were dropped: first and next offset.
async fn dropped(
    pool: &PgPool,
    workspace: WorkspaceId,
    of: Position,
) -> Result<Vec<(u64, u64)>, JournalError> {
    let Partition(partition) = of.partition;
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "select first_offset, next_offset from journal.dropped
         where workspace_id = $1 and partition = $2 and generation = $3 order by first_offset",
    )
    .bind(workspace.0)
    .bind(partition.cast_signed())
    .bind(of.generation.0.cast_signed())
    .fetch_all(pool)
    .await
    .map_err(|source| JournalError::Database { what: "look at what was dropped", source })?;
    Ok(rows.into_iter().map(|(first, next)| (first.cast_unsigned(), next.cast_unsigned())).collect())
}

/// Where it goes on behind the dropped ranges that follow, up to the block that was found.
fn after_dropped(dropped: &[(u64, u64)], mut expected: u64, found: u64) -> u64 {
    for (first, next) in dropped {
        if *first == expected && expected < found {
            expected = *next;
        }
    }
    expected
}

/// Why a block is not what its writer made; none: it is.
fn fault_of(events: u64, header: &[u8], payload: &[u8]) -> Option<String> {
    let header = match BlockHeader::read(header) {
        Ok(header) => header,
        Err(error) => return Some(error.to_string()),
    };
    let counted: u64 = header.counts.iter().map(|count| u64::from(count.count)).sum();
    if u64::from(header.event_count) != events || counted != events {
        let said = header.event_count;
        return Some(format!("its row says {events} events, its header {said}, the counts in it {counted}"));
    }
    header.events(payload).err().map(|error| error.to_string())
}
