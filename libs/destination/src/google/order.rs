//! Which order event is what at Google, and what is left of an order.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use tracklayer_event::commerce::{ORDER_CANCELLED, ORDER_COMPLETED, ORDER_REFUNDED};

use crate::commerce::{Currency, Remainder, refund_amount, refund_is_unpriced, remainder};
use crate::connection::Connection;
use crate::deliverable::{Deliverable, OrderState};
use crate::google::MAX_ADJUSTMENT_AGE;
use crate::outcome::{Note, Refusal, RefusalCode, Rule};
use crate::unsent;

/// The order is worth something else by now, as names are compared.
pub const ORDER_UPDATED: &str = "order updated";

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
            ORDER_UPDATED => Self::Update,
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

/// The order's state: the lane's, else what the event itself says about the original. Of one that a tag reported the event says
/// it better: the lane knows only what the tag should have said. Until a new value was told from here, which is what stands at
/// Google then, whatever the order was worth before.
#[must_use]
pub fn state_of(event: &Deliverable, reported_by: ReportedBy) -> OrderState {
    let mut state = event.order_state.clone().unwrap_or_default();
    let original = unsent::original_value(event);
    state.value = match reported_by {
        ReportedBy::Tag if !state.restated => original.or(state.value),
        ReportedBy::Tag | ReportedBy::Us => state.value.or(original),
    };
    state.at = state.at.or_else(|| unsent::original_time(event));
    state
}

/// Who told Google of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedBy {
    /// This connection.
    Us,
    /// The website's tag.
    Tag,
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

/// What is left after this event of an order in that state.
///
/// # Errors
/// A part was refunded, and what was sent for the order, or what came back, is not known; or nothing was left before.
pub fn adjusted(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    state: &OrderState,
) -> Result<Adjusted, Refusal> {
    let missing =
        |why: &str| Err(Refusal::new(RefusalCode::MissingValue, why.to_owned()).at("properties.total"));
    match act {
        Act::Cancel => unsent::check_something_left(state).map(|()| Adjusted::Void),
        Act::Update => match connection.worth.stated(event) {
            Some(value) if value.is_zero() => Ok(Adjusted::Void),
            Some(value) if value > Decimal::ZERO => Ok(Adjusted::Worth(value)),
            _ => missing("an updated order needs its new value"),
        },
        Act::Purchase | Act::Conversion | Act::Refund => {
            if refund_is_unpriced(connection, event) {
                return missing("a refund that lists its products needs their prices, or an amount");
            }
            let amount = refund_amount(connection, event);
            if amount.is_some() {
                check_same_currency(connection, event, state)?;
            }
            unsent::check_something_left(state)?;
            match remainder(Some(state), amount) {
                Remainder::Nothing => Ok(Adjusted::Void),
                Remainder::Left(value) => Ok(Adjusted::Worth(value)),
                // Looked for, and not found: it may come.
                Remainder::Unknown if event.order_state.is_some() && !state.is_sold() => {
                    Err(unsent::refusal())
                }
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
            "the refund is in another currency than the order that was sent: send it in the order's, at the rate at which it was paid \
             back",
        )
        .at("properties.currency")),
        _ => Ok(()),
    }
}

/// The currency of what is left: the order's. A new value has its own.
///
/// # Errors
/// There is none.
pub fn currency_left(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    state: &OrderState,
) -> Result<String, Refusal> {
    let stated = Currency::of(connection, event);
    let sold = state.currency.clone();
    let code = match act {
        Act::Update => stated.code().map(str::to_owned).or(sold),
        Act::Refund | Act::Cancel | Act::Purchase | Act::Conversion => {
            sold.or_else(|| stated.code().map(str::to_owned))
        }
    };
    code.map_or_else(|| stated.required().map(str::to_owned), Ok)
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
