//! Adjustments of conversions, one by one: retractions, restatements, enhancements. Conversions of an
//! `UPLOAD_CLICKS` action must have come here before; what a tag counted on a website the sandbox cannot
//! know, and takes on trust.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;

use super::ads::{
    ClickAndTime, Done, Judged, Upload, check_identifiers, date_time, find_action, put_error, required,
};
use super::ads_shape::ADJUSTMENT_TYPES;
use super::error::AdsError;
use super::is_currency;
use crate::exchange::{Inbound, World};
use crate::json::{Json, Number, Object};
use crate::options::ActionKind;
use crate::platform::Platform;
use crate::shape::Step;
use crate::store::{Arrival, Key, Pages};

const FAMILY: &str = "conversionAdjustmentUploadError";
/// Source: google-ads 34.0.0, CONVERSION_EXPIRED ("54 days"); 2026-11.
const MAX_AGE: Duration = Duration::from_secs(54 * 24 * 3600);

/// What was done to a conversion.
#[derive(Default)]
pub(super) struct Adjusted {
    retracted: bool,
    restated_at: Option<Timestamp>,
    enhanced: bool,
}

/// An adjustment that is good as far as it shows itself.
struct Adjustment<'a> {
    kind: &'a str,
    identity: String,
    /// The conversion.
    target: Key,
    target_name: String,
    /// Whether the conversion must have come here before.
    uploaded: bool,
    at: Option<Timestamp>,
    value: Option<(Number, Option<&'a str>)>,
}

/// Judges every item and carries the good ones out.
pub(super) fn judge<'a>(world: &World, inbound: &Inbound<'_>, upload: &Upload<'a>) -> Vec<Judged<'a>> {
    let path = |index: usize| [Step::Field(upload.list), Step::Index(index)];
    let mut checked: Vec<Result<Adjustment<'_>, AdsError>> = upload
        .items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            if let Some(error) = put_error(inbound, index, upload.texts[index], &path(index)) {
                return Err(error);
            }
            check(upload, item, &path(index))
        })
        .collect();
    refuse_twins(&mut checked, upload.list);
    let mut pages = world.book(Platform::GoogleAds).open();
    let mut adjusted = world.google.adjusted.lock().unwrap_or_else(PoisonError::into_inner);
    let mut judged = Vec::with_capacity(checked.len());
    for (index, adjustment) in checked.into_iter().enumerate() {
        let carried_out = adjustment.and_then(|adjustment| {
            let state = adjusted.entry(adjustment.target).or_default();
            let verdict = judge_one(&mut pages, state, &adjustment, inbound.now, &path(index));
            if !upload.validate_only {
                write_down(
                    &mut pages,
                    state,
                    &adjustment,
                    verdict.as_ref().err(),
                    upload.texts[index],
                    inbound.now,
                );
            }
            verdict
        });
        judged.push(carried_out.map(|()| done(upload.items[index])));
    }
    judged
}

