//! Click conversions, one by one. What only the request shows is checked first; what depends on earlier ones,
//! under the lock.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;

use super::ads::{Done, Judged, Upload, check_identifiers, date_time, find_action, put_error, required};
use super::error::AdsError;
use super::{is_click_id, is_currency};
use crate::exchange::{Inbound, World};
use crate::json::{Json, Number, Object};
use crate::options::{ActionKind, ConversionAction, GoogleOptions};
use crate::platform::Platform;
use crate::shape::Step;
use crate::store::{Arrival, ByKey, Key};

const FAMILY: &str = "conversionUploadError";
/// A new action, and a fresh click, take nothing for so long. Source: google-ads 34.0.0,
/// ConversionUploadError; 2026-11.
const WARMING_UP: Duration = Duration::from_secs(6 * 3600);

/// A conversion that is good as far as it shows itself.
struct Click<'a> {
    action: &'a ConversionAction,
    order: Option<&'a str>,
    /// The click and the time, by which it counts once.
    click: Option<(&'a str, i64)>,
    time: i64,
    order_key: Option<Key>,
    click_key: Option<Key>,
    value: Option<Number>,
    currency: Option<&'a str>,
}

/// Judges every item and counts the good ones.
pub(super) fn judge<'a>(world: &World, inbound: &Inbound<'_>, upload: &Upload<'a>) -> Vec<Judged<'a>> {
    let options = &world.options.google;
    let path = |index: usize| [Step::Field(upload.list), Step::Index(index)];
    let mut checked: Vec<Result<Click<'_>, AdsError>> = upload
        .items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            if let Some(error) = put_error(inbound, index, upload.texts[index], &path(index)) {
                return Err(error);
            }
            check(options, upload, item, inbound.now, &path(index))
        })
        .collect();
    refuse_twins(&mut checked, |click| click.order_key, "DUPLICATE_ORDER_ID", "orderId", upload.list);
    refuse_twins(
        &mut checked,
        |click| if click.order_key.is_none() { click.click_key } else { None },
        "DUPLICATE_CLICK_CONVERSION_IN_REQUEST",
        "gclid",
        upload.list,
    );
    let mut pages = world.book(Platform::GoogleAds).open();
    let mut judged = Vec::with_capacity(checked.len());
    let mut identity = String::new();
    for (index, click) in checked.into_iter().enumerate() {
        let click = match click {
            Ok(click) => click,
            Err(error) => {
                judged.push(Err(error));
                continue;
            }
        };
        let by_order = click.order_key.and_then(|key| pages.find(key));
        let by_click = click.click_key.and_then(|key| pages.find(key));
        if let Some(first) = by_order.or(by_click) {
            if !upload.validate_only {
                pages.repeat(first);
            }
            judged.push(Err(already(by_order.is_some(), &path(index))));
            continue;
        }
        if !upload.validate_only {
            let id = match (click.order, click.click) {
                (Some(order), _) => Cow::Borrowed(order),
                (None, Some((click, time))) => Cow::Owned(format!("{click}@{time}")),
                (None, None) => Cow::Borrowed(""),
            };
            identity.clear();
            identity.extend([&upload.customer.id, "/", &click.action.id]);
            let arrival = Arrival {
                key: None,
                identity: &identity,
                name: "CONVERSION".into(),
                id,
                time: click.time,
                value: click.value,
                currency: click.currency.map(Cow::Borrowed),
                body: upload.texts[index],
            };
            let record = pages.count(&arrival, inbound.now);
            for key in [click.order_key, click.click_key].into_iter().flatten() {
                pages.bind(key, record);
            }
        }
        judged.push(Ok(done(upload.items[index])));
    }
    judged
}

fn already(order: bool, path: &[Step]) -> AdsError {
    let (code, text, field) = if order {
        (
            "ORDER_ID_ALREADY_IN_USE",
            "A conversion with the same order ID and conversion action already exists.",
            "orderId",
        )
    } else {
        (
            "CLICK_CONVERSION_ALREADY_EXISTS",
            "The click conversion already exists for the same click and conversion date and time.",
            "gclid",
        )
    };
    AdsError::new(FAMILY, code, text).at(&[path, &[Step::Field(field)]].concat())
}

