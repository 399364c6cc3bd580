//! The person of an event, as raw texts, and their normalised or hashed form for one platform. What cannot be used is left
//! out with a note; it never refuses the event.

use std::borrow::Cow;
use std::fmt;

use tracklayer_normalise::{Field, Hints, Outcome, Platform, normalise};

use crate::connection::{Connection, looks_personal};
use crate::deliverable::{Deliverable, text_of};
use crate::fields::{Fields, SharedTexts, Texts};
use crate::json::Json;
use crate::note::NoteReason;
use crate::outcome::{Note, NoteKind, Rule};

/// Fields that [`Person`] reads, by their names in `field_map` and `constants`.
pub const FIELDS: [&str; 11] = [
    "email",
    "phone",
    "first_name",
    "last_name",
    "gender",
    "birth_date",
    "street",
    "city",
    "state",
    "postal_code",
    "country",
];

/// Those of them that some platforms take as they are, rather than hashed.
pub(crate) const PLACES: [&str; 4] = ["city", "state", "postal_code", "country"];
/// The same as they are normalised.
const PLACE_FIELDS: [Field; 4] = [Field::City, Field::State, Field::PostalCode, Field::Country];

const EMAIL: [&str; 3] = ["properties.email", "context.traits.email", "traits.email"];
const PHONE: [&str; 6] = [
    "properties.phone",
    "context.traits.phone",
    "traits.phone",
    "properties.phone_number",
    "context.traits.phone_number",
    "traits.phone_number",
];
const FIRST_NAME: [&str; 6] = [
    "properties.firstName",
    "properties.first_name",
    "context.traits.firstName",
    "context.traits.first_name",
    "traits.firstName",
    "traits.first_name",
];
const LAST_NAME: [&str; 6] = [
    "properties.lastName",
    "properties.last_name",
    "context.traits.lastName",
    "context.traits.last_name",
    "traits.lastName",
    "traits.last_name",
];
const GENDER: [&str; 2] = ["context.traits.gender", "traits.gender"];
const BIRTH_DATE: [&str; 4] =
    ["context.traits.birthday", "context.traits.birth_date", "traits.birthday", "traits.birth_date"];
const STREET: [&str; 2] = ["context.traits.address.street", "traits.address.street"];
const CITY: [&str; 4] =
    ["context.traits.address.city", "traits.address.city", "context.traits.city", "traits.city"];
const STATE: [&str; 4] =
    ["context.traits.address.state", "traits.address.state", "context.traits.state", "traits.state"];
const POSTAL_CODE: [&str; 6] = [
    "context.traits.address.postalCode",
    "context.traits.address.postal_code",
    "traits.address.postalCode",
    "traits.address.postal_code",
    "context.traits.address.zip",
    "traits.address.zip",
];
const COUNTRY: [&str; 4] =
    ["context.traits.address.country", "traits.address.country", "context.traits.country", "traits.country"];

/// The raw texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// E-mail addresses, or their hashes.
    pub emails: Vec<String>,
    /// Phone numbers, or their hashes.
    pub phones: Vec<String>,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Gender.
    pub gender: Option<String>,
    /// Date of birth.
    pub birth_date: Option<String>,
    /// Street and number.
    pub street: Option<String>,
    /// City.
    pub city: Option<String>,
    /// State, region.
    pub state: Option<String>,
    /// Postal code.
    pub postal_code: Option<String>,
    /// Country.
    pub country: Option<String>,
}

