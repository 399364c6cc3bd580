//! Which order event is what at Google, and what is left of an order.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use tracklayer_event::commerce::{ORDER_CANCELLED, ORDER_COMPLETED, ORDER_REFUNDED};

use crate::commerce::{
    Currency, OrderFacts, Remainder, lists_a_price, refund_amount, refund_is_unpriced, remainder,
};
use crate::connection::Connection;
use crate::deliverable::{Deliverable, OrderState, text_of};
use crate::google::MAX_ADJUSTMENT_AGE;
use crate::outcome::{Note, Refusal, RefusalCode, Rule};
use crate::unsent::{self, UnsentOrders};
use crate::usual::{Usual, usual, usuals};

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

/// An amount, and the code of its currency.
pub type Money = (Decimal, Cow<'static, str>);

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

/// What is known of the order that an event changes, where it can be changed still, and where the event tells news of it. Of an update
/// the order's age counts first: nobody has to mend what says nothing that could be told. `time` is the event's.
///
/// # Errors
/// It cannot be changed any more, or the event tells no news of it.
pub fn state_to_change(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    reported_by: ReportedBy,
    (time, now): (Timestamp, Timestamp),
) -> Result<OrderState, Refusal> {
    let state = state_of(event, reported_by);
    if act == Act::Update {
        check_adjustable(act, &state, now)?;
    }
    check_news(connection, event, act, reported_by, time)?;
    check_adjustable(act, &state, now)?;
    Ok(state)
}

/// Refuses a change of a conversion that is too old for one, where its time is known. What it was worth cannot be told any more; of
/// an update, which comes of each label and each note of an order as well, nobody has to be told that.
fn check_adjustable(act: Act, state: &OrderState, now: Timestamp) -> Result<(), Refusal> {
    let age = state.at.map(|at| now.duration_since(at));
    if age
        .is_some_and(|age| age > SignedDuration::try_from(MAX_ADJUSTMENT_AGE).unwrap_or(SignedDuration::MAX))
    {
        let code = match act {
            Act::Update => RefusalCode::NothingToUpdate,
            Act::Refund | Act::Cancel | Act::Purchase | Act::Conversion => RefusalCode::EventTooOld,
        };
        return Err(Refusal::new(code, "the conversion is older than 54 days")
            .at("timestamp")
            .as_platform("CONVERSION_EXPIRED"));
    }
    Ok(())
}

/// Where an order says what it is worth.
const AMOUNTS: &[Usual] = usuals![
    "properties.total",
    "properties.revenue",
    "properties.subtotal",
    "properties.value",
    "properties.amount",
];

/// Refuses an update that says nothing of what its order is worth (a label, a tracking number, an order whose amounts are left to its
/// refunds), whatever is known of the order. Where it names an amount that the connection does not read, or that is none ("$70.00"),
/// somebody can mend that.
///
/// # Errors
/// It says nothing.
pub fn check_says_worth(connection: &Connection, event: &Deliverable, act: Act) -> Result<(), Refusal> {
    let names_an_amount = || {
        lists_a_price(event)
            || AMOUNTS.iter().any(|place| event.at(*place).is_some())
            || connection.worth.value_from.iter().any(|path| path.of(event).is_some())
    };
    if act != Act::Update || connection.worth.stated(event).is_some() || names_an_amount() {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::NoNewValue,
        "this updated order says no amount: what it is worth by now is not told",
    )
    .at("properties.total"))
}

/// How long after an order its sale may still come: as long as a change waits for its order.
const SALE_COMES_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// How old an update may be that is not behind: of an older one the sale may stand in a backlog, too, in another partition, say. A pause
/// of some hours, after which each update of an old order would be a dead letter, is no such backlog.
const NOT_BEHIND_WITHIN: SignedDuration = SignedDuration::from_hours(12);

/// Refuses a change of an order that was looked for and was not sent. An update of an order that says of itself that it is older than a
/// sale can be late waits for none: it is of one from before this connection, or of one that was kept back, and the platform has
/// nothing that is wrong. Unless the update itself is late: then its sale may be so as well, and it waits as any other change.
///
/// # Errors
/// It was not, and the connection does not send such.
pub fn check_sent(
    event: &Deliverable,
    act: Act,
    policy: UnsentOrders,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Err(refusal) = unsent::check_sent(event, policy) else { return Ok(()) };
    let is_old = || {
        let sold_at = unsent::original_time(event);
        sold_at.is_some_and(|at| event.time().duration_since(at) > SALE_COMES_WITHIN)
    };
    let is_behind = now.duration_since(event.time()) > NOT_BEHIND_WITHIN;
    if act == Act::Update && !is_behind && is_old() {
        return Err(Refusal::new(
            RefusalCode::NothingToUpdate,
            "this connection has not sent the order, which is older than a day: there is nothing to change; if the order is sent after \
             all, send what it is worth then as Order Updated",
        )
        .at("properties.order_id"));
    }
    Err(refusal)
}

