//! The Ads API: who may upload to which customer, and what a request as a whole may be. Items are judged one
//! by one by `clicks` and `adjustments`; their errors come in a 200.
//!
//! Source: Google Ads API, "Manage offline conversions", "Partial failure", "Access levels"; 2026-11.

use std::borrow::Cow;

use http::Method;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::ads_shape::{ADJUSTMENT_REQUEST, CLICK_REQUEST};
use super::error::{self, AdsError, NEWEST, failure, refused};
use super::{adjustments, authorise, clicks, is_sha256};
use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::fault::Fault;
use crate::json::{Body, Json, Object};
use crate::options::{ADWORDS_SCOPE, ConversionAction, Customer, NewAdopter};
use crate::platform::Platform;
use crate::shape::Step;

/// Most items of a request. Source: google-ads 34.0.0, TOO_MANY_CONVERSIONS_IN_REQUEST; 2026-11.
const MAX_ITEMS: usize = 2_000;

/// A request that may be judged item by item.
pub(super) struct Upload<'a> {
    pub(super) customer: &'a Customer,
    /// `conversions` or `conversionAdjustments`.
    pub(super) list: &'static str,
    pub(super) items: Vec<&'a Object<'a>>,
    /// The items' own texts, in the same order.
    pub(super) texts: Cow<'a, [&'a str]>,
    pub(super) validate_only: bool,
}

/// An item's result, or why there is none.
pub(super) type Judged<'a> = Result<Done<'a>, AdsError>;

/// An item's result: what of the item names it.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gclid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gbraid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wbraid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) order_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conversion_action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) conversion_date_time: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) adjustment_date_time: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) adjustment_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gclid_date_time_pair: Option<ClickAndTime<'a>>,
}

/// The click and the time that name a conversion.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClickAndTime<'a> {
    pub(super) gclid: Option<&'a str>,
    pub(super) conversion_date_time: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Results<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_failure_error: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<Done<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<&'a str>,
}

/// Answers a request.
pub(crate) fn answer(world: &World, inbound: &Inbound<'_>) -> Answer {
    upload(world, inbound).unwrap_or_else(|refusal| refusal)
}

fn upload(world: &World, inbound: &Inbound<'_>) -> Result<Answer, Answer> {
    let not_found = || Answer::html(404, "Error 404 (Not Found)!!1");
    let mut parts = inbound.path.trim_start_matches('/').splitn(3, '/');
    let version: u32 =
        parts.next().and_then(|part| part.strip_prefix('v')?.parse().ok()).ok_or_else(not_found)?;
    let (Some("customers"), Some((customer, method))) =
        (parts.next(), parts.next().and_then(|part| part.split_once(':')))
    else {
        return Err(not_found());
    };
    let clicks = match method {
        "uploadClickConversions" => true,
        "uploadConversionAdjustments" => false,
        _ => return Err(not_found()),
    };
    if *inbound.method != Method::POST {
        return Err(not_found());
    }
    authorise(world, inbound, ADWORDS_SCOPE)?;
    if !world.options.google.versions.contains(&version) {
        let error = AdsError::new(
            "requestError",
            "UNSUPPORTED_VERSION",
            format!("Version v{version} is deprecated. Requests to this version will be blocked."),
        );
        return Err(refused(400, NEWEST, error));
    }
    let customer = find_customer(world, inbound, version, customer)?;
    let (list, table) =
        if clicks { ("conversions", &CLICK_REQUEST) } else { ("conversionAdjustments", &ADJUSTMENT_REQUEST) };
    let read = error::read(inbound.body, table)?;
    let upload = check_request(&read, customer, list).map_err(|error| refused(400, version, error))?;
    let job = match read.object.proto("jobId") {
        Some(Json::Int(job)) => job.to_string(),
        Some(Json::Text(job)) => job.to_string(),
        _ => fastrand::i64(1..1 << 31).to_string(),
    };
    let judged = match (clicks, world.options.google.new_adopter) {
        (true, NewAdopter::Request) => return Err(refused(403, version, not_allowlisted())),
        (true, NewAdopter::Item) => {
            let item = |index| Err(not_allowlisted().at(&[Step::Field(list), Step::Index(index)]));
            (0..upload.items.len()).map(item).collect()
        }
        (true, NewAdopter::No) => clicks::judge(world, inbound, &upload),
        (false, _) => adjustments::judge(world, inbound, &upload),
    };
    Ok(results(world, version, &upload, &job, judged))
}

