//! Parameters of GA4's recommended events, beside money and items, and where Segment's events have them.
//!
//! Sources: Google Analytics, "Recommended events"; the tables of rudder-transformer's ga4/data; 2026-11.

use crate::usual::{Usual, usuals};

/// One parameter: its name, and where it comes from; the first place with a value wins.
type Param = (&'static str, &'static [Usual]);

const PROMOTION: &[Param] = &[
    ("promotion_id", usuals!["properties.promotion_id"]),
    ("promotion_name", usuals!["properties.promotion_name", "properties.name"]),
    ("creative_name", usuals!["properties.creative_name", "properties.creative"]),
    ("creative_slot", usuals!["properties.creative_slot", "properties.position"]),
];
const LIST: &[Param] = &[
    ("item_list_id", usuals!["properties.list_id", "properties.item_list_id"]),
    ("item_list_name", usuals!["properties.item_list_name", "properties.category"]),
];
const COUPON: Param = ("coupon", usuals!["properties.coupon"]);

/// What a recommended event has.
struct Event {
    name: &'static str,
    params: &'static [Param],
    /// Whether other harmless properties go along.
    open: bool,
}

const fn closed(name: &'static str, params: &'static [Param]) -> Event {
    Event { name, params, open: false }
}

const fn open(name: &'static str, params: &'static [Param]) -> Event {
    Event { name, params, open: true }
}

const EVENTS: [Event; 19] = [
    closed("purchase", &[COUPON, ("affiliation", usuals!["properties.affiliation"])]),
    closed("refund", &[COUPON, ("affiliation", usuals!["properties.affiliation"])]),
    closed("add_to_cart", &[]),
    closed("remove_from_cart", &[]),
    closed("add_to_wishlist", &[]),
    closed("view_item", &[]),
    closed(
        "select_item",
        &[
            ("item_list_id", usuals!["properties.list_id", "properties.item_list_id"]),
            ("item_list_name", usuals!["properties.item_list_name"]),
        ],
    ),
    closed("view_cart", &[]),
    closed("begin_checkout", &[COUPON]),
    closed(
        "add_shipping_info",
        &[COUPON, ("shipping_tier", usuals!["properties.shipping_tier", "properties.shipping_method"])],
    ),
    closed(
        "add_payment_info",
        &[COUPON, ("payment_type", usuals!["properties.payment_type", "properties.payment_method"])],
    ),
    closed("view_item_list", LIST),
    closed("view_promotion", PROMOTION),
    closed("select_promotion", PROMOTION),
    closed("search", &[("search_term", usuals!["properties.query"])]),
    closed("page_view", &[]),
    // To whom something is shared, and with which words, is nothing that Google may have.
    closed(
        "share",
        &[
            ("method", usuals!["properties.method", "properties.share_via"]),
            ("content_type", usuals!["properties.content_type"]),
            ("item_id", usuals!["properties.item_id", "properties.product_id", "properties.sku"]),
        ],
    ),
    open("sign_up", &[("method", usuals!["properties.method"])]),
    open("login", &[("method", usuals!["properties.method"])]),
];

/// Parameters of an event of that name; none of its own for those that are not recommended ones.
pub fn params_of(name: &str) -> &'static [Param] {
    EVENTS.iter().find(|event| event.name == name).map_or(&[], |event| event.params)
}

/// Whether other harmless properties go along with an event of that name.
pub fn takes_others(name: &str) -> bool {
    EVENTS.iter().find(|event| event.name == name).is_none_or(|event| event.open)
}
