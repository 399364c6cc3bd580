//! Refunds: what was paid back, never what the order was worth.
//!
//! The amount is that of the payments that succeeded or are under way, not of the lines: shipping and goodwill have no line. A payment is in the
//! currency in which it was made, which is the buyer's, while orders are told in the shop's unless the source says otherwise; where
//! the order is known, such a refund is told in the order's currency, at the order's own rate (its total in one by its total in the
//! other), so that a full refund is exactly the order, and so are its parts together: what was told of earlier refunds of the order
//! is known, and each part is what all of them make up to then less that. Where the order is not known, the refund says what was paid
//! back, in that currency, and whoever knows the order in another will refuse it rather than guess. Source: shopify.dev, Refund,
//! Transaction; 2026-11.

use rust_decimal::Decimal;

use crate::money::{Side, code, rounded, sum};
use crate::order::ENVELOPE_BYTES;
use crate::products::{self, Products};
use crate::read::Node;
use crate::settings::{Amounts, OrderIdFrom, Settings};
use crate::visitor::{Visitor, made_id};
use crate::webhook::{KnownOrder, Parts, ToldRefund, Total, Unusable};
use crate::write::Object;

/// A payment back is under way, and is told as if it had succeeded.
const PENDING: &str = "shopify_refund_pending";

/// A payment back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payment {
    amount: Decimal,
    /// As the payment names it.
    currency: Option<String>,
    /// It is under way.
    is_pending: bool,
}

/// Whether it is of an order made for a test: a refund says so of its payments.
pub(crate) fn is_test(refund: Node<'_>) -> bool {
    refund.at("transactions").items().any(|transaction| transaction.at("test").is_true())
}

/// The payments back that succeeded or are under way: no other webhook tells that a pending one succeeded, so that it would be lost.
pub(crate) fn paid_back(refund: Node<'_>) -> Vec<Payment> {
    refund
        .at("transactions")
        .items()
        .filter(|t| is(*t, "kind", "refund") && (is(*t, "status", "success") || is(*t, "status", "pending")))
        .filter_map(|t| {
            Some(Payment {
                amount: t.at("amount").decimal()?.abs(),
                currency: code(t.at("currency")),
                is_pending: is(t, "status", "pending"),
            })
        })
        .filter(|payment| !payment.amount.is_zero())
        .collect()
}

fn is(node: Node<'_>, key: &str, word: &str) -> bool {
    node.at(key).text().is_some_and(|text| text.eq_ignore_ascii_case(word))
}

/// The event's parts.
pub(crate) fn parts(
    order: &str,
    refund: Node<'_>,
    settings: &Settings,
    known: Option<&KnownOrder>,
) -> Result<Parts, Unusable> {
    let id = refund.at("id").id().ok_or(Unusable::Field { field: "id", why: "is no refund's id" })?;
    let payments = paid_back(refund);
    let Told { told, paid, kept } = tell(&payments, &id, settings.amounts, known)?;

    let order_id = match (known, settings.order_id_from) {
        (Some(known), _) => Some(known.order_id.as_str()),
        (None, OrderIdFrom::Id) => Some(order),
        // A refund names its order by Shopify's id alone, and that is not what others know it by.
        (None, OrderIdFrom::Name | OrderIdFrom::OrderNumber) => None,
    };
    let mut properties = Object::default();
    properties
        .text("order_id", order_id)
        .text("shopify_order_id", Some(order))
        .text("refund_id", Some(&id))
        .amount("total", Some(told.amount))
        .text("currency", told.currency.as_deref());
    if let Some(paid) = paid.filter(|paid| *paid != told) {
        properties
            .amount("paid_back", Some(paid.amount))
            .text("paid_back_currency", paid.currency.as_deref());
    }
    let visitor = visitor(order, known);
    // Where it is told in the currency of the payment because the order is not known, plain prices may be of another.
    let is_orders_side =
        known.is_some() && side_total(settings.amounts, known).map(|t| &t.currency) == told.currency.as_ref();
    let side = Side::of_refund(if is_orders_side { settings.amounts } else { Amounts::Presentment });
    let mut products =
        Products::beside(properties.len() + visitor.context.len() + visitor.place.len() + ENVELOPE_BYTES);
    for (line, position) in refund.at("refund_line_items").items().zip(1..) {
        let quantity = line.at("quantity").count().unwrap_or(1);
        if quantity > 0 {
            products.add(&products::product(line.at("line_item"), &side, quantity, position));
        }
    }
    products.write(&mut properties);
    let warnings = if told.is_pending { vec![PENDING] } else { Vec::new() };
    // `processed_at` may be dated back, to before an edit that the refund is off. Source: shopify.dev, Refund, "processed_at"; 2026-11.
    let made_at =
        ["created_at", "processed_at"].iter().find_map(|key| refund.at(key).text()).map(String::from);
    let timestamp = made_at.clone();
    // The order's state that has the refund comes by a webhook of its own, and until then an older one may come again.
    let order = known.map(|known| {
        let known = known.clone().refunded_by(made_at);
        match kept {
            Some(told) => known.with_refund(told),
            None => known,
        }
    });
    Ok(Parts { properties, visitor, timestamp, order, order_unknown: known.is_none(), warnings })
}

