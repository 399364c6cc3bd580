//! What deliveries do to orders, in memory: the states that `delivery.order_sent` and the index beside it would have after them.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use rust_decimal::Decimal;

use crate::deliverable::OrderState;
use crate::outcome::OrderEffect;

/// Most orders of a book; the one that came first is forgotten for another.
const MOST_ORDERS: usize = 100_000;

impl OrderState {
    /// The state after a delivery. As the store has it: the sale that was delivered last counts, and a restated order has its
    /// refunds so far in its value; times are kept to the microsecond.
    #[must_use]
    pub fn after(self, effect: &OrderEffect) -> Self {
        let known = |at: &Timestamp| Timestamp::from_microsecond(at.as_microsecond()).ok();
        match effect {
            OrderEffect::Sold { value, total, currency, at, match_key, .. } => Self {
                value: *value,
                total: *total,
                currency: currency.clone(),
                at: known(at),
                restated: false,
                restated_at: None,
                // What comes after everything of it came back is another sale of it, unless that was told before the sale.
                all_back: self.all_back && !self.is_sold(),
                match_key: match_key.clone().or(self.match_key),
                ..self
            },
            OrderEffect::Restated { value, total, currency, at, changed_at, .. } => Self {
                value: *value,
                total: *total,
                currency: currency.clone().or(self.currency),
                refunded: Decimal::ZERO,
                all_back: value.is_some_and(|value| value.is_zero()),
                restated: true,
                restated_at: self.restated_at.max(known(changed_at)),
                adjusted_at: self.adjusted_at.max(known(at)),
                changed_at: self.changed_at.max(known(changed_at)),
                ..self
            },
            OrderEffect::Refunded { amount: Some(amount), at, changed_at, .. } => Self {
                refunded: self.refunded.saturating_add(*amount),
                adjusted_at: self.adjusted_at.max(known(at)),
                changed_at: self.changed_at.max(known(changed_at)),
                ..self
            },
            OrderEffect::Refunded { amount: None, at, changed_at, .. } => {
                let whole = self.whole().unwrap_or_default();
                Self {
                    refunded: self.refunded.max(whole),
                    all_back: true,
                    adjusted_at: self.adjusted_at.max(known(at)),
                    changed_at: self.changed_at.max(known(changed_at)),
                    ..self
                }
            }
        }
    }
}

/// States of orders at one connection.
#[derive(Debug, Default)]
pub struct OrderBook {
    orders: HashMap<String, Order>,
    oldest_first: VecDeque<String>,
    forgotten: u64,
}

#[derive(Debug, Default)]
struct Order {
    state: Option<OrderState>,
    /// What happened to it before it was learned how it had been.
    before_learned: Option<Vec<OrderEffect>>,
    /// Whether something was known of it by then.
    was_known: bool,
}

impl OrderBook {
    /// The state of an order; none: nothing is known of it.
    #[must_use]
    pub fn state(&self, order_id: &str) -> Option<&OrderState> {
        self.orders.get(order_id)?.state.as_ref()
    }

    /// Whether [`Self::learn`] has told of it.
    #[must_use]
    pub fn is_learned(&self, order_id: &str) -> bool {
        self.orders.get(order_id).is_some_and(|order| order.before_learned.is_none())
    }

    /// Whether something was known of it when the book was opened.
    #[must_use]
    pub fn was_known(&self, order_id: &str) -> bool {
        self.orders.get(order_id).is_some_and(|order| order.was_known)
    }

    /// Puts in how an order was before the book was opened (none: nothing is known of it). What has happened to it since counts
    /// on top.
    pub fn learn(&mut self, order_id: &str, state: Option<OrderState>) {
        if self.is_learned(order_id) {
            return;
        }
        let order = self.entry(order_id);
        let since = order.before_learned.take().unwrap_or_default();
        order.was_known = state.is_some();
        order.state = state;
        for effect in since {
            order.state = Some(order.state.take().unwrap_or_default().after(&effect));
        }
    }

    /// Puts in a delivery.
    pub fn apply(&mut self, effect: &OrderEffect) {
        let order = self.entry(effect.order_id());
        order.state = Some(order.state.take().unwrap_or_default().after(effect));
        if let Some(before) = &mut order.before_learned {
            add(before, effect);
        }
    }

    /// Orders that had to be forgotten for others.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn entry(&mut self, order_id: &str) -> &mut Order {
        if !self.orders.contains_key(order_id) {
            if self.orders.len() >= MOST_ORDERS
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.orders.remove(&oldest);
                self.forgotten += 1;
            }
            self.oldest_first.push_back(order_id.to_owned());
        }
        self.orders
            .entry(order_id.to_owned())
            .or_insert_with(|| Order { before_learned: Some(Vec::new()), ..Order::default() })
    }
}

