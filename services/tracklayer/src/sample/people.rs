//! Who comes to Northline on the sample day, and what each of them makes the clients send. Pure: the seed decides everything.

use fastrand::Rng;
use serde_json::{Value, json};

use super::catalogue::{PRODUCTS, Product, amount};

/// A source of the sample workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum From {
    /// The shop in a browser, California.
    WebUs,
    /// The shop in a browser, Germany.
    WebDe,
    /// The shop's server, California.
    ShopServer,
    /// The shop's server, Germany.
    ShopServerDe,
    /// The subscription app's server, Germany.
    Subscriptions,
    /// The wholesale portal's server; publishes over gRPC.
    Wholesale,
}

/// One request of a client.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose write key.
    pub from: From,
    /// Events in the Segment spec.
    pub events: Vec<Value>,
    /// The browser says Sec-GPC: 1.
    pub gpc: bool,
    /// How often the client repeats the request although it was answered (a lost answer, an impatient proxy).
    pub repeats: u32,
    /// Part of the day: calls of a later part are sent when everything of the earlier ones is settled.
    pub part: Part,
}

/// Parts of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Ordinary visits.
    Day,
    /// Visitors who opt out, and what they do afterwards.
    Evening,
}

/// A visitor: calls in order.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    /// What the clients send for this visitor, one after the other.
    pub calls: Vec<Call>,
}

/// The whole day.
#[derive(Debug, Clone)]
pub struct Day {
    /// Everybody who comes.
    pub visitors: Vec<Visitor>,
}

/// What is told of a day before it is sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Distinct message_ids.
    pub events: usize,
    /// Events sent, repeats and twins included.
    pub sent: usize,
}

/// Who a visitor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    UsShopper,
    DeShopperAccepts,
    DeShopperRefuses,
    GpcShopper,
    OptsOut,
    Wholesale,
    Subscriber,
    FlashSale,
}

const USER_AGENT: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

struct Person {
    number: usize,
    anonymous_id: String,
    shop_id: String,
    email: String,
    phone: String,
    first: &'static str,
    last: &'static str,
    ip: String,
    german: bool,
}

/// Makes a day of about `visitors` visitors.
#[must_use]
pub fn day(seed: u64, visitors: usize) -> Day {
    let mut rng = Rng::with_seed(seed);
    let run = format!("{:08x}", rng.u32(..));
    let first_phone = rng.usize(0..9_000_000);
    let mut all = Vec::with_capacity(visitors);
    for number in 0..visitors {
        // The last sixth is the flash sale: many at once, one product.
        let kind = if number * 6 >= visitors * 5 { Kind::FlashSale } else { pick(&mut rng) };
        let person = person(&mut rng, &run, first_phone, number, kind);
        all.push(visit(&mut rng, &person, kind));
    }
    Day { visitors: all }
}

fn pick(rng: &mut Rng) -> Kind {
    match rng.u32(0..100) {
        0..=34 => Kind::UsShopper,
        35..=54 => Kind::DeShopperAccepts,
        55..=64 => Kind::DeShopperRefuses,
        65..=74 => Kind::GpcShopper,
        75..=79 => Kind::OptsOut,
        80..=86 => Kind::Wholesale,
        _ => Kind::Subscriber,
    }
}

/// Everybody has a number of their own: who shares one is one person to identity, and then what is sent for one visitor would
/// hang on when the other came.
fn phone(number: usize, german: bool) -> String {
    const AREAS: [u32; 8] = [209, 213, 310, 415, 510, 619, 707, 916];
    if german {
        format!("+49 30 {:07}", 1_000_000 + number % 9_000_000)
    } else {
        format!("+1 ({}) 555-{:04}", AREAS[number / 10_000 % AREAS.len()], number % 10_000)
    }
}

