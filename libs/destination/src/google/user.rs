//! Whom a conversion belongs to: click ids and hashed identifiers, in Google's forms.

use tracklayer_normalise::{Field, Hints, Platform};
use tracklayer_proto::event::v1::{Channel, ClickIds};

use crate::clicks;
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::fields::Fields;
use crate::outcome::{Note, Rule};
use crate::person::{self, Keys, Person};

/// Click ids of one conversion. gclid may stand beside gbraid since October 2025; gbraid and wbraid never together; gclid
/// beside wbraid is unconfirmed, so gclid goes alone. Source: Google's post of 2025-07-22 by ppc.land; the Ads API's
/// `GBRAID_WBRAID_BOTH_SET`; 2026-11.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clicks {
    /// gclid.
    pub gclid: Option<String>,
    /// gbraid.
    pub gbraid: Option<String>,
    /// wbraid.
    pub wbraid: Option<String>,
}

impl Clicks {
    /// Of the event itself; only if it has none, of what identity knows. One that Google could not read stays behind with a
    /// note.
    #[must_use]
    pub fn of(connection: &Connection, event: &Deliverable, notes: &mut Vec<Note>) -> Self {
        let page = person::page_url(connection, event);
        let mut own = |name: &'static str, of: fn(&ClickIds) -> &str| {
            let found = clicks::of_event(connection, event, name, page.as_deref(), of)?;
            if is_readable(&found) {
                return Some(found);
            }
            notes.push(Note::rejected(name, Rule::NotOfAClickIdsLetters));
            None
        };
        let found = Self {
            gclid: own("gclid", |ids| &ids.gclid),
            gbraid: own("gbraid", |ids| &ids.gbraid),
            wbraid: own("wbraid", |ids| &ids.wbraid),
        };
        let found = if found.is_empty() {
            let known = &event.known_click_ids;
            let readable = |id: &str| clicks::usable(id).filter(|id| is_readable(id));
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
    pub fn members(&self) -> Fields {
        [("gclid", &self.gclid), ("gbraid", &self.gbraid), ("wbraid", &self.wbraid)]
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_deref()?)))
            .fold(Fields::default(), |fields, (key, value)| fields.with(key, value))
    }
}

/// Whether a click id can be read: base64url, perhaps in parts. Anything else was changed on its way and ends as
/// `UNPARSEABLE_GCLID`, or as `INVALID_GCLID` in a verdict. Source: googleads v26 `ConversionUploadError`; the letters are those of
/// all ids seen; 2026-11.
fn is_readable(id: &str) -> bool {
    id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// A postal address that is complete enough: both names, country and postal code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Hash.
    pub first_name: String,
    /// Hash.
    pub last_name: String,
    /// Hash.
    pub street: Option<String>,
    /// Plain.
    pub city: Option<String>,
    /// Plain.
    pub state: Option<String>,
    /// Plain, upper case.
    pub country: String,
    /// Plain.
    pub postal_code: String,
}

/// Identifiers of one person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identifiers {
    /// Hashes.
    pub emails: Vec<String>,
    /// Hashes.
    pub phones: Vec<String>,
    /// If complete.
    pub address: Option<Address>,
}

impl Identifiers {
    /// Reads and hashes.
    pub fn of(
        connection: &Connection,
        event: &Deliverable,
        default_country: Option<&str>,
        with_address: bool,
        notes: &mut Vec<Note>,
    ) -> Self {
        let person = Person::of(connection, event);
        let country = person.country.clone().or_else(|| default_country.map(str::to_owned));
        let hints = Hints { country: country.as_deref(), ..Hints::default() };
        let mut keys = Keys::new(Platform::Google, hints, notes);
        let emails = keys.list(format_args!("userIdentifiers.email"), Field::Email, &person.emails);
        let phones = keys.list(format_args!("userIdentifiers.phone"), Field::Phone, &person.phones);
        let address = if with_address { address(&mut keys, &person) } else { None };
        Self { emails, phones, address }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.emails.is_empty() && self.phones.is_empty() && self.address.is_none()
    }
}

/// The person's address, if it is complete enough.
pub fn address(keys: &mut Keys<'_>, person: &Person) -> Option<Address> {
    // Without one of the four there is no address: what is there is not even hashed.
    let (first, last) = (person.first_name.as_deref()?, person.last_name.as_deref()?);
    let (country, postal_code) = (person.country.as_deref()?, person.postal_code.as_deref()?);
    Some(Address {
        first_name: keys.one(format_args!("address.first_name"), Field::FirstName, Some(first))?,
        last_name: keys.one(format_args!("address.last_name"), Field::LastName, Some(last))?,
        country: keys.one(format_args!("address.country"), Field::Country, Some(country))?,
        postal_code: keys.one(format_args!("address.postal_code"), Field::PostalCode, Some(postal_code))?,
        street: keys.one(format_args!("address.street"), Field::Street, person.street.as_deref()),
        city: keys.one(format_args!("address.city"), Field::City, person.city.as_deref()),
        state: keys.one(format_args!("address.state"), Field::State, person.state.as_deref()),
    })
}
