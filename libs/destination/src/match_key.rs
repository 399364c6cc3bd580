//! What a conversion was matched by, as far as a later change of it has to say it again: one identifier, the least that Google
//! takes. Data Manager refuses an adjustment without one, and most refunds come from a shop's server, which knows no click and
//! often no e-mail. Source: D/events/google-ads/conversion-adjustments ("identifiers are still required"); 2026-11.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tracklayer_normalise::Wire;

use crate::fields::{Fields, Member};
use crate::google::user::{Clicks, Identifiers};

/// One identifier as Google's Data Manager writes it: `{"gclid":"…"}`, `{"emailAddress":"…"}`. Personal data: `Debug` shows the
/// kind alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MatchKey {
    /// A click.
    Gclid(String),
    /// A click, aggregated.
    Gbraid(String),
    /// A click, aggregated.
    Wbraid(String),
    /// Hash.
    EmailAddress(String),
    /// Hash.
    PhoneNumber(String),
    /// A whole address, nothing more than that.
    #[serde(rename_all = "camelCase")]
    Address {
        /// Hash.
        given_name: String,
        /// Hash.
        family_name: String,
        /// Plain, upper case.
        region_code: String,
        /// Plain.
        postal_code: String,
    },
}

impl MatchKey {
    /// The first that there is: a click says least of a person.
    #[must_use]
    pub fn of(clicks: &Clicks<'_>, ids: &Identifiers<'_>) -> Option<Self> {
        let own = |id: &Option<Cow<'_, str>>| id.as_deref().map(str::to_owned);
        let click = own(&clicks.gclid).map(Self::Gclid);
        let click = click.or_else(|| own(&clicks.gbraid).map(Self::Gbraid));
        let click = click.or_else(|| own(&clicks.wbraid).map(Self::Wbraid));
        click
            .or_else(|| ids.emails.first().cloned().map(Wire::into_string).map(Self::EmailAddress))
            .or_else(|| ids.phones.first().cloned().map(Wire::into_string).map(Self::PhoneNumber))
            .or_else(|| {
                ids.address.as_ref().map(|address| Self::Address {
                    given_name: address.first_name.to_owned(),
                    family_name: address.last_name.to_owned(),
                    region_code: address.country.to_owned(),
                    postal_code: address.postal_code.to_owned(),
                })
            })
    }

    /// Whether it is a click, which may be sent also where the use of personal data is denied.
    #[must_use]
    pub const fn is_click(&self) -> bool {
        match self {
            Self::Gclid(_) | Self::Gbraid(_) | Self::Wbraid(_) => true,
            Self::EmailAddress(_) | Self::PhoneNumber(_) | Self::Address { .. } => false,
        }
    }

    /// Puts it into an event of Data Manager.
    pub fn insert_into<'a>(&'a self, body: &mut Fields<'a>) {
        let one = |key: &'static str, value: &'a str| Fields::default().with(key, value);
        let identifier = match self {
            Self::Gclid(id) => return body.insert("adIdentifiers", one("gclid", id)),
            Self::Gbraid(id) => return body.insert("adIdentifiers", one("gbraid", id)),
            Self::Wbraid(id) => return body.insert("adIdentifiers", one("wbraid", id)),
            Self::EmailAddress(hash) => one("emailAddress", hash),
            Self::PhoneNumber(hash) => one("phoneNumber", hash),
            Self::Address { given_name, family_name, region_code, postal_code } => {
                let address = one("givenName", given_name)
                    .with("familyName", family_name.as_str())
                    .with("regionCode", region_code.as_str())
                    .with("postalCode", postal_code.as_str());
                Fields::default().with("address", address)
            }
        };
        let list = Member::from_iter([identifier]);
        body.insert("userData", Fields::default().with("userIdentifiers", list));
    }
}

impl std::fmt::Debug for MatchKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gclid(_) => "gclid ***",
            Self::Gbraid(_) => "gbraid ***",
            Self::Wbraid(_) => "wbraid ***",
            Self::EmailAddress(_) => "emailAddress ***",
            Self::PhoneNumber(_) => "phoneNumber ***",
            Self::Address { .. } => "address ***",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_in_googles_words_and_never_shown() {
        let keys = [
            (MatchKey::Gclid("Cj0abc".to_owned()), r#"{"gclid":"Cj0abc"}"#),
            (MatchKey::EmailAddress("ab12".to_owned()), r#"{"emailAddress":"ab12"}"#),
        ];
        for (key, text) in keys {
            assert_eq!(serde_json::to_string(&key).unwrap(), text);
            assert_eq!(serde_json::from_str::<MatchKey>(text).unwrap(), key);
            assert!(!format!("{key:?}").contains("Cj0abc") && !format!("{key:?}").contains("ab12"));
        }
    }
}
