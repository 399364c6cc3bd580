//! The step to the next generation.

use tracklayer_delivery::ledger::State;
use tracklayer_ids::Position;
use tracklayer_sandbox::Platform;

use super::rig::{Rig, order};
use crate::wire::Wire;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_resolved_between_a_look_that_finds_nothing_and_the_step_is_sent() {
    let mut rig = Rig::new("meta_capi").await;
    let url = rig.services.database.url.clone();
    let wire = Wire::that_holds_the_answer_of(&url, "from delivery.resolved").await;
    rig.start_over(wire.pool().await).await;
    // The lane has looked, and does not know yet that nothing is there.
    wire.plays().await;
    rig.resolved(&[order("late-1", "ann"), order("late-2", "bob")]).await;
    rig.open_next_generation();
    rig.resolved(&[order("next-1", "ann")]).await;
    wire.let_go();

    rig.ends_at(Position::new(2, 0, 0), State::Delivered).await;
    for offset in 0..2 {
        rig.ends_as(offset, State::Delivered).await;
    }
    let counted = rig.sandbox.counted(Platform::Meta);
    let sent: Vec<&str> = counted.iter().map(|c| c.event_id.as_str()).collect();
    assert_eq!(sent, ["late-1", "late-2", "next-1"], "each once, in order");
}