fn not_allowlisted() -> AdsError {
    AdsError::new(
        "notAllowlistedError",
        "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE",
        "Customer is not allowlisted for accessing this feature.",
    )
}

/// The customer, if it is there and this user reaches it the way that the headers say.
fn find_customer<'w>(
    world: &'w World,
    inbound: &Inbound<'_>,
    version: u32,
    customer: &str,
) -> Result<&'w Customer, Answer> {
    let is_id = |text: &str| text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_id(customer) {
        let text = format!("Invalid customer ID '{customer}'.");
        return Err(refused(400, version, AdsError::new("requestError", "INVALID_CUSTOMER_ID", text)));
    }
    let login = inbound.header("login-customer-id");
    if login.is_some_and(|login| !is_id(login)) {
        let error = AdsError::new(
            "headerError",
            "INVALID_LOGIN_CUSTOMER_ID",
            "The login customer ID header could not be validated.",
        );
        return Err(refused(400, version, error));
    }
    let found = world.options.google.customers.iter().find(|known| known.id == customer);
    let reached = found.filter(|found| match login {
        None => found.direct,
        Some(login) => (found.direct && login == found.id) || found.managers.iter().any(|id| id == login),
    });
    reached.ok_or_else(|| {
        let error = AdsError::new(
            "authorizationError",
            "USER_PERMISSION_DENIED",
            "User doesn't have permission to access customer. Note: If you're accessing a client customer, the \
             manager's customer id must be set in the 'login-customer-id' header.",
        );
        refused(403, version, error)
    })
}

fn check_request<'a>(
    read: &'a Body<'a>,
    customer: &'a Customer,
    list: &'static str,
) -> Result<Upload<'a>, AdsError> {
    let object = &read.object;
    let at = [Step::Field(list)];
    let items: Vec<&Object<'_>> = object
        .proto_list(list)
        .iter()
        .filter_map(|item| match item {
            Json::Object(item) => Some(item),
            _ => None,
        })
        .collect();
    if object.proto("partialFailure") != Some(&Json::Flag(true)) {
        return Err(AdsError::new(
            "partialFailureError",
            "PARTIAL_FAILURE_MODE_REQUIRED",
            "The partial failure field was false in the request. This method requires this field be set to true.",
        ));
    }
    if items.is_empty() {
        return Err(AdsError::new("fieldError", "REQUIRED", "The required field was not present.").at(&at));
    }
    if items.len() > MAX_ITEMS {
        let (family, code) = if list == "conversions" {
            ("conversionUploadError", "TOO_MANY_CONVERSIONS_IN_REQUEST")
        } else {
            ("conversionAdjustmentUploadError", "TOO_MANY_ADJUSTMENTS_IN_REQUEST")
        };
        let text = format!("The request contained more than {MAX_ITEMS} items.");
        return Err(AdsError::new(family, code, text).at(&at));
    }
    let job = match object.proto("jobId") {
        Some(Json::Int(job)) => Some(*job),
        Some(Json::Text(job)) => job.parse().ok(),
        _ => None,
    };
    if job.is_some_and(|job| !(1..1 << 31).contains(&job)) {
        let family =
            if list == "conversions" { "conversionUploadError" } else { "conversionAdjustmentUploadError" };
        return Err(AdsError::new(family, "INVALID_JOB_ID", "The job ID must be in the range [1, 2^31).")
            .at(&[Step::Field("jobId")]));
    }
    Ok(Upload {
        customer,
        list,
        texts: read.proto_texts(list, items.len()),
        items,
        validate_only: object.proto("validateOnly") == Some(&Json::Flag(true)),
    })
}

