//! The journal's contract: one suite, run against PostgreSQL and against Kafka, both real.
//!
//! Where the machine has no Java, each test over Kafka says `SKIPPED` on standard error.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod kafka_only;
mod killed;
mod postgres_only;
mod promoted;
mod reading;
mod secured;
mod stage;
mod trim;

/// Makes a test of each function, for each journal.
macro_rules! contract {
    ($over:ident: $($module:ident: $($name:ident),+;)+) => {
        mod postgres {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                crate::$module::$name(crate::stage::PostgresStage::$over().await).await;
            })+)+
        }
        mod kafka {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(stage) = crate::stage::KafkaStage::$over().await {
                    crate::$module::$name(stage).await;
                }
            })+)+
        }
    };
}

mod shared {
    contract! { shared:
        reading:
            what_is_acknowledged_is_read_in_the_order_of_each_caller,
            what_one_caller_hands_over_first_stands_first,
            reading_goes_on_from_any_place,
            a_read_takes_whole_blocks_and_at_least_one,
            what_stands_before_a_block_of_a_newer_writer_is_read_and_the_block_is_refused,
            a_corrupt_block_stops_its_partition_and_no_other,
            a_block_that_is_looked_at_is_whole_or_damaged_or_not_there,
            whoever_reads_again_reads_the_same,
            headers_tell_how_many_events_wait,
            how_far_a_place_is_behind_is_told;
        trim:
            what_a_cursor_has_not_behind_it_is_never_trimmed;
    }
}

mod own {
    contract! { own:
        killed:
            what_was_acknowledged_survives_a_killed_store,
            a_reader_goes_on_when_the_store_is_back;
    }
}
