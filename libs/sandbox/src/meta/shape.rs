//! Which fields an event of the Conversions API may have.
//!
//! Source: Meta, Conversions API, "Server Event Parameters", "Customer Information Parameters", "Custom Data
//! Parameters", "App Data Parameters"; 2026-11.

use crate::shape::{Kind, Message, optional, required};

/// Keys of `user_data` that hold SHA-256 digests and nothing else; `external_id` may be plain.
pub(super) const HASHED: [&str; 16] = [
    "em", "ph", "fn", "ln", "ge", "db", "ct", "st", "zp", "country", "dobd", "dobm", "doby", "fi", "f5first",
    "f5last",
];

pub(super) static EVENT: Message = Message {
    fields: &[
        required("event_name", Kind::Text),
        required("event_time", Kind::Whole),
        required("user_data", Kind::One(&USER_DATA)),
        required(
            "action_source",
            Kind::Choice(
                "one of {email, website, app, phone_call, chat, physical_store, system_generated, \
                 business_messaging, other}",
                &[
                    "website",
                    "app",
                    "physical_store",
                    "email",
                    "phone_call",
                    "chat",
                    "system_generated",
                    "business_messaging",
                    "other",
                ],
            ),
        ),
        optional("event_source_url", Kind::Text),
        optional("event_id", Kind::Text),
        optional("custom_data", Kind::One(&CUSTOM_DATA)),
        optional("referrer_url", Kind::Text),
        optional("opt_out", Kind::Flag),
        optional("data_processing_options", Kind::List(&Kind::Choice("one of {LDU}", &["LDU"]))),
        optional("data_processing_options_country", Kind::Whole),
        optional("data_processing_options_state", Kind::Whole),
        optional("app_data", Kind::One(&APP_DATA)),
        optional(
            "messaging_channel",
            Kind::Choice("one of {whatsapp, messenger, instagram}", &["whatsapp", "messenger", "instagram"]),
        ),
        optional("original_event_data", Kind::One(&ORIGINAL_EVENT)),
        optional("attribution_data", Kind::One(&OPEN)),
        optional("customer_segmentation", Kind::Text),
    ],
    open: false,
};

static OPEN: Message = Message { fields: &[], open: true };

static ORIGINAL_EVENT: Message = Message {
    fields: &[
        optional("event_name", Kind::Text),
        optional("event_time", Kind::Whole),
        optional("order_id", Kind::Text),
        optional("event_id", Kind::Text),
    ],
    open: false,
};

static USER_DATA: Message = Message {
    fields: &[
        optional("em", Kind::Texts),
        optional("ph", Kind::Texts),
        optional("fn", Kind::Texts),
        optional("ln", Kind::Texts),
        optional("ge", Kind::Texts),
        optional("db", Kind::Texts),
        optional("ct", Kind::Texts),
        optional("st", Kind::Texts),
        optional("zp", Kind::Texts),
        optional("country", Kind::Texts),
        optional("external_id", Kind::Texts),
        optional("client_ip_address", Kind::Text),
        optional("client_user_agent", Kind::Text),
        optional("fbc", Kind::Text),
        optional("fbp", Kind::Text),
        optional("subscription_id", Kind::Text),
        optional("fb_login_id", Kind::Anything),
        optional("lead_id", Kind::Anything),
        optional("madid", Kind::Text),
        optional("anon_id", Kind::Text),
        optional("page_id", Kind::Text),
        optional("page_scoped_user_id", Kind::Text),
        optional("ctwa_clid", Kind::Text),
        optional("ig_account_id", Kind::Text),
        optional("ig_sid", Kind::Text),
        optional("whatsapp_business_account_id", Kind::Text),
        optional("dobd", Kind::Texts),
        optional("dobm", Kind::Texts),
        optional("doby", Kind::Texts),
        optional("fi", Kind::Texts),
        optional("f5first", Kind::Texts),
        optional("f5last", Kind::Texts),
    ],
    open: false,
};

/// Other keys are custom properties. `contents` has its own error and is looked at later.
static CUSTOM_DATA: Message = Message {
    fields: &[
        optional("value", Kind::Number),
        optional("net_revenue", Kind::Number),
        optional("predicted_ltv", Kind::Number),
        optional("currency", Kind::Text),
        optional("contents", Kind::Anything),
        optional("content_ids", Kind::Texts),
        optional(
            "content_type",
            Kind::Choice("one of {product, product_group}", &["product", "product_group"]),
        ),
        optional("content_name", Kind::Text),
        optional("content_category", Kind::Text),
        optional("order_id", Kind::Text),
        optional("search_string", Kind::Text),
        optional("status", Kind::Text),
        optional("item_number", Kind::Text),
        optional("num_items", Kind::Whole),
        optional("delivery_category", DELIVERY),
    ],
    open: true,
};

const DELIVERY: Kind =
    Kind::Choice("one of {in_store, curbside, home_delivery}", &["in_store", "curbside", "home_delivery"]);

pub(super) static CONTENT: Message = Message {
    fields: &[
        optional("id", Kind::Text),
        optional("quantity", Kind::Whole),
        optional("item_price", Kind::Number),
        optional("title", Kind::Text),
        optional("description", Kind::Text),
        optional("brand", Kind::Text),
        optional("category", Kind::Text),
        optional("delivery_category", DELIVERY),
    ],
    open: false,
};

static APP_DATA: Message = Message {
    fields: &[
        required("advertiser_tracking_enabled", Kind::Anything),
        required("application_tracking_enabled", Kind::Anything),
        optional("extinfo", Kind::Anything),
    ],
    open: true,
};
