//! Which order event is what at Google, and what is left of an order.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use tracklayer_event::commerce::{ORDER_CANCELLED, ORDER_COMPLETED, ORDER_REFUNDED};

use crate::commerce::{Currency, Remainder, decimal_of, refund_amount, refund_is_unpriced, remainder};
use crate::connection::Connection;
use crate::deliverable::{Deliverable, OrderState, text_of};
use crate::google::MAX_ADJUSTMENT_AGE;
use crate::outcome::{Note, Refusal, RefusalCode, Rule};

/// What an event does to a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A purchase: value and currency required.
    Purchase,
    /// Another conversion.
    Conversion,
    /// A refund of all or part.
    Refund,
    /// The whole order is void.
    Cancel,
    /// The order is worth something else now.
    Update,
}

impl Act {
    /// By the event's name.
    #[must_use]
    pub fn of(event: &Deliverable) -> Self {
        match event.folded_name() {
            ORDER_COMPLETED => Self::Purchase,
            ORDER_REFUNDED => Self::Refund,
            ORDER_CANCELLED => Self::Cancel,
            "order updated" => Self::Update,
            _ => Self::Conversion,
        }
    }

    /// Whether it changes an earlier conversion.
    #[must_use]
    pub const fn is_adjustment(self) -> bool {
        matches!(self, Self::Refund | Self::Cancel | Self::Update)
    }
}

/// What an adjustment leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjusted {
    /// Nothing: retraction.
    Void,
    /// A new total: restatement.
    Worth(Decimal),
}

/// The order's state: the lane's, else what the event itself says about the original.
#[must_use]
pub fn state_of(event: &Deliverable) -> OrderState {
    let mut state = event.order_state.clone().unwrap_or_default();
    state.value = state.value.or_else(|| event.property("original_value").and_then(decimal_of));
    // Nothing is changed before it happened: a time that says so is none.
    let stated = || event.property("original_timestamp").and_then(text_of)?.parse::<Timestamp>().ok();
    state.at = state.at.or_else(|| stated().filter(|at| *at <= event.time()));
    state
}

/// Refuses a change of a conversion that is too old for one, where its time is known.
///
/// # Errors
/// It is.
pub fn check_adjustable(state: &OrderState, now: Timestamp) -> Result<(), Refusal> {
    let age = state.at.map(|at| now.duration_since(at));
    if age
        .is_some_and(|age| age > SignedDuration::try_from(MAX_ADJUSTMENT_AGE).unwrap_or(SignedDuration::MAX))
    {
        return Err(Refusal::new(RefusalCode::EventTooOld, "the conversion is older than 54 days")
            .at("timestamp")
            .as_platform("CONVERSION_EXPIRED"));
    }
    Ok(())
}

/// What is left after this event.
///
/// # Errors
/// A part was refunded, and what was sent for the order, or what came back, is not known.
pub fn adjusted(connection: &Connection, event: &Deliverable, act: Act) -> Result<Adjusted, Refusal> {
    let missing =
        |why: &str| Err(Refusal::new(RefusalCode::MissingValue, why.to_owned()).at("properties.total"));
    match act {
        Act::Cancel => Ok(Adjusted::Void),
        Act::Update => match connection.worth.stated(event) {
            Some(value) if value.is_zero() => Ok(Adjusted::Void),
            Some(value) if value > Decimal::ZERO => Ok(Adjusted::Worth(value)),
            _ => missing("an updated order needs its new value"),
        },
        Act::Purchase | Act::Conversion | Act::Refund => {
            if refund_is_unpriced(connection, event) {
                return missing("a refund that lists its products needs their prices, or an amount");
            }
            let state = state_of(event);
            let amount = refund_amount(connection, event);
            if amount.is_some() {
                check_same_currency(connection, event, &state)?;
            }
            match remainder(Some(&state), amount) {
                Remainder::Nothing => Ok(Adjusted::Void),
                Remainder::Left(value) => Ok(Adjusted::Worth(value)),
                Remainder::Unknown => {
                    missing("part of an order was refunded, but the value sent for it is not known")
                }
            }
        }
    }
}

/// An amount in another currency says nothing about what is left of an order.
fn check_same_currency(
    connection: &Connection,
    event: &Deliverable,
    state: &OrderState,
) -> Result<(), Refusal> {
    let refunded = Currency::of(connection, event);
    match (refunded.code(), state.currency.as_deref()) {
        (Some(refunded), Some(sold)) if !refunded.eq_ignore_ascii_case(sold) => Err(Refusal::new(
            RefusalCode::InvalidPayload,
            "the refund is in another currency than the order that was sent",
        )
        .at("properties.currency")),
        _ => Ok(()),
    }
}

/// A negative or absent amount is no money; a purchase's is required, others' is optional. Value and currency go out as a
/// pair or not at all.
///
/// # Errors
/// A purchase without value or currency.
pub fn money(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    products: &[crate::commerce::Product],
    notes: &mut Vec<Note>,
) -> Result<Option<(Decimal, String)>, Refusal> {
    let currency = Currency::of(connection, event);
    if act == Act::Purchase {
        let value = connection.worth.of_purchase(event, products)?;
        return Ok(Some((value, currency.required()?.to_owned())));
    }
    let value = connection.worth.of_other(event, products);
    match (value, currency.code()) {
        (Some(value), Some(code)) => Ok(Some((value, code.to_owned()))),
        (Some(_), None) => {
            notes.push(Note::rejected("conversionValue", Rule::ValueWithoutCurrency));
            Ok(None)
        }
        (None, _) => Ok(None),
    }
}
