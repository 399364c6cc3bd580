//! A webhook's body and headers → one call of the Segment spec.
//!
//! In two steps, because a refund says neither who it was nor, where orders go by another name than Shopify's id, which order the
//! rest of the world knows: [`read`] tells which order has to be looked up, [`Webhook::event`] takes what was found.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::read::Node;
use crate::settings::Settings;
use crate::topic::{Ignored, Topic};
use crate::visitor::{Visitor, made_id};
use crate::write::Object;
use crate::{checkout, order, refund};

/// What the headers say, apart from the signature. Empty: the header is not there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    /// `X-Shopify-Topic`.
    pub topic: &'a str,
    /// `X-Shopify-Shop-Domain`.
    pub shop_domain: &'a str,
    /// `X-Shopify-Webhook-Id`: the delivery, the same on its retries.
    pub webhook_id: &'a str,
    /// `X-Shopify-Event-Id`: the merchant's act, the same for all topics that it set off.
    pub event_id: &'a str,
    /// `X-Shopify-Triggered-At`. Stands for the time of a body that has none; it is no clock to correct others by, since a retry
    /// repeats it.
    pub triggered_at: &'a str,
    /// `X-Shopify-API-Version`.
    pub api_version: &'a str,
}

/// What a webhook turned out to be.
#[derive(Debug)]
pub enum Reading {
    /// No event; why.
    Ignored(Ignored),
    /// An event can be made of it.
    Webhook(Webhook),
}

/// A body that is of a topic that is taken.
pub struct Webhook {
    topic: Topic,
    /// The order that it is about, by Shopify's id; of checkouts the checkout.
    about: String,
    body: Value,
    /// What tells this body from others.
    digest: String,
}

/// A body that no event can be made of. It was signed: Shopify, or this code, is wrong. Never carries a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not JSON.
    #[error("the body is not JSON: line {line}, column {column}")]
    NotJson {
        /// Where.
        line: usize,
        /// Where in it.
        column: usize,
    },
    /// Not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// A member without which nothing can be told is absent or unreadable.
    #[error("`{field}` {why}")]
    Field {
        /// Its path.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// What has to be known of an order when a refund of it comes, which may be months later. No name and no address: ids, a place and
/// amounts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownOrder {
    /// Shopify's id.
    pub shopify_order_id: String,
    /// The `order_id` under which it was reported.
    pub order_id: String,
    /// `updated_at`, as Shopify wrote it: which of two states is the later.
    #[serde(default)]
    pub updated_at: Option<String>,
    /// `created_at` of its newest refund that came, as Shopify wrote it: a refund is a webhook of its own, so that it is known of before
    /// the order's state that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refunded_at: Option<String>,
    /// `anonymousId` of its event; empty: none.
    #[serde(default)]
    pub anonymous_id: String,
    /// The anonymousId was made here, because nothing said who it was.
    #[serde(default)]
    pub anonymous_id_is_made: bool,
    /// `userId` of its event; empty: none.
    #[serde(default)]
    pub user_id: String,
    /// Country and state as a JSON object; empty: none.
    #[serde(default)]
    pub place: String,
    /// Its total in the shop's currency.
    #[serde(default)]
    pub shop: Option<Total>,
    /// The same in the buyer's.
    #[serde(default)]
    pub presentment: Option<Total>,
    /// What it was worth after edits, in the shop's currency, by its newest state that says so: one with a refund, which would be off
    /// that, says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Total>,
    /// `updated_at` of the state that `current` is of, as Shopify wrote it. A process of an earlier version kept `current` of the order's
    /// state alone, and writes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_at: Option<String>,
    /// Refunds that were told in the order's currency and paid back in its other one, so that the next part adds up with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refunds: Vec<ToldRefund>,
}

/// Most refunds of an order that are known; parts beyond that are rounded each for itself. A shop pays an order back in a few.
const MAX_REFUNDS: usize = 100;

/// A refund that was told in another currency than it was paid back in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldRefund {
    /// Shopify's id.
    pub refund_id: String,
    /// What was paid back, in the order's other currency.
    pub paid: Decimal,
    /// What it was told as, in the order's.
    pub told: Decimal,
}

