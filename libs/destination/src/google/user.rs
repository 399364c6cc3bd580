//! Whom a conversion belongs to: click ids and hashed identifiers, in Google's forms.

use std::borrow::Cow;

use tracklayer_normalise::{Field, Platform, Wire};
use tracklayer_proto::event::v1::Channel;

use crate::clicks::{self, ClickId};
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::fields::Fields;
use crate::outcome::{Note, Rule};
use crate::person::{self, KeyName, PersonKeys};

/// Click ids of one conversion. gclid may stand beside gbraid since October 2025; gbraid and wbraid never together; gclid
/// beside wbraid is unconfirmed, so gclid goes alone. Source: Google's post of 2025-07-22 by ppc.land; the Ads API's
/// `GBRAID_WBRAID_BOTH_SET`; 2026-11.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clicks<'a> {
    /// gclid.
    pub gclid: Option<Cow<'a, str>>,
    /// gbraid.
    pub gbraid: Option<Cow<'a, str>>,
    /// wbraid.
    pub wbraid: Option<Cow<'a, str>>,
}

impl<'a> Clicks<'a> {
    /// Of the event itself; only if it has none, of what identity knows. One that Google could not read stays behind with a
    /// note.
    #[must_use]
    pub fn of(
        connection: &'a Connection,
        event: &'a Deliverable,
        page: Option<&'a str>,
        notes: &mut Vec<Note>,
    ) -> Self {
        let mut own = |id: ClickId| {
            let found = clicks::of_event(connection, event, id, page)?;
            if is_readable(&found) {
                return Some(found);
            }
            notes.push(Note::rejected(id.name, Rule::NotOfAClickIdsLetters));
            None
        };
        let found =
            Self { gclid: own(clicks::GCLID), gbraid: own(clicks::GBRAID), wbraid: own(clicks::WBRAID) };
        let found = if found.is_empty() {
            let known = &*event.known_click_ids;
            let readable = |id: &'a str| clicks::usable(id).filter(|id| is_readable(id)).map(Cow::Borrowed);
            Self {
                gclid: readable(&known.gclid),
                gbraid: readable(&known.gbraid),
                wbraid: readable(&known.wbraid),
            }
        } else {
            found
        };
        found.compatible(event.event.channel() == Channel::Mobile)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.gclid.is_none() && self.gbraid.is_none() && self.wbraid.is_none()
    }

    /// Whether one of Apple's aggregated ids is there.
    #[must_use]
    pub const fn has_braid(&self) -> bool {
        self.gbraid.is_some() || self.wbraid.is_some()
    }

    fn compatible(mut self, is_app: bool) -> Self {
        if self.gclid.is_some() {
            self.wbraid = None;
        } else if self.gbraid.is_some() && self.wbraid.is_some() {
            if is_app { self.wbraid = None } else { self.gbraid = None }
        }
        self
    }

    /// As JSON members.
    #[must_use]
    pub fn members(self) -> Fields<'a> {
        let mut members = Fields::with_capacity(2);
        members.push_some("gclid", self.gclid);
        members.push_some("gbraid", self.gbraid);
        members.push_some("wbraid", self.wbraid);
        members
    }
}

/// Whether a click id can be read: base64url, perhaps in parts. Anything else was changed on its way and ends as
/// `UNPARSEABLE_GCLID`, or as `INVALID_GCLID` in a verdict. Source: googleads v26 `ConversionUploadError`; the letters are those of
/// all ids seen; 2026-11.
fn is_readable(id: &str) -> bool {
    id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// A postal address that is complete enough: both names, country and postal code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    /// Hash.
    pub first_name: &'a str,
    /// Hash.
    pub last_name: &'a str,
    /// Hash.
    pub street: Option<&'a str>,
    /// Plain.
    pub city: Option<&'a str>,
    /// Plain.
    pub state: Option<&'a str>,
    /// Plain, upper case.
    pub country: &'a str,
    /// Plain.
    pub postal_code: &'a str,
}

/// Identifiers of one person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identifiers<'a> {
    /// Hashes.
    pub emails: &'a [Wire],
    /// Hashes.
    pub phones: &'a [Wire],
    /// If complete.
    pub address: Option<Address<'a>>,
}

const fn key(field: Field, name: &'static str, target: &'static str) -> KeyName {
    KeyName { field, name, target, is_list: false }
}

const EMAIL: KeyName = key(Field::Email, "email", "userIdentifiers.email");
const PHONE: KeyName = key(Field::Phone, "phone", "userIdentifiers.phone");
const FIRST_NAME: KeyName = key(Field::FirstName, "first_name", "address.first_name");
const LAST_NAME: KeyName = key(Field::LastName, "last_name", "address.last_name");
const COUNTRY: KeyName = key(Field::Country, "country", "address.country");
const POSTAL_CODE: KeyName = key(Field::PostalCode, "postal_code", "address.postal_code");
const STREET: KeyName = key(Field::Street, "street", "address.street");
const CITY: KeyName = key(Field::City, "city", "address.city");
const STATE: KeyName = key(Field::State, "state", "address.state");

/// What Google takes of a person.
pub const KEYS: [KeyName; 9] =
    [EMAIL, PHONE, FIRST_NAME, LAST_NAME, COUNTRY, POSTAL_CODE, STREET, CITY, STATE];

impl<'a> Identifiers<'a> {
    /// Reads and hashes; what is the connection's alone is kept in `own`.
    pub fn of(
        connection: &Connection,
        event: &'a Deliverable,
        default_country: Option<&str>,
        with_address: bool,
        own: &'a mut Option<PersonKeys>,
        notes: &mut Vec<Note>,
    ) -> Self {
        let keys = person::keys_of(connection, event, Platform::Google, &KEYS, (default_country, None), own);
        let (emails, phones) = (keys.texts(EMAIL, notes), keys.texts(PHONE, notes));
        let address = if with_address { address(keys, notes) } else { None };
        Self { emails, phones, address }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.emails.is_empty() && self.phones.is_empty() && self.address.is_none()
    }
}

/// The person's address, if it is complete enough.
pub fn address<'a>(keys: &'a PersonKeys, notes: &mut Vec<Note>) -> Option<Address<'a>> {
    // Without one of the four there is no address, and nothing about the others that anybody could mend.
    let needed = [Field::FirstName, Field::LastName, Field::Country, Field::PostalCode];
    if !needed.into_iter().all(|field| keys.states(field)) {
        return None;
    }
    let mut one = |name| keys.texts(name, notes).first().map(Wire::as_str);
    Some(Address {
        first_name: one(FIRST_NAME)?,
        last_name: one(LAST_NAME)?,
        country: one(COUNTRY)?,
        postal_code: one(POSTAL_CODE)?,
        street: one(STREET),
        city: one(CITY),
        state: one(STATE),
    })
}
