//! The checks of one event, in Meta's order as far as it is known: shape, time, hashes, click id, customer
//! information, purchase, value, contents, device. The first failure is the request's.

use jiff::Timestamp;

use super::answer::Refusal;
use super::shape::{CONTENT, EVENT, HASHED};
use crate::json::{Item, Json, Number, Object, same_name};
use crate::shape::{Dialect, Misfit, Step, What, dollar_path, misfits};

/// Oldest event taken, in seconds; one older event refuses its whole request. Source: Meta, "Server Event
/// Parameters"; 2026-11.
const MAX_AGE: i64 = 7 * 24 * 3600;
/// The same for `physical_store`. Source: Meta, "Offline events"; 2026-11.
const MAX_AGE_STORE: i64 = 62 * 24 * 3600;
/// How far an event may lie ahead. Meta publishes no margin; connectors in use allow a minute.
const MAX_AHEAD: i64 = 60;
/// Source: Meta, Pixel, "Conversion tracking" (custom events); 2026-11.
const MAX_NAME: usize = 50;

/// Only keys of one of these sets, or of a part of it, name nobody. Source: Meta, Conversions API, "Best
/// practices"; 2026-11.
const TOO_BROAD: [&[&str]; 4] = [
    &["ct", "country", "st", "zp", "ge", "client_user_agent"],
    &["db", "client_user_agent"],
    &["fn", "ge"],
    &["ln", "ge"],
];

/// Names that business messaging takes. Source: Meta, "Conversions API for Business Messaging"; 2026-11.
const MESSAGING_NAMES: [&str; 14] = [
    "Purchase",
    "LeadSubmitted",
    "AddToCart",
    "InitiateCheckout",
    "ViewContent",
    "OrderCreated",
    "OrderShipped",
    "OrderDelivered",
    "OrderCanceled",
    "OrderReturned",
    "CartAbandoned",
    "QualifiedLead",
    "RatingProvided",
    "ReviewProvided",
];

/// SHA-256 of nothing: accepted, and matches nobody.
const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static NOTHING: Object<'static> = Object(Vec::new());

/// An event that passed.
pub(super) struct Checked<'a> {
    pub(super) name: &'a str,
    pub(super) id: &'a str,
    pub(super) time: i64,
    pub(super) value: Option<Number>,
    pub(super) currency: Option<&'a str>,
}

/// Things that were accepted and yet are no good.
#[derive(Default)]
pub(super) struct Warnings {
    without_user_agent: u64,
    without_url: u64,
    empty_hashes: u64,
    without_id: u64,
}

impl Warnings {
    pub(super) fn kinds(&self) -> [(&'static str, u64); 4] {
        [
            ("website_without_user_agent", self.without_user_agent),
            ("website_without_url", self.without_url),
            ("hash_of_nothing", self.empty_hashes),
            ("without_event_id", self.without_id),
        ]
    }
}

/// Checks the event at `index`.
pub(super) fn check<'a>(
    index: usize,
    item: &'a Item<'_>,
    now: Timestamp,
    require_website_fields: bool,
    warnings: &mut Warnings,
) -> Result<Checked<'a>, Refusal> {
    let start = [Step::Field("data"), Step::Index(index)];
    let Some(event) = item.object() else {
        return Err(parameter_error(format!("Param {} must be an object.", dollar_path(&start))));
    };
    check_shape(event, &start)?;
    let name = event.text("event_name").unwrap_or("");
    let source = event.text("action_source").unwrap_or("");
    let user = event.object("user_data").unwrap_or(&NOTHING);
    let custom = event.object("custom_data").unwrap_or(&NOTHING);
    check_source(event, user, source, name, &start, require_website_fields, warnings)?;
    check_processing_options(event, user, &start)?;

    let time = match event.get("event_time") {
        Some(Json::Int(time)) => *time,
        _ => 0,
    };
    check_time(time, source, now)?;
    check_hashes(user, warnings)?;
    if let Some(fbc) = user.get("fbc").and_then(Json::text)
        && !is_click_id(fbc)
    {
        return Err(Refusal::event(
            2_804_001,
            "Click ID Incorrectly Formatted",
            "The click ID (fbc) you sent is incorrectly formatted.",
        ));
    }
    check_customer_information(user)?;
    check_money(name, custom)?;
    check_contents(custom)?;
    check_device(event)?;
    if let Some(lead) = user.present("lead_id")
        && !is_lead_id(lead)
    {
        return Err(Refusal::event(2_804_036, "Invalid Lead ID", "The lead ID you sent is not valid."));
    }
    let id = event.text("event_id").unwrap_or("");
    warnings.without_id += u64::from(id.is_empty());
    Ok(Checked {
        name,
        id,
        time,
        value: custom.get("value").and_then(Json::number),
        currency: custom.text("currency"),
    })
}

