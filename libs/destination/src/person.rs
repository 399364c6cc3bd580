//! The person of an event: its fields' normalised or hashed form for one platform. What cannot be used is left
//! out with a note; it never refuses the event.

use std::borrow::Cow;
use std::fmt;

use tracklayer_normalise::{Field, Hints, Outcome, Platform, Wire, is_same_form, normalise, place};

use crate::connection::{Connection, looks_personal};
use crate::deliverable::{Deliverable, text_of};
use crate::fields::Fields;
use crate::json::Json;
use crate::note::NoteReason;
use crate::outcome::{Note, NoteKind, Rule};
use crate::usual::{Usual, usuals};

/// Fields of a person, by their names in `field_map` and `constants`.
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

const EMAIL: &[Usual] = usuals!["properties.email", "context.traits.email", "traits.email"];
const PHONE: &[Usual] = usuals![
    "properties.phone",
    "context.traits.phone",
    "traits.phone",
    "properties.phone_number",
    "context.traits.phone_number",
    "traits.phone_number",
];
const FIRST_NAME: &[Usual] = usuals![
    "properties.firstName",
    "properties.first_name",
    "context.traits.firstName",
    "context.traits.first_name",
    "traits.firstName",
    "traits.first_name",
];
const LAST_NAME: &[Usual] = usuals![
    "properties.lastName",
    "properties.last_name",
    "context.traits.lastName",
    "context.traits.last_name",
    "traits.lastName",
    "traits.last_name",
];
const GENDER: &[Usual] = usuals!["context.traits.gender", "traits.gender"];
const BIRTH_DATE: &[Usual] =
    usuals!["context.traits.birthday", "context.traits.birth_date", "traits.birthday", "traits.birth_date"];
const STREET: &[Usual] = usuals!["context.traits.address.street", "traits.address.street"];
const CITY: &[Usual] =
    usuals!["context.traits.address.city", "traits.address.city", "context.traits.city", "traits.city"];
const STATE: &[Usual] =
    usuals!["context.traits.address.state", "traits.address.state", "context.traits.state", "traits.state"];
const POSTAL_CODE: &[Usual] = usuals![
    "context.traits.address.postalCode",
    "context.traits.address.postal_code",
    "traits.address.postalCode",
    "traits.address.postal_code",
    "context.traits.address.zip",
    "traits.address.zip",
];
const COUNTRY: &[Usual] = usuals![
    "context.traits.address.country",
    "traits.address.country",
    "context.traits.country",
    "traits.country"
];

/// The name of a person's field in documents, and its usual places.
const fn source_of(field: Field) -> Option<(&'static str, &'static [Usual])> {
    Some(match field {
        Field::Email => ("email", EMAIL),
        Field::Phone => ("phone", PHONE),
        Field::FirstName => ("first_name", FIRST_NAME),
        Field::LastName => ("last_name", LAST_NAME),
        Field::Gender => ("gender", GENDER),
        Field::Birthday => ("birth_date", BIRTH_DATE),
        Field::Street => ("street", STREET),
        Field::City => ("city", CITY),
        Field::State => ("state", STATE),
        Field::PostalCode => ("postal_code", POSTAL_CODE),
        Field::Country => ("country", COUNTRY),
        _ => return None,
    })
}

/// The country that the person lives in, as the event or else the connection says it, where that is one.
fn country_of(connection: &Connection, event: &Deliverable, default: Option<&str>) -> Option<&'static str> {
    match connection.text(event, "country", COUNTRY) {
        Some(stated) => place::alpha2(&stated),
        None => default.and_then(place::alpha2),
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
        "" => connection.text(event, "ip", usuals!["context.ip"])?,
        ip => Cow::Borrowed(ip),
    };
    tracklayer_normalise::address::public(&text)
        .map_err(|reason| notes.push(Note::of_value(NoteKind::Rejected, Field::Ip, target, reason)))
        .ok()
}

