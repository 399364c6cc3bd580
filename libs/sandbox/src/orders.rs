//! What an order is worth at a platform by now, by the platform's own rules:
//!
//! - Google Ads: the conversion's value; a restatement replaces it, a retraction leaves nothing. Of a conversion that a tag counted,
//!   which the sandbox has not seen, the newest adjustment says it.
//! - Data Manager: the value that was sent last with the transaction id.
//! - GA4: purchases less refunds, by currency. The first purchase of a transaction counts; a refund with neither value nor products takes everything.
//! - Meta, TikTok: purchases; nothing lowers them.
//! - A webhook's receiver keeps no books.
//!
//! Amounts are decimals. Of Meta and TikTok the order's id stands in the body alone, so that only orders are known whose body is still
//! kept. Sources: Google Ads API, "Upload conversion adjustments"; Data Manager API, "Conversion adjustments"; GA4, "Measure
//! ecommerce"; 2026-11.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::platform::Platform;
use crate::store::Counted;

/// An order at a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderWorth {
    /// Its id there.
    pub order_id: String,
    /// Where it was counted.
    pub identity: String,
    /// What it is worth, by currency (empty: none was named), in decimals without trailing zeros.
    pub amounts: BTreeMap<String, String>,
    /// How often a purchase was counted for it. More than once: it counts more than once.
    pub purchases: u32,
    /// Changes of it that were carried out.
    pub changes: u32,
}

#[derive(Default)]
struct Sum {
    amounts: BTreeMap<String, Decimal>,
    purchases: u32,
    changes: u32,
}

impl Sum {
    fn add(&mut self, event: &Counted, amount: Decimal) {
        *self.amounts.entry(event.currency.clone().unwrap_or_default()).or_default() += amount;
    }

    fn clear(&mut self) {
        self.amounts.values_mut().for_each(|amount| *amount = Decimal::ZERO);
    }
}

/// What each order is worth after everything that was counted, in the order of their ids.
pub fn worth(platform: Platform, counted: &[Counted]) -> Vec<OrderWorth> {
    let mut sums: BTreeMap<(String, String), Sum> = BTreeMap::new();
    for event in counted {
        let Some(order) = order_of(platform, event) else { continue };
        let sum = sums.entry((event.identity.clone(), order)).or_default();
        match platform {
            Platform::GoogleAds => google_ads(sum, event),
            Platform::DataManager => {
                sum.add(event, value_of(event));
                sum.purchases += 1;
                sum.changes += event.duplicates;
            }
            Platform::Ga4 => ga4(sum, event),
            Platform::Meta | Platform::TikTok => {
                sum.add(event, value_of(event));
                sum.purchases += 1;
            }
            Platform::MetaQuality | Platform::GoogleToken | Platform::Webhook => {}
        }
    }
    let mut orders: Vec<OrderWorth> = sums.into_iter().map(shown).collect();
    orders.sort_by(|a, b| a.order_id.cmp(&b.order_id));
    orders
}

fn shown(((identity, order_id), sum): ((String, String), Sum)) -> OrderWorth {
    let text = |amount: Decimal| amount.normalize().to_string();
    let amounts = sum.amounts.into_iter().map(|(currency, amount)| (currency, text(amount))).collect();
    OrderWorth { order_id, identity, amounts, purchases: sum.purchases, changes: sum.changes }
}

/// The order that an event is about, if it counts for one.
fn order_of(platform: Platform, event: &Counted) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let order = match platform {
        Platform::GoogleAds | Platform::DataManager => Some(event.event_id.clone()),
        Platform::Ga4 => {
            matches!(event.event_name.as_str(), "purchase" | "refund").then(|| event.event_id.clone())
        }
        Platform::Meta if event.event_name == "Purchase" => text(&event.body["custom_data"]["order_id"]),
        Platform::TikTok if matches!(event.event_name.as_str(), "Purchase" | "CompletePayment") => {
            text(&event.body["properties"]["order_id"])
        }
        Platform::Meta
        | Platform::MetaQuality
        | Platform::TikTok
        | Platform::GoogleToken
        | Platform::Webhook => None,
    };
    order.filter(|order| !order.is_empty())
}

