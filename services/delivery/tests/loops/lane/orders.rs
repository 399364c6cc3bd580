//! Orders whose purchase and refunds come close together.

use tracklayer_delivery::ledger::State;
use tracklayer_sandbox::Platform;

use super::rig::{Rig, order, refund};

#[tokio::test(flavor = "multi_thread")]
async fn refunds_in_the_same_range_as_their_purchase_are_taken_off_what_was_sent() {
    let mut rig = Rig::new("google_ads").await;
    rig.resolved(&[
        order("m-1", "ann"),
        refund("r-1", "server", "order-m-1", 30),
        order("m-2", "bob"),
        refund("r-2", "server", "order-m-1", 20),
    ])
    .await;
    rig.start().await;
    for offset in 0..4 {
        rig.ends_as(offset, State::Delivered).await;
    }
    let counted = rig.sandbox.counted(Platform::GoogleAds);
    let worth = |id: &str| {
        let conversion = counted.iter().find(|c| c.event_id == id && c.event_name == "CONVERSION").unwrap();
        conversion.value.clone().unwrap()
    };
    assert_eq!(worth("order-m-1").parse::<f64>().unwrap(), 50.0, "{counted:?}");
    assert_eq!(worth("order-m-2").parse::<f64>().unwrap(), 100.0);
    let refunded = "select sum(refunded)::bigint from delivery.order_sent";
    assert_eq!(rig.number(refunded).await, 50);
}
