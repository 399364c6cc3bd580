//! Event names: Segment's to GA4's recommended ones, and the rules for others.
//!
//! Sources: developers.google.com/analytics/devguides/collection/protocol/ga4 (reference, validating events); reserved names
//! as in rudder-transformer's ga4/utils.js; 2026-11.

use std::borrow::Cow;

use tracklayer_event::commerce::{ORDER_CANCELLED, ORDER_COMPLETED, ORDER_REFUNDED};
use tracklayer_proto::event::v1::EventType;

use super::settings::Settings;
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::outcome::{Refusal, RefusalCode};

/// Longest name of an event or a parameter.
pub const MAX_NAME: usize = 40;

const RECOMMENDED: [(&str, &str); 19] = [
    (ORDER_COMPLETED, "purchase"),
    (ORDER_REFUNDED, "refund"),
    ("product added", "add_to_cart"),
    ("product removed", "remove_from_cart"),
    ("product added to wishlist", "add_to_wishlist"),
    ("product viewed", "view_item"),
    ("product clicked", "select_item"),
    ("cart viewed", "view_cart"),
    ("checkout started", "begin_checkout"),
    ("checkout step completed", "add_shipping_info"),
    ("payment info entered", "add_payment_info"),
    ("product list viewed", "view_item_list"),
    ("promotion viewed", "view_promotion"),
    ("promotion clicked", "select_promotion"),
    ("products searched", "search"),
    ("signed up", "sign_up"),
    ("signed in", "login"),
    ("lead generated", "generate_lead"),
    ("product shared", "share"),
];

const RESERVED: [&str; 27] = [
    "ad_activeview",
    "ad_click",
    "ad_exposure",
    "ad_impression",
    "ad_query",
    "ad_reward",
    "adunit_exposure",
    "app_background",
    "app_clear_data",
    "app_exception",
    "app_install",
    "app_remove",
    "app_update",
    "app_upgrade",
    "error",
    "first_open",
    "first_visit",
    "in_app_purchase",
    "os_update",
    "screen_view",
    "session_start",
    "user_engagement",
    "app_store_refund",
    "app_store_subscription_cancel",
    "app_store_subscription_convert",
    "app_store_subscription_renew",
    "dynamic_link_app_open",
];

const RESERVED_PREFIXES: [&str; 8] =
    ["_", "firebase_", "ga_", "google_", "gtag.", "app_store_", "dynamic_link_", "notification_"];

/// GA4's name for an event.
///
/// # Errors
/// GA4 keeps the name for itself, or there is none.
pub fn name_of<'a>(
    connection: &'a Connection,
    settings: &Settings,
    event: &'a Deliverable,
) -> Result<Cow<'a, str>, Refusal> {
    let own = event.folded_name();
    let recommended = RECOMMENDED.iter().find(|(segment, _)| *segment == own).map(|(_, name)| *name);
    let mapped = connection.mapped_name(event);
    if mapped == Some("purchase") && (own == ORDER_REFUNDED || own == ORDER_CANCELLED) {
        let why = "a refund must not be sent as a purchase: it would count as one more";
        return Err(Refusal::new(RefusalCode::EventNotSupported, why).at("event"));
    }
    let name = match (mapped, event.event.r#type(), recommended) {
        (Some(name), _, _) => name,
        (None, EventType::Page, _) => return Ok("page_view".into()),
        (None, EventType::Track, Some(name)) => return Ok(name.into()),
        (None, EventType::Track, None) if settings.send_custom_events => event.event.name.as_str(),
        (None, _, _) => {
            return Err(Refusal::new(RefusalCode::EventNotMapped, "no mapping for this event").at("event"));
        }
    };
    let reserved = || {
        Refusal::new(RefusalCode::EventNameReserved, "GA4 keeps this name for itself")
            .at("event")
            .as_platform("NAME_RESERVED")
    };
    if is_reserved(name.trim()) {
        return Err(reserved());
    }
    let name = sanitised(name).ok_or_else(|| {
        Refusal::new(RefusalCode::InvalidPayload, "nothing of the name is left that GA4 takes").at("event")
    })?;
    // "Session start" is none of GA4's names until its space has become an underscore.
    if is_reserved(&name) { Err(reserved()) } else { Ok(name.into()) }
}

/// GA4's name for what takes something off an order.
pub const REFUND: &str = "refund";

/// Whether an event goes out as a refund. By its name at GA4: `Order Cancelled` is none of GA4's recommended events and takes nothing
/// off, unless the connection maps it to `refund`, as it may any other event of a shop that cancels or pays back.
/// Source: GA4, "Measure ecommerce" (a refund is the event `refund`); Segment, e-commerce spec v2; 2026-11.
#[must_use]
pub fn is_refund(connection: &Connection, event: &Deliverable) -> bool {
    match connection.mapped_name(event) {
        Some(name) => sanitised(name).as_deref() == Some(REFUND),
        None => {
            event.event.r#type() == EventType::Track
                && (event.folded_name() == ORDER_REFUNDED || event.event.name.trim() == REFUND)
        }
    }
}

/// Whether GA4 keeps a name for itself, in any case: a name that differs from its own by case alone is taken for it by whoever
/// reads the reports.
fn is_reserved(name: &str) -> bool {
    let name = name.to_lowercase();
    RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A name with runs of other characters as one underscore, trimmed, a letter first, at most 40; case kept.
#[must_use]
pub fn sanitised(name: &str) -> Option<String> {
    let mut text = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if !(c == '_' && text.ends_with('_')) {
            text.push(c);
        }
    }
    let text: String =
        text.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).chars().take(MAX_NAME).collect();
    let text = text.trim_end_matches('_');
    (!text.is_empty()).then(|| text.to_owned())
}
