//! What happens to an order: its sale, and what changes it afterwards.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The order is worth something else, or something else of it has changed.
pub const UPDATED: &str = "Order Updated";

/// When the sale comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sale {
    /// Before every change of it.
    First,
    /// After the change.
    Late,
    /// It comes, and is kept from every platform.
    KeptBack,
}

/// Who reports a change. The sale's visitor and a shop's server are in different partitions, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// The shop's server.
    Server,
    /// Another one, which reports when everything before it is told.
    OtherServer,
    /// The browser in which the order was made.
    Visitor,
}

/// A change of an order.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub event: &'static str,
    /// What is paid back; none: everything that is left. Of an update what the order is worth now; none: it does not say.
    pub total: Option<&'static str>,
    /// Of an update, what of that is revenue.
    pub revenue: Option<&'static str>,
    /// How long before it the order was placed, as it says itself, hours.
    pub placed_hours_ago: Option<i64>,
    /// Where it is not the order's.
    pub currency: Option<&'static str>,
    /// After the first change.
    pub after_ms: i64,
    pub by: Teller,
}

/// An order and its changes.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub sale: Sale,
    pub currency: &'static str,
    pub revenue: &'static str,
    pub total: &'static str,
    pub changes: Vec<Change>,
    /// What is left of the revenue and of the total, as a person would reckon it.
    pub left: (&'static str, &'static str),
    /// The same at GA4, to which a cancellation is an event as any other.
    pub left_at_ga4: (&'static str, &'static str),
}

fn refund(total: &'static str) -> Change {
    Change { total: Some(total), ..whole("Order Refunded") }
}

fn whole(event: &'static str) -> Change {
    Change {
        event,
        total: None,
        revenue: None,
        placed_hours_ago: None,
        currency: None,
        after_ms: 0,
        by: Teller::Server,
    }
}

fn updated(amounts: Option<(&'static str, &'static str)>) -> Change {
    let (revenue, total) = amounts.unzip();
    Change { revenue, total, ..whole(UPDATED) }
}

fn later(change: Change, after_ms: i64) -> Change {
    Change { after_ms, ..change }
}

fn euros(
    name: &'static str,
    changes: impl IntoIterator<Item = Change>,
    left: (&'static str, &'static str),
) -> Scenario {
    Scenario {
        name,
        sale: Sale::First,
        currency: "EUR",
        revenue: "100",
        total: "119",
        changes: changes.into_iter().collect(),
        left,
        left_at_ga4: left,
    }
}

/// All of them. Of 119 EUR paid, 100 are revenue: 30 back leave 89 / 119 of 100, which is 74.79.
pub fn all() -> Vec<Scenario> {
    let (refunded, cancelled) = ("Order Refunded", "Order Cancelled");
    let same = || Some(("100", "119"));
    vec![
        euros("full", [whole(refunded)], ("0", "0")),
        euros("full, by its amount", [refund("119")], ("0", "0")),
        euros("partial", [refund("30")], ("74.79", "89")),
        euros("two partials", [refund("30"), later(refund("20"), 60_000)], ("57.98", "69")),
        euros("two partials in one second", [refund("30"), later(refund("20"), 400)], ("57.98", "69")),
        euros(
            "two partials, of two servers",
            [refund("30"), Change { by: Teller::OtherServer, ..later(refund("20"), 400) }],
            ("57.98", "69"),
        ),
        euros("two partials that are all of it", [refund("100"), later(refund("19"), 60_000)], ("0", "0")),
        Scenario { sale: Sale::Late, ..euros("before its order", [refund("30")], ("74.79", "89")) },
        Scenario {
            sale: Sale::Late,
            ..euros(
                "before its order, of its visitor",
                [Change { by: Teller::Visitor, ..refund("30") }],
                ("74.79", "89"),
            )
        },
        euros("in another currency", [Change { currency: Some("USD"), ..refund("10") }], ("100", "119")),
        euros("larger than the order", [refund("150")], ("0", "0")),
        Scenario {
            sale: Sale::KeptBack,
            ..euros("of an order that was not sent", [refund("30")], ("0", "0"))
        },
        euros("cancelled, then refunded", [whole(cancelled), later(refund("119"), 60_000)], ("0", "0")),
        Scenario {
            left_at_ga4: ("74.79", "89"),
            ..euros(
                "refunded in part, then cancelled",
                [refund("30"), later(whole(cancelled), 60_000)],
                ("0", "0"),
            )
        },
        Scenario {
            left_at_ga4: ("100", "119"),
            ..euros("another value", [updated(Some(("80", "95.20")))], ("80", "95.20"))
        },
        euros(
            "an update from before a refund",
            [refund("30"), later(updated(same()), -60_000)],
            ("74.79", "89"),
        ),
        euros(
            "an edit from before a refund",
            [refund("30"), later(updated(Some(("140", "166.60"))), -60_000)],
            ("74.79", "89"),
        ),
        Scenario {
            left_at_ga4: ("74.79", "89"),
            ..euros(
                "an update, then a refund from before it",
                [updated(Some(("70", "83.30"))), later(refund("30"), -60_000)],
                ("70", "83.30"),
            )
        },
        Scenario {
            left_at_ga4: ("74.79", "89"),
            ..euros(
                "an update to the second, then a refund of it",
                [updated(Some(("70", "83.30"))), later(refund("30"), 400)],
                ("70", "83.30"),
            )
        },
        euros(
            "a refund, then what is left to the second of it",
            [later(refund("30"), 400), updated(Some(("74.79", "89")))],
            ("74.79", "89"),
        ),
        euros(
            "an update that leaves out a refund",
            [refund("30"), later(updated(same()), 60_000)],
            ("74.79", "89"),
        ),
        Scenario {
            left_at_ga4: ("100", "119"),
            ..euros(
                "cancelled, then archived",
                [whole(cancelled), later(updated(same()), 60_000)],
                ("0", "0"),
            )
        },
        euros("an update that changes nothing", [updated(same())], ("100", "119")),
        euros("an update without amounts", [refund("30"), later(updated(None), 60_000)], ("74.79", "89")),
        Scenario {
            sale: Sale::KeptBack,
            ..euros("an update without amounts, of an order that was not sent", [updated(None)], ("0", "0"))
        },
        Scenario {
            sale: Sale::KeptBack,
            ..euros(
                "an update of an old order that was not sent",
                [Change { placed_hours_ago: Some(48), ..updated(Some(("80", "95.20"))) }],
                ("0", "0"),
            )
        },
        Scenario {
            currency: "KWD",
            revenue: "10.125",
            total: "11.340",
            ..euros("partial, in dinars", [refund("1.005")], ("9.228", "10.335"))
        },
        Scenario {
            currency: "JPY",
            revenue: "1000",
            total: "1100",
            ..euros("partial, in yen", [refund("333")], ("697", "767"))
        },
    ]
}

