//! Meta Conversions API: Segment's `facebook-conversions-api`, version 2 of its actions, each by its own default subscription;
//! its custom action for all other events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    EventRule, Platform, Rule, Seen, Who, bare, is_about, is_canonical_of, products, sha256, squeezed, worth,
};

const DATASET: &str = "1234567890123456";

/// What Segment has an action of its own for.
const OWN: [&str; 5] =
    ["Order Completed", "Checkout Started", "Product Added", "Product Viewed", "Products Searched"];

pub fn platform() -> Platform {
    let action = |name: &str, subscribe: Value| {
        json!({ "destination": "facebook-conversions-api", "settings": { "pixelId": DATASET }, "action": name,
            "subscribe": subscribe, "mapping": { "action_source": "website" } })
    };
    let names = ["purchase2", "initiateCheckout2", "addToCart2", "viewContent2", "search2", "pageView2"];
    let mut subscriptions: Vec<Value> = names.iter().map(|name| action(name, Value::Null)).collect();
    let others = OWN.map(|name| format!(" and event != \"{name}\"")).concat();
    subscriptions.push(action("custom2", json!(format!("type = \"track\"{others}"))));
    Platform {
        name: "Meta",
        document: json!({ "kind": "meta_capi", "mode": "live",
            "settings": { "dataset_id": DATASET, "access_token": "token" } }),
        subscriptions: Value::from(subscriptions),
        order_state: |_| None,
        rules: [event(), person(), custom_data()].into_iter().flatten().collect(),
        event_rules: vec![
            EventRule {
                who: Who::Ours,
                holds: |event, why| {
                    why.contains("client_user_agent must be defined")
                        && event["context"].get("userAgent").is_none()
                },
                reason: "Segment refuses a website event without user agent; Meta answered 200 to one (v26.0, 2026-09), so a purchase \
                         is not lost for it; require_user_agent refuses it too",
            },
            EventRule {
                who: Who::Ours,
                holds: |event, why| {
                    event["event"] == "Products Searched" && why.contains("contents[0] must include an 'id'")
                },
                reason: "Segment's default takes a search for a product and then refuses it for having no id",
            },
            EventRule {
                who: Who::Theirs,
                holds: |event, why| {
                    let is_refund = event["event"] == "Order Refunded" || event["event"] == "Order Cancelled";
                    is_refund && why.starts_with("event_not_supported")
                },
                reason: "Meta has no retraction: an event of one's own name is a setting of ours (refunds), not a default",
            },
        ],
    }
}

fn event() -> Vec<Rule> {
    vec![
        Rule {
            places: &["(url)"],
            holds: |seen| seen.our_text() == seen.their_text().replace("/v24.0/", "/v26.0/"),
            reason: "Graph v26.0 is the newest of 2026-11 (docs/graph-api/changelog); Segment's package has v24.0",
        },
        Rule {
            places: &["data[].event_name"],
            holds: |seen| {
                let standard = match seen.name() {
                    "Payment Info Entered" => "AddPaymentInfo",
                    "Product Added to Wishlist" => "AddToWishlist",
                    "Product List Viewed" => "ViewContent",
                    "Signed Up" => "CompleteRegistration",
                    "Subscription Created" => "Subscribe",
                    _ => return false,
                };
                seen.our_text() == standard && seen.their_text() == seen.name()
            },
            reason: "Meta's standard name (docs/meta-pixel/reference, 2026-11); Segment has no action for it, its custom one keeps the name",
        },
        Rule {
            places: &["data[].event_time"],
            holds: |seen| {
                let time = seen.their_text().parse::<Timestamp>().map(Timestamp::as_second).ok();
                seen.text_of_event("/timestamp") == Some(seen.their_text())
                    && seen.ours.and_then(Value::as_i64) == time
            },
            reason: "Unix seconds as published (Server Event Parameters, 2026-11); Segment passes the text, which Meta is said to convert",
        },
        Rule {
            places: &["data[].event_source_url"],
            holds: |seen| {
                let has_page = seen.of_event("/context/page").is_some();
                seen.who() == Who::Ours
                    && !has_page
                    && seen.text_of_event("/properties/url") == Some(seen.our_text())
            },
            reason: "a website event needs its address (Server Event Parameters, 2026-11): the product's own stands in; Segment sends none",
        },
        Rule {
            places: &["data[].referrer_url"],
            holds: |seen| {
                seen.who() == Who::Ours
                    && seen.text_of_event("/context/page/referrer") == Some(seen.our_text())
            },
            reason: "referrer_url of Server Event Parameters, 2026-11; Segment has no field for it",
        },
    ]
}

