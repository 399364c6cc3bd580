//! Event names: Segment's to TikTok's, and the rules for custom ones.
//!
//! Sources: TikTok help, "supported standard events", "custom events", "reserved events", "updated standard events"; 2026-11.

use std::borrow::Cow;

use tracklayer_event::commerce::{ORDER_CANCELLED, ORDER_COMPLETED, ORDER_REFUNDED};
use tracklayer_proto::event::v1::EventType;

use super::settings::{EventSource, Settings};
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::outcome::{Refusal, RefusalCode};

/// Longest custom name.
const MAX_NAME: usize = 50;

/// TikTok's standard names.
const STANDARD: [&str; 19] = [
    "AddPaymentInfo",
    "AddToCart",
    "AddToWishlist",
    "ApplicationApproval",
    "CompleteRegistration",
    "Contact",
    "CustomizeProduct",
    "Download",
    "FindLocation",
    "InitiateCheckout",
    "Lead",
    "Purchase",
    "Schedule",
    "Search",
    "StartTrial",
    "SubmitApplication",
    "Subscribe",
    "ViewContent",
    "Pageview",
];

/// Old names that still work and are converted by TikTok.
const LEGACY: [&str; 4] = ["CompletePayment", "SubmitForm", "ClickButton", "PlaceAnOrder"];

/// Names that TikTok remaps to standard events without asking: never good for a custom event.
const RESERVED: [&str; 8] =
    ["AddBilling", "Browse", "Checkout", "Registration", "StartCheckout", "Consult", "ClickForm", "PageView"];

/// Segment's e-commerce events (v2) by TikTok's names; the purchase's name is a setting.
const SEGMENT: [(&str, &str); 13] = [
    ("product viewed", "ViewContent"),
    ("product list viewed", "ViewContent"),
    ("products searched", "Search"),
    ("product added", "AddToCart"),
    ("product added to wishlist", "AddToWishlist"),
    ("checkout started", "InitiateCheckout"),
    ("payment info entered", "AddPaymentInfo"),
    ("signed up", "CompleteRegistration"),
    ("subscription created", "Subscribe"),
    ("subscription started", "Subscribe"),
    ("trial started", "StartTrial"),
    ("lead generated", "Lead"),
    ("form submitted", "Lead"),
];

/// TikTok's name for an event, and whether it is a custom one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name<'a> {
    /// As sent.
    pub text: Cow<'a, str>,
    /// Whether it is the name of a purchase.
    pub is_purchase: bool,
    /// Whether it is none of TikTok's own.
    pub is_custom: bool,
}

/// Finds the name.
///
/// # Errors
/// There is none, or it cannot be one.
pub fn name_of<'a>(
    connection: &'a Connection,
    settings: &Settings,
    event: &'a Deliverable,
) -> Result<Name<'a>, Refusal> {
    let own = event.folded_name();
    let is_refund = own == ORDER_REFUNDED || own == ORDER_CANCELLED;
    if let Some(mapped) = connection.mapped_name(event) {
        let name = checked(mapped.into(), settings)?;
        if is_refund && name.is_purchase {
            let why = "a refund must not be sent as a purchase: it would count as one more";
            return Err(Refusal::new(RefusalCode::EventNotSupported, why).at("event"));
        }
        return Ok(name);
    }
    if own == ORDER_COMPLETED {
        return Ok(standard(settings.purchase_event.as_str()));
    }
    if is_refund {
        let why = "TikTok has no refund or retraction";
        return Err(Refusal::new(RefusalCode::EventNotSupported, why).at("event"));
    }
    match event.event.r#type() {
        EventType::Page => Ok(standard("Pageview")),
        EventType::Track => match SEGMENT.iter().find(|(segment, _)| *segment == own) {
            Some((_, name)) => Ok(standard(name)),
            // A checkout step is no event of TikTok's; others send a purchase here that did not happen.
            None if settings.send_custom_events && own != "checkout step completed" => {
                checked(sanitised(&event.event.name).into(), settings)
            }
            None => Err(not_mapped()),
        },
        EventType::Screen
        | EventType::Identify
        | EventType::Group
        | EventType::Alias
        | EventType::Unspecified => Err(not_mapped()),
    }
}

fn not_mapped() -> Refusal {
    Refusal::new(RefusalCode::EventNotMapped, "no mapping for this event; custom events are switched off")
        .at("event")
}

fn standard(name: &str) -> Name<'_> {
    let is_purchase = name == "Purchase" || name == "CompletePayment";
    Name { text: name.into(), is_purchase, is_custom: false }
}

fn checked<'a>(name: Cow<'a, str>, settings: &Settings) -> Result<Name<'a>, Refusal> {
    if STANDARD.contains(&&*name) || LEGACY.contains(&&*name) {
        return Ok(Name { text: name.clone(), ..standard(&name) });
    }
    let is = |list: &[&str]| list.iter().any(|n| n.eq_ignore_ascii_case(&name));
    if is(&RESERVED) || is(&STANDARD) || is(&LEGACY) {
        let why = format!("`{name}` is a name that TikTok remaps to an event of its own");
        return Err(Refusal::new(RefusalCode::EventNameReserved, why).at("event"));
    }
    if settings.event_source == EventSource::Offline {
        let why = "offline event sets take standard names only";
        return Err(Refusal::new(RefusalCode::EventNotSupported, why).at("event"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    if !starts_well || name.len() > MAX_NAME || !name.chars().all(allowed) {
        let why =
            format!("a custom name is Latin letters, digits, _ and -, first a letter, at most {MAX_NAME}");
        return Err(Refusal::new(RefusalCode::InvalidPayload, why).at("event"));
    }
    Ok(Name { text: name, is_purchase: false, is_custom: true })
}

/// "Quiz Finished" → "Quiz_Finished".
fn sanitised(name: &str) -> String {
    let mut text = String::new();
    for c in name.trim().chars() {
        let c = if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        if !(c == '_' && text.ends_with('_')) {
            text.push(c);
        }
    }
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).trim_end_matches('_');
    text.chars().take(MAX_NAME).collect()
}
