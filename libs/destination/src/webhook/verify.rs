//! Acceptance checks of a receiver: one signed message with the event `test`, which a receiver takes, and does not count. What else there
//! is to look at stays here.

use serde_json::json;

use super::Webhook;
use crate::body::ItemBody;
use crate::outcome::Item;
use crate::verify::{Aspect, Check, Sample, Shown, credentials, currencies, event_age, untold};

/// What the test message is called.
pub const TEST_EVENT: &str = "test";

/// The item under the test's name, whatever the connection's document makes of that name: a receiver must be able to tell it apart.
pub fn as_test(item: &Item) -> Item {
    let mut body = item.body.to_value();
    if let Some(body) = body.as_object_mut() {
        body.insert("event".to_owned(), json!(TEST_EVENT));
    }
    Item { body: ItemBody::of(&body), name: TEST_EVENT.to_owned(), ..item.clone() }
}

/// The checks.
pub fn checks(webhook: &Webhook, sample: &Sample) -> Vec<Check> {
    let test = Sample { event_name: TEST_EVENT.to_owned(), ..sample.clone() };
    let mut checks = vec![credentials(&test, "the receiver takes a signed message with the event `test`")];
    checks.extend(currencies(sample, "/properties/revenue", "/properties/currency", Shown::Here));
    checks.extend(event_age(webhook, sample, "a receiver publishes none", Shown::Here));
    let instead = "a receiver of your own gets people as they came, over TLS and signed: nothing is hashed";
    checks.push(untold("hash_email", Aspect::Hashing, "people are hashed as published", instead));
    checks
}