fn check<'a>(upload: &Upload<'a>, item: &'a Object<'a>, path: &[Step]) -> Result<Adjustment<'a>, AdsError> {
    let at = |field: &'static str| [path, &[Step::Field(field)]].concat();
    let error = |code: &str, text: &str| AdsError::new(FAMILY, code, text);
    let unset = |field| {
        AdsError::new("fieldError", "VALUE_MUST_BE_UNSET", "The field must not be set in this request.")
            .at(&at(field))
    };
    let action = find_action(upload.customer, item, FAMILY, path)?;
    let kind = match item.proto("adjustmentType") {
        Some(Json::Text(kind)) => kind.as_ref(),
        Some(Json::Int(number)) => usize::try_from(*number)
            .ok()
            .and_then(|number| ADJUSTMENT_TYPES.get(number))
            .copied()
            .unwrap_or(""),
        _ => "",
    };
    if !matches!(kind, "RETRACTION" | "RESTATEMENT" | "ENHANCEMENT") {
        return Err(required(&at("adjustmentType")));
    }
    let enhancement = kind == "ENHANCEMENT";
    if enhancement && action.kind != ActionKind::Webpage {
        return Err(error(
            "CONVERSION_ACTION_NOT_ELIGIBLE_FOR_ENHANCEMENT",
            "The conversion action specified in the adjustment request cannot be used for enhancement.",
        )
        .at(&at("conversionAction")));
    }
    let order = item.proto_text("orderId");
    let pair = item.proto_object("gclidDateTimePair");
    if order.is_some_and(|order| order.contains('@')) {
        return Err(error(
            "ORDER_ID_CONTAINS_PII",
            "The order ID contains personally identifiable information.",
        )
        .at(&at("orderId")));
    }
    if order.is_some() && pair.is_some() && !enhancement {
        return Err(error(
            "GCLID_DATE_TIME_PAIR_AND_ORDER_ID_BOTH_SET",
            "Both gclid_date_time_pair and order_id are set.",
        )
        .at(&at("orderId")));
    }
    if order.is_none() && action.kind == ActionKind::Webpage {
        return Err(error(
            "MISSING_ORDER_ID_FOR_WEBPAGE",
            "Conversion actions of type WEBPAGE need an order ID.",
        )
        .at(&at("orderId")));
    }
    let (cid, id) = (upload.customer.id.as_str(), action.id.as_str());
    let (target, target_name) = match (order, pair) {
        (Some(order), _) => (Key::of(&["order", cid, id, order]), order.to_owned()),
        (None, Some(pair)) => {
            let inner = [path, &[Step::Field("gclidDateTimePair")]].concat();
            let Some(gclid) = pair.proto_text("gclid") else {
                return Err(required(&[inner.as_slice(), &[Step::Field("gclid")]].concat()));
            };
            let time = date_time(pair, "conversionDateTime", &inner)?.as_second();
            (Key::of(&["click", cid, id, gclid, &time.to_string()]), format!("{gclid}@{time}"))
        }
        (None, None) => return Err(required(&at("orderId"))),
    };
    let given = item.proto("adjustmentDateTime").is_some();
    let adjusted_at =
        if enhancement && !given { None } else { Some(date_time(item, "adjustmentDateTime", path)?) };
    let restatement = item.proto_object("restatementValue");
    let value = match (kind, restatement) {
        ("RESTATEMENT", None) => return Err(required(&at("restatementValue"))),
        ("RESTATEMENT", Some(restatement)) => Some(check_value(restatement, path)?),
        (_, Some(_)) => return Err(unset("restatementValue")),
        (_, None) => None,
    };
    let identifiers = check_identifiers(item, FAMILY, true, path)?;
    if enhancement && identifiers == 0 {
        return Err(required(&at("userIdentifiers")));
    }
    if !enhancement && identifiers > 0 {
        return Err(unset("userIdentifiers"));
    }
    Ok(Adjustment {
        kind,
        identity: format!("{cid}/{id}"),
        target,
        target_name,
        uploaded: action.kind == ActionKind::UploadClicks,
        at: adjusted_at,
        value,
    })
}

fn check_value<'a>(
    restatement: &'a Object<'_>,
    path: &[Step],
) -> Result<(Number, Option<&'a str>), AdsError> {
    let inner = |field| [path, &[Step::Field("restatementValue"), Step::Field(field)]].concat();
    let Some(value) = restatement.proto("adjustedValue").and_then(Json::number) else {
        return Err(required(&inner("adjustedValue")));
    };
    let currency = restatement.proto_text("currencyCode");
    if let Some(currency) = currency.filter(|currency| !is_currency(currency)) {
        return Err(AdsError::new("currencyCodeError", "UNSUPPORTED", "The currency code is not supported.")
            .at(&inner("currencyCode"))
            .by(currency));
    }
    Ok((value, currency))
}

/// Twice in one request: neither is processed.
fn refuse_twins(checked: &mut [Result<Adjustment<'_>, AdsError>], list: &'static str) {
    let twin_of = |adjustment: &Adjustment<'_>| {
        let at = if adjustment.kind == "ENHANCEMENT" { None } else { adjustment.at };
        (adjustment.target, adjustment.kind.to_owned(), at)
    };
    let mut times: HashMap<_, u32> = HashMap::new();
    for twin in checked.iter().flatten().map(twin_of) {
        *times.entry(twin).or_default() += 1;
    }
    for (index, item) in checked.iter_mut().enumerate() {
        let Ok(adjustment) = item else { continue };
        if times.get(&twin_of(adjustment)).is_some_and(|times| *times > 1) {
            let code = if adjustment.kind == "ENHANCEMENT" {
                "DUPLICATE_ENHANCEMENT_IN_REQUEST"
            } else {
                "DUPLICATE_ADJUSTMENT_IN_REQUEST"
            };
            let path = [Step::Field(list), Step::Index(index)];
            *item =
                Err(AdsError::new(FAMILY, code, "The request contained the same adjustment more than once.")
                    .at(&path));
        }
    }
}