/// The person's user agent.
#[must_use]
pub fn user_agent<'a>(connection: &'a Connection, event: &'a Deliverable) -> Option<Cow<'a, str>> {
    match event.event.user_agent.trim() {
        "" => connection.text(event, "user_agent", usuals!["context.userAgent"]),
        agent => Some(Cow::Borrowed(agent)),
    }
}

/// The page's address.
#[must_use]
pub fn page_url<'a>(connection: &'a Connection, event: &'a Deliverable) -> Option<Cow<'a, str>> {
    connection.text(event, "page_url", usuals!["context.page.url", "properties.url"]).or_else(|| {
        let url = event.event.page_url.trim();
        (!url.is_empty()).then_some(Cow::Borrowed(url))
    })
}

/// The page before.
#[must_use]
pub fn referrer<'a>(connection: &'a Connection, event: &'a Deliverable) -> Option<Cow<'a, str>> {
    connection.text(event, "referrer", usuals!["context.page.referrer", "properties.referrer"])
}

/// A text in a platform's form, or why it stays behind. Where a person lives goes out as it is at some platforms: what looks like an
/// e-mail address or a phone number does not go there, wherever it was found.
fn form_of(
    platform: Platform,
    field: Field,
    input: &str,
    hints: &Hints<'_>,
) -> Result<Option<Wire>, (NoteKind, NoteReason)> {
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
    country: Option<&'static str>,
    now_year: Option<i16>,
    keys: Vec<PersonKey>,
    /// Whether Google Analytics wants all of it in the form that Google Ads wants: it is of that platform.
    is_for_both: bool,
}

/// One field: what goes out, and what stays behind.
#[derive(Debug, Clone)]
struct PersonKey {
    field: Field,
    is_stated: bool,
    is_for_both: bool,
    texts: Texts,
    left_out: Vec<(NoteKind, NoteReason)>,
}

/// Nearly always one: it has no list of its own.
#[derive(Debug, Clone)]
enum Texts {
    None,
    One(Wire),
    Several(Vec<Wire>),
}

impl Texts {
    fn as_slice(&self) -> &[Wire] {
        match self {
            Self::None => &[],
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        }
    }

    /// Adds one, unless it is there.
    fn add(&mut self, text: Wire) {
        match self {
            Self::None => *self = Self::One(text),
            Self::One(known) if *known == text => {}
            Self::One(known) => *self = Self::Several(vec![known.clone(), text]),
            Self::Several(known) if known.contains(&text) => {}
            Self::Several(known) => known.push(text),
        }
    }
}

impl PersonKeys {
    fn of(
        connection: &Connection,
        event: &Deliverable,
        platform: Platform,
        names: &[KeyName],
        country: Option<&'static str>,
        hints: &Hints<'_>,
    ) -> Self {
        let is_of_use = |keys: &&PersonKeys| !connection.has_own_person_fields && keys.country == country;
        let known = event.known_person_keys().map(|(platform, keys)| (platform, keys.filter(is_of_use)));
        let keys =
            names.iter().map(|name| PersonKey::of(connection, event, platform, name.field, hints, &known));
        let keys: Vec<PersonKey> = keys.collect();
        Self { country, now_year: hints.now_year, is_for_both: keys.iter().all(|key| key.is_for_both), keys }
    }

    /// Whether they are what these hints give.
    fn fit(&self, hints: &Hints<'_>) -> bool {
        self.country == hints.country && self.now_year == hints.now_year
    }

    /// Adds the fields of these names to a payload.
    pub fn insert<'a>(&'a self, names: &[KeyName], user: &mut Fields<'a>, notes: &mut Vec<Note>) {
        for name in names {
            match self.texts(*name, notes) {
                [] => {}
                texts if name.is_list => user.push(name.name, texts),
                [first, ..] => user.push(name.name, first.as_str()),
            }
        }
    }

    /// What goes out for one of them; what stays behind is noted.
    pub fn texts(&self, name: KeyName, notes: &mut Vec<Note>) -> &[Wire] {
        let Some(key) = self.key(name.field) else { return &[] };
        for (kind, reason) in &key.left_out {
            notes.push(Note::of_value(*kind, name.field, name.target, *reason));
        }
        key.texts.as_slice()
    }

    /// Whether the event says anything there, of use or not.
    #[must_use]
    pub fn states(&self, field: Field) -> bool {
        self.key(field).is_some_and(|key| key.is_stated)
    }

    fn key(&self, field: Field) -> Option<&PersonKey> {
        self.keys.iter().find(|key| key.field == field)
    }
}

