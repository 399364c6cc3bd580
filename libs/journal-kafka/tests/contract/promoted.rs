//! A standby that has not heard of the last moments is promoted. Only over PostgreSQL, which gives positions out by itself.

use tracklayer_ids::{Partition, Position};
use tracklayer_journal::{Appended, NewBlock};

use crate::stage::{PostgresStage, Stage as _, WORKSPACE, append, beginning, block, events, read};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_promoted_standby_lacks_is_not_held_and_its_positions_are_not_given_again() {
    let mut stage = PostgresStage::own().await;
    let journal = stage.journal();
    append(&journal, 0, "kept", 3).await;
    stage.make_standby();
    append(&journal, 0, "lost", 4).await;
    let positions = [Position::new(1, 0, 2), Position::new(1, 0, 3), Position::new(1, 0, 6)];
    assert_eq!(journal.holds(WORKSPACE, &positions).await.unwrap(), [true; 3]);

    stage.promote().await;
    let journal = stage.journal();
    assert_eq!(journal.holds(WORKSPACE, &positions).await.unwrap(), [true, false, false]);
    // As an ingest that has lived through it, and knows the layout from before.
    let (partition, generation) = (Partition(0), positions[0].generation);
    let late = NewBlock { workspace: WORKSPACE, partition, generation, block: block(["late"]) };
    assert_eq!(journal.append(&[late]).await.unwrap(), [Appended::Stale]);

    append(&journal, 0, "since", 4).await;
    let since = [(1, 3), (3, 0), (3, 3), (3, 4)];
    let since = since.map(|(generation, offset)| Position::new(generation, 0, offset));
    assert_eq!(journal.holds(WORKSPACE, &since).await.unwrap(), [false, true, true, false]);
    let (blocks, _) = read(&journal, beginning(0), 3).await;
    let kept: Vec<String> = events(&blocks).into_iter().map(|(_, event)| event).collect();
    assert_eq!(kept, ["kept-0", "kept-1", "kept-2"], "what was before it stands where it stood");
    let timeline: String =
        sqlx::query_scalar("select timeline from journal.history").fetch_one(stage.pool()).await.unwrap();
    assert!(timeline.starts_with("00000002/"), "{timeline}");
}
