//! How much of the journal over PostgreSQL is still to be read, for a budget. Delivery, which has the cursors, tells every few
//! seconds where the last of them stands in each partition; ingest, which has the budget, asks what stands behind those places. So it
//! goes on growing where nobody tells any more: when delivery is away, all that comes is unread.
//!
//! Blocks are not summed, since millions of them may be unread, but sampled at even distances in events. An event has the same chance
//! wherever it stands, so that neither large blocks nor small ones count for too much.

use tracklayer_ids::WorkspaceId;

use crate::error::JournalError;
use crate::journal::Place;
use crate::postgres::PostgresJournal;

/// Places are told no more often than that, seconds, by however many processes.
const TOLD_EVERY_SECONDS: f64 = 4.0;
/// Most blocks that are looked at in one generation of a partition.
const SAMPLES: i64 = 16;
/// One for so many events, as long as there are no more.
const EVENTS_OF_A_SAMPLE: i64 = 1_024;
/// About so many in all, which bounds what a look costs: where hundreds of partitions have something unread, one block of each says as
/// much about the sum.
const ALL_SAMPLES: i64 = 1_024;
/// What a block takes beside its header and payload: its row, the place of its payload, and entries in two indexes.
const BYTES_OF_A_ROW: i64 = 200;

impl PostgresJournal {
    /// Whether places should be told by whoever asks now; for some seconds it is then nobody else's turn.
    pub(crate) async fn is_time_to_tell(&self) -> Result<bool, JournalError> {
        // A time that is still to come was written by the clock of another server.
        let taken = sqlx::query(
            "update journal.read_told set told_at = clock_timestamp()
             where told_at not between clock_timestamp() - make_interval(secs => $1) and clock_timestamp()",
        )
        .bind(TOLD_EVERY_SECONDS)
        .execute(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "see whether places are to be told", source })?;
        Ok(taken.rows_affected() == 1)
    }

    /// Writes down where everybody has read up to.
    pub(crate) async fn write_read_places(
        &self,
        behind: &[(WorkspaceId, Place)],
    ) -> Result<(), JournalError> {
        sqlx::query(
            "insert into journal.read_place as known (workspace_id, partition, generation, next_offset)
             select u.w, u.p, u.g, u.o
             from unnest($1::bigint[], $2::integer[], $3::integer[], $4::bigint[]) as u (w, p, g, o)
             order by u.w, u.p
             on conflict on constraint read_place_pkey do update
             set generation = excluded.generation, next_offset = excluded.next_offset
             where (known.generation, known.next_offset) <> (excluded.generation, excluded.next_offset)",
        )
        .bind(behind.iter().map(|b| b.0.0).collect::<Vec<_>>())
        .bind(behind.iter().map(|b| b.1.at.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(behind.iter().map(|b| b.1.at.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(behind.iter().map(|b| b.1.at.offset.0.cast_signed()).collect::<Vec<_>>())
        .execute(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "tell what of the journal is read", source })?;
        Ok(())
    }

    /// About how many bytes stand behind the places that were told. Where none was, all of it does, unless this release found some
    /// there: then a delivery of an earlier one may read it and tell nothing, and it is not known.
    pub(crate) async fn estimate_unread_bytes(&self) -> Result<Option<u64>, JournalError> {
        let bytes: Option<i64> = sqlx::query_scalar(
            "with ends as (
                 select h.workspace_id, h.partition, h.generation, h.next_offset from journal.head h
                 union all
                 select e.workspace_id, e.partition, e.generation, e.next_offset from journal.layout_end e
             ),
             unread as (
                 select e.workspace_id as w, e.partition as p, e.generation as g, since.o as since,
                        e.next_offset - since.o as events,
                        least($1::bigint, 1 + (e.next_offset - since.o) / $2::bigint,
                              greatest(1, $4::bigint / count(*) over ())) as samples
                 from ends e
                 left join journal.read_place r on r.workspace_id = e.workspace_id and r.partition = e.partition
                 cross join lateral (
                     select case when r.generation = e.generation then r.next_offset else 0 end as o
                 ) as since
                 where e.next_offset > 0
                   and (r.generation is null or (r.generation, r.next_offset) < (e.generation, e.next_offset))
             )
             select case
                 when exists (select from journal.read_place) or (select began_empty from journal.read_told)
                 then coalesce((
                     select sum(u.events * sampled.bytes_of_an_event)
                     from unread u
                     cross join lateral (
                         -- What was dropped since the place was told takes nothing.
                         select avg(case when block.behind > sample.o then block.bytes_of_an_event else 0 end)
                                    as bytes_of_an_event
                         from generate_series(0, u.samples - 1) as step (n)
                         cross join lateral (
                             select u.since + u.events * (2 * step.n + 1) / (2 * u.samples) as o
                         ) as sample
                         left join lateral (
                             select r.base_offset + r.event_count as behind,
                                    (octet_length(r.header) + octet_length(r.payload) + $3::bigint)::float8
                                        / r.event_count as bytes_of_an_event
                             from journal.received r
                             where r.workspace_id = u.w and r.partition = u.p and r.generation = u.g
                               and r.base_offset <= sample.o
                             order by r.base_offset desc limit 1
                         ) as block on true
                     ) as sampled
                 ), 0)::bigint
             end",
        )
        .bind(SAMPLES)
        .bind(EVENTS_OF_A_SAMPLE)
        .bind(BYTES_OF_A_ROW)
        .bind(ALL_SAMPLES)
        .fetch_one(&self.pool)
        .await
        .map_err(|source| JournalError::Database { what: "see how much of the journal is unread", source })?;
        Ok(bytes.map(|bytes| u64::try_from(bytes).unwrap_or(0)))
    }
}