impl KnownOrder {
    /// What is known when this comes after what was known before: the later state, with the ids and the place that only the other one
    /// has, and with what the order was worth by the later of the states that say so. An id that was made here gives way to one of the
    /// visitor's.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        let (mut known, other) = if self.is_before(&before) { (before, self) } else { (self, before) };
        let says_no_worth = known.current.is_none() && known.current_at.is_none();
        if says_no_worth || is_before(known.current_at(), other.current_at()) {
            known.current_at = other.current_at().map(str::to_owned);
            known.current = other.current;
        }
        if known.user_id.is_empty() {
            known.user_id = other.user_id;
        }
        let says_less =
            known.anonymous_id.is_empty() || known.anonymous_id_is_made && !other.anonymous_id_is_made;
        if says_less && !other.anonymous_id.is_empty() {
            known.anonymous_id = other.anonymous_id;
            known.anonymous_id_is_made = other.anonymous_id_is_made;
        }
        if known.place.is_empty() {
            known.place = other.place;
        }
        for refund in other.refunds {
            known = known.with_refund(refund);
        }
        known.refunded_by(other.refunded_at)
    }

    /// Knows of a refund of that time, too.
    pub(crate) fn refunded_by(mut self, at: Option<String>) -> Self {
        if self.refunded_at.is_none() || is_before(self.refunded_at.as_deref(), at.as_deref()) {
            self.refunded_at = at.or(self.refunded_at);
        }
        self
    }

    /// Knows a refund, too, unless it does already.
    pub(crate) fn with_refund(mut self, refund: ToldRefund) -> Self {
        let is_known = self.refunds.iter().any(|known| known.refund_id == refund.refund_id);
        if !is_known && self.refunds.len() < MAX_REFUNDS {
            self.refunds.push(refund);
        }
        self
    }

    /// `updated_at` of the state that `current` is of.
    fn current_at(&self) -> Option<&str> {
        let of_state = || self.updated_at.as_deref().filter(|_| self.current.is_some());
        self.current_at.as_deref().or_else(of_state)
    }

    /// Whether it is certainly an earlier state than another.
    fn is_before(&self, other: &Self) -> bool {
        is_before(self.updated_at.as_deref(), other.updated_at.as_deref())
    }
}

fn is_before(one: Option<&str>, other: Option<&str>) -> bool {
    let time = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
    matches!((time(one), time(other)), (Some(one), Some(other)) if one < other)
}

fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    let time = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
    time(one).is_some_and(|one| time(other) == Some(one))
}

/// An amount and its currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// In main units.
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: String,
}

impl std::fmt::Debug for KnownOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownOrder").field("shopify_order_id", &self.shopify_order_id).finish_non_exhaustive()
    }
}

/// An event.
pub struct Translation {
    /// One call of the Segment spec.
    pub json: String,
    /// What to keep of the order for its refunds.
    pub order: Option<KnownOrder>,
    /// A refund of an order that is not known: nothing says who it was.
    pub order_unknown: bool,
    /// Codes of what whoever reads the event should know.
    pub warnings: Vec<&'static str>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Translation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translation").field("order_unknown", &self.order_unknown).finish_non_exhaustive()
    }
}

/// The parts of an event, which every topic makes in its own way.
pub(crate) struct Parts {
    pub(crate) properties: Object,
    pub(crate) visitor: Visitor,
    /// Its time as the body has it.
    pub(crate) timestamp: Option<String>,
    pub(crate) order: Option<KnownOrder>,
    pub(crate) order_unknown: bool,
    pub(crate) warnings: Vec<&'static str>,
}