/// Puts in one more of the things that happened to an order, together with the last of them where the two are as good as one: an
/// id that stands for no order may come a million times.
fn add(effects: &mut Vec<OrderEffect>, effect: &OrderEffect) {
    match (effects.last_mut(), effect) {
        (Some(last @ OrderEffect::Sold { .. }), OrderEffect::Sold { .. }) => *last = effect.clone(),
        (
            Some(OrderEffect::Refunded { amount: Some(sum), at: newest, changed_at: newest_own, .. }),
            OrderEffect::Refunded { amount: Some(amount), at, changed_at, .. },
        ) => {
            *sum = sum.saturating_add(*amount);
            *newest = (*newest).max(*at);
            *newest_own = (*newest_own).max(*changed_at);
        }
        _ => effects.push(effect.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sold(value: &str, at: &str) -> OrderEffect {
        OrderEffect::Sold {
            order_id: "o-1".to_owned(),
            value: Some(value.parse().unwrap()),
            total: None,
            currency: Some("EUR".to_owned()),
            at: at.parse().unwrap(),
            match_key: None,
        }
    }

    fn refunded(amount: Option<&str>) -> OrderEffect {
        let amount = amount.map(|amount| amount.parse().unwrap());
        let at = Timestamp::UNIX_EPOCH;
        OrderEffect::Refunded { order_id: "o-1".to_owned(), amount, at, changed_at: at }
    }

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn refunds_add_up_and_a_restated_order_has_them_in_its_value() {
        let mut book = OrderBook::default();
        book.apply(&sold("20", "2026-11-20T14:03:21.123456789Z"));
        book.apply(&refunded(Some("3")));
        book.apply(&refunded(Some("4.5")));
        let state = book.state("o-1").unwrap();
        assert_eq!((state.value, state.refunded), (Some(decimal("20")), decimal("7.5")));
        assert_eq!(state.at, Some("2026-11-20T14:03:21.123456Z".parse().unwrap()), "as PostgreSQL keeps it");
        assert_eq!(state.restated_at, None);
        let restated = OrderEffect::Restated {
            order_id: "o-1".to_owned(),
            value: Some(decimal("11")),
            total: None,
            currency: None,
            at: Timestamp::UNIX_EPOCH,
            changed_at: Timestamp::UNIX_EPOCH,
        };
        book.apply(&restated);
        let state = book.state("o-1").unwrap();
        assert_eq!((state.value, state.refunded), (Some(decimal("11")), Decimal::ZERO));
        assert_eq!(state.currency.as_deref(), Some("EUR"), "it says no other");
        assert_eq!(state.restated_at, Some(Timestamp::UNIX_EPOCH));
        book.apply(&refunded(None));
        assert_eq!(book.state("o-1").unwrap().refunded, decimal("11"), "all that is left");
    }

    #[test]
    fn what_is_learned_late_stands_before_what_has_happened() {
        let mut book = OrderBook::default();
        assert!(!book.is_learned("o-1"));
        book.apply(&refunded(Some("2")));
        let stored =
            OrderState { value: Some(decimal("20")), refunded: decimal("5"), ..OrderState::default() };
        book.learn("o-1", Some(stored.clone()));
        book.learn("o-1", Some(stored));
        let state = book.state("o-1").unwrap();
        assert_eq!((state.value, state.refunded), (Some(decimal("20")), decimal("7")), "once, and on top");
        book.learn("o-2", None);
        assert!(book.is_learned("o-2") && book.state("o-2").is_none());
        assert!(book.was_known("o-1") && !book.was_known("o-2"));
    }

    #[test]
    fn what_happens_to_an_order_again_and_again_takes_no_more_room() {
        let mut book = OrderBook::default();
        for _ in 0..3 {
            book.apply(&sold("20", "2026-11-20T14:03:21Z"));
        }
        for _ in 0..3 {
            book.apply(&refunded(Some("2")));
        }
        book.apply(&refunded(None));
        assert_eq!(book.orders["o-1"].before_learned.as_ref().map(Vec::len), Some(3));
        let before = OrderState { refunded: decimal("1"), ..OrderState::default() };
        book.learn("o-1", Some(before));
        let state = book.state("o-1").unwrap();
        assert_eq!((state.value, state.refunded), (Some(decimal("20")), decimal("20")));
    }

    #[test]
    fn a_book_is_bounded() {
        let mut book = OrderBook::default();
        for number in 0..MOST_ORDERS + 3 {
            book.learn(&format!("o-{number}"), None);
        }
        assert_eq!((book.orders.len(), book.forgotten()), (MOST_ORDERS, 3));
        assert!(!book.is_learned("o-2") && book.is_learned("o-3"));
    }
}