impl Person {
    /// Reads the event; once for all connections that look at the same places.
    #[must_use]
    pub fn of<'e>(connection: &Connection, event: &'e Deliverable) -> Cow<'e, Self> {
        if connection.has_own_person_fields {
            Cow::Owned(Self::read(connection, event))
        } else {
            Cow::Borrowed(event.person(|| Self::read(connection, event)))
        }
    }

    /// The texts of one field.
    fn texts(&self, field: Field) -> &[String] {
        match field {
            Field::Email => &self.emails,
            Field::Phone => &self.phones,
            Field::FirstName => self.first_name.as_slice(),
            Field::LastName => self.last_name.as_slice(),
            Field::Gender => self.gender.as_slice(),
            Field::Birthday => self.birth_date.as_slice(),
            Field::Street => self.street.as_slice(),
            Field::City => self.city.as_slice(),
            Field::State => self.state.as_slice(),
            Field::PostalCode => self.postal_code.as_slice(),
            Field::Country => self.country.as_slice(),
            _ => &[],
        }
    }

    fn read(connection: &Connection, event: &Deliverable) -> Self {
        let text = |field, paths: &[&str]| connection.text(event, field, paths);
        let texts =
            |field, paths: &[&str]| connection.find(event, field, paths).map(texts_of).unwrap_or_default();
        Self {
            emails: texts("email", &EMAIL),
            phones: texts("phone", &PHONE),
            first_name: text("first_name", &FIRST_NAME),
            last_name: text("last_name", &LAST_NAME),
            gender: text("gender", &GENDER),
            birth_date: text("birth_date", &BIRTH_DATE),
            street: text("street", &STREET),
            city: text("city", &CITY),
            state: text("state", &STATE),
            postal_code: text("postal_code", &POSTAL_CODE),
            country: text("country", &COUNTRY),
        }
    }
}

fn texts_of(value: Json<'_>) -> Vec<String> {
    match value {
        Json::List(list) => list.iter().filter_map(text_of).collect(),
        other => text_of(other).into_iter().collect(),
    }
}

/// The person's public address, canonical; a private or broken one is noted.
pub fn address(
    connection: &Connection,
    event: &Deliverable,
    target: &'static str,
    notes: &mut Vec<Note>,
) -> Option<String> {
    let text = match event.event.ip.trim() {
        "" => connection.text(event, "ip", &["context.ip"])?,
        ip => ip.to_owned(),
    };
    tracklayer_normalise::address::public(&text)
        .map_err(|reason| notes.push(Note::of_value(NoteKind::Rejected, Field::Ip, target, reason)))
        .ok()
}

/// The person's user agent.
#[must_use]
pub fn user_agent(connection: &Connection, event: &Deliverable) -> Option<String> {
    match event.event.user_agent.trim() {
        "" => connection.text(event, "user_agent", &["context.userAgent"]),
        agent => Some(agent.to_owned()),
    }
}

/// The page's address.
#[must_use]
pub fn page_url(connection: &Connection, event: &Deliverable) -> Option<String> {
    connection.text(event, "page_url", &["context.page.url", "properties.url"]).or_else(|| {
        let url = event.event.page_url.trim();
        (!url.is_empty()).then(|| url.to_owned())
    })
}

/// The page before.
#[must_use]
pub fn referrer(connection: &Connection, event: &Deliverable) -> Option<String> {
    connection.text(event, "referrer", &["context.page.referrer", "properties.referrer"])
}

/// A text in a platform's form, or why it stays behind. Where a person lives goes out as it is at some platforms: what looks like an
/// e-mail address or a phone number does not go there, wherever it was found.
fn form_of(
    platform: Platform,
    field: Field,
    input: &str,
    hints: &Hints<'_>,
) -> Result<Option<String>, (NoteKind, NoteReason)> {
    if PLACE_FIELDS.contains(&field) && looks_personal(Json::Text(input)) {
        return Err((NoteKind::Rejected, Rule::LooksPersonal.into()));
    }
    match normalise(platform, field, input, hints) {
        Outcome::Omitted { reason } => Err((NoteKind::Omitted, reason.into())),
        Outcome::Rejected { reason } => Err((NoteKind::Rejected, reason.into())),
        outcome @ (Outcome::Normalised { .. } | Outcome::AlreadyHashed { .. }) => Ok(outcome.into_wire()),
    }
}

/// A field of a person in a platform's payload.
#[derive(Debug, Clone, Copy)]
pub struct KeyName {
    /// What it is.
    pub field: Field,
    /// The platform's name.
    pub name: &'static str,
    /// The same as notes tell it: `user_data.em`.
    pub target: &'static str,
    /// Whether the platform takes a list.
    pub is_list: bool,
}

/// A person in a platform's form: normalised and hashed once for all connections that look at the usual places.
#[derive(Debug, Clone)]
pub struct PersonKeys {
    /// The country that was taken for the person's, since a form may depend on it.
    country: Option<String>,
    now_year: Option<i16>,
    keys: Vec<PersonKey>,
}

