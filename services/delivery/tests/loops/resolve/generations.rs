//! The step to the next generation, while somebody still appends to the one before.

use tracklayer_delivery::resolve::read_event;
use tracklayer_ids::Position;

use super::rig::{PARTITION, Rig, ids};
use crate::services::Services;
use crate::wire::Wire;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_between_a_look_that_finds_nothing_and_the_step_is_resolved() {
    let services = Services::start().await;
    let wire = Wire::that_holds_the_answer_of(&services.database.url, "from journal.received").await;
    let pool = wire.pool().await;
    let rig = Rig::over(services, pool, read_event).await;
    rig.append(PARTITION, "early", 1, 10).await;
    let running = rig.start(PARTITION).await;
    rig.wait_until_resolved(Position::new(1, 0, 10)).await;
    // The loop has looked, and does not know yet that nothing is there.
    wire.plays().await;
    rig.append(PARTITION, "late", 2, 20).await;
    rig.open_next_generation().await;
    rig.append(PARTITION, "next", 1, 10).await;
    rig.wait_until_received(Position::new(2, 0, 10)).await;
    wire.let_go();

    rig.wait_until_resolved(Position::new(2, 0, 10)).await;
    assert_eq!(rig.ids_from(Position::new(1, 0, 0)).await, [ids("early", 10), ids("late", 40)].concat());
    assert_eq!(rig.ids_from(Position::new(2, 0, 0)).await, ids("next", 10));
    rig.services.shutdown.cancel();
    running.await.unwrap();
}