/// Whether two platforms want what stands there in the same form.
fn is_alike(found: Json<'_>, field: Field, one: Platform, other: Platform) -> bool {
    let is_same = |value| text_of(value).is_none_or(|text| is_same_form(one, other, field, &text));
    match found {
        Json::List(list) => list.iter().all(is_same),
        value => is_same(value),
    }
}

impl PersonKey {
    /// `known` are the forms of other platforms that were made of the same places with the same hints.
    fn of(
        connection: &Connection,
        event: &Deliverable,
        platform: Platform,
        field: Field,
        hints: &Hints<'_>,
        known: &[(Platform, Option<&PersonKeys>)],
    ) -> Self {
        let found = source_of(field).and_then(|(name, places)| connection.find(event, name, places));
        let is_for_both = platform == Platform::Google
            && found.is_none_or(|found| is_alike(found, field, Platform::Google, Platform::Ga4));
        let alike = known.iter().find_map(|(other, keys)| {
            keys.as_ref()?
                .key(field)
                .filter(|_| is_alike(found.unwrap_or(Json::Null), field, platform, *other))
        });
        if let Some(alike) = alike {
            return Self { is_for_both, ..alike.clone() };
        }
        let mut key = Self { field, is_stated: false, is_for_both, texts: Texts::None, left_out: Vec::new() };
        match found {
            None => {}
            // Lists are of contacts: nobody has two names.
            Some(Json::List(list)) if matches!(field, Field::Email | Field::Phone) => {
                list.iter().for_each(|value| key.add(platform, value, hints));
            }
            Some(value) => key.add(platform, value, hints),
        }
        key
    }

    fn add(&mut self, platform: Platform, value: Json<'_>, hints: &Hints<'_>) {
        let Some(text) = text_of(value) else { return };
        self.is_stated = true;
        match form_of(platform, self.field, &text, hints) {
            Err(why) => self.left_out.push(why),
            Ok(Some(form)) => self.texts.add(form),
            Ok(None) => {}
        }
    }
}

/// The person's fields in a platform's form, normalised anew only where this connection reads the person in places of its own
/// or takes another country for the person's: then they are kept in `own`.
pub fn keys_of<'a>(
    connection: &Connection,
    event: &'a Deliverable,
    platform: Platform,
    names: &[KeyName],
    (default_country, now_year): (Option<&str>, Option<i16>),
    own: &'a mut Option<PersonKeys>,
) -> &'a PersonKeys {
    let country = country_of(connection, event, default_country);
    let hints = Hints { country, now_year, numbers: Some(event.numbers()), ..Hints::default() };
    let normalise = |platform| PersonKeys::of(connection, event, platform, names, country, &hints);
    if !connection.has_own_person_fields {
        if platform == Platform::Ga4 {
            let shared = event.person_keys(Platform::Google, || normalise(Platform::Google));
            if shared.is_for_both && shared.fit(&hints) {
                return shared;
            }
        }
        let shared = event.person_keys(platform, || normalise(platform));
        if shared.fit(&hints) {
            return shared;
        }
    }
    own.insert(normalise(platform))
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
    pub fn one(&mut self, target: fmt::Arguments<'_>, field: Field, input: Option<&str>) -> Option<Wire> {
        let form = form_of(self.platform, field, input?, &self.hints);
        form.unwrap_or_else(|(kind, reason)| {
            self.notes.push(Note::of_value(kind, field, target.to_string(), reason));
            None
        })
    }
}
