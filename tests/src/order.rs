//! An order that every ad platform takes: what most tests send and look for.

use serde_json::{Value, json};
use tracklayer_sandbox::Platform as AdPlatform;

use crate::{Running, Story};

/// The sample workspace's connections to ad platforms.
pub const AD_CONNECTIONS: [&str; 3] = ["meta", "google", "tiktok"];

/// One order of one visitor, all of its ids its own.
#[derive(Debug, Clone)]
pub struct Order {
    /// Idempotency key.
    pub message_id: String,
    /// The device.
    pub anonymous_id: String,
    /// The account.
    pub user_id: String,
    /// The shop's number of it.
    pub order_id: String,
    /// The customer's.
    pub email: String,
}

impl Order {
    /// A new order of a new visitor; `label` shows in its ids.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let own = format!("{label}-{}", uuid::Uuid::new_v4().simple());
        Self {
            message_id: format!("m-{own}"),
            anonymous_id: format!("a-{own}"),
            user_id: format!("u-{own}"),
            order_id: format!("o-{own}"),
            email: format!("{own}@example.com"),
        }
    }

    /// Another order of the same visitor.
    #[must_use]
    pub fn again(&self) -> Self {
        let other = Self::new("again");
        Self { message_id: other.message_id, order_id: other.order_id, ..self.clone() }
    }

    /// As a Segment-spec event of a server.
    #[must_use]
    pub fn event(&self) -> Value {
        json!({
            "type": "track", "event": "Order Completed", "messageId": self.message_id,
            "anonymousId": self.anonymous_id, "userId": self.user_id,
            "properties": {
                "order_id": self.order_id, "value": 54.4, "revenue": 45, "shipping": 5.4, "tax": 4, "total": 54.4,
                "currency": "USD", "email": self.email,
                "products": [
                    { "product_id": "mug-green", "sku": "M-1", "name": "Enamel mug", "price": 22.5, "quantity": 2 },
                ],
            },
            "context": {
                "ip": "203.0.113.7", "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
                "page": { "url": "https://shop.example/checkout" }, "traits": { "email": self.email },
            },
        })
    }

    /// How many copies each ad platform counted and how many more it was sent: (connection, counted, repeated).
    ///
    /// # Panics
    /// The sandbox is away.
    pub async fn counted(&self, platform: &Running) -> Vec<(&'static str, usize, u32)> {
        let sandbox = platform.sandbox();
        let mut counted = Vec::new();
        // Google deduplicates by the order, the others by the event.
        for (connection, book, id) in [
            ("meta", AdPlatform::Meta, &self.message_id),
            ("google", AdPlatform::DataManager, &self.order_id),
            ("tiktok", AdPlatform::TikTok, &self.message_id),
        ] {
            let events = sandbox.counted(book).await.expect("the sandbox answers");
            let ours: Vec<_> = events.iter().filter(|event| event.event_id == *id).collect();
            counted.push((connection, ours.len(), ours.iter().map(|event| event.duplicates).sum()));
        }
        counted
    }

    /// Waits for the end of its story and checks that all three ad platforms have it exactly once, under the right id.
    ///
    /// # Panics
    /// They have not.
    pub async fn assert_delivered_once(&self, platform: &Running) -> Story {
        let story = platform.settled_story(&self.message_id).await;
        for connection in AD_CONNECTIONS {
            let delivery = story.first().at(connection);
            assert_eq!(
                (delivery.state.as_str(), delivery.attempts),
                ("delivered", 1),
                "{connection}: {story:#?}"
            );
        }
        let once = AD_CONNECTIONS.map(|connection| (connection, 1, 0));
        assert_eq!(self.counted(platform).await, once, "{story:#?}");
        story
    }

    /// Waits for the end of its story and checks that no ad platform got it, and that the ledger says why at each.
    ///
    /// # Panics
    /// One got it, or the reason is another.
    pub async fn assert_blocked(&self, platform: &Running, reason: &str) -> Story {
        let story = platform.settled_story(&self.message_id).await;
        for connection in AD_CONNECTIONS {
            let delivery = story.first().at(connection);
            assert_eq!(
                (delivery.state.as_str(), delivery.reason.as_str(), delivery.attempts),
                ("blocked", reason, 0),
                "{connection}: {story:#?}"
            );
        }
        assert_eq!(
            self.counted(platform).await,
            AD_CONNECTIONS.map(|connection| (connection, 0, 0)),
            "{story:#?}"
        );
        story
    }
}