/// Reads a webhook whose signature was found to be right.
///
/// # Errors
/// Nothing can be made of the body.
pub fn read(headers: &Headers<'_>, body: &[u8], settings: &Settings) -> Result<Reading, Unusable> {
    let topic = match Topic::parse(headers.topic) {
        Ok(topic) if topic.is_the_other_purchase(settings.completed_on) => {
            return Ok(Reading::Ignored(Ignored::NotThePurchase));
        }
        Ok(topic) => topic,
        Err(ignored) => return Ok(Reading::Ignored(ignored)),
    };
    let digest = made_id(&["body", &digest_of(body)]).to_string();
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Unusable::NotJson { line: error.line(), column: error.column() })?;
    if !body.is_object() {
        return Err(Unusable::NotAnObject);
    }
    let document = Node::of(&body);
    if document.at("test").is_true() && !settings.test_orders {
        return Ok(Reading::Ignored(Ignored::TestOrder));
    }
    let source_name = document.at("source_name").text();
    if source_name
        .is_some_and(|name| settings.ignored_source_names.iter().any(|n| n.eq_ignore_ascii_case(&name)))
    {
        return Ok(Reading::Ignored(Ignored::SourceName));
    }
    if topic == Topic::OrdersCancelled && document.at("cancelled_at").text().is_none() {
        return Ok(Reading::Ignored(Ignored::NotCancelled));
    }
    let about = match topic {
        Topic::OrdersCreate | Topic::OrdersPaid | Topic::OrdersUpdated | Topic::OrdersCancelled => {
            document.at("id").id().ok_or(Unusable::Field { field: "id", why: "is no order's id" })?
        }
        Topic::RefundsCreate => {
            if refund::is_test(document) && !settings.test_orders {
                return Ok(Reading::Ignored(Ignored::TestOrder));
            }
            if refund::paid_back(document).is_empty() {
                return Ok(Reading::Ignored(Ignored::NothingPaidBack));
            }
            document
                .at("order_id")
                .id()
                .ok_or(Unusable::Field { field: "order_id", why: "is no order's id" })?
        }
        Topic::CheckoutsCreate | Topic::CheckoutsUpdate => {
            checkout::token(document).ok_or(Unusable::Field { field: "token", why: "is absent" })?
        }
    };
    Ok(Reading::Webhook(Webhook { topic, about, body, digest }))
}

