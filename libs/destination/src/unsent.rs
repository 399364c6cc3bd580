//! Changes of orders that were not sent: a refund, a cancellation, a new value.
//!
//! A platform that is told of one counts it anew (Data Manager: "an unmatched id creates a conversion"), counts a loss without the
//! sale (GA4), or refuses it (`CONVERSION_NOT_FOUND`). So it is refused here, with what to do; the lane waits a while for the order
//! before that. What an event says of the original (`original_value`, `original_timestamp`) is used where the connection sends such
//! changes, and is no reason not to wait: it says what the order was, not that the platform has it.
//! Source: D/events/google-ads/conversion-adjustments; googleads v26 `ConversionAdjustmentUploadError`; 2026-11.

use jiff::Timestamp;
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commerce::decimal_of;
use crate::deliverable::{Deliverable, OrderState, text_of};
use crate::outcome::{Refusal, RefusalCode, Remark};
use crate::usual::usual;

/// What becomes of changes of orders that were not sent from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnsentOrders {
    /// They wait for the order, and are refused when it does not come.
    #[default]
    Refuse,
    /// They are sent as they state themselves: a tag, or another system, reports the orders.
    Send,
}

/// What the event says that the original was worth.
#[must_use]
pub fn original_value(event: &Deliverable) -> Option<Decimal> {
    event.at(usual!("properties.original_value")).and_then(decimal_of)
}

/// When the event says that the original happened. Nothing is changed before it happened: a time that says so is none.
#[must_use]
pub fn original_time(event: &Deliverable) -> Option<Timestamp> {
    let stated =
        event.at(usual!("properties.original_timestamp")).and_then(text_of)?.parse::<Timestamp>().ok();
    stated.filter(|at| *at <= event.time())
}

/// Refuses a change of an order that was looked for and was not sent.
///
/// # Errors
/// It was not, and the connection does not send such.
pub fn check_sent(event: &Deliverable, policy: UnsentOrders) -> Result<(), Refusal> {
    let looked_for = event.order_state.as_ref();
    let is_unsent = looked_for.is_some_and(|state| !state.is_sold());
    match policy {
        UnsentOrders::Refuse if is_unsent => Err(refusal()),
        UnsentOrders::Refuse | UnsentOrders::Send => Ok(()),
    }
}

/// What is said of such a change.
#[must_use]
pub fn refusal() -> Refusal {
    Refusal::new(
        RefusalCode::OrderNotSent,
        "this connection has not sent the order (it was blocked, filtered, dead, or never came), so nothing can be taken off it: send the \
         order, then this again (of an Order Updated: what the order is worth then); where a tag or another system reported it, set \
         unsent_orders to send, and say properties.original_value where a part of it came back; else close it",
    )
    .at("properties.order_id")
}

/// What the ledger says of a change of an order that was looked for and was not sent, where it goes out.
#[must_use]
pub fn remark(event: &Deliverable) -> Option<Remark> {
    let is_unsent = event.order_state.as_ref().is_some_and(|state| !state.is_sold());
    is_unsent.then_some(Remark::OrderNotSent)
}

/// Refuses a refund of what came back before: told again, it would be taken off twice.
///
/// # Errors
/// Nothing is left.
pub fn check_something_left(state: &OrderState) -> Result<(), Refusal> {
    if state.is_all_back() {
        let why = "everything of the order came back before: this takes nothing off it";
        return Err(Refusal::new(RefusalCode::NothingLeft, why).at("properties.order_id"));
    }
    Ok(())
}