/// Refuses what tells nothing new, or cannot be told from that: a refund that the order's new value has in it; a new value of an
/// order that was changed after it, that is worth just that at the platform, or that repeats what it was worth before something came
/// back. `time` is the event's.
fn check_news(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    reported_by: ReportedBy,
    time: Timestamp,
) -> Result<(), Refusal> {
    let Some(state) = &event.order_state else { return Ok(()) };
    match act {
        Act::Refund => check_not_in_new_value(state, time),
        Act::Update => check_new_value(connection, event, reported_by, state, time),
        Act::Cancel | Act::Purchase | Act::Conversion => Ok(()),
    }
}

/// A new value has the refunds before it in it: one of them that comes after it would be taken off twice. Of a cancelled order nothing
/// is left, whenever it was cancelled. A new value whose time is a whole second is taken to be of that second's end where the refund's
/// time is finer: shops state the times of orders to the second, and those of payments often to the millisecond.
fn check_not_in_new_value(state: &OrderState, time: Timestamp) -> Result<(), Refusal> {
    let is_before = |at: Timestamp| {
        let is_coarser = at.subsec_nanosecond() == 0 && time.subsec_nanosecond() != 0;
        time < at || (is_coarser && time.as_second() == at.as_second())
    };
    if state.restated_at.is_some_and(is_before) {
        return Err(Refusal::new(
            RefusalCode::OrderChangedSince,
            "a new value of the order that was stated after this refund was told before it, and has it in it: this would be taken off twice",
        )
        .at("timestamp"));
    }
    Ok(())
}

/// An update that says `restate` is told though nothing seems to have changed, or though it says what the order was worth before some of
/// it came back; not one from before a change that was told.
fn check_new_value(
    connection: &Connection,
    event: &Deliverable,
    reported_by: ReportedBy,
    state: &OrderState,
    time: Timestamp,
) -> Result<(), Refusal> {
    let is_from_before = |at: Option<Timestamp>| at.is_some_and(|at| time < at);
    let is_gross = || states_gross(connection, event, reported_by, state);
    let is_known = || is_told(connection, event, reported_by, state);
    // What we sold says what the order was worth then. It may have come after an update that waited for it.
    let is_before_sale = reported_by == ReportedBy::Us && is_from_before(state.at);
    let is_before_change = is_from_before(state.changed_at);
    // A process of an earlier version keeps no time of a new value; refunds after one are more than nothing.
    let is_before_new_value =
        is_from_before(state.restated_at) || (is_before_change && state.restated && state.refunded.is_zero());
    // What is left may be told with a time that was cut to the second of the refund.
    let is_no_news = || state.is_all_back() || is_gross() || is_known();
    if is_before_sale || is_before_new_value || (is_before_change && is_no_news()) {
        return Err(Refusal::new(
            RefusalCode::OrderChangedSince,
            "a refund, a cancellation, a new value or a sale of the order that happened after this was told before it: this would undo it, \
             or says nothing new",
        )
        .at("timestamp"));
    }
    // Something that is no amount is refused as that.
    if is_before_change && connection.worth.stated(event).is_some() {
        return Err(Refusal::new(
            RefusalCode::ValueWithoutRefunds,
            "the order was worth something else before a refund that was told: send what it is worth now as Order Updated, and not this \
             again: of updates since that told nothing new no trace is kept",
        )
        .at("timestamp"));
    }
    if event.at(usual!("properties.restate")).and_then(text_of).is_some_and(|text| text == "true") {
        return Ok(());
    }
    if is_known() {
        return Err(Refusal::new(
            RefusalCode::OrderUnchanged,
            "the order is worth what the platform was told before; of this no trace is kept: do not replay an older update after it",
        )
        .at("properties.total"));
    }
    check_not_gross(state, is_gross)
}