/// Judges an adjustment by what is known of its conversion.
fn judge_one(
    pages: &mut Pages,
    state: &Adjusted,
    adjustment: &Adjustment<'_>,
    now: Timestamp,
    path: &[Step],
) -> Result<(), AdsError> {
    let error = |code: &str, text: &str| Err(AdsError::new(FAMILY, code, text).at(path));
    if adjustment.uploaded {
        let Some(conversion) = pages.find(adjustment.target) else {
            return error(
                "CONVERSION_NOT_FOUND",
                "The conversion for this conversion action and identifiers could not be found.",
            );
        };
        let time = pages.record(conversion).time;
        let max_age = i64::try_from(MAX_AGE.as_secs()).unwrap_or(i64::MAX);
        if now.as_second() - time > max_age {
            return error("CONVERSION_EXPIRED", "The conversion is too old to be adjusted.");
        }
        if adjustment.at.is_some_and(|at| at.as_second() <= time) {
            return error(
                "ADJUSTMENT_PRECEDES_CONVERSION",
                "The adjustment date time is before the conversion.",
            );
        }
    }
    match adjustment.kind {
        _ if state.retracted => error(
            "CONVERSION_ALREADY_RETRACTED",
            "The conversion was already retracted; it cannot be adjusted.",
        ),
        "ENHANCEMENT" if state.enhanced => {
            error("CONVERSION_ALREADY_ENHANCED", "The conversion was already enhanced.")
        }
        "RESTATEMENT" if state.restated_at.is_some() && state.restated_at == adjustment.at => error(
            "RESTATEMENT_ALREADY_EXISTS",
            "A restatement with this adjustment date time already exists.",
        ),
        "RESTATEMENT" if state.restated_at > adjustment.at => {
            error("MORE_RECENT_RESTATEMENT_FOUND", "The conversion has a restatement with a later date time.")
        }
        _ => Ok(()),
    }
}

/// Carries an adjustment out, or marks the repeat of one.
fn write_down(
    pages: &mut Pages,
    state: &mut Adjusted,
    adjustment: &Adjustment<'_>,
    error: Option<&AdsError>,
    text: &str,
    now: Timestamp,
) {
    let at = adjustment.at.filter(|_| adjustment.kind == "RESTATEMENT").map(|at| at.as_second().to_string());
    let parts = [adjustment.kind, &adjustment.identity, &adjustment.target_name, at.as_deref().unwrap_or("")];
    let key = Key::of(&parts);
    if let Some(error) = error {
        if super::ads::is_known_before(&error.code)
            && let Some(first) = pages.find(key)
        {
            pages.repeat(first);
        }
        return;
    }
    match adjustment.kind {
        "RETRACTION" => state.retracted = true,
        "RESTATEMENT" => state.restated_at = adjustment.at,
        _ => state.enhanced = true,
    }
    if let Some(conversion) = pages.find(adjustment.target) {
        pages.record(conversion).retracted |= adjustment.kind == "RETRACTION";
        if let Some((value, currency)) = adjustment.value {
            pages.restate(conversion, Some(value), currency);
        }
    }
    let (value, currency) = adjustment.value.unzip();
    let arrival = Arrival {
        key: None,
        identity: &adjustment.identity,
        name: adjustment.kind.into(),
        id: adjustment.target_name.as_str().into(),
        time: adjustment.at.unwrap_or(now).as_second(),
        value,
        currency: currency.flatten().map(Cow::Borrowed),
        body: text,
    };
    let record = pages.count(&arrival, now);
    pages.bind(key, record);
}

fn done<'a>(item: &'a Object<'_>) -> Done<'a> {
    Done {
        order_id: item.proto_text("orderId"),
        conversion_action: item.proto_text("conversionAction"),
        adjustment_date_time: item.proto_text("adjustmentDateTime"),
        adjustment_type: item.proto_text("adjustmentType"),
        gclid_date_time_pair: item.proto_object("gclidDateTimePair").map(|pair| ClickAndTime {
            gclid: pair.proto_text("gclid"),
            conversion_date_time: pair.proto_text("conversionDateTime"),
        }),
        ..Done::default()
    }
}