/// A scenario on its way through the platform.
pub struct Case {
    pub scenario: Scenario,
    pub order_id: String,
    pub sold_at: Timestamp,
    number: usize,
}

impl Case {
    pub fn new(scenario: Scenario, number: usize, now: Timestamp) -> Self {
        // Whole seconds: two changes of one second are so at every platform.
        let hour_ago = Timestamp::from_second(now.as_second() - 3_600).unwrap();
        Self { scenario, order_id: format!("refund-case-{number}"), sold_at: hour_ago, number }
    }

    pub fn sale_id(&self) -> String {
        format!("sale-{}", self.number)
    }

    pub fn change_id(&self, change: usize) -> String {
        format!("change-{}-{change}", self.number)
    }

    fn event(&self, message_id: String, name: &str, at: Timestamp, by: Teller) -> Value {
        let teller = match by {
            Teller::Server => "server",
            Teller::OtherServer => "other-server",
            Teller::Visitor => "visitor",
        };
        json!({
            "type": "track", "event": name, "messageId": message_id, "timestamp": at.to_string(),
            "anonymousId": format!("refunds-{teller}-{}", self.number), "userId": format!("refunds-cust-{}", self.number),
            "properties": { "order_id": self.order_id, "currency": self.scenario.currency },
            "integrations": { "Google Analytics 4": { "clientId": format!("10{}.1700000000", self.number) } },
        })
    }

    /// The sale, with all that a platform knows a person by.
    pub fn sale(&self) -> Value {
        let mut event = self.event(self.sale_id(), "Order Completed", self.sold_at, Teller::Visitor);
        event["properties"]["revenue"] = json!(self.scenario.revenue);
        event["properties"]["total"] = json!(self.scenario.total);
        event["properties"]["products"] =
            json!([{ "product_id": "mug", "name": "Mug", "price": 50, "quantity": 2 }]);
        event["context"] = json!({
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64)", "ip": "203.0.113.7",
            "page": { "url": "https://shop.northline.example/thank-you" },
            "traits": { "email": format!("refunds{}@example.com", self.number) },
        });
        if self.scenario.sale == Sale::KeptBack {
            event["integrations"] = json!({ "All": false });
        }
        event
    }

    /// Changes that come one after the other, and those that come at once.
    pub fn told_later(&self, number: usize) -> bool {
        self.scenario.changes[number].by == Teller::OtherServer
    }

    /// A change, as a shop's server reports it: it knows the customer's number, and neither click nor e-mail.
    pub fn change(&self, number: usize) -> Value {
        let change = self.scenario.changes[number];
        let at = self.sold_at + SignedDuration::from_mins(30) + SignedDuration::from_millis(change.after_ms);
        let mut event = self.event(self.change_id(number), change.event, at, change.by);
        if let Some(total) = change.total {
            event["properties"]["total"] = json!(total);
        }
        if let Some(revenue) = change.revenue {
            event["properties"]["revenue"] = json!(revenue);
        }
        if let Some(hours) = change.placed_hours_ago {
            event["properties"]["original_timestamp"] =
                json!((at - SignedDuration::from_hours(hours)).to_string());
        }
        if let Some(currency) = change.currency {
            event["properties"]["currency"] = json!(currency);
        }
        event
    }
}