fn person(rng: &mut Rng, run: &str, first_phone: usize, number: usize, kind: Kind) -> Person {
    const FIRST: [&str; 8] = ["Mara", "Jonas", "Élodie", "Tomás", "Aiko", "Priya", "Björn", "Grace"];
    const LAST: [&str; 8] = ["O'Hara", "Keller", "Dubois", "Nuñez", "Tanaka", "Rao", "Lindqvist", "Okafor"];
    let german = matches!(kind, Kind::DeShopperAccepts | Kind::DeShopperRefuses | Kind::Subscriber);
    let (first, last) = (FIRST[rng.usize(0..8)], LAST[rng.usize(0..8)]);
    // Some forms take anything.
    let email = match rng.u32(0..20) {
        0 => format!("buyer{number}@"),
        1 => format!("  BUYER{number}.{run}@Example.COM "),
        _ => format!("buyer{number}.{run}@example.com"),
    };
    let phone = phone(first_phone + number, german);
    Person {
        number,
        anonymous_id: format!("anon-{run}-{number}-{:08x}", rng.u32(..)),
        shop_id: format!("cust-{run}-{number}"),
        email,
        phone,
        first,
        last,
        ip: format!("203.0.113.{}", rng.u32(1..250)),
        german,
    }
}

impl Person {
    fn message_id(&self, step: &str) -> String {
        format!("nl-{}-{step}", self.anonymous_id)
    }

    fn web(&self) -> From {
        if self.german { From::WebDe } else { From::WebUs }
    }

    fn currency(&self) -> &'static str {
        if self.german { "EUR" } else { "USD" }
    }

    fn browser_event(&self, step: &str, event: Value, known: bool, consent: Option<bool>) -> Value {
        let mut context = json!({
            "userAgent": USER_AGENT, "ip": self.ip, "locale": if self.german { "de-DE" } else { "en-US" },
            "library": { "name": "analytics.js", "version": "npm:next-1.84.3" },
            "page": {
                "url": format!("https://shop.northline.example/p/{}?utm_source=mail&fbclid=fb{}&gclid=gc{}&ttclid=E.C.P.tt{}", self.number, self.number, self.number, self.number),
                "referrer": "https://www.example.com/", "path": format!("/p/{}", self.number), "title": "Northline",
            },
        });
        if let Some(allowed) = consent {
            context["consent"] =
                json!({ "categoryPreferences": { "Advertising": allowed, "Analytics": allowed } });
        }
        let mut event = event;
        event["messageId"] = json!(self.message_id(step));
        event["anonymousId"] = json!(self.anonymous_id);
        event["userId"] = if known { json!(self.shop_id) } else { Value::Null };
        event["context"] = context;
        event
    }

    fn server_event(&self, step: &str, user_id: &str, event: Value) -> Value {
        let mut event = event;
        event["messageId"] = json!(self.message_id(step));
        event["userId"] = json!(user_id);
        event["anonymousId"] = json!(self.anonymous_id);
        event["context"] = json!({
            "ip": self.ip, "userAgent": USER_AGENT, "traits": self.traits(),
            "page": { "url": "https://shop.northline.example/thank-you" },
            "library": { "name": "@segment/analytics-node", "version": "3.1.0" },
        });
        event
    }

    fn traits(&self) -> Value {
        json!({
            "email": self.email, "phone": self.phone, "firstName": self.first, "lastName": self.last,
            "address": {
                "city": if self.german { "Berlin" } else { "San Francisco" },
                "state": if self.german { "BE" } else { "CA" },
                "postalCode": if self.german { "10115" } else { "94103" },
                "country": if self.german { "DE" } else { "US" },
            },
        })
    }
}

fn visit(rng: &mut Rng, person: &Person, kind: Kind) -> Visitor {
    let product = if kind == Kind::FlashSale { PRODUCTS[2] } else { PRODUCTS[rng.usize(0..PRODUCTS.len())] };
    let quantity = i64::from(rng.u32(1..4));
    let mut visitor = Visitor::default();
    match kind {
        Kind::UsShopper | Kind::FlashSale => {
            browse(&mut visitor, rng, person, &product, false, None);
            checkout(&mut visitor, rng, person, &product, quantity, false, None);
        }
        Kind::DeShopperAccepts => {
            browse(&mut visitor, rng, person, &product, false, Some(true));
            checkout(&mut visitor, rng, person, &product, quantity, false, Some(true));
        }
        Kind::DeShopperRefuses => {
            browse(&mut visitor, rng, person, &product, false, Some(false));
            checkout(&mut visitor, rng, person, &product, quantity, false, Some(false));
        }
        Kind::GpcShopper => {
            browse(&mut visitor, rng, person, &product, true, None);
            checkout(&mut visitor, rng, person, &product, quantity, true, None);
        }
        Kind::OptsOut => {
            browse(&mut visitor, rng, person, &product, false, None);
            opt_out(&mut visitor, person, &product, quantity);
        }
        Kind::Wholesale => wholesale(&mut visitor, rng, person, &product, quantity * 20),
        Kind::Subscriber => subscription(&mut visitor, person, &product),
    }
    visitor
}