/// Twice in one request: neither is processed.
fn refuse_twins<'a>(
    checked: &mut [Result<Click<'a>, AdsError>],
    key: impl Fn(&Click<'a>) -> Option<Key>,
    code: &str,
    field: &'static str,
    list: &'static str,
) {
    let mut times = ByKey::<u32>::default();
    for key in checked.iter().flatten().filter_map(&key) {
        *times.entry(key).or_default() += 1;
    }
    for (index, item) in checked.iter_mut().enumerate() {
        let twin =
            item.as_ref().ok().and_then(&key).is_some_and(|key| times.get(&key).is_some_and(|n| *n > 1));
        if twin {
            let path = [Step::Field(list), Step::Index(index), Step::Field(field)];
            *item =
                Err(AdsError::new(FAMILY, code, "The request contained the same conversion more than once.")
                    .at(&path));
        }
    }
}

fn done<'a>(item: &'a Object<'_>) -> Done<'a> {
    Done {
        gclid: item.proto_text("gclid"),
        gbraid: item.proto_text("gbraid"),
        wbraid: item.proto_text("wbraid"),
        conversion_action: item.proto_text("conversionAction"),
        conversion_date_time: item.proto_text("conversionDateTime"),
        ..Done::default()
    }
}

fn check<'a>(
    options: &GoogleOptions,
    upload: &Upload<'a>,
    item: &'a Object<'a>,
    now: Timestamp,
    path: &[Step],
) -> Result<Click<'a>, AdsError> {
    let at = |field: &'static str| [path, &[Step::Field(field)]].concat();
    let error = |code: &str, text: &str| AdsError::new(FAMILY, code, text);
    let action = find_action(upload.customer, item, FAMILY, path)?;
    if action.kind != ActionKind::UploadClicks {
        return Err(error(
            "INVALID_CONVERSION_ACTION_TYPE",
            "The conversion action must be of type UPLOAD_CLICKS.",
        )
        .at(&at("conversionAction")));
    }
    if now.duration_since(action.created).unsigned_abs() < WARMING_UP {
        return Err(error(
            "TOO_RECENT_CONVERSION_ACTION",
            "The specified conversion action was created recently. Try the upload again after 4-6 hours.",
        )
        .at(&at("conversionAction")));
    }
    let time = date_time(item, "conversionDateTime", path)?;
    let click = check_click(options, action.one_per_click, action.lookback, item, time, now, path)?;
    if !options.allowlisted {
        for field in ["userIpAddress", "sessionAttributesEncoded", "sessionAttributesKeyValuePairs"] {
            if item.proto(field).is_some() {
                return Err(AdsError::new(
                    "notAllowlistedError",
                    "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE",
                    "Customer is not allowlisted for accessing this feature.",
                )
                .at(&at(field)));
            }
        }
    }
    let currency = item.proto_text("currencyCode");
    if let Some(currency) = currency.filter(|currency| !is_currency(currency)) {
        return Err(AdsError::new("currencyCodeError", "UNSUPPORTED", "The currency code is not supported.")
            .at(&at("currencyCode"))
            .by(currency));
    }
    let order = item.proto_text("orderId");
    if order.is_some_and(|order| order.contains('@')) {
        return Err(error(
            "ORDER_ID_CONTAINS_PII",
            "The order ID contains personally identifiable information, such as an email address.",
        )
        .at(&at("orderId")));
    }
    // Only for customer match and store sales. Source: google-ads 34.0.0 (v26), Consent; 2026-11.
    if item.proto_object("consent").is_some_and(|consent| consent.proto("adPersonalization").is_some()) {
        let field = [path, &[Step::Field("consent"), Step::Field("adPersonalization")]].concat();
        return Err(AdsError::new(
            "fieldError",
            "VALUE_MUST_BE_UNSET",
            "The field must not be set in this request.",
        )
        .at(&field));
    }
    let cid = upload.customer.id.as_str();
    let seconds = time.as_second();
    let second_text = seconds.to_string();
    Ok(Click {
        action,
        order,
        click: click.map(|click| (click, seconds)),
        time: seconds,
        order_key: order.map(|order| Key::of(&["order", cid, &action.id, order])),
        click_key: click.map(|click| Key::of(&["click", cid, &action.id, click, &second_text])),
        value: item.proto("conversionValue").and_then(Json::number),
        currency,
    })
}