fn results(world: &World, version: u32, upload: &Upload<'_>, job: &str, judged: Vec<Judged<'_>>) -> Answer {
    let failed = judged.iter().filter(|item| item.is_err()).count();
    let mut results: Vec<Done<'_>> = Vec::with_capacity(judged.len());
    let mut errors: Vec<AdsError> = Vec::with_capacity(failed);
    for item in judged {
        results.push(item.unwrap_or_else(|error| {
            errors.push(error);
            Done::default()
        }));
    }
    let mut body = Results { partial_failure_error: None, results: None, job_id: None };
    if let Some(first) = errors.first() {
        let message = if errors.len() == 1 {
            first.sentence()
        } else {
            format!("Multiple errors in ‘details’. First error: {}", first.sentence())
        };
        body.partial_failure_error =
            Some(json!({ "code": 3, "message": message, "details": [failure(version, &errors)] }));
    }
    if !upload.validate_only {
        let mut pages = world.book(Platform::GoogleAds).open();
        let duplicates = errors.iter().filter(|error| is_known_before(&error.code)).count();
        pages.totals.events_received += (results.len() - failed + duplicates) as u64;
        pages.totals.refused_events += (failed - duplicates) as u64;
        body.results = Some(results);
        body.job_id = Some(job);
    }
    Answer::json(200, &body)
}

/// Errors that say: that one was here before.
pub(super) fn is_known_before(code: &str) -> bool {
    matches!(
        code,
        "CLICK_CONVERSION_ALREADY_EXISTS"
            | "ORDER_ID_ALREADY_IN_USE"
            | "CONVERSION_ALREADY_RETRACTED"
            | "CONVERSION_ALREADY_ENHANCED"
            | "RESTATEMENT_ALREADY_EXISTS"
    )
}

/// The error that a fault puts on an item, if it does.
pub(super) fn put_error(inbound: &Inbound<'_>, place: usize, text: &str, path: &[Step]) -> Option<AdsError> {
    if inbound.is_bad(text).is_some() || inbound.failing_for_good(place) {
        let why = "The imported event has a click that occurred before the click-through conversion window.";
        return Some(AdsError::new("conversionUploadError", "EXPIRED_EVENT", why).at(path));
    }
    if !inbound.failing(place) {
        return None;
    }
    let code = match inbound.fault {
        Some(Fault::PartialFailure { code: Some(code), .. }) => code.as_str(),
        _ => "internalError.INTERNAL_ERROR",
    };
    let (family, code) = code.split_once('.').unwrap_or(("conversionUploadError", code));
    Some(AdsError::new(family, code, "An internal error has occurred.").at(path))
}

/// The action that an item names; only the id in it counts.
pub(super) fn find_action<'c>(
    customer: &'c Customer,
    item: &Object<'_>,
    family: &str,
    path: &[Step],
) -> Result<&'c ConversionAction, AdsError> {
    let at = || [path, &[Step::Field("conversionAction")]].concat();
    let Some(name) = item.proto_text("conversionAction") else { return Err(required(&at())) };
    let mut parts = name.split('/');
    let parts = [(); 5].map(|()| parts.next());
    let [Some("customers"), Some(_), Some("conversionActions"), Some(id), None] = parts else {
        let text = format!("Resource name '{name}' is malformed.");
        return Err(AdsError::new("requestError", "RESOURCE_NAME_MALFORMED", text).at(&at()).by(name));
    };
    customer.actions.iter().find(|action| action.id == id).ok_or_else(|| {
        AdsError::new(
            family,
            "NO_CONVERSION_ACTION_FOUND",
            "The specified conversion action either does not exist or is not enabled.",
        )
        .at(&at())
        .by(name)
    })
}

/// `fieldError.REQUIRED` at a field.
pub(super) fn required(path: &[Step]) -> AdsError {
    AdsError::new("fieldError", "REQUIRED", "The required field was not present.").at(path)
}

