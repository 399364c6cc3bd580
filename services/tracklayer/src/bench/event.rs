//! Events as shops send them: distinct ids, people, texts and prices, so that a batch compresses no better than real ones do.

use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::sample::catalogue::amount;

const WORDS: [&str; 40] = [
    "harbour", "wool", "linen", "copper", "maple", "river", "cloud", "granite", "amber", "cedar", "slate",
    "willow", "ember", "north", "tidal", "meadow", "frost", "canyon", "prairie", "summit", "lagoon",
    "orchard", "velvet", "onyx", "ivory", "saffron", "indigo", "quartz", "birch", "falcon", "heron", "otter",
    "lynx", "raven", "bison", "moss", "fern", "clover", "thistle", "juniper",
];

fn phrase(rng: &mut Rng, words: usize) -> String {
    (0..words).map(|_| WORDS[rng.usize(0..WORDS.len())]).collect::<Vec<_>>().join(" ")
}

fn token(rng: &mut Rng, length: usize) -> String {
    (0..length).map(|_| rng.alphanumeric()).collect()
}

fn track(rng: &mut Rng, name: &str) -> Value {
    let cents = rng.i64(500..30_000);
    let product = |rng: &mut Rng| {
        let cents = rng.i64(500..20_000);
        json!({
            "product_id": format!("p-{}", rng.u32(..)), "sku": token(rng, 8), "name": phrase(rng, 3),
            "price": amount(cents), "quantity": rng.u32(1..5), "category": phrase(rng, 1),
        })
    };
    let products = [product(rng), product(rng)];
    json!({
        "type": "track", "event": name, "messageId": token(rng, 30),
        "anonymousId": token(rng, 24), "userId": format!("u-{}", rng.u64(..)),
        "properties": {
            "order_id": format!("o-{}", token(rng, 10)), "revenue": amount(cents), "total": amount(cents + 490),
            "currency": "USD", "coupon": token(rng, 6), "products": products,
        },
        "context": {
            "ip": format!("203.0.113.{}", rng.u8(1..250)),
            "userAgent": format!("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_{}) AppleWebKit/537.36 Chrome/{}.0.0.0 Safari/537.36", rng.u8(1..9), rng.u8(120..150)),
            "page": { "url": format!("https://shop.example.com/{}?fbclid={}&gclid={}", token(rng, 8), token(rng, 16), token(rng, 16)) },
            "library": { "name": "analytics.js", "version": "npm:next-1.84.3" },
            "traits": { "email": format!("{}@example.com", token(rng, 12)), "firstName": phrase(rng, 1), "lastName": phrase(rng, 1) },
            "locale": "en-US",
        },
    })
}

/// Events of about 1 KB.
#[must_use]
pub fn realistic(count: usize, seed: u64) -> Vec<String> {
    const NAMES: [&str; 4] = ["Product Viewed", "Product Added", "Checkout Started", "Order Completed"];
    let mut rng = Rng::with_seed(seed);
    (0..count).map(|i| track(&mut rng, NAMES[i % 4]).to_string()).collect()
}

/// Events that one visitor sends on the way to three platforms: who comes does more than one thing.
const EVENTS_PER_VISITOR: usize = 10;

/// Purchases, which every platform takes; each visitor sends several, in between those of others, and has come by one click on
/// an ad, whose ids all of them carry.
#[must_use]
pub fn orders(count: usize, seed: u64) -> Vec<String> {
    let mut rng = Rng::with_seed(seed);
    let people: Vec<Value> =
        (0..count.div_ceil(EVENTS_PER_VISITOR)).map(|_| track(&mut rng, "Order Completed")).collect();
    (0..count)
        .map(|_| {
            let mut event = track(&mut rng, "Order Completed");
            let person = &people[rng.usize(0..people.len())];
            for id in ["anonymousId", "userId"] {
                event[id] = person[id].clone();
            }
            event["context"]["traits"] = person["context"]["traits"].clone();
            let landing = person["context"]["page"]["url"].as_str().unwrap_or_default();
            let page = event["context"]["page"]["url"].as_str().unwrap_or_default();
            if let (Some((_, clicks)), Some((page, _))) = (landing.split_once('?'), page.split_once('?')) {
                event["context"]["page"]["url"] = json!(format!("{page}?{clicks}"));
            }
            event.to_string()
        })
        .collect()
}

/// How well blocks of 500 events compress as the journal compresses them.
#[must_use]
pub fn ratio(events: &[String]) -> f64 {
    let (mut plain, mut stored) = (0usize, 0usize);
    for chunk in events.chunks(500) {
        let mut builder = tracklayer_journal::BlockBuilder::default();
        for event in chunk {
            builder.push(tracklayer_ids::SourceId(1), 1, event.as_bytes());
        }
        plain += builder.plain_bytes();
        stored += builder.finish().map_or(usize::MAX, |block| block.payload.len());
    }
    plain as f64 / stored as f64
}

/// An event with a message_id of its own: the load repeats the text, never the id.
#[must_use]
pub fn with_id(event: &str, number: u64) -> String {
    event.replacen("\"messageId\":\"", &format!("\"messageId\":\"{number:x}-"), 1)
}

/// Numbers never repeat within one run of the bench.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// A number that was not given before.
pub fn next_number() -> u64 {
    NEXT_NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// An order that was not there before: platforms count each order_id once, and Google one conversion of a click in a second.
#[must_use]
pub fn as_new_order(event: &str) -> String {
    let number = next_number();
    with_click(&with_order_id(&with_id(event, number), number), number)
}

/// With an order_id of its own.
#[must_use]
pub fn with_order_id(event: &str, number: u64) -> String {
    event.replacen("\"order_id\":\"", &format!("\"order_id\":\"{number:x}-"), 1)
}

/// With a Google click of its own.
#[must_use]
pub fn with_click(event: &str, number: u64) -> String {
    event.replacen("gclid=", &format!("gclid={number:x}-"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_sent_twice_as_two_orders() {
        let order = &orders(1, 3)[0];
        let sent: Vec<Value> = (0..2).map(|_| serde_json::from_str(&as_new_order(order)).unwrap()).collect();
        assert_ne!(sent[0]["messageId"], sent[1]["messageId"]);
        assert_ne!(sent[0]["properties"]["order_id"], sent[1]["properties"]["order_id"]);
        let click = |order: &Value| {
            let url = order["context"]["page"]["url"].as_str().unwrap();
            url.split_once("&gclid=").unwrap().1.to_owned()
        };
        assert_ne!(click(&sent[0]), click(&sent[1]));
        assert_eq!(sent[0]["userId"], sent[1]["userId"]);
    }
}