/// A shop that repeats its order with each change of its status says what was sold again and again, whatever came back of it.
fn check_not_gross(state: &OrderState, is_gross: impl FnOnce() -> bool) -> Result<(), Refusal> {
    let is_all_back = state.is_all_back();
    let came_back = is_all_back || state.refunded > Decimal::ZERO;
    if !came_back || !is_gross() {
        return Ok(());
    }
    let why = if is_all_back {
        "this says what the order was worth before all of it came back: it would undo that"
    } else {
        "this says what the order was worth before some of it came back, and would undo that: where it is worth that again, say \
         properties.restate: true"
    };
    Err(Refusal::new(RefusalCode::OrderChangedSince, why).at("properties.total"))
}

/// Whether an updated order is worth what it was before anything came back: in value and currency, and in the total where it names
/// one. What the total was of an order that was not sent from here is not known.
fn states_gross(
    connection: &Connection,
    event: &Deliverable,
    reported_by: ReportedBy,
    state: &OrderState,
) -> bool {
    let known = state_of(event, reported_by);
    let stated = connection.worth.stated(event);
    stated.is_some()
        && stated == known.value
        && is_same_currency(connection, event, state)
        && stated_total(connection, event)
            .is_none_or(|total| !state.is_sold() || known.whole() == Some(total))
}

/// Whether an updated order is worth what was told of it before: the same value in the same currency, and no other total, which refunds
/// are measured against. What a tag reported is not known until something was told from here.
fn is_told(
    connection: &Connection,
    event: &Deliverable,
    reported_by: ReportedBy,
    state: &OrderState,
) -> bool {
    let knows = match reported_by {
        ReportedBy::Us => state.value.is_some(),
        ReportedBy::Tag => state.restated,
    };
    let left = match remainder(Some(state), Some(Decimal::ZERO)) {
        _ if state.is_all_back() => Some(Decimal::ZERO),
        Remainder::Nothing => Some(Decimal::ZERO).filter(|_| knows),
        Remainder::Left(left) => Some(left).filter(|_| knows),
        Remainder::Unknown => None,
    };
    if left.is_none() || connection.worth.stated(event) != left {
        return false;
    }
    let whole_left = state.whole().and_then(|whole| whole.checked_sub(state.refunded));
    let is_same_total =
        stated_total(connection, event).is_none_or(|total| state.is_all_back() || whole_left == Some(total));
    is_same_currency(connection, event, state) && is_same_total
}

/// A total of nothing, paid with a voucher, is none.
fn stated_total(connection: &Connection, event: &Deliverable) -> Option<Decimal> {
    OrderFacts::of(connection, event).total.filter(|total| *total > Decimal::ZERO)
}

/// Whether an event is in the order's currency. One that names none is; so is any of an order that was not sent from here, whose currency
/// is not known.
fn is_same_currency(connection: &Connection, event: &Deliverable, state: &OrderState) -> bool {
    match (Currency::of(connection, event), state.currency.as_deref()) {
        (Currency::Code(stated), Some(told)) => stated.eq_ignore_ascii_case(told),
        (Currency::Absent, _) => true,
        (Currency::Code(_), None) => !state.is_sold(),
        (Currency::Wrong, _) => false,
    }
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

/// The currency of what is left: the order's. A new value has its own, unless it names none.
///
/// # Errors
/// There is none, or a new value names something that is none.
pub fn currency_left(
    connection: &Connection,
    event: &Deliverable,
    act: Act,
    state: &OrderState,
) -> Result<Cow<'static, str>, Refusal> {
    let stated = Currency::of(connection, event);
    let sold = state.currency.clone().map(Cow::Owned);
    let code = match act {
        Act::Update => match stated {
            Currency::Code(_) | Currency::Wrong => return stated.required().map(Cow::Borrowed),
            Currency::Absent => sold,
        },
        Act::Refund | Act::Cancel | Act::Purchase | Act::Conversion => {
            sold.or_else(|| stated.code().map(Cow::Borrowed))
        }
    };
    code.map_or_else(|| stated.required().map(Cow::Borrowed), Ok)
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
    products: &[crate::commerce::Product<'_>],
    notes: &mut Vec<Note>,
) -> Result<Option<Money>, Refusal> {
    let currency = Currency::of(connection, event);
    if act == Act::Purchase {
        let value = connection.worth.of_purchase(event, products)?;
        return Ok(Some((value, currency.required()?.into())));
    }
    let value = connection.worth.of_other(event, products);
    match (value, currency.code()) {
        (Some(value), Some(code)) => Ok(Some((value, code.into()))),
        (Some(_), None) => {
            notes.push(Note::rejected("conversionValue", Rule::ValueWithoutCurrency));
            Ok(None)
        }
        (None, _) => Ok(None),
    }
}