/// `yyyy-mm-dd hh:mm:ss±hh:mm` of a field.
pub(super) fn date_time(
    item: &Object<'_>,
    field: &'static str,
    path: &[Step],
) -> Result<Timestamp, AdsError> {
    let at = || [path, &[Step::Field(field)]].concat();
    let Some(text) = item.proto_text(field) else { return Err(required(&at())) };
    parse_date_time(text).ok_or_else(|| {
        AdsError::new(
            "dateError",
            "INVALID_STRING_DATE_TIME_SECONDS_WITH_OFFSET",
            "The string date time's format should be yyyy-mm-dd hh:mm:ss+|-hh:mm.",
        )
        .at(&at())
        .by(text)
    })
}

fn parse_date_time(text: &str) -> Option<Timestamp> {
    let pattern = b"0000-00-00 00:00:00+00:00";
    let fits = text.len() == pattern.len()
        && text.bytes().zip(pattern).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'+' => matches!(byte, b'+' | b'-'),
            form => byte == *form,
        });
    if !fits {
        return None;
    }
    text.parse().ok()
}

/// Checks user identifiers: how many, one identifier each, hashed; addresses only where they are taken.
pub(super) fn check_identifiers(
    item: &Object<'_>,
    family: &str,
    addresses: bool,
    path: &[Step],
) -> Result<usize, AdsError> {
    const MAX: usize = 5;
    let at = || [path, &[Step::Field("userIdentifiers")]].concat();
    let identifiers = item.proto_list("userIdentifiers");
    if identifiers.len() > MAX {
        return Err(AdsError::new("collectionSizeError", "TOO_MANY", "Too many.").at(&at()));
    }
    for (place, identifier) in identifiers.iter().enumerate() {
        let at = || [at().as_slice(), &[Step::Index(place)]].concat();
        let Json::Object(identifier) = identifier else { continue };
        let hash =
            identifier.proto_text("hashedEmail").or_else(|| identifier.proto_text("hashedPhoneNumber"));
        let address = identifier.proto_object("addressInfo");
        let other = identifier.proto("mobileId").or_else(|| identifier.proto("thirdPartyUserId"));
        let given =
            ["hashedEmail", "hashedPhoneNumber", "addressInfo", "mobileId", "thirdPartyUserId"].into_iter();
        if given.filter(|name| identifier.proto(name).is_some()).count() != 1 {
            return Err(required(&at()));
        }
        if other.is_some() || (address.is_some() && !addresses) {
            return Err(AdsError::new(
                family,
                "UNSUPPORTED_USER_IDENTIFIER",
                "User identifier is not supported.",
            )
            .at(&at()));
        }
        let third_party = identifier.proto_text("userIdentifierSource") == Some("THIRD_PARTY");
        let hashed = hash.is_some_and(is_sha256) || address.is_some_and(is_good_address);
        if third_party || !hashed {
            return Err(AdsError::new(
                family,
                "INVALID_USER_IDENTIFIER",
                "The user identifier is not a SHA-256 hash, or not complete.",
            )
            .at(&at()));
        }
    }
    Ok(identifiers.len())
}

/// An address has both names, hashed, country and postal code. Source: google-ads 34.0.0,
/// OfflineUserAddressInfo; 2026-11.
fn is_good_address(address: &Object<'_>) -> bool {
    let hashed = |name: &str| address.proto_text(name).is_some_and(is_sha256);
    let country = address.proto_text("countryCode").unwrap_or("");
    hashed("hashedFirstName")
        && hashed("hashedLastName")
        && country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && address.proto_text("postalCode").is_some()
        && address.proto("hashedStreetAddress").is_none_or(|street| street.text().is_some_and(is_sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seconds_and_an_offset_and_nothing_else() {
        let parsed = parse_date_time("2026-11-20 06:03:21-08:00").unwrap();
        assert_eq!(parsed, "2026-11-20T14:03:21Z".parse().unwrap());
        for bad in [
            "2026-11-20T14:03:21+00:00",
            "2026-11-20 14:03:21Z",
            "2026-11-20 14:03:21",
            "2026-11-20 14:03:21.5+00:00",
            "2026-13-20 14:03:21+00:00",
        ] {
            assert_eq!(parse_date_time(bad), None, "{bad}");
        }
    }
}