fn parameter_error(text: String) -> Refusal {
    Refusal::event(2_804_019, "Server Side Api Parameter Error", text)
}

fn misfit_error(misfit: &Misfit) -> Refusal {
    let path = dollar_path(&misfit.path);
    parameter_error(match &misfit.what {
        What::Unknown(key) => format!("Unexpected key \"{key}\" on param \"{path}\"."),
        What::Missing => format!("The parameter {path} is required."),
        What::Wrong { expected, .. } => format!("Param {path} must be {expected}."),
    })
}

fn missing(start: &[Step], name: &'static str) -> Refusal {
    let path = [start, &[Step::Field(name)]].concat();
    misfit_error(&Misfit { path, what: What::Missing })
}

fn check_shape(event: &Object<'_>, start: &[Step; 2]) -> Result<(), Refusal> {
    if let Some(misfit) = misfits(&EVENT, event, Dialect::Plain, start, 1).first() {
        return Err(misfit_error(misfit));
    }
    let name = event.text("event_name").unwrap_or("");
    if name.is_empty() || name.chars().count() > MAX_NAME {
        let path = dollar_path(&[start.as_slice(), &[Step::Field("event_name")]].concat());
        return Err(parameter_error(format!("Param {path} must be a string of 1 to {MAX_NAME} characters.")));
    }
    let contents = event.object("custom_data").and_then(|custom| custom.list("contents")).unwrap_or(&[]);
    for (place, content) in contents.iter().enumerate() {
        if let Json::Object(content) = content {
            let [data, event] = *start;
            let path = [data, event, Step::Field("custom_data"), Step::Field("contents"), Step::Index(place)];
            if let Some(misfit) = misfits(&CONTENT, content, Dialect::Plain, &path, 1).first() {
                return Err(misfit_error(misfit));
            }
        }
    }
    Ok(())
}

fn check_source(
    event: &Object<'_>,
    user: &Object<'_>,
    source: &str,
    name: &str,
    start: &[Step],
    require_website_fields: bool,
    warnings: &mut Warnings,
) -> Result<(), Refusal> {
    let blank = |object: &Object<'_>, key: &str| object.get(key).is_none_or(Json::is_blank);
    match source {
        "website" => {
            let (no_url, no_agent) = (blank(event, "event_source_url"), blank(user, "client_user_agent"));
            if require_website_fields && no_url {
                return Err(missing(start, "event_source_url"));
            }
            if require_website_fields && no_agent {
                let path = [start, &[Step::Field("user_data"), Step::Field("client_user_agent")]].concat();
                return Err(misfit_error(&Misfit { path, what: What::Missing }));
            }
            warnings.without_url += u64::from(no_url);
            warnings.without_user_agent += u64::from(no_agent);
            Ok(())
        }
        "app" if event.object("app_data").is_none() => Err(missing(start, "app_data")),
        "business_messaging" if event.get("messaging_channel").is_none() => Err(Refusal::event(
            2_804_063,
            "Messaging Channel Missing",
            "Events with action_source business_messaging need a messaging_channel.",
        )),
        "business_messaging" if !MESSAGING_NAMES.contains(&name) => Err(Refusal::event(
            2_804_066,
            "Event Name Not Allowed",
            "This event name is not supported for business messaging.",
        )),
        _ => Ok(()),
    }
}

