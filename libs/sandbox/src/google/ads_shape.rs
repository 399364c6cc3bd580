//! Which fields the Ads API's upload requests may have.
//!
//! Source: google-ads 34.0.0 (v26), ConversionUploadService, ConversionAdjustmentUploadService; 2026-11.

use crate::shape::{Kind, Message, optional};

pub(super) static CLICK_REQUEST: Message = Message {
    fields: &[
        optional("customerId", Kind::Text),
        optional("conversions", Kind::List(&Kind::One(&CLICK))),
        optional("partialFailure", Kind::Flag),
        optional("validateOnly", Kind::Flag),
        optional("jobId", Kind::Int64),
    ],
    open: false,
};

pub(super) static ADJUSTMENT_REQUEST: Message = Message {
    fields: &[
        optional("customerId", Kind::Text),
        optional("conversionAdjustments", Kind::List(&Kind::One(&ADJUSTMENT))),
        optional("partialFailure", Kind::Flag),
        optional("validateOnly", Kind::Flag),
        optional("jobId", Kind::Int64),
    ],
    open: false,
};

static CLICK: Message = Message {
    fields: &[
        optional("gclid", Kind::Text),
        optional("gbraid", Kind::Text),
        optional("wbraid", Kind::Text),
        optional("conversionAction", Kind::Text),
        optional("conversionDateTime", Kind::Text),
        optional("conversionValue", Kind::Double),
        optional("currencyCode", Kind::Text),
        optional("orderId", Kind::Text),
        optional("externalAttributionData", Kind::One(&EXTERNAL_ATTRIBUTION)),
        optional("customVariables", Kind::List(&Kind::One(&CUSTOM_VARIABLE))),
        optional("cartData", Kind::One(&CART)),
        optional("userIdentifiers", Kind::List(&Kind::One(&USER_IDENTIFIER))),
        optional(
            "conversionEnvironment",
            Kind::Choice(
                "type.googleapis.com/google.ads.googleads.v26.enums.ConversionEnvironmentEnum.ConversionEnvironment",
                &["UNSPECIFIED", "UNKNOWN", "APP", "WEB"],
            ),
        ),
        optional("consent", Kind::One(&CONSENT)),
        optional(
            "customerType",
            Kind::Choice(
                "type.googleapis.com/google.ads.googleads.v26.enums.ConversionCustomerTypeEnum.ConversionCustomerType",
                &["UNSPECIFIED", "UNKNOWN", "NEW", "RETURNING"],
            ),
        ),
        optional("userIpAddress", Kind::Text),
        optional("sessionAttributesEncoded", Kind::Text),
        optional("sessionAttributesKeyValuePairs", Kind::One(&SESSION_ATTRIBUTES)),
    ],
    open: false,
};

static EXTERNAL_ATTRIBUTION: Message = Message {
    fields: &[
        optional("externalAttributionCredit", Kind::Double),
        optional("externalAttributionModel", Kind::Text),
    ],
    open: false,
};

static CUSTOM_VARIABLE: Message = Message {
    fields: &[optional("conversionCustomVariable", Kind::Text), optional("value", Kind::Text)],
    open: false,
};

static SESSION_ATTRIBUTES: Message =
    Message { fields: &[optional("keyValuePairs", Kind::List(&Kind::One(&SESSION_ATTRIBUTE)))], open: false };

static SESSION_ATTRIBUTE: Message = Message {
    fields: &[optional("sessionAttributeKey", Kind::Text), optional("sessionAttributeValue", Kind::Text)],
    open: false,
};

static CART: Message = Message {
    fields: &[
        optional("merchantId", Kind::Int64),
        optional("feedCountryCode", Kind::Text),
        optional("feedLanguageCode", Kind::Text),
        optional("localTransactionCost", Kind::Double),
        optional("items", Kind::List(&Kind::One(&CART_ITEM))),
    ],
    open: false,
};

static CART_ITEM: Message = Message {
    fields: &[
        optional("productId", Kind::Text),
        optional("quantity", Kind::Int32),
        optional("unitPrice", Kind::Double),
    ],
    open: false,
};

static USER_IDENTIFIER: Message = Message {
    fields: &[
        optional(
            "userIdentifierSource",
            Kind::Choice(
                "type.googleapis.com/google.ads.googleads.v26.enums.UserIdentifierSourceEnum.UserIdentifierSource",
                &["UNSPECIFIED", "UNKNOWN", "FIRST_PARTY", "THIRD_PARTY"],
            ),
        ),
        optional("hashedEmail", Kind::Text),
        optional("hashedPhoneNumber", Kind::Text),
        optional("mobileId", Kind::Text),
        optional("thirdPartyUserId", Kind::Text),
        optional("addressInfo", Kind::One(&ADDRESS)),
    ],
    open: false,
};

static ADDRESS: Message = Message {
    fields: &[
        optional("hashedFirstName", Kind::Text),
        optional("hashedLastName", Kind::Text),
        optional("city", Kind::Text),
        optional("state", Kind::Text),
        optional("countryCode", Kind::Text),
        optional("postalCode", Kind::Text),
        optional("hashedStreetAddress", Kind::Text),
    ],
    open: false,
};

static CONSENT: Message = Message {
    fields: &[optional("adUserData", CONSENT_STATUS), optional("adPersonalization", CONSENT_STATUS)],
    open: false,
};

const CONSENT_STATUS: Kind = Kind::Choice(
    "type.googleapis.com/google.ads.googleads.v26.enums.ConsentStatusEnum.ConsentStatus",
    &["UNSPECIFIED", "UNKNOWN", "GRANTED", "DENIED"],
);

/// The kinds of adjustment, by protobuf's numbers.
pub(super) const ADJUSTMENT_TYPES: [&str; 5] =
    ["UNSPECIFIED", "UNKNOWN", "RETRACTION", "RESTATEMENT", "ENHANCEMENT"];

static ADJUSTMENT: Message = Message {
    fields: &[
        optional("gclidDateTimePair", Kind::One(&CLICK_AND_TIME)),
        optional("orderId", Kind::Text),
        optional("conversionAction", Kind::Text),
        optional("adjustmentDateTime", Kind::Text),
        optional(
            "adjustmentType",
            Kind::Choice(
                "type.googleapis.com/google.ads.googleads.v26.enums.ConversionAdjustmentTypeEnum.ConversionAdjustmentType",
                &ADJUSTMENT_TYPES,
            ),
        ),
        optional("restatementValue", Kind::One(&RESTATEMENT)),
        optional("userIdentifiers", Kind::List(&Kind::One(&USER_IDENTIFIER))),
        optional("userAgent", Kind::Text),
    ],
    open: false,
};

static CLICK_AND_TIME: Message = Message {
    fields: &[optional("gclid", Kind::Text), optional("conversionDateTime", Kind::Text)],
    open: false,
};

static RESTATEMENT: Message = Message {
    fields: &[optional("adjustedValue", Kind::Double), optional("currencyCode", Kind::Text)],
    open: false,
};
