//! Orders: placed or paid, updated, cancelled.

use rust_decimal::Decimal;

use crate::money::{Side, sum};
use crate::products::{self, Products};
use crate::read::Node;
use crate::settings::{Amounts, CompletedOn, OrderIdFrom, Settings};
use crate::topic::Topic;
use crate::visitor::Visitor;
use crate::webhook::{Headers, KnownOrder, Parts, Total, Unusable, plain};
use crate::write::Object;

/// Room for the envelope beside properties and context.
pub(crate) const ENVELOPE_BYTES: usize = 1_500;

/// An updated or cancelled order of which something was given back, and an updated one that is cancelled, tell no amounts and no products.
const LEFT_TO_REFUNDS: &str = "shopify_amounts_left_to_refunds";

/// Nor does an updated order that is not paid, where an order is sold when it is paid.
const LEFT_TO_PAYMENT: &str = "shopify_amounts_left_to_payment";

/// `financial_status` of an order that is paid, or was. Source: shopify.dev, Order, "financial_status"; 2026-11.
const PAID: [&str; 3] = ["paid", "partially_refunded", "refunded"];

/// The event's parts. An updated order tells what it is now, after edits, and so does one that is sold when it is paid; the others what
/// was bought.
///
/// What an order is now is net of its refunds, and each refund is an event of its own: whoever got both would subtract it twice. So an
/// updated order with refunds leaves out every amount, and the products, whose quantities are net, too; and so does a cancelled one,
/// whose amounts are what was bought: they would be taken off beside what its refunds take off. For the same reason one that was paid
/// after a part came back tells what was bought.
pub(crate) fn parts(
    topic: Topic,
    id: &str,
    order: Node<'_>,
    headers: &Headers<'_>,
    settings: &Settings,
) -> Result<Parts, Unusable> {
    let order_id = order_id(id, order, settings)?;
    let token = order.at("checkout_token").text();
    let visitor = Visitor::of(order, headers, settings, token.as_deref().unwrap_or(id));
    let side = Side::of_order(order, settings.amounts);
    let is_update = topic == Topic::OrdersUpdated;
    let is_now = is_update || (topic == Topic::OrdersPaid && !has_refunds(order));
    let left_out = left_out(topic, order, settings);

    // When the order was sold, where that is when it was placed: an update of one that nobody was told of need not wait for it.
    let is_sold_when_placed = is_update && settings.completed_on == CompletedOn::Created;
    let placed = ["processed_at", "created_at"].iter().find_map(|key| order.at(key).text());
    let sold_at = placed.filter(|_| is_sold_when_placed);

    let mut properties = Object::default();
    properties
        .text("order_id", Some(&order_id))
        .text("shopify_order_id", Some(id))
        .text("order_name", order.at("name").text())
        .text("checkout_id", token.or_else(|| order.at("checkout_id").id().map(Into::into)))
        .text("cart_id", order.at("cart_token").text())
        .text("affiliation", plain(headers.shop_domain, 253))
        .text("original_timestamp", sold_at.as_deref())
        .text("currency", side.currency(order));
    if left_out.is_none() {
        Worth::of(order, &side, is_now).write(&mut properties);
        write_both_sides(order, settings.amounts, is_now, &mut properties);
    }
    properties.text("coupon", coupons(order));
    properties
        .text("source_name", order.at("source_name").text())
        .text("financial_status", order.at("financial_status").text())
        .text("payment_method", order.at("payment_gateway_names").first().text())
        .text("cancel_reason", order.at("cancel_reason").text());

    let mut products =
        Products::beside(properties.len() + visitor.context.len() + visitor.place.len() + ENVELOPE_BYTES);
    let lines = order.at("line_items").items().filter(|_| left_out.is_none());
    for (line, position) in lines.zip(1..) {
        let at_first = line.at("quantity").count();
        let quantity = if is_now { line.at("current_quantity").count().or(at_first) } else { at_first };
        match quantity {
            Some(0) => {}
            quantity => products.add(&products::product(line, &side, quantity.unwrap_or(1), position)),
        }
    }
    products.write(&mut properties);

    let says_worth = !has_refunds(order) && left_out != Some(LEFT_TO_PAYMENT);
    let known = KnownOrder {
        shopify_order_id: id.to_owned(),
        order_id,
        updated_at: order.at("updated_at").text().map(String::from),
        refunded_at: None,
        anonymous_id: visitor.anonymous_id.clone(),
        anonymous_id_is_made: visitor.anonymous_id_is_made,
        user_id: visitor.user_id.clone(),
        place: visitor.place.clone(),
        shop: total(order, Amounts::Shop),
        presentment: total(order, Amounts::Presentment),
        current: current_total(order).filter(|_| says_worth),
        current_at: order.at("updated_at").text().filter(|_| says_worth).map(String::from),
        refunds: Vec::new(),
    };
    let times: &[&str] = match topic {
        Topic::OrdersUpdated => &["updated_at"],
        Topic::OrdersCancelled => &["cancelled_at", "updated_at"],
        // `processed_at` is the time of the order, which may be weeks before it is paid.
        Topic::OrdersPaid => &["updated_at", "processed_at", "created_at"],
        Topic::OrdersCreate | Topic::RefundsCreate | Topic::CheckoutsCreate | Topic::CheckoutsUpdate => {
            &["processed_at", "created_at"]
        }
    };
    let timestamp = times.iter().find_map(|key| order.at(key).text()).map(String::from);
    let warnings = left_out.into_iter().collect();
    Ok(Parts { properties, visitor, timestamp, order: Some(known), order_unknown: false, warnings })
}