fn call(from: From, events: Vec<Value>, gpc: bool, repeats: u32) -> Call {
    Call { from, events, gpc, repeats, part: Part::Day }
}

/// A page, a product, the cart; then the visitor logs in. Who logs in is known from then on, on every event.
fn browse(
    visitor: &mut Visitor,
    rng: &mut Rng,
    person: &Person,
    product: &Product,
    gpc: bool,
    consent: Option<bool>,
) {
    let mut line = product.line(1);
    line["currency"] = json!(person.currency());
    line["value"] = amount(product.cents);
    if rng.u32(0..25) == 0 {
        // A theme update once sent the category as a list.
        line["category"] = json!([product.category, 7]);
    }
    let page = json!({ "type": "page", "name": "Product", "properties": { "title": product.name } });
    let viewed = json!({ "type": "track", "event": "Product Viewed", "properties": line.clone() });
    let added = json!({ "type": "track", "event": "Product Added", "properties": line });
    let identify = json!({ "type": "identify", "traits": person.traits() });
    let events = vec![
        person.browser_event("page", page, false, consent),
        person.browser_event("viewed", viewed, false, consent),
        person.browser_event("added", added, false, consent),
    ];
    visitor.calls.push(call(person.web(), events, gpc, u32::from(rng.u32(0..12) == 0)));
    let known = vec![person.browser_event("identify", identify, true, consent)];
    visitor.calls.push(call(person.web(), known, gpc, 0));
}

fn order(rng: &mut Rng, person: &Person, product: &Product, quantity: i64) -> Value {
    let total = product.cents * quantity;
    let shipping = 490;
    let currency = match rng.u32(0..40) {
        0 => "EURO",
        1 => "usd",
        _ => person.currency(),
    };
    json!({
        "order_id": format!("NL-{}", person.message_id("o")), "revenue": amount(total), "shipping": amount(shipping),
        "total": amount(total + shipping), "currency": currency, "products": [product.line(quantity)],
    })
}

/// Checkout and purchase in the browser, and the server's copy of the purchase under the same message_id.
fn checkout(
    visitor: &mut Visitor,
    rng: &mut Rng,
    person: &Person,
    product: &Product,
    quantity: i64,
    gpc: bool,
    consent: Option<bool>,
) {
    let order = order(rng, person, product, quantity);
    let started = json!({ "type": "track", "event": "Checkout Started", "properties": order.clone() });
    let completed = json!({ "type": "track", "event": "Order Completed", "properties": order });
    let events = vec![
        person.browser_event("checkout", started, true, consent),
        person.browser_event("order", completed.clone(), true, consent),
    ];
    visitor.calls.push(call(person.web(), events, gpc, u32::from(rng.u32(0..10) == 0)));
    if rng.u32(0..10) < 8 {
        let server = if person.german { From::ShopServerDe } else { From::ShopServer };
        let twin = person.server_event("order", &person.shop_id, completed);
        visitor.calls.push(call(server, vec![twin], false, 0));
    }
}

/// Withdraws in the middle of the session, then buys all the same.
fn opt_out(visitor: &mut Visitor, person: &Person, product: &Product, quantity: i64) {
    let preference =
        json!({ "type": "track", "event": "Segment Consent Preference Updated", "properties": {} });
    let order = json!({
        "order_id": format!("NL-{}", person.message_id("o")), "revenue": amount(product.cents * quantity),
        "currency": "USD", "products": [product.line(quantity)],
    });
    let completed = json!({ "type": "track", "event": "Order Completed", "properties": order });
    let withdrawn = person.browser_event("optout", preference, true, Some(false));
    let bought = person.browser_event("order", completed.clone(), true, Some(false));
    let twin = person.server_event("order", &person.shop_id, completed);
    for call in [
        call(person.web(), vec![withdrawn], false, 0),
        call(person.web(), vec![bought], false, 0),
        call(From::ShopServer, vec![twin], false, 0),
    ] {
        visitor.calls.push(Call { part: Part::Evening, ..call });
    }
}