/// A refund as it is told.
struct Told {
    told: Payment,
    /// What was paid back, where that is one amount.
    paid: Option<Payment>,
    /// What has to be known of it when the next part comes.
    kept: Option<ToldRefund>,
}

/// Payments in the order's currency are told as they are, those in its other one at its rate. In a third currency, or of an order
/// that is not known, they are told as they are, if they are of one currency.
fn tell(
    payments: &[Payment],
    refund: &str,
    amounts: Amounts,
    known: Option<&KnownOrder>,
) -> Result<Told, Unusable> {
    let paid = in_one_currency(payments);
    let Some((known, order)) = known.zip(side_total(amounts, known)) else {
        let paid = paid?;
        return Ok(Told { told: paid.clone(), paid: Some(paid), kept: None });
    };
    let other = match amounts {
        Amounts::Shop => known.presentment.as_ref(),
        Amounts::Presentment => known.shop.as_ref(),
    };
    let of = |total: &Total| {
        let of = payments.iter().filter(|payment| payment.currency.as_ref() == Some(&total.currency));
        (of.clone().count(), sum(of.map(|payment| Some(payment.amount))).unwrap_or_default())
    };
    let (plain_count, plain) = of(order);
    let other = other.filter(|other| other.currency != order.currency && other.amount > Decimal::ZERO);
    let (foreign_count, foreign) = other.map_or((0, Decimal::ZERO), of);
    let converted = match other.filter(|_| foreign_count > 0) {
        Some(other) if plain_count + foreign_count == payments.len() => {
            at_the_orders_rate(known, refund, foreign, order, other)
        }
        _ => None,
    };
    let Some(converted) = converted else {
        let paid = paid?;
        return Ok(Told { told: paid.clone(), paid: Some(paid), kept: None });
    };
    let amount = plain.checked_add(converted).ok_or(TOO_MUCH)?;
    let told = Payment {
        amount,
        currency: Some(order.currency.clone()),
        is_pending: payments.iter().any(|payment| payment.is_pending),
    };
    let kept = ToldRefund { refund_id: refund.to_owned(), paid: foreign, told: converted };
    Ok(Told { told, paid: paid.ok(), kept: Some(kept) })
}

const TOO_MUCH: Unusable =
    Unusable::Field { field: "transactions", why: "pay back more than can be counted" };

fn in_one_currency(payments: &[Payment]) -> Result<Payment, Unusable> {
    let currency = payments.first().and_then(|payment| payment.currency.clone());
    if payments.iter().any(|payment| payment.currency != currency) {
        return Err(Unusable::Field { field: "transactions", why: "pay back in more than one currency" });
    }
    let amount = sum(payments.iter().map(|payment| Some(payment.amount))).ok_or(TOO_MUCH)?;
    Ok(Payment { amount, currency, is_pending: payments.iter().any(|payment| payment.is_pending) })
}

/// What a payment in the order's other currency is in its own: what all of them make up to this one, less what was told of those
/// before. A refund that comes again is told as it was.
fn at_the_orders_rate(
    known: &KnownOrder,
    refund: &str,
    paid: Decimal,
    order: &Total,
    other: &Total,
) -> Option<Decimal> {
    if let Some(before) =
        known.refunds.iter().find(|before| before.refund_id == refund && before.paid == paid)
    {
        return Some(before.told);
    }
    let before = || known.refunds.iter().filter(|before| before.refund_id != refund);
    let paid_before = sum(before().map(|before| Some(before.paid))).unwrap_or_default();
    let told_before = sum(before().map(|before| Some(before.told))).unwrap_or_default();
    // First the product: a quotient that does not end would cost a full refund its last digit.
    let all = paid_before.checked_add(paid)?.checked_mul(order.amount)?.checked_div(other.amount)?;
    Some(rounded(all, &order.currency).checked_sub(told_before)?.max(Decimal::ZERO))
}

fn side_total(amounts: Amounts, known: Option<&KnownOrder>) -> Option<&Total> {
    match amounts {
        Amounts::Shop => known?.shop.as_ref(),
        Amounts::Presentment => known?.presentment.as_ref(),
    }
}

/// Whoever the order was of.
fn visitor(order: &str, known: Option<&KnownOrder>) -> Visitor {
    let mut context = Object::default();
    let Some(known) = known else {
        let anonymous_id = made_id(&["order", order]).to_string();
        return Visitor { anonymous_id, context, ..Visitor::default() };
    };
    if !known.place.is_empty() {
        context.json("location", &known.place);
    }
    Visitor {
        anonymous_id: known.anonymous_id.clone(),
        anonymous_id_is_made: known.anonymous_id_is_made,
        user_id: known.user_id.clone(),
        place: String::new(),
        context,
    }
}