/// A country asks for a state, and so does LDU without an address. Source: Meta, "Data processing options";
/// 2026-11.
fn check_processing_options(event: &Object<'_>, user: &Object<'_>, start: &[Step]) -> Result<(), Refusal> {
    let has = |name: &str| event.get(name).is_some();
    let limited = event.list("data_processing_options").is_some_and(|options| !options.is_empty());
    let needs_state = has("data_processing_options_country")
        || (limited && user.get("client_ip_address").is_none_or(Json::is_blank));
    if needs_state && !has("data_processing_options_state") {
        return Err(missing(start, "data_processing_options_state"));
    }
    Ok(())
}

fn check_time(time: i64, source: &str, now: Timestamp) -> Result<(), Refusal> {
    let max_age = if source == "physical_store" { MAX_AGE_STORE } else { MAX_AGE };
    let now = now.as_second();
    if time < now.saturating_sub(max_age) {
        return Err(Refusal::event(
            2_804_003,
            "Event Timestamp Too Old",
            "The timestamp for this event is too far in the past. Events need to be sent from your server within \
             7 days of when they occurred.",
        ));
    }
    if time > now.saturating_add(MAX_AHEAD) {
        return Err(Refusal::event(
            2_804_004,
            "Event Timestamp In The Future",
            "The timestamp for this event is in the future. Send the time in seconds.",
        ));
    }
    Ok(())
}

fn check_hashes(user: &Object<'_>, warnings: &mut Warnings) -> Result<(), Refusal> {
    for (key, value) in &user.0 {
        let key = key.as_ref();
        let must = HASHED.iter().any(|hashed| same_name(hashed, key));
        if !must && key != "external_id" {
            continue;
        }
        for text in value.each_text() {
            if must && !is_hash(text) {
                return Err(Refusal::event(
                    2_804_016,
                    "User Parameter Not Hashed",
                    format!(
                        "The {key} parameter isn’t hashed. Hash all user parameters as SHA256, except for client \
                         user agent, click ID, and browser ID."
                    ),
                ));
            }
            warnings.empty_hashes += u64::from(text == EMPTY_HASH);
        }
    }
    Ok(())
}

/// 64 hex digits, or these with the appendix of Meta's parameter builder. Source: Meta, "Parameter Builder
/// Library"; 2026-11.
fn is_hash(text: &str) -> bool {
    let (hash, appendix) =
        text.split_once('.').map_or((text, None), |(hash, appendix)| (hash, Some(appendix)));
    // Without a branch for each digit.
    let digits = hash.bytes().fold(true, |good, byte| good & byte.is_ascii_hexdigit());
    hash.len() == 64 && digits && appendix.is_none_or(is_appendix)
}

