//! Which fields a Data Manager request may have.
//!
//! Source: google-ads-datamanager 0.9.4, IngestEventsRequest; 2026-11.

use crate::shape::{Kind, Message, optional};

pub(super) static REQUEST: Message = Message {
    fields: &[
        optional("destinations", Kind::List(&Kind::One(&DESTINATION))),
        optional("events", Kind::List(&Kind::One(&EVENT))),
        optional("consent", Kind::One(&CONSENT)),
        optional("validateOnly", Kind::Flag),
        optional(
            "encoding",
            Kind::Choice(
                "type.googleapis.com/google.ads.datamanager.v1.Encoding",
                &["ENCODING_UNSPECIFIED", "HEX", "BASE64"],
            ),
        ),
        optional("encryptionInfo", Kind::One(&OPEN)),
    ],
    open: false,
};

static OPEN: Message = Message { fields: &[], open: true };

static DESTINATION: Message = Message {
    fields: &[
        optional("reference", Kind::Text),
        optional("loginAccount", Kind::One(&ACCOUNT)),
        optional("linkedAccount", Kind::One(&ACCOUNT)),
        optional("operatingAccount", Kind::One(&ACCOUNT)),
        optional("productDestinationId", Kind::Text),
    ],
    open: false,
};

static ACCOUNT: Message = Message {
    fields: &[
        optional("accountType", ACCOUNT_TYPE),
        optional("product", ACCOUNT_TYPE),
        optional("accountId", Kind::Text),
    ],
    open: false,
};

const ACCOUNT_TYPE: Kind = Kind::Choice(
    "type.googleapis.com/google.ads.datamanager.v1.ProductAccount.AccountType",
    &[
        "ACCOUNT_TYPE_UNSPECIFIED",
        "GOOGLE_ADS",
        "DISPLAY_VIDEO_PARTNER",
        "DISPLAY_VIDEO_ADVERTISER",
        "DATA_PARTNER",
        "GOOGLE_ANALYTICS_PROPERTY",
    ],
);

static EVENT: Message = Message {
    fields: &[
        optional("destinationReferences", Kind::List(&Kind::Text)),
        optional("transactionId", Kind::Text),
        optional("eventTimestamp", Kind::Stamp),
        optional("lastUpdatedTimestamp", Kind::Stamp),
        optional("userData", Kind::One(&USER_DATA)),
        optional("consent", Kind::One(&CONSENT)),
        optional("adIdentifiers", Kind::One(&AD_IDENTIFIERS)),
        optional("currency", Kind::Text),
        optional("conversionValue", Kind::Double),
        optional(
            "eventSource",
            Kind::Choice(
                "type.googleapis.com/google.ads.datamanager.v1.EventSource",
                &["EVENT_SOURCE_UNSPECIFIED", "WEB", "APP", "IN_STORE", "PHONE", "MESSAGE", "OTHER"],
            ),
        ),
        optional("eventDeviceInfo", Kind::One(&DEVICE)),
        optional("cartData", Kind::One(&CART)),
        optional("customVariables", Kind::List(&Kind::One(&CUSTOM_VARIABLE))),
        optional("experimentalFields", Kind::List(&Kind::One(&OPEN))),
        optional("userProperties", Kind::One(&USER_PROPERTIES)),
        optional("eventName", Kind::Text),
        optional("clientId", Kind::Text),
        optional("userId", Kind::Text),
        optional("additionalEventParameters", Kind::List(&Kind::One(&OPEN))),
    ],
    open: false,
};

static USER_DATA: Message =
    Message { fields: &[optional("userIdentifiers", Kind::List(&Kind::One(&USER_IDENTIFIER)))], open: false };

static USER_IDENTIFIER: Message = Message {
    fields: &[
        optional("emailAddress", Kind::Text),
        optional("phoneNumber", Kind::Text),
        optional("address", Kind::One(&ADDRESS)),
    ],
    open: false,
};

static ADDRESS: Message = Message {
    fields: &[
        optional("givenName", Kind::Text),
        optional("familyName", Kind::Text),
        optional("regionCode", Kind::Text),
        optional("postalCode", Kind::Text),
        optional("addressLine", Kind::Text),
        optional("city", Kind::Text),
        optional("administrativeArea", Kind::Text),
    ],
    open: false,
};

static CONSENT: Message = Message {
    fields: &[optional("adUserData", CONSENT_STATUS), optional("adPersonalization", CONSENT_STATUS)],
    open: false,
};

const CONSENT_STATUS: Kind = Kind::Choice(
    "type.googleapis.com/google.ads.datamanager.v1.ConsentStatus",
    &["CONSENT_STATUS_UNSPECIFIED", "CONSENT_GRANTED", "CONSENT_DENIED"],
);

static AD_IDENTIFIERS: Message = Message {
    fields: &[
        optional("sessionAttributes", Kind::Text),
        optional("gclid", Kind::Text),
        optional("gbraid", Kind::Text),
        optional("wbraid", Kind::Text),
        optional("dclid", Kind::Text),
        optional("landingPageDeviceInfo", Kind::One(&DEVICE)),
        optional("mobileDeviceId", Kind::Text),
    ],
    open: false,
};

static DEVICE: Message =
    Message { fields: &[optional("userAgent", Kind::Text), optional("ipAddress", Kind::Text)], open: true };

static CART: Message = Message {
    fields: &[
        optional("merchantId", Kind::Int64),
        optional("merchantFeedLabel", Kind::Text),
        optional("merchantFeedLanguageCode", Kind::Text),
        optional("transactionDiscount", Kind::Double),
        optional("couponCodes", Kind::List(&Kind::Text)),
        optional("items", Kind::List(&Kind::One(&CART_ITEM))),
    ],
    open: false,
};

static CART_ITEM: Message = Message {
    fields: &[
        optional("merchantProductId", Kind::Text),
        optional("quantity", Kind::Int64),
        optional("unitPrice", Kind::Double),
        optional("itemId", Kind::Text),
        optional("additionalItemParameters", Kind::List(&Kind::One(&OPEN))),
    ],
    open: false,
};

static CUSTOM_VARIABLE: Message = Message {
    fields: &[
        optional("variable", Kind::Text),
        optional("value", Kind::Text),
        optional("destinationReferences", Kind::List(&Kind::Text)),
    ],
    open: false,
};

static USER_PROPERTIES: Message = Message {
    fields: &[
        optional(
            "customerType",
            Kind::Choice(
                "type.googleapis.com/google.ads.datamanager.v1.CustomerType",
                &["CUSTOMER_TYPE_UNSPECIFIED", "NEW", "RETURNING", "REENGAGED"],
            ),
        ),
        optional("customerValueBucket", Kind::Text),
        optional("additionalUserProperties", Kind::List(&Kind::One(&OPEN))),
    ],
    open: false,
};