/// Whether we send a list of the one digest, and Segment the other.
fn hashes(seen: &Seen<'_>, ours: &str, theirs: &str) -> bool {
    seen.ours == Some(&json!([sha256(ours)])) && seen.their_text() == sha256(theirs)
}

fn person() -> Vec<Rule> {
    vec![
        Rule {
            places: &[
                "data[].user_data.em",
                "data[].user_data.ph",
                "data[].user_data.fn",
                "data[].user_data.ln",
                "data[].user_data.ct",
                "data[].user_data.st",
            ],
            holds: |seen| seen.theirs.is_some() && seen.ours == Some(&json!([seen.theirs])),
            reason: "the same digest; a list of texts as well as one text is taken (Customer Information Parameters, 2026-01)",
        },
        Rule {
            places: &["data[].user_data.ph"],
            holds: |seen| {
                let written = seen.text_of_event("/context/traits/phone").unwrap_or_default();
                let digits = written.replace(' ', "");
                seen.text_of_event("/context/traits/address/country") == Some("de")
                    && hashes(seen, &format!("49{}", digits.trim_start_matches('0')), &digits)
            },
            reason: "country code instead of the leading zero (Customer Information Parameters, 2026-01); Segment hashes the digits as written",
        },
        Rule {
            places: &["data[].user_data.fn", "data[].user_data.ln", "data[].user_data.st"],
            holds: |seen| {
                let written = match seen.path.rsplit('.').next() {
                    Some("fn") => "/context/traits/firstName",
                    Some("ln") => "/context/traits/lastName",
                    _ => "/context/traits/address/state",
                };
                seen.text_of_event(written).is_some_and(|text| hashes(seen, &bare(text), &squeezed(text)))
            },
            reason: "no punctuation (Customer Information Parameters, 2026-01); Segment drops white space only",
        },
        Rule {
            places: &["data[].user_data.zp"],
            holds: |seen| match seen.text_of_event("/context/traits/address/postalCode") {
                Some(zip) if seen.text_of_event("/context/traits/address/country") == Some("US") => {
                    hashes(seen, &zip[..5], zip)
                }
                Some(code) => hashes(seen, code.trim_start_matches("D-"), &code.to_lowercase()),
                None => false,
            },
            reason: "five digits in the USA, no dash (Customer Information Parameters, 2026-01) and no country letters; Segment keeps all",
        },
        Rule {
            places: &["data[].user_data.db"],
            holds: |seen| {
                let written = seen.text_of_event("/context/traits/birthday").unwrap_or_default();
                ["1990-02-16", "16.02.1990"].contains(&written) && hashes(seen, "19900216", written)
            },
            reason: "YYYYMMDD (Customer Information Parameters, 2026-01); Segment hashes the date as written",
        },
        Rule {
            places: &["data[].user_data.country"],
            holds: |seen| {
                let country = seen.text_of_event("/context/traits/address/country").unwrap_or_default();
                seen.who() == Who::Ours && seen.ours == Some(&json!([sha256(&country.to_lowercase())]))
            },
            reason: "country is to be sent always (Customer Information Parameters, 2026-01); Segment's defaults leave it out",
        },
        Rule {
            places: &["data[].user_data.ge"],
            holds: |seen| {
                let is_female = seen.text_of_event("/context/traits/gender") == Some("female");
                seen.who() == Who::Ours && is_female && seen.ours == Some(&json!([sha256("f")]))
            },
            reason: "gender as f or m (Customer Information Parameters, 2026-01); Segment's defaults leave it out",
        },
        Rule {
            places: &["data[].user_data.client_ip_address"],
            holds: |seen| is_canonical_of(seen.our_text(), seen.their_text()),
            reason: "the same address in its canonical form (RFC 5952)",
        },
        Rule {
            places: &["data[].user_data.client_ip_address"],
            holds: |seen| seen.who() == Who::Theirs && seen.their_text() == "10.0.0.5",
            reason: "a private address is no person's (real and public: Customer Information Parameters, 2026-01)",
        },
        Rule {
            places: &["data[].user_data.fbc"],
            holds: |seen| {
                let url = seen.text_of_event("/context/page/url").unwrap_or_default();
                let time = seen.text_of_event("/timestamp").and_then(|text| text.parse::<Timestamp>().ok());
                let built = time.map(|time| format!("fb.1.{}.IwAR0xyz", time.as_millisecond()));
                seen.who() == Who::Ours
                    && url.contains("fbclid=IwAR0xyz&")
                    && built.as_deref() == Some(seen.our_text())
            },
            reason: "built from the page's fbclid (fbp and fbc Parameters, 2026-02); Segment takes properties.fbc only",
        },
    ]
}

/// Whether Segment's action for the event has the place at all.
fn by_custom_action(seen: &Seen<'_>) -> bool {
    seen.action == "custom2"
}