fn is_appendix(text: &str) -> bool {
    matches!(text, "AQ" | "Ag" | "Aw" | "BA" | "BQ" | "Bg")
        || (text.len() == 8
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')))
}

/// `fb.{index}.{ms}.{click}` and perhaps the appendix. Source: Meta, "fbp and fbc Parameters"; 2026-11.
fn is_click_id(text: &str) -> bool {
    let mut parts = text.split('.');
    let parts = [(); 6].map(|()| parts.next());
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match parts {
        [Some("fb"), Some(index), Some(millis), Some(click), appendix, None] => {
            number(index) && number(millis) && !click.is_empty() && appendix.is_none_or(is_appendix)
        }
        _ => false,
    }
}

fn check_customer_information(user: &Object<'_>) -> Result<(), Refusal> {
    let within =
        |broad: &[&str]| user.0.iter().all(|(key, value)| broad.contains(&key.as_ref()) || value.is_blank());
    if TOO_BROAD.iter().any(|broad| within(broad)) {
        return Err(Refusal::event(
            2_804_050,
            "Insufficient Customer Information",
            "You haven't added sufficient customer information parameter data for this event, or the combination is \
             too broad to match anybody.",
        ));
    }
    Ok(())
}

fn check_money(name: &str, custom: &Object<'_>) -> Result<(), Refusal> {
    let value = custom.get("value").is_some();
    let currency = custom.text("currency").filter(|currency| !currency.trim().is_empty());
    if name == "Purchase" && !value {
        return Err(Refusal::event(
            2_804_009,
            "Missing Value for Purchase Event",
            "Purchase events need a value.",
        ));
    }
    if name == "Purchase" && currency.is_none() {
        return Err(Refusal::event(
            2_804_010,
            "Missing Currency for Purchase Event",
            "Purchase events need a currency.",
        ));
    }
    if value && currency.is_none() {
        return Err(Refusal::event(2_804_023, "Missing Currency", "A value needs a currency."));
    }
    // Which subcode a wrong currency gets is not published; lower case is accepted, as the SDKs send it.
    if let Some(currency) = currency
        && currency.to_ascii_uppercase().parse::<iso_currency::Currency>().is_err()
    {
        return Err(parameter_error(format!("\"{currency}\" is not an ISO 4217 currency.")));
    }
    Ok(())
}

fn check_contents(custom: &Object<'_>) -> Result<(), Refusal> {
    let good = match custom.get("contents") {
        None => true,
        Some(Json::List(contents)) => contents.iter().all(|content| match content {
            Json::Object(content) => content.text("id").is_some_and(|id| !id.is_empty()),
            _ => false,
        }),
        Some(_) => false,
    };
    if good {
        return Ok(());
    }
    Err(Refusal::event(
        2_804_008,
        "Invalid Contents Parameter",
        "The contents parameter must be a list of objects, each with an id.",
    ))
}

/// 16 values, the first `a2` or `i2`, the fifth the system's version. Source: Meta, "App Data Parameters";
/// 2026-11.
fn check_device(event: &Object<'_>) -> Result<(), Refusal> {
    let Some(extinfo) = event.object("app_data").and_then(|app| app.get("extinfo")) else { return Ok(()) };
    let good = match extinfo {
        Json::List(values) => {
            let text = |place: usize| values.get(place).and_then(Json::text).unwrap_or("");
            values.len() == 16
                && values.iter().all(|value| value.text().is_some())
                && matches!(text(0), "a2" | "i2")
                && !text(4).is_empty()
        }
        _ => false,
    };
    if good {
        return Ok(());
    }
    Err(Refusal::event(
        2_804_043,
        "Invalid extended device info parameter",
        "extinfo must have 16 values, in order; put in an empty string for those that are missing.",
    ))
}

/// Source: Meta, "Conversion Leads", payload specification: a number of 15 or 16 digits; 2026-11.
fn is_lead_id(value: &Json<'_>) -> bool {
    let of_its_length = |text: &str| (15..=16).contains(&text.len());
    match value {
        Json::Int(number) => *number > 0 && of_its_length(&number.to_string()),
        Json::Text(text) => of_its_length(text) && text.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn click_ids_are_told_from_what_only_looks_like_one() {
        for good in ["fb.1.1554763741205.AbC", "fb.2.1.x.AQQCAQIB", "fb.1.1.x.AQ"] {
            assert!(is_click_id(good), "{good}");
        }
        for bad in ["", "fb.1.1554763741205.", "fb.x.1.a", "fb.1.1.a.b", "fb.1.1.a.AQ.AQ", "AbC", "FB.1.1.a"]
        {
            assert!(!is_click_id(bad), "{bad}");
        }
    }

    #[test]
    fn hashes_are_64_hex_digits_with_or_without_the_appendix() {
        let hash = "a".repeat(64);
        assert!(is_hash(&hash) && is_hash(&hash.to_uppercase()) && is_hash(&format!("{hash}.AQQCAQIB")));
        assert!(
            !is_hash(&hash[1..])
                && !is_hash(&format!("{hash}.x"))
                && !is_hash("")
                && !is_hash(&"g".repeat(64))
        );
    }
}