/// A buyer of the portal: the third user id of a person whose e-mail the shop knows too.
fn wholesale(visitor: &mut Visitor, rng: &mut Rng, person: &Person, product: &Product, quantity: i64) {
    let portal_id = format!("portal-{}", person.shop_id);
    let identify = json!({ "type": "identify", "traits": person.traits() });
    let order = order(rng, person, product, quantity);
    let completed = json!({ "type": "track", "event": "Order Completed", "properties": order });
    visitor.calls.push(call(
        From::Wholesale,
        vec![person.server_event("portal", &portal_id, identify.clone())],
        false,
        0,
    ));
    visitor.calls.push(call(
        From::Wholesale,
        vec![person.server_event("bulk", &portal_id, completed)],
        false,
        0,
    ));
    visitor.calls.push(call(
        From::ShopServer,
        vec![person.server_event("shop", &person.shop_id, identify)],
        false,
        0,
    ));
}

/// A subscriber: the app's own user id, joined by e-mail; consent was given in the browser before.
fn subscription(visitor: &mut Visitor, person: &Person, product: &Product) {
    let app_id = format!("app-{}", person.shop_id);
    let page = json!({ "type": "page", "name": "Subscribe", "properties": {} });
    let identify = json!({ "type": "identify", "traits": person.traits() });
    let renewed = json!({
        "type": "track", "event": "Order Completed",
        "properties": {
            "order_id": format!("SUB-{}", person.message_id("o")), "revenue": amount(product.cents),
            "currency": "EUR", "products": [product.line(1)],
        },
    });
    visitor.calls.push(call(
        person.web(),
        vec![person.browser_event("landing", page, false, Some(true))],
        false,
        0,
    ));
    visitor.calls.push(call(
        From::Subscriptions,
        vec![person.server_event("app", &app_id, identify)],
        false,
        0,
    ));
    visitor.calls.push(call(
        From::Subscriptions,
        vec![person.server_event("renewal", &app_id, renewed)],
        false,
        1,
    ));
}

impl Day {
    /// How many events there are and how many will be sent.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut distinct = std::collections::HashSet::new();
        let mut census = Census::default();
        for call in self.visitors.iter().flat_map(|v| &v.calls) {
            census.sent += call.events.len() * (1 + call.repeats as usize);
            distinct.extend(call.events.iter().filter_map(|e| e["messageId"].as_str()));
        }
        census.events = distinct.len();
        census
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(day: &Day) -> String {
        day.visitors.iter().flat_map(|v| &v.calls).map(|c| format!("{c:?}\n")).collect()
    }

    #[test]
    fn a_seed_makes_the_same_day_every_time_and_another_seed_another() {
        assert_eq!(text(&day(7, 60)), text(&day(7, 60)));
        assert_ne!(text(&day(7, 60)), text(&day(8, 60)));
    }

    #[test]
    fn a_day_has_everything_that_goes_wrong_at_northline() {
        let day = day(1, 400);
        let all = text(&day);
        for needle in ["EURO", "Segment Consent Preference Updated", "portal-", "app-", "buyer"] {
            assert!(all.contains(needle), "{needle}");
        }
        let calls: Vec<&Call> = day.visitors.iter().flat_map(|v| &v.calls).collect();
        assert!(calls.iter().any(|c| c.gpc) && calls.iter().any(|c| c.repeats > 0));
        let census = day.census();
        assert!(census.sent > census.events, "twins and repeats: {census:?}");
    }

    #[test]
    fn nobody_shares_a_phone_with_another() {
        let phones: Vec<String> =
            (0..20_000).map(|number| phone(8_999_990 + number, number % 3 == 0)).collect();
        let distinct: std::collections::HashSet<&String> = phones.iter().collect();
        assert_eq!(distinct.len(), phones.len());
    }

    #[test]
    fn who_opts_out_does_so_after_the_day_is_settled() {
        for visitor in day(3, 300).visitors {
            let parts: Vec<Part> = visitor.calls.iter().map(|c| c.part).collect();
            let mut sorted = parts.clone();
            sorted.sort();
            assert_eq!(parts, sorted);
        }
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!(amount(1990).to_string(), "19.9");
        assert_eq!(amount(5).to_string(), "0.05");
    }
}