impl Webhook {
    /// Its topic.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        self.topic
    }

    /// The order, by Shopify's id, of which [`event`](Self::event) or [`is_outdated`](Self::is_outdated) wants to know what was
    /// kept; none where the body says it all.
    #[must_use]
    pub fn wants_order(&self) -> Option<&str> {
        matches!(self.topic, Topic::RefundsCreate | Topic::OrdersUpdated).then_some(self.about.as_str())
    }

    /// Whether it tells of an order's state from before the one that is known, or from before a refund that is: Shopify promises no
    /// order of its webhooks, and repeats one that failed for hours. A state without any refund is from before each, whatever its time:
    /// times are told in whole seconds. But one that says another total than is known, and is not from before the state which said that,
    /// tells of an edit that nothing else tells of, and is none, also where a later state with a refund, which says no amount, is known:
    /// whoever knows what was told of the refund judges it.
    #[must_use]
    pub fn is_outdated(&self, known: &KnownOrder) -> bool {
        if self.topic != Topic::OrdersUpdated {
            return false;
        }
        let document = Node::of(&self.body);
        let updated_at = document.at("updated_at").text();
        let is_from_before = |at: Option<&str>| is_before(updated_at.as_deref(), at);
        if is_from_before(known.current_at()) {
            return true;
        }
        let is_late = is_from_before(known.updated_at.as_deref())
            || is_from_before(known.refunded_at.as_deref())
            || (self.has_no_refund() && known.refunded_at.is_some());
        // With refunds it says no amount. The state that is known may come again because its event could not be stored.
        let tells_amounts = self.refunds().is_none_or(Vec::is_empty);
        let total = order::current_total(document);
        let is_another = total.is_some() && total.as_ref() != known.current.as_ref().or(known.shop.as_ref());
        let is_known_state = known.current.is_some() && is_same(updated_at.as_deref(), known.current_at());
        is_late && !(tells_amounts && (is_another || is_known_state))
    }

    /// The order's refunds, where the body lists them.
    fn refunds(&self) -> Option<&Vec<Value>> {
        self.body.get("refunds").and_then(Value::as_array)
    }

    /// Whether the body says that there is none.
    fn has_no_refund(&self) -> bool {
        self.refunds().is_some_and(Vec::is_empty)
    }

    /// The time of an update. A state without a refund, where one is known, is told as of just before that refund at the latest: its own
    /// time, in whole seconds, may be the refund's, and what is not before that would be taken to have the refund in it.
    fn before_refund(&self, timestamp: Option<String>, known: &KnownOrder) -> Option<String> {
        let refunded_at = known.refunded_at.as_deref();
        let is_from_before = is_before(timestamp.as_deref(), refunded_at);
        if self.topic != Topic::OrdersUpdated || !self.has_no_refund() || is_from_before {
            return timestamp;
        }
        let refunded_at = refunded_at.and_then(|at| at.parse::<Timestamp>().ok());
        let just_before = refunded_at.and_then(|at| at.checked_sub(SignedDuration::from_millis(1)).ok());
        just_before.map(|at| at.to_string()).or(timestamp)
    }

    /// The event.
    ///
    /// # Errors
    /// A member that cannot be left out is absent or unreadable.
    pub fn event(
        &self,
        headers: &Headers<'_>,
        settings: &Settings,
        known: Option<&KnownOrder>,
    ) -> Result<Translation, Unusable> {
        let document = Node::of(&self.body);
        let parts = match self.topic {
            Topic::OrdersCreate | Topic::OrdersPaid | Topic::OrdersUpdated | Topic::OrdersCancelled => {
                order::parts(self.topic, &self.about, document, headers, settings)?
            }
            Topic::RefundsCreate => refund::parts(&self.about, document, settings, known)?,
            Topic::CheckoutsCreate | Topic::CheckoutsUpdate => {
                checkout::parts(self.topic, &self.about, document, headers, settings)
            }
        };
        let Parts { properties, visitor, timestamp, order, order_unknown, warnings } = parts;
        let timestamp = match known {
            Some(known) => self.before_refund(timestamp, known),
            None => timestamp,
        };
        let mut context = visitor.context;
        let mut library = Object::default();
        library.text("name", Some("shopify-webhook")).text("version", plain(headers.api_version, 20));
        context.object("library", &library);
        let triggered_at = plain(headers.triggered_at, 64);
        let mut call = Object::default();
        call.text("type", Some("track"))
            .text("event", Some(self.topic.event_name()))
            .text("messageId", Some(self.message_id(document)))
            .text("timestamp", timestamp.as_deref().or(triggered_at))
            .text("anonymousId", Some(visitor.anonymous_id))
            .text("userId", Some(visitor.user_id))
            .object("properties", &properties)
            .object("context", &context);
        Ok(Translation { json: call.finish(), order, order_unknown, warnings })
    }

    /// What happens once is known by what it happens to: the order, the refund. Neither a second subscription nor a header that the
    /// signature does not cover makes two events of it. What happens again and again is known by its body, for the same
    /// reason: retries repeat it. Source: shopify.dev, changelog "Updates to webhook retry mechanism" (8 retries in 4 hours with the
    /// original payload, since September 2024); 2026-11.
    fn message_id(&self, document: Node<'_>) -> String {
        let about = &self.about;
        match self.topic {
            Topic::OrdersCreate | Topic::OrdersPaid => format!("shopify.order_completed.{about}"),
            Topic::OrdersCancelled => format!("shopify.order_cancelled.{about}"),
            Topic::RefundsCreate => {
                format!("shopify.order_refunded.{}", document.at("id").id().unwrap_or_default())
            }
            Topic::CheckoutsCreate => {
                format!("shopify.checkout_started.{}", made_id(&["checkout", about]))
            }
            Topic::OrdersUpdated => format!("shopify.order_updated.{}", self.digest),
            Topic::CheckoutsUpdate => format!("shopify.checkout_updated.{}", self.digest),
        }
    }
}

fn digest_of(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A header's value, if it is plain and not too long.
pub(crate) fn plain(header: &str, max: usize) -> Option<&str> {
    let value = header.trim();
    ((1..=max).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic())).then_some(value)
}
