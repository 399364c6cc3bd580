//! What webhooks there are for us, and why one is not taken. Whatever is not taken is answered with success all the same: Shopify
//! removes a subscription whose deliveries fail, and with it those of topics that are wanted, made by the same hand.

use crate::settings::CompletedOn;

/// A topic that becomes an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// `orders/create`.
    OrdersCreate,
    /// `orders/paid`.
    OrdersPaid,
    /// `orders/updated`.
    OrdersUpdated,
    /// `orders/cancelled`.
    OrdersCancelled,
    /// `refunds/create`.
    RefundsCreate,
    /// `checkouts/create`.
    CheckoutsCreate,
    /// `checkouts/update`.
    CheckoutsUpdate,
}

/// Why a webhook becomes no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// A topic that is not known here.
    UnknownTopic,
    /// `customers/data_request`, `customers/redact`, `shop/redact`: a person has to act on it; no event is made of it and nothing of
    /// it is kept.
    PrivacyRequest,
    /// `orders/create` where `orders/paid` is the purchase, or the other way round.
    NotThePurchase,
    /// An order made for a test.
    TestOrder,
    /// An order of a channel that the source does not take.
    SourceName,
    /// A refund by which no money went back: goods came back, or the payment failed.
    NothingPaidBack,
    /// An order that was not cancelled, under the topic `orders/cancelled`, which the signature does not cover.
    NotCancelled,
    /// An `orders/updated` from before what is known of the order: it came late.
    Outdated,
}

/// The topics that Shopify's law for apps knows. Source: shopify.dev/docs/apps/build/compliance/privacy-law-compliance; 2026-11.
const PRIVACY: [&str; 3] = ["customers/data_request", "customers/redact", "shop/redact"];

impl Topic {
    /// Every topic that is taken.
    pub const ALL: [Self; 7] = [
        Self::OrdersCreate,
        Self::OrdersPaid,
        Self::OrdersUpdated,
        Self::OrdersCancelled,
        Self::RefundsCreate,
        Self::CheckoutsCreate,
        Self::CheckoutsUpdate,
    ];

    /// As Shopify writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrdersCreate => "orders/create",
            Self::OrdersPaid => "orders/paid",
            Self::OrdersUpdated => "orders/updated",
            Self::OrdersCancelled => "orders/cancelled",
            Self::RefundsCreate => "refunds/create",
            Self::CheckoutsCreate => "checkouts/create",
            Self::CheckoutsUpdate => "checkouts/update",
        }
    }

    /// The topic that `X-Shopify-Topic` names.
    ///
    /// # Errors
    /// It is none that becomes an event.
    pub fn parse(header: &str) -> Result<Self, Ignored> {
        let header = header.trim();
        if PRIVACY.iter().any(|topic| topic.eq_ignore_ascii_case(header)) {
            return Err(Ignored::PrivacyRequest);
        }
        let known = Self::ALL.into_iter().find(|topic| topic.as_str().eq_ignore_ascii_case(header));
        known.ok_or(Ignored::UnknownTopic)
    }

    /// The event's name in Segment's e-commerce spec (v2); "Checkout Updated" is the one that the spec lacks.
    #[must_use]
    pub const fn event_name(self) -> &'static str {
        match self {
            Self::OrdersCreate | Self::OrdersPaid => "Order Completed",
            Self::OrdersUpdated => "Order Updated",
            Self::OrdersCancelled => "Order Cancelled",
            Self::RefundsCreate => "Order Refunded",
            Self::CheckoutsCreate => "Checkout Started",
            Self::CheckoutsUpdate => "Checkout Updated",
        }
    }

    /// Whether it is the one of the two that the source does not take for the purchase.
    pub(crate) const fn is_the_other_purchase(self, completed_on: CompletedOn) -> bool {
        matches!(
            (self, completed_on),
            (Self::OrdersCreate, CompletedOn::Paid) | (Self::OrdersPaid, CompletedOn::Created)
        )
    }
}

impl Ignored {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::UnknownTopic,
        Self::PrivacyRequest,
        Self::NotThePurchase,
        Self::TestOrder,
        Self::SourceName,
        Self::NothingPaidBack,
        Self::NotCancelled,
        Self::Outdated,
    ];

    /// In metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTopic => "unknown_topic",
            Self::PrivacyRequest => "privacy_request",
            Self::NotThePurchase => "not_the_purchase",
            Self::TestOrder => "test_order",
            Self::SourceName => "source_name",
            Self::NothingPaidBack => "nothing_paid_back",
            Self::NotCancelled => "not_cancelled",
            Self::Outdated => "outdated",
        }
    }

    /// What was done, for whoever reads the answer.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::UnknownTopic => "no event is made of this topic; the subscription can be removed",
            Self::PrivacyRequest => {
                "received, and nothing was done or kept: requests about a customer's data are carried out by people; send this \
                 topic to the system that they work with"
            }
            Self::NotThePurchase => {
                "the source takes the other of orders/create and orders/paid for the purchase"
            }
            Self::TestOrder => "the source takes no test orders",
            Self::SourceName => "the source takes no orders of this channel",
            Self::NothingPaidBack => "no money went back by this refund",
            Self::NotCancelled => "the order has no cancelled_at: it was not cancelled",
            Self::Outdated => "a later state of this order was taken before",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_in_any_case_and_the_rest_has_its_reason() {
        for topic in Topic::ALL {
            assert_eq!(Topic::parse(&topic.as_str().to_uppercase()), Ok(topic));
        }
        for topic in PRIVACY {
            assert_eq!(Topic::parse(topic), Err(Ignored::PrivacyRequest));
        }
        for topic in
            ["", "orders", "orders/fulfilled", "fulfillments/create", "app/uninstalled", "orders/create2"]
        {
            assert_eq!(Topic::parse(topic), Err(Ignored::UnknownTopic), "{topic}");
        }
    }

    #[test]
    fn exactly_one_of_two_topics_is_the_purchase() {
        for completed_on in [CompletedOn::Created, CompletedOn::Paid] {
            let purchases: Vec<Topic> = Topic::ALL
                .into_iter()
                .filter(|t| t.event_name() == "Order Completed" && !t.is_the_other_purchase(completed_on))
                .collect();
            assert_eq!(purchases.len(), 1, "{completed_on:?}");
        }
    }
}
