//! Line items as products, as many as fit into an event.

use rust_decimal::Decimal;

use crate::money::{Side, sum};
use crate::read::{Node, cut};
use crate::write::Object;

/// Most bytes of an event that is made here, a little under the 32,768 that an event may have.
const MAX_EVENT_BYTES: usize = 32_000;
/// Longest name of a product.
const MAX_NAME_BYTES: usize = 200;

/// Products as a JSON list, and how many did not fit.
pub(crate) struct Products {
    list: String,
    room: usize,
    omitted: u64,
}

impl Products {
    /// None yet, with the room that the rest of the event leaves. An order that is worth something is told, also where its lines
    /// are too many to be: what it is worth does not hang on them.
    pub(crate) const fn beside(bytes: usize) -> Self {
        Self { list: String::new(), room: MAX_EVENT_BYTES.saturating_sub(bytes), omitted: 0 }
    }

    /// Adds one, if it fits.
    pub(crate) fn add(&mut self, product: &Object) {
        if self.omitted > 0 || self.list.len() + product.len() + 1 > self.room {
            self.omitted += 1;
            return;
        }
        if !self.list.is_empty() {
            self.list.push(',');
        }
        self.list.push_str(&product.finish());
    }

    /// Writes them.
    pub(crate) fn write(&self, properties: &mut Object) {
        if !self.list.is_empty() || self.omitted > 0 {
            properties.json("products", &format!("[{}]", self.list));
        }
        if self.omitted > 0 {
            properties.count("products_omitted", Some(self.omitted));
        }
    }
}

/// A line of an order or checkout, with so many pieces. `price` is that of one piece before discounts, as in Segment's spec.
pub(crate) fn product(line: Node<'_>, side: &Side, quantity: u64, position: u64) -> Object {
    let mut object = Object::default();
    object
        .text("product_id", line.at("product_id").id())
        .text("variant_id", line.at("variant_id").id())
        .text("sku", line.at("sku").text())
        .text("name", line.at("title").text().or_else(|| line.at("name").text()).map(short))
        .text("brand", line.at("vendor").text().map(short))
        .text("variant", line.at("variant_title").text().map(short))
        .amount("price", side.amount(line, "price"))
        .count("quantity", Some(quantity))
        .amount("discount", discount(line, side).filter(|d| !d.is_zero()))
        .count("position", Some(position));
    object
}

/// What discounts take off the line as a whole.
pub(crate) fn discount(line: Node<'_>, side: &Side) -> Option<Decimal> {
    sum(line.at("discount_allocations").items().map(|part| side.amount(part, "amount")))
        .or_else(|| side.amount(line, "total_discount"))
}

fn short(text: impl AsRef<str>) -> String {
    cut(text.as_ref(), MAX_NAME_BYTES).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_lines_fit_by_leaving_out_the_last_ones() {
        let mut products = Products::beside(12_000);
        let mut one = Object::default();
        one.text("name", Some("x".repeat(MAX_NAME_BYTES)));
        for _ in 0..1_000 {
            products.add(&one);
        }
        let mut properties = Object::default();
        products.write(&mut properties);
        let written: serde_json::Value = serde_json::from_str(&properties.finish()).unwrap();
        let kept = written["products"].as_array().unwrap().len() as u64;
        assert!(kept > 50, "{kept}");
        assert_eq!(written["products_omitted"], 1_000 - kept);
        assert!(properties.len() < MAX_EVENT_BYTES - 12_000 + 100);
    }
}
