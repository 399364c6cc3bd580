//! One input, and what either side makes of it.

use serde::{Deserialize, Serialize};
use tracklayer_normalise::{Field, Hints, Outcome, Platform, Reason, money, normalise};

/// The year after which nobody in these tests is born.
pub const NOW_YEAR: i16 = 2026;

/// A key of Meta's `user_data`, or `currency` of its `custom_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Key {
    #[serde(rename = "em")]
    Email,
    #[serde(rename = "ph")]
    Phone,
    #[serde(rename = "ge")]
    Gender,
    #[serde(rename = "db")]
    Birthday,
    #[serde(rename = "dobd")]
    BirthDay,
    #[serde(rename = "dobm")]
    BirthMonth,
    #[serde(rename = "doby")]
    BirthYear,
    #[serde(rename = "fn")]
    FirstName,
    #[serde(rename = "ln")]
    LastName,
    #[serde(rename = "ct")]
    City,
    #[serde(rename = "st")]
    State,
    #[serde(rename = "zp")]
    PostalCode,
    #[serde(rename = "country")]
    Country,
    #[serde(rename = "external_id")]
    ExternalId,
    #[serde(rename = "madid")]
    MobileAdId,
    #[serde(rename = "client_ip_address")]
    Ip,
    #[serde(rename = "fbc")]
    Fbc,
    #[serde(rename = "fbp")]
    Fbp,
    #[serde(rename = "currency")]
    Currency,
}

impl Key {
    /// Every key that both sides have a rule for. The SDK alone still has f5first, f5last and fi, which Meta's page no longer has.
    pub const ALL: [Self; 19] = [
        Self::Email,
        Self::Phone,
        Self::Gender,
        Self::Birthday,
        Self::BirthDay,
        Self::BirthMonth,
        Self::BirthYear,
        Self::FirstName,
        Self::LastName,
        Self::City,
        Self::State,
        Self::PostalCode,
        Self::Country,
        Self::ExternalId,
        Self::MobileAdId,
        Self::Ip,
        Self::Fbc,
        Self::Fbp,
        Self::Currency,
    ];

    /// Our name of it.
    pub const fn field(self) -> Field {
        match self {
            Self::Email => Field::Email,
            Self::Phone => Field::Phone,
            Self::Gender => Field::Gender,
            Self::Birthday => Field::Birthday,
            Self::BirthDay => Field::BirthDay,
            Self::BirthMonth => Field::BirthMonth,
            Self::BirthYear => Field::BirthYear,
            Self::FirstName => Field::FirstName,
            Self::LastName => Field::LastName,
            Self::City => Field::City,
            Self::State => Field::State,
            Self::PostalCode => Field::PostalCode,
            Self::Country => Field::Country,
            Self::ExternalId => Field::ExternalId,
            Self::MobileAdId => Field::MobileAdId,
            Self::Ip => Field::Ip,
            Self::Fbc => Field::Fbc,
            Self::Fbp => Field::Fbp,
            Self::Currency => Field::Currency,
        }
    }
}

/// What is known of an input because it was made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Truth {
    /// Nothing.
    Unknown,
    /// The value that it tells, in the published form.
    Is(String),
    /// It tells no such value.
    None,
}

/// One input.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    #[serde(rename = "field")]
    pub key: Key,
    pub input: String,
    #[serde(skip)]
    pub country: Option<&'static str>,
    #[serde(skip)]
    pub truth: Truth,
}

impl Case {
    /// What we make of it: the same function as every connection calls.
    pub fn ours(&self) -> Outcome {
        if self.key == Key::Currency {
            // A currency goes out by the rule of money, which is the same for every platform.
            return match money::currency(&self.input) {
                Some(code) => Outcome::Normalised { value: code.to_owned(), hash: None },
                // Money has reasons of its own, which are not compared.
                None => Outcome::Rejected { reason: Reason::NotAField },
            };
        }
        let hints = Hints { country: self.country, now_year: Some(NOW_YEAR), ..Hints::default() };
        normalise(Platform::Meta, self.key.field(), &self.input, &hints)
    }
}

/// What the SDK makes of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Theirs {
    /// What it sends.
    pub wire: Option<String>,
    /// The text that it hashed.
    pub form: Option<String>,
    /// The kind of error that it raised: the application that builds the event gets it, and sends nothing.
    pub error: Option<String>,
}
