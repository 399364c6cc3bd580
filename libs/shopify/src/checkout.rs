//! Checkouts: begun, and gone on with. Who it is becomes known bit by bit.

use crate::money::{Side, sum};
use crate::order::ENVELOPE_BYTES;
use crate::products::{self, Products};
use crate::read::Node;
use crate::settings::Settings;
use crate::topic::Topic;
use crate::visitor::Visitor;
use crate::webhook::{Headers, Parts, plain};
use crate::write::Object;

/// What a checkout is known by: `token`, which its order carries as `checkout_token`.
pub(crate) fn token(checkout: Node<'_>) -> Option<String> {
    checkout.at("token").text().or_else(|| checkout.at("id").text()).map(String::from)
}

/// The event's parts.
pub(crate) fn parts(
    topic: Topic,
    token: &str,
    checkout: Node<'_>,
    headers: &Headers<'_>,
    settings: &Settings,
) -> Parts {
    let visitor = Visitor::of(checkout, headers, settings, token);
    let side = Side::of_checkout(checkout, settings.amounts);
    let amount = |key: &str| side.amount(checkout, key);
    let mut properties = Object::default();
    properties
        .text("checkout_id", Some(token))
        .text("cart_id", checkout.at("cart_token").text())
        .text("affiliation", plain(headers.shop_domain, 253))
        .text("currency", side.currency(checkout))
        .amount("value", amount("total_price"))
        .amount("revenue", amount("subtotal_price"))
        .amount("subtotal", amount("subtotal_price"))
        .amount("shipping", sum(checkout.at("shipping_lines").items().map(|line| side.amount(line, "price"))))
        .amount("tax", amount("total_tax"))
        .amount("discount", amount("total_discounts"))
        .text("coupon", checkout.at("discount_codes").first().at("code").text())
        .text("source_name", checkout.at("source_name").text());
    let mut products =
        Products::beside(properties.len() + visitor.context.len() + visitor.place.len() + ENVELOPE_BYTES);
    for (line, position) in checkout.at("line_items").items().zip(1..) {
        let quantity = line.at("quantity").count().unwrap_or(1);
        if quantity > 0 {
            products.add(&products::product(line, &side, quantity, position));
        }
    }
    products.write(&mut properties);
    let time = if topic == Topic::CheckoutsCreate { "created_at" } else { "updated_at" };
    let timestamp = checkout.at(time).text().map(String::from);
    Parts { properties, visitor, timestamp, order: None, order_unknown: false, warnings: Vec::new() }
}