/// The warning of an event that says nothing of what its order is worth; none: it does.
fn left_out(topic: Topic, order: Node<'_>, settings: &Settings) -> Option<&'static str> {
    let is_update = topic == Topic::OrdersUpdated;
    let is_change = is_update || topic == Topic::OrdersCancelled;
    // A cancelled order of which nothing was paid back may go on to say what it was worth: its cancellation tells that nothing is left.
    let is_still_worth = || current_total(order).is_none_or(|total| total.amount > Decimal::ZERO);
    let is_cancelled = is_update && order.at("cancelled_at").text().is_some() && is_still_worth();
    if is_cancelled || (is_change && has_refunds(order)) {
        return Some(LEFT_TO_REFUNDS);
    }
    // Nobody was told of it yet, or not of what is still to be paid: its payment tells that.
    let is_left_to_payment = is_update && settings.completed_on == CompletedOn::Paid && is_unpaid(order);
    is_left_to_payment.then_some(LEFT_TO_PAYMENT)
}

fn has_refunds(order: Node<'_>) -> bool {
    order.at("refunds").items().next().is_some()
}

/// Whether it says that it is not paid, or not in full.
fn is_unpaid(order: Node<'_>) -> bool {
    let status = order.at("financial_status").text();
    status.is_some_and(|status| !PAID.iter().any(|paid| status.eq_ignore_ascii_case(paid)))
}

fn order_id(id: &str, order: Node<'_>, settings: &Settings) -> Result<String, Unusable> {
    let (field, value) = match settings.order_id_from {
        OrderIdFrom::Id => return Ok(id.to_owned()),
        OrderIdFrom::Name => ("name", order.at("name").text()),
        OrderIdFrom::OrderNumber => ("order_number", order.at("order_number").text()),
    };
    let missing = Unusable::Field { field, why: "is absent, and the source takes it for the order's id" };
    value.map(String::from).ok_or(missing)
}

/// What an order is worth, in Segment's words.
struct Worth {
    total: Option<Decimal>,
    subtotal: Option<Decimal>,
    revenue: Option<Decimal>,
    tax: Option<Decimal>,
    shipping: Option<Decimal>,
    discount: Option<Decimal>,
}

impl Worth {
    fn of(order: Node<'_>, side: &Side, is_now: bool) -> Self {
        let amount = |key: &str| {
            let now = is_now.then(|| side.amount(order, &format!("current_{key}"))).flatten();
            now.or_else(|| side.amount(order, key))
        };
        let subtotal = amount("subtotal_price");
        let tax = amount("total_tax");
        let included = order.at("taxes_included").is_true();
        let revenue = if included {
            let lines = tax_of_lines(order, side, tax, is_now);
            subtotal.and_then(|subtotal| subtotal.checked_sub(lines.unwrap_or_default()))
        } else {
            subtotal
        };
        let shipping = side
            .of_set(order.at("total_shipping_price_set"))
            .or_else(|| sum(order.at("shipping_lines").items().map(|line| side.amount(line, "price"))));
        let discount = amount("total_discounts");
        Self { total: amount("total_price"), subtotal, revenue, tax, shipping, discount }
    }

    fn write(&self, properties: &mut Object) {
        properties
            .amount("total", self.total)
            .amount("revenue", self.revenue)
            .amount("subtotal", self.subtotal)
            .amount("shipping", self.shipping)
            .amount("tax", self.tax)
            .amount("discount", self.discount);
    }
}

/// The tax inside the subtotal: that of the lines. The order's whole tax is that of the shipping, too. Lines tell what was bought: of
/// what an order is now, only the whole tax is told.
fn tax_of_lines(order: Node<'_>, side: &Side, tax: Option<Decimal>, is_now: bool) -> Option<Decimal> {
    let of = |lines: &str| {
        let taxes = order.at(lines).items().flat_map(|line| line.at("tax_lines").items());
        sum(taxes.map(|tax| side.amount(tax, "price")))
    };
    let of_lines = if is_now { None } else { of("line_items") };
    let of_rest = || tax.and_then(|tax| tax.checked_sub(of("shipping_lines").unwrap_or_default()));
    // The shipping's lines tell its tax as it was bought: where that is no longer in the order's, nothing is left for the lines.
    of_lines.or_else(of_rest).map(|tax| tax.max(Decimal::ZERO))
}

fn coupons(order: Node<'_>) -> Option<String> {
    let codes: Vec<String> = order
        .at("discount_codes")
        .items()
        .filter_map(|c| c.at("code").text())
        .take(5)
        .map(String::from)
        .collect();
    (!codes.is_empty()).then(|| codes.join(","))
}

/// Both currencies and the other side's total, where they differ.
fn write_both_sides(order: Node<'_>, amounts: Amounts, is_now: bool, properties: &mut Object) {
    let of = |amounts| if is_now { total_now(order, amounts) } else { total(order, amounts) };
    let (shop, presentment) = (of(Amounts::Shop), of(Amounts::Presentment));
    let (Some(shop), Some(presentment)) = (shop, presentment) else { return };
    if shop.currency == presentment.currency {
        return;
    }
    properties
        .text("shop_currency", Some(&shop.currency))
        .text("presentment_currency", Some(&presentment.currency));
    match amounts {
        Amounts::Shop => properties.amount("presentment_total", Some(presentment.amount)),
        Amounts::Presentment => properties.amount("shop_total", Some(shop.amount)),
    };
}

fn total(order: Node<'_>, amounts: Amounts) -> Option<Total> {
    let side = Side::of_order(order, amounts);
    Some(Total { amount: side.amount(order, "total_price")?, currency: side.currency(order)? })
}

/// What the order is worth now, after edits and refunds, in the shop's currency.
pub(crate) fn current_total(order: Node<'_>) -> Option<Total> {
    total_now(order, Amounts::Shop)
}

fn total_now(order: Node<'_>, amounts: Amounts) -> Option<Total> {
    let side = Side::of_order(order, amounts);
    let amount = side.amount(order, "current_total_price").or_else(|| side.amount(order, "total_price"))?;
    Some(Total { amount, currency: side.currency(order)? })
}