/// What was written stands there as the shortest text of its double, which is the decimal that it was.
fn value_of(event: &Counted) -> Decimal {
    let text = event.value.as_deref().unwrap_or_default();
    text.parse().or_else(|_| Decimal::from_scientific(text)).unwrap_or_default()
}

fn google_ads(sum: &mut Sum, event: &Counted) {
    match event.event_name.as_str() {
        "CONVERSION" => {
            let value = if event.retracted { Decimal::ZERO } else { value_of(event) };
            sum.add(event, value);
            sum.purchases += 1;
        }
        // The conversion's own record has it already.
        _ if sum.purchases > 0 => sum.changes += 1,
        "RESTATEMENT" => {
            sum.clear();
            sum.add(event, value_of(event));
            sum.changes += 1;
        }
        "RETRACTION" => {
            sum.clear();
            sum.changes += 1;
        }
        _ => {}
    }
}

fn ga4(sum: &mut Sum, event: &Counted) {
    match event.event_name.as_str() {
        "purchase" if sum.purchases > 0 => {}
        "purchase" => {
            sum.add(event, value_of(event));
            sum.purchases += 1;
        }
        // Of products without an amount: how much they were is open.
        _ if event.value.is_none() && has_items(event) => sum.changes += 1,
        _ if event.value.is_none() => {
            sum.clear();
            sum.changes += 1;
        }
        _ => {
            sum.add(event, -value_of(event));
            sum.changes += 1;
        }
    }
}

fn has_items(event: &Counted) -> bool {
    event.body["params"]["items"].as_array().is_some_and(|items| !items.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, value: Option<&str>, currency: &str, retracted: bool) -> Counted {
        Counted {
            order: 1,
            event_id: "o-1".to_owned(),
            event_name: name.to_owned(),
            event_time: 1,
            identity: "i".to_owned(),
            duplicates: 0,
            arrived_at_ms: 1,
            value: value.map(str::to_owned),
            currency: Some(currency.to_owned()),
            retracted,
            digest: String::new(),
            body: Value::Null,
        }
    }

    fn amounts(platform: Platform, events: &[Counted]) -> Vec<(String, String)> {
        worth(platform, events).remove(0).amounts.into_iter().collect()
    }

    #[test]
    fn each_platform_has_its_own_rules() {
        let euro = |amount: &str| vec![("EUR".to_owned(), amount.to_owned())];
        let sold = event("CONVERSION", Some("24.40"), "EUR", false);
        let restated = event("RESTATEMENT", Some("24.4"), "EUR", false);
        assert_eq!(amounts(Platform::GoogleAds, &[sold.clone(), restated]), euro("24.4"));
        let back = event("CONVERSION", Some("24.4"), "EUR", true);
        assert_eq!(amounts(Platform::GoogleAds, &[back]), euro("0"));
        let tags =
            [event("RESTATEMENT", Some("3"), "EUR", false), event("RESTATEMENT", Some("2"), "EUR", false)];
        assert_eq!(amounts(Platform::GoogleAds, &tags), euro("2"), "of a conversion that the tag counted");

        let purchase = event("purchase", Some("0.3"), "EUR", false);
        let refund = |amount, currency| event("refund", amount, currency, false);
        let parts =
            [purchase.clone(), purchase.clone(), refund(Some("0.1"), "EUR"), refund(Some("0.2"), "EUR")];
        assert_eq!(amounts(Platform::Ga4, &parts), euro("0"), "exact, and the purchase once");
        let other = [purchase.clone(), refund(Some("0.1"), "USD")];
        let expected = [("EUR".to_owned(), "0.3".to_owned()), ("USD".to_owned(), "-0.1".to_owned())];
        assert_eq!(amounts(Platform::Ga4, &other), expected);
        assert_eq!(amounts(Platform::Ga4, &[purchase.clone(), refund(None, "EUR")]), euro("0"), "all of it");
        let mut open = refund(None, "EUR");
        open.body = serde_json::json!({ "name": "refund", "params": { "items": [{ "item_id": "p_1" }] } });
        assert_eq!(amounts(Platform::Ga4, &[purchase, open]), euro("0.3"), "some of it");
    }
}