/// The click id that the conversion belongs to, if it has one and does not come by identifiers alone.
fn check_click<'a>(
    options: &GoogleOptions,
    one_per_click: bool,
    lookback: Duration,
    item: &'a Object<'a>,
    time: Timestamp,
    now: Timestamp,
    path: &[Step],
) -> Result<Option<&'a str>, AdsError> {
    let at = |field: &'static str| [path, &[Step::Field(field)]].concat();
    let error = |code: &str, text: &str| AdsError::new(FAMILY, code, text);
    let (gclid, gbraid, wbraid) =
        (item.proto_text("gclid"), item.proto_text("gbraid"), item.proto_text("wbraid"));
    if gbraid.is_some() && wbraid.is_some() {
        return Err(error("GBRAID_WBRAID_BOTH_SET", "Both gbraid and wbraid were set.").at(&at("gbraid")));
    }
    // gclid and gbraid may stand together since 2025-10-03; gclid and wbraid were not heard of.
    if gclid.is_some() && wbraid.is_some() {
        return Err(AdsError::new(
            "fieldError",
            "VALUE_MUST_BE_UNSET",
            "The field must not be set in this request.",
        )
        .at(&at("wbraid")));
    }
    for (field, click, code) in [
        ("gclid", gclid, "UNPARSEABLE_GCLID"),
        ("gbraid", gbraid, "UNPARSEABLE_GBRAID"),
        ("wbraid", wbraid, "UNPARSEABLE_WBRAID"),
    ] {
        if let Some(click) = click.filter(|click| !is_click_id(click)) {
            let text = format!("The imported {field} could not be decoded.");
            return Err(error(code, &text).at(&at(field)).by(click));
        }
    }
    let identifiers = check_identifiers(item, FAMILY, false, path)?;
    let click = gclid.or(gbraid).or(wbraid);
    if click.is_none() && identifiers == 0 {
        return Err(required(&at("gclid")));
    }
    if one_per_click && (gbraid.is_some() || wbraid.is_some()) {
        return Err(error(
            "ONE_PER_CLICK_CONVERSION_ACTION_NOT_PERMITTED_WITH_BRAID",
            "A conversion action of type one-per-click takes no gbraid or wbraid.",
        )
        .at(&at("conversionAction")));
    }
    if now.duration_since(time).unsigned_abs() > lookback && time < now {
        return Err(expired(path));
    }
    let Some(click) = click else { return Ok(None) };
    match options.clicks.get(click) {
        Some(clicked) if time < *clicked => {
            Err(error("CONVERSION_PRECEDES_EVENT", "The conversion date time is before the click time.")
                .at(&at("conversionDateTime")))
        }
        Some(clicked) if time.duration_since(*clicked).unsigned_abs() > lookback => Err(expired(path)),
        Some(clicked) if now.duration_since(*clicked).unsigned_abs() < WARMING_UP => Err(error(
            "TOO_RECENT_EVENT",
            "The click occurred too recently. Try the upload again after 6 hours.",
        )
        .at(&at("gclid"))),
        None if options.only_known_clicks => {
            Err(error("CLICK_NOT_FOUND", "The click could not be found.").at(&at("gclid")).by(click))
        }
        Some(_) | None => Ok(Some(click)),
    }
}

fn expired(path: &[Step]) -> AdsError {
    AdsError::new(
        FAMILY,
        "EXPIRED_EVENT",
        "The click occurred before the conversion action's click through lookback window.",
    )
    .at(&[path, &[Step::Field("conversionDateTime")]].concat())
}