fn custom_data() -> Vec<Rule> {
    vec![
        Rule {
            places: &["data[].custom_data.value"],
            holds: |seen| {
                let price = seen.of_event("/properties/price").and_then(Value::as_f64).unwrap_or(-1.0);
                seen.is(&["Product Added", "Product Viewed"])
                    && is_about(seen.ours, worth(seen.event))
                    && is_about(seen.theirs, price)
            },
            reason: "what the event is worth: its value, else price times quantity; Segment sends the price of one piece",
        },
        Rule {
            places: &["data[].custom_data.value"],
            holds: |seen| {
                let stated = ["revenue", "total", "value"]
                    .iter()
                    .find_map(|key| seen.event["properties"][key].as_f64());
                seen.who() == Who::Ours
                    && by_custom_action(seen)
                    && is_about(seen.ours, stated.unwrap_or(worth(seen.event)))
            },
            reason: "value of Custom Data Parameters, 2026-02; Segment's custom action maps none",
        },
        Rule {
            places: &["data[].custom_data.currency"],
            holds: |seen| {
                seen.who() == Who::Ours
                    && by_custom_action(seen)
                    && seen.text_of_event("/properties/currency") == Some(seen.our_text())
            },
            reason: "currency of Custom Data Parameters, 2026-02; Segment's custom action maps none",
        },
        Rule {
            places: &["data[].custom_data.content_ids"],
            holds: |seen| {
                let ids: Vec<&Value> =
                    products(seen.event).into_iter().map(|product| &product["product_id"]).collect();
                seen.who() == Who::Ours && seen.ours == Some(&json!(ids))
            },
            reason: "content_ids of Custom Data Parameters, 2026-02; Segment's default maps them for ViewContent only",
        },
        Rule {
            places: &["data[].custom_data.content_type"],
            holds: |seen| {
                seen.who() == Who::Ours
                    && seen.our_text() == "product"
                    && seen.all_ours.contains_key("data[0].custom_data.contents[0].id")
            },
            reason: "content_type says what the ids are (Custom Data Parameters, 2026-02); Segment's defaults leave it out",
        },
        Rule {
            places: &[
                "data[].custom_data.contents[].id",
                "data[].custom_data.contents[].quantity",
                "data[].custom_data.contents[].item_price",
            ],
            holds: |seen| {
                let at = seen
                    .path
                    .split(['[', ']'])
                    .nth(3)
                    .and_then(|index| index.parse::<usize>().ok())
                    .unwrap_or(usize::MAX);
                let product = products(seen.event).get(at).copied().cloned().unwrap_or_default();
                let is_right = match seen.path.rsplit('.').next() {
                    Some("id") => seen.ours == product.get("product_id"),
                    Some("quantity") => is_about(seen.ours, product["quantity"].as_f64().unwrap_or(1.0)),
                    _ => product["price"].as_f64().is_some_and(|price| is_about(seen.ours, price)),
                };
                seen.who() == Who::Ours && by_custom_action(seen) && is_right
            },
            reason: "contents of Custom Data Parameters, 2026-02; Segment's custom action maps none",
        },
        Rule {
            places: &["data[].custom_data.content_name"],
            holds: |seen| {
                let has_list = seen.of_event("/properties/products").is_some();
                seen.who() == Who::Ours
                    && !has_list
                    && seen.text_of_event("/properties/name") == Some(seen.our_text())
            },
            reason: "content_name of Custom Data Parameters, 2026-02: the one product's; Segment's defaults leave it out",
        },
        Rule {
            places: &["data[].custom_data.content_category"],
            holds: |seen| {
                seen.who() == Who::Ours && seen.text_of_event("/properties/category") == Some(seen.our_text())
            },
            reason: "content_category of Custom Data Parameters, 2026-02; Segment's defaults leave it out",
        },
        Rule {
            places: &["data[].custom_data.num_items"],
            holds: |seen| {
                let pieces = products(seen.event)
                    .iter()
                    .map(|product| product["quantity"].as_f64().unwrap_or(1.0))
                    .sum();
                let is_counted =
                    ["Order ", "Checkout ", "Cart "].iter().any(|start| seen.name().starts_with(start));
                seen.who() == Who::Ours && is_counted && is_about(seen.ours, pieces)
            },
            reason: "num_items of Custom Data Parameters, 2026-02: all pieces; Segment's defaults leave it out",
        },
        Rule {
            places: &["data[].custom_data.order_id"],
            holds: |seen| {
                seen.who() == Who::Ours && seen.text_of_event("/properties/order_id") == Some(seen.our_text())
            },
            reason: "order_id of Custom Data Parameters, 2026-02; Segment's defaults leave it out",
        },
    ]
}
