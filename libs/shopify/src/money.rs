//! Amounts of one side: the shop's currency or the buyer's, never one's amount with the other's name.
//!
//! A plain `*_price` is in the shop's currency; the `*_set` beside it has both sides. Source: shopify.dev, Order, "total_price",
//! "total_price_set"; 2026-11.

use rust_decimal::{Decimal, RoundingStrategy};

use crate::read::Node;
use crate::settings::Amounts;

/// The side of a document's amounts.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    amounts: Amounts,
    /// Whether plain prices are of this side, too.
    plain: bool,
}

impl Side {
    /// Of an order, whose plain prices are the shop's.
    pub(crate) fn of_order(order: Node<'_>, amounts: Amounts) -> Self {
        let plain = match amounts {
            Amounts::Shop => true,
            Amounts::Presentment => has_one_currency(order),
        };
        Self { amounts, plain }
    }

    /// Of a checkout, which has no sets: where the buyer's currency is another, nobody says whose its prices are.
    pub(crate) fn of_checkout(checkout: Node<'_>, amounts: Amounts) -> Self {
        Self { amounts, plain: has_one_currency(checkout) }
    }

    /// Of a refund's lines, whose plain amounts are the shop's.
    pub(crate) const fn of_refund(amounts: Amounts) -> Self {
        Self { amounts, plain: matches!(amounts, Amounts::Shop) }
    }

    /// The amount that stands in `key`, or in `key_set` of the side.
    pub(crate) fn amount(&self, of: Node<'_>, key: &str) -> Option<Decimal> {
        let set = of.at(&format!("{key}_set")).at(self.money()).at("amount").decimal();
        set.or_else(|| of.at(key).decimal().filter(|_| self.plain))
    }

    /// The amount of a set that has no plain price beside it.
    pub(crate) fn of_set(&self, set: Node<'_>) -> Option<Decimal> {
        set.at(self.money()).at("amount").decimal()
    }

    /// The side's currency, as the document names it.
    pub(crate) fn currency(&self, document: Node<'_>) -> Option<String> {
        let name = match self.amounts {
            Amounts::Shop => document.at("currency"),
            Amounts::Presentment => {
                let presentment = document.at("presentment_currency");
                if presentment.text().is_none() { document.at("currency") } else { presentment }
            }
        };
        code(name)
    }

    const fn money(&self) -> &'static str {
        match self.amounts {
            Amounts::Shop => "shop_money",
            Amounts::Presentment => "presentment_money",
        }
    }
}

fn has_one_currency(document: Node<'_>) -> bool {
    let presentment = code(document.at("presentment_currency"));
    presentment.is_none() || presentment == code(document.at("currency"))
}

/// A currency code: three letters.
pub(crate) fn code(node: Node<'_>) -> Option<String> {
    let code = node.text()?.to_ascii_uppercase();
    (code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase())).then_some(code)
}

/// The sum of what is there; none if nothing is, or if it is too large to be money.
pub(crate) fn sum(amounts: impl IntoIterator<Item = Option<Decimal>>) -> Option<Decimal> {
    amounts
        .into_iter()
        .flatten()
        .try_fold(None, |sum: Option<Decimal>, amount| {
            sum.map_or(Some(amount), |sum| sum.checked_add(amount)).map(Some)
        })
        .flatten()
}

/// Rounded to the currency's smallest unit, half away from zero; to cents where the currency is not known. Source: ISO 4217.
pub(crate) fn rounded(amount: Decimal, currency: &str) -> Decimal {
    let digits = iso_currency::Currency::from_code(currency).and_then(|known| known.exponent()).unwrap_or(2);
    amount.round_dp_with_strategy(u32::from(digits), RoundingStrategy::MidpointAwayFromZero)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amount_and_currency_are_of_one_side() {
        let order = json!({
            "currency": "USD", "presentment_currency": "CAD", "total_price": "10.00",
            "total_price_set": {"shop_money": {"amount": "10.00"}, "presentment_money": {"amount": "13.60"}},
            "total_tax": "1.00",
        });
        let order = Node::of(&order);
        let both = |amounts| {
            let side = Side::of_order(order, amounts);
            let text = |key| side.amount(order, key).map(|a| a.to_string());
            (text("total_price"), text("total_tax"), side.currency(order))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(both(Amounts::Shop), (some("10.00"), some("1.00"), some("USD")));
        assert_eq!(
            both(Amounts::Presentment),
            (some("13.60"), None, some("CAD")),
            "a plain price is the shop's"
        );
    }

    #[test]
    fn a_checkout_in_two_currencies_names_no_amount() {
        let two = json!({"currency": "USD", "presentment_currency": "CAD", "total_price": "10.00"});
        let one = json!({"currency": "USD", "presentment_currency": "usd", "total_price": "10.00"});
        for amounts in [Amounts::Shop, Amounts::Presentment] {
            let of = |document| {
                Side::of_checkout(Node::of(document), amounts).amount(Node::of(document), "total_price")
            };
            assert_eq!(of(&two), None);
            assert_eq!(of(&one).unwrap().to_string(), "10.00");
        }
    }

    #[test]
    fn a_sum_of_nothing_is_none_and_one_that_is_too_large_is_none() {
        assert_eq!(sum([None, None]), None);
        assert_eq!(sum([Some(Decimal::ONE), None, Some(Decimal::TEN)]), Some(Decimal::from(11)));
        assert_eq!(sum([Some(Decimal::MAX), Some(Decimal::MAX)]), None);
        assert_eq!(rounded(Decimal::new(12_345, 3), "JPY"), Decimal::from(12));
        assert_eq!(rounded(Decimal::new(12_345, 3), "EUR").to_string(), "12.35");
    }
}