/// One field: what goes out, and what stays behind.
#[derive(Debug, Clone)]
struct PersonKey {
    field: Field,
    texts: Option<SharedTexts>,
    left_out: Vec<(NoteKind, NoteReason)>,
}

impl PersonKeys {
    fn of(platform: Platform, person: &Person, names: &[KeyName], hints: &Hints<'_>) -> Self {
        let keys = names.iter().map(|name| PersonKey::of(platform, person.texts(name.field), *name, hints));
        Self { country: hints.country.map(str::to_owned), now_year: hints.now_year, keys: keys.collect() }
    }

    /// Whether they are what these hints give.
    fn fit(&self, hints: &Hints<'_>) -> bool {
        self.country.as_deref() == hints.country && self.now_year == hints.now_year
    }

    /// Adds the fields of these names to a payload.
    pub fn insert(&self, names: &[KeyName], user: &mut Fields, notes: &mut Vec<Note>) {
        for name in names {
            let Some(key) = self.keys.iter().find(|key| key.field == name.field) else { continue };
            user.push_some(name.name, key.texts.clone());
            for (kind, reason) in &key.left_out {
                notes.push(Note::of_value(*kind, name.field, name.target, *reason));
            }
        }
    }
}

impl PersonKey {
    fn of(platform: Platform, inputs: &[String], name: KeyName, hints: &Hints<'_>) -> Self {
        let mut left_out = Vec::new();
        let mut sent: Vec<String> = Vec::new();
        for input in inputs {
            match form_of(platform, name.field, input, hints) {
                Err(why) => left_out.push(why),
                Ok(Some(text)) if !sent.contains(&text) => sent.push(text),
                Ok(_) => {}
            }
        }
        let texts = match name.is_list {
            true => Some(sent).filter(|sent| !sent.is_empty()).map(Texts::List),
            false => sent.pop().map(Texts::One),
        };
        Self { field: name.field, texts: texts.map(SharedTexts::from), left_out }
    }
}

/// The person's fields in a platform's form, normalised anew only where this connection reads the person in places of its own
/// or takes another country for the person's.
pub fn keys_of<'e>(
    connection: &Connection,
    event: &'e Deliverable,
    platform: Platform,
    names: &[KeyName],
    default_country: Option<&str>,
    now_year: Option<i16>,
) -> Cow<'e, PersonKeys> {
    let person = Person::of(connection, event);
    let country = person.country.as_deref().or(default_country);
    let hints = Hints { country, now_year, ..Hints::default() };
    if !connection.has_own_person_fields {
        let shared = event.person_keys(platform, || PersonKeys::of(platform, &person, names, &hints));
        if shared.fit(&hints) {
            return Cow::Borrowed(shared);
        }
    }
    Cow::Owned(PersonKeys::of(platform, &person, names, &hints))
}

/// Normalises for one platform and keeps count of what had to stay behind.
pub struct Keys<'n> {
    platform: Platform,
    hints: Hints<'n>,
    notes: &'n mut Vec<Note>,
}

impl<'n> Keys<'n> {
    /// `hints` are what the person's country and the connection say.
    pub const fn new(platform: Platform, hints: Hints<'n>, notes: &'n mut Vec<Note>) -> Self {
        Self { platform, hints, notes }
    }

    /// The text to send for one field: the hash where the platform wants one.
    pub fn one(&mut self, target: fmt::Arguments<'_>, field: Field, input: Option<&str>) -> Option<String> {
        let form = form_of(self.platform, field, input?, &self.hints);
        form.unwrap_or_else(|(kind, reason)| {
            self.notes.push(Note::of_value(kind, field, target.to_string(), reason));
            None
        })
    }

    /// The same for several values of one field, without repeats.
    pub fn list(&mut self, target: fmt::Arguments<'_>, field: Field, inputs: &[String]) -> Vec<String> {
        let mut sent: Vec<String> = Vec::new();
        for input in inputs {
            if let Some(text) = self.one(target, field, Some(input))
                && !sent.contains(&text)
            {
                sent.push(text);
            }
        }
        sent
    }
}
